//! The state that is kept of calls, and for how long.

use std::pin::pin;
use std::task::Waker;

use hubcast_backplane::ConnectionId;

use super::super::running::tests::Wakes;
use super::*;
use crate::auth::Identity;
use crate::hub::{Connection, Hub, HubError, RequestInfo};
use crate::protocol::HubProtocol;
use crate::testing::HubTester;

async fn wait(context: crate::hub::Context) -> Result<(), HubError> {
    context.cancelled().cancelled().await;
    Err(HubError::new("cancelled"))
}

fn call(id: Option<&str>, target: &str, stream_ids: &[&str]) -> Invocation {
    Invocation {
        invocation_id: id.map(str::to_owned),
        target: target.to_owned(),
        stream_ids: stream_ids.iter().map(ToString::to_string).collect(),
        ..Invocation::default()
    }
}

async fn session() -> Arc<Session> {
    let hub = Hub::new("h")
        .method("Wait", wait)
        .method("Nothing", async || ())
        .stream("Silent", async || futures_util::stream::pending::<()>());
    let tester = HubTester::new(hub).await.unwrap();
    let id = ConnectionId::parse("c").unwrap();
    let connection = Connection::new(id, Identity::anonymous(), RequestInfo::default());
    connection.set_protocol(HubProtocol::Json);
    let session = Session::new(Arc::clone(tester.hub().runtime()), connection);
    session.open_for_test();
    session
}

/// The frames sent to the client, without the handshake response.
async fn sent(session: &Session) -> String {
    let mut frames = Vec::new();
    session.take_frames(&mut frames, usize::MAX).await;
    let frames: Vec<u8> = frames.concat();
    let text = String::from_utf8(frames).unwrap();
    text.strip_prefix("{}\u{1e}").unwrap_or(&text).to_owned()
}

/// Waits for all that run.
async fn settle_all(invocations: &mut Invocations) {
    while invocations.any_runs() {
        invocations.next().await;
    }
}

#[tokio::test]
async fn nothing_is_kept_of_calls_that_were_cancelled_ended_or_refused() {
    let session = session().await;
    let mut invocations = Invocations::default();
    let mut begin = |call| invocations.begin(&session, call, None, Encoding::Json);
    begin(call(Some("1"), "Wait", &[]));
    begin(call(Some("2"), "Nothing", &[]));
    begin(call(Some("3"), "Unknown", &[]));
    begin(call(Some("4"), "Wait", &["u"])); // it takes no upload
    begin(call(None, "Nothing", &[]));
    invocations.begin_stream(&session, call(Some("5"), "Silent", &[]), None, Encoding::Json);
    let mut running: Vec<_> = invocations.live(&session).named.keys().cloned().collect();
    running.sort_unstable();
    assert_eq!(running, ["1", "2", "5"]);
    for id in ["1", "5", "5", "unknown"] {
        invocations.live(&session).cancel(id);
    }
    settle_all(&mut invocations).await;
    assert!(invocations.live.is_none(), "nothing is kept where nothing runs");
    let sent = sent(&session).await;
    for id in ["1", "2", "3", "4", "5"] {
        let completion = format!("{{\"type\":3,\"invocationId\":\"{id}\"");
        assert_eq!(sent.matches(&completion).count(), 1, "{sent}");
    }
}

#[tokio::test]
async fn an_id_names_one_running_call_whatever_its_kind() {
    let session = session().await;
    let mut invocations = Invocations::default();
    let mut begin = |call| invocations.begin(&session, call, None, Encoding::Json);
    begin(call(Some("1"), "Wait", &[]));
    begin(call(Some("1"), "Nothing", &[]));
    invocations.begin_stream(&session, call(Some("1"), "Silent", &[]), None, Encoding::Json);
    invocations.live(&session).cancel("1");
    settle_all(&mut invocations).await;
    let sent = sent(&session).await;
    let refusal = "\"error\":\"Invocation ID '1' is already in use.\"";
    assert_eq!(sent.matches(refusal).count(), 2, "{sent}");
    assert!(sent.contains("HubException: cancelled"), "{sent}");
    invocations.begin(&session, call(Some("1"), "Nothing", &[]), None, Encoding::Json);
    assert!(
        invocations.live(&session).named.contains_key("1"),
        "an id that is free again can be used"
    );
}

#[tokio::test]
async fn a_call_that_waits_wakes_its_task_once() {
    let session = session().await;
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    let mut invocations = Invocations::default();
    invocations.begin(&session, call(Some("1"), "Wait", &[]), None, Encoding::Json);
    assert!(pin!(invocations.next()).poll(&mut cx).is_pending());
    assert_eq!(wakes.count(), 0, "for nothing");
    invocations.live(&session).cancel("1");
    assert_eq!(wakes.count(), 1);
    assert!(pin!(invocations.next()).poll(&mut cx).is_ready());
    assert!(invocations.live.is_none());
    assert_eq!(wakes.count(), 1, "a task need not wake itself");
}
