//! Waiting for conditions. No test sleeps and hopes.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// The bound on every wait. Generous: it says "never", not "slow".
pub const BOUND: Duration = Duration::from_secs(30);

/// Calls `probe` until it has an answer. Panics with `what` when none comes within [`BOUND`].
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(BOUND, what, probe).await
}

/// The same, for a condition that others, such as sentinels, bring about by long time-outs of their own.
pub async fn eventually_within<T>(
    bound: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let found = timeout(bound, async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// Waits until `probe` equals `expected`; the panic shows the last value seen.
pub async fn eventually_equals<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    mut probe: impl AsyncFnMut() -> T,
) {
    let deadline = Instant::now() + BOUND;
    loop {
        let seen = probe().await;
        if seen == *expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "never happened: {what}: expected {expected:?}, last seen {seen:?}"
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for `future`, at most for [`BOUND`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(BOUND, future)
        .await
        .unwrap_or_else(|_| panic!("took too long: {what}"))
}
