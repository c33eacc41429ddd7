//! The numbers of a client's messages in a stateful session. Rules: the SignalR transport specification, as both
//! official implementations follow it.

use std::time::Duration;

use tokio::time::Instant;

/// Least time between two Acks.
const ACK_INTERVAL: Duration = Duration::from_secs(1);

/// The client's numbered messages that were taken.
#[derive(Debug, Default)]
pub(super) struct ReceiveSequence {
    /// The number of the last one that came in, counted from the last Sequence.
    current: u64,
    /// The highest one that was taken.
    highest: u64,
    acknowledged: u64,
    /// The time of the next Ack to the client, if there is news.
    pub(super) ack_due: Option<Instant>,
}

/// A message that has come, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    New,
    /// It was taken before.
    Again,
}

/// A Sequence that can't be continued at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SequenceError {
    /// The sequence id leaves messages out.
    #[error("Sequence ID greater than amount of messages we've received.")]
    Gap,
    /// Numbers begin with 1.
    #[error("Sequence ID must be greater than 0.")]
    Zero,
}

impl ReceiveSequence {
    /// The sequence of a client whose messages were taken up to this number, on another node.
    pub(super) fn after(highest: u64) -> Self {
        Self {
            current: highest,
            highest,
            ..Self::default()
        }
    }

    /// The number of the last message that was taken.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Counts a message.
    pub(super) fn take(&mut self) -> Arrival {
        self.current = self.current.saturating_add(1);
        if self.current <= self.highest {
            return Arrival::Again;
        }
        self.highest = self.current;
        self.ack_due.get_or_insert_with(|| Instant::now() + ACK_INTERVAL);
        Arrival::New
    }

    /// The next message has this number.
    pub(super) fn continue_at(&mut self, sequence_id: u64) -> Result<(), SequenceError> {
        if sequence_id == 0 {
            return Err(SequenceError::Zero);
        }
        if sequence_id > self.highest.saturating_add(1) {
            return Err(SequenceError::Gap);
        }
        self.current = sequence_id.saturating_sub(1);
        // The client may have missed an Ack, and sends again the messages that it does not know to have arrived.
        self.acknowledged = 0;
        if self.highest > 0 {
            self.ack_due.get_or_insert_with(|| Instant::now() + ACK_INTERVAL);
        }
        Ok(())
    }

    /// The number to acknowledge, when it is time.
    pub(super) fn ack(&mut self, now: Instant) -> Option<u64> {
        if self.ack_due.is_none_or(|due| due > now) {
            return None;
        }
        self.ack_due = None;
        let news = self.highest > self.acknowledged;
        self.acknowledged = self.highest;
        news.then_some(self.highest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_are_taken_once_whatever_the_client_sends_again() {
        let mut counted = ReceiveSequence::default();
        assert!((0..5).all(|_| counted.take() == Arrival::New));
        assert_eq!(counted.continue_at(3), Ok(()));
        assert_eq!(
            (0..4).map(|_| counted.take()).collect::<Vec<_>>(),
            [Arrival::Again, Arrival::Again, Arrival::Again, Arrival::New]
        );
        assert_eq!(counted.continue_at(8), Err(SequenceError::Gap));
        assert_eq!(counted.continue_at(0), Err(SequenceError::Zero));
        assert_eq!(counted.continue_at(7), Ok(()));
        assert_eq!(counted.take(), Arrival::New);
    }

    #[tokio::test(start_paused = true)]
    async fn acks_are_a_second_apart_and_only_news() {
        let mut counted = ReceiveSequence::default();
        assert_eq!(counted.ack(Instant::now()), None);
        counted.take();
        counted.take();
        assert_eq!(counted.ack(Instant::now()), None, "not yet");
        tokio::time::advance(ACK_INTERVAL).await;
        assert_eq!(counted.ack(Instant::now()), Some(2));
        assert_eq!(counted.ack_due, None);
        counted.continue_at(1).unwrap();
        tokio::time::advance(ACK_INTERVAL).await;
        assert_eq!(counted.ack(Instant::now()), Some(2), "the client did not know");
    }
}
