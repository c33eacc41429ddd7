//! The protocols of receivers: how each opens a connection, joins its group and says that it lives.

use std::ops::Range;

use rmpv::Value;

use crate::frame;

/// How a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speaks {
    /// The floors' own words.
    Floor,
    /// The SignalR hub protocol over a WebSocket.
    SignalR {
        format: Format,
        /// Asks for a connection id first, on another TCP connection.
        negotiate: bool,
        /// Outlives its socket; acknowledges what it got once a second, as official clients do.
        stateful: bool,
    },
    /// A plain WebSocket: the group is in the query.
    WebSocket,
    /// `EventSource`, in the same way.
    Events,
    /// A subscriber of Redis itself, of all groups; or one that publishes there.
    Redis,
    /// HTTP requests of a back end.
    Requests,
}

/// How the messages of the hub protocol are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Json,
    MessagePack,
}

/// A step after the connection is open: bytes to send, if any, and text that the answer has.
pub(crate) type Step = (Vec<u8>, Vec<u8>);

impl Speaks {
    /// SignalR with its defaults, without a request for an id.
    pub(crate) const SIGNALR: Self = Self::SignalR {
        format: Format::Json,
        negotiate: false,
        stateful: false,
    };

    pub(crate) fn negotiates(self) -> bool {
        matches!(self, Self::SignalR { negotiate: true, .. })
    }

    pub(crate) fn is_stateful(self) -> bool {
        matches!(self, Self::SignalR { stateful: true, .. })
    }

    /// Returns whether the connection becomes a WebSocket, which has frames.
    pub(crate) fn has_frames(self) -> bool {
        matches!(self, Self::Floor | Self::SignalR { .. } | Self::WebSocket)
    }

    fn opcode(self) -> u8 {
        match self {
            Self::SignalR {
                format: Format::MessagePack,
                ..
            } => frame::BINARY,
            _ => frame::TEXT,
        }
    }

    /// A message as it goes onto the wire.
    pub(crate) fn on_the_wire(self, message: &[u8]) -> Vec<u8> {
        if self.has_frames() {
            frame::from_client(self.opcode(), message)
        } else {
            message.to_vec()
        }
    }

    /// The path of its first request; `None` where no request opens the connection.
    pub(crate) fn path(self, group: u32) -> Option<String> {
        match self {
            Self::Floor => Some("/".to_owned()),
            Self::SignalR { .. } => Some("/hubs/demo".to_owned()),
            Self::WebSocket => Some(format!("/client/hubs/demo?group=g{group}")),
            Self::Events => Some(format!("/sse/demo?group=g{group}")),
            Self::Redis | Self::Requests => None,
        }
    }

    /// A step of a client that joins these groups, of which only Redis' own subscribers have more than one.
    pub(crate) fn step(self, number: usize, groups: Range<u32>) -> Option<Step> {
        let group = groups.clone().next();
        let step = |message: String, answer: &str| Some((message.into_bytes(), answer.as_bytes().to_vec()));
        match (self, number, group) {
            (Self::Floor, 0, Some(group)) => step(format!("J g{group}"), "OK"),
            (Self::SignalR { format, stateful, .. }, 0, _) => {
                let protocol = format.name();
                let version = if stateful { 2 } else { 1 };
                step(
                    format!("{{\"protocol\":\"{protocol}\",\"version\":{version}}}\x1e"),
                    "{}\x1e",
                )
            }
            (Self::SignalR { format, .. }, 1, Some(group)) => Some((
                format.call(Some("j"), "JoinGroup", &[format!("g{group}").into()]),
                format.completed("j"),
            )),
            (Self::WebSocket, 0, Some(_)) => step(String::new(), "\"connected\""),
            (Self::Events, 0, Some(_)) => step(String::new(), "id:"),
            (Self::Redis, 0, Some(_)) => {
                let count = groups.len();
                let names = groups.map(|group| format!(" g{group}")).collect::<String>();
                step(format!("SUBSCRIBE{names}\r\n"), &format!(":{count}\r\n"))
            }
            _ => None,
        }
    }

    /// A sign of life; `None` where the protocol has none.
    pub(crate) fn ping(self) -> Option<Vec<u8>> {
        let Self::SignalR { format, .. } = self else {
            return None;
        };
        Some(self.on_the_wire(match format {
            Format::Json => b"{\"type\":6}\x1e",
            Format::MessagePack => b"\x02\x91\x06",
        }))
    }

    /// A stateful client's word that it has so many messages.
    pub(crate) fn ack(self, counted: u64) -> Vec<u8> {
        self.on_the_wire(format!("{{\"type\":8,\"sequenceId\":{counted}}}\x1e").as_bytes())
    }
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MessagePack => "messagepack",
        }
    }

    /// An invocation. Without an id there is no completion.
    pub(crate) fn call(self, id: Option<&str>, target: &str, arguments: &[Value]) -> Vec<u8> {
        match self {
            Self::Json => {
                let arguments: Vec<_> = arguments
                    .iter()
                    .map(hubcast_tests::messagepack::to_json)
                    .collect();
                let mut call = serde_json::json!({ "type": 1, "target": target, "arguments": arguments });
                if let Some(id) = id {
                    call["invocationId"] = id.into();
                }
                let mut bytes = call.to_string().into_bytes();
                bytes.push(0x1E);
                bytes
            }
            Self::MessagePack => hubcast_tests::messagepack::frame(&Value::Array(vec![
                1.into(),
                Value::Map(Vec::new()),
                id.map_or(Value::Nil, Value::from),
                target.into(),
                Value::Array(arguments.to_vec()),
                Value::Array(Vec::new()),
            ])),
        }
    }

    /// Bytes that are in the completion of an invocation, whose id has less than 32 bytes.
    pub(crate) fn completed(self, id: &str) -> Vec<u8> {
        match self {
            Self::Json => format!("\"invocationId\":\"{id}\"").into_bytes(),
            // Type 3, no headers, the id.
            Self::MessagePack => {
                let length = u8::try_from(id.len()).expect("ids are short");
                [&[3, 0x80, 0xA0 | length], id.as_bytes()].concat()
            }
        }
    }
}

/// How many records of JSON in a payload are counted by stateful reconnect: those of the types 1 to 5.
pub(crate) fn counted_records(payload: &[u8]) -> u64 {
    let counted =
        |record: &&[u8]| matches!(record.strip_prefix(b"{\"type\":"), Some([b'1'..=b'5', b',', ..]));
    payload.split(|byte| *byte == 0x1E).filter(counted).count() as u64
}
