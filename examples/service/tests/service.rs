//! The service as its users see it, and as crashes and races leave it.

#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use secret_persistence::connector::{
    ConnectorOptions, ConnectorSecrets, ConnectorSpec, Place, PlacedValues,
};
use secret_persistence::{
    Actor, AllowedHosts, Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity,
    ListOptions, ManagedCoordinate, Memory, Page, Read, Result, Scope, SecretPersistence,
    SecretValue, Stores, Write, Written,
};
use serde_json::{Value, json};
use service::{ChangeError, Connectors, Outcome, Rows, router};
use tempfile::TempDir;
use tower::ServiceExt;
use uuid::Uuid;

const WORKSPACE: Uuid = Uuid::from_u128(7);

fn specification() -> Value {
    json!({"type": "object", "properties": {
        "host": {"type": "string"},
        "password": {"type": "string", "airbyte_secret": true},
        "token": {"type": "string", "airbyte_secret": true},
    }})
}

/// A store in memory that lets a test step in between two reads.
#[derive(Debug, Default)]
struct Watched {
    memory: Memory,
    before_read: OnceLock<Interruption>,
}

struct Interruption {
    run: Box<dyn Fn() -> BoxFuture + Send + Sync>,
    done: AtomicBool,
}

type BoxFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl fmt::Debug for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interruption")
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watched {}", self.memory)
    }
}

#[async_trait]
impl SecretPersistence for Watched {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            recovery: false,
            ..self.memory.capabilities()
        }
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        if let Some(interruption) = self.before_read.get()
            && !interruption.done.swap(true, Ordering::SeqCst)
        {
            (interruption.run)().await;
        }
        self.memory.read_batch(coordinates).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.memory.write_batch(writes).await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        _: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let now = DeleteOptions::default().with_recovery(secret_persistence::Recovery::Immediate);
        self.memory.delete_batch(coordinates, &now).await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.memory.restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.memory.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.memory.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.memory.identity().await
    }
}

struct World {
    _folder: TempDir,
    store: Arc<Watched>,
    rows: Rows,
    secrets: ConnectorSecrets,
    connectors: Connectors,
    actor: Actor,
}

impl World {
    async fn new() -> Self {
        Self::with_options(ConnectorOptions::default()).await
    }

    async fn with_options(options: ConnectorOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let rows = Rows::open(&folder.path().join("connectors.db"))
            .await
            .unwrap();
        let store = Arc::new(Watched::default());
        let stores = Stores::new(Arc::<Watched>::clone(&store));
        let secrets = ConnectorSecrets::new(stores, options);
        let connectors =
            Connectors::new(rows.clone(), secrets.clone()).with_patience(Duration::ZERO);
        Self {
            _folder: folder,
            store,
            rows,
            secrets,
            connectors,
            actor: Actor::new("test"),
        }
    }

    async fn create(&self, configuration: Value) -> Uuid {
        let spec = specification();
        self.connectors
            .create(&self.actor, WORKSPACE, spec, configuration)
            .await
            .unwrap()
            .0
    }

    async fn full(&self, id: Uuid) -> Value {
        self.connectors
            .hydrated(&self.actor, id)
            .await
            .unwrap()
            .into_inner()
    }

    fn app(&self) -> Router {
        let runner = SecretValue::new("runner".into());
        let hosts = AllowedHosts::default().with_loopback();
        router(self.connectors.clone(), runner, hosts)
    }
}

async fn send(
    app: &Router,
    method: &str,
    path: &str,
    header: Option<(&str, &str)>,
    body: Value,
) -> (u16, Option<String>, Value) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    if header.is_none_or(|(name, _)| name != "host") {
        request = request.header("host", "localhost:8080");
    }
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let etag = response
        .headers()
        .get("etag")
        .map(|etag| etag.to_str().unwrap().to_owned());
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (
        status,
        etag,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    )
}

