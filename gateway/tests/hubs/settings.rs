//! Settings that one hub has of its own. Each is set away from what the gateway has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hubcast::hub::{Disconnected, HubSettings, State, Upload};
use hubcast::testing::HubTester;
use hubcast::{Context, Gateway, Hub, HubError, Options};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

fn hub(change: impl Fn(&mut HubSettings) + Send + Sync + 'static) -> Hub {
    Hub::new("h")
        .configure(change)
        .state(AtomicUsize::new(0))
        .shared_state(Arc::new(Semaphore::new(0)))
        .method("Echo", async |text: String| text)
        .method("Enter", enter)
        .method("Hold", async |gate: State<Semaphore>, items: Upload<u32>| {
            let _items = items; // not read
            drop(gate.acquire().await);
        })
        .method("Join", async |context: Context, group: String| {
            context.join(group).await
        })
}

/// How many run beside this one.
async fn enter(inside: State<AtomicUsize>) -> usize {
    let most = inside.fetch_add(1, Ordering::Relaxed) + 1;
    sleep(Duration::from_millis(20)).await;
    inside.fetch_sub(1, Ordering::Relaxed);
    most
}

/// Time stands still while anything can run, so all that may run beside each other does.
#[tokio::test(start_paused = true)]
async fn parallel_invocations() {
    for (invocations, most) in [(1, 1), (3, 3)] {
        let hub = hub(move |settings| settings.hubs.parallel_invocations = invocations);
        let tester = HubTester::new(hub).await.unwrap();
        let mut client = tester.connect().await;
        let mut calls = Vec::new();
        for _ in 0..6 {
            calls.push(client.begin("Enter", (), &[]).await.unwrap());
        }
        let mut seen = 0;
        for call in &calls {
            seen = seen.max(client.result::<usize>(call).await.unwrap());
        }
        assert_eq!(seen, most);
    }
}

#[tokio::test]
async fn message_bytes() {
    let tester = HubTester::new(hub(|settings| settings.limits.message_bytes = 300))
        .await
        .unwrap();
    let mut client = tester.connect().await;
    assert!(client.invoke::<String>("Echo", ("x".repeat(200),)).await.is_ok());
    client.send("Echo", ("x".repeat(300),)).await.unwrap();
    let closed = client.closed().await;
    assert!(closed.allow_reconnect);
    let Some(Disconnected::Refused(why)) = closed.reason else {
        panic!("{closed:?}")
    };
    assert!(why.contains("300"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn keep_alive() {
    for seconds in [2, 40] {
        let hub = hub(move |settings| settings.timeouts.keep_alive = Duration::from_secs(seconds));
        let tester = HubTester::new(hub).await.unwrap();
        let mut client = tester.connect().await;
        client.during(sleep(Duration::from_secs(100))).await;
        assert_eq!(client.pings() as u64, (100 - 1) / seconds, "every {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn client_timeout() {
    let tester = HubTester::new(hub(|settings| {
        settings.timeouts.client_timeout = Duration::from_secs(5);
    }));
    let tester = tester.await.unwrap();
    let mut silent = tester.connect().await;
    let mut client = tester.connect().await;
    let began = Instant::now();
    client.ping().await.unwrap();
    let closed = client.closed().await;
    assert!(
        matches!(&closed.reason, Some(Disconnected::Lost(_))),
        "{closed:?}"
    );
    assert_eq!(began.elapsed().as_secs(), 5);
    // A client that has never pinged may be silent.
    silent.during(sleep(Duration::from_secs(600))).await;
    assert!(silent.invoke::<String>("Echo", ("",)).await.is_ok());
}

/// Time stands still while anything can run, so a message that has not come in time never would.
#[tokio::test(start_paused = true)]
async fn stream_buffer() {
    for items in [2, 7] {
        let gate = Arc::new(Semaphore::new(0));
        let hub = hub(move |settings| settings.hubs.stream_buffer = items).shared_state(Arc::clone(&gate));
        let tester = HubTester::new(hub).await.unwrap();
        let mut client = tester.connect().await;
        let upload = client.open_upload();
        let call = client.begin("Hold", (), &[&upload]).await.unwrap();
        for item in 0..items {
            client.push(&upload, item).await.unwrap();
        }
        // The buffer is full, and the connection is still read.
        assert!(client.invoke::<String>("Echo", ("",)).await.is_ok());
        client.push(&upload, 0).await.unwrap();
        let behind = client.begin("Echo", ("",), &[]).await.unwrap();
        client.set_patience(Duration::from_millis(50));
        let error = client.result::<String>(&behind).await.unwrap_err().to_string();
        assert!(
            error.starts_with("nothing came"),
            "one more and it is not read: {error}"
        );
        gate.add_permits(1);
        client.set_patience(Duration::from_secs(30));
        client.result::<()>(&call).await.unwrap();
        assert!(client.result::<String>(&behind).await.is_ok());
    }
}

#[tokio::test]
async fn groups_streams_and_details() {
    let hub = hub(|settings| {
        settings.limits.groups_per_connection = 1;
        settings.limits.streams_per_connection = 1;
        settings.hubs.detailed_errors = true;
    });
    let hub = hub.method("Fail", async || {
        Err::<(), HubError>(std::io::Error::other("details").into())
    });
    let tester = HubTester::new(hub).await.unwrap();
    let mut client = tester.connect().await;
    client.invoke::<()>("Join", ("a",)).await.unwrap();
    let error = client.invoke::<()>("Join", ("b",)).await.unwrap_err().to_string();
    assert!(error.contains("limits.groups_per_connection"), "{error}");
    assert!(
        client
            .invoke::<()>("Fail", ())
            .await
            .unwrap_err()
            .to_string()
            .ends_with("details")
    );
    let (first, second) = (client.open_upload(), client.open_upload());
    client.begin("Hold", (), &[&first]).await.unwrap();
    let refused = client.begin("Hold", (), &[&second]).await.unwrap();
    let error = client.result::<()>(&refused).await.unwrap_err().to_string();
    assert!(error.contains("limits.streams_per_connection"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_hub_does_not_change_another() {
    let ask = async |context: Context| context.clients().caller().invoke::<()>("Question", ()).await;
    let quick =
        Hub::new("quick").configure(|settings| settings.timeouts.client_result = Duration::from_secs(1));
    let mut options = Options::default();
    options.timeouts.client_result = Duration::from_secs(7);
    let gateway = Gateway::builder()
        .hub(quick.method("Ask", ask))
        .hub(Hub::new("slow").method("Ask", ask))
        .options(options)
        .build()
        .await
        .unwrap();
    for (hub, seconds) in [("quick", 1), ("slow", 7)] {
        let tester = HubTester::of(gateway.clone(), hub).unwrap();
        let mut client = tester.connect().await;
        client.ignore("Question");
        let began = Instant::now();
        client.invoke::<()>("Ask", ()).await.unwrap_err().to_string();
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
}
