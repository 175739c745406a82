//! What is listed of the secrets that configurations point at, and what is not asked.
use std::ops::ControlFlow;
use std::sync::Arc;

use secret_persistence_core::connector::Pointer;
use secret_persistence_core::{
    Actor, Coordinate, DeleteOptions, Error, ErrorKind, LastRead, LastReads, Memory,
    SecretPersistenceExt, SecretValue, StorageId, Timestamp, Write,
};
use serde_json::json;
use uuid::Uuid;

use self::counting::Counting;
use self::knowing::Knowing;
use super::world::{World, name, pointer, remove, value};
use crate::{
    ConfigRow, Inventory, InventoryReport, MemoryConfigs, MigrateErrorKind, MigrateOptions,
    SecretAt, SecretFilter, Standing,
};

async fn listed(inventory: &Inventory) -> (Vec<SecretAt>, InventoryReport) {
    let mut secrets = Vec::new();
    let report = inventory
        .run(&mut |secret| {
            secrets.push(secret.clone());
            ControlFlow::Continue(())
        })
        .await
        .unwrap();
    assert_eq!(report.listed, secrets.len() as u64);
    (secrets, report)
}

fn of(world: &World) -> Inventory {
    Inventory::new(world.source.clone()).with_configs(world.configs.clone())
}

fn page(rows: usize) -> MigrateOptions {
    MigrateOptions::default().with_page(rows.try_into().unwrap())
}

/// Seconds since 1970.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds).unwrap()
}

#[tokio::test]
async fn what_is_scheduled_for_deletion_is_restored_in_the_chosen_workspaces_only() {
    let world = World::with(4, 2).await;
    let window = DeleteOptions::default();
    for number in [1, 2] {
        world.source.delete(&name(number), &window).await.unwrap();
    }
    remove(&world.source, 4).await;
    let mut filter = SecretFilter {
        not_present: true,
        workspaces: [Uuid::from_u128(2)].into(),
        ..SecretFilter::default()
    };
    let others = of(&world).with_filter(filter.clone()).with_restoring(true);
    assert_eq!(listed(&others).await.0, []);
    assert!(world.source.read(&name(1).into()).await.is_err());
    filter.workspaces = [Uuid::from_u128(1)].into();
    let ours = of(&world).with_filter(filter);
    let standings = |secrets: &[SecretAt]| -> Vec<(Option<String>, Standing)> {
        let mut standings: Vec<_> = secrets
            .iter()
            .map(|secret| (secret.coordinate.clone(), secret.standing))
            .collect();
        standings.sort_by(|one, other| one.0.cmp(&other.0));
        standings
    };
    let expected = |standing| {
        [(1, standing), (2, standing), (4, Standing::Missing)]
            .map(|(number, standing)| (Some(name(number).to_string()), standing))
    };
    let (secrets, report) = listed(&ours).await;
    assert_eq!(standings(&secrets), expected(Standing::PendingDeletion));
    assert_eq!((report.pending_deletion, report.restored), (2, 0));
    let (secrets, report) = listed(&ours.with_restoring(true)).await;
    assert_eq!(standings(&secrets), expected(Standing::Restored));
    assert_eq!(
        (report.pending_deletion, report.restored, report.missing),
        (0, 2, 1)
    );
    assert!(secrets[0].created.is_some());
    assert!(world.source.read(&name(1).into()).await.is_ok());
}

