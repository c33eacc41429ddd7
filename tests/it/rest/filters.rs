//! Filters of receivers, in requests of Azure Web PubSub.

use hubcast_tests::event_source::EventSource;
use hubcast_tests::eventually::within;
use hubcast_tests::webpubsub::{JSON, RELIABLE};
use serde_json::{Value, json};

use super::webpubsub::{Hub, encoded, error_code};

#[tokio::test]
async fn a_filter_is_asked_of_every_receiver_where_it_is() {
    let hub = Hub::start().await;
    let mut ann = hub.connect(0, JSON, Some("ann")).await;
    let mut bob = hub.connect(1, RELIABLE, Some("bob")).await;
    let mut nobody = hub.connect(2, JSON, None).await;
    for (group, client) in [("g1", &ann), ("g1", &bob), ("g2", &bob), ("g1", &nobody)] {
        let path = format!("/groups/{group}/connections/{}", client.id());
        assert_eq!(hub.status("PUT", &path).await, 200);
    }
    for (path, filter, expected) in [
        (
            "/:send",
            "userId ne 'bob' and 'g1' in groups",
            [true, false, true],
        ),
        ("/:send", "userId eq null", [false, false, true]),
        ("/:send", "length(groups) gt 1", [false, true, false]),
        (
            "/:send",
            "protocol eq 'json.reliable.webpubsub.azure.v1'",
            [false, true, false],
        ),
        ("/groups/g1/:send", "userId in ('ann','bob')", [true, true, false]),
        ("/users/ann/:send", "not ('g1' in groups)", [false, false, false]),
        (
            "/users/ann/:send",
            &format!("connectionId eq '{}'", ann.id()),
            [true, false, false],
        ),
    ] {
        let query = encoded(filter);
        hub.text(&format!("{path}?filter={query}"), filter).await;
        let received = hub.received(&mut [&mut ann, &mut bob, &mut nobody]).await;
        for (received, expected) in received.iter().zip(expected) {
            assert_eq!(
                received.len(),
                usize::from(expected),
                "{path} {filter} {received:?}"
            );
        }
    }
    let excluded = format!(
        "/:send?excluded={}&excluded={}&filter=true",
        ann.id(),
        nobody.id()
    );
    hub.text(&excluded, "but for two").await;
    assert_eq!(
        hub.received(&mut [&mut ann, &mut bob, &mut nobody]).await,
        [vec![], vec![json!("but for two")], vec![]]
    );

    for bad in ["length(userId)", "userId eq", "x eq 1", &"(".repeat(200)] {
        let response = hub
            .send(&format!("/:send?filter={}", encoded(bad)), "text/plain", "x")
            .await;
        assert_eq!(response.status(), 400, "{bad}");
        assert_eq!(error_code(&response), "Error.BadRequest");
        assert!(
            response.json()["message"]
                .as_str()
                .unwrap()
                .ends_with("(Parameter 'filter')")
        );
    }
    assert_eq!(
        hub.received(&mut [&mut ann, &mut bob, &mut nobody]).await,
        vec![Vec::<Value>::new(); 3]
    );
}

/// A connection receives after its return the messages that it would have received before, by its groups at that time.
#[tokio::test]
async fn a_filter_holds_for_what_is_replayed() {
    let hub = Hub::start().await;
    let mut ann = hub.connect(0, RELIABLE, Some("ann")).await;
    let member = format!("/groups/g/connections/{}", ann.id());
    assert_eq!(hub.status("PUT", &member).await, 200);
    hub.text("/:send", "before").await;
    assert_eq!(ann.fresh().await["data"], "before");
    ann.acknowledge(ann.last).await;
    ann.lose();
    hub.text(&format!("/:send?filter={}", encoded("'g' in groups")), "1")
        .await;
    hub.text(
        &format!("/:send?filter={}", encoded("userId eq 'bob'")),
        "not for her",
    )
    .await;
    assert_eq!(hub.status("DELETE", &member).await, 204);
    hub.text(&format!("/:send?filter={}", encoded("'g' in groups")), "too late")
        .await;
    hub.text(&format!("/:send?filter={}", encoded("not ('g' in groups)")), "2")
        .await;
    hub.text("/:send?messageTtlSeconds=1", "for a second").await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await; // a time to live ends by time alone
    hub.text("/:send?messageTtlSeconds=300", "3").await;
    ann.come_back(hub.cluster.nodes[1].address()).await;
    assert_eq!(ann.fresh_data(3).await, ["1", "2", "3"]);
    for bad in ["301", "-1", "x", "1&messageTtlSeconds=1"] {
        let response = hub
            .send(&format!("/:send?messageTtlSeconds={bad}"), "text/plain", "x")
            .await;
        assert_eq!(response.status(), 400, "{bad}");
    }
}

