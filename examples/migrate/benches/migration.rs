//! Secrets per second and peak memory of a migration from plain SQLite to encrypted SQLite and, beside a server, to
//! encrypted Postgres, with the real binary: `cargo bench -p migrate --features postgres` (`-- 10000 100000` chooses the
//! numbers of secrets).
//!
//! The floor is a loop over all names, which reads a batch of the source and writes it to another encrypted
//! store, in this process and without a journal. It runs before and after the commands, and counts as the mean.

// A measurement that cannot be taken ends.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use secret_persistence::database::{Config, Database, KeyRingFile, SETTINGS};
use secret_persistence_core::{
    Coordinate, ManagedCoordinate, Scope, SecretPersistence, SecretPersistenceExt, SecretValue,
    Write,
};
use serde_json::json;
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

fn main() {
    let mut sizes: Vec<usize> = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000];
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| secrets | to | command | seconds | secrets/s | times the floor | peak memory, MiB |\n|---|---|---|---|---|---|---|"
    )
    .unwrap();
    let targets = [Some(Target::Sqlite), Target::on_the_server()];
    for secrets in sizes {
        for target in targets.iter().flatten() {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let names = runtime.block_on(fill(folder, secrets));
            let floor = || runtime.block_on(floor(folder, target, &names));
            let before = floor();
            let mut ran = ["copy", "verify", "rollback"]
                .map(|command| (command, run(folder, target, command)))
                .to_vec();
            let floor = (before + floor()) / 2;
            run(folder, target, "copy");
            ran.push(("retire", run(folder, target, "retire")));
            let mut row = |what: &str, took: Duration, peak: &str| {
                let seconds = took.as_secs_f64();
                writeln!(
                    out,
                    "| {} | {} | {what} | {seconds:.2} | {} | {:.1} | {peak} |",
                    grouped(secrets),
                    target.engine(),
                    grouped((secrets as f64 / seconds) as usize),
                    seconds / floor.as_secs_f64(),
                )
                .unwrap();
            };
            row("floor", floor, "");
            for (command, (took, peak)) in ran {
                row(command, took, &format!("{:.1}", peak as f64 / 1024.0));
            }
        }
    }
}

/// Where secrets go: an encrypted table.
enum Target {
    Sqlite,
    /// Tables in the database of this URL.
    Postgres(Url),
}

impl Target {
    fn on_the_server() -> Option<Self> {
        let url = std::env::var(SERVER).ok()?;
        Some(Self::Postgres(url.parse().unwrap()))
    }

    fn engine(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "Postgres",
        }
    }

    /// What `--to` takes.
    fn address(&self, folder: &Path) -> String {
        match self {
            Self::Sqlite => "sqlite:target.db?mode=encrypted".to_owned(),
            Self::Postgres(url) => {
                let (host, port) = (url.host_str().unwrap(), url.port().unwrap_or(5432));
                let (path, table) = (url.path(), table(folder, "target"));
                format!("postgres://{host}:{port}{path}?table={table}&mode=encrypted")
            }
        }
    }

    fn credentials(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Sqlite => Vec::new(),
            Self::Postgres(url) => vec![
                ("TO_DATABASE_USER", url.username()),
                ("TO_DATABASE_PASSWORD", url.password().unwrap_or_default()),
            ],
        }
    }

    /// An empty store for the floor.
    async fn open(&self, folder: &Path) -> Database {
        let ring = folder.join("ring");
        match self {
            Self::Sqlite => {
                open(
                    &folder.join(format!("floor-{}.db", Uuid::new_v4())),
                    Some(&ring),
                )
                .await
            }
            Self::Postgres(url) => {
                let name = table(folder, &Uuid::new_v4().simple().to_string());
                let text = |text: &str| text.to_owned();
                let port = url.port().unwrap_or(5432).to_string();
                opened(vec![
                    ("host", text(url.host_str().unwrap())),
                    ("port", port),
                    ("database", text(url.path().trim_start_matches('/'))),
                    ("user", text(url.username())),
                    ("password", text(url.password().unwrap_or_default())),
                    ("table", name),
                    ("keyring-file", text(ring.to_str().unwrap())),
                ])
                .await
            }
        }
    }
}

/// A table of this run.
fn table(folder: &Path, name: &str) -> String {
    let run = folder.file_name().unwrap().to_str().unwrap().to_lowercase();
    format!("bench{}_{name}", run.replace('.', "_"))
}

