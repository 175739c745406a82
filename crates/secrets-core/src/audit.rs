//! Who did what to which secret: one event per coordinate and operation, never a value.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Coordinate, ErrorKind, Operation, Result, StorageId, Timestamp};

/// Who acts: the name that goes into audit events, such as a user's id or a job's.
///
/// A name for people and programs that read the audit trail; this library concludes nothing from it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Actor(Arc<str>);

impl Actor {
    /// An actor of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Actor({:?})", self.0)
    }
}

/// One operation on one coordinate.
///
/// Operations are [`Read`](Operation::Read), [`Write`](Operation::Write) and
/// [`Delete`](Operation::Delete): what shows, makes or ends a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEvent {
    /// When it was answered.
    pub at: Timestamp,
    /// Who asked.
    pub actor: Actor,
    /// What was done.
    pub operation: Operation,
    /// In which storage; `None` is the default store.
    pub storage_id: Option<StorageId>,
    /// To which secret.
    pub coordinate: Coordinate,
    /// How it ended: `None` where it succeeded.
    pub failure: Option<ErrorKind>,
}

impl AuditEvent {
    /// An operation on a secret of the default store that succeeded just now, for a program that uses
    /// a store directly and tells [`Stores::record`](crate::Stores::record) itself.
    #[must_use]
    pub fn new(actor: Actor, operation: Operation, coordinate: Coordinate) -> Self {
        Self {
            at: Timestamp::now(),
            actor,
            operation,
            storage_id: None,
            coordinate,
            failure: None,
        }
    }

    /// How it ended: `None` where it succeeded.
    #[must_use]
    pub fn with_failure(mut self, failure: Option<ErrorKind>) -> Self {
        self.failure = failure;
        self
    }
}

/// Where audit events go: a table, a log shipper, a queue.
#[async_trait]
pub trait AuditSink: Send + Sync + 'static {
    /// Records the events of one operation, in the order in which it named the coordinates.
    ///
    /// # Errors
    /// Where any of them may not have been recorded. With [`AuditMode::Required`] the operation then
    /// fails.
    async fn record(&self, events: &[AuditEvent]) -> Result<()>;
}

/// What an audit sink that fails means for the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditMode {
    /// The failure is logged and [counted](crate::Stores::unaudited), and the operation goes on.
    BestEffort,
    /// The operation fails before any value is returned.
    Required,
}
