//! The demo's small installation: a configuration database, a plain store, an encrypted one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secret_persistence::Environment;
use secret_persistence::database::{Database as Secrets, KeyRingFile};
use secret_persistence_core::connector::{
    ActingSecrets, ConnectorError, ConnectorOptions, ConnectorSecrets, ConnectorSpec,
};
use secret_persistence_core::{
    Actor, Coordinate, Owner, Scope, SecretPersistence, SecretValue, Stores,
};
use secret_persistence_migrate::{Access, ConfigSource, MigrateOptions, Migration};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{ConnectOptions, SqlitePool};
use uuid::Uuid;

use super::connectors::Connector;
use crate::cli::Place;
use crate::configs;
use crate::journal;
use crate::role::Role;
use crate::status::{Failure, Result, Status};
use crate::store::Described;

/// The demo's databases, in one folder on disk.
pub(super) struct World {
    /// The existing store of the installation.
    pub(super) source: Arc<Secrets>,
    /// The target store.
    pub(super) target: Arc<Secrets>,
    folder: PathBuf,
    database: SqlitePool,
    journal: journal::Opened,
    workspace: Scope,
    originals: BTreeMap<String, Original>,
    owner: Owner,
}

struct Original {
    spec: ConnectorSpec,
    configuration: Value,
}

/// A saved row.
pub(super) struct Saved {
    pub(super) name: String,
    pub(super) configuration: Value,
    text: String,
}

/// The result of an update.
pub(super) struct Updated {
    pub(super) written: usize,
    pub(super) deleted: usize,
}

impl World {
    /// The file of the plain store.
    pub(super) const SOURCE: &'static str = "secrets.db";
    /// The file of the encrypted store.
    pub(super) const TARGET: &'static str = "encrypted.db";
    const CONFIGURATIONS: &'static str = "configurations.db";

    /// Creates the installation in an empty folder.
    pub(super) async fn create(folder: &Path) -> Result<Self> {
        let configurations = folder.join(Self::CONFIGURATIONS);
        create_table(
            &configurations,
            "CREATE TABLE actor (id TEXT PRIMARY KEY, workspace_id TEXT, specification TEXT, configuration TEXT)",
        )
        .await?;
        // The table of an existing installation, without our columns.
        create_table(
            &folder.join(Self::SOURCE),
            "CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT)",
        )
        .await?;
        let ring = folder.join("keyring");
        KeyRingFile::create(&ring, "demo-1".parse()?)?;
        let environment = Environment::from_iter([
            ("SECRETS_OWNER", "demo"),
            ("SECRETS_KEYRING_FILE", &ring.to_string_lossy()),
        ]);
        // Open the stores like the commands do, so that the demo shows the commands' behaviour.
        let store = |file, mode| {
            let url = sqlite_url(&folder.join(file), &format!("mode={mode}"))?;
            Described::read(Place::Url(&url), Role::Store, &environment)?.database()
        };
        let (plain, encrypted) = (
            store(Self::SOURCE, "plain")?,
            store(Self::TARGET, "encrypted")?,
        );
        // Opening makes no table: a misspelt name would make another.
        Secrets::prepare(&encrypted).await?;
        let journal = folder.join("journal.db");
        Ok(Self {
            source: Arc::new(Secrets::connect(plain).await?),
            target: Arc::new(Secrets::connect(encrypted).await?),
            database: open_table(&configurations).await?,
            journal: journal::open(&journal.to_string_lossy(), &Environment::default()).await?,
            workspace: Scope::workspace(Uuid::new_v4()),
            originals: BTreeMap::new(),
            folder: folder.to_owned(),
            owner: Owner::parse("demo")?,
        })
    }

    /// Closes everything.
    pub(super) async fn close(&self) {
        self.source.close().await;
        self.target.close().await;
        self.journal.close().await;
        self.database.close().await;
    }

    /// The connectors, by name.
    pub(super) fn names(&self) -> Vec<String> {
        self.originals.keys().cloned().collect()
    }

    /// The original configuration, including updates.
    pub(super) fn original(&self, name: &str) -> Result<&Value> {
        self.known(name).map(|original| &original.configuration)
    }

