//! A client of `/client/hubs/`, with or without one of Azure Web PubSub's subprotocols. It does nothing by itself: no
//! sequenceAck, no ping, no way back. Tests speak JSON; where the subprotocol is protobuf, it is translated.

mod protobuf;

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::eventually::within;
use crate::http::{Connection, Request, Response};
use crate::websocket::{Message, WebSocket};

/// The subprotocol without recovery.
pub const JSON: &str = "json.webpubsub.azure.v1";
/// The subprotocol with recovery.
pub const RELIABLE: &str = "json.reliable.webpubsub.azure.v1";
/// The subprotocols in protobuf.
pub const PROTOBUF: &str = "protobuf.webpubsub.azure.v1";
/// With recovery.
pub const RELIABLE_PROTOBUF: &str = "protobuf.reliable.webpubsub.azure.v1";
/// All of them.
pub const SUBPROTOCOLS: [&str; 4] = [JSON, RELIABLE, PROTOBUF, RELIABLE_PROTOBUF];
/// No subprotocol.
pub const PLAIN: &str = "";
/// The code of a Close frame after which the official clients begin anew.
pub const OVER: u16 = 1008;

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a Close frame of this code.
    Closed(u16),
    /// Without one.
    Cut,
}

/// The reason why there is no socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The upgrade was answered with this status.
    Status(u16),
    /// The socket was accepted, and ended before anything else.
    Ended(End),
}

/// One socket.
pub struct WebPubSub {
    socket: Option<WebSocket>,
    target: String,
    protocol: String,
    /// The first message.
    pub connected: Value,
    unread: VecDeque<Value>,
    ended: Option<End>,
    acks: u64,
    /// The largest sequence id that [`fresh`](Self::fresh) gave.
    pub last: u64,
}

/// Requests a WebSocket by hand, for the status, the headers and the body of the answer.
pub async fn upgrade(address: SocketAddr, target: &str, protocols: &str) -> Response {
    let mut request = Request::get(target)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    if !protocols.is_empty() {
        request = request.header("Sec-WebSocket-Protocol", protocols);
    }
    let asking = async {
        let mut connection = Connection::open(address).await?;
        let head = connection.start(&request).await?;
        let mut body = Vec::new();
        while head.status != 101
            && let Some(piece) = connection.piece().await?
        {
            body.extend_from_slice(&piece);
        }
        let body = body.into();
        Ok::<_, std::io::Error>(Response { head, body })
    };
    within("an upgrade is answered", asking)
        .await
        .expect("the server answers")
}

/// `target` with one more parameter.
pub fn with_query(target: &str, query: &str) -> String {
    let separator = if target.contains('?') { '&' } else { '?' };
    format!("{target}{separator}{query}")
}

impl WebPubSub {
    /// Opens a socket and reads nothing; the error is the refusal's status.
    pub async fn open(address: SocketAddr, target: &str, protocol: &str) -> Result<Self, u16> {
        let headers = [("Sec-WebSocket-Protocol", protocol)];
        let headers = if protocol.is_empty() { &[] } else { &headers[..] };
        let socket = WebSocket::open(address, target, headers).await?;
        Ok(Self {
            socket: Some(socket),
            target: target.to_owned(),
            protocol: protocol.to_owned(),
            connected: Value::Null,
            unread: VecDeque::new(),
            ended: None,
            acks: 0,
            last: 0,
        })
    }

    /// Opens a socket and reads the first message.
    pub async fn connect(address: SocketAddr, target: &str, protocol: &str) -> Self {
        let client = Self::open(address, target, protocol).await;
        let mut client = client.unwrap_or_else(|status| panic!("{target} is refused: {status}"));
        client
            .is_greeted()
            .await
            .expect("it is told that it is connected");
        client
    }

    async fn is_greeted(&mut self) -> Result<(), End> {
        let Some(first) = self.arriving().await else {
            return Err(self.ended.expect("it has ended"));
        };
        let is_first = match self.protocol.as_str() {
            PLAIN => first["type"] == "connected",
            _ => first["type"] == "system" && first["event"] == "connected",
        };
        assert!(is_first, "connected comes first: {first}");
        self.connected = first;
        Ok(())
    }

