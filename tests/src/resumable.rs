//! A client with stateful reconnect that does nothing by itself: no Ack, no Sequence, no reconnect.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::entry_point::EntryPoint;
use crate::websocket::{Message, WebSocket};

/// The handshake of a client that can resume.
pub const RESUMABLE_HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":2}\u{1e}";

/// One connection, on one socket after the other.
pub struct Resumable {
    entry: Arc<EntryPoint>,
    token: String,
    /// `None` between two sockets.
    socket: Option<WebSocket>,
    unread: VecDeque<Value>,
}

impl Resumable {
    /// Negotiates, connects, and has been heard once: messages are not held back any more.
    pub async fn connect(entry: &Arc<EntryPoint>) -> Self {
        let mut client = Self::open(entry).await;
        client.socket().text(RESUMABLE_HANDSHAKE).await;
        assert_eq!(client.next().await, Some(json!({})), "the handshake is accepted");
        client.say(&json!({ "type": 6 })).await;
        client
    }

    /// Negotiates and connects, and has said nothing yet.
    pub async fn open(entry: &Arc<EntryPoint>) -> Self {
        let query = "negotiateVersion=1&useStatefulReconnect=true";
        let answer = entry.negotiate_with(query).await.json();
        assert_eq!(answer["useStatefulReconnect"], true, "{answer}");
        let token = answer["connectionToken"].as_str().expect("a token").to_owned();
        let socket = entry.websocket(&token).await.expect("the WebSocket opens");
        Self {
            entry: Arc::clone(entry),
            token,
            socket: Some(socket),
            unread: VecDeque::new(),
        }
    }

    /// The secret connection token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The socket of this moment.
    pub fn socket(&mut self) -> &mut WebSocket {
        self.socket.as_mut().expect("it has a socket")
    }

    /// Loses its socket, without a Close frame.
    pub fn lose(&mut self) {
        self.socket = None;
    }

    /// Opens another socket and returns the one before, which is still open, if there was one; the error is the
    /// refusal's status.
    pub async fn replace(&mut self) -> Result<Option<WebSocket>, u16> {
        let socket = self.entry.websocket(&self.token).await?;
        self.unread.clear(); // what was cut off is sent again
        Ok(self.socket.replace(socket))
    }

    /// Will come back to other nodes.
    pub fn turn_to(&mut self, entry: &Arc<EntryPoint>) {
        self.entry = Arc::clone(entry);
    }

    /// Loses its socket and resumes on another one, on which the server speaks first. The number is its Sequence.
    pub async fn resume(&mut self) -> u64 {
        drop(self.replace().await.expect("the connection can be resumed"));
        let sequence = self.next().await.expect("the server speaks first");
        assert_eq!(sequence["type"], 9, "a Sequence before anything else: {sequence}");
        sequence["sequenceId"].as_u64().expect("a number")
    }

    /// Sends one message.
    pub async fn say(&mut self, message: &Value) {
        self.socket().text(&format!("{message}\u{1e}")).await;
    }

    /// Calls a method; the answer is not waited for.
    pub async fn invoke(&mut self, id: &str, target: &str, arguments: Value) {
        let call = json!({ "type": 1, "invocationId": id, "target": target, "arguments": arguments });
        self.say(&call).await;
    }

    /// Says that everything up to this number has arrived.
    pub async fn acknowledge(&mut self, number: u64) {
        self.say(&json!({ "type": 8, "sequenceId": number })).await;
    }

    /// Says with which number its next message begins.
    pub async fn continue_at(&mut self, number: u64) {
        self.say(&json!({ "type": 9, "sequenceId": number })).await;
    }

    /// The next message that is no Ping; `None` when the socket is over.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some(message) = self.unread.pop_front() {
                if message["type"] != 6 {
                    return Some(message);
                }
            }
            let Message::Text(text) = self.socket().next().await? else {
                return None;
            };
            let text = text.strip_suffix('\u{1e}').expect("whole messages");
            let messages = text.split('\u{1e}');
            let messages = messages.map(|text| serde_json::from_str(text).expect("messages are JSON"));
            self.unread.extend(messages);
        }
    }

    /// The next numbered message.
    pub async fn numbered(&mut self) -> Value {
        loop {
            let message = self.next().await.expect("the connection goes on");
            match message["type"].as_u64() {
                Some(8) => {}
                Some(1..=5) => return message,
                _ => panic!("not a numbered message: {message}"),
            }
        }
    }

    /// The result of the next numbered message, which is the answer to this call.
    pub async fn result(&mut self, id: &str) -> Value {
        let answer = self.numbered().await;
        assert_eq!(
            (&answer["type"], &answer["invocationId"]),
            (&json!(3), &json!(id))
        );
        answer["result"].clone()
    }

    /// Waits for the Ack of this number: the server has read everything up to there.
    pub async fn is_acknowledged(&mut self, number: u64) {
        loop {
            let message = self.next().await.expect("the connection goes on");
            if message["type"] == 8 {
                let seen = message["sequenceId"].as_u64().expect("a number");
                assert!(seen <= number, "an Ack of what was not sent: {seen}");
                if seen == number {
                    return;
                }
            }
        }
    }
}
