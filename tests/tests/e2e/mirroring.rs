//! A move without downtime: enable the mirror, copy, switch, and back, while services read and
//! write.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use e2e::VaultServer;
use secret_persistence_core::{
    ManagedCoordinate, Scope,
    connector::ConnectorSpec,
    layer::{Layers, RetryOptions, Stack},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    fleet::{expect_exactly, names},
    program::Program,
    stores::{Store, calls, sqlite, vault},
};

const WRITERS: usize = 4;
const ROWS: usize = 5;

/// A row of the table of configurations.
#[derive(Clone, PartialEq)]
struct Row {
    revision: u64,
    saved: Value,
    /// The configuration as it was entered.
    full: Value,
}

/// A service with its table of configurations and its store.
struct Service {
    spec: ConnectorSpec,
    scope: Scope,
    rows: Mutex<BTreeMap<String, Row>>,
    store: RwLock<Store>,
    /// The names that commits have deleted.
    deleted: Mutex<BTreeSet<String>>,
    is_closing: AtomicBool,
    changes: AtomicUsize,
    reads: AtomicUsize,
}

impl Service {
    async fn open(store: Store) -> Arc<Self> {
        let spec = json!({"properties": {
            "host": {"type": "string"},
            "password": {"type": "string", "airbyte_secret": true},
            "token": {"type": "string", "airbyte_secret": true},
        }});
        let service = Self {
            spec: ConnectorSpec::compile(&spec).unwrap(),
            scope: Scope::workspace(Uuid::new_v4()),
            rows: Mutex::default(),
            store: RwLock::new(store),
            deleted: Mutex::default(),
            is_closing: AtomicBool::new(false),
            changes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
        };
        for writer in 0..WRITERS {
            for row in 0..ROWS {
                service.create(&format!("{writer}-{row}")).await;
            }
        }
        Arc::new(service)
    }

    fn use_store(&self, store: &Store) {
        *self.store.write().unwrap() = Arc::clone(store);
    }

    fn calls(&self) -> secret_persistence_core::connector::ActingSecrets {
        calls(&self.store.read().unwrap())
    }

    async fn create(&self, id: &str) {
        let full = json!({"host": id, "password": format!("first of {id}"), "token": Uuid::new_v4().to_string()});
        let staged = self
            .calls()
            .stage_create(&self.spec, &self.scope, full.clone())
            .await
            .unwrap();
        let saved = staged.config().clone();
        self.put(
            id,
            Row {
                revision: 0,
                saved,
                full,
            },
        );
        assert!(staged.commit().await.unwrap().is_finished());
    }

    fn ids(&self) -> Vec<String> {
        self.rows.lock().unwrap().keys().cloned().collect()
    }

    fn row(&self, id: &str) -> Row {
        self.rows.lock().unwrap()[id].clone()
    }

    fn put(&self, id: &str, row: Row) {
        self.rows.lock().unwrap().insert(id.to_owned(), row);
    }

