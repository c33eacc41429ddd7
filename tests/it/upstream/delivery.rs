//! Events are told in order and as often as it takes; a handler that does not answer harms nobody else.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use hubcast_tests::cluster::Plan;
use hubcast_tests::eventually::eventually;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::ports::free_port;
use hubcast_tests::webpubsub::JSON;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::receiver::{Receiver, allowed, completion};
use super::*;

#[tokio::test]
async fn connected_comes_first_and_disconnected_last() {
    for form in ["signalr", "cloudevents"] {
        let receiver = Receiver::with(move |seen| {
            Box::pin(async move {
                if seen.event() == "connected" {
                    sleep(Duration::from_millis(100)).await; // messages would overtake it
                }
                if seen.method == "OPTIONS" {
                    allowed("*")
                } else {
                    echo(&seen)
                }
            })
        })
        .await;
        let settings = with(form, &receiver.url("/"));
        let settings = if form == "signalr" {
            settings
        } else {
            settings.set("upstream.0.system_events", "connected, disconnected")
        };
        let gateway = Gateway::start(settings).await;
        let mut ann = signalr(&gateway, "ann").await;
        for number in 0..5 {
            ann.say(&json!({ "type": 1, "target": format!("m{number}"), "arguments": [] }))
                .await;
        }
        ann.result("last", json!([])).await;
        ann.close().await;
        receiver.gets("disconnected", 1).await;
        let events: Vec<_> = receiver
            .seen()
            .iter()
            .map(|seen| seen.event().to_owned())
            .collect();
        assert_eq!(
            events,
            ["connected", "m0", "m1", "m2", "m3", "m4", "last", "disconnected"]
        );
        let end = receiver.of("disconnected")[0].json();
        let expected = if form == "signalr" {
            json!({ "type": 11 })
        } else {
            json!({ "reason": "" })
        };
        assert_eq!(end, expected, "the client said goodbye");
    }
}

#[tokio::test]
async fn events_of_connections_are_repeated_under_one_id_and_messages_are_not() {
    for (form, id) in [("signalr", "x-hubcast-event-id"), ("cloudevents", "ce-id")] {
        let tries = Arc::new(AtomicUsize::new(0));
        let receiver = Receiver::start(move |seen| match seen.event() {
            "connected" if tries.fetch_add(1, Ordering::Relaxed) < 2 => StatusCode::INTERNAL_SERVER_ERROR,
            "disconnected" => StatusCode::NOT_FOUND,
            "connected" => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        })
        .await;
        let settings = with(form, &receiver.url("/"));
        let settings = if form == "signalr" {
            settings
        } else {
            settings.set("upstream.0.system_events", "connected, disconnected")
        };
        let gateway = Gateway::start(settings).await;
        let mut ann = signalr(&gateway, "ann").await;
        let error = ann.call("Once", json!([])).await["error"].clone();
        assert!(error.as_str().unwrap().contains("503"), "{error}");
        let connected = receiver.gets("connected", 3).await;
        assert!(!connected[0].header(id).is_empty());
        assert!(
            connected
                .iter()
                .all(|seen| seen.header(id) == connected[0].header(id)),
            "{connected:?}"
        );
        assert_eq!(receiver.of("Once").len(), 1, "it may have been served");
        ann.close().await;
        let ended = receiver.gets("disconnected", 2).await; // until it is taken
        assert_ne!(ended[0].header(id), connected[0].header(id));
        assert_eq!(ended[0].header(id), ended[1].header(id));
        assert!(
            gateway.log().contains("a handler has not taken an event"),
            "{}",
            gateway.log()
        );
    }
}

