//! Sends a client the items of a stream that one of its calls has begun.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::Session;
use super::completions::{Answering, INTERRUPTED, Sent};
use crate::hub::{MethodFailure, ValueStream, guarded, stream_error};
use crate::protocol::{HubMessage, Outcome, Value};

/// A stream that always has an item lets the rest of its session run after so many: its client may want to cancel it.
const YIELD_AFTER: usize = 32;

/// Sends the items as fast as the client reads them.
pub(super) async fn stream_out(
    session: Arc<Session>,
    answering: Answering,
    name: String,
    starting: BoxFuture<'static, Result<ValueStream, MethodFailure>>,
    cancelled: CancellationToken,
) -> Outcome {
    let mut items = tokio::select! {
        biased;
        () = cancelled.cancelled() => return Outcome::Void,
        started = starting => match started {
            Ok(items) => items,
            Err(failed) => return Outcome::Error(failed.text),
        },
    };
    let mut sent = 0_usize;
    loop {
        let item: Value = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Outcome::Void,
                item = guarded(items.next().map(Option::transpose)) => match item {
                Ok(Some(item)) => item,
                Ok(None) => return Outcome::Void,
                Err(error) => return Outcome::Error(stream_error(session.hub(), &name, &error)),
            },
        };
        let message = HubMessage::StreamItem {
            headers: Vec::new(),
            invocation_id: answering.invocation_id.clone().unwrap_or_default(),
            item,
        };
        match session.send_item(&answering, &message).await {
            Sent::Yes => {}
            Sent::Unwanted => return Outcome::Void,
            Sent::Unsure => return Outcome::Error(INTERRUPTED.to_owned()),
        }
        sent = sent.wrapping_add(1);
        if sent.is_multiple_of(YIELD_AFTER) {
            yield_now().await;
        }
    }
}
