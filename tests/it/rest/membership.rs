//! Groups of connections and of users.

use hubcast_tests::eventually::eventually;

use super::{Receiver, World, nothing, said, say};

/// Returns whether each client receives a message to the group.
async fn in_group(world: &mut World, group: &str) -> [bool; 2] {
    let response = world
        .rest
        .send(&format!("/groups/{group}/:send"), &say(group))
        .await;
    assert_eq!(response.status(), 202);
    world.received().await.map(|received| {
        assert!(received == [said(group)] || received == nothing(), "{received:?}");
        !received.is_empty()
    })
}

#[tokio::test]
async fn a_connection_joins_and_leaves() {
    let mut world = World::start().await;
    let (ann, bob) = (world.ann.id().to_owned(), world.bob.id().to_owned());
    for path in [
        format!("/groups/g/connections/{ann}"),
        format!("/connections/{bob}/groups/g"),
    ] {
        assert_eq!(world.status("PUT", &path).await, 200);
        assert_eq!(world.status("PUT", &path).await, 200, "twice is once");
    }
    assert_eq!(in_group(&mut world, "g").await, [true, true]);
    assert_eq!(
        world
            .status("DELETE", &format!("/groups/g/connections/{ann}"))
            .await,
        204
    );
    assert_eq!(in_group(&mut world, "g").await, [false, true]);
    assert_eq!(
        world
            .status("DELETE", &format!("/connections/{bob}/groups/g"))
            .await,
        204
    );
    assert_eq!(in_group(&mut world, "g").await, [false, false]);
    for path in [
        format!("/groups/g/connections/{ann}"),
        "/groups/g/connections/nobody".to_owned(),
    ] {
        assert_eq!(world.status("DELETE", &path).await, 204, "it is out already");
    }
    let unknown = world.rest.call("PUT", "/groups/g/connections/nobody").await;
    assert_eq!(unknown.status(), 404);
    assert_eq!(
        unknown.head.header("x-ms-error-code"),
        Some("Error.Connection.NotExisted")
    );

    for group in ["g", "h"] {
        assert_eq!(
            world
                .status("PUT", &format!("/groups/{group}/connections/{ann}"))
                .await,
            200
        );
    }
    assert_eq!(
        world
            .status("DELETE", &format!("/connections/{ann}/groups"))
            .await,
        204
    );
    assert_eq!(world.status("DELETE", "/connections/nobody/groups").await, 204);
    assert_eq!(in_group(&mut world, "g").await, [false, false]);
    assert_eq!(in_group(&mut world, "h").await, [false, false]);
    world.ends().await;
}

#[tokio::test]
async fn a_connection_is_in_so_many_groups_at_most() {
    let world = World::with(|plan| plan.set("limits.groups_per_connection", 2)).await;
    let join = |group: &str| format!("/groups/{group}/connections/{}", world.ann.id());
    assert_eq!(world.status("PUT", &join("a")).await, 200);
    assert_eq!(world.status("PUT", &join("b")).await, 200);
    let response = world.rest.call("PUT", &join("c")).await;
    assert_eq!(response.status(), 409);
    assert!(
        response.text().contains("limits.groups_per_connection"),
        "{}",
        response.text()
    );
    world.ends().await;
}

