//! The data of a connection, whatever its transport.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, HeaderName, header};
use hubcast_backplane::{ConnectionId, Offset, UserId};

use super::{ConnectionData, Owed, Streams};
use crate::auth::{Identity, Permission, TooManyGrants, without_cookie};
use crate::protocol::{ClientProtocol, Transport};

/// A client's connection: its id, its identity, and the request that it came with.
///
/// ```
/// use hubcast::testing::HubTester;
/// use hubcast::{Context, Hub};
///
/// async fn language(context: Context) -> String {
///     let connection = context.connection();
///     let chosen = connection.query("lang").or_else(|| connection.cookie("lang"));
///     let language = chosen.or_else(|| connection.header("Accept-Language")?.split(',').next());
///     language.unwrap_or("en").to_owned()
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("texts").method("Language", language)).await?;
/// let mut client = tester.client().cookie("lang", "nb").header("Accept-Language", "de,en").connect().await;
/// assert_eq!(client.invoke::<String>("Language", ()).await?, "nb");
/// # Ok(())
/// # }
/// ```
pub struct Connection {
    id: ConnectionId,
    user: Option<UserId>,
    identity: ArcSwap<Identity>,
    request: RequestInfo,
    transport: OnceLock<Transport>,
    protocol: OnceLock<ClientProtocol>,
    data: ConnectionData,
    /// The newest offset of messages that its calls have sent and it receives itself; 0 where they were delivered.
    sent: AtomicU64,
    /// The streams that its client sends to groups, if it has begun one.
    streams: OnceLock<Box<Streams>>,
}

