//! Choosing clients and calling them. Everything goes through the log, also to connections of this node: one path,
//! one order.

use std::time::Duration;

use hubcast_backplane::{ConnectionId, GroupName, NameError, Topic, UserId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Calls, HubHandle};
use crate::error::Error;
use crate::protocol::{EncodeValueError, Encoding, Value};
use crate::session::Slots;

/// The clients of a hub, on whatever node they are. Choosing costs nothing and can't fail: an unknown id chooses
/// no client.
///
/// ```
/// use hubcast::testing::HubTester;
/// use hubcast::Hub;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("news")).await?;
/// let (mut ann, mut bob) = (tester.connect_as("ann").await, tester.connect_as("bob").await);
/// tester.hub().groups().add(bob.id(), "sports").await?;
///
/// let clients = tester.hub().clients();
/// clients.group("sports").send("Goal", (2, 1)).await?;
/// clients.users(["ann", "eve"]).send("Mail", ("hello",)).await?;
/// clients.all_except([ann.id()]).send("Ad", ()).await?;
/// clients.client("nobody").send("Lost", ()).await?;
///
/// assert_eq!(ann.expect("Mail").await?.argument::<String>(0), Some("hello".to_owned()));
/// assert_eq!(bob.receive().await.map(|call| call.target), Some("Goal".to_owned()));
/// assert_eq!(bob.receive().await.map(|call| call.target), Some("Ad".to_owned()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Clients {
    hub: HubHandle,
    calls: Calls,
}

impl Clients {
    pub(crate) fn new(hub: HubHandle) -> Self {
        Self::of_call(hub, Calls::default())
    }

    fn of_call(hub: HubHandle, calls: Calls) -> Self {
        Self { hub, calls }
    }

    /// Every connection.
    pub fn all(&self) -> Recipients {
        self.to(vec![Topic::All])
    }

    /// Every connection but these.
    pub fn all_except<I>(&self, connections: I) -> Recipients
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.all().except(connections)
    }

    /// One connection, by its id. A connection that does not exist is ignored.
    pub fn client(&self, connection: impl AsRef<str>) -> Recipient {
        let connection = connection.as_ref();
        Recipient {
            recipients: self.clients([connection]),
            name: connection.to_owned(),
            calls: self.calls.clone(),
            patience: None,
        }
    }

    /// Several connections, by their ids.
    pub fn clients<I>(&self, connections: I) -> Recipients
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        // A text that can't be an id names no connection, and sending to no client succeeds.
        let ids = connections
            .into_iter()
            .filter_map(|id| ConnectionId::parse(id).ok());
        self.to(ids.map(Topic::Connection).collect())
    }

    /// The connections of a group.
    pub fn group(&self, group: impl AsRef<str>) -> Recipients {
        self.groups([group])
    }

    /// The connections of a group but these.
    pub fn group_except<I>(&self, group: impl AsRef<str>, connections: I) -> Recipients
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.group(group).except(connections)
    }

    /// The connections of several groups. A member of two of them receives the message twice, as with SignalR.
    pub fn groups<I>(&self, groups: I) -> Recipients
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let topics: Result<_, _> = groups
            .into_iter()
            .map(|name| GroupName::parse(name).map(Topic::Group))
            .collect();
        Recipients {
            hub: self.hub.clone(),
            topics,
            except: Vec::new(),
        }
    }

    /// Every connection of a user.
    pub fn user(&self, user: impl AsRef<str>) -> Recipients {
        self.users([user])
    }

    /// Every connection of several users.
    pub fn users<I>(&self, users: I) -> Recipients
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let ids = users.into_iter().filter_map(|id| UserId::parse(id).ok());
        self.to(ids.map(Topic::User).collect())
    }

    fn to(&self, topics: Vec<Topic>) -> Recipients {
        Recipients {
            hub: self.hub.clone(),
            topics: Ok(topics),
            except: Vec::new(),
        }
    }
}