#[tokio::test]
async fn a_user_joins_with_present_and_later_connections() {
    let mut world = World::start().await;
    assert_eq!(world.status("PUT", "/users/bob/groups/g").await, 200);
    for method in ["HEAD", "GET"] {
        assert_eq!(world.status(method, "/users/bob/groups/g").await, 200);
        let response = world.rest.call(method, "/users/ann/groups/g").await;
        assert_eq!(response.status(), 404);
        assert_eq!(
            response.head.header("x-ms-error-code"),
            Some("Info.User.NotInGroup")
        );
    }
    assert_eq!(in_group(&mut world, "g").await, [false, true]);
    let mut later = Receiver::connect(&world.cluster, 0, "bob", false).await;
    assert_eq!(in_group(&mut world, "g").await, [false, true]);
    assert_eq!(later.received().await, [said("g")]);

    assert_eq!(world.status("DELETE", "/users/bob/groups/g").await, 204);
    assert_eq!(world.status("DELETE", "/users/bob/groups/g").await, 204);
    assert_eq!(world.rest.call("GET", "/users/bob/groups/g").await.status(), 404);
    assert_eq!(in_group(&mut world, "g").await, [false, false]);
    assert_eq!(later.received().await, nothing());

    let joined = format!("/groups/own/connections/{}", world.bob.id());
    assert_eq!(world.status("PUT", &joined).await, 200);
    assert_eq!(world.status("PUT", "/users/bob/groups/g?ttl=600").await, 200);
    assert_eq!(world.status("DELETE", "/users/bob/groups").await, 204);
    assert_eq!(in_group(&mut world, "g").await, [false, false]);
    assert_eq!(
        in_group(&mut world, "own").await,
        [false, false],
        "also what it joined by itself"
    );
    drop(later);
    world.ends().await;
}

#[tokio::test]
async fn a_time_to_live_is_for_later_connections() {
    let mut world = World::start().await;
    assert_eq!(world.status("PUT", "/users/bob/groups/now?ttl=0").await, 200);
    assert_eq!(in_group(&mut world, "now").await, [false, true]);
    assert_eq!(
        world.rest.call("GET", "/users/bob/groups/now").await.status(),
        404,
        "nothing is kept"
    );
    assert_eq!(world.status("PUT", "/users/bob/groups/short?ttl=1").await, 200);
    eventually("the membership ends", async || {
        let status = world.rest.call("GET", "/users/bob/groups/short").await.status();
        (status == 404).then_some(())
    })
    .await;
    assert_eq!(
        in_group(&mut world, "short").await,
        [false, true],
        "who joined stays"
    );
    for bad in ["ttl=-1", "ttl=x", "ttl=1.5", "ttl="] {
        let response = world
            .rest
            .call("PUT", &format!("/users/bob/groups/g?{bad}"))
            .await;
        assert_eq!(response.status(), 400, "{bad}");
        assert!(response.text().contains("ttl"), "{}", response.text());
    }
    world.ends().await;
}

#[tokio::test]
async fn the_older_routes_change_users_groups_as_well() {
    let mut world = World::start().await;
    let call = async |world: &World, method: &str, path: &str| {
        let request = world.rest.request(method, &format!("/api/v1/hubs/demo{path}"));
        world.rest.fetch(&request).await.status()
    };
    assert_eq!(call(&world, "PUT", "/groups/g/users/ann?ttl=600").await, 202);
    assert_eq!(call(&world, "HEAD", "/groups/g/users/ann").await, 200);
    assert_eq!(call(&world, "GET", "/groups/g/users/ann").await, 200);
    assert_eq!(in_group(&mut world, "g").await, [true, false]);
    assert_eq!(call(&world, "DELETE", "/groups/g/users/ann").await, 202);
    assert_eq!(call(&world, "GET", "/groups/g/users/ann").await, 404);
    assert_eq!(in_group(&mut world, "g").await, [false, false]);
    assert_eq!(call(&world, "PUT", "/groups/g/users/ann").await, 202);
    assert_eq!(call(&world, "DELETE", "/users/ann/groups").await, 200);
    assert_eq!(in_group(&mut world, "g").await, [false, false]);
    let id = world.ann.id().to_owned();
    assert_eq!(
        call(&world, "PUT", &format!("/groups/g/connections/{id}")).await,
        200
    );
    assert_eq!(in_group(&mut world, "g").await, [true, false]);
    assert_eq!(
        call(&world, "DELETE", &format!("/groups/g/connections/{id}")).await,
        200
    );
    assert_eq!(in_group(&mut world, "g").await, [false, false]);
    world.ends().await;
}
