use std::io::{Cursor, Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::*;

const PORTIONS: [usize; 6] = [1, 2, 13, 1_000, 16_384, usize::MAX];

fn text(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| b'a' + u8::try_from(index % 26).unwrap())
        .collect()
}

/// The things that a reader gives out, and its error.
fn through(messages: Messages, input: &[u8], portion: usize) -> (Vec<Incoming>, Option<BadFrame>) {
    let mut reader = MessageReader::new(messages);
    let (mut buffer, mut all) = (BytesMut::new(), Vec::new());
    for part in input.chunks(portion) {
        buffer.extend_from_slice(part);
        loop {
            match reader.next(&mut buffer) {
                Ok(Some(incoming)) => {
                    all.push(incoming);
                    if let Some(Incoming::Close(_)) = all.last() {
                        return (all, None);
                    }
                }
                Ok(None) => break,
                Err(bad) => return (all, Some(bad)),
            }
        }
    }
    (all, None)
}

#[test]
fn a_text_that_is_too_long_is_checked_up_to_its_bound() {
    for (place, expected) in [(LIMIT / 2, Err(1_007)), (LIMIT + 10, Ok(LIMIT + 1))] {
        let mut text = vec![b'x'; LIMIT + 50];
        text[place] = 0xD4;
        for portion in [1, 7, usize::MAX] {
            let frame = client_frame(FIN | TEXT, &text);
            let (all, bad) = through(Messages::Units { limit: LIMIT }, &frame, portion);
            let read = bad.map_or(Ok(data_of(&all).len()), |bad| Err(bad.code));
            assert_eq!(read, expected, "{place} {portion}");
        }
    }
}

#[test]
fn a_text_is_refused_where_messages_are_binary() {
    let binary = client_frame(FIN | BINARY, b"\xFF");
    let parts = [client_frame(BINARY, b"a"), client_frame(FIN | CONTINUATION, b"b")].concat();
    for (text, bad_code) in [
        (client_frame(FIN | TEXT, b"text"), Some(1_003)),
        (client_frame(TEXT, b""), Some(1_003)),
        (client_frame(FIN | PING, b""), None),
    ] {
        let input = [binary.clone(), parts.clone(), text, binary.clone()].concat();
        for portion in PORTIONS {
            let (all, bad) = through(Messages::BinaryUnits { limit: LIMIT }, &input, portion);
            assert_eq!(bad.map(|bad| bad.code), bad_code);
            let after: &[u8] = if bad_code.is_none() { b"\xFF" } else { b"" };
            assert_eq!(data_of(&all), [b"\xFFab", after].concat());
        }
    }
}

fn data_of(all: &[Incoming]) -> Vec<u8> {
    let data = all.iter().filter_map(|incoming| match incoming {
        Incoming::Data(bytes) => Some(&**bytes),
        _ => None,
    });
    data.collect::<Vec<_>>().concat()
}

#[test]
fn a_stream_goes_on_as_it_comes_whatever_frames_it_is_in() {
    let mut input = client_frame(FIN | TEXT, &text(100_000));
    input.extend(client_frame(TEXT, &text(70_000)));
    input.extend(client_frame(FIN | PING, b"between"));
    input.extend(client_frame(CONTINUATION, b""));
    input.extend(client_frame(FIN | CONTINUATION, &text(5)));
    input.extend(client_frame(FIN | BINARY, b"\xFFend"));
    let whole = [text(100_000), text(70_000), text(5), b"\xFFend".to_vec()].concat();
    for portion in PORTIONS {
        let (all, bad) = through(Messages::Stream, &input, portion);
        assert_eq!(bad, None);
        assert!(data_of(&all) == whole, "{portion}");
        let pings = all.iter().filter(|one| **one == Incoming::Ping("between".into()));
        assert_eq!(pings.count(), 1);
    }
}

#[test]
fn a_stream_keeps_nothing_and_a_unit_what_has_come_of_it() {
    for (messages, held) in [(Messages::Stream, 0), (Messages::Units { limit: 5_000 }, 3_000)] {
        let mut reader = MessageReader::new(messages);
        let mut input = BytesMut::from(&client_frame(FIN | TEXT, &text(4_000))[..3_008]);
        let first = reader.next(&mut input).unwrap();
        assert_eq!(first.is_some(), messages == Messages::Stream);
        assert_eq!(reader.next(&mut input), Ok(None));
        assert!(reader.is_unfinished() && input.is_empty());
        assert_eq!(reader.held_bytes(), held);
    }
}

