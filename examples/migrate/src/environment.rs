//! Settings and credentials from the environment, where a prefixed variable beats the plain one.

use std::collections::BTreeMap;
use std::fmt;

use secret_persistence_core::Owner;

use crate::status::{Failure, Result};

/// Which of a command's stores or databases a variable is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `--configs` and `--references`: `CONFIG_`.
    Config,
    /// `--from`: `FROM_`.
    From,
    /// `--journal`: `JOURNAL_`.
    Journal,
    /// `--store`: `STORE_`.
    Store,
    /// `--to`: `TO_`.
    To,
}

impl Role {
    /// What a variable for this role begins with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Config => "CONFIG_",
            Self::From => "FROM_",
            Self::Journal => "JOURNAL_",
            Self::Store => "STORE_",
            Self::To => "TO_",
        }
    }

    /// The option that names the store or database.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Config => "--configs",
            Self::From => "--from",
            Self::Journal => "--journal",
            Self::Store => "--store",
            Self::To => "--to",
        }
    }
}

/// The variables of the process, or those of a test.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process. One that is not UTF-8 is as good as unset.
    pub(crate) fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// A variable for a role: the prefixed one where it is set, the plain one otherwise. An empty
    /// variable is unset, so an empty prefixed one does not hide the plain one.
    pub(crate) fn of(&self, role: Role, name: &str) -> Option<&str> {
        self.plain(&format!("{}{name}", role.prefix()))
            .or_else(|| self.plain(name))
    }

    /// Asks for the variables of a role.
    pub(crate) fn variables(&self, role: Role) -> impl Fn(&str) -> Option<String> + Send + Sync {
        move |name| self.of(role, name).map(str::to_owned)
    }

    /// The variables for the settings of a role's store.
    pub(crate) fn of_store(&self, role: Role) -> secret_persistence::Environment {
        let variables: secret_persistence::Environment = self.0.clone().into_iter().collect();
        variables.with_prefix(role.prefix())
    }

    /// A variable without a prefix; unset where it is what Kubernetes injects for a service of an
    /// unlucky name, like `DATABASE_PORT=tcp://…`.
    pub(crate) fn plain(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
            .filter(|value| !(name.ends_with("_PORT") && value.starts_with("tcp://")))
    }

    /// The owner that is written with every secret, where it is set.
    pub(crate) fn owner(&self, role: Role) -> Result<Option<Owner>> {
        self.of(role, "SECRETS_OWNER")
            .map(Owner::parse)
            .transpose()
            .map_err(Failure::from)
    }
}

#[cfg(test)]
impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }
}

/// Names only: the values are credentials.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().copied().collect()
    }

    #[test]
    fn the_prefixed_variable_wins_and_an_empty_one_is_unset() {
        let environment = environment(&[
            ("SECRETS_KEYRING_FILE", "plain"),
            ("TO_SECRETS_KEYRING_FILE", "to"),
            ("STORE_SECRETS_KEYRING_FILE", ""),
        ]);
        let of = |role| environment.of(role, "SECRETS_KEYRING_FILE");
        assert_eq!(of(Role::To), Some("to"));
        assert_eq!(of(Role::From), Some("plain"));
        assert_eq!(of(Role::Store), Some("plain"));
        assert_eq!(environment.of(Role::To, "SECRETS_OWNER"), None);
    }

    #[test]
    fn services_of_kubernetes_disturb_nothing() {
        let environment = environment(&[("DATABASE_PORT", "tcp://10.0.0.7:5432")]);
        assert_eq!(environment.of(Role::From, "DATABASE_PORT"), None);
    }

    #[test]
    fn debug_shows_no_value() {
        let text = format!("{:?}", environment(&[("TO_VAULT_AUTH_TOKEN", "s.secret")]));
        assert_eq!(text, r#"{"TO_VAULT_AUTH_TOKEN"}"#);
    }
}
