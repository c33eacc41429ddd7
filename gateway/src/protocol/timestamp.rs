//! MessagePack timestamps (extension type -1) as RFC 3339 text.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt::Write as _;

/// Extension type of timestamps in the MessagePack specification.
pub(super) const EXTENSION_TYPE: i8 = -1;

/// The timestamp as text in UTC, such as `2024-05-01T12:00:00.25Z`. `None` if `data` is no timestamp or its
/// year is not within 0001 to 9999, the years that .NET knows.
pub(super) fn to_rfc3339(data: &[u8]) -> Option<String> {
    let (seconds, nanoseconds) = split(data)?;
    if !(-62_135_596_800..=253_402_300_799).contains(&seconds) || nanoseconds > 999_999_999 {
        return None;
    }
    let (year, month, day) = civil_date(seconds.div_euclid(86_400));
    let time = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanoseconds != 0 {
        // Writing to a `String` can't fail.
        let _ = write!(text, ".{nanoseconds:09}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('Z');
    Some(text)
}

/// Seconds since 1970 and nanoseconds, of the three forms of the MessagePack specification.
fn split(data: &[u8]) -> Option<(i64, u32)> {
    if let Ok(seconds) = data.try_into() {
        return Some((u32::from_be_bytes(seconds).into(), 0));
    }
    if let Ok(packed) = data.try_into() {
        let packed = u64::from_be_bytes(packed);
        let seconds = i64::try_from(packed & 0x3_FFFF_FFFF).ok()?;
        return Some((seconds, u32::try_from(packed >> 34).ok()?));
    }
    let (nanoseconds, seconds) = data.split_first_chunk()?;
    Some((
        i64::from_be_bytes(seconds.try_into().ok()?),
        u32::from_be_bytes(*nanoseconds),
    ))
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Eras of 400 years begin
/// in March, which puts leap days last.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "the caller allows four-digit years only"
)]
fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}
