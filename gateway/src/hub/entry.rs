//! The methods of a hub, as they are kept by their names.

use super::admission::Permit;
use super::method::{ErasedMethod, ErasedStream};
use super::state::Needed;

/// A method, with its permits and states.
pub(crate) struct Entry {
    /// The name as defined.
    pub(crate) name: String,
    pub(crate) target: Target,
    /// The permits that its callers must have.
    pub(super) required: Vec<Permit>,
    pub(super) needed: Vec<Needed>,
}

/// A method of a hub, by how it answers.
pub(crate) enum Target {
    Plain(Box<dyn ErasedMethod>),
    Stream(Box<dyn ErasedStream>),
}

/// A mistake in the definition of a hub.
pub(super) enum Problem {
    DefinedTwice(String),
    NoSuchMethod(String),
}

/// The states that something asks for.
pub(super) fn needed(ask: impl FnOnce(&mut Vec<Needed>)) -> Vec<Needed> {
    let mut needed = Vec::new();
    ask(&mut needed);
    needed
}
