//! Splits by several processes, of which some are paused or gone while they change a row.

// Clippy does not see that the module is one of tests.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use futures::future::{BoxFuture, Either, pending, select};
use secret_persistence_core::connector::{hydrate_with, pointers};
use secret_persistence_core::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity, ListOptions,
    ManagedCoordinate, Memory, Page, Read, Result, SecretPersistence, SecretPersistenceExt as _,
    SecretValue, Write, Written,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::Split;
use crate::collect::lapses::Place;
use crate::{
    Access, Class, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, Content, Journal as _,
    MemoryConfigs, MigrateErrorKind, MigrateOptions, MigrateResult, Report, SqlJournal, Stop,
    Update,
};

/// Longer than a case takes.
const LONG: Duration = Duration::from_secs(600);

/// Short: it ends while the test sleeps.
const SHORT: Duration = Duration::from_millis(500);

/// So many that there are several pages.
const ROWS: usize = 23;

type Before = Arc<dyn Fn(&str) -> BoxFuture<'static, ()> + Send + Sync>;

/// The points at which a process may be stopped: before and after each request to the store or to the
/// configurations. What it does with the journal is between them.
#[derive(Default)]
struct Points {
    passed: AtomicUsize,
    /// At which one it stops; at none if 0.
    stops_at: usize,
    told: Notify,
    word: Notify,
}

impl Points {
    async fn pass(&self) {
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.stops_at {
            self.told.notify_one();
            self.word.notified().await;
        }
    }

    async fn around<T>(&self, request: impl Future<Output = T>) -> T {
        self.pass().await;
        let answer = request.await;
        self.pass().await;
        answer
    }
}

/// A store as one process has it.
struct Stopping {
    inner: Arc<Memory>,
    points: Arc<Points>,
}

impl fmt::Debug for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopping").finish_non_exhaustive()
    }
}

impl fmt::Display for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl SecretPersistence for Stopping {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let request = self.inner.read_batch(coordinates);
        self.points.around(request).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let request = self.inner.write_batch(writes);
        self.points.around(request).await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let request = self.inner.delete_batch(coordinates, options);
        self.points.around(request).await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.inner.restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.inner.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.inner.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        let request = self.inner.identity();
        self.points.around(request).await
    }
}

/// Configurations as one process has them: it waits before it saves a row.
struct Seen {
    rows: Arc<MemoryConfigs>,
    before: Before,
    points: Arc<Points>,
    /// A row of which this process knows no specification.
    unknown: Option<&'static str>,
    /// What the database says about which table it is.
    table: &'static str,
}

impl Seen {
    fn seen(&self, mut row: ConfigRow) -> ConfigRow {
        if self.unknown == Some(row.id.as_str()) {
            row.specification = None;
        }
        row
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.fmt(f)
    }
}

#[async_trait]
impl ConfigSource for Seen {
    fn access(&self) -> Access {
        Access::Update
    }

    fn identity(&self) -> String {
        self.table.to_owned()
    }

    fn admits_others(&self) -> bool {
        true
    }

    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        let page = self.points.around(self.rows.page(after, limit)).await?;
        let rows = page.rows.into_iter().map(|row| self.seen(row));
        Ok(ConfigPage::new(rows.collect(), page.next))
    }

    async fn page_upto(
        &self,
        after: Option<&ConfigCursor>,
        upto: &ConfigCursor,
        limit: usize,
    ) -> MigrateResult<ConfigPage> {
        let request = self.rows.page_upto(after, upto, limit);
        let page = self.points.around(request).await?;
        let rows = page.rows.into_iter().map(|row| self.seen(row));
        Ok(ConfigPage::new(rows.collect(), page.next))
    }

    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        let row = self.points.around(self.rows.row(id)).await?;
        Ok(row.map(|row| self.seen(row)))
    }

    async fn update(&self, row: &ConfigRow, configuration: &Value) -> MigrateResult<Update> {
        (self.before)(&row.id).await;
        let request = self.rows.update(row, configuration);
        self.points.around(request).await
    }
}

fn nothing(_: &str) -> BoxFuture<'static, ()> {
    Box::pin(async {})
}

