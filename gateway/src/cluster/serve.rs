//! Answers requests of other nodes about connections of this one.

use std::sync::{Arc, Weak};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubcast_backplane::{
    BackplaneError, ConnectionId, ConnectionRecord, GroupName, HubName, NameError, NodeService, ServiceError,
};
use prost::Message as _;

use super::message::{Ask, NodeReply, NodeRequest, OwnerAnswer, ask};
use super::{encoding, owner};
use crate::auth::{Identity, Permission, PermissionRequest, Wish};
use crate::error::Error;
use crate::hub::{
    Closing, Disconnected, HubRuntime, Hubs, NoCalls, Permitted, RegroupWish, Regrouping, RegroupingError,
};
use crate::protocol::Transport;
use crate::protocol::{Encoding, HubProtocol, Value};
use crate::session::{ClientResultError, CloseReason, Session, read_carried};

/// The hubs of this node, as other nodes reach them. Weak, because the backplane that holds this is held by the hubs.
pub(crate) struct ServeNode {
    hubs: Weak<Hubs>,
}

impl ServeNode {
    pub(crate) fn new(hubs: &Arc<Hubs>) -> Self {
        Self {
            hubs: Arc::downgrade(hubs),
        }
    }

    fn hub(&self, name: &str) -> Option<Arc<HubRuntime>> {
        self.hubs.upgrade()?.find(name)
    }
}

