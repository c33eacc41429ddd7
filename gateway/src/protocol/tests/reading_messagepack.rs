//! The rules for reading MessagePack, one by one.

use super::*;
use crate::protocol::PackError;

/// The text of the error.
#[track_caller]
fn refuses(body: impl AsRef<[u8]>) -> String {
    read_messagepack(body).unwrap_err().to_string()
}

#[track_caller]
fn reads(body: impl AsRef<[u8]>, message: HubMessage) {
    assert_eq!(read_messagepack(body).unwrap(), Some(message));
}

#[test]
fn integers_may_have_any_width() {
    for body in [
        b"\x91\x06".as_slice(),
        b"\x91\xCC\x06",
        b"\x91\xCD\0\x06",
        b"\x91\xCE\0\0\0\x06",
        b"\x91\xCF\0\0\0\0\0\0\0\x06",
        b"\x91\xD0\x06",
        b"\x91\xD1\0\x06",
        b"\x91\xD2\0\0\0\x06",
        b"\x91\xD3\0\0\0\0\0\0\0\x06",
    ] {
        reads(body, HubMessage::Ping);
    }
    reads(b"\x94\x03\x80\xA11\xD1\0\x02", completion("1", Outcome::Void));
    reads(
        b"\x92\x08\xCF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
        HubMessage::Ack {
            sequence_id: u64::MAX,
        },
    );
}

#[test]
fn arrays_maps_and_strings_may_have_any_width() {
    let message = HubMessage::Invocation(Invocation {
        headers: vec![("k".to_owned(), "v".to_owned())],
        stream_ids: vec!["1".to_owned()],
        ..call(Some("2"), "Up", vec![pack(b"\xDB\0\0\0\x01a")])
    });
    reads(
        b"\xDC\0\x06\x01\xDE\0\x01\xD9\x01k\xDA\0\x01v\xDB\0\0\0\x012\xD9\x02Up\xDC\0\x01\
          \xDB\0\0\0\x01a\xDD\0\0\0\x01\xA11",
        message.clone(),
    );
    reads(
        b"\xDD\0\0\0\x06\x01\xDF\0\0\0\x01\xA1k\xA1v\xA12\xA2Up\xDD\0\0\0\x01\xDB\0\0\0\x01a\x91\xA11",
        message,
    );
}

#[test]
fn longer_arrays_are_accepted() {
    reads(b"\x93\x06\xC0\x81\xA1a\x90", HubMessage::Ping);
    reads(b"\x95\x03\x80\xA11\x02\xC0", completion("1", Outcome::Void));
    reads(
        b"\x97\x01\x80\xC0\xA1a\x90\x90\xD4\x05\x00",
        HubMessage::Invocation(call(None, "a", vec![])),
    );
    reads(
        b"\x94\x07\xC0\xC3\x01",
        HubMessage::Close {
            error: None,
            allow_reconnect: true,
        },
    );
}

#[test]
fn items_behind_the_known_ones_have_to_be_whole() {
    assert_eq!(
        refuses(b"\x92\x06\xA2a"),
        "Error reading MessagePack: the value is truncated."
    );
    assert_eq!(
        refuses(b"\x92\x06"),
        "Error reading MessagePack: the value is truncated."
    );
}

#[test]
fn nothing_may_follow_the_array() {
    assert_eq!(
        refuses(b"\x91\x06\xC0"),
        "Error reading MessagePack: bytes follow behind the value."
    );
}

#[test]
fn missing_items_are_named() {
    for (body, property) in [
        (b"\x90".as_slice(), "type"),
        (b"\x91\x01", "headers"),
        (b"\x92\x01\x80", "invocationId"),
        (b"\x93\x01\x80\xC0", "target"),
        (b"\x94\x01\x80\xC0\xA1a", "arguments"),
        (b"\x93\x02\x80\xA11", "item"),
        (b"\x93\x03\x80\xA11", "result kind"),
        (b"\x94\x03\x80\xA11\x01", "error"),
        (b"\x94\x03\x80\xA11\x03", "result"),
        (b"\x91\x07", "error"),
        (b"\x91\x08", "sequenceId"),
        (b"\x91\x09", "sequenceId"),
    ] {
        assert_eq!(refuses(body), format!("Missing required property '{property}'."));
    }
}

