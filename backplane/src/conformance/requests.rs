//! Rules about requests between nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::{Nodes, eventually};
use crate::backplane::{ConnectionRecord, NodeService, Unheard};
use crate::error::{BackplaneError, ServiceError};
use crate::topic::{ConnectionId, HubName, NodeId};

const LONG: Duration = Duration::from_secs(20);

/// A service that echoes requests, fails on `fail`, and takes for ever on `wait`.
#[derive(Default)]
pub struct Echo {
    waiting: Arc<AtomicUsize>,
}

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl NodeService for Echo {
    fn serve(&self, payload: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>> {
        let waiting = Arc::clone(&self.waiting);
        async move {
            match payload.as_ref() {
                b"fail" => Err("no".into()),
                b"wait" => {
                    waiting.fetch_add(1, Ordering::AcqRel);
                    let _waiting = Waiting(waiting);
                    std::future::pending().await
                }
                _ => Ok(payload),
            }
        }
        .boxed()
    }

    fn orphan_removed(&self, _hub: &HubName, _connection: ConnectionRecord, _report: Bytes) {}

    fn connection_lost(&self, _hub: &HubName, _connection: &ConnectionId) {}

    fn fenced(&self) {}
}

fn serve(nodes: &Nodes) -> (&NodeId, Arc<Echo>) {
    let echo = Arc::new(Echo::default());
    let last = nodes.last().unwrap();
    last.set_service(Arc::clone(&echo) as Arc<dyn NodeService>);
    (last.node(), echo)
}

/// A request gets its reply.
pub async fn a_request_gets_its_reply(nodes: &Nodes) {
    let (node, _) = serve(nodes);
    for size in [0, 1, 100_000] {
        let payload = Bytes::from(vec![b'x'; size]);
        assert_eq!(
            nodes[0]
                .request(node, payload.clone(), LONG, Unheard::Wait)
                .await
                .unwrap(),
            payload
        );
    }
}

/// A service's failure comes with its message.
pub async fn a_failure_is_told(nodes: &Nodes) {
    let (node, _) = serve(nodes);
    let failed = nodes[0]
        .request(node, Bytes::from_static(b"fail"), LONG, Unheard::Wait)
        .await;
    assert!(
        matches!(&failed, Err(BackplaneError::NodeFailed { reason, .. }) if reason == "no"),
        "{failed:?}"
    );
}

/// A request to a node that does not live fails soon.
pub async fn an_unknown_node_is_unreachable(nodes: &Nodes) {
    let unknown = NodeId::parse("nobody").unwrap();
    for unheard in [Unheard::GiveUp, Unheard::Wait] {
        let asked = nodes[0].request(&unknown, Bytes::new(), LONG, unheard);
        let asked = timeout(LONG / 2, asked).await.unwrap();
        assert!(
            matches!(asked, Err(BackplaneError::NodeUnreachable { .. })),
            "{asked:?}"
        );
    }
}

/// A request waits for a bounded time.
pub async fn a_request_ends_at_its_timeout(nodes: &Nodes) {
    let (node, echo) = serve(nodes);
    let asked = nodes[0]
        .request(
            node,
            Bytes::from_static(b"wait"),
            Duration::from_millis(200),
            Unheard::Wait,
        )
        .await;
    assert!(matches!(asked, Err(BackplaneError::Timeout { .. })), "{asked:?}");
    eventually("the service is told", async || {
        (echo.waiting.load(Ordering::Acquire) == 0).then_some(())
    })
    .await;
}

/// When the asking call is dropped, the serving call is dropped, too.
pub async fn a_dropped_request_is_cancelled(nodes: &Nodes) {
    let (node, echo) = serve(nodes);
    let waiting = || echo.waiting.load(Ordering::Acquire);
    {
        let asked = nodes[0].request(node, Bytes::from_static(b"wait"), LONG, Unheard::Wait);
        tokio::select! {
            outcome = asked => panic!("{outcome:?}"),
            () = eventually("the service begins", async || (waiting() == 1).then_some(())) => {}
        }
    }
    eventually("the service is told", async || (waiting() == 0).then_some(())).await;
}

/// All living nodes know of each other.
pub async fn nodes_know_each_other(nodes: &Nodes) {
    for node in nodes {
        let mut found = node.nodes().await.unwrap();
        let mut expected: Vec<_> = nodes.iter().map(|node| node.node().clone()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(node.cluster_secret(), nodes[0].cluster_secret());
        assert!(node.cluster_secret().len() >= 32);
    }
}
