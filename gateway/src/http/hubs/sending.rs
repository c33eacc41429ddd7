//! A POST's body on its way to the node that owns its connection.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use hubcast_backplane::{ConnectionId, NodeId, UserId};

use super::HubRequest;
use crate::auth::ConnectionToken;
use crate::cluster::{BodyPart, Forward};
use crate::http::bodies::{BodyError, next_bytes};
use crate::hub::HubRuntime;
use crate::limits::Held;

/// Most bytes of one part, but for the bytes that came with its last one.
const PART_BYTES: usize = 256 * 1024;

pub(super) struct Sending {
    hub: Arc<HubRuntime>,
    owner: NodeId,
    connection: ConnectionId,
    user: Option<UserId>,
    body: Body,
    /// Bytes that came after the last part.
    next: Option<Bytes>,
    held: Held,
    /// The number of this body among those of its connection, of which one is read at a time.
    number: u64,
    /// The owner has parts and waits for more.
    pub(super) begun: bool,
}

impl Sending {
    pub(super) fn new(asked: &HubRequest, owner: &NodeId, token: &ConnectionToken, body: Body) -> Self {
        Self {
            hub: Arc::clone(&asked.hub),
            owner: owner.clone(),
            connection: token.id.clone(),
            user: asked.identity.user().cloned(),
            body,
            next: None,
            held: Held::new(asked.hub.terms()),
            number: RandomState::new().hash_one(()),
            begun: false,
        }
    }

    pub(super) fn forward(&self) -> Forward<'_> {
        Forward {
            hub: &self.hub,
            owner: &self.owner,
            connection: &self.connection,
            user: self.user.as_ref(),
        }
    }

    /// Gathers the next part. Whether it is the last one is known when something more has come, or the end.
    pub(super) async fn next_part(&mut self) -> Result<BodyPart, BodyError> {
        let mut bytes = BytesMut::new();
        let mut next = self.next.take();
        loop {
            if let Some(more) = next.take() {
                bytes.extend_from_slice(&more);
                self.held.keep(bytes.len()).map_err(|_| BodyError::NoRoom)?;
            }
            next = next_bytes(&mut self.body).await?;
            if next.is_none() || bytes.len() >= PART_BYTES {
                break;
            }
        }
        let more = next.is_some();
        self.next = next;
        Ok(BodyPart {
            bytes: bytes.freeze(),
            number: (more || self.begun).then_some(self.number),
            more,
        })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.begun {
            let (hub, owner) = (Arc::clone(&self.hub), self.owner.clone());
            let (connection, user, number) = (self.connection.clone(), self.user.clone(), self.number);
            self.hub.shared().tasks().spawn(async move {
                let forward = Forward {
                    hub: &hub,
                    owner: &owner,
                    connection: &connection,
                    user: user.as_ref(),
                };
                forward.break_off(number).await;
            });
        }
    }
}