    /// Splits a new configuration and saves it. Returns the number of its secrets.
    pub(super) async fn create_connector(&mut self, connector: Connector) -> Result<usize> {
        let spec = ConnectorSpec::compile(&connector.connection_specification).map_err(refused)?;
        let staged = self
            .acting(&self.source)
            .stage_create(&spec, &self.workspace, connector.configuration.clone())
            .await
            .map_err(refused)?;
        let secrets = staged.record().writes().len();
        sqlx::query(
            "INSERT INTO actor (id, workspace_id, specification, configuration) VALUES ($1, $2, $3, $4)",
        )
        .bind(connector.name.clone())
        .bind(self.workspace.base_id().to_string())
        .bind(connector.connection_specification.to_string())
        .bind(staged.config().to_string())
        .execute(&self.database)
        .await
        .map_err(database_failed)?;
        let _ = staged.commit().await.map_err(refused)?;
        self.originals.insert(
            connector.name,
            Original {
                spec,
                configuration: connector.configuration,
            },
        );
        Ok(secrets)
    }

    /// Reads the current row.
    pub(super) async fn saved(&self, name: &str) -> Result<Saved> {
        let text: String = sqlx::query_scalar("SELECT configuration FROM actor WHERE id = $1")
            .bind(name)
            .fetch_optional(&self.database)
            .await
            .map_err(database_failed)?
            .ok_or_else(|| Failure::failed(format!("{name} is gone")))?;
        let configuration = serde_json::from_str(&text)
            .map_err(|cause| Failure::failed(format!("{name} is not JSON")).with_source(cause))?;
        Ok(Saved {
            name: name.to_owned(),
            configuration,
            text,
        })
    }

    /// Masks a configuration, as users see it.
    pub(super) fn mask(&self, saved: &Saved) -> Result<Value> {
        self.known(&saved.name)?
            .spec
            .mask(saved.configuration.clone())
            .map_err(refused)
    }

    /// Saves an edited configuration by compare-and-swap on the row.
    pub(super) async fn update(&mut self, saved: &Saved, edited: Value) -> Result<Updated> {
        let spec = self.known(&saved.name)?.spec.clone();
        let staged = self
            .acting(&self.source)
            .stage_update(&spec, &self.workspace, saved.configuration.clone(), edited)
            .await
            .map_err(refused)?;
        let written = staged.record().writes().len();
        let changed =
            sqlx::query("UPDATE actor SET configuration = $1 WHERE id = $2 AND configuration = $3")
                .bind(staged.config().to_string())
                .bind(saved.name.clone())
                .bind(saved.text.clone())
                .execute(&self.database)
                .await
                .map_err(database_failed)?;
        if changed.rows_affected() != 1 {
            let _ = staged.abort().await.map_err(refused)?;
            return Err(Failure::failed(format!(
                "{} has changed in the meantime",
                saved.name
            )));
        }
        let cleanup = staged.commit().await.map_err(refused)?;
        let now = self.saved(&saved.name).await?;
        let full = self.acting(&self.source).hydrate(now.configuration).await;
        let full = full.map_err(refused)?.into_inner();
        if let Some(original) = self.originals.get_mut(&saved.name) {
            original.configuration = full;
        }
        Ok(Updated {
            written,
            deleted: cleanup.deleted.len(),
        })
    }

    /// Hydrates a configuration and returns the text that a connector would receive.
    pub(super) async fn hydrate(&self, saved: &Saved, from_source: bool) -> Result<String> {
        let store = if from_source {
            &self.source
        } else {
            &self.target
        };
        let full = self
            .acting(store)
            .hydrate(saved.configuration.clone())
            .await
            .map_err(refused)?;
        Ok(full.to_string())
    }