/// Rows that were never split, which several processes share.
struct Site {
    place: Place,
    store: Arc<Memory>,
    rows: Arc<MemoryConfigs>,
    /// What each row means in full.
    full: BTreeMap<String, Value>,
    other: SqlJournal,
}

fn row(id: &str, configuration: Value) -> ConfigRow {
    let specification = json!({
        "type": "object",
        "properties": {
            "password": {"type": "string", "airbyte_secret": true},
            "token": {"type": "string", "airbyte_secret": true},
        },
    });
    ConfigRow::new(id, configuration)
        .with_scope(None, Some(Uuid::from_u128(42)))
        .with_specification(Some(Arc::new(specification)))
}

impl Site {
    async fn new() -> Option<Self> {
        Some(Self::of(Place::new().await?, ROWS).await)
    }

    async fn of(place: Place, rows: usize) -> Self {
        let mut full = BTreeMap::new();
        let rows = (0..rows).map(|number| {
            let id = format!("r{number:02}");
            let raw =
                json!({"password": format!("raw-{number}"), "token": format!("raw-t{number}")});
            full.insert(id.clone(), raw.clone());
            row(&id, raw)
        });
        let rows = MemoryConfigs::new("configs", rows.collect()).unwrap();
        // Another session, so that no process begins a pass only because it is alone.
        let other = journal(&place).await;
        Self {
            store: Arc::new(Memory::new()),
            rows: Arc::new(rows),
            full,
            other,
            place,
        }
    }

    async fn process(
        &self,
        lease: Duration,
        before: impl Fn(&str) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Process {
        let points = Arc::default();
        self.seeing(lease, before, None, points).await
    }

    /// A process that stops at a point.
    async fn stopping(&self, lease: Duration, points: &Arc<Points>) -> Process {
        let points = Arc::clone(points);
        self.seeing(lease, nothing, None, points).await
    }

    async fn seeing(
        &self,
        lease: Duration,
        before: impl Fn(&str) -> BoxFuture<'static, ()> + Send + Sync + 'static,
        unknown: Option<&'static str>,
        points: Arc<Points>,
    ) -> Process {
        let rows = Seen {
            rows: Arc::clone(&self.rows),
            before: Arc::new(before),
            points: Arc::clone(&points),
            unknown,
            table: "one",
        };
        self.with(lease, rows, points).await
    }

    /// A process for which the same address leads to another table, which has no rows.
    async fn elsewhere(&self, lease: Duration) -> Process {
        let rows = Seen {
            rows: Arc::new(MemoryConfigs::new("configs", Vec::new()).unwrap()),
            before: Arc::new(nothing),
            points: Arc::default(),
            unknown: None,
            table: "another",
        };
        self.with(lease, rows, Arc::default()).await
    }

    async fn with(&self, lease: Duration, rows: Seen, points: Arc<Points>) -> Process {
        let journal = Arc::new(journal(&self.place).await);
        let store = Stopping {
            inner: Arc::clone(&self.store),
            points,
        };
        let options = MigrateOptions::default()
            .with_lease(lease)
            .with_page(NonZeroUsize::new(4).unwrap());
        let split = Split::new(Arc::new(store), journal.clone())
            .with_configs(Arc::new(rows))
            .with_options(options);
        Process { split, journal }
    }

    async fn stored(&self) -> BTreeMap<String, SecretValue> {
        let options = ListOptions::default();
        let names: Vec<Coordinate> = self
            .store
            .list(&options)
            .map_ok(|entry| entry.coordinate.into())
            .try_collect()
            .await
            .unwrap();
        let mut stored = BTreeMap::new();
        for name in names {
            let read = self.store.read(&name).await.unwrap();
            stored.insert(name.to_string(), read.value);
        }
        stored
    }

    /// No row points to a secret that is not there.
    async fn assert_no_loss(&self, what: &str) {
        let stored = self.stored().await;
        for row in self.rows.rows() {
            let Content::Configuration(configuration) = &row.content else {
                unreachable!()
            };
            let full = hydrate_with((***configuration).clone(), |pointer| {
                let name = pointer.coordinate.as_ref().map(Coordinate::as_str)?;
                stored.get(name).cloned()
            });
            let full = full.unwrap_or_else(|error| panic!("{what}: {}: {error}", row.id));
            assert_eq!(*full, self.full[&row.id], "{what}: {}", row.id);
        }
    }

    /// Every row means what it meant, has no raw secret, and the store has what the rows mention and
    /// nothing else.
    async fn assert_split(&self) {
        let stored = self.stored().await;
        let mut mentioned = Vec::new();
        for row in self.rows.rows() {
            let Content::Configuration(configuration) = &row.content else {
                unreachable!()
            };
            let text = configuration.to_string();
            assert!(!text.contains("raw-"), "{text}");
            for (_, pointer) in pointers(configuration).unwrap() {
                mentioned.push(pointer.coordinate.unwrap().to_string());
            }
            let full = hydrate_with((***configuration).clone(), |pointer| {
                let name = pointer.coordinate.as_ref().map(Coordinate::as_str)?;
                stored.get(name).cloned()
            });
            assert_eq!(*full.unwrap(), self.full[&row.id], "{}", row.id);
        }
        mentioned.sort_unstable();
        assert_eq!(mentioned, stored.into_keys().collect::<Vec<_>>());
    }

    async fn end(self) {
        self.other.close().await;
        self.place.drop().await;
    }
}

async fn journal(place: &Place) -> SqlJournal {
    let variables = |name: &str| place.variable(name);
    let journal = SqlJournal::open_shared(&place.url(), &variables).await;
    journal.unwrap()
}

struct Process {
    split: Split,
    journal: Arc<SqlJournal>,
}

impl Process {
    /// Runs to its end, which comes.
    async fn run(self) -> MigrateResult<Report> {
        let report = timeout(Duration::from_secs(60), self.split.run()).await;
        let report = report.expect("it ends");
        self.journal.close().await;
        report
    }

