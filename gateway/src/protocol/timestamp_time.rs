//! Timestamps and the crate `time` (feature `time`).

use time::{Duration, OffsetDateTime};

use super::{Timestamp, TimestampError};

impl From<Timestamp> for OffsetDateTime {
    /// In UTC.
    fn from(timestamp: Timestamp) -> Self {
        let since = Duration::new(timestamp.seconds(), 0);
        let rest = Duration::nanoseconds(timestamp.nanoseconds().into());
        // All years of a timestamp are within those of the crate, so nothing is cut off.
        Self::UNIX_EPOCH.saturating_add(since).saturating_add(rest)
    }
}

impl TryFrom<OffsetDateTime> for Timestamp {
    type Error = TimestampError;

    /// The same moment; its offset is not kept.
    ///
    /// # Errors
    /// [`TimestampError::OutOfRange`] if the year, in UTC, is not 0001 to 9999.
    fn try_from(time: OffsetDateTime) -> Result<Self, TimestampError> {
        Self::new(time.unix_timestamp(), time.nanosecond())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Date, UtcOffset};

    use super::*;

    #[test]
    fn a_time_with_an_offset_is_the_same_moment() {
        let moment: Timestamp = "2024-05-01T14:00:00.25+02:00".parse().unwrap();
        let there = OffsetDateTime::from(moment).to_offset(UtcOffset::from_hms(-9, -30, 0).unwrap());
        assert_eq!(Timestamp::try_from(there), Ok(moment));
        assert_eq!(
            OffsetDateTime::from(moment).unix_timestamp_nanos(),
            1_714_564_800_250_000_000
        );
        for out in [Date::MIN, Date::from_ordinal_date(0, 366).unwrap()] {
            let out = out.midnight().assume_utc();
            assert_eq!(
                Timestamp::try_from(out),
                Err(TimestampError::OutOfRange),
                "{out:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_timestamp_comes_back(seconds in -62_135_596_800_i64..=253_402_300_799, nanoseconds in 0..1_000_000_000_u32) {
            let timestamp = Timestamp::new(seconds, nanoseconds).unwrap();
            let time = OffsetDateTime::from(timestamp);
            prop_assert_eq!(time.year(), timestamp.to_string()[..4].parse::<i32>().unwrap());
            prop_assert_eq!(Timestamp::try_from(time), Ok(timestamp));
        }
    }
}
