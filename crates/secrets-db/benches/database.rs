//! The overhead of the store over bare sqlx for the same 1,000 rows, read and written, and that of encryption.
//!
//! `cargo bench -p secret-persistence-db` measures SQLite; with `--features postgres` and `TEST_POSTGRES_URL`
//! Postgres too. Each figure is the median of interleaved repetitions in milliseconds, beside its ratio to the bare one's.
//! The bare pool does not ping a connection before it uses it, which is sqlx's default and would flatter us, and has the
//! options of ours. The bare write is what one writes by hand: a prepared statement for each row, in one transaction with
//! the same durability.
//!
//! With `count WHAT TIMES` after `--` it makes so many calls over SQLite and nothing else: `scripts/instructions` counts
//! what two such runs differ by.

// A bench prints, and may panic on any failure.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use secret_persistence_core::layer::{Layers, RetryOptions, Stack};
use secret_persistence_core::settings::SettingMap;
use secret_persistence_core::{
    Coordinate, ManagedCoordinate, SecretPersistence, SecretPersistenceExt as _, SecretValue, Write,
};
use secret_persistence_db::{Config, Database, KeyRing, SETTINGS};
use sqlx::Row as _;

const ROWS: usize = 1_000;
const REPETITIONS: usize = 200;
const WRITE_REPETITIONS: usize = 20;

/// What is read.
const READS: [&str; 5] = [
    "bare",
    "plain",
    "plain, with layers",
    "encrypted",
    "encrypted, with layers",
];

/// What one engine took.
struct Times {
    engine: &'static str,
    reads: [Duration; READS.len()],
    /// Bare, plain and encrypted.
    writes: [Duration; 3],
    /// The same beside a bare statement for all rows, where one writes that.
    in_one: Option<[Duration; 3]>,
}

fn main() {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let Some(sqlite) = sqlite().await else { return };
            #[cfg(feature = "postgres")]
            let postgres = postgres().await;
            #[cfg(not(feature = "postgres"))]
            let postgres = None;
            table(
                &[Some(sqlite), postgres]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>(),
            );
        });
}

fn table(engines: &[Times]) {
    let head: String = engines
        .iter()
        .map(|times| format!(" {} | |", times.engine))
        .collect();
    println!("| |{head}\n|---|{}", "---|---|".repeat(engines.len()));
    let row = |what: &str, times: &dyn Fn(&Times) -> Option<(Duration, Duration)>| {
        let cells = engines.iter().map(times).map(|cell| match cell {
            None => " | |".to_owned(),
            Some((time, bare)) if time == bare => format!(" {:.1} | 1 |", milliseconds(time)),
            Some((time, bare)) => {
                format!(" {:.1} | {:.2} |", milliseconds(time), ratio(time, bare))
            }
        });
        println!("| {what} |{}", cells.collect::<String>());
    };
    for (at, what) in READS.iter().enumerate() {
        row(&format!("read, {what}"), &|times| {
            Some((times.reads[at], times.reads[0]))
        });
    }
    let writes = ["bare, a statement for each row", "plain", "encrypted"];
    for (at, what) in writes.iter().enumerate() {
        row(&format!("write, {what}"), &|times| {
            Some((times.writes[at], times.writes[0]))
        });
    }
    let writes = ["bare, one statement for all rows", "plain", "encrypted"];
    for (at, what) in writes.iter().enumerate() {
        row(&format!("write, {what}"), &|times| {
            times.in_one.map(|times| (times[at], times[0]))
        });
    }
}

