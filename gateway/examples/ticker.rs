//! Streams: a client asks for prices and gets them until it has had enough.
//!
//! ```sh
//! cargo run -p hubcast --example ticker
//! ```
//!
//! With the official JavaScript client: `connection.stream("Prices", "ACME", 250).subscribe({ next: console.log })`.
//! The hub is `/hubs/prices`. Another address to listen on can be given as an argument.

mod common;

use std::error::Error;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use hubcast::{Context, Gateway, Hub, HubError, Options};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::sleep;

#[derive(Serialize)]
struct Price {
    symbol: String,
    cents: u64,
}

async fn prices(
    context: Context,
    symbol: String,
    every_ms: u64,
) -> Result<impl Stream<Item = Price> + use<>, HubError> {
    if symbol.is_empty() {
        return Err(HubError::new("which symbol?"));
    }
    println!("{} watches {symbol}", context.connection_id());
    let pause = Duration::from_millis(every_ms.clamp(10, 60_000));
    // Dropped when the client cancels the stream or goes away.
    Ok(stream::unfold(10_000_u64, move |cents| {
        let symbol = symbol.clone();
        async move {
            sleep(pause).await;
            let next = cents.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) % 20_000;
            Some((Price { symbol, cents }, next))
        }
    }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options::default();
    options.auth.allow_anonymous = Some(true);
    let gateway = Gateway::builder()
        .hub(Hub::new("prices").stream("Prices", prices))
        .options(options)
        .build()
        .await?;
    let address = std::env::args().nth(1);
    let stopped = common::stopped()?;
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8080")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, gateway.router())
        .with_graceful_shutdown(async move {
            stopped.await;
            gateway.shutdown(Duration::from_secs(10)).await;
        })
        .await?;
    Ok(())
}
