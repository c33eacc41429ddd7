//! What stands before the gateway.

use serde::Deserialize;

use super::OptionError;
use crate::limits::TrustedProxies;

/// What stands before the gateway.
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
    /// `X-Forwarded-For` that is not such a proxy itself. All others are who they are.
    ///
    /// An application that mounts the router tells who the peer is by
    /// `into_make_service_with_connect_info::<SocketAddr>()`; without it, nobody has an address.
    pub trusted_proxies: Vec<String>,
}

impl ServerOptions {
    pub(super) fn check(&self) -> Result<(), OptionError> {
        match TrustedProxies::parse(&self.trusted_proxies) {
            Ok(_) => Ok(()),
            Err(text) => Err(OptionError {
                key: "server.trusted_proxies",
                problem: format!("{text:?} is not an address or a network, such as 10.0.0.5 or 10.0.0.0/8"),
            }),
        }
    }
}
