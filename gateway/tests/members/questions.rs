//! Questions about connections, asked on every node.

use hubcast::Error;
use hubcast::hub::Page;

use crate::nodes::{Cluster, Resumable};

#[tokio::test]
async fn every_node_knows_who_is_connected() {
    let cluster = Cluster::start(3).await;
    let mut clients = Vec::new();
    for node in &cluster.nodes {
        clients.push(node.tester.connect_as("ann").await);
    }
    let bob = cluster.nodes[0].tester.connect_as("bob").await;
    let nobody = cluster.nodes[1].tester.connect().await;
    for client in &clients {
        cluster.hub(0).groups().add(client.id(), "g").await.unwrap();
    }
    cluster.hub(2).groups().add(bob.id(), "a").await.unwrap();
    cluster.hub(2).groups().add(bob.id(), "b").await.unwrap();
    let mut ids: Vec<_> = clients.iter().map(|client| client.id().to_owned()).collect();
    ids.sort();
    for node in 0..3 {
        let hub = cluster.hub(node);
        // Questions may be asked in tasks.
        let asked = tokio::spawn(async move {
            let (group, ann) = (hub.in_group("g"), hub.of_user("ann"));
            assert_eq!((group.count().await.unwrap(), ann.count().await.unwrap()), (3, 3));
            assert!(group.exists().await.unwrap() && ann.exists().await.unwrap());
            let whole = Page {
                connections: ids.clone(),
                next: None,
            };
            assert_eq!(group.connections(None, 3).await.unwrap(), whole);
            assert_eq!(ann.connections(None, usize::MAX).await.unwrap(), whole);
            let first = group.connections(None, 2).await.unwrap();
            assert_eq!(
                (&first.connections[..], first.next.as_ref()),
                (&ids[..2], Some(&ids[1]))
            );
            let rest = group.connections(first.next.as_deref(), 0).await.unwrap();
            assert_eq!((&rest.connections[..], rest.next), (&ids[2..], None));
            ids
        });
        ids = asked.await.unwrap();
        let hub = cluster.hub(node);
        assert!(!hub.in_group("g").contains(bob.id()).await.unwrap());
        assert!(hub.in_group("a").contains(bob.id()).await.unwrap());
        let bobs = hub.of_connection(bob.id());
        assert!(bobs.exists().await.unwrap());
        assert_eq!(bobs.user().await.unwrap().as_deref(), Some("bob"));
        assert_eq!(bobs.groups().await.unwrap(), ["a", "b"]);
        assert_eq!(hub.of_connection(nobody.id()).user().await.unwrap(), None);
        let statistics = hub.connection_statistics().await.unwrap();
        assert_eq!(
            (statistics.connections, statistics.parked, statistics.groups),
            (5, 0, 3)
        );
        let nodes =
            [("node-0", 2), ("node-1", 2), ("node-2", 1)].map(|(node, count)| (node.to_owned(), count));
        assert_eq!(statistics.nodes, nodes);
    }
    cluster.hub(1).of_connection(bob.id()).leave_all().await.unwrap();
    assert!(bob.groups().is_empty() && !cluster.hub(0).in_group("a").exists().await.unwrap());
}

#[tokio::test]
async fn what_cannot_be_a_name_is_nobodys_or_an_error() {
    let cluster = Cluster::start(1).await;
    let hub = cluster.hub(0);
    for nobody in ["", "no such", "\n"] {
        assert!(!hub.of_connection(nobody).exists().await.unwrap());
        assert!(!hub.of_connection(nobody).close(None).await.unwrap());
        assert_eq!(hub.of_connection(nobody).groups().await.unwrap(), [""; 0]);
        assert!(!hub.in_group("g").contains(nobody).await.unwrap());
    }
    let user = hub.of_user("");
    assert!(!user.exists().await.unwrap() && user.groups().await.unwrap().is_empty());
    assert_eq!(user.connections(None, 10).await.unwrap(), Page::default());
    user.close_all(None, [""; 0]).await.unwrap();
    let long = "x".repeat(hubcast::hub::MAX_REASON_BYTES + 1);
    let errors = [
        hub.in_group("").count().await.err(),
        user.join("g", None).await.err(),
        hub.of_user("ann").join("", None).await.err(),
        hub.in_group("g").connections(Some("no such"), 1).await.err(),
    ];
    for error in errors {
        assert!(matches!(error, Some(Error::Name(_))), "{error:?}");
    }
    for error in [
        hub.close_all(Some(&long), [""; 0]).await.err(),
        hub.of_connection("c").close(Some(&long)).await.err(),
    ] {
        assert!(
            matches!(error, Some(Error::ReasonTooLong { limit: 4_096, .. })),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_connection_whose_client_may_come_back_counts() {
    let mut cluster = Cluster::start(2).await;
    let mut client = Resumable::connect(&cluster.nodes[0]).await;
    client.call("Join", serde_json::json!(["g"])).await;
    client.lose();
    let left = cluster.nodes.remove(0);
    left.gateway.shutdown(std::time::Duration::from_secs(5)).await;
    let hub = cluster.hub(0);
    let statistics = hub.connection_statistics().await.unwrap();
    assert_eq!(
        (statistics.connections, statistics.parked, statistics.groups),
        (1, 1, 1)
    );
    assert!(hub.of_connection(&client.id).exists().await.unwrap());
    assert!(hub.in_group("g").contains(&client.id).await.unwrap());
    client.open(&cluster.nodes[0]).await.unwrap();
    assert_eq!(client.next().await.unwrap()["type"], 9, "it goes on");
    let statistics = hub.connection_statistics().await.unwrap();
    assert_eq!(
        (statistics.connections, statistics.parked, statistics.groups),
        (1, 0, 1)
    );
}
