//! Empties the source of what the target has.
use futures::future::{BoxFuture, join_all};
use secret_persistence_core::{
    DeleteOptions, ErrorKind, Expiry, ManagedCoordinate, Recovery, Scope, SecretPersistenceExt,
    SecretValue, Timestamp, Write,
};
use uuid::Uuid;

use crate::compare::{Pair, Side};
use crate::hydrate::Store;
use crate::rollback::kept;
use crate::session::{Session, same_store};
use crate::{Failure, JournalEntry, MigrateResult, Phase, Select, Stop};

/// For how long a probe lives that nobody could delete.
const PROBE_LIFETIME: std::time::Duration = std::time::Duration::from_secs(3600);

impl Session<'_> {
    /// Hydrates every configuration from the target, then deletes from the source what is equal in
    /// the target at that moment.
    pub(super) async fn retire(&self) -> MigrateResult<()> {
        self.ledger
            .note(|report| report.unreachable = unreachable(self.source_kind));
        if !self.hydrate(Store::Target).await? {
            self.ledger.stop(Stop::Hydration);
        }
        if self.ledger.is_stopped() {
            return Ok(());
        }
        if !self.options.dry_run {
            self.prove_two_stores().await?;
        }
        self.each_unit(Phase::Delete, None, &Select::all(), &|entries| {
            Box::pin(self.retire_unit(entries))
        })
        .await
    }

    async fn retire_unit(&self, entries: Vec<JournalEntry>) -> MigrateResult<()> {
        let pairs = self.pairs(entries).await;
        // As many at once as the store takes.
        let mut deletions: Vec<BoxFuture<'_, ()>> = Vec::with_capacity(pairs.len());
        for pair in &pairs {
            deletions.push(Box::pin(self.retire_one(pair)));
        }
        join_all(deletions).await;
        Ok(())
    }

    async fn retire_one(&self, pair: &Pair) {
        let (ledger, entry) = (&self.ledger, &pair.entry);
        if let Some(failure) = pair.failure() {
            return ledger.failed(failure);
        }
        if matches!(pair.source, Side::Gone(_)) {
            return ledger.tally(|tally| tally.gone += 1);
        }
        if !pair.is_equal() {
            ledger.tally(|tally| tally.kept += 1);
            return ledger.found(kept(entry, "the target has not got the same value now"));
        }
        match self.retire_equal(&entry.coordinate).await {
            Ok(true) => ledger.tally(|tally| tally.deleted += 1),
            Ok(false) => {
                ledger.tally(|tally| tally.foreign += 1);
                ledger.found(kept(entry, "the source marks it with another owner"));
            }
            Err(error) => ledger.failed(Failure::of(&error)),
        }
    }

    /// Deletes one, unless it is another installation's. Whether it was ours.
    async fn retire_equal(
        &self,
        coordinate: &ManagedCoordinate,
    ) -> secret_persistence_core::Result<bool> {
        if self.source.capabilities().owner {
            let described = self.source.describe(coordinate).await?;
            if self.is_foreign(described.owner.as_deref()) {
                return Ok(false);
            }
        }
        if !self.options.dry_run {
            let delete = DeleteOptions::default().with_recovery(self.options.recovery);
            self.source.delete(coordinate, &delete).await?;
        }
        Ok(true)
    }

    /// Two addresses may lead to one store, where every value equals itself and retiring would
    /// delete the only one.
    async fn prove_two_stores(&self) -> MigrateResult<()> {
        let probe = ManagedCoordinate::new(&Scope::ephemeral(), Uuid::new_v4(), 1)?;
        let expires = (self.target.capabilities().expiry != Expiry::None)
            .then(|| Timestamp::now().saturating_add(PROBE_LIFETIME));
        let value = SecretValue::new(Uuid::new_v4().to_string());
        let write = Write::new(probe.clone(), value).with_expires(expires);
        let at_once = DeleteOptions::default().with_recovery(Recovery::Immediate);
        let written = self.target.write(write).await;
        let look = match written {
            Ok(_) => self.source.read(&probe.clone().into()).await,
            Err(error) => Err(error),
        };
        self.target.delete(&probe, &at_once).await?;
        match look {
            Ok(_) => Err(same_store(&self.ledger.run())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Plaintext that deleting does not reach, by kind of store.
fn unreachable(store: &str) -> Vec<String> {
    let of_store: &[&str] = match store {
        "sqlite" => &[
            "copies of the database file: backups, file system snapshots, replicas of the volume",
            "the write-ahead log until its next checkpoint, and free pages of a database that \
             was not written with secure_delete",
        ],
        "postgres" => &[
            "backups and archived write-ahead logs of the database, and its replicas' delay slots",
            "dead rows until the next VACUUM, and the space they leave until it is used again",
        ],
        "memory" => &["memory of this process that the operating system has swapped out"],
        _ => &[
            "secrets in the store's recovery window, until it has passed or they are purged",
            "backups and exports of the store that others have made",
        ],
    };
    of_store
        .iter()
        .copied()
        .chain([
            "backups of the configurations from before their secrets were split off",
            "what connectors, logs and people have copied: change a credential at its origin if \
             anyone may have seen it",
        ])
        .map(str::to_owned)
        .collect()
}
