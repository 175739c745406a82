//! A small installation in a temporary folder, and the real binary to work on it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use secret_persistence::database::{Config, Database, KeyRingFile, SETTINGS};
use secret_persistence_core::{
    Coordinate, ListOptions, ManagedCoordinate, Scope, SecretPersistence, SecretPersistenceExt,
    SecretValue, Write,
};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use uuid::Uuid;

/// A plain store with secrets, a configuration database that points at them, an encrypted store to be.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    /// The secrets in the source.
    pub(crate) secrets: BTreeMap<ManagedCoordinate, String>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Ends the test unless the run ended like this.
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(
            self.status, status,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Ends the test unless standard error has this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text) || self.stdout.contains(text),
            "no `{text}` in\nstdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Ends the test if either has this.
    #[track_caller]
    pub(crate) fn never_says(self, text: &str) -> Self {
        assert!(
            !self.stderr.contains(text) && !self.stdout.contains(text),
            "`{text}` in\nstdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// The one object of `--json`.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {}\n{}", self.stdout, self.stderr))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Lab {
    /// Nothing but a folder and a key ring.
    pub(crate) fn empty() -> Self {
        let folder = folder();
        KeyRingFile::create(folder.path().join("ring"), "k1".parse().unwrap()).unwrap();
        Self {
            folder,
            secrets: BTreeMap::new(),
        }
    }

    /// Configurations of so many secrets each, all in the source.
    pub(crate) async fn with(configurations: usize, secrets: usize) -> Self {
        Self::with_values(configurations, secrets, |index| {
            format!("value-{index}-ü\n{index}")
        })
        .await
    }

    /// The same, with values of the caller's choice.
    pub(crate) async fn with_values(
        configurations: usize,
        secrets: usize,
        value: impl Fn(usize) -> String,
    ) -> Self {
        let mut lab = Self::empty();
        let scope = Scope::workspace(Uuid::from_u128(7));
        let source = lab.source().await;
        let table = lab.configurations().await;
        let mut writes = Vec::new();
        let mut transaction = table.begin().await.unwrap();
        for row in 0..configurations {
            let mut configuration = json!({ "host": format!("db{row}.example") });
            for field in 0..secrets {
                let index = row * secrets + field;
                let id = Uuid::from_u128(u128::MAX / 3 + index as u128);
                let coordinate = ManagedCoordinate::new(&scope, id, 1).unwrap();
                configuration[format!("secret{field}")] = json!({ "_secret": coordinate.as_str() });
                let value = value(index);
                writes.push(Write::new(
                    coordinate.clone(),
                    SecretValue::new(value.clone()),
                ));
                lab.secrets.insert(coordinate, value);
            }
            sqlx::query("INSERT INTO actor (id, workspace_id, configuration) VALUES ($1, $2, $3)")
                .bind(format!("connector-{row:06}"))
                .bind(scope.base_id().to_string())
                .bind(configuration.to_string())
                .execute(&mut *transaction)
                .await
                .unwrap();
        }
        transaction.commit().await.unwrap();
        table.close().await;
        for result in source.write_many(&writes).await {
            result.unwrap();
        }
        source.close().await;
        lab
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.file(name), text).unwrap();
        self.file(name)
    }

    /// The plain store.
    pub(crate) async fn source(&self) -> Database {
        let path = self.file("source.db");
        let settings = SETTINGS.from_pairs([("path", path.to_str().unwrap()), ("mode", "plain")]);
        let config = Config::from_settings(&settings.unwrap()).unwrap();
        Database::connect(config).await.unwrap()
    }

    /// The encrypted store.
    pub(crate) async fn target(&self) -> Database {
        let (path, ring) = (self.file("target.db"), self.file("ring"));
        let settings = SETTINGS.from_pairs([
            ("path", path.to_str().unwrap()),
            ("keyring-file", ring.to_str().unwrap()),
        ]);
        let config = Config::from_settings(&settings.unwrap()).unwrap();
        Database::connect(config).await.unwrap()
    }

    /// The table of configurations.
    pub(crate) async fn configurations(&self) -> SqlitePool {
        let options = SqliteConnectOptions::new()
            .filename(self.file("configurations.db"))
            .create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS actor (id TEXT PRIMARY KEY, workspace_id TEXT, specification TEXT, configuration TEXT)",
        )
        .execute(&pool)
        .await
        .unwrap();
        pool
    }

    /// Runs SQL on the table of configurations.
    pub(crate) async fn sql(&self, sql: &str) {
        let pool = self.configurations().await;
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&pool)
            .await
            .unwrap();
        pool.close().await;
    }

    /// `--configs` for the table.
    pub(crate) fn table(&self) -> String {
        "sqlite:configurations.db?table=actor&id=id&configuration=configuration&base_id=workspace_id&specification=specification".into()
    }

    /// The binary, in the folder, with an environment of our own and nothing of the machine's.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secret-migrate"));
        command
            .args(arguments)
            .current_dir(self.folder())
            .env_clear()
            .env("SECRETS_OWNER", "lab")
            .env("TO_SECRETS_KEYRING_FILE", "ring")
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// The arguments of a command between the two stores.
    pub(crate) fn between<'a>(&self, command: &'a str, more: &[&'a str]) -> Vec<String> {
        let mut arguments = vec![
            command.to_owned(),
            "--from".into(),
            "sqlite:source.db".into(),
            "--to".into(),
            "sqlite:target.db?mode=encrypted".into(),
            "--journal".into(),
            "journal.db".into(),
            "--lag".into(),
            "1s".into(),
        ];
        if !more.contains(&"--configs") {
            arguments.extend(["--configs".into(), self.table()]);
        }
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        arguments
    }

    /// Runs a command between the two stores.
    pub(crate) fn moves(&self, command: &str, more: &[&str]) -> Ran {
        self.run(&self.between(command, more))
    }

    /// Ends the test unless the target contains every secret once and equal, and nothing else.
    pub(crate) async fn expect_moved(&self) {
        let target = self.target().await;
        expect_exactly(&target, &self.secrets).await;
        target.close().await;
    }

    /// Ends the test unless the source contains every secret, and nothing else.
    pub(crate) async fn expect_source_whole(&self) {
        let source = self.source().await;
        expect_exactly(&source, &self.secrets).await;
        source.close().await;
    }
}

/// A temporary folder, in memory where there is such a place: every change is synced, thousands of
/// times, and what is tested is the end of a process, not that of the machine.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Ends the test unless a store contains these secrets once and equal, and nothing else.
pub(crate) async fn expect_exactly(
    store: &dyn SecretPersistence,
    expected: &BTreeMap<ManagedCoordinate, String>,
) {
    let mut listed = names(store).await;
    listed.sort();
    let names: Vec<ManagedCoordinate> = expected.keys().cloned().collect();
    assert_eq!(listed.len(), names.len(), "so many secrets in {store}");
    assert_eq!(listed, names);
    let coordinates: Vec<Coordinate> = names.into_iter().map(Coordinate::from).collect();
    for (read, (name, value)) in store
        .read_many(&coordinates)
        .await
        .into_iter()
        .zip(expected)
    {
        assert!(read.unwrap().value.expose() == value, "{name} differs");
    }
}

/// Every name in a store.
pub(crate) async fn names(store: &dyn SecretPersistence) -> Vec<ManagedCoordinate> {
    let options = ListOptions::default();
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = store.list_page(&options, after.as_ref()).await.unwrap();
        names.extend(page.entries.into_iter().map(|entry| entry.coordinate));
        after = page.next;
        if after.is_none() {
            return names;
        }
    }
}
