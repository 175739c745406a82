//! The kinds of stores, and their names in each form of settings.

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
    /// A [backend of the caller](crate::CustomBackend), with its first scheme.
    Custom(&'static str),
    /// A table of SQLite or Postgres.
    Database,
    /// Google Secret Manager.
    Google,
    /// HashiCorp Vault.
    Vault,
}

impl Kind {
    /// Every kind of this crate.
    pub const ALL: [Self; 5] = [
        Self::Aws,
        Self::Azure,
        Self::Database,
        Self::Google,
        Self::Vault,
    ];

    /// The value of `SECRET_PERSISTENCE`, which is also valid as `type` in a `values.yaml`. A
    /// backend of the caller has only its scheme, which neither understands.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "AWS_SECRET_MANAGER",
            Self::Azure => "AZURE_KEY_VAULT",
            Self::Custom(scheme) => scheme,
            Self::Database => "TESTING_CONFIG_DB_TABLE",
            Self::Google => "GOOGLE_SECRET_MANAGER",
            Self::Vault => "VAULT",
        }
    }

    /// The name of the store's block in `global.secretsManager` of a `values.yaml`, also valid as
    /// `type`. A database has its own place in the file, and a backend of the caller none.
    #[must_use]
    pub const fn helm_block(self) -> Option<&'static str> {
        match self {
            Self::Aws => Some("awsSecretManager"),
            Self::Azure => Some("azureKeyVault"),
            Self::Custom(_) | Self::Database => None,
            Self::Google => Some("googleSecretManager"),
            Self::Vault => Some("vault"),
        }
    }

    /// The name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Aws => "AWS Secrets Manager",
            Self::Azure => "Azure Key Vault",
            Self::Custom(scheme) => scheme,
            Self::Database => "SQLite or Postgres",
            Self::Google => "Google Secret Manager",
            Self::Vault => "HashiCorp Vault",
        }
    }

    /// The feature that enables its backend. A backend of the caller has none.
    pub(crate) const fn feature(self) -> Option<&'static str> {
        match self {
            Self::Aws => Some("aws"),
            Self::Azure => Some("azure"),
            Self::Custom(_) => None,
            Self::Database => Some("sqlite (or postgres)"),
            Self::Google => Some("gcp"),
            Self::Vault => Some("vault"),
        }
    }

    /// Parses a value of `SECRET_PERSISTENCE`, in upper or lower case.
    ///
    /// # Errors
    /// `InvalidConfig` for any other text, with the nearest known name.
    pub(crate) fn of_variable(text: &str) -> Result<Self> {
        let wanted = text.trim().to_ascii_uppercase();
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == wanted);
        found.ok_or_else(|| unknown("SECRET_PERSISTENCE", &wanted, Self::as_str))
    }

    /// Parses `type` of `global.secretsManager` or of another place: the name of the block or the
    /// upper-case form.
    ///
    /// # Errors
    /// As [`of_variable`](Self::of_variable).
    pub(crate) fn of_helm(place: &str, text: &str) -> Result<Self> {
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
        // The name of a block identifies its kind.
        let is_of_blocks = !text.contains('_') && text != wanted;
        found.ok_or_else(|| {
            unknown(place, &wanted, |kind| {
                let block = kind.helm_block().filter(|_| is_of_blocks);
                block.unwrap_or(kind.as_str())
            })
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// Words that identify a provider.
const PROVIDERS: &[(Kind, &[&str])] = &[
    (Kind::Aws, &["AWS", "AMAZON"]),
    (Kind::Azure, &["AZURE", "AKV"]),
    (Kind::Google, &["GOOGLE", "GCP", "GSM"]),
    (Kind::Vault, &["HASHICORP", "OPENBAO", "BAO"]),
    (
        Kind::Database,
        &["POSTGRES", "DATABASE", "SQLITE", "CONFIG_DB", "TESTING"],
    ),
    (Kind::Vault, &["VAULT"]),
];

/// Never repeats the text, which may be a pasted secret.
fn unknown(place: &str, text: &str, called: impl Fn(Kind) -> &'static str) -> Error {
    let error = invalid(format!("`{place}` does not name a kind of store"));
    if ["NONE", "NO_OP", "NOOP"].contains(&text) {
        return error.with_hint(
            "with it, Airbyte stores secrets in the configurations, so there is no store to open; `split` of \
             the migration tool moves them into a store",
        );
    }
    let has = |words: &&[&str]| words.iter().any(|word| text.contains(word));
    let provider = PROVIDERS.iter().find(|(_, words)| has(words));
    let nearest = Kind::ALL
        .into_iter()
        .map(|kind| {
            (
                strsim::damerau_levenshtein(text, &called(kind).to_ascii_uppercase()),
                kind,
            )
        })
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let meant = provider
        .map(|(kind, _)| *kind)
        .or(nearest.map(|(_, kind)| kind));
    error.with_hint(match meant {
        Some(kind) => format!("did you mean {}?", called(kind)),
        None => format!("use one of {}", Kind::ALL.map(called).join(", ")),
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
            assert_eq!(Kind::of_helm("type", text).unwrap(), kind);
        }
        for (text, kind) in [
            ("awsSecretManager", Kind::Aws),
            ("googleSecretManager", Kind::Google),
            ("azureKeyVault", Kind::Azure),
            ("VAULT", Kind::Vault),
        ] {
            assert_eq!(Kind::of_helm("type", text).unwrap(), kind);
        }
        let error = Kind::of_variable("AWS_SECRETS_MANAGER").unwrap_err();
        assert_eq!(error.hint(), Some("did you mean AWS_SECRET_MANAGER?"));
        for (text, meant) in [
            ("AZURE_SECRET_MANAGER", "AZURE_KEY_VAULT"),
            ("AZURE_VAULT", "AZURE_KEY_VAULT"),
            ("AWS_SECRETS", "AWS_SECRET_MANAGER"),
            ("GCP_SECRET_MANAGER", "GOOGLE_SECRET_MANAGER"),
            ("GOOGLE_KEY_VAULT", "GOOGLE_SECRET_MANAGER"),
            ("HASHICORP_VAULT", "VAULT"),
            ("OPENBAO", "VAULT"),
            ("VAULTS", "VAULT"),
            ("POSTGRES", "TESTING_CONFIG_DB_TABLE"),
        ] {
            let meant = format!("did you mean {meant}?");
            for error in [Kind::of_variable(text), Kind::of_helm("type", text)] {
                assert_eq!(error.unwrap_err().hint(), Some(meant.as_str()), "{text}");
            }
        }
        // The suggestion uses the names of blocks, as in the file.
        for (text, meant) in [
            ("azureSecretManager", "azureKeyVault"),
            ("gcpSecretManager", "googleSecretManager"),
            ("hashicorpVault", "vault"),
        ] {
            let error = Kind::of_helm("type", text).unwrap_err();
            assert_eq!(
                error.hint(),
                Some(format!("did you mean {meant}?").as_str())
            );
        }
        for text in ["NONE", "none", "NO_OP"] {
            let error = Kind::of_variable(text).unwrap_err();
            assert!(error.hint().unwrap().contains("no store to open"), "{text}");
        }
        // Neither of two stores is nearer.
        let hint = Kind::of_variable("SECRET_MANAGER").unwrap_err();
        assert!(hint.hint().unwrap().starts_with("use one of"), "{hint}");
        let error = Kind::of_variable("ASW_SECRET_MANAGER").unwrap_err();
        assert_eq!(error.hint(), Some("did you mean AWS_SECRET_MANAGER?"));
        let error = Kind::of_variable("hvs.canary").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
        assert!(Kind::of_variable("awsSecretManager").is_err());
    }
}
