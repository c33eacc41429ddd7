//! A live dashboard: a background task samples some figures each second and sends them to all clients as a typed
//! event. A new client is first sent the samples of the last minute.
//!
//! ```sh
//! cargo run -p hubcast --example dashboard
//! curl -X POST localhost:8080/orders -d 3
//! ```
//!
//! Open `http://127.0.0.1:8080` in a window or two and press the button. The hub is `/hubs/dashboard`. Another address
//! to listen on can be given as an argument.

mod common;

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::{get, post};
use hubcast::hub::{Disconnected, Event, HubHandle, State};
use hubcast::{Context, Gateway, Hub, HubError, Options};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Samples that are kept for clients who come later.
const KEPT: usize = 60;
/// Most orders that one call may place.
const MAX_ORDERS: u64 = 1_000;

/// One sample, sent to all clients each second.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampled {
    /// Counts samples, so that a page recognises one that it has already.
    number: u64,
    uptime_seconds: u64,
    connections: usize,
    connections_so_far: u64,
    orders: u64,
    orders_per_second: u64,
}

impl Event for Sampled {
    const TARGET: &'static str = "Sampled";
}

/// The message that a new connection is sent.
#[derive(Serialize)]
struct Snapshot {
    samples: VecDeque<Sampled>,
}

impl Event for Snapshot {
    const TARGET: &'static str = "Snapshot";
}

/// The figures, counted where things happen.
#[derive(Default)]
struct Figures {
    connected: AtomicU64,
    orders: AtomicU64,
    samples: Mutex<VecDeque<Sampled>>,
}

impl Figures {
    fn place(&self, count: u64) -> bool {
        let fits = (1..=MAX_ORDERS).contains(&count);
        if fits {
            self.orders.fetch_add(count, Ordering::Relaxed);
        }
        fits
    }

    fn keep(&self, sample: Sampled) {
        let mut samples = self.samples.lock();
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

/// Hooks take a context alone; the hub's state is found there.
async fn welcome(context: Context) -> Result<(), HubError> {
    let Some(figures) = context.state::<Figures>() else {
        return Ok(());
    };
    figures.connected.fetch_add(1, Ordering::Relaxed);
    let samples = figures.samples.lock().clone();
    context.clients().caller().emit(&Snapshot { samples }).await?;
    Ok(())
}

async fn part(context: Context, reason: Disconnected) {
    println!("{} left: {reason}", context.connection_id());
}

async fn order(figures: State<Figures>, count: u64) -> Result<(), HubError> {
    if figures.place(count) {
        Ok(())
    } else {
        Err(HubError::new(format!("order 1 to {MAX_ORDERS}")))
    }
}

/// The same for programs without a connection.
async fn post_order(extract::State(figures): extract::State<Arc<Figures>>, count: String) -> StatusCode {
    match count.trim().parse() {
        Ok(count) if figures.place(count) => StatusCode::ACCEPTED,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The background task.
async fn sample(hub: HubHandle, figures: Arc<Figures>) {
    let began = Instant::now();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut orders_before = 0;
    for number in 0_u64.. {
        seconds.tick().await;
        let orders = figures.orders.load(Ordering::Relaxed);
        let sampled = Sampled {
            number,
            uptime_seconds: began.elapsed().as_secs(),
            connections: hub.local_connections(),
            connections_so_far: figures.connected.load(Ordering::Relaxed),
            orders,
            orders_per_second: orders - orders_before,
        };
        orders_before = orders;
        // Kept before it is sent: a client that connects in between gets it twice rather than never.
        figures.keep(sampled.clone());
        if let Err(error) = hub.clients().all().emit(&sampled).await {
            eprintln!("not sent: {error}"); // the next second is another try
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let figures = Arc::new(Figures::default());
    let dashboard = Hub::new("dashboard")
        .shared_state(Arc::clone(&figures))
        .method("Order", order)
        .on_connected(welcome)
        .on_disconnected(part);
    let mut options = Options::default();
    options.auth.allow_anonymous = Some(true);
    let gateway = Gateway::builder().hub(dashboard).options(options).build().await?;
    let sampling = tokio::spawn(sample(gateway.hub("dashboard")?, Arc::clone(&figures)));
    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route(
            "/signalr.js",
            get(async || ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], CLIENT)),
        )
        .route("/orders", post(post_order))
        .with_state(figures)
        .merge(gateway.router());

    let address = std::env::args().nth(1);
    let stopped = common::stopped()?;
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8080")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            stopped.await;
            sampling.abort();
            gateway.shutdown(Duration::from_secs(10)).await;
        })
        .await?;
    Ok(())
}

/// The official client for browsers.
const CLIENT: &str = include_str!("../src/bin/hubcast/demo/page/vendor/signalr.min.js");

const PAGE: &str = r##"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Dashboard</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
  dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .6rem; }
  dl div { border: 1px solid #bbb; border-radius: .4rem; padding: .4rem .8rem; }
  dd { margin: 0; font-size: 1.6rem; font-variant-numeric: tabular-nums; }
  canvas { width: 100%; height: 8rem; border: 1px solid #bbb; border-radius: .4rem; }
  button { font: inherit; }
</style>
<h1>Dashboard</h1>
<p id="status" role="status">Connecting…</p>
<dl>
  <div><dt>Up for (s)</dt><dd id="uptimeSeconds">–</dd></div>
  <div><dt>Connections</dt><dd id="connections">–</dd></div>
  <div><dt>Connections so far</dt><dd id="connectionsSoFar">–</dd></div>
  <div><dt>Orders</dt><dd id="orders">–</dd></div>
  <div><dt>Orders per second</dt><dd id="ordersPerSecond">–</dd></div>
</dl>
<p><button id="order">Place an order</button></p>
<canvas id="chart" width="600" height="120" role="img" aria-label="Orders per second, the last minute"></canvas>
<script src="/signalr.js"></script>
<script>
  "use strict";
  const $ = (id) => document.getElementById(id);
  const status = (text) => { $("status").textContent = text; };
  const names = ["uptimeSeconds", "connections", "connectionsSoFar", "orders", "ordersPerSecond"];
  let samples = [];

  function show() {
    const last = samples[samples.length - 1];
    if (!last) return;
    for (const name of names) $(name).textContent = String(last[name]);
    const { width, height } = $("chart");
    const pen = $("chart").getContext("2d");
    const highest = Math.max(1, ...samples.map((sample) => sample.ordersPerSecond));
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = "#37c";
    samples.forEach((sample, index) => {
      const bar = sample.ordersPerSecond / highest * (height - 4);
      pen.fillRect(index * 10, height - bar, 8, bar);
    });
  }

  const connection = new signalR.HubConnectionBuilder().withUrl("/hubs/dashboard").withAutomaticReconnect().build();
  connection.on("Snapshot", (snapshot) => {
    samples = snapshot.samples;
    show();
  });
  connection.on("Sampled", (sample) => {
    const last = samples[samples.length - 1];
    if (last && sample.number <= last.number) return; // was in the snapshot
    samples.push(sample);
    samples = samples.slice(-60);
    show();
  });
  connection.onreconnecting(() => status("Connection lost, trying again…"));
  connection.onreconnected(() => status("Connected"));
  connection.onclose(() => status("Disconnected; reload the page"));
  $("order").addEventListener("click", () => {
    connection.invoke("Order", 1).catch((error) => status(error.message));
  });
  connection.start().then(() => status("Connected"), (error) => status(error.message));
</script>
</html>
"##;