#[test]
fn items_of_another_type_are_refused() {
    for body in [
        b"\xC0".as_slice(),
        b"\x80",
        b"\x06",
        b"",
        b"\x91\xA16",
        b"\x91\xFF",
        b"\x91\xCB\x40\x18\0\0\0\0\0\0",
        b"\x95\x01\xC0\xC0\xA1a\x90",
        b"\x95\x01\x90\xC0\xA1a\x90",
        b"\x95\x01\x81\xA1a\xC0\xC0\xA1a\x90",
        b"\x95\x01\x80\x05\xA1a\x90",
        b"\x95\x01\x80\xC0\xC0\x90",
        b"\x95\x01\x80\xC0\xC4\x01a\x90",
        b"\x95\x01\x80\xC0\xA1a\xC0",
        b"\x95\x01\x80\xC0\xA1a\x80",
        b"\x96\x01\x80\xC0\xA1a\x90\xC0",
        b"\x96\x01\x80\xC0\xA1a\x90\x91\x05",
        b"\x95\x03\x80\xA11\x01\xC0",
        b"\x92\x07\x05",
        b"\x93\x07\xC0\xC0",
        b"\x92\x08\xFF",
        b"\x92\x08\xC0",
    ] {
        assert!(
            matches!(read_messagepack(body), Err(DecodeError::MessagePack(_))),
            "{body:?}"
        );
    }
}

#[test]
fn text_of_the_message_itself_has_to_be_utf8() {
    assert_eq!(
        refuses(b"\x95\x01\x80\xC0\xA1\xFF\x90"),
        "Error reading MessagePack: a string is not UTF-8."
    );
}

#[test]
fn a_nil_or_empty_id_makes_an_invocation_that_nobody_waits_for() {
    for body in [b"\x95\x01\x80\xC0\xA1a\x90", b"\x95\x01\x80\xA0\xA1a\x90"] {
        reads(body, HubMessage::Invocation(call(None, "a", vec![])));
    }
}

#[test]
fn the_other_counted_messages_need_an_id() {
    for id in [b"\xC0", b"\xA0"] {
        for (start, end) in [
            (b"\x94\x02\x80".as_slice(), b"\x01".as_slice()),
            (b"\x94\x03\x80", b"\x02"),
            (b"\x95\x04\x80", b"\xA1a\x90"),
            (b"\x93\x05\x80", b""),
        ] {
            let body = [start, id, end].concat();
            assert_eq!(refuses(body), "Missing required property 'invocationId'.");
        }
    }
}

#[test]
fn an_unknown_result_kind_is_refused() {
    for kind in [0, 4, 5, 127] {
        let body = [b"\x95\x03\x80\xA11".as_slice(), &[kind, 0xC0]].concat();
        assert_eq!(refuses(body), format!("Invalid invocation result kind {kind}."));
    }
}

#[test]
fn messages_of_unknown_type_are_skipped_whatever_they_hold() {
    for body in [
        b"\x91\x00".as_slice(),
        b"\x92\x0A\xC1",
        b"\x91\xCD\x01\x01",
        b"\x95\x63\x05",
    ] {
        assert_eq!(read_messagepack(body).unwrap(), None);
    }
    let messages = decode_all(HubProtocol::MessagePack, b"\x03\x92\x63\xC0\x02\x91\x06").unwrap();
    assert_eq!(messages, [HubMessage::Ping]);
}

