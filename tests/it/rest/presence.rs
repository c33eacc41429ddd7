//! Presence, and closing of connections.

use hubcast_tests::rest::latest;
use serde_json::{Value, json};

use super::{Receiver, World};

/// Status and the header by which SDKs distinguish "no" from "wrong address".
async fn outcome(world: &World, method: &str, path: &str) -> (u16, Option<String>) {
    let response = world.rest.call(method, path).await;
    let code = response.head.header("x-ms-error-code").map(str::to_owned);
    if method != "HEAD" && response.status() >= 400 {
        assert_eq!(response.json()["code"].as_str(), code.as_deref(), "{path}");
    }
    (response.status(), code)
}

#[tokio::test]
async fn it_is_known_on_every_node_who_is_there() {
    let world = World::start().await;
    let ann = world.ann.id();
    assert_eq!(
        world.status("PUT", &format!("/groups/g/connections/{ann}")).await,
        200
    );
    let no = |code: &str| (404, Some(code.to_owned()));
    for method in ["HEAD", "GET"] {
        for (path, expected) in [
            (format!("/connections/{ann}"), (200, None)),
            (
                "/connections/nobody".to_owned(),
                no("Warning.Connection.NotExisted"),
            ),
            (
                "/connections/no%20id".to_owned(),
                no("Warning.Connection.NotExisted"),
            ),
            ("/users/bob".to_owned(), (200, None)),
            ("/users/eve".to_owned(), no("Warning.User.NotExisted")),
            ("/groups/g".to_owned(), (200, None)),
            ("/groups/empty".to_owned(), no("Warning.Group.NotExisted")),
        ] {
            assert_eq!(outcome(&world, method, &path).await, expected, "{method} {path}");
            let v1 = world.rest.request(method, &format!("/api/v1/hubs/demo{path}"));
            assert_eq!(
                world.rest.fetch(&v1).await.status(),
                expected.0,
                "v1 {method} {path}"
            );
        }
    }
    world.ends().await;
}

/// Web PubSub's SDKs take 404 for "no permission" and any other refusal for an error, which this is.
#[tokio::test]
async fn permissions_are_refused_in_words() {
    let world = World::start().await;
    let path = format!("/permissions/joinLeaveGroup/connections/{}", world.ann.id());
    for method in ["HEAD", "GET", "PUT", "DELETE"] {
        let answer = world.rest.call(method, &path).await;
        assert_eq!(answer.status(), 501, "{method}");
        assert_eq!(answer.head.header("x-ms-error-code"), Some("NotImplemented"));
    }
    world.ends().await;
}

#[tokio::test]
async fn a_connection_is_closed_with_a_reason() {
    let mut world = World::start().await;
    let path = format!("/connections/{}?reason=be%20polite", world.ann.id());
    assert_eq!(world.status("DELETE", &path).await, 204);
    assert_eq!(world.ann.closed().await, "be polite");
    world.cluster.has_connections(1).await;
    assert_eq!(world.status("DELETE", &path).await, 204, "it is closed already");
    let path = format!("/api/v1/hubs/demo/connections/{}", world.bob.id());
    let request = world.rest.request("DELETE", &path);
    assert_eq!(world.rest.fetch(&request).await.outcome(), (202, ""));
    world.bob.closed().await;
    let long = format!("/connections/c?reason={}", "x".repeat(5_000));
    assert_eq!(world.rest.call("DELETE", &long).await.status(), 400);
    world.ends().await;
}

