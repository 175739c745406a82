//! Settings: the store, its connection, its layers and audit, read from any form.

mod common;
mod environment;
mod file;
mod helm;
mod identity;
mod json;
mod kubernetes;
mod misspellings;
mod placeholders;
mod prefix;
mod tenant;
mod text;
pub(crate) mod tree;
mod unnamed;
mod url;
mod variables;

use std::fmt;
use std::sync::Arc;

use secret_persistence_core::layer::LimitOptions;
use secret_persistence_core::rates::SharedRates;
use secret_persistence_core::settings::{Setting, SettingMap, unknown};
use secret_persistence_core::{Error, Owner, Result, SecretValue};

use crate::backend::{self, Backend};
use crate::custom::CustomBackend;
use crate::kind::Kind;
use crate::ledger;
use crate::limit_shared;

pub use common::COMMON;
use common::MANAGED_PREFIX;
pub(crate) use common::{LIMIT_SHARED, Layering, audit_mode};
pub use environment::Environment;
pub use kubernetes::KubernetesSecrets;
pub use misspellings::Warning;
pub(crate) use secret_persistence_core::settings::invalid;
pub use tenant::Tenant;

/// The settings of one store: its kind, the values of its key table, and the common settings.
///
/// They are read once from one of the forms. No file and no variable is read later, except the
/// files that the settings name. `Debug` shows no value.
///
/// ```
/// use secret_persistence::{Environment, Kind, Settings};
///
/// let environment = Environment::from_iter([
///     ("SECRET_PERSISTENCE", "VAULT"),
///     ("VAULT_ADDRESS", "https://vault.example.com:8200"),
///     ("VAULT_AUTH_TOKEN", "hvs.example"),
///     ("SECRETS_CACHE", "true"),
/// ]);
/// let settings = Settings::from_env(&environment)?;
/// assert_eq!(settings.kind(), Kind::Vault);
/// assert_eq!(settings.store().text("address"), Some("https://vault.example.com:8200"));
/// assert_eq!(settings.common().text("cache"), Some("true"));
/// assert!(!format!("{settings:?}").contains("hvs.example"));
/// # Ok::<(), secret_persistence::Error>(())
/// ```
#[derive(Clone)]
pub struct Settings {
    kind: Kind,
    store: SettingMap,
    common: SettingMap,
    /// The backend of the caller, if it is one.
    custom: Option<CustomBackend>,
    mirror: Option<Box<Settings>>,
    /// The settings of the ledger, if there is one.
    ledger: Option<SettingMap>,
    rates: Option<Arc<dyn SharedRates>>,
    /// What the provider counts requests for, if the settings are not to say it.
    account: Option<String>,
    warnings: Vec<Warning>,
    form: Form,
}

/// The form of the settings, which determines their names in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// The names of variables. A URL cannot contain credentials.
    Variables,
    /// The keys below a place in a values file.
    Helm(String),
    Json,
}

impl Settings {
    fn new(kind: Kind, store: SettingMap, common: SettingMap) -> Self {
        Self {
            kind,
            store,
            common,
            custom: None,
            mirror: None,
            ledger: None,
            rates: None,
            account: None,
            warnings: Vec::new(),
            form: Form::Variables,
        }
    }

    fn of_helm(mut self, place: String) -> Self {
        self.form = Form::Helm(place);
        self
    }

    fn of_json(mut self) -> Self {
        self.form = Form::Json;
        self
    }

    /// The name of a setting in the form, if it has one.
    fn called(&self, row: &Setting) -> Option<String> {
        self.key(row).map(|name| match self.form {
            Form::Variables => name,
            Form::Helm(_) | Form::Json => format!("`{name}`"),
        })
    }

    fn key(&self, row: &Setting) -> Option<String> {
        match &self.form {
            Form::Variables => row.env.first().map(|name| (*name).to_owned()),
            Form::Helm(place) => {
                let is_common = COMMON.iter().any(|common| common.name == row.name);
                let place = if is_common { helm::COMMON_PLACE } else { place };
                row.helm.first().map(|key| format!("{place}.{key}"))
            }
            Form::Json => row.json.first().map(|key| (*key).to_owned()),
        }
    }

