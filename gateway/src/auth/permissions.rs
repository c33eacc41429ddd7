//! Permissions of a client to join, watch and send to groups by itself, where no hub code decides.

use super::grants::{Grants, Permission};

/// The permissions that a client's roles give in hubs without code of their own.
///
/// | role | permits |
/// | --- | --- |
/// | `hubcast.join` | joining and leaving every group |
/// | `hubcast.join.GROUP` | joining and leaving that group |
/// | `hubcast.send` | sending to every group, to every user and to all |
/// | `hubcast.send.GROUP` | sending to that group |
/// | `hubcast.watch` | watching every group: who is in it, who comes and goes |
/// | `hubcast.watch.GROUP` | watching that group |
/// | `webpubsub.joinLeaveGroup` | as `hubcast.join` |
/// | `webpubsub.joinLeaveGroup.GROUP` | joining and leaving that group |
/// | `webpubsub.sendToGroup` | sending to every group |
/// | `webpubsub.sendToGroup.GROUP` | sending to that group |
/// | `webpubsub.joinLeaveGroups.PATTERN` | joining and leaving the groups that match |
/// | `webpubsub.sendToGroups.PATTERN` | sending to the groups that match |
///
/// A `GROUP` of Hubcast's roles that ends in `*` means every group whose name begins with the text before it; a `*`
/// elsewhere is a letter like others, and so it is in Web PubSub's `GROUP`. In a `PATTERN`, `?` is one character but a
/// dot, `*` any number of those, `**` any number of any characters, and `\` makes a letter of the next character; a
/// role with more than five stars permits nothing. Case counts. Without a role nothing is permitted.
///
/// ```
/// use hubcast::auth::Permissions;
///
/// let permissions = Permissions::of(["hubcast.join.room-*", "hubcast.send.room-7"]);
/// assert!(permissions.may_join("room-7") && permissions.may_join("room-8"));
/// assert!(permissions.may_send_to_group("room-7") && !permissions.may_send_to_group("room-8"));
/// assert!(!permissions.may_join("hall") && !permissions.may_send_to_all());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions<'a> {
    join: GroupPermissions<'a>,
    send: GroupPermissions<'a>,
    watch: GroupPermissions<'a>,
    everybody: bool,
    /// The permissions that a back end gave and took since.
    grants: Option<&'a Grants>,
}

impl<'a> Permissions<'a> {
    /// The same, with what a back end gave and took.
    pub(super) fn with(self, grants: Option<&'a Grants>) -> Self {
        Self { grants, ..self }
    }

    /// Returns whether the client has a permission, for a group or for all.
    pub(super) fn has(&self, permission: Permission, group: Option<&str>) -> bool {
        let by_roles = match permission {
            Permission::SendToGroup => &self.send,
            Permission::JoinLeaveGroup => &self.join,
        };
        let changes = self.grants.map(|grants| grants.of(permission));
        match (group, changes) {
            (Some(group), Some(changes)) => changes.permit(group, || by_roles.hold(group)),
            (Some(group), None) => by_roles.hold(group),
            (None, Some(changes)) => changes.permit_all(by_roles.all),
            (None, None) => by_roles.all,
        }
    }

    /// The permissions that these roles give together.
    pub fn of(roles: impl IntoIterator<Item = &'a str>) -> Self {
        let mut permissions = Self::default();
        for role in roles {
            permissions.add(role);
        }
        permissions
    }

    fn add(&mut self, role: &'a str) {
        match role {
            "hubcast.join" | "webpubsub.joinLeaveGroup" => self.join.all = true,
            "hubcast.send" => {
                self.send.all = true;
                self.everybody = true;
            }
            "hubcast.watch" => self.watch.all = true,
            "webpubsub.sendToGroup" => self.send.all = true,
            _ => {
                if let Some(pattern) = role.strip_prefix("hubcast.join.") {
                    self.join.add_pattern(pattern);
                } else if let Some(pattern) = role.strip_prefix("hubcast.send.") {
                    self.send.add_pattern(pattern);
                } else if let Some(pattern) = role.strip_prefix("hubcast.watch.") {
                    self.watch.add_pattern(pattern);
                } else if let Some(group) = role.strip_prefix("webpubsub.joinLeaveGroup.") {
                    self.join.names.push(group);
                } else if let Some(group) = role.strip_prefix("webpubsub.sendToGroup.") {
                    self.send.names.push(group);
                } else if let Some(pattern) = role.strip_prefix("webpubsub.joinLeaveGroups.") {
                    self.join.globs.push(pattern);
                } else if let Some(pattern) = role.strip_prefix("webpubsub.sendToGroups.") {
                    self.send.globs.push(pattern);
                }
            }
        }
    }

