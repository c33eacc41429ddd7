//! One message of the log, encoded at most once for each protocol.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use hubcast_backplane::wire::{self, Envelope};
use hubcast_backplane::{Epoch, GroupName, HubName, Message, Topic};

use crate::auth::PointSigner;
use crate::hub::Shared;
use crate::protocol::{
    ClientProtocol, DataType, EncodeError, Encoding, HubMessage, HubProtocol, Outcome, TranscodeError,
    TransferFormat, Value, encode, encode_invocation, events, plain,
    webpubsub::{self, WebPubSubProtocol},
    websocket,
};

/// How a transport wraps hub messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Carriage {
    /// No wrapping, or none that the message shows.
    Plain,
    /// Server-sent events.
    Event,
    /// Frames of a WebSocket.
    Socket,
}

impl Carriage {
    const COUNT: usize = 3;

    fn index(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Event => 1,
            Self::Socket => 2,
        }
    }

    /// Wraps one frame. Before a protocol was chosen it is text.
    pub(crate) fn carry(self, frame: Bytes, protocol: Option<ClientProtocol>) -> Bytes {
        match self {
            Self::Plain => frame,
            Self::Event => events::event(&frame),
            Self::Socket => {
                let format = protocol.map_or(TransferFormat::Text, ClientProtocol::transfer_format);
                websocket::message_frame(&frame, format == TransferFormat::Text)
            }
        }
    }
}

/// The frames of one message. A protocol that no receiver speaks costs nothing.
pub(crate) struct Frames<'a> {
    message: &'a Message,
    shared: &'a Shared,
    bare: [OnceCell<Option<Bytes>>; ClientProtocol::COUNT],
    carried: [[OnceCell<Option<Bytes>>; Carriage::COUNT]; ClientProtocol::COUNT],
    place: Option<LogPlace<'a>>,
    /// Where it is a change of a member's state, the group.
    states_of: Option<GroupName>,
}

/// The log that a message stands in.
struct LogPlace<'a> {
    hub: &'a HubName,
    epoch: Arc<Epoch>,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(message: &'a Message, shared: &'a Shared) -> Self {
        Self {
            message,
            shared,
            bare: Default::default(),
            carried: Default::default(),
            place: None,
            states_of: match &message.topic {
                Topic::Group(group) => group.with_states(),
                _ => None,
            },
        }
    }

    /// The group whose members' states changed, where that is the message.
    pub(crate) fn states_of(&self) -> Option<&GroupName> {
        self.states_of.as_ref()
    }

    /// Sets the message's epoch: clients that hold their own place get its offset. Without an epoch there are none.
    pub(crate) fn at(mut self, hub: &'a HubName, epoch: Option<Arc<Epoch>>) -> Self {
        self.place = epoch.map(|epoch| LogPlace { hub, epoch });
        self
    }

    /// The frame for one protocol and transport; a clone is a reference count, not a copy. `None` when the message
    /// can't be written in that protocol, which is logged once, or is not for its clients.
    pub(crate) fn get(&self, protocol: ClientProtocol, carriage: Carriage) -> Option<Bytes> {
        let cell = self.carried.get(protocol.index())?.get(carriage.index())?;
        let make = || {
            let bare = self.bare.get(protocol.index())?;
            let bare = bare.get_or_init(|| self.encode(protocol)).clone()?;
            Some(self.shared.budget().charge(carriage.carry(bare, Some(protocol))))
        };
        cell.get_or_init(make).clone()
    }

    fn encode(&self, protocol: ClientProtocol) -> Option<Bytes> {
        let envelope = &*self.message.envelope;
        if envelope.close.is_some() {
            return None; // the excepted connections get no message
        }
        if !envelope.frame.is_empty() {
            // For one connection, and in its protocol. A client that holds its own place is sent nothing of the kind.
            return (!protocol.holds_place()).then(|| envelope.frame.clone());
        }
        if fragment(envelope).is_some_and(|fragment| fragment.ends)
            && !protocol.web_pubsub().is_some_and(WebPubSubProtocol::has_streams)
        {
            return None; // the others know of no stream that could end
        }
        self.shared.metrics().encodes.get(protocol).inc();
        let encoded = match protocol {
            _ if let Some(group) = &self.states_of => Ok(encode_states(envelope, protocol, group)),
            _ if envelope.stream.is_some() => encode_stream(envelope, protocol),
            ClientProtocol::Hub(protocol) => encode_call(envelope, protocol).map(Some),
            ClientProtocol::WebPubSub(protocol) => {
                self.publish(|published| protocol.message(published, self.message.offset))
            }
            ClientProtocol::Plain => self.publish_with_place(plain::message),
            ClientProtocol::Events => self.publish_with_place(events::message),
        };
        encoded
            .inspect_err(|error| tracing::error!(%protocol, %error, "a published message can't be encoded"))
            .ok()
            .flatten()
    }

    fn publish_with_place(
        &self,
        write: impl FnOnce(&webpubsub::Published<'_>, &str) -> Bytes,
    ) -> Result<Option<Bytes>, EncodeError> {
        let Some(place) = &self.place else { return Ok(None) };
        let secret = self.shared.backplane().cluster_secret();
        let id = PointSigner::new(&secret).write(place.hub, &place.epoch, self.message.offset);
        self.publish(|published| write(published, &id))
    }

    /// Writes it for clients without a hub protocol.
    fn publish(
        &self,
        write: impl FnOnce(&webpubsub::Published<'_>) -> Bytes,
    ) -> Result<Option<Bytes>, EncodeError> {
        let envelope = &*self.message.envelope;
        let arguments: Result<Vec<_>, TranscodeError> = arguments_for(envelope, Encoding::Json)
            .iter()
            .map(|value| value.transcode(Encoding::Json))
            .collect();
        let packed = match envelope.data_type() {
            wire::DataType::Json | wire::DataType::Text => Vec::new(),
            wire::DataType::Binary | wire::DataType::Protobuf => {
                arguments_for(envelope, Encoding::MessagePack)
            }
        };
        let entries = envelope.web_pubsub.iter().flat_map(|more| &more.metadata);
        let metadata: Vec<_> = entries.map(|entry| (&*entry.name, &*entry.value)).collect();
        let published = webpubsub::Published {
            group: match &self.message.topic {
                Topic::Group(group) if !group.is_reserved() => Some(group.as_str()),
                _ => None,
            },
            from_user: &envelope.from_user,
            data_type: match envelope.data_type() {
                wire::DataType::Json => DataType::Json,
                wire::DataType::Text => DataType::Text,
                wire::DataType::Binary => DataType::Binary,
                wire::DataType::Protobuf => DataType::Protobuf,
            },
            target: &envelope.target,
            arguments: &arguments?,
            packed: &packed,
            metadata: &metadata,
            fragment: fragment(envelope).map(fragment_of),
        };
        Ok(Some(write(&published)))
    }
}

fn fragment(envelope: &Envelope) -> Option<&wire::Fragment> {
    envelope.web_pubsub.as_ref()?.fragment.as_ref()
}

fn fragment_of(fragment: &wire::Fragment) -> webpubsub::Fragment<'_> {
    let error = fragment.error.as_ref();
    webpubsub::Fragment {
        stream: &fragment.stream,
        number: fragment.number,
        ends: fragment.ends,
        error: error.map(|error| webpubsub::FragmentError {
            name: &error.name,
            message: error.message.as_deref(),
            code: error.code.as_deref(),
        }),
    }
}

