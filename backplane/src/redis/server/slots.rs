//! The slots of a Redis Cluster: which keys and channels live together.

/// The number of slots.
pub(in crate::redis) const COUNT: u16 = 16_384;

/// The slots that one server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::redis) enum Slots {
    /// The server is no part of a cluster.
    All,
    /// The ranges of slots, from the first to the last, both included; in order.
    Ranges(Vec<(u16, u16)>),
}

impl Slots {
    /// Returns whether a key or channel lives in one of these slots.
    pub(in crate::redis) fn contain(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Ranges(ranges) => {
                let slot = slot(name.as_bytes());
                ranges
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&slot))
            }
        }
    }
}

/// The slot of a key or of a sharded channel.
pub(in crate::redis) fn slot(name: &[u8]) -> u16 {
    crc16(tag(name)) % COUNT
}

/// The part of a name that is hashed: the text between the first `{` and the next `}`, unless it is empty.
fn tag(name: &[u8]) -> &[u8] {
    let inner = || {
        let open = name.iter().position(|byte| *byte == b'{')?;
        let rest = name.get(open + 1..)?;
        rest.get(..rest.iter().position(|byte| *byte == b'}')?)
    };
    inner().filter(|tag| !tag.is_empty()).unwrap_or(name)
}

/// CRC-16/XMODEM, as the Redis Cluster specification has it. Tags are short: a table would win nothing.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ (u16::from(*byte) << 8), |sum, _| {
            let carry = if sum & 0x8000 == 0 { 0 } else { 0x1021 };
            (sum << 1) ^ carry
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (name, expected) in [
            ("foo", 12_182),
            ("{foo}.bar", 12_182),
            ("a{foo}{bar}", 12_182),
            ("bar", 5_061),
        ] {
            assert_eq!(slot(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(tag(b"foo{{bar}}"), b"{bar");
        assert_eq!(tag(b"foo{bar"), b"foo{bar");
    }

    #[test]
    fn ranges_hold_their_ends() {
        let slots = Slots::Ranges(vec![(0, 5_061), (12_182, 12_182)]);
        assert!(slots.contain("foo") && slots.contain("bar"));
        assert!(!Slots::Ranges(vec![(0, 5_060), (5_062, 16_383)]).contain("bar"));
        assert!(Slots::All.contain("bar"));
    }
}
