//! A WebSocket of which only bytes are known: frames that are written and read by hand.

use std::net::SocketAddr;

use hubcast_tests::eventually::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;
pub(super) const FIN: u8 = 0x80;

/// The gateway's answer to a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// A message was read whole.
    Answer,
    Pong(Vec<u8>),
    /// A Close frame of this code; 1005 has none.
    Close(u16),
    /// The end of the TCP connection without an error.
    End,
}

/// A socket of which only bytes are known.
pub(super) struct Raw {
    pub(super) tcp: TcpStream,
    buffer: Vec<u8>,
}

/// A masked frame; the first byte says its kind.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | u8::try_from(length).expect("a byte")),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(length).expect("two bytes").to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .enumerate()
            .map(|(index, byte)| byte ^ mask[index % 4]),
    );
    out
}

pub(super) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

impl Raw {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let mut tcp = TcpStream::connect(address).await.expect("it listens");
        let request = "GET /client/hubs/demo HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        tcp.write_all(request.as_bytes()).await.expect("it reads");
        let mut raw = Self {
            tcp,
            buffer: Vec::new(),
        };
        let head = loop {
            if let Some(end) = raw.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break raw.buffer.drain(..end + 4).collect::<Vec<_>>();
            }
            assert!(raw.more().await, "the upgrade is answered");
        };
        assert!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        for first in ["connected", "place"] {
            let (_, payload) = raw.next().await.expect("it goes on");
            assert!(String::from_utf8_lossy(&payload).contains(first));
        }
        raw
    }

    /// Reads on; `false` at the end.
    pub(super) async fn more(&mut self) -> bool {
        let mut chunk = [0; 4_096];
        let read = within("the server says something", self.tcp.read(&mut chunk)).await;
        let read = read.expect("the connection is not reset");
        self.buffer.extend_from_slice(&chunk[..read]);
        read > 0
    }

    pub(super) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [first, length, ..] = self.buffer[..] {
                let (length, begin) = match length {
                    126 => match self.buffer.get(2..4) {
                        Some(length) => (usize::from(u16::from_be_bytes([length[0], length[1]])), 4),
                        None => (usize::MAX, 4),
                    },
                    length => (usize::from(length), 2),
                };
                if length < usize::MAX && self.buffer.len() >= begin + length {
                    let whole: Vec<_> = self.buffer.drain(..begin + length).collect();
                    return Some((first, whole[begin..].to_vec()));
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub(super) async fn seen(&mut self) -> Seen {
        let mut next = self.next().await;
        if next
            .as_ref()
            .is_some_and(|(_, payload)| payload.starts_with(b"{\"type\":\"close\""))
        {
            next = self.next().await; // the gateway's own words before its Close frame
        }
        match next {
            None => Seen::End,
            Some((first, payload)) if first == FIN | CLOSE => match payload[..] {
                [high, low, ..] => Seen::Close(u16::from_be_bytes([high, low])),
                _ => Seen::Close(1_005),
            },
            Some((first, payload)) if first == FIN | PONG => Seen::Pong(payload),
            Some((first, payload)) => {
                assert_eq!(first, FIN | TEXT);
                let text = String::from_utf8(payload).expect("text");
                assert!(text.contains("Method does not exist"), "{text}");
                Seen::Answer
            }
        }
    }
}
