//! The states that connections have in their groups: small data that the other members see, such as a name or a cursor.
//!
//! * A member's state is kept beside its membership and ends with it, in the same step: when the connection leaves the group
//!   or ends, also by the death of its node. It moves with a connection that goes on on another node.
//! * Each change is a message to the group's reserved group ([`GroupName::states_of`]), appended in the step that changes the
//!   state. A connection receives these messages by joining that group.
//! * [`GroupStates::states`] reads all states of a group and the place in the log where they were so: what comes after that
//!   place is to be applied, what came before is in it.
//! * Where the server has lost its data, owners register the states of their connections again, as long as these have not
//!   moved since: each is a change.
//!
//! The target of the messages is [`TARGET`]. Their one argument is a JSON array of one item, as the items of
//! [`StatesSnapshot::items`] are: an object with `connectionId`, `userId` where the connection has one, `state`, and `updatedAt`, the
//! server's time in milliseconds since 1970. `state` is missing where the member has none any more.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::error::BackplaneError;
use crate::position::{Offset, Position};
use crate::presence::quoted;
use crate::topic::{ConnectionId, GroupName, UserId};
use crate::wire::{Encoding, Envelope};

/// The target of the messages about changes of states.
pub const TARGET: &str = "groupState";
/// Most bytes of one connection's state in a group, as JSON.
pub const MAX_STATE_BYTES: usize = 8 * 1024;
/// Most keys of one connection's state in a group.
pub const MAX_STATE_KEYS: usize = 64;
/// Most bytes of all states in a group, as JSON with the connections' ids and users.
pub const MAX_GROUP_BYTES: usize = 512 * 1024;

/// The states of a hub's groups. Part of [`HubBackplane`](crate::HubBackplane).
pub trait GroupStates: Send + Sync {
    /// Sets the state of a connection that this node owns in a group that it is in; `None` clears it. `once`: a name for the
    /// request, unique within the hub for as long as the hub's retention, by which a repetition is recognised.
    fn set_state<'a>(
        &'a self,
        connection: &'a ConnectionId,
        group: &'a GroupName,
        state: Option<&'a MemberState>,
        once: Option<&'a str>,
    ) -> BoxFuture<'a, Result<StateSet, BackplaneError>>;

    /// All states of a group's members at one place in the log.
    fn states<'a>(&'a self, group: &'a GroupName) -> BoxFuture<'a, Result<StatesSnapshot, BackplaneError>>;
}

/// The state of one connection in a group: names and texts, bounded by [`MAX_STATE_BYTES`] and [`MAX_STATE_KEYS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState(Bytes);

/// A state that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It takes too many bytes.
    #[error(
        "a state of {bytes} bytes as JSON is over the limit of {MAX_STATE_BYTES} bytes for one connection in a group"
    )]
    TooLarge {
        /// The bytes of the state as JSON.
        bytes: usize,
    },
    /// It has too many keys.
    #[error(
        "a state of {keys} keys is over the limit of {MAX_STATE_KEYS} keys for one connection in a group"
    )]
    TooManyKeys {
        /// The number of its keys.
        keys: usize,
    },
}

impl MemberState {
    /// Checks a state.
    ///
    /// # Errors
    /// [`StateError`] where it is too large.
    pub fn new(state: &BTreeMap<String, String>) -> Result<Self, StateError> {
        if state.len() > MAX_STATE_KEYS {
            return Err(StateError::TooManyKeys { keys: state.len() });
        }
        let pairs: Vec<_> = state
            .iter()
            .map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)))
            .collect();
        let text = format!("{{{}}}", pairs.join(","));
        if text.len() > MAX_STATE_BYTES {
            return Err(StateError::TooLarge { bytes: text.len() });
        }
        Ok(Self(text.into()))
    }

    /// The state as a JSON object of strings.
    #[must_use]
    pub fn json(&self) -> &Bytes {
        &self.0
    }
}

