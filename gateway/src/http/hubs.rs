//! A hub's address: sockets, event streams, polls, posts. Any node serves any request; requests for a connection of
//! another node go there.

mod find;
mod receiving;
mod sending;
mod sockets;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hubcast_backplane::{BackplaneError, ConnectionId, NodeId};
use tokio::time::{Instant, sleep};

use self::find::{Attachment, Found, Missed, Wanted, persist};
use self::receiving::receive;
use self::sending::Sending;
pub(crate) use self::sockets::endpoint as socket_endpoint;
use super::admit::admit;
use super::bodies::BodyError;
use super::request::{Query, RequestKind};
use super::{refresh, reply};
use crate::auth::{ConnectionToken, Identity, random_connection_id};
use crate::cluster::owner;
use crate::cluster::{Forward, OwnerAnswer};
use crate::http::App;
use crate::hub::{Connection, HubRuntime, RequestInfo};
use crate::protocol::Transport;
use crate::protocol::websocket::Messages;
use crate::session::{Claimant, CloseReason, Detached, Restored, Session, restore, watch_expiry};
use crate::telemetry::labels::{LimitLabel, RejectLabel, ResumeKind, ResumeOutcome};
use crate::transport::{Reservation, Upgrade, WebSocket, serve_resumable, serve_websocket, sse_stream};

/// How long a POST or DELETE waits for an owner that can't be reached: it would end its client.
const SENDING: Duration = Duration::from_secs(30);
/// Time until a poll whose owner could not be reached looks for it again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// One request to a hub, authenticated.
struct HubRequest {
    app: App,
    hub: Arc<HubRuntime>,
    identity: Identity,
    query: Query,
    parts: Parts,
}

/// A response that ends a request early. Boxed, because every step of a request may return one.
struct EarlyResponse(Box<Response>);

impl<R: IntoResponse> From<R> for EarlyResponse {
    fn from(response: R) -> Self {
        Self(Box::new(response.into_response()))
    }
}

/// Serves a request to a hub's address.
pub(crate) async fn endpoint(app: App, hub: Arc<HubRuntime>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(kind) = RequestKind::of(&parts) else {
        let methods = [(header::ALLOW, "GET, POST, DELETE")];
        return (StatusCode::METHOD_NOT_ALLOWED, methods).into_response();
    };
    let (query, identity) = match admit(&app, &hub, &parts, kind).await {
        Ok(admitted) => admitted,
        Err(refusal) => return *refusal,
    };
    let refreshes = app.options().auth.refresh;
    let asked = HubRequest {
        app,
        hub,
        identity,
        query,
        parts,
    };
    let outcome = match kind {
        RequestKind::WebSocket => asked.websocket().await,
        RequestKind::EventStream => asked.event_stream().await,
        RequestKind::Poll => asked.poll().await,
        RequestKind::Send => asked.send(body).await,
        RequestKind::Delete => asked.delete().await,
    };
    let response = outcome.unwrap_or_else(|refusal| *refusal.0);
    // Of the refusals of a poll only that of another user is this one.
    if refreshes && kind == RequestKind::Poll && response.status() == StatusCode::FORBIDDEN {
        return refresh::required();
    }
    response
}

impl HubRequest {
    async fn websocket(mut self) -> Result<Response, EarlyResponse> {
        let upgrade = Upgrade::read(&mut self.parts).map_err(EarlyResponse)?;
        let token = self.token()?;
        if let Some(token) = token.as_ref().filter(|token| token.stateful) {
            let session = self.resumable(token).await?;
            session.connection().renew_if_longer(&self.identity); // it has come back with its present token
            return Ok(self.accept(upgrade, Messages::Stream, |socket| {
                serve_resumable(session, socket)
            }));
        }
        let reservation = match token {
            // Without negotiation the socket is the connection; the directory hears of it at the handshake.
            None if self.hub.hub().connecting().is_some() => {
                self.app.metrics().rejected.get(RejectLabel::Forbidden).inc();
                return Err(reply::asks_first().into());
            }
            None => {
                let id = random_connection_id().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
                let permit = self.admit().map_err(|full| self.refuse(full))?;
                let session = Session::new(Arc::clone(&self.hub), self.connection(id));
                session.occupy(permit);
                self.hub.registry().insert(&session);
                watch_expiry(&session);
                Reservation::new(session, false)
            }
            Some(token) => {
                let (newcomer, early) = self.take(&token, Attachment::Socket).await?;
                newcomer.socket.ok_or(StatusCode::CONFLICT)?.begin_with(early)
            }
        };
        Ok(self.accept(upgrade, Messages::Stream, |socket| {
            serve_websocket(reservation, socket)
        }))
    }