#[tokio::test]
async fn a_connector_lives_and_dies_over_http() {
    let world = World::new().await;
    let app = world.app();
    let configuration = json!({"host": "db", "password": "hunter2", "token": "t0ken"});
    let body = json!({"workspace": WORKSPACE.to_string(), "specification": specification(),
        "configuration": configuration});
    let (status, etag, created) = send(&app, "POST", "/connectors", None, body).await;
    assert_eq!((status, etag.as_deref()), (201, Some("\"1\"")));
    let masked = json!({"host": "db", "password": "**********", "token": "**********"});
    assert_eq!(created["configuration"], masked);
    let path = format!("/connectors/{}", created["id"].as_str().unwrap());

    // What a person edits: masks stay what they were, one value is new.
    let mut edited = send(&app, "GET", &path, None, Value::Null).await.2;
    assert_eq!(edited, masked);
    edited["token"] = json!("new token");
    let precondition = Some(("if-match", "\"1\""));
    let (status, etag, _) = send(&app, "PUT", &path, precondition, edited.clone()).await;
    assert_eq!((status, etag.as_deref()), (200, Some("\"2\"")));
    assert_eq!(
        world.store.memory.len(),
        2,
        "the old token is deleted, the password kept"
    );

    assert_eq!(
        send(&app, "PUT", &path, precondition, edited.clone())
            .await
            .0,
        412
    );
    assert_eq!(send(&app, "PUT", &path, None, edited).await.0, 428);
    let foreign = json!({"password": {"_secret": "airbyte_workspace_1_secret_2_v1"}});
    let (status, _, refused) = send(&app, "PUT", &path, Some(("if-match", "\"2\"")), foreign).await;
    assert_eq!(
        (status, &refused["problems"][0]["place"]),
        (422, &json!("/password"))
    );

    let hydrated = format!("{path}/hydrated");
    assert_eq!(send(&app, "GET", &hydrated, None, Value::Null).await.0, 401);
    let wrong = Some(("authorization", "Bearer guess"));
    assert_eq!(
        send(&app, "GET", &hydrated, wrong, Value::Null).await.0,
        401
    );
    let runner = Some(("authorization", "Bearer runner"));
    let (_, _, full) = send(&app, "GET", &hydrated, runner, Value::Null).await;
    assert_eq!(
        full,
        json!({"host": "db", "password": "hunter2", "token": "new token"})
    );

    let exported = send(&app, "GET", "/export", None, Value::Null).await.2;
    assert_eq!(exported["connectors"][0]["configuration"], masked);

    assert_eq!(
        send(
            &app,
            "DELETE",
            &path,
            Some(("if-match", "\"2\"")),
            Value::Null
        )
        .await
        .0,
        204
    );
    assert_eq!(send(&app, "GET", &path, None, Value::Null).await.0, 404);
    assert!(world.store.memory.is_empty());
    assert!(
        world
            .rows
            .records()
            .await
            .unwrap()
            .iter()
            .all(|(_, _, state)| state.is_some())
    );
}

#[tokio::test]
async fn of_two_changes_to_one_revision_one_is_made_and_nothing_is_lost() {
    let world = World::new().await;
    let id = world.create(json!({"password": "old", "token": "t"})).await;
    let change = |field: &'static str| {
        let edited = json!({"password": "**********", "token": "**********"});
        let (connectors, actor) = (world.connectors.clone(), world.actor.clone());
        async move {
            let mut edited = edited;
            edited[field] = json!("new");
            connectors.update(&actor, id, 1, edited).await
        }
    };
    let (one, other) = tokio::join!(change("password"), change("token"));
    let outcomes = [one.is_ok(), other.is_ok()];
    assert_eq!(
        outcomes.iter().filter(|saved| **saved).count(),
        1,
        "{outcomes:?}"
    );
    let full = world.full(id).await;
    let expected = if outcomes[0] {
        ("new", "t")
    } else {
        ("old", "new")
    };
    assert_eq!(
        (full["password"].as_str(), full["token"].as_str()),
        (Some(expected.0), Some(expected.1))
    );
    assert_eq!(
        world.store.memory.len(),
        2,
        "what the loser wrote is deleted"
    );
}

#[tokio::test]
async fn a_reader_that_a_commit_overtakes_reads_the_row_again() {
    let world = World::new().await;
    let id = world.create(json!({"password": "old"})).await;
    // Between the reader's row and the reader's secret another change is saved and committed.
    let (connectors, actor) = (world.connectors.clone(), world.actor.clone());
    let run = move || -> BoxFuture {
        let (connectors, actor) = (connectors.clone(), actor.clone());
        Box::pin(async move {
            connectors
                .update(&actor, id, 1, json!({"password": "new"}))
                .await
                .unwrap();
        })
    };
    let interruption = Interruption {
        run: Box::new(run),
        done: AtomicBool::new(false),
    };
    world.store.before_read.set(interruption).unwrap();
    assert_eq!(world.full(id).await, json!({"password": "new"}));
    assert_eq!(
        world.store.memory.len(),
        1,
        "the superseded secret is gone, as the reader found"
    );
}