/// The transport of a connection, compared to one that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    This,
    Another,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, identity: Identity, request: RequestInfo) -> Self {
        Self {
            id,
            user: identity.user().cloned(),
            identity: ArcSwap::from_pointee(identity),
            request,
            transport: OnceLock::new(),
            protocol: OnceLock::new(),
            data: ConnectionData::default(),
            sent: AtomicU64::new(0),
            streams: OnceLock::new(),
        }
    }

    /// Records that a call of it has sent a message that it receives itself, at `offset`; 0 for none.
    pub(crate) fn note_sent(&self, offset: Offset) {
        self.sent.fetch_max(offset, Ordering::AcqRel);
    }

    /// The offset up to which its own calls' messages are to be delivered; 0 where they were.
    pub(crate) fn sent(&self) -> Offset {
        self.sent.load(Ordering::Acquire)
    }

    /// Records that its own calls' messages up to `offset` were delivered.
    pub(crate) fn settle_sent(&self, offset: Offset) {
        let _ = self
            .sent
            .compare_exchange(offset, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The streams that its client sends to groups; `None` where it has never begun one.
    pub(crate) fn streams(&self) -> Option<&Streams> {
        self.streams.get().map(|streams| &**streams)
    }

    pub(crate) fn streams_or_new(&self) -> &Streams {
        self.streams.get_or_init(Box::default)
    }

    /// Takes the streams that it had on another node.
    pub(crate) fn restore_streams(&self, streams: Streams) {
        let _ = self.streams.set(Box::new(streams)); // it is new here
    }

    /// The public id.
    #[must_use]
    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// The current identity: with `auth.refresh` the client may have shown a newer token of the same user.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.load_full()
    }

    /// The user, if the client has shown a token that names one.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// The transport; `None` before the client has chosen one.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.transport.get().copied()
    }

    /// The client's protocol; `None` before the handshake.
    #[must_use]
    pub fn protocol(&self) -> Option<ClientProtocol> {
        self.protocol.get().copied()
    }

    /// Data that hub code keeps for this connection.
    #[must_use]
    pub fn data(&self) -> &ConnectionData {
        &self.data
    }

    /// A header of the request that created the connection, by its name in any case; of several the first.
    /// `Authorization` is not kept, nor are headers that only concern the transport.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The headers of the request that created the connection, names in lower case. Among them are its cookies, which
    /// are often secrets: mind what you log.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.request
            .headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
    }

    /// A cookie of the request that created the connection, by its exact name. Of several with one name it is the
    /// first: the one that browsers hold to be the most specific.
    ///
    /// The text is the client's, without quotes around it; nothing is decoded. Cookies are often secrets:
    /// Hubcast writes them to no log.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies()
            .find(|(cookie, _)| *cookie == name)
            .map(|(_, value)| value)
    }

    /// The cookies of the request that created the connection, names and values, in the order of its `Cookie` headers.
    /// Parts that are no cookie (no name, no `=`) are passed over.
    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self
            .headers()
            .filter(|(name, _)| *name == header::COOKIE.as_str());
        headers.flat_map(|(_, value)| value.split(';')).filter_map(cookie)
    }

    /// A value of the query of the request that created the connection, decoded, by its exact name; of several the
    /// first.
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

    /// The cluster knows the connection: from now on its end is an event like any other's.
    pub(crate) fn has_entered(&self) {
        if let Some(owed) = self.data.remove::<Owed>() {
            owed.settle();
        }
    }

    /// Another value for the same client, without what came with its request.
    pub(crate) fn anew(&self) -> Self {
        let anew = Self::new(
            self.id.clone(),
            (*self.identity()).clone(),
            RequestInfo::default(),
        );
        if let Some(protocol) = self.protocol() {
            anew.set_protocol(protocol);
        }
        anew
    }

    /// The same with another identity, before anybody knows of it.
    pub(crate) fn with_identity(self, identity: Identity) -> Self {
        Self {
            user: identity.user().cloned(),
            identity: ArcSwap::from_pointee(identity),
            ..self
        }
    }

    /// Takes the identity of a newer token of the same user. Permissions that a back end gave and took stay.
    pub(crate) fn renew(&self, identity: &Identity) {
        self.identity.rcu(|known| identity.clone().with_grants_of(known));
    }

    /// Gives or takes a permission.
    pub(crate) fn permit(
        &self,
        permission: Permission,
        group: Option<&str>,
        give: bool,
    ) -> Result<(), TooManyGrants> {
        loop {
            let known = self.identity.load();
            let changed = Arc::new(known.with_permission(permission, group, give)?);
            let before = self.identity.compare_and_swap(&known, changed);
            if Arc::ptr_eq(&known, &before) {
                return Ok(());
            }
        }
    }

    /// Returns whether a token ends before the one that was shown last.
    pub(crate) fn is_stale(&self, identity: &Identity) -> bool {
        match (identity.expires(), self.identity.load().expires()) {
            (Some(end), Some(known)) => end < known,
            (end, _) => end.is_some(),
        }
    }

    /// As [`renew`](Self::renew), if the token lasts longer than the one that was shown before.
    pub(crate) fn renew_if_longer(&self, identity: &Identity) {
        let longer = !self.is_stale(identity) && identity.expires() != self.identity.load().expires();
        if longer && identity.user() == self.user() {
            self.renew(identity);
        }
    }

    /// Fixes the transport, if none was chosen before.
    pub(crate) fn set_transport(&self, transport: Transport) -> Chosen {
        if *self.transport.get_or_init(|| transport) == transport {
            Chosen::This
        } else {
            Chosen::Another
        }
    }

    pub(crate) fn set_protocol(&self, protocol: impl Into<ClientProtocol>) {
        let _ = self.protocol.set(protocol.into()); // there is one handshake
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

/// One pair of a `Cookie` header (RFC 6265, section 4.2.1, read as leniently as servers do).
fn cookie(pair: &str) -> Option<(&str, &str)> {
    let (name, value) = pair.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    (!name.is_empty()).then(|| (name, bare.unwrap_or(value)))
}

/// The request that created a connection, copied into as little memory as it needs: the HTTP server's parts
/// are slices that would keep its whole read buffer alive.
#[derive(Default)]
pub(crate) struct RequestInfo {
    headers: Box<[(Box<str>, Box<str>)]>,
    query: Box<[(Box<str>, Box<str>)]>,
}

/// Query keys that are secrets.
const SECRET_KEYS: [&str; 2] = ["id", "access_token"];

impl RequestInfo {
    /// The request of a connection that another node accepted.
    pub(crate) fn from_pairs(headers: Vec<(String, String)>, query: Vec<(String, String)>) -> Self {
        let boxed = |pairs: Vec<(String, String)>| {
            let pair = |(name, value): (String, String)| (name.into_boxed_str(), value.into_boxed_str());
            pairs.into_iter().map(pair).collect()
        };
        Self {
            headers: boxed(headers),
            query: boxed(query),
        }
    }

    /// `secret_cookie` is the name of the cookie that holds a token.
    pub(crate) fn new(headers: &HeaderMap, query: &[(String, String)], secret_cookie: Option<&str>) -> Self {
        let kept = headers.iter().filter(|(name, _)| {
            *name != header::AUTHORIZATION
                && *name != header::CONNECTION
                && *name != header::UPGRADE
                && !name.as_str().starts_with("sec-websocket-")
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
        let value = |name: &HeaderName, value: &[u8]| match secret_cookie {
            Some(secret) if *name == header::COOKIE => {
                without_cookie(&String::from_utf8_lossy(value), secret).into_boxed_str()
            }
            _ => text(value),
        };
        Self {
            headers: kept
                .map(|(name, bytes)| (name.as_str().into(), value(name, bytes.as_bytes())))
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

    fn connection(headers: &HeaderMap, query: &[(String, String)]) -> Connection {
        let id = ConnectionId::parse("c").unwrap();
        let request = RequestInfo::new(headers, query, Some("token"));
        Connection::new(id, Identity::anonymous(), request)
    }

    #[test]
    fn cookies_are_read_from_every_header_and_shown_to_nobody_else() {
        let mut headers = HeaderMap::new();
        let first = "session=s3cret; theme = dark;empty=;=nameless; flag; b64=YQ==; theme=light";
        headers.append(header::COOKIE, first.parse().unwrap());
        headers.append(
            header::COOKIE,
            "quoted=\"a b\"; half=\"a; one=\"".parse().unwrap(),
        );
        let connection = connection(&headers, &[]);
        let expected = [
            ("session", "s3cret"),
            ("theme", "dark"),
            ("empty", ""),
            ("b64", "YQ=="),
            ("theme", "light"),
            ("quoted", "a b"),
            ("half", "\"a"),
            ("one", "\""),
        ];
        assert_eq!(connection.cookies().collect::<Vec<_>>(), expected);
        assert_eq!(connection.cookie("theme"), Some("dark"));
        assert_eq!(connection.cookie("Theme"), None, "case counts");
        let shown = format!("{connection:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn secrets_of_the_request_are_not_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer secret".parse().unwrap());
        headers.insert("x-room", "7".parse().unwrap());
        headers.insert(header::COOKIE, "a=1; token=secret; b=2".parse().unwrap());
        let query = [("id", "t"), ("Access_Token", "secret"), ("room", "a b")];
        let query: Vec<_> = query
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let connection = connection(&headers, &query);
        assert_eq!(
            connection.headers().collect::<Vec<_>>(),
            [("x-room", "7"), ("cookie", "a=1; b=2")]
        );
        assert_eq!(connection.query_pairs().collect::<Vec<_>>(), [("room", "a b")]);
    }
}
