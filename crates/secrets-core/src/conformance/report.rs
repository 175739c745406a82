//! What the suite found.

use std::fmt;
use std::time::Duration;

/// What became of every case.
///
/// `Display` prints one line per case and a sum.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The store, as its `Display` shows it.
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

    /// Ends a test where a case failed.
    ///
    /// # Panics
    /// If one did, naming all that did and why.
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

/// What became of one case.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CaseReport {
    /// The case, in words, stable.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, cleaning up included.
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

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store broke the promise; how.
    Failed(String),
    /// The store does not make this promise, or the options give no way to see it; which.
    NotApplicable(String),
    /// The store kept the promise.
    Passed,
}
