//! The report of a run.

use std::fmt;
use std::time::Duration;

/// The outcome of every case.
///
/// `Display` prints one line per case and a summary.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The store's `Display`.
    pub store: String,
    /// The cases in the order in which they ran.
    pub cases: Vec<CaseReport>,
}

impl Report {
    pub(super) fn new(store: String) -> Self {
        Self {
            store,
            cases: Vec::new(),
        }
    }

    /// Whether no case failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases
            .iter()
            .filter(|case| matches!(case.outcome, Outcome::Failed(_)))
    }

    /// Asserts that no case failed.
    ///
    /// # Panics
    /// If a case failed, with all failed cases and their reasons.
    pub fn assert_passed(&self) {
        let failures: Vec<String> = self.failures().map(ToString::to_string).collect();
        assert!(
            failures.is_empty(),
            "{} breaks {} promises:\n{}",
            self.store,
            failures.len(),
            failures.join("\n")
        );
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            writeln!(f, "{case}")?;
        }
        let count = |wanted: fn(&Outcome) -> bool| {
            self.cases
                .iter()
                .filter(|case| wanted(&case.outcome))
                .count()
        };
        write!(
            f,
            "{}: {} passed, {} not applicable, {} failed",
            self.store,
            count(|outcome| matches!(outcome, Outcome::Passed)),
            count(|outcome| matches!(outcome, Outcome::NotApplicable(_))),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
        )
    }
}

/// The outcome of one case.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CaseReport {
    /// The name of the case, which is stable.
    pub name: &'static str,
    /// Its outcome.
    pub outcome: Outcome,
    /// How long it took, including the cleanup.
    pub took: Duration,
}

impl CaseReport {
    pub(super) fn new(name: &'static str, outcome: Outcome, took: Duration) -> Self {
        Self {
            name,
            outcome,
            took,
        }
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match &self.outcome {
            Outcome::Failed(message) => write!(f, "FAILED          {name}: {message}"),
            Outcome::NotApplicable(reason) => write!(f, "not applicable  {name}: {reason}"),
            Outcome::Passed => write!(f, "passed          {name} ({} ms)", self.took.as_millis()),
        }
    }
}

/// The outcome of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store broke the guarantee, with the details.
    Failed(String),
    /// The store does not give this guarantee, or the options cannot test it; with the reason.
    NotApplicable(String),
    /// The store kept the guarantee.
    Passed,
}
