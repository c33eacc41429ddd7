//! The reasons why connections end, for hub code.

use std::fmt;

use bytes::Bytes;
use hubcast_backplane::NODE_DIED;

/// The reason why a connection ended, for [`Hub::on_disconnected`](crate::Hub::on_disconnected).
///
/// ```
/// use hubcast::hub::Disconnected;
/// use hubcast::{Context, Hub, HubError};
///
/// async fn part(context: Context, reason: Disconnected) -> Result<(), HubError> {
///     let Some(user) = context.user() else { return Ok(()) };
///     let comes_back = matches!(reason, Disconnected::Lost(_) | Disconnected::NodeStopped | Disconnected::NodeDied);
///     Ok(context.clients().others().send("Left", (user.as_str(), comes_back)).await?)
/// }
///
/// let hub = Hub::new("lobby").on_disconnected(part);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disconnected {
    /// The client said goodbye.
    ByClient,
    /// Hub code ended it.
    ByServer,
    /// The node was stopped.
    NodeStopped,
    /// The transport broke, or the client fell silent. Carries the reason that was seen.
    Lost(String),
    /// The client broke a rule of the protocol or a limit. Carries which.
    Refused(String),
    /// The node that owned the connection died; this node speaks for it.
    NodeDied,
}

/// The reasons in `disconnected` events of connections that ended as they should.
pub(crate) const BY_CLIENT: &str = "client";
pub(crate) const BY_SERVER: &str = "server";

impl Disconnected {
    /// The record of it in the backplane, for a node that runs the hook in place of this one.
    pub(crate) fn to_note(&self) -> Bytes {
        let (kind, text) = match self {
            Self::ByClient => ('c', ""),
            Self::ByServer => ('s', ""),
            Self::NodeStopped => ('n', ""),
            Self::NodeDied => ('d', ""),
            Self::Lost(what) => ('l', what.as_str()),
            Self::Refused(what) => ('r', what.as_str()),
        };
        format!("{kind}{text}").into()
    }

    /// The reason in the connection's `disconnected` event: a word, and after `: ` the reason that was seen.
    pub(crate) fn to_event(&self) -> String {
        match self {
            Self::ByClient => BY_CLIENT.to_owned(),
            Self::ByServer => BY_SERVER.to_owned(),
            Self::NodeStopped => "node stopped".to_owned(),
            Self::NodeDied => NODE_DIED.to_owned(),
            Self::Lost(what) => format!("lost: {what}"),
            Self::Refused(what) => format!("refused: {what}"),
        }
    }

    /// Reads the record of some node. Without one, the connection's node died.
    pub(crate) fn from_note(note: &[u8]) -> Self {
        let text = || String::from_utf8_lossy(note.get(1..).unwrap_or_default()).into_owned();
        match note.first() {
            Some(b'c') => Self::ByClient,
            Some(b's') => Self::ByServer,
            Some(b'n') => Self::NodeStopped,
            Some(b'l') => Self::Lost(text()),
            Some(b'r') => Self::Refused(text()),
            _ => Self::NodeDied,
        }
    }
}

impl fmt::Display for Disconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByClient => f.write_str("closed by the client"),
            Self::ByServer => f.write_str("closed by the server"),
            Self::NodeStopped => f.write_str("the node was stopped"),
            Self::Lost(what) | Self::Refused(what) => f.write_str(what),
            Self::NodeDied => f.write_str("the node died"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_node_notes_another_one_tells() {
        for reason in [
            Disconnected::ByClient,
            Disconnected::ByServer,
            Disconnected::NodeStopped,
            Disconnected::Lost("the socket\nbroke".to_owned()),
            Disconnected::Refused(String::new()),
            Disconnected::NodeDied,
        ] {
            assert_eq!(Disconnected::from_note(&reason.to_note()), reason);
        }
        assert_eq!(Disconnected::from_note(b""), Disconnected::NodeDied);
    }
}
