//! Web PubSub's messages by their bytes, as its official clients write and read them.

use bytes::Bytes;

use super::*;
use crate::protocol::client::{Data, GroupSend, Request, RequestWish};
use crate::protocol::{Encoding, Invocation, MAX_DEPTH, plain};

fn decode(frame: &Bytes) -> Result<ClientMessage, DecodeError> {
    WebPubSubProtocol::Json.decode(frame)
}

fn encode(message: &HubMessage) -> Result<Option<Bytes>, EncodeError> {
    WebPubSubProtocol::Json.encode(message)
}

pub(super) fn read(text: &str) -> Result<ClientMessage, DecodeError> {
    decode(&Bytes::copy_from_slice(text.as_bytes()))
}

fn json_value(text: &'static str) -> Value {
    Value::from_raw(Encoding::Json, Bytes::from_static(text.as_bytes()))
}

fn request(ack_id: Option<u64>, wish: RequestWish) -> ClientMessage {
    ClientMessage::Request(Request { ack_id, wish })
}

fn call(
    invocation_id: Option<&str>,
    target: &str,
    data_type: Option<DataType>,
    arguments: Vec<Value>,
) -> ClientMessage {
    ClientMessage::Hub(HubMessage::Invocation(Invocation {
        invocation_id: invocation_id.map(str::to_owned),
        target: target.to_owned(),
        arguments,
        data_type,
        ..Invocation::default()
    }))
}

fn sent(no_echo: bool, kind: DataType, json: &'static str, packed: Option<&[u8]>) -> RequestWish {
    let packed = packed.map(|bytes| Value::from_raw(Encoding::MessagePack, Bytes::copy_from_slice(bytes)));
    RequestWish::Send(GroupSend {
        group: "g".to_owned(),
        no_echo,
        ttl_seconds: 0,
        data: Data {
            kind,
            json: json_value(json),
            packed,
        },
        metadata: Vec::new(),
    })
}

