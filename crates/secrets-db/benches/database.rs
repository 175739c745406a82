//! The overhead of the store over the bare query for the same 1,000 rows, and of encryption for
//! each value.
//!
//! `cargo bench -p secret-persistence-db` measures SQLite; with `--features postgres` and `TEST_POSTGRES_URL`
//! Postgres too. Each line is the median of interleaved repetitions.

// A bench prints, and may panic on any failure.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use secret_persistence_core::settings::SettingMap;
use secret_persistence_core::{
    Coordinate, ManagedCoordinate, SecretPersistence, SecretValue, Write,
};
use secret_persistence_db::{Config, Database, KeyRing, SETTINGS};
use sqlx::Row as _;

const ROWS: usize = 1_000;
const REPETITIONS: usize = 200;
const SIZES: [usize; 3] = [32, 1_024, 65_536];

fn main() {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            sqlite().await;
            #[cfg(feature = "postgres")]
            postgres().await;
        });
}

async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets.db");
    let config = || {
        SETTINGS
            .from_pairs([("path", file.to_str().unwrap())])
            .unwrap()
    };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let names = serde_json::to_string(
        &coordinates()
            .iter()
            .map(Coordinate::as_str)
            .collect::<Vec<_>>(),
    )
    .unwrap();
    let stores = stores(config).await;
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
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
    compare("sqlite", bare, &stores).await;
    values("sqlite", &stores).await;
}

#[cfg(feature = "postgres")]
async fn postgres() {
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        println!("SKIPPED postgres: TEST_POSTGRES_URL is not set");
        return;
    };
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
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
    compare("postgres", bare, &stores).await;
    values("postgres", &stores).await;
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
        for chunk in writes.chunks(store.capabilities().write_batch) {
            assert!(store.write_batch(chunk).await.iter().all(Result::is_ok));
        }
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

async fn compare(engine: &str, bare: impl AsyncFn(), [plain, encrypted]: &[Database; 2]) {
    let coordinates = coordinates();
    let read = async |store: &Database| {
        let results = store.read_batch(&coordinates).await;
        assert!(results.iter().all(Result::is_ok));
        black_box(results);
    };
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..REPETITIONS {
        times[0].push(timed(&bare).await);
        times[1].push(timed(async || read(plain).await).await);
        times[2].push(timed(async || read(encrypted).await).await);
    }
    let [bare, plain, encrypted] = times.map(median);
    println!("{engine}: read {ROWS} rows, bare query   {bare:>9.1?}");
    println!(
        "{engine}: read {ROWS} rows, plain        {plain:>9.1?}  {:.2} × bare",
        ratio(plain, bare)
    );
    println!(
        "{engine}: read {ROWS} rows, encrypted    {encrypted:>9.1?}  {:.2} × bare",
        ratio(encrypted, bare)
    );
    let added = encrypted.saturating_sub(plain) / u32::try_from(ROWS).unwrap();
    println!("{engine}: encryption adds {added:?} to each value read in a batch");
}

/// Single values of several sizes: written and read, plain and encrypted.
async fn values(engine: &str, stores: &[Database; 2]) {
    for size in SIZES {
        let mut times = [const { Vec::new() }; 4];
        for round in 0..REPETITIONS {
            let write = write(1_000_000 + size * 1_000 + round, size);
            let name = [Coordinate::from(write.coordinate.clone())];
            let entry = [write];
            for (index, store) in stores.iter().enumerate() {
                times[index].push(
                    timed(async || assert!(store.write_batch(&entry).await[0].is_ok())).await,
                );
                times[2 + index]
                    .push(timed(async || assert!(store.read_batch(&name).await[0].is_ok())).await);
            }
        }
        let [write_plain, write_sealed, read_plain, read_sealed] = times.map(median);
        println!(
            "{engine}: one value of {size:>6} bytes: write {write_plain:.1?} plain, {write_sealed:.1?} encrypted; \
             read {read_plain:.1?} plain, {read_sealed:.1?} encrypted"
        );
    }
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

fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}
