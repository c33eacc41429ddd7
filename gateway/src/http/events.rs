//! `GET /sse/{hub}`: a hub's messages as plain server-sent events, for `EventSource` and `curl -N`.
//!
//! | parameter | says |
//! | --- | --- |
//! | `group=NAME`, any number of times | groups to receive, beside messages for all and for the user |
//! | `presence=NAME`, any number of times | groups to watch: `presence` events report each join and leave |
//! | header `Last-Event-ID`, else `lastEventId=ID`, else `since=ID` | go on after this event |
//! | `rewind=N` | where there is no id: begin with the last N messages for all, for the user and of each requested or watched group |
//!
//! An event's name is the message's target, its data the JSON array of the arguments, its id the place in the log.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hubcast_backplane::GroupName;

use super::admit::{NotAdmitted, admit, ask_application, let_in};
use super::reply;
use super::request::{Query, RequestKind};
use crate::auth::{Identity, random_connection_id};
use crate::error::Error;
use crate::http::App;
use crate::hub::{Connection, HubRuntime, RequestInfo};
use crate::protocol::ClientProtocol;
use crate::protocol::Transport;
use crate::session::{Begin, Reading, Session};
use crate::session::{run_reader, watch_expiry};
use crate::telemetry::labels::RejectLabel;
use crate::transport::sse_stream;

/// Most messages that a reader may begin with, of all its topics together.
const MOST_REWOUND: usize = 10_000;
/// An `EventSource` gives up for good when it is answered with an error, so a client that can't be served now gets a
/// stream that ends at once: it comes back, where a balancer may have a better node for it.
const NO_ROOM: &str = ": this node accepts no more connections\nretry: 3000\n\n";

/// Has an `EventSource` come back.
pub(super) fn come_back() -> Response {
    reply::event_stream(Body::from(NO_ROOM))
}

/// Serves a request for a hub's events.
pub(super) async fn endpoint(app: &App, hub: Arc<HubRuntime>, parts: &Parts) -> Response {
    if ![Method::GET, Method::HEAD].contains(&parts.method) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
    }
    let (query, identity) = match admit(app, &hub, parts, RequestKind::EventStream).await {
        Ok(admitted) => admitted,
        Err(refusal) if refusal.status() == StatusCode::SERVICE_UNAVAILABLE => return come_back(),
        Err(refusal) => return *refusal,
    };
    let request = |identity: &Identity| reading(app, &hub, parts, &query, identity);
    let asks = hub.hub().connecting().is_some();
    // Where the application is asked it may give other roles.
    let early = match (!asks).then(|| request(&identity)).transpose() {
        Ok(reading) => reading,
        Err(refused) => return refused.into_response(),
    };
    if parts.method == Method::HEAD {
        return reply::event_stream(Body::empty()); // section 9.3.2 of RFC 9110: as GET, and nothing is opened
    }
    let permit = match let_in(app, identity.user(), parts) {
        Ok(permit) => permit,
        Err(closed) => {
            if let NotAdmitted::Limit(limit) = closed {
                app.metrics().limited.get(limit).inc();
            }
            app.metrics().rejected.get(RejectLabel::Capacity).inc();
            return come_back();
        }
    };
    let Ok(id) = random_connection_id() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let cookie = app.options().auth.cookie.as_deref();
    let info = RequestInfo::new(&parts.headers, query.pairs(), cookie);
    let connection = Connection::new(id, identity, info);
    connection.set_transport(Transport::ServerSentEvents);
    connection.set_protocol(ClientProtocol::Events);
    let connection = match ask_application(&hub, connection, Vec::new()).await {
        Ok(accepted) => accepted.connection,
        Err(refusal) => return *refusal,
    };
    let reading = match early.map_or_else(|| request(&connection.identity()), Ok) {
        Ok(reading) => reading,
        Err(refused) => return refused.into_response(),
    };
    let session = Session::of_reader(Arc::clone(&hub), connection, reading);
    session.occupy(permit);
    hub.registry().insert(&session);
    watch_expiry(&session);
    hub.shared().tasks().spawn(run_reader(Arc::clone(&session)));
    let stream = sse_stream(Arc::clone(&session)); // ends the session, should the client go away meanwhile
    session.entered().await;
    reply::event_stream(Body::from_stream(stream))
}