#[test]
fn every_message_of_the_official_clients_is_read() {
    let cases = [
        (
            r#"{"type":"joinGroup","group":"g","ackId":1}"#,
            request(Some(1), RequestWish::Join("g".to_owned())),
        ),
        (
            r#"{"group":"g","type":"leaveGroup"}"#,
            request(None, RequestWish::Leave("g".to_owned())),
        ),
        (
            r#"{"type":"sendToGroup","group":"g","ackId":18446744073709551615,"dataType":"json","data":{"a": [1, 2.50]},"noEcho":false}"#,
            request(
                Some(u64::MAX),
                sent(false, DataType::Json, r#"{"a": [1, 2.50]}"#, None),
            ),
        ),
        (
            r#"{"type":"sendToGroup","group":"g","dataType":"text","data":"\"x\"","noEcho":true}"#,
            request(None, sent(true, DataType::Text, r#""\"x\"""#, None)),
        ),
        (
            r#"{"type":"sendToGroup","group":"g","ackId":4,"dataType":"binary","data":"aGk="}"#,
            request(
                Some(4),
                sent(false, DataType::Binary, r#""aGk=""#, Some(&[0xC4, 2, b'h', b'i'])),
            ),
        ),
        (
            r#"{"type":"sendToGroup","group":"g","dataType":"protobuf","data":""}"#,
            request(None, sent(false, DataType::Protobuf, r#""""#, Some(&[0xC4, 0]))),
        ),
        // The Python client leaves out what is null.
        (
            r#"{"type":"sendToGroup","group":"g","dataType":"json"}"#,
            request(None, sent(false, DataType::Json, "null", None)),
        ),
        (
            r#"{"type":"event","event":"name","ackId":5,"dataType":"text","data":"x"}"#,
            call(
                Some("a5"),
                "name",
                Some(DataType::Text),
                vec![json_value(r#""x""#)],
            ),
        ),
        (
            r#"{"type":"event","event":"name","dataType":"json","data":null}"#,
            call(None, "name", Some(DataType::Json), vec![json_value("null")]),
        ),
        (
            r#"{"type":"invoke","invocationId":"1","target":"event","event":"sum","dataType":"json","data":[1,2]}"#,
            call(Some("i1"), "sum", Some(DataType::Json), vec![json_value("[1,2]")]),
        ),
        (
            r#"{"type":"invoke","invocationId":"2","target":"event","event":"now"}"#,
            call(Some("i2"), "now", None, Vec::new()),
        ),
        (
            r#"{"type":"cancelInvocation","invocationId":"1"}"#,
            ClientMessage::Hub(HubMessage::CancelInvocation {
                headers: Vec::new(),
                invocation_id: "i1".to_owned(),
            }),
        ),
        (
            r#"{"type":"sequenceAck","sequenceId":17}"#,
            ClientMessage::Hub(HubMessage::Ack { sequence_id: 17 }),
        ),
        (r#"{"type":"ping"}"#, ClientMessage::Hub(HubMessage::Ping)),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn what_is_no_message_is_refused_with_what_is_wrong() {
    let deep = format!(
        r#"{{"type":"event","event":"e","data":{}1{}}}"#,
        "[".repeat(MAX_DEPTH),
        "]".repeat(MAX_DEPTH)
    );
    let cases = [
        ("", "Error reading JSON."),
        ("[]", "Error reading JSON."),
        ("{}", "Missing required property 'type'."),
        (r#"{"type":7}"#, "Expected 'type' to be a string."),
        (
            r#"{"type":"streamMore"}"#,
            "Messages of the type 'streamMore' are not supported.",
        ),
        (
            r#"{"type":"sendToGroup","group":"g","ttlSeconds":-1,"data":1}"#,
            "Expected 'ttlSeconds' to be an integer that is not negative.",
        ),
        (r#"{"type":"joinGroup"}"#, "Missing required property 'group'."),
        (
            r#"{"type":"joinGroup","group":1}"#,
            "Expected 'group' to be a string.",
        ),
        (
            r#"{"type":"joinGroup","group":"g","ackId":-1}"#,
            "Expected 'ackId' to be an integer that is not negative.",
        ),
        (
            r#"{"type":"sendToGroup","group":"g","dataType":"text","data":1}"#,
            "Expected 'data' to be a string.",
        ),
        (
            r#"{"type":"sendToGroup","group":"g","dataType":"text"}"#,
            "Missing required property 'data'.",
        ),
        (
            r#"{"type":"sendToGroup","group":"g","dataType":"binary","data":"?"}"#,
            "Expected 'data' to be base64 text.",
        ),
        (
            r#"{"type":"sendToGroup","group":"g","dataType":"xml","data":"?"}"#,
            "Expected 'dataType' to be json, text, binary or protobuf.",
        ),
        (
            r#"{"type":"event","data":1}"#,
            "Missing required property 'event'.",
        ),
        (
            r#"{"type":"invoke","invocationId":"1","target":"upstream","event":"e"}"#,
            r#"Expected 'target' to be "event"."#,
        ),
        (
            r#"{"type":"sequenceAck"}"#,
            "Missing required property 'sequenceId'.",
        ),
        (&deep, "The maximum depth of 64 levels was exceeded."),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text).unwrap_err().to_string(), expected, "{text}");
    }
    assert!(matches!(
        decode(&Bytes::from_static(b"\xFF")),
        Err(DecodeError::InvalidUtf8)
    ));
}

fn completion_of(id: &str, outcome: Outcome) -> Option<Bytes> {
    encode(&HubMessage::Completion {
        headers: Vec::new(),
        invocation_id: id.to_owned(),
        outcome,
    })
    .unwrap()
}

#[test]
fn every_message_to_the_official_clients_is_written_as_they_read_it() {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!(
        text(json::ack(3, Ok(()))),
        r#"{"type":"ack","ackId":3,"success":true}"#
    );
    assert_eq!(
        text(json::ack(3, Err((RefusedAs::Forbidden, "no \"g\"")))),
        r#"{"type":"ack","ackId":3,"success":false,"error":{"name":"Forbidden","message":"no \"g\""}}"#
    );
    assert_eq!(
        text(json::connected("c", Some("u"), Some("t"))),
        r#"{"type":"system","event":"connected","userId":"u","connectionId":"c","reconnectionToken":"t"}"#
    );
    assert_eq!(
        text(json::connected("c", None, None)),
        r#"{"type":"system","event":"connected","connectionId":"c"}"#
    );
    assert_eq!(text(json::pong()), r#"{"type":"pong"}"#);
    let closing = |error: Option<&str>| HubMessage::Close {
        error: error.map(str::to_owned),
        allow_reconnect: true,
    };
    assert_eq!(
        text(encode(&closing(Some("late"))).unwrap().unwrap()),
        r#"{"type":"system","event":"disconnected","message":"late"}"#
    );
    assert_eq!(encode(&HubMessage::Ping).unwrap(), None, "the WebSocket has one");
    assert_eq!(encode(&HubMessage::Ack { sequence_id: 1 }).unwrap(), None);
    let result = || Outcome::Result(json_value("[1]"));
    let completions = [
        ("a5", Outcome::Void, r#"{"type":"ack","ackId":5,"success":true}"#),
        ("a5", result(), r#"{"type":"ack","ackId":5,"success":true}"#),
        (
            "a5",
            Outcome::Error("x".to_owned()),
            r#"{"type":"ack","ackId":5,"success":false,"error":{"name":"InternalServerError","message":"x"}}"#,
        ),
        (
            "iq",
            result(),
            r#"{"type":"invokeResponse","invocationId":"q","success":true,"dataType":"json","data":[1]}"#,
        ),
        (
            "iq",
            Outcome::Result(Value::from_raw(
                Encoding::MessagePack,
                Bytes::from_static(b"\xa3t\xc3\xa4"),
            )),
            r#"{"type":"invokeResponse","invocationId":"q","success":true,"dataType":"text","data":"tä"}"#,
        ),
        (
            "iq",
            Outcome::Result(Value::from_raw(
                Encoding::MessagePack,
                Bytes::from_static(b"\xc4\x01\xff"),
            )),
            r#"{"type":"invokeResponse","invocationId":"q","success":true,"dataType":"binary","data":"/w=="}"#,
        ),
        (
            "iq",
            Outcome::Void,
            r#"{"type":"invokeResponse","invocationId":"q","success":true}"#,
        ),
        (
            "iq",
            Outcome::Error("x".to_owned()),
            r#"{"type":"invokeResponse","invocationId":"q","success":false,"error":{"name":"InternalServerError","message":"x"}}"#,
        ),
    ];
    for (id, outcome, expected) in completions {
        assert_eq!(text(completion_of(id, outcome).unwrap()), expected);
    }
    assert_eq!(completion_of("7", Outcome::Void), None);
    assert!(is_invoke("i1") && !is_invoke("a1"));
}

pub(super) fn published<'a>(
    group: Option<&'a str>,
    from_user: &'a str,
    data_type: DataType,
    target: &'a str,
    arguments: &'a [Value],
) -> Published<'a> {
    Published {
        group,
        from_user,
        data_type,
        target,
        arguments,
        packed: &[],
        metadata: &[],
        fragment: None,
    }
}

#[test]
fn a_message_has_its_data_whoever_sent_it() {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let (hi, one) = ([json_value(r#""hi""#)], [json_value("1"), json_value("{}")]);
    let cases = [
        (
            published(Some("g"), "u", DataType::Text, "message", &hi),
            Some(7),
            r#"{"type":"message","from":"group","group":"g","fromUserId":"u","dataType":"text","data":"hi","sequenceId":7}"#,
        ),
        (
            published(None, "", DataType::Json, "message", &hi),
            None,
            r#"{"type":"message","from":"server","dataType":"json","data":"hi"}"#,
        ),
        (
            published(Some("\""), "", DataType::Json, "Said", &one),
            None,
            r#"{"type":"message","from":"group","group":"\"","dataType":"json","data":{"target":"Said","arguments":[1,{}]}}"#,
        ),
        (
            published(Some("g"), "", DataType::Binary, "message", &hi),
            None,
            r#"{"type":"message","from":"group","group":"g","dataType":"binary","data":"hi"}"#,
        ),
        (
            published(None, "", DataType::Json, "message", &[]),
            None,
            r#"{"type":"message","from":"server","dataType":"json","data":{"target":"message","arguments":[]}}"#,
        ),
    ];
    for (published, sequence_id, expected) in cases {
        assert_eq!(text(json::message(&published, sequence_id)), expected);
    }
    let said = published(Some("g"), "u", DataType::Json, "Said", &one);
    assert_eq!(
        text(plain::message(&said, "p")),
        r#"{"type":"message","id":"p","group":"g","fromUserId":"u","target":"Said","arguments":[1,{}]}"#
    );
}
