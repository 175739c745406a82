//! Durations and times on the command line.

use std::time::Duration;

use secret_persistence_core::Timestamp;

/// Parses a whole number of seconds, minutes or hours, up to a day.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    whole_units(text, &[("s", 1), ("m", 60), ("h", 3600)], 86_400)
        .ok_or_else(|| "write it as 90s, 10m or 1h, up to a day".to_owned())
}

/// Parses a whole number of seconds, minutes, hours or days, up to a hundred years.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    whole_units(text, &units, 36_500 * 86_400)
        .ok_or_else(|| "write it as 90s, 10m, 12h or 90d, up to 36500d".to_owned())
}

/// Parses a whole number with one of the units, given in seconds, from one second to `most`.
fn whole_units(text: &str, units: &[(&str, u64)], most: u64) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let (_, seconds) = units.iter().find(|(name, _)| *name == unit)?;
    let seconds = number.parse::<u64>().ok()?.checked_mul(*seconds)?;
    (1..=most)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}

/// Parses a time, or the beginning of a day.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .or_else(|_| format!("{text}T00:00:00Z").parse())
        .map_err(|_| "write it as 2026-11-21 or 2026-11-21T06:47:53Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h", 3600), ("24h", 86_400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "m",
            "10",
            "-1m",
            "0s",
            "1.5h",
            "10 m",
            "25h",
            "1é",
            "99999999999999999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_read_with_their_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("10m", 600),
            ("12h", 43_200),
            ("90d", 7_776_000),
            ("36500d", 3_153_600_000),
        ] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "d", "90", "-1d", "0d", "1.5d", "36501d", "1é"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_day_is_its_first_second() {
        for (text, read) in [
            ("2026-11-21", "2026-11-21T00:00:00Z"),
            ("2026-11-21T06:47:53Z", "2026-11-21T06:47:53Z"),
            ("2026-11-21T06:47:53+01:00", "2026-11-21T05:47:53Z"),
        ] {
            assert_eq!(time(text).unwrap().to_string(), read);
        }
        for text in ["", "yesterday", "2026-13-01", "21.11.2026"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
