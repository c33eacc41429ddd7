//! Points in time: MessagePack timestamps (extension type -1), RFC 3339 text in JSON.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_bytes::{ByteBuf, Bytes};

use super::Encoding;

/// Extension type of timestamps in the MessagePack specification.
pub(super) const EXTENSION_TYPE: i8 = -1;
/// 0001-01-01T00:00:00Z.
const FIRST_SECOND: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;
const LAST_NANOSECOND: u32 = 999_999_999;

/// A point in time in an argument, a stream item or a result: a timestamp (extension -1) in MessagePack, which is what `DateTime`
/// of .NET and `Date` of JavaScript are there, and RFC 3339 text in UTC in JSON, such as `2024-05-01T12:00:00.25Z`.
///
/// It has nanoseconds and the years 0001 to 9999, which are those of .NET. It reads from timestamps and from RFC 3339 text with
/// any offset, whatever the protocol, because a value may have been transcoded on its way.
///
/// It converts from and to [`SystemTime`]; with the features `time` and `chrono` also from and to `time::OffsetDateTime` and
/// `chrono::DateTime<Utc>`, which hold every time that this type does.
///
/// Only [`Value::encode`](super::Value::encode) and [`encode_as`](super::Value::encode_as), through which hubs send and return
/// values, write timestamps; other serializers are given text.
///
/// ```
/// use hubcast::protocol::{Encoding, Timestamp, Value};
///
/// let begin: Timestamp = "2024-05-01T14:00:00.25+02:00".parse()?;
/// assert_eq!(begin.to_string(), "2024-05-01T12:00:00.25Z");
/// let packed = Value::encode_as(&begin, Encoding::MessagePack)?;
/// assert_eq!(packed.bytes()[1], 0xff); // extension -1
/// assert_eq!(packed.decode::<Timestamp>()?, begin);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
}

/// A time that a [`Timestamp`] can't be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TimestampError {
    /// The text is not of RFC 3339.
    #[error("not a date and time of RFC 3339, such as 2024-05-01T12:00:00Z")]
    Malformed,
    /// The time is not within the years that .NET knows.
    #[error("not within the years 0001 to 9999")]
    OutOfRange,
}

impl Timestamp {
    /// So many seconds after 1970, or before, and nanoseconds after that second.
    ///
    /// # Errors
    /// [`TimestampError::OutOfRange`] if the year is not 0001 to 9999, or the nanoseconds are not below a second.
    pub fn new(seconds: i64, nanoseconds: u32) -> Result<Self, TimestampError> {
        if (FIRST_SECOND..=LAST_SECOND).contains(&seconds) && nanoseconds <= LAST_NANOSECOND {
            return Ok(Self { seconds, nanoseconds });
        }
        Err(TimestampError::OutOfRange)
    }

    /// Seconds since 1970, negative before.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after that second.
    #[must_use]
    pub fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }

    /// The data of its extension. `None` if it is no timestamp or out of range.
    fn unpack(data: &[u8]) -> Option<Self> {
        let (seconds, nanoseconds) = split(data)?;
        Self::new(seconds, nanoseconds).ok()
    }

    /// The shortest of the three forms that holds it.
    fn pack(self) -> Vec<u8> {
        if let (Ok(seconds), 0) = (u32::try_from(self.seconds), self.nanoseconds) {
            return seconds.to_be_bytes().to_vec();
        }
        if let Some(seconds) = u64::try_from(self.seconds).ok().filter(|it| it >> 34 == 0) {
            return ((u64::from(self.nanoseconds) << 34) | seconds)
                .to_be_bytes()
                .to_vec();
        }
        let mut data = self.nanoseconds.to_be_bytes().to_vec();
        data.extend(self.seconds.to_be_bytes());
        data
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_date(self.seconds.div_euclid(86_400));
        let time = self.seconds.rem_euclid(86_400);
        let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if self.nanoseconds != 0 {
            let mut fraction = String::new();
            write!(fraction, "{:09}", self.nanoseconds)?;
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Reads RFC 3339 text. Digits of the fraction beyond nine are dropped; leap seconds are refused, as .NET refuses them.
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let (seconds, nanoseconds) = read(text).ok_or(TimestampError::Malformed)?;
        Self::new(seconds, nanoseconds)
    }
}

impl TryFrom<SystemTime> for Timestamp {
    type Error = TimestampError;

    fn try_from(time: SystemTime) -> Result<Self, TimestampError> {
        let whole = |since: Duration| i64::try_from(since.as_secs()).map_err(|_| TimestampError::OutOfRange);
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self::new(whole(since)?, since.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let seconds = whole(before)?.saturating_neg();
                match before.subsec_nanos() {
                    0 => Self::new(seconds, 0),
                    nanoseconds => {
                        let rest = 1_000_000_000_u32.saturating_sub(nanoseconds);
                        Self::new(seconds.saturating_sub(1), rest)
                    }
                }
            }
        }
    }
}

impl TryFrom<Timestamp> for SystemTime {
    type Error = TimestampError;