    /// The connection id.
    pub fn id(&self) -> &str {
        self.connected["connectionId"].as_str().expect("an id")
    }

    /// The reconnection token.
    pub fn token(&self) -> &str {
        self.connected["reconnectionToken"].as_str().expect("a token")
    }

    /// The socket of this moment.
    pub fn socket(&mut self) -> &mut WebSocket {
        self.socket.as_mut().expect("it has a socket")
    }

    /// Loses its socket, without a Close frame.
    pub fn lose(&mut self) {
        self.socket = None;
    }

    /// The URL by which it would come back.
    pub fn way_back(&self) -> String {
        let (id, token) = (self.id(), self.token());
        let query = format!("awps_connection_id={id}&awps_reconnection_token={token}");
        with_query(&self.target, &query)
    }

    /// Another socket of the same connection, whatever becomes of this one.
    pub async fn recover(&self, address: SocketAddr) -> Result<Self, Refused> {
        let socket = Self::open(address, &self.way_back(), &self.protocol).await;
        let mut socket = socket.map_err(Refused::Status)?;
        socket.is_greeted().await.map_err(Refused::Ended)?;
        assert_eq!(socket.id(), self.id());
        socket.target.clone_from(&self.target);
        (socket.acks, socket.last) = (self.acks, self.last);
        Ok(socket)
    }

    /// Loses its socket, and comes back.
    pub async fn come_back(&mut self, address: SocketAddr) {
        self.lose();
        let socket = self.recover(address).await;
        *self = socket.unwrap_or_else(|refused| panic!("it can't come back: {refused:?}"));
    }

    fn is_binary(&self) -> bool {
        self.protocol.starts_with("protobuf.")
    }

    /// Sends one message.
    pub async fn say(&mut self, message: &Value) {
        let frame = if self.is_binary() {
            Message::binary(protobuf::write(message))
        } else {
            Message::text(message.to_string())
        };
        self.socket().send(frame).await;
    }

    /// Sends a request with an ackId of its own, which is returned. The answer is not waited for.
    pub async fn ask(&mut self, mut request: Value) -> u64 {
        self.acks += 1;
        request["ackId"] = json!(self.acks);
        self.say(&request).await;
        self.acks
    }

    /// Sends a request and returns its ack.
    pub async fn answer(&mut self, request: Value) -> Value {
        let id = self.ask(request).await;
        self.ack(id).await
    }

    /// Sends a request that is done.
    pub async fn done(&mut self, request: Value) {
        let ack = self.answer(request.clone()).await;
        assert_eq!(
            ack,
            json!({ "type": "ack", "ackId": self.acks, "success": true }),
            "{request}"
        );
    }

    /// The name and the message of a refused request's error.
    pub async fn refusal(&mut self, request: Value) -> (String, String) {
        let ack = self.answer(request).await;
        assert_eq!(ack["success"], false, "{ack}");
        let text = |name: &str| ack["error"][name].as_str().expect("text").to_owned();
        (text("name"), text("message"))
    }

    /// Joins a group.
    pub async fn join(&mut self, group: &str) {
        self.done(json!({ "type": "joinGroup", "group": group })).await;
    }

    /// Leaves a group.
    pub async fn leave(&mut self, group: &str) {
        self.done(json!({ "type": "leaveGroup", "group": group })).await;
    }

    /// Sends a text to a group.
    pub async fn send(&mut self, group: &str, text: &str) {
        self.done(to_group(group, text)).await;
    }

    /// Says that everything up to here has arrived, and waits until that was read.
    pub async fn acknowledge(&mut self, sequence_id: u64) {
        self.say(&json!({ "type": "sequenceAck", "sequenceId": sequence_id }))
            .await;
        self.is_heard().await;
    }

    /// Waits until everything that it said was read.
    pub async fn is_heard(&mut self) {
        self.say(&json!({ "type": "ping" })).await;
        self.take("a pong", |message| message["type"] == "pong").await;
    }

