//! A small hub client on each transport, for what the official client doesn't let a test do or see.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use serde_json::{Value, json};

use crate::entry_point::{EntryPoint, Negotiated};
use crate::eventually::within;
use crate::http::{Body, Lines};
use crate::messagepack;
use crate::websocket::{Message, WebSocket};

/// The end of a JSON hub message, and of every handshake.
pub const SEPARATOR: u8 = 0x1E;

/// The handshake of the JSON protocol.
pub const JSON_HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";

/// The handshake of the MessagePack protocol.
pub const MESSAGEPACK_HANDSHAKE: &str = "{\"protocol\":\"messagepack\",\"version\":1}\u{1e}";

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Transport {
    WebSockets,
    ServerSentEvents,
    LongPolling,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WebSockets, Self::ServerSentEvents, Self::LongPolling];
}

enum Carrier {
    WebSocket(Box<WebSocket>),
    Events(Box<EventStream>),
    Polls,
}

/// One client connection.
pub struct HubClient {
    entry: Arc<EntryPoint>,
    negotiated: Negotiated,
    carrier: Carrier,
    binary: bool,
    buffer: BytesMut,
    unread: VecDeque<Value>,
    calls: u32,
}

impl HubClient {
    /// Connects and says which protocol: JSON.
    pub async fn connect(entry: &Arc<EntryPoint>, transport: Transport) -> Self {
        let mut client = Self::open(entry, transport).await;
        client.send(JSON_HANDSHAKE).await;
        assert_eq!(client.next().await, Some(json!({})), "the handshake is accepted");
        client
    }

    /// Connects and says which protocol: MessagePack.
    pub async fn connect_messagepack(entry: &Arc<EntryPoint>, transport: Transport) -> Self {
        let mut client = Self::open(entry, transport).await;
        client.send(MESSAGEPACK_HANDSHAKE).await;
        client.binary = true;
        let answer = client.receive().await.expect("the handshake is answered");
        assert!(
            answer.starts_with(b"{}\x1e"),
            "the handshake is accepted: {answer:?}"
        );
        client.buffer.extend_from_slice(&answer[3..]);
        client
    }

    /// Connects, and has said nothing yet.
    pub async fn open(entry: &Arc<EntryPoint>, transport: Transport) -> Self {
        let negotiated = entry.negotiate().await;
        let carrier = match transport {
            Transport::WebSockets => {
                let socket = entry
                    .websocket(&negotiated.token)
                    .await
                    .expect("the WebSocket opens");
                Carrier::WebSocket(Box::new(socket))
            }
            Transport::ServerSentEvents => {
                let (head, body) = entry.events(&negotiated.token).await;
                assert_eq!(head.status, 200, "the event stream opens");
                Carrier::Events(Box::new(EventStream::new(body)))
            }
            Transport::LongPolling => {
                let first = entry.poll(&negotiated.token).await;
                assert_eq!(first.outcome(), (200, ""), "the first poll opens the connection");
                Carrier::Polls
            }
        };
        let (buffer, unread) = (BytesMut::new(), VecDeque::new());
        Self {
            entry: Arc::clone(entry),
            negotiated,
            carrier,
            binary: false,
            buffer,
            unread,
            calls: 0,
        }
    }

    /// The public connection id.
    pub fn id(&self) -> &str {
        &self.negotiated.id
    }

    /// The secret connection token.
    pub fn token(&self) -> &str {
        &self.negotiated.token
    }

