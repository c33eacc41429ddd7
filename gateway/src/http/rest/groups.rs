//! Groups and their connections.

use axum::Json;
use axum::body::Body;
use axum::http::uri::Authority;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::body::Media;
use super::call::Call;
use super::error::{NO_CONNECTION_TO_CHANGE, NO_GROUP, Refusal};
use super::table::LAST;
use crate::bom;
use crate::hub::{RegroupWish, Regrouping};
use crate::options::requested_authority;

/// Most connections of one page.
pub(super) const MAX_PAGE: u64 = 200;
/// Connections of a page where the request does not say.
const PAGE: u64 = 100;

pub(super) async fn exists(call: &Call<'_>) -> Result<Response, Refusal> {
    if call.hub().in_group(call.group()?).exists().await? {
        Ok(call.done())
    } else {
        Err(Refusal::absent(NO_GROUP))
    }
}

pub(super) async fn close(call: &Call<'_>) -> Result<Response, Refusal> {
    let group = call.hub().in_group(call.group()?);
    group.close_all(call.reason(), call.excluded()).await?;
    Ok(call.done())
}

pub(super) async fn join(call: &Call<'_>) -> Result<Response, Refusal> {
    let (group, connection) = (call.group()?, call.connection()?);
    if !call.hub().of_connection(connection).exists().await? {
        return Err(Refusal::absent(NO_CONNECTION_TO_CHANGE));
    }
    call.hub().groups().add(connection, group).await?;
    Ok(call.done())
}

/// Takes a connection out of a group. One that is not there, or no member, is out of it already.
pub(super) async fn leave(call: &Call<'_>) -> Result<Response, Refusal> {
    let (group, connection) = (call.group()?, call.connection()?);
    call.hub().groups().remove(connection, group).await?;
    Ok(call.done())
}

/// Which connections go into which groups, or out of them.
#[derive(Deserialize)]
struct RegroupBody {
    groups: Vec<String>,
    #[serde(default)]
    filter: Option<String>,
}

/// Most groups of one such request.
pub(super) const MAX_GROUPS: usize = 100;

/// Changes the groups of all connections that a filter admits.
pub(super) async fn regroup(call: &Call<'_>, body: Body, to: RegroupWish) -> Result<Response, Refusal> {
    Media::of(call.headers(), &[Media::Json])?;
    let body = call.read(body).await?;
    let wish: RegroupBody = serde_json::from_slice(bom::skip(&body)).map_err(|error| {
        Refusal::invalid(format!(
            "The body must be {{\"groups\": […], \"filter\": …}}: {error}."
        ))
    })?;
    if wish.groups.is_empty() || wish.groups.len() > MAX_GROUPS {
        let text = format!(
            "groups must be 1 to {MAX_GROUPS} names, not {}.",
            wish.groups.len()
        );
        return Err(Refusal::invalid(text));
    }
    let change = Regrouping::new(wish.groups, wish.filter.unwrap_or_default(), to)?;
    call.hub().runtime().regroup(&change).await?;
    Ok(call.done())
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct MemberList {
    value: Vec<MemberItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_link: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberItem {
    connection_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
}

/// Lists connections in pages. A continuation token is the id of the last connection of the page before.
pub(super) async fn list(call: &Call<'_>) -> Result<Response, Refusal> {
    let page = call.number("maxpagesize", 1, u64::MAX)?;
    let page = page.map_or(PAGE, |page| page.min(MAX_PAGE));
    let top = call.number("top", 0, u64::MAX)?;
    if top == Some(0) {
        call.group()?;
        return Ok(Json(MemberList::default()).into_response());
    }
    let limit = top.map_or(page, |top| top.min(page));
    let group = call.hub().in_group(call.group()?);
    let found = group
        .connections(
            call.text("continuationToken"),
            usize::try_from(limit).unwrap_or(usize::MAX),
        )
        .await?;
    let left = top.map(|top| top.saturating_sub(limit));
    let next = found.next.filter(|_| left != Some(0));
    let value = try_join_all(found.connections.into_iter().map(async |connection_id| {
        let user_id = call.hub().of_connection(&connection_id).user().await?;
        Ok::<_, crate::Error>(MemberItem {
            connection_id,
            user_id,
        })
    }));
    let page = MemberList {
        value: value.await?,
        next_link: next.map(|next| next_link(call, &next, page, left)),
    };
    Ok(Json(page).into_response())
}

/// The URL of the next page, as the caller reaches this gateway.
fn next_link(call: &Call<'_>, after: &str, page: u64, top: Option<u64>) -> String {
    let request = call.request();
    let forwarded = request.headers.get("x-forwarded-proto");
    let scheme = match forwarded.map(|value| value.as_bytes()) {
        Some(b"https") => "https",
        _ => "http",
    };
    let host = requested_authority(request);
    let host = host.as_ref().map_or("localhost", Authority::as_str);
    let path = request.uri.path();
    // Ids of connections and numbers need no encoding in a query.
    let mut link =
        format!("{scheme}://{host}{path}?api-version={LAST}&maxpagesize={page}&continuationToken={after}");
    if let Some(application) = call.text("application") {
        let encoded = percent_encoding::utf8_percent_encode(application, percent_encoding::NON_ALPHANUMERIC);
        link.push_str(&format!("&application={encoded}"));
    }
    if let Some(top) = top {
        link.push_str(&format!("&top={top}"));
    }
    link
}
