//! Hubs in unit tests: no socket, no server, the whole way through protocol, session, log and fan-out.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hubcast_backplane::UserId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::auth::{Identity, random_connection_id};
use crate::error::Error;
use crate::gateway::Gateway;
use crate::hub::{Arguments, Connection, Hub, HubHandle, RequestInfo, Transport};
use crate::options::Options;
use crate::protocol::{Decoder, HubMessage, HubProtocol, Invocation, Outcome, Value, encode};
use crate::queue::Taken;
use crate::session::{CloseReason, Inbound, Received, Session, run};

/// A hub under test.
///
/// ```
/// use hubcast::{Context, Hub, HubError, HubTester};
///
/// async fn shout(context: Context, text: String) -> Result<usize, HubError> {
///     context.clients().others().send("Shouted", (text.to_uppercase(),)).await?;
///     Ok(text.len())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("chat").method("Shout", shout)).await?;
/// let mut ann = tester.connect().await;
/// let mut bob = tester.connect_as("bob").await;
///
/// assert_eq!(ann.invoke::<usize>("Shout", ("hello",)).await, Ok(5));
/// let call = bob.receive().await.expect("a call");
/// assert_eq!(call.target, "Shouted");
/// assert_eq!(call.argument::<String>(0), Some("HELLO".to_owned()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HubTester {
    gateway: Gateway,
    hub: HubHandle,
}

/// A call that the server made.
#[derive(Debug, Clone)]
pub struct Called {
    /// The client's method.
    pub target: String,
    /// Its arguments.
    pub arguments: Vec<Value>,
}

impl Called {
    /// One argument; `None` when there is none, or it is of another type.
    #[must_use]
    pub fn argument<T: DeserializeOwned>(&self, index: usize) -> Option<T> {
        self.arguments.get(index)?.decode().ok()
    }
}

impl HubTester {
    /// Serves a hub in this process alone. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`Error`] for what [`GatewayBuilder::build`](crate::GatewayBuilder::build) refuses.
    pub async fn new(hub: Hub) -> Result<Self, Error> {
        Self::with_options(hub, Options::default()).await
    }

    /// As [`new`](Self::new), with settings.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub async fn with_options(hub: Hub, options: Options) -> Result<Self, Error> {
        let name = hub.check()?;
        let gateway = Gateway::builder().hub(hub).options(options).build().await?;
        let hub = gateway.hub(name.as_str())?;
        Ok(Self { gateway, hub })
    }

    /// The hub, as the rest of an application uses it.
    #[must_use]
    pub fn hub(&self) -> HubHandle {
        self.hub.clone()
    }

    /// The gateway that serves it.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Connects a client without a user. `on_connected` has begun when the client's first call is answered.
    pub async fn connect(&self) -> TestClient {
        self.open(Identity::anonymous()).await
    }

    /// Connects a client of a user. A name that no token could carry gives a client without a user.
    pub async fn connect_as(&self, user: &str) -> TestClient {
        self.open(Identity::of_user(UserId::parse(user).ok())).await
    }

    async fn open(&self, identity: Identity) -> TestClient {
        let runtime = self.hub.runtime();
        let (to_session, from_client) = mpsc::channel(64);
        let id = loop {
            if let Ok(id) = random_connection_id() {
                break id;
            }
        };
        let connection = Connection::new(id, identity, RequestInfo::default());
        connection.set_transport(Transport::WebSockets);
        let session = Session::new(Arc::clone(runtime), connection);
        runtime.registry().insert(&session);
        let running = Arc::clone(&session);
        runtime.shared().tasks().spawn(async move {
            run(&running, &mut Channel { from_client }, true).await;
        });
        let mut client = TestClient {
            session,
            to_session,
            decoder: Decoder::new(HubProtocol::Json, usize::MAX),
            received: VecDeque::new(),
            answers: HashMap::new(),
            last_id: 0,
            ended: false,
        };
        client
            .write(Bytes::from_static(b"{\"protocol\":\"json\",\"version\":1}\x1e"))
            .await;
        client.shake().await;
        client
    }
}

struct Channel {
    from_client: mpsc::Receiver<Bytes>,
}

impl Inbound for Channel {
    async fn receive(&mut self) -> Received {
        match self.from_client.recv().await {
            Some(bytes) => Received::Data(bytes),
            None => Received::Lost("the test client was dropped"),
        }
    }
}

type Answer = Box<dyn FnMut(&[Value]) -> Result<Value, String> + Send>;

/// A client of a hub under test. Dropped, it is a client whose connection broke.
pub struct TestClient {
    session: Arc<Session>,
    to_session: mpsc::Sender<Bytes>,
    decoder: Decoder,
    received: VecDeque<Called>,
    answers: HashMap<String, Answer>,
    last_id: u64,
    ended: bool,
}

