//! The options of a gateway: limits, times, origins, keys. The binary reads the same structures from its configuration.

mod auth;
mod limits;
mod origin;
mod proxies;
mod server;

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::protocol::Transport;

pub use auth::{AuthOptions, KeyAge, KeyInterval, Leeway};
pub use limits::Limits;
pub(crate) use origin::{Origin, requested_authority};
pub(crate) use proxies::{TrustedProxies, network_of};
pub use server::ServerOptions;

/// Connections that leave in a second while nodes drain, of all nodes together, unless an option says otherwise.
pub const DRAIN_RATE: u32 = 500;
/// How long calls whose clients have moved may go on on a node that leaves, unless an option says otherwise.
pub const DRAIN_CALLS: Duration = Duration::from_secs(25);

/// Settings of a [`Gateway`](crate::Gateway). Every field has a default that suits production, except that no client
/// can connect before `auth` is set.
///
/// ```
/// use std::time::Duration;
/// use hubcast::Options;
///
/// let mut options = Options::default();
/// options.auth.access_key = Some("an access key of at least 32 bytes".into());
/// options.cors.allowed_origins = vec!["https://app.example.org".to_owned()];
/// options.limits.connections = 20_000;
/// options.timeouts.client_timeout = Duration::from_secs(60);
/// options.hubs.detailed_errors = true;
/// assert_eq!(options.check(), Ok(()));
///
/// options.timeouts.keep_alive = Duration::ZERO;
/// assert_eq!(options.check().unwrap_err().key, "timeouts.keep_alive_seconds");
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Authentication of clients.
    pub auth: AuthOptions,
    /// The web pages that may connect.
    pub cors: CorsOptions,
    /// Proxies in front of the gateway.
    pub server: ServerOptions,
    /// Bounds on sizes and counts.
    pub limits: Limits,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// How hubs behave.
    pub hubs: HubDefaults,
}

/// The web pages that may connect.
///
/// ```
/// use hubcast::Options;
///
/// let mut options = Options::default();
/// options.cors.allowed_origins = vec!["https://app.example.org".to_owned(), "http://localhost:5173".to_owned()];
/// assert_eq!(options.check(), Ok(()));
/// options.cors.allowed_origins.push("https://app.example.org/chat".to_owned()); // a page, no origin
/// assert_eq!(options.check().unwrap_err().key, "cors.allowed_origins");
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorsOptions {
    /// Origins such as `https://app.example.org` whose pages may connect with credentials, besides pages of the
    /// gateway's own origin. `*` admits every origin.
    pub allowed_origins: Vec<String>,
}

/// Bounds on time. May differ from hub to hub: see [`Hub::configure`](crate::Hub::configure).
///
/// ```
/// use std::time::Duration;
/// use hubcast::Options;
///
/// let mut options = Options::default();
/// // For clients whose timeouts are twice the usual: their silence is borne as long.
/// options.timeouts.keep_alive = Duration::from_secs(30);
/// options.timeouts.client_timeout = Duration::from_secs(60);
/// assert_eq!(options.check(), Ok(()));
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Time for the hub handshake after the transport is there.
    #[serde(rename = "handshake_seconds", deserialize_with = "seconds")]
    pub handshake: Duration,
    /// How often the server sends a Ping.
    #[serde(rename = "keep_alive_seconds", deserialize_with = "seconds")]
    pub keep_alive: Duration,
    /// Silence of a client, once it has sent a Ping, that ends its connection.
    #[serde(rename = "client_timeout_seconds", deserialize_with = "seconds")]
    pub client_timeout: Duration,
    /// How long a connection may be without a request: negotiated and not used, or between two polls.
    #[serde(rename = "disconnect_seconds", deserialize_with = "seconds")]
    pub disconnect: Duration,
    /// How long a poll waits for data. Clients give up after 100 s.
    #[serde(rename = "long_poll_seconds", deserialize_with = "seconds")]
    pub long_poll: Duration,
    /// How long calls of clients wait for a backplane that is away: until then no more of their messages are read, then
    /// calls fail.
    #[serde(rename = "outage_seconds", deserialize_with = "seconds")]
    pub outage: Duration,
    /// How long a message or a body that has begun may take, besides the time for its bytes at
    /// `limits.least_bytes_per_second`.
    #[serde(rename = "receive_seconds", deserialize_with = "seconds")]
    pub receive: Duration,
    /// How long one write to a client may stall.
    #[serde(rename = "send_seconds", deserialize_with = "seconds")]
    pub send: Duration,
    /// How long a client may take for a client result, unless the call says otherwise.
    #[serde(rename = "client_result_seconds", deserialize_with = "seconds")]
    pub client_result: Duration,
    /// How long the `hubcast` binary keeps an HTTP/1.1 connection without a request, and how long the head of a request
    /// may take. Longer than load balancers keep idle connections: they must be the ones to close them. Counts for the whole
    /// node.
    #[serde(rename = "idle_seconds", deserialize_with = "seconds")]
    pub idle: Duration,
    /// How long the peer's WebSocket Close frame is waited for.
    #[serde(rename = "close_seconds", deserialize_with = "seconds")]
    pub close: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(15),
            keep_alive: Duration::from_secs(15),
            client_timeout: Duration::from_secs(30),
            disconnect: Duration::from_secs(15),
            long_poll: Duration::from_secs(90),
            outage: Duration::from_secs(60),
            receive: Duration::from_secs(10),
            send: Duration::from_secs(10),
            client_result: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            close: Duration::from_secs(5),
        }
    }
}