/// A number with commas.
fn grouped(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1_000), number % 1_000),
    }
}

/// How long it takes to read everything from the source and write it to an encrypted store.
async fn floor(folder: &Path, target: &Target, names: &[ManagedCoordinate]) -> Duration {
    let source = open(&folder.join("source.db"), None).await;
    let target = target.open(folder).await;
    let started = Instant::now();
    for names in names.chunks(target.capabilities().write_batch) {
        let coordinates: Vec<Coordinate> = names.iter().cloned().map(Coordinate::from).collect();
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

/// A store in a file: encrypted if there is a key ring, and plain otherwise.
async fn open(path: &Path, ring: Option<&Path>) -> Database {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let mut settings = vec![("path", text(path))];
    match ring {
        None => settings.push(("mode", "plain".to_owned())),
        Some(ring) => settings.push(("keyring-file", text(ring))),
    }
    opened(settings).await
}

async fn opened(settings: Vec<(&str, String)>) -> Database {
    let settings = SETTINGS.from_pairs(settings).unwrap();
    let config = Config::from_settings(&settings).unwrap();
    Database::connect(config).await.unwrap()
}

/// A plain store as it would be found, its configurations, and a key ring. Returns the names in their order.
async fn fill(folder: &Path, secrets: usize) -> Vec<ManagedCoordinate> {
    KeyRingFile::create(folder.join("ring"), "k1".parse().unwrap()).unwrap();
    let source = open(&folder.join("source.db"), None).await;
    let table = sqlx::SqlitePool::connect_with(
        sqlx::sqlite::SqliteConnectOptions::new()
            .filename(folder.join("configurations.db"))
            .create_if_missing(true),
    )
    .await
    .unwrap();
    sqlx::query("CREATE TABLE actor (id TEXT PRIMARY KEY, configuration TEXT)")
        .execute(&table)
        .await
        .unwrap();
    let scope = Scope::workspace(Uuid::new_v4());
    let mut transaction = table.begin().await.unwrap();
    let (mut names, mut writes) = (Vec::with_capacity(secrets), Vec::new());
    for row in 0..secrets / PER_CONFIGURATION {
        let mut configuration = json!({ "host": format!("db{row}.example") });
        for field in 0..PER_CONFIGURATION {
            let coordinate = ManagedCoordinate::new(&scope, Uuid::new_v4(), 1).unwrap();
            configuration[format!("secret{field}")] = json!({ "_secret": coordinate.as_str() });
            let value = format!("{:x<VALUE$}", Uuid::new_v4());
            names.push(coordinate.clone());
            writes.push(Write::new(coordinate, SecretValue::new(value)));
        }
        sqlx::query("INSERT INTO actor VALUES ($1, $2)")
            .bind(Uuid::new_v4().to_string())
            .bind(configuration.to_string())
            .execute(&mut *transaction)
            .await
            .unwrap();
        if writes.len() >= 4000 {
            written(&source, &mut writes).await;
        }
    }
    written(&source, &mut writes).await;
    transaction.commit().await.unwrap();
    table.close().await;
    source.close().await;
    names.sort_unstable();
    names
}

async fn written(source: &Database, writes: &mut Vec<Write>) {
    for result in source.write_many(writes).await {
        result.unwrap();
    }
    writes.clear();
}

/// How long a command takes, without what it waits for another reason than its work, and the most memory it ever
/// had, in KiB.
fn run(folder: &Path, target: &Target, command: &str) -> (Duration, u64) {
    let (more, waited): (&[&str], _) = match command {
        "rollback" => (&["--lag", "1s"], WAITED),
        "retire" => (&["--lag", "1s", "--all-references"], WAITED),
        _ => (&[], Duration::ZERO),
    };
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_secret-migrate"))
        .args([
            command,
            "--from",
            "sqlite:source.db?mode=plain",
            "--to",
            &target.address(folder),
            "--configs",
            "sqlite:configurations.db?table=actor&id=id&configuration=configuration",
        ])
        .args(more)
        .current_dir(folder)
        .env_clear()
        .envs(target.credentials())
        .env("SECRETS_OWNER", "bench")
        .env("TO_SECRETS_KEYRING_FILE", "ring")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0;
    loop {
        peak = peak.max(high_water(&child).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{command} ended with {status}");
            return (started.elapsed() - waited, peak);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The high-water mark of a process's memory as Linux tells it; it only grows, so the last look counts.
fn high_water(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
