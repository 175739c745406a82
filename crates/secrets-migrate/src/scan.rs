//! Finds all secrets: those that configurations mention, and those that none mentions.
use futures::future::{BoxFuture, join_all};
use secret_persistence_core::connector::{Problem, ProblemKind};
use secret_persistence_core::{
    Coordinate, Entry, ErrorKind, ListOptions, Listing, ManagedCoordinate, SecretPersistenceExt,
    Timestamp,
};

use crate::holdings::{Holding, Means};
use crate::left::left_among;
use crate::session::{Rows, Session};
use crate::{
    Class, Content, Finding, Mark, Mention, MigrateError, MigrateErrorKind, MigrateResult,
    Orphaned, Phase, Select,
};

/// The mentions that a scan notes together; they take some 3 MB. Names of one page of configurations lie all
/// over the journal, so that a few thousand change nearly as many pages of its file as many do.
const MENTIONS: usize = 10_000;

/// They are no more than those of so many pages with one secret in each configuration.
const PAGES: usize = 20;

impl Session<'_> {
    /// Reads every configuration and lists the source. Afterwards, the journal contains everything
    /// to move, with the scan's number.
    pub(super) async fn scan(&self) -> MigrateResult<u64> {
        let began = Timestamp::now();
        let scan = self.begin_scan().await?;
        self.mentions.lock().clear();
        self.each_page(Phase::Scan, &|page| Box::pin(self.scan_page(scan, page)))
            .await?;
        self.note_mentions(scan).await?;
        if !self.tracker.is_stopped() {
            self.report_shared(scan).await?;
            self.orphans(scan, began).await?;
        }
        Ok(scan)
    }

    async fn scan_page(&self, scan: u64, page: Rows<'_>) -> MigrateResult<()> {
        self.still_held().await?;
        let holdings = self.holdings(page.source, page.rows).await?;
        let keys: Vec<String> = holdings.iter().map(|row| row.key.clone()).collect();
        if let Some(twice) = self.see(scan, &keys).await?.into_iter().next() {
            return Err(MigrateError::new(
                MigrateErrorKind::Configurations,
                "two configurations have the same id",
            )
            .with_place(twice)
            .with_hint("pass each source once, and use a column with unique values as the id"));
        }
        let is_full = {
            let mut mentions = self.mentions.lock();
            for holding in &holdings {
                self.scan_row(holding, &mut mentions);
            }
            let most = PAGES.saturating_mul(self.options.page.get());
            mentions.len() >= most.min(MENTIONS)
        };
        let left = left_among(&holdings);
        if is_full || !left.is_empty() {
            self.note_mentions(scan).await?;
        }
        self.note_left(left).await
    }

    async fn note_mentions(&self, scan: u64) -> MigrateResult<()> {
        let mentions = std::mem::take(&mut *self.mentions.lock());
        self.mention(scan, &mentions).await
    }

    fn scan_row(&self, holding: &Holding, mentions: &mut Vec<Mention>) {
        let tracker = &self.tracker;
        if holding.other {
            return;
        }
        for problem in &holding.problems {
            tracker.found(self.unreadable(&holding.key, problem));
        }
        tracker.note(|report| {
            match holding.row.content {
                Content::Configuration(_) => report.tally.configurations += 1,
                Content::Coordinate(_) => report.tally.bare_coordinates += 1,
            }
            for pointer in holding.held.iter().filter_map(|held| held.pointer.as_ref()) {
                report.tally.pointers += 1;
                let id = pointer.storage_id.as_ref().map_or("", |id| id.as_str());
                *report.storages.entry(id.to_owned()).or_default() += 1;
            }
        });
        for held in &holding.held {
            let place = held.pointer.is_some().then(|| held.place.as_str());
            match &held.means {
                Means::Elsewhere { .. } | Means::OtherWorkspace(_) => {}
                Means::Undecided(id) => tracker.found(
                    Finding::new(Class::Storage)
                        .in_configuration(&holding.key, place)
                        .with_storage(id),
                ),
                Means::Secret {
                    coordinate: Coordinate::External(name),
                    ..
                } => tracker.found(
                    Finding::of(Class::External, name.as_str())
                        .in_configuration(&holding.key, place),
                ),
                Means::Secret {
                    coordinate: Coordinate::Managed(coordinate),
                    own,
                } => {
                    if *own && holding.is_of_other_scope(coordinate) {
                        tracker.found(
                            Finding::of(Class::OtherScope, coordinate.as_str())
                                .in_configuration(&holding.key, place),
                        );
                    }
                    mentions.push(Mention::new(
                        coordinate.clone(),
                        own.then(|| holding.key.clone()),
                    ));
                }
            }
        }
    }

    /// Reports every configuration with a shared coordinate. It reads them once more, and only if
    /// there are any.
    async fn report_shared(&self, scan: u64) -> MigrateResult<()> {
        let shared = Select::all().with_scan(scan).with_shared(true);
        if self.journal.page(&shared, None, 1).await?.is_empty() {
            return Ok(());
        }
        self.each_page(Phase::Scan, &|page| {
            Box::pin(self.report_shared_in(scan, page))
        })
        .await
    }

    async fn report_shared_in(&self, scan: u64, page: Rows<'_>) -> MigrateResult<()> {
        self.still_held().await?;
        for holding in self.holdings(page.source, page.rows).await? {
            for entry in self.shared_in(scan, &holding).await? {
                self.tracker.found(
                    Finding::of(Class::Shared, entry.coordinate.as_str())
                        .in_configuration(&holding.key, None),
                );
            }
        }
        Ok(())
    }

    /// Finds secrets that no configuration mentions. A listing may be stale, so a name counts only
    /// after it is read; and a secret that is newer than the scan may belong to a newer
    /// configuration.
    async fn orphans(&self, scan: u64, began: Timestamp) -> MigrateResult<()> {
        let capabilities = self.source.capabilities();
        if capabilities.listing == Listing::None {
            self.tracker.note(|report| report.unlisted = true);
            return Ok(());
        }
        let to_come = self.copies_to_come().await?;
        let options = ListOptions::default().with_details(capabilities.cost.list_detail == 0);
        self.tracker.began(Phase::List, None);
        let mut after = None;
        let mut ahead = Some(self.source.list_page(&options, None).await);
        while let Some(page) = ahead.take()
            && !self.tracker.is_stopped()
        {
            let page = page?;
            if page.next.is_some() && page.next == after {
                return Err(MigrateError::new(
                    MigrateErrorKind::Store,
                    "the listing makes no progress: it returned the same cursor again",
                )
                .with_place(self.source.to_string()));
            }
            after = page.next;
            // The next page is listed while the journal looks for the names of this one.
            let read_ahead = async {
                let after = after.as_ref()?;
                Some(self.source.list_page(&options, Some(after)).await)
            };
            let mut entries = page.entries;
            entries.retain(|entry| !to_come.contains(&entry.coordinate));
            let found = self.orphans_of_page(scan, began, &entries);
            let (found, read) = futures::join!(found, read_ahead);
            found?;
            ahead = read;
        }
        self.tracker.ended(Phase::List);
        Ok(())
    }

    async fn orphans_of_page(
        &self,
        scan: u64,
        began: Timestamp,
        entries: &[Entry],
    ) -> MigrateResult<()> {
        for entries in entries.chunks(self.options.page.get()) {
            self.orphans_among(scan, began, entries).await?;
            self.still_held().await?;
            self.tracker.advanced(Phase::List, entries.len());
        }
        Ok(())
    }

    async fn orphans_among(
        &self,
        scan: u64,
        began: Timestamp,
        entries: &[Entry],
    ) -> MigrateResult<()> {
        let names: Vec<ManagedCoordinate> = entries
            .iter()
            .map(|entry| entry.coordinate.clone())
            .collect();
        let known = self.journal.find(&names).await?;
        let mut unmentioned = Vec::new();
        for (entry, known) in entries.iter().zip(known) {
            let mentioned = known.is_some_and(|known| known.scan == scan);
            let young = entry.created.is_some_and(|created| created > began);
            let ours = self.workspaces.have_name(&entry.coordinate);
            if mentioned || young || entry.pending_deletion || !ours {
                continue;
            }
            unmentioned.push(entry);
        }
        let mut orphans = Vec::new();
        let mut foreign = 0;
        for (entry, owner) in unmentioned.iter().zip(self.owners(&unmentioned).await) {
            if self.is_foreign(owner.as_deref()) {
                foreign += 1;
            } else {
                orphans.push(entry.coordinate.clone());
            }
        }
        let names = coordinates(&orphans);
        let batch = self.source.capabilities().read_batch.max(1);
        let reads = join_all(names.chunks(batch).map(|names| async {
            let reads = self.source.read_many(names).await;
            self.progressed();
            reads
        }));
        let reads = reads.await.into_iter().flatten();
        let mut mentions = Vec::new();
        for (coordinate, read) in orphans.into_iter().zip(reads) {
            if read.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                continue;
            }
            self.tracker
                .found(Finding::of(Class::Orphaned, coordinate.as_str()));
            mentions.push(Mention::new(coordinate, None));
        }
        self.tracker.tally(|tally| tally.foreign += foreign);
        if self.options.decisions.orphaned == Some(Orphaned::Copy) {
            self.mention(scan, &mentions).await?;
            let names = mentions.into_iter().map(|mention| mention.coordinate);
            let names: Vec<ManagedCoordinate> = names.collect();
            self.orphans.lock().extend(names.iter().cloned());
            self.mark(names.into_iter().map(Mark::Orphan).collect())
                .await?;
        }
        Ok(())
    }

    /// The owners of the source's secrets. None for a secret that is gone or whose owner the store
    /// does not tell.
    pub(super) async fn owners(&self, entries: &[&Entry]) -> Vec<Option<String>> {
        let capabilities = self.source.capabilities();
        let told = !capabilities.owner || capabilities.cost.list_detail == 0;
        let mut owners: Vec<BoxFuture<'_, Option<String>>> = Vec::with_capacity(entries.len());
        for entry in entries {
            let (owner, coordinate) = (entry.owner.clone(), entry.coordinate.clone());
            owners.push(Box::pin(async move {
                if owner.is_some() || told {
                    return owner;
                }
                let described = self.source.describe(&coordinate).await;
                self.progressed();
                described.ok().and_then(|entry| entry.owner)
            }));
        }
        join_all(owners).await
    }

    fn unreadable(&self, key: &str, problem: &Problem) -> Finding {
        let needs_references =
            self.references.is_none() && problem.kind() == ProblemKind::UnknownReference;
        let class = if needs_references {
            Class::Unresolved
        } else {
            Class::Unreadable
        };
        let mut finding = Finding::new(class)
            .in_configuration(key, Some(problem.place().as_str()))
            .with_kind(problem.kind().as_str())
            .with_detail(problem.message().to_owned());
        finding.coordinate = problem.coordinate().map(str::to_owned);
        finding
    }

    /// Whether an owner is another installation.
    pub(super) fn is_foreign(&self, owner: Option<&str>) -> bool {
        owner.is_some_and(|theirs| self.owner.is_none_or(|ours| ours.as_str() != theirs))
    }

    /// The journal's entries of a row's own coordinates that are in other rows too.
    pub(super) async fn shared_in(
        &self,
        scan: u64,
        holding: &Holding,
    ) -> MigrateResult<Vec<crate::JournalEntry>> {
        let mut own: Vec<ManagedCoordinate> = holding
            .held
            .iter()
            .filter_map(|held| match &held.means {
                Means::Secret {
                    coordinate: Coordinate::Managed(coordinate),
                    own: true,
                } => Some(coordinate.clone()),
                _ => None,
            })
            .collect();
        own.sort_unstable();
        own.dedup();
        Ok(self
            .journal
            .find(&own)
            .await?
            .into_iter()
            .flatten()
            .filter(|entry| entry.scan == scan && entry.shared)
            .collect())
    }
}

/// Managed coordinates as coordinates to read.
pub(super) fn coordinates(names: &[ManagedCoordinate]) -> Vec<Coordinate> {
    names.iter().cloned().map(Coordinate::from).collect()
}
