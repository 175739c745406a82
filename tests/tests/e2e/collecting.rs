//! The collector on every store that lists: an orphan and an expired secret go. What a configuration
//! names stays, and what another installation wrote.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use e2e::{
    LocalStack, VaultServer,
    azure::{self, Azure},
    google::{self, Google},
};
use secret_persistence_core::{
    Coordinate, ErrorKind, ManagedCoordinate, Memory, Owner, SecretPersistence,
    SecretPersistenceExt as _, SecretValue, Timestamp, Write,
};
use secret_persistence_gcp::GoogleSecretManager;
use secret_persistence_migrate::{
    AllReferences, Collect, CollectJournal, CollectReport, CollectRules, ConfigRow, MemoryConfigs,
};
use serde_json::json;
use uuid::Uuid;

use crate::stores::{self, Store, owner};

const HOUR: Duration = Duration::from_secs(3600);

fn other() -> Owner {
    Owner::parse("another").unwrap()
}

/// The secrets of a store with one of each kind.
struct Secrets {
    named: ManagedCoordinate,
    orphan: ManagedCoordinate,
    expired: ManagedCoordinate,
    foreign: ManagedCoordinate,
}

impl Secrets {
    /// `ours` and `theirs` are two installations in one place.
    async fn write(ours: &Store, theirs: &Store) -> Self {
        let workspace = Uuid::new_v4();
        let name = |secret: u128| {
            let secret = Uuid::from_u128(secret);
            ManagedCoordinate::parse(&format!("airbyte_workspace_{workspace}_secret_{secret}_v1"))
                .unwrap()
        };
        let secrets = Self {
            named: name(1),
            orphan: name(2),
            expired: name(3),
            foreign: name(4),
        };
        let soon = Timestamp::now().saturating_add(HOUR);
        for (store, name, expires) in [
            (ours, &secrets.named, None),
            (ours, &secrets.orphan, None),
            (ours, &secrets.expired, Some(soon)),
            (theirs, &secrets.foreign, None),
        ] {
            let value = SecretValue::new("hunter2".to_owned());
            let write = Write::new(name.clone(), value).with_expires(expires);
            store.write(write).await.unwrap();
        }
        secrets
    }

    /// Which of them can be read. A service may need a moment for what it has just deleted.
    async fn expect_gone(&self, store: &Store, gone: &[&ManagedCoordinate]) {
        for name in [&self.named, &self.orphan, &self.expired, &self.foreign] {
            let is_gone = async || {
                let name: Coordinate = name.clone().into();
                match store.read(&name).await {
                    Ok(_) => false,
                    Err(error) => {
                        let kind = error.kind();
                        let is_deleted =
                            matches!(kind, ErrorKind::NotFound | ErrorKind::PendingDeletion);
                        assert!(is_deleted, "{store}: {error}");
                        true
                    }
                }
            };
            let expected = gone.contains(&name);
            let mut looks = 0;
            while is_gone().await != expected && looks < 100 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                looks += 1;
            }
            assert_eq!(is_gone().await, expected, "{store}: {name}");
        }
    }
}

