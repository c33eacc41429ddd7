//! Sending.

use hubcast_tests::rest::{dated, latest};
use serde_json::json;

use super::{World, nothing, said, say};

#[tokio::test]
async fn messages_reach_all_a_group_a_user_or_a_connection_on_other_nodes() {
    let mut world = World::start().await;
    let (ann, bob) = (world.ann.id().to_owned(), world.bob.id().to_owned());
    assert_eq!(
        world.status("PUT", &format!("/groups/g/connections/{ann}")).await,
        200
    );
    for (path, to_ann, to_bob) in [
        ("/:send".to_owned(), true, true),
        ("/%3Asend".to_owned(), true, true),
        ("/groups/g/:send".to_owned(), true, false),
        ("/groups/nobody/:send".to_owned(), false, false),
        ("/users/bob/:send".to_owned(), false, true),
        ("/users/nobody/:send".to_owned(), false, false),
        (format!("/connections/{bob}/:send"), false, true),
        ("/connections/nobody/:send".to_owned(), false, false),
        ("/connections/no%20id/:send".to_owned(), false, false),
        (format!("/:send?excluded={ann}"), false, true),
        (format!("/:send?excluded={ann}&excluded={bob}"), false, false),
        (format!("/groups/g/:send?excluded={ann}"), false, false),
        (format!("/groups/g/:send?excluded={bob}"), true, false),
    ] {
        let response = world.rest.send(&path, &say(&path)).await;
        assert_eq!(response.outcome(), (202, ""), "{path}");
        let expected = |sent: bool| if sent { vec![said(&path)] } else { nothing() };
        let received = world.received().await;
        assert_eq!(received, [expected(to_ann), expected(to_bob)], "{path}");
    }
    world.ends().await;
}

#[tokio::test]
async fn the_older_routes_and_the_newer_version_send_as_well() {
    let mut world = World::start().await;
    let (ann, bob) = (world.ann.id().to_owned(), world.bob.id().to_owned());
    let join = world
        .rest
        .request("PUT", &format!("/api/v1/hubs/demo/groups/g/connections/{ann}"));
    assert_eq!(world.rest.fetch(&join).await.status(), 200);
    for (target, to_ann, to_bob) in [
        ("/api/v1/hubs/demo".to_owned(), true, true),
        ("/api/v1/hubs/Demo/".to_owned(), true, true),
        (format!("/api/v1/hubs/demo?excluded={bob}"), true, false),
        ("/api/v1/hubs/demo/groups/g".to_owned(), true, false),
        (format!("/api/v1/hubs/demo/groups/g?excluded={ann}"), false, false),
        ("/api/v1/hubs/demo/users/bob".to_owned(), false, true),
        (format!("/api/v1/hubs/demo/connections/{bob}"), false, true),
        ("/api/v1/hubs/demo/:send".to_owned(), true, true),
        (latest("/:send"), true, true),
        (dated("/users/ann"), true, false),
    ] {
        let response = world.rest.post(&target, &say(&target)).await;
        assert_eq!(response.outcome(), (202, ""), "{target}");
        let expected = |sent: bool| if sent { vec![said(&target)] } else { nothing() };
        let received = world.received().await;
        assert_eq!(received, [expected(to_ann), expected(to_bob)], "{target}");
    }
    world.ends().await;
}

#[tokio::test]
async fn names_may_hold_any_character() {
    let mut world = World::start().await;
    let ann = world.ann.id().to_owned();
    for name in ["a%2Fb", "%C3%BC%20%25", ":send", "a+b", "a%0Ab%00"] {
        assert_eq!(
            world
                .status("PUT", &format!("/groups/{name}/connections/{ann}"))
                .await,
            200
        );
        let response = world
            .rest
            .send(&format!("/groups/{name}/:send"), &say(name))
            .await;
        assert_eq!(response.status(), 202, "{name}");
        assert_eq!(world.received().await, [vec![said(name)], nothing()], "{name}");
    }
    for (path, text) in [
        ("/groups//:send", "group name"),
        ("/users//:send", "user id"),
        ("/connections//:send", "connection id"),
    ] {
        let response = world.rest.send(path, &say("x")).await;
        assert_eq!(response.status(), 400, "{path}");
        assert!(response.text().contains(text), "{}", response.text());
    }
    for longest in ["ü".repeat(1_024), "%E6%BC%A2".repeat(1_024), " ".repeat(3)] {
        let path = format!(
            "/groups/{}/:send",
            longest.replace('ü', "%C3%BC").replace(' ', "%20")
        );
        assert_eq!(world.rest.send(&path, &say("x")).await.status(), 202);
    }
    let path = format!("/groups/{}/connections/{ann}", "%C3%BC".repeat(1_024));
    assert_eq!(world.status("PUT", &path).await, 200);
    let long = "x".repeat(1_025);
    assert_eq!(
        world
            .rest
            .send(&format!("/groups/{long}/:send"), &say("x"))
            .await
            .status(),
        400
    );
    world.ends().await;
}

#[tokio::test]
async fn arguments_arrive_as_they_were_written() {
    let mut world = World::start().await;
    let body =
        r#"{"Target":"T","unknown":1,"ARGUMENTS":[{"b":1,"a":[null,true,-1.5]},"ü",18446744073709551615]}"#;
    let request = world.rest.request("POST", &dated("/:send"));
    let request = request.header("Content-Type", "application/json").body(body);
    assert_eq!(world.rest.fetch(&request).await.status(), 202);
    let expected = json!([{ "b": 1, "a": [null, true, -1.5] }, "ü", 18_446_744_073_709_551_615_u64]);
    let expected = vec![("T".to_owned(), expected)];
    assert_eq!(world.received().await, [expected.clone(), expected]);
    for none in [
        json!({ "target": "T" }),
        json!({ "target": "T", "arguments": null }),
    ] {
        assert_eq!(world.rest.send("/:send", &none).await.status(), 202);
        let expected = vec![("T".to_owned(), json!([]))];
        assert_eq!(world.received().await, [expected.clone(), expected]);
    }
    world.ends().await;
}