    fn try_from(time: Timestamp) -> Result<Self, TimestampError> {
        let seconds = Duration::from_secs(time.seconds.unsigned_abs());
        let second = if time.seconds < 0 {
            UNIX_EPOCH.checked_sub(seconds)
        } else {
            UNIX_EPOCH.checked_add(seconds)
        };
        second
            .and_then(|second| second.checked_add(Duration::from_nanos(time.nanoseconds.into())))
            .ok_or(TimestampError::OutOfRange)
    }
}

/// How timestamps are written on this thread, and whether there were any: serializers can't be told apart otherwise, since both
/// say that they are human readable.
#[derive(Clone, Copy)]
struct WriteState {
    encoding: Encoding,
    seen: bool,
}

thread_local! {
    static WRITING: Cell<WriteState> = const { Cell::new(WriteState { encoding: Encoding::Json, seen: false }) };
}

/// Puts back how timestamps are written, also after a panic.
struct Restore(WriteState);

impl Drop for Restore {
    fn drop(&mut self) {
        WRITING.set(self.0);
    }
}

/// Runs `write`, whose timestamps are written for this encoding. Returns also whether there were any.
pub(super) fn writing<R>(encoding: Encoding, write: impl FnOnce() -> R) -> (R, bool) {
    let _restore = Restore(WRITING.replace(WriteState {
        encoding,
        seen: false,
    }));
    let written = write();
    (written, WRITING.get().seen)
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let writing = WRITING.get();
        WRITING.set(WriteState {
            seen: true,
            ..writing
        });
        match writing.encoding {
            Encoding::Json => serializer.collect_str(self),
            Encoding::MessagePack => {
                let data = self.pack();
                let extension = (EXTENSION_TYPE, Bytes::new(&data));
                serializer.serialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, &extension)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimestampVisitor)
    }
}

struct TimestampVisitor;

impl<'de> de::Visitor<'de> for TimestampVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timestamp or RFC 3339 text, in the years 0001 to 9999")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
        text.parse()
            .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Timestamp, D::Error> {
        let (kind, data) = <(i8, ByteBuf)>::deserialize(deserializer)?;
        Some(&data)
            .filter(|_| kind == EXTENSION_TYPE)
            .and_then(|data| Timestamp::unpack(data))
            .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Other("another extension"), &self))
    }
}

/// The timestamp as text in UTC, such as `2024-05-01T12:00:00.25Z`. `None` if `data` is no timestamp or its
/// year is not within 0001 to 9999, the years that .NET knows.
pub(super) fn to_rfc3339(data: &[u8]) -> Option<String> {
    Timestamp::unpack(data).map(|timestamp| timestamp.to_string())
}

/// Seconds since 1970 and nanoseconds of RFC 3339 text (section 5.6).
fn read(text: &str) -> Option<(i64, u32)> {
    let (date, rest) = (text.get(..10)?, text.get(11..)?);
    let between = text.get(10..11)?;
    if !matches!(between, "T" | "t" | " ") {
        return None;
    }
    let (year, month, day) = (
        digits(date.get(..4)?)?,
        digits(date.get(5..7)?)?,
        digits(date.get(8..)?)?,
    );
    let (time, rest) = rest.split_at_checked(8)?;
    let (hour, minute, second) = (
        digits(time.get(..2)?)?,
        digits(time.get(3..5)?)?,
        digits(time.get(6..)?)?,
    );
    let marks = [date.get(4..5), date.get(7..8), time.get(2..3), time.get(5..6)];
    if marks != [Some("-"), Some("-"), Some(":"), Some(":")] || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanoseconds, zone) = fraction(rest)?;
    let days = days(year, month, day).filter(|days| civil_date(*days) == (year, month, day))?;
    let seconds = days
        .checked_mul(86_400)?
        .checked_add(hour.checked_mul(3_600)?)?
        .checked_add(minute.checked_mul(60)?)?
        .checked_add(second)?
        .checked_sub(offset(zone)?)?;
    Some((seconds, nanoseconds))
}

fn digits(text: &str) -> Option<i64> {
    Some(text)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
}

/// The nanoseconds of `.25Z`, and what follows them.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let Some(text) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, zone) = text.split_at_checked(end)?;
    if digits.is_empty() {
        return None;
    }
    let nine: String = digits.chars().chain(std::iter::repeat('0')).take(9).collect();
    Some((nine.parse().ok()?, zone))
}

/// Seconds that `+02:00` is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, zone) = zone.split_at_checked(1)?;
    let (hours, minutes) = zone.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let ahead = hours.checked_mul(3_600)?.checked_add(minutes.checked_mul(60)?)?;
    match sign {
        "+" => Some(ahead),
        "-" => Some(ahead.saturating_neg()),
        _ => None,
    }
}

/// The day counted from 1970-01-01: the opposite of [`civil_date`] for dates that there are.
#[expect(clippy::arithmetic_side_effects, reason = "numbers of at most four digits")]
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
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

#[cfg(test)]
#[path = "timestamp_tests.rs"]
mod tests;