#[tokio::test]
async fn all_or_those_of_a_group_or_user_are_closed_but_some() {
    let mut world = World::start().await;
    let mut others = Vec::new();
    for node in 0..3 {
        others.push(Receiver::connect(&world.cluster, node, "carl", node == 1).await);
    }
    for receiver in others.iter().chain([&world.ann]) {
        let path = format!("/groups/g/connections/{}", receiver.id());
        assert_eq!(world.status("PUT", &path).await, 200);
    }
    let (kept, ann) = (others[2].id().to_owned(), world.ann.id().to_owned());

    let path = format!(
        "/users/carl/:closeConnections?reason=user&excluded={kept}&excluded={}",
        others[1].id()
    );
    assert_eq!(world.status("POST", &path).await, 204);
    assert_eq!(others[0].closed().await, "user");

    let path = format!("/groups/g/:closeConnections?reason=group&excluded={ann}&excluded={kept}");
    assert_eq!(world.status("POST", &path).await, 204);
    assert_eq!(others[1].closed().await, "group");

    let path = format!("/:closeConnections?reason=all&excluded={ann}");
    assert_eq!(world.status("POST", &path).await, 204);
    assert_eq!(others[2].closed().await, "all");
    assert_eq!(world.bob.closed().await, "all");
    world.cluster.has_connections(1).await;
    assert_eq!(world.ann.client.result("Echo", json!(["alive"])).await, "alive");

    assert_eq!(
        world.status("POST", "/groups/nobody/:closeConnections").await,
        204
    );
    assert_eq!(world.status("POST", "/users/nobody/:closeConnections").await, 204);
    assert_eq!(world.status("POST", "/:closeConnections").await, 204);
    assert_eq!(world.ann.closed().await, Value::Null);
    world.ends().await;
}

#[tokio::test]
async fn a_groups_connections_are_listed_in_pages() {
    let world = World::start().await;
    let mut members = vec![
        (world.ann.id().to_owned(), "ann"),
        (world.bob.id().to_owned(), "bob"),
    ];
    let carl = Receiver::connect(&world.cluster, 2, "carl", false).await;
    members.push((carl.id().to_owned(), "carl"));
    for (id, _) in &members {
        assert_eq!(
            world.status("PUT", &format!("/groups/g/connections/{id}")).await,
            200
        );
    }
    members.sort();
    let expected: Vec<_> = members
        .iter()
        .map(|(id, user)| json!({ "connectionId": id, "userId": user }))
        .collect();
    let list = async |target: &str| {
        let response = world.rest.fetch(&world.rest.request("GET", target)).await;
        assert_eq!(response.status(), 200, "{target}: {}", response.text());
        response.json()
    };
    let whole = list(&latest("/groups/g/connections")).await;
    assert_eq!(whole, json!({ "value": expected }));
    assert_eq!(
        list(&latest("/groups/empty/connections")).await,
        json!({ "value": [] })
    );

    let first = list(&latest("/groups/g/connections?maxpagesize=2")).await;
    assert_eq!(first["value"], json!(expected[..2]));
    let next = first["nextLink"].as_str().unwrap();
    let next = next
        .strip_prefix(&format!("http://{}", world.rest.address()))
        .unwrap();
    assert_eq!(list(next).await, json!({ "value": expected[2..] }));

    let top = list(&latest("/groups/g/connections?maxpagesize=1&top=2")).await;
    let next = top["nextLink"].as_str().unwrap();
    let next = next
        .strip_prefix(&format!("http://{}", world.rest.address()))
        .unwrap();
    assert_eq!(
        list(next).await,
        json!({ "value": expected[1..2] }),
        "no more than the top"
    );

    for bad in ["maxpagesize=0", "maxpagesize=x", "continuationToken=a%20b"] {
        let target = latest(&format!("/groups/g/connections?{bad}"));
        let response = world.rest.fetch(&world.rest.request("GET", &target)).await;
        assert_eq!(response.status(), 400, "{bad}");
    }
    // A page size beyond the limit is the limit.
    assert_eq!(
        list(&latest("/groups/g/connections?top=0")).await,
        json!({ "value": [] })
    );
    let large = list(&latest("/groups/g/connections?maxpagesize=500")).await;
    assert_eq!(large["value"].as_array().map(Vec::len), Some(expected.len()));
    let old = world.rest.call("GET", "/groups/g/connections").await;
    assert_eq!(old.status(), 400);
    assert!(old.text().contains("2024-12-01"), "{}", old.text());
    drop(carl);
    world.ends().await;
}
