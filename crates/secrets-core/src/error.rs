//! The error of a failed store operation.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Operation;

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store operation failed, in terms that a caller can act on.
///
/// Match the kind, never the message. New kinds may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The name already has another value; a managed coordinate names one value forever.
    AlreadyExists,
    /// A concurrent change of the same secret; the same call may succeed later.
    Conflict,
    /// The store returned something that was not written: moved, swapped, altered or damaged.
    Integrity,
    /// A setting is missing, contradictory or refused. Nothing was sent.
    InvalidConfig,
    /// The name is neither a managed coordinate nor a valid external one, or not valid in this
    /// store.
    InvalidCoordinate,
    /// The store does not accept the value, for a reason other than its size.
    InvalidValue,
    /// The store does not have a secret of this name.
    NotFound,
    /// The value is larger than the store accepts.
    PayloadTooLarge,
    /// The name is scheduled for deletion: it can neither be read nor be reused until it is
    /// restored or deleted.
    PendingDeletion,
    /// The caller is authenticated but lacks a permission.
    PermissionDenied,
    /// The store requests a lower rate.
    Throttled,
    /// The caller is not authenticated: credentials are missing, refused or expired.
    Unauthenticated,
    /// The store did not answer, or cannot serve at present.
    Unavailable,
    /// An unknown response; a defect in the store or in this library.
    Unexpected,
    /// The store does not support the operation.
    Unsupported,
}

impl ErrorKind {
    /// The kind in `snake_case`, stable, for logs, metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Integrity => "integrity",
            Self::InvalidConfig => "invalid_config",
            Self::InvalidCoordinate => "invalid_coordinate",
            Self::InvalidValue => "invalid_value",
            Self::NotFound => "not_found",
            Self::PayloadTooLarge => "payload_too_large",
            Self::PendingDeletion => "pending_deletion",
            Self::PermissionDenied => "permission_denied",
            Self::Throttled => "throttled",
            Self::Unauthenticated => "unauthenticated",
            Self::Unavailable => "unavailable",
            Self::Unexpected => "unexpected",
            Self::Unsupported => "unsupported",
        }
    }

    /// Whether a read with this error shows that the secret is permanently gone.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        matches!(self, Self::NotFound | Self::PendingDeletion)
    }

    /// Whether the same call may succeed later without any change.
    #[must_use]
    const fn is_retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Throttled | Self::Unavailable)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The failure of one store operation.
///
/// It contains the operation, the store, the coordinate, the reason and what to do next. It never
/// contains a secret value, a credential or a response body; code that creates an error must ensure
/// this, also for the [`source`](StdError::source). Cloning is cheap and shares everything.
///
/// ```
/// use secret_persistence_core::{Error, ErrorKind, Operation};
///
/// let error = Error::new(ErrorKind::PermissionDenied, "the role may not read this secret")
///     .with_operation(Operation::Read)
///     .with_store("aws us-east-1")
///     .with_hint("grant secretsmanager:GetSecretValue on it");
/// assert_eq!(error.kind(), ErrorKind::PermissionDenied);
/// assert!(!error.is_retryable());
/// assert_eq!(
///     error.to_string(),
///     "read in aws us-east-1: the role may not read this secret (permission_denied); \
///      grant secretsmanager:GetSecretValue on it"
/// );
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    retryable: bool,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    operation: Option<Operation>,
    store: Option<Arc<str>>,
    coordinate: Option<Arc<str>>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// The longest accepted wait: a longer one is a fault of a proxy or of a malicious server.
    pub const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

    /// Creates an error from a kind and our own message: what is wrong, in lower case and without a
    /// full stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            retryable: kind.is_retryable(),
            message: message.into(),
            hint: None,
            operation: None,
            store: None,
            coordinate: None,
            retry_after: None,
            source: None,
        }))
    }

    /// Replaces the message.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the operation.
    #[must_use]
    pub fn with_operation(mut self, operation: Operation) -> Self {
        self.0.operation = Some(operation);
        self
    }

    /// Adds the store, as its `Display` shows it.
    #[must_use]
    pub fn with_store(mut self, store: impl Into<Arc<str>>) -> Self {
        self.0.store = Some(store.into());
        self
    }

    /// Adds the coordinate, which is not a secret.
    #[must_use]
    pub fn with_coordinate(mut self, coordinate: impl Into<Arc<str>>) -> Self {
        self.0.coordinate = Some(coordinate.into());
        self
    }

    /// Adds how long the store asked to wait, at most [`Self::LONGEST_WAIT`]: a server may send any
    /// number, and not every number can be added to the current time.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait.min(Self::LONGEST_WAIT));
        self
    }

    /// Overrides whether the kind is retryable.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Adds the cause. Neither its `Display` nor its `Debug` may show a value, a credential or a
    /// response body.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later without any change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The message, without the context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The operation.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        self.0.operation
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> Option<&str> {
        self.0.store.as_deref()
    }

    /// The coordinate.
    #[must_use]
    pub fn coordinate(&self) -> Option<&str> {
        self.0.coordinate.as_deref()
    }

    /// The cause, for an error of another type that replaces this one.
    #[must_use]
    pub fn into_source(self) -> Option<Arc<dyn StdError + Send + Sync>> {
        self.0.source
    }

    /// How long the store asked to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            message,
            hint,
            operation,
            store,
            coordinate,
            ..
        } = &*self.0;
        if let Some(operation) = operation {
            write!(f, "{operation}")?;
        }
        if let Some(coordinate) = coordinate {
            write!(
                f,
                "{}`{coordinate}`",
                if operation.is_some() { " " } else { "" }
            )?;
        }
        if let Some(store) = store {
            let separator = if operation.is_some() || coordinate.is_some() {
                " "
            } else {
                ""
            };
            write!(f, "{separator}in {store}")?;
        }
        if operation.is_some() || coordinate.is_some() || store.is_some() {
            f.write_str(": ")?;
        }
        write!(f, "{message} ({kind})")?;
        if let Some(hint) = hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("message", &inner.message)
            .field("hint", &inner.hint)
            .field("operation", &inner.operation)
            .field("store", &inner.store)
            .field("coordinate", &inner.coordinate)
            .field("retryable", &inner.retryable)
            .field("retry_after", &inner.retry_after)
            .field("source", &inner.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_operation_coordinate_store_and_remedy_once() {
        let error = Error::new(
            ErrorKind::NotFound,
            "the store does not have a secret of this name",
        )
        .with_operation(Operation::Read)
        .with_coordinate("airbyte_workspace_x_secret_y_v1")
        .with_store("memory")
        .with_hint("copy it again")
        .with_source(std::io::Error::other("cause"));
        assert_eq!(
            error.to_string(),
            "read `airbyte_workspace_x_secret_y_v1` in memory: \
             the store does not have a secret of this name (not_found); copy it again"
        );
        // The cause is only in `source`, not also in `Display`.
        assert_eq!(
            StdError::source(&error).map(ToString::to_string).as_deref(),
            Some("cause")
        );
    }

    #[test]
    fn kinds_decide_about_retry_until_overruled() {
        assert!(Error::new(ErrorKind::Throttled, "slow down").is_retryable());
        assert!(!Error::new(ErrorKind::NotFound, "missing").is_retryable());
        assert!(
            !Error::new(ErrorKind::Unavailable, "gone")
                .with_retryable(false)
                .is_retryable()
        );
    }
}
