//! Hubs in unit tests: no socket, no server, the whole way through protocol, session, log and fan-out.

mod calls;
mod client;
mod error;
mod wire;

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Map, Value as Json};
use tokio::sync::mpsc;

use crate::auth::{Identity, random_connection_id};
use crate::error::Error;
use crate::gateway::Gateway;
use crate::hub::{Connection, Hub, HubHandle, RequestInfo};
use crate::options::Options;
use crate::protocol::HubProtocol;
use crate::protocol::Transport;
use crate::session::{Inbound, Received, Session, TransportError, run};

pub use calls::{TestCall, TestUpload};
pub use client::{Called, Closed, TestClient};
use error::ClientRefusal;
pub use error::TestError;
use wire::Wire;

/// A hub under test. Its clients do without sockets; everything else is as in production, on an in-memory backplane.
///
/// ```
/// use hubcast::testing::HubTester;
/// use hubcast::{Context, Hub, HubError};
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
/// let call = bob.expect("Shouted").await?;
/// assert_eq!(call.argument::<String>(0), Some("HELLO".to_owned()));
///
/// // The rest of an application, seen by a client:
/// tester.hub().clients().user("bob").send("Bye", ()).await?;
/// assert_eq!(bob.receive().await.map(|call| call.target), Some("Bye".to_owned()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HubTester {
    gateway: Gateway,
    hub: HubHandle,
}

impl HubTester {
    /// Serves a hub in this process alone. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The [`Error`] of [`GatewayBuilder::build`](crate::GatewayBuilder::build).
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
        Self::of(gateway, name.as_str())
    }

    /// A tester for one hub of a gateway that was built elsewhere, such as that of an application with several hubs.
    ///
    /// ```
    /// use hubcast::testing::HubTester;
    /// use hubcast::{Gateway, Hub};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = Gateway::builder()
    ///     .hub(Hub::new("chat").method("Hub", async || "chat"))
    ///     .hub(Hub::new("news").method("Hub", async || "news"))
    ///     .build()
    ///     .await?;
    /// let chat = HubTester::of(gateway.clone(), "chat")?;
    /// let news = HubTester::of(gateway, "news")?;
    /// assert_eq!(chat.connect().await.invoke::<String>("Hub", ()).await?, "chat");
    /// assert_eq!(news.connect().await.invoke::<String>("Hub", ()).await?, "news");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownHub`] when the gateway was built without it.
    pub fn of(gateway: Gateway, hub: &str) -> Result<Self, Error> {
        let hub = gateway.hub(hub)?;
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

    /// Describes a client that is to connect.
    pub fn client(&self) -> TestClientBuilder<'_> {
        TestClientBuilder {
            tester: self,
            claims: Map::new(),
            headers: Vec::new(),
            query: Vec::new(),
            protocol: HubProtocol::Json,
        }
    }

    /// Connects a client without a token. `on_connected` has begun when the client's first call is answered.
    pub async fn connect(&self) -> TestClient {
        self.client().connect().await
    }

    /// Connects a client of a user.
    pub async fn connect_as(&self, user: &str) -> TestClient {
        self.client().user(user).connect().await
    }
}

/// A client that is to connect to a hub under test: its identity, and the request that it comes with.
///
/// ```
/// use hubcast::testing::HubTester;
/// use hubcast::{Context, Hub};
///
/// async fn describe(context: Context) -> Option<String> {
///     let connection = context.connection();
///     let user = connection.user()?;
///     Some(format!("{user} in {} from {}", connection.query("room")?, connection.cookie("city")?))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::new("rooms").method("Describe", describe).admit(|identity| identity.has_role("guest"));
/// let tester = HubTester::new(hub).await?;
/// let mut ann = tester
///     .client()
///     .user("ann")
///     .role("guest")
///     .query("room", "blue")
///     .cookie("city", "Oslo")
///     .header("user-agent", "tests")
///     .connect()
///     .await;
/// assert_eq!(ann.invoke::<String>("Describe", ()).await?, "ann in blue from Oslo");
///
/// let mut bob = tester.client().user("bob").connect().await;
/// assert_eq!(bob.closed().await.error.as_deref(), Some("403: the hub does not admit this client"));
/// # Ok(())
/// # }
/// ```
#[must_use = "nobody connects before `connect`"]
pub struct TestClientBuilder<'a> {
    tester: &'a HubTester,
    claims: Map<String, Json>,
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
    protocol: HubProtocol,
}

