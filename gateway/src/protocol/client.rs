//! The protocols of clients: the hub protocol, and smaller ones for clients without a SignalR library.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;

use super::{
    DecodeError, Decoder, EncodeError, Encoding, Headers, HubMessage, HubProtocol, TransferFormat, Value,
    encode, events, plain,
    webpubsub::{StreamRequest, WebPubSubProtocol},
};

/// The protocol of a connection's client.
///
/// ```
/// use hubcast::{Context, Hub, protocol::{ClientProtocol, webpubsub::WebPubSubProtocol}};
///
/// /// Clients without a SignalR library can't give client results.
/// async fn can_answer(context: Context) -> bool {
///     matches!(context.connection().protocol(), Some(ClientProtocol::Hub(_)))
/// }
///
/// let hub = Hub::new("quiz").method("CanAnswer", can_answer);
/// let protocol = ClientProtocol::WebPubSub(WebPubSubProtocol::ReliableJson);
/// assert_eq!(protocol.name(), "json.reliable.webpubsub.azure.v1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClientProtocol {
    /// The SignalR hub protocol.
    Hub(HubProtocol),
    /// A subprotocol of Azure Web PubSub: see [`webpubsub`](super::webpubsub).
    WebPubSub(WebPubSubProtocol),
    /// A WebSocket without a subprotocol: see [`plain`](super::plain).
    Plain,
    /// Server-sent events for `EventSource`, one way.
    Events,
}

impl ClientProtocol {
    /// Every protocol; `ALL[p.index()] == p`.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Hub(HubProtocol::Json),
        Self::Hub(HubProtocol::MessagePack),
        Self::WebPubSub(WebPubSubProtocol::Json),
        Self::WebPubSub(WebPubSubProtocol::ReliableJson),
        Self::Plain,
        Self::Events,
        Self::WebPubSub(WebPubSubProtocol::Protobuf),
        Self::WebPubSub(WebPubSubProtocol::ReliableProtobuf),
    ];

    /// How many protocols there are: the length of an array with one place for each.
    pub const COUNT: usize = 8;

    /// The protocol's place in an array of [`COUNT`](Self::COUNT) items. Nodes write it down for each other: it never changes.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Hub(protocol) => protocol.index(),
            Self::WebPubSub(WebPubSubProtocol::Json) => 2,
            Self::WebPubSub(WebPubSubProtocol::ReliableJson) => 3,
            Self::Plain => 4,
            Self::Events => 5,
            Self::WebPubSub(WebPubSubProtocol::Protobuf) => 6,
            Self::WebPubSub(WebPubSubProtocol::ReliableProtobuf) => 7,
        }
    }

    /// The protocol's name: that of the handshake, or of the WebSocket subprotocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hub(protocol) => protocol.name(),
            Self::WebPubSub(protocol) => protocol.name(),
            Self::Plain => "websocket",
            Self::Events => "events",
        }
    }

    /// The name of its WebSocket subprotocol; `None` where there is none.
    pub(crate) fn subprotocol(self) -> Option<&'static str> {
        self.web_pubsub().map(WebPubSubProtocol::name)
    }

    /// The hub protocol, if it is that.
    #[must_use]
    pub fn hub(self) -> Option<HubProtocol> {
        match self {
            Self::Hub(protocol) => Some(protocol),
            _ => None,
        }
    }

    /// The subprotocol of Web PubSub, if it is one.
    #[must_use]
    pub fn web_pubsub(self) -> Option<WebPubSubProtocol> {
        match self {
            Self::WebPubSub(protocol) => Some(protocol),
            _ => None,
        }
    }

    /// Returns whether it is a subprotocol of Web PubSub whose connections outlive their sockets.
    pub(crate) fn is_reliable(self) -> bool {
        self.web_pubsub().is_some_and(WebPubSubProtocol::is_reliable)
    }

    /// How values inside this protocol's messages are written.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        self.hub().map_or(Encoding::Json, HubProtocol::encoding)
    }

    /// The format that a transport must carry for this protocol.
    #[must_use]
    pub fn transfer_format(self) -> TransferFormat {
        match self {
            Self::Hub(protocol) => protocol.transfer_format(),
            Self::WebPubSub(protocol) if protocol.is_binary() => TransferFormat::Binary,
            Self::WebPubSub(_) | Self::Plain | Self::Events => TransferFormat::Text,
        }
    }

    /// Returns whether its messages name the place in the log where they stand, so that the client can hold its own.
    pub(crate) fn holds_place(self) -> bool {
        matches!(self, Self::Plain | Self::Events)
    }

    /// Returns whether the client's messages are numbered when its session is stateful.
    pub(crate) fn numbers_messages(self) -> bool {
        matches!(self, Self::Hub(_))
    }

    /// Returns whether a method's result comes to the client as a message: the protocol has no other carrier.
    pub(crate) fn results_are_messages(self) -> bool {
        matches!(self, Self::WebPubSub(_) | Self::Plain)
    }

    /// Returns whether a client that is silent is gone: it need not send anything, but its WebSocket answers pings.
    pub(crate) fn answers_pings(self) -> bool {
        matches!(self, Self::WebPubSub(_) | Self::Plain)
    }
}

impl From<HubProtocol> for ClientProtocol {
    fn from(protocol: HubProtocol) -> Self {
        Self::Hub(protocol)
    }
}