    /// Returns whether the client may join and leave a group by itself.
    #[must_use]
    pub fn may_join(&self, group: &str) -> bool {
        self.has(Permission::JoinLeaveGroup, Some(group))
    }

    /// Returns whether the client may watch a group: get the list of its members, and each join and leave. It need not
    /// be in it, and may not join it for that.
    #[must_use]
    pub fn may_watch(&self, group: &str) -> bool {
        self.watch.hold(group)
    }

    /// Returns whether the client may send to a group.
    #[must_use]
    pub fn may_send_to_group(&self, group: &str) -> bool {
        self.has(Permission::SendToGroup, Some(group))
    }

    /// Returns whether the client may send to users.
    #[must_use]
    pub fn may_send_to_users(&self) -> bool {
        self.everybody
    }

    /// Returns whether the client may send to all clients.
    #[must_use]
    pub fn may_send_to_all(&self) -> bool {
        self.everybody
    }
}

/// Some groups, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct GroupPermissions<'a> {
    all: bool,
    names: Vec<&'a str>,
    beginnings: Vec<&'a str>,
    globs: Vec<&'a str>,
}

impl<'a> GroupPermissions<'a> {
    fn add_pattern(&mut self, pattern: &'a str) {
        match pattern.strip_suffix('*') {
            Some(beginning) => self.beginnings.push(beginning),
            None => self.names.push(pattern),
        }
    }

    fn hold(&self, group: &str) -> bool {
        self.all
            || self.names.contains(&group)
            || self
                .beginnings
                .iter()
                .any(|beginning| group.starts_with(beginning))
            || self.globs.iter().any(|pattern| matches(pattern, group))
    }
}

/// Stars that one of Web PubSub's patterns may have.
const MOST_STARS: usize = 5;

/// A part of one of Web PubSub's patterns.
enum PatternPart {
    Letter(char),
    /// One character but a dot.
    One,
    /// Any number of characters; dots only where it says so.
    Many {
        dots: bool,
    },
}

/// Returns whether a group's name matches one of Web PubSub's patterns.
fn matches(pattern: &str, group: &str) -> bool {
    let Some(parts) = parts(pattern) else {
        return false;
    };
    // The parts that may be the next one, after each character: never worse than the product of the lengths.
    let mut next = vec![false; parts.len().saturating_add(1)];
    reach(&parts, &mut next, 0);
    for character in group.chars() {
        let mut after = vec![false; next.len()];
        let possible = parts.iter().enumerate().zip(&next).filter(|(_, next)| **next);
        for ((index, part), _) in possible {
            let reached = match part {
                PatternPart::Letter(letter) => (*letter == character).then_some(index.saturating_add(1)),
                PatternPart::One => (character != '.').then_some(index.saturating_add(1)),
                PatternPart::Many { dots } => (*dots || character != '.').then_some(index),
            };
            if let Some(index) = reached {
                reach(&parts, &mut after, index);
            }
        }
        next = after;
    }
    next.last() == Some(&true)
}

/// Marks a part as a possible next one, and the part after it where it may be empty.
fn reach(parts: &[PatternPart], next: &mut [bool], index: usize) {
    if let Some(place) = next.get_mut(index) {
        *place = true;
    }
    if let Some(PatternPart::Many { .. }) = parts.get(index) {
        reach(parts, next, index.saturating_add(1));
    }
}

