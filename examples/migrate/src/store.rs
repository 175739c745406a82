//! The stores of a command: described by a URL or a settings file, opened by the façade.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secret_persistence::database::{self, Database, Mode};
use secret_persistence::rates::SharedRates;
use secret_persistence::{
    COMMON, Environment, Kind, KubernetesSecrets, Owner, SecretPersistence, Settings, StoreUrl,
    Stores,
};

use crate::cli::Place;
use crate::console::remark;
use crate::role::Role;
use crate::status::{Failure, Result};

/// What happens if a database's file or table is missing. A misspelt name must not create a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMissing {
    /// Create it: only for commands that fill it.
    Create,
    /// Treat it as empty and print a note, as a dry run does for a future target.
    Empty,
    /// Refuse the command.
    Refuse,
}

/// A store as described by its settings, after all checks that do not need a request.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    role: Role,
    /// The operator's name for it, for messages.
    name: String,
    settings: Settings,
    /// The settings as they were given, which say where audit events go.
    given: Settings,
    owner: Option<Owner>,
    rates: Option<Arc<dyn SharedRates>>,
}

impl Described {
    /// Reads an option, so that a mistake shows before anything is opened.
    ///
    /// # Errors
    /// For settings that cannot be used: for a store that is not built in, unknown, contradictory,
    /// or with a credential in a URL.
    pub(crate) fn read(place: Place<'_>, role: Role, environment: &Environment) -> Result<Self> {
        let environment = role.view(environment);
        match place {
            Place::Settings { file, secrets } => {
                let name = format!("{}-settings {}", role.option(), file.display());
                let settings = from_file(file, secrets, &environment);
                Self::checked(role, name, settings)
            }
            Place::Url(text) => {
                let url = StoreUrl::parse(text)
                    // The façade knows more reasons, such as a placeholder in place of the host.
                    .or_else(|error| Settings::from_url(text, &environment).and(Err(error)))
                    .map_err(|error| Failure::from(error).at(role.option()))?;
                let name = format!("{} {url}", role.option());
                let settings = from_url(text, &url, &environment);
                Self::checked(role, name, settings)
            }
        }
    }

    fn checked(role: Role, name: String, settings: Result<Settings>) -> Result<Self> {
        let read = || {
            // Use only the first store of a mirror: during a migration, the services keep both
            // stores in sync, and a delete on one side would delete from the other.
            let given = settings?;
            let settings = given.clone().alone();
            settings.check()?;
            let owner = settings.owner()?;
            Ok((settings, given, owner))
        };
        let (settings, given, owner) = read().map_err(|failure: Failure| failure.at(&name))?;
        Ok(Self {
            role,
            name,
            settings,
            given,
            owner,
            rates: None,
        })
    }

    /// Shares the provider's quota with other processes of this tool.
    pub(crate) fn sharing(mut self, rates: Option<&Arc<dyn SharedRates>>) -> Self {
        self.rates = rates.cloned();
        self
    }

    /// Opens the store. Layer settings apply to services only: a migration must read what the store
    /// has, so nothing is cached. Without an operator's rate, it stays within the provider's
    /// documented quota.
    ///
    /// # Errors
    /// If the store does not open.
    pub(crate) async fn open(
        &self,
        rate: Option<NonZeroU32>,
        if_missing: IfMissing,
    ) -> Result<Store> {
        for warning in self.settings.warnings() {
            remark(format!("warning: {warning}"));
        }
        let open = async {
            let mut settings = self.settings.clone().with("metrics", "false")?;
            if settings.kind() == Kind::Database {
                self.note_plain_text()?;
                settings = settings.with("retry", "false")?;
            }
            let settings = match rate {
                // The operator's quotas may be higher than the documented ones.
                Some(_) => settings.with("limit", "false")?,
                None => settings.with("limit-share", "1")?,
            };
            let settings = match &self.rates {
                Some(rates) => settings.with_shared_rates(Arc::clone(rates)),
                None => settings,
            };
            if settings.kind() == Kind::Database {
                return connect_database(settings, if_missing).await;
            }
            Ok(secret_persistence::connect(settings).await?)
        };
        Ok(Store {
            store: open.await.map_err(|failure| failure.at(&self.name))?,
            owner: self.owner.clone(),
            role: self.role,
        })
    }

    /// Sends the audit events of connector calls where the settings say, like a service.
    ///
    /// # Errors
    /// If the audit is required and cannot be written.
    pub(crate) async fn audited(&self, stores: Stores) -> Result<Stores> {
        secret_persistence::audited(stores, &self.given)
            .await
            .map_err(|error| Failure::from(error).at(&self.name))
    }

