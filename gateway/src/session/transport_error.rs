//! The ways in which a session loses its transport.

/// The reason why nothing more comes from a client, or goes to it. Hub code is given the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TransportError {
    /// The socket can't be written to, or read from.
    #[error("the socket broke")]
    Broke,
    /// The client does not take what is written.
    #[error("a write stalled")]
    Stalled,
    #[error("a message did not get on")]
    Unfinished,
    #[error("the node holds too much for its clients")]
    NoRoom,
    #[error("the client fell silent")]
    Silent,
    #[error("the event stream was closed")]
    StreamClosed,
    #[error("no request came in time")]
    NoRequest,
    #[error("no transport was chosen in time")]
    NotChosen,
    #[error("the upgrade failed")]
    NotUpgraded,
    #[cfg(any(test, feature = "testing"))]
    #[error("the test client broke its connection")]
    BrokenByTest,
    #[cfg(any(test, feature = "testing"))]
    #[error("the test client was dropped")]
    TestDropped,
}
