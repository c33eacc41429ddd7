//! A session's end: what the client, the hub and the cluster are told, in that order.

use std::sync::Arc;

use super::guests::host;
use super::handshake;
use super::invocations::Invocations;
use super::{CloseReason, Session};
use crate::telemetry::labels::LimitLabel;

/// Says goodbye, tells the hub, and leaves the cluster; or gives the connection up for another node.
pub(super) async fn end(
    session: &Arc<Session>,
    reason: CloseReason,
    running: Option<Invocations>,
    registered: bool,
) {
    session.close(reason);
    let reason = session.reason().cloned().unwrap_or(CloseReason::Aborted); // the first one counts
    let hub = &session.hub;
    let detailed = hub.options().hubs.detailed_errors;
    let protocol = session
        .connection
        .protocol()
        .unwrap_or(handshake::BEFORE_HANDSHAKE);
    let goodbye = running.as_ref().and_then(|_| reason.frame(protocol, detailed));
    hub.registry().retire(session);
    if reason == CloseReason::Moved {
        session.park().await; // before the client notices, and comes back elsewhere
    }
    session.close_outbox(goodbye);
    let metrics = hub.shared().metrics();
    metrics.connections_closed.get(reason.label()).inc();
    if let CloseReason::SlowConsumer { .. } = reason {
        metrics.slow_consumers.inc();
        metrics.limited.get(LimitLabel::OutboxBytes).inc();
    }
    tracing::debug!(hub = %hub.name(), connection_id = %session.id(), ?reason, "session ended");
    if let Some(running) = running {
        if let (Some(transport), Some(protocol)) =
            (session.connection.transport(), session.connection.protocol())
        {
            metrics.connections(transport, protocol).dec();
        }
        if reason == CloseReason::Moved {
            hub.shared().tasks().spawn(host(Arc::clone(session), running));
        } else {
            running.finish_elsewhere(hub.shared().tasks());
        }
        if let Some(disconnected) = reason.disconnected() {
            hub.disconnected(session.context(), disconnected).await;
        }
    }
    if let Some(link) = session.http() {
        link.end(session, &reason).await;
    }
    session.be_over();
    if registered && reason != CloseReason::Moved {
        session.leave_cluster().await;
    }
    // Last, so that whoever looks for it learns that it has ended, and does not take it for one that was lost.
    hub.registry().remove(session);
    session.be_ended();
}
