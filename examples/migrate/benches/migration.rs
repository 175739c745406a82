//! Secrets per second, peak memory and journal of a migration from a plain to an encrypted table, with the real binary:
//! `cargo bench -p migrate --features postgres` (`-- 10000 100000` chooses the numbers of secrets). Stores, configurations
//! and journal are in files of SQLite and, beside a server, in a database of Postgres.
//!
//! The floor is a loop over all names, which reads a batch of the source and writes it to another encrypted
//! store, in this process and without a journal. It runs before and after the commands, and counts as the mean.

// A measurement that cannot be taken ends.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use secret_persistence::database::{Config, Database, KeyRingFile, SETTINGS};
use secret_persistence_core::{
    Coordinate, ManagedCoordinate, Scope, SecretPersistence, SecretPersistenceExt, SecretValue,
    Write,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;
use url::Url;
use uuid::Uuid;

/// Secrets per configuration, which the corpus of public connectors has at most, rounded up.
const PER_CONFIGURATION: usize = 4;

/// Bytes of a value: a long password or a short token.
const VALUE: usize = 64;

/// The server of the tests, as a superuser.
const SERVER: &str = "TEST_POSTGRES_URL";

/// What rollback and retire wait, in all: three times `--lag` before they delete more than one secret, and once more at
/// the end. It does not depend on how much they delete.
const WAITED: Duration = Duration::from_secs(4);

/// How many processes share a journal in Postgres; in files there is one.
const PROCESSES: [usize; 2] = [2, 4];

#[tokio::main]
async fn main() {
    let mut sizes: Vec<usize> = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000];
    }
    let server: Option<Url> = std::env::var(SERVER).ok().map(|url| url.parse().unwrap());
    let mut journals = Vec::new();
    println!(
        "| secrets | in | command | seconds | secrets/s | times the floor | peak memory, MiB |\n|---|---|---|---|---|---|---|"
    );
    for secrets in sizes {
        let places = [Some(Place::files()), server.clone().map(Place::on)];
        for place in places.into_iter().flatten() {
            place.create().await;
            journals.push(measure(&place, secrets).await);
            place.remove().await;
        }
    }
    println!(
        "\n| secrets | in | rows of the journal per secret | its bytes per secret | transactions per 1,000 secrets |\n|---|---|---|---|---|"
    );
    for row in journals {
        println!("{row}");
    }
}

/// Prints the rows of one place. Returns that of its journal.
async fn measure(place: &Place, secrets: usize) -> String {
    let names = place.fill(secrets).await;
    let before = place.floor(&names).await;
    let transactions = place.transactions().await;
    let mut ran = vec![("copy".to_owned(), place.run("copy", 1))];
    let transactions = place.transactions().await - transactions;
    let (rows, bytes) = place.journal().await;
    ran.push(("verify".to_owned(), place.run("verify", 1)));
    ran.push(("rollback".to_owned(), place.run("rollback", 1)));
    if place.server.is_some() {
        for processes in PROCESSES {
            place.forget().await;
            for command in ["copy", "verify"] {
                let name = format!("{command}, {processes} processes");
                ran.push((name, place.run(command, processes)));
            }
            place.run("rollback", 1);
        }
    }
    // Before the source is empty.
    let floor = (before + place.floor(&names).await) / 2;
    place.run("copy", 1);
    ran.push(("retire".to_owned(), place.run("retire", 1)));
    let row = |what: &str, took: Duration, peak: &str| {
        let seconds = took.as_secs_f64();
        println!(
            "| {} | {} | {what} | {seconds:.2} | {} | {:.1} | {peak} |",
            grouped(secrets),
            place.engine(),
            grouped((secrets as f64 / seconds) as usize),
            seconds / floor.as_secs_f64(),
        );
    };
    row("floor", floor, "");
    for (command, (took, peak)) in ran {
        row(&command, took, &format!("{:.1}", peak as f64 / 1024.0));
    }
    let per_secret = |number: u64| number as f64 / secrets as f64;
    format!(
        "| {} | {} | {:.2} | {:.0} | {} |",
        grouped(secrets),
        place.engine(),
        per_secret(rows),
        per_secret(bytes),
        match place.server {
            Some(_) => format!("{:.1}", per_secret(transactions) * 1000.0),
            None => String::new(),
        },
    )
}

