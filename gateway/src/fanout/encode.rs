//! One envelope, encoded at most once for each protocol.

use std::cell::OnceCell;

use bytes::Bytes;
use hubcast_backplane::wire::{self, Envelope};

use crate::protocol::{EncodeError, Encoding, HubProtocol, Value, encode_invocation};
use crate::telemetry::metrics::Metrics;

/// The frames of one envelope. A protocol that no receiver speaks costs nothing.
pub(crate) struct Frames<'a> {
    envelope: &'a Envelope,
    metrics: &'a Metrics,
    frames: [OnceCell<Option<Bytes>>; HubProtocol::COUNT],
}

impl<'a> Frames<'a> {
    pub(crate) fn new(envelope: &'a Envelope, metrics: &'a Metrics) -> Self {
        Self {
            envelope,
            metrics,
            frames: Default::default(),
        }
    }

    /// The frame for one protocol; a clone is a reference count, not a copy. `None` when the envelope can't be written
    /// in that protocol, which is logged once.
    pub(crate) fn get(&self, protocol: HubProtocol) -> Option<Bytes> {
        let cell = self.frames.get(protocol.index())?;
        cell.get_or_init(|| {
            self.metrics.encodes.get(protocol).inc();
            encode(self.envelope, protocol)
                .inspect_err(
                    |error| tracing::error!(%protocol, %error, "a published message can't be encoded"),
                )
                .ok()
        })
        .clone()
    }
}

fn encode(envelope: &Envelope, protocol: HubProtocol) -> Result<Bytes, EncodeError> {
    let encoding = match envelope.encoding() {
        wire::Encoding::Json => Encoding::Json,
        wire::Encoding::MessagePack => Encoding::MessagePack,
    };
    let arguments: Vec<_> = envelope
        .arguments
        .iter()
        .map(|bytes| Value::from_raw(encoding, bytes.clone()))
        .collect();
    encode_invocation(protocol, &envelope.target, &arguments)
}
