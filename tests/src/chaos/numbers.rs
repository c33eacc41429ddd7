//! The counting of stateful reconnect, as the official JavaScript client does it: what was sent and isn't acknowledged,
//! what was received and must not be shown twice.

use std::collections::VecDeque;

use serde_json::json;

/// The official client's bound on what it keeps.
const BUFFER_BYTES: usize = 100_000;

/// The action for a received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// Show it. It isn't counted.
    Uncounted,
    /// Show it. An Ack is due.
    Fresh,
    /// Drop it: it was shown before. An Ack is due if it is the newest one.
    Repeated { newest: bool },
    /// Drop it: between a new socket and its Sequence nothing counts.
    Early,
}

/// The peer broke the rules, and the connection can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Impossible(pub(crate) &'static str);

/// One connection's numbers, over all its sockets.
#[derive(Debug)]
pub(crate) struct Numbers {
    unacknowledged: VecDeque<(u64, String)>,
    bytes: usize,
    sent: u64,
    next: u64,
    newest: u64,
    awaits_sequence: bool,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            unacknowledged: VecDeque::new(),
            bytes: 0,
            sent: 0,
            next: 1,
            newest: 0,
            awaits_sequence: false,
        }
    }
}

impl Numbers {
    /// A counted message is about to be sent.
    pub(crate) fn send(&mut self, text: &str) {
        self.sent += 1;
        self.bytes += text.len();
        self.unacknowledged.push_back((self.sent, text.to_owned()));
    }

    /// Returns whether the official client would hold messages back by now.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BUFFER_BYTES
    }

    /// The peer has them up to this one.
    pub(crate) fn acknowledged(&mut self, number: u64) -> Result<(), Impossible> {
        if number > self.sent {
            return Err(Impossible("Ack of what was never sent"));
        }
        while let Some((_, text)) = self.unacknowledged.pop_front_if(|(id, _)| *id <= number) {
            self.bytes -= text.len();
        }
        Ok(())
    }

    /// A message of this type has come.
    pub(crate) fn receive(&mut self, message_type: u64) -> Receipt {
        if self.awaits_sequence && message_type != 9 {
            return Receipt::Early;
        }
        if !(1..=5).contains(&message_type) {
            return Receipt::Uncounted;
        }
        let number = self.next;
        self.next += 1;
        if number <= self.newest {
            let newest = number == self.newest;
            return Receipt::Repeated { newest };
        }
        self.newest = number;
        Receipt::Fresh
    }

    /// The peer says from where it sends again.
    pub(crate) fn sequence(&mut self, first: u64) -> Result<(), Impossible> {
        if first > self.next {
            return Err(Impossible("Sequence ID greater than what was received"));
        }
        self.next = first;
        self.awaits_sequence = false;
        Ok(())
    }

    /// The socket is gone.
    pub(crate) fn disconnected(&mut self) {
        self.awaits_sequence = true;
    }

    /// Returns whether nothing counts before a Sequence.
    pub(crate) fn awaits_sequence(&self) -> bool {
        self.awaits_sequence
    }

    /// The first text over a new socket.
    pub(crate) fn resend(&self) -> String {
        let oldest = self.unacknowledged.front();
        let first = oldest.map_or(self.sent + 1, |(number, _)| *number);
        let mut text = format!("{}\u{1e}", json!({ "type": 9, "sequenceId": first }));
        for (_, message) in &self.unacknowledged {
            text.push_str(message);
        }
        text
    }

    /// The number to send in an Ack.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_dropped_by_their_number() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.receive(1), Receipt::Fresh);
        assert_eq!(numbers.receive(6), Receipt::Uncounted);
        assert_eq!(numbers.receive(3), Receipt::Fresh);
        numbers.disconnected();
        assert_eq!(numbers.receive(1), Receipt::Early);
        assert_eq!(numbers.receive(6), Receipt::Early);
        assert_eq!(numbers.receive(9), Receipt::Uncounted);
        assert_eq!(numbers.sequence(1), Ok(()));
        assert_eq!(numbers.receive(1), Receipt::Repeated { newest: false });
        assert_eq!(numbers.receive(3), Receipt::Repeated { newest: true });
        assert_eq!(numbers.receive(1), Receipt::Fresh);
        assert_eq!(numbers.newest(), 3);
    }

    #[test]
    fn a_sequence_beyond_what_was_received_is_an_error() {
        let mut numbers = Numbers::default();
        numbers.receive(1);
        numbers.disconnected();
        assert!(numbers.sequence(3).is_err());
        assert_eq!(numbers.sequence(2), Ok(()));
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.resend(), "{\"sequenceId\":1,\"type\":9}\u{1e}");
        for text in ["a", "b", "c"] {
            numbers.send(text);
        }
        assert_eq!(numbers.acknowledged(2), Ok(()));
        assert_eq!(numbers.resend(), "{\"sequenceId\":3,\"type\":9}\u{1e}c");
        assert_eq!(numbers.acknowledged(3), Ok(()));
        assert_eq!(numbers.resend(), "{\"sequenceId\":4,\"type\":9}\u{1e}");
        assert!(numbers.acknowledged(4).is_err());
    }

    #[test]
    fn it_is_full_until_the_peer_acknowledges() {
        let mut numbers = Numbers::default();
        numbers.send(&"x".repeat(BUFFER_BYTES));
        assert!(numbers.is_full());
        assert_eq!(numbers.acknowledged(1), Ok(()));
        assert!(!numbers.is_full());
    }
}
