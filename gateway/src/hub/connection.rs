//! What is known of a client, whatever its transport.

use std::fmt;
use std::sync::OnceLock;

use axum::http::{HeaderMap, header};
use hubcast_backplane::{ConnectionId, UserId};

use super::ConnectionData;
use crate::auth::Identity;
use crate::protocol::HubProtocol;

/// How a client is connected. Names as in negotiate responses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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

    /// Whether it carries bytes that are not text.
    pub(crate) fn is_binary(self) -> bool {
        self != Self::ServerSentEvents
    }

    /// Whether requests themselves are signs of life, so that nobody pings.
    pub(crate) fn keeps_itself_alive(self) -> bool {
        self == Self::LongPolling
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A client's connection: its id, who it is, and the request that it came with.
pub struct Connection {
    id: ConnectionId,
    identity: Identity,
    request: RequestInfo,
    transport: OnceLock<Transport>,
    protocol: OnceLock<HubProtocol>,
    data: ConnectionData,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, identity: Identity, request: RequestInfo) -> Self {
        Self {
            id,
            identity,
            request,
            transport: OnceLock::new(),
            protocol: OnceLock::new(),
            data: ConnectionData::default(),
        }
    }

    /// The public id.
    #[must_use]
    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The user, if the client has shown a token that names one.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.identity.user()
    }

    /// The transport; `None` before the client has chosen one.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.transport.get().copied()
    }

    /// The hub protocol; `None` before the handshake.
    #[must_use]
    pub fn protocol(&self) -> Option<HubProtocol> {
        self.protocol.get().copied()
    }

    /// What hub code keeps for this connection.
    #[must_use]
    pub fn data(&self) -> &ConnectionData {
        &self.data
    }

    /// A header of the request that created the connection, by its name in any case. `Authorization` is not kept.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The headers of the request that created the connection, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.request
            .headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
    }

    /// A value of the query of the request that created the connection.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query_pairs()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// The query of the request that created the connection, without `id` and `access_token`.
    pub fn query_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.request.query.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Fixes the transport. Returns whether it is this one.
    pub(crate) fn set_transport(&self, transport: Transport) -> bool {
        *self.transport.get_or_init(|| transport) == transport
    }

    pub(crate) fn set_protocol(&self, protocol: HubProtocol) {
        let _ = self.protocol.set(protocol); // there is one handshake
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("transport", &self.transport())
            .finish_non_exhaustive()
    }
}

/// The request that created a connection, copied into as little memory as it needs: what the HTTP server hands out
/// are slices that would keep its whole read buffer alive.
#[derive(Default)]
pub(crate) struct RequestInfo {
    headers: Box<[(Box<str>, Box<str>)]>,
    query: Box<[(Box<str>, Box<str>)]>,
}

/// Query keys that are secrets.
const SECRET_KEYS: [&str; 2] = ["id", "access_token"];

impl RequestInfo {
    pub(crate) fn new(headers: &HeaderMap, query: &[(String, String)]) -> Self {
        let kept = headers.iter().filter(|(name, _)| {
            *name != header::AUTHORIZATION
                && *name != header::CONNECTION
                && *name != header::UPGRADE
                && !name.as_str().starts_with("sec-websocket-")
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
        Self {
            headers: kept
                .map(|(name, value)| (name.as_str().into(), text(value.as_bytes())))
                .collect(),
            query: query
                .iter()
                .filter(|(key, _)| !SECRET_KEYS.iter().any(|secret| key.eq_ignore_ascii_case(secret)))
                .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_request_are_not_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer secret".parse().unwrap());
        headers.insert("x-room", "7".parse().unwrap());
        let query = [("id", "t"), ("Access_Token", "secret"), ("room", "a b")];
        let query: Vec<_> = query
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let id = ConnectionId::parse("c").unwrap();
        let connection = Connection::new(id, Identity::anonymous(), RequestInfo::new(&headers, &query));
        assert_eq!(connection.headers().collect::<Vec<_>>(), [("x-room", "7")]);
        assert_eq!(connection.query_pairs().collect::<Vec<_>>(), [("room", "a b")]);
    }
}