/// Event streams hold their own place in the log; a filter is asked of what they lack, too.
#[tokio::test]
async fn a_filter_holds_for_the_history_of_an_event_stream() {
    let hub = Hub::start().await;
    let address = hub.cluster.nodes[0].address();
    let source = EventSource::open(address, "group=g").await.begun().await;
    let last = source.last_id.clone();
    drop(source);
    let send = async |filter: &str, text: &'static str| {
        let query = format!("filter={}&api-version=2024-12-01", encoded(filter));
        let target = format!("/api/hubs/demo/groups/g/:send?{query}");
        let request = hub
            .rest
            .request("POST", &target)
            .header("Content-Type", "text/plain");
        assert_eq!(hub.rest.fetch(&request.body(text)).await.status(), 202);
    };
    send("'g' in groups", "1").await;
    send("userId ne null", "of a user").await;
    send("not ('h' in groups)", "2").await;
    send("length(groups) gt 1", "in two groups").await;
    send("protocol eq null", "3").await;
    let mut again = EventSource::resume(hub.cluster.nodes[1].address(), "group=g", &last).await;
    for expected in ["1", "2", "3"] {
        assert_eq!(
            within("an event", again.next()).await.unwrap().data,
            json!([expected])
        );
    }
}

#[tokio::test]
async fn groups_change_for_all_that_a_filter_admits() {
    let hub = Hub::start().await;
    let mut ann = hub.connect(0, JSON, Some("ann")).await;
    let mut bob = hub.connect(1, RELIABLE, Some("bob")).await;
    let mut nobody = hub.connect(2, JSON, None).await;
    let add = |filter: Value| json!({ "groups": ["x", "y/z"], "filter": filter });
    // One of them is away.
    bob.lose();
    let response = hub.post("/:addToGroups", &add(json!("userId ne null"))).await;
    assert_eq!((response.status(), response.text()), (200, ""));
    bob.come_back(hub.cluster.nodes[1].address()).await;
    for group in ["x", "y%2Fz"] {
        let members = hub
            .call("GET", &format!("/groups/{group}/connections"))
            .await
            .json();
        let mut users: Vec<_> = members["value"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["userId"].clone())
            .collect();
        users.sort_by_key(Value::to_string);
        assert_eq!(users, ["ann", "bob"], "{group}");
    }
    hub.text("/groups/x/:send", "members").await;
    let member = vec![json!("members")];
    assert_eq!(
        hub.received(&mut [&mut ann, &mut bob, &mut nobody]).await,
        [member.clone(), member, vec![]]
    );
    let remove = json!({ "filter": "'y/z' in groups and userId eq 'bob'", "groups": ["x"] });
    assert_eq!(hub.post("/:removeFromGroups", &remove).await.status(), 200);
    hub.text("/groups/x/:send", "the rest").await;
    assert_eq!(
        hub.received(&mut [&mut ann, &mut bob, &mut nobody]).await,
        [vec![json!("the rest")], vec![], vec![]]
    );
    let everybody = json!({ "filter": null, "groups": ["x", "y/z"] });
    assert_eq!(hub.post("/:removeFromGroups", &everybody).await.status(), 200);
    assert_eq!(hub.status("HEAD", "/groups/x").await, 404);
    for bad in [
        json!({ "groups": [] }),
        json!({ "groups": [""] }),
        json!({ "groups": "x" }),
        json!({ "filter": "true" }),
        json!({ "groups": ["x"], "filter": "userId" }),
        json!([]),
    ] {
        assert_eq!(hub.post("/:addToGroups", &bad).await.status(), 400, "{bad}");
    }
    assert_eq!(hub.send("/:addToGroups", "text/plain", "x").await.status(), 415);
}