/// What SQLite took, unless only calls are counted.
async fn sqlite() -> Option<Times> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets.db");
    let config = || {
        SETTINGS
            .from_pairs([("path", file.to_str().unwrap())])
            .unwrap()
    };
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&file)
        .pragma("secure_delete", "ON")
        .pragma("temp_store", "MEMORY")
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full);
    let names = serde_json::to_string(
        &coordinates()
            .iter()
            .map(Coordinate::as_str)
            .collect::<Vec<_>>(),
    )
    .unwrap();
    let stores = stores(config).await;
    let pool = sqlx::sqlite::SqlitePoolOptions::new()
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .unwrap();
    let bare = async || {
        let rows = sqlx::query(
            "SELECT coordinate, payload FROM plain WHERE coordinate IN (SELECT value FROM json_each($1))",
        )
        .bind(names.as_str())
        .fetch_all(&pool)
        .await
        .unwrap();
        let rows: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(rows.len(), ROWS);
        black_box(rows);
    };
    // What ours asks, which is not what one writes by hand.
    let bare_joined = async || {
        let rows = sqlx::query(
            "SELECT wanted.key, payload FROM json_each($1) AS wanted CROSS JOIN plain ON coordinate = wanted.value",
        )
        .bind(names.as_str())
        .fetch_all(&pool)
        .await
        .unwrap();
        let rows: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(rows.len(), ROWS);
        black_box(rows);
    };
    let bare_write = async |writes: &[Write]| {
        let mut transaction = pool.begin().await.unwrap();
        for write in writes {
            sqlx::query("INSERT INTO plain (coordinate, payload) VALUES ($1, $2)")
                .bind(write.coordinate.as_str())
                .bind(write.value.expose())
                .execute(&mut *transaction)
                .await
                .unwrap();
        }
        transaction.commit().await.unwrap();
    };
    if let Some((what, times)) = counted() {
        let coordinates = coordinates();
        for _ in 0..times {
            match what.as_str() {
                "read, bare" => bare().await,
                "read, bare with a join" => bare_joined().await,
                "read, plain" => read_all(&stores[0], &coordinates).await,
                "read, encrypted" => read_all(&stores[1], &coordinates).await,
                // The rows are made in each of them.
                "rows" => drop(black_box(new_writes())),
                "write, bare" => bare_write(&new_writes()).await,
                "write, plain" => write_all(&stores[0], &new_writes()).await,
                "write, encrypted" => write_all(&stores[1], &new_writes()).await,
                other => panic!("nothing is called {other}"),
            }
        }
        return None;
    }
    Some(Times {
        engine: "SQLite",
        reads: compare(bare, &stores).await,
        writes: compare_writes(bare_write, &stores).await,
        in_one: None,
    })
}

#[cfg(feature = "postgres")]
async fn postgres() -> Option<Times> {
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        println!("SKIPPED Postgres: TEST_POSTGRES_URL is not set\n");
        return None;
    };
    // Ours has no TLS on loopback; sqlx would have it here.
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    let options = options.ssl_mode(sqlx::postgres::PgSslMode::Disable);
    let pool = sqlx::postgres::PgPoolOptions::new()
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .unwrap();
    for table in ["plain", "plain_meta", "encrypted", "encrypted_meta"] {
        let sql = format!("DROP TABLE IF EXISTS {table}");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&pool)
            .await
            .unwrap();
    }
    let stores = stores(|| SETTINGS.from_pairs([("url", url.as_str())]).unwrap()).await;
    let coordinates = coordinates();
    let names: Vec<&str> = coordinates.iter().map(Coordinate::as_str).collect();
    let bare = async || {
        let rows = sqlx::query("SELECT coordinate, payload FROM plain WHERE coordinate = ANY($1)")
            .bind(names.as_slice())
            .fetch_all(&pool)
            .await
            .unwrap();
        let rows: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(rows.len(), ROWS);
        black_box(rows);
    };
    let bare_write = async |writes: &[Write]| {
        let mut transaction = pool.begin().await.unwrap();
        for write in writes {
            sqlx::query("INSERT INTO plain (coordinate, payload) VALUES ($1, $2)")
                .bind(write.coordinate.as_str())
                .bind(write.value.expose())
                .execute(&mut *transaction)
                .await
                .unwrap();
        }
        transaction.commit().await.unwrap();
    };
    // One statement for all rows: fewer round trips than anybody writes by hand without a reason.
    let bare_statement = async |writes: &[Write]| {
        let names: Vec<&str> = writes
            .iter()
            .map(|write| write.coordinate.as_str())
            .collect();
        let values: Vec<&str> = writes.iter().map(|write| write.value.expose()).collect();
        sqlx::query(
            "INSERT INTO plain (coordinate, payload) SELECT * FROM unnest($1::text[], $2::text[])",
        )
        .bind(names)
        .bind(values)
        .execute(&pool)
        .await
        .unwrap();
    };
    Some(Times {
        engine: "Postgres",
        reads: compare(bare, &stores).await,
        writes: compare_writes(bare_write, &stores).await,
        in_one: Some(compare_writes(bare_statement, &stores).await),
    })
}

