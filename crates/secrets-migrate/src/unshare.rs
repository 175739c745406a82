//! Gives each configuration its own copy of shared secrets.
use std::collections::{BTreeMap, HashMap, HashSet};

use secret_persistence_core::connector::{ConnectorOptions, Record, SecretJson};
use secret_persistence_core::{
    Error, ErrorKind, Location, ManagedCoordinate, Result, Scope, SecretPersistenceExt, Write,
};
use serde_json::Value;
use uuid::Uuid;

use crate::holdings::Holding;
use crate::outbox::{Change, Kept, Knowledge, Outbox};
use crate::scan::coordinates;
use crate::session::{Rows, Session};
use crate::{
    Access, ConfigSource, Content, Failure, Mention, MigrateErrorKind, MigrateResult, Phase,
    Shared, Update,
};

impl Session<'_> {
    /// Gives every configuration with a shared coordinate, except the first that the scan found, a
    /// copy under its own name in the source, and updates its row by compare-and-swap.
    pub(super) async fn unshare(&self, scan: u64) -> MigrateResult<()> {
        self.each_page(Phase::Unshare, &|page| {
            Box::pin(self.unshare_page(scan, page))
        })
        .await?;
        if self.options.dry_run || self.tracker.is_stopped() {
            return Ok(());
        }
        for source in self.configs {
            source.finish().await?;
        }
        self.report_kept(self.copies_under_way().end(Knowledge::AllSaved).await?);
        Ok(())
    }

    /// Ends the changes of a killed run: a row with its copies keeps them; otherwise they are
    /// deleted, unless it may still get them.
    pub(super) async fn settle_copies(&self) -> MigrateResult<()> {
        let kept = self.copies_under_way().end(Knowledge::Rows).await?;
        // Unsharing looks at them again, after it has changed rows.
        if self.options.decisions.shared != Some(Shared::Unshare) {
            self.report_kept(kept);
        }
        Ok(())
    }

    /// The copies that rows may still get: they are no orphans.
    pub(super) async fn copies_to_come(&self) -> MigrateResult<HashSet<ManagedCoordinate>> {
        self.copies_under_way().names().await
    }

    fn report_kept(&self, kept: Vec<Kept>) {
        for kept in kept {
            kept.report(&self.tracker);
        }
    }

    fn copies_under_way(&self) -> Outbox<'_> {
        Outbox {
            sort: "unshare ",
            journal: self.journal,
            configs: self.configs,
            secrets: &self.acting,
            tracker: &self.tracker,
            page: self.options.page.get(),
            patience: ConnectorOptions::default().deadline + self.options.lease,
            held: None,
        }
    }

    async fn unshare_page(&self, scan: u64, page: Rows<'_>) -> MigrateResult<()> {
        for holding in self.holdings(page.source, page.rows).await? {
            self.unshare_row(scan, page.source, &holding).await?;
            page.meter.passed(1);
        }
        Ok(())
    }

    async fn unshare_row(
        &self,
        scan: u64,
        source: &dyn ConfigSource,
        holding: &Holding,
    ) -> MigrateResult<()> {
        let shared: Vec<ManagedCoordinate> = self
            .shared_in(scan, holding)
            .await?
            .into_iter()
            .filter(|entry| entry.holder.as_deref() != Some(&holding.key))
            // A copy in the row's own scope would give it somebody else's secret.
            .filter(|entry| !holding.is_of_other_scope(&entry.coordinate))
            .map(|entry| entry.coordinate)
            .collect();
        let Content::Configuration(configuration) = &holding.row.content else {
            return Ok(());
        };
        if shared.is_empty() {
            return Ok(());
        }
        let tracker = &self.tracker;
        if source.access() == Access::ReadOnly {
            tracker.failed(refused(
                holding,
                "this source of configurations is read-only; use the table itself, not a query",
            ));
            return Ok(());
        }
        if self.options.dry_run {
            tracker.tally(|tally| tally.unshared += shared.len() as u64);
            return Ok(());
        }
        let writes = match self.copies(holding, &shared).await {
            Ok(writes) => writes,
            Err(error) => {
                tracker.failed(Failure::of(&error).in_configuration(&holding.key, None));
                return Ok(());
            }
        };
        let outbox = self.copies_under_way();
        let locations = writes
            .iter()
            .map(|write| Location::new(write.coordinate.clone()));
        let record = Record::of_writes(locations.collect());
        let places = places(holding, &shared);
        let change = Change::new(source, &holding.key, record).with_renames(&places);
        let note = outbox.open(&change).await?;
        for result in self.source.write_many(&writes).await {
            if let Err(error) = result {
                tracker.failed(Failure::of(&error).in_configuration(&holding.key, None));
                return outbox.abandon(&note, change).await;
            }
        }
        let renamed: HashMap<&str, &ManagedCoordinate> = shared
            .iter()
            .map(ManagedCoordinate::as_str)
            .zip(writes.iter().map(|write| &write.coordinate))
            .collect();
        let mut changed = SecretJson::new((***configuration).clone());
        rename(&mut changed, &places, &renamed);
        match source.update(&holding.row, &changed).await? {
            Update::Saved => {
                tracker.tally(|tally| tally.unshared += writes.len() as u64);
                let mentions: Vec<Mention> = writes
                    .into_iter()
                    .map(|write| Mention::new(write.coordinate, Some(holding.key.clone())))
                    .collect();
                self.journal.mention(scan, &mentions).await
            }
            Update::Changed => {
                tracker.tally(|tally| tally.changed += 1);
                tracker.failed(refused(
                    holding,
                    "the row was changed by someone else; start again",
                ));
                outbox.abandon(&note, change).await
            }
        }
    }

    /// The copies that a row needs, with their expiry, under new names in the row's scope.
    async fn copies(&self, holding: &Holding, shared: &[ManagedCoordinate]) -> Result<Vec<Write>> {
        let reads = self.source.read_many(&coordinates(shared)).await;
        let mut writes = Vec::with_capacity(shared.len());
        for (coordinate, read) in shared.iter().zip(reads) {
            let read = read?;
            let expires = self.expiry(coordinate, &read).await?;
            writes.push(Write::new(fresh(holding, coordinate)?, read.value).with_expires(expires));
        }
        Ok(writes)
    }
}