/// The clients of a hub, seen by one of them: [`Clients`], and the choices that need a caller.
///
/// ```
/// use hubcast::{Context, Hub, HubError};
///
/// async fn say(context: Context, room: String, text: String) -> Result<(), HubError> {
///     let clients = context.clients();
///     clients.others_in_group(&room).send("Said", (&text,)).await?;
///     clients.caller().send("Sent", ()).await?;
///     clients.user("moderator").send("Seen", (&room, &text)).await?;
///     Ok(())
/// }
///
/// let hub = Hub::new("chat").method("Say", say);
/// ```
#[derive(Clone, Debug)]
pub struct CallerClients {
    clients: Clients,
    caller: ConnectionId,
}

impl CallerClients {
    pub(crate) fn new(hub: HubHandle, caller: ConnectionId, calls: Calls) -> Self {
        Self {
            clients: Clients::of_call(hub, calls),
            caller,
        }
    }

    /// The caller itself.
    pub fn caller(&self) -> Recipient {
        self.client(self.caller.as_str())
    }

    /// Every connection but the caller.
    pub fn others(&self) -> Recipients {
        self.all().except([self.caller.as_str()])
    }

    /// The connections of a group but the caller.
    pub fn others_in_group(&self, group: impl AsRef<str>) -> Recipients {
        self.group(group).except([self.caller.as_str()])
    }
}

impl std::ops::Deref for CallerClients {
    type Target = Clients;

    fn deref(&self) -> &Clients {
        &self.clients
    }
}

/// Chosen clients. Nothing happens before [`send`](Self::send).
///
/// ```
/// use hubcast::{Context, HubError};
///
/// async fn move_piece(context: Context, game: String, from: u8, to: u8) -> Result<(), HubError> {
///     let players = context.clients().group(&game).except([context.connection_id().as_str()]);
///     players.send("Moved", (from, to)).await?;
///     Ok(())
/// }
/// ```
#[must_use = "nothing is sent before `send`"]
#[derive(Debug)]
pub struct Recipients {
    hub: HubHandle,
    topics: Result<Vec<Topic>, NameError>,
    except: Vec<String>,
}

impl Recipients {
    /// Leaves connections out.
    pub fn except<I>(mut self, connections: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.except.extend(connections.into_iter().map(Into::into));
        self
    }

    /// Calls `target` on the chosen clients with the arguments of a tuple. Returns when the message has its place in
    /// the hub's log; clients that can't be reached are not an error. A caller that is among the chosen clients receives
    /// the message before the result of its call.
    ///
    /// # Errors
    /// [`Error`] for a group name that can't be used, arguments that can't be encoded, or a backplane that can't be
    /// reached.
    pub async fn send(self, target: &str, arguments: impl Arguments) -> Result<(), Error> {
        let values = arguments.into_values().map_err(|source| Error::Encode {
            target: target.to_owned(),
            source,
        })?;
        self.send_values(target, values).await
    }

    /// Like [`send`](Self::send), with arguments that are encoded already.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn send_values(self, target: &str, arguments: Vec<Value>) -> Result<(), Error> {
        let topics = self.topics?;
        if topics.is_empty() {
            return Ok(());
        }
        self.hub
            .runtime()
            .publish(self.hub.caller(), &topics, target, arguments, self.except)
            .await
    }
}

/// One chosen client, which can return a client result.
///
/// ```
/// use std::time::Duration;
/// use hubcast::{Context, Error, Hub, HubError};
///
/// async fn erase(context: Context, board: String) -> Result<bool, HubError> {
///     let caller = context.clients().caller().patience(Duration::from_secs(20));
///     match caller.invoke::<bool>("Really?", (&board,)).await {
///         Ok(false) | Err(Error::NoAnswer { .. }) => return Ok(false),
///         Ok(true) => {}
///         Err(error) => return Err(error.into()),
///     }
///     context.clients().group(&board).send("Erased", ()).await?;
///     Ok(true)
/// }
///
/// let hub = Hub::new("boards").method("Erase", erase);
/// ```
#[must_use = "nothing is sent before `send` or `invoke`"]
#[derive(Debug)]
pub struct Recipient {
    recipients: Recipients,
    name: String,
    calls: Calls,
    patience: Option<Duration>,
}

