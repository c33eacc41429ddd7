//! Clients of hubs under test.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::TestError;
use super::wire::Wire;
use crate::hub::{Connection, Disconnected};
use crate::protocol::{HubMessage, Value};
use crate::session::{Received, TransportError};

/// A call that the server made, as [`TestClient::receive`] and [`TestClient::expect`] give it.
#[derive(Debug, Clone)]
pub struct Called {
    /// The client's method.
    pub target: String,
    /// The arguments of the call.
    pub arguments: Vec<Value>,
}

impl Called {
    /// One argument; `None` when there is none, or it is of another type.
    #[must_use]
    pub fn argument<T: DeserializeOwned>(&self, index: usize) -> Option<T> {
        self.arguments.get(index)?.decode().ok()
    }
}

/// How the connection of a test client ended.
///
/// ```
/// use hubcast::hub::Disconnected;
/// use hubcast::testing::HubTester;
/// use hubcast::{Context, Hub};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::new("door").method("Leave", async |context: Context| context.abort());
/// let tester = HubTester::new(hub).await?;
/// let mut client = tester.connect().await;
/// client.send("Leave", ()).await?;
/// let closed = client.closed().await;
/// assert_eq!((closed.error, closed.allow_reconnect), (None, false));
/// assert_eq!(closed.reason, Some(Disconnected::ByServer));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The error that the client was sent, if any.
    pub error: Option<String>,
    /// True if an official client would reconnect by itself, if it is set to.
    pub allow_reconnect: bool,
    /// The reason that `on_disconnected` is given; `None` when hub code never saw the connection.
    pub reason: Option<Disconnected>,
}

/// A client of a hub under test. Dropped, it is a client whose connection broke.
///
/// Methods that wait for the server give up after 30 seconds, or as [`set_patience`](Self::set_patience) says. The
/// client reads, and [answers](Self::answer), only while one of its methods waits.
///
/// ```
/// use futures_util::stream::{self, Stream, TryStreamExt};
/// use hubcast::hub::Upload;
/// use hubcast::testing::HubTester;
/// use hubcast::{Context, Hub, HubError};
///
/// async fn sum(context: Context, numbers: Upload<u64>) -> Result<u64, HubError> {
///     let numbers: Vec<u64> = numbers.try_collect().await?;
///     let sure: bool = context.clients().caller().invoke("Sure?", (numbers.len(),)).await?;
///     if sure { Ok(numbers.iter().sum()) } else { Err(HubError::new("not sure")) }
/// }
///
/// async fn count() -> impl Stream<Item = u64> {
///     stream::iter(0..)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("math").method("Sum", sum).stream("Count", count)).await?;
/// let mut client = tester.connect().await;
///
/// client.answer("Sure?", |arguments| Ok(arguments[0].decode::<usize>().is_ok_and(|count| count == 3)));
/// assert_eq!(client.upload::<u64, u64>("Sum", (), [1, 2, 3]).await, Ok(6));
/// let error = client.upload::<u64, u64>("Sum", (), [1]).await.unwrap_err();
/// assert!(error.to_string().ends_with("HubException: not sure"));
///
/// let counting = client.begin_stream("Count", (), &[]).await?;
/// assert_eq!(client.item::<u64>(&counting).await, Ok(Some(0)));
/// client.cancel(&counting).await?;
/// client.result::<()>(&counting).await?;
///
/// assert_eq!(client.close().await.error, None);
/// # Ok(())
/// # }
/// ```
pub struct TestClient {
    pub(super) wire: Wire,
    pub(super) last_id: u64,
}

