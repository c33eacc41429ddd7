//! Groups, their members, and the groups that users join.

use bytes::Bytes;

use crate::redis::script::arguments::Marked;
use crate::redis::script::declaration::{BatchScript, Part, Scope};
use crate::redis::script::declared::script;
use crate::redis::script::settings::PresenceSettings;
use crate::topic::{ConnectionId, GroupName, NodeId};

script! {
    /// Joins a connection to a group and logs the offset from which on it is a member.
    Join<'a> = "join", Scope::Operation(BatchScript::All);
    keys { connection, groups, group_names }
    arguments {
        owner: Option<&'a NodeId>,
        id: &'a ConnectionId,
        group: &'a GroupName,
        unchanged: Bytes,
        channel: String,
        topic: String,
        changed: Bytes,
        kept: u128,
        group_prefix: String,
        presence: Option<&'a PresenceSettings>,
    }
}

script! {
    /// Takes a connection out of a group and logs the offset up to which it was a member.
    Leave<'a> = "leave", as Join;
}

script! {
    /// Lists a connection that has entered in some of the groups that it entered with.
    List<'a> = "list", Scope::Operation(BatchScript::All);
    keys { connection, groups, group_names }
    arguments {
        node: &'a NodeId,
        id: &'a ConnectionId,
        group_prefix: String,
        presence: Option<&'a PresenceSettings>,
    }
    each listed: &'a GroupName as [group]
}

script! {
    /// Takes a connection that was removed out of some more of the groups that it is still listed in.
    Unlist<'a> = "unlist", Scope::Operation(BatchScript::All);
    keys { connection, groups, group_names, leaving }
    arguments {
        id: &'a ConnectionId,
        group_prefix: String,
        presence: Option<&'a PresenceSettings>,
        most: usize,
    }
}

script! {
    /// Sets or clears the state of a connection in a group that it is in, and announces that.
    SetState<'a> = "set_state", Scope::Operation(BatchScript::All);
    keys { connection, request: Option<String> }
    arguments {
        owner: &'a NodeId,
        id: &'a ConnectionId,
        group: &'a GroupName,
        state: Option<Marked<'a>>,
        again: bool,
        most: usize,
        group_prefix: String,
        request_life: Option<u128>,
    }
}

script! {
    /// Reads the states of a group's members.
    ReadStates = "states", Scope::Alone(&[Part::Log]);
    keys { log, states }
    arguments {}
}

script! {
    /// Records that a user's connections are to join a group.
    UserJoin<'a> = "user_join", Scope::Operation(BatchScript::All);
    keys { user_groups }
    arguments { group: &'a GroupName, life: u128, most: usize }
}

script! {
    /// Lists the groups that a user's connections are to join.
    UserGroups<'a> = "user_groups", Scope::Alone(&[Part::Log]);
    keys { user_groups }
    arguments { group: Option<&'a GroupName> }
}

script! {
    /// Reads a page of the connections of a group, with their users.
    ReadPresent = "present", Scope::Alone(&[]);
    keys { members }
    arguments { from: String, most: usize, connection_prefix: String }
}