/// A number with commas.
fn grouped(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1_000), number % 1_000),
    }
}

/// Where stores, configurations and journal are: a folder of files, or a database of a server, and a folder for the
/// key ring.
struct Place {
    folder: TempDir,
    /// The URL of the database, as a superuser.
    server: Option<Url>,
    /// A database that is there already.
    other: Option<Url>,
}

impl Place {
    fn files() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            server: None,
            other: None,
        }
    }

    fn on(other: Url) -> Self {
        let mut own = other.clone();
        own.set_path(&format!("bench_{}", Uuid::new_v4().simple()));
        Self {
            folder: tempfile::tempdir().unwrap(),
            server: Some(own),
            other: Some(other),
        }
    }

    fn engine(&self) -> &'static str {
        match self.server {
            None => "SQLite",
            Some(_) => "Postgres",
        }
    }

    fn file(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// The URL of a table, without credentials.
    fn address(&self, table: &str, query: &str) -> String {
        match &self.server {
            None => format!("sqlite:{table}.db?{query}"),
            Some(url) => format!("{}?table={table}&{query}", without_credentials(url)),
        }
    }

    async fn create(&self) {
        KeyRingFile::create(self.file("ring"), "k1".parse().unwrap()).unwrap();
        if let (Some(own), Some(other)) = (&self.server, &self.other) {
            let name = own.path().trim_start_matches('/');
            statement(other, format!("CREATE DATABASE {name}"), None).await;
        }
    }

    async fn remove(&self) {
        if let (Some(own), Some(other)) = (&self.server, &self.other) {
            let name = own.path().trim_start_matches('/');
            statement(other, format!("DROP DATABASE {name} WITH (FORCE)"), None).await;
        }
    }

    /// A store in a table: plain, or encrypted.
    async fn open(&self, table: &str, mode: &str) -> Database {
        let text = |text: &str| text.to_owned();
        let mut settings = match &self.server {
            None => vec![("path", self.file(&format!("{table}.db")))],
            Some(url) => vec![
                ("host", text(url.host_str().unwrap())),
                ("port", url.port().unwrap_or(5432).to_string()),
                ("database", text(url.path().trim_start_matches('/'))),
                ("user", text(url.username())),
                ("password", text(url.password().unwrap_or_default())),
                ("table", text(table)),
            ],
        };
        settings.push(("mode", text(mode)));
        if mode == "encrypted" {
            settings.push(("keyring-file", self.file("ring")));
        }
        let settings = SETTINGS.from_pairs(settings).unwrap();
        let config = Config::from_settings(&settings).unwrap();
        Database::connect(config).await.unwrap()
    }

    /// A plain store as it would be found, and its configurations. Returns the names in their order.
    async fn fill(&self, secrets: usize) -> Vec<ManagedCoordinate> {
        let source = self.open("source", "plain").await;
        let kind = match self.server {
            None => "TEXT",
            Some(_) => "JSONB",
        };
        let create = format!("CREATE TABLE actor (id TEXT PRIMARY KEY, configuration {kind})");
        self.configurations(create, None).await;
        let scope = Scope::workspace(Uuid::new_v4());
        let (mut names, mut left) = (Vec::with_capacity(secrets), secrets / PER_CONFIGURATION);
        while left > 0 {
            let (mut rows, mut writes) = (Vec::new(), Vec::new());
            for row in 0..left.min(1_000) {
                let mut configuration = json!({ "host": format!("db{row}.example") });
                for field in 0..PER_CONFIGURATION {
                    let coordinate = ManagedCoordinate::new(&scope, Uuid::new_v4(), 1).unwrap();
                    configuration[format!("secret{field}")] =
                        json!({ "_secret": coordinate.as_str() });
                    let value = format!("{:x<VALUE$}", Uuid::new_v4());
                    names.push(coordinate.clone());
                    writes.push(Write::new(coordinate, SecretValue::new(value)));
                }
                rows.push(
                    json!({ "id": Uuid::new_v4().to_string(), "configuration": configuration }),
                );
            }
            left -= rows.len();
            for result in source.write_many(&writes).await {
                result.unwrap();
            }
            let insert = match self.server {
                None => {
                    "INSERT INTO actor SELECT value ->> 'id', value ->> 'configuration' FROM json_each($1)"
                }
                Some(_) => {
                    "INSERT INTO actor SELECT value ->> 'id', value -> 'configuration' \
                     FROM jsonb_array_elements(CAST($1 AS jsonb))"
                }
            };
            let rows = Value::Array(rows).to_string();
            self.configurations(insert.to_owned(), Some(rows)).await;
        }
        source.close().await;
        if let Some(url) = &self.server {
            statement(url, "ANALYZE".to_owned(), None).await;
        }
        names.sort_unstable();
        names
    }

    /// Runs a statement where the configurations are.
    async fn configurations(&self, sql: String, parameter: Option<String>) {
        match &self.server {
            None => in_file(&self.file("actor.db"), sql, parameter).await,
            Some(url) => statement(url, sql, parameter).await,
        };
    }

    /// How long it takes to read everything from the source and write it to an encrypted store.
    async fn floor(&self, names: &[ManagedCoordinate]) -> Duration {
        let source = self.open("source", "plain").await;
        let table = format!("floor_{}", Uuid::new_v4().simple());
        let target = self.open(&table, "encrypted").await;
        let started = Instant::now();
        for names in names.chunks(target.capabilities().write_batch) {
            let coordinates: Vec<Coordinate> =
                names.iter().cloned().map(Coordinate::from).collect();
            let reads = source.read_many(&coordinates).await;
            let writes: Vec<Write> = names
                .iter()
                .zip(reads)
                .map(|(name, read)| Write::new(name.clone(), read.unwrap().value))
                .collect();
            for result in target.write_many(&writes).await {
                result.unwrap();
            }
        }
        let took = started.elapsed();
        source.close().await;
        target.close().await;
        took
    }

    /// The transactions that the database has committed.
    async fn transactions(&self) -> u64 {
        let Some(url) = &self.server else { return 0 };
        let sql =
            "SELECT xact_commit::bigint FROM pg_stat_database WHERE datname = current_database()";
        statement(url, sql.to_owned(), None).await[0]
    }

    /// The rows and bytes of the journal.
    async fn journal(&self) -> (u64, u64) {
        let tables = ["migrate_secret", "migrate_configuration", "migrate_note"];
        let counts = tables.map(|table| format!("(SELECT COUNT(*) FROM {table})"));
        let rows = format!("SELECT {}", counts.join(" + "));
        match &self.server {
            None => {
                let file = self.file("journal.db");
                let bytes = std::fs::metadata(&file).unwrap().len();
                (in_file(&file, rows, None).await[0], bytes)
            }
            Some(url) => {
                let bytes = "SELECT SUM(pg_total_relation_size(oid))::bigint FROM pg_class \
                             WHERE relname LIKE 'migrate\\_%' AND relkind = 'r'";
                let bytes = statement(url, bytes.to_owned(), None).await[0];
                (statement(url, rows, None).await[0], bytes)
            }
        }
    }

    /// Removes the journal, so that the next copy has the same work as the first.
    async fn forget(&self) {
        let Some(url) = &self.server else { return };
        let tables = [
            "run",
            "secret",
            "configuration",
            "note",
            "pass",
            "page",
            "mark",
        ];
        let tables = tables.map(|table| format!("migrate_{table}"));
        let sql = format!("DROP TABLE {}", tables.join(", "));
        statement(url, sql, None).await;
    }

    /// How long a command takes, without what it waits for another reason than its work, and the most memory one of
    /// its processes ever had, in KiB.
    fn run(&self, command: &str, processes: usize) -> (Duration, u64) {
        let (more, waited): (&[&str], _) = match command {
            "rollback" => (&["--lag", "1s"], WAITED),
            "retire" => (&["--lag", "1s", "--all-references"], WAITED),
            _ => (&[], Duration::ZERO),
        };
        let mut tool = Command::new(env!("CARGO_BIN_EXE_secret-migrate"));
        tool.args([
            command,
            "--from",
            &self.address("source", "mode=plain"),
            "--to",
            &self.address("target", "mode=encrypted"),
            "--configs",
            &match self.server {
                None => "sqlite:actor.db?table=actor&id=id&configuration=configuration".to_owned(),
                Some(_) => self.address("actor", "id=id&configuration=configuration"),
            },
            "--journal",
            &match &self.server {
                None => "journal.db".to_owned(),
                Some(url) => without_credentials(url),
            },
        ])
        .args(more)
        .current_dir(self.folder.path())
        .env_clear()
        .env("SECRETS_OWNER", "bench")
        .env("TO_SECRETS_KEYRING_FILE", "ring")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
        if processes > 1 {
            tool.args(["--workers", &processes.to_string()]);
        }
        if let Some(url) = &self.server {
            tool.env("DATABASE_USER", url.username())
                .env("DATABASE_PASSWORD", url.password().unwrap_or_default());
        }
        let started = Instant::now();
        let mut child = tool.spawn().unwrap();
        let mut peak = 0;
        loop {
            peak = peak.max(high_water(child.id()));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{command} ended with {status}");
                return (started.elapsed() - waited, peak);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn without_credentials(url: &Url) -> String {
    let (host, port) = (url.host_str().unwrap(), url.port().unwrap_or(5432));
    format!("postgres://{host}:{port}{}", url.path())
}

/// Runs a statement in a file, and returns the numbers of its first column.
async fn in_file(file: &str, sql: String, parameter: Option<String>) -> Vec<u64> {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&options)
        .await
        .unwrap();
    let mut query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql));
    if let Some(parameter) = parameter {
        query = query.bind(parameter);
    }
    let numbers = query.fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    numbers.into_iter().map(i64::unsigned_abs).collect()
}

