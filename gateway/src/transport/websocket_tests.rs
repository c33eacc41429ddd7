//! The memory of a connection while it is idle.

use hubcast_backplane::ConnectionId;

use super::*;
use crate::auth::Identity;
use crate::hub::{Connection, Hub, RequestInfo};
use crate::limits::{Budget, Terms};
use crate::protocol::websocket::Messages;
use crate::testing::HubTester;

async fn session() -> Arc<Session> {
    let tester = HubTester::new(Hub::new("h")).await.unwrap();
    let id = ConnectionId::parse("c").unwrap();
    let connection = Connection::new(id, Identity::anonymous(), RequestInfo::default());
    Session::new(Arc::clone(tester.hub().runtime()), connection)
}

#[tokio::test]
async fn an_idle_connection_is_small() {
    let session = session().await;
    let terms = Arc::new(Terms {
        budget: Budget::new(0),
        grace: Duration::from_secs(1),
        least_rate: 0,
    });
    let socket = || {
        let (_, stream) = tokio::io::duplex(1);
        Box::new(WebSocket::other(stream, Messages::Stream, terms.clone()))
    };
    let reservation = Reservation::new(Arc::clone(&session), false);
    let classic = size_of_val(&serve(reservation, socket()));
    let resumable = size_of_val(&serve_resumable(Arc::clone(&session), socket()));
    let running = size_of_val(&run(&session, &mut Gone, true));
    let sizes = [
        ("task of a connection that is one socket", classic, 648),
        ("task of a socket that its connection outlives", resumable, 736),
        ("session's part in a task", running, 288),
        ("session", size_of::<Session>(), 432),
        ("connection", size_of::<Connection>(), 184),
        ("socket", size_of::<WebSocket>(), 224),
    ];
    for (what, size, most) in sizes {
        println!("{what}: {size} bytes");
        assert!(size <= most, "{what}: {size} bytes");
    }
}
