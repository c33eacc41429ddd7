//! The messages about the states of groups, byte by byte.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::protocol::client::GroupStateWish;

fn read(text: &str) -> Result<ClientMessage, DecodeError> {
    WebPubSubProtocol::ReliableJson.decode(&Bytes::copy_from_slice(text.as_bytes()))
}

fn request(ack_id: Option<u64>, wish: GroupStateWish) -> ClientMessage {
    ClientMessage::Request(Request {
        ack_id,
        wish: RequestWish::GroupState(wish),
    })
}

fn set(state: Option<&[(&str, &str)]>) -> GroupStateWish {
    let pairs = |state: &[(&str, &str)]| {
        let pairs = state.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    GroupStateWish::Set {
        group: "g".to_owned(),
        state: state.map(pairs),
    }
}

#[test]
fn requests_of_the_official_client_are_read() {
    for (text, expected) in [
        (
            r#"{"type":"setGroupState","group":"g","ackId":6,"state":{"b":"1","a":"ü\u0000"}}"#,
            request(Some(6), set(Some(&[("a", "ü\0"), ("b", "1")]))),
        ),
        (
            r#"{"type":"setGroupState","group":"g","ackId":7,"state":{}}"#,
            request(Some(7), set(Some(&[]))),
        ),
        (
            r#"{"type":"setGroupState","group":"g","ackId":8}"#,
            request(Some(8), set(None)),
        ),
        (
            r#"{"type":"setGroupState","group":"g","state":null}"#,
            request(None, set(None)),
        ),
        (
            r#"{"type":"subscribeGroupState","group":"g","ackId":9}"#,
            request(Some(9), GroupStateWish::Subscribe("g".to_owned())),
        ),
        (
            r#"{"type":"unsubscribeGroupState","group":"g","ackId":10}"#,
            request(Some(10), GroupStateWish::Unsubscribe("g".to_owned())),
        ),
    ] {
        assert_eq!(read(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn a_state_is_an_object_of_strings() {
    for state in [
        "1",
        "[]",
        r#""a""#,
        r#"{"a":1}"#,
        r#"{"a":null}"#,
        r#"{"a":{}}"#,
        "true",
    ] {
        let text = format!(r#"{{"type":"setGroupState","group":"g","state":{state}}}"#);
        let error = read(&text).unwrap_err();
        let expected = DecodeError::WrongType {
            property: "state",
            expected: "an object of strings",
        };
        assert_eq!(error.to_string(), expected.to_string(), "{text}");
    }
    for kind in ["setGroupState", "subscribeGroupState", "unsubscribeGroupState"] {
        let error = read(&format!(r#"{{"type":"{kind}","ackId":1}}"#)).unwrap_err();
        assert_eq!(
            error.to_string(),
            DecodeError::Missing { property: "group" }.to_string()
        );
    }
}

#[test]
fn states_are_written_as_the_official_client_reads_them() {
    let items = br#"[{"connectionId":"c","state":{"a":"b"},"updatedAt":17}]"#;
    for protocol in [WebPubSubProtocol::Json, WebPubSubProtocol::ReliableJson] {
        let snapshot = protocol.group_states(StatesMessage::Snapshot, "g\"", b"[]");
        let expected = r#"{"type":"groupStateSnapshot","group":"g\"","items":[]}"#;
        assert_eq!(snapshot.unwrap(), expected);
        let update = protocol.group_states(StatesMessage::Update, "g", items);
        let expected = r#"{"type":"groupStateUpdate","group":"g","items":[{"connectionId":"c","state":{"a":"b"},"updatedAt":17}]}"#;
        assert_eq!(update.unwrap(), expected);
    }
    for protocol in [WebPubSubProtocol::Protobuf, WebPubSubProtocol::ReliableProtobuf] {
        assert_eq!(protocol.group_states(StatesMessage::Update, "g", items), None);
    }
}