    /// The same error with the names of the form in its hint. Backends only know variables.
    pub(crate) fn advise(&self, error: Error) -> Error {
        match error.hint().map(|hint| self.reworded(hint)) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    /// The same error about a setting, which names what the user wrote: key tables know one name of
    /// a setting, and its variables.
    pub(crate) fn name_as_written(&self, error: Error) -> Error {
        let message = self.reworded(error.message());
        self.advise(error.with_message(message))
    }

    fn reworded(&self, text: &str) -> String {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        let mut said = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(is_part) {
            let (before, word) = rest.split_at(at);
            let end = word.find(|letter| !is_part(letter)).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            let is_quoted = before.ends_with('`') && after.starts_with('`');
            said += before;
            said += &match (self.written(word, is_quoted), is_quoted) {
                (None, _) => word.to_owned(),
                (Some(name), true) => name,
                (Some(name), false) => format!("`{name}`"),
            };
            rest = after;
        }
        said += rest;
        said
    }

    /// How the user wrote a setting, given its quoted name or one of its variables. `None` if the
    /// word is neither, or is what the user wrote.
    fn written(&self, word: &str, is_quoted: bool) -> Option<String> {
        let (values, row) = [&self.store, &self.common].into_iter().find_map(|values| {
            let is_it = |row: &&Setting| is_quoted && row.name == word || row.env.contains(&word);
            Some((values, values.table().iter().find(is_it)?))
        })?;
        match (values.variable(row.name), &self.form) {
            (Some(_), _) if row.env.contains(&word) => None,
            (Some(variable), _) => Some(variable.to_owned()),
            // In a URL, a setting has the name of its row.
            (None, Form::Variables) => None,
            (None, _) => self.key(row),
        }
    }

    /// The kind of store.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The values of the store's key table.
    #[must_use]
    pub fn store(&self) -> &SettingMap {
        &self.store
    }

    /// The values of [`COMMON`]: owner, layers, audit.
    #[must_use]
    pub fn common(&self) -> &SettingMap {
        &self.common
    }

    /// Suspicious variables that are not errors. They are also logged.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Sets a value by its name in the store's key table or in [`COMMON`].
    ///
    /// # Errors
    /// `InvalidConfig` for a name that is in neither table, and for a second, different value.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Result<Self> {
        if COMMON.iter().any(|setting| setting.name == name) {
            self.common.set(name, value)?;
        } else if self
            .store
            .table()
            .iter()
            .any(|setting| setting.name == name)
        {
            self.store.set(name, value)?;
        } else {
            let known = self.store.table().iter().chain(COMMON);
            return Err(unknown(name, known.map(|setting| setting.name)));
        }
        Ok(self)
    }

    /// Adds a second store as a mirror, for a live migration. The store of these settings is the
    /// primary.
    #[must_use]
    pub fn with_mirror(mut self, secondary: Self) -> Self {
        self.mirror = Some(Box::new(secondary));
        self
    }

    /// Shares the rates of the limit with all processes that draw from this source, instead of that of the
    /// setting `limit-shared`: see
    /// [`Stack::with_shared_rates`](secret_persistence_core::layer::Stack::with_shared_rates). The mirror and other
    /// storages share theirs too, those of one account at the provider together.
    #[must_use]
    pub fn with_shared_rates(mut self, rates: Arc<dyn SharedRates>) -> Self {
        self.rates = Some(rates);
        self
    }

    /// The source that the caller has set.
    pub(crate) fn shared_rates(&self) -> Option<Arc<dyn SharedRates>> {
        self.rates.clone()
    }

    /// The setting `limit-shared`.
    pub(crate) fn limit_shared(&self) -> Option<SecretValue> {
        self.common.secret(LIMIT_SHARED)
    }

    /// The same store without a mirror, and with default layers instead of a service's layers.
    /// Keeps the owner and the prefix of names. For tools that move or delete what one store contains.
    #[must_use]
    pub fn alone(mut self) -> Self {
        let mut common = SettingMap::new(COMMON);
        for name in ["owner", MANAGED_PREFIX] {
            if let Some(text) = self.common.text(name) {
                // The table is the same and the map is empty, so this cannot be refused.
                let _ = common.set(name, text);
            }
        }
        self.common = common;
        self.mirror = None;
        self.rates = None;
        self
    }

    /// The mirror, if there is one.
    #[must_use]
    pub fn mirror(&self) -> Option<&Self> {
        self.mirror.as_deref()
    }

    /// The id of this installation, if it is set.
    ///
    /// # Errors
    /// `InvalidConfig` for an invalid id.
    pub fn owner(&self) -> Result<Option<Owner>> {
        self.common.text("owner").map(Owner::parse).transpose()
    }

