//! Messages that are published once, even when their request is repeated.

use bytes::Bytes;

use crate::position::Offset;

/// The identity of a request to publish, by which a repetition is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The caller's name for the request, unique within the hub for as long as the hub's retention.
    pub key: String,
    /// The content of the request, or a digest of it: the same key with another content is a mistake of the caller.
    pub content: Bytes,
}

/// The outcome of [`Log::publish_once`](crate::Log::publish_once).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// This call published the message, at this offset; `None` where it was for a connection that does not exist.
    Now(Option<Offset>),
    /// An earlier call, on this or another node, published the message.
    Before,
    /// The key was used for another content; nothing was published.
    Differs,
}
