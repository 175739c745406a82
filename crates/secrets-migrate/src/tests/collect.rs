//! What the collector deletes, and each reason for which it does not.
mod altered;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use secret_persistence_core::connector::Pointer;
use secret_persistence_core::{
    Capabilities, ErrorKind, Listing, ManagedCoordinate, Memory, Owner, Scope, SecretPersistence,
    SecretPersistenceExt, SecretValue, StorageId, Timestamp, Write,
};
use serde_json::{Value, json};
use uuid::Uuid;

use self::altered::{Altered, FOREIGN, STUBBORN, UNDATED, UNOWNED};
use super::world::{name, pointer};
use super::wrapped::Wrapped;
use crate::{
    AllReferences, Cancellation, Collect, CollectJournal, CollectReport, CollectRules, CollectStop,
    ConfigRow, Fate, MemoryConfigs, MigrateErrorKind, MigrateOptions, Reason,
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A store that several installations share, configurations, and a clock.
struct Site {
    store: Arc<Memory>,
    configs: Arc<MemoryConfigs>,
    journal: tempfile::TempDir,
    /// Seconds after the present.
    clock: Arc<AtomicI64>,
    rules: CollectRules,
}

type Fates = BTreeMap<ManagedCoordinate, (Reason, Fate)>;

impl Site {
    fn new() -> Self {
        let rules = CollectRules {
            most_percent: 100,
            ..CollectRules::default()
        };
        Self {
            store: Arc::new(Memory::new().with_owner(us())),
            configs: Arc::new(MemoryConfigs::new("configs", Vec::new()).unwrap()),
            journal: tempfile::tempdir().unwrap(),
            clock: Arc::new(AtomicI64::new(0)),
            rules,
        }
    }

    async fn put(&self, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            self.write(name(number), None).await;
        }
    }

    async fn write(&self, name: ManagedCoordinate, expires: Option<Timestamp>) {
        let write = Write::new(name, SecretValue::new("canary".to_owned())).with_expires(expires);
        self.store.write(write).await.unwrap();
    }

    fn row(&self, id: &str, configuration: Value) {
        self.configs.put(ConfigRow::new(id, configuration));
    }

    fn wait(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }

    async fn open(&self) -> Arc<CollectJournal> {
        let path = self.journal.path().join("collect.db");
        let journal = CollectJournal::open(path.to_str().unwrap(), &|_| None).await;
        Arc::new(journal.unwrap())
    }

    fn collect(&self, journal: Arc<CollectJournal>) -> Collect {
        let clock = Arc::clone(&self.clock);
        let store = Arc::new(Wrapped(Altered(self.store.clone())));
        Collect::new(store, us(), journal)
            .with_configs(self.configs.clone())
            .with_rules(self.rules.clone())
            // Three pages and more, wherever there are some names.
            .with_options(MigrateOptions::default().with_page(2.try_into().unwrap()))
            .with_clock(move || {
                let now = Timestamp::now().unix_seconds() + clock.load(Ordering::Relaxed);
                Timestamp::from_unix_seconds(now).unwrap()
            })
    }

    /// A run that deletes, in a process of its own.
    async fn run(&self) -> (CollectReport, Fates) {
        let journal = self.open().await;
        let result = fates(&self.collect(Arc::clone(&journal)), true).await;
        journal.close().await;
        result
    }

    async fn preview(&self) -> (CollectReport, Fates) {
        let journal = self.open().await;
        let result = fates(&self.collect(Arc::clone(&journal)), false).await;
        journal.close().await;
        result
    }

    async fn has(&self, number: u32) -> bool {
        self.store.read(&name(number).into()).await.is_ok()
    }
}

async fn fates(collect: &Collect, deletes: bool) -> (CollectReport, Fates) {
    let mut fates = Fates::new();
    let mut each = |told: &crate::Superfluous| {
        let name = ManagedCoordinate::parse(&told.coordinate).unwrap();
        let twice = fates.insert(name, (told.reason, told.fate));
        assert_eq!(twice, None, "{told:?}");
    };
    let report = if deletes {
        collect.run(AllReferences::confirmed(), &mut each).await
    } else {
        collect.preview(&mut each).await
    };
    (report.unwrap(), fates)
}

