//! `/client/hubs/{hub}`: WebSockets of clients that speak no hub protocol.
//!
//! | subprotocol that the client offers | it gets |
//! | --- | --- |
//! | `json.webpubsub.azure.v1`, `json.reliable.webpubsub.azure.v1`, the same with `protobuf` | [`webpubsub`](crate::protocol::webpubsub): the first of its offers that is one of these |
//! | none | [`plain`](crate::protocol::plain): JSON, with the query of `/sse/{hub}` |
//! | only others | 400 |
//!
//! A reliable connection's client comes back with `awps_connection_id` and `awps_reconnection_token`. The token alone
//! decides, because the access token beside it may have expired meanwhile. A connection that can't go on is refused with
//! a Close frame of code 1008, by which clients know to begin anew: an HTTP error they would take for an outage.

use std::sync::Arc;

use axum::extract::Request;
use axum::extract::ws::close_code;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hubcast_backplane::{ConnectionId, GroupName};
use tokio::time::sleep;

use super::{EarlyResponse, HubRequest};
use crate::auth::{Identity, random_connection_id};
use crate::http::App;
use crate::http::admit::{admit, ask_application, check_origin};
use crate::http::events::reading;
use crate::http::reply;
use crate::http::request::{Query, RequestKind};
use crate::hub::HubRuntime;
use crate::protocol::webpubsub::WebPubSubProtocol;
use crate::protocol::websocket::Messages;
use crate::protocol::{ClientProtocol, TransferFormat, Transport};
use crate::session::{Claimant, CloseReason, Ended, Session, run_over_http, watch_expiry};
use crate::telemetry::labels::RejectLabel;
use crate::transport::{Reservation, Upgrade, serve_resumable, serve_websocket};

/// Serves a request for a socket.
pub(crate) async fn endpoint(app: App, hub: Arc<HubRuntime>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if RequestKind::of(&parts) != Some(RequestKind::WebSocket) {
        let text = "This address serves WebSockets; for server-sent events there is /sse/";
        return reply::text(StatusCode::UPGRADE_REQUIRED, text);
    }
    let protocol = chosen(&offers(&parts.headers));
    if protocol.is_none() && hub.hub().connecting().is_none() {
        let known = WebPubSubProtocol::ALL.map(WebPubSubProtocol::name).join(", ");
        let text = format!("None of the WebSocket subprotocols is known here: {known}, or none at all");
        return reply::text(StatusCode::BAD_REQUEST, text);
    }
    let outcome = match recovery(&parts, protocol) {
        Some(back) => recover(app, hub, parts, &back).await,
        None => begin(app, hub, parts, protocol).await,
    };
    outcome.unwrap_or_else(|refusal| *refusal.0)
}