impl TestClient {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, last_id: 0 }
    }

    /// The connection id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.wire.session.id().as_str()
    }

    /// The connection as hub code sees it, with the hub's data for it.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        self.wire.session.connection()
    }

    /// The groups that the connection is in, in no order.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        let groups = self.wire.session.groups();
        groups.iter().map(ToString::to_string).collect()
    }

    /// Sets how long the client waits for the server.
    pub fn set_patience(&mut self, patience: Duration) {
        self.wire.patience = patience;
    }

    /// Sets what the client answers for a client result. Targets without an answer of their own are answered as
    /// official clients do: with the error that there is no result. An error is the text of the client's answer.
    pub fn answer<R: Serialize>(
        &mut self,
        target: impl Into<String>,
        mut answer: impl FnMut(&[Value]) -> Result<R, String> + Send + 'static,
    ) {
        let encoding = self.wire.protocol.encoding();
        let encoded = move |arguments: &[Value]| {
            let result = answer(arguments)?;
            Value::encode_as(&result, encoding).map_err(|error| error.to_string())
        };
        self.wire.answers.insert(target.into(), Some(Box::new(encoded)));
    }

    /// Has the client never give a client result for this target.
    pub fn ignore(&mut self, target: impl Into<String>) {
        self.wire.answers.insert(target.into(), None);
    }

    /// Waits for the next call that the server makes without a client result; `None` when the connection ended or
    /// the time is over.
    pub async fn receive(&mut self) -> Option<Called> {
        let until = self.wire.until();
        while self.wire.received.is_empty() {
            self.wire.exchange(until).await.ok()?;
        }
        self.wire.received.pop_front()
    }

    /// Waits for the next call of `target`. Others stay for [`receive`](Self::receive).
    ///
    /// # Errors
    /// [`TestError::NotCalled`]: the connection ended, or the time is over.
    pub async fn expect(&mut self, target: &str) -> Result<Called, TestError> {
        let until = self.wire.until();
        loop {
            let found = self.wire.received.iter().position(|call| call.target == target);
            if let Some(call) = found.and_then(|index| self.wire.received.remove(index)) {
                return Ok(call);
            }
            if let Err(reason) = self.wire.exchange(until).await {
                let others = self.wire.received.iter().map(|call| call.target.clone());
                return Err(TestError::NotCalled {
                    target: target.to_owned(),
                    others: others.collect(),
                    reason: Box::new(reason),
                });
            }
        }
    }

    /// The calls that have come in and were not taken yet. Does not wait: what a method has sent to its caller
    /// before it returned is there when its result is.
    pub fn received(&mut self) -> Vec<Called> {
        self.wire.received.drain(..).collect()
    }

    /// Reads, and gives client results, while something else runs, such as a question from outside of the hub's
    /// methods:
    ///
    /// ```
    /// # use hubcast::testing::HubTester;
    /// # use hubcast::Hub;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tester = HubTester::new(Hub::new("phones")).await?;
    /// let mut client = tester.connect().await;
    /// client.answer("Battery", |_| Ok(87));
    /// let phone = tester.hub().clients().client(client.id());
    /// let percent: u32 = client.during(phone.invoke("Battery", ())).await?;
    /// assert_eq!(percent, 87);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let until = self.wire.until();
            tokio::select! {
                biased;
                outcome = &mut work => return outcome,
                exchanged = self.wire.exchange(until) => if exchanged.is_err() && self.wire.end.is_some() {
                    return work.await;
                }
            }
        }
    }

    /// Sends a sign of life. From the first one on, the server ends the connection when it hears nothing for
    /// `timeouts.client_timeout_seconds`; a client that never pings may be silent.
    ///
    /// # Errors
    /// The end of the connection.
    pub async fn ping(&mut self) -> Result<(), TestError> {
        self.wire.write_message(&HubMessage::Ping).await
    }

    /// How many signs of life the server has sent, as far as the client has read.
    #[must_use]
    pub fn pings(&self) -> usize {
        self.wire.pings
    }

    /// Ends the connection and waits for its end, `on_disconnected` included.
    pub async fn close(mut self) -> Closed {
        let goodbye = HubMessage::Close {
            error: None,
            allow_reconnect: false,
        };
        let _ = self.wire.write_message(&goodbye).await; // the end shows when reading
        self.closed().await
    }

    /// Breaks the connection and waits for its end, `on_disconnected` included.
    pub async fn lose(mut self) -> Closed {
        let _ = self
            .wire
            .write(Received::Lost(TransportError::BrokenByTest))
            .await;
        self.closed().await
    }

    /// Waits for the end of the connection, `on_disconnected` included: the server is to end it. What comes before that
    /// can be had afterwards. If the time is over first, the `error` says so, and the connection goes on.
    pub async fn closed(&mut self) -> Closed {
        let until = self.wire.until();
        loop {
            if let Some(end) = self.wire.end.clone() {
                self.wire.to_session.closed().await;
                return end;
            }
            if let (Err(error), None) = (self.wire.exchange(until).await, &self.wire.end) {
                return Closed {
                    error: Some(error.to_string()),
                    allow_reconnect: true,
                    reason: None,
                };
            }
        }
    }
}

/// Leaves the received messages out, which may be secrets.
impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient")
            .field("id", self.wire.session.id())
            .field("end", &self.wire.end)
            .finish_non_exhaustive()
    }
}