fn refused(holding: &Holding, message: &str) -> Failure {
    Failure {
        coordinate: None,
        configuration: Some(holding.key.clone()),
        place: None,
        kind: MigrateErrorKind::Configurations.as_str().to_owned(),
        message: message.to_owned(),
    }
}

/// A new name for a copy: in the row's scope if it is known, otherwise in the original's.
fn fresh(holding: &Holding, coordinate: &ManagedCoordinate) -> Result<ManagedCoordinate> {
    let id = Uuid::new_v4();
    if let Some(base_id) = holding.row.base_id {
        let prefix = holding.row.prefix.as_deref().unwrap_or("workspace_");
        return ManagedCoordinate::new(&Scope::new(prefix, base_id)?, id, 1);
    }
    match coordinate.base().rsplit_once("_secret_") {
        Some((scope, _)) => ManagedCoordinate::parse(&format!("{scope}_secret_{id}_v1")),
        None => Err(Error::new(
            ErrorKind::InvalidCoordinate,
            "the scope of the coordinate is unknown, so the copy cannot be named",
        )
        .with_coordinate(coordinate.shared())
        .with_hint("add the base id of the row")),
    }
}

/// Where a row's own pointers name these secrets.
fn places(holding: &Holding, shared: &[ManagedCoordinate]) -> BTreeMap<String, ManagedCoordinate> {
    holding
        .held
        .iter()
        .filter_map(|held| {
            let pointer = held.pointer.as_ref()?;
            let name = pointer.coordinate.as_ref()?.managed()?;
            let is_own = pointer.reference_id.is_none() && held.coordinate().is_some();
            (is_own && shared.contains(name))
                .then(|| (held.place.as_str().to_owned(), name.clone()))
        })
        .collect()
}

/// Replaces the names at these places, and changes nothing else there.
fn rename(
    configuration: &mut Value,
    places: &BTreeMap<String, ManagedCoordinate>,
    renamed: &HashMap<&str, &ManagedCoordinate>,
) {
    for (place, shared) in places {
        let pointer = configuration.pointer_mut(place);
        let name = pointer.and_then(|pointer| pointer.get_mut("_secret"));
        if let (Some(name), Some(copy)) = (name, renamed.get(shared.as_str())) {
            *name = Value::String(copy.to_string());
        }
    }
}
