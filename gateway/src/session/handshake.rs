//! The beginning: the client names its protocol, if its request did not, and the node puts the connection into the cluster.

use std::error::Error as _;
use std::sync::Arc;

use tokio::time::{sleep_until, timeout};

use super::restore::state_of;
use super::stateful::Stateful;
use super::{CloseReason, Inbound, Received, Session};
use crate::protocol::{
    ClientDecoder, ClientProtocol, HandshakeError, HandshakeReader, HandshakeRequest, HubProtocol, select,
};

/// Reads the handshake, if there is one, registers the connection and answers. On success the connection is in the
/// cluster; on failure the client was sent the reason, if it listens.
pub(super) async fn shake(
    session: &Arc<Session>,
    inbound: &mut impl Inbound,
    claim: bool,
) -> Result<ClientDecoder, CloseReason> {
    let options = session.hub.options();
    if let Some(protocol) = session.connection.protocol() {
        return begin(session, claim, protocol).await;
    }
    let mut reader = HandshakeReader::new(options.limits.message_bytes);
    let by_token = session.connection.identity().handshake();
    let patience = by_token.unwrap_or(options.timeouts.handshake);
    let request = match timeout(patience, read(session, inbound, &mut reader)).await {
        Ok(request) => request?,
        Err(_) => return Err(refuse(session, &HandshakeError::TimedOut)),
    };
    let binary = session
        .connection
        .transport()
        .is_some_and(|transport| transport.is_binary());
    let (protocol, version) = select(&request, binary).map_err(|error| refuse(session, &error))?;
    session.connection.set_protocol(protocol);
    enter(session, claim, protocol.into(), session.becomes_stateful(version)).await?;
    session.open();
    Ok(reader.into_decoder(protocol).into())
}

/// The beginning for a client whose request named its protocol.
async fn begin(
    session: &Arc<Session>,
    claim: bool,
    protocol: ClientProtocol,
) -> Result<ClientDecoder, CloseReason> {
    if protocol.holds_place() {
        session.begin_reading().await?; // also where it is to end: calls that have begun early come to their end first
    }
    if session.closing.is_cancelled() {
        return Err(session.reason().cloned().unwrap_or(CloseReason::Aborted));
    }
    if !protocol.holds_place() {
        enter(session, claim, protocol, session.becomes_stateful(i32::MAX)).await?;
        session.open();
    }
    let limit = session.hub.options().limits.message_bytes;
    Ok(ClientDecoder::new(protocol, limit))
}

async fn read(
    session: &Arc<Session>,
    inbound: &mut impl Inbound,
    reader: &mut HandshakeReader,
) -> Result<HandshakeRequest, CloseReason> {
    loop {
        let received = tokio::select! {
            biased;
            () = session.closing.cancelled() => return Err(session.reason().cloned().unwrap_or(CloseReason::Aborted)),
            received = inbound.receive() => received,
        };
        match received {
            Received::Data(bytes) => reader.push(&bytes),
            Received::Alive { bytes } => {
                session.measure(true, bytes);
                if let Some(due) = session.pace_resumes() {
                    sleep_until(due).await;
                }
                continue;
            }
            // No session was agreed on that could go on.
            Received::NewSocket | Received::BrokenOff => {
                *reader = HandshakeReader::new(session.hub.options().limits.message_bytes);
                continue;
            }
            // A client that leaves before its handshake is whole is sent nothing, and hub code never hears of it.
            Received::Closed => {
                return Err(CloseReason::Handshake {
                    detail: "the client left".to_owned(),
                });
            }
            Received::Bad(frame) => return Err(CloseReason::BadFrame(frame)),
            Received::Lost(error) => {
                return Err(CloseReason::Handshake {
                    detail: error.to_string(),
                });
            }
        }
        match reader.next_request() {
            Ok(Some(request)) => return Ok(request),
            Ok(None) => {}
            Err(error) => return Err(refuse(session, &error)),
        }
    }
}

/// Makes the connection a member of its topics. A cluster that can't be reached refuses the handshake: a connection
/// that no node can address would look alive and hear nothing.
async fn enter(
    session: &Arc<Session>,
    claim: bool,
    protocol: ClientProtocol,
    stateful: bool,
) -> Result<(), CloseReason> {
    let mut record = session.record();
    if stateful {
        record.state = Some(state_of(&session.connection, protocol));
        session.keep();
    }
    let entered = async {
        let backplane = session.hub.backplane();
        let entered = backplane.enter(&record, claim).await?;
        session.connection.has_entered();
        if stateful {
            session.set_stateful(Stateful::new(entered.version, entered.position.epoch));
        }
        session.hub.join_groups_of_user(session, entered.groups).await?;
        session.join_groups_of_token().await
    };
    match entered.await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::warn!(connection_id = %session.id(), %error, "a connection could not be registered");
            let text =
                "The server can't register the connection: its backplane can't be reached. Try again later.";
            session.refuse(text);
            Err(CloseReason::Handshake {
                detail: error.to_string(),
            })
        }
    }
}

fn refuse(session: &Session, error: &HandshakeError) -> CloseReason {
    let mut text = error.to_string();
    if let (true, Some(source)) = (session.hub.options().hubs.detailed_errors, error.source()) {
        text = format!("{text} InvalidDataException: {source}");
    }
    session.refuse(&text);
    CloseReason::Handshake { detail: text }
}

/// The protocol of a session that has not chosen one: handshake errors are JSON text.
pub(crate) const BEFORE_HANDSHAKE: ClientProtocol = ClientProtocol::Hub(HubProtocol::Json);
