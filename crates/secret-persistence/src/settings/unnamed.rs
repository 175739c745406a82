//! Detects stores that are configured, but named where nothing reads it: the database would be used
//! instead, in plain text.

use super::Environment;
use super::environment::SECRET_PERSISTENCE;
use crate::kind::Kind;

/// Variables of other tools that name the kind of store.
const NAMES: &[&str] = &[
    "SECRETS_MANAGER",
    "SECRETS_MANAGER_TYPE",
    "SECRET_MANAGER",
    "SECRET_MANAGER_TYPE",
    "SECRET_STORE",
    "SECRET_STORE_TYPE",
];

/// The prefixes of the variables of a store.
const OF_STORES: &[(&str, Kind)] = &[
    ("AB_AZURE_KEY_VAULT_", Kind::Azure),
    ("AWS_SECRET_MANAGER_", Kind::Aws),
    ("SECRET_STORE_GCP_", Kind::Google),
    ("VAULT_ADDR", Kind::Vault),
    ("VAULT_AUTH_", Kind::Vault),
    ("VAULT_NAMESPACE", Kind::Vault),
    ("VAULT_PREFIX", Kind::Vault),
    ("VAULT_TOKEN", Kind::Vault),
];

/// What a variable says about a store other than a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// It names a kind of store, or seems to.
    Kind,
    /// It is a setting of such a store.
    Store(Kind),
}

/// What a variable says about the store.
pub(super) fn about(name: &str) -> Option<About> {
    let folded = name.to_ascii_uppercase().replace('-', "_");
    let near = strsim::damerau_levenshtein(&folded, SECRET_PERSISTENCE) <= 2;
    if near || folded.starts_with(SECRET_PERSISTENCE) || NAMES.contains(&folded.as_str()) {
        return Some(About::Kind);
    }
    let store = OF_STORES.iter().find(|(start, _)| name.starts_with(start));
    store.map(|(_, kind)| About::Store(*kind))
}

/// A variable about a store while `SECRET_PERSISTENCE` is unset, and the remedy.
pub(super) fn find(environment: &Environment) -> Option<(String, String)> {
    let set = environment
        .names()
        .filter(|name| environment.secret(name).is_some());
    let found: Vec<(&str, About)> = set.filter_map(|name| Some((name, about(name)?))).collect();
    let kind = found.iter().find_map(|(_, about)| match about {
        About::Store(kind) => Some(*kind),
        About::Kind => None,
    });
    // A variable with the kind is more specific than a setting of one kind.
    let (name, _) = found
        .iter()
        .find(|(_, about)| *about == About::Kind)
        .or(found.first())?;
    let meant = match kind {
        Some(kind) => format!("{SECRET_PERSISTENCE}={}", kind.as_str()),
        None => format!("{SECRET_PERSISTENCE} to the kind of store"),
    };
    Some((
        format!(
            "{SECRET_PERSISTENCE} is not set, so the database would store the secrets, although {name} is set"
        ),
        format!(
            "set {meant}, or {SECRET_PERSISTENCE}={} for the database",
            Kind::Database.as_str()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_a_store_is_told_from_what_is_not() {
        for name in [
            "SECRET_PERSISTENCE",
            "SECRET_PERSISTENCE_TYPE",
            "SECRET_PERSISTANCE",
            "SECRETS_PERSISTENCE",
            "secret_persistence",
            "SECRET_MANAGER_TYPE",
        ] {
            assert_eq!(about(name), Some(About::Kind), "{name}");
        }
        for (name, kind) in [
            ("VAULT_ADDRESS", Kind::Vault),
            ("VAULT_ADDR", Kind::Vault),
            ("VAULT_TOKEN", Kind::Vault),
            ("VAULT_AUTH_TOKEN", Kind::Vault),
            ("VAULT_PREFIX", Kind::Vault),
            ("AWS_SECRET_MANAGER_REGION", Kind::Aws),
            ("SECRET_STORE_GCP_PROJECT_ID", Kind::Google),
            ("AB_AZURE_KEY_VAULT_VAULT_URL", Kind::Azure),
        ] {
            assert_eq!(about(name), Some(About::Store(kind)), "{name}");
        }
        for name in [
            "VAULT_PORT",
            "VAULT_SERVICE_HOST",
            "AWS_REGION",
            "DATABASE_URL",
            "SECRETS_OWNER",
            "SECRET_KEY",
            "HOME",
        ] {
            assert_eq!(about(name), None, "{name}");
        }
    }
}
