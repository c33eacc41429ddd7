//! The rule by which a topic's log proves that a reader misses nothing.

use crate::position::Offset;

/// Returns whether the entries that were found after `after` are complete.
///
/// * `first`: the predecessor that the first entry found names; `None` when no entry was found.
/// * `tail`: the topic's newest offset, remembered longer than its entries; `None` when it is not known.
/// * `forgotten`: no entry of a topic whose tail is not known has an offset above this.
pub(crate) fn is_complete(
    after: Offset,
    first: Option<Offset>,
    tail: Option<Offset>,
    forgotten: Offset,
) -> bool {
    match (first, tail) {
        (Some(0), _) | (None, None) => after >= forgotten,
        (Some(previous), _) => previous <= after,
        (None, Some(tail)) => tail <= after,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_trimmed_is_noticed() {
        assert!(is_complete(5, Some(5), Some(9), 0));
        assert!(!is_complete(5, Some(6), Some(9), 0), "6 was trimmed");
        assert!(!is_complete(5, None, Some(6), 0), "6 expired");
        assert!(is_complete(5, None, Some(5), 0));
        assert!(!is_complete(5, None, None, 6), "the topic may have had 6");
        assert!(is_complete(6, Some(0), Some(9), 6));
    }

    proptest! {
        /// A model: a topic's entries, of which a suffix is kept.
        #[test]
        fn complete_means_that_no_entry_is_missing(
            offsets in proptest::collection::btree_set(1_u64..200, 0..30),
            kept in 0_usize..30,
            after in 0_u64..220,
        ) {
            let offsets: Vec<_> = offsets.into_iter().collect();
            let from = offsets.len().saturating_sub(kept);
            let found = offsets.iter().skip(from).position(|offset| *offset > after).map(|index| from + index);
            let first = found.map(|index| if index == 0 { 0 } else { offsets[index - 1] });
            let missing = offsets[..from].iter().any(|offset| *offset > after);
            prop_assert_eq!(is_complete(after, first, offsets.last().copied(), 0), !missing);
        }
    }
}
