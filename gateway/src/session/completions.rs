//! How calls are answered: at once, or, in a session that outlives its socket, through the log.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hubcast_backplane::{Listing, NodeId, RecordedCall, Topic, wire};
use tokio::time::sleep;

use super::{CloseReason, Ended, Session};
use crate::hub::Drained;
use crate::protocol::{ClientProtocol, HubMessage, MESSAGE, Outcome, webpubsub};

/// How often, and how long apart, an answer is tried to be written to a backplane that can't be reached.
const ANSWER_ATTEMPTS: (usize, Duration) = (10, Duration::from_secs(1));

/// The error that the client is sent for a call that was lost.
pub(super) const INTERRUPTED: &str =
    "The invocation was interrupted: the node that ran it has stopped, or lost its backplane.";
/// Items that a call sends to a connection elsewhere before it checks how far the client is.
const PACE: u64 = 16;
/// How often it looks for a connection that no node has.
const LOOK: Duration = Duration::from_millis(200);

/// An invocation of the client, as it is answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Answering {
    /// The client's id for it; without one no completion is sent.
    pub(super) invocation_id: Option<String>,
    /// The name by which it was recorded, in a stateful session.
    pub(super) call: Option<String>,
}

/// The outcome of sending an item of a stream.
pub(super) enum Sent {
    /// The item is on its way.
    Yes,
    /// The call has ended, or its connection.
    Unwanted,
    /// The item may be on its way or not.
    Unsure,
}

/// A message could not be sent: its connection has ended, or the backplane can't be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotSent;

/// The name of a call in the backplane: the number of its message, and the id that its completion needs.
pub(super) fn call_name(number: u64, invocation_id: Option<&str>) -> String {
    match invocation_id {
        Some(id) => format!("{number} {id}"),
        None => number.to_string(),
    }
}

/// The invocation id of a recorded call; `None` where no completion is wanted.
pub(super) fn invocation_of(call: &str) -> Option<&str> {
    call.split_once(' ').map(|(_, id)| id)
}

impl Session {
    /// Sends the client the completion of a call. Of a stateful session this works also after it moved.
    pub(super) async fn complete(&self, answering: Answering, outcome: Outcome) {
        if self.reason() == Some(&CloseReason::Aborted) {
            return; // the call, or another one, has ended the connection: its Close is all that the client is sent
        }
        let outcome = self.result_as_message(&answering, outcome).await;
        match (answering.invocation_id, answering.call) {
            (Some(invocation_id), None) => {
                self.follow().await;
                self.push(&completion(invocation_id, outcome));
            }
            (None, None) => {}
            (invocation_id, Some(call)) => {
                let host = self.hub.shared().backplane().node();
                self.complete_call(&call, host, invocation_id, outcome).await;
            }
        }
    }

    /// Publishes a result to the client itself, where its protocol has no other way to send it.
    pub(super) async fn result_as_message(&self, answering: &Answering, outcome: Outcome) -> Outcome {
        let protocol = self.connection.protocol();
        let asked = answering
            .invocation_id
            .as_deref()
            .is_some_and(webpubsub::is_invoke);
        let Outcome::Result(result) = &outcome else {
            return outcome;
        };
        if asked || result.is_null() || !protocol.is_some_and(ClientProtocol::results_are_messages) {
            return outcome;
        }
        let topics = [Topic::Connection(self.id().clone())];
        let published = self
            .hub
            .publish(None, &topics, MESSAGE, vec![result.clone()], Vec::new());
        match published.await {
            Ok(()) => Outcome::Void,
            Err(error) => Outcome::Error(error.client_text().unwrap_or_else(|| INTERRUPTED.to_owned())),
        }
    }

    /// Reports to the client a call that was lost with `host`. Where it waits for no answer, the connection ends: it
    /// could not be reported in another way.
    pub(super) async fn interrupt(&self, call: &str, host: &NodeId) {
        match invocation_of(call) {
            Some(id) => {
                let outcome = Outcome::Error(INTERRUPTED.to_owned());
                self.complete_call(call, host, Some(id.to_owned()), outcome).await;
            }
            None => self.end_call(call, host, Some(lost_envelope())).await,
        }
    }

    /// Ends a call that `host` runs. Once, whatever other node tries.
    pub(super) async fn complete_call(
        &self,
        call: &str,
        host: &NodeId,
        invocation_id: Option<String>,
        outcome: Outcome,
    ) {
        let envelope = invocation_id.and_then(|id| self.envelope(&completion(id, outcome)));
        self.end_call(call, host, envelope).await;
    }

