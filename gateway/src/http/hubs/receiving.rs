//! A POST for a connection of this node.

use std::sync::Arc;

use axum::body::Body;

use crate::cluster::{OwnerAnswer, owner};
use crate::http::bodies::{BodyError, next_bytes};
use crate::session::{Posting, Session};

/// A POST: its body is a stream of hub messages, worked off while it is read.
pub(super) async fn receive(session: &Arc<Session>, mut body: Body) -> Result<OwnerAnswer, BodyError> {
    if session.http().is_none() {
        return Ok(owner::no_posts());
    }
    let receiving = async {
        let Ok(mut posting) = Posting::begin(session).await else {
            return Ok(owner::unknown_connection());
        };
        while let Some(bytes) = next_bytes(&mut body).await? {
            if posting.receive(bytes).await.is_err() {
                return Ok(owner::unknown_connection());
            }
        }
        posting.end();
        Ok(OwnerAnswer::status(200))
    };
    tokio::select! {
        biased;
        answer = receiving => answer,
        // The body goes with its session; its rest is dropped.
        () = session.closing().cancelled() => Ok(owner::unknown_connection()),
    }
}
