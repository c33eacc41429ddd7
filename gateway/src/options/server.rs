//! Options about proxies in front of the gateway.

use serde::Deserialize;

use super::OptionError;
use super::proxies::TrustedProxies;

/// Options about proxies in front of the gateway.
///
/// ```
/// use hubcast::Options;
///
/// let mut options = Options::default();
/// options.server.trusted_proxies = vec!["10.0.0.0/8".to_owned(), "fd00::5".to_owned()];
/// options.limits.connections_per_address = 50;
/// assert_eq!(options.check(), Ok(()));
/// options.server.trusted_proxies.push("proxy.example.org".to_owned()); // names can change hands
/// assert_eq!(options.check().unwrap_err().key, "server.trusted_proxies");
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerOptions {
    /// Addresses (`10.0.0.5`) and networks (`10.0.0.0/8`) of proxies. A request of theirs comes from the last address in
    /// `X-Forwarded-For` that is not such a proxy itself. Other requests come from their peer.
    ///
    /// An application that mounts the router gives the peer's address by
    /// `into_make_service_with_connect_info::<SocketAddr>()`; without it, no client has an address.
    pub trusted_proxies: Vec<String>,
    /// Hosts that requests may be for: names (`app.example.org`), `*.example.org` for every name below, or `*`. Requests for
    /// others are refused with 421, so that a page whose name was made to lead here (DNS rebinding) finds nothing. Addresses,
    /// names without a dot and names below `localhost` are always accepted, for no page of others has such a name. Empty: any
    /// host; the `hubcast` binary takes `localhost` where it listens on loopback and has no trusted proxy.
    pub allowed_hosts: Vec<String>,
    /// The address where the `hubcast` binary serves `/metrics`, `/api/openapi.json`, `/healthz` and `/readyz`, with no
    /// limit on connections; the first two are then served there alone.
    pub admin_listen: Option<String>,
    /// The host, with or without port, by which clients and the connection strings of applications know the gateway. It is
    /// what [CloudEvents handlers](crate::upstream) are told as `WebHook-Request-Origin`, without port.
    pub public_host: Option<String>,
}

impl ServerOptions {
    pub(super) fn check(&self) -> Result<(), OptionError> {
        if let Some(host) = self.allowed_hosts.iter().find(|host| !is_host_pattern(host)) {
            return Err(OptionError {
                key: "server.allowed_hosts",
                problem: format!(
                    "{host:?} is not a host such as app.example.org (no scheme, no port), *.example.org or *"
                ),
            });
        }
        match TrustedProxies::parse(&self.trusted_proxies) {
            Ok(_) => Ok(()),
            Err(error) => Err(OptionError {
                key: "server.trusted_proxies",
                problem: error.to_string(),
            }),
        }
    }
}

fn is_host_pattern(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    text == "*" || !name.is_empty() && name.chars().all(allowed)
}
