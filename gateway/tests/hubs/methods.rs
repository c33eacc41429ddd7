//! Typed methods, states, filters, events, client results.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream, TryStreamExt};
use hubcast::hub::{Disconnected, Event, Filter, Invoked, Next, NextHook, Question, Reply, State, Upload};
use hubcast::protocol::Value;
use hubcast::testing::{HubTester, TestError};
use hubcast::{Context, Error, Gateway, Hub, HubError, Options};
use serde::Serialize;

async fn add(a: i64, b: i64) -> i64 {
    a + b
}

async fn fail() -> Result<(), HubError> {
    Err(std::io::Error::other("a secret"))?
}

async fn explain() -> Result<(), HubError> {
    Err(HubError::new("because"))
}

async fn boom() {
    panic!("boom");
}

async fn count_to(n: u32) -> impl Stream<Item = u32> {
    stream::iter(0..n)
}

async fn broken_stream() -> impl Stream<Item = Result<u32, HubError>> {
    stream::iter([Ok(1), Err(HubError::new("broke"))])
}

fn hub() -> Hub {
    Hub::new("h")
        .method("Add", add)
        .method("Fail", fail)
        .method("Explain", explain)
        .method("Boom", boom)
        .stream("CountTo", count_to)
        .stream("Broken", broken_stream)
}

#[tokio::test]
async fn arguments_are_bound_by_type_and_errors_say_what_clients_may_know() {
    let tester = HubTester::new(hub()).await.unwrap();
    let mut client = tester.connect().await;
    assert_eq!(
        client.invoke::<i64>("add", (2, 3)).await,
        Ok(5),
        "names have no case"
    );
    let base = "Failed to invoke 'Add' due to an error on the server.";
    assert_eq!(
        client.invoke::<i64>("Add", (2,)).await,
        Err(TestError::Completion(base.to_owned()))
    );
    assert_eq!(
        client.invoke::<i64>("Add", (2, "x")).await,
        Err(TestError::Completion(base.to_owned()))
    );
    let unknown = client.invoke::<()>("Nope", ()).await.unwrap_err().to_string();
    assert_eq!(
        unknown,
        "Failed to invoke 'Nope' due to an error on the server. HubException: Method does not exist."
    );
    let hidden = client.invoke::<()>("Fail", ()).await.unwrap_err().to_string();
    assert_eq!(
        hidden,
        "An unexpected error occurred invoking 'Fail' on the server."
    );
    let visible = client.invoke::<()>("Explain", ()).await.unwrap_err().to_string();
    assert_eq!(
        visible,
        "An unexpected error occurred invoking 'Explain' on the server. HubException: because"
    );
}

#[tokio::test]
async fn a_method_that_panics_fails_its_own_invocation_alone() {
    let tester = HubTester::new(hub()).await.unwrap();
    let mut client = tester.connect().await;
    let text = client.invoke::<()>("Boom", ()).await.unwrap_err().to_string();
    assert_eq!(
        text,
        "An unexpected error occurred invoking 'Boom' on the server."
    );
    assert_eq!(client.invoke::<i64>("Add", (1, 1)).await, Ok(2));
}

/// A type whose `Deserialize` panics: code that runs before the method does.
#[derive(Debug)]
struct Bad;

impl<'de> serde::Deserialize<'de> for Bad {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("bad")
    }
}

#[tokio::test]
async fn an_argument_that_panics_fails_its_own_invocation_alone() {
    let hub = hub()
        .method("Take", async |_: Bad| ())
        .stream("Items", async |_: Bad| stream::empty::<u8>());
    let hub = hub
        .method("Guarded", async || ())
        .restrict("Guarded", |_| panic!("bad"));
    let tester = HubTester::new(hub).await.unwrap();
    let mut client = tester.connect().await;
    for method in ["Take", "Guarded"] {
        let text = match method {
            "Take" => client.invoke::<()>(method, (1,)).await.unwrap_err().to_string(),
            _ => client.invoke::<()>(method, ()).await.unwrap_err().to_string(),
        };
        assert_eq!(
            text,
            format!("An unexpected error occurred invoking '{method}' on the server.")
        );
    }
    assert!(client.stream::<u8>("Items", (1,)).await.is_err());
    assert_eq!(client.invoke::<i64>("Add", (1, 1)).await, Ok(2));
}

#[tokio::test]
async fn details_are_told_when_the_hub_is_set_to() {
    let detailed = hub().configure(|options| options.hubs.detailed_errors = true);
    let tester = HubTester::new(detailed).await.unwrap();
    let mut client = tester.connect().await;
    let text = client.invoke::<()>("Fail", ()).await.unwrap_err().to_string();
    assert_eq!(
        text,
        "An unexpected error occurred invoking 'Fail' on the server. Error: a secret"
    );
    let text = client.invoke::<i64>("Add", (1,)).await.unwrap_err().to_string();
    assert!(
        text.ends_with("InvalidDataException: Invocation provides 1 argument(s) but target expects 2."),
        "{text}"
    );
}