/// The reason why a request of another node is not served. That node is given the text.
#[derive(Debug, thiserror::Error)]
enum Unserved {
    #[error("unreadable request: {0}")]
    Unreadable(#[from] prost::DecodeError),
    #[error("hub {0:?} is not served here")]
    UnknownHub(String),
    #[error("this node does not know that request; is it older than the asking one?")]
    Request,
    #[error("unknown protocol")]
    Protocol,
    #[error("unknown transport")]
    Transport,
    #[error("unknown permission")]
    Permission,
    #[error("unreadable identity")]
    Identity,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Regrouping(#[from] RegroupingError),
    #[error(transparent)]
    Backplane(#[from] BackplaneError),
    #[error(transparent)]
    Hub(#[from] Error),
}

impl NodeService for ServeNode {
    fn serve(&self, payload: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>> {
        let request = match NodeRequest::decode(payload) {
            Ok(request) => request,
            Err(error) => return std::future::ready(Err(Unserved::from(error).into())).boxed(),
        };
        let hubs = self.hubs.upgrade();
        let Some(hub) = hubs.as_ref().and_then(|hubs| hubs.find(&request.hub)) else {
            // Nobody has used it here, so none of its connections is here.
            if hubs.is_some_and(|hubs| hubs.take_undeclared())
                && matches!(request.ask, Some(Ask::LetGo(_) | Ask::Regroup(_)))
            {
                let reply = NodeReply {
                    status: 200,
                    ..NodeReply::default()
                };
                return std::future::ready(Ok(Bytes::from(reply.encode_to_vec()))).boxed();
            }
            return std::future::ready(Err(Unserved::UnknownHub(request.hub).into())).boxed();
        };
        if let Some(Ask::LetGo(wish)) = request.ask {
            let settled = Duration::from_millis(wish.settled);
            let reply = NodeReply {
                status: 200,
                leaving: hub.let_go(wish.most, settled),
                ..NodeReply::default()
            };
            return std::future::ready(Ok(Bytes::from(reply.encode_to_vec()))).boxed();
        }
        if let Some(Ask::Regroup(wish)) = request.ask {
            return async move {
                let reply = NodeReply {
                    status: regroup(&hub, wish).await?,
                    ..NodeReply::default()
                };
                Ok(Bytes::from(reply.encode_to_vec()))
            }
            .boxed();
        }
        async move {
            let connection = request.connection.clone();
            let answer = answer(&hub, request).await?;
            let reply = NodeReply::of(answer, hub.name(), connection);
            Ok(Bytes::from(reply.encode_to_vec()))
        }
        .boxed()
    }

    fn undelivered(&self, reply: Bytes) -> bool {
        let Ok(reply) = NodeReply::decode(reply) else {
            return false;
        };
        let Some(source) = reply.source else { return false };
        let session = ConnectionId::parse(&source.connection)
            .ok()
            .and_then(|connection| self.hub(&source.hub)?.registry().find(&connection));
        let Some(session) = session else { return false };
        session.give_back(reply.body, source.taking); // the client polls again, on a node that lives
        true
    }

    fn orphan_removed(&self, hub: &HubName, connection: ConnectionRecord, report: Bytes) {
        if let Some(hub) = self.hub(hub.as_str()) {
            tracing::info!(hub = %hub.name(), connection_id = %connection.id, "ended a connection that no node runs");
            let reason = Disconnected::from_note(&report);
            let tasks = hub.shared().tasks().clone();
            tasks.spawn(async move { hub.ended_elsewhere(connection, reason).await });
        }
    }

    fn connection_lost(&self, hub: &HubName, connection: &ConnectionId) {
        let session = self
            .hub(hub.as_str())
            .and_then(|hub| hub.registry().find(connection));
        if let Some(session) = session {
            tracing::warn!(%hub, connection_id = %connection, "closing a connection that another node has taken over, or that was closed elsewhere");
            session.leave(CloseReason::Fenced);
        }
    }

    fn fenced(&self) {
        tracing::warn!("other nodes took this one for dead and removed its connections; closing them");
        let hubs = self.hubs.upgrade().map(|hubs| hubs.all());
        for hub in hubs.iter().flat_map(|hubs| hubs.values()) {
            hub.registry()
                .all()
                .iter()
                .for_each(|session| session.leave(CloseReason::Fenced));
        }
    }
}

/// Changes the groups of connections of this node. Returns the status.
async fn regroup(hub: &Arc<HubRuntime>, wish: ask::Regroup) -> Result<u32, Unserved> {
    let to = match (wish.close, wish.join) {
        (true, _) => RegroupWish::Close(wish.reason),
        (false, true) => RegroupWish::Join,
        (false, false) => RegroupWish::Leave,
    };
    let change = Regrouping::new(wish.groups, wish.filter, to);
    match hub.regroup_here(&change?).await {
        Ok(()) => Ok(200),
        Err(Error::TooManyGroups { .. }) => Ok(409),
        Err(error) => Err(error.into()),
    }
}

/// Gives or takes a permission of a client of this node.
async fn permit(session: &Session, permit: ask::Permit) -> Result<OwnerAnswer, Unserved> {
    let place = |place: u32| usize::try_from(place).ok();
    let permission = place(permit.permission).and_then(|place| Permission::ALL.get(place));
    let wish = place(permit.wish).and_then(|place| Wish::ALL.get(place));
    let (Some(permission), Some(wish)) = (permission, wish) else {
        return Err(Unserved::Permission);
    };
    let request = PermissionRequest {
        permission: *permission,
        group: permit.group,
        wish: *wish,
    };
    Ok(OwnerAnswer::status(match session.permit(&request).await? {
        Permitted::Yes => 200,
        Permitted::No => 204,
        Permitted::TooMany => 409,
        Permitted::Unknown => 410,
    }))
}

async fn answer(hub: &Arc<HubRuntime>, request: NodeRequest) -> Result<OwnerAnswer, Unserved> {
    let connection = ConnectionId::parse(&request.connection)?;
    let ask = request.ask.ok_or(Unserved::Request)?;
    if let Ask::Group(change) = ask {
        let group = GroupName::from_stored(&change.group)?;
        return match hub.change_local_group(&connection, &group, change.join).await {
            Ok(()) => Ok(OwnerAnswer::status(200)),
            Err(Error::TooManyGroups { .. }) => Ok(OwnerAnswer::status(409)),
            Err(error) => Err(error.into()),
        };
    }
    if let Ask::Carry(carry) = ask {
        let protocol = usize::try_from(carry.protocol)
            .ok()
            .and_then(|index| HubProtocol::ALL.get(index))
            .ok_or(Unserved::Protocol)?;
        let messages = read_carried(*protocol, &carry.frames);
        return Ok(OwnerAnswer::status(
            match hub.handed_off_calls().take(&connection, messages).await {
                Ok(()) => 200,
                Err(NoCalls) => 410,
            },
        ));
    }
    let found = match ask {
        // Also a connection that is on its way out, because another node has requested it before.
        Ask::HandOver(_) => match hub.registry().find(&connection) {
            None => return Ok(OwnerAnswer::status(410)), // the requester may take it
            found => found,
        },
        _ => hub.find_settled(&connection).await,
    };
    let Some(session) = found else {
        return Ok(owner::unknown_connection());
    };
    if let Ask::Invoke(invoke) = ask {
        return Ok(result(&session, invoke).await);
    }
    if let Ask::Identity(_) = ask {
        let identity = session.connection().identity();
        return Ok(OwnerAnswer {
            body: identity.to_known_json().into(),
            ..OwnerAnswer::status(200)
        });
    }
    if let Ask::Permit(wish) = ask {
        return permit(&session, wish).await;
    }
    if let Ask::Close(close) = ask {
        return Ok(OwnerAnswer::status(
            match session.close_for_good(close.reason).await {
                Closing::Ends => 200,
                Closing::NotHere => 410,
            },
        ));
    }
    if session.connection().user().map(AsRef::as_ref) != request.user.as_deref() {
        return Ok(owner::other_user());
    }
    Ok(match ask {
        Ask::Poll(poll) => {
            let newer = Identity::from_json(&poll.identity);
            owner::poll(&session, time_left(hub, poll.until), newer.as_ref()).await
        }
        Ask::Receive(receive) => owner::receive_part(&session, receive).await,
        Ask::YieldPoll(_) => owner::yield_poll(&session),
        Ask::Delete(_) => owner::delete(&session),
        Ask::HandOver(_) => owner::give_up(&session).await,
        Ask::Refresh(refresh) => match Identity::from_json(&refresh.identity) {
            Some(identity) if refresh.by_server => owner::reidentify(&session, &identity).await,
            Some(identity) => owner::refresh(&session, &identity).await,
            None => return Err(Unserved::Identity),
        },
        Ask::Drained(_) => {
            session.drained().await;
            OwnerAnswer::status(200)
        }
        Ask::Attach(attach) => {
            let transport = usize::try_from(attach.transport)
                .ok()
                .and_then(|index| Transport::ALL.get(index));
            let transport = transport.ok_or(Unserved::Transport)?;
            owner::hand_over(&session, *transport).await
        }
        Ask::Group(_)
        | Ask::Invoke(_)
        | Ask::Carry(_)
        | Ask::Close(_)
        | Ask::LetGo(_)
        | Ask::Permit(_)
        | Ask::Identity(_)
        | Ask::Regroup(_) => {
            OwnerAnswer::status(200) // served above
        }
    })
}

/// How long a poll may wait that is to be answered at a time of the cluster.
fn time_left(hub: &HubRuntime, until: u64) -> Duration {
    let most = hub.options().timeouts.long_poll;
    let until = UNIX_EPOCH + Duration::from_millis(until);
    let left = until.duration_since(hub.shared().backplane().now());
    left.unwrap_or_default().min(most)
}

/// Requests a client result from a client of this node. The requesting node's patience bounds it: it drops the request.
async fn result(session: &Session, invoke: ask::Invoke) -> OwnerAnswer {
    let other = encoding(!invoke.packed.first().copied().unwrap_or_default());
    let translated = invoke.translated.into_iter();
    let translated = translated.map(|bytes| Value::from_raw(other, bytes)).collect();
    let arguments = invoke.arguments.into_iter().zip(invoke.packed);
    let arguments = arguments
        .map(|(bytes, packed)| Value::from_raw(encoding(packed), bytes))
        .collect();
    match session.ask(invoke.target, arguments, translated).await {
        Ok(value) => OwnerAnswer {
            status: 200,
            packed: value.encoding() == Encoding::MessagePack,
            body: value.bytes().clone(),
            ..OwnerAnswer::default()
        },
        Err(ClientResultError::NoResult) => OwnerAnswer::status(204),
        Err(ClientResultError::Client(text)) => OwnerAnswer {
            status: 422,
            body: text.into(),
            ..OwnerAnswer::default()
        },
        Err(ClientResultError::Disconnected) => OwnerAnswer::status(410),
    }
}
