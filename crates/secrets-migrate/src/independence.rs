//! Proves that deleting from one store does not delete from the other.
//!
//! Two addresses may lead to the same store, or one store may replicate the other: a replica, a
//! mirror outside our control, two tables with triggers. Both sides then always have equal values,
//! and deleting one deletes the only copy.

use std::collections::HashSet;
use std::slice;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use secret_persistence_core::{
    DeleteOptions, ErrorKind, Expiry, ManagedCoordinate, Read, Recovery, Scope, SecretPersistence,
    SecretPersistenceExt, SecretValue, Timestamp, Write,
};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::compare::{Pair, Side};
use crate::copy::to;
use crate::scan::coordinates;
use crate::session::{Session, Unit};
use crate::shared::{Held, check};
use crate::{
    Claim, Failure, JournalEntry, MigrateError, MigrateErrorKind, MigrateResult, Stop, Transition,
};

/// The lifetime of a probe that could not be deleted.
const PROBE_LIFETIME: Duration = Duration::from_secs(3600);

/// The prefix of the journal's notes about probes.
const SORT: &str = "probe ";

/// How many recorded probes are deleted at once. There is one, unless runs were killed.
const NOTES: usize = 100;

/// The interval between checks of a probe during the lag.
const LOOKS: u32 = 5;

/// The store to delete from, and the store that must keep everything.
#[derive(Clone, Copy)]
pub(super) struct Sides<'s> {
    pub(super) emptied: &'s dyn SecretPersistence,
    pub(super) kept: &'s dyn SecretPersistence,
}

/// A deleted secret that is looked at once more.
pub(super) struct Watched {
    /// When the longest lag has passed.
    from: Instant,
    entry: JournalEntry,
    read: Read,
    /// The claim on its page, if the journal is shared.
    claim: Option<Claim>,
}

/// The result of deleting one secret.
#[derive(Default)]
pub(super) struct Deletion {
    /// Whether it was deleted.
    pub(super) deleted: bool,
    /// The new journal entry, if it changes.
    pub(super) transition: Option<Transition>,
}

/// What `rollback` and `retire` do differently with each secret.
#[async_trait]
pub(super) trait Deleter: Send + Sync {
    fn sides(&self) -> Sides<'_>;

    fn recovery(&self) -> Recovery;

    /// The outcome for a secret that stays; `None` if it is to be deleted.
    async fn decide(&self, pair: &Pair) -> Option<Deletion>;

    /// Counts a secret that was deleted.
    fn deleted(&self, pair: &Pair) -> Deletion;
}

