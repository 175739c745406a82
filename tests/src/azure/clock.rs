//! Times in the formats of the protocols.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, macros::format_description};

/// Seconds since 1970, as in `exp`, `created` and `deletedDate`.
pub(super) fn unix_now() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    i64::try_from(now.as_secs()).expect("a clock before the end of time")
}

/// The form in error descriptions of Entra ID, such as `2025-04-04 21:10:04Z`.
pub(super) fn timestamp() -> String {
    OffsetDateTime::now_utc()
        .format(format_description!(
            "[year]-[month]-[day] [hour]:[minute]:[second]Z"
        ))
        .expect("a year of four digits")
}
