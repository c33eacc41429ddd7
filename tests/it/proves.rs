//! The same sentence on one node with memory and on two that share a Redis.

/// Makes two tests of each check, an `async fn(&mut Cluster)`: `one_node::NAME` and `two_nodes::NAME`. In the second one
/// the requests of a client reach both nodes in turn. `$plan` completes what the cluster is made of.
macro_rules! proves_on_one_node_and_on_two {
    ($plan:expr; $($check:ident),+ $(,)?) => {
        mod one_node {
            use hubcast_tests::cluster::Plan;
            $(#[tokio::test]
            async fn $check() {
                let plan: fn(Plan) -> Plan = $plan;
                let mut cluster = plan(Plan::one_node()).start().await;
                super::$check(&mut cluster).await;
                cluster.logs_are_clean();
            })+
        }
        mod two_nodes {
            use hubcast_tests::cluster::Plan;
            $(#[tokio::test]
            async fn $check() {
                let plan: fn(Plan) -> Plan = $plan;
                let mut cluster = plan(Plan::nodes(2)).start().await;
                super::$check(&mut cluster).await;
                cluster.logs_are_clean();
            })+
        }
    };
}
