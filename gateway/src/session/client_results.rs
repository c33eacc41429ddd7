//! Client results that the server has requested and waits for.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Session;
use super::completions::NotSent;
use crate::protocol::{ClientProtocol, HubMessage, Invocation, Outcome, Value};

/// Questions to one client. Their ids begin with `s`, because clients answer in the space of their own stream ids, which
/// are numbers.
#[derive(Debug, Default)]
pub(super) struct ClientResults {
    state: Mutex<PendingResults>,
}

#[derive(Debug, Default)]
struct PendingResults {
    last: u64,
    /// Empty where no call waits.
    #[expect(clippy::box_collection, reason = "next to none of many connections has one")]
    waiting: Option<Box<HashMap<String, oneshot::Sender<Outcome>>>>,
}

/// The reason why a client gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClientResultError {
    #[error("{0}")]
    Client(String),
    #[error("Client didn't provide a result.")]
    NoResult,
    #[error("the connection ended")]
    Disconnected,
}

impl Session {
    /// Calls a method of the client and waits for its result. `translated` are the arguments in the other encoding, where
    /// the caller wrote both. Dropping the call forgets it; the client is not notified,
    /// and its later answer is ignored.
    pub(crate) async fn ask(
        &self,
        target: String,
        arguments: Vec<Value>,
        translated: Vec<Value>,
    ) -> Result<Value, ClientResultError> {
        if !self.speaks_hub_protocol() {
            return Err(ClientResultError::NoResult); // its protocol has no questions
        }
        let wanted = self.connection.protocol().map(ClientProtocol::encoding);
        let in_its_own = |values: &[Value]| values.first().map(Value::encoding) == wanted;
        let arguments = if in_its_own(&translated) {
            translated
        } else {
            arguments
        };
        // Sessions of one connection on different nodes must not use an id twice.
        let (id, answer) = self
            .client_results
            .begin(self.version().map_or(0, |version| version.0));
        let _forget = Forget {
            client_results: &self.client_results,
            id: &id,
        };
        let invocation = Invocation {
            invocation_id: Some(id.clone()),
            target,
            arguments,
            ..Invocation::default()
        };
        // By the log: it comes after all that was sent to the client before.
        if let Err(NotSent) = self.send(&HubMessage::Invocation(invocation)).await {
            return Err(ClientResultError::Disconnected);
        }
        let outcome = tokio::select! {
            outcome = answer => outcome.map_err(|_| ClientResultError::Disconnected)?,
            () = self.gone().cancelled() => return Err(ClientResultError::Disconnected),
        };
        match outcome {
            Outcome::Result(value) => Ok(value),
            Outcome::Void => Err(ClientResultError::NoResult),
            Outcome::Error(text) => Err(ClientResultError::Client(text)),
        }
    }

    /// The client has answered. An unknown id is ignored.
    pub(super) fn answered(&self, id: &str, outcome: Outcome) {
        if let Some(waiting) = self.client_results.end(id) {
            // The requester may show the error to other clients.
            let outcome = match outcome {
                Outcome::Result(value) => match value.check_readable() {
                    Ok(()) => Outcome::Result(value),
                    Err(error) => Outcome::Error(format!("Client's result can't be passed on: {error}.")),
                },
                outcome => outcome,
            };
            let _ = waiting.send(outcome); // the requester may have given up
        }
    }
}

impl ClientResults {
    /// Returns whether a call waits for a client result.
    pub(super) fn any_waits(&self) -> bool {
        self.state.lock().waiting.is_some()
    }

    /// Returns whether a call waits for this client result.
    pub(super) fn hold(&self, id: &str) -> bool {
        let state = self.state.lock();
        state
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.contains_key(id))
    }

    fn begin(&self, version: u64) -> (String, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        state.last = state.last.wrapping_add(1);
        let id = match version {
            0 => format!("s{}", state.last),
            version => format!("s{version}.{}", state.last),
        };
        state.waiting.get_or_insert_default().insert(id.clone(), sender);
        (id, receiver)
    }

    fn end(&self, id: &str) -> Option<oneshot::Sender<Outcome>> {
        let mut state = self.state.lock();
        let waiting = state.waiting.as_mut()?;
        let ended = waiting.remove(id);
        if waiting.is_empty() {
            state.waiting = None;
        }
        ended
    }
}

struct Forget<'a> {
    client_results: &'a ClientResults,
    id: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.client_results.end(self.id);
    }
}
