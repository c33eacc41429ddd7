//! The transports of the protocol, by their names in negotiate responses.

use std::fmt;

use serde::Deserialize;

/// How a client is connected. Names as in negotiate responses.
///
/// ```
/// use hubcast::protocol::Transport;
/// use hubcast::{Context, Hub};
///
/// /// Clients that poll get fewer updates.
/// async fn updates_per_second(context: Context) -> u32 {
///     match context.connection().transport() {
///         Some(Transport::LongPolling) => 1,
///         _ => 20,
///     }
/// }
///
/// let hub = Hub::new("map").method("UpdatesPerSecond", updates_per_second);
/// assert_eq!(Transport::ServerSentEvents.name(), "ServerSentEvents");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize)]
pub enum Transport {
    /// One socket for both directions.
    WebSockets,
    /// A response that never ends, and POSTs.
    ServerSentEvents,
    /// One response for each batch, and POSTs.
    LongPolling,
}

impl Transport {
    /// Every transport, in the order in which clients should try them.
    pub const ALL: [Self; 3] = [Self::WebSockets, Self::ServerSentEvents, Self::LongPolling];

    /// The transport's place in [`Transport::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::WebSockets => 0,
            Self::ServerSentEvents => 1,
            Self::LongPolling => 2,
        }
    }

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSockets => "WebSockets",
            Self::ServerSentEvents => "ServerSentEvents",
            Self::LongPolling => "LongPolling",
        }
    }

    /// Returns whether it carries bytes that are not text.
    pub(crate) fn is_binary(self) -> bool {
        self != Self::ServerSentEvents
    }

    /// Returns whether requests themselves are signs of life, so that no Pings are sent.
    pub(crate) fn keeps_itself_alive(self) -> bool {
        self == Self::LongPolling
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
