//! The pushes that `log.lua` publishes: `epoch offset previous topic\n`, then the entry. Several that follow one another
//! on a channel travel together: `+`, then for each its length, a space and itself.

use bytes::{Buf as _, Bytes};

use crate::position::Offset;

/// One pushed entry of a hub's log.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::redis) struct Frame<'a> {
    pub(in crate::redis) epoch: &'a str,
    pub(in crate::redis) offset: Offset,
    pub(in crate::redis) previous: Offset,
    pub(in crate::redis) topic: &'a str,
    pub(in crate::redis) entry: Bytes,
}

impl<'a> Frame<'a> {
    /// Reads a push; `None` where it is not of this form.
    pub(in crate::redis) fn parse(payload: &'a Bytes) -> Option<Self> {
        let end = payload.iter().position(|byte| *byte == b'\n')?;
        let header = std::str::from_utf8(payload.get(..end)?).ok()?;
        let mut parts = header.splitn(4, ' ');
        let frame = Self {
            epoch: parts.next()?,
            offset: parts.next()?.parse().ok()?,
            previous: parts.next()?.parse().ok()?,
            topic: parts.next()?,
            entry: payload.slice(end + 1..),
        };
        (frame.previous < frame.offset).then_some(frame)
    }
}

/// The pushes that have travelled together.
pub(in crate::redis) fn split(payload: Bytes) -> impl Iterator<Item = Bytes> {
    let mut rest = payload;
    let together = rest.starts_with(b"+");
    if together {
        rest.advance(1);
    }
    std::iter::from_fn(move || {
        if !together {
            return Some(std::mem::take(&mut rest)).filter(|push| !push.is_empty());
        }
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
        rest.advance(end + 1);
        (length <= rest.len()).then(|| rest.split_to(length))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_survives_its_text(
            offset in 1_u64..1 << 50,
            before in 1_u64..1 << 20,
            group in "[a-z :}]{1,12}",
            entry in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let previous = offset.saturating_sub(before);
            let mut text = format!("ab12-3 {offset} {previous} g:{group}\n").into_bytes();
            text.extend_from_slice(&entry);
            let payload = Bytes::from(text);
            let topic = format!("g:{group}");
            let expected = Frame { epoch: "ab12-3", offset, previous, topic: &topic, entry: entry.into() };
            prop_assert_eq!(Frame::parse(&payload), Some(expected));
        }

        #[test]
        fn what_travels_together_arrives_one_by_one(
            pushes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 2..6)
        ) {
            let mut text = b"+".to_vec();
            for push in &pushes {
                text.extend_from_slice(format!("{} ", push.len()).as_bytes());
                text.extend_from_slice(push);
            }
            let arrived: Vec<_> = split(Bytes::from(text)).map(Vec::from).collect();
            prop_assert_eq!(arrived, pushes);
        }

        #[test]
        fn nothing_that_comes_panics(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let payload = Bytes::from(payload);
            let _ = Frame::parse(&payload);
            let _ = split(payload).count();
        }
    }

    #[test]
    fn what_is_not_a_frame_is_refused() {
        for text in [
            "",
            "\n",
            "e 1 0 a",
            "e 1 a\n",
            "e x 0 a\n",
            "e 1 1 a\n",
            "e 1 -1 a\n",
        ] {
            assert_eq!(
                Frame::parse(&Bytes::from_static(text.as_bytes())),
                None,
                "{text:?}"
            );
        }
    }
}
