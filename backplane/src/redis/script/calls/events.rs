//! Connection events: the hub's stream of them.

use bytes::Bytes;

use crate::events::EventPlace;
use crate::redis::script::declaration::{BatchScript, Part, Scope};
use crate::redis::script::declared::script;
use crate::topic::NodeId;

script! {
    /// Replaces the state that a connection's events carry.
    RestateEvents<'a> = "restate_events", Scope::Operation(BatchScript::All);
    keys { connection }
    arguments { node: &'a NodeId, state: Bytes }
}

script! {
    /// Reads unfinished events that are assigned to a node.
    ReadEvents<'a> = "read_events", Scope::Alone(&[]);
    keys { stream }
    arguments { node: &'a NodeId, after: EventPlace, most: usize }
    each awaited: EventPlace as [place]
}

script! {
    /// Records that events of a node are finished.
    FinishEvents<'a> = "finish_events", Scope::Alone(&[]);
    keys { stream }
    arguments { node: &'a NodeId }
    each places: EventPlace as [place]
}

script! {
    /// Tells whose an unfinished event is.
    NodeOfEvent = "events_of", Scope::Alone(&[]);
    keys { stream, connection }
    arguments { place: Option<EventPlace> }
}

script! {
    /// Assigns events of nodes that are gone to another node.
    ClaimEvents<'a> = "claim_events", Scope::Alone(&[]);
    keys { stream }
    arguments { node: &'a NodeId, most: usize }
    each gone: &'a NodeId as [gone]
}

script! {
    /// Counts the unfinished events.
    CountPending = "pending_events", Scope::Alone(&[Part::Log]);
    keys { stream }
    arguments {}
}

script! {
    /// Reads events of the hub's stream, whatever became of them.
    FollowEvents = "follow_events", Scope::Alone(&[]);
    keys { log, stream }
    arguments { after: Option<EventPlace>, most: usize, most_bytes: u128 }
}
