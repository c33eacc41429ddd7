//! The protocols of clients as a whole, and plain WebSockets by their frames.

use bytes::Bytes;
use proptest::prelude::*;

use crate::protocol::client::{ClientMessage, DataType};
use crate::protocol::{
    ClientDecoder, ClientProtocol, DecodeError, Encoding, HubMessage, Invocation, Value, plain,
};

#[test]
fn plain_frames_are_texts_or_bytes() {
    let mut decoder = ClientDecoder::new(ClientProtocol::Plain, 8);
    for frame in ["a\"\u{1e}\n", "\u{7f}ö"] {
        decoder.push(Bytes::copy_from_slice(frame.as_bytes()));
    }
    decoder.push(Bytes::from_static(&[0xFF, 0]));
    decoder.push(Bytes::from_static(b"123456789"));
    assert_eq!(decoder.buffered_bytes(), 18);
    let expected = [
        ("1", DataType::Text, r#""a\"\u001e\n""#),
        ("2", DataType::Text, "\"\u{7f}ö\""),
        ("3", DataType::Binary, r#""/wA=""#),
    ];
    for (id, kind, argument) in expected {
        let argument = Value::from_raw(Encoding::Json, Bytes::from_static(argument.as_bytes()));
        assert_eq!(
            decoder.next_message().unwrap(),
            Some(ClientMessage::Hub(HubMessage::Invocation(Invocation {
                invocation_id: Some(id.to_owned()),
                target: "message".to_owned(),
                arguments: vec![argument],
                data_type: Some(kind),
                ..Invocation::default()
            })))
        );
    }
    assert!(matches!(
        decoder.next_message(),
        Err(DecodeError::TooLarge { limit: 8 })
    ));
    assert_eq!(
        plain::connected("c", Some("u")),
        r#"{"type":"connected","connectionId":"c","userId":"u"}"#
    );
    assert_eq!(
        plain::connected("c", None),
        r#"{"type":"connected","connectionId":"c"}"#
    );
    assert_eq!(plain::place("p"), r#"{"type":"place","id":"p"}"#);
    assert_eq!(
        plain::reset("epoch", None),
        r#"{"type":"reset","reason":"epoch"}"#
    );
}

#[test]
fn every_protocol_has_its_place_and_name() {
    for (index, protocol) in ClientProtocol::ALL.into_iter().enumerate() {
        assert_eq!(protocol.index(), index);
        let same_name = |other: &&ClientProtocol| other.name() == protocol.name();
        assert_eq!(ClientProtocol::ALL.iter().filter(same_name).count(), 1);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(frames in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
        for protocol in ClientProtocol::ALL {
            let mut decoder = ClientDecoder::new(protocol, 64);
            for frame in &frames {
                decoder.push(Bytes::copy_from_slice(frame));
            }
            while let Ok(Some(_)) = decoder.next_message() {}
        }
    }
}
