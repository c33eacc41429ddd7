//! The groups of one connection on this node.

use crate::topic::GroupName;

/// A membership as the server has it, and as the lane has it: the lane follows through the log.
#[derive(Clone, Copy, Default)]
pub(super) struct Membership {
    /// The server has the membership; it is registered again when the server forgets it.
    pub(super) registered: bool,
    /// The lane has passed the join: the connection receives the topic's messages.
    pub(super) live: bool,
}

/// The memberships of one connection, by the group's name. Most connections have one or two: it owns little more than
/// what these take.
#[derive(Default)]
pub(super) struct Memberships(Vec<(GroupName, Membership)>);

impl Memberships {
    pub(super) fn get(&self, group: &GroupName) -> Option<&Membership> {
        let index = self.position(group).ok()?;
        self.0.get(index).map(|(_, membership)| membership)
    }

    /// Changes a membership, which begins as none. One that is none afterwards is forgotten.
    pub(super) fn change<T>(&mut self, group: &GroupName, change: impl FnOnce(&mut Membership) -> T) -> T {
        let place = self.position(group);
        let known = place.ok().and_then(|index| self.0.get(index));
        let mut membership = known.map(|(_, known)| *known).unwrap_or_default();
        let changed = change(&mut membership);
        match place {
            Ok(index) if membership.is_none() => drop(self.0.remove(index)),
            Ok(index) => {
                if let Some((_, known)) = self.0.get_mut(index) {
                    *known = membership;
                }
            }
            Err(_) if membership.is_none() => {}
            Err(index) => {
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(self.0.len() / 4 + 1);
                }
                self.0.insert(index, (group.clone(), membership));
            }
        }
        changed
    }

    /// Changes all of them, as [`change`](Self::change).
    pub(super) fn change_all(&mut self, mut change: impl FnMut(&GroupName, &mut Membership)) {
        self.0.retain_mut(|(group, membership)| {
            change(group, membership);
            !membership.is_none()
        });
    }

    /// The groups in which the server has the connection.
    pub(super) fn registered(&self) -> impl Iterator<Item = &GroupName> {
        let registered = self.0.iter().filter(|(_, membership)| membership.registered);
        registered.map(|(group, _)| group)
    }

    fn position(&self, group: &GroupName) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(group))
    }
}

impl Membership {
    fn is_none(self) -> bool {
        !self.registered && !self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    #[test]
    fn a_membership_is_found_by_its_name_until_it_is_none() {
        let mut memberships = Memberships::default();
        let names = ["m", "a", "z", "b"].map(group);
        for name in &names {
            memberships.change(name, |membership| membership.registered = true);
        }
        memberships.change(&group("m"), |membership| membership.live = true);
        memberships.change(&group("unknown"), |_| {});
        assert_eq!(memberships.registered().count(), 4);
        for name in &names {
            assert!(memberships.get(name).is_some_and(|known| known.registered));
            memberships.change(name, |membership| membership.registered = false);
        }
        let left = memberships.get(&group("m"));
        assert!(left.is_some_and(|known| known.live && !known.registered));
        memberships.change_all(|_, membership| membership.live = false);
        assert!(memberships.0.is_empty(), "none is left over");
    }

    #[test]
    fn a_connection_in_one_group_owns_the_room_for_one() {
        let mut memberships = Memberships::default();
        memberships.change(&group("g"), |membership| membership.live = true);
        assert_eq!(memberships.0.capacity(), 1);
    }
}
