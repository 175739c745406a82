//! Finds environment variables that look like misspellings of ours.

use std::fmt;

use super::environment::SECRET_PERSISTENCE;
use super::{COMMON, Environment};
use crate::backend;
use crate::kind::Kind;

/// Something suspicious that is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(String);

impl Warning {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Similar variables of other tools: kind of store, their name, our name.
const OTHERS: &[(Kind, &str, &str)] = &[
    (Kind::Aws, "AWS_REGION", "AWS_SECRET_MANAGER_REGION"),
    (Kind::Aws, "AWS_DEFAULT_REGION", "AWS_SECRET_MANAGER_REGION"),
    (
        Kind::Aws,
        "AWS_SECRET_MANAGER_TAGS",
        "AWS_SECRET_MANAGER_SECRET_TAGS",
    ),
    (
        Kind::Aws,
        "AWS_SECRET_MANAGER_ACCESS_KEY",
        "AWS_SECRET_MANAGER_ACCESS_KEY_ID",
    ),
    (
        Kind::Azure,
        "AZURE_CLIENT_ID",
        "AB_AZURE_KEY_VAULT_CLIENT_ID",
    ),
    (
        Kind::Azure,
        "AZURE_CLIENT_SECRET",
        "AB_AZURE_KEY_VAULT_CLIENT_SECRET",
    ),
    (
        Kind::Azure,
        "AZURE_TENANT_ID",
        "AB_AZURE_KEY_VAULT_TENANT_ID",
    ),
    (
        Kind::Azure,
        "AZURE_KEY_VAULT_URL",
        "AB_AZURE_KEY_VAULT_VAULT_URL",
    ),
    (
        Kind::Azure,
        "AB_AZURE_KEY_VAULT_URL",
        "AB_AZURE_KEY_VAULT_VAULT_URL",
    ),
    (Kind::Database, "DATABASE_NAME", "DATABASE_DB"),
    (Kind::Database, "DATABASE_USERNAME", "DATABASE_USER"),
    (
        Kind::Google,
        "GOOGLE_CLOUD_PROJECT",
        "SECRET_STORE_GCP_PROJECT_ID",
    ),
    (
        Kind::Google,
        "SECRET_STORE_GCP_PROJECT",
        "SECRET_STORE_GCP_PROJECT_ID",
    ),
    (Kind::Vault, "VAULT_ADDR", "VAULT_ADDRESS"),
    (Kind::Vault, "VAULT_TOKEN", "VAULT_AUTH_TOKEN"),
    (Kind::Vault, "VAULT_URL", "VAULT_ADDRESS"),
];

/// The prefixes of our own variables.
const OURS: &str = "SECRETS_";

/// The maximum number of different letters in a misspelling.
const FAR: usize = 2;

/// Finds misspelt variables: among the variables of this kind, the common ones, and the one that
/// names the kind.
pub(super) fn find(environment: &Environment, kind: Kind) -> Vec<Warning> {
    let (mut ours, mut all) = (vec![SECRET_PERSISTENCE], vec![SECRET_PERSISTENCE]);
    let common = COMMON.iter().flat_map(|row| row.env);
    ours.extend(common.clone());
    all.extend(common);
    for backend in backend::built_in() {
        let names = backend.settings.rows().iter().flat_map(|row| row.env);
        if backend.kind == kind {
            ours.extend(names.clone());
        }
        all.extend(names);
    }
    let mut warnings = Vec::new();
    for name in environment.names() {
        if all.contains(&name) || is_of_a_service(name) {
            continue;
        }
        let other = OTHERS
            .iter()
            .find(|(of, theirs, ours)| {
                *of == kind && *theirs == name && environment.secret(ours).is_none()
            })
            .map(|(_, _, ours)| *ours);
        if let Some(known) = other.or_else(|| nearest(name, &ours)) {
            warnings.push(Warning::new(format!(
                "the environment variable {name} is not read; was {known} meant?"
            )));
        }
    }
    warnings
}

/// Finds our variables whose values contain the syntax of a file: `docker run --env-file` and
/// `environment` in a compose file keep quotes, comments and spaces.
pub(super) fn literal(environment: &Environment) -> Vec<Warning> {
    let rows = backend::built_in();
    let rows = rows.iter().flat_map(|backend| backend.settings.rows());
    let names = rows.chain(COMMON).flat_map(|row| row.env).copied();
    let mut names: Vec<&str> = names.chain([SECRET_PERSISTENCE]).collect();
    names.sort_unstable();
    names.dedup();
    let mut warnings = Vec::new();
    for name in names {
        let Some(value) = environment.get(name) else {
            continue;
        };
        let in_quotes =
            |quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
        let what = if in_quotes('"') || in_quotes('\'') {
            "has quotes around its value, which are part of it"
        } else if value.trim_end_matches(['\r', '\n']).trim()
            != value.trim_end_matches(['\r', '\n'])
        {
            "has spaces around its value, which are part of it"
        } else if value.contains(" #") && !value.starts_with('{') {
            "has a comment in its value, which is part of it"
        } else {
            continue;
        };
        warnings.push(Warning::new(format!(
            "the environment variable {name} {what}"
        )));
    }
    warnings
}

/// The probable intended name: equal except for case and separators, or different by one or two
/// letters.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // A truncated name. Only the names with our own prefix are certainly ours.
    let cut = |known: &&&str| name.starts_with(OURS) && known.starts_with(name);
    if let Some(known) = known.iter().find(cut) {
        return Some(known);
    }
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.map(|letter| letter.to_ascii_uppercase()).collect()
    };
    let folded = plain(name);
    known
        .iter()
        .filter_map(|known| {
            let distance = match plain(known) == folded {
                true => 0,
                false => strsim::damerau_levenshtein(name, known),
            };
            (distance <= FAR.min(known.len() / 6)).then_some((distance, *known))
        })
        .min()
        .map(|(_, known)| known)
}

