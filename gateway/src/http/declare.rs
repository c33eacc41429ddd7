//! Hubs that clients declare by using them (`hubs.undeclared`): for whom a hub that is not there is opened.

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;
use hubcast_backplane::{ConnectionId, HubName};
use percent_encoding::percent_decode_str;

use super::request::Query;
use super::{App, reply};
use crate::auth::Credentials;
use crate::hub::{Hubs, NotDeclared};
use crate::session::is_over;

/// Opens the hub that a client's request names, if it is not there and the client has shown who it is.
pub(super) async fn for_clients(State(app): State<App>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(asked) = named(&parts.uri)
        && app.hub(&asked).is_none()
        && let Ok(name) = Hubs::name_of_undeclared(&asked)
        && is_authentic(&app, &name, &parts).await
        && let Some(Err(error)) = app.hubs().declare(name.as_str()).await
    {
        return match error {
            NotDeclared::Backplane(error) => {
                tracing::debug!(%error, hub = %name, "a hub could not be opened");
                reply::unavailable()
            }
            NotDeclared::Leaving => reply::unavailable(),
            error => {
                tracing::warn!(%error, hub = %name, "a hub was not opened on use");
                reply::text(
                    StatusCode::NOT_FOUND,
                    format!("There is no such hub here: {error}"),
                )
            }
        };
    }
    next.run(Request::from_parts(parts, body)).await
}

/// The hub that a client's URL names.
fn named(uri: &Uri) -> Option<String> {
    let mut segments = uri.path().split('/').skip(1);
    let name = match (segments.next()?, segments.next()) {
        ("hubs" | "sse", Some(name)) => name,
        ("client", Some("hubs")) => segments.next()?,
        ("client", _) => return Query::of(uri).get("hub").map(str::to_owned),
        _ => return None,
    };
    percent_decode_str(name)
        .decode_utf8()
        .ok()
        .map(|name| name.into_owned())
}

/// Returns whether a client has a token for the hub, or for a connection of it, which another node has made.
async fn is_authentic(app: &App, hub: &HubName, parts: &Parts) -> bool {
    if !app.origins().admit(parts) {
        return false;
    }
    let query = Query::of(&parts.uri);
    let now = app.shared().backplane().now();
    if query
        .get("id")
        .is_some_and(|id| app.tokens().read(hub, id, now).is_ok())
    {
        return true;
    }
    let recovered = query
        .get("awps_connection_id")
        .zip(query.get("awps_reconnection_token"));
    if let Some((id, token)) = recovered
        && let Ok(id) = ConnectionId::parse(id)
        && app.tokens().may_recover(hub, &id, token)
    {
        return true;
    }
    let credentials = Credentials {
        hub,
        headers: &parts.headers,
        query_token: query.get("access_token"),
        connection: None, // tickets come with a connection token
    };
    match app.authenticator().authenticate(&credentials).await {
        Ok(known) => !known.identity.is_anonymous() && !is_over(&known.identity, &app.options().auth),
        Err(_) => false, // its answer comes from where all are looked at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_of_every_url_of_clients_is_found() {
        let of = |uri: &str| named(&uri.parse().unwrap());
        for uri in [
            "/hubs/chat",
            "/hubs/chat/negotiate?negotiateVersion=1",
            "/hubs/%63hat/refresh",
            "/sse/chat/",
            "/client/hubs/chat",
            "/client/?hub=chat&id=1",
            "/client?hub=chat",
            "/client/negotiate?hub=chat",
        ] {
            assert_eq!(of(uri).as_deref(), Some("chat"), "{uri}");
        }
        for uri in ["/", "/hubs", "/api/hubs/chat", "/client", "/hubs/%ff"] {
            assert_eq!(of(uri), None, "{uri}");
        }
    }
}
