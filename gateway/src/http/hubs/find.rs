//! Where the connection of a request is: on this node, on another one, or on this node from now on.

use std::sync::Arc;

use axum::http::StatusCode;
use hubcast_backplane::{BackplaneError, Claim, ConnectionId, ConnectionRecord, NodeId};

use super::{Asked, Refusal, unreachable_owner};
use crate::auth::ConnectionToken;
use crate::http::admit::{Closed, let_in};
use crate::http::{expiry, owned, reply};
use crate::hub::Transport;
use crate::limits::Seat;
use crate::session::Session;
use crate::telemetry::labels::{LimitLabel, RejectLabel};
use crate::transport::{Detached, Reservation, run_over_http};

/// Where a connection is.
pub(super) enum Found {
    Here(Arc<Session>),
    Elsewhere(NodeId),
    /// The directory did not know it; it is this node's now.
    New(Box<Newcomer>),
}

/// A connection that this node has just claimed. Given up when dropped.
pub(super) struct Newcomer {
    pub(super) session: Arc<Session>,
    pub(super) socket: Option<Reservation>,
}

/// Which connections a request can be for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// One that exists.
    Existing,
    /// One that exists anywhere, or a new one.
    Any,
    /// One that is to be here: a new one, or one that has no transport yet.
    Here { over_http: bool },
    /// One that its owner has just given up for this node.
    GivenUp { over_http: bool },
}

impl Asked {
    /// Lets a new connection in, before anything is made for it.
    pub(super) fn admit(&self) -> Result<Seat, Closed> {
        let_in(&self.app, self.identity.user(), &self.parts)
    }

    pub(super) fn refuse(&self, closed: Closed) -> Refusal {
        let metrics = self.app.metrics();
        let Closed::Limit(limit) = closed else {
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
        transport: Transport,
        over_http: bool,
    ) -> Result<(Box<Newcomer>, Detached), Refusal> {
        let answer = match self.find(token, Wanted::Here { over_http }).await? {
            Found::New(newcomer) => return Ok((newcomer, Detached::new())),
            Found::Here(session) => owned::hand_over(&session, transport).await,
            Found::Elsewhere(owner) => self
                .forward(&owner, &token.id)
                .attach(transport)
                .await
                .map_err(unreachable_owner)?,
        };
        if answer.status != 200 {
            return Err(reply::answer(answer).into());
        }
        match self.find(token, Wanted::GivenUp { over_http }).await? {
            Found::New(newcomer) => Ok((newcomer, answer.early)),
            _ => Err(StatusCode::CONFLICT.into()), // another request was faster
        }
    }

    /// Looks for a connection here, then in the directory. A token that still may makes it this node's.
    pub(super) async fn find(&self, token: &ConnectionToken, wanted: Wanted) -> Result<Found, Refusal> {
        if let Some(session) = self.hub.registry().find(&token.id) {
            return self.found_here(session);
        }
        let wanted = match token.creates_within {
            Some(_) => wanted,
            None => Wanted::Existing,
        };
        let owner = match (self.let_in(wanted), wanted) {
            (_, Wanted::Existing) => self.owner(&token.id).await?.ok_or_else(|| self.unknown())?,
            (Ok(seat), _) => match self.claim(token.id.clone(), wanted, seat).await? {
                Ok(newcomer) => return Ok(Found::New(Box::new(newcomer))),
                Err(Claim::Owned(owner)) => owner,
                Err(_) => return Err(self.unknown().into()),
            },
            // What needs no place here is served, wherever the connection is.
            (Err(closed), Wanted::Any) => {
                let owner = self.owner(&token.id).await?;
                owner.ok_or_else(|| self.refuse(closed))?
            }
            (Err(closed), _) => return Err(self.refuse(closed)),
        };
        if owner != *self.hub.shared().backplane().node() {
            return Ok(Found::Elsewhere(owner));
        }
        match self.hub.find_settled(&token.id).await {
            Some(session) => self.found_here(session),
            None => Err(self.unknown().into()),
        }
    }

    fn let_in(&self, wanted: Wanted) -> Result<Seat, Closed> {
        match wanted {
            Wanted::Existing => Ok(Seat::default()),
            Wanted::Any | Wanted::Here { .. } => self.admit(),
            Wanted::GivenUp { .. } => Ok(self.app.gate().count(self.identity.user(), &self.parts)),
        }
    }

    async fn owner(&self, id: &ConnectionId) -> Result<Option<NodeId>, Refusal> {
        let backplane = self.hub.shared().backplane();
        let listing = backplane.look_up(self.hub.name(), id).await;
        Ok(listing
            .map_err(unreachable_owner)?
            .and_then(|listing| listing.owner))
    }

    fn found_here(&self, session: Arc<Session>) -> Result<Found, Refusal> {
        if session.is_over() {
            return Err(self.unknown().into());
        }
        if session.connection().user() == self.identity.user() {
            return Ok(Found::Here(session));
        }
        self.app.metrics().rejected.get(RejectLabel::Forbidden).inc();
        Err(reply::answer(owned::other_user()).into())
    }

    /// Claims a connection and registers its session. In a task of its own, so that a client that goes away in between
    /// leaves nothing behind.
    async fn claim(
        &self,
        id: ConnectionId,
        wanted: Wanted,
        seat: Seat,
    ) -> Result<Result<Newcomer, Claim>, Refusal> {
        let hub = Arc::clone(&self.hub);
        let connection = self.connection(id);
        let over_http = wanted.over_http();
        let claiming = self.hub.shared().tasks().spawn(async move {
            let record = ConnectionRecord {
                id: connection.id().clone(),
                user: connection.user().cloned(),
                state: None,
            };
            let claim = hub.shared().backplane().claim(hub.name(), &record).await?;
            if claim != Claim::Claimed {
                return Ok(Err(claim));
            }
            let new = if over_http {
                Session::over_http
            } else {
                Session::new
            };
            let session = new(Arc::clone(&hub), connection);
            session.occupy(seat);
            hub.registry().insert(&session);
            expiry::watch(&session);
            let socket = if over_http {
                hub.shared()
                    .tasks()
                    .spawn(run_over_http(Arc::clone(&session), false));
                None
            } else {
                Some(Reservation::new(Arc::clone(&session), true))
            };
            Ok::<_, BackplaneError>(Ok(Newcomer { session, socket }))
        });
        match claiming.await {
            Ok(outcome) => {
                if matches!(outcome, Ok(Err(_))) && !matches!(wanted, Wanted::GivenUp { .. }) {
                    self.app.gate().was_not_new();
                }
                outcome.map_err(unreachable_owner)
            }
            Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR.into()),
        }
    }
}

impl Wanted {
    /// Whether a session of it is many requests.
    fn over_http(self) -> bool {
        match self {
            Self::Here { over_http } | Self::GivenUp { over_http } => over_http,
            Self::Existing | Self::Any => true,
        }
    }
}
