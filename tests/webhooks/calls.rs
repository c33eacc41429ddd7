//! The price of a call that an application answers.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use hubcast_tests::entry_point::{EntryPoint, Secrets};
use hubcast_tests::gateway::{Gateway, Settings};
use hubcast_tests::http::{Connection, Request};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::token_for;
use hubcast_tests::usage::Usage;
use serde_json::json;
use tokio::time::Instant;

use crate::latency::{Latency, median};
use crate::receiver::{Receiver, completion};

/// The options of this measurement.
#[derive(Args)]
pub(crate) struct Options {
    /// Calls, one after the other, of each kind and pass.
    #[arg(long, default_value_t = 2_000)]
    calls: u32,
    /// Clients that call at the same time, where processor time is measured.
    #[arg(long, default_value_t = 64)]
    clients: u32,
    /// Seconds of that.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Passes over everything.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
}

pub(crate) async fn run(options: &Options) {
    let receiver = Receiver::start(|_, _, body| Box::pin(std::future::ready(completion(&body)))).await;
    let settings = Settings::default()
        .set("hubs.names", "chat")
        .set("limits.messages_per_second", 0)
        .set("upstream.0.hubs", "chat")
        .set("upstream.0.form", "signalr")
        .set("upstream.0.url", receiver.url("/"));
    let gateway = Gateway::start(settings).await;
    let (mut direct, mut called) = (Vec::new(), Vec::new());
    let (mut rates, mut micros) = (Vec::new(), Vec::new());
    for _ in 0..options.passes {
        direct.push(directly(&receiver, options.calls).await);
        called.push(through(&gateway, options.calls).await);
        let (rate, cpu) = saturated(&gateway, options).await;
        rates.push(rate);
        micros.push(cpu);
    }
    println!(
        "{} passes, medians; the ratio is of the same pass",
        options.passes
    );
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let micros = |latency: &Latency| latency.quantile(share).as_secs_f64() * 1e6;
        let ratios = direct
            .iter()
            .zip(&called)
            .map(|(direct, called)| micros(called) / micros(direct));
        println!(
            "{name}: direct HTTP request {:6.0} µs, client's call by webhook {:6.0} µs ({:.2} x)",
            median(direct.iter().map(micros).collect()),
            median(called.iter().map(micros).collect()),
            median(ratios.collect()),
        );
    }
    let cpu = median(micros);
    println!(
        "{} clients at once: {:.0} calls/s, {cpu:.1} µs of the gateway's processor time each: {:.0} calls/s for each core",
        options.clients,
        median(rates),
        1e6 / cpu,
    );
}

fn entry(gateway: &Gateway) -> Arc<EntryPoint> {
    let entry = EntryPoint::new(&[gateway.address()], &Secrets::default()).at("/hubs/chat");
    Arc::new(entry.with_bearer(&token_for("ann")))
}

/// The same request without a gateway, on one connection that is kept.
async fn directly(receiver: &Receiver, calls: u32) -> Latency {
    let mut connection = Connection::open(receiver.address())
        .await
        .expect("the receiver listens");
    let mut latency = Latency::new();
    let body = json!({ "type": 1, "invocationId": "1", "target": "echo", "arguments": ["hello"] });
    let request = Request::post("/", format!("{body}\u{1e}")).header("Content-Type", "application/json");
    for _ in 0..calls {
        let begun = Instant::now();
        let answer = connection.fetch(&request).await.expect("the receiver answers");
        assert_eq!(answer.status(), 200);
        latency.add(begun);
    }
    latency
}

async fn through(gateway: &Gateway, calls: u32) -> Latency {
    let mut client = HubClient::connect(&entry(gateway), Transport::WebSockets).await;
    let mut latency = Latency::new();
    for _ in 0..calls {
        let begun = Instant::now();
        assert_eq!(client.result("echo", json!(["hello"])).await, json!(["hello"]));
        latency.add(begun);
    }
    client.close().await;
    latency
}

/// Calls per second, and the gateway's processor time for each in microseconds.
async fn saturated(gateway: &Gateway, options: &Options) -> (f64, f64) {
    let entry = entry(gateway);
    let mut clients = Vec::new();
    for _ in 0..options.clients {
        clients.push(HubClient::connect(&entry, Transport::WebSockets).await);
    }
    let process = [gateway.id()];
    let (before, begun) = (Usage::of(&process), Instant::now());
    let until = begun + Duration::from_secs(options.seconds);
    let calling = clients.iter_mut().map(|client| async move {
        let mut calls = 0_u32;
        while Instant::now() < until {
            client.result("echo", json!(["hello"])).await;
            calls += 1;
        }
        calls
    });
    let calls: u32 = join_all(calling).await.into_iter().sum();
    let (used, took) = (
        Usage::of(&process).micros_since(&before),
        begun.elapsed().as_secs_f64(),
    );
    for client in clients {
        client.close().await;
    }
    (f64::from(calls) / took, used / f64::from(calls))
}
