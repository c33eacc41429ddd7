//! The pushes that `append` in `log.lua` publishes: `epoch offset previous topic\n`, then the entry.

use bytes::Bytes;

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
        fn nothing_that_comes_panics(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Frame::parse(&Bytes::from(payload));
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
