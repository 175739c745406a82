//! Settings from environment variables.

use std::collections::BTreeMap;
use std::fmt;

use secret_persistence_core::settings::SettingMap;
use secret_persistence_core::{ManagedPrefix, Result, SecretValue};

use super::common::MANAGED_PREFIX_VARIABLE;
use super::{COMMON, Settings, Warning, identity, invalid, misspellings, unnamed};
use crate::backend;
use crate::custom::CustomBackend;
use crate::fips::FipsModule;
use crate::kind::Kind;

/// The variable that names the kind of store.
pub(crate) const SECRET_PERSISTENCE: &str = "SECRET_PERSISTENCE";

const FIPS: &str = "SECRETS_FIPS";
const REQUIRED: &str = "required";

/// Environment variables of the process, or given ones, and the caller's own backends. `Debug`
/// shows only the names of variables.
///
/// An empty variable counts as unset, and so does a variable that Kubernetes injects for a service
/// whose name collides (`DATABASE_PORT=tcp://…`).
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, SecretValue>,
    backends: Vec<CustomBackend>,
}

impl Environment {
    /// The variables of this process. A variable that is not UTF-8 counts as unset.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// An environment without variables.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The variables for one of several stores or databases: a variable with the prefix replaces
    /// the variable without it.
    ///
    /// An empty variable counts as unset, so `FROM_DATABASE_USER=` hides nothing. The same applies
    /// to variables that Kubernetes injects for a service whose name begins like the prefix.
    ///
    /// ```
    /// use secret_persistence::Environment;
    ///
    /// let environment = Environment::from_iter([
    ///     ("DATABASE_USER", "airbyte"),
    ///     ("FROM_DATABASE_USER", "reader"),
    /// ]);
    /// assert_eq!(environment.with_prefix("FROM_").get("DATABASE_USER").as_deref(), Some("reader"));
    /// assert_eq!(environment.with_prefix("TO_").get("DATABASE_USER").as_deref(), Some("airbyte"));
    /// ```
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> Self {
        let mut prefixed = self.clone();
        for name in self.names() {
            if let Some(plain) = name.strip_prefix(prefix)
                && let Some(value) = self.secret(name)
            {
                prefixed.variables.insert(plain.to_owned(), value);
            }
        }
        prefixed
    }

    /// Registers a backend of your own for the schemes of its URLs. A later one replaces an earlier
    /// one with the same scheme.
    #[must_use]
    pub fn with_backend(mut self, backend: CustomBackend) -> Self {
        self.backends.push(backend);
        self
    }

    /// Installs the prefix of managed names in the variable `SECRETS_MANAGED_PREFIX`, if it is set:
    /// see [`ManagedPrefix`]. Call it first in `main`.
    ///
    /// # Errors
    /// `InvalidConfig` if it is no prefix, or if the process follows another one already.
    pub fn install_managed_prefix(&self) -> Result<()> {
        match self.get(MANAGED_PREFIX_VARIABLE) {
            None => Ok(()),
            Some(text) => ManagedPrefix::parse(&text)
                .and_then(ManagedPrefix::install)
                .map_err(|error| {
                    let message = format!("`{MANAGED_PREFIX_VARIABLE}`: {}", error.message());
                    error.with_message(message)
                }),
        }
    }

    /// Requires a [`FipsModule`] if the variable `SECRETS_FIPS` is `required`. Call it in `main`,
    /// before the first store is opened.
    ///
    /// # Errors
    /// `InvalidConfig` for another value, and as [`FipsModule::require`].
    pub fn require_fips(&self) -> Result<()> {
        match self.get(FIPS).as_deref() {
            None => Ok(()),
            Some(REQUIRED) => FipsModule::require().map(|_| ()).map_err(|error| {
                let message = format!("`{FIPS}={REQUIRED}`: {}", error.message());
                error.with_message(message)
            }),
            Some(_) => Err(invalid(format!("`{FIPS}` must be `{REQUIRED}` or unset"))),
        }
    }

