//! Checks that every configuration hydrates.
use std::collections::{BTreeSet, HashMap};

use futures::future::try_join_all;
use secret_persistence_core::connector::{Pointer, Problem, ProblemKind, Rereads, hydrate_with};
use secret_persistence_core::{
    Coordinate, Error, ErrorKind, ManagedCoordinate, Result, SecretPersistenceExt, SecretValue,
};

use crate::holdings::{Held, Holding, Means};
use crate::left::left_among;
use crate::scan::coordinates;
use crate::session::{Rows, Session, Work};
use crate::{
    Class, ConfigRow, ConfigSource, Content, External, Failure, Finding, JournalEntry,
    MigrateResult, Missing, Phase, State,
};

/// A placeholder for secrets of other stores and workspaces, which are not read: valid as text and as JSON.
const ELSEWHERE: &str = "0";

/// The smallest number of configurations that are hydrated together.
const GROUP: usize = 16;

/// The store to read from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    Source,
    Target,
}

type Reads = HashMap<Coordinate, Result<SecretValue>>;

impl Session<'_> {
    /// Hydrates every configuration and reads every bare coordinate from one store. Returns whether
    /// all succeeded; failures are in the tracker.
    pub(super) async fn hydrate(&self, from: Store) -> MigrateResult<bool> {
        let before = self.failures();
        self.each_page(Phase::Hydrate, &|page| {
            Box::pin(self.hydrate_page(from, page))
        })
        .await?;
        Ok(self.failures() == before)
    }

    fn failures(&self) -> u64 {
        let mut failed = 0;
        self.tracker
            .note(|report| failed = report.failed + report.tally.changed_since);
        failed
    }

    /// Hydrates a page in groups, all of them concurrently, and reports each as progress.
    async fn hydrate_page(&self, from: Store, page: Rows<'_>) -> MigrateResult<()> {
        let Rows {
            source,
            rows,
            meter,
        } = page;
        let meter = &meter;
        let store = match from {
            Store::Source => &self.source,
            Store::Target => &self.target,
        };
        // As many as one request may answer, so that the groups cost no additional requests.
        let size = store.capabilities().read_batch.max(GROUP);
        let mut groups: Vec<Work<'_>> = Vec::with_capacity(rows.len().div_ceil(size));
        let mut rest = rows.into_iter().peekable();
        while rest.peek().is_some() {
            let group: Vec<ConfigRow> = rest.by_ref().take(size).collect();
            groups.push(Box::pin(async move {
                let count = group.len();
                self.hydrate_rows(from, source, group).await?;
                meter.passed(count);
                Ok(())
            }));
        }
        try_join_all(groups).await.map(drop)
    }

    async fn hydrate_rows(
        &self,
        from: Store,
        source: &dyn ConfigSource,
        rows: Vec<ConfigRow>,
    ) -> MigrateResult<()> {
        let mut rereads = vec![Rereads::default(); rows.len()];
        let mut rows = rows;
        while !rows.is_empty() {
            self.still_held().await?;
            let holdings = self.holdings(source, rows).await?;
            self.note_left(left_among(&holdings)).await?;
            let reads = self.reads(from, &holdings).await;
            self.progressed();
            let (mut moved, mut moved_rereads) = (Vec::new(), Vec::new());
            for (holding, mut rereads) in holdings.into_iter().zip(rereads) {
                let problems = self.hydrate_row(&holding, &reads);
                if rereads.may_help(&problems) {
                    match source.row(&holding.row.id).await? {
                        None => continue,
                        Some(now) if !is_same(&holding.row, &now) => {
                            moved.push(now);
                            moved_rereads.push(rereads);
                            continue;
                        }
                        Some(_) => {}
                    }
                }
                self.conclude(from, source, &holding, problems).await?;
            }
            (rows, rereads) = (moved, moved_rereads);
        }
        Ok(())
    }

    /// Reads everything that a group of rows needs, each name once.
    async fn reads(&self, from: Store, holdings: &[Holding]) -> Reads {
        let names: BTreeSet<&Coordinate> = holdings
            .iter()
            .flat_map(|holding| &holding.held)
            .filter_map(Held::coordinate)
            .collect();
        let stays = |name: &Coordinate| {
            matches!(name, Coordinate::External(_))
                && self.options.decisions.external == Some(External::Leave)
        };
        let (source, target): (Vec<&Coordinate>, Vec<&Coordinate>) = names
            .into_iter()
            .partition(|name| from == Store::Source || stays(name));
        let source: Vec<Coordinate> = source.into_iter().cloned().collect();
        let target: Vec<Coordinate> = target.into_iter().cloned().collect();
        let (from_source, from_target) = futures::join!(
            self.source.read_many(&source),
            self.target.read_many(&target)
        );
        source
            .into_iter()
            .zip(from_source)
            .chain(target.into_iter().zip(from_target))
            .map(|(name, read)| (name, read.map(|read| read.value)))
            .collect()
    }

    fn hydrate_row(&self, holding: &Holding, reads: &Reads) -> Vec<Problem> {
        let mut problems = holding.problems.clone();
        let mut values: HashMap<&Pointer, SecretValue> = HashMap::new();
        for held in &holding.held {
            let value = match &held.means {
                Means::Elsewhere { .. } | Means::OtherWorkspace(_) => {
                    SecretValue::new(ELSEWHERE.to_owned())
                }
                Means::Undecided(_) => {
                    problems.push(Problem::new(
                        held.place.clone(),
                        ProblemKind::UnknownStorage,
                        "the meaning of this storage id is undecided",
                    ));
                    continue;
                }
                Means::Secret { coordinate, .. } => match reads.get(coordinate) {
                    Some(Ok(value)) => value.clone(),
                    Some(Err(error)) => {
                        problems.push(Problem::of_store(held.place.clone(), error.clone()));
                        continue;
                    }
                    None => {
                        let error = Error::new(
                            ErrorKind::Unexpected,
                            "the store returned no result for the name",
                        )
                        .with_coordinate(coordinate.shared());
                        problems.push(Problem::of_store(held.place.clone(), error));
                        continue;
                    }
                },
            };
            if let Some(pointer) = &held.pointer {
                values.insert(pointer, value);
            }
        }
        if let Content::Configuration(configuration) = &holding.row.content
            && problems.is_empty()
            && !holding.other
        {
            let hydrated = hydrate_with((***configuration).clone(), |pointer| {
                values.get(pointer).cloned()
            });
            if let Err(error) = hydrated {
                problems.extend(error.problems().iter().cloned());
            }
        }
        problems
    }

    async fn conclude(
        &self,
        from: Store,
        source: &dyn ConfigSource,
        holding: &Holding,
        problems: Vec<Problem>,
    ) -> MigrateResult<()> {
        let tracker = &self.tracker;
        if problems.is_empty() {
            if !holding.other && matches!(holding.row.content, Content::Configuration(_)) {
                tracker.tally(|tally| tally.hydrated += 1);
            }
            return Ok(());
        }
        if self.is_younger_than_the_copy(from, &problems).await? {
            self.note_changed(holding);
            return Ok(());
        }
        let was_broken = self.was_broken_before(from, &problems).await;
        if problems.iter().all(Problem::is_gone) {
            // Asked last: what was there a moment ago, and is not in either store now, was rotated.
            match source.row(&holding.row.id).await? {
                None => return Ok(()),
                Some(now) if !is_same(&holding.row, &now) => {
                    self.note_changed(holding);
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        if was_broken {
            tracker.tally(|tally| tally.skipped += 1);
            for problem in &problems {
                let mut finding = Finding::new(Class::Skipped)
                    .in_configuration(&holding.key, Some(problem.place().as_str()))
                    .with_detail(
                        "neither store has this secret, and --missing skip leaves such configurations",
                    );
                finding.coordinate = problem.coordinate().map(str::to_owned);
                tracker.found(finding);
            }
            return Ok(());
        }
        for problem in &problems {
            tracker.not_hydrated(Failure::of_problem(&holding.key, problem));
        }
        Ok(())
    }

    fn note_changed(&self, holding: &Holding) {
        self.tracker.tally(|tally| tally.changed_since += 1);
        self.tracker.found(
            Finding::new(Class::Changed)
                .in_configuration(&holding.key, None)
                .with_detail("it was saved after the last copy; copy again"),
        );
    }

    /// Whether everything that a configuration lacks in the target was written to the source since
    /// the last copy: the journal does not know it, and the source has it.
    async fn is_younger_than_the_copy(
        &self,
        from: Store,
        problems: &[Problem],
    ) -> MigrateResult<bool> {
        if from == Store::Source || !problems.iter().all(Problem::is_gone) {
            return Ok(false);
        }
        let names: Vec<ManagedCoordinate> = problems
            .iter()
            .filter_map(|problem| ManagedCoordinate::parse(problem.coordinate()?).ok())
            .collect();
        if names.len() != problems.len() {
            return Ok(false);
        }
        let known = self.journal.find(&names).await?;
        let was_there = |entry: &JournalEntry| entry.intent || entry.state != State::Pending;
        if known.iter().flatten().any(was_there) {
            return Ok(false);
        }
        let reads = self.source.read_many(&coordinates(&names)).await;
        Ok(reads.iter().all(Result::is_ok))
    }

    /// Whether everything that a configuration lacks is missing in the other store too, and the
    /// operator decided to ignore such configurations.
    async fn was_broken_before(&self, from: Store, problems: &[Problem]) -> bool {
        if self.options.decisions.missing != Some(Missing::Skip)
            || !problems.iter().all(Problem::is_gone)
        {
            return false;
        }
        let names: Vec<Coordinate> = problems
            .iter()
            .filter_map(|problem| Coordinate::parse(problem.coordinate()?).ok())
            .collect();
        let others = match from {
            Store::Source => self.target.read_many(&names).await,
            Store::Target => self.source.read_many(&names).await,
        };
        names.len() == problems.len()
            && others
                .iter()
                .all(|other| other.as_ref().is_err_and(|error| error.kind().is_gone()))
    }
}

fn is_same(before: &ConfigRow, now: &ConfigRow) -> bool {
    match (&before.content, &now.content) {
        (Content::Configuration(before), Content::Configuration(now)) => ***before == ***now,
        (Content::Coordinate(before), Content::Coordinate(now)) => before == now,
        _ => false,
    }
}