fn encode_call(envelope: &Envelope, protocol: HubProtocol) -> Result<Bytes, EncodeError> {
    let arguments = arguments_for(envelope, protocol.encoding());
    encode_invocation(protocol, &envelope.target, &arguments)
}

/// A change of a member's state in a group.
fn encode_states(envelope: &Envelope, protocol: ClientProtocol, group: &GroupName) -> Option<Bytes> {
    let items = envelope.arguments.first()?;
    let protocol = protocol.web_pubsub()?;
    protocol.group_states(webpubsub::StatesMessage::Update, group.as_str(), items)
}

/// A part of a stream that back ends send to a client.
fn encode_stream(envelope: &Envelope, protocol: ClientProtocol) -> Result<Option<Bytes>, EncodeError> {
    let (Some(part), ClientProtocol::Hub(protocol)) = (&envelope.stream, protocol) else {
        return Ok(None);
    };
    let invocation_id = part.invocation_id.clone();
    let item = arguments_for(envelope, protocol.encoding()).into_iter().next();
    let message = match item {
        Some(item) if !part.ends => HubMessage::StreamItem {
            headers: Vec::new(),
            invocation_id,
            item,
        },
        _ => HubMessage::Completion {
            headers: Vec::new(),
            invocation_id,
            outcome: part.error.clone().map_or(Outcome::Void, Outcome::Error),
        },
    };
    encode(protocol, &message).map(Some)
}

/// The arguments, in this encoding if they are there in it.
fn arguments_for(envelope: &Envelope, wanted: Encoding) -> Vec<Value> {
    let encoding = match envelope.encoding() {
        wire::Encoding::Json => Encoding::Json,
        wire::Encoding::MessagePack => Encoding::MessagePack,
    };
    // Senders that wrote both encodings are trusted.
    let (encoding, arguments) = if encoding == wanted || envelope.translated.is_empty() {
        (encoding, &envelope.arguments)
    } else {
        (wanted, &envelope.translated)
    };
    arguments
        .iter()
        .map(|bytes| Value::from_raw(encoding, bytes.clone()))
        .collect()
}