    /// Sets `SECRETS_FIPS`: for a program that was built to have the module.
    #[must_use]
    pub fn with_fips_required(mut self) -> Self {
        self.variables
            .insert(FIPS.to_owned(), SecretValue::new(REQUIRED.to_owned()));
        self
    }

    /// The registered backend of a scheme.
    pub(crate) fn backend(&self, scheme: &str) -> Option<&CustomBackend> {
        let mut latest = self.backends.iter().rev();
        latest.find(|backend| backend.table().schemes().contains(&scheme))
    }

    /// The schemes of all registered backends.
    pub(crate) fn schemes(&self) -> impl Iterator<Item = &'static str> {
        self.backends
            .iter()
            .flat_map(|backend| backend.table().schemes())
            .copied()
    }

    /// Whether a variable is set and not empty.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.secret(name).is_some()
    }

    /// The variables whose names begin with the prefix.
    pub(crate) fn only(mut self, prefix: &str) -> Self {
        self.variables.retain(|name, _| name.starts_with(prefix));
        self
    }

    /// All variables but these.
    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        self.variables
            .retain(|name, _| !names.contains(&name.as_str()));
        self
    }

    /// These variables, overridden by others.
    pub(crate) fn overlaid_with(mut self, others: Self) -> Self {
        self.variables.extend(others.variables);
        self.backends.extend(others.backends);
        self
    }

    /// The names of all variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// A variable's value, unless it is empty or injected by Kubernetes.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        self.secret(name).map(|value| value.expose().to_owned())
    }

    /// The same, for a variable that contains a secret.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<SecretValue> {
        let value = self.variables.get(name).filter(|value| !value.is_empty())?;
        (!is_of_a_service(name, value.expose())).then(|| value.clone())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter();
        Self {
            variables: pairs
                .map(|(name, value)| (name.into(), SecretValue::new(value.into())))
                .collect(),
            backends: Vec::new(),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Settings {
    /// Reads the environment: first `SECRET_PERSISTENCE` for the kind of store (the database if it
    /// is unset), then the variables of that kind's key table and of [`COMMON`].
    ///
    /// Only the exact names are read. A variable that looks like a misspelling causes a
    /// [warning](Self::warnings) and not an error, since it may belong to another program.
    ///
    /// # Errors
    /// `InvalidConfig` for a kind that is unknown or not built in, and if no variable is set at
    /// all.
    pub fn from_env(environment: &Environment) -> Result<Self> {
        let mut warnings = misspellings::literal(environment);
        if environment.get(SECRET_PERSISTENCE).is_none()
            && let Some((what, remedy)) = unnamed::find(environment)
        {
            warnings.push(Warning::new(format!("{what}; {remedy}")));
        }
        Ok(Self::of_variables(environment)?.with_warnings(warnings))
    }

    /// Reads the variables of a file, and our own variables from the environment. What is a warning
    /// in an environment, which other programs share, is an error in a file.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env); and `InvalidConfig` if another store than the database
    /// seems to be meant, and for an identity that only an SDK would read.
    pub(super) fn from_file_of_variables(file: Environment, ours: Environment) -> Result<Self> {
        if file.get(SECRET_PERSISTENCE).is_none()
            && let Some((what, remedy)) = unnamed::find(&file)
        {
            return Err(invalid(what).with_hint(remedy));
        }
        let names: Vec<String> = file
            .names()
            .filter(|name| file.secret(name).is_some())
            .map(str::to_owned)
            .collect();
        let settings = Self::of_variables(&ours.overlaid_with(file))?;
        let variable = |setting: &'static str| {
            let row = settings
                .store
                .table()
                .iter()
                .find(|row| row.name == setting)?;
            row.env.first().map(|name| (*name).to_owned())
        };
        let named = names.iter().map(|name| (name.as_str(), name.as_str()));
        identity::refuse_of_sdks(settings.kind, &settings.store, named, variable)?;
        Ok(settings)
    }

    fn of_variables(environment: &Environment) -> Result<Self> {
        let variable = environment.get(SECRET_PERSISTENCE);
        let kind = match &variable {
            Some(text) => Kind::of_variable(text)?,
            None => Kind::Database,
        };
        let warnings = misspellings::find(environment, kind);
        let backend = backend::of(kind)?;
        let store = backend.settings.from_env(&|name| environment.get(name));
        let settings = Self::new(kind, store, SettingMap::new(COMMON)).with_warnings(warnings);
        let says_where = |name| ["url", "host", "path"].contains(&name);
        if variable.is_none() && !settings.store.names().any(says_where) {
            let unset = format!(
                "set {SECRET_PERSISTENCE} to the kind of store; if it is unset, the store is the database in \
                DATABASE_URL or DATABASE_HOST"
            );
            let remedy = unnamed::find(environment).map(|(_, remedy)| remedy);
            return Err(
                invalid("no store is set in the environment").with_hint(remedy.unwrap_or(unset))
            );
        }
        settings.with_environment(environment)
    }
}

