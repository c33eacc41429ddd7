//! The configuration of the `hubcast` binary: one type, filled from defaults, a TOML file, `HUBCAST_…` variables
//! and flags, and checked before anything is bound.

mod check;
mod derived;
mod hubs;
mod keys;
mod load;
mod upstream;
mod values;
mod variables;

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use hubcast::options::{DRAIN_CALLS, DRAIN_RATE, Options, seconds};
use hubcast::upstream::HandlerSettings;
use secrecy::SecretString;
use serde::Deserialize;

pub(crate) use self::{
    check::parse_level,
    hubs::HubTables,
    keys::{KEYS, Key, without_credentials},
    load::{ConfigError, Flag, Loaded, Origin, Sources, load},
};

/// All settings of the binary. `Display` and `Debug` print them as TOML, with secrets as `***`.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Host and port to serve on; port 0 takes a free one.
    pub(crate) listen: String,
    /// URL of the Redis that makes this node part of a cluster. It may hold a password.
    pub(crate) redis: Option<SecretString>,
    /// This node's name in the cluster; random unless set.
    pub(crate) node_id: Option<String>,
    /// True if the demo hub and its page are served. Unless set: only when nothing else is configured.
    pub(crate) demo: bool,
    /// Hubs that are served with built-in methods.
    pub(crate) hub_names: Vec<String>,
    /// Most hubs that are opened because somebody uses them.
    pub(crate) undeclared_hubs: usize,
    /// The settings of such hubs, as far as they differ from `options.hubs`. Each of them is served.
    #[serde(skip)]
    pub(crate) hub_tables: HubTables,
    /// The handlers of hubs.
    #[serde(skip)]
    pub(crate) upstream: Vec<HandlerSettings>,
    /// The options of the library.
    pub(crate) options: Options,
    /// How Redis is used.
    pub(crate) backplane: BackplaneConfig,
    /// How a node leaves.
    pub(crate) drain: DrainConfig,
    /// Log lines.
    pub(crate) log: LogConfig,
    /// Traces.
    pub(crate) telemetry: TelemetryConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            redis: None,
            node_id: None,
            demo: false,
            hub_names: Vec::new(),
            undeclared_hubs: 0,
            hub_tables: HubTables::default(),
            upstream: Vec::new(),
            options: Options::default(),
            backplane: BackplaneConfig::default(),
            drain: DrainConfig::default(),
            log: LogConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// How Redis is used.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BackplaneConfig {
    /// Begins the name of every key and channel: two clusters with different prefixes can share a Redis.
    pub(crate) key_prefix: String,
    /// Connections for commands, to each master of a Redis Cluster; subscriptions have their own.
    pub(crate) pool_size: usize,
    /// Least time from one batch of a hub's changes to the next, in microseconds.
    pub(crate) batch_interval_micros: usize,
    /// Most connections to each master on which history is read for clients, one reader at a time.
    pub(crate) history_connections: usize,
    /// How long one command may take.
    #[serde(rename = "command_timeout_seconds", deserialize_with = "seconds")]
    pub(crate) command_timeout: Duration,
    /// How often a node says that it is alive.
    #[serde(rename = "heartbeat_seconds", deserialize_with = "seconds")]
    pub(crate) heartbeat: Duration,
    /// Silence after which the other nodes take a node for dead.
    #[serde(rename = "lease_seconds", deserialize_with = "seconds")]
    pub(crate) lease: Duration,
    /// Replicas that must follow a master closely for messages to be published.
    pub(crate) min_replicas: usize,
    /// Certificates (PEM) to trust for `rediss…://` instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

impl Default for BackplaneConfig {
    fn default() -> Self {
        Self {
            key_prefix: "hubcast".to_owned(),
            pool_size: 4,
            batch_interval_micros: 0,
            history_connections: 4,
            command_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(1),
            lease: Duration::from_secs(5),
            min_replicas: 0,
            ca_file: None,
        }
    }
}

/// How a node leaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DrainConfig {
    /// How long `/readyz` says no before clients are moved, so that load balancers look elsewhere first.
    #[serde(rename = "notice_seconds", deserialize_with = "seconds")]
    pub(crate) notice: Duration,
    /// How long connections have to move or end after that.
    #[serde(rename = "deadline_seconds", deserialize_with = "seconds")]
    pub(crate) deadline: Duration,
    /// How long calls of stateful clients may go on after these have moved.
    #[serde(rename = "calls_seconds", deserialize_with = "seconds")]
    pub(crate) calls: Duration,
    /// Most connections that leave in a second, of all nodes of the cluster together; 0: as many as can.
    pub(crate) rate_per_second: u32,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            notice: Duration::ZERO,
            deadline: Duration::from_secs(25),
            calls: DRAIN_CALLS,
            rate_per_second: DRAIN_RATE,
        }
    }
}

/// Log lines, which go to standard error.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogConfig {
    /// A level for Hubcast's own lines, or directives such as `info,hubcast::session=debug`.
    pub(crate) level: String,
    /// How a line is written.
    pub(crate) format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// How a log line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The format's name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// Traces.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TelemetryConfig {
    /// The collector to which spans are sent by OTLP over HTTP, such as `http://collector:4318`. Without it there are
    /// none.
    pub(crate) otlp_endpoint: Option<String>,
    /// The service that spans are shown under.
    pub(crate) service_name: String,
    /// Share of traces to record, 0 to 1. What a caller has decided for its own trace wins.
    pub(crate) sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            service_name: "hubcast".to_owned(),
            sample_ratio: 1.0,
        }
    }
}

impl Config {
    /// Returns whether some client could connect: with a token, or without one.
    pub(crate) fn admits_anyone(&self) -> bool {
        self.options.auth.has_keys() || self.options.auth.allow_anonymous == Some(true)
    }

    /// The configuration as a TOML file that would give the same, but for secrets, which are `***`. Values
    /// that are not defaults say where they come from.
    pub(crate) fn to_toml(&self, origins: &BTreeMap<&'static str, Origin>) -> String {
        let mut text = String::new();
        let mut open = "";
        for key in KEYS {
            let Some(value) = (key.value)(self) else { continue };
            let (section, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
            if section != open {
                text.push_str(&format!("\n[{section}]\n"));
                open = section;
            }
            text.push_str(&format!("{name} = {value}"));
            if let Some(origin) = origins.get(key.name) {
                text.push_str(&format!(" # {origin}"));
            }
            text.push('\n');
        }
        self.hub_tables.write_toml(&mut text);
        upstream::write_toml(&self.upstream, &mut text);
        text
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_toml(&BTreeMap::new()))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
