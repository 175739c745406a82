//! What to refresh.

use std::time::Duration;

use serde_json::Value;

use crate::Scope;
use crate::connector::error::{ConnectorError, Problem, ProblemKind, Problems};
use crate::connector::limits::check_depth;
use crate::connector::place::Place;
use crate::connector::pointer::{Encoding, Pointer};

/// One refresh: the row, its secret places, and the configuration whose token has expired.
#[derive(Clone, Debug)]
pub struct Refresh {
    pub(super) row: String,
    pub(super) scope: Scope,
    /// The pointer of each place, or `null`.
    pub(super) seen: Vec<(Place, Value)>,
    pub(super) exchange: Duration,
    pub(super) write: Duration,
    pub(super) patience: Duration,
}

impl Refresh {
    /// Creates a refresh of these places of a row, in the order of their importance: the token that
    /// may be used once comes first, because its new value is written first.
    ///
    /// `saved` is the row's configuration from which the caller hydrated the expired token. If the
    /// row's places have changed since, the refresh returns the new values instead of exchanging
    /// again. The first place must have a pointer; others may be empty, such as an access token
    /// that the provider has not yet issued.
    ///
    /// # Errors
    /// Every place with a raw value, a reference, a malformed pointer or a secret that is not text,
    /// and every empty place outside an object.
    pub fn new(
        row: impl Into<String>,
        scope: &Scope,
        saved: &Value,
        places: impl IntoIterator<Item = Place>,
    ) -> Result<Self, ConnectorError> {
        check_depth(saved)?;
        let mut problems = Problems::default();
        let mut seen: Vec<(Place, Value)> = Vec::new();
        for place in places {
            if seen.iter().any(|(known, _)| *known == place) {
                continue;
            }
            match pointer_at(saved, &place) {
                Ok(None) if seen.is_empty() => {
                    problems.push(|| unfit(place, "there is no token to refresh"));
                }
                Ok(pointer) => {
                    let from = pointer.map_or(Value::Null, |pointer| pointer.to_value());
                    seen.push((place, from));
                }
                Err(problem) => problems.push(|| problem),
            }
        }
        problems.into_result()?;
        if seen.is_empty() {
            return Err(unfit(Place::root(), "a refresh needs a place").into());
        }
        Ok(Self {
            row: row.into(),
            scope: scope.clone(),
            seen,
            exchange: Duration::from_secs(30),
            write: Duration::from_secs(30),
            patience: Duration::from_secs(120),
        })
    }

    /// Sets how long the exchange may take before it is dropped. 30 seconds by default.
    #[must_use]
    pub fn with_exchange(mut self, exchange: Duration) -> Self {
        self.exchange = exchange;
        self
    }

    /// Sets how long failed writes of the new values are repeated. 30 seconds by default, one at least.
    ///
    /// The lease lasts for this time and that of the exchange together: so long others wait after a
    /// crash, and a write in flight or a store whose reads lag has to settle.
    #[must_use]
    pub fn with_write(mut self, write: Duration) -> Self {
        // With less, no process would ever be sure enough of its lease to begin.
        self.write = write.max(Duration::from_secs(1));
        self
    }

    /// Sets how long to wait for another process. Two minutes by default, `Duration::MAX` for ever.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long the lease lasts.
    pub(super) fn lease(&self) -> Duration {
        self.exchange.saturating_add(self.write)
    }

    /// Whether the places of a configuration are those that the caller saw.
    pub(super) fn is_current(&self, config: &Value) -> bool {
        self.seen.iter().all(|(place, from)| {
            let found = place.find(config).unwrap_or(&Value::Null);
            found == from
        })
    }
}

/// The text pointer of a place; `None` for a place that is empty and could have one.
pub(super) fn pointer_at(config: &Value, place: &Place) -> Result<Option<Pointer>, Problem> {
    let found = match place.find(config) {
        Some(found) if !found.is_null() => found,
        _ => {
            let parent = place.as_str().rsplit_once('/');
            let parent = parent.and_then(|(parent, _)| config.pointer(parent));
            return match parent {
                Some(Value::Object(_)) if parent.and_then(Pointer::parse).is_none() => Ok(None),
                _ => Err(unfit(place.clone(), "the place is not in an object")),
            };
        }
    };
    text_pointer(found, place).map(Some)
}

/// The pointer that a value is, to a secret that a refresh can replace.
pub(super) fn text_pointer(found: &Value, place: &Place) -> Result<Pointer, Problem> {
    let Some(pointer) = Pointer::parse(found) else {
        let message = "the place has a value instead of a pointer; save the configuration first";
        return Err(unfit(place.clone(), message));
    };
    let pointer = pointer.map_err(|malformed| malformed.at(place.clone()))?;
    if pointer.reference_id.is_some() {
        let message = "the secret belongs to a reference; refresh the reference's row";
        return Err(unfit(place.clone(), message));
    }
    if pointer.encoding == Encoding::Json {
        let message = "the secret is not a text, so it is no token";
        return Err(unfit(place.clone(), message));
    }
    Ok(pointer)
}

pub(super) fn unfit(place: Place, message: &'static str) -> Problem {
    Problem::new(place, ProblemKind::TypeMismatch, message)
}