#[tokio::test]
async fn streams_end_with_their_items_or_their_error() {
    let tester = HubTester::new(hub()).await.unwrap();
    let mut client = tester.connect().await;
    assert_eq!(client.stream::<u32>("CountTo", (4,)).await, Ok(vec![0, 1, 2, 3]));
    let text = client.stream::<u32>("Broken", ()).await.unwrap_err().to_string();
    assert_eq!(
        text,
        "An error occurred on the server while streaming results. HubException: broke"
    );
    let text = client.stream::<u32>("Add", (1, 2)).await.unwrap_err().to_string();
    assert_eq!(
        text,
        "The client attempted to invoke the non-streaming 'Add' method with a streaming invocation."
    );
    let text = client
        .invoke::<u32>("CountTo", (1,))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "The client attempted to invoke the streaming 'CountTo' method with a non-streaming invocation."
    );
}

#[derive(Serialize)]
struct Posted {
    text: String,
}

impl Event for Posted {
    const TARGET: &'static str = "Posted";
}

#[derive(Serialize)]
struct Confirm {
    text: String,
}

impl Question for Confirm {
    const TARGET: &'static str = "Confirm";
    type Answer = bool;
}

async fn post(context: Context, posts: State<AtomicU64>, text: String) -> Result<u64, HubError> {
    if !context
        .clients()
        .caller()
        .question(&Confirm { text: text.clone() })
        .await?
    {
        return Err(HubError::new("not confirmed"));
    }
    context.clients().all().emit(&Posted { text }).await?;
    Ok(posts.fetch_add(1, Ordering::Relaxed) + 1)
}

#[tokio::test]
async fn events_questions_and_states_are_typed() {
    let tester = HubTester::new(Hub::new("h").state(AtomicU64::new(0)).method("Post", post))
        .await
        .unwrap();
    let mut client = tester.connect().await;
    let text = client
        .invoke::<u64>("Post", ("a",))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.ends_with("HubException: Client didn't provide a result."),
        "{text}"
    );
    client.answer("Confirm", |arguments| {
        let asked: serde_json::Value = arguments[0].decode().unwrap();
        Ok(asked["text"] == "b")
    });
    let text = client
        .invoke::<u64>("Post", ("a",))
        .await
        .unwrap_err()
        .to_string();
    assert!(text.ends_with("HubException: not confirmed"), "{text}");
    assert_eq!(client.invoke::<u64>("Post", ("b",)).await, Ok(1));
    let call = client.receive().await.unwrap();
    assert_eq!(call.target, "Posted");
    assert_eq!(call.argument::<serde_json::Value>(0).unwrap()["text"], "b");
}

#[tokio::test]
async fn a_missing_state_a_double_method_and_a_wrong_restriction_are_found_when_building() {
    let error = HubTester::new(Hub::new("h").method("Post", post))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::MissingState { .. }), "{error}");
    let error = HubTester::new(hub().method("ADD", add)).await.unwrap_err();
    assert!(matches!(error, Error::DefinedTwice { .. }), "{error}");
    let error = HubTester::new(hub().restrict("Nope", |_| true))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoSuchMethod(_)), "{error}");
    let error = Gateway::builder()
        .hub(hub())
        .hub(hub())
        .build()
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::DefinedTwice { kind: "hub", .. }),
        "{error}"
    );
    let error = HubTester::new(hub().configure(|options| options.limits.message_bytes = 1))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Option(_)), "{error}");
}

#[derive(Default)]
struct Journal {
    lines: Mutex<Vec<String>>,
}

struct Logged(Arc<Journal>);

impl Logged {
    fn note(&self, line: String) {
        self.0.lines.lock().unwrap().push(line);
    }
}

impl Filter for Logged {
    fn invoke<'a>(&'a self, invoked: &'a Invoked, next: Next<'a>) -> BoxFuture<'a, Result<Reply, HubError>> {
        Box::pin(async move {
            self.note(format!("{} begins", invoked.method()));
            let reply = next.run(invoked).await;
            self.note(format!("{} ends, ok: {}", invoked.method(), reply.is_ok()));
            reply
        })
    }

    fn connected<'a>(
        &'a self,
        context: &'a Context,
        next: NextHook<'a>,
    ) -> BoxFuture<'a, Result<(), HubError>> {
        Box::pin(async move {
            self.note("connected".to_owned());
            next.run(context).await
        })
    }

    fn disconnected<'a>(&'a self, _: &'a Context, reason: &'a Disconnected) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.note(format!("disconnected: {reason}")) })
    }
}

struct NoSums;

/// Sees each call and its arguments, and answers something else.
struct Nosy(Arc<Journal>);