    /// Changes one secret of a row. A row has one writer, so nothing else has changed it meanwhile.
    async fn change(&self, id: &str) {
        let row = self.row(id);
        let mut full = row.full;
        let revision = row.revision + 1;
        full["password"] = json!(format!("{revision} of {id}"));
        let staged = self
            .calls()
            .stage_update(&self.spec, &self.scope, row.saved, full.clone())
            .await
            .unwrap();
        let saved = staged.config().clone();
        self.put(
            id,
            Row {
                revision,
                saved,
                full,
            },
        );
        let cleanup = staged.commit().await.unwrap();
        assert!(cleanup.is_finished(), "{cleanup:?}");
        let deleted = cleanup
            .deleted
            .iter()
            .map(|location| location.coordinate.to_string());
        self.deleted.lock().unwrap().extend(deleted);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// What a job does before its connector runs.
    async fn hydrate(&self, id: &str) {
        let read_row = async || {
            let row = self.row(id);
            let saved = row.saved.clone();
            Ok::<_, Infallible>((row, saved))
        };
        let (row, full) = self.calls().hydrate_fresh(read_row).await.unwrap();
        assert!(
            *full == row.full,
            "{id} differs at revision {}",
            row.revision
        );
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    async fn write_until_closed(self: Arc<Self>, writer: usize) {
        while !self.is_closing.load(Ordering::Relaxed) {
            for row in 0..ROWS {
                self.change(&format!("{writer}-{row}")).await;
            }
        }
    }

    async fn read_until_closed(self: Arc<Self>) {
        while !self.is_closing.load(Ordering::Relaxed) {
            for id in self.ids() {
                self.hydrate(&id).await;
            }
        }
    }

    /// Lets the writers and the reader continue for a while.
    async fn go_on(&self) {
        let until = |counter: &AtomicUsize, more| counter.load(Ordering::Relaxed) + more;
        let changes = until(&self.changes, WRITERS * ROWS);
        let reads = until(&self.reads, WRITERS * ROWS);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while self.changes.load(Ordering::Relaxed) < changes
            || self.reads.load(Ordering::Relaxed) < reads
        {
            assert!(tokio::time::Instant::now() < deadline, "a task has ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The names in the rows, and their values.
    fn secrets(&self) -> BTreeMap<ManagedCoordinate, String> {
        let rows = self.rows.lock().unwrap();
        let fields = rows.values().flat_map(|row| {
            ["password", "token"].map(|field| {
                let name = row.saved[field]["_secret"].as_str().unwrap();
                let value = row.full[field].as_str().unwrap();
                (ManagedCoordinate::parse(name).unwrap(), value.to_owned())
            })
        });
        fields.collect()
    }
}

/// The tool between the two stores, with a journal on disk.
struct Tool {
    program: Program,
    to: String,
}

impl Tool {
    /// Passes it the current rows, and runs a command. Returns its report.
    ///
    /// The result for rows that change meanwhile is decided: a missing name belonged to a row that
    /// has changed, and a name without a row is about to be saved.
    async fn run(&self, service: &Service, command: &str) -> Value {
        let lines: String = {
            let rows = service.rows.lock().unwrap();
            let base = service.scope.base_id().to_string();
            let line = |(id, row): (&String, &Row)| {
                let line = json!({"id": id, "baseId": base, "configuration": row.saved});
                format!("{line}\n")
            };
            rows.iter().map(line).collect()
        };
        std::fs::write(self.program.folder().join("rows.jsonl"), lines).unwrap();
        let route = ["--from", "sqlite:secrets.db", "--to", &self.to];
        let files = ["--configs", "rows.jsonl", "--journal", "journal.db"];
        let decided = ["--missing", "skip", "--orphaned", "copy"];
        let arguments = [&[command][..], &route, &files, &decided].concat();
        let report = self.program.run(&arguments).await.expect(0);
        assert_eq!(report["failed"], 0, "{report}");
        report["tally"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mirror_on_switch_and_mirror_back_under_load() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let Some(mut program) = Program::found() else {
        return;
    };
    let mount = server.mount_kv(2).await;
    let old = sqlite(&program.folder().join("secrets.db")).await;
    let new = vault(server.address(), &mount, server.root_token()).await;
    let token = server.create_token(&["root"], "10m").await;
    program.set_credential("VAULT_AUTH_TOKEN", &token);
    let address = server.address().strip_prefix("http://").unwrap();
    let to = format!("vault://{address}/{mount}/airbyte/?tls=off");
    let tool = Tool { program, to };
    let stack = |store: &Store| Stack::over(Arc::clone(store)).with_retry(RetryOptions::default());

    let service = Service::open(Arc::clone(&old)).await;
    assert_eq!(names(&new).await, []);

    // Enable the mirror. All earlier work has ended, as after a restart of every replica.
    let before = Layers::mirror(stack(&old), stack(&new)).build();
    let after = Layers::mirror(stack(&new), stack(&old)).build();
    service.use_store(&before);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        tasks.spawn(Arc::clone(&service).write_until_closed(writer));
    }
    tasks.spawn(Arc::clone(&service).read_until_closed());
    service.go_on().await;

    let first = tool.run(&service, "copy").await;
    assert!(
        first["written"].as_u64().unwrap() > 0,
        "the mirror alone does not bring what was there before: {first}"
    );
    service.go_on().await;
    tool.run(&service, "copy").await;

    // The switch, while both sides are in use.
    service.use_store(&after);
    service.go_on().await;
    service.go_on().await;
    // And back: the old store contains everything that was written since.
    service.use_store(&before);
    service.go_on().await;
    service.use_store(&after);
    service.go_on().await;

    service.is_closing.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }

    // Each store is sufficient alone.
    let secrets = service.secrets();
    assert_eq!(secrets.len(), WRITERS * ROWS * 2);
    expect_exactly(&old, &secrets).await;
    for store in [&old, &new] {
        service.use_store(store);
        for id in service.ids() {
            service.hydrate(&id).await;
        }
    }
    // A copy that races with a delete may leave a name that only the deleted configuration
    // contained. The collector deletes it.
    let deleted = service.deleted.lock().unwrap().clone();
    let extra: Vec<_> = names(&new)
        .await
        .into_iter()
        .filter(|name| !secrets.contains_key(name))
        .collect();
    for name in &extra {
        assert!(deleted.contains(name.as_str()), "nobody wrote {name}");
    }
    assert!(extra.len() <= WRITERS * ROWS, "{} left behind", extra.len());

    let verify = tool.run(&service, "verify").await;
    assert_eq!(verify["hydrated"], WRITERS * ROWS, "{verify}");
}
