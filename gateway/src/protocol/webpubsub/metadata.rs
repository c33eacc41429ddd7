//! Metadata of an event or a message to a group: short texts with names. The handler of an event gets them as HTTP headers.
//!
//! The limits of bytes are those of the service. The one of names is added: servers refuse requests with too many headers.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::protocol::Headers;

/// Most bytes of all names and values.
const ALL_BYTES: usize = 8 * 1_024;
/// Most names.
const NAMES: usize = 100;
/// Most bytes of a name.
const NAME_BYTES: usize = 256;
/// Most bytes of a value.
const VALUE_BYTES: usize = 1_024;

/// The rules, for the error that a client gets.
pub(super) const RULES: &str = "an object of at most 8192 bytes: up to 100 names of up to 256 letters, digits and !#$%&'*+-.^_`|~, \
     values of up to 1024 printable characters of ASCII";

/// The metadata of one message. The case of names does not count; of equal ones the last counts.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    entries: Headers,
    bytes: usize,
}

impl Metadata {
    /// Adds an entry. `false`: it breaks the rules.
    pub(super) fn add(&mut self, name: &str, value: &str) -> bool {
        self.bytes = self.bytes.saturating_add(name.len()).saturating_add(value.len());
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_value = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let holds = self.bytes <= ALL_BYTES
            && (1..=NAME_BYTES).contains(&name.len())
            && value.len() <= VALUE_BYTES
            && name.bytes().all(is_name)
            && value.bytes().all(is_value);
        if holds {
            let is_known = |(known, _): &(String, String)| known.eq_ignore_ascii_case(name);
            self.entries.retain(|entry| !is_known(entry));
            self.entries.push((name.to_owned(), value.to_owned()));
        }
        holds && self.entries.len() <= NAMES
    }

    /// The entries in their order, with their names as they were sent.
    pub(super) fn into_entries(self) -> Headers {
        self.entries
    }

    /// The entries as headers, with names in lower case and in the order of names.
    pub(super) fn into_headers(self) -> Headers {
        let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
        let mut headers: Headers = self.entries.into_iter().map(lower).collect();
        headers.sort_unstable();
        headers
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

/// Stops at the limit, however many entries there are.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(RULES)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Metadata, A::Error> {
        let mut metadata = Metadata::default();
        while let Some((name, value)) = entries.next_entry::<String, String>()? {
            if !metadata.add(&name, &value) {
                return Err(A::Error::custom(RULES));
            }
        }
        Ok(metadata)
    }
}
