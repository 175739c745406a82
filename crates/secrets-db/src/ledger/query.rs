//! Which lines a search wants.

use secret_persistence_core::{Coordinate, Operation, Timestamp};

use super::LedgerLine;

/// A search of a ledger: every condition must hold. Without conditions it finds every line.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LedgerQuery {
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// The secret.
    pub coordinate: Option<Coordinate>,
    /// Who.
    pub actor: Option<String>,
    /// What.
    pub operation: Option<Operation>,
    /// The id of the request.
    pub request: Option<String>,
}

impl LedgerQuery {
    /// Sets the time from which on.
    #[must_use]
    pub fn with_since(mut self, time: Option<Timestamp>) -> Self {
        self.since = time;
        self
    }

    /// Sets the time before which.
    #[must_use]
    pub fn with_until(mut self, time: Option<Timestamp>) -> Self {
        self.until = time;
        self
    }

    /// Sets the secret.
    #[must_use]
    pub fn with_coordinate(mut self, coordinate: Option<Coordinate>) -> Self {
        self.coordinate = coordinate;
        self
    }

    /// Sets the actor.
    #[must_use]
    pub fn with_actor(mut self, actor: Option<String>) -> Self {
        self.actor = actor;
        self
    }

    /// Sets the operation.
    #[must_use]
    pub fn with_operation(mut self, operation: Option<Operation>) -> Self {
        self.operation = operation;
        self
    }

    /// Sets the id of the request.
    #[must_use]
    pub fn with_request(mut self, id: Option<String>) -> Self {
        self.request = id;
        self
    }

    /// The times in seconds: the first, and the one after the last.
    pub(super) fn seconds(&self) -> (i64, i64) {
        (
            self.since.map_or(i64::MIN, Timestamp::unix_seconds),
            self.until.map_or(i64::MAX, Timestamp::unix_seconds),
        )
    }

    /// Whether the columns of a line fit.
    pub(super) fn has_columns(&self, at: i64, coordinate: &str) -> bool {
        let (since, until) = self.seconds();
        (since..until).contains(&at)
            && self
                .coordinate
                .as_ref()
                .is_none_or(|wanted| wanted.as_str() == coordinate)
    }

    /// Whether the rest of a line fits.
    pub(super) fn has(&self, line: &LedgerLine) -> bool {
        let is = |wanted: Option<&str>, found: &Option<String>| {
            wanted.is_none_or(|wanted| found.as_deref() == Some(wanted))
        };
        line.pruned.is_none()
            && is(self.actor.as_deref(), &line.actor)
            && is(self.operation.map(Operation::as_str), &line.operation)
            && is(self.request.as_deref(), &line.request)
    }
}