/// The parts of a pattern; `None` where it is none.
fn parts(pattern: &str) -> Option<Vec<PatternPart>> {
    if pattern.is_empty() {
        return None;
    }
    let (mut parts, mut stars) = (Vec::new(), 0_usize);
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        parts.push(match character {
            '\\' => PatternPart::Letter(characters.next()?),
            '?' => PatternPart::One,
            '*' => {
                let dots = characters.next_if_eq(&'*').is_some();
                stars = stars.saturating_add(1).saturating_add(usize::from(dots));
                PatternPart::Many { dots }
            }
            letter => PatternPart::Letter(letter),
        });
    }
    (stars <= MOST_STARS).then_some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_role_permits_nothing() {
        for roles in [
            &[][..],
            &["admin", "hubcast", "hubcast.", "hubcast.joins", "hubcast.join."],
            &["Hubcast.Join", "HUBCAST.SEND", " hubcast.join", "hubcast.join "],
            &[
                "hubcast.watch.",
                "hubcast.Watch",
                "hubcast.watcher",
                "webpubsub.watch",
            ],
            &["webpubsub", "webpubsub.joinLeaveGroup.", "webpubsub.sendtogroup"],
        ] {
            let permissions = Permissions::of(roles.iter().copied());
            for group in ["a", "*", " ", "join"] {
                assert!(!permissions.may_join(group), "{roles:?} {group}");
                assert!(!permissions.may_send_to_group(group), "{roles:?} {group}");
                assert!(!permissions.may_watch(group), "{roles:?} {group}");
            }
            assert!(!permissions.may_send_to_all() && !permissions.may_send_to_users());
        }
    }

    #[test]
    fn joining_and_sending_are_separate() {
        let join = Permissions::of(["hubcast.join"]);
        assert!(join.may_join("a") && !join.may_send_to_group("a") && !join.may_send_to_all());
        let send = Permissions::of(["hubcast.send"]);
        assert!(!send.may_join("a") && send.may_send_to_group("a"));
        assert!(send.may_send_to_all() && send.may_send_to_users());
        let groups = Permissions::of(["webpubsub.sendToGroup"]);
        assert!(groups.may_send_to_group("a") && !groups.may_send_to_all() && !groups.may_send_to_users());
        let watch = Permissions::of(["hubcast.watch"]);
        assert!(watch.may_watch("a") && !watch.may_join("a") && !watch.may_send_to_group("a"));
        assert!(!join.may_watch("a") && !send.may_watch("a") && !groups.may_watch("a"));
        let some = Permissions::of(["hubcast.watch.a", "hubcast.watch.b*"]);
        assert!(some.may_watch("a") && some.may_watch("bc") && !some.may_watch("ac"));
        let one = Permissions::of(["hubcast.send.a"]);
        assert!(one.may_send_to_group("a") && !one.may_send_to_group("b") && !one.may_send_to_all());
    }

    #[test]
    fn a_star_at_the_end_is_a_pattern_and_nowhere_else() {
        let permissions = Permissions::of(["hubcast.join.a.*", "hubcast.join.b*c", "hubcast.send.*"]);
        assert!(permissions.may_join("a.") && permissions.may_join("a.b.c"));
        assert!(!permissions.may_join("a") && !permissions.may_join("xa.b"));
        assert!(permissions.may_join("b*c") && !permissions.may_join("bxc"));
        assert!(permissions.may_send_to_group("anything"));
        assert!(!permissions.may_send_to_all(), "every group is not everybody");
        let exact = Permissions::of(["webpubsub.joinLeaveGroup.a*", "webpubsub.sendToGroup.a*"]);
        assert!(exact.may_join("a*") && !exact.may_join("ab"));
        assert!(exact.may_send_to_group("a*") && !exact.may_send_to_group("ab"));
    }

    #[test]
    fn patterns_are_those_of_web_pubsub() {
        let cases = [
            ("a", &["a"][..], &["", "aa", "b", "A"][..]),
            ("room-?", &["room-1", "room-ü"], &["room-", "room-.", "room-10"]),
            ("room.*", &["room.", "room.1", "room.ab"], &["room", "room.1.2"]),
            ("room.**", &["room.", "room.1.2"], &["room", "rooms.1"]),
            ("*.*.x", &["..x", "a.b.x"], &["a.x", "a.b.c.x"]),
            ("**.x", &[".x", "a.b.x"], &["x", "a.b.y"]),
            (r"a\*\?\\", &[r"a*?\"], &["abc", "a*"]),
            ("*a*a*a*", &["aaa", "xaxaxax"], &["aa", "a.a.a"]),
            ("******", &[], &["", "a"]),
            ("", &[], &["", "a"]),
            (r"a\", &[], &["a", r"a\"]),
        ];
        for (pattern, permitted, refused) in cases {
            let (join, send) = (
                format!("webpubsub.joinLeaveGroups.{pattern}"),
                format!("webpubsub.sendToGroups.{pattern}"),
            );
            let (join, send) = (Permissions::of([join.as_str()]), Permissions::of([send.as_str()]));
            for group in permitted {
                assert!(
                    join.may_join(group) && send.may_send_to_group(group),
                    "{pattern} {group}"
                );
                assert!(
                    !join.may_send_to_group(group) && !send.may_join(group),
                    "{pattern} {group}"
                );
            }
            for group in refused {
                assert!(
                    !join.may_join(group) && !send.may_send_to_group(group),
                    "{pattern} {group}"
                );
            }
        }
        // A pattern that would keep a backtracking search busy for ever.
        let long = "a".repeat(1_000);
        assert!(!Permissions::of(["webpubsub.joinLeaveGroups.*a*a*a*a*b"]).may_join(&long));
    }

    proptest! {
        #[test]
        fn a_role_for_one_group_is_for_no_other(group in "[a-z.]{0,8}", other in "[a-z.]{1,8}") {
            let (join, send) = (format!("hubcast.join.{group}"), format!("webpubsub.sendToGroup.{group}"));
            let permissions = Permissions::of([join.as_str(), send.as_str()]);
            prop_assert_eq!(permissions.may_join(&other), group == other);
            prop_assert_eq!(permissions.may_send_to_group(&other), group == other);
        }
    }
}
