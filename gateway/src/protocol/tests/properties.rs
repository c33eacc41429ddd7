//! Properties that hold for any message and any bytes.

use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::*;
use crate::protocol::{HandshakeReader, Headers, encode, encode_invocation, encode_invocation_with_array};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{0,3}",
        ".{0,8}",
        any::<String>(),
        "[\u{1e}\n\"\\\\\u{0}]{1,3}",
        "x{30,40}"
    ]
}

fn id() -> impl Strategy<Value = String> {
    text().prop_filter("an id", |id| !id.is_empty())
}

fn headers() -> impl Strategy<Value = Headers> {
    vec((text(), text()), 0..3).prop_map(|mut headers| {
        headers.sort();
        headers.dedup_by(|one, other| one.0 == other.0);
        headers
    })
}

/// Anything JSON can say. Floats are short: `serde_json` may be one bit off for long ones.
fn tree() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-300_i16..300).prop_map(Into::into),
        any::<i32>().prop_map(|n| (f64::from(n) / 1024.0).into()),
        text().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Into::into),
            vec((text(), inner), 0..20)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn value() -> impl Strategy<Value = Value> {
    let typed = |encoding| move |tree| Value::encode_as(&tree, encoding).unwrap();
    prop_oneof![
        tree().prop_map(typed(Encoding::Json)),
        tree().prop_map(typed(Encoding::MessagePack)),
        tree().prop_map(|tree| Value::from_json_text(format!("{tree:#}")).unwrap()),
    ]
}

prop_compose! {
    fn invocation(id: BoxedStrategy<Option<String>>)(
        headers in headers(),
        invocation_id in id,
        target in text(),
        arguments in vec(value(), 0..4),
        stream_ids in vec(text(), 0..3),
    ) -> Invocation {
        Invocation { headers, invocation_id, target, arguments, stream_ids, data_type: None }
    }
}

fn message() -> impl Strategy<Value = HubMessage> {
    let outcome = prop_oneof![
        Just(Outcome::Void),
        value().prop_map(Outcome::Result),
        text().prop_map(Outcome::Error),
    ];
    prop_oneof![
        invocation(option::of(id()).boxed()).prop_map(HubMessage::Invocation),
        invocation(id().prop_map(Some).boxed()).prop_map(HubMessage::StreamInvocation),
        (headers(), id(), value()).prop_map(|(headers, invocation_id, item)| {
            HubMessage::StreamItem {
                headers,
                invocation_id,
                item,
            }
        }),
        (headers(), id(), outcome).prop_map(|(headers, invocation_id, outcome)| {
            HubMessage::Completion {
                headers,
                invocation_id,
                outcome,
            }
        }),
        (headers(), id()).prop_map(|(headers, invocation_id)| HubMessage::CancelInvocation {
            headers,
            invocation_id
        }),
        Just(HubMessage::Ping),
        (option::of(text()), any::<bool>()).prop_map(|(error, allow_reconnect)| HubMessage::Close {
            error,
            allow_reconnect
        }),
        any::<u64>().prop_map(|sequence_id| HubMessage::Ack { sequence_id }),
        any::<u64>().prop_map(|sequence_id| HubMessage::Sequence { sequence_id }),
    ]
}

fn protocol() -> impl Strategy<Value = HubProtocol> {
    proptest::sample::select(HubProtocol::ALL.as_slice())
}

/// Bytes that look like something, so that they get further than noise.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let fragments = proptest::sample::select(vec![
        b"{\"type\":".as_slice(),
        b"1,\"target\":\"a\",\"arguments\":[",
        b"\"invocationId\":\"1\",",
        b"]}\x1e",
        b"\x1e",
        b"\"\\ud83d",
        b"\x96\x01\x80\xC0\xA1a\x91",
        b"\x94\x02\x80\xA11",
        b"\xDD\xFF\xFF\xFF\xFF",
        b"\xC7\x0C\xFF",
        b"\xFF\xFF\xFF\xFF\x07",
    ]);
    let piece = prop_oneof![fragments.prop_map(<[u8]>::to_vec), vec(any::<u8>(), 0..12)];
    vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

/// The messages that the decoder gives for these chunks, and whether it ended with an error.
fn decode_chunks<'a>(
    protocol: HubProtocol,
    limit: usize,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<HubMessage>, bool) {
    let mut decoder = Decoder::new(protocol, limit);
    let mut messages = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
        assert!(decoder.buffered_bytes() <= limit);
    }
    (messages, false)
}