/// The subprotocols that the client offers, in its order.
fn offers(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all("sec-websocket-protocol")
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

fn known(name: &str) -> Option<ClientProtocol> {
    WebPubSubProtocol::parse(name).map(ClientProtocol::WebPubSub)
}

/// The client's protocol: the first of its subprotocols that is known. `None` where it offers only others.
fn chosen(offers: &[String]) -> Option<ClientProtocol> {
    if offers.is_empty() {
        return Some(ClientProtocol::Plain);
    }
    offers.iter().find_map(|name| known(name))
}

/// A client's wish to have a connection back.
struct Recovery {
    protocol: ClientProtocol,
    id: String,
    /// Its reconnection token; without one it has no chance.
    token: String,
}

fn recovery(parts: &Parts, protocol: Option<ClientProtocol>) -> Option<Recovery> {
    let protocol = protocol.filter(|protocol| protocol.is_reliable())?;
    let query = Query::of(&parts.uri);
    let id = query.get("awps_connection_id")?.to_owned();
    let token = query.get("awps_reconnection_token").unwrap_or_default();
    Some(Recovery {
        protocol,
        id,
        token: token.to_owned(),
    })
}

/// Makes a new connection.
async fn begin(
    app: App,
    hub: Arc<HubRuntime>,
    parts: Parts,
    offered: Option<ClientProtocol>,
) -> Result<Response, EarlyResponse> {
    let admitted = admit(&app, &hub, &parts, RequestKind::WebSocket).await;
    let (query, identity) = admitted.map_err(EarlyResponse)?;
    let mut asked = HubRequest {
        app,
        hub,
        identity,
        query,
        parts,
    };
    let upgrade = Upgrade::read(&mut asked.parts).map_err(EarlyResponse)?;
    let id = random_connection_id().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let mut permit = asked.admit().map_err(|full| asked.refuse(full))?;
    let connection = asked.connection(id);
    connection.set_transport(Transport::WebSockets);
    let offers = offers(&asked.parts.headers);
    let accepted = ask_application(&asked.hub, connection, offers)
        .await
        .map_err(EarlyResponse)?;
    let connection = accepted.connection;
    if connection.user() != asked.identity.user() {
        drop(permit);
        asked.identity = (*connection.identity()).clone();
        permit = asked.admit().map_err(|full| asked.refuse(full))?;
    }
    asked.identity = (*connection.identity()).clone();
    let protocol = match &accepted.subprotocol {
        Some(name) => known(name).unwrap_or(ClientProtocol::Plain), // one of the application's own
        None => offered.ok_or(StatusCode::BAD_REQUEST)?,
    };
    connection.set_protocol(protocol);
    let reading = (protocol == ClientProtocol::Plain)
        .then(|| {
            reading(
                &asked.app,
                &asked.hub,
                &asked.parts,
                &asked.query,
                &asked.identity,
            )
        })
        .transpose()?;
    let hub = Arc::clone(&asked.hub);
    // A log is what makes a connection outlive its sockets.
    let outlives = protocol.is_reliable() && !hub.options().hubs.volatile;
    let session = match reading {
        Some(mut reading) => {
            let named = asked.identity.webpubsub_groups();
            for group in named.filter_map(|name| GroupName::parse(name).ok()) {
                if !reading.groups.contains(&group) {
                    reading.groups.push(group);
                }
            }
            Session::of_reader(hub, connection, reading)
        }
        None if outlives => Session::resumable(hub, connection),
        None => Session::new(hub, connection),
    };
    session.occupy(permit);
    asked.hub.registry().insert(&session);
    watch_expiry(&session);
    let upgrade = match accepted.subprotocol {
        Some(name) => upgrade.protocol(name),
        None => upgrade.protocol(protocol.name()),
    };
    if outlives {
        let running = run_over_http(Arc::clone(&session), true);
        asked.hub.shared().tasks().spawn(running);
        return Ok(asked.accept(upgrade, asked.units(protocol), |socket| {
            serve_resumable(session, socket)
        }));
    }
    session.begin_early();
    let reservation = Reservation::new(Arc::clone(&session), false); // ends the session, should the client go away meanwhile
    session.entered().await;
    Ok(asked.accept(upgrade, asked.units(protocol), |socket| {
        serve_websocket(reservation, socket)
    }))
}

/// Goes on with a connection that lost its socket, wherever it was.
async fn recover(
    app: App,
    hub: Arc<HubRuntime>,
    parts: Parts,
    back: &Recovery,
) -> Result<Response, EarlyResponse> {
    check_origin(&app, &parts).map_err(EarlyResponse)?;
    if app.is_draining() {
        return Err(reply::leaving().into());
    }
    let mut asked = HubRequest {
        query: Query::of(&parts.uri),
        identity: Identity::of_user(None),
        app,
        hub,
        parts,
    };
    let upgrade = Upgrade::read(&mut asked.parts).map_err(EarlyResponse)?;
    let upgrade = upgrade.protocol(back.protocol.name());
    let id = ConnectionId::parse(&back.id).ok();
    let id = id.filter(|id| asked.app.tokens().may_recover(asked.hub.name(), id, &back.token));
    let Some(id) = id else {
        return Ok(asked.turn_away(upgrade));
    };
    match asked.bring_back(&id, Claimant::Holder, false).await {
        // Its socket would carry frames of another protocol.
        Ok(Some(session)) if session.connection().protocol() != Some(back.protocol) => {
            Ok(asked.turn_away(upgrade))
        }
        Ok(Some(session)) => Ok(match asked.slow_down(&session).await {
            Ok(()) => asked.accept(upgrade, asked.units(back.protocol), |socket| {
                serve_resumable(session, socket)
            }),
            Err(Ended) => asked.turn_away(upgrade),
        }),
        Ok(None) => Ok(asked.turn_away(upgrade)),
        Err(refusal) if refusal.0.status() == StatusCode::CONFLICT => {
            let text = "Another request brings this connection back. Try again later.";
            Err(reply::text(StatusCode::SERVICE_UNAVAILABLE, text).into())
        }
        Err(refusal) if refusal.0.status().is_client_error() => Ok(asked.turn_away(upgrade)),
        Err(refusal) => Err(refusal), // it may try again, here or on another node
    }
}

impl HubRequest {
    /// Lets a connection that comes back wait, where it does so again and again without getting any further, and ends it at last.
    async fn slow_down(&self, session: &Session) -> Result<(), Ended> {
        session.comes_back();
        let wait = self.hub.recoveries().arrive(session.id());
        match wait {
            Some(wait) => {
                sleep(wait).await;
                Ok(())
            }
            None => {
                tracing::info!(hub = %self.hub.name(), connection_id = %session.id(), "ended a connection that kept recovering without making progress");
                session.close(CloseReason::LogLost(
                    "it came back again and again, and got no further",
                ));
                Err(Ended)
            }
        }
    }

    /// Each WebSocket message of these clients is one message. A plain client may send any.
    fn units(&self, protocol: ClientProtocol) -> Messages {
        let limit = self.hub.options().limits.message_bytes;
        match protocol.transfer_format() {
            TransferFormat::Text => Messages::Units { limit },
            TransferFormat::Binary => Messages::BinaryUnits { limit },
        }
    }

    /// Notifies a client that its connection is over.
    fn turn_away(&self, upgrade: Upgrade) -> Response {
        let rejected = &self.app.metrics().rejected;
        rejected.get(RejectLabel::UnknownConnection).inc();
        let patience = self.hub.options().timeouts.close;
        self.accept(upgrade, Messages::Stream, async move |socket| {
            let words = "The connection can't be continued";
            socket.end(close_code::POLICY, words, patience).await;
        })
    }
}
