//! A gateway in a folder of its own, and somebody to call it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use secret_gateway::{
    Authenticator, Collecting, Configurations, Digests, Gateway, Grant, Parts, Role, SqliteOutbox,
    StoragesFile, Texts, TokenFile, router, start,
};
use secret_persistence::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Environment, Error, ErrorKind,
    Identity, LastReads, ListOptions, ManagedCoordinate, Memory, Operation, Owner, Page, Read,
    ReadHistory, Result, SecretPersistence, SecretValue, Stores, Write, Written,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

/// A gateway over a store, with a token for everything.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) gateway: Gateway,
    pub(crate) store: Arc<Faulty>,
    pub(crate) router: Router,
    tokens: TokenFile,
    all: SecretValue,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.body
    }

    #[track_caller]
    pub(crate) fn expect_kind(self, status: u16, kind: &str) -> Value {
        assert_eq!(
            (self.status.as_u16(), self.body["kind"].as_str()),
            (status, Some(kind)),
            "{}",
            self.text
        );
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        self.body
    }
}

pub(crate) fn texts(folder: &Path, settings: &[(&str, &str)]) -> Texts {
    let mut texts = Texts::new();
    for (name, value) in settings {
        texts.set(name, *value).unwrap();
    }
    texts
        .set("data-folder", folder.display().to_string())
        .unwrap();
    texts
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::over(Arc::default(), tempfile::tempdir().unwrap(), settings).await
    }

    pub(crate) async fn over(
        store: Arc<Faulty>,
        folder: tempfile::TempDir,
        settings: &[(&str, &str)],
    ) -> Self {
        Self::of(store, folder, settings, |stores| stores).await
    }

    /// A gateway that knows who read which secret.
    pub(crate) async fn knowing(history: Arc<dyn ReadHistory>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::made(Arc::default(), folder, &[], |stores| stores, Some(history)).await
    }

    /// A gateway whose default store is among others.
    pub(crate) async fn of(
        store: Arc<Faulty>,
        folder: tempfile::TempDir,
        settings: &[(&str, &str)],
        among: impl FnOnce(Stores) -> Stores,
    ) -> Self {
        Self::made(store, folder, settings, among, None).await
    }

    async fn made(
        store: Arc<Faulty>,
        folder: tempfile::TempDir,
        settings: &[(&str, &str)],
        among: impl FnOnce(Stores) -> Stores,
        history: Option<Arc<dyn ReadHistory>>,
    ) -> Self {
        let settings = texts(folder.path(), settings).parse().unwrap();
        let nothing = Environment::empty();
        let configurations = settings
            .configurations_file
            .as_ref()
            .map(|path| Configurations::open(path, &nothing).unwrap());
        let storages = settings.storages_file.as_ref();
        let storages = storages.map(|path| Arc::new(StoragesFile::open(path).unwrap()) as _);
        let collecting = Collecting::new(owner(), &settings.collect_journal, &nothing);
        let outbox = SqliteOutbox::open(&folder.path().join("outbox.db"))
            .await
            .unwrap();
        let tokens = TokenFile::new(folder.path().join("tokens.json"));
        let name = format!("everything-{}", Uuid::new_v4());
        let all = tokens.create(&Grant::new(name, Role::ALL)).unwrap();
        let gateway = Gateway::new(Parts {
            settings,
            stores: among(Stores::new(store.clone() as _)),
            storages,
            mirrored: false,
            migration: None,
            configurations,
            history,
            collecting: Some(collecting),
            authenticator: Authenticator::new(
                TokenFile::new(folder.path().join("tokens.json")),
                None,
            ),
            outbox: Arc::new(outbox),
            digests: Digests::open(&folder.path().join("gateway.key")).unwrap(),
            metrics: None,
        });
        Self {
            router: router(gateway.clone()),
            folder,
            gateway,
            store,
            tokens,
            all,
        }
    }

    /// What a first start makes: an encrypted file, and a token of each role.
    pub(crate) async fn started(folder: &Path) -> secret_gateway::Started {
        let settings = texts(folder, &[]).parse().unwrap();
        start(settings, &Environment::empty(), None).await.unwrap()
    }

    pub(crate) fn token(&self, grant: Grant) -> SecretValue {
        self.tokens.create(&grant).unwrap()
    }

    pub(crate) fn revoke(&self, name: &str) {
        self.tokens.revoke(name).unwrap();
    }

    /// Calls with a token that may do everything.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_as(Some(&self.all), method, path, body).await
    }

    pub(crate) async fn call_as(
        &self,
        token: Option<&SecretValue>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let headers: Vec<(&str, &str)> = token
            .map(|token| ("x-vault-token", token.expose()))
            .into_iter()
            .collect();
        self.send(method, path, &headers, body.map(|body| body.to_string()))
            .await
    }

    pub(crate) async fn call_with(
        &self,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let mut all = vec![("x-vault-token", self.all.expose())];
        all.extend_from_slice(headers);
        self.send(method, path, &all, body.map(|body| body.to_string()))
            .await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        ask(&self.router, method, path, headers, body).await
    }
}

/// A ledger that has one answer.
pub(crate) struct Known(pub(crate) Result<LastReads>);

#[async_trait]
impl ReadHistory for Known {
    async fn last_reads(&self, _: &BTreeSet<Coordinate>) -> Result<LastReads> {
        self.0.clone()
    }
}

/// Asks a service.
pub(crate) async fn ask(
    router: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<String>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:8220");
    }
    if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(body.map_or_else(Body::empty, Body::from))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    Answer::of(response).await
}

