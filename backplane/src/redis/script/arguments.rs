//! The keys and arguments of scripts as the server takes them.

use bytes::Bytes;
use redis::Cmd;

use crate::events::EventPlace;
use crate::redis::feed::local::Reported;
use crate::sessions::{Checkpoint, Version};
use crate::topic::{ConnectionId, GroupName, NodeId, UserId};

/// A key, or several.
pub(in crate::redis) trait Key {
    /// True if it may be missing.
    const OPTIONAL: bool = false;

    fn put(self, to: &mut Vec<String>);
}

impl Key for String {
    fn put(self, to: &mut Vec<String>) {
        to.push(self);
    }
}

impl Key for Option<String> {
    const OPTIONAL: bool = true;

    fn put(self, to: &mut Vec<String>) {
        to.extend(self);
    }
}

impl<const COUNT: usize> Key for [String; COUNT] {
    fn put(self, to: &mut Vec<String>) {
        to.extend(self);
    }
}

/// The list that arguments are added to.
pub(in crate::redis) trait Arguments {
    fn add(&mut self, argument: Bytes);
    fn add_number(&mut self, number: u128);
}

impl Arguments for Vec<Bytes> {
    fn add(&mut self, argument: Bytes) {
        self.push(argument);
    }

    fn add_number(&mut self, number: u128) {
        // The usual case: twice as much work is needed for the larger type.
        let text = u64::try_from(number).map_or_else(|_| number.to_string(), |number| number.to_string());
        self.push(text.into());
    }
}

impl Arguments for Cmd {
    fn add(&mut self, argument: Bytes) {
        self.arg(argument.as_ref());
    }

    fn add_number(&mut self, number: u128) {
        match u64::try_from(number) {
            Ok(number) => self.arg(number),
            Err(_) => self.arg(number.to_string()),
        };
    }
}

/// An argument, or several that belong together.
pub(in crate::redis) trait Argument: Sized {
    /// The names of the arguments that it is, where it is several: the script has them as the fields of a table, or
    /// `false` where the first of them is empty.
    const PARTS: &'static [&'static str] = &[];

    fn put(self, to: &mut impl Arguments);
}

impl Argument for Bytes {
    fn put(self, to: &mut impl Arguments) {
        to.add(self);
    }
}

impl Argument for String {
    fn put(self, to: &mut impl Arguments) {
        to.add(self.into());
    }
}

impl Argument for &str {
    fn put(self, to: &mut impl Arguments) {
        to.add(Bytes::copy_from_slice(self.as_bytes()));
    }
}

impl Argument for u64 {
    fn put(self, to: &mut impl Arguments) {
        to.add_number(self.into());
    }
}

impl Argument for u128 {
    fn put(self, to: &mut impl Arguments) {
        to.add_number(self);
    }
}

impl Argument for usize {
    fn put(self, to: &mut impl Arguments) {
        to.add_number(self as u128);
    }
}

impl Argument for i64 {
    fn put(self, to: &mut impl Arguments) {
        to.add(self.to_string().into());
    }
}

/// `1`, or an empty text.
impl Argument for bool {
    fn put(self, to: &mut impl Arguments) {
        to.add(Bytes::from_static(if self { b"1" } else { b"" }));
    }
}

impl Argument for Version {
    fn put(self, to: &mut impl Arguments) {
        self.0.put(to);
    }
}

impl Argument for EventPlace {
    fn put(self, to: &mut impl Arguments) {
        to.add(self.to_string().into());
    }
}

impl Argument for &NodeId {
    fn put(self, to: &mut impl Arguments) {
        self.as_str().put(to);
    }
}

impl Argument for &ConnectionId {
    fn put(self, to: &mut impl Arguments) {
        self.as_str().put(to);
    }
}

impl Argument for &UserId {
    fn put(self, to: &mut impl Arguments) {
        self.stored().put(to);
    }
}

impl Argument for &GroupName {
    fn put(self, to: &mut impl Arguments) {
        self.stored().put(to);
    }
}

/// An empty text in place of what is missing.
impl<T: Argument> Argument for Option<T> {
    const PARTS: &'static [&'static str] = T::PARTS;

    fn put(self, to: &mut impl Arguments) {
        match self {
            Some(value) => value.put(to),
            None => (0..T::PARTS.len().max(1)).for_each(|_| to.add(Bytes::new())),
        }
    }
}

/// A text with a mark in front of it: so an empty text differs from none.
pub(in crate::redis) struct Marked<'a>(pub(in crate::redis) &'a Bytes);

impl Argument for Marked<'_> {
    fn put(self, to: &mut impl Arguments) {
        to.add([b"s", self.0.as_ref()].concat().into());
    }
}

impl Argument for &Checkpoint {
    const PARTS: &'static [&'static str] = &["epoch", "sequence", "offset"];

    fn put(self, to: &mut impl Arguments) {
        self.position.epoch.as_str().put(to);
        self.sequence.put(to);
        self.position.offset.put(to);
    }
}

/// A node's knowledge of a connection's events, for a server that forgot it.
impl Argument for &Reported {
    const PARTS: &'static [&'static str] = &["base", "user", "payload", "state"];

    fn put(self, to: &mut impl Arguments) {
        self.base.as_str().put(to);
        self.user.as_ref().put(to);
        self.record.payload.clone().put(to);
        self.record.state.clone().put(to);
    }
}
