//! The reasons why a connection ends, and the messages about it to each side. The only table of its kind.

use std::borrow::Cow;

use axum::extract::ws::close_code;
use bytes::Bytes;

use super::TransportError;
use crate::hub::Disconnected;
use crate::protocol::websocket::BadFrame;
use crate::protocol::{ClientProtocol, DecodeError, HubMessage, encode_for};
use crate::telemetry::labels::CloseLabel;

/// The reason why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The client sent a Close message, ended its polls, or closed its socket properly.
    ByClient,
    /// Hub code ended it.
    Aborted,
    /// The application ended it, wherever it is, and has this to say.
    Closed { reason: Option<String> },
    /// The hook for new connections failed. Carries the error's text for the client, if any.
    ConnectFailed { detail: Option<String> },
    /// The token that the client has shown has ended.
    Expired,
    /// The client broke the protocol or the size limit. `code` is that of a Close frame.
    Protocol { detail: String, code: u16 },
    /// The client broke the rules of WebSocket frames.
    BadFrame(BadFrame),
    /// The node holds as many bytes of unfinished messages as it may.
    NoRoom,
    /// The client fell silent.
    ClientTimeout,
    /// There was no whole handshake in time, or it was refused: the handshake response says so.
    Handshake { detail: String },
    /// The client reads too slowly.
    SlowConsumer { queued: usize },
    /// The socket or response broke, or no request came in time.
    TransportLost(TransportError),
    /// The node stops.
    NodeStops,
    /// The node has more connections than others.
    Rebalanced,
    /// Others took the node for dead and removed its connections, or this one is another's after the server forgot it.
    Fenced,
    /// Another transport of the same client took over before the handshake, or a stateful session goes on on another
    /// node.
    Moved,
    /// A stateful session can't be continued exactly.
    LogLost(&'static str),
}

/// Most bytes of the words of a Close frame, by section 5.5 of RFC 6455.
const CLOSE_WORDS: usize = 123;

const BASE: &str = "Connection closed with an error.";
const EXPIRED: &str = "The access token has expired.";
const SILENT: &str = "The client was silent for too long (timeouts.client_timeout_seconds).";
const NO_ROOM: &str = "The node holds too much for its clients (limits.held_bytes). Please reconnect.";
const FENCED: &str = "The other gateway nodes took this one for dead. Please reconnect.";

impl CloseReason {
    pub(crate) fn from_decode(error: &DecodeError) -> Self {
        let hint = match error {
            DecodeError::TooLarge { .. } => " The message size can be configured with limits.message_bytes.",
            _ => "",
        };
        let code = match error {
            DecodeError::TooLarge { .. } => close_code::SIZE,
            DecodeError::InvalidUtf8 | DecodeError::Protobuf(_) => close_code::INVALID,
            _ => close_code::PROTOCOL,
        };
        Self::Protocol {
            detail: format!("InvalidDataException: {error}{hint}"),
            code,
        }
    }

    /// Code and words of the Close frame that ends a WebSocket. In the hub protocol its Close message says all: any
    /// other code than 1000 makes some clients drop the messages that they have received. Web PubSub clients with
    /// recovery begin anew after 1008 alone. For others, 1000 says that there is nothing to come back for.
    pub(crate) fn close_frame(&self, protocol: Option<ClientProtocol>) -> (u16, String) {
        let code = match (protocol, self) {
            (_, Self::BadFrame(bad)) => bad.code,
            (None | Some(ClientProtocol::Hub(_)), _) => return (close_code::NORMAL, String::new()),
            (_, Self::ByClient) => close_code::NORMAL,
            (Some(protocol), _) if protocol.is_reliable() => close_code::POLICY,
            (_, Self::Protocol { code, .. }) => *code,
            (_, Self::ConnectFailed { .. }) => close_code::ERROR,
            (_, Self::Expired) => close_code::POLICY,
            (_, Self::NodeStops | Self::Rebalanced | Self::Fenced | Self::LogLost(_)) => close_code::RESTART,
            (_, Self::SlowConsumer { .. } | Self::ClientTimeout | Self::NoRoom | Self::Handshake { .. }) => {
                close_code::AGAIN
            }
            _ => close_code::NORMAL,
        };
        (code, up_to(&self.words(), CLOSE_WORDS).to_owned())
    }

