//! Rules about the pace at which connections leave their nodes.
//!
//! All rules are bounds from below on time, which no slow machine breaks.

use std::time::Duration;

use tokio::time::Instant;

use super::Nodes;
use crate::turns::{Turns, TurnsWanted};

async fn take(node: &Nodes, index: usize, wanted: TurnsWanted) -> (Instant, Turns) {
    let turns = node[index % node.len()].take_turns(&wanted).await.unwrap();
    (Instant::now(), turns)
}

/// However many nodes take turns, turns are no closer than the rate, and a node waits only for the turns before its
/// own.
pub async fn turns_of_all_nodes_are_apart(nodes: &Nodes) {
    const ASKS: u32 = 40;
    let wanted = TurnsWanted {
        count: 5,
        rate: 1_000,
        need: 0.0,
    };
    let begun = Instant::now();
    let mut last = begun;
    for ask in 0..ASKS {
        let (reported, turns) = take(nodes, ask as usize, wanted).await;
        assert_eq!(turns.apart, Duration::from_millis(1));
        assert!(
            turns.wait <= Duration::from_millis(u64::from(ask * wanted.count)),
            "{turns:?}"
        );
        last = reported + turns.wait + turns.apart * (wanted.count - 1);
    }
    let least = Duration::from_millis(u64::from(ASKS * wanted.count - 1));
    assert!(
        last - begun >= least,
        "{:?} is sooner than {least:?}",
        last - begun
    );
}

/// A node with a deadline gets as many turns as it needs, beside those that other nodes need.
pub async fn a_deadline_goes_before_the_rate(nodes: &Nodes) {
    let calm = TurnsWanted {
        count: 1,
        rate: 10,
        need: 1.0,
    };
    assert_eq!(take(nodes, 0, calm).await.1.apart, Duration::from_millis(100));
    let hurried = TurnsWanted { need: 100.0, ..calm };
    let apart = take(nodes, 0, hurried).await.1.apart;
    assert!(apart <= Duration::from_millis(10), "{apart:?}");
    let apart = take(nodes, 1, hurried).await.1.apart;
    let expected = if nodes.len() > 1 { 5_000 } else { 10_000 };
    assert!(apart <= Duration::from_micros(expected), "{apart:?}");
    // A node that needs no more turns says so.
    let done = TurnsWanted { need: 0.0, ..calm };
    for node in 0..nodes.len() {
        take(nodes, node, done).await;
    }
    assert_eq!(take(nodes, 0, done).await.1.apart, Duration::from_millis(100));
}
