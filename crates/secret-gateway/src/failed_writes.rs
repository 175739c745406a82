//! Failed writes: a caller that swallows the error must not lose a secret silently.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use secret_persistence::{Error, ErrorKind, Timestamp};
use serde::Serialize;

use crate::server::Time;

/// How many failed writes the page shows.
const REMEMBERED: usize = 100;

/// Counts failed writes, and remembers the most recent ones.
#[derive(Debug, Default)]
pub struct FailedWrites(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    total: u64,
    last: VecDeque<FailedWrite>,
}

/// A failed write.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct FailedWrite {
    /// The time.
    #[schemars(with = "Time")]
    pub at: Timestamp,
    /// The caller.
    pub actor: String,
    /// The name of the secret.
    pub coordinate: String,
    /// The reason.
    pub kind: &'static str,
}

impl FailedWrites {
    /// Counts, logs and remembers a failed write. `face` is its API: `kv` or `connector`.
    pub fn failed(
        &self,
        face: &'static str,
        actor: &str,
        coordinate: &str,
        kind: ErrorKind,
        error: Option<&Error>,
    ) {
        metrics::counter!("secret_gateway_failed_writes_total", "face" => face, "kind" => kind.as_str())
            .increment(1);
        tracing::error!(
            target: "secret_gateway",
            face,
            actor,
            coordinate,
            kind = kind.as_str(),
            error = error.map(tracing::field::display),
            "a secret was not written; a caller that ignores this loses it"
        );
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.total += 1;
        if inner.last.len() == REMEMBERED {
            inner.last.pop_front();
        }
        inner.last.push_back(FailedWrite {
            at: Timestamp::now(),
            actor: actor.to_owned(),
            coordinate: coordinate.to_owned(),
            kind: kind.as_str(),
        });
    }

    /// The number since the start, and the most recent ones, newest first.
    #[must_use]
    pub fn seen(&self) -> (u64, Vec<FailedWrite>) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.total, inner.last.iter().rev().cloned().collect())
    }
}
