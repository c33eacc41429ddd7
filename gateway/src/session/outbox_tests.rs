use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::advance;

use super::*;
use crate::limits::Budget;

/// Allows for nothing over the bound.
fn strict() -> Arc<BurstPolicy> {
    let full = Budget::new(1);
    full.take(1).unwrap();
    bursts(Duration::ZERO, &full)
}

fn bursts(patience: Duration, budget: &Arc<Budget>) -> Arc<BurstPolicy> {
    Arc::new(BurstPolicy {
        patience,
        budget: Arc::clone(budget),
    })
}

#[tokio::test]
async fn chunks_come_out_in_order_and_within_the_batch_bound() {
    let queue = ByteQueue::new(100);
    for chunk in ["aaaa", "bbbb", "cccc"] {
        queue.try_push(Bytes::from(chunk)).unwrap();
    }
    let mut batch = Vec::new();
    assert_eq!(queue.take(&mut batch, 8).await, Taken::Some);
    assert_eq!(batch, ["aaaa", "bbbb"]);
    batch.clear();
    queue.close();
    assert_eq!(queue.take(&mut batch, 8).await, Taken::Some);
    assert_eq!(batch, ["cccc"]);
    assert_eq!(queue.take(&mut batch, 8).await, Taken::End);
}

#[tokio::test]
async fn over_the_bound_a_push_is_refused_and_a_waiting_push_goes_on_after_a_take() {
    let queue = Arc::new(ByteQueue::new(10));
    queue.try_push(Bytes::from_static(b"12345678")).unwrap();
    assert_eq!(
        queue.try_push(Bytes::from_static(b"abc")),
        Err(PushError::Full { queued: 8 })
    );
    let waiting = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.push(Bytes::from_static(b"abc")).await }
    });
    let mut batch = Vec::new();
    while batch.len() < 2 {
        assert_eq!(queue.take(&mut batch, 100).await, Taken::Some);
    }
    assert_eq!(waiting.await.unwrap(), Ok(()));
    assert_eq!(batch, ["12345678", "abc"]);
    assert_eq!(queue.queued_bytes(), 0);
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_behind_its_number() {
    let queue = ByteQueue::held(100, strict());
    queue.keep();
    queue.append(Bytes::from_static(b"one"), Some(10)).unwrap();
    queue.open_one(Bytes::from_static(b"hello"));
    let mut batch = Vec::new();
    queue.take(&mut batch, 100).await;
    assert_eq!(batch, ["hello"], "the rest is held back");
    queue.release();
    queue.try_push(Bytes::from_static(b"ping")).unwrap();
    queue.append(Bytes::from_static(b"two"), Some(20)).unwrap();
    queue.take(&mut batch, 100).await;
    queue.append(Bytes::from_static(b"three"), Some(30)).unwrap();
    assert_eq!(batch, ["hello", "one", "ping", "two"]);

    assert_eq!(queue.acknowledge(1), Some((1, 10)));
    for _ in 0..2 {
        queue
            .rewind(|first| Some(Bytes::from(format!("from {first}"))))
            .unwrap();
        batch.clear();
        queue.take(&mut batch, 100).await;
        assert_eq!(batch, ["from 2", "two", "three"]);
    }
    assert_eq!(queue.acknowledge(9), Some((3, 30)));
    assert_eq!(queue.acknowledge(9), None);
    queue
        .rewind(|first| Some(Bytes::from(format!("from {first}"))))
        .unwrap();
    batch.clear();
    queue.take(&mut batch, 100).await;
    assert_eq!(batch, ["from 4"]);
}

#[tokio::test]
async fn kept_chunks_beyond_the_bound_are_dropped_and_that_is_known() {
    let queue = ByteQueue::held(200, strict());
    queue.keep();
    queue.open_one(Bytes::new());
    queue.release();
    let mut batch = Vec::new();
    for place in 1..=3 {
        queue.append(Bytes::from(vec![b'x'; 90]), Some(place)).unwrap();
        queue.take(&mut batch, 1_000).await;
        assert_eq!(queue.can_rewind(), place < 3);
    }
    assert_eq!(queue.rewind(|_| None), Err(NotWhole));
    assert_eq!(queue.acknowledge(2), Some((2, 2)));
    assert!(!queue.can_rewind());
    queue.append(Bytes::from_static(b"four"), Some(4)).unwrap();
    queue.take(&mut batch, 1_000).await;
    assert_eq!(queue.acknowledge(3), Some((3, 3)));
    batch.clear();
    queue
        .rewind(|first| Some(Bytes::from(format!("from {first}"))))
        .unwrap();
    queue.take(&mut batch, 1_000).await;
    assert_eq!(batch, ["from 4", "four"]);
}