fn us() -> Owner {
    Owner::parse("prod_eu").unwrap()
}

fn ephemeral(number: u32) -> ManagedCoordinate {
    let id = Uuid::from_u128(number.into());
    ManagedCoordinate::new(&Scope::ephemeral(), id, 1).unwrap()
}

const DELETED: (Reason, Fate) = (Reason::Orphaned, Fate::Deleted);
const WAITING: (Reason, Fate) = (Reason::Orphaned, Fate::Waiting);

#[tokio::test]
async fn an_orphan_goes_when_it_is_old_and_was_unreferenced_for_the_grace_period() {
    let site = Site::new();
    site.put(1..=7).await;
    site.row("a", json!({ "a": pointer(1), "b": [pointer(2)] }));
    site.row("b", json!({ "a": pointer(3) }));
    // Too young: it may belong to a change that is not saved yet.
    let (report, fates) = site.run().await;
    assert_eq!((report.owned, report.young), (7, 7));
    assert_eq!(fates, Fates::new());
    site.wait(DAY + HOUR);
    // Old, but seen for the first time.
    let (report, fates) = site.run().await;
    assert_eq!((report.waiting, report.deleted, report.names), (4, 0, 3));
    assert!(fates.values().all(|fate| *fate == WAITING), "{fates:?}");
    site.wait(DAY - HOUR);
    let (report, _) = site.run().await;
    assert_eq!((report.waiting, report.deleted), (4, 0));
    site.wait(HOUR + 1);
    let (report, fates) = site.preview().await;
    assert_eq!((report.orphaned, report.deleted), (4, 0));
    assert_eq!(fates[&name(4)], (Reason::Orphaned, Fate::Due));
    let (report, fates) = site.run().await;
    assert!(report.is_complete());
    assert_eq!((report.orphaned, report.deleted), (4, 4));
    assert_eq!(
        fates,
        (4..=7).map(|number| (name(number), DELETED)).collect()
    );
    for number in 1..=7 {
        assert_eq!(site.has(number).await, number <= 3, "{number}");
    }
    let (report, fates) = site.run().await;
    assert_eq!(report.owned, 3);
    assert_eq!(fates, Fates::new());
    site.store
        .restore(&name(4))
        .await
        .expect("it went with the recovery window");
}

#[tokio::test]
async fn a_mention_begins_the_waiting_again() {
    let site = Site::new();
    site.put([1, 2]).await;
    site.wait(2 * DAY);
    assert_eq!(site.run().await.0.waiting, 2);
    site.wait(DAY + 1);
    // As after a restore of configurations.
    site.row("a", json!({ "a": pointer(1) }));
    let (report, fates) = site.run().await;
    assert_eq!(fates, [(name(2), DELETED)].into());
    assert_eq!(report.waiting, 0);
    site.row("a", json!({}));
    let (_, fates) = site.run().await;
    assert_eq!(fates, [(name(1), WAITING)].into());
    assert!(site.has(1).await);
}

#[tokio::test]
async fn whoever_deletes_for_longer_than_an_hour_reads_the_configurations_again() {
    let site = Site::new();
    site.put(1..=5).await;
    site.wait(2 * DAY);
    site.run().await;
    site.wait(2 * DAY);
    let journal = site.open().await;
    let collect = site.collect(Arc::clone(&journal));
    let mut told = 0;
    // The first page of two has gone when the machine is suspended, and configurations are restored.
    let mut each = |_: &crate::Superfluous| {
        told += 1;
        if told == 2 {
            site.row("a", json!([pointer(4)]));
            site.wait(HOUR + 60);
        }
    };
    let report = collect.run(AllReferences::confirmed(), &mut each).await;
    let report = report.unwrap();
    journal.close().await;
    assert_eq!((report.deleted, report.names), (4, 1));
    assert!(site.has(4).await);
}

