//! Requests of this node's sessions and hubs to other nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubcast_backplane::{BackplaneError, ConnectionId, GroupName, NodeId, UserId};

use super::message::{Ask, NodeRequest, ask};
use super::{Forward, PROMPT, encoding, send};
use crate::auth::{Identity, Permission, PermissionRequest, Wish};
use crate::error::Error;
use crate::hub::{
    Closing, Drained, HandedOver, HubRuntime, PeerQuestion, Peers, Permitted, RegroupWish, Regrouping,
};
use crate::protocol::{Encoding, HubProtocol, Value};
use crate::session::{ClientResultError, Ownership, Session};
use crate::telemetry::labels::ForwardLabel;

/// How long an owner may take to give a session up before it is shut out. Clients try to resume once, and wait.
const HAND_OVER: Duration = Duration::from_secs(2);

/// How long a node may take to put many connections into groups.
const REGROUP: Duration = Duration::from_secs(60);

/// How long a client may keep calls waiting that stream to it from another node, before they check again.
const DRAINED: Duration = Duration::from_secs(60);

/// The nodes that the backplane reaches.
pub(crate) struct Cluster;

impl Peers for Cluster {
    fn ask<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        question: PeerQuestion<'a>,
    ) -> BoxFuture<'a, Result<Result<Value, ClientResultError>, BackplaneError>> {
        let invoke = Ask::Invoke(ask::Invoke {
            target: question.target.to_owned(),
            arguments: question
                .arguments
                .iter()
                .map(|value| value.bytes().clone())
                .collect(),
            translated: question
                .translated
                .iter()
                .map(|value| value.bytes().clone())
                .collect(),
            packed: question
                .arguments
                .iter()
                .map(|value| value.encoding() == Encoding::MessagePack)
                .collect(),
        });
        async move {
            let forward = Forward::of_node(hub, owner, connection);
            let answer = forward
                .ask(invoke, ForwardLabel::Invoke, question.patience)
                .await?;
            Ok(match answer.status {
                200 => Ok(Value::from_raw(encoding(answer.packed), answer.body)),
                204 => Err(ClientResultError::NoResult),
                422 => Err(ClientResultError::Client(answer.text())),
                _ => Err(ClientResultError::Disconnected),
            })
        }
        .boxed()
    }

    fn change_group<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        group: &'a GroupName,
        join: bool,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let change = Ask::Group(ask::Group {
            group: group.stored().to_owned(),
            join,
        });
        async move {
            let forward = Forward::of_node(hub, owner, connection);
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
        .boxed()
    }

    fn identity<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
    ) -> BoxFuture<'a, Result<Option<Identity>, BackplaneError>> {
        async move {
            let forward = Forward::of_node(hub, owner, connection);
            let asking = forward.ask(Ask::Identity(ask::Identity {}), ForwardLabel::Identity, PROMPT);
            let answer = asking.await?;
            let found = (answer.status == 200).then(|| Identity::from_json(&answer.body));
            Ok(found.flatten())
        }
        .boxed()
    }

    fn reidentify<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<Ownership, BackplaneError>> {
        let refresh = Ask::Refresh(ask::Refresh {
            identity: identity.to_json().unwrap_or_default().into(),
            by_server: true,
        });
        async move {
            let forward = Forward {
                user: identity.user(),
                ..Forward::of_node(hub, owner, connection)
            };
            let answer = forward.ask(refresh, ForwardLabel::Refresh, PROMPT).await?;
            match answer.status {
                200 => Ok(Ownership::Kept),
                404 | 410 => Ok(Ownership::Lost),
                _ => Err(BackplaneError::NodeFailed {
                    node: owner.clone(),
                    reason: answer.text(),
                }),
            }
        }
        .boxed()
    }

    fn permit<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        request: &'a PermissionRequest,
    ) -> BoxFuture<'a, Result<Permitted, BackplaneError>> {
        let place = |found: Option<usize>| found.and_then(|place| u32::try_from(place).ok());
        let permission = place(
            Permission::ALL
                .iter()
                .position(|known| *known == request.permission),
        );
        let wish = place(Wish::ALL.iter().position(|known| *known == request.wish));
        let permit = Ask::Permit(ask::Permit {
            permission: permission.unwrap_or(u32::MAX),
            group: request.group.clone(),
            wish: wish.unwrap_or(u32::MAX),
        });
        async move {
            let forward = Forward::of_node(hub, owner, connection);
            let answer = forward.ask(permit, ForwardLabel::Permit, PROMPT).await?;
            match answer.status {
                200 => Ok(Permitted::Yes),
                204 => Ok(Permitted::No),
                409 => Ok(Permitted::TooMany),
                404 | 410 => Ok(Permitted::Unknown),
                _ => Err(BackplaneError::NodeFailed {
                    node: owner.clone(),
                    reason: answer.text(),
                }),
            }
        }
        .boxed()
    }

    fn regroup<'a>(
        &'a self,
        hub: &'a HubRuntime,
        node: &'a NodeId,
        change: &'a Regrouping,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let regroup = ask::Regroup {
            groups: change.groups.iter().map(ToString::to_string).collect(),
            filter: change.filter_text.clone(),
            join: change.wish == RegroupWish::Join,
            close: matches!(change.wish, RegroupWish::Close(_)),
            reason: match &change.wish {
                RegroupWish::Close(reason) => reason.clone(),
                RegroupWish::Join | RegroupWish::Leave => None,
            },
        };
        let request = NodeRequest {
            hub: hub.name().to_string(),
            connection: String::new(),
            user: None,
            ask: Some(Ask::Regroup(regroup)),
        };
        async move {
            match send(hub, node, &request, ForwardLabel::Regroup, REGROUP)
                .await?
                .status
            {
                200 => Ok(()),
                409 => Err(Error::TooManyGroups {
                    limit: hub.options().limits.groups_per_connection,
                }),
                status => Err(BackplaneError::NodeFailed {
                    node: node.clone(),
                    reason: format!("it answered {status}"),
                }
                .into()),
            }
        }
        .boxed()
    }

    fn close<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        reason: Option<String>,
    ) -> BoxFuture<'a, Result<Closing, BackplaneError>> {
        async move {
            let forward = Forward::of_node(hub, owner, connection);
            let close = Ask::Close(ask::Close { reason });
            let answer = forward.ask(close, ForwardLabel::Close, PROMPT).await?;
            Ok(match answer.status {
                200 => Closing::Ends,
                _ => Closing::NotHere,
            })
        }
        .boxed()
    }

    fn hand_over<'a>(
        &'a self,
        hub: &'a Arc<HubRuntime>,
        owner: &'a NodeId,
        connection: &'a ConnectionId,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<HandedOver, BackplaneError>> {
        async move {
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
        .boxed()
    }

    fn let_go<'a>(
        &'a self,
        hub: &'a HubRuntime,
        node: &'a NodeId,
        most: u64,
        settled: Duration,
    ) -> BoxFuture<'a, Result<u64, BackplaneError>> {
        let settled = u64::try_from(settled.as_millis()).unwrap_or(u64::MAX);
        let request = NodeRequest {
            hub: hub.name().to_string(),
            connection: String::new(),
            user: None,
            ask: Some(Ask::LetGo(ask::LetGo { most, settled })),
        };
        async move {
            let reply = send(hub, node, &request, ForwardLabel::LetGo, PROMPT).await?;
            Ok(reply.leaving)
        }
        .boxed()
    }

    fn carry<'a>(
        &'a self,
        session: &'a Session,
        host: &'a NodeId,
        protocol: HubProtocol,
        frames: Bytes,
    ) -> BoxFuture<'a, Result<(), BackplaneError>> {
        let protocol = u32::try_from(protocol.index()).unwrap_or(u32::MAX);
        let carry = Ask::Carry(ask::Carry { frames, protocol });
        async move {
            let forward = Forward::of(host, session);
            forward.ask(carry, ForwardLabel::Carry, DRAINED).await.map(drop)
        }
        .boxed()
    }

    fn drained<'a>(&'a self, session: &'a Session, owner: &'a NodeId) -> BoxFuture<'a, Drained> {
        async move {
            let forward = Forward::of(owner, session);
            let drained = Ask::Drained(ask::Drained {});
            let drained = forward.ask(drained, ForwardLabel::Carry, DRAINED).await;
            match drained {
                Ok(answer) if answer.status == 200 => Drained::Yes,
                Ok(_) | Err(_) => Drained::Unknown,
            }
        }
        .boxed()
    }
}
