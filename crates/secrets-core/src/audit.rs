//! Who did what to which secret: one event per coordinate and operation, never a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::connector::Place;
use crate::{Coordinate, ErrorKind, Location, Operation, Result, Timestamp};

/// The actor in audit events, such as a user's id or a job's.
///
/// The name is for people and programs that read the audit trail; this library does not interpret
/// it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Actor(Arc<str>);

impl Actor {
    /// Creates an actor with this name.
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
/// The operation is [`Read`](Operation::Read), [`Write`](Operation::Write) or
/// [`Delete`](Operation::Delete): it reveals, creates or ends a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEvent {
    /// When the store answered.
    pub at: Timestamp,
    /// The actor.
    pub actor: Actor,
    /// The operation.
    pub operation: Operation,
    /// The secret.
    pub location: Location,
    /// The places of the configuration where its pointer stands, if a configuration is the reason
    /// and the places are known. Of several configurations in one call, each distinct place once.
    ///
    /// At most 64 KiB of their text in one event and 1 MiB in all events of a call:
    /// [`places_omitted`](Self::places_omitted) counts the others. Places share their path in memory,
    /// but a sink writes every one in full.
    pub places: Vec<Place>,
    /// How many places were left out. A place of several configurations counts for each.
    pub places_omitted: usize,
    /// The id of the request that caused it, if the caller has one.
    pub request: Option<Arc<str>>,
    /// The error, or `None` on success.
    pub failure: Option<ErrorKind>,
}

impl AuditEvent {
    /// Creates the event of a successful operation on a secret of the default store, for a program
    /// that uses a store directly and calls [`Stores::record`](crate::Stores::record).
    #[must_use]
    pub fn new(actor: Actor, operation: Operation, coordinate: Coordinate) -> Self {
        Self {
            at: Timestamp::now(),
            actor,
            operation,
            location: Location::new(coordinate),
            places: Vec::new(),
            places_omitted: 0,
            request: None,
            failure: None,
        }
    }

    /// Sets the id of the request that caused it.
    #[must_use]
    pub fn with_request(mut self, id: Option<Arc<str>>) -> Self {
        self.request = id;
        self
    }

    /// Sets the error, or `None` on success.
    #[must_use]
    pub fn with_failure(mut self, failure: Option<ErrorKind>) -> Self {
        self.failure = failure;
        self
    }
}

/// The destination of audit events: a table, a log shipper, a queue.
#[async_trait]
pub trait AuditSink: Send + Sync + 'static {
    /// Records the events of one operation, in the order of its coordinates.
    ///
    /// # Errors
    /// If any event may not have been recorded. With [`AuditMode::Required`] the operation then
    /// fails.
    async fn record(&self, events: &[AuditEvent]) -> Result<()>;
}

/// What happens to an operation if the audit sink fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditMode {
    /// The failure is logged and [counted](crate::Stores::unaudited), and the operation continues.
    BestEffort,
    /// The operation fails before it returns any value.
    Required,
}

/// What is known about the reads of secrets, as a rule from a ledger.
#[async_trait]
pub trait ReadHistory: Send + Sync + 'static {
    /// Finds the last read of each of these names that returned a value. A managed name is
    /// the same secret in every storage; of a name that others manage, only reads from the default storage
    /// count. One call costs one request, however many names there are.
    ///
    /// # Errors
    /// If the history cannot be read. A name without a read is no error.
    async fn last_reads(&self, names: &BTreeSet<Coordinate>) -> Result<LastReads>;
}

/// The last reads of some names, and how far back the history goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastReads {
    /// The last read of each name that has one.
    pub reads: BTreeMap<Coordinate, LastRead>,
    /// From when on every read is known that was recorded; `None` if nobody can tell, or nothing was
    /// recorded yet. A name that is not in `reads` was not read since then if every process records with
    /// [`AuditMode::Required`], without a pause; it may have been read before.
    pub since: Option<Timestamp>,
}

/// A read that returned a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastRead {
    /// When the store answered.
    pub at: Timestamp,
    /// Who; `None` if the record cannot be understood.
    pub actor: Option<Actor>,
    /// Whether the record is genuine. One that is not may hide an earlier read, or pretend one.
    pub genuine: bool,
}

impl LastRead {
    /// A read at this time by this actor.
    #[must_use]
    pub fn new(at: Timestamp, actor: Option<Actor>, genuine: bool) -> Self {
        Self { at, actor, genuine }
    }
}