/// The subscription that a client requests, if it is permitted.
pub(super) fn reading(
    app: &App,
    hub: &HubRuntime,
    parts: &Parts,
    query: &Query,
    identity: &Identity,
) -> Result<Reading, Refused> {
    let asked = groups(hub, query, identity).and_then(|groups| {
        Ok(Reading {
            begin: begin(app, hub, parts, query, groups.len())?,
            groups,
        })
    });
    if let Err((StatusCode::FORBIDDEN, _)) = asked {
        app.metrics().rejected.get(RejectLabel::Forbidden).inc();
    }
    asked
}

/// The reason why a request is refused.
pub(super) type Refused = (StatusCode, String);

fn bad(text: String) -> Refused {
    (StatusCode::BAD_REQUEST, text)
}

/// The requested groups, each once, if the client may join or watch them all.
fn groups(hub: &HubRuntime, query: &Query, identity: &Identity) -> Result<Vec<GroupName>, Refused> {
    let permissions = identity.permissions();
    let forbidden = |what: &str, name: &str| {
        let text = format!("You may not {what} the group {name:?}: see the roles hubcast.{what}");
        (StatusCode::FORBIDDEN, text)
    };
    let mut groups: Vec<GroupName> = Vec::new();
    for name in query.all("group") {
        let group = named(name)?;
        if !permissions.may_join(name) {
            return Err(forbidden("join", name));
        }
        add(hub, &mut groups, group)?;
    }
    for name in query.all("presence") {
        let group = named(name)?;
        if !permissions.may_watch(name) {
            return Err(forbidden("watch", name));
        }
        if !hub.options().hubs.presence {
            return Err(bad(format!("presence: {}", Error::NoPresence)));
        }
        add(hub, &mut groups, GroupName::presence_of(&group))?;
    }
    Ok(groups)
}

fn named(name: &str) -> Result<GroupName, Refused> {
    GroupName::parse(name).map_err(|error| bad(format!("The group {name:?}: {error}")))
}

fn add(hub: &HubRuntime, groups: &mut Vec<GroupName>, group: GroupName) -> Result<(), Refused> {
    let limit = hub.options().limits.groups_per_connection;
    if groups.contains(&group) {
        return Ok(());
    }
    if groups.len() >= limit {
        return Err(bad(format!(
            "More than {limit} groups (limits.groups_per_connection)"
        )));
    }
    groups.push(group);
    Ok(())
}

/// The position from which the client reads.
fn begin(app: &App, hub: &HubRuntime, parts: &Parts, query: &Query, groups: usize) -> Result<Begin, Refused> {
    let header = parts.headers.get("last-event-id");
    let header = header.map(|value| value.to_str().unwrap_or("unreadable"));
    let shown = [header, query.get("lastEventId"), query.get("since")];
    if let Some(text) = shown.into_iter().flatten().find(|text| !text.is_empty()) {
        // An error would be final for an `EventSource`, and its id may be of a log and a secret that were lost.
        let point = app.points().read(hub.name(), text);
        return Ok(point.map_or(Begin::Unreadable, Begin::After));
    }
    let Some(text) = query.get("rewind") else {
        return Ok(Begin::Now);
    };
    let most = MOST_REWOUND / groups.saturating_add(2);
    match text.parse() {
        Ok(0) => Ok(Begin::Now),
        Ok(count) if count <= most => Ok(Begin::Newest(count)),
        _ => Err(bad(format!(
            "rewind must be a number of messages from 0 to {most}"
        ))),
    }
}
