//! Starts a gateway from settings. The first start creates what is missing.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use secret_persistence::{
    Environment, KubernetesSecrets, Settings as StoreSettings, StoresSettings,
};

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::collector::Collecting;
use crate::configurations::Configurations;
use crate::digests::Digests;
use crate::gateway::{Gateway, Parts};
use crate::migration::MigrationJournal;
use crate::outbox::{Outbox, SqliteOutbox};
use crate::settings::Settings;
use crate::storages::{StorageIds, StoragesFile};
use crate::tokens::{Authenticator, Grant, Role, TokenFile, private};

/// The gateway did not start, with the cause.
#[derive(Debug)]
pub struct StartError {
    doing: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl StartError {
    fn new(doing: impl Into<String>) -> Self {
        Self {
            doing: doing.into(),
            source: None,
        }
    }

    fn because(
        doing: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            doing: doing.into(),
            source: Some(source.into()),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl StdError for StartError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A gateway, and what its first start created.
#[derive(Debug)]
#[non_exhaustive]
pub struct Started {
    /// The gateway.
    pub gateway: Gateway,
    /// The token files that this start created, by role; empty unless it is the first start.
    pub tokens: Vec<(Role, PathBuf)>,
}

/// Opens the store, the outbox and the tokens of the settings, and creates what is missing: the
/// data folder, a key ring and a database if no store is set, a token for each role if there is no
/// token file.
///
/// # Errors
/// If something could not be opened or created.
pub async fn start(
    settings: Settings,
    environment: &Environment,
    metrics: Option<PrometheusHandle>,
) -> Result<Started, StartError> {
    make_folder(&settings.data_folder).map_err(|error| {
        StartError::because(
            format!(
                "cannot create the data folder {}",
                settings.data_folder.display()
            ),
            error,
        )
    })?;
    let digests = Digests::open(&settings.key_file).map_err(|error| {
        StartError::because(
            format!("cannot use the key file {}", settings.key_file.display()),
            error,
        )
    })?;
    let outbox = outbox(&settings).await?;
    if !outbox
        .same_key(&digests.proof())
        .await
        .map_err(|error| StartError::because("cannot use the outbox", error))?
    {
        return Err(StartError::new(format!(
            "the outbox was created with another key than {}: all replicas need the same `key-file`",
            settings.key_file.display()
        )));
    }
    let store = store_settings(&settings, environment)?;
    let mirrored = store.mirror().is_some();
    let configurations = match &settings.configurations_file {
        Some(path) => {
            let opened = Configurations::open(path, environment);
            Some(opened.map_err(|error| {
                StartError::because("cannot use the sources of configurations", error)
            })?)
        }
        None => None,
    };
    let refused = |error| StartError::because("cannot use the settings of the store", error);
    let history = secret_persistence::read_history(&store).map_err(refused)?;
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    let collecting = store
        .owner()
        .map_err(refused)?
        .map(|owner| Collecting::new(owner, &settings.collect_journal, environment));
    let mut stores = StoresSettings::new(store).with_environment(environment.clone());
    let mut storages: Option<Arc<dyn StorageIds>> = None;
    if let Some(path) = &settings.storages_file {
        let file = StoragesFile::open(path)
            .map_err(|error| StartError::because("cannot read the further stores", error))?;
        let file = Arc::new(file);
        stores = stores.with_storages(Arc::clone(&file) as _);
        storages = Some(file);
    }
    let stores = secret_persistence::stores(stores)
        .await
        .map_err(|error| StartError::because("cannot open the store", error))?;
    let tokens = first_tokens(&settings)?;
    let authenticator =
        Authenticator::new(TokenFile::new(&settings.tokens_file), settings.jwt.clone());
    let migration = settings
        .migration_journal
        .as_ref()
        .map(|text| MigrationJournal::new(text, environment));
    let gateway = Gateway::new(Parts {
        settings,
        stores,
        storages,
        mirrored,
        migration,
        configurations,
        history,
        #[cfg(any(feature = "postgres", feature = "sqlite"))]
        collecting,
        authenticator,
        outbox,
        digests,
        metrics,
    });
    Ok(Started { gateway, tokens })
}

async fn outbox(settings: &Settings) -> Result<Arc<dyn Outbox>, StartError> {
    let failed = |error| StartError::because("cannot open the outbox", error);
    match &settings.outbox_url {
        None => {
            let path = settings.data_folder.join("outbox.db");
            Ok(Arc::new(SqliteOutbox::open(&path).await.map_err(failed)?))
        }
        #[cfg(feature = "postgres")]
        Some(url) => Ok(Arc::new(
            crate::outbox::PostgresOutbox::open(url)
                .await
                .map_err(failed)?,
        )),
        #[cfg(not(feature = "postgres"))]
        Some(_) => Err(StartError::new(
            "`outbox-url`: Postgres is not built in; add the feature `postgres`",
        )),
    }
}

/// The store in the settings, otherwise in the environment, otherwise our own encrypted file.
fn store_settings(
    settings: &Settings,
    environment: &Environment,
) -> Result<StoreSettings, StartError> {
    let refused = |error| StartError::because("cannot use the settings of the store", error);
    let named = environment_names_a_store(environment);
    let store = match (&settings.store, &settings.store_settings) {
        (Some(url), _) => StoreSettings::from_url(url, environment).map_err(refused)?,
        (None, Some(path)) => {
            StoreSettings::from_file(path, &KubernetesSecrets::none(), environment)
                .map_err(refused)?
        }
        (None, None) if named => StoreSettings::from_env(environment).map_err(refused)?,
        (None, None) => own_store(settings, environment)?,
    };
    // Every call is an audit event: in the log, unless another destination is set.
    let audited = ["audit", "audit-file", "ledger"]
        .iter()
        .any(|name| store.common().text(name).is_some());
    if audited {
        Ok(store)
    } else {
        store.with("audit", "best_effort").map_err(refused)
    }
}

/// Whether the environment defines a store: by its kind, or by a database.
fn environment_names_a_store(environment: &Environment) -> bool {
    ["SECRET_PERSISTENCE", "DATABASE_URL", "DATABASE_HOST"]
        .iter()
        .any(|name| environment.has(name))
}

#[cfg(feature = "sqlite")]
fn own_store(settings: &Settings, environment: &Environment) -> Result<StoreSettings, StartError> {
    use secret_persistence::database::KeyRingFile;

    let (ring, database) = (
        settings.data_folder.join("keyring"),
        settings.data_folder.join("secrets.db"),
    );
    if !ring.exists() {
        if database.exists() {
            return Err(StartError::new(format!(
                "{} exists but its key ring {} does not: restore the key ring, because without it nothing can be decrypted",
                database.display(),
                ring.display()
            )));
        }
        let id = "1"
            .parse()
            .map_err(|error| StartError::because("cannot create the key ring", error))?;
        KeyRingFile::create(&ring, id)
            .map_err(|error| StartError::because("cannot create the key ring", error))?;
    }
    let mut url = url::Url::parse("sqlite:///")
        .map_err(|error| StartError::because("cannot use the settings of the store", error))?;
    url.set_path(&database.to_string_lossy());
    url.query_pairs_mut()
        .append_pair("keyring-file", &ring.to_string_lossy());
    StoreSettings::from_url(url.as_str(), environment)
        .map_err(|error| StartError::because("cannot use the settings of the store", error))
}

#[cfg(not(feature = "sqlite"))]
fn own_store(_: &Settings, _: &Environment) -> Result<StoreSettings, StartError> {
    Err(StartError::new(
        "no store is set, and SQLite is not built in; set `store` or SECRET_PERSISTENCE",
    ))
}

/// Creates a token for each role, in its own file, if there are no tokens and no JWTs or
/// certificates.
fn first_tokens(settings: &Settings) -> Result<Vec<(Role, PathBuf)>, StartError> {
    let tokens = TokenFile::new(&settings.tokens_file);
    // A token file in the settings is the operator's, and so are JWTs.
    let ours = settings.tokens_file == settings.data_folder.join("tokens.json");
    if tokens.exists() || !ours || settings.jwt.is_some() {
        return Ok(Vec::new());
    }
    let failed = |error: Box<dyn StdError + Send + Sync>| {
        StartError::because("cannot create the first tokens", error)
    };
    let mut made = Vec::new();
    for role in Role::ALL {
        let path = settings.data_folder.join(format!("token-{role}"));
        let token = tokens
            .create(&Grant::new(format!("first-{role}"), [role]))
            .map_err(|error| failed(error.into()))?;
        let write = || {
            let mut file = private(&path, true)?;
            file.write_all(token.expose().as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| failed(error.into()))?;
        made.push((role, path));
    }
    Ok(made)
}

fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
