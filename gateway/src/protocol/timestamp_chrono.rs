//! Timestamps and the crate `chrono` (feature `chrono`).

use chrono::{DateTime, TimeZone, Utc};

use super::{Timestamp, TimestampError};

impl From<Timestamp> for DateTime<Utc> {
    fn from(timestamp: Timestamp) -> Self {
        // All years of a timestamp are within those of the crate.
        Self::from_timestamp(timestamp.seconds(), timestamp.nanoseconds()).unwrap_or_default()
    }
}

impl<Zone: TimeZone> TryFrom<DateTime<Zone>> for Timestamp {
    type Error = TimestampError;

    /// The same moment; its zone is not kept.
    ///
    /// # Errors
    /// [`TimestampError::OutOfRange`] if the year, in UTC, is not 0001 to 9999, or the time is within a leap second.
    fn try_from(time: DateTime<Zone>) -> Result<Self, TimestampError> {
        Self::new(time.timestamp(), time.timestamp_subsec_nanos())
    }
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_of_a_zone_is_the_same_moment() {
        let moment: Timestamp = "2024-05-01T14:00:00.25+02:00".parse().unwrap();
        let there = DateTime::<Utc>::from(moment).with_timezone(&FixedOffset::west_opt(34_200).unwrap());
        assert_eq!(Timestamp::try_from(there), Ok(moment));
        assert_eq!(
            DateTime::<Utc>::from(moment).timestamp_nanos_opt(),
            Some(1_714_564_800_250_000_000)
        );
        let leap = NaiveDate::from_ymd_opt(2016, 12, 31).unwrap();
        let leap = leap.and_hms_nano_opt(23, 59, 59, 1_500_000_000).unwrap();
        for out in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, leap.and_utc()] {
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
            let time = DateTime::<Utc>::from(timestamp);
            prop_assert_eq!(time.timestamp(), seconds);
            prop_assert_eq!(Timestamp::try_from(time), Ok(timestamp));
        }
    }
}