/// The outcome of [`GroupStates::set_state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateSet {
    /// This call set or cleared the state, and the change was announced at this offset.
    Now(Offset),
    /// There was no state to clear.
    Nothing,
    /// An earlier call of the same request, on this or another node, has set it.
    Before,
    /// The connection is not in the group.
    NotMember,
    /// The states of the group would take more than [`MAX_GROUP_BYTES`].
    GroupFull,
}

/// The states of a group's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatesSnapshot {
    /// The place in the log where the states were so.
    pub position: Position,
    /// A JSON array of items, in no order: one for each member that has a state.
    pub items: Bytes,
}

/// The item of one member. `state_item` in `redis/script/lua/directory.lua` writes the same.
pub(crate) fn item(
    connection: &ConnectionId,
    user: Option<&UserId>,
    state: Option<&MemberState>,
    updated_at: u128,
) -> Bytes {
    let mut item = format!(r#"{{"connectionId":{}"#, quoted(connection.as_str())).into_bytes();
    if let Some(user) = user {
        item.extend_from_slice(br#","userId":"#);
        item.extend_from_slice(quoted(user.as_str()).as_bytes());
    }
    if let Some(state) = state {
        item.extend_from_slice(br#","state":"#);
        item.extend_from_slice(state.json());
    }
    item.extend_from_slice(format!(r#","updatedAt":{updated_at}}}"#).as_bytes());
    item.into()
}

/// A JSON array of items.
pub(crate) fn array<'a>(items: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut array = vec![b'['];
    for item in items {
        if array.len() > 1 {
            array.push(b',');
        }
        array.extend_from_slice(item);
    }
    array.push(b']');
    array.into()
}

/// The message about one change.
pub(crate) fn message(item: &Bytes) -> Envelope {
    Envelope {
        target: TARGET.to_owned(),
        arguments: vec![array(std::iter::once(item))],
        encoding: Encoding::Json.into(),
        ..Envelope::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pairs: &[(&str, &str)]) -> Result<MemberState, StateError> {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        MemberState::new(&pairs.collect())
    }

    #[test]
    fn states_are_json_and_bounded() {
        let written = state(&[("b\"", "\u{1}ü\\"), ("a", "")]).unwrap();
        assert_eq!(written.json(), "{\"a\":\"\",\"b\\\"\":\"\\u0001ü\\\\\"}");
        assert_eq!(state(&[]).unwrap().json(), "{}");
        let room = MAX_STATE_BYTES - r#"{"a":""}"#.len();
        assert!(state(&[("a", &"x".repeat(room))]).is_ok());
        let bytes = MAX_STATE_BYTES + 1;
        assert_eq!(
            state(&[("a", &"x".repeat(room + 1))]),
            Err(StateError::TooLarge { bytes })
        );
        let many = |count| (0..count).map(|n| (n.to_string(), String::new())).collect();
        assert!(MemberState::new(&many(MAX_STATE_KEYS)).is_ok());
        let keys = MAX_STATE_KEYS + 1;
        assert_eq!(
            MemberState::new(&many(keys)),
            Err(StateError::TooManyKeys { keys })
        );
    }

    #[test]
    fn items_name_what_is_there() {
        let connection = ConnectionId::parse("c-1").unwrap();
        let user = UserId::parse("a\"n").unwrap();
        let state = state(&[("a", "b")]).unwrap();
        let whole = item(&connection, Some(&user), Some(&state), 17);
        let expected = r#"{"connectionId":"c-1","userId":"a\"n","state":{"a":"b"},"updatedAt":17}"#;
        assert_eq!(whole, expected);
        let cleared = item(&connection, None, None, 18);
        assert_eq!(cleared, r#"{"connectionId":"c-1","updatedAt":18}"#);
        assert_eq!(
            array([&cleared, &cleared].into_iter()),
            format!("[{0},{0}]", r#"{"connectionId":"c-1","updatedAt":18}"#)
        );
        assert_eq!(array(std::iter::empty()), "[]");
    }
}
