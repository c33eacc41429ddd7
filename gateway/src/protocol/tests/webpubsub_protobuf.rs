//! Web PubSub's messages in protobuf, by their bytes: written by hand from the schema, or recorded from the official .NET
//! client.

use bytes::Bytes;
use prost::Message as _;

use super::schema::{DownstreamMessage, MessageData, SendToGroup, Upstream, UpstreamMessage};
use super::*;
use crate::protocol::client::{Data, GroupSend, Request, RequestWish};
use crate::protocol::{Encoding, Invocation, MAX_DEPTH, encode_invocation};

const PROTOCOL: WebPubSubProtocol = WebPubSubProtocol::Protobuf;

pub(super) fn bytes(hex: &str) -> Bytes {
    let digits: Vec<_> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
    let pairs = digits.chunks(2).map(String::from_iter);
    pairs.map(|pair| u8::from_str_radix(&pair, 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(hex: &str) -> Result<ClientMessage, DecodeError> {
    PROTOCOL.decode(&bytes(hex))
}

fn json_value(text: &str) -> Value {
    Value::from_json_text(text.to_owned()).unwrap()
}

fn sent(
    ack_id: Option<u64>,
    no_echo: bool,
    kind: DataType,
    json: &str,
    packed: Option<&[u8]>,
) -> ClientMessage {
    ClientMessage::Request(Request {
        ack_id,
        wish: RequestWish::Send(GroupSend {
            group: "tea".to_owned(),
            no_echo,
            ttl_seconds: 0,
            data: Data {
                kind,
                json: json_value(json),
                packed: packed.map(|bytes| byte_string(bytes).unwrap()),
            },
            metadata: Vec::new(),
        }),
    })
}

fn call(ack_id: Option<u64>, event: &str, kind: DataType, json: &str) -> ClientMessage {
    ClientMessage::Hub(HubMessage::Invocation(Invocation {
        invocation_id: ack_id.map(|id| format!("{BY_EVENT}{id}")),
        target: event.to_owned(),
        data_type: Some(kind),
        arguments: vec![json_value(json)],
        ..Invocation::default()
    }))
}

fn request(ack_id: Option<u64>, wish: RequestWish) -> ClientMessage {
    ClientMessage::Request(Request { ack_id, wish })
}

/// Frames of `Azure.Messaging.WebPubSub.Client` with its protobuf protocol.
#[test]
fn what_the_dotnet_client_sends_is_read() {
    let any = b"\x0a\x01A\x12\x01B".as_slice();
    for (frame, expected) in [
        (
            "32070a037465611001",
            request(Some(1), RequestWish::Join("tea".to_owned())),
        ),
        (
            "0a200a0374656110021a150a1368c3a46c6c6f20227122203c623e20f09f98802000",
            sent(Some(2), false, DataType::Text, r#""hällo \"q\" <b> 😀""#, None),
        ),
        // It sends JSON as text.
        (
            "0a240a0374656110051a190a1731323334353637383930313233343536373839303132332000",
            sent(
                Some(5),
                false,
                DataType::Text,
                r#""12345678901234567890123""#,
                None,
            ),
        ),
        (
            "0a100a0374656110061a05120300ff012000",
            sent(Some(6), false, DataType::Binary, r#""AP8B""#, Some(&[0, 255, 1])),
        ),
        (
            "0a130a0374656110071a081a060a01411201422000",
            sent(Some(7), false, DataType::Protobuf, r#""CgFBEgFC""#, Some(any)),
        ),
        (
            "0a130a0374656110081a080a066e6f6563686f2001",
            sent(Some(8), true, DataType::Text, r#""noecho""#, None),
        ),
        (
            "0a0e0a037465611a050a036661662000",
            sent(None, false, DataType::Text, r#""faf""#, None),
        ),
        (
            "0a110a0374656110001a060a047a65726f2000",
            sent(Some(0), false, DataType::Text, r#""zero""#, None),
        ),
        (
            "0a180a0374656110ffffffffffffffff7f1a050a036d61782000",
            sent(
                Some(i64::MAX.unsigned_abs()),
                false,
                DataType::Text,
                r#""max""#,
                None,
            ),
        ),
        (
            "2a160a0b47657450726573656e636512050a037465611809",
            call(Some(9), "GetPresence", DataType::Text, r#""tea""#),
        ),
        (
            "2a0d0a066e6f7375636812030a0178",
            call(None, "nosuch", DataType::Text, r#""x""#),
        ),
    ] {
        assert_eq!(read(frame).unwrap(), expected, "{frame}");
    }
}

#[test]
fn what_the_schema_has_besides_is_read() {
    for (frame, expected) in [
        (
            "3a050a03746561",
            request(None, RequestWish::Leave("tea".to_owned())),
        ),
        (
            "0a130a037465611a0c220a 7b2261223a20312e357d",
            sent(None, false, DataType::Json, r#"{"a": 1.5}"#, None),
        ),
        (
            "4202 0811",
            ClientMessage::Hub(HubMessage::Ack { sequence_id: 17 }),
        ),
        ("4200", ClientMessage::Hub(HubMessage::Ack { sequence_id: 0 })),
        ("4a00", ClientMessage::Hub(HubMessage::Ping)),
        // Text and bytes may be empty.
        (
            "0a090a037465611a020a00",
            sent(None, false, DataType::Text, r#""""#, None),
        ),
        (
            "0a090a037465611a021200",
            sent(None, false, DataType::Binary, r#""""#, Some(b"")),
        ),
        (
            "0a090a037465611a021a00",
            sent(None, false, DataType::Protobuf, r#""""#, Some(b"")),
        ),
        // Data that is missing, or has no value, is null, which is refused where it is sent to a group.
        ("0a050a03746561", sent(None, false, DataType::Json, "null", None)),
        (
            "0a070a037465611a00",
            sent(None, false, DataType::Json, "null", None),
        ),
        (
            "0a0d0a037465611a0622046e756c6c",
            sent(None, false, DataType::Json, "null", None),
        ),
        ("2a030a0165", call(None, "e", DataType::Json, "null")),
        // Fields that it does not have: in the frame, the message, its data and an Any.
        (
            "a206017832070a037465611001",
            request(Some(1), RequestWish::Join("tea".to_owned())),
        ),
        (
            "320a0a03746561 1001 a20100",
            request(Some(1), RequestWish::Join("tea".to_owned())),
        ),
        (
            "0a100a037465611a091a070a01411a027878",
            sent(None, false, DataType::Protobuf, r#""CgFB""#, Some(b"\x0a\x01A")),
        ),
        // The last of several counts.
        (
            "32050a0374656132050a03746565",
            request(None, RequestWish::Join("tee".to_owned())),
        ),
    ] {
        assert_eq!(
            read(frame).unwrap_or_else(|error| panic!("{frame}: {error}")),
            expected,
            "{frame}"
        );
    }
}

#[test]
fn what_is_no_message_is_refused_with_what_is_wrong() {
    let nested = |levels: usize| {
        let text = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let data = MessageData {
            data: Some(schema::Data::Json(text.into())),
        };
        let send = SendToGroup {
            group: "g".to_owned(),
            data: Some(data),
            ..SendToGroup::default()
        };
        let message = Some(Upstream::SendToGroup(send));
        PROTOCOL.decode(&UpstreamMessage { message }.encode_to_vec().into())
    };
    assert!(nested(MAX_DEPTH).is_ok());
    let deep = nested(MAX_DEPTH + 1).unwrap_err();
    assert_eq!(deep.to_string(), "The maximum depth of 64 levels was exceeded.");
    for (frame, expected) in [
        ("52020a00", "Messages of the type 'field 10' are not supported."),
        ("12020a00", "Messages of the type 'field 2' are not supported."),
        ("0a0a0a03746561 1a03 0a01ff", "Expected 'text_data' to be UTF-8."),
        ("0a0a0a03746561 1a03 22017b", "Expected 'json_data' to be JSON."),
        ("0a090a03746561 1a02 2200", "Expected 'json_data' to be JSON."),
    ] {
        assert_eq!(read(frame).unwrap_err().to_string(), expected, "{frame}");
    }
    for frame in [
        "ff",
        "32",
        "3205",                       // shorter than it says
        "32ffffffff0f",               // much shorter
        "320508",                     // within
        "3001",                       // a number in place of a message
        "32030a01ff",                 // a group that is no text
        "0a0a0a03746561 1a03 1a01ff", // no Any
        "0a0d0a03746561 1a06 1a04 0a02ffff",
        "00", // field 0
        "36", // a reserved type of value
    ] {
        let error = read(frame).unwrap_err();
        assert!(matches!(error, DecodeError::Protobuf(_)), "{frame}: {error}");
        assert!(
            error.to_string().starts_with("Error reading protobuf: "),
            "{error}"
        );
    }
    // Groups, an old form of messages, may nest without end.
    let groups = "53".repeat(100_000);
    assert!(matches!(read(&groups).unwrap_err(), DecodeError::Protobuf(_)));
}

fn written(message: &HubMessage) -> Option<String> {
    PROTOCOL.encode(message).unwrap().map(|bytes| hex(&bytes))
}

#[test]
fn every_message_to_a_client_is_written_as_it_reads_it() {
    assert_eq!(hex(&PROTOCOL.ack(3, Ok(()))), "0a0408031001");
    assert_eq!(
        hex(&PROTOCOL.ack(3, Err((RefusedAs::Forbidden, "no")))),
        "0a1308031a0f0a09466f7262696464656e12026e6f"
    );
    assert_eq!(
        hex(&PROTOCOL.connected("c", Some("u"), Some("t"))),
        "1a0b0a090a01631201751a0174"
    );
    assert_eq!(hex(&PROTOCOL.connected("c", None, None)), "1a050a030a0163");
    assert_eq!(hex(&PROTOCOL.pong()), "2200");
    let closing = |error: Option<&str>| HubMessage::Close {
        error: error.map(str::to_owned),
        allow_reconnect: true,
    };
    assert_eq!(
        written(&closing(Some("x"))).as_deref(),
        Some("1a05120312 0178").map(|hex| hex.replace(' ', "")).as_deref()
    );
    for message in [HubMessage::Ping, HubMessage::Ack { sequence_id: 1 }] {
        assert_eq!(written(&message), None, "nothing that a client has not asked for");
    }
    let completion = |id: &str, outcome| {
        written(&HubMessage::Completion {
            headers: Vec::new(),
            invocation_id: id.to_owned(),
            outcome,
        })
    };
    assert_eq!(completion("a5", Outcome::Void).as_deref(), Some("0a0408051001"));
    let failed = completion("a5", Outcome::Error("x".to_owned())).unwrap();
    assert_eq!(
        failed,
        "0a1c08051a180a13496e7465726e616c5365727665724572726f72120178"
    );
}

fn published<'a>(
    kind: DataType,
    target: &'a str,
    arguments: &'a [Value],
    packed: &'a [Value],
) -> Published<'a> {
    Published {
        group: Some("g"),
        from_user: "u",
        data_type: kind,
        target,
        arguments,
        packed,
        metadata: &[],
        fragment: None,
    }
}

#[test]
fn a_message_has_its_data_whoever_sent_it() {
    let to_group = |kind, json: &str, packed: &[Value]| {
        let arguments = [json_value(json)];
        let frame = PROTOCOL.message(&published(kind, MESSAGE, &arguments, packed), 7);
        let frame = hex(&frame);
        let (length, rest) = frame.strip_prefix("12").unwrap().split_at(2);
        assert_eq!(usize::from_str_radix(length, 16).unwrap() * 2, rest.len());
        // from "group", group "g"
        rest.strip_prefix("0a0567726f75701201671a").unwrap()[2..].to_owned()
    };
    let packed = [byte_string(&[0, 255]).unwrap()];
    for (kind, json, packed, data) in [
        (DataType::Text, r#""h\u00e4""#, &[][..], "0a0368c3a4"),
        (
            DataType::Json,
            r#"{"a": 1.50}"#,
            &[],
            "220b7b2261223a20312e35307d",
        ),
        (DataType::Json, r#""h""#, &[], "2203226822"),
        (DataType::Binary, r#""AP8=""#, &[], "120200ff"),
        (DataType::Binary, r#""AP8=""#, &packed, "120200ff"),
        (DataType::Binary, r#""""#, &[], "1200"),
        (DataType::Protobuf, r#""CgFBEgFC""#, &[], "1a060a0141120142"),
        (DataType::Protobuf, r#""""#, &[], "1a00"),
        // As it came, also in another form than the usual one.
        (DataType::Protobuf, r#""EgFCCgA=""#, &[], "1a051201420a00"),
        // Bytes of a client with JSON that are no Any, and one with more than the schema has.
        (DataType::Protobuf, r#""AP8=""#, &packed, "120200ff"),
        (DataType::Protobuf, r#""CgFBGgJ4eA==""#, &[], "1a030a0141"),
        // Kinds that the data is not of.
        (DataType::Text, "1", &[], "220131"),
        (DataType::Binary, r#""?""#, &[], "2203223f22"),
    ] {
        assert_eq!(to_group(kind, json, packed), data, "{kind:?} {json}");
    }
    let arguments = [json_value("1"), json_value("{}")];
    let call = r#"{"target":"Said","arguments":[1,{}]}"#;
    let mut server = published(DataType::Text, "Said", &arguments, &[]);
    server.group = None;
    let frame = WebPubSubProtocol::ReliableProtobuf.message(&server, 9);
    let expected = format!("12320a067365727665721a262224{}2009", hex(call.as_bytes()));
    assert_eq!(hex(&frame), expected);
    // Null is no data: the whole call is told.
    let null = [Value::null(Encoding::Json)];
    let frame = PROTOCOL.message(&published(DataType::Json, MESSAGE, &null, &[]), 9);
    assert!(frame.ends_with(br#"{"target":"message","arguments":[null]}"#));
}

#[test]
fn each_kind_reaches_each_protocol() {
    for kind in [
        schema::Data::Text("ä".into()),
        schema::Data::Json(r#"{"a":[1]}"#.into()),
        schema::Data::Binary(Bytes::from_static(&[0, 255])),
        schema::Data::Protobuf(Bytes::from_static(b"\x0a\x01t\x12\x01\x01")),
    ] {
        let data = MessageData {
            data: Some(kind.clone()),
        };
        let send = SendToGroup {
            group: "g".to_owned(),
            data: Some(data.clone()),
            ..SendToGroup::default()
        };
        let frame = UpstreamMessage {
            message: Some(Upstream::SendToGroup(send)),
        }
        .encode_to_vec();
        let Ok(ClientMessage::Request(Request {
            wish: RequestWish::Send(send),
            ..
        })) = PROTOCOL.decode(&frame.into())
        else {
            panic!("it is a message")
        };
        let (arguments, packed) = ([send.data.json], Vec::from_iter(send.data.packed));
        let published = published(send.data.kind, MESSAGE, &arguments, &packed);
        let reported = PROTOCOL.message(&published, 1);
        let Some(schema::Downstream::Data(reported)) = DownstreamMessage::decode(reported).unwrap().message
        else {
            panic!("it is data")
        };
        assert_eq!(reported.data, Some(data));
        let text: serde_json::Value = serde_json::from_slice(&json::message(&published, None)).unwrap();
        let expected = match &kind {
            schema::Data::Text(_) => serde_json::json!(["text", "ä"]),
            schema::Data::Json(_) => serde_json::json!(["json", { "a": [1] }]),
            schema::Data::Binary(_) => serde_json::json!(["binary", "AP8="]),
            schema::Data::Protobuf(_) => serde_json::json!(["protobuf", "CgF0EgEB"]),
        };
        assert_eq!(
            serde_json::json!([text.get("dataType"), text.get("data")]),
            expected
        );
        for hub in crate::protocol::HubProtocol::ALL {
            encode_invocation(hub, MESSAGE, &arguments).unwrap();
        }
    }
}
