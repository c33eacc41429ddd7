//! A session's end: the messages to the client, the cluster and the hub, in that order.

use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::Status;
use tokio::time::timeout;

use super::handed_off_calls::host;
use super::handshake;
use super::invocations::Invocations;
use super::stateful::Parking;
use super::{CloseReason, Session};
use crate::hub::Disconnected;
use crate::protocol::Transport;
use crate::telemetry::labels::LimitLabel;

/// The reason in hub code for a connection that could go on nowhere.
const FORGOTTEN: &str = "the backplane has forgotten the connection";

/// How long a node that leaves waits for the poll that would only learn that the connection is over.
const LAST_POLL: Duration = Duration::from_secs(1);

/// Says goodbye, leaves the cluster, and runs the hub's hook; or gives the connection up for another node. While the
/// backplane can't be reached, the rest is done after this returns.
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
    session.wait_no_more();
    if reason.lets_follow() {
        session.follow().await;
    }
    hub.registry().retire(session);
    // Before the client notices, and comes back elsewhere.
    let moved = reason == CloseReason::Moved && session.park().await == Parking::GoesOn;
    if !moved {
        session.be_gone();
    }
    session.close_outbox(goodbye);
    let metrics = hub.shared().metrics();
    metrics.connections_closed.get(reason.label()).inc();
    match reason {
        CloseReason::SlowConsumer { .. } => {
            metrics.slow_consumers.inc();
            metrics.limited.get(LimitLabel::OutboxBytes).inc();
        }
        CloseReason::NoRoom => {
            metrics.limited.get(LimitLabel::HeldBytes).inc();
        }
        _ => {}
    }
    tracing::debug!(hub = %hub.name(), connection_id = %session.id(), ?reason, "session ended");
    if let Some(mistake) = reason.mistake().filter(|_| hub.shared().may_report_mistake()) {
        tracing::info!(hub = %hub.name(), connection_id = %session.id(), mistake, "closed a client for a protocol error; more of them within a second are logged at level debug");
    }
    let mut disconnected = None;
    if let Some(running) = running {
        if let (Some(transport), Some(protocol)) =
            (session.connection.transport(), session.connection.protocol())
        {
            metrics.connections(transport, protocol).dec();
        }
        if moved {
            hub.shared().tasks().spawn(host(Arc::clone(session), running));
        } else {
            running.finish_elsewhere(hub.shared().tasks());
        }
        disconnected = match reason {
            CloseReason::Moved if moved => None,
            CloseReason::Moved => Some(Disconnected::Lost(FORGOTTEN.to_owned())),
            _ => reason.disconnected(),
        };
    }
    if let Some(link) = session.http() {
        link.refuse_more();
    }
    let_fetch(session, &reason).await;
    session.be_over();
    let leaves = registered && !moved;
    let leaving = hub
        .shared()
        .tasks()
        .spawn(leave(Arc::clone(session), leaves, disconnected));
    // A socket does not stay open for a backplane that is away.
    let mut status = hub.shared().backplane().status();
    tokio::select! {
        _ = leaving => {}
        _ = status.wait_for(|status| *status == Status::Disconnected) => {}
    }
}

/// Keeps the frames for a time that a client has yet to fetch which polls, or reads an event stream.
async fn let_fetch(session: &Session, reason: &CloseReason) {
    let timeouts = &session.hub.options().timeouts;
    let patience = match session.connection.transport() {
        _ if matches!(reason, CloseReason::TransportLost(_) | CloseReason::Moved) => return,
        Some(Transport::LongPolling) => timeouts.disconnect,
        Some(Transport::ServerSentEvents) => timeouts.send,
        Some(Transport::WebSockets) | None => return,
    };
    let leaving = matches!(reason, CloseReason::NodeStops | CloseReason::Fenced);
    let fetched = timeout(patience, async {
        if leaving {
            // A client that was notified need not send the poll after the last one: a node that leaves waits less for it.
            session.until_fetched(|| session.queued_bytes() == 0).await;
            let _ = timeout(LAST_POLL, session.until_fetched(|| false)).await;
        } else {
            session.until_fetched(|| false).await;
        }
    });
    if fetched.await.is_err() {
        session.discard_outbox();
    }
}

async fn leave(session: Arc<Session>, leaves: bool, disconnected: Option<Disconnected>) {
    if leaves {
        session.leave_cluster(disconnected).await;
    }
    // Last, so that a request for it learns that it has ended, and does not take it for one that was lost.
    session.hub.registry().remove(&session);
    session.be_ended();
}
