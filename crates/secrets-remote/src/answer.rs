//! Reads codes and bounded numbers from the headers and bodies of responses.

use std::time::{Duration, SystemTime};

use secret_persistence_core::Error;

/// A code or an id: letters, digits, `-`, `_` and `.`, at most 80 characters. Anything else could
/// be text of the body, and is dropped.
#[must_use]
pub fn identifier(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!text.is_empty() && text.len() <= 80 && text.bytes().all(allowed)).then(|| text.to_owned())
}

/// How long a server asks to wait, at most [`Error::LONGEST_WAIT`]: from a header in milliseconds,
/// or from `Retry-After` in seconds or as a date.
/// <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>
#[must_use]
pub fn retry_after(milliseconds: Option<&str>, seconds: Option<&str>) -> Option<Duration> {
    let wait = match milliseconds.and_then(number) {
        Some(milliseconds) => Duration::from_millis(milliseconds),
        None => {
            let text = seconds?;
            match number(text) {
                Some(seconds) => Duration::from_secs(seconds),
                None => httpdate::parse_http_date(text.trim())
                    .ok()?
                    .duration_since(SystemTime::now())
                    .unwrap_or_default(),
            }
        }
    };
    Some(wait.min(Error::LONGEST_WAIT))
}

/// The difference between a server's clock and ours in seconds, from the header `Date`.
#[must_use]
pub fn clock_skew(date: &str) -> Option<i64> {
    let theirs = httpdate::parse_http_date(date).ok()?;
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Some(match theirs.duration_since(SystemTime::now()) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    })
}

/// Parses digits; a number that is too large becomes the maximum.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_code_is_dropped() {
        for code in [
            "my secret value",
            "{\"value\":1}",
            "",
            "a\nb",
            &"x".repeat(81),
        ] {
            assert_eq!(identifier(code), None, "{code}");
        }
        for code in ["AccessDenied", "IAM_PERMISSION_DENIED", "a-b.c", "imds"] {
            assert_eq!(identifier(code).as_deref(), Some(code));
        }
    }

    #[test]
    fn waits_are_understood_in_every_unit_and_never_longer_than_a_day() {
        for (milliseconds, seconds, expected) in [
            (None, None, None),
            (None, Some("7"), Some(7_000)),
            (Some("1500"), Some("7"), Some(1_500)),
            (Some("soon"), Some(" 2 "), Some(2_000)),
            (None, Some("soon"), None),
            (None, Some("-1"), None),
            (None, Some("1.5"), None),
            (None, Some(""), None),
            (None, Some("Sat, 21 Nov 2020 07:28:00 GMT"), Some(0)),
            (
                None,
                Some("Fri, 31 Dec 9999 23:59:59 GMT"),
                Some(86_400_000),
            ),
            (None, Some("99999999999"), Some(86_400_000)),
            (None, Some("18446744073709551615"), Some(86_400_000)),
            (None, Some("18446744073709551616"), Some(86_400_000)),
            (Some("18446744073709551616"), None, Some(86_400_000)),
        ] {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(retry_after(milliseconds, seconds), expected, "{seconds:?}");
        }
        let soon = SystemTime::now() + Duration::from_secs(60);
        let wait = retry_after(None, Some(&httpdate::fmt_http_date(soon))).unwrap();
        assert!((58..=60).contains(&wait.as_secs()), "{wait:?}");
    }

    #[test]
    fn clocks_are_compared_in_both_directions() {
        let now = SystemTime::now();
        for (theirs, expected) in [
            (now + Duration::from_secs(3600), 3600),
            (now - Duration::from_secs(3600), -3600),
        ] {
            let skew = clock_skew(&httpdate::fmt_http_date(theirs)).unwrap();
            assert!((skew - expected).abs() <= 2, "{skew}");
        }
        assert!(clock_skew("Fri, 31 Dec 9999 23:59:59 GMT").is_some());
        assert_eq!(clock_skew("yesterday"), None);
    }
}
