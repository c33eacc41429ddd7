//! Paths to endpoints.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tower::{Layer as _, Service as _, service_fn};

use super::request::Query;
use super::{
    app_servers, bodies, declare, events, health, hosts, hubs, negotiate, persistence, refresh, reply, rest,
};
use crate::http::App;
use crate::hub::HubRuntime;

/// Every path of the gateway and some more pages, for an application to mount.
pub(crate) fn router(app: App, pages: Router) -> Router {
    let cors = app.origins().layer();
    let hubs = Router::new()
        .route("/hubs/{hub}", any(by_path))
        .route("/hubs/{hub}/", any(by_path))
        .route("/hubs/{hub}/negotiate", any(negotiate_by_path))
        .route("/hubs/{hub}/negotiate/", any(negotiate_by_path))
        .route("/hubs/{hub}/refresh", any(refresh_by_path))
        .route("/hubs/{hub}/refresh/", any(refresh_by_path))
        .route("/client", any(by_query))
        .route("/client/", any(by_query))
        .route("/client/negotiate", any(negotiate_by_query))
        .route("/client/negotiate/", any(negotiate_by_query))
        .route("/client/refresh", any(refresh_by_query))
        .route("/client/refresh/", any(refresh_by_query))
        .route("/sse/{hub}", any(events_by_path))
        .route("/sse/{hub}/", any(events_by_path))
        .route("/client/hubs/{hub}", any(socket_by_path))
        .route("/client/hubs/{hub}/", any(socket_by_path));
    let hubs = match app.hubs().take_undeclared() {
        true => hubs.layer(from_fn_with_state(app.clone(), declare::for_clients)),
        false => hubs,
    };
    let hubs = hubs.layer(cors);
    let servers = Router::new()
        .route("/server", any(app_servers::endpoint))
        .route("/server/", any(app_servers::endpoint));
    let mut public = Router::new()
        .merge(hubs)
        .merge(rest::routes())
        .merge(servers)
        .merge(probes());
    if app.options().server.admin_listen.is_none() {
        public = public.merge(metrics());
    }
    public
        .with_state(app.clone())
        .layer(map_response(async |response| reply::not_stored(response)))
        .merge(pages)
        .layer(from_fn_with_state(app, attend))
}

/// Does what is the same for requests of all paths. One layer, since each costs every request some copies of itself.
async fn attend(State(app): State<App>, request: Request, next: Next) -> Response {
    let checked = |request| async {
        match hosts::check(&app, request) {
            Ok(request) => next.run(request).await,
            Err(refusal) => *refusal,
        }
    };
    let attended = |request| bodies::attend(&app, request, checked);
    reply::refusals_not_stored(persistence::limit(&app, request, attended).await)
}

/// The endpoints for operators, on a listener of its own.
pub(crate) fn admin_router(app: App) -> Router {
    probes()
        .merge(metrics())
        .route("/api/openapi.json", get(async || rest::document()))
        .with_state(app.clone())
        .layer(from_fn_with_state(app, attend_body))
        .layer(map_response(async |response| reply::not_stored(response)))
}

/// The endpoints that requests reach without a look at all paths.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direct {
    Hub,
    Socket,
    Negotiate,
}

/// Answers a request for a WebSocket of a hub, or to negotiate, as the [`router`] does, without a look at all other paths; `None`
/// where that has to. Only pages read the headers of [`Origins::layer`](crate::auth::Origins::layer), which see no accepted socket.
pub(super) async fn directly(app: &App, request: Request) -> Option<Response> {
    let (endpoint, hub) = direct(app, &request)?;
    let answer = |request| async {
        let request = match hosts::check(app, request) {
            Ok(request) => request,
            Err(refusal) => return *refusal,
        };
        let origin = request.headers().get(header::ORIGIN).cloned();
        let response = match endpoint {
            Direct::Hub => hubs::endpoint(app.clone(), hub, request).await,
            Direct::Socket => hubs::socket_endpoint(app.clone(), hub, request).await,
            Direct::Negotiate => {
                let (parts, _) = request.into_parts();
                negotiate::negotiate(app, &hub, &parts).await
            }
        };
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => response,
            _ => shown_to_pages(app, origin, response).await,
        }
    };
    Some(reply::not_stored(persistence::limit(app, request, answer).await))
}

