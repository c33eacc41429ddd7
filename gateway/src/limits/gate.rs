//! Limits on connections: so many of one user, so many from one address, so many a second.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::request::Parts;
use hubcast_backplane::UserId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Bucket;
use super::permits::{Permit, Permits};
use crate::options::Options;
use crate::options::TrustedProxies;
use crate::telemetry::labels::LimitLabel;

/// Counts the connections of this node. Nothing of it is touched for a message.
#[derive(Debug)]
pub(crate) struct Gate {
    proxies: TrustedProxies,
    users: Arc<Permits<UserId>>,
    addresses: Arc<Permits<IpAddr>>,
    handshakes: Option<Mutex<Bucket>>,
}

/// The permits that one connection holds. Free again when dropped.
#[derive(Debug, Default)]
pub(crate) struct ConnectionPermit {
    user: Option<Permit<UserId>>,
    address: Option<Permit<IpAddr>>,
}

impl Gate {
    pub(crate) fn new(options: &Options) -> Self {
        let limits = &options.limits;
        Self {
            // Options with anything else were refused.
            proxies: TrustedProxies::parse(&options.server.trusted_proxies).unwrap_or_default(),
            users: Permits::new(limits.connections_per_user),
            addresses: Permits::new(limits.connections_per_address),
            handshakes: Bucket::new(limits.handshakes_per_second).map(Mutex::new),
        }
    }

    /// Lets a new connection in; the error is the limit that is reached.
    pub(crate) fn admit(&self, user: Option<&UserId>, parts: &Parts) -> Result<ConnectionPermit, LimitLabel> {
        let address = self.proxies.client_of(parts);
        let address = self.addresses.take(address, false);
        let address = address.map_err(|_| LimitLabel::ConnectionsPerAddress)?;
        let user = self.users.take(user.cloned(), false);
        let user = user.map_err(|_| LimitLabel::ConnectionsPerUser)?;
        // Last: a connection that is refused for another reason takes no permit of others.
        if let Some(handshakes) = &self.handshakes
            && !handshakes.lock().try_take(Instant::now())
        {
            return Err(LimitLabel::HandshakesPerSecond);
        }
        Ok(ConnectionPermit { user, address })
    }

    /// Counts a connection that was let in before, by this node or another one.
    pub(crate) fn count(&self, user: Option<&UserId>, parts: &Parts) -> ConnectionPermit {
        let address = self.proxies.client_of(parts);
        ConnectionPermit {
            user: self.users.take(user.cloned(), true).ok().flatten(),
            address: self.addresses.take(address, true).ok().flatten(),
        }
    }

    /// Takes back the count of a handshake whose connection turned out not to be new.
    pub(crate) fn was_not_new(&self) {
        if let Some(handshakes) = &self.handshakes {
            handshakes.lock().give_back();
        }
    }
}

impl ConnectionPermit {
    /// Returns whether nothing is counted.
    pub(crate) fn is_free(&self) -> bool {
        self.user.is_none() && self.address.is_none()
    }
}