/// The installation.
pub(crate) fn owner() -> Owner {
    Owner::parse("prod").unwrap()
}

/// A file with the address of a file with these configurations, each with its id.
pub(crate) fn configurations(folder: &Path, rows: &[(&str, Value)]) -> String {
    let lines = folder.join("configurations.jsonl");
    let texts = rows.iter().map(|(id, configuration)| {
        json!({"id": id, "baseId": Uuid::from_u128(1), "configuration": configuration}).to_string()
    });
    std::fs::write(&lines, texts.collect::<Vec<_>>().join("\n")).unwrap();
    let file = folder.join("configurations.json");
    std::fs::write(&file, json!({"sources": [lines]}).to_string()).unwrap();
    file.display().to_string()
}

/// A name of a workspace.
pub(crate) fn name(workspace: u128, secret: u128) -> String {
    format!(
        "airbyte_workspace_{}_secret_{}_v1",
        Uuid::from_u128(workspace),
        Uuid::from_u128(secret)
    )
}

/// The path of such a name in Vault's API.
pub(crate) fn kv_path(workspace: u128, secret: u128) -> String {
    format!("/v1/secret/data/{}", name(workspace, secret))
}

/// The body that writes a value there.
pub(crate) fn written(value: &str) -> Option<Value> {
    Some(json!({"data": {"value": value}}))
}

/// A specification with a host and a password.
pub(crate) fn specification() -> Value {
    json!({
        "type": "object",
        "properties": {
            "host": {"type": "string"},
            "password": {"type": "string", "airbyte_secret": true},
        },
    })
}

pub(crate) fn workspace(id: u128) -> Value {
    json!({"workspace": Uuid::from_u128(id).to_string()})
}

/// A store in memory whose next calls can be made to fail.
#[derive(Debug, Default)]
pub(crate) struct Faulty {
    pub(crate) inner: Memory,
    failing: std::sync::Mutex<Vec<(Operation, ErrorKind)>>,
    pub(crate) reads: AtomicUsize,
    hangs: AtomicBool,
    panics: AtomicBool,
    lists_slowly: AtomicBool,
    /// How many seconds older everything is than it was written.
    age: AtomicU64,
}

impl Faulty {
    /// A store whose secrets are this installation's.
    pub(crate) fn owned() -> Arc<Self> {
        Arc::new(Self {
            inner: Memory::new().with_owner(owner()),
            ..Self::default()
        })
    }

    /// Lets everything be so much older.
    pub(crate) fn age(&self, age: Duration) {
        self.age.fetch_add(age.as_secs(), Ordering::SeqCst);
    }

    /// Lets listings wait until the store is mended.
    pub(crate) fn list_slowly(&self) {
        self.lists_slowly.store(true, Ordering::SeqCst);
    }

    /// Lets an operation fail from now on.
    pub(crate) fn fail(&self, operation: Operation, kind: ErrorKind) {
        let mut failing = self.failing.lock().unwrap();
        failing.retain(|(theirs, _)| *theirs != operation);
        failing.push((operation, kind));
    }

    /// Lets everything succeed again.
    pub(crate) fn mend(&self) {
        self.failing.lock().unwrap().clear();
        self.hangs.store(false, Ordering::SeqCst);
        self.lists_slowly.store(false, Ordering::SeqCst);
        self.panics.store(false, Ordering::SeqCst);
    }

    /// Lets writes panic.
    pub(crate) fn panic(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    /// Lets writes take place and not be answered until the store is mended.
    pub(crate) fn hang(&self) {
        self.hangs.store(true, Ordering::SeqCst);
    }

    fn failure(&self, operation: Operation) -> Option<Error> {
        let failing = self.failing.lock().unwrap();
        failing
            .iter()
            .find(|(theirs, _)| *theirs == operation)
            .map(|(operation, kind)| {
                Error::new(*kind, "told to fail")
                    .with_operation(*operation)
                    .with_store("faulty")
            })
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl SecretPersistence for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        match self.failure(Operation::Read) {
            Some(error) => coordinates.iter().map(|_| Err(error.clone())).collect(),
            None => self.inner.read_batch(coordinates).await,
        }
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        assert!(!self.panics.load(Ordering::SeqCst), "told to panic");
        match self.failure(Operation::Write) {
            Some(error) => writes
                .iter()
                .map(|write| Err(error.clone().with_coordinate(write.coordinate.as_str())))
                .collect(),
            None => {
                let written = self.inner.write_batch(writes).await;
                while self.hangs.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                written
            }
        }
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        match self.failure(Operation::Delete) {
            Some(error) => vec![Err(error); coordinates.len()],
            None => self.inner.delete_batch(coordinates, options).await,
        }
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.inner.restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        while self.lists_slowly.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(error) = self.failure(Operation::List) {
            return Err(error);
        }
        let mut page = self.inner.list_page(options, after).await?;
        let age = Duration::from_secs(self.age.load(Ordering::SeqCst));
        for entry in &mut page.entries {
            entry.created = entry.created.map(|created| created.saturating_sub(age));
        }
        Ok(page)
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        match self.failure(Operation::Describe) {
            Some(error) => Err(error),
            None => self.inner.describe(coordinate).await,
        }
    }

    async fn identity(&self) -> Result<Identity> {
        match self.failure(Operation::Identity) {
            Some(error) => Err(error),
            None => self.inner.identity().await,
        }
    }
}
