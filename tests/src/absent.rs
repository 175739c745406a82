//! Handles a missing server: the test fails in CI, and is skipped visibly elsewhere.

use std::{fmt, io};

/// Why there is no server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Absent {
    /// The server is installed but did not start, which is always a defect.
    Failed {
        /// The name of the server.
        server: &'static str,
        /// The reason, with the end of the server's log.
        reason: String,
    },
    /// The server is not installed.
    Missing {
        /// The name of the server.
        server: &'static str,
        /// How to install it.
        remedy: String,
    },
}

impl Absent {
    pub(crate) fn failed(server: &'static str, reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        Self::Failed { server, reason }
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { server, reason } => write!(f, "{server} did not start: {reason}"),
            Self::Missing { server, remedy } => write!(f, "{server} is missing: {remedy}"),
        }
    }
}

impl std::error::Error for Absent {}

/// Returns the server, or `None` if it is not installed and the test may be skipped.
///
/// # Panics
///
/// If the server did not start; if `CI` is `true`, also if it is missing.
pub fn available<T>(started: Result<T, Absent>) -> Option<T> {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    decide(started, in_ci, &mut io::stderr())
}

/// `report` is standard error itself: the test harness would capture the output of the print
/// macros.
fn decide<T>(started: Result<T, Absent>, in_ci: bool, report: &mut dyn io::Write) -> Option<T> {
    match started {
        Ok(server) => Some(server),
        Err(absent @ Absent::Missing { .. }) if !in_ci => {
            let test = std::thread::current();
            let test = test.name().unwrap_or("a test");
            // If standard error is closed, there is no one to tell.
            let _ = writeln!(report, "SKIPPED {test}: {absent}");
            None
        }
        Err(absent) => panic!("{absent}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Result<(), Absent> {
        Err(Absent::Missing {
            server: "Vault",
            remedy: "build it".into(),
        })
    }

    #[test]
    fn a_missing_server_is_reported() {
        let mut report = Vec::new();
        assert!(decide(missing(), false, &mut report).is_none());
        let report = String::from_utf8(report).unwrap();
        assert!(
            report.starts_with("SKIPPED absent::tests::a_missing"),
            "{report}"
        );
        assert!(report.ends_with("Vault is missing: build it\n"), "{report}");
    }

    #[test]
    #[should_panic(expected = "Vault is missing")]
    fn a_missing_server_fails_ci() {
        decide(missing(), true, &mut Vec::new());
    }

    #[test]
    #[should_panic(expected = "Vault did not start: port taken")]
    fn a_broken_server_fails_everywhere() {
        decide(
            Err::<(), _>(Absent::failed("Vault", "port taken")),
            false,
            &mut Vec::new(),
        );
    }
}
