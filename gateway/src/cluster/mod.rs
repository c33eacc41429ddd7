//! Requests that arrive at a node which does not own their connection go to the node that does.

mod message;
mod serve;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hubcast_backplane::{BackplaneError, ConnectionId, GroupName, NodeId, Unheard, UserId};
use prost::Message as _;

use crate::auth::Identity;
use crate::error::Error;
use crate::hub::{HubRuntime, Transport};
use crate::protocol::{Encoding, HubProtocol, Value};
use crate::session::{AskError, Session};
use crate::telemetry::labels::ForwardLabel;
use message::{Ask, NodeReply, NodeRequest, ask};

pub(crate) use message::{Answer, ask::Receive};
pub(crate) use serve::ServeNode;

/// How long the owner may take for what it can answer at once.
const PROMPT: Duration = Duration::from_secs(15);

/// How much later than a poll's own end its answer may come.
const POLL_GRACE: Duration = Duration::from_secs(3);

/// How long an owner may take to give a session up before it is shut out. Clients try to resume once, and wait.
const HAND_OVER: Duration = Duration::from_secs(2);

/// How long a client may keep calls waiting that stream to it from another node, before they ask again.
const DRAINED: Duration = Duration::from_secs(60);

/// One request of a client, on its way to the owner of its connection.
pub(crate) struct Forward<'a> {
    pub(crate) hub: &'a Arc<HubRuntime>,
    pub(crate) owner: &'a NodeId,
    pub(crate) connection: &'a ConnectionId,
    /// Who the client said it is on this node.
    pub(crate) user: Option<&'a UserId>,
}

/// Some bytes of a POST's body.
pub(crate) struct Part {
    pub(crate) bytes: Bytes,
    /// Names the body, if it has several parts.
    pub(crate) number: Option<u64>,
    /// Another part follows.
    pub(crate) more: bool,
}

impl<'a> Forward<'a> {
    /// On behalf of a session's client.
    fn of(hub: &'a Arc<HubRuntime>, owner: &'a NodeId, session: &'a Session) -> Self {
        Self {
            hub,
            owner,
            connection: session.id(),
            user: session.connection().user(),
        }
    }

