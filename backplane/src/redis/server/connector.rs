//! Opens connections with the settings that a URL and the options give for all of them.

use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates,
};
use tokio::time::timeout;

use crate::error::BackplaneError;
use crate::error::config;
use crate::redis::server::location::{Address, Location, Login};

/// Most commands that wait in one connection before callers wait.
const PIPELINE: usize = 1_024;

/// The receiver of a connection's pushes. It must not block.
pub(in crate::redis) type Take = Box<dyn Fn(PushInfo) + Send + Sync>;

/// Opens connections that differ by their address only.
#[derive(Clone)]
pub(in crate::redis) struct Connector {
    common: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    bound: Duration,
}

impl Connector {
    /// A connector for servers. Opening takes no longer than `bound`.
    pub(in crate::redis) fn new(
        location: &Location,
        ca_file: Option<&Path>,
        bound: Duration,
    ) -> Result<Self, BackplaneError> {
        let certificates = match ca_file {
            None => None,
            Some(_) if !location.is_tls() => {
                return Err(config("a CA file needs a URL with TLS: rediss…://".to_owned()));
            }
            Some(path) => {
                let root_cert = std::fs::read(path).map_err(|error| {
                    config(format!("the CA file {} can't be read: {error}", path.display()))
                })?;
                Some(TlsCertificates {
                    client_tls: None,
                    root_cert: Some(root_cert),
                })
            }
        };
        if location.is_tls() {
            // Fails where the process has a provider already, which is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let settings = location.server.redis_settings().clone();
        let connector = Self {
            common: location
                .server
                .clone()
                .set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3)),
            certificates,
            bound,
        };
        for address in &location.addresses {
            let client = connector.client(address);
            client.map_err(|error| config(format!("the Redis settings can't work: {error}")))?;
        }
        Ok(connector)
    }

    /// A connector for the sentinels of the same servers.
    pub(in crate::redis) fn for_sentinels(&self, login: &Login, bound: Duration) -> Self {
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = &login.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &login.password {
            settings = settings.set_password(password);
        }
        Self {
            common: self.common.clone().set_redis_settings(settings),
            certificates: self.certificates.clone(),
            bound,
        }
    }

    /// The same connector with another bound.
    pub(in crate::redis) fn bounded(&self, bound: Duration) -> Self {
        Self {
            bound,
            ..self.clone()
        }
    }

    /// The time limit of opening a connection.
    pub(in crate::redis) fn bound(&self) -> Duration {
        self.bound
    }

    /// Opens a connection whose pushes go to `take`. Sentinels send none. Callers bound the time that they wait for
    /// answers: they know better for how long.
    pub(in crate::redis) async fn open(
        &self,
        address: &Address,
        take: Option<Take>,
    ) -> RedisResult<MultiplexedConnection> {
        let mut settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.bound))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE);
        if let Some(take) = take {
            settings = settings.set_push_sender(move |info: PushInfo| {
                take(info);
                Ok::<(), redis::aio::SendError>(())
            });
        }
        let client = self.client(address)?;
        let opening = client.get_multiplexed_async_connection_with_config(&settings);
        within(self.bound, opening).await.map_err(closed_at_once)
    }

    fn client(&self, address: &Address) -> RedisResult<Client> {
        let Address { host, port } = address.clone();
        let address = match self.common.addr() {
            ConnectionAddr::TcpTls { insecure, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: None,
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        let connection = self.common.clone().set_addr(address);
        match &self.certificates {
            None => Client::open(connection),
            Some(certificates) => Client::build_with_tls(connection, certificates.clone()),
        }
    }
}

/// A server with too many clients says so and closes, but what it says is mostly lost in the reset.
fn closed_at_once(error: RedisError) -> RedisError {
    // Where the port is closed, there was no connection.
    if !error.is_connection_dropped() || error.is_connection_refusal() {
        return error;
    }
    let text =
        "the server closed the new connection at once; has it as many clients as its maxclients allows?";
    RedisError::from(std::io::Error::new(std::io::ErrorKind::ConnectionReset, text))
}

/// Waits a bounded time.
pub(in crate::redis) async fn within<T>(
    bound: Duration,
    outcome: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    timeout(bound, outcome).await.unwrap_or_else(|_| {
        Err(RedisError::from(std::io::Error::from(
            std::io::ErrorKind::TimedOut,
        )))
    })
}