/// Matches `<SERVICE>_SERVICE_HOST`, `<SERVICE>_PORT_8200_TCP_ADDR` and similar variables of
/// Kubernetes.
fn is_of_a_service(name: &str) -> bool {
    name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || {
        name.rsplit_once("_PORT")
            .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('_'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: Kind, names: &[&str]) -> Vec<String> {
        let environment = names.iter().map(|name| (*name, "canary")).collect();
        let warnings = find(&environment, kind);
        warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn misspelt_names_are_found() {
        for (name, meant) in [
            ("SECRET_PERSISTANCE", "SECRET_PERSISTENCE"),
            ("secret_persistence", "SECRET_PERSISTENCE"),
            ("SECRETPERSISTENCE", "SECRET_PERSISTENCE"),
            ("SECRETS_OWNERS", "SECRETS_OWNER"),
            ("SECRETS_CACHE_TTL", "SECRETS_CACHE_TTL_SECONDS"),
        ] {
            let warnings = found(Kind::Database, &[name]);
            assert!(
                warnings.len() == 1 && warnings[0].contains(meant),
                "{name}: {warnings:?}"
            );
            assert!(!warnings[0].contains("canary"));
        }
    }

    #[cfg(feature = "vault")]
    #[test]
    fn values_as_a_file_has_them_are_told() {
        let told = |value: &str| {
            let environment = [("VAULT_PREFIX", value), ("OTHER", "'a'")]
                .into_iter()
                .collect();
            let warnings = literal(&environment);
            let texts = warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert!(!texts.concat().contains("canary"));
            texts.concat()
        };
        for (value, expected) in [
            ("\"canary/\"", "quotes"),
            ("'canary/'", "quotes"),
            ("canary/ ", "spaces"),
            (" canary/", "spaces"),
            ("canary/ # ours", "comment"),
        ] {
            assert!(told(value).contains(expected), "{value}");
        }
        for fine in ["", "canary/", "canary/\n", "can\"ary/", "\"", "canary#1"] {
            assert_eq!(told(fine), "", "{fine}");
        }
    }

    #[cfg(feature = "vault")]
    #[test]
    fn the_names_of_other_tools_are_told_apart() {
        let warnings = found(Kind::Vault, &["VAULT_ADDR", "VAULT_TOKEN"]);
        assert!(warnings[0].contains("VAULT_ADDRESS") && warnings[1].contains("VAULT_AUTH_TOKEN"));
        // If ours are set too, the others belong to the other tool.
        assert!(found(Kind::Vault, &["VAULT_ADDR", "VAULT_ADDRESS"]).is_empty());
        assert!(found(Kind::Database, &["VAULT_ADDR"]).is_empty());
        assert_eq!(
            found(Kind::Vault, &["VAULT_ADRESS", "VAULT_PREDICATES"]).len(),
            1
        );
    }

    #[test]
    fn what_is_somebody_elses_is_left_alone() {
        let others = [
            "AB_AZURE_KEY_CLIENT_ID_REF_NAME",
            "AWS_ROLE_ARN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "CONFIG_DATABASE_REPLICA_URL",
            "DATABASE_PORT_5432_TCP",
            "DATABASE_SERVICE_HOST",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "HOME",
            "JOBS_DATABASE_MINIMUM_FLYWAY_MIGRATION_VERSION",
            "PATH",
            "SECRET_STORE_GCP_SECRET_KEY",
            "SECRET_STORE_GCP_SECRET_NAME",
            "VAULT_AUTH_TOKEN_REF_NAME",
            "VAULT_PORT",
            "VAULT_PORT_8200_TCP_ADDR",
            "VAULT_SERVICE_HOST",
            "VAULT_SERVICE_PORT_HTTPS",
        ];
        for kind in Kind::ALL {
            assert_eq!(found(kind, &others), [""; 0], "{kind}");
        }
    }
}