#[tokio::test]
async fn every_place_has_the_standing_of_its_secret() {
    let world = World::with(4, 2).await;
    remove(&world.source, 2).await;
    let other = Pointer::new(name(1).into()).with_storage_id(StorageId::parse("other").ok());
    world.row(
        20,
        json!({
            "again": pointer(1),
            "elsewhere": other.to_value(),
            "external": { "_secret": "theirs/password" },
        }),
    );
    world.row(
        21,
        json!({ "hidden": pointer(1), "torn": { "_secret": 1 } }),
    );
    for rows in [1, 500] {
        let (secrets, report) = listed(&of(&world).with_options(page(rows))).await;
        let mut seen: Vec<(&str, &str)> = secrets
            .iter()
            .map(|secret| (&*secret.place, secret.standing.as_str()))
            .collect();
        seen.sort_unstable();
        let expected = [
            ("/again", "present"),
            ("/elsewhere", "elsewhere"),
            ("/external", "external"),
            ("/nested/0/key", "missing"),
            ("/nested/0/key", "present"),
            ("/password", "present"),
            ("/password", "present"),
            ("/torn", "unreadable"),
        ];
        assert_eq!(seen, expected);
        assert_eq!((report.configurations, report.places), (4, 8));
        assert_eq!((report.missing, report.unreadable), (1, 1));
        assert!(!report.is_complete(), "one place is unreadable");
        let elsewhere = secrets
            .iter()
            .find(|secret| secret.standing == Standing::Elsewhere)
            .unwrap();
        assert_eq!(elsewhere.storage.as_deref(), Some("other"));
        assert_eq!(elsewhere.created, None);
        assert!(secrets[0].created.is_some() && secrets[0].age_seconds.is_some());
    }
    // The same id may be the same store.
    let (secrets, report) = listed(&of(&world).with_storage("other")).await;
    assert_eq!(report.elsewhere, 0);
    let same = secrets.iter().find(|secret| secret.storage.is_some());
    assert_eq!(same.unwrap().standing, Standing::Present);
}

#[tokio::test]
async fn times_leave_out_only_what_is_known() {
    let world = World::with(2, 2).await;
    let expiring = Write::new(name(3), SecretValue::new(value(3)));
    let soon = Timestamp::now().saturating_add(std::time::Duration::from_secs(3600));
    world
        .source
        .write(expiring.with_expires(Some(soon)))
        .await
        .unwrap();
    world.row(30, json!({ "expiring": pointer(3), "missing": pointer(4) }));
    let filtered = async |change: fn(&mut SecretFilter)| {
        let mut filter = SecretFilter::default();
        change(&mut filter);
        let (secrets, _) = listed(&of(&world).with_filter(filter)).await;
        let mut places: Vec<String> = secrets.into_iter().map(|secret| secret.place).collect();
        places.sort_unstable();
        places
    };
    let all = ["/expiring", "/missing", "/nested/0/key", "/password"];
    assert_eq!(
        filtered(|filter| filter.created_from = Some(at(0))).await,
        all
    );
    let later = filtered(|filter| filter.created_from = Some(at(32_503_680_000)));
    assert_eq!(later.await, ["/missing"]);
    let earlier = filtered(|filter| filter.created_until = Some(at(0)));
    assert_eq!(earlier.await, ["/missing"]);
    let end = filtered(|filter| filter.expires_until = Some(at(32_503_680_000)));
    assert_eq!(end.await, ["/expiring", "/missing"]);
    let now = filtered(|filter| filter.expires_until = Some(Timestamp::now()));
    assert_eq!(now.await, ["/missing"]);
}

#[tokio::test]
async fn a_workspace_is_told_by_the_row_or_by_the_name() {
    let ours = Uuid::from_u128(7);
    let store = Arc::new(Memory::new());
    let named = format!("airbyte_workspace_{ours}_secret_{}_v1", Uuid::from_u128(9));
    let theirs = format!(
        "airbyte_workspace_{}_secret_{}_v1",
        Uuid::from_u128(8),
        Uuid::from_u128(9)
    );
    let row = |id: &str, name: &str, base_id: Option<u128>| {
        ConfigRow::new(id, json!({ "key": { "_secret": name } }))
            .with_scope(None, base_id.map(Uuid::from_u128))
    };
    let rows = vec![
        row("by row", &theirs, Some(7)),
        row("by name, of another", &named, Some(8)),
        row("by name", &named, None),
        row("of another", &theirs, Some(8)),
        row("of another by name", &theirs, None),
        row("nobody knows", "theirs/password", None),
        row("external of another", "theirs/password", Some(8)),
    ];
    let configs = MemoryConfigs::new("configs", rows).unwrap();
    let mut filter = SecretFilter::default();
    filter.workspaces.insert(ours);
    let inventory = Inventory::new(store)
        .with_configs(Arc::new(configs))
        .with_filter(filter);
    let (secrets, report) = listed(&inventory).await;
    let mut ids: Vec<&str> = secrets
        .iter()
        .map(|secret| secret.configuration.rsplit_once('#').unwrap().1)
        .collect();
    ids.sort_unstable();
    assert_eq!(
        ids,
        ["by name", "by name, of another", "by row", "nobody knows"]
    );
    assert_eq!((report.configurations, report.places), (7, 7));
}