#[tokio::test]
async fn the_retention_is_waited_for_too() {
    let mut site = Site::new();
    site.rules.retention = Some(Duration::from_secs(7 * 24 * 3600));
    site.put([1]).await;
    site.wait(30 * DAY);
    assert_eq!(site.run().await.0.waiting, 1);
    site.wait(7 * DAY - HOUR);
    assert_eq!(site.run().await.0.waiting, 1);
    site.wait(2 * HOUR);
    assert_eq!(site.run().await.0.deleted, 1);
}

#[tokio::test]
async fn nothing_of_others_goes_and_nothing_of_unknown_age_or_owner() {
    let site = Site::new();
    let theirs = [FOREIGN, UNOWNED, UNDATED];
    site.put([1]).await;
    site.put(theirs).await;
    let unowned = "airbyte_workspace_1_secret_2_v1";
    site.store.insert(unowned, "canary".to_owned().into());
    for days in 1..=3 {
        site.wait(2 * DAY);
        let (report, fates) = site.run().await;
        assert_eq!((report.foreign, report.unowned, report.undated), (1, 2, 1));
        assert_eq!(report.deleted, u64::from(days == 2));
        assert_eq!(fates[&name(UNOWNED)], (Reason::Unowned, Fate::Kept));
        assert_eq!(fates[&name(UNDATED)], (Reason::Undated, Fate::Kept));
        assert!(!fates.contains_key(&name(FOREIGN)));
    }
    for number in theirs {
        assert!(site.has(number).await, "{number}");
    }
    assert!(!site.has(1).await);
    // What is referenced is not reported.
    site.row("a", json!([pointer(UNOWNED), pointer(UNDATED)]));
    let (report, _) = site.run().await;
    assert_eq!((report.unowned, report.undated), (1, 0));
}

#[tokio::test]
async fn a_failed_delete_is_reported_and_tried_again() {
    let site = Site::new();
    site.put([1, STUBBORN]).await;
    site.wait(2 * DAY);
    site.run().await;
    site.wait(2 * DAY);
    for deleted in [1, 0] {
        let (report, fates) = site.run().await;
        assert_eq!((report.deleted, report.failed), (deleted, 1));
        assert_eq!(fates[&name(STUBBORN)], (Reason::Orphaned, Fate::Failed));
        assert_eq!(
            report.failures[0].kind,
            ErrorKind::PermissionDenied.as_str()
        );
        assert!(!report.is_complete());
    }
}

#[tokio::test]
async fn what_has_expired_goes_at_once_and_what_is_ephemeral_after_the_grace_period() {
    let site = Site::new();
    let soon = Timestamp::now().saturating_add(Duration::from_secs(600));
    site.write(name(1), Some(soon)).await;
    site.write(ephemeral(1), None).await;
    site.write(ephemeral(2), None).await;
    // The same id in another scope is somebody's.
    let organization = Scope::new("organization_", Uuid::nil()).unwrap();
    let theirs = ManagedCoordinate::new(&organization, Uuid::from_u128(1), 1).unwrap();
    site.write(theirs.clone(), None).await;
    // An expiry is the word of whoever wrote it, whatever a configuration says.
    site.row("a", json!({ "a": pointer(1) }));
    let (report, _) = site.run().await;
    assert_eq!((report.young, report.deleted), (4, 0));
    site.wait(601);
    let (report, fates) = site.run().await;
    assert_eq!(fates, [(name(1), (Reason::Expired, Fate::Deleted))].into());
    assert_eq!((report.expired, report.young), (1, 3));
    site.wait(DAY);
    site.row("b", json!({ "a": { "_secret": ephemeral(2).as_str() } }));
    let (report, fates) = site.run().await;
    let ephemeral = (ephemeral(1), (Reason::Ephemeral, Fate::Deleted));
    assert_eq!(fates, [ephemeral, (theirs, WAITING)].into());
    assert_eq!(report.ephemeral, 1);
}

