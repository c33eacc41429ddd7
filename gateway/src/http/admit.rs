//! Admission of requests to a hub: the same for all of its addresses.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::response::Response;
use hubcast_backplane::UserId;

use super::reply;
use super::request::{Query, RequestKind};
use super::tcp::Traffic;
use crate::auth::{AuthError, Credentials, Identity};
use crate::http::App;
use crate::hub::{Accepted, Connecting, Connection, HubRuntime};
use crate::limits::ConnectionPermit;
use crate::protocol::Transport;
use crate::session::is_over;
use crate::telemetry::labels::{LimitLabel, RejectLabel};

/// The reason why a node takes no new connection.
#[derive(Clone, Copy)]
pub(super) enum NotAdmitted {
    Leaving,
    Limit(LimitLabel),
}

/// Lets a new connection in, before anything is made for it.
pub(super) fn let_in(
    app: &App,
    user: Option<&UserId>,
    parts: &Parts,
) -> Result<ConnectionPermit, NotAdmitted> {
    if app.is_draining() {
        return Err(NotAdmitted::Leaving);
    }
    if !app.has_room() {
        return Err(NotAdmitted::Limit(LimitLabel::Connections));
    }
    app.gate().admit(user, parts).map_err(NotAdmitted::Limit)
}

/// Refuses pages of foreign origins.
pub(super) fn check_origin(app: &App, parts: &Parts) -> Result<(), Box<Response>> {
    if app.origins().admit(parts) {
        return Ok(());
    }
    app.metrics().rejected.get(RejectLabel::Origin).inc();
    Err(Box::new(reply::foreign_origin()))
}

/// Has the hub's application decide about a client, where it wants to. The refusal has the status that it chose.
pub(super) async fn ask_application(
    hub: &Arc<HubRuntime>,
    connection: Connection,
    subprotocols: Vec<String>,
) -> Result<Accepted, Box<Response>> {
    let Some(handler) = hub.hub().connecting() else {
        return Ok(Accepted {
            connection,
            subprotocol: None,
        });
    };
    let connecting = Connecting {
        connection,
        subprotocols,
    };
    let accepted = handler.connect(Arc::clone(hub), connecting).await;
    accepted.map_err(|away| {
        let metrics = hub.shared().metrics();
        metrics.rejected.get(RejectLabel::Forbidden).inc();
        Box::new(reply::text(away.status, away.text))
    })
}

/// Records that the caller was admitted: its TCP connection may carry more requests at once.
pub(super) fn trust(parts: &Parts) {
    if let Some(traffic) = parts.extensions.get::<Arc<Traffic>>() {
        traffic.trust();
    }
}

/// Tells whether a client may be connected to the hub by this transport.
pub(super) fn offers(hub: &HubRuntime, identity: &Identity, transport: Transport) -> bool {
    hub.options().hubs.transports.contains(&transport) && identity.may_use(transport.index())
}

/// Reads a request's query, and decides which identity it has. The refusal is boxed, because it is large and rare.
pub(super) async fn admit(
    app: &App,
    hub: &HubRuntime,
    parts: &Parts,
    kind: RequestKind,
) -> Result<(Query, Identity), Box<Response>> {
    let rejected = |label| app.metrics().rejected.get(label).inc();
    check_origin(app, parts)?;
    let query = Query::of(&parts.uri);
    let tickets = app.tickets();
    let credentials = Credentials {
        hub: hub.name(),
        headers: &parts.headers,
        query_token: query.get("access_token"),
        connection: tickets.as_ref().zip(query.get("id")),
    };
    let identity = match app.authenticator().authenticate(&credentials).await {
        Ok(authenticated) => authenticated.identity,
        Err(error) => {
            rejected(RejectLabel::Unauthorized);
            return Err(Box::new(reply::unauthorized(error)));
        }
    };
    if is_over(&identity, &app.options().auth) {
        rejected(RejectLabel::Unauthorized);
        return Err(Box::new(reply::unauthorized(AuthError::Expired)));
    }
    if let Some(transport) = kind.transport().filter(|one| !offers(hub, &identity, *one)) {
        return Err(Box::new(reply::no_transport(transport)));
    }
    if !hub.hub().admits(&identity) {
        rejected(RejectLabel::Forbidden);
        return Err(Box::new(reply::not_admitted(&identity)));
    }
    trust(parts);
    Ok((query, identity))
}
