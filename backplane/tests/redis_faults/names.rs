//! Tests that names of any characters survive the death of their node.

use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::sessions::resumable;
use hubcast_backplane::conformance::{Witness, eventually, group, open};
use hubcast_backplane::redis::RedisBackplane;
use hubcast_backplane::{Backplane, End, HubOptions, Members, UserId};

use crate::support::RedisServer;
use crate::support::dying::Dying;

const NAME: &str = "\u{1}a\nb\0\"\u{2}\u{85}";

/// A survivor removes the connections of a dead node from where they are listed, and reports their ends, by the right
/// names: of a connection that ended with its node, of a parked one, and of one whose end was not reported.
#[tokio::test]
async fn a_survivor_has_the_names_of_a_dead_nodes_connections() {
    let server = RedisServer::start().await;
    let mut options = server.options("survivor");
    options.lease = Duration::from_millis(600);
    let node: Arc<dyn Backplane> = Arc::new(RedisBackplane::connect(options).await.unwrap());
    let witness = Witness::of(node.as_ref());
    let options = HubOptions {
        presence: true,
        reports_ends: true,
        resume_window: Duration::from_millis(100),
        ..HubOptions::default()
    };
    let survivor = open(&[node], options.clone()).await.remove(0);
    let dying = Dying::new(&server, survivor.hub.name(), options);
    let ids = dying
        .live(async |member| {
            let mut ids = Vec::new();
            for record in [
                hubcast_backplane::conformance::record(Some(NAME)),
                resumable(Some(NAME)),
                hubcast_backplane::conformance::record(Some(NAME)),
            ] {
                member.hub.enter(&record, true).await.unwrap();
                member.join(&record.id, NAME).await;
                ids.push(record.id);
            }
            let end = End {
                report: Some("it left".into()),
                ..End::unreported(Duration::from_secs(60))
            };
            assert!(member.hub.remove(&ids[2], end).await.unwrap());
            ids
        })
        .await;
    eventually("all ends are reported", async || {
        (witness.orphans().len() == 3).then_some(())
    })
    .await;
    let user = UserId::parse(NAME).unwrap();
    for orphan in witness.orphans() {
        assert!(ids.contains(&orphan.id));
        assert_eq!(orphan.user.as_ref(), Some(&user));
    }
    let (hub, g) = (&survivor.hub, group(NAME));
    for of in [Members::Group(&g), Members::User(&user)] {
        assert_eq!(hub.count(of).await.unwrap(), 0);
    }
    assert_eq!(hub.connection_statistics().await.unwrap().groups, 0);
}
