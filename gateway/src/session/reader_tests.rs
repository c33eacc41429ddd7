//! Tests of long times, for which the black-box tests can't wait.

use bytes::Bytes;
use hubcast_backplane::ConnectionId;

use super::*;
use crate::auth::Identity;
use crate::fanout::Insertion;
use crate::hub::{Connection, Hub, RequestInfo};
use crate::protocol::Transport;
use crate::session::run_reader;
use crate::testing::HubTester;

/// The next chunks that are no signs of life.
async fn next(session: &Session) -> Vec<String> {
    loop {
        let mut frames: Vec<Bytes> = Vec::new();
        session.take_frames(&mut frames, usize::MAX).await;
        let texts = frames
            .iter()
            .map(|frame| String::from_utf8(frame.to_vec()).unwrap());
        let texts: Vec<_> = texts.filter(|text| text != ":\n\n").collect();
        if !texts.is_empty() {
            return texts;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_quiet_reader_moves_with_the_log() {
    let tester = HubTester::new(Hub::new("h")).await.unwrap();
    let hub = tester.hub();
    let connection = Connection::new(
        ConnectionId::parse("quiet").unwrap(),
        Identity::anonymous(),
        RequestInfo::default(),
    );
    connection.set_transport(Transport::ServerSentEvents);
    connection.set_protocol(ClientProtocol::Events);
    let reading = Reading {
        groups: vec![GroupName::parse("silent").unwrap()],
        begin: Begin::Now,
    };
    let session = Session::of_reader(Arc::clone(hub.runtime()), connection, reading);
    assert_eq!(hub.runtime().registry().insert(&session), Insertion::Done);
    let running = tokio::spawn(run_reader(Arc::clone(&session)));
    let mut reported = next(&session).await;
    while !reported.last().is_some_and(|last| last.starts_with("id: ")) {
        reported.extend(next(&session).await);
    }
    let first = reported.pop();
    hub.clients().group("others").send("Said", ()).await.unwrap();
    let begun = tokio::time::Instant::now();
    let moved = next(&session).await;
    assert!(
        begun.elapsed() >= MOVE,
        "it is told when it is time, not for each message of others"
    );
    assert_eq!(moved.len(), 1);
    assert!(
        moved.first().is_some_and(|moved| moved.starts_with("id: ")),
        "{moved:?}"
    );
    assert_ne!(moved.first(), first.as_ref());
    session.close(CloseReason::Aborted);
    running.await.unwrap();
}
