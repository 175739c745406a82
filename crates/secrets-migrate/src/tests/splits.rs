//! Raw secrets taken out of rows, by processes that end anywhere.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence_core::connector::{ConnectorOptions, hydrate_with, pointers};
use secret_persistence_core::{
    Coordinate, ManagedCoordinate, Memory, Scope, SecretPersistenceExt, SecretValue, Write,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::sent::Sent;
use super::tap::{Process, Tap, TapJournal};
use super::world::{assert_complete, contents};
use crate::{
    Access, Class, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, Content, Journal,
    MemoryConfigs, MemoryJournal, MigrateErrorKind, MigrateOptions, MigrateResult, Report, Split,
    Update,
};

/// Saves nothing before it has finished, as a source does that writes a new file.
#[derive(Debug)]
struct Deferred {
    rows: Arc<MemoryConfigs>,
    updates: Mutex<BTreeMap<String, (ConfigRow, Value)>>,
}

impl fmt::Display for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.fmt(f)
    }
}

#[async_trait]
impl ConfigSource for Deferred {
    fn access(&self) -> Access {
        Access::Update
    }

    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        self.rows.page(after, limit).await
    }

    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        self.rows.row(id).await
    }

    async fn update(&self, row: &ConfigRow, configuration: &Value) -> MigrateResult<Update> {
        self.updates
            .lock()
            .unwrap()
            .insert(row.id.clone(), (row.clone(), configuration.clone()));
        Ok(Update::Saved)
    }

    async fn finish(&self) -> MigrateResult<()> {
        let updates = std::mem::take(&mut *self.updates.lock().unwrap());
        for (row, configuration) in updates.into_values() {
            assert_eq!(self.rows.update(&row, &configuration).await?, Update::Saved);
        }
        Ok(())
    }
}

struct Installation {
    store: Arc<Memory>,
    rows: Arc<MemoryConfigs>,
    journal: Arc<MemoryJournal>,
    /// What each row means in full.
    full: BTreeMap<String, Value>,
    options: MigrateOptions,
}

fn specification() -> Arc<Value> {
    Arc::new(json!({
        "type": "object",
        "properties": {
            "host": {"type": "string"},
            "password": {"type": "string", "airbyte_secret": true},
            "key": {"type": "object", "airbyte_secret": true},
        },
    }))
}

fn base_id() -> Uuid {
    Uuid::from_u128(42)
}

impl Installation {
    /// Rows that were never split, one half split, one split, one without a secret.
    async fn new() -> Self {
        let store = Arc::new(Memory::new());
        let scope = Scope::workspace(base_id());
        let mut saved = Vec::new();
        for number in 1..=2 {
            let name = ManagedCoordinate::new(&scope, Uuid::from_u128(number), 1).unwrap();
            let value = SecretValue::new(format!("saved-{number}"));
            store.write(Write::new(name.clone(), value)).await.unwrap();
            saved.push(json!({"_secret": name.as_str()}));
        }
        let mut full = BTreeMap::new();
        let mut rows = Vec::new();
        let mut row = |id: &str, configuration: Value, meant: Value| {
            full.insert(id.to_owned(), meant);
            rows.push(
                ConfigRow::new(id, configuration)
                    .with_scope(None, Some(base_id()))
                    .with_specification(Some(specification())),
            );
        };
        for number in 1..=3 {
            let raw = json!({
                "host": "db",
                "password": format!("raw-{number}"),
                "key": {"n": number},
            });
            row(&format!("raw{number}"), raw.clone(), raw);
        }
        row(
            "half",
            json!({"password": saved[0], "key": {"n": 9}}),
            json!({"password": "saved-1", "key": {"n": 9}}),
        );
        row(
            "split",
            json!({"password": saved[1]}),
            json!({"password": "saved-2"}),
        );
        row("none", json!({"host": "db"}), json!({"host": "db"}));
        Self {
            store,
            rows: Arc::new(MemoryConfigs::new("configs", rows).unwrap()),
            journal: Arc::new(MemoryJournal::new()),
            full,
            options: MigrateOptions::default(),
        }
    }

