//! How to reach the server and what to expect of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates};
use uuid::Uuid;

use crate::error::BackplaneError;
use crate::topic::NodeId;

/// How a node uses a Redis or Valkey server. Made by [`RedisOptions::parse`], then adjusted.
#[derive(Clone)]
pub struct RedisOptions {
    /// This process; by default a random id.
    pub node: NodeId,
    /// What every key and channel starts with.
    pub prefix: String,
    /// How long a call waits for the server at most, repetitions included.
    pub command_timeout: Duration,
    /// How long a call waits for a lost connection to come back, within `command_timeout`.
    pub reconnect_wait: Duration,
    /// Connections for commands. Each carries many commands at a time.
    pub pool_size: usize,
    /// Time between two signs of life of this node.
    pub heartbeat_interval: Duration,
    /// How long a sign of life counts.
    pub lease: Duration,
    /// Time after the end of a node's lease until another node removes its connections.
    pub orphan_grace: Duration,
    /// How long the id of a dead node's connection stays refused.
    pub orphan_tombstone: Duration,
    /// Time without any push after which the subscription is probed.
    pub probe_interval: Duration,
    /// How long a topic without local receivers stays subscribed.
    pub linger: Duration,
    /// Pushes that may wait for one hub's sink; what comes on top is read from the log.
    pub lane_capacity: usize,
    /// Requests of other nodes that are served at the same time.
    pub served_requests: usize,
    /// What all nodes share; by default one of them makes it up and it is kept in Redis.
    pub cluster_secret: Option<Arc<[u8]>>,
    /// PEM file with the certificate authorities to trust instead of the system's (`rediss://`).
    pub ca_file: Option<PathBuf>,
    connection: ConnectionInfo,
}

impl RedisOptions {
    /// Reads `redis://[user[:password]@]host[:port][/db]`, or `rediss://…` for TLS.
    ///
    /// # Errors
    /// [`BackplaneError::Config`] with what is wrong, without the URL: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, BackplaneError> {
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            return Err(config(
                "the Redis URL must start with redis:// or rediss://".to_owned(),
            ));
        }
        let connection = url
            .into_connection_info()
            .map_err(|error| config(format!("the Redis URL can't be read: {}", error.category())))?;
        let node = format!("n{}", Uuid::new_v4().simple());
        Ok(Self {
            node: NodeId::parse(node).map_err(|error| config(error.to_string()))?,
            prefix: "hubcast".to_owned(),
            command_timeout: Duration::from_secs(5),
            reconnect_wait: Duration::from_secs(2),
            pool_size: 2,
            heartbeat_interval: Duration::from_secs(1),
            lease: Duration::from_secs(5),
            orphan_grace: Duration::ZERO,
            orphan_tombstone: Duration::from_secs(120),
            probe_interval: Duration::from_secs(3),
            linger: Duration::from_secs(1),
            lane_capacity: 8_192,
            served_requests: 10_000,
            cluster_secret: None,
            ca_file: None,
            connection,
        })
    }

    /// Host and port of the server.
    #[must_use]
    pub fn address(&self) -> String {
        self.connection.addr().to_string()
    }

    pub(super) fn check(&self) -> Result<(), BackplaneError> {
        if self.prefix.is_empty()
            || self.prefix.contains(['{', '}'])
            || self.prefix.chars().any(char::is_control)
        {
            return Err(config(
                "the key prefix must not be empty nor hold braces or control characters".to_owned(),
            ));
        }
        if self.lease <= self.heartbeat_interval * 2 {
            return Err(config(
                "the lease must be longer than two heartbeat intervals".to_owned(),
            ));
        }
        if self.pool_size == 0 || self.lane_capacity == 0 || self.served_requests == 0 {
            return Err(config(
                "pool size, lane capacity and served requests must not be zero".to_owned(),
            ));
        }
        if self.heartbeat_interval.is_zero() || self.probe_interval.is_zero() || self.linger.is_zero() {
            return Err(config("intervals must not be zero".to_owned()));
        }
        if self
            .cluster_secret
            .as_ref()
            .is_some_and(|secret| secret.len() < 32)
        {
            return Err(config(
                "the cluster secret must have at least 32 bytes".to_owned(),
            ));
        }
        Ok(())
    }

    pub(super) fn client(&self) -> Result<Client, BackplaneError> {
        let redis = self
            .connection
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let connection = self.connection.clone().set_redis_settings(redis);
        let tls = matches!(connection.addr(), ConnectionAddr::TcpTls { .. });
        if tls {
            // Fails where the process has a provider already, which is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let client = match &self.ca_file {
            None => Client::open(connection),
            Some(_) if !tls => return Err(config("a CA file needs a rediss:// URL".to_owned())),
            Some(path) => {
                let root_cert = std::fs::read(path).map_err(|error| {
                    config(format!("the CA file {} can't be read: {error}", path.display()))
                })?;
                Client::build_with_tls(
                    connection,
                    TlsCertificates {
                        client_tls: None,
                        root_cert: Some(root_cert),
                    },
                )
            }
        };
        client.map_err(|error| config(format!("the Redis settings can't work: {error}")))
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("node", &self.node)
            .field("address", &self.address())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

pub(super) fn config(what: String) -> BackplaneError {
    BackplaneError::Config { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_refused_with_the_reason_and_without_its_password() {
        for url in [
            "localhost",
            "http://h",
            "redis://u:secret@h:port",
            "redis://u:secret@h/x",
        ] {
            let error = RedisOptions::parse(url).unwrap_err().to_string();
            assert!(
                error.contains("Redis URL") && !error.contains("secret"),
                "{url}: {error}"
            );
        }
    }

    #[test]
    fn options_print_without_secrets() {
        let options = RedisOptions::parse("redis://user:secret@example.org:7000/3").unwrap();
        assert_eq!(options.address(), "example.org:7000");
        assert!(!format!("{options:?}").contains("secret"));
    }
}
