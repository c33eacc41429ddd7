//! The error type of the library's own calls.

use std::time::Duration;

use hubcast_backplane::{BackplaneError, NameError, NoEventPlace};

use crate::options::OptionError;
use crate::protocol::{DecodeValueError, EncodeValueError, TranscodeError};

/// The reason why a call of this library failed.
///
/// ```
/// use hubcast::testing::HubTester;
/// use hubcast::{Context, Error, Hub};
///
/// async fn join(context: Context, group: String) -> Result<bool, Error> {
///     match context.join(group).await {
///         Ok(()) => Ok(true),
///         Err(Error::TooManyGroups { .. }) => Ok(false),
///         Err(error) => Err(error), // as a method's error it shows clients only permitted text
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::new("rooms").method("Join", join).configure(|hub| hub.limits.groups_per_connection = 1);
/// let tester = HubTester::new(hub).await?;
/// let mut client = tester.connect().await;
/// assert_eq!(client.invoke::<bool>("Join", ("a",)).await, Ok(true));
/// assert_eq!(client.invoke::<bool>("Join", ("b",)).await, Ok(false));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name of a hub or a group can't be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No such hub was given to the gateway.
    #[error("there is no hub {0:?}")]
    UnknownHub(String),
    /// Two hubs, or two methods of one hub (whose names are compared without case), have the same name.
    #[error("{kind} {name:?} is defined twice")]
    DefinedTwice {
        /// `hub` or `method`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A method was to be restricted that the hub does not have (yet).
    #[error("the hub has no method {0:?} to restrict; add it before")]
    NoSuchMethod(String),
    /// A method or a hook takes a state that its hub was not given.
    #[error("{method:?} takes State<{state}>, and the hub was not given one with Hub::state")]
    MissingState {
        /// The method, `on_connected` or `on_disconnected`.
        method: String,
        /// The missing type.
        state: &'static str,
    },
    /// An argument can't be encoded.
    #[error("an argument of {target:?} can't be encoded: {source}")]
    Encode {
        /// The client method that was to be called.
        target: String,
        /// The serializer's error.
        source: EncodeValueError,
    },
    /// An argument that not every kind of client can read, or that can't be written in the encoding of the others.
    #[error("the arguments of {target:?} can't be sent: {source}")]
    Transcode {
        /// The client method that was to be called.
        target: String,
        /// The reason why the arguments can't be written.
        source: TranscodeError,
    },
    /// A connection is in as many groups as it may be.
    #[error("the connection is in {limit} groups, more are not allowed (limits.groups_per_connection)")]
    TooManyGroups {
        /// The limit.
        limit: usize,
    },
    /// A message was to have the target that only the backplane's own messages have, on a hub that reports presence.
    #[error(
        "the target {target:?} is reserved on a hub that tells who joins groups and leaves them (hubs.presence)"
    )]
    ReservedTarget {
        /// The target.
        target: String,
    },
    /// The hub keeps no connection events.
    #[error("the hub keeps no events of its connections (hubs.events)")]
    NoEvents,
    /// The place in the stream of events can't be one.
    #[error(transparent)]
    EventPlace(#[from] NoEventPlace),
    /// A group was to be watched on a hub that does not report presence.
    #[error("the hub does not tell who joins groups and leaves them (hubs.presence)")]
    NoPresence,
    /// The reason for closing connections is longer than [`MAX_REASON_BYTES`](crate::hub::MAX_REASON_BYTES).
    #[error("a reason of {length} bytes is over the limit of {limit}; tell clients less")]
    ReasonTooLong {
        /// The value's length in bytes.
        length: usize,
        /// The most bytes it may have.
        limit: usize,
    },
    /// The client of a client result is not connected, on any node.
    #[error("Connection '{0}' does not exist.")]
    NoSuchConnection(String),
    /// A client left before it gave its result.
    #[error("Connection '{0}' disconnected.")]
    Disconnected(String),
    /// A client answered with an error, or without a result.
    #[error("{0}")]
    Client(String),
    /// A client gave no result in time.
    #[error("Connection '{connection}' gave no result within {waited:?}.")]
    NoAnswer {
        /// The connection.
        connection: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A client's result is not of the expected type.
    #[error("the result of {target:?} is of another type: {source}")]
    Result {
        /// The client method that was called.
        target: String,
        /// The deserializer's error.
        source: DecodeValueError,
    },
    /// A client result was requested before the client is read.
    #[error("Client results inside OnConnectedAsync Hub methods are not allowed.")]
    NotWhileConnecting,
    /// A setting can't work.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The backplane refused or could not be reached.
    #[error(transparent)]
    Backplane(#[from] BackplaneError),
    /// The operating system gave no random bytes.
    #[error("no random bytes are to be had from the system")]
    NoRandomness,
}

impl Error {
    /// The text about it that a client may see, if any.
    pub(crate) fn client_text(&self) -> Option<String> {
        match self {
            Self::Backplane(error) if error.is_transient() => Some(format!(
                "The message could not be passed on: {}",
                transient_text(error)
            )),
            Self::TooManyGroups { .. }
            | Self::NoPresence
            | Self::Name(_)
            | Self::NoSuchConnection(_)
            | Self::Disconnected(_)
            | Self::Client(_)
            | Self::Transcode { .. }
            | Self::NoAnswer { .. } => Some(self.to_string()),
            _ => None,
        }
    }
}

/// The text for callers about a backplane that may work again a little later.
pub(crate) fn transient_text(error: &BackplaneError) -> &'static str {
    match error {
        BackplaneError::Full => {
            "Redis has no memory left (maxmemory). Try again when older messages are forgotten."
        }
        BackplaneError::TooFewReplicas { .. } => {
            "too few replicas follow the Redis master (backplane.min_replicas). Try again later."
        }
        _ => "the backplane can't be reached. Try again later.",
    }
}