    pub(super) async fn end_call(&self, call: &str, host: &NodeId, envelope: Option<wire::Envelope>) {
        let call = RecordedCall { id: call, host };
        for _ in 0..ANSWER_ATTEMPTS.0 {
            let backplane = self.hub.backplane();
            let id = self.id();
            let answered = match &envelope {
                Some(envelope) => backplane.reply(id, call, envelope, true).await,
                None => backplane.finish(id, call).await.map(|_| None),
            };
            match answered {
                Ok(place) => return self.connection.note_sent(place.unwrap_or_default()),
                Err(error) if error.is_transient() => {
                    tracing::debug!(connection_id = %self.id(), %error, "a completion has to wait");
                }
                Err(error) => {
                    tracing::warn!(connection_id = %self.id(), %error, "a completion could not be written");
                    break;
                }
            }
            sleep(ANSWER_ATTEMPTS.1).await;
        }
        if self.has_moved() {
            self.end_elsewhere().await;
        }
        self.close(CloseReason::LogLost(
            "an answer could not be written to the backplane",
        ));
    }

    /// Has the node that the connection moved to report to its client that something is lost.
    pub(super) async fn end_elsewhere(&self) {
        let topics = [Topic::Connection(self.id().clone())];
        let backplane = self.hub.backplane();
        let reported = backplane.publish(&topics, &lost_envelope()).await;
        if let Err(error) = reported {
            tracing::warn!(connection_id = %self.id(), %error, "a client could not be told that its answer is lost");
        }
    }

    /// Sends an item of a stream to the client, not before it has read the items before it.
    pub(super) async fn send_item(&self, answering: &Answering, item: &HubMessage) -> Sent {
        let Some(call) = &answering.call else {
            self.follow().await;
            return match self.push_waiting(item).await {
                Ok(()) => Sent::Yes,
                Err(Ended) => Sent::Unwanted,
            };
        };
        self.outbox.at_most(self.high_water()).await;
        if self.has_moved()
            && let Err(Ended) = self.pace().await
        {
            return Sent::Unwanted;
        }
        let Some(envelope) = self.envelope(item) else {
            return Sent::Yes;
        };
        let call = RecordedCall {
            id: call,
            host: self.hub.shared().backplane().node(),
        };
        match self
            .hub
            .backplane()
            .reply(self.id(), call, &envelope, false)
            .await
        {
            Ok(Some(place)) => {
                self.connection.note_sent(place);
                Sent::Yes
            }
            Ok(None) => Sent::Unwanted,
            Err(error) => {
                tracing::warn!(connection_id = %self.id(), %error, "an item of a stream could not be written");
                Sent::Unsure
            }
        }
    }

    /// Waits, now and then, until the client reads on, wherever it is.
    pub(super) async fn pace(&self) -> Result<(), Ended> {
        let Some(stateful) = self.stateful() else {
            return Ok(());
        };
        if !stateful
            .paced
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(PACE)
        {
            return Ok(());
        }
        loop {
            let backplane = self.hub.backplane();
            match backplane.look_up(self.id()).await {
                Ok(None) => return Err(Ended),
                Ok(Some(Listing {
                    owner: Some(owner), ..
                })) => {
                    if self.hub.shared().peers().drained(self, &owner).await == Drained::Yes {
                        return Ok(());
                    }
                }
                // No node has it: its client is on its way, or the window ends.
                Ok(Some(_)) | Err(_) => {}
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until the client has read most of the bytes sent to it.
    pub(crate) async fn drained(&self) {
        self.outbox.at_most(self.high_water()).await;
    }

    /// Sends the client a message that answers nothing, in its place among the others that it receives.
    pub(super) async fn send(&self, message: &HubMessage) -> Result<(), NotSent> {
        let envelope = self.envelope(message).ok_or(NotSent)?;
        let topics = [Topic::Connection(self.id().clone())];
        let backplane = self.hub.backplane();
        match backplane.publish(&topics, &envelope).await {
            Ok(receipts) if receipts.iter().any(Option::is_some) => Ok(()),
            Ok(_) => Err(NotSent),
            Err(error) => {
                tracing::warn!(connection_id = %self.id(), %error, "a message could not be written");
                Err(NotSent)
            }
        }
    }

    /// A message to this client alone, on its way through the log.
    pub(super) fn envelope(&self, message: &HubMessage) -> Option<wire::Envelope> {
        Some(wire::Envelope {
            frame: self.encode_bare(message)?,
            ..wire::Envelope::default()
        })
    }
}

/// Ends its receivers, because something of theirs was lost.
fn lost_envelope() -> wire::Envelope {
    wire::Envelope {
        close: Some(Box::new(wire::Close {
            reason: None,
            lost: true,
        })),
        ..wire::Envelope::default()
    }
}

fn completion(invocation_id: String, outcome: Outcome) -> HubMessage {
    HubMessage::Completion {
        headers: Vec::new(),
        invocation_id,
        outcome,
    }
}