    fn split(&self, process: &Arc<Process>, deferred: bool) -> Split {
        let configs: Arc<dyn ConfigSource> = if deferred {
            Arc::new(Deferred {
                rows: self.rows.clone(),
                updates: Mutex::default(),
            })
        } else {
            self.rows.clone()
        };
        Split::new(
            Arc::new(Tap::new(self.store.clone(), process)),
            Arc::new(TapJournal::new(self.journal.clone(), process)),
        )
        .with_configs(configs)
        .with_options(self.options.clone())
    }

    async fn run(&self) -> Report {
        let process = Process::endless();
        self.split(&process, false).run().await.unwrap()
    }

    /// Every row means what it meant, no raw secret stands in one, and the store has what the rows
    /// mention and nothing else.
    async fn assert_split(&self, what: &str) {
        let stored = contents(&self.store).await;
        let mut mentioned = Vec::new();
        for row in self.rows.rows() {
            let Content::Configuration(configuration) = &row.content else {
                unreachable!()
            };
            for (_, pointer) in pointers(configuration).unwrap() {
                mentioned.push(pointer.coordinate.unwrap().to_string());
            }
            let text = configuration.to_string();
            assert!(
                !text.contains("raw-") && !text.contains("\"n\""),
                "{what}: {text}"
            );
            let full = hydrate_with((***configuration).clone(), |pointer| {
                let name = pointer.coordinate.as_ref().map(Coordinate::as_str)?;
                stored.get(name).cloned().map(SecretValue::new)
            })
            .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(*full, self.full[&row.id], "{what}");
        }
        mentioned.sort_unstable();
        assert_eq!(mentioned, stored.into_keys().collect::<Vec<_>>(), "{what}");
    }
}

#[tokio::test]
async fn every_raw_secret_is_taken_out_and_half_split_rows_finish() {
    let installation = Installation::new().await;
    let report = installation.run().await;
    assert_complete(&report, "split");
    assert_eq!((report.tally.split, report.tally.secrets), (4, 7));
    installation.assert_split("split").await;
    let notes = installation.journal.notes(None, 9).await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let rows = format!("{:?}", contents(&installation.store).await);
    let report = installation.run().await;
    assert_complete(&report, "again");
    assert_eq!((report.tally.split, report.tally.secrets), (0, 0));
    assert_eq!(format!("{:?}", contents(&installation.store).await), rows);
}