impl fmt::Display for ClientProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Writes a message to one client. `None`: the client's protocol has no such message.
pub(crate) fn encode_for(
    protocol: ClientProtocol,
    message: &HubMessage,
) -> Result<Option<Bytes>, EncodeError> {
    match protocol {
        ClientProtocol::Hub(protocol) => encode(protocol, message).map(Some),
        ClientProtocol::WebPubSub(protocol) => protocol.encode(message),
        ClientProtocol::Plain => Ok(plain::encode(message)),
        ClientProtocol::Events => Ok(events::encode(message)),
    }
}

/// A message of a client.
#[derive(Debug, PartialEq)]
pub(crate) enum ClientMessage {
    /// A message of the hub protocol, or one that means the same.
    Hub(HubMessage),
    /// A request that the hub protocol has no message for.
    Request(Request),
}

/// A request that the gateway itself serves, if the client is permitted.
#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    /// The client's number for it; without one the outcome is not reported to the client.
    pub(crate) ack_id: Option<u64>,
    pub(crate) wish: RequestWish,
}

#[derive(Debug, PartialEq)]
pub(crate) enum RequestWish {
    Join(String),
    Leave(String),
    Send(GroupSend),
    /// Something about the states of a group's members.
    GroupState(GroupStateWish),
    /// Something about a stream to a group.
    Stream(StreamRequest),
}

/// A request about the states of a group's members.
#[derive(Debug, PartialEq)]
pub(crate) enum GroupStateWish {
    /// Sets the client's state in the group; `None` clears it.
    Set {
        group: String,
        state: Option<BTreeMap<String, String>>,
    },
    /// The client follows the states of a group.
    Subscribe(String),
    /// The client follows them no more.
    Unsubscribe(String),
}

/// A message to a group.
#[derive(Debug, PartialEq)]
pub(crate) struct GroupSend {
    pub(crate) group: String,
    /// The sender does not receive it.
    pub(crate) no_echo: bool,
    /// How long connections receive it, in seconds: 0 is for ever.
    pub(crate) ttl_seconds: u64,
    pub(crate) data: Data,
    pub(crate) metadata: Headers,
}

/// The data of a message, as its sender wrote it.
#[derive(Debug, PartialEq, Clone)]
pub(crate) struct Data {
    pub(crate) kind: DataType,
    /// The data in JSON; bytes are base64 text.
    pub(crate) json: Value,
    /// The same for MessagePack, where it is not the JSON value transcoded.
    pub(crate) packed: Option<Value>,
}

/// The kind of a message's data, as clients without a hub protocol name it.
#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy, Default)]
pub enum DataType {
    /// Any JSON value.
    #[default]
    Json,
    /// A string.
    Text,
    /// Bytes: base64 text in JSON.
    Binary,
    /// Bytes that are an encoded `google.protobuf.Any`.
    Protobuf,
}

/// The call that a client makes which sends data and names no method, and the call that such data arrives as.
pub(crate) const MESSAGE: &str = "message";

/// Reads a connection's bytes and gives its messages.
#[derive(Debug)]
pub(crate) struct ClientDecoder {
    protocol: ClientProtocol,
    input: Input,
}

#[derive(Debug)]
enum Input {
    /// A stream of bytes, cut anywhere.
    Stream(Decoder),
    /// Each chunk is a message.
    Frames(Frames),
}

#[derive(Debug, Default)]
struct Frames {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    limit: usize,
    taken: u64,
}

impl From<Decoder> for ClientDecoder {
    fn from(decoder: Decoder) -> Self {
        Self {
            protocol: decoder.protocol().into(),
            input: Input::Stream(decoder),
        }
    }
}

impl ClientDecoder {
    /// `max_message_bytes` is the limit of one message.
    pub(crate) fn new(protocol: ClientProtocol, max_message_bytes: usize) -> Self {
        match protocol {
            ClientProtocol::Hub(hub) => Decoder::new(hub, max_message_bytes).into(),
            _ => Self {
                protocol,
                input: Input::Frames(Frames {
                    limit: max_message_bytes,
                    ..Frames::default()
                }),
            },
        }
    }

    pub(crate) fn protocol(&self) -> ClientProtocol {
        self.protocol
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        match &mut self.input {
            Input::Stream(decoder) => decoder.push(&chunk),
            // An empty chunk carries no message, but a plain client's empty frame does.
            Input::Frames(_) if chunk.is_empty() && self.protocol != ClientProtocol::Plain => {}
            Input::Frames(frames) => {
                frames.bytes = frames.bytes.saturating_add(chunk.len());
                frames.waiting.push_back(chunk);
            }
        }
    }

    /// Bytes of messages that were not given yet.
    pub(crate) fn buffered_bytes(&self) -> usize {
        match &self.input {
            Input::Stream(decoder) => decoder.buffered_bytes(),
            Input::Frames(frames) => frames.bytes,
        }
    }

    pub(crate) fn next_message(&mut self) -> Result<Option<ClientMessage>, DecodeError> {
        match &mut self.input {
            Input::Stream(decoder) => Ok(decoder.next_message()?.map(ClientMessage::Hub)),
            Input::Frames(frames) => {
                let Some(frame) = frames.next()? else {
                    return Ok(None);
                };
                match self.protocol {
                    ClientProtocol::WebPubSub(protocol) => protocol.decode(&frame).map(Some),
                    // The others are plain: event streams send nothing.
                    _ => Ok(Some(ClientMessage::Hub(plain::decode(&frame, frames.taken)?))),
                }
            }
        }
    }
}

impl Frames {
    fn next(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(frame) = self.waiting.pop_front() else {
            return Ok(None);
        };
        self.bytes = self.bytes.saturating_sub(frame.len());
        self.taken = self.taken.wrapping_add(1);
        if frame.len() > self.limit {
            return Err(DecodeError::TooLarge { limit: self.limit });
        }
        Ok(Some(frame))
    }
}
