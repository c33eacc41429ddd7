//! Answers requests of other nodes on the node that owns the connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{OwnerAnswer, Receive};
use crate::auth::Identity;
use crate::protocol::Transport;
use crate::session;
use crate::session::{CloseReason, Ended, Ownership, Session};
use crate::transport::{self, Poll};

pub(crate) fn unknown_connection() -> OwnerAnswer {
    OwnerAnswer::refused(404, "No Connection with that ID")
}

/// The reference adopts the user that comes last; here a connection stays with the user who opened it.
pub(crate) fn other_user() -> OwnerAnswer {
    OwnerAnswer::refused(403, "The connection belongs to another user")
}

fn other_transport() -> OwnerAnswer {
    OwnerAnswer::refused(400, "Cannot change transports mid-connection")
}

/// `newer` is the identity of the poll's token, where a newer one is taken.
pub(crate) async fn poll(
    session: &Arc<Session>,
    patience: Duration,
    newer: Option<&Identity>,
) -> OwnerAnswer {
    if let Some(identity) = newer {
        session.connection().renew_if_longer(identity);
    }
    match transport::poll(session, patience).await {
        Poll::Data { body, taking } => OwnerAnswer {
            status: 200,
            body,
            taking: Some(taking),
            ..OwnerAnswer::default()
        },
        Poll::Empty => OwnerAnswer::status(200),
        Poll::Ended => OwnerAnswer::status(204),
        Poll::OtherTransport => other_transport(),
    }
}

/// Has the waiting poll answered with nothing: the node that it came to is leaving.
pub(crate) fn yield_poll(session: &Session) -> OwnerAnswer {
    if let Some(link) = session.http() {
        link.yield_poll();
    }
    OwnerAnswer::status(200)
}

/// A part of a POST that came to another node.
pub(crate) async fn receive_part(session: &Arc<Session>, part: Receive) -> OwnerAnswer {
    if session.http().is_none() {
        return no_posts();
    }
    if let (true, Some(number)) = (part.broken, part.number) {
        session::break_off(session, number);
        return OwnerAnswer::status(200);
    }
    match session::receive_part(session, part.body, part.number, part.more).await {
        Ok(()) => OwnerAnswer::status(200),
        Err(Ended) => unknown_connection(),
    }
}

pub(crate) fn no_posts() -> OwnerAnswer {
    OwnerAnswer::refused(405, "POST requests are not allowed for WebSocket connections.")
}

/// Takes a newer token of the same user.
pub(crate) async fn refresh(session: &Session, identity: &Identity) -> OwnerAnswer {
    if session.connection().is_stale(identity) && session.connection().user() == identity.user() {
        return OwnerAnswer::status(200); // one that ends before the present one changes nothing
    }
    renew(session, identity).await
}

/// Takes the identity that a back end gives the same user.
pub(crate) async fn reidentify(session: &Arc<Session>, identity: &Identity) -> OwnerAnswer {
    let answer = renew(session, identity).await;
    session::watch_expiry(session); // it may have an end now
    answer
}

async fn renew(session: &Session, identity: &Identity) -> OwnerAnswer {
    if session.closing().is_cancelled() {
        return unknown_connection();
    }
    if session.connection().user() != identity.user() {
        return other_user();
    }
    match session.renew(identity).await {
        Ok(Ownership::Kept) => OwnerAnswer::status(200),
        Ok(Ownership::Lost) => unknown_connection(), // it has just moved
        Err(error) => {
            tracing::debug!(connection_id = %session.id(), %error, "a newer token could not be written down");
            OwnerAnswer::refused(503, "The backplane can't be reached. Try again later.")
        }
    }
}

pub(crate) fn delete(session: &Session) -> OwnerAnswer {
    if session.connection().transport() != Some(Transport::LongPolling) {
        return OwnerAnswer::refused(400, "Cannot terminate this connection using the DELETE endpoint.");
    }
    if let Some(link) = session.http() {
        link.drained(); // no poll will fetch the rest
    }
    session.close(CloseReason::ByClient);
    OwnerAnswer::status(202)
}

/// Gives a stateful session up for the node that its client has come back to.
pub(crate) async fn give_up(session: &Session) -> OwnerAnswer {
    if !session.is_stateful() {
        return OwnerAnswer::status(409);
    }
    session.close(CloseReason::Moved);
    if !session.has_moved() {
        return unknown_connection(); // it is ending for good
    }
    session.ended().await;
    OwnerAnswer {
        recoveries: session.hub().recoveries().hand_over(session.id()),
        ..OwnerAnswer::status(200)
    }
}

/// Gives a connection whose transport is not chosen yet to a socket or event stream elsewhere.
pub(crate) async fn hand_over(session: &Arc<Session>, transport: Transport) -> OwnerAnswer {
    match session.connection().transport() {
        Some(current) if current == transport => return OwnerAnswer::status(409),
        Some(_) => return other_transport(),
        None => {}
    }
    let Some(link) = session.http() else {
        return OwnerAnswer::status(409);
    }; // a socket is being accepted
    let Some(early) = link.detach() else {
        return OwnerAnswer::status(409);
    };
    let hub = session.hub();
    hub.registry().remove(session);
    match hub.backplane().release(session.id()).await {
        Ok(()) => OwnerAnswer {
            status: 200,
            body: Bytes::new(),
            early,
            ..OwnerAnswer::default()
        },
        Err(error) => {
            tracing::warn!(connection_id = %session.id(), %error, "a connection could not be released");
            OwnerAnswer::refused(503, "The connection can't be moved now. Try again later.")
        }
    }
}
