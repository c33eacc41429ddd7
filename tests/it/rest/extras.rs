//! Features that Azure SignalR has later or not at all: invocations, batches, repeatable requests, statistics.

use hubcast_tests::http::Response;
use hubcast_tests::rest::{Rest, dated, latest};
use serde_json::{Value, json};

use super::{World, nothing, said, say};

async fn once(rest: &Rest, target: &str, key: &str, body: &Value) -> Response {
    let request = rest.message(target, body).header("Idempotency-Key", key);
    rest.fetch(&request).await
}

#[tokio::test]
async fn a_client_is_asked_for_a_result() {
    let mut world = World::start().await;
    let target = latest(&format!("/connections/{}/:invoke", world.ann.id()));
    let question = json!({ "target": "GetAnswer", "arguments": [1] });
    for (answer, status, expected) in [
        (
            json!({ "result": { "a": 42 } }),
            200,
            json!({ "result": { "a": 42 } }),
        ),
        (json!({ "result": null }), 200, json!({ "result": null })),
        (
            json!({ "error": "I won't" }),
            422,
            json!({ "code": "Error.Invocation.Failed", "message": "I won't", "target": "Request" }),
        ),
    ] {
        let asking = world.rest.post(&target, &question);
        let answering = async {
            let asked = world.ann.client.next().await.unwrap();
            assert_eq!(
                (&asked["target"], &asked["arguments"]),
                (&json!("GetAnswer"), &json!([1]))
            );
            let mut message = json!({ "type": 3, "invocationId": asked["invocationId"] });
            message
                .as_object_mut()
                .unwrap()
                .extend(answer.as_object().unwrap().clone());
            world.ann.client.say(&message).await;
        };
        let (response, ()) = tokio::join!(asking, answering);
        assert_eq!((response.status(), response.json()), (status, expected));
    }
    for id in ["nobody", "no%20id"] {
        let target = latest(&format!("/connections/{id}/:invoke"));
        let response = world.rest.post(&target, &question).await;
        assert_eq!(response.status(), 404);
        assert_eq!(response.json()["code"], "Warning.Connection.NotExisted");
    }
    world.ends().await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_not_waited_for_for_ever() {
    let world = World::with(|plan| plan.set("timeouts.client_result_seconds", 0.5)).await;
    let target = latest(&format!("/connections/{}/:invoke", world.bob.id()));
    let response = world.rest.post(&target, &json!({ "target": "GetAnswer" })).await;
    assert_eq!(response.status(), 504);
    assert_eq!(response.json()["code"], "Error.Invocation.Timeout");
    world.ends().await;
}

#[tokio::test]
async fn a_batch_is_sent_in_order() {
    let mut world = World::start().await;
    let (ann, bob) = (world.ann.id().to_owned(), world.bob.id().to_owned());
    assert_eq!(
        world.status("PUT", &format!("/groups/g/connections/{ann}")).await,
        200
    );
    let message = |to: Value, text: &str| json!({ "to": to, "target": "Say", "arguments": [text] });
    let mut batch = json!({ "messages": [
        message(json!("all"), "1"),
        message(json!({ "group": "g" }), "2"),
        message(json!({ "user": "bob" }), "3"),
        message(json!({ "connection": ann }), "4"),
        message(json!({ "connection": "no id" }), "5"),
        message(json!("all"), "6"),
    ] });
    batch["messages"][5]["excluded"] = json!([bob]);
    let response = world.rest.post("/api/hubs/demo/:batch", &batch).await;
    assert_eq!(
        (response.status(), response.json()),
        (202, json!({ "accepted": 5 }))
    );
    let texts = |texts: &[&str]| texts.iter().map(|text| said(text)).collect::<Vec<_>>();
    assert_eq!(
        world.received().await,
        [texts(&["1", "2", "4", "6"]), texts(&["1", "3"])]
    );

    let many = vec![message(json!("all"), "x"); 1_001];
    for (bad, text) in [
        (json!({}), "messages"),
        (json!([]), "messages"),
        (json!({ "messages": [] }), "1 to 1000"),
        (json!({ "messages": many }), "1 to 1000"),
        (
            json!({ "messages": [message(json!("all"), "x"), { "target": "t" }] }),
            "messages[1]",
        ),
        (
            json!({ "messages": [message(json!("all"), "x"), message(json!({ "group": "" }), "x")] }),
            "messages[1]",
        ),
        (
            json!({ "messages": [message(json!("everybody"), "x")] }),
            "to must be",
        ),
    ] {
        let response = world.rest.post("/api/hubs/demo/:batch", &bad).await;
        assert_eq!(response.status(), 400);
        assert!(response.text().contains(text), "{}", response.text());
    }
    assert_eq!(
        world.received().await,
        [nothing(), nothing()],
        "all or nothing is read"
    );
    world.ends().await;
}

#[tokio::test]
async fn a_repeated_request_is_carried_out_once_whichever_node_it_reaches() {
    let mut world = World::start().await;
    let nodes: Vec<_> = world.cluster.nodes.iter().map(Rest::on).collect();
    let ann = world.ann.id().to_owned();
    let own = format!("/connections/{ann}/:send");
    for path in ["/:send", "/users/ann/:send", own.as_str()] {
        let target = dated(path);
        let key = format!("key of {path}");
        let message = say(path);
        let repeated = (0..9).map(|index| once(&nodes[index % 3], &target, &key, &message));
        for response in futures_util::future::join_all(repeated).await {
            assert_eq!(response.outcome(), (202, ""), "{path}");
        }
        let to_bob = if path == "/:send" {
            vec![said(path)]
        } else {
            nothing()
        };
        assert_eq!(world.received().await, [vec![said(path)], to_bob]);
    }
    // The same key for another message, receiver or exclusion is a mistake.
    for (target, message) in [
        (dated("/:send"), say("other")),
        (dated("/users/ann/:send"), say("/:send")),
        (dated(&format!("/:send?excluded={ann}")), say("/:send")),
    ] {
        let response = once(&nodes[1], &target, "key of /:send", &message).await;
        assert_eq!(response.status(), 422, "{target}");
        assert_eq!(response.json()["code"], "Error.IdempotencyKey.Reused");
    }
    for bad in [String::new(), "x".repeat(256), "ä".to_owned()] {
        let response = once(&nodes[0], &dated("/:send"), &bad, &say("x")).await;
        assert_eq!(response.status(), 400, "{bad}");
    }
    assert_eq!(world.received().await, [nothing(), nothing()]);
    world.ends().await;
}

#[tokio::test]
async fn a_repeated_batch_is_carried_out_once() {
    let mut world = World::start().await;
    let nodes: Vec<_> = world.cluster.nodes.iter().map(Rest::on).collect();
    let batch = |count: usize| {
        let message = |index| json!({ "to": "all", "target": "Say", "arguments": [format!("{index}")] });
        json!({ "messages": (0..count).map(message).collect::<Vec<_>>() })
    };
    let repeated = (0..6).map(|index| {
        let (rest, batch) = (nodes[index % 3], batch(5));
        async move { once(&rest, "/api/hubs/demo/:batch", "k", &batch).await }
    });
    for response in futures_util::future::join_all(repeated).await {
        assert_eq!(
            (response.status(), response.json()),
            (202, json!({ "accepted": 5 }))
        );
    }
    for mut received in world.received().await {
        received.sort_by_key(|(_, arguments)| arguments.to_string());
        let expected: Vec<_> = (0..5).map(|index| said(&index.to_string())).collect();
        assert_eq!(received, expected);
    }
    let other = once(&nodes[0], "/api/hubs/demo/:batch", "k", &batch(6)).await;
    assert_eq!(other.status(), 422);
    assert_eq!(
        once(&nodes[0], &dated("/:send"), "k", &say("one")).await.status(),
        202,
        "keys of batches are others"
    );
    assert_eq!(world.received().await, [vec![said("one")], vec![said("one")]]);
    world.ends().await;
}

#[tokio::test]
async fn a_key_is_forgotten_after_the_hubs_retention() {
    let mut world = World::with(|plan| {
        plan.set("hubs.retention_seconds", 1)
            .set("hubs.resume_window_seconds", 1)
    })
    .await;
    let target = dated("/:send");
    assert_eq!(once(&world.rest, &target, "k", &say("a")).await.status(), 202);
    hubcast_tests::eventually::eventually("the key is forgotten", async || {
        let status = once(&world.rest, &target, "k", &say("b")).await.status();
        (status == 202).then_some(())
    })
    .await;
    let expected = vec![said("a"), said("b")];
    assert_eq!(world.received().await, [expected.clone(), expected]);
    world.ends().await;
}

#[tokio::test]
async fn statistics_count_the_whole_cluster() {
    let world = World::start().await;
    assert_eq!(
        world
            .status("PUT", &format!("/groups/g/connections/{}", world.ann.id()))
            .await,
        200
    );
    let response = world
        .rest
        .fetch(&world.rest.request("GET", "/api/hubs/demo/:statistics"))
        .await;
    assert_eq!(response.status(), 200, "{}", response.text());
    let statistics = response.json();
    assert_eq!(
        (
            &statistics["hub"],
            &statistics["connections"],
            &statistics["groups"],
            &statistics["parked"]
        ),
        (&json!("demo"), &json!(2), &json!(1), &json!(0))
    );
    let nodes: Vec<_> = statistics["nodes"].as_array().unwrap().iter().collect();
    let owned: u64 = nodes
        .iter()
        .map(|node| node["connections"].as_u64().unwrap())
        .sum();
    assert_eq!(owned, 2);
    assert!(
        nodes
            .iter()
            .all(|node| node["node"].as_str().unwrap().starts_with("node-")),
        "{nodes:?}"
    );
    world.ends().await;
}
