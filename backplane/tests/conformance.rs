//! Both implementations obey the rules.

#![allow(clippy::unwrap_used)]

mod support;

macro_rules! rules {
    ($nodes:expr; $($module:ident: $($rule:ident),+;)+) => {
        $(mod $module {
            $(#[tokio::test]
            async fn $rule() {
                let (_server, nodes) = $nodes.await;
                hubcast_backplane::conformance::$module::$rule(&nodes).await;
                for node in &nodes {
                    node.shutdown().await;
                }
            })+
        })+
    };
}

macro_rules! all_rules {
    ($nodes:expr) => {
        rules! { $nodes;
            order:
                a_publisher_receives_its_own_messages_in_order,
                concurrent_publishers_have_one_order_on_all_nodes,
                offsets_have_no_holes,
                several_topics_are_published_to_in_order,
                an_envelope_arrives_unchanged;
            groups:
                a_member_receives_exactly_from_its_join_to_its_leave,
                a_change_returns_after_the_sink_was_told,
                repeated_changes_are_harmless,
                a_user_receives_on_every_connection,
                a_node_without_members_receives_nothing,
                a_group_may_be_empty_for_a_while,
                a_connection_that_is_not_here_can_not_join;
            directory:
                a_message_to_an_unknown_connection_is_refused,
                a_direct_message_reaches_the_owner_only,
                a_connection_is_claimed_once,
                a_released_connection_may_be_claimed_again,
                a_closed_connection_stays_closed,
                a_connection_is_removed_once;
            resume:
                a_log_is_read_from_a_position,
                changes_of_membership_are_not_read,
                a_trimmed_log_is_told,
                an_expired_log_is_told,
                another_epoch_is_told;
            requests:
                a_request_gets_its_reply,
                a_failure_is_told,
                an_unknown_node_is_unreachable_at_once,
                a_request_ends_at_its_timeout,
                a_dropped_request_is_cancelled,
                nodes_know_each_other;
        }
    };
}

/// One node: what the rules say about several of them holds trivially.
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

    all_rules!(super::nodes());
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

    all_rules!(super::nodes());
}
