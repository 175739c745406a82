//! Staged changes: their secrets are written, and nothing is deleted until the caller has saved or
//! not.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::cleanup::{Cleanup, Reason, Undeleted};
use super::error::{ConnectorError, Problem, ProblemKind};
use super::place::Place;
use super::pointer::pointers;
use super::record::Record;
use super::secret_json::SecretJson;
use super::secrets::{ActingSecrets, EventPlaces};
use crate::ext::write_unique;
use crate::{
    Coordinate, Error, ErrorKind, ManagedCoordinate, Operation, SecretPersistence, Timestamp,
    Write, Written,
};

/// A planned change that has not written anything yet.
///
/// Between the plan and the writes, the caller stores [`record`](Self::record) in its outbox, so
/// that a crash at any later moment can be healed exactly.
#[must_use = "nothing is written before `stage`"]
pub struct Planned {
    pub(super) secrets: ActingSecrets,
    pub(super) change: Change,
    pub(super) writes: Vec<Write>,
}

/// A change without its values.
pub(super) struct Change {
    /// The new configuration; `None` if the row is to be deleted.
    pub(super) config: Option<Value>,
    /// The saved configuration; `None` if the row is to be created. It may contain raw secrets.
    pub(super) saved: Option<SecretJson>,
    pub(super) record: Record,
    pub(super) released_references: Vec<Uuid>,
}

impl Change {
    /// The place of each secret's pointer in the new configuration.
    fn places(&self) -> HashMap<ManagedCoordinate, Place> {
        // A split configuration has no malformed pointer.
        let found = self.config.as_ref().map(pointers);
        let found = found.and_then(Result::ok).unwrap_or_default();
        found
            .into_iter()
            .filter_map(|(place, pointer)| match pointer.coordinate? {
                Coordinate::Managed(coordinate) => Some((coordinate, place)),
                Coordinate::External(_) => None,
            })
            .collect()
    }
}

impl Planned {
    /// What the change will write and supersede, for the outbox.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.change.record
    }

    /// The places of the new configuration at which it points to what the change will write.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let mut places = self.change.places();
        let writes = self.change.record.writes().iter();
        writes
            .filter_map(|write| places.remove(&write.coordinate))
            .collect()
    }

    /// Sets an expiry for the written secrets, for short-lived ones of the [ephemeral
    /// scope](crate::Scope::ephemeral).
    pub fn with_expires(mut self, expires: Option<Timestamp>) -> Self {
        for write in &mut self.writes {
            write.expires = expires;
        }
        self
    }

    /// Writes the secrets. Deletes nothing, unless a write fails: then it deletes everything that
    /// it attempted to write.
    ///
    /// A cancelled call leaves at worst unreferenced secrets: the healer finds them through the
    /// record, the collector without it.
    ///
    /// # Errors
    /// An error with every place whose write failed, and every secret that could not be deleted
    /// again; `StalePlan` if the plan is older than [`ConnectorOptions::deadline`].
    ///
    /// [`ConnectorOptions::deadline`]: crate::connector::ConnectorOptions::deadline
    pub async fn stage(self) -> Result<Staged, ConnectorError> {
        self.stage_at(Timestamp::now()).await
    }

    /// Writes the secrets of a plan that was made at this moment.
    pub(super) async fn stage_now(self) -> Result<Staged, ConnectorError> {
        let now = self.change.record.planned();
        self.stage_at(now).await
    }

    async fn stage_at(self, now: Timestamp) -> Result<Staged, ConnectorError> {
        let Self {
            secrets,
            change,
            writes,
        } = self;
        if !writes.is_empty() {
            let mut unended = Unended::new(&change.record, "staging stopped midway");
            let written = write(&secrets, &change, &writes, now).await;
            unended.disarm();
            written?;
        }
        Ok(Staged {
            unended: Unended::new(
                &change.record,
                "a staged change was dropped without commit, abort or settle",
            ),
            secrets,
            change,
        })
    }
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planned")
            .field("record", &self.change.record)
            .finish_non_exhaustive()
    }
}

