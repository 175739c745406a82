//! A test suite for the contract of [`SecretPersistence`]: for every
//! backend and layer, including third-party ones.
//!
//! Everything else in this library works with a store that passes. Running the suite takes a dozen
//! lines, here with [`Memory`](crate::Memory):
//!
//! ```
//! use std::sync::Arc;
//!
//! use secret_persistence_core::conformance::{self, Options};
//! use secret_persistence_core::{Memory, SecretPersistence};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let store: Arc<dyn SecretPersistence> = Arc::new(Memory::new());
//! let report = conformance::run(&store, &Options::default()).await;
//! println!("{report}");
//! report.assert_passed();
//! # }
//! ```
//!
//! Effects on the store:
//! - It only uses unique names, `airbyte_conformance_<random>_secret_<random>_v<n>` and those that
//!   the [`Outsider`] inserts, so it is safe for a store in use.
//! - After every case, passed or not, it deletes everything that the case may have written. If the
//!   process is killed, delete all names that begin with `airbyte_conformance_`.
//! - It adapts visibly to [`Capabilities`](crate::Capabilities): the [`Report`] contains each case
//!   that does not apply, with the reason.
//! - It retries retryable failures for [`Options::patience`], so that a provider's quota fails no
//!   case. Any other unexpected failure does.
//!
//! It needs a Tokio runtime with time enabled. A multi-threaded runtime finds more races.

mod cases;
mod context;
#[cfg(test)]
mod defects;
mod options;
mod report;
mod shared_rates;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;

use crate::SecretPersistence;
use cases::{CASES, Case, Half};
use context::{Context, Stop};
pub use options::{Opener, Options, Outsider, Progress};
pub use report::{CaseReport, Outcome, Report};
pub use shared_rates::shared_rates;

/// Runs every case over `store`.
pub async fn run(store: &Arc<dyn SecretPersistence>, options: &Options) -> Report {
    run_cases(store, store, options, CASES.iter()).await
}

/// Runs the reading half over `store`, which refuses every change. `writer`, another handle of the
/// same secrets, writes and deletes the secrets to read.
pub async fn run_reading(
    store: &Arc<dyn SecretPersistence>,
    writer: &Arc<dyn SecretPersistence>,
    options: &Options,
) -> Report {
    let reading = CASES.iter().filter(|case| case.half == Half::Reading);
    run_cases(store, writer, options, reading).await
}

async fn run_cases(
    store: &Arc<dyn SecretPersistence>,
    writer: &Arc<dyn SecretPersistence>,
    options: &Options,
    cases: impl Iterator<Item = &'static Case>,
) -> Report {
    let mut report = Report::new(store.to_string());
    for case in cases {
        let outcome = run_case(store, writer, options, case).await;
        if let Some(progress) = &options.progress {
            progress(&outcome);
        }
        report.cases.push(outcome);
    }
    report
}

async fn run_case(
    store: &Arc<dyn SecretPersistence>,
    writer: &Arc<dyn SecretPersistence>,
    options: &Options,
    case: &'static Case,
) -> CaseReport {
    let context = Context::new(Arc::clone(store), Arc::clone(writer), options.clone());
    let started = Instant::now();
    // A store that panics or hangs fails the case, not the suite.
    let run = AssertUnwindSafe((case.run)(&context)).catch_unwind();
    let outcome = match tokio::time::timeout(options.case_timeout, run).await {
        Ok(Ok(Ok(()))) => Outcome::Passed,
        Ok(Ok(Err(Stop::NotApplicable(reason)))) => Outcome::NotApplicable(reason),
        Ok(Ok(Err(Stop::Failed(message)))) => Outcome::Failed(message),
        Ok(Err(_panic)) => Outcome::Failed("it panicked".to_owned()),
        Err(_elapsed) => Outcome::Failed(format!(
            "it did not end within {} s",
            options.case_timeout.as_secs()
        )),
    };
    let clean_up = AssertUnwindSafe(context.clean_up()).catch_unwind();
    let leftovers = match tokio::time::timeout(options.case_timeout, clean_up).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panic)) => Err("it panicked".to_owned()),
        Err(_elapsed) => Err("it did not end in time".to_owned()),
    };
    let outcome = match (outcome, leftovers) {
        (outcome, Ok(())) => outcome,
        (Outcome::Failed(message), Err(leftover)) => {
            Outcome::Failed(format!("{message}; cleaning up: {leftover}"))
        }
        (_, Err(leftover)) => Outcome::Failed(format!("cleaning up: {leftover}")),
    };
    CaseReport::new(case.name, outcome, started.elapsed())
}
