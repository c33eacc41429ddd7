//! Requests that arrive at a node which does not own their connection go to the node that does.

mod message;
pub(crate) mod owner;
mod peers;
mod serve;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hubcast_backplane::{BackplaneError, ConnectionId, NodeId, Unheard, UserId};
use prost::Message as _;

use crate::auth::Identity;
use crate::hub::HubRuntime;
use crate::protocol::Encoding;
use crate::protocol::Transport;
use crate::session::Session;
use crate::telemetry::labels::ForwardLabel;
use message::{Ask, NodeReply, NodeRequest, ask};

pub(crate) use message::{OwnerAnswer, ask::Receive};
pub(crate) use peers::Cluster;
pub(crate) use serve::ServeNode;

/// How long the owner may take for a request that it can answer at once.
const PROMPT: Duration = Duration::from_secs(15);

/// How much later than a poll's own end its answer may come.
const POLL_GRACE: Duration = Duration::from_secs(3);

/// One request of a client, on its way to the owner of its connection.
pub(crate) struct Forward<'a> {
    pub(crate) hub: &'a Arc<HubRuntime>,
    pub(crate) owner: &'a NodeId,
    pub(crate) connection: &'a ConnectionId,
    /// The client's user, as authenticated on this node.
    pub(crate) user: Option<&'a UserId>,
}

/// Some bytes of a POST's body.
pub(crate) struct BodyPart {
    pub(crate) bytes: Bytes,
    /// Names the body, if it has several parts.
    pub(crate) number: Option<u64>,
    /// Another part follows.
    pub(crate) more: bool,
}

impl<'a> Forward<'a> {
    /// Makes requests on behalf of a session's client.
    fn of(owner: &'a NodeId, session: &'a Session) -> Self {
        Self {
            hub: session.hub(),
            owner,
            connection: session.id(),
            user: session.connection().user(),
        }
    }

    /// Makes requests on behalf of this node itself.
    fn of_node(hub: &'a Arc<HubRuntime>, owner: &'a NodeId, connection: &'a ConnectionId) -> Self {
        Self {
            hub,
            owner,
            connection,
            user: None,
        }
    }

    /// A GET of a long-polling client, which the owner is to answer in time.
    /// `newer` is the identity of its token, where a newer one is taken.
    pub(crate) async fn poll(
        &self,
        patience: Duration,
        newer: Option<&Identity>,
    ) -> Result<OwnerAnswer, BackplaneError> {
        let until = self.hub.shared().backplane().now() + patience;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let poll = Ask::Poll(ask::Poll {
            until: u64::try_from(until).unwrap_or(u64::MAX),
            identity: newer.and_then(Identity::to_json).unwrap_or_default().into(),
        });
        self.ask(poll, ForwardLabel::Poll, patience.saturating_add(POLL_GRACE))
            .await
    }

    /// Ends a poll that was forwarded before, without ending the connection.
    pub(crate) async fn yield_poll(&self) -> Result<OwnerAnswer, BackplaneError> {
        self.ask(Ask::YieldPoll(ask::YieldPoll {}), ForwardLabel::Poll, PROMPT)
            .await
    }

    /// A part of a POST, which waits for room in the session's inbox.
    pub(crate) async fn receive(
        &self,
        part: BodyPart,
        patience: Duration,
    ) -> Result<OwnerAnswer, BackplaneError> {
        let receive = ask::Receive {
            body: part.bytes,
            number: part.number,
            more: part.more,
            broken: false,
        };
        self.ask(Ask::Receive(receive), ForwardLabel::Post, patience)
            .await
    }

    /// The body broke off of which parts were sent.
    pub(crate) async fn break_off(&self, number: u64) {
        let receive = ask::Receive {
            number: Some(number),
            broken: true,
            ..ask::Receive::default()
        };
        // When it does not arrive, the owner gives up by itself.
        let _ = self.ask(Ask::Receive(receive), ForwardLabel::Post, PROMPT).await;
    }

    /// A DELETE.
    pub(crate) async fn delete(&self, patience: Duration) -> Result<OwnerAnswer, BackplaneError> {
        self.ask(Ask::Delete(ask::Delete {}), ForwardLabel::Delete, patience)
            .await
    }

    /// A newer token of the client.
    pub(crate) async fn refresh(&self, identity: &Identity) -> Result<OwnerAnswer, BackplaneError> {
        let identity = identity.to_json().unwrap_or_default().into();
        self.ask(
            Ask::Refresh(ask::Refresh {
                identity,
                by_server: false,
            }),
            ForwardLabel::Refresh,
            PROMPT,
        )
        .await
    }

    /// A socket or event stream that wants to live here. Answered with the bytes that came in so far, or with the
    /// reason why not.
    pub(crate) async fn attach(&self, transport: Transport) -> Result<OwnerAnswer, BackplaneError> {
        let transport = u32::try_from(transport.index()).unwrap_or(u32::MAX);
        self.ask(
            Ask::Attach(ask::Attach { transport }),
            ForwardLabel::Attach,
            PROMPT,
        )
        .await
    }

    async fn ask(
        &self,
        ask: Ask,
        label: ForwardLabel,
        patience: Duration,
    ) -> Result<OwnerAnswer, BackplaneError> {
        let request = NodeRequest {
            hub: self.hub.name().to_string(),
            connection: self.connection.to_string(),
            user: self.user.map(ToString::to_string),
            ask: Some(ask),
        };
        let reply = send(self.hub, self.owner, &request, label, patience).await?;
        Ok(reply.into())
    }
}

async fn send(
    hub: &HubRuntime,
    node: &NodeId,
    request: &NodeRequest,
    label: ForwardLabel,
    patience: Duration,
) -> Result<NodeReply, BackplaneError> {
    hub.shared().metrics().forwarded_requests.get(label).inc();
    let _tracked = hub.shared().tasks().token(); // a node that leaves lets it come to its end
    let unheard = match &request.ask {
        Some(Ask::HandOver(_)) => Unheard::GiveUp, // an owner that does not hear is shut out
        _ => Unheard::Wait,
    };
    let payload = Bytes::from(request.encode_to_vec());
    let backplane = hub.shared().backplane();
    let reply = backplane.request(node, payload, patience, unheard).await?;
    NodeReply::decode(reply).map_err(|error| BackplaneError::Malformed {
        what: error.to_string(),
    })
}

fn encoding(packed: bool) -> Encoding {
    if packed {
        Encoding::MessagePack
    } else {
        Encoding::Json
    }
}
