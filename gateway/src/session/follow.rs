//! Messages that a client's own calls have sent come to it before the results of these calls.
//!
//! Both take different ways: messages go through the log, results come straight from here. The offset of the last
//! message sent is known (`Connection::note_sent`), and the lane reports when it has come there.

use super::Session;

impl Session {
    /// Waits until the client was given all that its calls have sent and it receives itself. Costs nothing where there is
    /// nothing of the kind; with a backplane that is away, it waits no longer than a command may take.
    pub(super) async fn follow(&self) {
        let sent = self.connection.sent();
        if sent == 0 {
            return;
        }
        let backplane = self.hub.backplane();
        if let Err(error) = backplane.passed(sent).await {
            tracing::debug!(connection_id = %self.id(), %error, "a result does not wait for what its call has sent");
        }
        self.connection.settle_sent(sent);
    }

    /// As [`follow`](Self::follow), for all that was sent by now, on whatever node.
    pub(super) async fn follow_all(&self) {
        let backplane = self.hub.backplane();
        if let Err(error) = backplane.handed_on().await {
            tracing::debug!(connection_id = %self.id(), %error, "an answer does not wait for what was sent before");
        }
    }
}