impl Session<'_> {
    /// Proves with a probe that neither store replicates the other. A secret written to the store
    /// to delete from must not appear in the other; a secret deleted there must stay in the other.
    ///
    /// The probe is written to the other store only after the first half: a replica that receives a
    /// row twice would stop replicating, and resume when someone repairs it. A store that refuses
    /// writes cannot be probed: the run is refused unless `without_probe` is set, and then the first
    /// delete is made alone and checked like a probe.
    pub(super) async fn prove_independence(&self, sides: Sides<'_>) -> MigrateResult<()> {
        self.clear_probes(sides).await?;
        let probe = ManagedCoordinate::new(&Scope::ephemeral(), Uuid::new_v4(), 1)?;
        // Recorded in the journal, so that a killed run does not leave it behind for long.
        let note = format!("{SORT}{probe}");
        self.journal.put_note(&note, Some("{}")).await?;
        let value = SecretValue::new(Uuid::new_v4().to_string());
        let proved = self.prove_with(sides, &probe, &value).await;
        self.clear_probes(sides).await?;
        proved
    }

    /// Deletes every recorded probe from both stores.
    async fn clear_probes(&self, sides: Sides<'_>) -> MigrateResult<()> {
        for note in self.journal.notes(Some(SORT), NOTES).await? {
            let Some(name) = note.key.strip_prefix(SORT) else {
                return Ok(());
            };
            let probe = ManagedCoordinate::parse(name)?;
            self.still_held().await?;
            for store in [sides.emptied, sides.kept] {
                match store.delete(&probe, &at_once()).await {
                    // A store that refuses writes did not get a probe.
                    Err(error) if !is_refused(error.kind()) => return Err(error.into()),
                    _ => {}
                }
            }
            self.journal.put_note(&note.key, None).await?;
        }
        Ok(())
    }

    async fn prove_with(
        &self,
        sides: Sides<'_>,
        probe: &ManagedCoordinate,
        value: &SecretValue,
    ) -> MigrateResult<()> {
        self.still_held().await?;
        let in_emptied = write_probe(sides.emptied, probe, value).await?;
        if in_emptied {
            self.expect_probe(sides.kept, probe, None).await?;
        }
        self.still_held().await?;
        if !write_probe(sides.kept, probe, value).await? {
            return self.unproved(sides.kept);
        }
        if !in_emptied {
            self.unproved(sides.emptied)?;
            return self.expect_probe(sides.emptied, probe, None).await;
        }
        self.still_held().await?;
        sides.emptied.delete(probe, &at_once()).await?;
        self.expect_probe(sides.kept, probe, Some(value)).await
    }

    /// Refuses the run if a store does not keep its state for the probe. If another process has taken
    /// over the page meanwhile, it was that one, which deletes what it finds of others.
    async fn expect_probe(
        &self,
        store: &dyn SecretPersistence,
        probe: &ManagedCoordinate,
        value: Option<&SecretValue>,
    ) -> MigrateResult<()> {
        if self.stays(store, probe, value, None).await? {
            return Ok(());
        }
        self.ask_whether_held().await?;
        Err(self.linked())
    }

    /// Whether a store keeps its state for a name, present or missing, until the longest lag has
    /// passed.
    async fn stays(
        &self,
        store: &dyn SecretPersistence,
        name: &ManagedCoordinate,
        value: Option<&SecretValue>,
        held: Option<&Held<'_>>,
    ) -> MigrateResult<bool> {
        let until = Instant::now() + self.options.lag;
        loop {
            let read = store.read(&name.clone().into()).await;
            match held {
                Some(held) => held.progressed(),
                None => self.progressed(),
            }
            let is_last = Instant::now() >= until;
            match (read, value) {
                (Ok(read), Some(value)) if read.value == *value => {}
                (Err(error), None) if error.kind() == ErrorKind::NotFound => {}
                (Ok(_), _) => return Ok(false),
                (Err(error), _) if error.kind().is_gone() => return Ok(false),
                (Err(error), _) => return Err(error.into()),
            }
            if is_last {
                return Ok(true);
            }
            // Each look is progress, which a claim needs within its lease.
            sleep((self.options.lag / LOOKS).min(self.options.lease / LOOKS)).await;
        }
    }

    /// Deletes the equal secrets of a unit, as many at once as the store accepts, and checks the
    /// other store. The first secret of a run is deleted alone, while every other unit waits.
    pub(super) async fn delete_unit(
        &self,
        deleter: &dyn Deleter,
        pairs: &[Pair],
        unit: &Unit<'_>,
    ) -> MigrateResult<Vec<Transition>> {
        let mut transitions = Vec::new();
        let mut rest = pairs;
        {
            let mut tried = self.tried.lock().await;
            while let (false, [first, others @ ..]) = (*tried, rest) {
                if self.tracker.is_stopped() {
                    return Ok(transitions);
                }
                let alone = slice::from_ref(first);
                *tried = self
                    .delete_and_look(deleter, alone, unit, true, &mut transitions)
                    .await?;
                rest = others;
            }
        }
        if !self.tracker.is_stopped() {
            self.delete_and_look(deleter, rest, unit, false, &mut transitions)
                .await?;
        }
        Ok(transitions)
    }

    /// Ends a unit of deletes. A page that was not done to its end is given back.
    pub(super) async fn end_deletes(
        &self,
        held: Option<&Held<'_>>,
        transitions: &[Transition],
    ) -> MigrateResult<()> {
        match held {
            Some(held) if self.tracker.is_stopped() => held.leave(transitions).await,
            held => self.end_unit(held, transitions).await,
        }
    }

    /// Whether anything was deleted. A claim that has lapsed ends the deletes, and what was deleted
    /// before is looked after: the value that this process has may be the only one.
    async fn delete_and_look(
        &self,
        deleter: &dyn Deleter,
        pairs: &[Pair],
        unit: &Unit<'_>,
        is_first: bool,
        transitions: &mut Vec<Transition>,
    ) -> MigrateResult<bool> {
        let sides = deleter.sides();
        let (meter, held) = (&unit.meter, unit.held.as_deref());
        let progressed = || {
            if let Some(held) = held {
                held.progressed();
            }
        };
        let mut decisions = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let decide = deleter.decide(pair);
            decisions.push(async move {
                let decision = decide.await;
                progressed();
                decision
            });
        }
        let decisions = join_all(decisions).await;
        let mut names = Vec::new();
        for (pair, decision) in pairs.iter().zip(&decisions) {
            if decision.is_none() {
                names.push(pair.entry.coordinate.clone());
            }
        }
        meter.passed(pairs.len() - names.len());
        let options = DeleteOptions::default().with_recovery(deleter.recovery());
        let capabilities = sides.emptied.capabilities();
        let mut chunks = Vec::new();
        for chunk in names.chunks(capabilities.delete_batch.max(1)) {
            let options = &options;
            chunks.push(async move {
                check(held).await?;
                let results = sides.emptied.delete_many(chunk, options).await;
                meter.passed(chunk.len());
                progressed();
                MigrateResult::Ok(results)
            });
        }
        let mut chunks = stream::iter(chunks).buffered(capabilities.concurrency.max(1));
        let (mut results, mut lapsed) = (Vec::with_capacity(names.len()), Ok(()));
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => results.extend(chunk.into_iter().map(Some)),
                Err(error) => {
                    let size = capabilities
                        .delete_batch
                        .max(1)
                        .min(names.len() - results.len());
                    results.extend(std::iter::repeat_with(|| None).take(size));
                    lapsed = Err(error);
                }
            }
        }
        let mut results = results.into_iter();
        let mut deletions = Vec::with_capacity(pairs.len());
        for (pair, decision) in pairs.iter().zip(decisions) {
            deletions.push(match decision {
                Some(deletion) => deletion,
                None => match results.next().flatten() {
                    Some(Ok(())) => deleter.deleted(pair),
                    Some(Err(error)) => {
                        self.tracker.failed(Failure::of(&error));
                        Deletion::default()
                    }
                    // Not tried, because the claim has lapsed.
                    None => Deletion::default(),
                },
            });
        }
        let mut deleted = Vec::new();
        for (pair, deletion) in pairs.iter().zip(&deletions) {
            if let (true, Side::Has(read)) = (deletion.deleted, &pair.source) {
                deleted.push((&pair.entry, read));
            }
        }
        let lost = self.look_after(sides, &deleted, is_first, held).await?;
        // The first secret was looked at until now.
        if !is_first && lost.is_empty() {
            self.watch(pairs, &deletions, held.map(Held::claim));
        }
        lapsed?;
        self.look_at_watched(sides, Instant::now()).await?;
        progressed();
        let transition = |deletion: Deletion| deletion.transition;
        transitions.extend(
            deletions
                .into_iter()
                .filter_map(transition)
                .filter(|transition| !lost.contains(&transition.coordinate)),
        );
        Ok(!deleted.is_empty())
    }

    /// Checks that the other store still has the deleted secrets. If it has lost one, it is written
    /// back and the run stops. For the first deletes of a run, the check lasts until the longest
    /// lag has passed.
    async fn look_after(
        &self,
        sides: Sides<'_>,
        deleted: &[(&JournalEntry, &Read)],
        is_first: bool,
        held: Option<&Held<'_>>,
    ) -> MigrateResult<HashSet<ManagedCoordinate>> {
        let mut lost = HashSet::new();
        if is_first {
            for (entry, read) in deleted {
                self.stays(sides.kept, &entry.coordinate, Some(&read.value), held)
                    .await?;
            }
        }
        let names: Vec<ManagedCoordinate> = deleted
            .iter()
            .map(|(entry, _)| entry.coordinate.clone())
            .collect();
        let looks = sides.kept.read_many(&coordinates(&names)).await;
        if let Some(held) = held {
            held.progressed();
        }
        for ((entry, read), look) in deleted.iter().zip(looks) {
            let is_lost = match look {
                Ok(now) => now.value != read.value,
                // A service may have deleted it in both stores, after it saved the row.
                Err(error) if error.kind().is_gone() => self.is_mentioned(entry).await?,
                Err(error) => {
                    self.tracker.failed(Failure::of(&error));
                    false
                }
            };
            if is_lost {
                self.tracker.stop(Stop::Linked);
                self.put_back(sides, &entry.coordinate, read).await;
                lost.insert(entry.coordinate.clone());
            }
        }
        Ok(lost)
    }

    /// Remembers one deleted secret of a unit, to look at it once more when the longest lag has
    /// passed: a replica that begins during a run, or contains only some names, may lag too.
    fn watch(&self, pairs: &[Pair], deletions: &[Deletion], claim: Option<Claim>) {
        let mut deleted = pairs.iter().zip(deletions).rev();
        let last = deleted.find(|(_, deletion)| deletion.deleted);
        if let Some((pair, _)) = last
            && let Side::Has(read) = &pair.source
        {
            self.watched.lock().push_back(Watched {
                from: Instant::now() + self.options.lag,
                entry: pair.entry.clone(),
                read: read.clone(),
                claim,
            });
        }
    }

    /// Waits until the longest lag has passed since the last delete, and looks at what is watched.
    pub(super) async fn look_at_the_last(&self, sides: Sides<'_>) -> MigrateResult<()> {
        let last = self.watched.lock().back().map(|watched| watched.from);
        if let Some(last) = last {
            sleep_until(last).await;
            self.look_at_watched(sides, last).await?;
        }
        Ok(())
    }

    async fn look_at_watched(&self, sides: Sides<'_>, until: Instant) -> MigrateResult<()> {
        let due: Vec<Watched> = {
            let mut watched = self.watched.lock();
            let due = watched.partition_point(|watched| watched.from <= until);
            watched.drain(..due).collect()
        };
        let mut all: MigrateResult<()> = Ok(());
        for watched in due {
            // Nobody else looks at the others. An error that ends the command counts more than a claim that
            // has lapsed.
            match (&all, self.look_at_one(sides, watched).await) {
                (Err(error), _) if error.kind() != MigrateErrorKind::Lapsed => {}
                (_, Ok(())) => {}
                (_, looked) => all = looked,
            }
        }
        all
    }

    async fn look_at_one(&self, sides: Sides<'_>, watched: Watched) -> MigrateResult<()> {
        let Watched {
            entry, read, claim, ..
        } = watched;
        let look = sides.kept.read(&entry.coordinate.clone().into()).await;
        let is_lost = look.is_err_and(|error| error.kind().is_gone());
        // A service with a mirror may have deleted it in both stores, after it saved the row.
        if !is_lost || !self.is_mentioned(&entry).await? {
            return Ok(());
        }
        self.tracker.stop(Stop::Linked);
        self.put_back(sides, &entry.coordinate, &read).await;
        let back = [to(&entry, entry.state, entry.intent)];
        match (self.journal.sharing(), claim) {
            (Some(sharing), Some(claim)) => sharing.advance_under(claim, &back).await,
            _ => self.advance(&back).await,
        }
    }

    async fn put_back(&self, sides: Sides<'_>, name: &ManagedCoordinate, read: &Read) {
        let write = Write::new(name.clone(), read.value.clone()).with_expires(read.expires);
        let again = match sides.emptied.write(write).await {
            Err(error) if error.kind() == ErrorKind::PendingDeletion => {
                sides.emptied.restore(name).await
            }
            other => other.map(drop),
        };
        let message = match again {
            Ok(()) => {
                "the other store lost it too: it is a replica, or another client deleted the secret \
                 in the same moment; the secret was written back here"
            }
            Err(_) => {
                "the other store lost it too, and it could not be written back here; \
                 restore it from the store's recovery window or a backup"
            }
        };
        self.tracker
            .tally(|tally| tally.deleted = tally.deleted.saturating_sub(1));
        self.tracker.not_hydrated(Failure {
            coordinate: Some(name.to_string()),
            configuration: None,
            place: None,
            kind: MigrateErrorKind::SameStore.as_str().to_owned(),
            message: message.to_owned(),
        });
    }

    /// A store refuses the probe: refused, unless the operator knows better.
    fn unproved(&self, store: &dyn SecretPersistence) -> MigrateResult<()> {
        if self.options.without_probe {
            return Ok(());
        }
        Err(MigrateError::undecided(
            "the store refuses to be written, so nothing proves that the other one keeps what is deleted",
        )
        .with_place(store.to_string())
        .with_hint(
            "give these credentials the right to write until it is done, or, if you know that neither \
             store follows the other, say so with --without-probe",
        ))
    }

    fn linked(&self) -> MigrateError {
        let run = self.tracker.run();
        MigrateError::new(
            MigrateErrorKind::SameStore,
            "source and target are the same store, or one replicates the other: a delete in one also \
            deletes from the other",
        )
        .with_place(run.to_string())
        .with_hint("end the replication, the mirror or the triggers between them first")
    }
}

/// Writes a probe. Returns whether the store accepted it.
async fn write_probe(
    store: &dyn SecretPersistence,
    probe: &ManagedCoordinate,
    value: &SecretValue,
) -> MigrateResult<bool> {
    let expires = (store.capabilities().expiry != Expiry::None)
        .then(|| Timestamp::now().saturating_add(PROBE_LIFETIME));
    let write = Write::new(probe.clone(), value.clone()).with_expires(expires);
    match store.write(write).await {
        Ok(_) => Ok(true),
        Err(error) if is_refused(error.kind()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a store refuses all writes, whatever the value.
fn is_refused(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::Unsupported)
}

fn at_once() -> DeleteOptions {
    DeleteOptions::default().with_recovery(Recovery::Immediate)
}
