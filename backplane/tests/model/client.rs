//! One connection as its client, its session and the model see it.

use std::sync::Arc;

use hubcast_backplane::conformance::Recorder;
use hubcast_backplane::conformance::sessions::Received;
use hubcast_backplane::{Checkpoint, ConnectionRecord, Epoch, NodeId, Offset, Position, Version};

use crate::schedule::To;

/// A message with its offset.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) offset: Offset,
    pub(crate) target: String,
    pub(crate) to: To,
    pub(crate) except: Option<usize>,
}

/// An answer, whose offset is known to be between two others.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) target: String,
    pub(crate) after: Offset,
    pub(crate) upto: Offset,
}

/// The place of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A node has it.
    On(usize),
    Parked,
    /// The node that had it is dead.
    Lost,
}

/// The messages that a node sends to a client, numbered from `first` on: the replay, then the live ones after `from`.
pub(crate) struct Session {
    pub(crate) sink: Arc<Recorder>,
    pub(crate) first: usize,
    pub(crate) replayed: Received,
    pub(crate) from: Offset,
}

pub(crate) struct Connection {
    pub(crate) number: usize,
    pub(crate) user: usize,
    pub(crate) record: ConnectionRecord,
    pub(crate) version: Version,
    pub(crate) entered: Offset,
    pub(crate) place: Place,
    pub(crate) session: Session,
    /// The messages that the client has, in order.
    pub(crate) has: Received,
    // The records that the server must have.
    pub(crate) checkpoint: Checkpoint,
    pub(crate) received: u64,
    pub(crate) calls: Vec<(String, NodeId)>,
    /// For each group, the spans in which the connection is a member: after one offset and before another.
    pub(crate) memberships: Vec<Vec<(Offset, Option<Offset>)>>,
    pub(crate) answered: Vec<Answered>,
}

fn is_answer(target: &str) -> bool {
    target.starts_with("answer")
}

impl Connection {
    /// The client takes at most `most` messages of its session, and drops by number those that it has already.
    pub(crate) fn receive(&mut self, most: usize) {
        let live = self.session.sink.received(&self.record.id);
        let live = live.into_iter().filter(|(offset, _)| *offset > self.session.from);
        let sequence: Received = self.session.replayed.iter().cloned().chain(live).collect();
        let (has, most) = (self.has.len(), self.has.len() + most);
        assert!(self.session.first <= has + 1, "numbers are left out");
        for (index, message) in sequence.into_iter().enumerate() {
            let number = self.session.first + index;
            if number > most {
                return;
            }
            match self.has.get(number - 1) {
                None => self.has.push(message),
                Some(known) => assert_eq!(*known, message, "number {number} of connection {}", self.number),
            }
        }
    }

    /// The checkpoint that is stored when the client has acknowledged all but the last `behind` messages.
    pub(crate) fn checkpoint_at(&self, behind: usize, epoch: &Epoch) -> Checkpoint {
        let sequence = self.has.len().saturating_sub(behind);
        match sequence.checked_sub(1).and_then(|index| self.has.get(index)) {
            None => self.checkpoint.clone(),
            Some((offset, _)) => Checkpoint {
                sequence: sequence as u64,
                position: Position {
                    epoch: epoch.clone(),
                    offset: *offset,
                },
            },
        }
    }

    /// Records a checkpoint that was stored; one before the last one changes nothing.
    pub(crate) fn written(&mut self, checkpoint: Checkpoint) {
        if checkpoint.sequence >= self.checkpoint.sequence {
            self.checkpoint = checkpoint;
        }
    }

    pub(crate) fn is_member(&self, group: usize) -> bool {
        matches!(self.memberships[group].last(), Some((_, None)))
    }

    /// Returns whether the connection was a member at an offset, which is not of a change of its own.
    pub(crate) fn is_member_at(&self, group: usize, offset: Offset) -> bool {
        self.memberships[group]
            .iter()
            .any(|(after, before)| *after < offset && before.is_none_or(|before| offset < before))
    }

    /// Records a change of membership, if it is a real one.
    pub(crate) fn changed(&mut self, group: usize, join: bool, offset: Offset) {
        match (self.is_member(group), join) {
            (false, true) => self.memberships[group].push((offset, None)),
            (true, false) => self.memberships[group].last_mut().unwrap().1 = Some(offset),
            _ => {}
        }
    }

    /// Returns whether the connection must receive a message, on whichever nodes it was.
    fn is_due(&self, message: &Published) -> bool {
        let offset = message.offset;
        let topic = match message.to {
            To::All => true,
            To::User(user) => user == self.user,
            To::Connection(number) => number == self.number,
            To::Group(group) => self.is_member_at(group, offset),
        };
        topic && offset > self.entered && message.except != Some(self.number)
    }

    /// Compares the client's messages with those that it must have.
    pub(crate) fn check(&self, published: &[Published]) {
        self.check_until(Offset::MAX, published, &self.answered);
    }

    /// The same for a client that is gone: it had all messages up to some offset.
    pub(crate) fn check_gone(&self, published: &[Published]) {
        let last = self.has.last().map_or(0, |(offset, _)| *offset);
        let answers = self.has.iter().filter(|(_, target)| is_answer(target)).count();
        self.check_until(last, published, &self.answered[..answers]);
    }

    fn check_until(&self, last: Offset, published: &[Published], answered: &[Answered]) {
        let mut due: Received = published
            .iter()
            .filter(|message| message.offset <= last && self.is_due(message))
            .map(|message| (message.offset, message.target.clone()))
            .collect();
        due.sort();
        let (answers, messages): (Received, Received) = self
            .has
            .iter()
            .cloned()
            .partition(|(_, target)| is_answer(target));
        assert!(self.has.is_sorted_by(|(a, _), (b, _)| a < b), "{:?}", self.has);
        let number = self.number;
        assert_eq!(messages, due, "what connection {number} has, and must have");
        let targets = |answers: &Received| {
            answers
                .iter()
                .map(|(_, target)| target.clone())
                .collect::<Vec<_>>()
        };
        let expected: Vec<_> = answered.iter().map(|answer| answer.target.clone()).collect();
        assert_eq!(targets(&answers), expected, "answers of connection {number}");
        for ((offset, _), answer) in answers.iter().zip(answered) {
            assert!(
                answer.after < *offset && *offset <= answer.upto,
                "{answer:?} came at {offset}"
            );
        }
    }
}
