//! A hub's address: sockets, event streams, polls, posts. Any node serves any request; what belongs to a connection of
//! another node goes there.

mod find;
mod sockets;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::WebSocket;
use axum::extract::{FromRequestParts, Request, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hubcast_backplane::{BackplaneError, ConnectionId, NodeId};

use self::find::{Found, Wanted};
pub(crate) use self::sockets::endpoint as socket_endpoint;
use super::admit::admit;
use super::request::{BodyError, Query, Wish, read_body};
use super::{expiry, owned, reply};
use crate::auth::{ConnectionToken, Identity, random_connection_id};
use crate::cluster::{Answer, Forward};
use crate::gateway::App;
use crate::hub::{Connection, HubRuntime, RequestInfo, Transport};
use crate::session::{Claimant, CloseReason, Restored, Session, restore};
use crate::telemetry::labels::{LimitLabel, RejectLabel, ResumeKind, ResumeOutcome};
use crate::transport::{Detached, Reservation, serve_resumable, serve_websocket, sse_stream, upgrade_limits};

/// One request to a hub, authenticated.
struct Asked {
    app: App,
    hub: Arc<HubRuntime>,
    identity: Identity,
    query: Query,
    parts: Parts,
}

/// A response that ends a request early. Boxed, because every step of a request may return one.
struct Refusal(Box<Response>);

impl<R: IntoResponse> From<R> for Refusal {
    fn from(response: R) -> Self {
        Self(Box::new(response.into_response()))
    }
}

/// Serves a request to a hub's address.
pub(crate) async fn endpoint(app: App, hub: Arc<HubRuntime>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(wish) = Wish::of(&parts) else {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    };
    let (query, identity) = match admit(&app, &hub, &parts, wish).await {
        Ok(admitted) => admitted,
        Err(refusal) => return *refusal,
    };
    let asked = Asked {
        app,
        hub,
        identity,
        query,
        parts,
    };
    let outcome = match wish {
        Wish::WebSocket => asked.websocket().await,
        Wish::EventStream => asked.event_stream().await,
        Wish::Poll => asked.poll().await,
        Wish::Send => asked.send(body).await,
        Wish::Delete => asked.delete().await,
    };
    outcome.unwrap_or_else(|refusal| *refusal.0)
}

impl Asked {
    async fn websocket(mut self) -> Result<Response, Refusal> {
        let upgrade = WebSocketUpgrade::from_request_parts(&mut self.parts, &()).await?;
        let token = self.token()?;
        if let Some(token) = token.as_ref().filter(|token| token.stateful) {
            let session = self.resumable(token).await?;
            session.connection().renew_if_longer(&self.identity); // it has come back with what it has now
            return Ok(self.accept(upgrade, |socket| serve_resumable(session, socket)));
        }
        let (reservation, early) = match token {
            // Without negotiation the socket is the connection; the directory hears of it at the handshake.
            None => {
                let id = random_connection_id().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
                let seat = self.admit().map_err(|full| self.refuse(full))?;
                let session = Session::new(Arc::clone(&self.hub), self.connection(id));
                session.occupy(seat);
                self.hub.registry().insert(&session);
                expiry::watch(&session);
                (Reservation::new(session, false), Detached::new())
            }
            Some(token) => {
                let (newcomer, early) = self.take(&token, Transport::WebSockets, false).await?;
                (newcomer.socket.ok_or(StatusCode::CONFLICT)?, early)
            }
        };
        Ok(self.accept(upgrade, |socket| serve_websocket(reservation, early, socket)))
    }

    /// Accepts a socket and serves it in a task that a drain waits for.
    fn accept<F>(
        &self,
        upgrade: WebSocketUpgrade,
        serve: impl FnOnce(WebSocket) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tracked = self.hub.shared().tasks().token(); // taken before the 101 goes out
        upgrade_limits(upgrade, &self.hub.options().limits).on_upgrade(async move |socket| {
            serve(socket).await;
            drop(tracked);
        })
    }

    /// The session of a connection that outlives its sockets: a new one, or the one that lost its socket, wherever it was.
    async fn resumable(&self, token: &ConnectionToken) -> Result<Arc<Session>, Refusal> {
        let claimant = Claimant::User(self.identity.user().cloned());
        if let Some(session) = self.bring_back(&token.id, claimant).await? {
            return Ok(session);
        }
        let (newcomer, early) = self.take(token, Transport::WebSockets, true).await?;
        newcomer.session.connection().set_transport(Transport::WebSockets);
        receive_early(&newcomer.session, early)?;
        Ok(newcomer.session)
    }

    /// The session of a connection that lost its socket, wherever it was. `None` where there is no such connection.
    async fn bring_back(
        &self,
        id: &ConnectionId,
        claimant: Claimant,
    ) -> Result<Option<Arc<Session>>, Refusal> {
        if let Some(session) = self.hub.registry().find(id)
            && session.connection().transport() == Some(Transport::WebSockets)
        {
            if let Claimant::User(user) = &claimant
                && session.connection().user() != user.as_ref()
            {
                return Err(reply::answer(owned::other_user()).into());
            }
            if let Some(session) = self.resumed_here(session).await? {
                return Ok(Some(session));
            }
        }
        let restoring = restore(Arc::clone(&self.hub), id.clone(), claimant);
        let Ok(restored) = self.hub.shared().tasks().spawn(restoring).await else {
            return Err(StatusCode::INTERNAL_SERVER_ERROR.into());
        };
        match restored.map_err(unreachable_owner)? {
            Restored::Session(session) => {
                let user = session.connection().user();
                session.occupy(self.app.gate().count(user, &self.parts));
                session.connection().renew_if_longer(&self.identity);
                expiry::watch(&session);
                Ok(Some(session))
            }
            Restored::OtherUser => Err(reply::answer(owned::other_user()).into()),
            Restored::Unknown => Err(self.unknown().into()),
            Restored::Busy => Err(StatusCode::CONFLICT.into()),
            Restored::Absent => Ok(None),
        }
    }

    /// A session of this node whose client comes back. `None` when it is no longer this node's.
    async fn resumed_here(&self, session: Arc<Session>) -> Result<Option<Arc<Session>>, Refusal> {
        let Some(version) = session.version() else {
            return Err(StatusCode::CONFLICT.into());
        };
        let backplane = self.hub.shared().backplane();
        let listing = backplane
            .look_up(self.hub.name(), session.id())
            .await
            .map_err(unreachable_owner)?;
        if listing.is_none_or(|listing| listing.version != version || listing.owner.is_none()) {
            session.close(CloseReason::Moved); // others took it while this node was paused
        } else if !session.can_rewind() {
            session.close(CloseReason::Moved); // it is replayed from the log
        }
        if !session.closing().is_cancelled() {
            let metrics = self.app.metrics();
            metrics.resumes(ResumeKind::Local, ResumeOutcome::Exact).inc();
            return Ok(Some(session));
        }
        if !session.has_moved() {
            return Err(self.unknown().into()); // it is saying goodbye, and must not come back
        }
        session.ended().await;
        Ok(None)
    }

    async fn event_stream(self) -> Result<Response, Refusal> {
        let token = self.required_token()?;
        let (newcomer, early) = self.take(&token, Transport::ServerSentEvents, true).await?;
        let session = newcomer.session;
        session.connection().set_transport(Transport::ServerSentEvents);
        receive_early(&session, early)?;
        Ok(reply::event_stream(Body::from_stream(sse_stream(session))))
    }

    async fn poll(self) -> Result<Response, Refusal> {
        let token = self.required_token()?;
        let answer = match self.find(&token, Wanted::Any).await? {
            Found::Here(session) => owned::poll(&session).await,
            Found::New(newcomer) => owned::poll(&newcomer.session).await,
            Found::Elsewhere(owner) => self
                .poll_elsewhere(&owner, &token.id)
                .await
                .map_err(unreachable_owner)?,
        };
        Ok(reply::answer(answer))
    }

    /// A node that leaves does not cut off the polls of connections that stay: it has their owners answer.
    async fn poll_elsewhere(
        &self,
        owner: &NodeId,
        connection: &ConnectionId,
    ) -> Result<Answer, BackplaneError> {
        let forward = self.forward(owner, connection);
        let polling = forward.poll();
        tokio::pin!(polling);
        tokio::select! {
            answer = &mut polling => return answer,
            () = self.app.leaving().cancelled() => {}
        }
        forward.yield_poll().await?;
        polling.await
    }

    async fn send(self, body: Body) -> Result<Response, Refusal> {
        let token = self.required_token()?;
        // Looked up before the body is read: nothing is allocated for strangers.
        let found = self.find(&token, Wanted::Any).await?;
        let body = self.read(body).await?;
        let answer = match found {
            Found::Here(session) => owned::receive(&session, body).await,
            Found::New(newcomer) => owned::receive(&newcomer.session, body).await,
            Found::Elsewhere(owner) => self
                .forward(&owner, &token.id)
                .receive(body)
                .await
                .map_err(unreachable_owner)?,
        };
        if answer.status == 200 {
            return Ok(StatusCode::OK.into_response());
        }
        Ok(reply::answer(answer))
    }

    async fn delete(self) -> Result<Response, Refusal> {
        let token = self.required_token()?;
        let answer = match self.find(&token, Wanted::Existing).await? {
            Found::Here(session) => owned::delete(&session),
            Found::New(newcomer) => owned::delete(&newcomer.session),
            Found::Elsewhere(owner) => self
                .forward(&owner, &token.id)
                .delete()
                .await
                .map_err(unreachable_owner)?,
        };
        Ok(reply::answer(answer))
    }

    async fn read(&self, body: Body) -> Result<Bytes, Refusal> {
        let limit = self.hub.options().limits.http_body_bytes;
        read_body(&self.parts.headers, body, limit)
            .await
            .map_err(|error| match error {
                BodyError::TooLarge => {
                    self.app.metrics().rejected.get(RejectLabel::TooLarge).inc();
                    self.app.metrics().limited.get(LimitLabel::HttpBodyBytes).inc();
                    let text = "The body is over limits.http_body_bytes";
                    reply::text(StatusCode::PAYLOAD_TOO_LARGE, text).into()
                }
                BodyError::Broken => StatusCode::BAD_REQUEST.into(),
            })
    }

    /// The connection token, if there is one, checked.
    fn token(&self) -> Result<Option<ConnectionToken>, Refusal> {
        let Some(text) = self.query.get("id").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        match self.app.tokens().read(self.hub.name(), text) {
            Ok(token) => Ok(Some(token)),
            Err(_) => Err(self.unknown().into()),
        }
    }

    fn required_token(&self) -> Result<ConnectionToken, Refusal> {
        self.token()?
            .ok_or_else(|| reply::text(StatusCode::BAD_REQUEST, "Connection ID required").into())
    }

    fn unknown(&self) -> Response {
        self.app
            .metrics()
            .rejected
            .get(RejectLabel::UnknownConnection)
            .inc();
        reply::answer(owned::unknown_connection())
    }

    fn connection(&self, id: ConnectionId) -> Connection {
        let request = RequestInfo::new(
            &self.parts.headers,
            self.query.pairs(),
            self.app.options().auth.cookie.as_deref(),
        );
        Connection::new(id, self.identity.clone(), request)
    }

    fn forward<'a>(&'a self, owner: &'a NodeId, connection: &'a ConnectionId) -> Forward<'a> {
        Forward {
            hub: &self.hub,
            owner,
            connection,
            user: self.identity.user(),
        }
    }
}

/// Hands on what came in before the connection was this node's.
fn receive_early(session: &Session, early: Detached) -> Result<(), Refusal> {
    match session.http().map(|link| link.receive_early(early)) {
        Some(Err(_)) => Err(reply::answer(owned::unknown_connection()).into()),
        _ => Ok(()),
    }
}

/// A dead owner's connection is gone with it; a backplane that does not answer may come back.
fn unreachable_owner(error: BackplaneError) -> Refusal {
    let response = match error {
        BackplaneError::NodeUnreachable { .. } => reply::answer(owned::unknown_connection()),
        error if error.is_transient() => {
            tracing::debug!(%error, "a request could not be served");
            reply::unavailable()
        }
        error => {
            tracing::error!(%error, "a request could not be served");
            reply::answer(Answer::refused(500, "The request could not be served"))
        }
    };
    response.into()
}
