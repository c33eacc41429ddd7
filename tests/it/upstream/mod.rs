//! Handlers of applications, called by HTTP in both forms.

mod bad;
mod calls;
mod connecting;
mod delivery;
mod events;
mod examples;
mod measured;
mod middlewares;
pub(crate) mod receiver;
mod settings;
mod tls;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use hubcast_tests::entry_point::{EntryPoint, Secrets};
use hubcast_tests::gateway::{Gateway, Settings};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::webpubsub::{WebPubSub, with_query};
use serde_json::{Value, json};

use receiver::{Receiver, Seen, completion};

/// A gateway whose hub `chat` has this handler.
fn with(form: &str, url: &str) -> Settings {
    Settings::default()
        .set("hubs.names", "chat, quiet")
        .set("server.public_host", "chat.example.org:8443")
        .set("upstream.0.hubs", "chat")
        .set("upstream.0.form", form)
        .set("upstream.0.url", url)
}

/// A token of a user with more claims.
fn token(user: &str, more: &Value) -> String {
    let mut claims = json!({ "sub": user, "exp": now() + 3_600 });
    let more = more.as_object().expect("claims").clone();
    claims.as_object_mut().expect("claims").extend(more);
    token_with(&claims, ACCESS_KEY)
}

fn entry(gateway: &Gateway, hub: &str, user: &str) -> Arc<EntryPoint> {
    let entry = EntryPoint::new(&[gateway.address()], &Secrets::default()).at(&format!("/hubs/{hub}"));
    Arc::new(entry.with_bearer(&token(user, &json!({}))))
}

/// A SignalR client of the hub `chat`.
async fn signalr(gateway: &Gateway, user: &str) -> HubClient {
    HubClient::connect(&entry(gateway, "chat", user), Transport::WebSockets).await
}

fn target(user: &str, more: &Value) -> String {
    with_query(
        "/client/hubs/chat",
        &format!("access_token={}", token(user, more)),
    )
}

/// A client of the hub `chat` that speaks another protocol.
async fn client(gateway: &Gateway, protocol: &str, user: &str) -> WebPubSub {
    WebPubSub::connect(gateway.address(), &target(user, &json!({})), protocol).await
}

/// An answer that returns the arguments of the invocation.
fn echo(seen: &Seen) -> Response {
    if seen.header("x-asrs-category") != "messages" {
        return ().into_response();
    }
    let arguments = seen.json()["arguments"].clone();
    completion(seen, &format!(",\"result\":{arguments}"))
}

/// A handler of the form `signalr` that returns arguments.
async fn echoing() -> Receiver {
    Receiver::start(|seen| echo(&seen)).await
}
