//! A server for functional tests of SignalR clients: hubs whose methods do one thing each, well or badly.
//!
//! ```sh
//! cargo run -p hubcast --example functional_tests -- 127.0.0.1:8080
//! ```
//!
//! The first line that it prints is `listening on http://…`; port 0 takes any free port. Point a client's tests at:
//!
//! * `/hubs/testhub`: everything below; clients without a token may connect,
//! * `/hubs/parallelhub`: the same with four invocations of a client at a time, which it can cancel,
//! * `/hubs/authorizedhub`: admits tokens with the role `admin` alone,
//! * `/hubs/uncreatable`: refuses every client in its `on_connected`,
//! * `/generateJwtToken?user=ann&role=admin`: a token of an hour, as text.
//!
//! The tests of ASP.NET Core's TypeScript client (`FunctionalTests`, to be run with `SERVER_URL=';http://127.0.0.1:8080'`) find
//! what they expect at the paths of their own server: `/testhub`, `/testhub-nowebsockets`, `/authorizedhub`, `/uncreatable`,
//! `/redirect`, `/bad-negotiate` and `/clientresult/{id}`. `/echo` is not there: connections without hub messages are none of the gateway's.
//!
//! Several processes with `--redis URL` are one cluster, behind any balancer:
//!
//! ```sh
//! cargo run -p hubcast --example functional_tests -- 127.0.0.1:8081 --redis redis://127.0.0.1:6379
//! ```
//!
//! Tokens are signed with HS256 and the key `functional-tests-only-0123456789abcdef`. This is no server for anything
//! but tests: any client can get a token.

mod aspnet;
#[path = "../common/mod.rs"]
mod common;
mod hubs;

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::get;
use hubcast::backplane::redis::{RedisBackplane, RedisOptions};
use hubcast::{Gateway, Options};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tokio::net::TcpListener;

const KEY: &str = "functional-tests-only-0123456789abcdef";

async fn generate_jwt_token(Query(query): Query<HashMap<String, String>>) -> Result<String, StatusCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let user = query.get("user").map_or("test", String::as_str);
    let claims = json!({ "nameid": user, "role": query.get("role"), "exp": now.as_secs() + 3600 });
    let key = EncodingKey::from_secret(KEY.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// The address to listen on, and the URL of Redis.
fn arguments() -> Result<(String, Option<String>), &'static str> {
    let (mut address, mut redis) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--redis" {
            redis = Some(
                arguments
                    .next()
                    .ok_or("--redis needs a URL, such as redis://127.0.0.1:6379")?,
            );
        } else if argument.starts_with('-') || address.replace(argument).is_some() {
            return Err("arguments are an address to listen on and --redis URL");
        }
    }
    Ok((address.unwrap_or_else(|| "127.0.0.1:8080".to_owned()), redis))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (address, redis) = arguments()?;
    let mut options = Options::default();
    options.auth.allow_anonymous = Some(true);
    options.auth.access_key = Some(KEY.into());
    options.cors.allowed_origins = vec!["*".to_owned()]; // pages of test runners
    let mut gateway = Gateway::builder()
        .hub(hubs::test_hub())
        .hub(hubs::parallel_hub())
        .hub(hubs::authorized_hub())
        .hub(hubs::uncreatable_hub())
        .options(options);
    for hub in aspnet::hubs() {
        gateway = gateway.hub(hub);
    }
    if let Some(url) = redis {
        let backplane = RedisBackplane::connect(RedisOptions::parse(&url)?).await?;
        gateway = gateway.backplane(Arc::new(backplane));
    }
    let gateway = gateway.build().await?;
    let app = Router::new()
        .route("/generateJwtToken", get(generate_jwt_token))
        .merge(aspnet::routes(&gateway)?)
        .fallback_service(gateway.router())
        .layer(from_fn(aspnet::as_there));

    let stopped = common::stopped()?;
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            stopped.await;
            gateway.shutdown(Duration::from_secs(10)).await;
        })
        .await?;
    Ok(())
}
