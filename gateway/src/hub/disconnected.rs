//! Why connections end, as hub code is told.

use std::fmt;

/// Why a connection ended, as told to [`Hub::on_disconnected`](crate::Hub::on_disconnected).
///
/// ```
/// use hubcast::{Context, Disconnected, Hub, HubError};
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
    /// The transport broke, or the client fell silent. Carries what was seen.
    Lost(String),
    /// The client broke a rule of the protocol or a limit. Carries which.
    Refused(String),
    /// The node that owned the connection died; this node speaks for it.
    NodeDied,
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