#[tokio::test]
async fn a_queue_goes_on_where_another_one_ended() {
    let queue = ByteQueue::held(30, strict());
    queue.keep();
    queue.append(Bytes::from_static(b"live"), Some(90)).unwrap();
    let kept = VecDeque::from([
        (Bytes::from_static(b"eight"), 70),
        (Bytes::from_static(b"nine"), 80),
    ]);
    queue
        .go_on(8, kept, false, |first| Some(Bytes::from(format!("from {first}"))))
        .unwrap();
    let mut batch = Vec::new();
    queue.take(&mut batch, 100).await;
    assert_eq!(batch, ["from 8", "eight", "nine", "live"]);
    assert_eq!(queue.acknowledge(9), Some((9, 80)));
    assert_eq!(queue.acknowledge(10), Some((10, 90)));
}

/// Longer than the queue's bound: it is added as the consumer takes it, while what is pushed meanwhile waits within the bound.
#[tokio::test]
async fn a_long_past_comes_before_what_was_pushed_meanwhile() {
    let queue = ByteQueue::held(30, strict());
    queue.keep();
    queue.append(Bytes::from_static(b"live"), Some(90)).unwrap();
    let kept = VecDeque::from([(Bytes::from_static(b"eight"), 70)]);
    queue.go_on(8, kept, true, |_| None).unwrap();
    let mut seen = Vec::new();
    queue.take(&mut seen, 100).await;
    assert_eq!(seen, ["eight"]);
    for number in 0..10_u8 {
        let chunk = Bytes::from(vec![b'0' + number; 25]);
        let adding = queue.push_past(chunk, 71 + u64::from(number));
        tokio::pin!(adding);
        if number > 0 {
            assert!((&mut adding).now_or_never().is_none(), "there is no room yet");
            queue.take(&mut seen, 100).await;
        }
        adding.await.unwrap();
        assert_eq!(queue.all_acknowledged(), None);
    }
    queue.append(Bytes::from_static(b"later"), Some(91)).unwrap();
    let full = queue.append(Bytes::from_static(&[0; 30]), Some(92));
    assert_eq!(full, Err(PushError::Full { queued: 9 }));
    queue.end_past();
    queue.take(&mut seen, 100).await;
    assert_eq!(
        seen[1..11].concat(),
        (b'0'..=b'9').flat_map(|digit| [digit; 25]).collect::<Vec<_>>()
    );
    assert_eq!(seen[11..], ["live", "later"]);
    assert_eq!(queue.acknowledge(20), Some((20, 91)));
    assert_eq!(queue.all_acknowledged(), Some(20));
}

#[tokio::test]
async fn a_held_queue_begins_with_the_opening_chunk() {
    let queue = ByteQueue::held(100, strict());
    queue.try_push(Bytes::from_static(b"early")).unwrap();
    queue.open(Bytes::from_static(b"first"));
    let mut batch = Vec::new();
    assert_eq!(queue.take(&mut batch, 100).await, Taken::Some);
    assert_eq!(batch, ["first", "early"]);
}

fn tens(count: usize) -> impl Iterator<Item = Bytes> {
    std::iter::repeat_n(Bytes::from_static(b"0123456789"), count)
}

/// Pushes until one is refused.
fn fill(queue: &ByteQueue) -> usize {
    tens(1_000)
        .take_while(|chunk| queue.try_push(chunk.clone()).is_ok())
        .count()
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_allowed_while_the_consumer_goes_on() {
    let queue = ByteQueue::held(100, bursts(Duration::from_secs(10), &Budget::new(0)));
    queue.open(Bytes::new());
    assert_eq!(fill(&queue), 40, "four times the bound, and no more");
    let mut batch = Vec::new();
    for _ in 0..5 {
        advance(Duration::from_secs(9)).await;
        queue.take(&mut batch, 30).await;
        assert!(fill(&queue) > 0, "it goes on, however slowly");
    }
    advance(Duration::from_secs(10)).await;
    queue.take(&mut batch, 100).await;
    advance(Duration::from_secs(10)).await;
    assert_eq!(fill(&queue), 0, "it has taken nothing for so long");
    while queue.queued_bytes() > 0 {
        queue.take(&mut batch, 100).await;
    }
    advance(Duration::from_secs(100)).await;
    assert_eq!(fill(&queue), 40, "nothing waited meanwhile");
}

#[tokio::test(start_paused = true)]
async fn there_are_no_bursts_while_the_node_holds_as_much_as_it_may() {
    let budget = Budget::new(250);
    let queue = ByteQueue::held(100, bursts(Duration::from_secs(10), &budget));
    budget.take(250).unwrap();
    assert_eq!(fill(&queue), 10);
    budget.give_back(1);
    assert_eq!(fill(&queue), 30);
}

#[tokio::test]
async fn who_may_wait_waits_at_the_bound() {
    let queue = ByteQueue::held(10, bursts(Duration::from_secs(10), &Budget::new(0)));
    for chunk in tens(2) {
        queue.try_push(chunk).unwrap();
    }
    assert!(queue.push(Bytes::from_static(b"x")).now_or_never().is_none());
}
