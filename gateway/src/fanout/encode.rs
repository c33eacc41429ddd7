//! One envelope, encoded at most once for each protocol.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use hubcast_backplane::wire::{self, Envelope};
use hubcast_backplane::{Epoch, Offset};

use crate::auth::PointSigner;
use crate::hub::HubRuntime;
use crate::protocol::{EncodeError, Encoding, HubProtocol, Value, encode_invocation};
use crate::telemetry::metrics::Metrics;
use crate::transport::{sse_event, sse_named_event};

/// How a transport wraps hub messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Carriage {
    /// Not at all, or not in a way that the message shows.
    Plain,
    /// As server-sent events.
    Event,
}

impl Carriage {
    const COUNT: usize = 2;

    fn index(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Event => 1,
        }
    }

    /// Wraps one frame.
    pub(crate) fn carry(self, frame: Bytes) -> Bytes {
        match self {
            Self::Plain => frame,
            Self::Event => sse_event(&frame),
        }
    }
}

/// The frames of one envelope. A protocol that no receiver speaks costs nothing.
pub(crate) struct Frames<'a> {
    envelope: &'a Envelope,
    metrics: &'a Metrics,
    frames: [[OnceCell<Option<Bytes>>; Carriage::COUNT]; HubProtocol::COUNT],
    place: Option<Place<'a>>,
    named: OnceCell<Option<Bytes>>,
}

/// Where a message stands in the log.
struct Place<'a> {
    hub: &'a HubRuntime,
    epoch: Arc<Epoch>,
    offset: Offset,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(envelope: &'a Envelope, metrics: &'a Metrics) -> Self {
        Self {
            envelope,
            metrics,
            frames: Default::default(),
            place: None,
            named: OnceCell::new(),
        }
    }

    /// Says where the message stands: readers that hold their own place are told. Without an epoch there are none.
    pub(crate) fn at(mut self, hub: &'a HubRuntime, epoch: Option<Arc<Epoch>>, offset: Offset) -> Self {
        self.place = epoch.map(|epoch| Place { hub, epoch, offset });
        self
    }

    /// The message as an event for those who speak no hub protocol: its target, its arguments as a JSON array, and its
    /// place. `None` for what concerns only clients of the hub protocol, and what can't be written in JSON.
    pub(crate) fn named(&self) -> Option<Bytes> {
        self.named.get_or_init(|| self.encode_named()).clone()
    }

    fn encode_named(&self) -> Option<Bytes> {
        let place = self.place.as_ref()?;
        if self.envelope.close.is_some() || !self.envelope.frame.is_empty() {
            return None;
        }
        self.metrics.encodes.get(HubProtocol::Json).inc();
        let arguments = Value::array(&arguments_for(self.envelope, Encoding::Json), Encoding::Json)
            .inspect_err(|error| tracing::error!(%error, "a published message can't be written as an event"))
            .ok()?;
        let secret = place.hub.shared().backplane().cluster_secret();
        let id = PointSigner::new(&secret).write(place.hub.name(), &place.epoch, place.offset);
        Some(sse_named_event(
            &self.envelope.target,
            Some(&id),
            arguments.bytes(),
        ))
    }

    /// The frame for one protocol and transport; a clone is a reference count, not a copy. `None` when the envelope
    /// can't be written in that protocol, which is logged once.
    pub(crate) fn get(&self, protocol: HubProtocol, carriage: Carriage) -> Option<Bytes> {
        let cell = self.frames.get(protocol.index())?.get(carriage.index())?;
        let make = || match carriage {
            Carriage::Plain => self.encode(protocol),
            Carriage::Event => Some(carriage.carry(self.get(protocol, Carriage::Plain)?)),
        };
        cell.get_or_init(make).clone()
    }

    fn encode(&self, protocol: HubProtocol) -> Option<Bytes> {
        if self.envelope.close.is_some() {
            return None; // it says nothing to those whom it spares
        }
        if !self.envelope.frame.is_empty() {
            return Some(self.envelope.frame.clone()); // for one connection, and in its protocol
        }
        self.metrics.encodes.get(protocol).inc();
        encode(self.envelope, protocol)
            .inspect_err(|error| tracing::error!(%protocol, %error, "a published message can't be encoded"))
            .ok()
    }
}

fn encode(envelope: &Envelope, protocol: HubProtocol) -> Result<Bytes, EncodeError> {
    let arguments = arguments_for(envelope, protocol.encoding());
    encode_invocation(protocol, &envelope.target, &arguments)
}

/// The arguments, in this encoding if they are there in it.
fn arguments_for(envelope: &Envelope, wanted: Encoding) -> Vec<Value> {
    let encoding = match envelope.encoding() {
        wire::Encoding::Json => Encoding::Json,
        wire::Encoding::MessagePack => Encoding::MessagePack,
    };
    // Who wrote both encodings is taken at its word.
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