#[tokio::test]
async fn no_more_than_a_tenth_goes_at_once() {
    let mut site = Site::new();
    site.rules = CollectRules::default();
    site.put(1..=21).await;
    let keep: Vec<Value> = (1..=18).map(pointer).collect();
    site.row("a", json!(keep));
    site.wait(2 * DAY);
    site.run().await;
    site.wait(2 * DAY);
    // Three of 21 are more.
    let (report, fates) = site.run().await;
    assert_eq!(report.stopped, Some(CollectStop::Share));
    assert!(!report.is_complete());
    assert_eq!((report.orphaned, report.deleted), (3, 0));
    assert_eq!(fates.len(), 3);
    assert!(site.has(21).await);
    site.row("b", json!(pointer(19)));
    let (report, _) = site.run().await;
    assert_eq!((report.stopped, report.deleted), (None, 2));
    site.row("b", json!({}));
    site.rules.most_percent = 0;
    site.run().await;
    site.wait(2 * DAY);
    assert_eq!(site.run().await.0.stopped, Some(CollectStop::Share));
    assert!(site.has(19).await);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_stops_everything() {
    let site = Site::new();
    site.put([1, 2]).await;
    site.wait(2 * DAY);
    site.run().await;
    site.wait(2 * DAY);
    site.row("a", json!({ "a": { "_secret": 7 } }));
    site.row("b", json!({ "_secret_reference_id": Uuid::from_u128(1) }));
    let (report, fates) = site.run().await;
    assert_eq!(report.stopped, Some(CollectStop::Unreadable));
    assert_eq!(report.unreadable, 2);
    assert_eq!(report.failures.len(), 2, "{report:?}");
    assert_eq!(fates, Fates::new());
    // A record of a change in a later format.
    site.row("a", json!({}));
    site.row(
        "b",
        json!({ "format": "9", "planned": 1, "writes": [], "supersedes": [] }),
    );
    let (report, _) = site.run().await;
    assert_eq!(report.stopped, Some(CollectStop::Unreadable));
    assert!(site.has(1).await && site.has(2).await);
    // What was seen before is still seen.
    site.row("b", json!({}));
    assert_eq!(site.run().await.0.deleted, 2);
}

#[tokio::test]
async fn records_of_changes_and_refreshes_are_references_as_are_other_storage_ids() {
    let site = Site::new();
    site.put(1..=6).await;
    let here = |number: u32| json!({ "coordinate": name(number).as_str() });
    site.row(
        "change",
        json!({
            "format": "1",
            "planned": "2026-11-21T06:47:53Z",
            "writes": [here(1)],
            "supersedes": [here(2)],
        }),
    );
    let target = json!({ "place": "/a", "from": null, "to": here(5), "supersedes": here(6) });
    site.row(
        "refresh",
        json!({ "format": "1", "planned": "2026-11-21T06:47:53Z", "targets": [target] }),
    );
    let other = Pointer::new(name(3).into()).with_storage_id(StorageId::parse("other").ok());
    site.row("a", other.to_value());
    site.configs
        .put(ConfigRow::bare("bare", name(4).to_string()));
    site.wait(2 * DAY);
    site.run().await;
    site.wait(2 * DAY);
    let (report, fates) = site.run().await;
    assert_eq!((report.names, fates), (6, Fates::new()));
}

#[tokio::test]
async fn a_clock_that_was_set_wrong_deletes_nothing_too_early() {
    let site = Site::new();
    site.put([1]).await;
    site.wait(2 * DAY);
    assert_eq!(site.run().await.0.waiting, 1);
    // Set back: the secret is younger than the grace period, and the waiting begins again.
    site.wait(-2 * DAY);
    assert_eq!(site.run().await.0.young, 1);
    site.wait(3 * DAY);
    assert_eq!(site.run().await.0.waiting, 1);
    // Set back by less: a time in the future is that of a wrong clock.
    site.wait(-DAY / 2);
    assert_eq!(site.run().await.0.waiting, 1);
    site.wait(DAY - HOUR);
    assert_eq!(site.run().await.0.waiting, 1);
    site.wait(HOUR + 1);
    assert_eq!(site.run().await.0.deleted, 1);
}

#[tokio::test]
async fn a_run_that_did_not_read_everything_has_seen_nothing() {
    let site = Site::new();
    site.put(1..=5).await;
    site.wait(2 * DAY);
    let journal = site.open().await;
    let cancellation = Cancellation::new();
    cancellation.cancel();
    let collect = site.collect(Arc::clone(&journal));
    let (report, fates) = fates(&collect.with_cancellation(cancellation), true).await;
    journal.close().await;
    assert_eq!(report.stopped, Some(CollectStop::Cancelled));
    assert_eq!(fates, Fates::new());
    site.wait(2 * DAY);
    assert_eq!(site.run().await.0.waiting, 5);
}

#[tokio::test]
async fn a_source_that_an_earlier_run_had_is_needed() {
    let site = Site::new();
    site.put([1]).await;
    site.wait(2 * DAY);
    site.run().await;
    let journal = site.open().await;
    let lacking = Collect::new(site.store.clone(), us(), Arc::clone(&journal));
    let refused = lacking.preview(&mut |_| ()).await.unwrap_err();
    assert_eq!(refused.kind(), MigrateErrorKind::Undecided);
    assert!(refused.place().unwrap().contains("configs"), "{refused}");
    let more = Arc::new(MemoryConfigs::new("more", Vec::new()).unwrap());
    let more = site.collect(Arc::clone(&journal)).with_configs(more);
    assert_eq!(fates(&more, false).await.0.stopped, None);
    journal.close().await;
}

#[tokio::test]
async fn runs_over_one_workspace_leave_the_others_alone_and_read_all_configurations() {
    let mut site = Site::new();
    let of = |workspace: u128, number: u128| {
        let scope = Scope::workspace(Uuid::from_u128(workspace));
        ManagedCoordinate::new(&scope, Uuid::from_u128(number), 1).unwrap()
    };
    for number in 1..=3 {
        site.write(of(8, number), None).await;
        site.write(of(9, number), None).await;
    }
    // A row of another workspace names it.
    let row = ConfigRow::new("a", json!({ "_secret": of(8, 1).as_str() }));
    site.configs
        .put(row.with_scope(None, Some(Uuid::from_u128(9))));
    site.wait(2 * DAY);
    assert_eq!(site.run().await.0.waiting, 5);
    site.wait(2 * DAY);
    // The waiting of all workspaces is not the waiting of one.
    site.rules.workspaces = [Uuid::from_u128(8)].into();
    let (report, fates) = site.run().await;
    assert_eq!((report.owned, report.waiting), (3, 2));
    assert_eq!(fates.len(), 2);
    site.wait(2 * DAY);
    let (_, fates) = site.run().await;
    assert_eq!(fates, [(of(8, 2), DELETED), (of(8, 3), DELETED)].into());
    site.rules.workspaces.clear();
    let (report, _) = site.run().await;
    assert_eq!((report.deleted, report.orphaned), (3, 3));
    assert!(site.store.read(&of(8, 1).into()).await.is_ok());
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let mut site = Site::new();
    site.rules.grace = Duration::from_secs(3599);
    let journal = site.open().await;
    let refused = site.collect(Arc::clone(&journal));
    let refused = refused.preview(&mut |_| ()).await.unwrap_err();
    assert_eq!(refused.kind(), MigrateErrorKind::Settings);
    let memory = Memory::new();
    let capabilities = Capabilities {
        listing: Listing::None,
        ..memory.capabilities()
    };
    let unlisted = Arc::new(memory.with_capabilities(capabilities));
    let refused = Collect::new(unlisted, us(), Arc::clone(&journal));
    let refused = refused.preview(&mut |_| ()).await.unwrap_err();
    assert!(refused.to_string().contains("cannot list"), "{refused}");
    journal.close().await;
}
