//! The states of a group's members, to clients that follow them. The protocol's schema of protobuf has no such messages.

use bytes::Bytes;

use super::{Format, WebPubSubProtocol};
use crate::protocol::json;

/// The kind of a message about states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatesMessage {
    /// All states of the group.
    Snapshot,
    /// Those that have changed since.
    Update,
}

impl WebPubSubProtocol {
    /// Returns whether its clients can follow states.
    pub(crate) fn has_group_states(self) -> bool {
        matches!(self.format(), Format::Json)
    }

    /// Writes states of a group's members. `items` is a JSON array as `hubcast_backplane::group_states` has it. `None`: the
    /// protocol has no such message.
    pub(crate) fn group_states(self, kind: StatesMessage, group: &str, items: &[u8]) -> Option<Bytes> {
        if !self.has_group_states() {
            return None;
        }
        let head: &[u8] = match kind {
            StatesMessage::Snapshot => br#"{"type":"groupStateSnapshot","group":"#,
            StatesMessage::Update => br#"{"type":"groupStateUpdate","group":"#,
        };
        let size = head.len().saturating_add(group.len()).saturating_add(items.len());
        let mut out = Vec::with_capacity(size.saturating_add(16));
        out.extend_from_slice(head);
        json::write_string(&mut out, group);
        out.extend_from_slice(br#","items":"#);
        out.extend_from_slice(items);
        out.push(b'}');
        Some(out.into())
    }
}