    /// Runs until something has happened, and is gone.
    async fn run_until(self, happened: &Notify) {
        let run = std::pin::pin!(self.split.run());
        let happened = std::pin::pin!(happened.notified());
        match select(run, happened).await {
            Either::Left((report, _)) => panic!("it ended: {report:?}"),
            Either::Right(((), _)) => {}
        }
        self.journal.close().await;
    }
}

/// Waits before one row is saved: first it tells, then it waits for the word.
fn paused(
    at: &'static str,
    told: &Arc<Notify>,
    word: &Arc<Notify>,
) -> impl Fn(&str) -> BoxFuture<'static, ()> + Send + Sync + 'static {
    let (told, word, first) = (Arc::clone(told), Arc::clone(word), AtomicBool::new(true));
    move |id| {
        if id != at || !first.swap(false, Ordering::SeqCst) {
            return nothing(id);
        }
        let (told, word) = (Arc::clone(&told), Arc::clone(&word));
        Box::pin(async move {
            told.notify_one();
            word.notified().await;
        })
    }
}

#[tokio::test]
async fn several_split_each_row_once() {
    let Some(site) = Site::new().await else {
        return;
    };
    let slow = |_: &str| -> BoxFuture<'static, ()> { Box::pin(sleep(Duration::from_millis(25))) };
    let (one, two, three) = (
        site.process(LONG, slow).await,
        site.process(LONG, slow).await,
        site.process(LONG, slow).await,
    );
    let (one, two, three) = tokio::join!(one.run(), two.run(), three.run());
    let reports = [one.unwrap(), two.unwrap(), three.unwrap()];
    let split: Vec<u64> = reports.iter().map(|report| report.tally.split).collect();
    assert_eq!(split.iter().sum::<u64>(), ROWS as u64, "{split:?}");
    assert!(split.iter().all(|split| *split > 0), "{split:?}");
    for report in &reports {
        assert_eq!((report.failed, report.stopped), (0, None), "{report:?}");
    }
    site.assert_split().await;
    assert_eq!(site.other.notes(None, 9).await.unwrap(), []);
    let again = site.process(LONG, nothing).await.run().await.unwrap();
    assert_eq!((again.tally.split, again.tally.secrets), (0, 0));
    assert_eq!(again.tally.configurations, ROWS as u64);
    site.end().await;
}

/// The process that was paused finds that another one has split its row.
#[tokio::test]
async fn a_row_whose_process_was_paused_is_split_by_another() {
    let Some(site) = Site::new().await else {
        return;
    };
    let (told, word) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = site.process(SHORT, paused("r05", &told, &word)).await;
    let slow = tokio::spawn(slow.run());
    told.notified().await;
    sleep(SHORT * 2).await;
    // This one also ends what the first has recorded: the row is not what that has read.
    let quick = site.process(LONG, nothing).await.run().await.unwrap();
    assert_eq!(quick.failed, 0, "{quick:?}");
    site.assert_split().await;
    word.notify_one();
    let slow = slow.await.unwrap().unwrap();
    assert_eq!((slow.failed, slow.tally.changed), (0, 0), "{slow:?}");
    assert_eq!(slow.tally.split + quick.tally.split, ROWS as u64);
    site.assert_split().await;
    site.end().await;
}

#[tokio::test]
async fn what_a_killed_process_wrote_is_deleted_or_kept() {
    let Some(site) = Site::new().await else {
        return;
    };
    let told = Arc::new(Notify::new());
    let notify = Arc::clone(&told);
    let process = site.process(SHORT, move |id| {
        if id != "r06" {
            return nothing(id);
        }
        notify.notify_one();
        Box::pin(pending())
    });
    process.await.run_until(&told).await;
    let before = site.stored().await.len();
    sleep(SHORT * 2).await;
    let report = site.process(LONG, nothing).await.run().await.unwrap();
    assert_eq!(report.failed, 0, "{report:?}");
    site.assert_split().await;
    assert!(
        before > 12,
        "nothing was written for a row that is not saved"
    );
    site.end().await;
}

/// Nobody can split the row in its place, so what it has written must be there when it goes on: the row
/// would point to nothing, and its secrets would be lost.
#[tokio::test]
async fn what_a_paused_process_may_still_save_is_kept() {
    let Some(site) = Site::new().await else {
        return;
    };
    let (told, word) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = site.process(SHORT, paused("r05", &told, &word)).await;
    let slow = tokio::spawn(slow.run());
    told.notified().await;
    sleep(SHORT * 2).await;
    let quick = site
        .seeing(LONG, nothing, Some("r05"), Arc::default())
        .await;
    let quick = quick.run().await.unwrap();
    // The row has no specification, and it may still be saved.
    assert_eq!(quick.failed, 2, "{quick:?}");
    let shown = format!("{quick:?} {}", serde_json::to_string(&quick).unwrap());
    assert!(shown.contains("may still save this row"), "{shown}");
    assert!(!shown.contains("raw-"), "{shown}");
    word.notify_one();
    slow.await.unwrap().unwrap();
    let again = site.process(LONG, nothing).await.run().await.unwrap();
    assert_eq!(again.failed, 0, "{again:?}");
    site.assert_split().await;
    site.end().await;
}

/// A process whose address leads to another table neither takes part nor ends what was recorded: it does not
/// see whether the rows were saved.
#[tokio::test]
async fn another_table_with_the_same_address_is_left_alone() {
    let Some(site) = Site::new().await else {
        return;
    };
    let (told, word) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let one = site.process(SHORT, paused("r05", &told, &word)).await;
    let one = tokio::spawn(one.run());
    told.notified().await;
    let other = site.elsewhere(SHORT).await.run().await.unwrap_err();
    assert_eq!(other.kind(), MigrateErrorKind::AnotherRun);
    sleep(SHORT * 2).await;
    let other = site.elsewhere(SHORT).await.run().await.unwrap_err();
    assert_eq!(other.kind(), MigrateErrorKind::Configurations, "{other}");
    one.abort();
    sleep(SHORT * 2).await;
    let next = site.process(LONG, nothing).await.run().await.unwrap();
    assert_eq!(next.failed, 0, "{next:?}");
    site.assert_split().await;
    site.end().await;
}

/// Each process knows which findings are its own, and a split that has ended is not shown as stopped.
#[tokio::test]
async fn findings_belong_to_those_who_found_them() {
    for stop in [Stop::Failures, Stop::Undecided] {
        let Some(site) = Site::new().await else {
            return;
        };
        let unknown = (stop == Stop::Failures).then_some("r05");
        if stop == Stop::Undecided {
            let other = Uuid::from_u128(7);
            let name = format!("airbyte_workspace_{other}_secret_{other}_v1");
            site.rows
                .put(row("r05", json!({"password": {"_secret": name}})));
        }
        let slow =
            |_: &str| -> BoxFuture<'static, ()> { Box::pin(sleep(Duration::from_millis(9))) };
        let (one, two) = (
            site.seeing(LONG, slow, unknown, Arc::default()).await,
            site.seeing(LONG, slow, unknown, Arc::default()).await,
        );
        let (one, two) = tokio::join!(one.run(), two.run());
        let (one, two) = (one.unwrap(), two.unwrap());
        let found = |report: &Report| match stop {
            Stop::Failures => report.failed > 0,
            _ => report.count(Class::OtherScope) > 0,
        };
        let (finder, other) = if found(&one) { (one, two) } else { (two, one) };
        assert!(found(&finder) && !found(&other), "{finder:?} {other:?}");
        assert!(!finder.stopped_by_another, "{finder:?}");
        assert!(other.stopped_by_another, "{other:?}");
        assert_eq!(other.stopped, Some(stop));
        let variables = |name: &str| site.place.variable(name);
        let status = SqlJournal::status(&site.place.url(), &variables).await;
        let pass = status.unwrap().pass.unwrap();
        assert_eq!(pass.phase.as_str(), "ended", "{stop}");
        site.end().await;
    }
}

#[tokio::test]
async fn two_rows_with_one_id_stop_all() {
    let Some(site) = Site::new().await else {
        return;
    };
    let twice = |journal: Arc<SqlJournal>| {
        let rows = || Arc::new(MemoryConfigs::new("configs", vec![row("a", json!({}))]).unwrap());
        Split::new(site.store.clone(), journal)
            .with_configs(rows())
            .with_configs(rows())
    };
    let journal = Arc::new(journal(&site.place).await);
    let error = twice(Arc::clone(&journal)).run().await.unwrap_err();
    assert_eq!(error.kind(), MigrateErrorKind::Configurations);
    assert_eq!(error.place(), Some("configs#a"));
    journal.close().await;
    site.end().await;
}

/// A process is killed, or paused for longer than its lease, at each point that it passes; another one ends
/// the split, then the paused one goes on. No row loses a secret at any time, and nothing is left in the end.
#[tokio::test]
async fn a_process_that_is_stopped_at_any_point_loses_nothing() {
    let lease = Duration::from_millis(250);
    let rows = 5;
    for is_killed in [true, false] {
        let mut reached = 0;
        for stops_at in 1.. {
            let Some(place) = Place::new().await else {
                return;
            };
            let site = Site::of(place, rows).await;
            let what = format!("killed: {is_killed}, stopped at {stops_at}");
            let points = Arc::new(Points {
                stops_at,
                ..Points::default()
            });
            let slow = site.stopping(lease, &points).await;
            let is_over = if is_killed {
                let journal = Arc::clone(&slow.journal);
                let run = Box::pin(slow.run());
                let over = matches!(
                    select(run, std::pin::pin!(points.told.notified())).await,
                    Either::Left(_)
                );
                journal.close().await;
                over
            } else {
                let slow = tokio::spawn(slow.run());
                let told = timeout(lease * 8, points.told.notified()).await;
                if told.is_ok() {
                    sleep(lease + lease / 4).await;
                }
                let quick = site.process(LONG, nothing).await.run().await.unwrap();
                assert_eq!(quick.failed, 0, "{what}: {quick:?}");
                site.assert_no_loss(&what).await;
                points.word.notify_one();
                let slow = slow.await.unwrap().unwrap();
                assert_eq!((slow.failed, slow.tally.changed), (0, 0), "{what}");
                told.is_err()
            };
            site.assert_no_loss(&what).await;
            // What was on its way when others cleaned up is deleted by the next.
            let next = site.process(LONG, nothing).await.run().await.unwrap();
            assert_eq!(next.failed, 0, "{what}: {next:?}");
            site.assert_split().await;
            site.end().await;
            if is_over {
                break;
            }
            reached = stops_at;
        }
        eprintln!("killed: {is_killed}, stopped at each of {reached} points");
        assert!(reached > 20, "there are more points: {reached}");
    }
}
