//! Runs the conformance rules against both implementations.

#![allow(clippy::unwrap_used)]

#[macro_use]
#[path = "support/rules.rs"]
mod rules;
mod support;

/// One node: rules about several nodes hold trivially.
mod memory {
    use std::sync::Arc;

    use hubcast_backplane::memory::MemoryBackplane;
    use hubcast_backplane::{Backplane, NodeId};

    async fn nodes() -> ((), Vec<Arc<dyn Backplane>>) {
        (
            (),
            vec![Arc::new(MemoryBackplane::new(NodeId::parse("only").unwrap()))],
        )
    }

    all_rules!(tests, super::nodes());
}

/// One node on a server: it parks connections and takes them over itself.
#[cfg(feature = "redis")]
mod redis_alone {
    use std::sync::Arc;

    use hubcast_backplane::Backplane;

    use crate::support::RedisServer;

    async fn nodes() -> (RedisServer, Vec<Arc<dyn Backplane>>) {
        let server = RedisServer::start().await;
        let nodes = server.nodes(1).await;
        (server, nodes)
    }

    all_rules!(tests, super::nodes());
}

/// Three nodes on one server.
#[cfg(feature = "redis")]
mod redis_server {
    use std::sync::Arc;

    use hubcast_backplane::Backplane;

    use crate::support::RedisServer;

    async fn nodes() -> (RedisServer, Vec<Arc<dyn Backplane>>) {
        let server = RedisServer::start().await;
        let nodes = server.nodes(3).await;
        (server, nodes)
    }

    all_rules!(tests, super::nodes());
}

/// Names at random, of up to 1,024 characters.
mod any_name {
    use std::sync::Arc;

    use hubcast_backplane::conformance::names::a_name_comes_back_as_it_is;
    use hubcast_backplane::memory::MemoryBackplane;
    use hubcast_backplane::{Backplane, NodeId};
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    use tokio::runtime::Runtime;

    fn names() -> impl Strategy<Value = String> {
        let character = prop_oneof![
            any::<char>(),
            "[\\x00-\\x1f\\x7f-\\x9f]".prop_map(|text| text.chars().next().unwrap())
        ];
        proptest::collection::vec(character, 1..=1_024).prop_map(String::from_iter)
    }

    fn check(runtime: &Runtime, nodes: &[Arc<dyn Backplane>], cases: u32) {
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let checked = TestRunner::new(config).run(&names(), |name| {
            runtime.block_on(Box::pin(a_name_comes_back_as_it_is(nodes, &name)));
            Ok(())
        });
        checked.unwrap();
        for node in nodes {
            runtime.block_on(node.shutdown());
        }
    }

    #[test]
    fn comes_back_from_memory() {
        let node: Arc<dyn Backplane> = Arc::new(MemoryBackplane::new(NodeId::parse("only").unwrap()));
        check(&Runtime::new().unwrap(), &[node], 100);
    }

    #[cfg(feature = "redis")]
    #[test]
    fn comes_back_from_a_server() {
        let runtime = Runtime::new().unwrap();
        let (_server, nodes) = runtime.block_on(async {
            let server = crate::support::RedisServer::start().await;
            let nodes = server.nodes(2).await;
            (server, nodes)
        });
        check(&runtime, &nodes, 30);
    }
}
