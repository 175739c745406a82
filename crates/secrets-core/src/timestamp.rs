//! Points in time, in whole seconds.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::{Error, ErrorKind};

/// A point in time, UTC, in whole seconds from year 1 to 9999.
///
/// Whole seconds, because this is the finest resolution that every store supports (Azure attributes
/// have no finer one).
/// Text form is RFC 3339.
///
/// ```
/// use secret_persistence_core::Timestamp;
///
/// let expires: Timestamp = "2026-11-21T06:47:53Z".parse()?;
/// assert_eq!(expires.to_string(), "2026-11-21T06:47:53Z");
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// The beginning of the year 1 and the end of the year 9999, in seconds since 1970.
const EARLIEST: i64 = -62_135_596_800;
const LATEST: i64 = 253_402_300_799;

impl Timestamp {
    /// The present second.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// From seconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// `InvalidValue` outside the years 1 to 9999.
    pub fn from_unix_seconds(seconds: i64) -> Result<Self, Error> {
        if (EARLIEST..=LATEST).contains(&seconds) {
            return Ok(Self(seconds));
        }
        Err(Error::new(
            ErrorKind::InvalidValue,
            "a time outside the years 1 to 9999",
        ))
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0
    }

    /// This time moved into the future, at most to the end of year 9999.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(seconds).min(LATEST))
    }

    /// This time moved into the past, at most to the beginning of year 1.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(seconds).max(EARLIEST))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let seconds = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(LATEST),
            // Rounded down, as after 1970.
            Err(before) => {
                let before = before.duration();
                let whole = before.as_secs() + u64::from(before.subsec_nanos() > 0);
                i64::try_from(whole).map_or(EARLIEST, |seconds| -seconds)
            }
        };
        Self(seconds.clamp(EARLIEST, LATEST))
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|cause| {
                Error::new(ErrorKind::InvalidValue, "not an RFC 3339 time")
                    .with_hint("write it like 2026-11-21T06:47:53Z")
                    .with_source(cause)
            })
            .and_then(|time| Self::from_unix_seconds(time.unix_timestamp()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every second of those years is in range.
        let moment = OffsetDateTime::from_unix_timestamp(self.0);
        let moment = moment.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (date, time) = (moment.date(), moment.time());
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second()
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_offsets_are_understood() {
        for (text, printed) in [
            ("2026-11-21T06:47:53Z", "2026-11-21T06:47:53Z"),
            ("2026-11-21T08:47:53.9+02:00", "2026-11-21T06:47:53Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), printed);
        }
        for text in ["", "tomorrow", "2026-11-21", "2026-13-01T00:00:00Z"] {
            assert_eq!(
                text.parse::<Timestamp>().unwrap_err().kind(),
                ErrorKind::InvalidValue
            );
        }
    }

    #[test]
    fn seconds_are_those_of_the_years_1_to_9999_and_rounded_down() {
        for (seconds, printed) in [
            (EARLIEST, "0001-01-01T00:00:00Z"),
            (0, "1970-01-01T00:00:00Z"),
            (LATEST, "9999-12-31T23:59:59Z"),
        ] {
            let time = Timestamp::from_unix_seconds(seconds).unwrap();
            assert_eq!(time.to_string(), printed);
            assert_eq!(time.unix_seconds(), seconds);
        }
        for seconds in [i64::MIN, EARLIEST - 1, LATEST + 1, i64::MAX] {
            Timestamp::from_unix_seconds(seconds).unwrap_err();
        }
        let half = Duration::from_millis(500);
        for (time, seconds) in [
            (UNIX_EPOCH + half, 0),
            (UNIX_EPOCH, 0),
            (UNIX_EPOCH - half, -1),
            (UNIX_EPOCH - half * 2, -1),
        ] {
            assert_eq!(Timestamp::from(time).unix_seconds(), seconds);
        }
    }

    #[test]
    fn addition_stops_at_the_end_of_time() {
        let end = Timestamp::now().saturating_add(Duration::MAX);
        assert_eq!(end.to_string(), "9999-12-31T23:59:59Z");
    }
}
