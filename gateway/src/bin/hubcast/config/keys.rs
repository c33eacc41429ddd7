//! Every configuration key, in the order in which they are shown. Reading, help and printing follow this
//! table.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use toml::Value;

use self::Kind::{AnyOf, Count, Flag, List, OneOf, Ratio, Seconds, Secret, Text};
use super::Config;

/// One configuration key.
pub(crate) struct Key {
    /// Its name in a file, with its section: `limits.message_bytes`.
    pub(crate) name: &'static str,
    /// The kind of value that it takes.
    pub(crate) kind: Kind,
    /// Its purpose, as a line of help.
    pub(crate) about: &'static str,
    /// The value in a configuration; `None` where it is not set and has no default.
    pub(crate) value: fn(&Config) -> Option<Value>,
}

/// The names of [`Transport::ALL`](crate::Transport::ALL).
const TRANSPORTS: &[&str] = &["WebSockets", "ServerSentEvents", "LongPolling"];

#[cfg(test)]
impl Key {
    /// Returns whether its default is derived from the memory of the process.
    fn is_derived(&self) -> bool {
        super::derived::KEYS.contains(&self.name)
    }
}

/// The kind of a value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// `true` or `false`.
    Flag,
    /// A whole number of at least 0.
    Count,
    /// A number of seconds of at least 0; fractions are allowed.
    Seconds,
    /// A number from 0 to 1.
    Ratio,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Texts: an array in a file, separated by commas elsewhere.
    List,
    /// The same, of these words.
    AnyOf(&'static [&'static str]),
}

impl Key {
    /// The key with that name.
    pub(crate) fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The environment variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("HUBCAST_{}", self.name.replace('.', "__").to_uppercase())
    }
}

const fn key(
    name: &'static str,
    kind: Kind,
    value: fn(&Config) -> Option<Value>,
    about: &'static str,
) -> Key {
    Key {
        name,
        kind,
        about,
        value,
    }
}

