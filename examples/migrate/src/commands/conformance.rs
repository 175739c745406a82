//! `conformance`: runs the conformance suite against any store, including real clouds.

use std::sync::Arc;

use secret_persistence::Environment;
use secret_persistence_core::conformance::{self, Options, Outcome};
use serde_json::{Value, json};

use crate::cli::ConformanceArgs;
use crate::console::{remark, say};
use crate::output::Output;
use crate::role::Role;
use crate::status::{Failure, Result, Status};
use crate::store::{Described, IfMissing};

/// Runs it.
pub(crate) async fn run(
    args: ConformanceArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let described = Described::read(args.at.place(), Role::Store, environment)?;
    let store = described
        .open(None, IfMissing::Refuse)
        .await?
        .for_writing()?;
    let json = output.is_json();
    let mut options = Options::default()
        .with_list_lag(args.list_lag)
        .with_progress(move |case| {
            if json {
                remark(case.to_string());
            } else {
                say(case.to_string());
            }
        })
        .with_reopen(move || {
            let described = described.clone();
            Box::pin(async move {
                described
                    .open(None, IfMissing::Refuse)
                    .await
                    .map(|store| store.store)
                    .map_err(Failure::into_store_error)
            })
        });
    if let Some(owner) = store.owner {
        options = options.with_owner(owner);
    }
    let report = conformance::run(&Arc::clone(&store.store), &options).await;
    let status = if report.passed() {
        Status::Done
    } else {
        Status::Found
    };
    if let Some(sum) = report.to_string().lines().last() {
        output.line(sum);
    }
    let cases: Vec<Value> = report
        .cases
        .iter()
        .map(|case| {
            let (outcome, text) = match &case.outcome {
                Outcome::Failed(message) => ("failed", Some(message)),
                Outcome::NotApplicable(reason) => ("not_applicable", Some(reason)),
                Outcome::Passed => ("passed", None),
            };
            json!({ "case": case.name, "outcome": outcome, "detail": text })
        })
        .collect();
    output.object(
        status,
        &json!({ "command": "conformance", "store": report.store, "passed": report.passed(), "cases": cases }),
    );
    Ok(status)
}