    /// The table, for commands that work on databases only. It is not created if it is missing.
    ///
    /// # Errors
    /// For other kinds of store.
    pub(crate) fn database(&self) -> Result<database::Config> {
        if self.settings.kind() != Kind::Database {
            return Err(Failure::input(
                "this command is for stores that are databases: sqlite or postgres",
            )
            .at(&self.name));
        }
        let config = self
            .settings
            .clone()
            .with("create", "false")
            .and_then(|settings| database::Config::from_settings(settings.store()))
            .map_err(|error| Failure::from(error).at(&self.name))?;
        Ok(match &self.owner {
            Some(owner) => config.with_owner(owner.clone()),
            None => config,
        })
    }

    /// Opens that table.
    ///
    /// # Errors
    /// For other kinds of store, and if it does not open.
    pub(crate) async fn open_database(&self) -> Result<Database> {
        Database::connect(self.database()?)
            .await
            .map_err(|error| Failure::from(error).at(&self.name))
    }

    /// Warns that secrets would be in plain text.
    fn note_plain_text(&self) -> Result<()> {
        let config = database::Config::from_settings(self.settings.store())?;
        if config.mode() == Mode::Plain {
            remark(format!(
                "note: {config} is plain text; anyone who can read the database, its log or its backups can read the secrets"
            ));
        }
        Ok(())
    }
}

/// Opens a database, and creates it only if the command may.
async fn connect_database(
    settings: Settings,
    if_missing: IfMissing,
) -> Result<Arc<dyn SecretPersistence>> {
    let may_create = settings.store().text("create") != Some("false");
    if if_missing == IfMissing::Create {
        return Ok(secret_persistence::connect(settings).await?);
    }
    let refused = match secret_persistence::connect(settings.clone().with("create", "false")?).await
    {
        Err(error) if if_missing == IfMissing::Empty && may_create => error,
        opened => return Ok(opened?),
    };
    // Any other error occurs again here.
    let empty = secret_persistence::connect(settings.with("create", "dry-run")?).await?;
    remark(format!(
        "note: {}; copy and split create it",
        refused.message()
    ));
    Ok(empty)
}

/// A URL describes one store. Settings of services are refused in it: they have no effect here, but
/// an operator who wrote `read-only=true` relies on it.
fn from_url(text: &str, url: &StoreUrl, environment: &Environment) -> Result<Settings> {
    let works = ["owner", "managed-prefix"];
    let around = |name: &str| !works.contains(&name) && COMMON.iter().any(|row| row.name == name);
    if let Some((name, _)) = url.query().find(|(name, _)| around(name)) {
        return Err(Failure::input(format!(
            "`{name}` is for services and has no effect in this tool; remove it (--rate limits requests)"
        )));
    }
    Ok(Settings::from_url(text, environment)?)
}

/// Reads a settings file, and the Kubernetes Secrets that it may refer to.
fn from_file(file: &Path, secrets: &[PathBuf], environment: &Environment) -> Result<Settings> {
    let mut at_hand = KubernetesSecrets::none();
    for path in secrets {
        if path.is_dir() {
            at_hand = at_hand.with_any_folder(path);
            continue;
        }
        let place =
            |failure: Failure| failure.at(format!("--kubernetes-secret {}", path.display()));
        at_hand = at_hand
            .with_file(path)
            .map_err(|error| place(error.into()))?;
    }
    Ok(Settings::from_file(file, &at_hand, environment)?)
}

/// An open store, and its owner.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The store.
    pub(crate) store: Arc<dyn SecretPersistence>,
    /// The installation, where it is set.
    pub(crate) owner: Option<Owner>,
    role: Role,
}

impl Store {
    /// Refuses to write to a store that records owners if no owner is set.
    ///
    /// # Errors
    /// If the store records owners and none is set.
    pub(crate) fn for_writing(self) -> Result<Self> {
        if self.store.capabilities().owner && self.owner.is_none() {
            return Err(Failure::input(format!(
                "{} {}: every secret is written with the id of its installation, and none is set; \
                set SECRETS_OWNER (or {}SECRETS_OWNER) to a name unique to this installation, like prod_eu",
                self.role.option(),
                self.store,
                self.role.prefix(),
            )));
        }
        Ok(self)
    }

    /// The store. In a test, every operation is a point where the process may be stopped.
    #[cfg(debug_assertions)]
    pub(crate) fn with_points(mut self) -> Self {
        self.store = Arc::new(crate::kill::Points(self.store));
        self
    }

    /// The unchanged store.
    #[cfg(not(debug_assertions))]
    pub(crate) fn with_points(self) -> Self {
        self
    }
}