impl TestClientBuilder<'_> {
    /// Sets the user that the client's token names: its claim `nameid`.
    pub fn user(self, user: impl Into<String>) -> Self {
        self.claim("nameid", user.into())
    }

    /// Adds a role to the token's claim `role`.
    pub fn role(mut self, role: impl Into<String>) -> Self {
        let roles = self
            .claims
            .entry("role")
            .or_insert_with(|| Json::Array(Vec::new()));
        match roles {
            Json::Array(roles) => roles.push(Json::String(role.into())),
            one => *one = Json::Array(vec![one.take(), Json::String(role.into())]),
        }
        self
    }

    /// Sets a claim of the token. A client without any claim has no token.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Adds a header to the request.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a cookie to the request, as it is: the value is not encoded.
    pub fn cookie(self, name: &str, value: &str) -> Self {
        self.header(header::COOKIE.as_str(), format!("{name}={value}"))
    }

    /// Adds a pair to the query of the request, decoded.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Sets the hub protocol, JSON unless set.
    pub fn protocol(mut self, protocol: HubProtocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Connects. A client that the hub does not admit, whose claims no token could carry, or whose headers no request
    /// could, has a connection that has ended: see [`TestClient::closed`]. `on_connected` has begun when the client's
    /// first call is answered.
    pub async fn connect(self) -> TestClient {
        let runtime = self.tester.hub.runtime();
        let accepted = self.accept();
        let (identity, headers) = match &accepted {
            Ok(accepted) => accepted.clone(),
            Err(_) => (Identity::anonymous(), HeaderMap::new()),
        };
        let id = loop {
            if let Ok(id) = random_connection_id() {
                break id;
            }
        };
        let connection = Connection::new(id, identity, RequestInfo::new(&headers, &self.query, None));
        connection.set_transport(Transport::WebSockets);
        let session = Session::new(Arc::clone(runtime), connection);
        let (to_session, from_client) = mpsc::channel(64);
        if let Err(refusal) = accepted {
            return TestClient::new(Wire::refused(session, to_session, self.protocol, &refusal));
        }
        runtime.registry().insert(&session);
        let running = Arc::clone(&session);
        runtime.shared().tasks().spawn(async move {
            run(&running, &mut Channel { from_client }, true).await;
        });
        TestClient::new(Wire::open(session, to_session, self.protocol).await)
    }

    /// The checks of HTTP before there is a connection.
    fn accept(&self) -> Result<(Identity, HeaderMap), ClientRefusal> {
        let identity = if self.claims.is_empty() {
            Identity::anonymous()
        } else {
            Identity::from_claims(self.claims.clone())?
        };
        if !self.tester.hub.runtime().hub().admits(&identity) {
            return Err(ClientRefusal::NotAdmitted);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let bad = |part| ClientRefusal::Header {
                part,
                name: name.clone(),
            };
            let value = HeaderValue::from_str(value).map_err(|_| bad("value"))?;
            headers.append(HeaderName::try_from(name).map_err(|_| bad("name"))?, value);
        }
        Ok((identity, headers))
    }
}

/// Leaves the request out, whose cookies may be secrets.
impl fmt::Debug for TestClientBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClientBuilder")
            .field("hub", &self.tester.hub)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

struct Channel {
    from_client: mpsc::Receiver<Received>,
}

impl Inbound for Channel {
    async fn receive(&mut self) -> Received {
        match self.from_client.recv().await {
            Some(received) => received,
            None => Received::Lost(TransportError::TestDropped),
        }
    }
}
