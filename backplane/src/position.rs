//! Offsets, epochs and positions in a hub's log, and the decisions that depend on them alone.

use std::fmt;
use std::sync::Arc;

/// The number of an entry in its hub's log: 1 for the first, without holes within one [`Epoch`].
pub type Offset = u64;

/// The name of one epoch of a hub's log. Offsets of two epochs must not be compared: a server that was restarted or
/// promoted may have forgotten its last offsets and assign them again.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// Takes an epoch's name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The epoch's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An offset with its epoch, which can be compared safely: offsets count only within one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The offset within the epoch.
    pub offset: Offset,
}

/// The relation of a topic's entry to the entries that a reader has handled already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The entry is the next one of its topic.
    Next,
    /// The entry was handled before.
    Duplicate,
    /// At least one earlier entry is missing: it must be read from the log.
    Gap,
}

/// Classifies an entry of one topic, by offsets of one epoch. `seen`: the last offset that the reader has handled of
/// the topic; `previous`: the offset of the topic's entry before this one.
#[must_use]
pub fn step(seen: Offset, previous: Offset, offset: Offset) -> Step {
    if offset <= seen {
        Step::Duplicate
    } else if previous > seen {
        Step::Gap
    } else {
        Step::Next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a reader is handed, it never passes an entry that it has not seen, and sees none twice.
        #[test]
        fn a_reader_that_obeys_skips_and_repeats_nothing(
            entries in proptest::collection::btree_set(1_u64..100, 1..20),
            pushes in proptest::collection::vec(any::<proptest::sample::Index>(), 0..60),
        ) {
            let entries: Vec<_> = entries.into_iter().collect();
            let (mut seen, mut handed) = (0, Vec::new());
            for push in pushes {
                let at = push.index(entries.len());
                let previous = if at == 0 { 0 } else { entries[at - 1] };
                if step(seen, previous, entries[at]) == Step::Next {
                    seen = entries[at];
                    handed.push(seen);
                }
            }
            prop_assert_eq!(&handed[..], &entries[..handed.len()]);
        }
    }

    #[test]
    fn a_step_follows_from_the_offsets_alone() {
        assert_eq!(step(0, 0, 1), Step::Next);
        assert_eq!(
            step(5, 3, 9),
            Step::Next,
            "a reader may start after the predecessor"
        );
        assert_eq!(step(5, 5, 6), Step::Next);
        assert_eq!(step(5, 6, 7), Step::Gap);
        assert_eq!(step(5, 3, 5), Step::Duplicate);
    }
}
