//! The kinds of stores, and what each form of settings calls them.

use std::fmt;

use secret_persistence_core::{Error, Result};

use crate::settings::invalid;

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// AWS Secrets Manager.
    Aws,
    /// Azure Key Vault.
    Azure,
    /// A table of SQLite or Postgres.
    Database,
    /// Google Secret Manager.
    Google,
    /// HashiCorp Vault.
    Vault,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Aws,
        Self::Azure,
        Self::Database,
        Self::Google,
        Self::Vault,
    ];

    /// The value of `SECRET_PERSISTENCE`, which stands for `type` in a `values.yaml` too.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "AWS_SECRET_MANAGER",
            Self::Azure => "AZURE_KEY_VAULT",
            Self::Database => "TESTING_CONFIG_DB_TABLE",
            Self::Google => "GOOGLE_SECRET_MANAGER",
            Self::Vault => "VAULT",
        }
    }

    /// The store's block in `global.secretsManager` of a `values.yaml`, and the other form of `type`.
    /// A database has its own place in the file.
    #[must_use]
    pub const fn helm_block(self) -> Option<&'static str> {
        match self {
            Self::Aws => Some("awsSecretManager"),
            Self::Azure => Some("azureKeyVault"),
            Self::Database => None,
            Self::Google => Some("googleSecretManager"),
            Self::Vault => Some("vault"),
        }
    }

    /// The store, for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Aws => "AWS Secrets Manager",
            Self::Azure => "Azure Key Vault",
            Self::Database => "SQLite or Postgres",
            Self::Google => "Google Secret Manager",
            Self::Vault => "HashiCorp Vault",
        }
    }

    /// The feature that builds its backend.
    pub(crate) const fn feature(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Database => "sqlite (or postgres)",
            Self::Google => "gcp",
            Self::Vault => "vault",
        }
    }

    /// Reads a value of `SECRET_PERSISTENCE`, in any case.
    ///
    /// # Errors
    /// `InvalidConfig` for any other text, with the nearest that is known.
    pub(crate) fn of_variable(text: &str) -> Result<Self> {
        let wanted = text.trim().to_ascii_uppercase();
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == wanted);
        found.ok_or_else(|| unknown("SECRET_PERSISTENCE", &wanted))
    }

    /// Reads `type` of `global.secretsManager`: the name of the block or the upper-case form.
    ///
    /// # Errors
    /// As [`of_variable`](Self::of_variable).
    pub(crate) fn of_helm(text: &str) -> Result<Self> {
        let text = text.trim();
        let is_block = |kind: &Self| {
            let block = kind.helm_block();
            block.is_some_and(|block| block.eq_ignore_ascii_case(text))
        };
        if let Some(kind) = Self::ALL.iter().find(|kind| is_block(kind)) {
            return Ok(*kind);
        }
        let wanted = text.to_ascii_uppercase();
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == wanted);
        found.ok_or_else(|| unknown("global.secretsManager.type", &wanted))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// The text is not repeated: something else may have been pasted there.
fn unknown(place: &str, text: &str) -> Error {
    let known = Kind::ALL.map(Kind::as_str);
    let nearest = known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3);
    invalid(format!("`{place}` names no kind of store")).with_hint(match nearest {
        Some((_, name)) => format!("did you mean {name}?"),
        None => format!("it is one of {}", known.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood_in_its_place() {
        for (text, kind) in [
            ("AWS_SECRET_MANAGER", Kind::Aws),
            ("aws_secret_manager", Kind::Aws),
            ("Google_Secret_Manager", Kind::Google),
            ("AZURE_KEY_VAULT", Kind::Azure),
            ("vault", Kind::Vault),
            ("testing_config_db_table", Kind::Database),
        ] {
            assert_eq!(Kind::of_variable(text).unwrap(), kind);
            assert_eq!(Kind::of_helm(text).unwrap(), kind);
        }
        for (text, kind) in [
            ("awsSecretManager", Kind::Aws),
            ("googleSecretManager", Kind::Google),
            ("azureKeyVault", Kind::Azure),
            ("VAULT", Kind::Vault),
        ] {
            assert_eq!(Kind::of_helm(text).unwrap(), kind);
        }
        let error = Kind::of_variable("AWS_SECRETS_MANAGER").unwrap_err();
        assert_eq!(error.hint(), Some("did you mean AWS_SECRET_MANAGER?"));
        let error = Kind::of_variable("hvs.canary").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
        assert!(Kind::of_variable("awsSecretManager").is_err());
    }
}