/// Every key. The sections are contiguous, the keys without one come first: so a TOML file is written.
#[rustfmt::skip] // a table
pub(crate) const KEYS: &[Key] = &[
    key("listen", Text, |c| text(&c.listen),
        "host and port to serve on; port 0 takes a free one"),
    key("redis", Secret, |c| secret(c.redis.as_ref()),
        "redis://, redis+sentinel:// or redis+cluster:// URL; makes this node part of a cluster"),
    key("node_id", Text, |c| maybe(c.node_id.as_deref()),
        "this node's name in the cluster, completed for each process; random unless set"),
    key("demo", Flag, |c| flag(c.demo),
        "serve the demo hub and page; on when nothing else is configured"),
    key("access_key", Secret, |c| secret(c.options.auth.access_key.as_ref()),
        "key that signs tokens (HS256, HS384, HS512), at least 32 bytes"),
    key("access_key_secondary", Secret, |c| secret(c.options.auth.access_key_secondary.as_ref()),
        "a second accepted key, while keys are rotated"),
    key("auth.key_files", List, |c| paths(&c.options.auth.key_files),
        "public keys (PEM) of tokens: RSA, P-256, P-384, Ed25519"),
    key("auth.jwks_file", Text, |c| path(c.options.auth.jwks_file.as_deref()),
        "a JSON Web Key Set; read again when a token names a new key"),
    key("auth.jwks_url", Text, |c| address(c.options.auth.jwks_url.as_deref()),
        "https URL of a JSON Web Key Set; fetched again when a token names a new key"),
    key("auth.jwks_ca_file", Text, |c| path(c.options.auth.jwks_ca_file.as_deref()),
        "certificates (PEM) to trust for that URL instead of the system's"),
    key("auth.jwks_interval_seconds", Seconds, |c| time(c.options.auth.jwks_interval.0),
        "least time between two attempts to get a key set"),
    key("auth.jwks_max_age_seconds", Seconds, |c| time(c.options.auth.jwks_max_age.0),
        "age at which a key set is got again"),
    key("auth.issuers", List, |c| list(&c.options.auth.issuers),
        "accepted issuers of tokens; empty: any"),
    key("auth.audiences", List, |c| list(&c.options.auth.audiences),
        "accepted audiences of clients' tokens, besides the URLs of the hub"),
    key("auth.audience_hosts", List, |c| list(&c.options.auth.audience_hosts),
        "hosts that audiences may name; empty: any for clients, the request's for REST"),
    key("auth.user_claim", Text, |c| maybe(c.options.auth.user_claim.as_deref()),
        "the only claim that names the user, instead of asrs.s.uid, nameid or sub"),
    key("auth.cookie", Text, |c| maybe(c.options.auth.cookie.as_deref()),
        "a cookie that may hold the token"),
    key("auth.allow_anonymous", Flag, |c| c.options.auth.allow_anonymous.and_then(flag),
        "admit clients without a token; on in demo mode"),
    key("auth.anonymous_roles", List, |c| list(&c.options.auth.anonymous_roles),
        "roles of clients without a token; hubcast.join, hubcast.send, hubcast.watch in demo mode"),
    key("auth.close_on_expiry", Flag, |c| flag(c.options.auth.close_on_expiry),
        "close connections when their token ends; the client may reconnect"),
    key("auth.refresh", Flag, |c| flag(c.options.auth.refresh),
        "let clients show a newer token: POST {hub}/refresh?id=..."),
    key("auth.tickets", Flag, |c| flag(c.options.auth.tickets),
        "negotiate gives tickets; no other token may stand in a URL"),
    key("auth.leeway_seconds", Seconds, |c| time(c.options.auth.leeway.0),
        "tolerated difference between clocks, for tokens"),
    key("cors.allowed_origins", List, |c| list(&c.options.cors.allowed_origins),
        "origins whose pages may connect, or *"),
    key("server.trusted_proxies", List, |c| list(&c.options.server.trusted_proxies),
        "addresses and networks of proxies whose X-Forwarded-For counts"),
    key("server.allowed_hosts", List, |c| list(&c.options.server.allowed_hosts),
        "hosts that requests may be for, against DNS rebinding; localhost where the node listens on loopback"),
    key("server.public_host", Text, |c| maybe(c.options.server.public_host.as_deref()),
        "host, with or without port, by which clients know the gateway; told to CloudEvents handlers"),
    key("server.admin_listen", Text, |c| maybe(c.options.server.admin_listen.as_deref()),
        "host and port for /metrics, /api/openapi.json, /healthz and /readyz"),
    key("limits.message_bytes", Count, |c| count(c.options.limits.message_bytes),
        "largest message of a client"),
    key("limits.http_body_bytes", Count, |c| count(c.options.limits.http_body_bytes),
        "largest body of a REST request"),
    key("limits.outbox_bytes", Count, |c| count(c.options.limits.outbox_bytes),
        "bytes that may wait for one client"),
    key("limits.inbox_bytes", Count, |c| count(c.options.limits.inbox_bytes),
        "bytes of a client that may wait for its hub"),
    key("limits.groups_per_connection", Count, |c| count(c.options.limits.groups_per_connection),
        "groups that one connection may be in"),
    key("limits.streams_per_connection", Count, |c| count(c.options.limits.streams_per_connection),
        "streams that one connection may have open"),
    key("limits.connections", Count, |c| count(c.options.limits.connections),
        "connections that this node accepts; 0: no bound"),
    key("limits.connections_per_user", Count, |c| count(c.options.limits.connections_per_user),
        "connections that this node accepts of one user; 0: no bound"),
    key("limits.connections_per_address", Count, |c| count(c.options.limits.connections_per_address),
        "connections that this node accepts from one address; 0: no bound"),
    key("limits.tcp_connections", Count, |c| count(c.options.limits.tcp_connections),
        "TCP connections to this node, whatever is asked on them; 0: no bound"),
    key("limits.tcp_connections_per_address", Count, |c| count(c.options.limits.tcp_connections_per_address),
        "TCP connections from one address that is no trusted proxy; 0: no bound"),
    key("limits.handshakes_per_second", Count, |c| count(c.options.limits.handshakes_per_second),
        "new connections that this node accepts in a second; 0: no bound"),
    key("limits.messages_per_second", Count, |c| count(c.options.limits.messages_per_second),
        "messages of one client in a second, then it is read no faster; 0: no bound"),
    key("limits.bytes_per_second", Count, |c| count(c.options.limits.bytes_per_second),
        "bytes of one client in a second, then it is read no faster; 0: no bound"),
    key("limits.least_bytes_per_second", Count, |c| count(c.options.limits.least_bytes_per_second),
        "how fast a client must send and read what has begun; 0: it only has to get on"),
    key("limits.held_bytes", Count, |c| count(c.options.limits.held_bytes),
        "bytes of unfinished messages and bodies of all clients; 0: no bound"),
    key("limits.headers", Count, |c| count(c.options.limits.headers),
        "headers of a request"),
    key("timeouts.handshake_seconds", Seconds, |c| time(c.options.timeouts.handshake),
        "time for the hub handshake"),
    key("timeouts.keep_alive_seconds", Seconds, |c| time(c.options.timeouts.keep_alive),
        "how often the server sends a Ping"),
    key("timeouts.client_timeout_seconds", Seconds, |c| time(c.options.timeouts.client_timeout),
        "silence that ends a client's connection"),
    key("timeouts.disconnect_seconds", Seconds, |c| time(c.options.timeouts.disconnect),
        "how long a connection may be without a request"),
    key("timeouts.long_poll_seconds", Seconds, |c| time(c.options.timeouts.long_poll),
        "how long a poll waits for data"),
    key("timeouts.outage_seconds", Seconds, |c| time(c.options.timeouts.outage),
        "how long calls of clients wait for a backplane that is away"),
    key("timeouts.receive_seconds", Seconds, |c| time(c.options.timeouts.receive),
        "how long an unfinished message or body may take, besides the time of its bytes"),
    key("timeouts.send_seconds", Seconds, |c| time(c.options.timeouts.send),
        "how long one write to a client may stall"),
    key("timeouts.idle_seconds", Seconds, |c| time(c.options.timeouts.idle),
        "how long an HTTP/1.1 connection is kept on which nothing is asked"),
    key("timeouts.client_result_seconds", Seconds, |c| time(c.options.timeouts.client_result),
        "how long a client may take to give a result"),
    key("timeouts.close_seconds", Seconds, |c| time(c.options.timeouts.close),
        "how long a WebSocket Close is waited for"),
    key("hubs.names", List, |c| list(&c.hub_names),
        "hubs with built-in methods; [hubs.NAME] in a file names one, too, and may set the keys below for it"),
    key("hubs.undeclared", Count, |c| count(c.undeclared_hubs),
        "most hubs that a node opens because a client with a token, or a back end, uses them; 0: none"),
    key("hubs.detailed_errors", Flag, |c| flag(c.options.hubs.detailed_errors),
        "tell clients the text of internal errors"),
    key("hubs.parallel_invocations", Count, |c| count(c.options.hubs.parallel_invocations),
        "invocations of one connection at the same time"),
    key("hubs.stream_buffer", Count, |c| count(c.options.hubs.stream_buffer),
        "items of an upload that wait for their method"),
    key("hubs.stateful_reconnect", Flag, |c| flag(c.options.hubs.stateful_reconnect),
        "let clients that ask for it resume after a lost socket"),
    key("hubs.retention_messages", Count, |c| count(c.options.hubs.retention_messages),
        "most entries kept of one topic"),
    key("hubs.retention_seconds", Seconds, |c| time(c.options.hubs.retention),
        "how long a topic's entries are kept"),
    key("hubs.retention_topic_bytes", Count, |c| count(c.options.hubs.retention_topic_bytes),
        "about how many bytes are kept of one topic; 0: no bound"),
    key("hubs.retention_bytes", Count, |c| count(c.options.hubs.retention_bytes),
        "about how many bytes are kept of a hub; 0: no bound"),
    key("hubs.resume_window_seconds", Seconds, |c| time(c.options.hubs.resume_window),
        "how long a stateful session waits for its client"),
    key("hubs.volatile", Flag, |c| flag(c.options.hubs.volatile),
        "push messages without keeping them: no resume"),
    key("hubs.keep_unread", Flag, |c| flag(c.options.hubs.keep_unread),
        "keep what clients send also for users and groups that nobody receives"),
    key("hubs.presence", Flag, |c| flag(c.options.hubs.presence),
        "let clients watch who joins groups and leaves them"),
    key("hubs.events", Flag, |c| flag(c.options.hubs.events),
        "keep a stream of connections that entered and ended, for back ends that count them"),
    key("hubs.events_most", Count, |c| count(c.options.hubs.events_most),
        "how many connection events are kept at most"),
    key("hubs.events_seconds", Seconds, |c| time(c.options.hubs.events_life),
        "how long connection events are kept"),
    key("hubs.transports", AnyOf(TRANSPORTS), |c| list(&c.options.hubs.transports.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "how clients may be connected"),
    key("hubs.rest_api", OneOf(&["signalr", "webpubsub"]), |c| text(c.options.hubs.rest_api.name()),
        "whose REST API a hub has: that of Azure SignalR or of Azure Web PubSub"),
    key("backplane.key_prefix", Text, |c| text(&c.backplane.key_prefix),
        "begins every key and channel in Redis"),
    key("backplane.pool_size", Count, |c| count(c.backplane.pool_size),
        "Redis connections for commands, to each master of a Redis Cluster"),
    key("backplane.batch_interval_micros", Count, |c| count(c.backplane.batch_interval_micros),
        "least time between two batches of a hub's messages: saves Redis work where a hub has thousands a second"),
    key("backplane.history_connections", Count, |c| count(c.backplane.history_connections),
        "most Redis connections on which clients' history is read, to each master"),
    key("backplane.command_timeout_seconds", Seconds, |c| time(c.backplane.command_timeout),
        "how long one Redis command may take"),
    key("backplane.heartbeat_seconds", Seconds, |c| time(c.backplane.heartbeat),
        "how often a node says that it is alive"),
    key("backplane.lease_seconds", Seconds, |c| time(c.backplane.lease),
        "silence after which a node is taken for dead"),
    key("backplane.min_replicas", Count, |c| count(c.backplane.min_replicas),
        "replicas that must follow a Redis master for messages to be published; 0: any number"),
    key("backplane.ca_file", Text, |c| path(c.backplane.ca_file.as_deref()),
        "certificates (PEM) to trust for rediss…://"),
    key("drain.notice_seconds", Seconds, |c| time(c.drain.notice),
        "how long /readyz says no before clients are moved"),
    key("drain.deadline_seconds", Seconds, |c| time(c.drain.deadline),
        "how long connections then have to move or end"),
    key("drain.calls_seconds", Seconds, |c| time(c.drain.calls),
        "how long calls of stateful clients may go on after these have moved"),
    key("drain.rate_per_second", Count, |c| count(c.drain.rate_per_second),
        "most connections that leave in a second, all nodes together; 0: no bound"),
    key("log.level", Text, |c| text(&c.log.level),
        "off, error, warn, info, debug, trace, or directives"),
    key("log.format", OneOf(&["text", "json"]), |c| text(c.log.format.name()),
        "text or json"),
    key("telemetry.otlp_endpoint", Text, |c| address(c.telemetry.otlp_endpoint.as_deref()),
        "send traces there, such as http://collector:4318"),
    key("telemetry.service_name", Text, |c| text(&c.telemetry.service_name),
        "the service that traces are shown under"),
    key("telemetry.sample_ratio", Ratio, |c| Some(Value::Float(c.telemetry.sample_ratio)),
        "share of traces to record"),
];

fn text(value: &str) -> Option<Value> {
    Some(Value::String(value.to_owned()))
}

fn maybe(value: Option<&str>) -> Option<Value> {
    value.and_then(text)
}

/// A URL without the parts that may be secrets.
fn address(value: Option<&str>) -> Option<Value> {
    value.and_then(|url| text(&without_credentials(url)))
}

/// A URL whose user, password and query are `***`.
pub(crate) fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, query) = match rest.split_once(['?', '#']) {
        Some((rest, _)) => (rest, "?***"),
        None => (rest, ""),
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => authority.to_owned(),
    };
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{host}{path}{query}")
}

