//! Limits on TCP connections as such: whatever is requested on them, and before any request.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::permits::{Permit, Permits};
use crate::options::Options;
use crate::options::{TrustedProxies, network_of};
use crate::telemetry::labels::LimitLabel;

/// Counts the TCP connections of a listener.
#[derive(Debug)]
pub(crate) struct Doors {
    /// 0 for no bound.
    limit: usize,
    open: Arc<AtomicUsize>,
    proxies: TrustedProxies,
    addresses: Arc<Permits<IpAddr>>,
}

/// One TCP connection that is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedConnection {
    open: Arc<AtomicUsize>,
    _address: Option<Permit<IpAddr>>,
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Doors {
    pub(crate) fn new(options: &Options) -> Arc<Self> {
        let limits = &options.limits;
        Arc::new(Self {
            limit: limits.tcp_connections,
            open: Arc::default(),
            // Options with anything else were refused.
            proxies: TrustedProxies::parse(&options.server.trusted_proxies).unwrap_or_default(),
            addresses: Permits::new(limits.tcp_connections_per_address),
        })
    }

    /// Lets a connection in; the error is the limit that is reached. A trusted proxy has many clients.
    pub(crate) fn enter(&self, peer: IpAddr) -> Result<CountedConnection, LimitLabel> {
        let peer = peer.to_canonical();
        let counted = (!self.proxies.holds(peer)).then(|| network_of(peer));
        let address = self.addresses.take(counted, false);
        let address = address.map_err(|_| LimitLabel::TcpConnectionsPerAddress)?;
        let entered = CountedConnection {
            open: Arc::clone(&self.open),
            _address: address,
        };
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        if self.limit > 0 && before >= self.limit {
            return Err(LimitLabel::TcpConnections);
        }
        Ok(entered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_of_one_address_so_many_but_of_a_proxy() {
        let mut options = Options::default();
        options.limits.tcp_connections = 4;
        options.limits.tcp_connections_per_address = 2;
        options.server.trusted_proxies = vec!["10.0.0.0/8".to_owned()];
        let doors = Doors::new(&options);
        let enter = |peer: &str| doors.enter(peer.parse().unwrap());
        let first = enter("192.0.2.1").unwrap();
        let second = enter("::ffff:192.0.2.1").unwrap();
        assert_eq!(
            enter("192.0.2.1").unwrap_err(),
            LimitLabel::TcpConnectionsPerAddress
        );
        let third = enter("10.0.0.1").unwrap();
        let fourth = enter("10.0.0.1").unwrap();
        assert_eq!(enter("192.0.2.2").unwrap_err(), LimitLabel::TcpConnections);
        drop((first, third));
        let others = [enter("192.0.2.1").unwrap(), enter("192.0.2.2").unwrap()];
        drop((second, fourth, others));
        assert_eq!(doors.open.load(Ordering::Relaxed), 0);
    }
}