    /// The reason, in words for clients without a hub protocol.
    fn words(&self) -> Cow<'_, str> {
        match self {
            Self::BadFrame(bad) => bad.what.into(),
            Self::Protocol { detail, .. } => detail.into(),
            Self::Closed { reason: Some(reason) } => reason.into(),
            Self::SlowConsumer { queued } => slow(*queued).into(),
            Self::Expired => EXPIRED.into(),
            Self::ClientTimeout => SILENT.into(),
            Self::NoRoom => NO_ROOM.into(),
            Self::Fenced => FENCED.into(),
            Self::LogLost(_) => "Messages may be missing.".into(),
            Self::NodeStops => "The node stops. Please reconnect.".into(),
            _ => "".into(),
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
            Self::Expired => close(Some(EXPIRED.to_owned()), true),
            // There is a detail only if the client may see it.
            Self::ConnectFailed { detail: Some(detail) } => close(Some(format!("{BASE} {detail}")), false),
            Self::ConnectFailed { detail: None } => close(text(None), false),
            // Always sent: nothing else says why a client can't send what it wants to.
            Self::Protocol { detail, code } if *code == close_code::SIZE => {
                close(Some(format!("{BASE} {detail}")), true)
            }
            Self::Protocol { detail, .. } => close(text(Some(detail)), true),
            Self::NoRoom => close(Some(NO_ROOM.to_owned()), true),
            Self::ClientTimeout => close(
                text(Some(
                    "OperationCanceledException: Client hasn't sent a message/ping within the configured ClientTimeoutInterval.",
                )),
                true,
            ),
            Self::SlowConsumer { queued } => close(Some(format!("{BASE} {}", slow(*queued))), true),
            Self::LogLost(what) => close(text(Some(&format!("Messages may be missing: {what}."))), true),
            Self::Fenced => close(Some(FENCED.to_owned()), true),
            Self::TransportLost(_) | Self::NodeStops | Self::Rebalanced => close(None, true),
            Self::Handshake { .. } | Self::Moved | Self::BadFrame(_) => None,
        }
    }

    /// The Close message as bytes. Clients without a hub protocol get the error of their own messages.
    pub(crate) fn frame(&self, protocol: ClientProtocol, detailed: bool) -> Option<Bytes> {
        let own = matches!(self, Self::Protocol { .. }) && !matches!(protocol, ClientProtocol::Hub(_));
        let detailed = detailed || own;
        encode_for(protocol, &self.message(detailed)?).ok().flatten()
    }

    /// The client's mistake, where that ends the session.
    pub(crate) fn mistake(&self) -> Option<&str> {
        match self {
            Self::Protocol { detail, .. } | Self::Handshake { detail } => Some(detail),
            Self::BadFrame(bad) => Some(bad.what),
            _ => None,
        }
    }

    /// Returns whether the client is sent the earlier messages of its calls first.
    pub(crate) fn lets_follow(&self) -> bool {
        matches!(
            self,
            Self::Aborted
                | Self::ConnectFailed { .. }
                | Self::Expired
                | Self::Protocol { .. }
                | Self::NodeStops
                | Self::Rebalanced
        )
    }

    /// The reason that the hub's hook is given; `None` when hub code never saw the connection.
    pub(crate) fn disconnected(&self) -> Option<Disconnected> {
        Some(match self {
            Self::ByClient => Disconnected::ByClient,
            Self::Aborted | Self::Closed { .. } => Disconnected::ByServer,
            Self::Protocol { detail, .. } => Disconnected::Refused(detail.clone()),
            Self::BadFrame(bad) => Disconnected::Refused(bad.what.to_owned()),
            Self::NoRoom => Disconnected::Refused("the node holds too much for its clients".to_owned()),
            Self::Expired => Disconnected::Refused("the access token has expired".to_owned()),
            Self::ClientTimeout => Disconnected::Lost("the client fell silent".to_owned()),
            Self::SlowConsumer { .. } => Disconnected::Refused("the client reads too slowly".to_owned()),
            Self::TransportLost(error) => Disconnected::Lost(error.to_string()),
            Self::LogLost(what) => Disconnected::Lost((*what).to_owned()),
            Self::NodeStops | Self::Fenced => Disconnected::NodeStopped,
            Self::Rebalanced => Disconnected::Lost("the node has more connections than others".to_owned()),
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
            Self::Protocol { .. } | Self::BadFrame(_) => CloseLabel::ProtocolError,
            Self::Expired => CloseLabel::Expired,
            Self::ClientTimeout => CloseLabel::ClientTimeout,
            Self::Handshake { .. } => CloseLabel::HandshakeTimeout,
            Self::SlowConsumer { .. } => CloseLabel::SlowConsumer,
            Self::TransportLost(_) => CloseLabel::TransportLost,
            Self::LogLost(_) => CloseLabel::LogLost,
            Self::NodeStops => CloseLabel::Shutdown,
            Self::Rebalanced => CloseLabel::Rebalanced,
            Self::Fenced => CloseLabel::Fenced,
        }
    }
}

fn slow(queued: usize) -> String {
    format!("Slow consumer: {queued} bytes were waiting (limits.outbox_bytes, timeouts.send_seconds).")
}

/// The beginning of a text, cut between two characters.
fn up_to(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
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
    fn who_speaks_no_hub_protocol_is_told_in_words() {
        let plain = |reason: &CloseReason| reason.close_frame(Some(ClientProtocol::Plain));
        let closed = CloseReason::Closed {
            reason: Some("ä".repeat(100)),
        };
        assert_eq!(plain(&closed), (close_code::NORMAL, "ä".repeat(61)));
        let (code, words) = plain(&CloseReason::SlowConsumer { queued: 5 });
        assert_eq!(code, close_code::AGAIN);
        assert!(words.starts_with("Slow consumer: 5 bytes"), "{words}");
        assert!(words.len() <= CLOSE_WORDS);
        assert_eq!(
            closed.close_frame(Some(HubProtocol::Json.into())),
            (close_code::NORMAL, String::new())
        );
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
        let reported = CloseReason::ConnectFailed {
            detail: Some("HubException: y".to_owned()),
        };
        assert_eq!(
            json(&reported, false),
            "{\"type\":7,\"error\":\"Connection closed with an error. HubException: y\"}\u{1e}"
        );
        let protocol = CloseReason::Protocol {
            detail: "X: y".to_owned(),
            code: close_code::PROTOCOL,
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
