use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use super::*;
use crate::limits::Budget;

const MASK: [u8; 4] = [1, 2, 3, 4];

/// Gives out its bytes in the given portions.
struct Script(VecDeque<Vec<u8>>);

impl AsyncRead for Script {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(mut portion) = this.0.pop_front() {
            let rest = portion.split_off(portion.len().min(buffer.remaining()));
            buffer.put_slice(&portion);
            if !rest.is_empty() {
                this.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn terms() -> Terms {
    Terms {
        budget: Budget::new(0),
        grace: Duration::from_secs(10),
        least_rate: 1_000,
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        is_final: first & FIN != 0,
        has_extensions: first & 0x70 != 0,
        opcode: first & 0x0F,
        is_masked: true,
        payload: payload.len() as u64,
        mask: MASK,
        size: 0,
        is_hidden: false,
    };
    let mut bytes = head.write().get().unwrap().to_vec();
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// Opcode with FIN, and payload, of each frame.
fn read_frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(head) = Head::read(bytes) {
        let (payload, rest) = bytes[head.size..].split_at(usize::try_from(head.payload).unwrap());
        let clear = payload.iter().zip(head.mask.iter().cycle());
        let first = head.opcode | if head.is_final { FIN } else { 0 };
        frames.push((first, clear.map(|(byte, mask)| byte ^ mask).collect()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "a header is left: {bytes:?}");
    frames
}

async fn through(messages: Messages, input: &[u8], portion: usize) -> Vec<(u8, Vec<u8>)> {
    let script = Script(input.chunks(portion).map(<[u8]>::to_vec).collect());
    let mut frames = Frames::new(script, messages, terms());
    let mut output = Vec::new();
    let mut buffer = vec![0; 2_048];
    loop {
        let read = frames.read(&mut buffer).await.unwrap();
        if read == 0 {
            return read_frames(&output);
        }
        output.extend_from_slice(&buffer[..read]);
    }
}

fn text(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| b'a' + u8::try_from(index % 26).unwrap())
        .collect()
}

const PORTIONS: [usize; 6] = [1, 2, 13, 1_000, 16_384, usize::MAX];

#[tokio::test]
async fn short_frames_are_left_alone() {
    let mut input = Vec::new();
    let mut expected = Vec::new();
    for length in [0, 1, 125, 126, 300, PIECE_BYTES] {
        for first in [FIN | 1, FIN | 2, FIN | PING, FIN | 10] {
            if first & 0x0F < 8 || length < 126 {
                input.extend(frame(first, &text(length)));
                expected.push((first, text(length)));
            }
        }
    }
    for portion in PORTIONS {
        for messages in [Messages::Stream, Messages::Units { limit: 32 * 1024 }] {
            assert_eq!(through(messages, &input, portion).await, expected, "{portion}");
        }
    }
}

#[tokio::test]
async fn a_stream_comes_in_pieces_whatever_frames_it_is_in() {
    let mut input = frame(FIN | 1, &text(100_000));
    input.extend(frame(1, &text(70_000)));
    input.extend(frame(FIN | PING, b"between"));
    input.extend(frame(0, b""));
    input.extend(frame(FIN, &text(5)));
    input.extend(frame(FIN | 2, b"end"));
    let mut whole = text(100_000);
    whole.extend(text(70_000));
    whole.extend(text(5));
    whole.extend(b"end");
    for portion in PORTIONS {
        let frames = through(Messages::Stream, &input, portion).await;
        let pings = frames.iter().filter(|(first, _)| *first == FIN | PING).count();
        assert_eq!(pings, 1);
        let data = frames.iter().filter(|(first, _)| *first == FIN | BINARY);
        let pieces: Vec<_> = data.map(|(_, payload)| payload.as_slice()).collect();
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert_eq!(frames.len(), pieces.len() + 1);
        assert!(pieces.concat() == whole, "{portion}");
    }
}

#[tokio::test]
async fn a_unit_ends_one_byte_over_its_limit() {
    let limit = 1_000;
    let mut input = frame(FIN | 1, &text(limit));
    input.extend(frame(FIN | 1, &text(50_000)));
    input.extend(frame(1, &text(600)));
    input.extend(frame(0, &text(600)));
    input.extend(frame(0, &text(600)));
    input.extend(frame(FIN | PING, b"between"));
    input.extend(frame(FIN, &text(600)));
    input.extend(frame(FIN | 1, b"next"));
    let expected = vec![
        (FIN | 1, text(limit)),
        (FIN | BINARY, text(limit + 1)),
        (1, text(600)),
        (FIN, text(limit + 1 - 600)),
        (FIN | PING, b"between".to_vec()),
        (FIN | 1, b"next".to_vec()),
    ];
    for portion in PORTIONS {
        let frames = through(Messages::Units { limit }, &input, portion).await;
        assert_eq!(frames, expected, "{portion}");
    }
}

#[tokio::test]
async fn what_breaks_the_rules_is_for_the_library_to_refuse() {
    let orphan = frame(FIN, b"x");
    assert_eq!(
        through(Messages::Stream, &orphan, 1).await,
        [(FIN, b"x".to_vec())]
    );
    let mut twice = frame(1, b"x");
    twice.extend(frame(FIN | 1, b"y"));
    let frames = through(Messages::Stream, &twice, 1).await;
    assert_eq!(frames[1], (FIN | UNKNOWN, b"y".to_vec()));
    let mut extended = frame(FIN | 0x40 | 1, b"x");
    extended.extend(frame(FIN | 1, &text(100_000)));
    let frames = through(Messages::Stream, &extended, 7).await;
    assert_eq!(frames.len(), 2, "nothing is changed any more");
}

#[tokio::test(start_paused = true)]
async fn a_message_has_to_get_on() {
    for messages in [Messages::Stream, Messages::Units { limit: 1_000_000 }] {
        let (mut client, server) = duplex(1 << 20);
        let mut frames = Frames::new(server, messages, terms());
        let mut buffer = vec![0; 2_048];
        client.write_all(&frame(FIN | 1, b"whole")).await.unwrap();
        assert!(frames.read(&mut buffer).await.unwrap() > 0);
        let idle = timeout(Duration::from_secs(600), frames.read(&mut buffer)).await;
        assert!(idle.is_err(), "who has begun nothing is never late");
        client.write_all(&frame(1, &text(3_000))).await.unwrap();
        let begun = tokio::time::Instant::now();
        let late = loop {
            match frames.read(&mut buffer).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(
            (10..15).contains(&begun.elapsed().as_secs()),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn behind_a_ping_nothing_is_read_while_writing_is_stuck() {
    let (mut client, server) = duplex(10_000);
    let mut frames = Frames::new(server, Messages::Stream, terms());
    let mut buffer = vec![0; 2_048];
    frames.write_all(&vec![0; 10_000]).await.unwrap();
    let stuck = timeout(Duration::from_millis(20), frames.write_all(b"more")).await;
    assert!(stuck.is_err());
    client.write_all(&frame(FIN | 1, b"text")).await.unwrap();
    assert!(
        frames.read(&mut buffer).await.unwrap() > 0,
        "who asks for nothing is read"
    );
    client.write_all(&frame(FIN | PING, b"")).await.unwrap();
    assert!(frames.read(&mut buffer).await.unwrap() > 0);
    client.write_all(&frame(FIN | PING, b"")).await.unwrap();
    let gated = timeout(Duration::from_millis(20), frames.read(&mut buffer)).await;
    assert!(gated.is_err());
    client.read_exact(&mut vec![0; 5_000]).await.unwrap();
    frames.write_all(b"more").await.unwrap();
    assert!(frames.read(&mut buffer).await.unwrap() > 0);
}
