//! Messages that are published once, however often they are asked for.

use bytes::Bytes;

use crate::position::Offset;

/// What tells a repeated request to publish from a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The caller's name for the request, unique within the hub for as long as the hub's retention.
    pub key: String,
    /// What the request says, or a digest of it: the same key with another content is a mistake of the caller.
    pub content: Bytes,
}

/// What became of a message that is published once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It was published by this call, at this place; nowhere where it was for a connection that nobody owns.
    Now(Option<Offset>),
    /// It was published by an earlier call, on whatever node.
    Before,
    /// The key was used for another content; nothing was published.
    Differs,
}