fn path(value: Option<&Path>) -> Option<Value> {
    value.and_then(|path| text(&path.to_string_lossy()))
}

fn secret(value: Option<&SecretString>) -> Option<Value> {
    value.and_then(|_| text("***"))
}

fn flag(value: bool) -> Option<Value> {
    Some(Value::Boolean(value))
}

fn count(value: impl TryInto<i64>) -> Option<Value> {
    Some(Value::Integer(value.try_into().unwrap_or(i64::MAX)))
}

pub(super) fn time(value: Duration) -> Option<Value> {
    match (value.subsec_nanos(), i64::try_from(value.as_secs())) {
        (0, Ok(seconds)) => Some(Value::Integer(seconds)),
        _ => Some(Value::Float(value.as_secs_f64())),
    }
}

fn paths(values: &[PathBuf]) -> Option<Value> {
    let texts = values.iter().map(|path| path.to_string_lossy().into_owned());
    Some(Value::Array(texts.map(Value::String).collect()))
}

fn list(values: &[String]) -> Option<Value> {
    Some(Value::Array(values.iter().cloned().map(Value::String).collect()))
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use hubcast::options::{AuthOptions, CorsOptions, HubDefaults, Limits, ServerOptions, Timeouts};

    use crate::config::{BackplaneConfig, DrainConfig, LogConfig, TelemetryConfig};

    /// The fields of a section, as serde lists them for a misspelt one.
    fn fields<T: DeserializeOwned>() -> Vec<String> {
        let table = toml::Table::from_iter([("?".to_owned(), Value::Boolean(true))]);
        let error = table.try_into::<T>().err().unwrap().to_string();
        error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_field_of_every_section_has_a_key() {
        let sections = [
            ("cors", fields::<CorsOptions>()),
            ("server", fields::<ServerOptions>()),
            ("limits", fields::<Limits>()),
            ("timeouts", fields::<Timeouts>()),
            ("hubs", fields::<HubDefaults>()),
            ("backplane", fields::<BackplaneConfig>()),
            ("drain", fields::<DrainConfig>()),
            ("log", fields::<LogConfig>()),
            ("telemetry", fields::<TelemetryConfig>()),
        ];
        for (section, fields) in sections {
            assert!(!fields.is_empty(), "{section}");
            for field in fields {
                assert!(
                    Key::find(&format!("{section}.{field}")).is_some(),
                    "{section}.{field} has no key"
                );
            }
        }
        for field in fields::<AuthOptions>() {
            let name = if field.starts_with("access_key") {
                field
            } else {
                format!("auth.{field}")
            };
            assert!(Key::find(&name).is_some(), "{name} has no key");
        }
    }

    /// Keys and defaults of the tables of settings in the documents; keys that are no more than a pointer have a `…`.
    fn of_documents() -> Vec<(&'static str, &'static str)> {
        let pages = [
            include_str!("../../../../../docs/configuration.md"),
            include_str!("../../../../../docs/tokens-and-roles.md"),
        ];
        let mut keys = Vec::new();
        let tables = pages
            .iter()
            .flat_map(|page| page.split("| key | default | |\n").skip(1));
        for row in tables.flat_map(|table| table.lines().skip(1).take_while(|line| line.starts_with('|'))) {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let defaults: Vec<_> = cells[2].split(", ").collect();
            let names = cells[1].split(", ").map(|name| name.trim_matches('`'));
            for (index, name) in names.enumerate().filter(|(_, name)| !name.ends_with('…')) {
                let default = defaults.get(index).unwrap_or(&defaults[0]);
                keys.push((name, default.trim_matches('`')));
            }
        }
        keys
    }

    #[test]
    fn the_documents_have_every_key_with_its_default() {
        let (config, written) = (Config::default(), of_documents());
        for key in KEYS {
            let found: Vec<_> = written.iter().filter(|(name, _)| *name == key.name).collect();
            let [(name, default)] = found[..] else {
                panic!("{} is in the documents {} times", key.name, found.len())
            };
            let holds = match (key.value)(&config) {
                None if key.kind == Kind::Flag => *default == "false",
                None => matches!(*default, "none" | "random"),
                Some(Value::Integer(0)) if key.is_derived() => *default == "by memory",
                Some(Value::Array(list)) if list.is_empty() => {
                    matches!(*default, "none" | "any" | "own origin" | "see below")
                }
                Some(Value::Array(_)) if matches!(key.kind, AnyOf(_)) => *default == "all",
                Some(Value::String(text)) => *default == text,
                Some(value) => *default == value.to_string(),
            };
            assert!(holds, "{name} has another default than {default}");
        }
        for (name, _) in written {
            let per_hub = name == "[hubs.NAME]"; // a section that says which keys it may have
            assert!(per_hub || Key::find(name).is_some(), "{name} is no key");
        }
    }

    #[test]
    fn urls_are_shown_without_credentials() {
        for (url, shown) in [
            (
                "https://user:p%40ss@idp.example:8443/keys",
                "https://***@idp.example:8443/keys",
            ),
            ("http://token@collector:4318", "http://***@collector:4318"),
            (
                "https://idp.example/keys?code=secret#x",
                "https://idp.example/keys?***",
            ),
            ("https://idp.example/a@b", "https://idp.example/a@b"),
            ("http://collector:4318", "http://collector:4318"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[test]
    fn sections_are_contiguous() {
        let mut seen: Vec<&str> = Vec::new();
        for key in KEYS {
            let section = key.name.rsplit_once('.').map_or("", |(section, _)| section);
            if seen.last() != Some(&section) {
                assert!(!seen.contains(&section), "{section} is in two places");
                seen.push(section);
            }
        }
    }

    #[test]
    fn a_variable_is_named_after_its_key() {
        assert_eq!(Key::find("access_key").unwrap().variable(), "HUBCAST_ACCESS_KEY");
        assert_eq!(
            Key::find("limits.message_bytes").unwrap().variable(),
            "HUBCAST_LIMITS__MESSAGE_BYTES"
        );
    }
}