impl TestClient {
    /// The connection id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.session.id().as_str()
    }

    /// Sets what the client answers when the server asks it.
    pub fn answer<R: Serialize>(
        &mut self,
        target: impl Into<String>,
        mut answer: impl FnMut(&[Value]) -> Result<R, String> + Send + 'static,
    ) {
        let encoded = move |arguments: &[Value]| {
            let result = answer(arguments)?;
            Value::encode_as(&result, HubProtocol::Json.encoding()).map_err(|error| error.to_string())
        };
        self.answers.insert(target.into(), Box::new(encoded));
    }

    /// Invokes a method and waits for its result; the error is the text that the client gets.
    ///
    /// # Errors
    /// The text of the completion's error, or that the connection ended.
    pub async fn invoke<R: DeserializeOwned>(
        &mut self,
        target: &str,
        arguments: impl Arguments,
    ) -> Result<R, String> {
        let id = self.call(target, arguments, HubMessage::Invocation).await?;
        loop {
            match self.next().await? {
                HubMessage::Completion {
                    invocation_id,
                    outcome,
                    ..
                } if invocation_id == id => {
                    let value = match outcome {
                        Outcome::Result(value) => value,
                        Outcome::Void => Value::null(HubProtocol::Json.encoding()),
                        Outcome::Error(text) => return Err(text),
                    };
                    return value.decode().map_err(|error| error.to_string());
                }
                message => self.take(message).await,
            }
        }
    }

    /// Invokes a streaming method and gathers its items until it ends.
    ///
    /// # Errors
    /// The text of the completion's error, or that the connection ended.
    pub async fn stream<T: DeserializeOwned>(
        &mut self,
        target: &str,
        arguments: impl Arguments,
    ) -> Result<Vec<T>, String> {
        let id = self.call(target, arguments, HubMessage::StreamInvocation).await?;
        let mut items = Vec::new();
        loop {
            match self.next().await? {
                HubMessage::StreamItem {
                    invocation_id, item, ..
                } if invocation_id == id => {
                    items.push(item.decode().map_err(|error| error.to_string())?);
                }
                HubMessage::Completion {
                    invocation_id,
                    outcome,
                    ..
                } if invocation_id == id => match outcome {
                    Outcome::Error(text) => return Err(text),
                    Outcome::Void | Outcome::Result(_) => return Ok(items),
                },
                message => self.take(message).await,
            }
        }
    }

    /// Waits for the next call that the server makes without asking for a result; `None` when the connection ended.
    pub async fn receive(&mut self) -> Option<Called> {
        loop {
            if let Some(called) = self.received.pop_front() {
                return Some(called);
            }
            let message = self.next().await.ok()?;
            self.take(message).await;
        }
    }

    /// Says goodbye and waits for the end of the connection, `on_disconnected` included.
    pub async fn close(mut self) {
        self.send_message(&HubMessage::Close {
            error: None,
            allow_reconnect: false,
        })
        .await;
        while !self.ended {
            let _ = self.next().await;
        }
        self.to_session.closed().await;
    }

    async fn call(
        &mut self,
        target: &str,
        arguments: impl Arguments,
        kind: fn(Invocation) -> HubMessage,
    ) -> Result<String, String> {
        self.last_id = self.last_id.wrapping_add(1);
        let id = self.last_id.to_string();
        let arguments = arguments.into_values().map_err(|error| error.to_string())?;
        let invocation = Invocation {
            invocation_id: Some(id.clone()),
            target: target.to_owned(),
            arguments,
            ..Invocation::default()
        };
        self.send_message(&kind(invocation)).await;
        Ok(id)
    }

    /// What is not what was waited for.
    async fn take(&mut self, message: HubMessage) {
        let HubMessage::Invocation(Invocation {
            invocation_id,
            target,
            arguments,
            ..
        }) = message
        else {
            return;
        };
        let Some(invocation_id) = invocation_id else {
            return self.received.push_back(Called { target, arguments });
        };
        let outcome = match self.answers.get_mut(&target).map(|answer| answer(&arguments)) {
            Some(Ok(value)) => Outcome::Result(value),
            Some(Err(text)) => Outcome::Error(text),
            None => Outcome::Error("Client didn't provide a result.".to_owned()),
        };
        self.send_message(&HubMessage::Completion {
            headers: Vec::new(),
            invocation_id,
            outcome,
        })
        .await;
    }

    async fn next(&mut self) -> Result<HubMessage, String> {
        loop {
            match self.decoder.next_message() {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            let mut frames = Vec::new();
            if self.session.take_frames(&mut frames, usize::MAX).await == Taken::End {
                self.ended = true;
                return Err(match self.session.reason() {
                    Some(CloseReason::Handshake { detail }) => detail.clone(),
                    _ => "the connection has ended".to_owned(),
                });
            }
            frames.iter().for_each(|frame| self.decoder.push(frame));
        }
    }

    /// The answer to the handshake is no message: it has no type.
    async fn shake(&mut self) {
        let mut frames = Vec::new();
        if self.session.take_frames(&mut frames, 0).await == Taken::End {
            self.ended = true;
        }
    }

    async fn send_message(&mut self, message: &HubMessage) {
        if let Ok(frame) = encode(HubProtocol::Json, message) {
            self.write(frame).await;
        }
    }

    async fn write(&mut self, bytes: Bytes) {
        let _ = self.to_session.send(bytes).await; // the end shows when reading
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient")
            .field("id", self.session.id())
            .finish_non_exhaustive()
    }
}
