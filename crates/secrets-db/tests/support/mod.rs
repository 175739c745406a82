//! Shared by the tests: stores of every kind, and another client of the same database.
// Each test binary uses a part of this.
#![allow(clippy::print_stdout, clippy::unwrap_used, dead_code)]

#[cfg(feature = "postgres")]
pub(crate) mod postgres;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use secret_persistence_core::conformance::Outsider;
use secret_persistence_core::settings::{SettingMap, StoreUrl};
use secret_persistence_core::{
    Coordinate, Error, ErrorKind, ManagedCoordinate, Result, SecretValue, Write,
};
use secret_persistence_db::{Config, Database, EncryptOptions, KeyRing, Mode, SETTINGS};
use sqlx::AssertSqlSafe;

/// A table of an Airbyte installation.
pub(crate) const LEGACY: &str = "CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT)";

pub(crate) fn ring() -> KeyRing {
    KeyRing::generate("k1".parse().unwrap()).unwrap()
}

/// Settings for a test.
#[derive(Clone, Debug)]
pub(crate) struct Setup(SettingMap);

impl Setup {
    pub(crate) fn of_url(url: &str) -> Self {
        let url = StoreUrl::parse(url).unwrap();
        Self(SETTINGS.from_url(&url, &|_| None).unwrap())
    }

    pub(crate) fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.set(name, value).unwrap();
        self
    }

    pub(crate) fn mode(self, mode: Mode) -> Self {
        self.set("mode", mode.as_str())
    }

    pub(crate) fn keyring(mut self, ring: &KeyRing) -> Self {
        self.0.set_by_operator("keyring", ring.to_text()).unwrap();
        self
    }

    pub(crate) fn build(&self) -> Result<Config> {
        Config::from_settings(&self.0)
    }
}

pub(crate) fn secret(text: &str) -> SecretValue {
    SecretValue::new(text.to_owned())
}

pub(crate) fn managed(number: usize) -> ManagedCoordinate {
    ManagedCoordinate::parse(&format!("airbyte_workspace_1_secret_{number:06}_v1")).unwrap()
}

pub(crate) fn write(number: usize, value: &str) -> Write {
    Write::new(managed(number), secret(value))
}

/// A folder with a database file, deleted at the end.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("secrets.db")
    }

    pub(crate) fn config(&self) -> Setup {
        Setup::of_url(&format!("sqlite://{}", self.file().display()))
    }

    pub(crate) async fn raw(&self) -> Raw {
        Raw::sqlite(&self.file()).await
    }

    /// All bytes of the database, its log and its index.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in self.path().read_dir().unwrap() {
            bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
        }
        bytes
    }
}

/// The places of tables. A test runs in each of them.
pub(crate) enum Place {
    #[cfg(feature = "postgres")]
    Postgres(postgres::Home),
    Sqlite(Folder),
}

impl Place {
    /// The folder of a file.
    pub(crate) fn folder(&self) -> &Folder {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => panic!("this place is no file"),
            Self::Sqlite(folder) => folder,
        }
    }

    pub(crate) async fn all(test: &str) -> Vec<Self> {
        let places = vec![Self::Sqlite(Folder::new())];
        #[cfg(feature = "postgres")]
        let places = match postgres::server(test) {
            Some(server) => places
                .into_iter()
                .chain([Self::Postgres(server.home().await)])
                .collect(),
            None => places,
        };
        #[cfg(not(feature = "postgres"))]
        println!("{test}: on SQLite only, the feature `postgres` is off");
        places
    }

    pub(crate) fn config(&self) -> Setup {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(home) => home.config(),
            Self::Sqlite(folder) => folder.config(),
        }
    }

    pub(crate) async fn open(&self, mode: Mode, ring: Option<&KeyRing>) -> Result<Database> {
        let config = self.config().mode(mode);
        let config = match ring {
            Some(ring) => config.keyring(ring),
            None => config,
        };
        Database::connect(config.build()?).await
    }

    pub(crate) async fn raw(&self) -> Raw {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(home) => home.raw.clone(),
            Self::Sqlite(folder) => folder.raw().await,
        }
    }
}

pub(crate) fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

/// Another client's connection to the same database.
#[derive(Clone, Debug)]
pub(crate) enum Raw {
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
    Sqlite(sqlx::SqlitePool),
}

impl Raw {
    pub(crate) async fn sqlite(file: &Path) -> Self {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .busy_timeout(std::time::Duration::from_secs(10));
        let pool = sqlx::sqlite::SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options);
        Self::Sqlite(pool.await.unwrap())
    }

    pub(crate) async fn run(&self, sql: &str) -> Result<u64, sqlx::Error> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(pool)
                .await
                .map(|done| done.rows_affected()),
            Self::Sqlite(pool) => sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(pool)
                .await
                .map(|done| done.rows_affected()),
        }
    }

    /// One number.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await,
            Self::Sqlite(pool) => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await,
        }
        .unwrap()
    }

    /// A plain row.
    pub(crate) async fn insert(&self, name: &str, value: &str) {
        const SQL: &str = "INSERT INTO secrets (coordinate, payload) VALUES ($1, $2)";
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => drop(
                sqlx::query(SQL)
                    .bind(name)
                    .bind(value)
                    .execute(pool)
                    .await
                    .unwrap(),
            ),
            Self::Sqlite(pool) => drop(
                sqlx::query(SQL)
                    .bind(name)
                    .bind(value)
                    .execute(pool)
                    .await
                    .unwrap(),
            ),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}

/// Writes rows that the store itself would not write: external names and empty values. In an
/// encrypted table, they result from encrypting a plain one.
#[derive(Debug)]
pub(crate) struct SomebodyElse {
    pub(crate) raw: Raw,
    pub(crate) store: Database,
}

#[async_trait]
impl Outsider for SomebodyElse {
    async fn insert(&self, name: &str, value: &SecretValue) -> Result<Coordinate> {
        if value.expose().contains('\0') {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "text cannot contain NUL",
            ));
        }
        self.raw.insert(name, value.expose()).await;
        if self.store.mode() != Mode::Plain {
            let options = EncryptOptions::default().with_nothing_else_reads(true);
            self.store.encrypt(&options, &|_| {}).await?;
        }
        Coordinate::parse(name)
    }

    async fn remove(&self, coordinate: &Coordinate) -> Result<()> {
        let sql = format!("DELETE FROM secrets WHERE coordinate = '{coordinate}'");
        self.raw.run(&sql).await.unwrap();
        Ok(())
    }
}
