//! Presence messages: joins and leaves of a group, announced to the connections that watch it.
//!
//! Where [`HubOptions::presence`](crate::HubOptions::presence) is set, the step that makes a connection a member of a
//! group, or ends that, also appends a message to the group's reserved group ([`GroupName::presence_of`]). So these
//! messages have offsets in the hub's log like others; a connection receives them by joining the reserved group.
//!
//! * One message for each real change of membership: joins and leaves, groups that a connection enters with, its
//!   removal by its owner, by time or by other nodes after its node died. None for a call that changes nothing, for a
//!   connection that is parked or moves to another node, or for reserved groups themselves.
//! * Where the server has lost its data, owners register their connections again: these are joins, too.
//!
//! The target of the message is [`TARGET`], its one argument a JSON object with `event` (`join` or `leave`), `group`,
//! `connectionId`, and `userId` where the connection has one.

use bytes::Bytes;

use crate::stored::{ESCAPE, escape};
use crate::topic::{ConnectionId, GroupName, UserId};
use crate::wire::{Encoding, Envelope};

/// The target of presence messages.
pub const TARGET: &str = "presence";

/// The presence message of one change. `announce` in `redis/script/lua/log.lua` writes the same.
pub(crate) fn message(
    joined: bool,
    group: &GroupName,
    connection: &ConnectionId,
    user: Option<&UserId>,
) -> Envelope {
    let event = if joined { "join" } else { "leave" };
    let mut object = format!(
        r#"{{"event":"{event}","group":{},"connectionId":{}"#,
        quoted(group.as_str()),
        quoted(connection.as_str())
    );
    if let Some(user) = user {
        object.push_str(r#","userId":"#);
        object.push_str(&quoted(user.as_str()));
    }
    object.push('}');
    Envelope {
        target: TARGET.to_owned(),
        arguments: vec![Bytes::from(object)],
        encoding: Encoding::Json.into(),
        ..Envelope::default()
    }
}

/// A name or other text as JSON, with control characters as `\u00xx`.
pub(crate) fn quoted(name: &str) -> String {
    let stored = escape(&name.replace('\\', r"\\").replace('"', r#"\""#)).into_owned();
    format!("\"{}\"", stored.replace(ESCAPE, r"\u00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let group = GroupName::parse(r#"a"b\c/ü"#).unwrap();
        let connection = ConnectionId::parse("c-1").unwrap();
        let user = UserId::parse("\u{2028}\"").unwrap();
        let reported = message(true, &group, &connection, Some(&user));
        let expected = "{\"event\":\"join\",\"group\":\"a\\\"b\\\\c/ü\",\"connectionId\":\"c-1\",\"userId\":\"\u{2028}\\\"\"}";
        assert_eq!(reported.arguments, [expected.as_bytes()]);
        let group = GroupName::parse("a\n\u{2}\u{85}").unwrap();
        let reported = message(true, &group, &connection, None);
        let expected = r#"{"event":"join","group":"a\u000a\u0002\u0085","connectionId":"c-1"}"#;
        assert_eq!(reported.arguments, [expected.as_bytes()]);
        let reported = message(false, &group, &connection, None);
        assert!(reported.arguments[0].ends_with(b"\"connectionId\":\"c-1\"}"));
    }
}
