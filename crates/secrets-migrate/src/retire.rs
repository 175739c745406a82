//! Deletes from the source what the target has.
use std::slice;

use async_trait::async_trait;
use futures::TryStreamExt;
use secret_persistence_core::{
    ListOptions, Listing, ManagedCoordinate, Recovery, SecretPersistenceExt,
};

use crate::compare::{Pair, Side};
use crate::hydrate::Store;
use crate::independence::{Deleter, Deletion, Sides};
use crate::rollback::kept;
use crate::session::{Session, Unit};
use crate::shared::Task;
use crate::{Class, Failure, Finding, MigrateResult, Phase, Select, Stop};

impl Session<'_> {
    /// Hydrates every configuration from the target, then deletes from the source the secrets that
    /// are equal in the target at that moment.
    pub(super) async fn retire(&self) -> MigrateResult<()> {
        self.tracker
            .note(|report| report.unreachable = unreachable(self.source_kind));
        if let Some(sharing) = self.journal.sharing() {
            return self.share(sharing, Task::Retire).await;
        }
        self.prepare_retire().await?;
        if self.tracker.is_stopped() {
            return Ok(());
        }
        self.each_unit(Phase::Delete, None, &Select::all(), &|unit| {
            Box::pin(self.retire_unit(unit))
        })
        .await?;
        self.look_at_the_last(self.emptying_source()).await?;
        if self.options.dry_run || self.tracker.is_stopped() {
            return Ok(());
        }
        self.count_remaining().await
    }

    /// What has to be true before the first secret is deleted.
    pub(super) async fn prepare_retire(&self) -> MigrateResult<()> {
        if !self.hydrate(Store::Target).await? {
            self.tracker.stop(Stop::Hydration);
        }
        let proves = !self.options.dry_run && !self.tracker.is_stopped();
        if proves && self.has_any(&Select::all()).await? {
            self.prove_independence(self.emptying_source()).await?;
        }
        Ok(())
    }

    pub(super) fn emptying_source(&self) -> Sides<'_> {
        Sides {
            emptied: &*self.source,
            kept: &*self.target,
        }
    }

    pub(super) async fn retire_unit(&self, mut unit: Unit<'_>) -> MigrateResult<()> {
        let entries = std::mem::take(&mut unit.entries);
        let pairs = self.pairs(entries, None, unit.held.as_deref()).await;
        let transitions = self.delete_unit(&Retire(self), &pairs, &unit).await?;
        self.end_deletes(unit.held.as_deref(), &transitions).await
    }

    /// Lists the secrets that the source still has and that have no other owner. A listing may be
    /// stale, so a name counts only after it is read.
    pub(super) async fn count_remaining(&self) -> MigrateResult<()> {
        let capabilities = self.source.capabilities();
        if capabilities.listing == Listing::None {
            self.tracker.note(|report| report.unlisted = true);
            return Ok(());
        }
        let options = ListOptions::default().with_details(capabilities.cost.list_detail == 0);
        self.tracker.began(Phase::List, None);
        let mut listing = self.source.list(&options);
        let mut remaining = 0;
        while let Some(entry) = listing.try_next().await? {
            self.tracker.advanced(Phase::List, 1);
            self.still_held().await?;
            let name = &entry.coordinate;
            // Probes of a killed run do not count.
            let is_probe = name.is_ephemeral();
            if is_probe
                || !self.workspaces.have_name(name)
                || entry.pending_deletion
                || self.source.read(&name.clone().into()).await.is_err()
            {
                continue;
            }
            let owner = self.owners(&[&entry]).await.into_iter().next().flatten();
            if self.is_foreign(owner.as_deref()) {
                continue;
            }
            remaining += 1;
            let known = self.journal.find(slice::from_ref(name)).await?;
            if known.into_iter().flatten().next().is_none() {
                self.tracker
                    .found(Finding::of(Class::Kept, name.as_str()).with_detail(
                    "no configuration mentions it and it was never copied; run copy --orphaned copy \
                    to copy it to the target, then retire deletes it here",
                ));
            }
        }
        self.tracker.ended(Phase::List);
        if remaining > 0 {
            self.tracker.tally(|tally| tally.remaining = remaining);
            self.tracker.stop(Stop::Remaining);
        }
        Ok(())
    }

    /// Whether another installation wrote the secret, according to the source.
    async fn is_foreign_in_source(
        &self,
        coordinate: &ManagedCoordinate,
    ) -> secret_persistence_core::Result<bool> {
        if !self.source.capabilities().owner {
            return Ok(false);
        }
        let described = self.source.describe(coordinate).await?;
        Ok(self.is_foreign(described.owner.as_deref()))
    }
}

struct Retire<'a, 's>(&'a Session<'s>);

#[async_trait]
impl Deleter for Retire<'_, '_> {
    fn sides(&self) -> Sides<'_> {
        self.0.emptying_source()
    }

    fn recovery(&self) -> Recovery {
        self.0.options.recovery
    }

    async fn decide(&self, pair: &Pair) -> Option<Deletion> {
        let session = self.0;
        let (tracker, entry) = (&session.tracker, &pair.entry);
        if let Some(failure) = pair.failure() {
            tracker.failed(failure);
        } else if matches!(pair.source, Side::Gone(_)) {
            tracker.tally(|tally| tally.gone += 1);
        } else if let Some(difference) = pair.difference() {
            tracker.tally(|tally| tally.kept += 1);
            tracker.found(kept(entry, difference));
        } else if let Some(reason) = session.left_in(entry) {
            tracker.tally(|tally| tally.kept += 1);
            tracker.found(kept(entry, reason));
        } else {
            match session.is_foreign_in_source(&entry.coordinate).await {
                Ok(true) => {
                    tracker.tally(|tally| tally.foreign += 1);
                    tracker.found(kept(entry, "the source marks it with another owner"));
                }
                Ok(false) if session.options.dry_run => {
                    tracker.tally(|tally| tally.deleted += 1);
                }
                Ok(false) => return None,
                Err(error) => tracker.failed(Failure::of(&error)),
            }
        }
        Some(Deletion::default())
    }

    fn deleted(&self, _: &Pair) -> Deletion {
        self.0.tracker.tally(|tally| tally.deleted += 1);
        Deletion {
            deleted: true,
            transition: None,
        }
    }
}

/// Plain text that deleting does not reach, by kind of store.
fn unreachable(store: &str) -> Vec<String> {
    let of_store: &[&str] = match store {
        "sqlite" => &[
            "copies of the database file: backups, file system snapshots, replicas of the volume",
            "the write-ahead log until its next checkpoint, and free pages of a database that \
             was not written with secure_delete",
        ],
        "postgres" => &[
            "backups and archived write-ahead logs of the database, and its replicas' delay slots",
            "dead rows until the next VACUUM, and their space until it is reused",
        ],
        "memory" => &["memory of this process that the operating system has swapped out"],
        _ => &[
            "secrets in the store's recovery window, until it ends or they are purged",
            "backups and exports of the store made by others",
        ],
    };
    of_store
        .iter()
        .copied()
        .chain([
            "backups of the configurations from before the split",
            "copies made by connectors, logs and people: rotate a credential at its origin if \
            anyone may have seen it",
        ])
        .map(str::to_owned)
        .collect()
}