/// Runs with a clock of its own: no test waits for a grace period.
async fn story(ours: Store, theirs: Store) {
    let secrets = Secrets::write(&ours, &theirs).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collect.db");
    let journal = CollectJournal::open(path.to_str().unwrap(), &|_| None).await;
    let configuration = json!({"password": {"_secret": secrets.named.as_str()}});
    let row = ConfigRow::new("connector-7", configuration);
    let configs = MemoryConfigs::new("connectors", vec![row]).unwrap();
    let later = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&later);
    let mut rules = CollectRules::default();
    rules.grace = HOUR;
    let collect = Collect::new(Arc::clone(&ours), owner(), Arc::new(journal.unwrap()))
        .with_configs(Arc::new(configs))
        .with_clock(move || {
            let later = Duration::from_secs(clock.load(Ordering::SeqCst));
            Timestamp::now().saturating_add(later)
        });
    let at = |hours: u64| later.store(hours * 3600, Ordering::SeqCst);
    let counts = |report: &CollectReport| {
        (
            report.owned,
            report.foreign,
            report.expired,
            report.waiting,
            report.orphaned,
            report.deleted,
        )
    };

    // All of it is too young.
    let mut all = rules.clone();
    all.most_percent = 100;
    let collect = collect.with_rules(rules);
    let report = collect.preview(&mut |_| ()).await.unwrap();
    assert!(report.is_complete(), "{ours}: {report:?}");
    assert_eq!(counts(&report), (3, 1, 0, 0, 0, 0), "{ours}: {report:?}");
    assert_eq!(report.young, 3, "{ours}: {report:?}");

    // One of three is more than a tenth.
    at(2);
    let deletes = |collect: Collect| async move {
        let report = collect.run(AllReferences::confirmed(), &mut |_| ()).await;
        (report.unwrap(), collect)
    };
    let (report, collect) = deletes(collect).await;
    assert!(report.stopped.is_some(), "{ours}: {report:?}");
    assert_eq!(counts(&report), (3, 1, 1, 1, 0, 0), "{ours}: {report:?}");
    secrets.expect_gone(&ours, &[]).await;

    // What has expired does not wait, and an orphan does.
    let (report, collect) = deletes(collect.with_rules(all)).await;
    assert!(report.is_complete(), "{ours}: {report:?}");
    assert_eq!(counts(&report), (3, 1, 1, 1, 0, 1), "{ours}: {report:?}");
    secrets.expect_gone(&ours, &[&secrets.expired]).await;

    at(4);
    let preview = collect.preview(&mut |_| ()).await.unwrap();
    assert_eq!(counts(&preview), (2, 1, 0, 0, 1, 0), "{ours}: {preview:?}");
    secrets.expect_gone(&ours, &[&secrets.expired]).await;
    let (report, collect) = deletes(collect).await;
    assert_eq!(counts(&report), (2, 1, 0, 0, 1, 1), "{ours}: {report:?}");
    let gone = [&secrets.orphan, &secrets.expired];
    secrets.expect_gone(&ours, &gone).await;

    // Nothing is left to do, however long one waits.
    at(24 * 365);
    let (report, _) = deletes(collect).await;
    assert_eq!(counts(&report), (1, 1, 0, 0, 0, 0), "{ours}: {report:?}");
    secrets.expect_gone(&ours, &gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let ours = stores::sqlite(&file).await;
    let theirs = stores::sqlite_of(&file, other()).await;
    story(ours, theirs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_aws() {
    let Some(server) = LocalStack::start_or_env().await else {
        return;
    };
    let account = stores::account();
    let ours = stores::aws(server.url(), &account).await;
    let theirs = stores::aws_of(server.url(), &account, other()).await;
    story(ours, theirs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_vault() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = server.mount_kv(2).await;
    let of = |owner| stores::vault_of(server.address(), &mount, server.root_token(), owner);
    story(of(owner()).await, of(other()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_google() {
    let google = Google::start(google::Options::default()).await.unwrap();
    let of = async |owner| {
        let settings = secret_persistence_gcp::SETTINGS.from_pairs([
            ("project-id", google.project().to_owned()),
            ("endpoint-url", google.endpoint()),
            ("credentials", google.service_account_json()),
        ]);
        let config = secret_persistence_gcp::Config::from_settings(&settings.unwrap()).unwrap();
        let store = GoogleSecretManager::connect(config.with_owner(owner)).await;
        let store: Store = Arc::new(store.unwrap());
        store
    };
    story(of(owner()).await, of(other()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_azure() {
    let azure = Azure::start(azure::Options::default()).await.unwrap();
    let of = async |owner| stores::azure_of(&azure, owner).await;
    story(of(owner()).await, of(other()).await).await;
}

/// A store that cannot list is refused before anything is read.
#[tokio::test]
async fn not_where_nothing_is_listed() {
    let mut capabilities = Memory::new().capabilities();
    capabilities.listing = secret_persistence_core::Listing::None;
    let store = Memory::new().with_capabilities(capabilities);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collect.db");
    let journal = CollectJournal::open(path.to_str().unwrap(), &|_| None).await;
    let collect = Collect::new(Arc::new(store), owner(), Arc::new(journal.unwrap()));
    let refused = collect.preview(&mut |_| ()).await.unwrap_err();
    assert!(refused.to_string().contains("cannot list"), "{refused}");
}
