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
