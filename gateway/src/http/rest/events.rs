//! The stream of connection events.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};

use super::call::Call;
use super::error::Refusal;
use crate::hub::{ConnectionEventPage, MAX_EVENTS};

/// Events where the request does not say how many.
const EVENTS: usize = 100;
/// The longest wait for an event, in seconds: proxies give up on answers that take longer.
pub(super) const LONGEST_WAIT: u64 = 25;

pub(super) async fn follow(call: &Call<'_>) -> Result<Response, Refusal> {
    let limit = call.number("limit", 1, MAX_EVENTS as u64)?;
    let limit = limit.map_or(EVENTS, |limit| usize::try_from(limit).unwrap_or(MAX_EVENTS));
    let wait = call.number("wait", 0, LONGEST_WAIT)?.unwrap_or(0);
    let after = call.text("after").filter(|after| !after.is_empty());
    let events = call.hub().events(after, limit, Duration::from_secs(wait));
    let stopping = call.app().shared().stopping();
    let page = match stopping.run_until_cancelled(events).await {
        Some(page) => page?,
        // The node stops: the caller goes on at another one.
        None => ConnectionEventPage {
            events: Vec::new(),
            next: after.unwrap_or_default().to_owned(),
            trimmed: false,
        },
    };
    Ok(Json(page).into_response())
}
