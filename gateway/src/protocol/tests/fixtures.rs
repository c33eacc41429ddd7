//! The byte table of the protocol, both directions.

use super::*;
use crate::protocol::{EncodeError, encode, encode_invocation, encode_invocation_with_array};

/// A message as it is in both protocols. Its values are JSON.
struct Fixture {
    message: HubMessage,
    json: &'static str,
    messagepack: &'static [u8],
}

fn fixtures() -> Vec<Fixture> {
    let fixture = |message, json, messagepack| Fixture {
        message,
        json,
        messagepack,
    };
    vec![
        fixture(
            HubMessage::Invocation(call(None, "Say", vec![json(r#""hi""#), json("7")])),
            r#"{"type":1,"target":"Say","arguments":["hi",7]}"#,
            b"\x0E\x96\x01\x80\xC0\xA3Say\x92\xA2hi\x07\x90",
        ),
        fixture(
            HubMessage::Invocation(call(Some("0"), "Say", vec![json(r#""hi""#), json("7")])),
            r#"{"type":1,"invocationId":"0","target":"Say","arguments":["hi",7]}"#,
            b"\x0F\x96\x01\x80\xA10\xA3Say\x92\xA2hi\x07\x90",
        ),
        fixture(
            HubMessage::Invocation(Invocation {
                stream_ids: vec!["1".to_owned()],
                ..call(Some("2"), "Up", vec![])
            }),
            r#"{"type":1,"invocationId":"2","target":"Up","arguments":[],"streamIds":["1"]}"#,
            b"\x0C\x96\x01\x80\xA12\xA2Up\x90\x91\xA11",
        ),
        fixture(
            HubMessage::Invocation(Invocation {
                headers: vec![("k".to_owned(), "v".to_owned())],
                ..call(None, "Say", vec![])
            }),
            r#"{"type":1,"headers":{"k":"v"},"target":"Say","arguments":[]}"#,
            b"\x0E\x96\x01\x81\xA1k\xA1v\xC0\xA3Say\x90\x90",
        ),
        fixture(
            HubMessage::Invocation(call(Some("s1"), "ask", vec![json("2")])),
            r#"{"type":1,"invocationId":"s1","target":"ask","arguments":[2]}"#,
            b"\x0D\x96\x01\x80\xA2s1\xA3ask\x91\x02\x90",
        ),
        fixture(
            HubMessage::StreamItem {
                headers: vec![],
                invocation_id: "1".to_owned(),
                item: json(r#""a""#),
            },
            r#"{"type":2,"invocationId":"1","item":"a"}"#,
            b"\x07\x94\x02\x80\xA11\xA1a",
        ),
        fixture(
            completion("1", Outcome::Void),
            r#"{"type":3,"invocationId":"1"}"#,
            b"\x06\x94\x03\x80\xA11\x02",
        ),
        fixture(
            completion("1", Outcome::Error("bad".to_owned())),
            r#"{"type":3,"invocationId":"1","error":"bad"}"#,
            b"\x0A\x95\x03\x80\xA11\x01\xA3bad",
        ),
        fixture(
            completion("s1", Outcome::Result(json("true"))),
            r#"{"type":3,"invocationId":"s1","result":true}"#,
            b"\x08\x95\x03\x80\xA2s1\x03\xC3",
        ),
        fixture(
            completion("0", Outcome::Result(json("null"))),
            r#"{"type":3,"invocationId":"0","result":null}"#,
            b"\x07\x95\x03\x80\xA10\x03\xC0",
        ),
        fixture(
            HubMessage::StreamInvocation(call(Some("5"), "Count", vec![json("3")])),
            r#"{"type":4,"invocationId":"5","target":"Count","arguments":[3]}"#,
            b"\x0E\x96\x04\x80\xA15\xA5Count\x91\x03\x90",
        ),
        fixture(
            HubMessage::CancelInvocation {
                headers: vec![],
                invocation_id: "5".to_owned(),
            },
            r#"{"type":5,"invocationId":"5"}"#,
            b"\x05\x93\x05\x80\xA15",
        ),
        fixture(HubMessage::Ping, r#"{"type":6}"#, b"\x02\x91\x06"),
        fixture(
            HubMessage::Close {
                error: None,
                allow_reconnect: false,
            },
            r#"{"type":7}"#,
            b"\x04\x93\x07\xC0\xC2",
        ),
        fixture(
            HubMessage::Close {
                error: None,
                allow_reconnect: true,
            },
            r#"{"type":7,"allowReconnect":true}"#,
            b"\x04\x93\x07\xC0\xC3",
        ),
        fixture(
            HubMessage::Close {
                error: Some("no".to_owned()),
                allow_reconnect: true,
            },
            r#"{"type":7,"error":"no","allowReconnect":true}"#,
            b"\x06\x93\x07\xA2no\xC3",
        ),
        fixture(
            HubMessage::Ack { sequence_id: 300 },
            r#"{"type":8,"sequenceId":300}"#,
            b"\x05\x92\x08\xCD\x01\x2C",
        ),
        fixture(
            HubMessage::Sequence { sequence_id: 12 },
            r#"{"type":9,"sequenceId":12}"#,
            b"\x03\x92\x09\x0C",
        ),
    ]
}

#[test]
fn every_message_is_written_as_in_the_table() {
    for Fixture {
        message,
        json,
        messagepack,
    } in fixtures()
    {
        let written = encode(HubProtocol::Json, &message).unwrap();
        assert_eq!(written, format!("{json}\x1e"));
        assert_eq!(
            encode(HubProtocol::MessagePack, &message).unwrap(),
            messagepack,
            "{json}"
        );
    }
}

#[test]
fn every_message_of_the_table_is_read() {
    for Fixture {
        message,
        json,
        messagepack,
    } in fixtures()
    {
        assert_eq!(read_json(json).unwrap().as_ref(), Some(&message));
        let message = transcoded(message, Encoding::MessagePack);
        assert_eq!(
            decode_all(HubProtocol::MessagePack, messagepack).unwrap(),
            [message],
            "{json}"
        );
    }
}

#[test]
fn the_shorter_forms_that_clients_write_are_read() {
    let said = |id| {
        let call = HubMessage::Invocation(call(id, "Say", vec![json(r#""hi""#), json("7")]));
        transcoded(call, Encoding::MessagePack)
    };
    let shorter: [(&[u8], HubMessage); 6] = [
        (b"\x0D\x95\x01\x80\xC0\xA3Say\x92\xA2hi\x07", said(None)),
        (b"\x0E\x95\x01\x80\xA10\xA3Say\x92\xA2hi\x07", said(Some("0"))),
        (
            b"\x0D\x95\x01\x81\xA1k\xA1v\xC0\xA3Say\x90",
            HubMessage::Invocation(Invocation {
                headers: vec![("k".to_owned(), "v".to_owned())],
                ..call(None, "Say", vec![])
            }),
        ),
        (
            b"\x0D\x95\x04\x80\xA15\xA5Count\x91\x03",
            HubMessage::StreamInvocation(call(Some("5"), "Count", vec![pack(b"\x03")])),
        ),
        (
            b"\x03\x92\x07\xC0",
            HubMessage::Close {
                error: None,
                allow_reconnect: false,
            },
        ),
        (
            b"\x05\x92\x07\xA2no",
            HubMessage::Close {
                error: Some("no".to_owned()),
                allow_reconnect: false,
            },
        ),
    ];
    for (bytes, message) in shorter {
        assert_eq!(decode_all(HubProtocol::MessagePack, bytes).unwrap(), [message]);
    }
}

#[test]
fn type_ids_and_counting_follow_the_table() {
    let mut seen = [false; 10];
    for Fixture { message, json, .. } in fixtures() {
        let type_id = message.type_id();
        assert!(json.starts_with(&format!("{{\"type\":{type_id}")));
        assert_eq!(message.is_counted(), type_id <= 5);
        seen[usize::from(type_id)] = true;
    }
    assert_eq!(
        seen,
        [false, true, true, true, true, true, true, true, true, true]
    );
}

#[test]
fn values_in_the_other_encoding_are_transcoded() {
    let message = HubMessage::Invocation(call(None, "a", vec![json("[1]"), pack(b"\xC4\x02hi")]));
    let written = encode(HubProtocol::Json, &message).unwrap();
    assert_eq!(
        written,
        "{\"type\":1,\"target\":\"a\",\"arguments\":[[1],\"aGk=\"]}\x1e"
    );
    let written = encode(HubProtocol::MessagePack, &message).unwrap();
    assert_eq!(
        written,
        b"\x0E\x96\x01\x80\xC0\xA1a\x92\x91\x01\xC4\x02hi\x90".as_slice()
    );
}

#[test]
fn arguments_in_one_array_have_to_be_an_array() {
    let arguments = [json(r#"{ "a" : 1 }"#), pack(b"\xC4\x02hi")];
    let json_array = Value::array(&arguments, Encoding::Json).unwrap();
    let packed_array = Value::array(&arguments, Encoding::MessagePack).unwrap();
    let written = encode_invocation_with_array(HubProtocol::Json, "a", &json_array).unwrap();
    assert_eq!(
        written,
        "{\"type\":1,\"target\":\"a\",\"arguments\":[{ \"a\" : 1 },\"aGk=\"]}\x1e"
    );
    let written = encode_invocation_with_array(HubProtocol::Json, "a", &packed_array).unwrap();
    assert_eq!(
        written,
        "{\"type\":1,\"target\":\"a\",\"arguments\":[{\"a\":1},\"aGk=\"]}\x1e"
    );
    let written = encode_invocation_with_array(HubProtocol::MessagePack, "a", &packed_array).unwrap();
    assert_eq!(
        written,
        b"\x10\x96\x01\x80\xC0\xA1a\x92\x81\xA1a\x01\xC4\x02hi\x90".as_slice()
    );
    for protocol in HubProtocol::ALL {
        for value in [json("1"), json("{}"), pack(b"\x80"), pack(b"\xC0")] {
            let error = encode_invocation_with_array(protocol, "a", &value).unwrap_err();
            assert!(matches!(error, EncodeError::NotAnArray));
        }
    }
}

#[test]
fn strings_are_escaped_so_that_no_control_character_is_left() {
    let nasty = "\u{1e}\n\r\t\"\\/\u{0}\u{1f}é😀\u{7f}";
    let message = HubMessage::Close {
        error: Some(nasty.to_owned()),
        allow_reconnect: false,
    };
    let written = encode(HubProtocol::Json, &message).unwrap();
    assert_eq!(
        written,
        "{\"type\":7,\"error\":\"\\u001e\\n\\r\\t\\\"\\\\/\\u0000\\u001fé😀\u{7f}\"}\x1e"
    );
    assert_eq!(decode_all(HubProtocol::Json, &written).unwrap(), [message]);
}

#[test]
fn a_raw_value_with_a_record_separator_is_refused() {
    let value = Value::from_raw(Encoding::Json, Bytes::from_static(b"\"\x1e\""));
    let error = encode_invocation(HubProtocol::Json, "a", &[value]).unwrap_err();
    assert!(matches!(error, EncodeError::RecordSeparator));
}

#[test]
fn white_space_within_json_values_is_kept() {
    let value = json("{\n \"a\" : 1 }");
    let written = encode_invocation(HubProtocol::Json, "a", &[value]).unwrap();
    assert_eq!(
        written,
        "{\"type\":1,\"target\":\"a\",\"arguments\":[{\n \"a\" : 1 }]}\x1e"
    );
}

#[test]
fn a_message_is_written_into_a_buffer_of_its_size() {
    for length in [0, 1, 100, 127, 128, 5_000, 70_000] {
        let text = Value::encode(&"x".repeat(length)).unwrap();
        for protocol in HubProtocol::ALL {
            let written = encode_invocation(protocol, "a\u{1}b", std::slice::from_ref(&text)).unwrap();
            let written = Vec::from(written);
            assert_eq!(written.capacity(), written.len());
        }
    }
}
