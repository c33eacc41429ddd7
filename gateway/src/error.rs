//! The error type of the library's own calls.

use hubcast_backplane::{BackplaneError, NameError};

use crate::options::OptionError;
use crate::protocol::{EncodeValueError, TranscodeError};

/// Why a call of this library failed.
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
    /// An argument can't be encoded.
    #[error("an argument of {target:?} can't be encoded: {source}")]
    Encode {
        /// The client method that was to be called.
        target: String,
        /// What the serializer said.
        source: EncodeValueError,
    },
    /// An argument can't be written in the encoding of the others.
    #[error("the arguments of {target:?} can't be written in one encoding: {source}")]
    Transcode {
        /// The client method that was to be called.
        target: String,
        /// What is in the way.
        source: TranscodeError,
    },
    /// A connection is in as many groups as it may be.
    #[error("the connection is in {limit} groups, more are not allowed (limits.groups_per_connection)")]
    TooManyGroups {
        /// The limit.
        limit: usize,
    },
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
    /// What a client may be told about it, if anything.
    pub(crate) fn client_text(&self) -> Option<String> {
        match self {
            Self::Backplane(error) if error.is_transient() => Some(
                "The message could not be passed on: the backplane can't be reached. Try again later."
                    .to_owned(),
            ),
            Self::TooManyGroups { .. } | Self::Name(_) => Some(self.to_string()),
            _ => None,
        }
    }
}