/// How hubs behave. May differ from hub to hub: see [`Hub::configure`](crate::Hub::configure).
///
/// ```
/// use hubcast::{Hub, Options};
///
/// let mut options = Options::default();
/// options.hubs.detailed_errors = true; // while developing
/// let renders = Hub::new("renders").configure(|hub| {
///     hub.hubs.parallel_invocations = 8; // of one client
///     hub.hubs.stream_buffer = 2; // items are large
/// });
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubDefaults {
    /// True if clients are sent the text of errors that hub code did not mean for them.
    pub detailed_errors: bool,
    /// Invocations of one connection that run at the same time.
    pub parallel_invocations: usize,
    /// True if clients that request stateful reconnect get it.
    pub stateful_reconnect: bool,
    /// Items of one upload that wait for their method before the connection is no longer read.
    pub stream_buffer: usize,
    /// Most entries kept of one topic.
    pub retention_messages: usize,
    /// How long a topic's entries are kept.
    #[serde(rename = "retention_seconds", deserialize_with = "seconds")]
    pub retention: Duration,
    /// About how many bytes the log keeps of one topic; 0: no bound.
    pub retention_topic_bytes: u64,
    /// About how many bytes the log keeps of a hub, the oldest entries going first; 0: no bound.
    pub retention_bytes: u64,
    /// How long a stateful session waits for its client to come back, on whatever node. What the log keeps should reach
    /// further.
    #[serde(rename = "resume_window_seconds", deserialize_with = "seconds")]
    pub resume_window: Duration,
    /// True if messages are pushed and not kept: cheaper, but messages that a node misses are lost, and no session can
    /// be resumed on another node, so that stateful reconnect is not offered.
    pub volatile: bool,
    /// True if messages that clients' calls send to a user or group are kept also where no client could come back for
    /// them: no connection receives it, nor did lately. `false` by default: any client that may send could fill the log
    /// with messages for names that they make up. Messages of back ends, and of hub code that runs for no call, are
    /// kept in any case, so that a reader that comes afterwards finds them by `rewind`.
    pub keep_unread: bool,
    /// True if clients may watch groups: each join and leave is then a message to the watching clients, which costs the
    /// backplane one more entry of its log. See [`Context::watch`](crate::Context::watch). All nodes are to say the
    /// same.
    pub presence: bool,
    /// True if the hub has connection events: each connection that has entered, and each that has ended, is then an entry
    /// of a stream, exactly once, for back ends that count or bill them. All nodes are to say the same.
    pub events: bool,
    /// Most connection events that are kept. They take about 300 bytes each, and what they carry.
    pub events_most: usize,
    /// How long connection events are kept.
    #[serde(rename = "events_seconds", deserialize_with = "seconds")]
    pub events_life: Duration,
    /// How clients may be connected: all by default. Negotiation offers these, and requests of others are answered with 404.
    /// Event streams count as `ServerSentEvents`, plain and Web PubSub sockets as `WebSockets`.
    pub transports: Vec<Transport>,
    /// Whose REST API back ends find below `/api/hubs/NAME`. Clients of every kind are served in either case.
    pub rest_api: RestApi,
}

/// A service whose REST API, and so whose SDKs for servers, a hub has. Their paths are the same and their bodies are not,
/// and neither the version nor the body of a request tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RestApi {
    /// Azure SignalR: a message is a call of a client's method.
    #[default]
    SignalR,
    /// Azure Web PubSub: a message is text, JSON or bytes.
    WebPubSub,
}

impl RestApi {
    /// Its name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SignalR => "signalr",
            Self::WebPubSub => "webpubsub",
        }
    }
}

impl HubDefaults {
    /// Returns whether clients may have a session that outlives its socket.
    pub(crate) fn resumes(&self) -> bool {
        self.stateful_reconnect && !self.volatile
    }
}

impl Default for HubDefaults {
    fn default() -> Self {
        let log = hubcast_backplane::HubOptions::default();
        let events = hubcast_backplane::EventOptions::default();
        Self {
            detailed_errors: false,
            parallel_invocations: 1,
            stateful_reconnect: true,
            stream_buffer: 10,
            retention_messages: log.retention_messages,
            retention: log.retention,
            retention_topic_bytes: log.retention_topic_bytes,
            retention_bytes: log.retention_bytes,
            resume_window: log.resume_window,
            volatile: log.volatile,
            keep_unread: log.keeps_unread,
            presence: log.presence,
            events: log.events.is_some(),
            events_most: events.most,
            events_life: events.life,
            transports: Transport::ALL.to_vec(),
            rest_api: RestApi::default(),
        }
    }
}

