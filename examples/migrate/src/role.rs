//! The role of a store or database in a command.

use secret_persistence::Environment;

/// A store or database of a command: determines its option and the prefix of its variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `--configs` and `--references`: `CONFIG_`.
    Config,
    /// `--from`: `FROM_`.
    From,
    /// `--journal`: `JOURNAL_`.
    Journal,
    /// `--ledger`: `LEDGER_`.
    Ledger,
    /// `--store`: `STORE_`.
    Store,
    /// `--to`: `TO_`.
    To,
}

impl Role {
    /// The prefix of variables for this role.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Config => "CONFIG_",
            Self::From => "FROM_",
            Self::Journal => "JOURNAL_",
            Self::Ledger => "LEDGER_",
            Self::Store => "STORE_",
            Self::To => "TO_",
        }
    }

    /// The option for the store or database.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Config => "--configs",
            Self::From => "--from",
            Self::Journal => "--journal",
            Self::Ledger => "--ledger",
            Self::Store => "--store",
            Self::To => "--to",
        }
    }

    /// The environment of this role: `FROM_VAULT_ADDRESS` replaces `VAULT_ADDRESS`.
    pub(crate) fn view(self, environment: &Environment) -> Environment {
        environment.with_prefix(self.prefix())
    }

    /// Reads a variable of that environment.
    pub(crate) fn variables(
        self,
        environment: &Environment,
    ) -> impl Fn(&str) -> Option<String> + Send + Sync + use<> {
        let view = self.view(environment);
        move |name| view.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefixed_variable_wins_and_an_empty_one_is_unset() {
        let environment = Environment::from_iter([
            ("SECRETS_KEYRING_FILE", "plain"),
            ("TO_SECRETS_KEYRING_FILE", "to"),
            ("STORE_SECRETS_KEYRING_FILE", ""),
        ]);
        let of = |role: Role| role.view(&environment).get("SECRETS_KEYRING_FILE");
        assert_eq!(of(Role::To).as_deref(), Some("to"));
        assert_eq!(of(Role::From).as_deref(), Some("plain"));
        assert_eq!(of(Role::Store).as_deref(), Some("plain"));
        assert_eq!(Role::To.view(&environment).get("SECRETS_OWNER"), None);
    }

    #[test]
    fn services_of_kubernetes_disturb_nothing() {
        for protocol in ["tcp", "udp", "sctp"] {
            let link = format!("{protocol}://10.0.0.7:5432");
            let environment = Environment::from_iter([("DATABASE_PORT", link)]);
            let port = Role::From.variables(&environment)("DATABASE_PORT");
            assert_eq!(port, None, "{protocol}");
        }
    }
}
