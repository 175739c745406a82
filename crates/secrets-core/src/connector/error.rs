//! The problems of a configuration or a specification, by place.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::limits::{MAX_PROBLEM_BYTES, MAX_PROBLEMS};
use super::place::Place;

/// Why a configuration or a specification was refused: all of its problems.
///
/// No message contains a value of the configuration. Cloning is cheap.
///
/// ```
/// use secret_persistence_core::connector::{ConnectorSpec, ProblemKind};
/// use serde_json::json;
///
/// let error = ConnectorSpec::compile(&json!({"$ref": "https://example.com/other.json"})).unwrap_err();
/// assert_eq!(error.problems().len(), 1);
/// assert_eq!(error.problems()[0].kind(), ProblemKind::UnsupportedSchema);
/// ```
#[derive(Clone)]
pub struct ConnectorError(Arc<[Problem]>);

impl ConnectorError {
    /// Creates an error from these problems, in this order; `None` if there are none.
    #[must_use]
    pub fn of(problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then(|| Self(problems.into()))
    }

    /// The problems; never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    /// Whether the same call may succeed later: only if this is true of every problem.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.iter().all(Problem::is_retryable)
    }
}

impl From<Problem> for ConnectorError {
    fn from(problem: Problem) -> Self {
        Self(Arc::new([problem]))
    }
}

impl fmt::Display for ConnectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        for (index, problem) in self.0.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        if self.0.len() > SHOWN {
            write!(f, "; and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectorError").field(&&*self.0).finish()
    }
}

impl StdError for ConnectorError {
    /// The first failure of a store, if any; [`problems`](Self::problems) has all.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.iter().find_map(StdError::source)
    }
}

/// One problem, with its place, its kind, and its coordinate if there is one.
#[derive(Clone)]
pub struct Problem {
    place: Place,
    kind: ProblemKind,
    message: Cow<'static, str>,
    coordinate: Option<Arc<str>>,
    error: Option<crate::Error>,
}

impl Problem {
    /// Creates a problem with our own message: what is wrong and what to do, without any value of
    /// the configuration.
    pub fn new(place: Place, kind: ProblemKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            place,
            kind,
            message: message.into(),
            coordinate: None,
            error: None,
        }
    }

    /// The failure of a store for the secret of a place.
    #[must_use]
    pub fn of_store(place: Place, error: crate::Error) -> Self {
        Self::new(place, ProblemKind::Store, "the store failed").with_error(error)
    }

    /// Adds the coordinate, which is not a secret.
    #[must_use]
    pub fn with_coordinate(mut self, coordinate: impl Into<Arc<str>>) -> Self {
        self.coordinate = Some(coordinate.into());
        self
    }

    /// Adds the store's error, and its coordinate if none is set yet.
    #[must_use]
    pub fn with_error(mut self, error: crate::Error) -> Self {
        if self.coordinate.is_none() {
            self.coordinate = error.coordinate().map(Arc::from);
        }
        self.error = Some(error);
        self
    }

    /// The place in the configuration, or in the specification for compile errors.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The kind of problem.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// The message, without the context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The coordinate, if any.
    #[must_use]
    pub fn coordinate(&self) -> Option<&str> {
        self.coordinate.as_deref()
    }

    /// The store's error, if any.
    #[must_use]
    pub fn error(&self) -> Option<&crate::Error> {
        self.error.as_ref()
    }

    /// Whether the secret no longer exists in the store.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.kind == ProblemKind::Store
            && self
                .error
                .as_ref()
                .is_some_and(|error| error.kind().is_gone())
    }

    /// The size of its own texts in bytes.
    fn bytes(&self) -> usize {
        let message = match &self.message {
            Cow::Borrowed(_) => 0,
            Cow::Owned(message) => message.len(),
        };
        self.place.length() + message + self.coordinate.as_ref().map_or(0, |name| name.len())
    }

    /// Whether the same call may succeed later without any change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.error.as_ref().is_some_and(crate::Error::is_retryable)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(coordinate) = &self.coordinate {
            write!(f, " (`{}`)", coordinate.escape_debug())?;
        }
        // The store's error says which store failed and what to do. In a list of problems, nobody
        // would find it by walking sources, so it is part of the message; its own causes stay in
        // `source`.
        if let Some(error) = &self.error {
            write!(f, ": {error}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Problem({} {self})", self.kind)
    }
}

impl StdError for Problem {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.as_ref().and_then(StdError::source)
    }
}

/// The kind of a problem. Match the kind, never the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The audit is required, and its sink failed.
    AuditFailed,
    /// A secret that was stored as JSON is not valid JSON.
    DecodingFailed,
    /// An external secret that no allowed prefix of the storage matches.
    ExternalNotAllowed,
    /// A pointer to a managed secret, or a reference, that is not in the saved configuration:
    /// permission denied.
    ForeignPointer,
    /// A mask or a kept pointer although a guarded place has changed: the secret must be entered
    /// again.
    GuardedPlaceChanged,
    /// Too deep, or too many.
    LimitExceeded,
    /// A pointer that breaks a rule of pointers.
    MalformedPointer,
    /// The mask text in a place that is not secret.
    MaskOutsideSecret,
    /// A mask without a saved secret.
    MaskWithoutValue,
    /// A secret that is not a string, although only strings are allowed.
    NotAString,
    /// An object with a pointer's keys in a place that is not secret.
    PointerOutsideSecret,
    /// A reference to one coordinate next to a pointer to another one.
    ReferenceMismatch,
    /// An object with a key that `serde_json` reserves and would parse as something else.
    ReservedName,
    /// A plan that is older than a change may be.
    StalePlan,
    /// A store failed.
    Store,
    /// A value of a type that no schema of its place allows, with secrets below.
    TypeMismatch,
    /// A property that the specification does not define, although only defined ones are allowed.
    UnknownProperty,
    /// A reference that cannot be resolved.
    UnknownReference,
    /// A storage id without a store.
    UnknownStorage,
    /// A specification in which secrets could be missed.
    UnsupportedSchema,
    /// A walk that was passed to [`Executor`](super::Executor) and never ran.
    WalkDropped,
}

