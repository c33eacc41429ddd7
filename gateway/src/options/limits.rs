//! Bounds on sizes, counts and rates that a peer controls.

use serde::Deserialize;

use super::{OptionError, at_least};

/// Bounds on sizes, counts and rates that a peer controls. They may differ from hub to hub (see
/// [`Hub::configure`](crate::Hub::configure)), but for those that count for the whole node: `connections`,
/// `connections_per_user`, `connections_per_address`, `handshakes_per_second`, `held_bytes` and `headers`.
///
/// ```
/// use hubcast::{Hub, Options};
///
/// let mut options = Options::default();
/// options.limits.connections = 20_000;
/// options.limits.message_bytes = 4 * 1024;
/// let photos = Hub::new("photos").configure(|hub| {
///     hub.limits.message_bytes = 2 * 1024 * 1024;
///     hub.limits.http_body_bytes = 4 * 1024 * 1024; // holds one message
///     hub.limits.outbox_bytes = 8 * 1024 * 1024; // so does this
/// });
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest hub message from a client, with its separator or length prefix. Frames and bodies may hold any number of them.
    pub message_bytes: usize,
    /// Largest body of a REST request. What a client posts to a hub is a stream of hub messages, each with its own limit.
    pub http_body_bytes: usize,
    /// Bytes that may wait for one client. Over it the connection is closed as a slow consumer, if its client has taken nothing
    /// for `timeouts.send_seconds` (for half of that bound or more), if four times as much waits, or if the node holds
    /// `held_bytes` over the bounds of all clients together: a burst is no fault of a client that reads.
    pub outbox_bytes: usize,
    /// Bytes of a client that may wait for its hub before its POST has to wait.
    pub inbox_bytes: usize,
    /// Groups that one connection may be in.
    pub groups_per_connection: usize,
    /// Streams, in either direction, that one connection may have open.
    pub streams_per_connection: usize,
    /// Connections that one node accepts; 0 for no bound.
    pub connections: usize,
    /// Connections that one node accepts of one user, over all hubs; 0 for no bound. In a cluster a user may have so many on
    /// each node. One that comes here from another node is counted, and not refused.
    pub connections_per_user: usize,
    /// Connections that one node accepts from one address, over all hubs; 0 for no bound. An IPv6 network of 64 bits counts
    /// as one address. For the address behind a proxy: see [`ServerOptions`](crate::options::ServerOptions).
    pub connections_per_address: usize,
    /// TCP connections that the `hubcast` binary accepts, whatever is requested on them; 0 for no bound. Others are
    /// closed at once.
    pub tcp_connections: usize,
    /// TCP connections that the `hubcast` binary accepts from one address (IPv6: one network of 64 bits) that is no trusted
    /// proxy; 0 for no bound.
    pub tcp_connections_per_address: usize,
    /// New connections that one node accepts in a second; 0 for no bound. Others get 503 and may try again later.
    pub handshakes_per_second: usize,
    /// Messages of one client that are handled in a second: invocations, items of streams, results, cancellations, but
    /// not Pings; 0 for no bound. One second's worth may come at once. A client that sends more is not closed but read
    /// no faster: its messages wait on the way, and so does it, once the buffers on the way are full.
    pub messages_per_second: usize,
    /// Bytes of one client's messages that are handled in a second; 0 for no bound. A message that is larger is paid back
    /// in the seconds after it. As with `messages_per_second`, a client that
    /// sends more is read no faster.
    pub bytes_per_second: usize,
    /// Bytes in a second that a client must reach with a message or a body that it has begun, after
    /// `timeouts.receive_seconds`, and with an answer that it reads, after `timeouts.send_seconds`; 0: it only has to get on.
    pub least_bytes_per_second: u64,
    /// Bytes of unfinished messages and bodies that one node holds for all of its clients together; 0 for no bound. A
    /// client that would make it hold more is refused.
    pub held_bytes: usize,
    /// Headers of a request, where the `hubcast` binary serves; applications set that for their own server.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 32 * 1024,
            http_body_bytes: 1024 * 1024,
            outbox_bytes: 1024 * 1024,
            inbox_bytes: 64 * 1024,
            groups_per_connection: 1_000,
            streams_per_connection: 100,
            connections: 0,
            connections_per_user: 0,
            connections_per_address: 0,
            tcp_connections: 0,
            tcp_connections_per_address: 0,
            handshakes_per_second: 0,
            messages_per_second: 5_000,
            bytes_per_second: 8 * 1024 * 1024,
            least_bytes_per_second: 1024,
            held_bytes: 0,
            headers: 100,
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), OptionError> {
        at_least(
            "limits.message_bytes",
            self.message_bytes,
            256,
            "a handshake must fit",
        )?;
        let message = "limits.message_bytes";
        at_least(
            "limits.http_body_bytes",
            self.http_body_bytes,
            self.message_bytes,
            message,
        )?;
        at_least(
            "limits.outbox_bytes",
            self.outbox_bytes,
            self.message_bytes,
            message,
        )?;
        at_least(
            "limits.inbox_bytes",
            self.inbox_bytes,
            1024,
            "smaller than one read",
        )?;
        at_least(
            "limits.groups_per_connection",
            self.groups_per_connection,
            1,
            "groups would be useless",
        )?;
        at_least(
            "limits.headers",
            self.headers,
            LEAST_HEADERS,
            "browsers and proxies send that many",
        )
    }
}

/// A WebSocket of a browser, behind a proxy.
const LEAST_HEADERS: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_would_shut_everybody_out_are_refused() {
        let key = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            limits.check().map_err(|error| error.key)
        };
        assert_eq!(key(|_| {}), Ok(()));
        assert_eq!(key(|limits| limits.headers = 0), Err("limits.headers"));
    }
}