impl Recipient {
    /// Calls `target` on the client, as [`Recipients::send`].
    ///
    /// # Errors
    /// As for [`Recipients::send`].
    pub async fn send(self, target: &str, arguments: impl Arguments) -> Result<(), Error> {
        self.recipients.send(target, arguments).await
    }

    /// Like [`send`](Self::send), with arguments that are encoded already.
    ///
    /// # Errors
    /// As for [`Recipients::send`].
    pub async fn send_values(self, target: &str, arguments: Vec<Value>) -> Result<(), Error> {
        self.recipients.send_values(target, arguments).await
    }

    /// Sets how long [`invoke`](Self::invoke) waits, instead of `timeouts.client_result_seconds`.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Calls `target` on the client, wherever it is connected, and waits for its result. A method that waits leaves its
    /// slot to the connection's next invocation. Dropping the call forgets it; the client is not notified.
    ///
    /// # Errors
    /// [`Error::NoSuchConnection`], [`Error::Disconnected`], [`Error::Client`] with the client's own error,
    /// [`Error::NoAnswer`] after the time that is allowed, [`Error::Result`] for a result of another type, and as for
    /// [`Recipients::send`].
    pub async fn invoke<R: DeserializeOwned>(
        self,
        target: &str,
        arguments: impl Arguments,
    ) -> Result<R, Error> {
        if self.calls.connecting {
            return Err(Error::NotWhileConnecting);
        }
        let values = arguments.into_values().map_err(|source| Error::Encode {
            target: target.to_owned(),
            source,
        })?;
        let Some(Topic::Connection(connection)) = self.recipients.topics?.pop() else {
            return Err(Error::NoSuchConnection(self.name));
        };
        let hub = self.recipients.hub.runtime();
        let patience = self.patience.unwrap_or(hub.options().timeouts.client_result);
        let _lent = self.calls.slots.as_ref().map(Slots::lend);
        let result = hub.ask(&connection, target, values, Vec::new(), patience).await?;
        result.decode().map_err(|source| Error::Result {
            target: target.to_owned(),
            source,
        })
    }
}

/// The arguments of a call: a tuple of up to eight values that serde serializes, or values that are encoded already.
/// A single argument is a tuple too, with its comma: `(text,)`.
///
/// ```
/// use hubcast::hub::Arguments;
/// use hubcast::protocol::{Binary, Encoding};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let values = ("chat", 7, [1.5, 2.5]).into_values()?;
/// assert_eq!(values[2].bytes(), "[1.5,2.5]".as_bytes());
/// let packed = (Binary(vec![1, 2]),).into_values()?;
/// assert_eq!(packed[0].encoding(), Encoding::MessagePack);
/// assert!(().into_values()?.is_empty());
/// # Ok(())
/// # }
/// ```
pub trait Arguments: Send {
    /// Encodes each: as JSON, or as MessagePack when there are byte strings, which JSON lacks.
    ///
    /// # Errors
    /// The serializer's error.
    fn into_values(self) -> Result<Vec<Value>, EncodeValueError>;
}

macro_rules! arguments {
    ($(($($type:ident),*);)*) => { $(
        #[allow(non_snake_case)]
        impl<$($type: Serialize + Send),*> Arguments for ($($type,)*) {
            fn into_values(self) -> Result<Vec<Value>, EncodeValueError> {
                let ($($type,)*) = self;
                Ok(vec![$(Value::encode(&$type)?),*])
            }
        }
    )* };
}

impl Arguments for Vec<Value> {
    fn into_values(self) -> Result<Vec<Value>, EncodeValueError> {
        Ok(self)
    }
}

arguments! {
    ();
    (A);
    (A, B);
    (A, B, C);
    (A, B, C, D);
    (A, B, C, D, E);
    (A, B, C, D, E, G);
    (A, B, C, D, E, G, H);
    (A, B, C, D, E, G, H, I);
}

/// The one encoding of a message's arguments: MessagePack as soon as one of them is, because it can say all that JSON
/// can and more.
pub(crate) fn common_encoding(arguments: &[Value]) -> Encoding {
    let packed = arguments
        .iter()
        .any(|value| value.encoding() == Encoding::MessagePack);
    if packed {
        Encoding::MessagePack
    } else {
        Encoding::Json
    }
}