/// Kubernetes sets variables such as `<SERVICE>_PORT=tcp://…` in every pod, for every service of
/// its namespace:
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
fn is_of_a_service(name: &str, value: &str) -> bool {
    name.ends_with("_PORT")
        && ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|scheme| value.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::ErrorKind;

    use super::*;

    #[test]
    fn services_of_kubernetes_disturb_nothing() {
        let environment = Environment::from_iter([
            ("DATABASE_PORT", "tcp://10.0.0.7:5432"),
            ("DATABASE_PORT_5432_TCP", "tcp://10.0.0.7:5432"),
            ("VAULT_PORT", "tcp://10.0.0.9:8200"),
            ("VAULT_AUTH_TOKEN", ""),
        ]);
        assert_eq!(environment.get("DATABASE_PORT"), None);
        assert_eq!(environment.get("VAULT_PORT"), None);
        assert_eq!(environment.get("VAULT_AUTH_TOKEN"), None);
    }

    /// An ordinary build refuses to start where the module is required.
    #[test]
    fn fips_is_required_by_its_variable_alone() {
        let set = |value: &str| Environment::from_iter([(FIPS, value)]);
        Environment::empty().require_fips().unwrap();
        set("").require_fips().unwrap();
        for required in [set(REQUIRED), set("").with_fips_required()] {
            let error = required.require_fips().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().contains("not a FIPS module"), "{error}");
        }
        for unclear in ["true", "1", "Required", "off"] {
            let error = set(unclear).require_fips().unwrap_err();
            assert!(error.message().contains("`required` or unset"), "{error}");
        }
    }

    #[test]
    fn a_prefixed_variable_takes_the_plain_ones_place_unless_it_is_empty_or_a_services() {
        let environment = Environment::from_iter([
            ("A", "plain"),
            ("B", "plain"),
            ("MIRROR_A", "mirror"),
            ("MIRROR_B", ""),
            ("DATABASE_PORT", "5433"),
            ("MIRROR_DATABASE_PORT", "udp://10.0.0.7:5432"),
            ("VAULT_PORT", "sctp://10.0.0.7:5432"),
        ]);
        let mirror = environment.with_prefix("MIRROR_");
        assert_eq!(mirror.get("DATABASE_PORT").as_deref(), Some("5433"));
        assert_eq!(mirror.get("VAULT_PORT"), None);
        assert_eq!(mirror.get("A").as_deref(), Some("mirror"));
        assert_eq!(mirror.get("B").as_deref(), Some("plain"));
        assert_eq!(environment.get("A").as_deref(), Some("plain"));
        assert!(!format!("{mirror:?}").contains("plain"));
    }
}