#[test]
fn values_of_every_kind_are_passed_over() {
    let values: [&[u8]; 22] = [
        b"\xC0",
        b"\xE0",
        b"\xC4\x01\xFF",
        b"\xC5\0\x01\xFF",
        b"\xC6\0\0\0\x01\xFF",
        b"\xC7\x03\x07abc",
        b"\xC8\0\x01\x07a",
        b"\xC9\0\0\0\x01\x07a",
        b"\xCA\0\0\0\0",
        b"\xCB\0\0\0\0\0\0\0\0",
        b"\xD4\x07a",
        b"\xD5\x07ab",
        b"\xD6\xFF\0\0\0\0",
        b"\xD7\xFF\0\0\0\0\0\0\0\0",
        b"\xD8\x070123456789abcdef",
        b"\xD9\x01a",
        b"\xA1\xFF",
        b"\x82\xA1a\x01\x02\x91\xC0",
        b"\xDE\0\x01\x01\x02",
        b"\xDF\0\0\0\x01\x01\x02",
        b"\xDC\0\x02\x01\x02",
        b"\xDD\0\0\0\x00",
    ];
    let mut body = b"\x95\x01\x80\xC0\xA1a\xDC\0\x16".to_vec();
    body.extend(values.concat());
    let arguments = values.into_iter().map(pack).collect();
    reads(body, HubMessage::Invocation(call(None, "a", arguments)));
}

#[test]
fn a_reserved_marker_is_refused() {
    assert_eq!(
        refuses(b"\x95\x01\x80\xC0\xA1a\x91\xC1"),
        "Error reading MessagePack: a value begins with the reserved byte 0xC1."
    );
}

#[test]
fn a_truncated_message_is_refused_wherever_it_ends() {
    let body: &[u8] = b"\x96\x01\x81\xA1k\xA1v\xA12\xA2Up\x95\xCB\0\0\0\0\0\0\0\0\xD6\xFF\0\0\0\0\
        \x81\xA1a\xC4\x01b\xC7\x01\x05c\xDA\0\x01d\x91\xA11";
    assert!(read_messagepack(body).unwrap().is_some());
    for end in 0..body.len() {
        assert!(read_messagepack(&body[..end]).is_err(), "{end}");
    }
}

#[test]
fn nesting_is_limited_to_64_levels() {
    let body = |open: &[u8], levels| {
        let mut body = b"\x95\x01\x80\xC0\xA1a\x91".to_vec();
        body.extend(open.repeat(levels));
        body.push(0xC0);
        body
    };
    for open in [b"\x91".as_slice(), b"\x81\xC0", b"\xDC\0\x01"] {
        assert!(read_messagepack(body(open, 62)).unwrap().is_some());
        assert_eq!(
            refuses(body(open, 63)),
            "The maximum depth of 64 levels was exceeded."
        );
        assert_eq!(
            refuses(body(open, 100_000)),
            "The maximum depth of 64 levels was exceeded."
        );
    }
    let item = |levels| [b"\x94\x02\x80\xA11".as_slice(), &b"\x91".repeat(levels), b"\xC0"].concat();
    assert!(read_messagepack(item(63)).unwrap().is_some());
    assert_eq!(refuses(item(64)), "The maximum depth of 64 levels was exceeded.");
}

#[test]
fn a_declared_length_costs_nothing_until_it_is_there() {
    for bomb in [
        b"\xDD\xFF\xFF\xFF\xFF".as_slice(),
        b"\xDF\xFF\xFF\xFF\xFF",
        b"\xDB\xFF\xFF\xFF\xFF",
        b"\xC6\xFF\xFF\xFF\xFF",
        b"\xC9\xFF\xFF\xFF\xFF\x01",
        b"\xDD\xFF\xFF\xFF\xFF\xDD\xFF\xFF\xFF\xFF\xDF\xFF\xFF\xFF\xFF",
    ] {
        for start in [
            b"".as_slice(),
            b"\x95\x01",
            b"\x95\x01\x80",
            b"\x95\x01\x80\xC0\xA1a",
            b"\x95\x01\x80\xC0\xA1a\x91",
            b"\x96\x01\x80\xC0\xA1a\x90",
            b"\x96\x01\x80\xC0\xA1a\x90\x91",
            b"\x94\x02\x80\xA11",
            b"\x93\x06",
        ] {
            assert!(read_messagepack([start, bomb].concat()).is_err());
        }
        assert!(matches!(
            Value::from_messagepack(bomb),
            Err(crate::protocol::DecodeValueError::Malformed(PackError::Truncated))
        ));
        let value = Value::from_raw(Encoding::MessagePack, Bytes::from_static(bomb));
        assert!(value.transcode(Encoding::Json).is_err());
        assert!(value.decode::<Vec<u8>>().is_err());
        assert!(value.elements().is_err());
    }
}