impl Filter for Nosy {
    fn invoke<'a>(&'a self, invoked: &'a Invoked, next: Next<'a>) -> BoxFuture<'a, Result<Reply, HubError>> {
        Box::pin(async move {
            let arguments: Vec<i64> = invoked
                .arguments()
                .iter()
                .map(|value| value.decode().unwrap())
                .collect();
            let caller = invoked.context().user().unwrap();
            let line = format!(
                "{caller}: {}{arguments:?} and {} uploads",
                invoked.method(),
                invoked.uploads()
            );
            self.0.lines.lock().unwrap().push(line);
            let reply = next.run(invoked).await?;
            let doubled = reply.value().unwrap().decode::<i64>()? * 2;
            Ok(Reply::from(Value::encode(&doubled)?))
        })
    }
}

#[tokio::test]
async fn a_filter_sees_who_calls_what_with_what_and_may_answer_otherwise() {
    let journal = Arc::new(Journal::default());
    let last = async |start: i64, items: Upload<i64>| -> Result<i64, HubError> {
        Ok(items.try_fold(start, async |_, item| Ok(item)).await?)
    };
    let hub = hub().method("Last", last).filter(Nosy(Arc::clone(&journal)));
    let tester = HubTester::new(hub).await.unwrap();
    let mut ann = tester.connect_as("ann").await;
    assert_eq!(ann.invoke::<i64>("add", (1, 2)).await, Ok(6));
    assert_eq!(ann.upload::<i64, i64>("last", (1,), [5, 7]).await, Ok(14));
    let expected = ["ann: Add[1, 2] and 0 uploads", "ann: Last[1] and 1 uploads"];
    assert_eq!(*journal.lines.lock().unwrap(), expected);
}

impl Filter for NoSums {
    fn invoke<'a>(&'a self, invoked: &'a Invoked, next: Next<'a>) -> BoxFuture<'a, Result<Reply, HubError>> {
        if invoked.method() == "Add" {
            return Box::pin(async { Err(HubError::new("no sums today")) });
        }
        next.run(invoked)
    }
}

#[tokio::test]
async fn filters_run_around_invocations_streams_and_the_connection() {
    let journal = Arc::new(Journal::default());
    let filtered = hub().filter(Logged(Arc::clone(&journal))).filter(NoSums);
    let tester = HubTester::new(filtered).await.unwrap();
    let mut client = tester.connect().await;
    assert!(
        client
            .invoke::<i64>("Add", (1, 2))
            .await
            .unwrap_err()
            .to_string()
            .ends_with("no sums today")
    );
    assert_eq!(client.stream::<u32>("CountTo", (1,)).await, Ok(vec![0]));
    client.close().await;
    let expected = [
        "connected",
        "Add begins",
        "Add ends, ok: false",
        "CountTo begins",
        "CountTo ends, ok: true",
        "disconnected: closed by the client",
    ];
    assert_eq!(*journal.lines.lock().unwrap(), expected);
}

#[tokio::test]
async fn restrictions_hold_for_one_method() {
    let is_ann =
        |identity: &hubcast::auth::Identity| identity.user().is_some_and(|user| user.as_str() == "ann");
    let tester = HubTester::new(hub().restrict("Add", is_ann)).await.unwrap();
    let mut ann = tester.connect_as("ann").await;
    let mut bob = tester.connect_as("bob").await;
    assert_eq!(ann.invoke::<i64>("Add", (1, 2)).await, Ok(3));
    let text = bob.invoke::<i64>("Add", (1, 2)).await.unwrap_err().to_string();
    assert_eq!(text, "Failed to invoke 'Add' because user is unauthorized");
}

#[tokio::test]
async fn groups_have_a_limit_and_membership_ends_with_the_connection() {
    async fn join(context: Context, group: String) -> Result<usize, HubError> {
        context.join(group).await?;
        Ok(context.groups().len())
    }
    let mut options = Options::default();
    options.limits.groups_per_connection = 2;
    let tester = HubTester::with_options(Hub::new("h").method("Join", join), options)
        .await
        .unwrap();
    let mut client = tester.connect().await;
    let mut other = tester.connect().await;
    assert_eq!(client.invoke::<usize>("Join", ("a",)).await, Ok(1));
    assert_eq!(client.invoke::<usize>("Join", ("b",)).await, Ok(2));
    assert_eq!(
        client.invoke::<usize>("Join", ("a",)).await,
        Ok(2),
        "joining twice changes nothing"
    );
    assert!(
        client
            .invoke::<usize>("Join", ("c",))
            .await
            .unwrap_err()
            .to_string()
            .contains("limits.groups_per_connection")
    );
    assert_eq!(other.invoke::<usize>("Join", ("a",)).await, Ok(1));
    client.close().await;
    tester.hub().clients().group("a").send("Hi", (1,)).await.unwrap();
    assert_eq!(other.receive().await.unwrap().target, "Hi");
    assert_eq!(tester.hub().local_connections(), 1);
}
