//! How a run ends: the exit statuses, and the failures that cause them.

use std::error::Error as StdError;
use std::fmt;

use secret_persistence::{Error, ErrorKind, Operation};
use secret_persistence_migrate::{MigrateError, MigrateErrorKind};

/// The exit status of the process. Documented in `--help` and in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Everything requested is done and correct.
    Done = 0,
    /// The run finished and found a problem: a difference, a conflict, a failed step.
    Found = 1,
    /// An argument, a URL, a setting, a credential, a permission or an input file is wrong and must
    /// be corrected first.
    Input = 2,
    /// Refused or stopped until the operator decides or confirms something.
    Undecided = 3,
    /// A store, a database or a file failed midway. Run the same command again to continue.
    Failed = 4,
    /// Stopped by Ctrl-C or SIGTERM. Run the same command again to continue.
    Interrupted = 130,
}

/// The table of exit statuses, as `--help` prints it.
pub(crate) const EXIT_STATUSES: &str = "\
Exit status:
    0  done, everything in order
    1  finished and found a problem (a difference, a conflict, a failed step), which is listed
    2  an argument, URL, setting, credential, permission or input file is wrong; correct it first
    3  refused or stopped until you decide or confirm what the message says
    4  a store, database or file failed midway; the same command continues from there
  130  stopped by Ctrl-C or SIGTERM; the same command continues from there";

/// Why a command ended early: what is wrong, where, and the remedy. It never contains a value or a
/// credential.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result type of this program.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure with the given status.
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            source: None,
        }
    }

    /// The operator's input is wrong; nothing was changed.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(Status::Input, message)
    }

    /// The operator must decide something first; nothing was changed.
    pub(crate) fn undecided(message: impl Into<String>) -> Self {
        Self::new(Status::Undecided, message)
    }

    /// Something failed midway.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Status::Failed, message)
    }

    /// Adds the cause, which must not contain values or credentials either.
    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Names the option, file or row that failed.
    pub(crate) fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The failure as a store's error, for callers that know only those.
    pub(crate) fn into_store_error(self) -> Error {
        Error::new(ErrorKind::InvalidConfig, chain(&self))
    }

    /// The exit code of the process.
    pub(crate) fn status(&self) -> Status {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl Status {
    /// The exit status of a store's error, the same for every store and command. A store that
    /// requests credentials with its first request is treated like one that requests them when it
    /// opens.
    pub(crate) fn of(error: &Error) -> Self {
        match error.kind() {
            // Something missing when a store opens is misspelt: a database, a mount, a vault.
            ErrorKind::NotFound if error.operation() == Some(Operation::Open) => Self::Input,
            kind if is_input(kind) => Self::Input,
            _ => Self::Failed,
        }
    }

    /// The exit status if nothing succeeded and these are the reasons: the same as that of a store
    /// that does not open for such a reason. `None` if there are none, or they need different
    /// actions.
    pub(crate) fn of_all(kinds: &[ErrorKind]) -> Option<Self> {
        let all = |is_it: fn(&ErrorKind) -> bool| !kinds.is_empty() && kinds.iter().all(is_it);
        if all(|kind| is_input(*kind)) {
            Some(Self::Input)
        } else if all(|kind| *kind == ErrorKind::Unavailable) {
            Some(Self::Failed)
        } else {
            None
        }
    }
}

/// Whether the operator must correct something before anything can be done. A missing permission is
/// one of these: some stores do not tell it from a name that is misspelt.
fn is_input(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidConfig
            | ErrorKind::InvalidCoordinate
            | ErrorKind::PermissionDenied
            | ErrorKind::Unauthenticated
    )
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut failure = Self::new(Status::of(&error), error.to_string());
        if let Some(source) = StdError::source(&error) {
            failure.source = Some(Box::new(Cause(chain(source))));
        }
        failure
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        let of_store = StdError::source(&error).and_then(|source| source.downcast_ref::<Error>());
        let status = match error.kind() {
            MigrateErrorKind::ReadHistory | MigrateErrorKind::Store if of_store.is_some() => {
                of_store.map_or(Status::Failed, Status::of)
            }
            MigrateErrorKind::Journal
            | MigrateErrorKind::Lapsed
            | MigrateErrorKind::ReadHistory
            | MigrateErrorKind::Store
            | MigrateErrorKind::Unavailable => Status::Failed,
            MigrateErrorKind::Undecided => Status::Undecided,
            _ => Status::Input,
        };
        Self::new(status, chain(&error))
    }
}

/// The causes of a store's error, already joined: the store's own source chain is not `'static`.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Cause {}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_fault_has_the_same_status_wherever_it_shows() {
        for (kind, operation, status) in [
            (ErrorKind::InvalidConfig, Operation::Open, Status::Input),
            (ErrorKind::InvalidConfig, Operation::List, Status::Input),
            (ErrorKind::Unauthenticated, Operation::Open, Status::Input),
            (ErrorKind::Unauthenticated, Operation::List, Status::Input),
            (ErrorKind::NotFound, Operation::Open, Status::Input),
            (ErrorKind::NotFound, Operation::Read, Status::Failed),
            (ErrorKind::Unavailable, Operation::Open, Status::Failed),
            (ErrorKind::PermissionDenied, Operation::Open, Status::Input),
            (ErrorKind::PermissionDenied, Operation::List, Status::Input),
        ] {
            let error = Error::new(kind, "so it is").with_operation(operation);
            assert_eq!(Failure::from(error.clone()).status(), status, "{error}");
            let within = Failure::from(MigrateError::from(error.clone()));
            assert_eq!(within.status(), status, "{error}");
        }
        let denied = [ErrorKind::PermissionDenied, ErrorKind::Unauthenticated];
        assert_eq!(Status::of_all(&denied), Some(Status::Input));
        let silent = [ErrorKind::Unavailable; 2];
        assert_eq!(Status::of_all(&silent), Some(Status::Failed));
        let mixed = [ErrorKind::Unavailable, ErrorKind::PermissionDenied];
        assert_eq!(Status::of_all(&mixed), None);
        assert_eq!(Status::of_all(&[]), None);
    }
}
