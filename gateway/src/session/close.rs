//! Why a connection ends, and what each side is told about it. The only table of its kind.

use bytes::Bytes;

use crate::hub::Disconnected;
use crate::protocol::{ClientProtocol, DecodeError, HubMessage, encode_for};
use crate::telemetry::labels::CloseLabel;

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The client sent a Close message, ended its polls, or closed its socket properly.
    ByClient,
    /// Hub code ended it.
    Aborted,
    /// The application ended it, wherever it is, and has this to say.
    Closed { reason: Option<String> },
    /// The hook for new connections failed. Carries what the client may know of the error, if anything.
    ConnectFailed { detail: Option<String> },
    /// The token that the client has shown has ended.
    Expired,
    /// The client broke the protocol.
    Protocol { detail: String },
    /// A message of the client is over the limit.
    TooLarge { limit: usize },
    /// The node holds as many bytes of unfinished messages as it may.
    NoRoom,
    /// The client fell silent.
    ClientTimeout,
    /// There was no whole handshake in time, or it was refused: the client was told in the handshake response.
    Handshake { detail: String },
    /// The client reads too slowly.
    SlowConsumer { queued: usize },
    /// The socket or response broke, or no request came in time.
    TransportLost(&'static str),
    /// The node stops.
    NodeStops,
    /// Others took the node for dead and removed its connections, or this one is another's after the server forgot it.
    Fenced,
    /// Another transport of the same client took over before the handshake, or a stateful session goes on on another
    /// node.
    Moved,
    /// A stateful session can't be continued exactly.
    LogLost(&'static str),
}

const BASE: &str = "Connection closed with an error.";
const NO_ROOM: &str = "The node holds too much for its clients (limits.held_bytes). Please reconnect.";
const FENCED: &str = "The other gateway nodes took this one for dead. Please reconnect.";

fn too_large(limit: usize) -> String {
    let error = DecodeError::TooLarge { limit };
    format!("InvalidDataException: {error} The message size can be configured with limits.message_bytes.")
}

impl CloseReason {
    pub(crate) fn from_decode(error: &DecodeError) -> Self {
        match error {
            DecodeError::TooLarge { limit } => Self::TooLarge { limit: *limit },
            _ => Self::Protocol {
                detail: format!("InvalidDataException: {error}"),
            },
        }
    }

    /// The Close message that the client gets, if any.
    fn message(&self, detailed: bool) -> Option<HubMessage> {
        let close = |error: Option<String>, allow_reconnect| {
            Some(HubMessage::Close {
                error,
                allow_reconnect,
            })
        };
        let text = |detail: Option<&str>| match detail {
            Some(detail) if detailed => Some(format!("{BASE} {detail}")),
            _ => Some(BASE.to_owned()),
        };
        match self {
            Self::ByClient | Self::Aborted => close(None, false),
            Self::Closed { reason } => close(reason.clone(), false),
            Self::Expired => close(Some("The access token has expired.".to_owned()), true),
            // There is a detail only if the client may see it.
            Self::ConnectFailed { detail: Some(detail) } => close(Some(format!("{BASE} {detail}")), false),
            Self::ConnectFailed { detail: None } => close(text(None), false),
            Self::Protocol { detail } => close(text(Some(detail)), true),
            // Always told: nothing else says why a client can't send what it wants to.
            Self::TooLarge { limit } => close(Some(format!("{BASE} {}", too_large(*limit))), true),
            Self::NoRoom => close(Some(NO_ROOM.to_owned()), true),
            Self::ClientTimeout => close(
                text(Some(
                    "OperationCanceledException: Client hasn't sent a message/ping within the configured ClientTimeoutInterval.",
                )),
                true,
            ),
            Self::SlowConsumer { queued } => close(
                text(Some(&format!(
                    "Slow consumer: {queued} bytes were waiting (limits.outbox_bytes)."
                ))),
                true,
            ),
            Self::LogLost(what) => close(text(Some(&format!("Messages may be missing: {what}."))), true),
            Self::Fenced => close(Some(FENCED.to_owned()), true),
            Self::TransportLost(_) | Self::NodeStops => close(None, true),
            Self::Handshake { .. } | Self::Moved => None,
        }
    }

    /// The Close message as bytes.
    pub(crate) fn frame(&self, protocol: ClientProtocol, detailed: bool) -> Option<Bytes> {
        encode_for(protocol, &self.message(detailed)?).ok().flatten()
    }

    /// What the hub's hook is told; `None` when hub code never saw the connection.
    pub(crate) fn disconnected(&self) -> Option<Disconnected> {
        Some(match self {
            Self::ByClient => Disconnected::ByClient,
            Self::Aborted | Self::Closed { .. } => Disconnected::ByServer,
            Self::Protocol { detail } => Disconnected::Refused(detail.clone()),
            Self::TooLarge { limit } => Disconnected::Refused(too_large(*limit)),
            Self::Expired => Disconnected::Refused("the access token has expired".to_owned()),
            Self::NoRoom => Disconnected::Refused("the node holds too much for its clients".to_owned()),
            Self::ClientTimeout => Disconnected::Lost("the client fell silent".to_owned()),
            Self::SlowConsumer { .. } => Disconnected::Refused("the client reads too slowly".to_owned()),
            Self::TransportLost(what) => Disconnected::Lost((*what).to_owned()),
            Self::LogLost(what) => Disconnected::Lost((*what).to_owned()),
            Self::NodeStops | Self::Fenced => Disconnected::NodeStopped,
            Self::ConnectFailed { .. } => Disconnected::Refused("on_connected failed".to_owned()),
            Self::Handshake { .. } | Self::Moved => return None,
        })
    }

    pub(crate) fn label(&self) -> CloseLabel {
        match self {
            Self::ByClient => CloseLabel::Client,
            Self::Moved => CloseLabel::Moved,
            Self::Aborted => CloseLabel::Aborted,
            Self::ConnectFailed { .. } | Self::Closed { .. } | Self::NoRoom => CloseLabel::Server,
            Self::Protocol { .. } | Self::TooLarge { .. } => CloseLabel::ProtocolError,
            Self::Expired => CloseLabel::Expired,
            Self::ClientTimeout => CloseLabel::ClientTimeout,
            Self::Handshake { .. } => CloseLabel::HandshakeTimeout,
            Self::SlowConsumer { .. } => CloseLabel::SlowConsumer,
            Self::TransportLost(_) => CloseLabel::TransportLost,
            Self::LogLost(_) => CloseLabel::LogLost,
            Self::NodeStops => CloseLabel::Shutdown,
            Self::Fenced => CloseLabel::Fenced,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::HubProtocol;

    fn json(reason: &CloseReason, detailed: bool) -> String {
        let frame = reason
            .frame(HubProtocol::Json.into(), detailed)
            .unwrap_or_default();
        String::from_utf8(frame.to_vec()).unwrap()
    }

    #[test]
    fn each_reason_has_the_close_message_of_the_reference() {
        assert_eq!(json(&CloseReason::ByClient, false), "{\"type\":7}\u{1e}");
        assert_eq!(json(&CloseReason::Aborted, false), "{\"type\":7}\u{1e}");
        let failed = CloseReason::ConnectFailed { detail: None };
        assert_eq!(
            json(&failed, false),
            "{\"type\":7,\"error\":\"Connection closed with an error.\"}\u{1e}"
        );
        let told = CloseReason::ConnectFailed {
            detail: Some("HubException: y".to_owned()),
        };
        assert_eq!(
            json(&told, false),
            "{\"type\":7,\"error\":\"Connection closed with an error. HubException: y\"}\u{1e}"
        );
        let protocol = CloseReason::Protocol {
            detail: "X: y".to_owned(),
        };
        assert_eq!(
            json(&protocol, false),
            "{\"type\":7,\"error\":\"Connection closed with an error.\",\"allowReconnect\":true}\u{1e}"
        );
        assert_eq!(
            json(&protocol, true),
            "{\"type\":7,\"error\":\"Connection closed with an error. X: y\",\"allowReconnect\":true}\u{1e}"
        );
        assert_eq!(
            json(&CloseReason::Fenced, false),
            format!("{{\"type\":7,\"error\":\"{FENCED}\",\"allowReconnect\":true}}\u{1e}")
        );
        assert_eq!(
            json(&CloseReason::NodeStops, false),
            "{\"type\":7,\"allowReconnect\":true}\u{1e}"
        );
        assert_eq!(
            json(
                &CloseReason::Handshake {
                    detail: String::new()
                },
                true
            ),
            ""
        );
    }
}