impl ProblemKind {
    /// The kind in `snake_case`, stable, for logs, metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuditFailed => "audit_failed",
            Self::DecodingFailed => "decoding_failed",
            Self::ExternalNotAllowed => "external_not_allowed",
            Self::ForeignPointer => "foreign_pointer",
            Self::GuardedPlaceChanged => "guarded_place_changed",
            Self::LimitExceeded => "limit_exceeded",
            Self::MalformedPointer => "malformed_pointer",
            Self::MaskOutsideSecret => "mask_outside_secret",
            Self::MaskWithoutValue => "mask_without_value",
            Self::NotAString => "not_a_string",
            Self::PointerOutsideSecret => "pointer_outside_secret",
            Self::ReferenceMismatch => "reference_mismatch",
            Self::ReservedName => "reserved_name",
            Self::StalePlan => "stale_plan",
            Self::Store => "store",
            Self::TypeMismatch => "type_mismatch",
            Self::UnknownProperty => "unknown_property",
            Self::UnknownReference => "unknown_reference",
            Self::UnknownStorage => "unknown_storage",
            Self::UnsupportedSchema => "unsupported_schema",
            Self::WalkDropped => "walk_dropped",
        }
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The problems of a walk, up to a limit.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<Problem>,
    bytes: usize,
    /// Whether there are more than the listed ones.
    more: bool,
}

impl Problems {
    pub(crate) fn push(&mut self, problem: impl FnOnce() -> Problem) {
        if self.more {
            return;
        }
        let problem = problem();
        self.bytes = self.bytes.saturating_add(problem.bytes());
        self.more = self.found.len() == MAX_PROBLEMS || self.bytes > MAX_PROBLEM_BYTES;
        self.found.push(if self.more {
            Problem::new(
                Place::root(),
                ProblemKind::LimitExceeded,
                "more problems than the limit of 10,000, or of 1 MiB for their places",
            )
        } else {
            problem
        });
    }

    /// Adds a problem, unless it repeats the previous one.
    pub(crate) fn push_once(&mut self, problem: impl FnOnce() -> Problem) {
        let problem = problem();
        let is_known = self.found.last().is_some_and(|last| {
            last.kind == problem.kind
                && last.coordinate == problem.coordinate
                && last.place == problem.place
        });
        if !is_known {
            self.push(|| problem);
        }
    }

    /// The error of the problems found, sorted by place.
    pub(crate) fn into_result(self) -> Result<(), ConnectorError> {
        let mut problems = self.found;
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        ConnectorError::of(problems).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn problem(kind: ErrorKind) -> Problem {
        Problem::of_store(
            Place::root().child("password"),
            crate::Error::new(kind, "no answer").with_coordinate("airbyte_x_v1"),
        )
    }

    #[test]
    fn retryable_only_if_all_are() {
        let busy = problem(ErrorKind::Throttled);
        let gone = problem(ErrorKind::NotFound);
        let error = |problems: Vec<Problem>| ConnectorError::of(problems).unwrap();
        assert!(error(vec![busy.clone()]).is_retryable());
        assert!(!error(vec![busy.clone(), gone]).is_retryable());
        let own = Problem::new(Place::root(), ProblemKind::TypeMismatch, "wrong");
        assert!(!error(vec![busy, own]).is_retryable());
        assert!(ConnectorError::of(Vec::new()).is_none());
    }

    #[test]
    fn display_names_every_place_with_its_coordinate() {
        let error = ConnectorError::of(vec![
            problem(ErrorKind::NotFound),
            Problem::new(
                Place::root().child("a").index(1),
                ProblemKind::TypeMismatch,
                "wrong",
            ),
        ])
        .unwrap();
        let shown = error.to_string();
        for part in ["/password", "airbyte_x_v1", "not_found", "/a/1", "wrong"] {
            assert!(shown.contains(part), "{part} is missing in {shown}");
        }
        assert_eq!(error.problems()[0].coordinate(), Some("airbyte_x_v1"));
    }

    #[test]
    fn a_million_problems_take_the_room_of_ten_thousand() {
        let mut problems = Problems::default();
        for _ in 0..1_000_000 {
            problems.push(|| Problem::new(Place::root(), ProblemKind::TypeMismatch, "wrong"));
        }
        let error = problems.into_result().unwrap_err();
        assert_eq!(error.problems().len(), MAX_PROBLEMS + 1);
        assert!(error.to_string().len() < 1000);
    }

    #[test]
    fn problems_below_a_long_name_take_bounded_room() {
        let above = Place::root().child(&"x".repeat(10_000));
        let mut problems = Problems::default();
        for index in 0..10_000 {
            problems.push(|| Problem::new(above.index(index), ProblemKind::TypeMismatch, "wrong"));
        }
        let error = problems.into_result().unwrap_err();
        let bytes: usize = error
            .problems()
            .iter()
            .map(|problem| problem.place().as_str().len())
            .sum();
        assert!(bytes <= MAX_PROBLEM_BYTES);
        assert_eq!(error.problems()[0].kind(), ProblemKind::LimitExceeded);
    }
}
