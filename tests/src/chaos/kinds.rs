//! The kinds of clients, and what each of them is promised.

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClientKind {
    /// A SignalR client with stateful reconnect.
    Stateful,
    /// A SignalR client over a WebSocket, without.
    WebSocket,
    /// A SignalR client over server-sent events.
    ServerSentEvents,
    /// A SignalR client that polls.
    LongPolling,
    /// An `EventSource`.
    EventSource,
    /// A WebSocket without a subprotocol.
    PlainSocket,
    /// A reliable Web PubSub client.
    WebPubSub,
}

impl ClientKind {
    /// All but the stateful ones, whose number is an option of its own.
    pub(crate) const OTHERS: [Self; 6] = [
        Self::WebSocket,
        Self::ServerSentEvents,
        Self::LongPolling,
        Self::EventSource,
        Self::PlainSocket,
        Self::WebPubSub,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stateful => "stateful",
            Self::WebSocket => "websocket",
            Self::ServerSentEvents => "sse",
            Self::LongPolling => "polling",
            Self::EventSource => "eventsource",
            Self::PlainSocket => "plain socket",
            Self::WebPubSub => "webpubsub",
        }
    }

    /// Returns whether a client of this kind goes on after a lost socket without a missing message, or is notified.
    pub(crate) fn is_resumable(self) -> bool {
        matches!(
            self,
            Self::Stateful | Self::EventSource | Self::PlainSocket | Self::WebPubSub
        )
    }

    /// Returns whether a client of this kind calls methods of the hub.
    pub(crate) fn calls(self) -> bool {
        matches!(
            self,
            Self::Stateful | Self::WebSocket | Self::ServerSentEvents | Self::LongPolling
        )
    }
}