#[tokio::test]
async fn the_status_decides_about_an_event_however_long_the_answer_is() {
    let tries = Arc::new(AtomicUsize::new(0));
    let receiver = Receiver::start(move |seen| {
        let fails = seen.event() == "connected" && tries.fetch_add(1, Ordering::Relaxed) == 0;
        let status = if fails {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::OK
        };
        (status, "x".repeat(5_000))
    })
    .await;
    let settings = with("signalr", &receiver.url("/")).set("upstream.0.answer_bytes", 1_000);
    let gateway = Gateway::start(settings).await;
    let ann = signalr(&gateway, "ann").await;
    receiver.gets("connected", 2).await;
    ann.close().await;
    receiver.gets("disconnected", 1).await;
    assert_eq!(receiver.of("connected").len(), 2);
}

#[tokio::test]
async fn events_that_wait_are_counted_for_their_hub_on_every_node() {
    let works = Arc::new(AtomicBool::new(false));
    let answer = Arc::clone(&works);
    let receiver = Receiver::start(move |_| {
        if answer.load(Ordering::Relaxed) {
            StatusCode::OK
        } else {
            StatusCode::BAD_GATEWAY
        }
    })
    .await;
    let plan = Plan::nodes(2)
        .set("upstream.0.hubs", "chat")
        .set("upstream.0.form", "signalr")
        .set("upstream.0.url", receiver.url("/"));
    let cluster = plan.start().await;
    let _ann = signalr(&cluster.nodes[0], "ann").await;
    let _bob = signalr(&cluster.nodes[0], "bob").await;
    let told = async |node: usize, count: f64| {
        let what = format!("node {node} counts {count}");
        let pending = async || {
            let metrics = cluster.nodes[node].metrics().await;
            let of = |name| metrics.sum_where(name, &[("hub", "chat")]);
            let (found, age) = (
                of("hubcast_connection_events_pending"),
                of("hubcast_connection_events_pending_seconds"),
            );
            (found.to_bits() == count.to_bits() && (age > 0.0) == (count > 0.0)).then_some(())
        };
        eventually(&what, pending).await;
    };
    told(0, 2.0).await;
    told(1, 2.0).await;
    works.store(true, Ordering::Relaxed);
    told(0, 0.0).await;
    told(1, 0.0).await;
}

#[tokio::test]
async fn a_call_waits_for_a_handler_that_is_being_restarted() {
    let port = free_port();
    let gateway = Gateway::start(with("signalr", &format!("http://127.0.0.1:{port}/"))).await;
    let mut ann = signalr(&gateway, "ann").await;
    let calling = tokio::spawn(async move { ann.result("Echo", json!([1])).await });
    eventually("it was tried", async || {
        let metrics = gateway.metrics().await;
        let unreachable = metrics.sum_where("hubcast_upstream_requests_total", &[("outcome", "unreachable")]);
        (unreachable > 0.0).then_some(())
    })
    .await;
    let receiver = Receiver::at(port, |seen| Box::pin(std::future::ready(echo(&seen)))).await;
    assert_eq!(calling.await.unwrap(), json!([1]));
    assert_eq!(receiver.of("Echo").len(), 1);
}

