//! Invocations that their clients no longer want.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use hubcast::hub::Upload;
use hubcast::testing::{HubTester, TestError};
use hubcast::{Context, Hub, HubError};
use tokio::time::sleep;

async fn wait(context: Context) -> Result<(), HubError> {
    context.cancelled().cancelled().await;
    Err(HubError::new("cancelled"))
}

/// Goes on after it was cancelled: its answer still counts.
async fn finish(context: Context) -> &'static str {
    context.cancelled().cancelled().await;
    sleep(Duration::from_millis(1)).await;
    "finished"
}

async fn drain(context: Context, mut items: Upload<u32>) -> Result<usize, HubError> {
    let mut count = 0;
    loop {
        tokio::select! {
            () = context.cancelled().cancelled() => return Ok(count),
            item = items.next() => match item {
                Some(item) => { item?; count += 1; }
                None => return Err(HubError::new("not cancelled")),
            },
        }
        if count == 2 {
            context.clients().caller().send("Two", ()).await?;
        }
    }
}

async fn ask_and_wait(context: Context) -> Result<(), HubError> {
    tokio::select! {
        answer = context.clients().caller().invoke::<()>("Never", ()) => Ok(answer?),
        () = context.cancelled().cancelled() => Err(HubError::new("cancelled")),
    }
}

fn hub() -> Hub {
    Hub::new("h")
        .method("Wait", wait)
        .method("Finish", finish)
        .method("Drain", drain)
        .method("AskAndWait", ask_and_wait)
        .method("Nothing", async || ())
        .stream("Endless", async || {
            stream::iter(0_u64..).then(async |n| {
                sleep(Duration::from_millis(1)).await;
                n
            })
        })
}

fn parallel(invocations: usize) -> Hub {
    hub().configure(move |settings| settings.hubs.parallel_invocations = invocations)
}

fn cancelled(method: &str) -> Result<(), TestError> {
    Err(TestError::Completion(format!(
        "An unexpected error occurred invoking '{method}' on the server. HubException: cancelled"
    )))
}

#[tokio::test]
async fn a_cancelled_method_ends_when_it_wants_to_and_its_completion_follows() {
    let tester = HubTester::new(parallel(3)).await.unwrap();
    let mut client = tester.connect().await;
    let first = client.begin("Wait", (), &[]).await.unwrap();
    let second = client.begin("Finish", (), &[]).await.unwrap();
    client.cancel(&second).await.unwrap();
    assert_eq!(client.result::<String>(&second).await, Ok("finished".to_owned()));
    client.cancel(&first).await.unwrap();
    assert_eq!(client.result::<()>(&first).await, cancelled("Wait"));
    // A call that has ended can't be cancelled any more, which is no error.
    client.cancel(&first).await.unwrap();
    client.invoke::<()>("Nothing", ()).await.unwrap();
}

#[tokio::test]
async fn while_no_slot_is_free_a_wish_waits_like_any_message() {
    let tester = HubTester::new(parallel(2)).await.unwrap();
    let mut client = tester.connect().await;
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(client.begin("Finish", (), &[]).await.unwrap());
    }
    client.cancel(&calls[0]).await.unwrap();
    client.set_patience(Duration::from_millis(200));
    let error = client.result::<String>(&calls[0]).await.unwrap_err().to_string();
    assert!(error.starts_with("nothing came"), "{error}");
    client.lose().await;
}

#[tokio::test]
async fn methods_with_uploads_and_methods_that_ask_can_be_cancelled_with_one_slot() {
    let tester = HubTester::new(hub()).await.unwrap();
    let mut client = tester.connect().await;
    let items = client.open_upload();
    let call = client.begin("Drain", (), &[&items]).await.unwrap();
    client.push(&items, 1).await.unwrap();
    client.push(&items, 2).await.unwrap();
    client.expect("Two").await.unwrap();
    client.cancel(&call).await.unwrap();
    assert_eq!(client.result::<usize>(&call).await, Ok(2));

    // A method that requests a client result lends its slot: the connection is read meanwhile.
    client.ignore("Never");
    let call = client.begin("AskAndWait", (), &[]).await.unwrap();
    client.cancel(&call).await.unwrap();
    assert_eq!(client.result::<()>(&call).await, cancelled("AskAndWait"));
}

#[tokio::test]
async fn streams_and_methods_are_cancelled_side_by_side() {
    let tester = HubTester::new(parallel(2)).await.unwrap();
    let mut client = tester.connect().await;
    let waiting = client.begin("Wait", (), &[]).await.unwrap();
    let endless = client.begin_stream("Endless", (), &[]).await.unwrap();
    assert_eq!(client.item::<u64>(&endless).await, Ok(Some(0)));
    client.cancel(&endless).await.unwrap();
    client.result::<()>(&endless).await.unwrap();
    client.cancel(&waiting).await.unwrap();
    assert_eq!(client.result::<()>(&waiting).await, cancelled("Wait"));
}

/// Cancels two streams that always have an item, while the client reads as fast as it can.
async fn cancel_greedy_streams() {
    let greedy = async || stream::iter(0_u64..).map(|n| format!("{n:1000}"));
    let tester = HubTester::new(hub().stream("Greedy", greedy)).await.unwrap();
    let mut client = tester.connect().await;
    let first = client.begin_stream("Greedy", (), &[]).await.unwrap();
    let second = client.begin_stream("Greedy", (), &[]).await.unwrap();
    for call in [&first, &second] {
        for _ in 0..1_000 {
            assert!(client.item::<String>(call).await.unwrap().is_some());
        }
    }
    for call in [&first, &second] {
        client.cancel(call).await.unwrap();
        client.result::<()>(call).await.unwrap();
    }
    client.invoke::<()>("Nothing", ()).await.unwrap();
}

#[tokio::test]
async fn streams_that_always_have_an_item_are_cancelled_on_one_thread() {
    cancel_greedy_streams().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_always_have_an_item_are_cancelled_on_several_threads() {
    cancel_greedy_streams().await;
}

#[tokio::test]
async fn the_end_of_a_connection_cancels_what_it_called() {
    let (reported, mut hears) = tokio::sync::mpsc::channel(1);
    let tester = HubTester::new(parallel(2).method("Tell", move |context: Context| {
        let reported = reported.clone();
        async move {
            context.cancelled().cancelled().await;
            let _ = reported.send(()).await;
        }
    }));
    let tester = tester.await.unwrap();
    let mut client = tester.connect().await;
    client.send("Tell", ()).await.unwrap();
    client.invoke::<()>("Nothing", ()).await.unwrap();
    client.close().await;
    assert_eq!(hears.recv().await, Some(()));
}
