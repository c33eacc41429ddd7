//! The modes of a session: how its client's bytes come and go, and what it has for that.

use std::sync::{Arc, OnceLock};

use super::reader::Reader;
use super::stateful::Stateful;
use super::{HttpLink, Reading, Session};
use crate::hub::{Connection, HubRuntime};
use crate::protocol::Transport;

/// The mode of a session, for its whole life.
pub(super) enum Mode {
    /// One socket: the connection ends with it.
    Socket,
    /// Requests: POSTs, and polls or one event stream. The client may have to choose its transport yet.
    Requests(Box<HttpLink>),
    /// Sockets, one after the other, which the connection outlives.
    Resumable(Box<Resumable>),
    /// One socket or event stream of a client that holds its own place in the log.
    Reader(Box<Reader>),
}

/// The state of a connection that outlives its sockets.
pub(super) struct Resumable {
    link: HttpLink,
    /// Absent before the handshake, and where that agreed on nothing of the kind.
    pub(super) stateful: OnceLock<Stateful>,
}

impl Session {
    /// A session that is one socket.
    pub(crate) fn new(hub: Arc<HubRuntime>, connection: Connection) -> Arc<Self> {
        Self::in_mode(hub, connection, Mode::Socket)
    }

    /// A session that is many requests.
    pub(crate) fn over_http(hub: Arc<HubRuntime>, connection: Connection) -> Arc<Self> {
        let link = HttpLink::new(hub.options().limits.inbox_bytes);
        Self::in_mode(hub, connection, Mode::Requests(Box::new(link)))
    }

    /// A session that outlives its sockets.
    pub(crate) fn resumable(hub: Arc<HubRuntime>, connection: Connection) -> Arc<Self> {
        let resumable = Resumable {
            link: HttpLink::new(hub.options().limits.inbox_bytes),
            stateful: OnceLock::new(),
        };
        Self::in_mode(hub, connection, Mode::Resumable(Box::new(resumable)))
    }

    /// A session of a client that holds its own place in the log: one response, or one socket.
    pub(crate) fn of_reader(hub: Arc<HubRuntime>, connection: Connection, reading: Reading) -> Arc<Self> {
        let reader = Reader::new(hub.options().limits.outbox_bytes, reading);
        Self::in_mode(hub, connection, Mode::Reader(Box::new(reader)))
    }

    /// The requests, or the sockets that come and go; `None` for a session that is one socket or response.
    pub(crate) fn http(&self) -> Option<&HttpLink> {
        match &self.mode {
            Mode::Requests(link) => Some(link),
            Mode::Resumable(resumable) => Some(&resumable.link),
            Mode::Socket | Mode::Reader(_) => None,
        }
    }

    pub(super) fn reader(&self) -> Option<&Reader> {
        match &self.mode {
            Mode::Reader(reader) => Some(reader),
            Mode::Socket | Mode::Requests(_) | Mode::Resumable(_) => None,
        }
    }

    /// The state of a connection that may move to other nodes.
    pub(super) fn stateful(&self) -> Option<&Stateful> {
        match &self.mode {
            Mode::Resumable(resumable) => resumable.stateful.get(),
            Mode::Socket | Mode::Requests(_) | Mode::Reader(_) => None,
        }
    }

    /// Returns whether the connection outlives the sockets that it has.
    pub(super) fn outlives_sockets(&self) -> bool {
        matches!(self.mode, Mode::Resumable(_)) && self.connection.transport() == Some(Transport::WebSockets)
    }

    /// The event stream is there, for good: without it the session ends.
    pub(crate) fn begin_stream(&self) {
        if let Some(link) = self.http() {
            link.set_attached();
            link.begin();
        }
    }

    /// The client has fetched everything, or needs nothing more.
    pub(crate) fn fetched_all(&self) {
        match &self.mode {
            Mode::Requests(link) => link.drained(),
            Mode::Resumable(resumable) => resumable.link.drained(),
            Mode::Reader(reader) => reader.fetched.open(),
            Mode::Socket => {}
        }
    }

    /// Waits until the client has fetched everything, or `suffices`; never for a session that is one socket.
    pub(super) async fn until_fetched(&self, suffices: impl Fn() -> bool) {
        match &self.mode {
            Mode::Requests(link) => link.until_drained(suffices).await,
            Mode::Resumable(resumable) => resumable.link.until_drained(suffices).await,
            Mode::Reader(_) if suffices() => {}
            Mode::Reader(reader) => reader.fetched.opened().await,
            Mode::Socket => std::future::pending().await,
        }
    }
}