#[tokio::test]
async fn a_handler_that_hangs_costs_no_other_hub_and_its_callers_hear_in_time() {
    let hanging = Receiver::with(|seen| {
        Box::pin(async move {
            if seen.header("x-asrs-category") == "messages" {
                std::future::pending::<()>().await;
            }
            ().into_response()
        })
    })
    .await;
    let good = echoing().await;
    let settings = with("signalr", &hanging.url("/")).set("upstream.0.timeout_seconds", 1);
    let settings = settings
        .set("upstream.0.concurrency", 2)
        .set("upstream.0.queue", 4)
        .set("upstream.0.name", "slow");
    let settings = settings.set("upstream.0.categories", "messages");
    let settings = settings
        .set("upstream.1.hubs", "quiet")
        .set("upstream.1.form", "signalr");
    let gateway = Gateway::start(settings.set("upstream.1.url", good.url("/"))).await;
    let mut callers = Vec::new();
    for number in 0..12 {
        let mut client = signalr(&gateway, &format!("u{number}")).await;
        callers.push(tokio::spawn(async move {
            let begun = Instant::now();
            let error = client.call("Hang", json!([])).await["error"]
                .as_str()
                .unwrap()
                .to_owned();
            (error, begun.elapsed(), client)
        }));
    }
    let mut other = HubClient::connect(&entry(&gateway, "quiet", "bob"), Transport::WebSockets).await;
    let mut served = 0;
    while !callers.iter().all(tokio::task::JoinHandle::is_finished) {
        assert_eq!(
            other.result("Echo", json!([served])).await,
            json!([served]),
            "the other hub is served meanwhile"
        );
        served += 1;
    }
    assert!(served > 10, "{served}");
    let mut errors = Vec::new();
    let mut clients = Vec::new();
    for caller in callers {
        let (error, _, client) = caller.await.unwrap();
        errors.push(error);
        clients.push(client);
    }
    let of = |part: &str| errors.iter().filter(|error| error.contains(part)).count();
    assert_eq!(of("no whole answer within 1s"), 6, "{errors:?}");
    assert_eq!(of("as many calls wait for it as may (queue)"), 6, "{errors:?}");
    // Ten failures in a row: then it is left alone, and callers hear at once.
    for client in &mut clients[..4] {
        client.call("Hang", json!([])).await;
    }
    eventually("it is left alone", async || {
        let error = clients[0].call("Hang", json!([])).await["error"].clone();
        error
            .as_str()
            .unwrap()
            .contains("not called for a moment")
            .then_some(())
    })
    .await;
    let metrics = gateway.metrics().await;
    assert_eq!(
        metrics.sum_where("hubcast_upstream_open", &[("handler", "slow")]),
        1.0
    );
    assert_eq!(
        metrics.sum_where("hubcast_upstream_waiting", &[("handler", "slow")]),
        0.0
    );
    assert!(
        gateway.log().contains("is left alone for a moment"),
        "{}",
        gateway.log()
    );
}

#[tokio::test]
async fn a_breaker_closes_when_its_handler_works_again() {
    let broken = Arc::new(AtomicUsize::new(1));
    let state = Arc::clone(&broken);
    let receiver =
        Receiver::start(
            move |seen| match (seen.header("x-asrs-category"), state.load(Ordering::Relaxed)) {
                ("messages", 1) => StatusCode::BAD_GATEWAY.into_response(),
                ("messages", _) => completion(&seen, ""),
                _ => ().into_response(),
            },
        )
        .await;
    let gateway = Gateway::start(with("signalr", &receiver.url("/"))).await;
    let mut ann = signalr(&gateway, "ann").await;
    for _ in 0..10 {
        assert_eq!(
            ann.call("Echo", json!([])).await["error"],
            "Invocation failed, status code 502"
        );
    }
    let error = ann.call("Echo", json!([])).await["error"].clone();
    assert!(
        error.as_str().unwrap().contains("not called for a moment"),
        "{error}"
    );
    assert_eq!(receiver.of("Echo").len(), 10, "it is left alone");
    broken.store(0, Ordering::Relaxed);
    eventually("it is called again", async || {
        ann.call("Echo", json!([]))
            .await
            .get("error")
            .is_none()
            .then_some(())
    })
    .await;
    assert_eq!(gateway.metrics().await.sum("hubcast_upstream_open"), 0.0);
}

