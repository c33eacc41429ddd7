//! Groups of users: for the connections that they have, and those that come.

use std::time::Duration;

use hubcast::{Error, Options};
use tokio::time::sleep;

use crate::nodes::{Cluster, eventually};

#[tokio::test]
async fn a_users_connections_are_in_its_groups_wherever_and_whenever_they_come() {
    let cluster = Cluster::start(2).await;
    let mut present = Vec::new();
    for node in &cluster.nodes {
        present.push(node.tester.connect_as("ann").await);
    }
    let bob = cluster.nodes[0].tester.connect_as("bob").await;
    let ann = cluster.hub(0).of_user("ann");
    ann.join("g", None).await.unwrap();
    cluster
        .hub(1)
        .of_user("ann")
        .join("h", Some(Duration::from_secs(60)))
        .await
        .unwrap();
    for node in &cluster.nodes {
        let mut client = node.tester.connect_as("ann").await;
        let mut groups: Vec<String> = client.invoke("Groups", ()).await.unwrap();
        groups.sort();
        assert_eq!(groups, ["g", "h"], "before its first call");
        present.push(client);
    }
    assert_eq!(cluster.hub(1).in_group("g").count().await.unwrap(), 4);
    cluster
        .hub(1)
        .clients()
        .group("h")
        .send("Hello", ())
        .await
        .unwrap();
    for client in &mut present {
        assert_eq!(client.expect("Hello").await.unwrap().arguments, []);
    }
    assert!(bob.groups().is_empty());
    assert_eq!(ann.groups().await.unwrap(), ["g", "h"]);

    ann.leave("g").await.unwrap();
    assert!(!cluster.hub(1).of_user("ann").is_in("g").await.unwrap());
    assert!(!cluster.hub(1).in_group("g").exists().await.unwrap());
    // The same holds for groups that they joined by themselves.
    present[0].invoke::<()>("Join", ("own",)).await.unwrap();
    cluster.hub(1).of_user("ann").leave_all().await.unwrap();
    for client in &present {
        assert!(client.groups().is_empty(), "{:?}", client.groups());
    }
    let late = cluster.nodes[0].tester.connect_as("ann").await;
    assert!(late.groups().is_empty() && ann.groups().await.unwrap().is_empty());
}

#[tokio::test]
async fn time_in_a_group_is_for_those_who_come() {
    let cluster = Cluster::start(1).await;
    let tester = &cluster.nodes[0].tester;
    let present = tester.connect_as("ann").await;
    let ann = cluster.hub(0).of_user("ann");
    ann.join("present only", Some(Duration::ZERO)).await.unwrap();
    ann.join("short", Some(Duration::from_millis(50))).await.unwrap();
    ann.join("long", Some(Duration::from_secs(600))).await.unwrap();
    assert!(!ann.is_in("present only").await.unwrap() && ann.is_in("long").await.unwrap());
    eventually("the short time is over", async || {
        !ann.is_in("short").await.unwrap()
    })
    .await;
    let late = tester.connect_as("ann").await;
    assert_eq!(late.groups(), ["long"]);
    let mut groups = cluster.hub(0).of_connection(present.id()).groups().await.unwrap();
    groups.sort();
    assert_eq!(groups, ["long", "present only", "short"]);
}

#[tokio::test]
async fn a_user_has_no_more_groups_than_a_connection_may() {
    let mut options = Options::default();
    options.limits.groups_per_connection = 2;
    let cluster = Cluster::with(1, options).await;
    let ann = cluster.hub(0).of_user("ann");
    for group in ["a", "b", "c"] {
        ann.join(group, None).await.unwrap();
        sleep(Duration::from_millis(2)).await; // one after the other, also for the server's clock
    }
    assert_eq!(ann.groups().await.unwrap(), ["b", "c"]);
    let tester = &cluster.nodes[0].tester;
    let client = tester.connect_as("ann").await;
    let refused = ann.join("d", Some(Duration::ZERO)).await;
    assert!(
        matches!(refused, Err(Error::TooManyGroups { limit: 2 })),
        "{refused:?}"
    );
    assert_eq!(
        cluster.hub(0).of_connection(client.id()).groups().await.unwrap(),
        ["b", "c"]
    );
}

/// Connections come while the user joins and leaves: afterwards none is where the user is not, and none is missing.
#[tokio::test]
async fn connections_that_come_meanwhile_are_where_their_user_is() {
    let cluster = Cluster::start(2).await;
    for round in 0..10 {
        let user = format!("user-{round}");
        let joins = round % 2 == 0;
        let known = cluster.hub(0).of_user(&user);
        if !joins {
            known.join("g", None).await.unwrap();
        }
        let (changed, clients) = tokio::join!(
            async {
                sleep(Duration::from_millis(round)).await;
                if joins {
                    known.join("g", None).await
                } else {
                    known.leave("g").await
                }
            },
            async {
                let mut clients = Vec::new();
                for number in 0..20 {
                    clients.push(cluster.nodes[number % 2].tester.connect_as(&user).await);
                }
                clients
            }
        );
        changed.unwrap();
        for client in &clients {
            let expected = if joins { vec!["g"] } else { Vec::new() };
            assert_eq!(client.groups(), expected, "round {round}");
        }
    }
}
