//! Watching groups from any node, and their members.

use hubcast::testing::{HubTester, TestClient};
use hubcast::{Error, Hub, Options};
use serde_json::{Value, json};

use crate::nodes::Cluster;

fn reporting() -> Options {
    let mut options = Options::default();
    options.hubs.presence = true;
    options
}

/// The next presence message of a client.
async fn reported(watcher: &mut TestClient) -> Value {
    let reported = watcher.expect("presence").await.unwrap();
    assert_eq!(reported.arguments.len(), 1);
    reported.argument(0).unwrap()
}

fn change(event: &str, group: &str, connection: &str, user: &str) -> Value {
    json!({ "event": event, "group": group, "connectionId": connection, "userId": user })
}

#[tokio::test]
async fn who_watches_is_told_on_any_node() {
    let cluster = Cluster::with(3, reporting()).await;
    let mut watcher = cluster.nodes[2].tester.connect_as("eve").await;
    let name = r#"t"e\a/ü"#;
    cluster.hub(0).groups().watch(watcher.id(), name).await.unwrap();
    let mut anns = Vec::new();
    for node in &cluster.nodes[..2] {
        anns.push(node.tester.connect_as("ann").await);
    }
    let ann = cluster.hub(1).of_user("ann");
    for _ in 0..2 {
        ann.join(name, None).await.unwrap();
    }
    anns.push(cluster.nodes[1].tester.connect_as("ann").await);
    let both = async |watcher: &mut TestClient, event: &str, clients: &[TestClient]| {
        let mut expected: Vec<_> = clients
            .iter()
            .map(|client| change(event, name, client.id(), "ann"))
            .collect();
        let mut heard = Vec::new();
        for _ in clients {
            heard.push(reported(watcher).await);
        }
        for list in [&mut heard, &mut expected] {
            list.sort_by_key(ToString::to_string); // a user's connections join and leave together
        }
        assert_eq!(heard, expected);
    };
    both(&mut watcher, "join", &anns[..2]).await;
    both(&mut watcher, "join", &anns[2..]).await;
    let group = cluster.hub(2).in_group(name);
    let first = group.members(None, 2).await.unwrap();
    let second = group.members(first.next.as_deref(), 2).await.unwrap();
    assert_eq!(
        (first.members.len(), second.members.len(), second.next),
        (2, 1, None)
    );
    assert!(first.users().into_iter().eq(["ann"]));
    ann.leave_all().await.unwrap();
    both(&mut watcher, "leave", &anns).await;

    // The client watches, and is in no group; leaving all groups does not end it.
    cluster.hub(0).of_user("eve").leave_all().await.unwrap();
    let connection = cluster.hub(0).of_connection(watcher.id());
    connection.leave_all().await.unwrap();
    assert!(watcher.groups().is_empty() && connection.groups().await.unwrap().is_empty());
    assert_eq!(cluster.hub(1).connection_statistics().await.unwrap().groups, 0);
    let last = anns.remove(0);
    cluster.hub(0).groups().add(last.id(), name).await.unwrap();
    let id = last.id().to_owned();
    assert_eq!(reported(&mut watcher).await, change("join", name, &id, "ann"));
    last.close().await;
    assert_eq!(reported(&mut watcher).await, change("leave", name, &id, "ann"));
    cluster.hub(1).groups().unwatch(watcher.id(), name).await.unwrap();
    cluster.hub(0).groups().add(anns[0].id(), name).await.unwrap();
    cluster.hub(0).clients().all().send("End", ()).await.unwrap();
    assert_eq!(watcher.receive().await.unwrap().target, "End");
}

#[tokio::test]
async fn a_hub_that_does_not_tell_says_so() {
    let tester = HubTester::new(Hub::new("h")).await.unwrap();
    let client = tester.connect().await;
    let groups = tester.hub().groups();
    let error = groups.watch(client.id(), "g").await.unwrap_err();
    assert!(matches!(error, Error::NoPresence), "{error}");
    assert!(error.to_string().contains("hubs.presence"), "{error}");
    groups.unwatch(client.id(), "g").await.unwrap();
    assert!(!tester.hub().announces_presence());
    assert_eq!(
        tester.hub().in_group("g").members(None, 1).await.unwrap().members,
        []
    );
}

#[tokio::test]
async fn what_is_watched_counts_as_a_group_and_is_named_like_one() {
    let hub = Hub::new("h").configure(|hub| {
        hub.hubs.presence = true;
        hub.limits.groups_per_connection = 2;
    });
    let tester = HubTester::new(hub).await.unwrap();
    let mut client = tester.connect().await;
    let groups = tester.hub().groups();
    for _ in 0..2 {
        groups.watch(client.id(), "a").await.unwrap();
    }
    groups.add(client.id(), "b").await.unwrap();
    let error = groups.watch(client.id(), "b").await.unwrap_err();
    assert!(matches!(error, Error::TooManyGroups { limit: 2 }), "{error}");
    groups.unwatch(client.id(), "a").await.unwrap();
    groups.watch(client.id(), "b").await.unwrap();
    groups.watch("nobody", "b").await.unwrap();
    assert_eq!(client.groups(), ["b"]);
    // No client reaches the watchers under a name of its own.
    let own = "\u{1}b";
    let other = tester.connect().await;
    groups.add(other.id(), own).await.unwrap();
    assert_eq!(tester.hub().in_group(own).count().await.unwrap(), 1);
    tester
        .hub()
        .clients()
        .group(own)
        .send("Forged", ())
        .await
        .unwrap();
    groups.add(other.id(), "b").await.unwrap();
    let reported = client.receive().await.unwrap();
    assert_eq!(reported.target, hubcast::backplane::presence::TARGET);
    let refused = [
        groups.watch(client.id(), "").await,
        groups.unwatch(client.id(), "").await,
        groups.add(client.id(), "").await,
        tester.hub().clients().group("").send("Forged", ()).await,
        tester.hub().of_user("ann").join("", None).await,
        tester.hub().in_group("").members(None, 1).await.map(drop),
    ];
    for outcome in refused {
        assert!(matches!(outcome, Err(Error::Name(_))), "{outcome:?}");
    }
}
