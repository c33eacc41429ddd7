//! The list of all rules of the conformance suite, for macros.

/// Gives the list to a macro, after that macro's own arguments.
macro_rules! all_rules {
    ($run:ident, $nodes:expr) => {
        $run! { $nodes;
            opening:
                a_hub_is_opened_once,
                hubs_share_nothing;
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
            history:
                history_and_what_is_received_meet_where_a_connection_enters,
                groups_that_a_connection_enters_with_are_joined,
                the_newest_messages_of_each_topic_are_read,
                a_page_is_bounded_by_bytes,
                nothing_is_kept_for_nobody,
                history_that_the_log_can_not_vouch_for_is_refused;
            turns:
                turns_of_all_nodes_are_apart,
                a_deadline_goes_before_the_rate;
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
                an_unknown_node_is_unreachable,
                a_request_ends_at_its_timeout,
                a_dropped_request_is_cancelled,
                nodes_know_each_other;
            sessions:
                what_came_meanwhile_is_replayed,
                redundant_changes_are_not_replayed,
                what_is_for_a_parked_connection_is_kept,
                a_connection_that_moves_misses_nothing,
                a_replay_begins_at_the_checkpoint;
            replays:
                a_replay_without_all_of_the_log_is_refused,
                a_replay_from_a_place_of_another_log_is_refused,
                a_volatile_hub_keeps_nothing;
            ownership:
                the_directory_tells_of_ownership,
                an_ownership_that_is_over_is_not_taken_over,
                another_state_moves_with_its_connection,
                a_connection_is_taken_over_once,
                an_owner_that_is_shut_out_is_told_and_refused,
                a_connection_without_state_stays_where_it_is,
                a_parked_connection_is_nobodys,
                a_connection_may_move_again_and_again,
                a_parked_connection_is_removed_when_its_time_is_up;
            once:
                a_request_is_published_once,
                a_key_is_for_one_content_of_one_hub,
                a_request_to_nobody_is_not_published_later;
            numbered:
                numbered_messages_are_published_once_and_in_order,
                a_count_has_a_life;
            queries:
                connections_are_counted_and_found,
                pages_have_everybody_once,
                a_connection_tells_its_groups,
                a_census_counts_connections_and_groups,
                a_parked_connection_counts,
                a_users_groups_await_its_connections,
                a_users_time_in_a_group_ends,
                a_users_groups_are_bounded,
                parked_connections_are_listed,
                a_parked_connection_is_removed_once;
            presence:
                every_change_is_told_once,
                a_hub_that_does_not_tell_is_silent,
                a_volatile_hub_tells,
                names_are_told_as_they_are,
                a_move_is_not_told,
                an_end_by_time_is_told,
                a_watcher_that_moves_misses_nothing,
                who_watches_is_not_listed,
                pages_tell_users;
            group_states:
                states_live_as_long_as_their_memberships,
                states_have_a_place_in_the_log,
                only_members_have_states,
                a_state_is_set_once,
                states_of_a_group_are_bounded,
                states_move_with_their_connections;
            names:
                any_text_is_a_name,
                similar_names_are_different;
            events:
                each_connection_has_one_event_of_each_kind,
                an_event_carries_what_the_connection_entered_with,
                a_connection_that_never_entered_has_no_event,
                a_move_is_no_event,
                an_end_by_time_is_an_event,
                an_event_waits_for_the_earlier_one_of_its_connection,
                an_event_is_given_out_once_until_it_is_returned,
                events_are_followed_from_any_place,
                events_beyond_the_bounds_are_dropped_and_counted,
                events_that_are_not_delivered_are_nobodys,
                what_events_carry_is_bounded;
            calls:
                what_was_noted_goes_with_the_connection,
                a_call_is_answered_from_anywhere_until_it_ends,
                a_call_is_answered_for_its_host_only,
                a_request_is_called_once,
                a_call_ends_once;
        }
    };
}

/// A test for each rule.
#[allow(unused_macros, reason = "each test binary uses a part")]
macro_rules! tests {
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

/// Runs one rule after the other, each with nodes of its own. Returns their number.
#[allow(unused_macros, reason = "each test binary uses a part")]
macro_rules! in_turn {
    ($nodes:expr; $($module:ident: $($rule:ident),+;)+) => {{
        let mut count = 0;
        $($(
            println!("{}::{}", stringify!($module), stringify!($rule));
            // The future is made in a frame of its own: all rules together are too much for the stack of a test.
            let run = || Box::pin(async {
                let nodes = $nodes.await;
                hubcast_backplane::conformance::$module::$rule(&nodes).await;
                for node in &nodes {
                    node.shutdown().await;
                }
            });
            run().await;
            count += 1;
        )+)+
        count
    }};
}
