//! The states of groups with the official JavaScript client, unchanged, before a balancer that spreads its sockets over all
//! nodes.

use std::collections::BTreeMap;

use hubcast_tests::cluster::Cluster;

use serde_json::{Value, json};

use super::official::{Client, address, javascript, plan, ready, token};
use super::{CHAT, RELIABLE, WebPubSub, at, with_query};

/// A client, and what it knows of the states of a group.
struct Peer {
    client: Client,
    /// The values by connection. An item without a state is not kept.
    known: BTreeMap<String, u64>,
    /// The connections whose state was cleared.
    cleared: Vec<String>,
    snapshots: usize,
}

impl Peer {
    /// `None` where the machine has no node.
    async fn start(cluster: &Cluster, protocol: &str, user: &str) -> Option<Self> {
        let script = json!({ "protocol": protocol, "script": "states", "group": "a" });
        let token = token(cluster, user);
        let client = Client::start(javascript(), address(cluster), &token, script)?;
        Some(Self {
            client: ready(client).await,
            known: BTreeMap::new(),
            cleared: Vec::new(),
            snapshots: 0,
        })
    }

    /// Takes a line; states are applied as an application would.
    async fn line(&mut self) -> Value {
        let line = self.client.line().await;
        let Some(kind) = line["states"].as_str() else {
            return line;
        };
        assert_eq!(line["group"], "a");
        let items = line["items"].as_array().expect("items");
        let former = if kind == "groupStateSnapshot" {
            self.snapshots += 1;
            std::mem::take(&mut self.known)
        } else {
            assert_eq!((kind, items.len()), ("groupStateUpdate", 1), "{line}");
            self.known.clone()
        };
        for item in items {
            let id = item["connectionId"].as_str().expect("an id").to_owned();
            assert!(item["userId"].is_string() && item["updatedAt"].is_u64(), "{line}");
            let Some(state) = item.get("state") else {
                self.known.remove(&id);
                self.cleared.push(id);
                continue;
            };
            let value = state["value"].as_str().and_then(|value| value.parse().ok());
            let value = value.expect("a number");
            let before = former.get(&id).copied().unwrap_or_default();
            assert!(value >= before, "nothing goes back: {before}, {line}");
            self.known.insert(id, value);
        }
        line
    }

    /// Has the client do something, and waits until that was acknowledged.
    async fn does(&mut self, command: &str) {
        self.client.command(command).await;
        while self.line().await.get("done").is_none() {}
    }

    async fn knows(&mut self, expected: &[u64]) {
        loop {
            let mut values: Vec<_> = self.known.values().copied().collect();
            values.sort_unstable();
            if values == expected {
                return;
            }
            self.line().await;
        }
    }
}

#[tokio::test]
async fn the_javascript_client_sets_states_and_follows_them() {
    for nodes in [1, 3] {
        let mut cluster = plan(nodes).start().await;
        for protocol in ["json", "reliable"] {
            let Some(mut ann) = Peer::start(&cluster, protocol, "ann").await else {
                return;
            };
            let mut bob = Peer::start(&cluster, protocol, "bob")
                .await
                .expect("node is there");
            ann.does("set a 1").await;
            bob.does("subscribe a").await;
            bob.knows(&[1]).await;
            assert_eq!(bob.snapshots, 1);
            bob.does("set a 5").await;
            ann.does("set a 2").await;
            bob.knows(&[2, 5]).await;
            ann.does("clear a").await;
            bob.knows(&[5]).await;
            ann.does("set a 3").await;
            bob.knows(&[3, 5]).await;
            ann.client.command("stop").await;
            bob.knows(&[5]).await;
            assert_eq!((bob.snapshots, bob.cleared.len()), (1, 2));
            bob.does("unsubscribe a").await;
            bob.client.command("stop").await;
            cluster.has_connections(0).await;
        }
        cluster.is_tidy().await;
        cluster.logs_are_clean();
    }
}

/// Each node in turn is killed, so the members' nodes and the subscriber's are. All of them come back by themselves: no state
/// is lost, none goes back, and none is announced as cleared.
#[tokio::test]
async fn states_of_javascript_clients_outlive_killed_nodes() {
    let mut cluster = plan(3).start().await;
    let Some(mut watcher) = Peer::start(&cluster, "reliable", "watcher").await else {
        return;
    };
    let mut members = Vec::new();
    for user in ["ann", "bob", "eve"] {
        let member = Peer::start(&cluster, "reliable", user).await;
        members.push(member.expect("node is there"));
    }
    watcher.does("subscribe a").await;
    let mut value = 0;
    for node in 0..3 {
        for _ in 0..5 {
            value += 1;
            for member in &mut members {
                member.does(&format!("set a {value}")).await;
            }
        }
        watcher.knows(&[value; 3]).await;
        cluster.nodes[node].kill();
        value += 1;
        for member in &mut members {
            member.does(&format!("set a {value}")).await; // also by those that have to come back first
        }
        watcher.knows(&[value; 3]).await;
        cluster.nodes[node].restart().await;
        cluster.balances_over(&[0, 1, 2]).await;
    }
    assert_eq!(watcher.cleared, [""; 0]);
    assert!(
        watcher.snapshots >= 2,
        "its own node was killed, too: {}",
        watcher.snapshots
    );
    assert_eq!(
        watcher.known.len(),
        3,
        "the members are still the same connections"
    );
    // A client that comes now sees the same.
    let target = with_query(CHAT, &format!("access_token={}", token(&cluster, "late")));
    let mut late = WebPubSub::connect(at(&cluster, 1), &target, RELIABLE).await;
    cluster.secrets.add(late.token());
    late.done(json!({ "type": "subscribeGroupState", "group": "a" }))
        .await;
    let items = late.states().await["items"].as_array().expect("items").len();
    assert_eq!(items, 3);
    cluster.logs_are_clean();
}
