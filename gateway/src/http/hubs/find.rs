//! Finds the connection of a request: on this node, on another one, or on this node from now on.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubcast_backplane::{BackplaneError, Claim, ConnectionId, ConnectionRecord, EventRecord, NodeId};
use tokio::time::{Instant, sleep, timeout_at};

use super::{EarlyResponse, HubRequest};
use crate::auth::ConnectionToken;
use crate::cluster::OwnerAnswer;
use crate::cluster::owner;
use crate::http::admit::{NotAdmitted, let_in};
use crate::http::reply;
use crate::limits::ConnectionPermit;
use crate::protocol::Transport;
use crate::session::Session;
use crate::session::{Detached, run_over_http, watch_expiry};
use crate::telemetry::labels::{LimitLabel, RejectLabel};
use crate::transport::Reservation;

/// The node that has a connection.
pub(super) enum Found {
    Here(Arc<Session>),
    Elsewhere(NodeId),
    /// The directory did not know it; it is this node's now.
    New(Box<Newcomer>),
}

/// The reason why a connection was not found.
pub(super) enum Missed {
    /// The request ends with this.
    Refused(EarlyResponse),
    /// It is unknown now where the connection is, or whether there is one: the backplane is away or has just come back,
    /// or the owner has died and was not removed yet.
    Unsure,
}

impl From<EarlyResponse> for Missed {
    fn from(refusal: EarlyResponse) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Response> for Missed {
    fn from(response: Response) -> Self {
        Self::Refused(response.into())
    }
}

impl From<StatusCode> for Missed {
    fn from(status: StatusCode) -> Self {
        Self::Refused(status.into())
    }
}

impl From<BackplaneError> for Missed {
    fn from(error: BackplaneError) -> Self {
        if error.is_transient() {
            tracing::debug!(%error, "a request can't be served yet");
            return Self::Unsure;
        }
        tracing::error!(%error, "a request could not be served");
        let answer = OwnerAnswer::refused(500, "The request could not be served");
        reply::answer(answer).into()
    }
}

impl From<Missed> for EarlyResponse {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::Refused(refusal) => refusal,
            Missed::Unsure => reply::unavailable().into(),
        }
    }
}

/// Time between two looks for a connection, at first and later.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Tries until it is known where a connection is, or until a time.
pub(super) async fn persist<'a, T>(
    until: Instant,
    mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, Missed>>,
) -> Result<T, Missed> {
    let mut pause = LOOKS.0;
    let trying = async {
        loop {
            match attempt().await {
                Err(Missed::Unsure) => sleep(pause).await,
                outcome => return outcome,
            }
            pause = (pause * 2).min(LOOKS.1);
        }
    };
    timeout_at(until, trying).await.unwrap_or(Err(Missed::Unsure))
}

/// A connection that this node has just claimed. Given up when dropped.
pub(super) struct Newcomer {
    pub(super) session: Arc<Session>,
    pub(super) socket: Option<Box<Reservation>>,
}

/// The connections that a request can be for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// A connection that exists on this node.
    Existing,
    /// A connection that exists on any node, or a new one.
    Any,
    /// A connection that is to be on this node: a new one, or one that has no transport yet.
    Here(Attachment),
    /// A connection that its owner has just given up for this node.
    GivenUp(Attachment),
}

/// The transport that a connection is to get.
#[derive(Clone, Copy)]
pub(super) enum Attachment {
    /// A socket, with which it ends.
    Socket,
    /// The first of the sockets that it outlives.
    Resumable,
    EventStream,
}

impl Attachment {
    fn transport(self) -> Transport {
        match self {
            Self::Socket | Self::Resumable => Transport::WebSockets,
            Self::EventStream => Transport::ServerSentEvents,
        }
    }
}

/// The outcome of asking for a connection that is to get a transport here.
enum AttachOutcome {
    New(Box<Newcomer>),
    /// Its owner's answer.
    Owner(OwnerAnswer),
}

impl HubRequest {
    /// Lets a new connection in, before anything is made for it.
    pub(super) fn admit(&self) -> Result<ConnectionPermit, NotAdmitted> {
        let_in(&self.app, self.identity.user(), &self.parts)
    }

