//! What may be superfluous: the listing of the store, then what every configuration names.
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use secret_persistence_core::connector::{Record, RefreshRecord};
use secret_persistence_core::{
    Coordinate, Entry, ListOptions, ManagedCoordinate, Scope, SecretPersistenceExt as _, StorageId,
};
use serde::Deserialize as _;

use super::Run;
use super::journal::Listed;
use super::report::Reason;
use crate::holdings::{Means, resolved};
use crate::session::{key, page_after};
use crate::{ConfigRow, ConfigSource, Content, Failure, MigrateResult, Storage};

impl Run<'_> {
    /// Writes what may have to go to the journal.
    pub(super) async fn list(&mut self) -> MigrateResult<()> {
        let workspaces: Vec<String> = self
            .collect
            .rules
            .workspaces
            .iter()
            .map(|id| Scope::workspace(*id).to_string())
            .collect();
        let all = vec![ListOptions::default().prefix];
        for prefix in if workspaces.is_empty() {
            all
        } else {
            workspaces
        } {
            let mut options = ListOptions::default()
                .with_prefix(prefix)
                .with_details(true);
            if let Some(entries) = self.entries_at_once() {
                options = options.with_page_size(entries);
            }
            let (store, held) = (Arc::clone(&self.store), self.held.clone());
            let mut pages = store
                .list(&options)
                .inspect_ok(|_| {
                    if let Some(held) = &held {
                        held.progressed();
                    }
                })
                .try_chunks(self.collect.options.page.get())
                .boxed();
            while let Some(page) = pages.try_next().await.map_err(|failed| failed.1)? {
                if self.is_cancelled() {
                    return Ok(());
                }
                self.still_held().await?;
                let listed: Vec<Listed> = page
                    .into_iter()
                    .filter_map(|entry| self.listed(entry))
                    .collect();
                let journal = &self.collect.journal;
                let list = journal.list(self.claim(), &self.memory, self.number, &listed);
                list.await?;
            }
        }
        Ok(())
    }

    /// How many entries a listing is asked for under a claim, where each of them is a request: their answers
    /// come together, and must come while the claim lasts.
    fn entries_at_once(&self) -> Option<usize> {
        let claim = self.claim()?;
        let capabilities = self.store.capabilities();
        if capabilities.cost.list_detail == 0 {
            return None;
        }
        let rounds = capabilities.concurrency.saturating_mul(4);
        let rate = self.collect.options.requests_per_second;
        let in_time = rate.map_or(u128::MAX, |rate| {
            u128::from(rate.get()) * claim.lease.as_millis() / 4000
        });
        Some(
            rounds
                .min(usize::try_from(in_time).unwrap_or(usize::MAX))
                .max(1),
        )
    }

    /// What the configurations are searched for. `None` for what is not to be collected, whatever they
    /// say.
    fn listed(&mut self, entry: Entry) -> Option<Listed> {
        let (collect, report) = (self.collect, &mut self.report);
        if entry.pending_deletion {
            return None;
        }
        let reason = match (&entry.owner, entry.created) {
            (None, _) => Reason::Unowned,
            (Some(theirs), _) if theirs != collect.owner.as_str() => {
                report.foreign += 1;
                return None;
            }
            (Some(_), created) => {
                report.owned += 1;
                let is_expired = entry.expires.is_some_and(|expires| expires <= self.began);
                match created {
                    None => Reason::Undated,
                    Some(_) if is_expired => Reason::Expired,
                    Some(created) if created > self.began.saturating_sub(collect.rules.grace) => {
                        report.young += 1;
                        return None;
                    }
                    Some(_) if entry.coordinate.is_ephemeral() => Reason::Ephemeral,
                    Some(_) => Reason::Orphaned,
                }
            }
        };
        Some(Listed {
            coordinate: entry.coordinate,
            reason,
            created: entry.created,
        })
    }

    /// Reads every configuration, and forgets what they name.
    pub(super) async fn read(&mut self) -> MigrateResult<()> {
        self.read_at = (self.collect.clock)();
        for source in &self.collect.configs {
            let mut after = None;
            loop {
                if self.is_cancelled() {
                    return Ok(());
                }
                let options = &self.collect.options;
                let page = page_after(&**source, after.as_ref(), options).await?;
                self.still_held().await?;
                let names = self.named(&**source, page.rows).await?;
                self.report.names += names.len() as u64;
                let journal = &self.collect.journal;
                journal.mention(self.claim(), &self.memory, &names).await?;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The managed names in rows, under whichever storage id: two ids may lead to one store, and a
    /// name is given once.
    async fn named(
        &mut self,
        source: &dyn ConfigSource,
        rows: Vec<ConfigRow>,
    ) -> MigrateResult<Vec<ManagedCoordinate>> {
        self.report.configurations += rows.len() as u64;
        let mut names = Vec::new();
        let mut configurations = Vec::with_capacity(rows.len());
        for row in rows {
            match record(&row) {
                None => configurations.push(row),
                Some(Ok(recorded)) => names.extend(recorded),
                Some(Err(_)) => {
                    self.report.unreadable += 1;
                    self.note(Failure::of_record(&key(source, &row.id)));
                }
            }
        }
        let references = self.collect.references.as_deref();
        let here = |_: &StorageId| Some(Storage::Move);
        for holding in resolved(references, &here, source, configurations).await? {
            for held in &holding.held {
                if let Means::Secret { coordinate, .. } = &held.means
                    && let Coordinate::Managed(name) = coordinate
                {
                    names.push(name.clone());
                }
            }
            for problem in &holding.problems {
                self.report.unreadable += 1;
                self.note(Failure::of_problem(&holding.key, problem));
            }
        }
        Ok(names)
    }
}

/// The names in the record of a change or a refresh, if a row is one.
fn record(row: &ConfigRow) -> Option<serde_json::Result<Vec<ManagedCoordinate>>> {
    const OF_A_CHANGE: [&str; 4] = ["format", "planned", "supersedes", "writes"];
    const OF_A_REFRESH: [&str; 3] = ["format", "planned", "targets"];
    let Content::Configuration(content) = &row.content else {
        return None;
    };
    let has = |fields: &[&str]| fields.iter().all(|field| content.get(field).is_some());
    if has(&OF_A_CHANGE) {
        let record = Record::deserialize(&***content);
        return Some(record.map(|record| {
            let locations = record.writes().iter().chain(record.supersedes());
            locations
                .map(|location| location.coordinate.clone())
                .collect()
        }));
    }
    if has(&OF_A_REFRESH) {
        let record = RefreshRecord::deserialize(&***content);
        return Some(record.map(|record| {
            let locations = record
                .targets()
                .iter()
                .flat_map(|target| [Some(&target.to), target.supersedes.as_ref()]);
            locations
                .flatten()
                .map(|location| location.coordinate.clone())
                .collect()
        }));
    }
    None
}