/// `bytes` cut at these places.
fn cut<'a>(mut bytes: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut chunks = Vec::new();
    let mut start = 0;
    for place in places {
        let (chunk, rest) = bytes.split_at(place - start);
        chunks.push(chunk);
        (bytes, start) = (rest, place);
    }
    chunks.push(bytes);
    chunks
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_was(message in message(), protocol in protocol()) {
        let bytes = encode(protocol, &message).unwrap();
        let expected = transcoded(message, protocol.encoding());
        prop_assert_eq!(decode_all(protocol, &bytes).unwrap(), [expected]);
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_messages(
        messages in vec(message(), 0..6),
        protocol in protocol(),
        places in vec(any::<Index>(), 0..30),
    ) {
        let stream: Vec<_> = messages.iter().map(|message| encode(protocol, message).unwrap()).collect();
        let limit = stream.iter().map(Bytes::len).max().unwrap_or(1);
        let stream = stream.concat();
        let expected: Vec<_> =
            messages.into_iter().map(|message| transcoded(message, protocol.encoding())).collect();
        let (decoded, failed) = decode_chunks(protocol, limit, cut(&stream, &places));
        prop_assert!(!failed);
        prop_assert_eq!(&decoded, &expected);
        let (decoded, failed) = decode_chunks(protocol, limit, stream.chunks(1));
        prop_assert!(!failed);
        prop_assert_eq!(&decoded, &expected);
    }

    #[test]
    fn garbage_ends_the_same_way_however_it_is_cut(
        bytes in garbage(),
        protocol in protocol(),
        limit in 1..300_usize,
        places in vec(any::<Index>(), 0..10),
    ) {
        let whole = decode_chunks(protocol, limit, [bytes.as_slice()]);
        prop_assert_eq!(decode_chunks(protocol, limit, cut(&bytes, &places)), whole);
    }

    #[test]
    fn a_message_with_a_broken_byte_is_read_or_refused(
        message in message(),
        protocol in protocol(),
        place in any::<Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(protocol, &message).unwrap().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let (messages, _) = decode_chunks(protocol, usize::MAX, [bytes.as_slice()]);
        for message in messages {
            // Whatever was read can be written and read again.
            for protocol in HubProtocol::ALL {
                if let Ok(bytes) = encode(protocol, &message) {
                    prop_assert_eq!(decode_all(protocol, &bytes).unwrap().len(), 1);
                }
            }
        }
    }

    #[test]
    fn nothing_panics_on_a_handshake(bytes in garbage(), limit in 1..300_usize) {
        let mut reader = HandshakeReader::new(limit);
        reader.push(&bytes);
        let _ = reader.next_request();
        let mut decoder = reader.into_decoder(HubProtocol::Json);
        while let Ok(Some(_)) = decoder.next_message() {}
    }

    #[test]
    fn nothing_panics_on_raw_values(bytes in garbage(), json in any::<bool>()) {
        let encoding = if json { Encoding::Json } else { Encoding::MessagePack };
        let value = Value::from_raw(encoding, bytes.into());
        let _ = value.decode::<serde_json::Value>();
        let _ = value.decode::<crate::protocol::Binary>();
        let _ = value.elements();
        for protocol in HubProtocol::ALL {
            let _ = encode_invocation_with_array(protocol, "a", &value);
            if let Ok(transcoded) = value.transcode(protocol.encoding()) {
                let _ = transcoded.decode::<serde_json::Value>();
            }
        }
    }

    #[test]
    fn checked_messagepack_becomes_json_or_is_refused(bytes in garbage()) {
        if let Ok(value) = Value::from_messagepack(bytes) {
            match value.transcode(Encoding::Json) {
                Ok(text) => prop_assert!(Value::from_json_text(text.bytes().clone()).is_ok()),
                Err(error) => prop_assert_eq!(error, crate::protocol::TranscodeError::UnsupportedKey),
            }
        }
    }

    #[test]
    fn transcoding_keeps_the_value(tree in tree()) {
        let json = Value::encode(&tree).unwrap();
        let packed = json.transcode(Encoding::MessagePack).unwrap();
        prop_assert_eq!(&packed, &Value::encode_as(&tree, Encoding::MessagePack).unwrap());
        prop_assert_eq!(&packed.decode::<serde_json::Value>().unwrap(), &tree);
        prop_assert_eq!(&packed.transcode(Encoding::Json).unwrap(), &json);
        let pretty = Value::from_json_text(format!("{tree:#}")).unwrap();
        prop_assert_eq!(&pretty.transcode(Encoding::MessagePack).unwrap(), &packed);
    }

    #[test]
    fn transcoding_keeps_every_float(number in any::<f64>()) {
        let packed = Value::encode_as(&number, Encoding::MessagePack).unwrap();
        let json = packed.transcode(Encoding::Json).unwrap();
        if number.is_finite() {
            prop_assert_eq!(json.transcode(Encoding::MessagePack).unwrap(), packed);
        } else {
            prop_assert!(json.is_null());
        }
    }

    #[test]
    fn a_fan_out_is_a_message(target in text(), arguments in vec(value(), 0..4), protocol in protocol()) {
        let message = HubMessage::Invocation(call(None, &target, arguments.clone()));
        let bytes = encode(protocol, &message).unwrap();
        prop_assert_eq!(&encode_invocation(protocol, &target, &arguments).unwrap(), &bytes);
        let array = Value::array(&arguments, protocol.encoding()).unwrap();
        prop_assert_eq!(&encode_invocation_with_array(protocol, &target, &array).unwrap(), &bytes);
        let arguments: Vec<_> =
            arguments.iter().map(|value| value.transcode(protocol.encoding()).unwrap()).collect();
        prop_assert_eq!(array.elements().unwrap(), arguments);
    }
}
