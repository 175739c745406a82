//! Why a migration could not continue.
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::Run;

/// The result of operations on a journal, a source of configurations or a store.
pub type MigrateResult<T> = Result<T, MigrateError>;

/// The kind of failure, which determines an exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MigrateErrorKind {
    /// The journal belongs to another run: other stores, or another owner.
    AnotherRun,
    /// The configurations could not be read, parsed or updated.
    Configurations,
    /// The journal could not be read or written.
    Journal,
    /// Another process has taken over a page of a shared journal, so nothing was written.
    Lapsed,
    /// Who read a secret last could not be found out: the ledger failed.
    ReadHistory,
    /// Source and target are the same store.
    SameStore,
    /// The options contradict each other, or one is missing.
    Settings,
    /// A store failed as a whole, not for a single secret.
    Store,
    /// A database or a file could not be read or written. Repeat the run to continue.
    Unavailable,
    /// Refused until the operator decides something or moves a file.
    Undecided,
}

impl MigrateErrorKind {
    /// The kind in `snake_case`, stable, for logs and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AnotherRun => "another_run",
            Self::Configurations => "configurations",
            Self::Journal => "journal",
            Self::Lapsed => "lapsed",
            Self::ReadHistory => "read_history",
            Self::SameStore => "same_store",
            Self::Settings => "settings",
            Self::Store => "store",
            Self::Unavailable => "unavailable",
            Self::Undecided => "undecided",
        }
    }
}

impl fmt::Display for MigrateErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The failure of a migration as a whole. Failures of single secrets are in the
/// [`Report`](crate::Report).
///
/// It contains names and places, never a value, a credential or a part of a configuration. Code
/// that creates one must ensure this, also for the [`source`](StdError::source).
#[derive(Clone)]
pub struct MigrateError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: MigrateErrorKind,
    message: Cow<'static, str>,
    place: Option<String>,
    hint: Option<Cow<'static, str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl MigrateError {
    /// Creates an error from a kind and our own message: what is wrong, in lower case and without a
    /// full stop.
    pub fn new(kind: MigrateErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            place: None,
            hint: None,
            source: None,
        }))
    }

    /// The error of a [`Journal`](crate::Journal) that was opened for a different run.
    pub fn another_run(journal: impl Into<String>, expected: &Run, found: &Run) -> Self {
        Self::new(
            MigrateErrorKind::AnotherRun,
            format!("the journal belongs to another run: {expected}; this one is {found}"),
        )
        .with_place(journal)
        .with_hint("use the stores, the owner and the workspaces of that run, or another journal")
    }

    /// The configurations are invalid.
    pub(crate) fn configurations(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(MigrateErrorKind::Configurations, message)
    }

    /// The options are wrong.
    pub(crate) fn settings(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(MigrateErrorKind::Settings, message)
    }

    /// A database or a file failed.
    pub(crate) fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(MigrateErrorKind::Unavailable, message)
    }

    /// The operator must decide first.
    pub(crate) fn undecided(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(MigrateErrorKind::Undecided, message)
    }

    /// The error of a key table about a setting, with its hint and cause.
    pub(crate) fn of_setting(error: secret_persistence_core::Error) -> Self {
        let mut ours = Self::settings(error.message().to_owned());
        ours.0.hint = error.hint().map(|hint| hint.to_owned().into());
        ours.0.source = error.into_source();
        ours
    }

    /// The same failure with another kind.
    pub(crate) fn of_kind(mut self, kind: MigrateErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Adds the row.
    pub(crate) fn at_row(self, id: &str) -> Self {
        self.within(format_args!("row `{}`", id.escape_debug()))
    }

    /// Adds the container of the place: the file of a line, the table of a row.
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.0.place = Some(match self.0.place {
            Some(inner) => format!("{place}: {inner}"),
            None => place.to_string(),
        });
        self
    }

    /// Adds the place: a file and line number, a table and row id, a journal.
    #[must_use]
    pub fn with_place(mut self, place: impl Into<String>) -> Self {
        self.0.place = Some(place.into());
        self
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause. Its `Display` and `Debug` must not show a value, a credential or a part of a
    /// configuration.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> MigrateErrorKind {
        self.0.kind
    }

    /// The message, without the context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The place.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }

    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            message,
            place,
            hint,
            ..
        } = &*self.0;
        if let Some(place) = place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{message} ({kind})")?;
        if let Some(hint) = hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.debug_struct("MigrateError")
            .field("kind", &inner.kind)
            .field("message", &inner.message)
            .field("place", &inner.place)
            .field("hint", &inner.hint)
            .field("source", &inner.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl StdError for MigrateError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<secret_persistence_core::Error> for MigrateError {
    fn from(error: secret_persistence_core::Error) -> Self {
        Self::new(MigrateErrorKind::Store, "a store failed").with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::{Error, ErrorKind};

    use super::*;

    #[test]
    fn what_a_key_table_says_keeps_its_hint_and_its_cause() {
        let cause = std::io::Error::other("no such file");
        let theirs = Error::new(ErrorKind::InvalidConfig, "`ssl-root-cert` cannot be read")
            .with_hint("give a PEM file")
            .with_source(cause);
        let ours = MigrateError::of_setting(theirs);
        assert_eq!(ours.kind(), MigrateErrorKind::Settings);
        assert_eq!(ours.message(), "`ssl-root-cert` cannot be read");
        assert_eq!(ours.hint(), Some("give a PEM file"));
        assert_eq!(ours.source().unwrap().to_string(), "no such file");
    }
}
