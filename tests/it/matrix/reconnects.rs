//! A node dies, its clients don't.

use serde_json::json;

use super::Party;

pub(super) async fn clients_of_a_killed_node_go_on_elsewhere(mut party: Party) {
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = party.js.connect(party.client().reconnecting()).await;
        client.call("JoinGroup", json!(["g"])).await;
        clients.push((party.node_of(&client).await, client));
    }
    let doomed = clients[0].0;
    party.cluster.nodes[doomed].kill();
    for (node, client) in &clients {
        if *node != doomed {
            continue;
        }
        client.has_events("reconnected", 1).await;
        assert_ne!(party.node_of(client).await, doomed, "it is somewhere else now");
        client.call("JoinGroup", json!(["g"])).await;
    }
    clients[3].1.call("SendToGroup", json!(["g", "after"])).await;
    for (node, client) in &clients {
        client.receives("GroupMessage", json!(["g", "after"])).await;
        assert_eq!(client.received("GroupMessage").len(), 1, "once");
        assert_eq!(client.events("closed").len(), 0, "none was given up");
        let reconnects = client.events("reconnected").len();
        if party.transport != "LongPolling" {
            // A poll of any client may have been on its way through the node that died.
            assert_eq!(
                reconnects,
                usize::from(*node == doomed),
                "only clients of the dead node had to reconnect"
            );
        }
    }
    party.cluster.has_connections(4).await;
}