fn direct(app: &App, request: &Request) -> Option<(Direct, Arc<HubRuntime>)> {
    let path = request.uri().path();
    let mut segments = path.strip_suffix('/').unwrap_or(path).split('/').skip(1);
    let [first, second, third, None] = [(); 4].map(|()| segments.next()) else {
        return None;
    };
    let of_query = || hub_of(app, request.uri()).ok();
    let is_post = request.method() == Method::POST;
    Some(match (first?, second, third) {
        ("hubs", Some(hub), Some("negotiate")) if is_post => (Direct::Negotiate, app.hub(hub)?),
        ("client", Some("negotiate"), None) if is_post => (Direct::Negotiate, of_query()?),
        _ if is_post => return None,
        ("hubs", Some(hub), None) => (Direct::Hub, app.hub(hub)?),
        ("client", Some("hubs"), Some(hub)) => (Direct::Socket, app.hub(hub)?),
        ("client", None, None) => (Direct::Hub, of_query()?),
        _ => return None,
    })
}

/// Adds the headers of [`Origins::layer`](crate::auth::Origins::layer) to a response.
async fn shown_to_pages(app: &App, origin: Option<HeaderValue>, response: Response) -> Response {
    let mut asked = Request::new(Body::empty());
    let origin = origin.map(|origin| (header::ORIGIN, origin));
    asked.headers_mut().extend(origin);
    let mut response = Some(response);
    let answer = service_fn(|_: Request| ready(Ok::<_, Infallible>(response.take().unwrap_or_default())));
    match app.origins().layer().layer(answer).call(asked).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn attend_body(State(app): State<App>, request: Request, next: Next) -> Response {
    bodies::attend(&app, request, |request| next.run(request)).await
}

fn probes() -> Router<App> {
    let readyz = get(async |State(app): State<App>| health::readyz(&app));
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", readyz)
}

fn metrics() -> Router<App> {
    Router::new().route(
        "/metrics",
        get(async |State(app): State<App>| health::metrics(app.encode_metrics())),
    )
}

async fn by_path(State(app): State<App>, Path(hub): Path<String>, request: Request) -> Response {
    match app.hub(&hub) {
        Some(hub) => hubs::endpoint(app, hub, request).await,
        None => no_such_hub(),
    }
}

async fn events_by_path(State(app): State<App>, Path(hub): Path<String>, request: Request) -> Response {
    match app.hub(&hub) {
        Some(hub) => events::endpoint(&app, hub, &request.into_parts().0).await,
        None => no_such_hub(),
    }
}

async fn socket_by_path(State(app): State<App>, Path(hub): Path<String>, request: Request) -> Response {
    match app.hub(&hub) {
        Some(hub) => hubs::socket_endpoint(app, hub, request).await,
        None => no_such_hub(),
    }
}

async fn by_query(State(app): State<App>, request: Request) -> Response {
    match hub_of(&app, request.uri()) {
        Ok(hub) => hubs::endpoint(app, hub, request).await,
        Err(refusal) => *refusal,
    }
}

async fn negotiate_by_path(State(app): State<App>, Path(hub): Path<String>, request: Request) -> Response {
    match app.hub(&hub) {
        Some(hub) => negotiate::negotiate(&app, &hub, &request.into_parts().0).await,
        None => no_such_hub(),
    }
}

async fn negotiate_by_query(State(app): State<App>, request: Request) -> Response {
    match hub_of(&app, request.uri()) {
        Ok(hub) => negotiate::negotiate(&app, &hub, &request.into_parts().0).await,
        Err(refusal) => *refusal,
    }
}

async fn refresh_by_path(State(app): State<App>, Path(hub): Path<String>, request: Request) -> Response {
    match app.hub(&hub) {
        Some(hub) => refresh::refresh(&app, &hub, &request.into_parts().0).await,
        None => no_such_hub(),
    }
}

async fn refresh_by_query(State(app): State<App>, request: Request) -> Response {
    match hub_of(&app, request.uri()) {
        Ok(hub) => refresh::refresh(&app, &hub, &request.into_parts().0).await,
        Err(refusal) => *refusal,
    }
}

/// The hub that the query names.
fn hub_of(app: &App, uri: &Uri) -> Result<Arc<HubRuntime>, Box<Response>> {
    let query = Query::of(uri);
    let Some(name) = query.get("hub") else {
        let text = "The query must name the hub: ?hub=NAME";
        return Err(Box::new(reply::text(StatusCode::BAD_REQUEST, text)));
    };
    app.hub(name).ok_or_else(|| Box::new(no_such_hub()))
}

fn no_such_hub() -> Response {
    (StatusCode::NOT_FOUND, "There is no such hub here").into_response()
}
