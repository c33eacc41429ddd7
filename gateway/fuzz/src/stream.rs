//! Any bytes as the messages of a connection: the output does not depend on how they were cut, and can be written
//! again in both protocols.

use hubcast::protocol::{
    Binary, Decoder, EncodeError, Encoding, HubMessage, HubProtocol, Outcome, TranscodeError, Value, encode,
    encode_invocation, encode_invocation_with_array,
};

use crate::{Stream, decode};

/// Checks one input; see [`Stream`].
pub fn check(protocol: HubProtocol, input: &[u8]) {
    let Some(stream) = Stream::of(input) else {
        return;
    };
    let [whole, cut, bytewise] = stream
        .cuts()
        .map(|chunks| decode(Decoder::new(protocol, stream.limit), stream.limit, chunks));
    assert_eq!(whole, cut, "the cut matters");
    assert_eq!(whole, bytewise, "the cut matters");
    if let Ok(rest) = &whole.end {
        assert!(stream.bytes.ends_with(rest), "other bytes are left than came");
    }
    for message in &whole.messages {
        check_message(protocol, message);
    }
    check_raw(stream.bytes);
}

/// A decoded message can be written and read again, in its own protocol and in the other one.
fn check_message(protocol: HubProtocol, message: &HubMessage) {
    let written = encode(protocol, message).expect("a message that was read can be written");
    assert_eq!(read(protocol, &written), *message);

    let other = match protocol {
        HubProtocol::Json => HubProtocol::MessagePack,
        HubProtocol::MessagePack => HubProtocol::Json,
    };
    for value in message.values() {
        check_value(value);
    }
    let transcoded = message
        .values()
        .iter()
        .map(|value| value.transcode(other.encoding()))
        .collect::<Result<Vec<_>, _>>();
    match (encode(other, message), transcoded) {
        (Ok(written), Ok(values)) => assert_eq!(read(other, &written), with_values(message, values)),
        (Err(EncodeError::Transcode(error)), Err(expected)) => assert_eq!(error, expected),
        outcome => panic!("a message and its values differ: {outcome:?}"),
    }
    if let HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) = message {
        check_fan_out(&call.arguments);
    }
}

/// The one message that these bytes are.
fn read(protocol: HubProtocol, written: &[u8]) -> HubMessage {
    let mut decoder = Decoder::new(protocol, written.len());
    decoder.push(written);
    let message = decoder.next_message().expect("what was written can be read");
    assert_eq!(decoder.buffered_bytes(), 0, "more was written than one message");
    message.expect("a message was written")
}

fn with_values(message: &HubMessage, values: Vec<Value>) -> HubMessage {
    let mut message = message.clone();
    match &mut message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => call.arguments = values,
        HubMessage::StreamItem { item: value, .. }
        | HubMessage::Completion {
            outcome: Outcome::Result(value),
            ..
        } => values.into_iter().for_each(|new| *value = new),
        _ => assert_eq!(values, [], "a message without places for values"),
    }
    message
}

/// A value of a message is well formed, and stays so in the other encoding.
fn check_value(value: &Value) {
    assert_eq!(checked(value).as_ref(), Some(value));
    match value.encoding() {
        Encoding::Json => {
            let packed = value
                .transcode(Encoding::MessagePack)
                .expect("JSON is MessagePack too");
            assert!(checked(&packed).is_some(), "{value:?} became {packed:?}");
            let text = packed.transcode(Encoding::Json).expect("and back");
            let again = text.transcode(Encoding::MessagePack).expect("and again");
            // Numbers over the range of a float are infinite in MessagePack and null in JSON.
            if !has_infinity(packed.bytes()) {
                assert_eq!(again, packed);
            }
        }
        Encoding::MessagePack => match value.transcode(Encoding::Json) {
            Ok(text) => assert!(checked(&text).is_some(), "{value:?} became {text:?}"),
            Err(error) => assert_eq!(error, TranscodeError::UnsupportedKey),
        },
    }
    use_value(value);
}

/// The value, if its bytes are one value of its encoding.
fn checked(value: &Value) -> Option<Value> {
    let bytes = value.bytes().clone();
    match value.encoding() {
        Encoding::Json => Value::from_json_text(bytes).ok(),
        Encoding::MessagePack => Value::from_messagepack(bytes).ok(),
    }
}

fn has_infinity(packed: &[u8]) -> bool {
    packed
        .windows(9)
        .any(|bytes| matches!(bytes, [0xCB, 0x7F | 0xFF, 0xF0, 0, 0, 0, 0, 0, 0]))
}

/// Arguments as one array, and each alone, make the same call to many.
fn check_fan_out(arguments: &[Value]) {
    for protocol in HubProtocol::ALL {
        let Ok(array) = Value::array(arguments, protocol.encoding()) else {
            continue; // not to be transcoded
        };
        let elements = array.elements().expect("an array was written");
        let written = encode_invocation(protocol, "m", &elements).expect("its items can be written");
        assert_eq!(
            encode_invocation(protocol, "m", arguments).expect("and the values"),
            written
        );
        assert_eq!(
            encode_invocation_with_array(protocol, "m", &array).expect("and the array"),
            written
        );
        match read(protocol, &written) {
            HubMessage::Invocation(call) => assert_eq!(call.arguments, elements),
            other => panic!("a call became {other:?}"),
        }
    }
}

/// Unchecked bytes: errors are fine, panics are not, and the output is well formed.
fn check_raw(bytes: &[u8]) {
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let value = Value::from_raw(encoding, bytes.to_vec().into());
        for protocol in HubProtocol::ALL {
            let _ = encode_invocation_with_array(protocol, "m", &value);
            if let Ok(transcoded) = value.transcode(protocol.encoding())
                && protocol.encoding() != encoding
            {
                assert!(checked(&transcoded).is_some(), "{value:?} became {transcoded:?}");
            }
        }
        use_value(&value);
    }
}

/// Uses a value as hub code does.
fn use_value(value: &Value) {
    let _ = value.is_null();
    let _ = value.elements();
    let _ = value.decode::<Binary>();
    let _ = value.decode::<serde_json::Value>();
    let _ = value.decode::<String>();
    let _ = value.decode::<Vec<i64>>();
    let _ = value.decode::<Option<(f64, bool)>>();
}