    /// Checks everything that can be checked without the network. This reads the files that the
    /// settings name. A [backend of the caller](crate::CustomBackend) checks its own settings when
    /// it opens.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the setting and the remedy.
    pub fn check(&self) -> Result<()> {
        self.owner()?;
        Layering::of(self)?;
        audit_mode(&self.common).map_err(|error| self.name_as_written(error))?;
        if let Some(settings) = &self.ledger {
            ledger::check(settings)?;
        }
        if let Some(url) = self.limit_shared() {
            limit_shared::check(&url).map_err(|error| self.name_as_written(error))?;
        }
        // A backend of the caller checks its settings when it opens.
        if self.custom.is_none() {
            (self.backend()?.check)(&self.store).map_err(|error| self.name_as_written(error))?;
        }
        match &self.mirror {
            Some(mirror) => mirror.check(),
            None => Ok(()),
        }
    }

    /// The settings of the ledger, if there is one.
    pub(crate) fn ledger(&self) -> Option<&SettingMap> {
        self.ledger.as_ref()
    }

    /// The backend of this crate.
    pub(crate) fn backend(&self) -> Result<Backend> {
        backend::of(self.kind)
    }

    /// The backend of the caller, if it is one.
    pub(crate) fn custom(&self) -> Option<&CustomBackend> {
        self.custom.as_ref()
    }

    /// The quotas that the provider documents.
    pub(crate) fn quotas(&self) -> Result<Option<LimitOptions>> {
        match self.custom {
            Some(_) => Ok(None),
            None => Ok(self.backend()?.quotas.map(|quotas| quotas())),
        }
    }

    /// What the provider counts requests for, where the name of the store does not say it.
    pub(crate) fn account(&self) -> Result<Option<String>> {
        match (&self.account, &self.custom) {
            (Some(account), _) => Ok(Some(account.clone())),
            (None, Some(_)) => Ok(None),
            (None, None) => Ok(self
                .backend()?
                .account
                .and_then(|account| account(&self.store))),
        }
    }

    pub(crate) fn with_account(mut self, account: String) -> Self {
        self.account = Some(account);
        self
    }

    /// The common settings for another store that is opened together with this one, without the
    /// settings that apply only to this one.
    pub(crate) fn around_others(&self) -> SettingMap {
        let mut values = SettingMap::new(COMMON);
        for name in self.common.names().filter(|name| *name != "mirror") {
            if let Some(text) = self.common.text(name) {
                // The table is the same and each name occurs once, so this cannot be refused.
                let _ = values.set(name, text);
            }
        }
        values
    }

    /// The same store with other common settings.
    #[must_use]
    pub fn with_common(mut self, common: SettingMap) -> Self {
        self.common = common;
        self
    }

    /// Adds the common settings of the environment, and the mirror.
    fn with_environment(mut self, environment: &Environment) -> Result<Self> {
        self.common.set_env(|name| environment.get(name));
        self = self.inspected(environment)?;
        if let Some(text) = self.common.text("ledger") {
            self.ledger = Some(ledger::settings(text, environment)?);
        }
        if let Some(text) = self.common.text("mirror") {
            let mut mirror = Self::mirror_of(text, environment)?;
            // The second store is used by as many processes as the first one.
            if let (Some(replicas), None) =
                (self.common.text("replicas"), mirror.common.text("replicas"))
            {
                mirror.common.set("replicas", replicas)?;
            }
            self.mirror = Some(Box::new(mirror));
        }
        Ok(self)
    }

    /// Checks the values, whatever their form.
    fn inspected(self, environment: &Environment) -> Result<Self> {
        placeholders::refuse(&self.store, environment)?;
        placeholders::refuse(&self.common, environment)?;
        let warnings = prefix::warnings(self.kind, &self.store);
        Ok(self.with_warnings(warnings))
    }

    fn with_warnings(mut self, warnings: Vec<Warning>) -> Self {
        for warning in &warnings {
            tracing::warn!(target: "secret_persistence", "{warning}");
        }
        self.warnings.extend(warnings);
        self
    }
}

/// The kind, and the names that are set. No values, because people paste secrets into wrong
/// settings.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("kind", &self.kind)
            .field("store", &self.store.names().collect::<Vec<_>>())
            .field("common", &self.common.names().collect::<Vec<_>>())
            .field("mirror", &self.mirror)
            .finish_non_exhaustive()
    }
}

/// The key table of a kind of store.
///
/// # Errors
/// `InvalidConfig` if its backend is not built in, or is the caller's own.
pub fn key_table(kind: Kind) -> Result<&'static [Setting]> {
    backend::of(kind).map(|backend| backend.settings.rows())
}
