//! Any bytes as the frames of a client's WebSocket: the output does not depend on how they were cut, nothing is kept of a
//! stream, and no more of a unit than it may have.

use bytes::BytesMut;
use hubcast::protocol::websocket::{BadFrame, Incoming, MessageReader, Messages};

use crate::Stream;

/// The bound of a unit.
const LIMIT: usize = 200;

/// Checks one input; see [`Stream`].
pub fn check(input: &[u8]) {
    let Some(stream) = Stream::of(input) else {
        return;
    };
    for units in [
        Messages::Units { limit: LIMIT },
        Messages::BinaryUnits { limit: LIMIT },
    ] {
        let [whole, cut, bytewise] = stream.cuts().map(|chunks| read(units, &chunks));
        assert_eq!(whole, cut, "the cut matters");
        assert_eq!(whole, bytewise, "the cut matters");
    }

    let [whole, cut, bytewise] = stream.cuts().map(|chunks| read(Messages::Stream, &chunks));
    for (incoming, bad) in [cut, bytewise] {
        assert_eq!(
            whole.1.map(|bad| bad.code),
            bad.map(|bad| bad.code),
            "the cut matters"
        );
        let (all, part) = (data(&whole.0), data(&incoming));
        assert!(
            all.starts_with(&part) || part.starts_with(&all),
            "the cut matters"
        );
        // Of a text that is refused, different parts have gone on.
        assert!(bad.is_some() || all == part, "the cut matters");
    }
}

fn read(messages: Messages, chunks: &[&[u8]]) -> (Vec<Incoming>, Option<BadFrame>) {
    let mut reader = MessageReader::new(messages);
    let (mut input, mut all) = (BytesMut::new(), Vec::new());
    for chunk in chunks {
        input.extend_from_slice(chunk);
        loop {
            match reader.next(&mut input) {
                Ok(Some(Incoming::Close(payload))) => {
                    all.push(Incoming::Close(payload));
                    return (all, None);
                }
                Ok(Some(incoming)) => all.push(incoming),
                Ok(None) => break,
                Err(bad) => return (all, Some(bad)),
            }
        }
        assert!(
            input.len() < 14 + 125,
            "more is left than a header and a control frame"
        );
        match messages {
            Messages::Stream => assert_eq!(reader.held_bytes(), 0),
            Messages::Units { limit } | Messages::BinaryUnits { limit } => {
                assert!(reader.held_bytes() <= limit)
            }
        }
    }
    for incoming in &all {
        if let (Incoming::Data(bytes), Messages::Units { limit } | Messages::BinaryUnits { limit }) =
            (incoming, messages)
        {
            assert!(bytes.len() <= limit + 1);
        }
    }
    (all, None)
}

fn data(all: &[Incoming]) -> Vec<u8> {
    let data = all.iter().filter_map(|incoming| match incoming {
        Incoming::Data(bytes) => Some(&**bytes),
        _ => None,
    });
    data.collect::<Vec<_>>().concat()
}