    /// A GET of a long-polling client, which the owner is to answer in time.
    /// `newer` is what its token says, where a newer one is taken.
    pub(crate) async fn poll(
        &self,
        patience: Duration,
        newer: Option<&Identity>,
    ) -> Result<Answer, BackplaneError> {
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
    pub(crate) async fn yield_poll(&self) -> Result<Answer, BackplaneError> {
        self.ask(Ask::YieldPoll(ask::YieldPoll {}), ForwardLabel::Poll, PROMPT)
            .await
    }

    /// A part of a POST, which waits for room in the session's inbox.
    pub(crate) async fn receive(&self, part: Part, patience: Duration) -> Result<Answer, BackplaneError> {
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
    pub(crate) async fn delete(&self, patience: Duration) -> Result<Answer, BackplaneError> {
        self.ask(Ask::Delete(ask::Delete {}), ForwardLabel::Delete, patience)
            .await
    }

    /// A newer token of the client.
    pub(crate) async fn refresh(&self, identity: &Identity) -> Result<Answer, BackplaneError> {
        let identity = identity.to_json().unwrap_or_default().into();
        self.ask(
            Ask::Refresh(ask::Refresh { identity }),
            ForwardLabel::Refresh,
            PROMPT,
        )
        .await
    }

    /// A socket or event stream that wants to live here. Answered with what came in so far, or with why not.
    pub(crate) async fn attach(&self, transport: Transport) -> Result<Answer, BackplaneError> {
        let transport = u32::try_from(transport.index()).unwrap_or(u32::MAX);
        self.ask(
            Ask::Attach(ask::Attach { transport }),
            ForwardLabel::Attach,
            PROMPT,
        )
        .await
    }

    async fn ask(&self, ask: Ask, label: ForwardLabel, patience: Duration) -> Result<Answer, BackplaneError> {
        self.hub.shared().metrics().forwarded_requests.get(label).inc();
        let _tracked = self.hub.shared().tasks().token(); // a node that leaves lets it come to its end
        let request = NodeRequest {
            hub: self.hub.name().to_string(),
            connection: self.connection.to_string(),
            user: self.user.map(ToString::to_string),
            ask: Some(ask),
        };
        let unheard = match &request.ask {
            Some(Ask::HandOver(_)) => Unheard::GiveUp, // an owner that does not hear is shut out
            _ => Unheard::Wait,
        };
        let payload = Bytes::from(request.encode_to_vec());
        let reply = self
            .hub
            .shared()
            .backplane()
            .request(self.owner, payload, patience, unheard)
            .await?;
        let reply = NodeReply::decode(reply).map_err(|error| BackplaneError::Malformed {
            what: error.to_string(),
        })?;
        Ok(reply.into())
    }
}

/// Has the owner ask a client for a result.
pub(crate) async fn ask(
    hub: &Arc<HubRuntime>,
    owner: &NodeId,
    connection: &ConnectionId,
    target: &str,
    arguments: &[Value],
    patience: Duration,
) -> Result<Result<Value, AskError>, BackplaneError> {
    let forward = Forward {
        hub,
        owner,
        connection,
        user: None,
    };
    let invoke = Ask::Invoke(ask::Invoke {
        target: target.to_owned(),
        arguments: arguments.iter().map(|value| value.bytes().clone()).collect(),
        packed: arguments
            .iter()
            .map(|value| value.encoding() == Encoding::MessagePack)
            .collect(),
    });
    let answer = forward.ask(invoke, ForwardLabel::Invoke, patience).await?;
    Ok(match answer.status {
        200 => Ok(Value::from_raw(encoding(answer.packed), answer.body)),
        204 => Err(AskError::NoResult),
        422 => Err(AskError::Client(answer.text())),
        _ => Err(AskError::Disconnected),
    })
}

fn encoding(packed: bool) -> Encoding {
    if packed {
        Encoding::MessagePack
    } else {
        Encoding::Json
    }
}

/// What became of the wish for a stateful session of another node.
pub(crate) enum HandedOver {
    /// It was given up. Its client came back so often without getting any further.
    Given { recoveries: u32 },
    /// It has ended for good.
    Ended,
    /// The node does not answer, or does not know it.
    Silent,
}

/// Has the owner give a stateful session up.
pub(crate) async fn hand_over(
    hub: &Arc<HubRuntime>,
    owner: &NodeId,
    connection: &ConnectionId,
    user: Option<&UserId>,
) -> Result<HandedOver, BackplaneError> {
    let forward = Forward {
        hub,
        owner,
        connection,
        user,
    };
    let asked = forward.ask(Ask::HandOver(ask::HandOver {}), ForwardLabel::HandOver, HAND_OVER);
    match asked.await {
        Ok(answer) => Ok(match answer.status {
            200 => HandedOver::Given {
                recoveries: answer.recoveries,
            },
            404 => HandedOver::Ended,
            _ => HandedOver::Silent,
        }),
        Err(
            BackplaneError::NodeUnreachable { .. }
            | BackplaneError::NodeFailed { .. }
            | BackplaneError::Timeout { .. },
        ) => Ok(HandedOver::Silent),
        Err(error) => Err(error),
    }
}

/// Hands a client's messages to a node where its earlier calls run.
pub(crate) async fn carry(
    hub: &Arc<HubRuntime>,
    host: &NodeId,
    session: &Session,
    protocol: HubProtocol,
    frames: Bytes,
) -> Result<(), BackplaneError> {
    let protocol = u32::try_from(protocol.index()).unwrap_or(u32::MAX);
    let carry = Ask::Carry(ask::Carry { frames, protocol });
    let forward = Forward::of(hub, host, session);
    forward.ask(carry, ForwardLabel::Carry, DRAINED).await.map(drop)
}

/// Waits until the client of a connection of another node has read most of what was sent to it. `false` when that node
/// can't tell.
pub(crate) async fn drained(hub: &Arc<HubRuntime>, owner: &NodeId, session: &Session) -> bool {
    let forward = Forward::of(hub, owner, session);
    let drained = forward
        .ask(Ask::Drained(ask::Drained {}), ForwardLabel::Carry, DRAINED)
        .await;
    drained.is_ok_and(|answer| answer.status == 200)
}

/// Has the owner end a connection. `false` when it does not have it, or is about to give it up.
pub(crate) async fn close(
    hub: &Arc<HubRuntime>,
    owner: &NodeId,
    connection: &ConnectionId,
    reason: Option<String>,
) -> Result<bool, BackplaneError> {
    let forward = Forward {
        hub,
        owner,
        connection,
        user: None,
    };
    let close = Ask::Close(ask::Close { reason });
    let answer = forward.ask(close, ForwardLabel::Close, PROMPT).await?;
    Ok(answer.status == 200)
}

/// Has the owner change a membership. A connection that has ended meanwhile is ignored.
pub(crate) async fn change_group(
    hub: &Arc<HubRuntime>,
    owner: &NodeId,
    connection: &ConnectionId,
    group: &GroupName,
    join: bool,
) -> Result<(), Error> {
    let forward = Forward {
        hub,
        owner,
        connection,
        user: None,
    };
    let change = Ask::Group(ask::Group {
        group: group.to_string(),
        join,
    });
    let answer = forward.ask(change, ForwardLabel::Group, PROMPT).await?;
    match answer.status {
        200 | 404 => Ok(()),
        409 => Err(Error::TooManyGroups {
            limit: hub.options().limits.groups_per_connection,
        }),
        _ => Err(BackplaneError::NodeFailed {
            node: owner.clone(),
            reason: answer.text(),
        }
        .into()),
    }
}
