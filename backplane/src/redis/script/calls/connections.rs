//! Connections: who owns them, and their end.

use bytes::Bytes;

use crate::redis::feed::local::Reported;
use crate::redis::script::arguments::Marked;
use crate::redis::script::declaration::{BatchScript, Part, Scope};
use crate::redis::script::declared::script;
use crate::redis::script::settings::{EventSettings, PresenceSettings};
use crate::sessions::Version;
use crate::topic::{ConnectionId, GroupName, NodeId, UserId};

script! {
    /// Makes a node the owner of a connection that has no owner and was never closed.
    Claim<'a> = "claim", Scope::Operation(BatchScript::All);
    keys { connection, owned, tombstone }
    arguments {
        node: &'a NodeId,
        id: &'a ConnectionId,
        user: Option<&'a UserId>,
        epoch: &'a str,
        settled: u128,
        first_epoch: &'a str,
        first_settled: u128,
    }
}

script! {
    /// Logs the offset from which on a connection receives its topics.
    Enter<'a> = "enter", Scope::Operation(BatchScript::All);
    keys { connection, owned, tombstone, user_connections, user_groups, groups, group_names }
    arguments {
        node: &'a NodeId,
        id: &'a ConnectionId,
        user: Option<&'a UserId>,
        claim: bool,
        state: Option<Marked<'a>>,
        channel: String,
        topic: String,
        entry: Bytes,
        kept: u128,
        group_prefix: String,
        presence: Option<&'a PresenceSettings>,
        events: Option<&'a EventSettings>,
        payload: Bytes,
        event_state: Bytes,
    }
    each first: &'a GroupName as [group]
}

script! {
    /// Gives up a connection that was claimed and not entered.
    Release<'a> = "release", Scope::Operation(BatchScript::All);
    keys { connection, owned }
    arguments { node: &'a NodeId, id: &'a ConnectionId }
}

script! {
    /// Removes a connection: the directory does not have it any more, and a tombstone refuses its id.
    Remove<'a> = "remove", Scope::Operation(BatchScript::All);
    keys {
        connection,
        groups,
        owned,
        tombstone,
        stream,
        tail,
        calls,
        parked,
        group_names,
        leaving,
        ended,
    }
    arguments {
        owner: Option<&'a NodeId>,
        id: &'a ConnectionId,
        tombstone_life: u128,
        removal: &'a str,
        group_prefix: String,
        user_prefix: String,
        presence: Option<&'a PresenceSettings>,
        most: usize,
        early: bool,
        known_in: String,
        reports: bool,
        reporter: Option<&'a NodeId>,
        report: Option<Bytes>,
        version: Option<Version>,
        events: Option<&'a EventSettings>,
        assignee: &'a NodeId,
        reason: &'a str,
        reported: Option<&'a Reported>,
    }
}

script! {
    /// Registers a connection again with its owner's data, after the server may have forgotten it.
    Register<'a> = "register", Scope::Operation(BatchScript::All);
    keys { connection, groups, owned, tombstone, group_names, parked }
    arguments {
        node: &'a NodeId,
        id: &'a ConnectionId,
        user: Option<&'a UserId>,
        entered: bool,
        group_prefix: String,
        user_prefix: String,
        presence: Option<&'a PresenceSettings>,
        version: Option<Version>,
        node_prefix: String,
        reported: Option<&'a Reported>,
    }
    each some: &'a GroupName as [group]
}

script! {
    /// Makes a node the one that reports a connection's end.
    Adopt<'a> = "adopt", Scope::Operation(BatchScript::All);
    keys { ended }
    arguments { id: &'a ConnectionId, found: Bytes, mine: Bytes }
}

script! {
    /// Reads the directory's entry of a connection.
    LookUp = "lookup", Scope::Alone(&[Part::Log, Part::Reading]);
    keys { log, connection, tombstone }
    arguments {}
}

script! {
    /// Lists connections of a sorted set whose time is up.
    Overdue = "overdue", Scope::Alone(&[Part::Log]);
    keys { waiting }
    arguments { most: usize }
}

script! {
    /// Counts a hub's connections and groups.
    CountConnections = "connection_statistics", Scope::Alone(&[]);
    keys { parked, group_names }
    each nodes: String as [owned]
    arguments {}
}