#[tokio::test]
async fn a_split_ended_at_any_operation_is_finished_by_the_next() {
    for deferred in [false, true] {
        for does_last in [false, true] {
            for operation in 1.. {
                let installation = Installation::new().await;
                let process = Process::ending_at(operation, does_last);
                let split = installation.split(&process, deferred);
                let finished = process.run(split.run()).await.is_some();
                let what = format!("deferred: {deferred}, ended at {operation}, done: {does_last}");
                let next = installation.split(&Process::endless(), deferred);
                assert_complete(&next.run().await.unwrap(), &what);
                installation.assert_split(&what).await;
                if finished {
                    assert!(operation > 15, "{what}");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_split_is_named_and_the_others_are_split() {
    let installation = Installation::new().await;
    let raw = json!({"password": "raw-of-a-bad-row"});
    let bad = |id: &str| ConfigRow::new(id, raw.clone());
    let broken = json!({"properties": {"a": {"$ref": "#/nowhere", "airbyte_secret": true}}});
    let rows = MemoryConfigs::new(
        "bad",
        vec![
            bad("without specification").with_scope(None, Some(base_id())),
            bad("without base id").with_specification(Some(specification())),
            bad("prefix")
                .with_scope(Some("a b".to_owned()), Some(base_id()))
                .with_specification(Some(specification())),
            bad("broken specification")
                .with_scope(None, Some(base_id()))
                .with_specification(Some(Arc::new(broken))),
        ],
    )
    .unwrap();
    let process = Process::endless();
    let split = installation.split(&process, false);
    let report = split.with_configs(Arc::new(rows)).run().await.unwrap();
    assert_eq!((report.tally.split, report.failed), (4, 4));
    let named: Vec<&str> = report
        .failures
        .iter()
        .filter_map(|failure| failure.configuration.as_deref())
        .collect();
    assert_eq!(
        named,
        [
            "bad#without specification",
            "bad#without base id",
            "bad#prefix",
            "bad#broken specification"
        ]
    );
    let text = format!("{report:?} {}", serde_json::to_string(&report).unwrap());
    assert!(!text.contains("raw-"), "{text}");
    installation.assert_split("the others").await;
}

#[tokio::test]
async fn a_read_only_source_is_refused_before_anything_is_written() {
    let installation = Installation::new().await;
    let query = MemoryConfigs::new("query", Vec::new()).unwrap().read_only();
    let process = Process::endless();
    let split = installation.split(&process, false);
    let error = split.with_configs(Arc::new(query)).run().await.unwrap_err();
    assert_eq!(error.place(), Some("query"));
    assert_eq!(installation.store.len(), 2);
}

#[tokio::test]
async fn a_row_that_others_change_meanwhile_keeps_their_change() {
    let installation = Installation::new().await;
    let rows = installation.rows.clone();
    let process = Process::endless();
    let store = Tap::new(installation.store.clone(), &process).after(move |_| {
        let mut row = ConfigRow::new("raw2", json!({"host": "other", "password": "raw-theirs"}));
        row = row.with_scope(None, Some(base_id()));
        rows.put(row.with_specification(Some(specification())));
    });
    let split = Split::new(Arc::new(store), installation.journal.clone())
        .with_configs(installation.rows.clone());
    let report = split.run().await.unwrap();
    assert_eq!((report.tally.changed, report.tally.split), (1, 3));
    assert_eq!(
        report.failures[0].configuration.as_deref(),
        Some("configs#raw2")
    );
    let report = installation.run().await;
    assert_complete(&report, "again");
    let mut installation = installation;
    installation.full.insert(
        "raw2".to_owned(),
        json!({"host": "other", "password": "raw-theirs"}),
    );
    installation.assert_split("theirs").await;
}

#[tokio::test]
async fn a_dry_split_counts_and_writes_nothing() {
    let mut installation = Installation::new().await;
    installation.options = installation.options.with_dry_run(true);
    let report = installation.run().await;
    assert_complete(&report, "dry");
    assert_eq!((report.tally.split, report.tally.secrets), (4, 7));
    assert_eq!(installation.store.len(), 2);
}

/// What a report says of a kept change, and what to do about it.
fn row_is(meanwhile: &str) -> Vec<&'static str> {
    match meanwhile {
        "read late" => vec![],
        "no secret any more" => vec![
            "a process that has ended or is paused may still save this row",
            "start again when",
        ],
        _ => vec!["the row is gone", "start again after 20"],
    }
}

fn assert_kept(report: &Report, says: &[&str]) {
    let kept = report.findings.get(&Class::Kept);
    let count = u64::from(!says.is_empty());
    assert_eq!(report.count(Class::Kept), count, "{report:?}");
    // A password and a key.
    assert_eq!(report.tally.kept, 2 * count, "{report:?}");
    for kept in kept.iter().flat_map(|kept| &kept.listed) {
        assert_eq!(kept.configuration.as_deref(), Some("configs#raw1"));
        let detail = kept.detail.as_deref().unwrap();
        for part in says {
            assert!(detail.contains(part), "{detail}");
        }
    }
}

/// A process is killed, and what it has sent for its first row arrives later. Its row then names what it wrote,
/// which nobody else has: it must still be there.
#[tokio::test]
async fn what_a_killed_process_has_sent_may_arrive_at_any_time() {
    for meanwhile in [
        "read late",
        "no secret any more",
        "deleted",
        "deleted for long",
    ] {
        let installation = Installation::new().await;
        let table = Sent::to(&installation.rows);
        let split = || {
            Split::new(installation.store.clone(), installation.journal.clone())
                .with_configs(table.clone())
                .with_options(MigrateOptions::default().with_lease(Duration::ZERO))
        };
        let killed = split();
        table.kill_when_told(killed.run()).await;
        let row = installation.rows.row("raw1").await.unwrap().unwrap();
        let has_failed = meanwhile == "no secret any more";
        match meanwhile {
            "read late" => table.arrives.store(true, Ordering::SeqCst),
            "no secret any more" => {
                let specification = json!({"type": "object"});
                let row = row
                    .clone()
                    .with_specification(Some(Arc::new(specification)));
                installation.rows.put(row);
            }
            _ => installation.rows.remove("raw1"),
        }
        let report = split().run().await.unwrap();
        assert_eq!(
            report.failed,
            u64::from(has_failed),
            "{meanwhile}: {report:?}"
        );
        let shown = report.failures.iter().map(|failure| &failure.message);
        let shown = shown.filter(|message| message.contains("may still save this row"));
        assert_eq!(shown.count(), usize::from(has_failed), "{report:?}");
        assert_kept(&report, &row_is(meanwhile));
        if meanwhile == "deleted for long" {
            // No service inserts it any more as it was.
            let connector = ConnectorOptions::default().with_deadline(Duration::ZERO);
            let report = split()
                .with_connector_options(connector)
                .run()
                .await
                .unwrap();
            assert_complete(&report, meanwhile);
        } else if meanwhile != "read late" {
            if meanwhile == "deleted" {
                installation.rows.put(row);
            }
            assert_eq!(table.arrive().await, Update::Saved, "{meanwhile}");
        }
        installation.assert_split(meanwhile).await;
    }
}

/// The note of a killed split as earlier builds wrote it: without the source, and without what the row had.
async fn earlier(installation: &Installation, more: &str) {
    let notes = installation.journal.notes(None, 9).await.unwrap();
    assert_eq!(notes.len(), 1);
    let mut note: Value = serde_json::from_str(&notes[0].text).unwrap();
    let fields = note.as_object_mut().unwrap();
    for field in ["source", "places"] {
        assert!(fields.remove(field).is_some(), "{field}");
    }
    if !more.is_empty() {
        fields.insert(more.to_owned(), json!(1));
    }
    let text = note.to_string();
    let put = installation.journal.put_note(&notes[0].key, Some(&text));
    put.await.unwrap();
}

/// A split that an earlier build has begun is ended by this one. What that cannot know is kept for as long as
/// a change may take.
#[tokio::test]
async fn a_split_that_an_earlier_build_began_is_ended() {
    let installation = Installation::new().await;
    let table = Sent::to(&installation.rows);
    let split = || {
        Split::new(installation.store.clone(), installation.journal.clone())
            .with_configs(table.clone())
            .with_options(MigrateOptions::default().with_lease(Duration::ZERO))
    };
    let killed = split();
    table.kill_when_told(killed.run()).await;
    earlier(&installation, "").await;
    let report = split().run().await.unwrap();
    assert_complete(&report, "an earlier build");
    assert_kept(&report, &["an earlier build", "start again after 20"]);
    assert_eq!(table.arrive().await, Update::Changed);
    let connector = ConnectorOptions::default().with_deadline(Duration::ZERO);
    let report = split().with_connector_options(connector).run().await;
    assert_complete(&report.unwrap(), "later");
    installation.assert_split("an earlier build").await;

    // In rows that this process has alone, nothing arrives late.
    let installation = Installation::new().await;
    let table = Sent::to(&installation.rows);
    let killed = Split::new(installation.store.clone(), installation.journal.clone())
        .with_configs(table.clone());
    table.kill_when_told(killed.run()).await;
    earlier(&installation, "").await;
    let process = Process::endless();
    let report = installation.split(&process, true).run().await.unwrap();
    assert_complete(&report, "a file");
    assert_kept(&report, &[]);
    installation.assert_split("a file").await;
}

#[tokio::test]
async fn a_note_of_a_later_build_is_left_alone_and_the_error_says_what_to_run() {
    let installation = Installation::new().await;
    let table = Sent::to(&installation.rows);
    let killed = Split::new(installation.store.clone(), installation.journal.clone())
        .with_configs(table.clone());
    table.kill_when_told(killed.run()).await;
    earlier(&installation, "later").await;
    let before = contents(&installation.store).await;
    let process = Process::endless();
    let error = installation.split(&process, false).run().await.unwrap_err();
    assert_eq!(error.kind(), MigrateErrorKind::Journal);
    let hint = error.hint().unwrap();
    for part in [
        "the same command",
        "same journal",
        "in the version that wrote it",
    ] {
        assert!(hint.contains(part), "{hint}");
    }
    assert_eq!(contents(&installation.store).await, before);
}
