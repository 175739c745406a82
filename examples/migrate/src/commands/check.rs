//! `check`: checks a store end to end with a test secret.

use secret_persistence::Environment;
use secret_persistence_core::{
    CheckOptions, CheckReport, CheckStep, ErrorKind, Operation, SecretPersistenceExt, StepOutcome,
};
use serde_json::{Value, json};

use crate::cli::CheckArgs;
use crate::console::remark;
use crate::output::Output;
use crate::role::Role;
use crate::status::{Result, Status};
use crate::store::{Described, IfMissing};

/// Runs it.
pub(crate) async fn run(
    args: CheckArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let store = Described::read(args.at.place(), Role::Store, environment)?
        .open(None, IfMissing::Refuse)
        .await?
        .for_writing()?;
    let mut options = CheckOptions::default().with_keep(args.keep);
    if let Some(wait) = args.wait {
        remark(format!(
            "waiting up to {} s for missing permissions",
            wait.as_secs()
        ));
        options = options.with_wait(wait);
    }
    // Print each step as it ends: if a server does not answer, each one takes a while.
    let report = store
        .store
        .check_telling(&options, &|step| output.line(step.to_string()))
        .await;
    output.line(report.conclusion());
    // Some stores refuse to open for the same reason.
    let status = match report.shared_failure() {
        Some(error) => Status::of(error),
        None if report.failures().next().is_none() => Status::Done,
        None => nothing_done(&report).unwrap_or(Status::Found),
    };
    let steps: Vec<Value> = report
        .steps
        .iter()
        .map(|step| {
            let (outcome, text) = match &step.outcome {
                StepOutcome::Done(what) => ("done", what.clone()),
                StepOutcome::Failed(error) => ("failed", error.to_string()),
                StepOutcome::NotApplicable(reason) => ("not_applicable", reason.clone()),
            };
            let took = u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX);
            json!({ "operation": step.operation.as_str(), "outcome": outcome, "detail": text, "milliseconds": took })
        })
        .collect();
    output.object(
        status,
        &json!({
            "command": "check",
            "store": report.store,
            "summary": report.summary(),
            "works": report.works(),
            "coordinate": report.coordinate.as_str(),
            "left_behind": report.left_behind,
            "steps": steps,
        }),
    );
    Ok(status)
}

/// The exit status if every step but the identity failed for the same reason: some stores know it
/// without a request.
fn nothing_done(report: &CheckReport) -> Option<Status> {
    let is_done = |step: &CheckStep| {
        step.operation != Operation::Identity && matches!(step.outcome, StepOutcome::Done(_))
    };
    if report.steps.iter().any(is_done) {
        return None;
    }
    let kinds: Vec<ErrorKind> = report.failures().map(|(_, error)| error.kind()).collect();
    Status::of_all(&kinds)
}
