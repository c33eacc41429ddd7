//! The stamp in every message of a benchmark: from it a receiver knows which message came, and how long it took.

use rustix::time::{ClockId, clock_gettime};

/// One message of a measured phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The phase, so that late messages of an earlier one are not counted.
    pub phase: u16,
    /// The group that it was published to; at most 24 bits are written.
    pub group: u32,
    /// Its number in the group, from 1.
    pub number: u32,
    /// When it should have been sent, as [`now`] counts.
    pub due: u64,
}

impl Stamp {
    /// The beginning of every stamp. The rest is hexadecimal, so it can't be in there.
    pub const MARK: &'static [u8] = b"~hub";
    /// Length in bytes: the mark and 4 + 6 + 8 + 16 digits.
    pub const BYTES: usize = Self::MARK.len() + 34;

    /// A text of `bytes` bytes, or of [`BYTES`](Self::BYTES) if that is more, that begins with the stamp.
    pub fn text(&self, bytes: usize) -> String {
        let Self {
            phase,
            group,
            number,
            due,
        } = self;
        let padding = bytes.saturating_sub(Self::BYTES);
        format!(
            "~hub{phase:04x}{group:06x}{number:08x}{due:016x}{:x<padding$}",
            ""
        )
    }

    /// Reads the bytes of one stamp, with its mark.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let digits = bytes.strip_prefix(Self::MARK)?;
        let digits: &[u8; 34] = digits.try_into().ok()?;
        Some(Self {
            phase: u16::try_from(number(&digits[..4])?).ok()?,
            group: u32::try_from(number(&digits[4..10])?).ok()?,
            number: u32::try_from(number(&digits[10..18])?).ok()?,
            due: number(&digits[18..])?,
        })
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u64::from(value))
    })
}

/// Nanoseconds of the clock that all processes of this machine share, and that nobody sets.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let parts = u64::try_from(time.tv_sec)
        .ok()
        .zip(u64::try_from(time.tv_nsec).ok());
    let (seconds, nanos) = parts.expect("the clock counts from the start of the machine");
    seconds * 1_000_000_000 + nanos
}

#[cfg(test)]
mod tests {
    use super::Stamp;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp {
            phase: 0xBEEF,
            group: 199,
            number: 70_000,
            due: 1 << 40,
        };
        for bytes in [0, Stamp::BYTES, 100] {
            let text = stamp.text(bytes);
            assert_eq!(text.len(), bytes.max(Stamp::BYTES));
            assert_eq!(Stamp::parse(&text.as_bytes()[..Stamp::BYTES]), Some(stamp));
        }
        assert_eq!(Stamp::parse(&stamp.text(0).as_bytes()[1..]), None);
    }
}