/// One request for each name of a page, however often it is there, and no read of a value.
#[tokio::test]
async fn a_name_is_asked_about_once_a_page_and_never_read() {
    let world = World::with(2, 2).await;
    world.row(
        30,
        json!({ "a": pointer(1), "b": pointer(1), "c": pointer(2) }),
    );
    let counted = Arc::new(Counting::over(world.source.clone()));
    let inventory = Inventory::new(counted.clone()).with_configs(world.configs.clone());
    let (secrets, _) = listed(&inventory).await;
    assert_eq!(secrets.len(), 5);
    assert_eq!(counted.described(), 2);
}

#[tokio::test]
async fn a_store_that_answers_nothing_ends_the_run_and_one_failure_does_not() {
    let world = World::with(4, 2).await;
    let broken =
        Counting::over(world.source.clone()).failing(|_| true, ErrorKind::PermissionDenied);
    let inventory = Inventory::new(Arc::new(broken)).with_configs(world.configs.clone());
    let error = inventory
        .run(&mut |_| ControlFlow::Continue(()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), MigrateErrorKind::Store);

    let first = |asked: &str| asked == name(1).as_str();
    let torn = Counting::over(world.source.clone()).failing(first, ErrorKind::PermissionDenied);
    let inventory = Inventory::new(Arc::new(torn)).with_configs(world.configs.clone());
    let (secrets, report) = listed(&inventory).await;
    assert_eq!((report.listed, report.undescribed), (4, 1));
    assert!(!report.is_complete());
    let undescribed = secrets
        .iter()
        .find(|secret| secret.standing == Standing::Undescribed)
        .unwrap();
    assert_eq!(undescribed.coordinate.as_deref(), Some(name(1).as_str()));
    assert!(undescribed.detail.is_some());
}