    /// Accepts a socket and serves it in a task that a drain waits for.
    fn accept<F>(
        &self,
        upgrade: Upgrade,
        messages: Messages,
        serve: impl FnOnce(Box<WebSocket>) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tracked = self.hub.shared().tasks().token(); // taken before the 101 goes out
        upgrade.accept(messages, self.hub.terms(), async move |socket| {
            serve(socket).await;
            drop(tracked);
        })
    }

    /// The session of a connection that outlives its sockets: a new one, or the one that lost its socket, wherever it was.
    async fn resumable(&self, token: &ConnectionToken) -> Result<Arc<Session>, EarlyResponse> {
        let claimant = Claimant::User(self.identity.user().cloned());
        // Of the present epoch the directory knows every connection, so one that is absent is new.
        let is_fresh = token.is_of(&self.hub.backplane().epoch());
        if let Some(session) = self.bring_back(&token.id, claimant, is_fresh).await? {
            return Ok(session);
        }
        let (newcomer, early) = self.take(token, Attachment::Resumable).await?;
        newcomer.session.connection().set_transport(Transport::WebSockets);
        receive_early(&newcomer.session, early)?;
        Ok(newcomer.session)
    }

    /// The session of a connection that lost its socket, wherever it was. `None` where there is no such connection. Clients
    /// try this once: while the directory can't answer, they wait.
    async fn bring_back(
        &self,
        id: &ConnectionId,
        claimant: Claimant,
        is_fresh: bool,
    ) -> Result<Option<Arc<Session>>, EarlyResponse> {
        let until = Instant::now() + self.hub.options().timeouts.disconnect;
        let attempt = || self.try_to_bring_back(id, claimant.clone(), is_fresh).boxed();
        Ok(persist(until, attempt).await?)
    }

    async fn try_to_bring_back(
        &self,
        id: &ConnectionId,
        claimant: Claimant,
        is_fresh: bool,
    ) -> Result<Option<Arc<Session>>, Missed> {
        if let Some(session) = self.hub.registry().find(id)
            && session.connection().transport() == Some(Transport::WebSockets)
        {
            if let Claimant::User(user) = &claimant
                && session.connection().user() != user.as_ref()
            {
                return Err(reply::answer(owner::other_user()).into());
            }
            if let Some(session) = self.resumed_here(session).await? {
                session.occupy(self.app.gate().count(session.connection().user(), &self.parts));
                return Ok(Some(session));
            }
        }
        let restoring = restore(Arc::clone(&self.hub), id.clone(), claimant);
        let Ok(restored) = self.hub.shared().tasks().spawn(restoring).await else {
            return Err(StatusCode::INTERNAL_SERVER_ERROR.into());
        };
        let restored = match restored {
            Err(BackplaneError::Unsettled) if is_fresh => Restored::Absent,
            restored => restored?,
        };
        match restored {
            Restored::Session(session) => {
                let user = session.connection().user();
                session.occupy(self.app.gate().count(user, &self.parts));
                session.connection().renew_if_longer(&self.identity);
                watch_expiry(&session);
                Ok(Some(session))
            }
            Restored::OtherUser => Err(reply::answer(owner::other_user()).into()),
            Restored::Unknown => Err(self.unknown("it has ended, or can't be continued exactly").into()),
            Restored::Busy => Err(StatusCode::CONFLICT.into()),
            Restored::Absent => Ok(None),
        }
    }