    /// A migration of all configurations, built like the commands build it.
    pub(super) async fn migration(
        &self,
        from: &Arc<Secrets>,
        to: &Arc<Secrets>,
    ) -> Result<Migration> {
        let url = sqlite_url(
            &self.folder.join(Self::CONFIGURATIONS),
            "table=actor&id=id&configuration=configuration&base_id=workspace_id&specification=specification",
        )?;
        let sources: Vec<Arc<dyn ConfigSource>> =
            configs::open(&[url], &Environment::default(), Access::ReadOnly).await?;
        let migration = Migration::new(
            Arc::clone(from) as Arc<dyn SecretPersistence>,
            Arc::clone(to) as Arc<dyn SecretPersistence>,
            self.journal.for_run(),
        )
        .with_owner(self.owner.clone())
        // The two files belong to the demo, and nothing replicates one to the other.
        .with_options(MigrateOptions::default().with_lag(Duration::ZERO));
        Ok(sources.into_iter().fold(migration, Migration::with_configs))
    }

    /// Every coordinate in a configuration.
    pub(super) async fn coordinates(&self) -> Result<Vec<Coordinate>> {
        let mut all = Vec::new();
        for name in self.names() {
            let saved = self.saved(&name).await?;
            let found = secret_persistence_core::connector::pointers(&saved.configuration)
                .map_err(refused)?;
            all.extend(
                found
                    .into_iter()
                    .filter_map(|(_, pointer)| pointer.coordinate),
            );
        }
        Ok(all)
    }

    /// The current number of secrets in the configurations.
    pub(super) fn values(&self) -> u64 {
        let secrets = self.secret_values();
        u64::try_from(secrets.len()).unwrap_or(u64::MAX)
    }

    /// Counts the values that are readable in the files of a store, as in a stolen backup.
    pub(super) fn values_in_clear(&self, file: &str) -> Result<usize> {
        let mut bytes = Vec::new();
        for name in [file.to_owned(), format!("{file}-wal")] {
            match std::fs::read(self.folder.join(&name)) {
                Ok(part) => bytes.extend(part),
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
                Err(cause) => {
                    return Err(
                        Failure::failed(format!("{name} cannot be read")).with_source(cause)
                    );
                }
            }
        }
        let found = |value: &SecretValue| {
            let value = value.expose().as_bytes();
            bytes.windows(value.len()).any(|window| window == value)
        };
        Ok(self
            .secret_values()
            .iter()
            .filter(|value| found(value))
            .count())
    }

    /// Every original secret as its store contains it: strings unchanged, others as JSON.
    fn secret_values(&self) -> Vec<SecretValue> {
        let mut all = Vec::new();
        for original in self.originals.values() {
            let places = original
                .spec
                .secret_places(&original.configuration)
                .unwrap_or_default();
            for place in places {
                let value = original.configuration.pointer(place.as_str());
                all.extend(value.map(|value| match value {
                    Value::String(text) => SecretValue::new(text.clone()),
                    other => SecretValue::new(other.to_string()),
                }));
            }
        }
        all
    }

    fn acting(&self, store: &Arc<Secrets>) -> ActingSecrets {
        let store = Arc::clone(store) as Arc<dyn SecretPersistence>;
        let stores = Stores::new(store).with_owner(self.owner.clone());
        ConnectorSecrets::new(stores, ConnectorOptions::default()).acting_as(&Actor::new("demo"))
    }

    fn known(&self, name: &str) -> Result<&Original> {
        self.originals
            .get(name)
            .ok_or_else(|| Failure::failed(format!("there is no connector {name}")))
    }
}

/// The URL of a database in the demo's folder, with any folder name.
fn sqlite_url(file: &Path, query: &str) -> Result<String> {
    let url = url::Url::from_file_path(file)
        .map_err(|()| Failure::failed("the folder has no absolute path"))?;
    let path = url.path().replace('@', "%40");
    Ok(format!("sqlite://{path}?{query}"))
}

async fn create_table(file: &Path, sql: &'static str) -> Result<()> {
    let database = open_table(file).await?;
    let created = sqlx::query(sql).execute(&database).await;
    database.close().await;
    created.map(drop).map_err(database_failed)
}

/// Opens an SQLite file of the demo, and creates it if it is missing.
async fn open_table(file: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .disable_statement_logging();
    SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .map_err(database_failed)
}

/// The demo's values are made up, so its database errors may be printed.
fn database_failed(cause: sqlx::Error) -> Failure {
    Failure::failed("the demo's database failed").with_source(cause)
}

fn refused(error: ConnectorError) -> Failure {
    Failure::new(Status::Found, "a connector's configuration was refused").with_source(error)
}
