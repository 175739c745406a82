//! Hydrates many configurations at once.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use secret_persistence::connector::SecretJson;
use serde_json::{Value, json};

use super::sight;
use crate::gateway::Gateway;
use crate::server::{Body, Caller, Problem, invalid, too_many};
use crate::tokens::Role;

/// How many configurations one request may contain.
const MAX_CONFIGURATIONS: usize = 1000;

pub(super) async fn hydrate(
    State(gateway): State<Gateway>,
    caller: Caller,
    Body(mut fields): Body,
) -> Result<Response, Problem> {
    caller.require(Role::Hydrate)?;
    let Value::Array(configurations) = fields.require("configurations")? else {
        return Err(invalid("configurations", "is not a list"));
    };
    fields.finish()?;
    if configurations.len() > MAX_CONFIGURATIONS {
        return Err(too_many("configurations", MAX_CONFIGURATIONS));
    }
    let external = &gateway.settings().external_prefixes;
    let seen: Vec<Result<(), Problem>> = configurations
        .iter()
        .map(|configuration| sight::require(&caller.0, external, configuration))
        .collect();
    let visible: Vec<Value> = configurations
        .into_iter()
        .zip(&seen)
        .filter(|(_, seen)| seen.is_ok())
        .map(|(configuration, _)| configuration)
        .collect();
    // One batch of reads for all of them.
    let mut hydrated = caller
        .secrets(&gateway)
        .hydrate_many(visible)
        .await?
        .into_iter();
    let mut problems = Vec::new();
    let mut answers = Vec::with_capacity(seen.len());
    for seen in seen {
        let full = match seen {
            Ok(()) => match hydrated.next() {
                Some(full) => full.map_err(Problem::from),
                None => Err(Problem::not_found(
                    "there is no result for the configuration",
                )),
            },
            Err(unseen) => Err(unseen),
        };
        answers.push(match full {
            Ok(full) => json!({"configuration": full.into_inner()}),
            Err(problem) => {
                let document = problem.document();
                problems.push(problem);
                json!({"problem": document})
            }
        });
    }
    // If every failure is transient, the whole request should be retried.
    let retried = |problem: &Problem| {
        matches!(
            problem.status(),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        )
    };
    if !answers.is_empty() && problems.len() == answers.len() && problems.iter().all(retried) {
        return Err(problems.remove(0));
    }
    Ok(secret_answer(json!({"configurations": answers})))
}

/// A response with secrets: the value it is built from is wiped.
fn secret_answer(value: Value) -> Response {
    let value = SecretJson::new(value);
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
