//! The REST data plane: back ends send, invoke and close over HTTP, as with Azure SignalR, or as with Azure Web PubSub.
//!
//! `table.rs` lists the routes; requests are matched with it and `openapi.rs` writes the document from it. A request is
//! then authenticated (`auth/server.rs`), and answered by one function for each resource.

mod body;
mod call;
mod connections;
mod error;
mod events;
mod execute;
mod groups;
mod identity;
mod invoke;
mod openapi;
mod parameters;
mod path;
mod payload;
mod permissions;
mod send;
mod statistics;
mod streams;
mod table;
mod tokens;
mod users;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use self::call::Call;
use self::error::Refusal;
use self::path::Path;
use self::table::{Action, Route, RouteMatch, WEB_PUBSUB_VERSIONS};
use crate::auth::Wish;
use crate::http::App;
use crate::http::admit::trust;
use crate::hub::RegroupWish;
use crate::options::RestApi;
use crate::telemetry::labels::RejectLabel;

/// The versions of Azure Web PubSub that are known, on every answer of a hub that has its API.
const SUPPORTED_VERSIONS: HeaderName = HeaderName::from_static("api-supported-versions");

/// The routes below `/api`.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api", any(serve))
        .route("/api/", any(serve))
        .route("/api/{*path}", any(serve))
}

async fn serve(State(app): State<App>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = match answer(&app, &parts, body).await {
        Ok(response) => response,
        Err(refusal) => {
            note(&app, &refusal);
            refusal.into_response()
        }
    };
    if call::service_of(&app, &parts) == Some(RestApi::WebPubSub)
        && let Ok(versions) = HeaderValue::from_str(&WEB_PUBSUB_VERSIONS.join(", "))
    {
        response.headers_mut().insert(SUPPORTED_VERSIONS, versions);
    }
    response
}

fn note(app: &App, refusal: &Refusal) {
    let label = match refusal.status() {
        StatusCode::UNAUTHORIZED => RejectLabel::Unauthorized,
        StatusCode::PAYLOAD_TOO_LARGE => RejectLabel::TooLarge,
        _ => return tracing::debug!(code = refusal.code(), "a REST request was refused"),
    };
    app.metrics().rejected.get(label).inc();
}

async fn answer(app: &App, parts: &Parts, body: Body) -> Result<Response, Refusal> {
    let path = Path::read(parts.uri.path()).ok_or_else(Refusal::no_route)?;
    let route = match table::find(&path, &parts.method) {
        RouteMatch::Route(route) => route,
        RouteMatch::OtherMethods(methods) => return Err(Refusal::other_methods(&methods)),
        RouteMatch::Nothing if parts.method == Method::HEAD => {
            return Err(Refusal::not_implemented("There is no such route."));
        }
        RouteMatch::Nothing => return Err(Refusal::no_route()),
    };
    match route.action {
        // SDKs with several endpoints, and their probes, send what they have to those that answer 200 here.
        Action::Health => {
            let reachable = app.check_backplane();
            reachable.map_err(|error| Refusal::unavailable(&error))?;
            return Ok(StatusCode::OK.into_response());
        }
        Action::Document if app.options().server.admin_listen.is_none() => return Ok(document()),
        Action::Document => return Err(Refusal::no_route()),
        _ => {}
    }
    app.servers().authenticate(parts).map_err(Refusal::unauthorized)?;
    trust(parts);
    // Clients' calls wait for a backplane that is away; a back end gets an error at once, and knows how long it can
    // wait.
    if let Err(error) = app.check_backplane() {
        return Err(Refusal::unavailable(&error));
    }
    carry_out(&Call::new(app, parts, path, route).await?, body).await
}

async fn carry_out(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    let route: &Route = call.route();
    match route.action {
        Action::Health | Action::Document => Ok(call.done()), // answered without a token
        Action::SendToAll => send::to_all(call, body).await,
        Action::SendToConnection => send::to_connection(call, body).await,
        Action::SendToGroup => send::to_group(call, body).await,
        Action::SendToUser => send::to_user(call, body).await,
        Action::SendBatch => send::batch(call, body).await,
        Action::CloseAll => connections::close_all(call).await,
        Action::CloseConnection => connections::close(call).await,
        Action::ConnectionExists => connections::exists(call).await,
        Action::ConnectionLeavesAll => connections::leave_all(call).await,
        Action::CloseGroup => groups::close(call).await,
        Action::GroupExists => groups::exists(call).await,
        Action::ConnectionJoins => groups::join(call).await,
        Action::ConnectionLeaves => groups::leave(call).await,
        Action::ListGroup => groups::list(call).await,
        Action::CloseUser => users::close(call).await,
        Action::UserExists => users::exists(call).await,
        Action::UserJoins => users::join(call).await,
        Action::UserLeaves => users::leave(call).await,
        Action::UserLeavesAll => users::leave_all(call).await,
        Action::UserIsIn => users::is_in(call).await,
        Action::Invoke => invoke::invoke(call, body).await,
        Action::GenerateToken => tokens::generate(call),
        Action::Statistics => statistics::count(call).await,
        Action::Events => events::follow(call).await,
        Action::Rebalance => statistics::rebalance(call).await,
        Action::AddToGroups => groups::regroup(call, body, RegroupWish::Join).await,
        Action::RemoveFromGroups => groups::regroup(call, body, RegroupWish::Leave).await,
        Action::GrantPermission => permissions::answer(call, Wish::Grant).await,
        Action::RevokePermission => permissions::answer(call, Wish::Revoke).await,
        Action::CheckPermission => permissions::answer(call, Wish::Check).await,
        Action::Execute => execute::execute(call, body).await,
        Action::StreamItem => streams::item(call, body).await,
        Action::StreamEnd => streams::end(call).await,
        Action::ConnectionClaims => identity::claims(call, body).await,
        Action::RefreshAuth => identity::refresh(call, body).await,
    }
}

pub(crate) fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document()).into_response()
}