#[tokio::test]
async fn a_crash_after_staging_leaves_nothing_once_healed() {
    let options = ConnectorOptions::default().with_deadline(Duration::from_secs(3));
    let world = World::with_options(options).await;
    let id = world.create(json!({"password": "old"})).await;
    let row = world.rows.get(id).await.unwrap().unwrap();
    let secrets = world.secrets.acting_as(&world.actor);
    let spec = ConnectorSpec::compile(&specification()).unwrap();
    let scope = Scope::workspace(WORKSPACE);
    let edited = json!({"password": "new"});
    let planned = secrets
        .plan_update(&spec, &scope, row.configuration, edited)
        .await
        .unwrap();
    world.rows.open_record(planned.record()).await.unwrap();
    drop(planned.stage().await.unwrap());
    assert_eq!(world.store.memory.len(), 2);
    world.connectors.heal().await.unwrap();
    assert_eq!(world.store.memory.len(), 1);
    assert_eq!(world.full(id).await, json!({"password": "old"}));
    // The record stays until nothing can be in flight any more.
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.connectors.heal().await.unwrap();
    assert!(world.rows.records().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_slow_saver_and_the_healer_never_both_win() {
    let world = World::new().await;
    let id = world.create(json!({"password": "old"})).await;
    let row = world.rows.get(id).await.unwrap().unwrap();
    let secrets = world.secrets.acting_as(&world.actor);
    let spec = ConnectorSpec::compile(&specification()).unwrap();
    let scope = Scope::workspace(WORKSPACE);
    let edited = json!({"password": "new"});
    let planned = secrets
        .plan_update(&spec, &scope, row.configuration, edited)
        .await
        .unwrap();
    let record = world.rows.open_record(planned.record()).await.unwrap();
    let staged = planned.stage().await.unwrap();
    world.connectors.heal().await.unwrap();
    let outcome = world
        .rows
        .update(id, 1, staged.config(), record)
        .await
        .unwrap();
    assert_eq!(
        outcome,
        Outcome::Moved,
        "a saved row would point at what the healer deleted"
    );
    let _cleanup = staged.abort().await.unwrap();
    assert_eq!(world.full(id).await, json!({"password": "old"}));
}

/// A provider that rotates tokens ends the grant if one is used twice.
#[tokio::test]
async fn a_token_that_may_be_used_once_is_used_once() {
    let options = ConnectorOptions::default().with_retention(Some(Duration::from_secs(3)));
    let world = World::with_options(options).await;
    let id = world
        .create(json!({"host": "db", "password": "p", "token": "first"}))
        .await;
    let row = world.rows.get(id).await.unwrap().unwrap();
    let used = Arc::new(AtomicBool::new(false));
    let token = Place::root().child("token");
    let runner = || {
        let (used, token) = (Arc::clone(&used), token.clone());
        let place = token.clone();
        let exchange = move |old: PlacedValues| async move {
            assert_eq!(old[0].1, SecretValue::new("first".into()));
            assert!(!used.swap(true, Ordering::SeqCst), "the grant is lost");
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, Infallible>(vec![(token, SecretValue::new("second".into()))])
        };
        world
            .connectors
            .refreshed(&world.actor, &row, [place], exchange)
    };
    let (one, other) = tokio::join!(runner(), runner());
    for refreshed in [one.unwrap(), other.unwrap()] {
        let second = SecretValue::new("second".into());
        assert_eq!(
            (refreshed.revision, refreshed.value(&token)),
            (2, Some(&second))
        );
    }
    let expected = json!({"host": "db", "password": "p", "token": "second"});
    assert_eq!(world.full(id).await, expected);
    assert_eq!(world.store.memory.len(), 3, "the first token is retained");
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.connectors.heal().await.unwrap();
    assert_eq!(world.store.memory.len(), 2);
    assert_eq!(world.full(id).await, expected);
}

#[tokio::test]
async fn missing_rows_and_moved_revisions_are_told_apart() {
    let world = World::new().await;
    let id = world.create(json!({"password": "old"})).await;
    let update = |id, revision| {
        world
            .connectors
            .update(&world.actor, id, revision, json!({}))
    };
    assert!(matches!(
        update(Uuid::from_u128(1), 1).await,
        Err(ChangeError::Missing)
    ));
    assert!(matches!(update(id, 2).await, Err(ChangeError::Moved)));
    let deleted = world.connectors.delete(&world.actor, id, 2).await;
    assert!(matches!(deleted, Err(ChangeError::Moved)));
}

/// A page that rebinds its name to loopback would read every connector with its visitor's browser.
#[tokio::test]
async fn requests_for_other_hosts_and_of_other_pages_are_refused() {
    let world = World::new().await;
    let app = world.app();
    for (header, expected) in [
        (("host", "127.0.0.1:8080"), 200),
        (("host", "evil.example:8080"), 421),
        (("host", ""), 421),
        (("origin", "http://localhost:8080"), 200),
        (("origin", "http://evil.example:8080"), 403),
        (("origin", "null"), 403),
    ] {
        let (status, _, body) = send(&app, "GET", "/export", Some(header), json!({})).await;
        assert_eq!(status, expected, "{header:?}: {body}");
    }
}

/// Configurations hold no secrets, but hosts, user names and the names of secrets.
#[cfg(unix)]
#[tokio::test]
async fn the_database_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("connectors.db");
    let rows = Rows::open(&path).await.unwrap();
    assert!(rows.ids().await.unwrap().is_empty());
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(files.len() > 1, "SQLite has its log beside it");
    for file in files {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.path().display());
    }
    Rows::open(&path).await.unwrap();
}
