//! Records a client's message before it is applied, so that no other node applies it again.

use std::time::Duration;

use hubcast_backplane::{BackplaneError, Recorded};
use tokio::time::Instant;

use super::run::Conversation;
use super::{CloseReason, Ownership};

/// A record of a message that took longer is doubted: a node is taken for dead after a few seconds.
const LATE: Duration = Duration::from_secs(2);

impl Conversation<'_> {
    /// Records a message before it is applied, so that no other node applies it again. Returns the name of its call.
    /// Never cancelled: a recorded message must be applied, or the client would wait in vain.
    pub(super) async fn note(
        &mut self,
        received: u64,
        call: Option<String>,
    ) -> Result<Option<String>, CloseReason> {
        if !self.session.is_stateful() {
            return Ok(None);
        }
        let begun = Instant::now();
        match self.session.note(received, call.as_deref()).await {
            Ok(Ownership::Kept) => {}
            Ok(Ownership::Lost) => return Err(CloseReason::Moved),
            Err(error) => return Err(self.not_noted(&error, call)),
        }
        self.noted = received;
        // A node that did not run for a while may have been shut out since. Then the call does not begin, and its
        // client is notified.
        if begun.elapsed() > LATE && !self.session.is_still_owned().await.unwrap_or(false) {
            self.unsure = call.map(String::into_boxed_str);
            return Err(CloseReason::Moved);
        }
        Ok(call)
    }

    /// Records a call that the client repeats when it got no answer. Returns its name; nothing where it was called
    /// before, and its client is notified, or will be. Never cancelled, as [`note`](Self::note).
    pub(super) async fn note_once(&mut self, name: String) -> Result<Option<String>, CloseReason> {
        match self.session.note_once(&name).await {
            Ok(Recorded::Now) => Ok(Some(name)),
            Ok(Recorded::Before { running }) => {
                if !running {
                    self.session.report_duplicate(&name);
                }
                Ok(None)
            }
            Ok(Recorded::NotOwner) => Err(CloseReason::Moved),
            Err(error) => Err(self.not_noted(&error, Some(name))),
        }
    }

    /// A message whose record is not known to stand counts as not received.
    fn not_noted(&mut self, error: &BackplaneError, call: Option<String>) -> CloseReason {
        tracing::warn!(connection_id = %self.session.id(), %error, "a client's message could not be recorded");
        if !matches!(error, BackplaneError::Unavailable { .. }) {
            self.unsure = call.map(String::into_boxed_str); // it may have been recorded all the same
        }
        CloseReason::LogLost("a client's message could not be recorded in the backplane")
    }

    /// A node that goes on with the session must know which messages were applied: items of uploads, too, whose calls go on here.
    pub(super) async fn note_all(&mut self) {
        if let Some(call) = self.unsure.take() {
            self.invocations.interrupt(self.session, call.into_string());
        }
        if self.noted < self.applied && self.note(self.applied, None).await.is_err() {
            self.session.keep_here(); // a node that went on would take messages twice
        }
    }
}