/// The same in a database of a server.
#[cfg(feature = "postgres")]
async fn statement(url: &Url, sql: String, parameter: Option<String>) -> Vec<u64> {
    let mut connection = sqlx::PgConnection::connect(url.as_str()).await.unwrap();
    let mut query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql));
    if let Some(parameter) = parameter {
        query = query.bind(parameter);
    }
    let numbers = query.fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    numbers.into_iter().map(i64::unsigned_abs).collect()
}

#[cfg(not(feature = "postgres"))]
async fn statement(_: &Url, _: String, _: Option<String>) -> Vec<u64> {
    panic!("build the bench with the feature `postgres`, or unset {SERVER}");
}

/// The high-water mark of the memory of a process or of one that it has started, as Linux tells it; it only grows, so the
/// last look counts.
fn high_water(process: u32) -> u64 {
    let of = |process: &str| -> Option<u64> {
        let status =
            std::fs::read_to_string(Path::new("/proc").join(process).join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    // Each thread has the processes that it started.
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let started: Vec<String> = threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .collect();
    let started = started.iter().flat_map(|text| text.split_whitespace());
    let processes = started.map(str::to_owned).chain([process.to_string()]);
    processes
        .filter_map(|process| of(&process))
        .max()
        .unwrap_or_default()
}
