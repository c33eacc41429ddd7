//! The way of a client's bytes into its session, whatever its transport.

use bytes::Bytes;

use super::{InboxEntry, TransportError};
use crate::protocol::websocket::BadFrame;

/// The source of a session's bytes. `receive` is cancel-safe.
pub(crate) trait Inbound: Send {
    /// The next bytes of the client, or the end.
    fn receive(&mut self) -> impl Future<Output = Received> + Send;
}

/// Input of a session.
#[derive(Debug)]
pub(crate) enum Received {
    /// Bytes, cut anywhere.
    Data(Bytes),
    /// A control frame of so many bytes: a sign of life without content.
    Alive { bytes: usize },
    /// A socket was lost and a new one took its place: a message that was cut off is not continued.
    NewSocket,
    /// A body broke off: the message that it has begun is not continued.
    BrokenOff,
    /// The client ended the connection properly.
    Closed,
    /// Bytes came that are no frame of a WebSocket.
    Bad(BadFrame),
    /// The connection broke.
    Lost(TransportError),
}

impl From<InboxEntry> for Received {
    fn from(entry: InboxEntry) -> Self {
        match entry {
            InboxEntry::Bytes(bytes) => Self::Data(bytes),
            InboxEntry::NewSocket => Self::NewSocket,
            InboxEntry::BrokenOff => Self::BrokenOff,
        }
    }
}
