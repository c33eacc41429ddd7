//! The decoder on byte streams: limits, memory, errors.

use super::*;

const PING: &[u8] = b"{\"type\":6}\x1e";

#[test]
fn the_limit_counts_the_separator() {
    for (limit, fits) in [(PING.len(), true), (PING.len() - 1, false)] {
        let mut decoder = Decoder::new(HubProtocol::Json, limit);
        decoder.push(PING);
        assert_eq!(decoder.next_message().is_ok(), fits);
    }
}

#[test]
fn the_limit_counts_the_length_prefix() {
    for (limit, fits) in [(3, true), (2, false)] {
        let mut decoder = Decoder::new(HubProtocol::MessagePack, limit);
        decoder.push(b"\x02\x91\x06");
        let message = decoder.next_message();
        assert_eq!(message.is_ok(), fits);
    }
}

#[test]
fn the_limit_is_for_one_message_not_for_the_buffer() {
    let mut decoder = Decoder::new(HubProtocol::Json, PING.len());
    decoder.push(&PING.repeat(100));
    for _ in 0..100 {
        assert_eq!(decoder.next_message().unwrap(), Some(HubMessage::Ping));
    }
    assert_eq!(decoder.next_message().unwrap(), None);
}

#[test]
fn an_unfinished_message_does_not_grow_over_the_limit() {
    let mut decoder = Decoder::new(HubProtocol::Json, 100);
    decoder.push(&[b' '; 99]);
    assert_eq!(decoder.next_message().unwrap(), None);
    decoder.push(b" ");
    let error = decoder.next_message().unwrap_err();
    assert_eq!(
        error.to_string(),
        "The maximum message size of 100B was exceeded."
    );
}

#[test]
fn a_length_over_the_limit_is_refused_at_once() {
    let mut decoder = Decoder::new(HubProtocol::MessagePack, 32_768);
    decoder.push(b"\xFF\xFF\xFF\xFF\x07");
    assert!(matches!(
        decoder.next_message(),
        Err(DecodeError::TooLarge { limit: 32_768 })
    ));
}

#[test]
fn an_unfinished_length_prefix_counts_too() {
    let mut decoder = Decoder::new(HubProtocol::MessagePack, 2);
    decoder.push(b"\x80");
    assert_eq!(decoder.next_message().unwrap(), None);
    decoder.push(b"\x80");
    assert!(matches!(
        decoder.next_message(),
        Err(DecodeError::TooLarge { limit: 2 })
    ));
}

#[test]
fn a_length_prefix_has_at_most_five_bytes_and_31_bits() {
    for prefix in [
        b"\xFF\xFF\xFF\xFF\x08".as_slice(),
        b"\x80\x80\x80\x80\x80",
        b"\xFF\xFF\xFF\xFF\xFF\xFF",
    ] {
        let mut decoder = Decoder::new(HubProtocol::MessagePack, usize::MAX);
        decoder.push(prefix);
        assert!(matches!(decoder.next_message(), Err(DecodeError::InvalidLength)));
    }
    let mut decoder = Decoder::new(HubProtocol::MessagePack, usize::MAX);
    decoder.push(b"\xFF\xFF\xFF\xFF\x07\x91");
    assert_eq!(decoder.next_message().unwrap(), None);
    let mut decoder = Decoder::new(HubProtocol::MessagePack, usize::MAX);
    decoder.push(b"\x82\x80\x80\x80\x00\x91\x06");
    assert_eq!(decoder.next_message().unwrap(), Some(HubMessage::Ping));
}

#[test]
fn length_prefixes_are_written_as_in_the_table() {
    for (length, prefix) in [
        (0, b"\x00".as_slice()),
        (13, b"\x0D"),
        (127, b"\x7F"),
        (128, b"\x80\x01"),
        (209, b"\xD1\x01"),
        (5_248, b"\x80\x29"),
        (0x7FFF_FFFF, b"\xFF\xFF\xFF\xFF\x07"),
    ] {
        let mut out = Vec::new();
        crate::protocol::framing::write_length(&mut out, length);
        assert_eq!(out, prefix);
    }
}

#[test]
fn an_empty_message_is_refused() {
    assert!(decode_all(HubProtocol::MessagePack, b"\x00").is_err());
    assert!(decode_all(HubProtocol::Json, b"\x1e").is_err());
}

#[test]
fn after_an_error_nothing_comes_any_more() {
    let mut decoder = Decoder::new(HubProtocol::Json, 1_000);
    decoder.push(b"{\"type\":6}\x1e{]\x1e{\"type\":6}\x1e");
    assert_eq!(decoder.next_message().unwrap(), Some(HubMessage::Ping));
    assert!(decoder.next_message().is_err());
    assert_eq!(decoder.buffered_bytes(), 0);
    decoder.push(PING);
    assert_eq!(decoder.buffered_bytes(), 0);
    assert_eq!(decoder.next_message().unwrap(), None);
}

#[test]
fn what_has_not_been_read_can_be_taken_back() {
    let mut decoder = Decoder::new(HubProtocol::Json, 1_000);
    decoder.push(b"{\"type\":6}\x1e{\"ty");
    assert_eq!(decoder.next_message().unwrap(), Some(HubMessage::Ping));
    assert_eq!(decoder.buffered_bytes(), 4);
    assert_eq!(decoder.into_remaining(), "{\"ty");
}

#[test]
fn one_byte_at_a_time_costs_no_more_than_once_over() {
    // A megabyte: searching from the start each time would be 5 * 10^11 steps.
    let text = "x".repeat(1 << 20);
    for protocol in HubProtocol::ALL {
        let message = HubMessage::Close {
            error: Some(text.clone()),
            allow_reconnect: false,
        };
        let bytes = crate::protocol::encode(protocol, &message).unwrap();
        let mut decoder = Decoder::new(protocol, bytes.len());
        let (last, first) = bytes.split_last().unwrap();
        for byte in first {
            decoder.push(&[*byte]);
            assert_eq!(decoder.next_message().unwrap(), None);
        }
        decoder.push(&[*last]);
        assert_eq!(decoder.next_message().unwrap(), Some(message));
    }
}

#[test]
fn many_small_messages_in_one_push_cost_no_more_than_once_over() {
    let mut decoder = Decoder::new(HubProtocol::Json, 100);
    decoder.push(&PING.repeat(100_000));
    let mut count = 0;
    while decoder.next_message().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 100_000);
}

#[test]
fn a_value_does_not_keep_the_messages_beside_its_own() {
    let mut stream = PING.repeat(1_000);
    stream.extend_from_slice(b"{\"type\":2,\"invocationId\":\"1\",\"item\":7}\x1e");
    let mut decoder = Decoder::new(HubProtocol::Json, 100);
    decoder.push(&stream);
    let mut last = None;
    while let Some(message) = decoder.next_message().unwrap() {
        last = Some(message);
    }
    let Some(HubMessage::StreamItem { item, .. }) = last else {
        panic!()
    };
    let alone = item.bytes().clone();
    drop(item);
    assert!(alone.try_into_mut().unwrap().capacity() < 100);
}