/// A plain and an encrypted table with the same rows.
async fn stores(config: impl Fn() -> SettingMap) -> [Database; 2] {
    let ring = KeyRing::generate("k1".parse().unwrap()).unwrap();
    let mut plain = config();
    plain.set("table", "plain").unwrap();
    let mut encrypted = config();
    encrypted.set("table", "encrypted").unwrap();
    encrypted
        .set_by_operator("keyring", ring.to_text())
        .unwrap();
    let open = async |settings| {
        let config = Config::from_settings(&settings).unwrap();
        Database::connect(config).await.unwrap()
    };
    let stores = [open(plain).await, open(encrypted).await];
    let writes: Vec<Write> = (0..ROWS).map(|number| write(number, 32)).collect();
    for store in &stores {
        write_all(store, &writes).await;
    }
    stores
}

fn write(number: usize, size: usize) -> Write {
    let name =
        format!("airbyte_workspace_00000000-0000-0000-0000-000000000001_secret_{number:036}_v1");
    let mut value = number.to_string();
    value.extend(std::iter::repeat_n('x', size.saturating_sub(value.len())));
    Write::new(
        ManagedCoordinate::parse(&name).unwrap(),
        SecretValue::new(value),
    )
}

fn coordinates() -> Vec<Coordinate> {
    (0..ROWS)
        .map(|number| write(number, 1).coordinate.into())
        .collect()
}

async fn compare(bare: impl AsyncFn(), stores: &[Database; 2]) -> [Duration; READS.len()] {
    let coordinates = coordinates();
    let read = async |store: &dyn SecretPersistence| read_all(store, &coordinates).await;
    let [plain, encrypted] = stores;
    let layered = stores.clone().map(layered);
    let mut times = READS.map(|_| Vec::new());
    for _ in 0..REPETITIONS {
        times[0].push(timed(&bare).await);
        times[1].push(timed(async || read(plain).await).await);
        times[2].push(timed(async || read(&*layered[0]).await).await);
        times[3].push(timed(async || read(encrypted).await).await);
        times[4].push(timed(async || read(&*layered[1]).await).await);
    }
    times.map(median)
}

async fn read_all(store: &dyn SecretPersistence, coordinates: &[Coordinate]) {
    let results = store.read_many(coordinates).await;
    assert!(results.iter().all(Result::is_ok));
    black_box(results);
}

async fn write_all(store: &Database, writes: &[Write]) {
    for chunk in writes.chunks(store.capabilities().write_batch) {
        assert!(store.write_batch(chunk).await.iter().all(Result::is_ok));
    }
}

/// `count WHAT TIMES` after `--`.
fn counted() -> Option<(String, usize)> {
    let mut arguments = std::env::args().skip_while(|text| text != "count").skip(1);
    Some((arguments.next()?, arguments.next()?.parse().unwrap()))
}

/// The layers that the façade puts around a database by default.
fn layered(store: Database) -> Arc<dyn SecretPersistence> {
    let stack = Stack::over(Arc::new(store)).with_retry(RetryOptions::default());
    Layers::over(stack).with_metrics(true).build()
}

async fn compare_writes(
    bare: impl AsyncFn(&[Write]),
    [plain, encrypted]: &[Database; 2],
) -> [Duration; 3] {
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..WRITE_REPETITIONS {
        let writes = new_writes();
        times[0].push(timed(async || bare(&writes).await).await);
        let writes = new_writes();
        times[1].push(timed(async || write_all(plain, &writes).await).await);
        let writes = new_writes();
        times[2].push(timed(async || write_all(encrypted, &writes).await).await);
    }
    times.map(median)
}

/// Rows under names that no repetition has used.
fn new_writes() -> Vec<Write> {
    static NEXT: AtomicUsize = AtomicUsize::new(10_000_000);
    let from = NEXT.fetch_add(ROWS, Ordering::Relaxed);
    (from..from + ROWS)
        .map(|number| write(number, 32))
        .collect()
}

async fn timed(work: impl AsyncFn()) -> Duration {
    let start = Instant::now();
    work().await;
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}