/// A change whose secrets are written and whose configuration may not be saved yet.
///
/// End it with [`commit`](Self::commit) once the caller has saved [`config`](Self::config), with
/// [`abort`](Self::abort) if the caller certainly has not and never will, and with
/// [`settle`](Self::settle) if the caller does not know.
#[must_use = "it must end in `commit`, `abort` or `settle`"]
pub struct Staged {
    secrets: ActingSecrets,
    change: Change,
    unended: Unended,
}

impl Staged {
    /// The configuration to save, with pointers instead of secrets. `null` if the change deletes
    /// it.
    #[must_use]
    pub fn config(&self) -> &Value {
        self.change.config.as_ref().unwrap_or(&Value::Null)
    }

    /// What the change has written and will supersede.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.change.record
    }

    /// The configuration and the record of a change that another process may end: the caller's
    /// outbox has the record, and [`heal`](ActingSecrets::heal) ends it according to the row.
    #[must_use = "dropping the record leaves the change to the collector"]
    pub fn into_parts(mut self) -> (Value, Record) {
        self.unended.disarm();
        let config = self.change.config.take().unwrap_or(Value::Null);
        (config, self.change.record.clone())
    }

    /// Deletes the secrets that the saved change superseded, with the store's configured recovery
    /// window, or keeps them for [`ConnectorOptions::retention`].
    ///
    /// Only for a change that is certainly saved. A failed delete does not fail the change: it is
    /// in the result.
    ///
    /// # Errors
    /// Only if the audit is required and its sink fails.
    ///
    /// [`ConnectorOptions::retention`]: crate::connector::ConnectorOptions::retention
    pub async fn commit(mut self) -> Result<Cleanup, ConnectorError> {
        let mut cleanup = self
            .secrets
            .supersede(&self.change.record, Timestamp::now())
            .await?;
        self.unended.disarm();
        cleanup.released_references = std::mem::take(&mut self.change.released_references);
        Ok(cleanup)
    }

    /// Deletes the secrets that the change wrote, immediately if store and permissions allow it.
    ///
    /// Only for a change that is certainly not saved and will not be: its compare-and-swap was
    /// refused, or its record is claimed. No other change ever uses the same names, so this cannot
    /// affect other changes.
    ///
    /// # Errors
    /// Only if the audit is required and its sink fails.
    pub async fn abort(mut self) -> Result<Cleanup, ConnectorError> {
        let cleanup = self
            .secrets
            .undo(&self.change.record, Reason::Attempted, Timestamp::now())
            .await?;
        self.unended.disarm();
        Ok(cleanup)
    }

    /// Ends a change whose save has an unknown outcome, according to the current row; `None` if
    /// there is no row.
    ///
    /// Read the row in a way that waits for a concurrent save: with a lock (`SELECT … FOR UPDATE`),
    /// or after the database has ended the transaction. A save that arrives after a plain read
    /// would find its secrets deleted.
    ///
    /// # Errors
    /// Only if the audit is required and its sink fails.
    pub async fn settle(mut self, current: Option<&Value>) -> Result<Settled, ConnectorError> {
        if current == self.change.config.as_ref() {
            return self.commit().await.map(Settled::Committed);
        }
        if current == self.change.saved.as_deref() {
            return self.abort().await.map(Settled::Aborted);
        }
        self.unended.disarm();
        tracing::warn!(
            writes = self.change.record.writes().len(),
            supersedes = self.change.record.supersedes().len(),
            "the row equals neither the saved nor the staged configuration: its secrets are left to the collector",
        );
        Ok(Settled::Undecided)
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged")
            .field("record", &self.change.record)
            .finish_non_exhaustive()
    }
}

/// The outcome of a change that was settled.
#[derive(Clone, Debug)]
#[must_use = "it names what could not be deleted"]
pub enum Settled {
    /// It was not saved, and the secrets that it wrote are deleted.
    Aborted(Cleanup),
    /// It was saved, and the secrets that it superseded are deleted.
    Committed(Cleanup),
    /// Others have changed the row since, and nothing is deleted. The healer decides by the record,
    /// the collector without it.
    Undecided,
}

