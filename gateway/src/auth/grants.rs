//! Permissions that a back end gave and took while a connection lives, beside those of its roles.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Most groups that one permission of a connection may be given or taken for by name, as in Azure Web PubSub.
const MOST_NAMES: usize = 1_000;

/// A permission that can be given and taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    SendToGroup,
    JoinLeaveGroup,
}

impl Permission {
    pub(crate) const ALL: [Self; 2] = [Self::SendToGroup, Self::JoinLeaveGroup];

    /// Its name in the REST API of Web PubSub.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SendToGroup => "sendToGroup",
            Self::JoinLeaveGroup => "joinLeaveGroup",
        }
    }
}

/// The request of a back end about a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Grant,
    Revoke,
    /// Only to know whether the connection has it.
    Check,
}

impl Wish {
    pub(crate) const ALL: [Self; 3] = [Self::Grant, Self::Revoke, Self::Check];
}

/// A request about a permission of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PermissionRequest {
    pub(crate) permission: Permission,
    /// The group that it is for; `None` for all.
    pub(crate) group: Option<String>,
    pub(crate) wish: Wish,
}

/// There are too many exceptions already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the permission was given or taken for {MOST_NAMES} groups by name; give or take it for all groups first"
)]
pub(crate) struct TooManyGrants;

/// The permissions that were given and taken, of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Grants {
    send: PermissionChanges,
    join: PermissionChanges,
}

/// The changes of one permission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PermissionChanges {
    /// For all groups but the exceptions; unless set, the roles decide.
    all: Option<bool>,
    granted: BTreeSet<String>,
    revoked: BTreeSet<String>,
}

impl Grants {
    pub(super) fn of(&self, permission: Permission) -> &PermissionChanges {
        match permission {
            Permission::SendToGroup => &self.send,
            Permission::JoinLeaveGroup => &self.join,
        }
    }

    /// Gives or takes a permission. `by_roles`: whether the roles give it for that group.
    pub(super) fn change(
        &mut self,
        permission: Permission,
        group: Option<&str>,
        give: bool,
        by_roles: bool,
    ) -> Result<(), TooManyGrants> {
        let changes = match permission {
            Permission::SendToGroup => &mut self.send,
            Permission::JoinLeaveGroup => &mut self.join,
        };
        match group {
            Some(group) => changes.change_one(group, give, by_roles),
            None => {
                *changes = PermissionChanges {
                    all: Some(give),
                    ..PermissionChanges::default()
                };
                Ok(())
            }
        }
    }
}

impl PermissionChanges {
    /// Returns whether a group is permitted.
    pub(super) fn permit(&self, group: &str, by_roles: impl FnOnce() -> bool) -> bool {
        if self.revoked.contains(group) {
            return false;
        }
        self.granted.contains(group) || self.all.unwrap_or_else(by_roles)
    }

    /// Returns whether every group is permitted.
    pub(super) fn permit_all(&self, by_roles: bool) -> bool {
        self.all.unwrap_or(by_roles) && self.revoked.is_empty()
    }

    fn change_one(&mut self, group: &str, give: bool, by_roles: bool) -> Result<(), TooManyGrants> {
        let (to, from) = if give {
            (&mut self.granted, &mut self.revoked)
        } else {
            (&mut self.revoked, &mut self.granted)
        };
        from.remove(group);
        if self.all.unwrap_or(by_roles) == give || to.contains(group) {
            return Ok(());
        }
        if to.len() >= MOST_NAMES {
            return Err(TooManyGrants);
        }
        to.insert(group.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND: Permission = Permission::SendToGroup;

    fn permits(grants: &Grants, group: &str, by_roles: bool) -> bool {
        grants.of(SEND).permit(group, || by_roles)
    }

    #[test]
    fn exceptions_come_before_the_default_and_the_default_before_the_roles() {
        let mut grants = Grants::default();
        assert!(permits(&grants, "a", true) && !permits(&grants, "a", false));
        grants.change(SEND, Some("a"), true, false).unwrap();
        assert!(permits(&grants, "a", false) && !permits(&grants, "b", false));
        assert!(!grants.of(SEND).permit_all(false));
        grants.change(SEND, Some("a"), false, false).unwrap();
        assert_eq!(grants, Grants::default(), "nothing is kept that the roles say");
        grants.change(SEND, None, true, false).unwrap();
        assert!(permits(&grants, "b", false) && grants.of(SEND).permit_all(false));
        grants.change(SEND, Some("b"), false, false).unwrap();
        assert!(!permits(&grants, "b", true) && permits(&grants, "c", false));
        assert!(!grants.of(SEND).permit_all(true));
        grants.change(SEND, None, false, true).unwrap();
        assert!(!permits(&grants, "c", true));
        assert_eq!(
            grants.of(Permission::JoinLeaveGroup),
            &PermissionChanges::default()
        );
    }

    #[test]
    fn names_are_bounded() {
        let mut grants = Grants::default();
        for number in 0..MOST_NAMES {
            grants
                .change(SEND, Some(&number.to_string()), true, false)
                .unwrap();
        }
        assert_eq!(grants.change(SEND, Some("x"), true, false), Err(TooManyGrants));
        assert_eq!(grants.change(SEND, Some("0"), true, false), Ok(()));
        assert_eq!(grants.change(SEND, Some("0"), false, false), Ok(()));
        assert_eq!(grants.change(SEND, Some("x"), true, false), Ok(()));
    }
}