#[test]
fn a_unit_ends_one_byte_over_its_limit() {
    let limit = 1_000;
    let mut input = client_frame(FIN | TEXT, &text(limit));
    input.extend(client_frame(FIN | TEXT, &text(50_000)));
    input.extend(client_frame(TEXT, &text(600)));
    for _ in 0..2 {
        input.extend(client_frame(CONTINUATION, &text(600)));
    }
    input.extend(client_frame(FIN | PING, b"between"));
    input.extend(client_frame(FIN | CONTINUATION, &text(600)));
    input.extend(client_frame(FIN | TEXT, b"next"));
    let long: Vec<u8> = [text(600), text(401)].concat();
    let expected = [
        Incoming::Data(text(limit).into()),
        Incoming::Data(text(limit + 1).into()),
        Incoming::Data(long.into()),
        Incoming::Ping("between".into()),
        Incoming::Data("next".into()),
    ];
    for portion in PORTIONS {
        let (all, bad) = through(Messages::Units { limit }, &input, portion);
        assert_eq!((all.as_slice(), bad), (&expected[..], None), "{portion}");
    }
}

#[test]
fn a_bad_header_is_refused_before_its_payload_comes() {
    let bad: [&[u8]; 8] = [
        &[FIN | 0x40 | TEXT, MASKED | 5],
        &[FIN | 3, MASKED],
        &[FIN | 11, MASKED],
        &[FIN | TEXT, 5],
        &[PING, MASKED | 5],
        &[FIN | CLOSE, MASKED | 126],
        &[FIN | CONTINUATION, MASKED | 5, 1, 2, 3, 4],
        &[FIN | TEXT, MASKED | 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in bad {
        for portion in [1, usize::MAX] {
            let (all, bad) = through(Messages::Stream, bytes, portion);
            assert_eq!(all, []);
            assert_eq!(bad.map(|bad| bad.code), Some(1_002), "{bytes:?}");
        }
    }
}

#[test]
fn a_text_is_refused_with_its_first_bad_byte() {
    let mut input = client_frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf");
    input.extend(client_frame(CONTINUATION, b"\x83\xed"));
    input.extend(&client_frame(FIN | CONTINUATION, &[0xA0; 100])[..7]);
    for messages in [Messages::Stream, Messages::Units { limit: 5_000 }] {
        for portion in PORTIONS {
            let (_, bad) = through(messages, &input, portion);
            assert_eq!(bad.map(|bad| bad.code), Some(1_007), "{portion}");
        }
    }
}

#[test]
fn frames_of_this_side_are_read_by_another_library() {
    let mut bytes = Vec::new();
    let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 100_000];
    for length in lengths {
        bytes.extend(message_frame(&text(length), true));
        bytes.extend(message_frame(&text(length), false));
        assert_eq!(payload_of(&message_frame(&text(length), true)), text(length));
    }
    bytes.extend(PING_FRAME);
    bytes.extend(pong_frame(b"pong"));
    bytes.extend(close_frame(&close_payload(1_000, "bye")));
    let mut peer = WebSocket::from_raw_socket(Ends(Cursor::new(bytes)), Role::Client, None);
    for length in lengths {
        let text = text(length);
        assert_eq!(
            peer.read().unwrap(),
            Message::Text(String::from_utf8(text.clone()).unwrap().into())
        );
        assert_eq!(peer.read().unwrap(), Message::Binary(text.into()));
    }
    assert_eq!(peer.read().unwrap(), Message::Ping(Bytes::new()));
    assert_eq!(peer.read().unwrap(), Message::Pong("pong".into()));
    match peer.read().unwrap() {
        Message::Close(Some(close)) => assert_eq!((u16::from(close.code), &*close.reason), (1_000, "bye")),
        other => panic!("{other:?}"),
    }
}

/// Reads its bytes, and lets everything be written.
struct Ends(Cursor<Vec<u8>>);

impl Read for Ends {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Ends {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const LIMIT: usize = 300;

/// The messages that another library reads, in the types of this one, and the code of its error.
fn as_tungstenite(input: &[u8]) -> (Vec<Incoming>, Option<u16>) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let socket = Ends(Cursor::new(input.to_vec()));
    let mut socket = WebSocket::from_raw_socket(socket, Role::Server, Some(config));
    let mut all = Vec::new();
    loop {
        all.push(match socket.read() {
            Ok(Message::Text(text)) => Incoming::Data(text.into()),
            Ok(Message::Binary(bytes)) => Incoming::Data(bytes),
            Ok(Message::Ping(payload)) => Incoming::Ping(payload),
            Ok(Message::Pong(payload)) => Incoming::Pong(payload.len()),
            Ok(Message::Close(close)) => {
                let close = close.map(|close| (u16::from(close.code), close.reason.to_string()));
                // It tells of a forbidden code by the answer that it makes.
                if close == Some((1_002, "Protocol violation".to_owned())) {
                    return (all, Some(1_002));
                }
                let payload = close.map(|(code, words)| close_payload(code, &words));
                all.push(Incoming::Close(payload.unwrap_or_default().into()));
                return (all, None);
            }
            Ok(Message::Frame(_)) => unreachable!(),
            Err(tungstenite::Error::Utf8(_)) => return (all, Some(1_007)),
            Err(tungstenite::Error::Capacity(_)) => return (all, Some(1_009)),
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return (all, None),
            Err(tungstenite::Error::Protocol(_)) => return (all, Some(1_002)),
            Err(other) => panic!("{other}"),
        });
    }
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        vec(any::<u8>(), 0..8),
        "[a-zä€😀]{0,40}".prop_map(String::into_bytes),
        vec(Just(b'x'), 120..130),
        vec(Just(b'y'), 0..400),
        (900_u16..1_020, "[a-z]{0,5}").prop_map(|(code, words)| close_payload(code, &words)),
    ];
    let first = prop_oneof![
        8 => prop_oneof![Just(CONTINUATION), Just(TEXT), Just(FIN | CONTINUATION), Just(FIN | TEXT), Just(FIN | BINARY)],
        2 => prop_oneof![Just(FIN | PING), Just(FIN | PONG)],
        1 => Just(FIN | CLOSE),
        1 => any::<u8>(),
    ];
    (first, payload).prop_map(|(first, payload)| client_frame(first, &payload))
}

proptest! {
    #[test]
    fn the_same_is_read_as_by_another_library(pieces in vec(piece(), 0..12), cut in 0_usize..40) {
        let mut input = pieces.concat();
        input.truncate(input.len().saturating_sub(cut / 10));
        let (theirs, their_code) = as_tungstenite(&input);
        let (ours, bad) = through(Messages::Units { limit: LIMIT }, &input, usize::MAX);
        // The other library does not know the code 1014, which was registered later.
        if let Some((Incoming::Close(payload), before)) = ours.split_last()
            && payload.starts_with(&1_014_u16.to_be_bytes())
        {
            prop_assert_eq!((before, their_code), (&theirs[..], Some(1_002)));
            return Ok(());
        }
        let over = ours.iter().position(|one| matches!(one, Incoming::Data(bytes) if bytes.len() > LIMIT));
        if let Some(over) = over {
            // There it is refused as soon as its length is known, or waits for the rest; here its reader refuses it.
            prop_assert!(matches!(their_code, None | Some(1_007 | 1_009)), "{their_code:?}");
            prop_assert_eq!(&ours[..over], &theirs[..]);
            return Ok(());
        }
        match (bad.map(|bad| bad.code), their_code) {
            // The end of a frame that is too long has not come.
            (_, Some(1_009)) => {
                let same = theirs.len().min(ours.len());
                prop_assert_eq!(&ours[..same], &theirs[..same]);
            }
            // Other errors are found there when the frame is whole, and a text's at its end; a Close frame may have two.
            (Some(code), their_code) => {
                let same_kind = their_code.is_none_or(|theirs| theirs == code || code == 1_007 || theirs == 1_007);
                prop_assert!(same_kind, "{code} {their_code:?}");
                let same = ours.len().min(theirs.len());
                prop_assert_eq!(&ours[..same], &theirs[..same]);
                prop_assert!(their_code.is_some() || theirs.len() == ours.len(), "{ours:?} {theirs:?}");
            }
            (None, code) => {
                prop_assert_eq!(code, None);
                prop_assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    fn the_cut_does_not_matter(pieces in vec(piece(), 0..12), noise in vec(any::<u8>(), 0..20), portion in 1_usize..50) {
        let input = [pieces.concat(), noise].concat();
        for messages in [Messages::Stream, Messages::Units { limit: LIMIT }, Messages::BinaryUnits { limit: LIMIT }] {
            let (whole, bad) = through(messages, &input, usize::MAX);
            let (cut, cut_bad) = through(messages, &input, portion);
            // A text's error is found before its frame is whole, so that only units are the same to the last one.
            prop_assert_eq!(bad.map(|bad| bad.code), cut_bad.map(|bad| bad.code));
            if messages == Messages::Stream {
                prop_assert!(data_of(&whole).starts_with(&data_of(&cut)) || data_of(&cut).starts_with(&data_of(&whole)));
            } else {
                prop_assert_eq!(whole, cut);
            }
        }
    }
}