/// Writes a change's secrets, and deletes them if any write fails.
async fn write(
    secrets: &ActingSecrets,
    change: &Change,
    writes: &[Write],
    now: Timestamp,
) -> Result<(), ConnectorError> {
    let storage_id = secrets.options().policy.write_storage.as_ref();
    let deadline = secrets.options().deadline;
    if change.record.before(deadline, now).is_none() {
        return Err(stale().into());
    }
    // Each has a name that was made for it, so no two are the same.
    let write_all =
        |store: Arc<dyn SecretPersistence>| async move { write_unique(&*store, writes).await };
    // Where the store could not even be opened, nothing was attempted.
    let results = match secrets.stores().call(storage_id, write_all).await {
        Ok(Some(results)) => results,
        Ok(None) => return Err(unknown_storage().into()),
        Err(error) => return Err(Problem::of_store(Place::root(), error).into()),
    };

    if results.iter().all(Result::is_ok) && !secrets.stores().is_audited() {
        return Ok(());
    }
    Box::pin(audit_and_undo(secrets, change, results)).await
}

/// Sends the audit events of the writes. After a failure, deletes everything that may have been written.
async fn audit_and_undo(
    secrets: &ActingSecrets,
    change: &Change,
    results: Vec<crate::Result<Written>>,
) -> Result<(), ConnectorError> {
    let places = change.places();
    let mut events = secrets.events(Operation::Write);
    let mut failed = Vec::new();
    let mut attempted = Vec::new();
    for (location, result) in change.record.writes().iter().zip(results) {
        let failure = result.as_ref().err().map(Error::kind);
        let mut at = EventPlaces::default();
        if let Some(place) = places.get(&location.coordinate) {
            events.place(&mut at, place);
        }
        events.push_at(failure, || (location.clone().into(), at));
        if let Err(error) = result {
            let left = may_have_written(error.kind());
            failed.push((&location.coordinate, error));
            if !left {
                continue;
            }
        }
        attempted.push(location.clone());
    }
    let unaudited = events.record().await.err();
    if failed.is_empty() && unaudited.is_none() {
        return Ok(());
    }
    let place =
        |coordinate: &ManagedCoordinate| places.get(coordinate).cloned().unwrap_or_default();
    let mut problems: Vec<Problem> = failed
        .into_iter()
        .map(|(coordinate, error)| {
            Problem::of_store(place(coordinate), error).with_coordinate(coordinate.shared())
        })
        .collect();
    problems.extend(unaudited.iter().flat_map(|error| error.problems().to_vec()));
    match secrets.clean_up(&attempted, Reason::Attempted).await {
        Ok(cleanup) => {
            problems.extend(
                cleanup
                    .failed
                    .into_iter()
                    .map(|Undeleted { location, error }| {
                        Problem::new(
                            place(&location.coordinate),
                            ProblemKind::Store,
                            "a secret was written and could not be deleted again",
                        )
                        .with_coordinate(location.coordinate.shared())
                        .with_error(error)
                    }),
            );
        }
        Err(unaudited) => problems.extend_from_slice(unaudited.problems()),
    }
    ConnectorError::of(problems).map_or(Ok(()), Err)
}

fn stale() -> Problem {
    Problem::new(
        Place::root(),
        ProblemKind::StalePlan,
        "the plan is older than the deadline of a change; plan it again",
    )
}

fn unknown_storage() -> Problem {
    Problem::new(
        Place::root(),
        ProblemKind::UnknownStorage,
        "no storage has the id for new secrets; add settings for it",
    )
}

/// Whether a failed write may have left something. A write that the contract refuses before any
/// request has not, and a name with another value belongs to another change.
fn may_have_written(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::AlreadyExists
            | ErrorKind::InvalidCoordinate
            | ErrorKind::InvalidValue
            | ErrorKind::PayloadTooLarge
            | ErrorKind::Unsupported
    )
}

/// Logs a warning when a change is dropped before its end.
struct Unended {
    message: &'static str,
    writes: usize,
    supersedes: usize,
}

impl Unended {
    fn new(record: &Record, message: &'static str) -> Self {
        Self {
            message,
            writes: record.writes().len(),
            supersedes: record.supersedes().len(),
        }
    }

    fn disarm(&mut self) {
        (self.writes, self.supersedes) = (0, 0);
    }
}

impl Drop for Unended {
    fn drop(&mut self) {
        let Self {
            message,
            writes,
            supersedes,
        } = *self;
        if writes + supersedes > 0 {
            tracing::warn!(writes, supersedes, "{message}: heal its record, or collect");
        }
    }
}