    /// Sends bytes. The answer is the POST's status; 200 on a WebSocket.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> u16 {
        let bytes = bytes.as_ref();
        match &mut self.carrier {
            Carrier::WebSocket(socket) => {
                match std::str::from_utf8(bytes) {
                    Ok(text) if !self.binary => socket.text(text).await,
                    _ => socket.binary(bytes).await,
                }
                200
            }
            Carrier::Events(_) | Carrier::Polls => {
                let body = Bytes::copy_from_slice(bytes);
                self.entry.post(&self.negotiated.token, body).await.status()
            }
        }
    }

    /// Sends one JSON message.
    pub async fn say(&mut self, message: &Value) -> u16 {
        self.send(format!("{message}\u{1e}")).await
    }

    /// The next bytes; `None` when the connection is over.
    pub async fn receive(&mut self) -> Option<Bytes> {
        match &mut self.carrier {
            Carrier::WebSocket(socket) => match socket.next().await? {
                Message::Text(text) => {
                    assert!(!self.binary, "binary protocols come in Binary frames: {text}");
                    Some(Bytes::from(text))
                }
                Message::Binary(bytes) => {
                    assert!(self.binary, "text protocols come in Text frames: {bytes:?}");
                    Some(bytes)
                }
                _ => None,
            },
            Carrier::Events(events) => events.next().await,
            Carrier::Polls => loop {
                // A node that is gone ends a connection as a broken socket does.
                let response = self.entry.try_poll(&self.negotiated.token).await?;
                match response.status() {
                    200 if response.body.is_empty() => {}
                    200 => return Some(response.body),
                    204 | 404 => return None,
                    status => panic!("a poll was answered with {status} {}", response.text()),
                }
            },
        }
    }

    /// The next bytes in whichever frame they come; `None` when the connection is over.
    pub async fn receive_any(&mut self) -> Option<Bytes> {
        match &mut self.carrier {
            Carrier::WebSocket(socket) => match socket.next().await? {
                Message::Text(text) => Some(Bytes::from(text)),
                Message::Binary(bytes) => Some(bytes),
                _ => None,
            },
            Carrier::Events(_) | Carrier::Polls => self.receive().await,
        }
    }

    /// The next message that is not a Ping; `None` when the connection is over.
    pub async fn next(&mut self) -> Option<Value> {
        match self.unread.pop_front() {
            Some(message) => Some(message),
            None => self.arriving().await,
        }
    }

    async fn arriving(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == SEPARATOR) {
                let message: Value =
                    serde_json::from_slice(&self.buffer.split_to(end)).expect("messages are JSON");
                self.buffer.advance(1);
                if message["type"] != 6 {
                    return Some(message);
                }
            }
            assert!(
                self.buffer.is_empty(),
                "messages are never split: {:?}",
                self.buffer
            );
            let bytes = self.receive().await?;
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// The next MessagePack message that is not a Ping; `None` when the connection is over.
    pub async fn next_messagepack(&mut self) -> Option<messagepack::Value> {
        loop {
            while let Some(message) = messagepack::take(&mut self.buffer) {
                if message[0] != messagepack::Value::from(6) {
                    return Some(message);
                }
            }
            assert!(
                self.buffer.is_empty(),
                "messages are never split: {:?}",
                self.buffer
            );
            let bytes = self.receive().await?;
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// Calls a method and waits for its completion. What else arrives meanwhile is kept for [`next`](Self::next).
    pub async fn call(&mut self, target: &str, arguments: Value) -> Value {
        self.calls += 1;
        let id = self.calls.to_string();
        self.say(&json!({ "type": 1, "invocationId": id, "target": target, "arguments": arguments }))
            .await;
        loop {
            let message = self
                .arriving()
                .await
                .unwrap_or_else(|| panic!("{target} was not answered before the end"));
            if message["type"] == 3 && message["invocationId"] == id.as_str() {
                return message;
            }
            self.unread.push_back(message);
        }
    }

    /// Calls a method that succeeds, for its result.
    pub async fn result(&mut self, target: &str, arguments: Value) -> Value {
        let completion = self.call(target, arguments).await;
        assert!(completion.get("error").is_none(), "{target} failed: {completion}");
        completion["result"].clone()
    }

    /// Waits for an invocation by the hub and returns its arguments; other messages before it are dropped.
    pub async fn expect(&mut self, target: &str) -> Value {
        let waiting = async {
            while let Some(message) = self.next().await {
                if message["type"] == 1 && message["target"] == target {
                    return message["arguments"].clone();
                }
            }
            panic!("{target} did not arrive before the end")
        };
        within(target, waiting).await
    }

    /// Everything that arrives until the connection is over.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            messages.push(message);
        }
        messages
    }

    /// Ends the connection as a client does that was closed by its user.
    pub async fn close(mut self) {
        self.send("{\"type\":7}\u{1e}").await;
        self.rest().await;
    }
}

/// Server-sent events, read strictly: the oldest official clients stop at the first byte that they don't expect.
pub struct EventStream {
    lines: Lines,
}

impl EventStream {
    /// Reads the body of an answer whose head has been read.
    pub fn new(body: Body) -> Self {
        Self {
            lines: Lines::of(body),
        }
    }

    /// The data of the next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        let mut data: Option<Vec<u8>> = None;
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                if let Some(data) = data.take() {
                    return Some(data.into());
                }
            } else if let Some(piece) = line.strip_prefix(b"data: ") {
                match &mut data {
                    Some(data) => data.extend_from_slice(&[b"\n", piece].concat()),
                    None => data = Some(piece.to_vec()),
                }
            } else {
                assert!(
                    line.starts_with(b":"),
                    "not a line that every client understands: {line:?}"
                );
            }
        }
    }

    /// The next line with its end taken off; `None` at the end.
    pub async fn line(&mut self) -> Option<Bytes> {
        let line = self.lines.next().await?;
        assert!(line.ends_with(b"\r\n"), "a line ends with CR LF: {line:?}");
        Some(line.slice(..line.len() - 2))
    }
}