    pub(super) fn refuse(&self, closed: NotAdmitted) -> EarlyResponse {
        let metrics = self.app.metrics();
        let NotAdmitted::Limit(limit) = closed else {
            metrics.rejected.get(RejectLabel::Capacity).inc();
            return reply::leaving().into();
        };
        metrics.limited.get(limit).inc();
        let own = matches!(
            limit,
            LimitLabel::ConnectionsPerUser | LimitLabel::ConnectionsPerAddress
        );
        let reason = if own {
            RejectLabel::Limited
        } else {
            RejectLabel::Capacity
        };
        metrics.rejected.get(reason).inc();
        reply::limited(limit).into()
    }

    /// Gets a connection for a socket or an event stream of this node, from wherever it is.
    pub(super) async fn take(
        &self,
        token: &ConnectionToken,
        attachment: Attachment,
    ) -> Result<(Box<Newcomer>, Detached), EarlyResponse> {
        let until = self.until(token, self.hub.options().timeouts.disconnect);
        let asking = persist(until, || self.ask_for(token, attachment).boxed());
        let answer = match asking.await? {
            AttachOutcome::New(newcomer) => return Ok((newcomer, Detached::new())),
            AttachOutcome::Owner(answer) => answer,
        };
        if answer.status != 200 {
            return Err(reply::answer(answer).into());
        }
        let until = until.max(Instant::now() + LOOKS.1);
        let given_up = persist(until, || self.find(token, Wanted::GivenUp(attachment)).boxed());
        match given_up.await? {
            Found::New(newcomer) => Ok((newcomer, answer.early)),
            _ => Err(StatusCode::CONFLICT.into()), // another request was faster
        }
    }

    /// A new connection, or the answer of the owner of one.
    async fn ask_for(
        &self,
        token: &ConnectionToken,
        attachment: Attachment,
    ) -> Result<AttachOutcome, Missed> {
        let transport = attachment.transport();
        Ok(match self.find(token, Wanted::Here(attachment)).await? {
            Found::New(newcomer) => AttachOutcome::New(newcomer),
            Found::Here(session) => AttachOutcome::Owner(owner::hand_over(&session, transport).await),
            Found::Elsewhere(owner) => match self.forward(&owner, &token.id).attach(transport).await {
                // Its owner may have given it up, with the bytes that came in before: it is not requested anew.
                Err(BackplaneError::Timeout { .. }) => {
                    return Err(reply::unavailable().into());
                }
                answer => AttachOutcome::Owner(answer?),
            },
        })
    }

    /// The time until which a connection is looked for, from now on. A newcomer does not wait for longer than a
    /// connection may go without a transport.
    pub(super) fn until(&self, token: &ConnectionToken, most: Duration) -> Instant {
        let newcomer = self.hub.options().timeouts.disconnect;
        let most = if self.exists(token) {
            most
        } else {
            most.min(newcomer)
        };
        Instant::now() + most
    }

    /// Returns whether there is, or was, a connection with this token, as far as this node knows by itself.
    pub(super) fn exists(&self, token: &ConnectionToken) -> bool {
        token.creates_within.is_none() || self.hub.known().contains(&token.id)
    }

    /// Looks for a connection here, then in the directory. A token that still may makes it this node's.
    pub(super) async fn find(&self, token: &ConnectionToken, wanted: Wanted) -> Result<Found, Missed> {
        if let Some(session) = self.hub.registry().find(&token.id) {
            return Ok(self.found_here(session)?);
        }
        let wanted = match token.creates_within {
            Some(_) => wanted,
            None => Wanted::Existing,
        };
        let owner = match (self.let_in(wanted), wanted) {
            (_, Wanted::Existing) => match self.owner(&token.id).await? {
                Some(owner) => owner,
                None => return Err(self.unknown("nobody owns it").into()),
            },
            (Ok(permit), _) => match self.claim(token, wanted, permit).await? {
                Ok(newcomer) => return Ok(Found::New(Box::new(newcomer))),
                Err(Claim::Owned(owner)) => owner,
                Err(_) => {
                    return Err(self
                        .unknown("it was closed, or waits for a node to take it over")
                        .into());
                }
            },
            // A request that needs no connection permit here is served, wherever the connection is.
            (Err(closed), Wanted::Any) => {
                let owner = self.owner(&token.id).await?;
                owner.ok_or_else(|| self.refuse(closed))?
            }
            (Err(closed), _) => return Err(self.refuse(closed).into()),
        };
        if owner != *self.hub.shared().backplane().node() {
            if let Some(young) = token.creates_within {
                let requests = self.hub.options().timeouts.long_poll; // those that begin before that last as long
                self.hub.known().note(&token.id, young + requests);
            }
            return Ok(Found::Elsewhere(owner));
        }
        match self.hub.find_settled(&token.id).await {
            Some(session) => Ok(self.found_here(session)?),
            None => Err(self.unknown("its owner does not have it any more").into()),
        }
    }

