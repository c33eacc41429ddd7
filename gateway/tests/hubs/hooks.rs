//! Hooks that run when connections begin and end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hubcast::hub::{Connected, Disconnected, FromHook, State};
use hubcast::testing::HubTester;
use hubcast::{Context, Error, Hub, HubError};

#[derive(Default)]
struct Ends(Mutex<Vec<Disconnected>>);

impl Ends {
    fn note(&self, reason: Disconnected) {
        self.0.lock().unwrap().push(reason);
    }
}

async fn arrive(online: State<AtomicUsize>, context: Context) -> Result<(), HubError> {
    let online = online.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(context.clients().caller().send("Online", (online,)).await?)
}

async fn part(reason: Disconnected, ends: State<Ends>, online: State<AtomicUsize>, _: Context) {
    online.fetch_sub(1, Ordering::Relaxed);
    ends.note(reason);
}

fn counted(ends: &Arc<Ends>) -> Hub {
    Hub::new("h")
        .on_connected(arrive)
        .on_disconnected(part)
        .state(AtomicUsize::new(0))
        .shared_state(Arc::clone(ends))
        .method("Online", async |online: State<AtomicUsize>| {
            online.load(Ordering::Relaxed)
        })
        .method("Abort", async |context: Context| context.abort())
}

#[tokio::test]
async fn hooks_take_states_and_the_reason_in_any_order() {
    let ends = Arc::new(Ends::default());
    let tester = HubTester::new(counted(&ends)).await.unwrap();
    let mut ann = tester.connect().await;
    assert_eq!(ann.expect("Online").await.unwrap().argument(0), Some(1));
    let mut bob = tester.connect().await;
    assert_eq!(bob.expect("Online").await.unwrap().argument(0), Some(2));

    bob.send("Abort", ()).await.unwrap();
    let closed = bob.closed().await;
    assert_eq!((closed.error, closed.allow_reconnect), (None, false));
    assert_eq!(closed.reason, Some(Disconnected::ByServer));
    assert_eq!(ann.invoke::<usize>("Online", ()).await, Ok(1));

    let cat = tester.connect().await;
    assert!(matches!(cat.lose().await.reason, Some(Disconnected::Lost(_))));
    assert_eq!(ann.close().await.reason, Some(Disconnected::ByClient));
    let ends = ends.0.lock().unwrap();
    assert!(
        matches!(
            &ends[..],
            [
                Disconnected::ByServer,
                Disconnected::Lost(_),
                Disconnected::ByClient
            ]
        ),
        "{ends:?}"
    );
}

#[tokio::test]
async fn closures_are_hooks_and_so_are_functions_that_take_nothing() {
    let ends = Arc::new(Ends::default());
    let noted = Arc::clone(&ends);
    let hub =
        Hub::new("h")
            .on_connected(async || {})
            .on_disconnected(move |_: Context, reason: Disconnected| {
                let ends = Arc::clone(&noted);
                async move { ends.note(reason) }
            });
    let tester = HubTester::new(hub).await.unwrap();
    tester.connect().await.close().await;
    assert_eq!(*ends.0.lock().unwrap(), [Disconnected::ByClient]);
}

#[tokio::test]
async fn a_state_that_a_hook_lacks_is_found_when_building() {
    let hooks = [
        Hub::new("h").on_connected(arrive),
        Hub::new("h").state(AtomicUsize::new(0)).on_disconnected(part),
    ];
    for (hub, name) in hooks.into_iter().zip(["on_connected", "on_disconnected"]) {
        match HubTester::new(hub).await.unwrap_err() {
            Error::MissingState { method, .. } => assert_eq!(method, name),
            error => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_hook_that_fails_or_panics_closes_a_new_connection() {
    let failing = Hub::new("h").on_connected(async || Err::<(), _>(HubError::new("not today")));
    async fn panics() {
        panic!("bad")
    }
    let panicking = Hub::new("h").on_connected(panics);
    for (hub, text) in [
        (
            failing,
            "Connection closed with an error. HubException: not today",
        ),
        (panicking, "Connection closed with an error."),
    ] {
        let tester = HubTester::new(hub).await.unwrap();
        let closed = tester.connect().await.closed().await;
        assert_eq!(
            (closed.error.as_deref(), closed.allow_reconnect),
            (Some(text), false)
        );
    }
}

/// Refuses clients that do not say which room they want.
struct Room(String);

impl FromHook<Connected> for Room {
    fn from_hook(context: &Context, _: &Connected) -> Result<Self, HubError> {
        let room = context.connection().query("room");
        room.map(|room| Self(room.to_owned()))
            .ok_or_else(|| HubError::new("which room?"))
    }
}

#[tokio::test]
async fn applications_have_parameters_of_their_own() {
    let hub = Hub::new("h").on_connected(async |context: Context, Room(room): Room| context.join(room).await);
    let tester = HubTester::new(hub.method("Ready", async || ())).await.unwrap();
    let mut client = tester.client().query("room", "blue").connect().await;
    client.invoke::<()>("Ready", ()).await.unwrap();
    assert_eq!(client.groups(), ["blue"]);
    assert!(tester.connect().await.closed().await.error.is_some());
}