#[tokio::test]
async fn who_read_a_secret_last_is_asked_once_a_page_and_told_at_every_place() {
    let world = World::with(4, 2).await;
    let other = Pointer::new(name(1).into()).with_storage_id(StorageId::parse("other").ok());
    let row = json!({
        "again": pointer(1), "elsewhere": other.to_value(), "external": {"_secret": "theirs/password"},
    });
    world.row(20, row);
    world.row(21, json!({ "torn": { "_secret": 1 } }));
    // Another tenant's store has another secret of this name.
    let theirs = Pointer::new(Coordinate::parse("theirs/password").unwrap())
        .with_storage_id(StorageId::parse("other").ok());
    world.row(22, json!({ "tenant": theirs.to_value() }));
    let mut known = LastReads::default();
    known.since = Some(at(1000));
    let maria = Some(Actor::new("maria"));
    let read = LastRead::new(at(2000), maria.clone(), true);
    known.reads.insert(name(1).into(), read);
    let forged = LastRead::new(at(3000), maria, false);
    known.reads.insert(name(2).into(), forged);
    for (rows, pages) in [(500, 1), (1, 3)] {
        let history = Arc::new(Knowing::of(Ok(known.clone())));
        let inventory = of(&world)
            .with_history(history.clone())
            .with_options(page(rows));
        let (secrets, report) = listed(&inventory).await;
        // The row without a name has nothing to ask about, nor has that of another tenant.
        assert_eq!(history.asked().len(), pages, "{rows} rows");
        let mut told: Vec<_> = secrets
            .iter()
            .map(|secret| {
                let reads = secret.reads.clone().unwrap();
                let number = |time: Option<Timestamp>| time.map(Timestamp::unix_seconds);
                (
                    secret.place.as_str(),
                    number(reads.last_read),
                    reads.last_read_genuine,
                    number(reads.reads_since),
                    reads.is_unread(),
                )
            })
            .collect();
        told.sort_unstable();
        let since = Some(1000);
        assert_eq!(
            told,
            [
                ("/again", Some(2000), Some(true), since, false),
                // A name has one value for ever, in whichever storage.
                ("/elsewhere", Some(2000), Some(true), since, false),
                ("/external", None, None, since, true),
                ("/nested/0/key", None, None, since, true),
                ("/nested/0/key", Some(3000), Some(false), since, false),
                ("/password", None, None, since, true),
                ("/password", Some(2000), Some(true), since, false),
                ("/tenant", None, None, None, false),
                ("/torn", None, None, None, false),
            ]
        );
        assert_eq!(
            (report.never_read, report.not_genuine, report.reads_since),
            (Some(3), Some(1), Some(at(1000)))
        );
        let of_first = secrets.iter().find(|secret| secret.place == "/again");
        let reads = of_first.unwrap().reads.as_ref().unwrap();
        assert_eq!(reads.last_reader.as_deref(), Some("maria"));
        // What is not genuine is no answer.
        assert!(!report.is_complete());
    }

    let history = Arc::new(Knowing::of(Ok(known.clone())));
    let filter = SecretFilter {
        never_read: true,
        ..SecretFilter::default()
    };
    let inventory = of(&world).with_history(history).with_filter(filter.clone());
    let (secrets, report) = listed(&inventory).await;
    let mut places: Vec<&str> = secrets.iter().map(|secret| &*secret.place).collect();
    places.sort_unstable();
    // What nobody knows leaves no secret out.
    assert_eq!(
        places,
        [
            "/external",
            "/nested/0/key",
            "/nested/0/key",
            "/password",
            "/tenant",
            "/torn",
        ]
    );
    assert_eq!((report.listed, report.never_read), (6, Some(3)));
    // Nor does a forged read, and the run says so.
    assert_eq!((report.not_genuine, report.is_complete()), (Some(1), false));

    // A ledger that does not know its own beginning proves nothing.
    known.since = None;
    let history = Arc::new(Knowing::of(Ok(known)));
    let (secrets, report) = listed(&of(&world).with_history(history)).await;
    assert_eq!((report.never_read, report.reads_since), (Some(0), None));
    let unread = secrets
        .iter()
        .filter(|secret| secret.reads.as_ref().unwrap().is_unread());
    assert_eq!(unread.count(), 0);
}

#[tokio::test]
async fn without_a_history_nothing_is_said_about_reads() {
    let world = World::with(2, 2).await;
    let (secrets, report) = listed(&of(&world)).await;
    for shown in [json!(secrets[0]), json!(report)] {
        let text = shown.to_string();
        assert!(
            !text.contains("read\"") && !text.contains("reads_since"),
            "{text}"
        );
    }
    assert_eq!(secrets[0].reads, None);
    let history = Arc::new(Knowing::of(Ok(LastReads::default())));
    let (secrets, report) = listed(&of(&world).with_history(history)).await;
    let shown = json!(secrets[0]);
    for member in [
        "last_read",
        "last_reader",
        "last_read_genuine",
        "reads_since",
    ] {
        assert_eq!(shown[member], json!(null), "{shown}");
        assert!(shown.as_object().unwrap().contains_key(member), "{shown}");
    }
    assert_eq!(json!(report)["never_read"], 0);
}

/// Otherwise a ledger that is down would look like secrets that nobody reads.
#[tokio::test]
async fn a_history_that_fails_ends_the_run() {
    let world = World::with(2, 2).await;
    let failing = Knowing::of(Err(Error::new(ErrorKind::Unavailable, "it is down")));
    let inventory = of(&world).with_history(Arc::new(failing));
    let error = inventory
        .run(&mut |_| ControlFlow::Continue(()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), MigrateErrorKind::ReadHistory);
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.to_string().contains("it is down"));
}

#[tokio::test]
async fn names_of_other_workspaces_are_not_asked_about() {
    let store = Arc::new(Memory::new());
    let row = |id: &str, base_id: u128| {
        let named = format!(
            "airbyte_workspace_{}_secret_{}_v1",
            Uuid::from_u128(base_id),
            Uuid::from_u128(9)
        );
        ConfigRow::new(id, json!({ "key": { "_secret": named } }))
            .with_scope(None, Some(Uuid::from_u128(base_id)))
    };
    let configs = MemoryConfigs::new("configs", vec![row("ours", 7), row("theirs", 8)]).unwrap();
    let mut filter = SecretFilter::default();
    filter.workspaces.insert(Uuid::from_u128(7));
    let history = Arc::new(Knowing::of(Ok(LastReads::default())));
    let inventory = Inventory::new(store)
        .with_configs(Arc::new(configs))
        .with_filter(filter)
        .with_history(history.clone());
    listed(&inventory).await;
    let asked = history.asked();
    assert_eq!((asked.len(), asked[0].len()), (1, 1), "{asked:?}");
}