/// A setting that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct OptionError {
    /// The setting's key.
    pub key: &'static str,
    /// The problem, and how to fix it.
    pub problem: String,
}

/// The official clients abandon a poll after 100 s.
const MAX_LONG_POLL: Duration = Duration::from_secs(95);

impl Options {
    /// Checks conditions on several fields together.
    ///
    /// # Errors
    /// The first setting that can't work, by its key.
    pub fn check(&self) -> Result<(), OptionError> {
        let fail = |key, problem: String| Err(OptionError { key, problem });
        self.auth.check()?;
        for origin in &self.cors.allowed_origins {
            if origin != "*" && Origin::parse(origin).is_none() {
                let problem = format!(
                    "{origin:?} is not an origin such as https://app.example.org or https://*.example.org (no path, no final slash)"
                );
                return fail("cors.allowed_origins", problem);
            }
        }
        if self.auth.cookie.is_some() && self.cors.allowed_origins.iter().any(|origin| origin == "*") {
            let problem =
                "may not hold * with auth.cookie: every page could act as its visitor; list the origins";
            return fail("cors.allowed_origins", problem.to_owned());
        }
        self.server.check()?;
        self.check_sizes()?;
        self.check_times()
    }

    fn check_sizes(&self) -> Result<(), OptionError> {
        self.limits.check()?;
        let hubs = &self.hubs;
        at_least(
            "hubs.parallel_invocations",
            hubs.parallel_invocations,
            1,
            "nothing could run",
        )?;
        at_least("hubs.stream_buffer", hubs.stream_buffer, 1, "no item would fit")?;
        at_least(
            "hubs.transports",
            hubs.transports.len(),
            1,
            "no client could connect",
        )?;
        at_least(
            "hubs.retention_messages",
            hubs.retention_messages,
            1,
            "a lost connection could not be repaired",
        )?;
        at_least("hubs.events_most", hubs.events_most, 1, "no event would be kept")
    }

    fn check_times(&self) -> Result<(), OptionError> {
        let times = &self.timeouts;
        let all = [
            ("timeouts.handshake_seconds", times.handshake),
            ("timeouts.keep_alive_seconds", times.keep_alive),
            ("timeouts.client_timeout_seconds", times.client_timeout),
            ("timeouts.disconnect_seconds", times.disconnect),
            ("timeouts.long_poll_seconds", times.long_poll),
            ("timeouts.outage_seconds", times.outage),
            ("timeouts.receive_seconds", times.receive),
            ("timeouts.send_seconds", times.send),
            ("timeouts.client_result_seconds", times.client_result),
            ("timeouts.idle_seconds", times.idle),
            ("timeouts.close_seconds", times.close),
            ("hubs.retention_seconds", self.hubs.retention),
            ("hubs.resume_window_seconds", self.hubs.resume_window),
            ("hubs.events_seconds", self.hubs.events_life),
        ];
        if let Some((key, _)) = all.into_iter().find(|(_, time)| time.is_zero()) {
            return Err(OptionError {
                key,
                problem: "must be more than 0".to_owned(),
            });
        }
        if times.long_poll > MAX_LONG_POLL {
            let problem = format!(
                "is {:?}, clients give up after 100 s; at most 95",
                times.long_poll
            );
            return Err(OptionError {
                key: "timeouts.long_poll_seconds",
                problem,
            });
        }
        Ok(())
    }
}

fn at_least(key: &'static str, value: usize, least: usize, why: &str) -> Result<(), OptionError> {
    if value < least {
        let problem = format!("is {value}, must be at least {least} ({why})");
        return Err(OptionError { key, problem });
    }
    Ok(())
}

/// Seconds with fractions, as configuration files and variables carry them.
pub fn seconds<'de, D: Deserializer<'de>, T: From<Duration>>(deserializer: D) -> Result<T, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds)
        .map(T::from)
        .map_err(|_| serde::de::Error::custom(format!("{seconds} is not a number of seconds of at least 0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_setting_is_named() {
        let mut options = Options::default();
        assert_eq!(options.check(), Ok(()));
        options.auth.access_key = Some("short".into());
        assert_eq!(options.check().unwrap_err().key, "auth.access_key");
        options.auth.access_key = None;
        options.cors.allowed_origins = vec!["https://a.example/".to_owned()];
        assert_eq!(options.check().unwrap_err().key, "cors.allowed_origins");
        options.cors.allowed_origins = vec!["https://a.example:8443".to_owned(), "*".to_owned()];
        assert_eq!(options.check(), Ok(()));
        options.auth.cookie = Some("session".to_owned());
        assert_eq!(options.check().unwrap_err().key, "cors.allowed_origins");
        options.auth.cookie = None;
        options.limits.outbox_bytes = 10;
        assert_eq!(options.check().unwrap_err().key, "limits.outbox_bytes");
        options.limits = Limits::default();
        options.timeouts.long_poll = Duration::from_secs(99);
        assert_eq!(options.check().unwrap_err().key, "timeouts.long_poll_seconds");
    }
}
