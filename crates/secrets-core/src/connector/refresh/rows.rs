//! What a refresh needs from the caller's database.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::record::RefreshRecord;
use crate::Result;
use crate::connector::{Record, RecordState};

/// The right to refresh one row, until another process takes it with a higher epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The row's id.
    pub row: String,
    /// Grows by one whenever the lease is taken.
    pub epoch: i64,
}

impl Lease {
    /// Creates a lease, for implementations of [`RefreshRows`].
    #[must_use]
    pub fn new(row: String, epoch: i64) -> Self {
        Self { row, epoch }
    }
}

/// The outcome of taking a lease.
#[derive(Clone, Debug)]
pub enum Taken {
    /// Another process holds it, and it has not expired.
    Busy,
    /// It is ours.
    Held {
        /// The lease.
        lease: Lease,
        /// What an earlier holder left open: it crashed, or lost its lease.
        record: Option<RefreshRecord>,
    },
}

/// The outcome of saving a refreshed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshSaved {
    /// The lease is no longer ours, or has no record. Nothing has changed.
    LeaseLost,
    /// The row has another revision, or is gone. Nothing has changed.
    RowMoved,
    /// Row, lease and outbox have changed together; the row has this revision.
    Saved(i64),
}

/// The record of secrets that are to be deleted, in the outbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// Its id.
    pub id: Uuid,
    /// Its secrets.
    pub record: Record,
    /// Which of them to delete.
    pub state: RecordState,
}

impl Ended {
    /// Creates an entry of the outbox, for implementations of [`RefreshRows`].
    #[must_use]
    pub fn new(id: Uuid, record: Record, state: RecordState) -> Self {
        Self { id, record, state }
    }
}

/// The caller's rows, with a lease for each and an outbox. `secret-persistence-db` implements it for
/// Postgres and SQLite.
///
/// Each method is one transaction, and durable when it returns. A lease expires by the database's
/// clock, so the clocks of the processes do not matter. Every method that takes a [`Lease`] is a
/// compare-and-swap on its epoch; it does not compare the expiry, because a lease that nobody has
/// taken is still its holder's.
///
/// # Errors
/// All methods fail only if the database does, and the outcome is then unknown; or because of a record
/// that cannot be read, and then nothing has changed.
#[async_trait]
pub trait RefreshRows: fmt::Debug + Send + Sync + 'static {
    /// The revision and saved configuration of a row, or `None`. Every save of the row, by anyone,
    /// changes the revision. The configuration is the JSON text as it is stored: a parsed and printed
    /// one would have lost digits of long numbers.
    async fn read(&self, row: &str) -> Result<Option<(i64, String)>>;

    /// Takes the lease of a row if it is free or has expired. The open record stays. One that cannot be
    /// read is an error, and then the lease is not taken.
    async fn take(&self, row: &str, duration: Duration) -> Result<Taken>;

    /// Extends a lease to this duration from now. Returns whether it was still ours.
    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<bool>;

    /// Frees a lease that is still ours. The open record stays.
    async fn release(&self, lease: &Lease) -> Result<()>;

    /// Stores the open record of a lease without one, and extends the lease. Returns whether it was
    /// still ours.
    async fn open(&self, lease: &Lease, record: &RefreshRecord, duration: Duration)
    -> Result<bool>;

    /// Saves the row if it has this revision and the lease is ours and has a record; removes the
    /// record and adds these entries to the outbox, all in one transaction. `config` is the text that
    /// was read, with other pointers, and is to be stored as it is.
    async fn save(
        &self,
        lease: &Lease,
        revision: i64,
        config: &str,
        ended: &[Ended],
    ) -> Result<RefreshSaved>;

    /// Removes the open record of a lease and adds these entries to the outbox, in one transaction.
    /// Returns whether the lease was ours and had a record.
    async fn close(&self, lease: &Lease, ended: &[Ended]) -> Result<bool>;

    /// The rows with an open record and no holder: the lease is free or has expired.
    async fn unfinished(&self) -> Result<Vec<String>>;

    /// The outbox. An entry that cannot be read is an error that names it, so that the others are not
    /// held up.
    async fn ended(&self) -> Result<Vec<Result<Ended>>>;

    /// Removes an entry of the outbox.
    async fn forget(&self, id: Uuid) -> Result<()>;
}