/// An outage counts for the handler and not for each event that waits: they come as soon as it works again.
#[tokio::test]
async fn events_that_waited_for_a_broken_handler_come_when_it_works_again() {
    const CLIENTS: usize = 40;
    for (form, id) in [
        ("signalr", "x-asrs-connection-id"),
        ("cloudevents", "ce-connectionid"),
    ] {
        let works = Arc::new(AtomicBool::new(false));
        let taken = Arc::new(Mutex::new(HashSet::new()));
        let (answer, takes) = (Arc::clone(&works), Arc::clone(&taken));
        let receiver = Receiver::start(move |seen| {
            if !answer.load(Ordering::Relaxed) {
                return StatusCode::BAD_GATEWAY;
            }
            takes.lock().unwrap().insert(seen.header(id).to_owned());
            StatusCode::OK
        })
        .await;
        let settings = with(form, &receiver.url("/")).set("upstream.0.concurrency", 4);
        let settings = match form {
            "signalr" => settings,
            _ => settings.set("upstream.0.system_events", "connected"),
        };
        let gateway = Gateway::start(settings).await;
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            clients.push(signalr(&gateway, &format!("user-{number}")).await);
        }
        eventually("the handler is left alone", async || {
            (gateway.metrics().await.sum("hubcast_upstream_open") > 0.0).then_some(())
        })
        .await;
        let failed = receiver.of("connected").len();
        works.store(true, Ordering::Relaxed);
        let all = async || (taken.lock().unwrap().len() == CLIENTS).then_some(());
        eventually("every event is taken", all).await;
        assert_eq!(gateway.metrics().await.sum("hubcast_upstream_open"), 0.0);
        let log = gateway.log();
        let reported = log.matches("a handler has not taken an event").count();
        assert!(reported <= failed + 4, "{reported} of {failed}: {log}");
    }
}

#[tokio::test]
async fn a_survivor_tells_the_end_of_a_connection_whose_node_was_killed() {
    let receiver = Receiver::start(|seen| echo(&seen)).await;
    let mut cluster = hubcast_tests::cluster::Plan::nodes(2)
        .with_short_leases()
        .set("hubs.names", "chat")
        .set("server.public_host", "chat.example.org")
        .set("upstream.0.form", "cloudevents")
        .set("upstream.0.url", receiver.url("/"))
        .set("upstream.0.system_events", "connected, disconnected")
        .start()
        .await;
    let ann = WebPubSub::connect(cluster.nodes[0].address(), &target("ann", &json!({})), JSON).await;
    receiver.gets("connected", 1).await;
    cluster.nodes[0].kill();
    let ended = receiver.gets("disconnected", 1).await;
    assert_eq!(ended[0].header("ce-connectionid"), ann.id());
    assert_eq!(ended[0].header("ce-userid"), "ann");
    assert!(
        ended[0].json()["reason"].as_str().unwrap().contains("node"),
        "{}",
        ended[0].json()
    );
}

#[tokio::test]
async fn events_that_a_killed_node_had_to_tell_are_told_by_another_one_under_the_same_ids() {
    let down = Arc::new(AtomicUsize::new(1));
    let state = Arc::clone(&down);
    let receiver = Receiver::start(move |_| match state.load(Ordering::Relaxed) {
        1 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    })
    .await;
    let mut cluster = hubcast_tests::cluster::Plan::nodes(2)
        .with_short_leases()
        .set("hubs.names", "chat")
        .set("server.public_host", "chat.example.org")
        .set("upstream.0.form", "cloudevents")
        .set("upstream.0.url", receiver.url("/"))
        .set("upstream.0.system_events", "connected, disconnected")
        .start()
        .await;
    let mut clients = Vec::new();
    for number in 0..10 {
        let target = target(&format!("u{number}"), &json!({}));
        clients.push(WebPubSub::connect(cluster.nodes[0].address(), &target, JSON).await);
    }
    let tried = receiver.gets("connected", 10).await;
    cluster.nodes[0].kill();
    down.store(0, Ordering::Relaxed);
    receiver.forget();
    receiver.gets("disconnected", 10).await;
    let seen = receiver.seen();
    for client in &clients {
        let of: Vec<_> = seen
            .iter()
            .filter(|seen| seen.header("ce-connectionid") == client.id())
            .collect();
        let events: Vec<_> = of.iter().map(|seen| seen.event()).collect();
        assert_eq!(events, ["connected", "disconnected"], "each once, in order");
        let before = tried
            .iter()
            .find(|seen| seen.header("ce-connectionid") == client.id());
        assert_eq!(
            of[0].header("ce-id"),
            before.expect("it was tried").header("ce-id")
        );
        assert!(of[0].header("ce-userid").starts_with('u'));
    }
}
