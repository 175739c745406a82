//! Several stores: a default one in SQLite, and others whose credentials are secrets in it.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence::connector::{ConnectorOptions, ConnectorSecrets};
use secret_persistence::{
    Actor, AuditEvent, AuditSink, Environment, Error, ErrorKind, ManagedCoordinate, Result, Scope,
    SecretPersistenceExt, SecretValue, Settings, Storage, StorageId, Storages, Stores,
    StoresSettings, Tenant, Write, stores,
};
use serde_json::{Value, json};

const SCOPE: &str = "8a2b6b9e-6d4f-4f2c-9d1c-0d4d6f0a7e11";

#[derive(Default)]
struct Table {
    rows: Mutex<HashMap<String, Storage>>,
    asked: AtomicUsize,
    down: Mutex<bool>,
    hanging: Mutex<bool>,
}

impl Table {
    fn put(&self, id: &str, storage: Storage) {
        self.rows.lock().unwrap().insert(id.to_owned(), storage);
    }
}

#[async_trait]
impl Storages for Table {
    async fn storage(&self, id: &StorageId) -> Result<Option<Storage>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let hanging = *self.hanging.lock().unwrap();
        if hanging {
            std::future::pending::<()>().await;
        }
        if *self.down.lock().unwrap() {
            return Err(Error::new(ErrorKind::Unavailable, "the table is away"));
        }
        Ok(self.rows.lock().unwrap().get(id.as_str()).cloned())
    }
}

fn default(folder: &Path, query: &str) -> Settings {
    let url = format!(
        "sqlite://{}?mode=plain&owner=here&{query}",
        folder.join("s.db").display()
    );
    Settings::from_url(&url, &Environment::empty()).unwrap()
}

fn scope(id: &str) -> Scope {
    Scope::new("storage_organization_", id.parse().unwrap()).unwrap()
}

/// Writes a secret of the scope, and returns a pointer to it.
async fn pointer(stores: &Stores, of: &str, version: i64, value: &str) -> Value {
    let secret = "0e6a1a53-5a5e-4f4e-8c11-64a1d4b7e1f2".parse().unwrap();
    let coordinate = ManagedCoordinate::new(&scope(of), secret, version).unwrap();
    let value = SecretValue::new(value.to_owned());
    stores
        .default_store()
        .write(Write::new(coordinate.clone(), value))
        .await
        .unwrap();
    json!({ "_secret": coordinate.as_str() })
}

fn access_key(secret: Value) -> Value {
    json!({
        "auth_type": "ACCESS_KEY",
        "awsAccessKey": "AKIAEXAMPLE",
        "awsSecretAccessKey": secret,
        "awsRegion": "eu-west-1",
        "tagKey": "AirbyteManaged"
    })
}

fn of_tenant(settings: Value) -> Storage {
    Storage::of_tenant(settings, scope(SCOPE), Tenant::new())
}

fn id(text: &str) -> StorageId {
    StorageId::parse(text).unwrap()
}

async fn open(folder: &Path, table: &Arc<Table>, recheck: Duration) -> Stores {
    let settings = StoresSettings::new(default(folder, "cache=true"))
        .with_storages(Arc::clone(table) as _)
        .with_recheck(recheck);
    stores(settings).await.unwrap()
}

#[tokio::test]
async fn credentials_come_from_the_default_store_and_layers_from_its_settings() {
    let (folder, table) = (tempfile::tempdir().unwrap(), Arc::default());
    let stores = open(folder.path(), &table, Duration::from_secs(60)).await;
    table.put(
        "a",
        of_tenant(access_key(pointer(&stores, SCOPE, 1, "canary").await)),
    );
    let first = stores.store(Some(&id("a"))).await.unwrap();
    assert_eq!(
        format!("{first:#}"),
        "metrics(cache(retry(limit(timeout(aws eu-west-1)))))"
    );
    let again = stores.store(Some(&id("a"))).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(table.asked.load(Ordering::SeqCst), 1);
    assert!(stores.store(Some(&id("b"))).await.is_err());
    assert_eq!(stores.owner().unwrap().as_str(), "here");
    assert!(!format!("{stores:?}").contains("canary"));
}

