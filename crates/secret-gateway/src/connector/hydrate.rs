//! Hydrates many configurations at once.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::members::Configuration;
use super::sight;
use crate::gateway::Gateway;
use crate::server::{Body, Caller, List, Problem, ProblemDocument, request};
use crate::tokens::Role;

/// How many configurations one request may contain.
const MAX_CONFIGURATIONS: usize = 1000;

request! {
    /// Configurations with pointers.
    pub(super) struct Hydrate {
        configurations: List<Configuration, MAX_CONFIGURATIONS>,
    }
}

/// One answer per configuration, in order.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Hydrated {
    configurations: Vec<Answer>,
}

/// A full configuration, or why there is none.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(deny_unknown_fields)]
enum Answer {
    Full {
        #[serde(serialize_with = "full")]
        configuration: Configuration,
    },
    Failed {
        problem: ProblemDocument,
    },
}

/// Writes a configuration with its secrets.
fn full<S: Serializer>(configuration: &Configuration, serializer: S) -> Result<S::Ok, S::Error> {
    configuration.0.serialize(serializer)
}

pub(super) async fn hydrate(
    State(gateway): State<Gateway>,
    caller: Caller,
    body: Body<Hydrate>,
) -> Result<Json<Hydrated>, Problem> {
    caller.require(Role::Hydrate)?;
    let List(configurations) = body.parse()?.configurations;
    let external = &gateway.settings().external_prefixes;
    let seen: Vec<Result<(), Problem>> = configurations
        .iter()
        .map(|Configuration(pointers)| sight::require(&caller.0, external, pointers))
        .collect();
    let visible: Vec<Value> = configurations
        .into_iter()
        .zip(&seen)
        .filter(|(_, seen)| seen.is_ok())
        .map(|(configuration, _)| configuration.into_inner())
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
            Ok(full) => Answer::Full {
                configuration: Configuration(full),
            },
            Err(problem) => {
                let document = problem.document();
                problems.push(problem);
                Answer::Failed { problem: document }
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
    Ok(Json(Hydrated {
        configurations: answers,
    }))
}
