//! Refuses identities for a provider's SDK in a file of variables.
//!
//! An SDK reads its variables from the process, never from a file. With one identity in the file
//! and another one in the shell, the SDK would use the shell's. Therefore the file is refused, with
//! what to write instead.

use secret_persistence_core::Result;
use secret_persistence_core::settings::SettingMap;

use super::invalid;
use crate::kind::Kind;

/// Variables of an SDK that define an identity.
struct Sdk {
    kind: Kind,
    /// If one of these settings is set, the SDK does not look for an identity.
    unless: &'static [&'static str],
    /// A variable, and the setting to write instead. Without one, the process must have the
    /// variable.
    variables: &'static [(&'static str, Option<&'static str>)],
}

/// <https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html>,
/// <https://cloud.google.com/docs/authentication/application-default-credentials>,
/// <https://learn.microsoft.com/dotnet/api/azure.identity.environmentcredential>,
/// <https://www.postgresql.org/docs/current/libpq-envars.html>
const SDKS: &[Sdk] = &[
    Sdk {
        kind: Kind::Aws,
        unless: &["access-key-id", "assume-role-access-key-id", "profile"],
        variables: &[
            ("AWS_ACCESS_KEY_ID", Some("access-key-id")),
            ("AWS_SECRET_ACCESS_KEY", Some("secret-access-key")),
            ("AWS_SESSION_TOKEN", Some("session-token")),
            ("AWS_PROFILE", None),
            ("AWS_DEFAULT_PROFILE", None),
            ("AWS_ROLE_ARN", None),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", None),
            ("AWS_CONFIG_FILE", None),
            ("AWS_SHARED_CREDENTIALS_FILE", None),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", None),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", None),
        ],
    },
    Sdk {
        kind: Kind::Azure,
        unless: &["client-secret", "federated-token-file"],
        variables: &[
            ("AZURE_CLIENT_SECRET", Some("client-secret")),
            ("AZURE_CLIENT_CERTIFICATE_PATH", Some("client-secret")),
            ("AZURE_USERNAME", Some("client-secret")),
            ("AZURE_PASSWORD", Some("client-secret")),
            ("IDENTITY_ENDPOINT", None),
            ("MSI_ENDPOINT", None),
        ],
    },
    Sdk {
        kind: Kind::Database,
        unless: &["url", "path"],
        variables: &[
            ("PGHOST", Some("host")),
            ("PGUSER", Some("user")),
            ("PGPASSWORD", Some("password")),
        ],
    },
    Sdk {
        kind: Kind::Google,
        unless: &["credentials", "credentials-file", "credentials-source"],
        variables: &[
            ("GOOGLE_APPLICATION_CREDENTIALS", Some("credentials-file")),
            ("GCE_METADATA_HOST", None),
        ],
    },
    Sdk {
        kind: Kind::Vault,
        unless: &["token", "role-id", "role", "jwt"],
        variables: &[("VAULT_TOKEN", Some("token"))],
    },
];

/// Refuses variables that define an identity which the settings do not contain.
///
/// `variables` are those of the file, each with its place; `called` returns the name of a setting
/// in the file.
///
/// # Errors
/// `InvalidConfig`, with the place and what to write there.
pub(super) fn refuse_of_sdks<'a>(
    kind: Kind,
    store: &SettingMap,
    variables: impl Iterator<Item = (&'a str, &'a str)>,
    called: impl Fn(&'static str) -> Option<String>,
) -> Result<()> {
    let sdk = SDKS.iter().find(|sdk| sdk.kind == kind);
    let Some(sdk) = sdk.filter(|sdk| !sdk.unless.iter().any(|name| store.is_set(name))) else {
        return Ok(());
    };
    for (place, name) in variables {
        let known = sdk.variables.iter().find(|(known, _)| *known == name);
        let setting = match known {
            // Each of a database's variables is an identity.
            Some((_, Some(setting))) if store.is_set(setting) => continue,
            Some((_, setting)) => *setting,
            None => continue,
        };
        let remedy = match setting.and_then(&called) {
            Some(key) => format!("set {key} instead"),
            None => String::from("remove it here, and set it where the process runs"),
        };
        return Err(invalid(format!(
            "`{place}` defines an identity that only an SDK reads, and only from the environment of the \
             process: the file would be used with another identity"
        ))
        .with_hint(remedy));
    }
    Ok(())
}