    /// A session of this node whose client comes back. `None` when it is no longer this node's.
    async fn resumed_here(&self, session: Arc<Session>) -> Result<Option<Arc<Session>>, Missed> {
        let Some(version) = session.version() else {
            return Err(StatusCode::CONFLICT.into());
        };
        let backplane = self.hub.backplane();
        let listing = backplane.look_up(session.id()).await?;
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
            return Err(self.unknown("its session is ending").into()); // it is saying goodbye, and must not come back
        }
        session.ended().await;
        Ok(None)
    }

    async fn event_stream(self) -> Result<Response, EarlyResponse> {
        let token = self.required_token()?;
        let (newcomer, early) = self.take(&token, Attachment::EventStream).await?;
        let session = newcomer.session;
        session.connection().set_transport(Transport::ServerSentEvents);
        receive_early(&session, early)?;
        Ok(reply::event_stream(Body::from_stream(sse_stream(session))))
    }

    async fn poll(self) -> Result<Response, EarlyResponse> {
        let token = self.required_token()?;
        let patience = self.hub.options().timeouts.long_poll;
        let end = Instant::now() + patience;
        let left = || end.saturating_duration_since(Instant::now());
        let as_newcomer = self.until(&token, patience);
        loop {
            let until = if self.exists(&token) { end } else { as_newcomer };
            let found = persist(until, || self.find(&token, Wanted::Any).boxed()).await;
            let missed = match found {
                Ok(Found::Here(session)) => {
                    return Ok(reply::answer(owner::poll(&session, left(), self.newer()).await));
                }
                Ok(Found::New(newcomer)) => {
                    return Ok(reply::answer(
                        owner::poll(&newcomer.session, left(), self.newer()).await,
                    ));
                }
                Ok(Found::Elsewhere(owner)) => match self.poll_elsewhere(&owner, &token.id, left()).await {
                    Ok(answer) => return Ok(reply::answer(answer)),
                    Err(error) => error.into(),
                },
                Err(missed) => missed,
            };
            match missed {
                // Its client loses nothing by polling again, and would give up after an error.
                Missed::Unsure if self.exists(&token) => {
                    if left().is_zero() {
                        return Ok(reply::answer(OwnerAnswer::status(200)));
                    }
                    sleep(LOOK_AGAIN).await;
                }
                missed => return Err(missed.into()),
            }
        }
    }

    /// The identity of the request's token, where a newer one is taken for the connection's.
    fn newer(&self) -> Option<&Identity> {
        Some(&self.identity).filter(|_| self.app.options().auth.refresh)
    }

    /// A node that leaves does not cut off the polls of connections that stay: it has their owners answer.
    async fn poll_elsewhere(
        &self,
        owner: &NodeId,
        connection: &ConnectionId,
        patience: Duration,
    ) -> Result<OwnerAnswer, BackplaneError> {
        let forward = self.forward(owner, connection);
        let polling = forward.poll(patience, self.newer());
        tokio::pin!(polling);
        tokio::select! {
            answer = &mut polling => return answer,
            () = self.app.leaving().cancelled() => {}
        }
        forward.yield_poll().await?;
        polling.await
    }

    async fn send(self, body: Body) -> Result<Response, EarlyResponse> {
        let token = self.required_token()?;
        let end = Instant::now() + SENDING;
        // Looked up before the body is read: nothing is allocated for strangers.
        let until = self.until(&token, SENDING);
        let found = persist(until, || self.find(&token, Wanted::Any).boxed()).await?;
        let received = match found {
            Found::Here(session) => receive(&session, body).await,
            Found::New(newcomer) => receive(&newcomer.session, body).await,
            Found::Elsewhere(owner) => self.send_elsewhere(&owner, &token, body, end).await?,
        };
        let answer = received.map_err(|error| self.no_body(error))?;
        if answer.status == 200 {
            return Ok(StatusCode::OK.into_response());
        }
        Ok(reply::answer(answer))
    }

    /// Hands a POST to the owner of its connection, one part after the other, each once, for the owner may have taken it. When
    /// that is dead, the directory has the last word.
    async fn send_elsewhere(
        &self,
        owner: &NodeId,
        token: &ConnectionToken,
        body: Body,
        end: Instant,
    ) -> Result<Result<OwnerAnswer, BodyError>, Missed> {
        let mut sending = Sending::new(self, owner, token, body);
        loop {
            let part = match sending.next_part().await {
                Ok(part) => part,
                Err(error) => return Ok(Err(error)),
            };
            let more = part.more;
            match sending.forward().receive(part, SENDING).await {
                Ok(answer) if more && answer.status == 200 => sending.begun = true,
                Err(BackplaneError::NodeUnreachable { .. }) => break,
                answer => {
                    sending.begun = false;
                    return Ok(Ok(answer?));
                }
            }
        }
        sending.begun = false;
        let end = end.max(Instant::now() + LOOK_AGAIN);
        Ok(Ok(persist(end, || self.removed(token).boxed()).await?))
    }

    /// The answer to a request for a connection whose owner is dead, as soon as the directory knows.
    async fn removed(&self, token: &ConnectionToken) -> Result<OwnerAnswer, Missed> {
        match self.find(token, Wanted::Existing).await? {
            Found::Elsewhere(_) => Err(Missed::Unsure),
            Found::Here(_) | Found::New(_) => Err(reply::unavailable().into()),
        }
    }

    async fn delete(self) -> Result<Response, EarlyResponse> {
        let token = self.required_token()?;
        let end = Instant::now() + SENDING;
        // The request may come twice to an owner, which ends a connection once.
        let answer = persist(end, || self.try_to_delete(&token, end).boxed()).await?;
        Ok(reply::answer(answer))
    }

    async fn try_to_delete(&self, token: &ConnectionToken, end: Instant) -> Result<OwnerAnswer, Missed> {
        Ok(match self.find(token, Wanted::Existing).await? {
            Found::Here(session) => owner::delete(&session),
            Found::New(newcomer) => owner::delete(&newcomer.session),
            Found::Elsewhere(owner) => {
                let left = end.saturating_duration_since(Instant::now());
                self.forward(&owner, &token.id).delete(left).await?
            }
        })
    }

    /// The answer to a POST whose body did not come.
    fn no_body(&self, error: BodyError) -> EarlyResponse {
        match error {
            BodyError::Late => {
                let text =
                    "The body came too slowly (timeouts.receive_seconds, limits.least_bytes_per_second)";
                reply::text(StatusCode::REQUEST_TIMEOUT, text).into()
            }
            BodyError::NoRoom => {
                self.app.metrics().limited.get(LimitLabel::HeldBytes).inc();
                reply::limited(LimitLabel::HeldBytes).into()
            }
            BodyError::TooLarge | BodyError::Broken => StatusCode::BAD_REQUEST.into(),
        }
    }

    /// The connection token, if there is one, checked.
    fn token(&self) -> Result<Option<ConnectionToken>, EarlyResponse> {
        let Some(text) = self.query.get("id").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let now = self.hub.shared().backplane().now();
        match self.app.tokens().read(self.hub.name(), text, now) {
            Ok(token) => Ok(Some(token)),
            Err(_) => Err(self.unknown("its token is of another hub or cluster").into()),
        }
    }

    fn required_token(&self) -> Result<ConnectionToken, EarlyResponse> {
        self.token()?
            .ok_or_else(|| reply::text(StatusCode::BAD_REQUEST, "Connection ID required").into())
    }

    /// Says that there is no such connection; the log says why, for operators who look for a client that was refused.
    fn unknown(&self, why: &str) -> Response {
        tracing::debug!(hub = %self.hub.name(), why, "a request for a connection that is not known");
        self.app
            .metrics()
            .rejected
            .get(RejectLabel::UnknownConnection)
            .inc();
        reply::answer(owner::unknown_connection())
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
fn receive_early(session: &Session, early: Detached) -> Result<(), EarlyResponse> {
    match session.http().map(|link| link.receive_early(early)) {
        Some(Err(_)) => Err(reply::answer(owner::unknown_connection()).into()),
        _ => Ok(()),
    }
}