    fn let_in(&self, wanted: Wanted) -> Result<ConnectionPermit, NotAdmitted> {
        match wanted {
            Wanted::Existing => Ok(ConnectionPermit::default()),
            Wanted::Any | Wanted::Here(_) => self.admit(),
            Wanted::GivenUp(_) => Ok(self.app.gate().count(self.identity.user(), &self.parts)),
        }
    }

    async fn owner(&self, id: &ConnectionId) -> Result<Option<NodeId>, BackplaneError> {
        let backplane = self.hub.backplane();
        let listing = backplane.look_up(id).await?;
        Ok(listing.and_then(|listing| listing.owner))
    }

    fn found_here(&self, session: Arc<Session>) -> Result<Found, EarlyResponse> {
        if session.is_over() {
            return Err(self.unknown("its session is over").into());
        }
        if session.connection().user() == self.identity.user() {
            return Ok(Found::Here(session));
        }
        self.app.metrics().rejected.get(RejectLabel::Forbidden).inc();
        Err(reply::answer(owner::other_user()).into())
    }

    /// Claims a connection and registers its session. In a task of its own, so that a client that goes away in between
    /// leaves no trace.
    async fn claim(
        &self,
        token: &ConnectionToken,
        wanted: Wanted,
        permit: ConnectionPermit,
    ) -> Result<Result<Newcomer, Claim>, Missed> {
        let hub = Arc::clone(&self.hub);
        if !self.app.tokens().is_for(hub.name(), token, self.identity.user()) {
            return Err(reply::answer(owner::other_user()).into());
        }
        let connection = self.connection(token.id.clone());
        let epoch = Some(hub.backplane().epoch()).filter(|epoch| token.is_of(epoch));
        let attachment = wanted.attachment();
        let claiming = self.hub.shared().tasks().spawn(async move {
            let record = ConnectionRecord {
                id: connection.id().clone(),
                user: connection.user().cloned(),
                state: None,
                event: EventRecord::default(),
            };
            let backplane = hub.backplane();
            let claim = backplane.claim_of(&record, epoch.as_ref()).await?;
            if claim != Claim::Claimed {
                return Ok(Err(claim));
            }
            let new = match attachment {
                Some(Attachment::Socket) => Session::new,
                Some(Attachment::Resumable) => Session::resumable,
                Some(Attachment::EventStream) | None => Session::over_http,
            };
            let session = new(Arc::clone(&hub), connection);
            session.occupy(permit);
            hub.registry().insert(&session);
            watch_expiry(&session);
            let socket = if let Some(Attachment::Socket) = attachment {
                Some(Reservation::new(Arc::clone(&session), true))
            } else {
                let running = run_over_http(Arc::clone(&session), false);
                hub.shared().tasks().spawn(running);
                None
            };
            Ok::<_, BackplaneError>(Ok(Newcomer { session, socket }))
        });
        match claiming.await {
            Ok(outcome) => {
                if !matches!(outcome, Ok(Ok(_))) && !matches!(wanted, Wanted::GivenUp(_)) {
                    self.app.gate().was_not_new();
                }
                Ok(outcome?)
            }
            Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR.into()),
        }
    }
}

impl Wanted {
    /// The transport for which the connection is wanted; `None` where any request will do.
    fn attachment(self) -> Option<Attachment> {
        match self {
            Self::Here(attachment) | Self::GivenUp(attachment) => Some(attachment),
            Self::Existing | Self::Any => None,
        }
    }
}
