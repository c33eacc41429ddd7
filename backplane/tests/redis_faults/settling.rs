//! Tests of the directory's answers after the server has forgotten everything, and before nodes have registered again.

use hubcast_backplane::conformance::{eventually, listing, open, record};
use hubcast_backplane::{BackplaneError, Claim, ConnectionRecord, EventRecord};

use crate::many;
use crate::support::RedisServer;

#[tokio::test]
async fn a_connection_is_unknown_only_when_all_nodes_could_register() {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let members = open(&nodes, many()).await;
    let (asking, home) = (&members[0], &members[1]);
    let epoch = asking.hub.epoch();
    for round in 0..10 {
        let id = home.connect(None).await;
        let known = ConnectionRecord {
            id: id.clone(),
            user: None,
            state: None,
            event: EventRecord::default(),
        };
        server.command("FLUSHALL").await;
        eventually(&format!("it is registered again, round {round}"), async || {
            let claim = asking.hub.claim_of(&known, Some(&epoch)).await;
            assert!(
                matches!(&claim, Ok(Claim::Owned(node)) if node == home.node.node())
                    || matches!(claim, Err(BackplaneError::Unsettled)),
                "{claim:?}"
            );
            match asking.hub.look_up(&id).await {
                Ok(found) => {
                    assert_eq!(found.unwrap().owner.as_ref(), Some(home.node.node()));
                    Some(())
                }
                Err(error) => {
                    assert!(matches!(error, BackplaneError::Unsettled), "{error}");
                    None
                }
            }
        })
        .await;
        // New connections don't wait, as soon as the epoch is known here.
        eventually("a new connection is let in", async || {
            let claim = asking.hub.claim(&record(None)).await;
            (claim.ok()? == Claim::Claimed).then_some(())
        })
        .await;
        assert!(home.remove(&id).await);
    }
    let unknown = record(None).id;
    let early = asking.hub.look_up(&unknown).await;
    assert!(matches!(early, Err(BackplaneError::Unsettled)), "{early:?}");
    assert_eq!(listing(asking, &unknown).await, None, "in the end it is certain");
}

#[tokio::test]
async fn a_closed_connection_is_unknown_at_once() {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let members = open(&nodes, many()).await;
    server.command("FLUSHALL").await;
    let id = members[1].connect(None).await;
    assert!(members[1].remove(&id).await);
    assert_eq!(members[0].hub.look_up(&id).await.unwrap(), None);
}