#[tokio::test]
async fn a_reader_that_breaks_stops_the_run() {
    let world = World::with(40, 2).await;
    let mut seen = 0;
    let report = of(&world)
        .with_options(page(1))
        .run(&mut |_| {
            seen += 1;
            ControlFlow::Break(())
        })
        .await
        .unwrap();
    assert_eq!(
        (seen, report.stopped, report.is_complete()),
        (1, true, false)
    );
}

mod knowing {
    //! A history that has one answer, and notes the questions.
    use std::collections::BTreeSet;

    use async_trait::async_trait;
    use parking_lot::Mutex;
    use secret_persistence_core::{Coordinate, LastReads, ReadHistory, Result};

    pub(super) struct Knowing {
        answer: Result<LastReads>,
        asked: Mutex<Vec<BTreeSet<Coordinate>>>,
    }

    impl Knowing {
        pub(super) fn of(answer: Result<LastReads>) -> Self {
            Self {
                answer,
                asked: Mutex::default(),
            }
        }

        pub(super) fn asked(&self) -> Vec<BTreeSet<Coordinate>> {
            self.asked.lock().clone()
        }
    }

    #[async_trait]
    impl ReadHistory for Knowing {
        async fn last_reads(&self, names: &BTreeSet<Coordinate>) -> Result<LastReads> {
            self.asked.lock().push(names.clone());
            self.answer.clone()
        }
    }
}

mod counting {
    //! A store that counts descriptions, and fails some.
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use secret_persistence_core::{
        Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
        ListOptions, ManagedCoordinate, Memory, Page, Read, Result, SecretPersistence, Write,
        Written,
    };

    /// Which names fail, and how.
    type Fault = (fn(&str) -> bool, ErrorKind);

    #[derive(Debug)]
    pub(super) struct Counting {
        store: Arc<Memory>,
        described: AtomicUsize,
        failing: Option<Fault>,
    }

    impl Counting {
        pub(super) fn over(store: Arc<Memory>) -> Self {
            Self {
                store,
                described: AtomicUsize::new(0),
                failing: None,
            }
        }

        pub(super) fn failing(mut self, which: fn(&str) -> bool, kind: ErrorKind) -> Self {
            self.failing = Some((which, kind));
            self
        }

        pub(super) fn described(&self) -> usize {
            self.described.load(Ordering::Relaxed)
        }
    }

    impl std::fmt::Display for Counting {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}", self.store)
        }
    }

    #[async_trait]
    impl SecretPersistence for Counting {
        fn capabilities(&self) -> Capabilities {
            self.store.capabilities()
        }

        async fn read_batch(&self, _: &[Coordinate]) -> Vec<Result<Read>> {
            panic!("a value was read")
        }

        async fn write_batch(&self, _: &[Write]) -> Vec<Result<Written>> {
            panic!("something was written")
        }

        async fn delete_batch(
            &self,
            _: &[ManagedCoordinate],
            _: &DeleteOptions,
        ) -> Vec<Result<()>> {
            panic!("something was deleted")
        }

        async fn restore(&self, _: &ManagedCoordinate) -> Result<()> {
            panic!("something was restored")
        }

        async fn list_page(&self, _: &ListOptions, _: Option<&Cursor>) -> Result<Page> {
            panic!("the store was listed")
        }

        async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
            self.described.fetch_add(1, Ordering::Relaxed);
            match self.failing {
                Some((which, kind)) if which(coordinate.as_str()) => {
                    Err(Error::new(kind, "so it is"))
                }
                _ => self.store.describe(coordinate).await,
            }
        }

        async fn identity(&self) -> Result<Identity> {
            self.store.identity().await
        }
    }
}