#[tokio::test]
async fn the_whole_of_the_settings_may_be_one_secret() {
    let (folder, table) = (tempfile::tempdir().unwrap(), Arc::default());
    let stores = open(folder.path(), &table, Duration::from_secs(60)).await;
    let whole = access_key(json!("canary")).to_string();
    let mut pointer = pointer(&stores, SCOPE, 1, &whole).await;
    table.put("text", of_tenant(pointer.clone()));
    pointer["_secret_encoding"] = json!("json");
    table.put("json", of_tenant(pointer));
    for name in ["text", "json"] {
        let store = stores.store(Some(&id(name))).await.unwrap();
        assert!(store.to_string().contains("aws eu-west-1"), "{name}");
    }
}

#[tokio::test]
async fn changed_settings_open_the_store_anew() {
    let (folder, table) = (tempfile::tempdir().unwrap(), Arc::default());
    let stores = open(folder.path(), &table, Duration::ZERO).await;
    table.put(
        "a",
        of_tenant(access_key(pointer(&stores, SCOPE, 1, "old").await)),
    );
    let first = stores.store(Some(&id("a"))).await.unwrap();
    assert!(Arc::ptr_eq(
        &first,
        &stores.store(Some(&id("a"))).await.unwrap()
    ));
    // A new value has a new coordinate, so the settings differ.
    table.put(
        "a",
        of_tenant(access_key(pointer(&stores, SCOPE, 2, "new").await)),
    );
    let second = stores.store(Some(&id("a"))).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    // Settings that cannot be read count as unchanged; a deleted storage is gone.
    *table.down.lock().unwrap() = true;
    assert!(Arc::ptr_eq(
        &second,
        &stores.store(Some(&id("a"))).await.unwrap()
    ));
    *table.down.lock().unwrap() = false;
    table.rows.lock().unwrap().clear();
    let error = stores.store(Some(&id("a"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

/// Otherwise callers with a shorter timeout than the table needs would keep using a revoked
/// credential.
#[tokio::test]
async fn a_look_at_the_settings_that_was_abandoned_is_made_again() {
    let (folder, table) = (tempfile::tempdir().unwrap(), Arc::default());
    let recheck = Duration::from_millis(400);
    let stores = open(folder.path(), &table, recheck).await;
    table.put("a", of_tenant(access_key(json!("old"))));
    let first = stores.store(Some(&id("a"))).await.unwrap();
    tokio::time::sleep(recheck).await;
    *table.hanging.lock().unwrap() = true;
    let name = id("a");
    let impatient = tokio::time::timeout(Duration::from_millis(1), stores.store(Some(&name)));
    assert!(impatient.await.is_err());
    *table.hanging.lock().unwrap() = false;
    table.put("a", of_tenant(access_key(json!("new"))));
    let second = stores.store(Some(&id("a"))).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn a_tenants_pointer_reaches_no_secret_but_its_own() {
    const OTHER: &str = "11111111-6d4f-4f2c-9d1c-0d4d6f0a7e11";
    let (folder, table) = (tempfile::tempdir().unwrap(), Arc::default());
    let stores = open(folder.path(), &table, Duration::from_secs(60)).await;
    let foreign = pointer(&stores, OTHER, 1, "canary").await;
    let mut elsewhere = pointer(&stores, SCOPE, 1, "canary").await;
    elsewhere["_secret_storage_id"] = json!("b");
    for (name, pointer) in [
        ("foreign", foreign.clone()),
        ("external", json!({"_secret": "somebody/elses"})),
        ("elsewhere", elsewhere),
        ("reference", json!({"_secret_reference_id": OTHER})),
    ] {
        table.put(name, of_tenant(access_key(pointer)));
        let error = stores.store(Some(&id(name))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{name}: {error}");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
    // The operator's settings may point to any secret of the default store.
    table.put("operator", Storage::of_operator(access_key(foreign)));
    stores.store(Some(&id("operator"))).await.unwrap();
    // Settings that a tenant must not set are refused when the store is opened.
    let ambient = json!({"auth_type": "IAM_ROLE", "roleArn": "arn:aws:iam::123456789012:role/x", "awsRegion": "eu-west-1", "tagKey": "T"});
    table.put("ambient", of_tenant(ambient));
    assert!(stores.store(Some(&id("ambient"))).await.is_err());
}

#[tokio::test]
async fn credentials_that_are_missing_are_named_by_their_coordinate() {
    let (folder, table) = (tempfile::tempdir().unwrap(), Arc::default());
    let stores = open(folder.path(), &table, Duration::from_secs(60)).await;
    let missing = format!("airbyte_storage_organization_{SCOPE}_secret_{SCOPE}_v1");
    table.put("a", of_tenant(access_key(json!({ "_secret": missing }))));
    let error = stores.store(Some(&id("a"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(&missing), "{cause}");
}

#[derive(Default)]
struct Sink {
    events: Mutex<Vec<AuditEvent>>,
    broken: bool,
}

#[async_trait]
impl AuditSink for Sink {
    async fn record(&self, events: &[AuditEvent]) -> Result<()> {
        if self.broken {
            return Err(Error::new(ErrorKind::Unavailable, "full"));
        }
        self.events.lock().unwrap().extend_from_slice(events);
        Ok(())
    }
}

async fn hydrate(stores: &Stores, pointer: &Value) -> bool {
    let secrets = ConnectorSecrets::new(stores.clone(), ConnectorOptions::default())
        .acting_as(&Actor::new("job 7"));
    secrets
        .hydrate(json!({ "password": pointer }))
        .await
        .is_ok()
}

#[tokio::test]
async fn a_required_audit_fails_the_operation_and_a_best_effort_counts() {
    for (mode, works) in [("required", false), ("best_effort", true)] {
        let folder = tempfile::tempdir().unwrap();
        let sink = Arc::new(Sink {
            broken: true,
            ..Sink::default()
        });
        let settings = StoresSettings::new(default(folder.path(), &format!("audit={mode}")));
        let stores = stores(settings.with_audit_sink(sink)).await.unwrap();
        let pointer = pointer(&stores, SCOPE, 1, "canary").await;
        assert_eq!(hydrate(&stores, &pointer).await, works, "{mode}");
        assert_eq!(stores.unaudited(), u64::from(works));
    }
}

#[tokio::test]
async fn audit_events_go_to_the_file_of_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let query = format!("audit-file={}", file.display());
    let stores = stores(default(folder.path(), &query)).await.unwrap();
    let pointer = pointer(&stores, SCOPE, 1, "canary").await;
    assert!(hydrate(&stores, &pointer).await);
    let text = std::fs::read_to_string(&file).unwrap();
    let event: Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(
        (&event["actor"], &event["operation"]),
        (&json!("job 7"), &json!("read"))
    );
    assert_eq!(event["coordinate"], pointer["_secret"]);
    assert!(!text.contains("canary"));
    // If audit events cannot be written, nothing is read.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(!hydrate(&stores, &pointer).await);
}

#[tokio::test]
async fn an_audit_without_a_place_is_refused_where_it_is_required() {
    let folder = tempfile::tempdir().unwrap();
    let error = stores(default(folder.path(), "audit=required"))
        .await
        .unwrap_err();
    assert!(error.hint().unwrap().contains("SECRETS_AUDIT_FILE"));
    stores(default(folder.path(), "audit=best_effort"))
        .await
        .unwrap();
}

#[tokio::test]
async fn reading_a_storages_credentials_is_audited_too() {
    let (folder, table) = (tempfile::tempdir().unwrap(), Arc::new(Table::default()));
    let sink = Arc::new(Sink::default());
    let settings = StoresSettings::new(default(folder.path(), ""))
        .with_storages(Arc::clone(&table) as _)
        .with_audit_sink(Arc::clone(&sink) as _);
    let stores = stores(settings).await.unwrap();
    table.put(
        "a",
        of_tenant(access_key(pointer(&stores, SCOPE, 1, "canary").await)),
    );
    stores.store(Some(&id("a"))).await.unwrap();
    let events = sink.events.lock().unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].actor.as_str(), "secret-persistence:storages");
}

/// What the stores of a process draw from. Nothing is sent, because nothing is handed out.
mod accounts {
    use secret_persistence::rates::{Draw, SharedRates, Slice};
    use secret_persistence::{SecretPersistence, connect};
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;

    /// Keys of the accounts 609629065308 and 171436882533.
    const ONE: &str = "AKIAY34FZKBOKMUTVV7A";
    const ALSO_ONE: &str = "AKIAY34FZKBOP7777777";
    const TWO: &str = "AKIASP2TPHJSQH3FJXYZ";

    #[derive(Debug)]
    struct Asked(UnboundedSender<String>);

    #[async_trait]
    impl SharedRates for Asked {
        async fn draw(&self, draw: &Draw) -> Result<Slice> {
            self.0.send(draw.bucket.clone()).unwrap();
            std::future::pending().await
        }
    }

    /// The bucket of a call.
    async fn drawn<T>(
        call: impl Future<Output = T>,
        asked: &mut UnboundedReceiver<String>,
    ) -> String {
        tokio::select! {
            _ = call => panic!("it was not asked for"),
            bucket = asked.recv() => bucket.unwrap(),
        }
    }

    async fn bucket(
        store: &Arc<dyn SecretPersistence>,
        asked: &mut UnboundedReceiver<String>,
    ) -> String {
        drawn(store.identity(), asked).await
    }

    #[tokio::test]
    async fn storages_of_one_account_share_its_quota_and_others_have_their_own() {
        const OTHER: &str = "11111111-6d4f-4f2c-9d1c-0d4d6f0a7e11";
        let (folder, table) = (tempfile::tempdir().unwrap(), Arc::<Table>::default());
        let (sender, mut asked) = unbounded_channel();
        let default = default(folder.path(), "").with_shared_rates(Arc::new(Asked(sender)));
        let settings = StoresSettings::new(default).with_storages(Arc::clone(&table) as _);
        let stores = stores(settings).await.unwrap();
        let with_key = |key: &str| {
            let mut settings = access_key(json!("canary"));
            settings["awsAccessKey"] = json!(key);
            settings
        };
        let (one, two) = (with_key(ONE), with_key(TWO));
        let operator = |settings: &Value| Storage::of_operator(settings.clone());
        table.put("operator", operator(&one));
        table.put("same account", operator(&with_key(ALSO_ONE)));
        table.put("another account", operator(&two));
        table.put("tenant", of_tenant(one.clone()));
        table.put("same tenant", of_tenant(two.clone()));
        let mut region = two;
        region["awsRegion"] = json!("eu-west-3");
        table.put("same tenant, elsewhere", of_tenant(region));
        let elsewhere = Storage::of_tenant(one, scope(OTHER), Tenant::new());
        table.put("another tenant", elsewhere);
        let mut buckets = HashMap::new();
        for name in [
            "operator",
            "same account",
            "another account",
            "tenant",
            "same tenant",
            "same tenant, elsewhere",
            "another tenant",
        ] {
            let store = stores.store(Some(&id(name))).await.unwrap();
            buckets.insert(name, bucket(&store, &mut asked).await);
        }
        assert_eq!(buckets["operator"], buckets["same account"]);
        // What a tenant says about its account reaches nobody else's quota, and makes no other bucket.
        assert_eq!(buckets["tenant"], buckets["same tenant"]);
        assert_eq!(buckets["tenant"], buckets["same tenant, elsewhere"]);
        let own: std::collections::HashSet<_> = buckets.values().collect();
        assert_eq!(own.len(), 4, "{buckets:?}");
        assert!(!format!("{buckets:?}").contains("AKIA"), "{buckets:?}");
    }

    #[tokio::test]
    async fn a_mirror_in_another_account_has_a_quota_of_its_own() {
        let of = |key: &str| {
            let variables = [
                ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", key),
                ("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "canary"),
            ];
            Settings::from_url("aws://eu-west-1", &Environment::from_iter(variables)).unwrap()
        };
        for (mirror, is_shared) in [(TWO, false), (ALSO_ONE, true)] {
            let (sender, mut asked) = unbounded_channel();
            let settings = of(ONE).with_mirror(of(mirror));
            let store = connect(settings.with_shared_rates(Arc::new(Asked(sender))))
                .await
                .unwrap();
            let coordinate =
                ManagedCoordinate::new(&scope(SCOPE), SCOPE.parse().unwrap(), 1).unwrap();
            // The second store is deleted from first, and the first one is asked who it is.
            let deleted = drawn(
                store.delete(&coordinate, &secret_persistence::DeleteOptions::default()),
                &mut asked,
            )
            .await;
            let identified = bucket(&store, &mut asked).await;
            let account = |bucket: &str| bucket.rsplit_once(' ').unwrap().0.to_owned();
            assert_eq!(
                account(&deleted) == account(&identified),
                is_shared,
                "{deleted}, {identified}"
            );
        }
    }
}

mod ledger {
    use std::collections::BTreeSet;

    use secret_persistence::database::{
        KeyRingFile, LEDGER_SETTINGS, LedgerConfig, LedgerLine, LedgerReader,
    };
    use secret_persistence::{Coordinate, StoreUrl, read_history};

    use super::*;

    /// A default store with these settings around it, and a key ring for the ledger alone.
    fn settings(folder: &Path, variables: &[(&str, String)]) -> Settings {
        let ring = folder.join("ring");
        if !ring.exists() {
            KeyRingFile::create(&ring, "1".parse().unwrap()).unwrap();
        }
        let ring = [("LEDGER_SECRETS_KEYRING_FILE", ring.display().to_string())];
        let environment = Environment::from_iter(variables.iter().cloned().chain(ring));
        let url = format!("sqlite://{}?mode=plain", folder.join("s.db").display());
        Settings::from_url(&url, &environment).unwrap()
    }

    #[tokio::test]
    async fn a_value_has_its_line_in_the_ledger_of_the_settings() {
        for kind in ["sqlite", "file"] {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("{kind}://{}", folder.path().join("ledger").display());
            let settings = settings(folder.path(), &[("SECRETS_LEDGER", url.clone())]);
            settings.check().unwrap();
            let stores = stores(settings).await.unwrap();
            let pointer = pointer(&stores, SCOPE, 1, "canary").await;
            assert!(hydrate(&stores, &pointer).await);

            let ring = folder.path().join("ring");
            let variable = |name: &str| {
                (name == "SECRETS_KEYRING_FILE").then(|| ring.to_str().unwrap().to_owned())
            };
            let values = LEDGER_SETTINGS.from_url(&StoreUrl::parse(&url).unwrap(), &variable);
            let config = LedgerConfig::from_settings(&values.unwrap()).unwrap();
            let reader = LedgerReader::open(&config).await.unwrap();
            let mut lines = Vec::new();
            let mut each = |line: LedgerLine, genuine: bool| {
                assert!(genuine);
                lines.push(line);
            };
            reader.search(&Default::default(), &mut each).await.unwrap();
            assert_eq!(lines.len(), 1);
            assert_eq!(lines[0].actor.as_deref(), Some("job 7"));
            assert_eq!(lines[0].places, ["/password"]);
            assert!(!format!("{lines:?}").contains("canary"));
        }
    }

    /// With `best_effort`, a read without a line is possible, and no missing line is a proof.
    #[tokio::test]
    async fn only_a_required_ledger_says_from_when_on_it_knows_every_read() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("ledger.db").display());
        let with = |audit: &[(&'static str, String)]| {
            let url = [("SECRETS_LEDGER", url.clone())];
            let all: Vec<_> = url.into_iter().chain(audit.iter().cloned()).collect();
            settings(folder.path(), &all)
        };
        let stores = stores(with(&[])).await.unwrap();
        let pointer = pointer(&stores, SCOPE, 1, "canary").await;
        assert!(hydrate(&stores, &pointer).await);
        let name = pointer["_secret"].as_str().unwrap();
        let names = BTreeSet::from([Coordinate::parse(name).unwrap()]);
        for (audit, proves) in [
            (None, true),
            (Some("required"), true),
            (Some("best_effort"), false),
        ] {
            let audit = audit.map(|mode| ("SECRETS_AUDIT", mode.to_owned()));
            let history = read_history(&with(audit.as_slice())).unwrap().unwrap();
            let found = history.last_reads(&names).await.unwrap();
            assert_eq!(
                (found.reads.len(), found.since.is_some()),
                (1, proves),
                "{audit:?}"
            );
        }
    }

    /// A program that may hand out nothing without the ledger says so at once.
    #[tokio::test]
    async fn a_required_ledger_must_be_there_at_the_start_and_another_need_not() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = format!("sqlite://{}/no/ledger.db", folder.path().display());
        let with = |more: &[(&'static str, &str)]| {
            let more = more
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()));
            let url = [("SECRETS_LEDGER", nowhere.clone())];
            settings(
                folder.path(),
                &url.into_iter().chain(more).collect::<Vec<_>>(),
            )
        };
        let error = stores(with(&[])).await.unwrap_err();
        assert!(error.store().unwrap().contains("ledger"), "{error:?}");
        let stores = stores(with(&[("SECRETS_AUDIT", "best_effort")]))
            .await
            .unwrap();
        let pointer = pointer(&stores, SCOPE, 1, "canary").await;
        assert!(hydrate(&stores, &pointer).await);
        assert_eq!(stores.unaudited(), 1);

        let file = folder.path().join("audit.jsonl").display().to_string();
        let both = super::stores(with(&[("SECRETS_AUDIT_FILE", &file)])).await;
        assert_eq!(both.unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}