    /// The next frame as it is; `None` when the socket is over.
    pub async fn frame(&mut self) -> Option<String> {
        match self.any_frame().await? {
            Message::Text(text) => Some(text.to_string()),
            other => panic!("only text is sent to these clients: {other:?}"),
        }
    }

    async fn any_frame(&mut self) -> Option<Message> {
        // The socket's own bound begins anew with each ping of the server.
        match within("a frame arrives", self.socket().next()).await {
            Some(Message::Close(frame)) => {
                let code = frame.map_or(1005, |frame| u16::from(frame.code));
                self.ended = Some(End::Closed(code));
                None
            }
            None => {
                self.ended = Some(End::Cut);
                None
            }
            message => message,
        }
    }

    async fn arriving(&mut self) -> Option<Value> {
        Some(match self.any_frame().await? {
            Message::Text(text) if !self.is_binary() => {
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
            }
            Message::Binary(bytes) if self.is_binary() => protobuf::read(&bytes),
            other => panic!("not a frame of {}: {other:?}", self.protocol),
        })
    }

    /// The next message; `None` when the socket is over.
    pub async fn next(&mut self) -> Option<Value> {
        match self.unread.pop_front() {
            Some(message) => Some(message),
            None => self.arriving().await,
        }
    }

    /// Everything that comes until the socket is over, and how it ends.
    pub async fn rest(&mut self) -> (Vec<Value>, End) {
        let mut rest = Vec::new();
        while let Some(message) = self.next().await {
            rest.push(message);
        }
        (rest, self.ended.expect("it has ended"))
    }

    /// How many messages have come that were not awaited.
    pub fn kept(&self) -> usize {
        self.unread.len()
    }

    async fn take(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.unread.iter().position(&wanted) {
            return self.unread.remove(at).expect("it is there");
        }
        loop {
            let message = self.arriving().await;
            let Some(message) = message else {
                panic!("{what} did not come before the end: {:?}", self.ended);
            };
            if wanted(&message) {
                return message;
            }
            self.unread.push_back(message);
        }
    }

    /// The ack of a request. What else comes meanwhile is kept.
    pub async fn ack(&mut self, id: u64) -> Value {
        let wanted = |message: &Value| message["type"] == "ack" && message["ackId"] == id;
        self.take("an ack", wanted).await
    }

    /// The answer to an invoke. What else comes meanwhile is kept.
    pub async fn invoked(&mut self, id: &str) -> Value {
        let wanted = |message: &Value| message["type"] == "invokeResponse" && message["invocationId"] == id;
        self.take("an invokeResponse", wanted).await
    }

    /// The next published message. What else comes meanwhile is kept.
    pub async fn message(&mut self) -> Value {
        self.take("a message", |message| message["type"] == "message")
            .await
    }

    /// The next message about the states of a group. What else comes meanwhile is kept.
    pub async fn states(&mut self) -> Value {
        self.take("states of a group", is_about_states).await
    }

    /// The messages about states that have come by now.
    pub async fn states_so_far(&mut self) -> Vec<Value> {
        self.is_heard().await;
        let (states, others): (VecDeque<_>, _) = self.unread.drain(..).partition(is_about_states);
        self.unread = others;
        Vec::from(states)
    }

    /// The next published message that has not come before.
    pub async fn fresh(&mut self) -> Value {
        loop {
            let message = self.message().await;
            let id = message["sequenceId"].as_u64().expect("a sequence id");
            if id > self.last {
                self.last = id;
                return message;
            }
        }
    }

    /// The data of the next published messages that have not come before.
    pub async fn fresh_data(&mut self, count: usize) -> Vec<Value> {
        let mut data = Vec::new();
        for _ in 0..count {
            data.push(self.fresh().await["data"].clone());
        }
        data
    }
}

fn is_about_states(message: &Value) -> bool {
    message["type"] == "groupStateSnapshot" || message["type"] == "groupStateUpdate"
}

/// A request that sends a text to a group.
pub fn to_group(group: &str, text: &str) -> Value {
    json!({ "type": "sendToGroup", "group": group, "dataType": "text", "data": text })
}
