//! The options of the Redis backplane.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::error::{BackplaneError, config};
use crate::redis::server::connector::Connector;
use crate::redis::server::location::{Location, Login};
use crate::topic::NodeId;

/// The options with which a node uses Redis or Valkey: a server, a master with its replicas, or a cluster.
/// [`RedisOptions::parse`] makes them with defaults, which can be changed.
#[derive(Clone)]
pub struct RedisOptions {
    /// The id of this node; by default a random one.
    pub node: NodeId,
    /// The prefix of every key and channel.
    pub prefix: String,
    /// Longest time that a call waits for the server, repetitions included.
    pub command_timeout: Duration,
    /// Time for which [`connect`](super::RedisBackplane::connect) tries to reach a server, at least once; `None`: as
    /// long as `command_timeout`.
    pub connect_wait: Option<Duration>,
    /// Time that a call waits for a lost connection to come back, within `command_timeout`.
    pub reconnect_wait: Duration,
    /// Time that changes wait for the server where their failure can't be reported to a caller, or where later changes
    /// would overtake them, as with clients' calls.
    pub outage_wait: Duration,
    /// Least time from one batch of a hub's changes to the next; zero: a batch leaves when the one before was answered.
    /// With 200 µs, hubs with more than 5,000 messages a second cost Redis less, and each message takes up to that much
    /// longer. A hub with fewer messages notices nothing.
    pub batch_interval: Duration,
    /// Pushes that come within this time of the ones before are delivered together, by a task of their own, as are those of
    /// a hub whose messages have many receivers on this node. Others are delivered by the task that reads them.
    /// `Duration::MAX`: none are.
    pub delivery_interval: Duration,
    /// Number of replicas that must follow a master closely for messages to be published there; 0: none need to.
    pub min_replicas: usize,
    /// Connections for commands, to each master of a cluster. Each carries many commands at a time.
    pub pool_size: usize,
    /// Most connections to each master for reading history, each used by one reader at a time. They are opened when
    /// they are needed.
    pub history_connections: usize,
    /// Time between two beats of this node.
    pub heartbeat_interval: Duration,
    /// Time without a beat after which a node counts as dead.
    pub lease: Duration,
    /// Time after the end of a node's lease until another node removes its connections.
    pub orphan_grace: Duration,
    /// Time for which the id of a dead node's connection stays refused.
    pub orphan_tombstone: Duration,
    /// Time without any push after which the subscription is probed.
    pub probe_interval: Duration,
    /// Time for which a topic without local receivers stays subscribed.
    pub linger: Duration,
    /// Most pushes that wait for one hub's sink; further ones are read from the log.
    pub lane_capacity: usize,
    /// Most requests of other nodes that are served at the same time.
    pub served_requests: usize,
    /// The secret that all nodes share; by default one of them generates it and Redis keeps it.
    pub cluster_secret: Option<Arc<[u8]>>,
    /// PEM file with the certificate authorities to trust instead of the system's (`rediss…://`).
    pub ca_file: Option<PathBuf>,
    /// User to log in to sentinels with, from the URL's parameter. It must be allowed
    /// `SENTINEL GET-MASTER-ADDR-BY-NAME`, and should be allowed `SENTINEL MASTER`, which shows the newest failover.
    pub sentinel_username: Option<String>,
    /// Password to log in to sentinels with, from the URL's parameter.
    pub sentinel_password: Option<String>,
    location: Location,
}

impl RedisOptions {
    /// Reads a URL in one of these forms; with `rediss` instead of `redis`, connections use TLS.
    ///
    /// * `redis://[user[:password]@]host[:port][/db]`: one server, port 6379 by default.
    /// * `redis+sentinel://[user[:password]@]host[:port][,host[:port]…]/master[/db]`: sentinels (port 26379 by
    ///   default) that are asked for the address of the master of this name, at first and after each failover. User
    ///   and password are for the servers; those for the sentinels are parameters:
    ///   `?sentinel_username=…&sentinel_password=…`. TLS is used with both or with none.
    /// * `redis+cluster://[user[:password]@]host[:port][,host[:port]…]`: a Redis Cluster, version 7.0 or later, of
    ///   which some servers are named (port 6379 by default). Hubs spread over its masters.
    ///
    /// Special characters in users and passwords are percent-encoded.
    ///
    /// # Errors
    /// [`BackplaneError::Config`] with the mistake, without the URL: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, BackplaneError> {
        let (location, Login { username, password }) = Location::parse(url)?;
        let node = format!("n{}", Uuid::new_v4().simple());
        Ok(Self {
            node: NodeId::parse(node).map_err(|error| config(error.to_string()))?,
            prefix: "hubcast".to_owned(),
            command_timeout: Duration::from_secs(5),
            connect_wait: None,
            reconnect_wait: Duration::from_secs(2),
            outage_wait: Duration::from_secs(60),
            batch_interval: Duration::ZERO,
            delivery_interval: Duration::from_micros(50),
            min_replicas: 0,
            pool_size: 2,
            history_connections: 4,
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
            sentinel_username: username,
            sentinel_password: password,
            location,
        })
    }

    /// Host and port of the server, or those of the sentinels or cluster servers that the URL names, with commas.
    #[must_use]
    pub fn address(&self) -> String {
        let addresses: Vec<_> = self.location.addresses.iter().map(ToString::to_string).collect();
        addresses.join(",")
    }

    /// Returns whether connections use TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.location.is_tls()
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

    /// The age of an epoch at which every living node has registered its connections in it. `came_in_it`: this node
    /// started in this epoch and has seen no other; then the others have noticed a change of epochs after two beats, if
    /// there was one.
    pub(super) fn settled(&self, came_in_it: bool) -> Duration {
        let noticed = self.heartbeat_interval * 2;
        if came_in_it { noticed } else { self.lease + noticed }
    }

    pub(super) fn connect_wait(&self) -> Duration {
        self.connect_wait.unwrap_or(self.command_timeout)
    }

    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    pub(super) fn sentinel_login(&self) -> Login {
        Login {
            username: self.sentinel_username.clone(),
            password: self.sentinel_password.clone(),
        }
    }

    pub(super) fn connector(&self) -> Result<Connector, BackplaneError> {
        Connector::new(&self.location, self.ca_file.as_deref(), self.command_timeout)
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
        let url = "rediss+sentinel://:secret@a,b/m?sentinel_password=secret";
        let options = RedisOptions::parse(url).unwrap();
        assert_eq!(options.sentinel_password.as_deref(), Some("secret"));
        let printed = format!("{options:?}");
        assert!(
            printed.contains("a:26379,b:26379") && !printed.contains("secret"),
            "{printed}"
        );
    }
}
