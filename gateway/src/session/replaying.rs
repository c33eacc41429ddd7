//! Sends the client of a moved connection the messages that it may lack, page by page, as fast as it reads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::{BackplaneError, HistoryPage, Message, Replay, Taken};
use tokio::time::sleep;

use super::{CloseReason, Frames, Session};
use crate::fanout::{Audience, cut_at_close};

/// Frames with their offsets in the log.
type HeldFrames = VecDeque<(Bytes, u64)>;

/// How long is waited for a backplane that can't be reached, before a page is requested again.
const PAUSE: Duration = Duration::from_secs(1);

/// A replay under way.
pub(super) struct Replaying {
    session: Arc<Session>,
    replay: Replay,
    /// The log ends the connection at the offset where the replay is.
    closes: Option<CloseReason>,
}

impl Replaying {
    pub(super) fn of(session: &Arc<Session>, taken: &Taken) -> Self {
        let after = taken.checkpoint.position.clone();
        let (record, groups) = (taken.record.clone(), taken.groups.clone());
        Self {
            session: Arc::clone(session),
            replay: Replay::new(record, groups, after, taken.position.offset),
            closes: None,
        }
    }

    /// The next frames, and whether they are the last ones; nothing where the log does not prove that none is missing.
    pub(super) async fn next_page(&mut self) -> Result<Option<(HeldFrames, bool)>, BackplaneError> {
        let hub = &self.session.hub;
        let most_bytes = hub.options().limits.outbox_bytes / 2;
        let backplane = hub.backplane();
        let page = backplane.replay(&mut self.replay, most_bytes).await?;
        let HistoryPage::Exact {
            mut messages, ends, ..
        } = page
        else {
            return Ok(None);
        };
        self.closes = cut_at_close(&mut messages, &self.session);
        let kept = self.encode(&messages);
        hub.shared().metrics().replayed.inc_by(kept.len() as u64);
        Ok(Some((kept, ends || self.closes.is_some())))
    }

    /// Sends the rest.
    pub(super) async fn run(mut self) {
        let session = Arc::clone(&self.session);
        tokio::select! {
            () = session.closing.cancelled() => {}
            all = self.send_rest() => match all {
                Some(()) => self.end(),
                None => session.close(CloseReason::LogLost("what the client lacks is not in the log any more")),
            },
        }
    }

    async fn send_rest(&mut self) -> Option<()> {
        loop {
            let (kept, ends) = match self.next_page().await {
                Ok(page) => page?,
                Err(error) if error.is_transient() => {
                    tracing::debug!(connection_id = %self.session.id(), %error, "a replay has to wait");
                    sleep(PAUSE).await;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(connection_id = %self.session.id(), %error, "a replay failed");
                    return None;
                }
            };
            for (frame, place) in kept {
                self.session.outbox.push_past(frame, place).await.ok()?;
            }
            if ends {
                return Some(());
            }
        }
    }

    /// Lets the messages that came meanwhile follow.
    pub(super) fn end(self) {
        self.session.outbox.end_past();
        if let Some(reason) = self.closes {
            self.session.close(reason);
        }
    }

    /// The frames that the client was sent, or was to be sent, in its protocol.
    fn encode(&self, messages: &[Message]) -> HeldFrames {
        let Some(protocol) = self.session.connection.protocol() else {
            return HeldFrames::new();
        };
        let shared = self.session.hub.shared();
        let frame = |message: &Message| {
            let audience = Audience::of(&message.envelope, || shared.backplane().now())?;
            let groups = || self.replay.groups_at(message.offset).cloned().collect();
            let frames = Frames::new(message, shared);
            // Changes of states are not numbered: the client gets a new snapshot in place of them.
            let receives = frames.states_of().is_none() && audience.held(&self.session, groups);
            let frame = receives.then(|| frames.get(protocol, self.session.carriage()))??;
            Some((frame, message.offset))
        };
        messages.iter().filter_map(frame).collect()
    }
}
