//! A handler that hangs harms its own hub alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use hubcast_tests::entry_point::{EntryPoint, Secrets};
use hubcast_tests::gateway::{Gateway, Settings};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::token_for;
use serde_json::json;
use tokio::time::Instant;

use crate::latency::{Latency, median};
use crate::receiver::{Receiver, completion};

/// The options of this measurement.
#[derive(Args)]
pub(crate) struct Options {
    /// Clients of the hub whose handler hangs.
    #[arg(long, default_value_t = 200)]
    callers: u32,
    /// Clients of the other hub, which call one after the other.
    #[arg(long, default_value_t = 8)]
    others: u32,
    /// Seconds of each half of a pass.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Passes; in each the handler answers at once, then hangs.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
    /// Seconds that a call to a handler may take.
    #[arg(long, default_value_t = 3)]
    timeout_seconds: u64,
}

/// The pause of a caller after an answer: the load of both halves is nearly the same.
const PAUSE: Duration = Duration::from_millis(500);

/// The answers that callers of the hub with the bad handler got.
#[derive(Default)]
struct Answers {
    texts: BTreeMap<String, u32>,
    longest: Duration,
}

/// One half of a pass.
struct Half {
    others: Latency,
    answers: Answers,
    node_mib: f64,
}

pub(crate) async fn run(options: &Options) {
    let hangs = Arc::new(AtomicBool::new(false));
    let receiver = {
        let hangs = Arc::clone(&hangs);
        Receiver::start(move |path, _, body| {
            let hang = path == "/bad" && hangs.load(Ordering::Relaxed);
            Box::pin(async move {
                if hang {
                    std::future::pending::<()>().await;
                }
                completion(&body)
            })
        })
        .await
    };
    let settings = Settings::default()
        .set("hubs.names", "bad, good")
        .set("upstream.0.hubs", "bad")
        .set("upstream.0.form", "signalr")
        .set("upstream.0.timeout_seconds", options.timeout_seconds)
        .set("upstream.0.url", receiver.url("/bad"))
        .set("upstream.1.hubs", "good")
        .set("upstream.1.form", "signalr")
        .set("upstream.1.url", receiver.url("/good"));
    let gateway = Gateway::start(settings).await;
    let mut ratios = Vec::new();
    for pass in 1..=options.passes {
        hangs.store(false, Ordering::Relaxed);
        let well = half(&gateway, options).await;
        hangs.store(true, Ordering::Relaxed);
        let hanging = half(&gateway, options).await;
        for (name, half) in [("answers", &well), ("hangs", &hanging)] {
            println!("pass {pass}, the handler {name}:");
            println!(
                "  calls of the other hub: {:6}, {}; node {:.0} MiB",
                half.others.count(),
                half.others.render(),
                half.node_mib
            );
            for (text, count) in &half.answers.texts {
                println!("  {count:6} x {text}");
            }
            println!(
                "  longest wait for an answer: {:.2} s",
                half.answers.longest.as_secs_f64()
            );
        }
        let p99 = |half: &Half| half.others.quantile(0.99).as_secs_f64();
        ratios.push(p99(&hanging) / p99(&well));
    }
    println!(
        "p99 of the other hub while the handler hangs: {:.2} x of when it answers (median of {} passes)",
        median(ratios),
        options.passes
    );
}

async fn connect(gateway: &Gateway, hub: &str, count: u32) -> Vec<HubClient> {
    let entry = EntryPoint::new(&[gateway.address()], &Secrets::default()).at(&format!("/hubs/{hub}"));
    let entry = Arc::new(entry.with_bearer(&token_for("ann")));
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(HubClient::connect(&entry, Transport::WebSockets).await);
    }
    clients
}

async fn half(gateway: &Gateway, options: &Options) -> Half {
    let callers = connect(gateway, "bad", options.callers).await;
    let others = connect(gateway, "good", options.others).await;
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let bad = join_all(callers.into_iter().map(|client| call(client, until)));
    let good = join_all(others.into_iter().map(|client| time(client, until)));
    let memory = watch_memory(gateway, until);
    let (bad, good, node_mib) = tokio::join!(bad, good, memory);
    let (mut others, mut answers) = (Latency::new(), Answers::default());
    good.iter().for_each(|one| others.merge(one));
    for one in bad {
        answers.longest = answers.longest.max(one.longest);
        for (text, count) in one.texts {
            *answers.texts.entry(text).or_default() += count;
        }
    }
    Half {
        others,
        answers,
        node_mib,
    }
}

/// Calls with pauses, and writes the answers down.
async fn call(mut client: HubClient, until: Instant) -> Answers {
    let mut answers = Answers::default();
    while Instant::now() < until {
        let begun = Instant::now();
        let answer = client.call("echo", json!(["hello"])).await;
        answers.longest = answers.longest.max(begun.elapsed());
        let text = match answer["error"].as_str() {
            Some(error) => format!("error: {error}"),
            None => "result".to_owned(),
        };
        *answers.texts.entry(text).or_default() += 1;
        tokio::time::sleep(PAUSE).await;
    }
    client.close().await;
    answers
}

/// Calls one after the other.
async fn time(mut client: HubClient, until: Instant) -> Latency {
    let mut latency = Latency::new();
    while Instant::now() < until {
        let begun = Instant::now();
        assert_eq!(client.result("echo", json!(["hello"])).await, json!(["hello"]));
        latency.add(begun);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    client.close().await;
    latency
}

async fn watch_memory(gateway: &Gateway, until: Instant) -> f64 {
    let mut most = 0;
    while Instant::now() < until {
        most = most.max(gateway.resident_bytes());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    most as f64 / f64::from(1 << 20)
}
