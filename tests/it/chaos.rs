//! Nodes, Redis and the links between them are hurt under the traffic of clients of all kinds. Messages that arrive
//! arrive once and in order, or the client is notified.
//!
//! `cargo run --release -p hubcast-tests --bin chaos` does more of it, with sentinels and a cluster as well.

use clap::Parser;
use hubcast_tests::chaos::{Options, run};

#[tokio::test]
async fn whatever_happens_to_nodes_messages_come_once_and_in_order_or_the_client_is_told() {
    // With this seed, one pause is shorter than a node's lease and one is longer.
    let options = "chaos --nodes 3 --clients 30 --groups 5 --seed 20 --upload-ms 300 --gap-ms 300 \
                   --kills 2 --drains 2 --pauses 2 --redis-restarts 0 --cuts 4";
    let report = run(Options::parse_from(options.split_whitespace())).await;
    let rendered = report.render();
    assert_eq!(
        [
            report.lost(),
            report.duplicated(),
            report.reordered(),
            report.silent()
        ],
        [0; 4],
        "lost, duplicated, reordered, silent\n{rendered}"
    );
    assert!(report.is_exact(), "{rendered}");
    assert!(report.resumes() > 0, "some sockets were replaced\n{rendered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_nodes_redis_and_links_everything_is_exact_or_explicit() {
    let options = "chaos --nodes 3 --clients 12 --others 2 --groups 3 --seed 11 --upload-ms 300 --gap-ms 300 \
                   --faults all --seconds 60 --bound 45";
    let report = run(Options::parse_from(options.split_whitespace())).await;
    let rendered = report.render();
    for (what, count) in report.wrong_states() {
        assert_eq!(count, 0, "{what}\n{rendered}");
    }
    assert!(report.is_exact(), "{rendered}");
}
