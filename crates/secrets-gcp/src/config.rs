//! The checked configuration of the store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secret_persistence_core::settings::{SettingMap, endpoint, invalid, is_loopback};
use secret_persistence_core::{Owner, Result};
use url::Url;

use crate::key::Key;
use crate::naming::{Place, Project, Region};

/// The label that contains the owner of a secret.
pub const OWNER_LABEL: &str = "secret-persistence-owner";

/// The maximum number of labels per secret.
/// <https://cloud.google.com/secret-manager/docs/creating-and-managing-labels>
const MAX_LABELS: usize = 64;

/// A complete, checked configuration.
///
/// ```
/// use secret_persistence_gcp::{Config, SETTINGS};
///
/// let config = Config::from_settings(&SETTINGS.from_pairs([
///     ("project-id", "my-project"),
///     ("region", "europe-west3"),
///     ("labels", "team=data"),
/// ])?)?;
/// # let _ = config;
/// // A label that Google would refuse.
/// let capital = SETTINGS.from_pairs([("project-id", "my-project"), ("labels", "Team=data")])?;
/// assert!(Config::from_settings(&capital).is_err());
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) place: Place,
    pub(crate) replication: Replication,
    pub(crate) credentials: Credentials,
    pub(crate) impersonate: Option<String>,
    pub(crate) kms_key: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) owner: Option<Owner>,
    pub(crate) endpoint: Option<Url>,
}

impl Config {
    /// Checks settings of [`SETTINGS`](crate::SETTINGS), from any form. The owner is not a setting
    /// of the store: add it with [`with_owner`](Self::with_owner).
    ///
    /// A tenant's settings must contain an unmodified service account key: without one the store
    /// would use the platform's identity, and other types of credentials could name other
    /// addresses.
    ///
    /// # Errors
    /// `InvalidConfig` if a setting is missing, contradicts another one, or is outside Google's
    /// limits.
    pub fn from_settings(settings: &SettingMap) -> Result<Self> {
        let text = |name| settings.text(name).filter(|text| !text.is_empty());
        let project = Project::parse(text("project-id").unwrap_or_default())?;
        let region = text("region").map(Region::parse).transpose()?;
        let (replication, region) = replication(text("replication"), region)?;
        let place = Place { project, region };
        if let Some(key) = text("kms-key") {
            check_kms_key(key, replication.key_location(&place))?;
        }
        if let Some(account) = text("impersonate-service-account") {
            check_service_account(account)?;
        }
        let endpoint = text("endpoint-url").map(endpoint).transpose()?;
        let credentials = credentials(settings)?;
        let is_emulator = endpoint
            .as_ref()
            .and_then(Url::host_str)
            .is_some_and(is_loopback);
        if matches!(credentials, Credentials::Anonymous) && !is_emulator {
            return Err(invalid(
                "anonymous requests require an emulator on loopback, named by endpoint-url",
            ));
        }
        Ok(Self {
            place,
            replication,
            credentials,
            impersonate: text("impersonate-service-account").map(str::to_owned),
            kms_key: text("kms-key").map(str::to_owned),
            labels: collect_labels(settings.pairs("labels")?)?,
            owner: None,
            endpoint,
        })
    }

    /// Sets the owner of written secrets.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }
}

/// The replication of secrets, and the region in their names.
fn replication(
    text: Option<&str>,
    region: Option<Region>,
) -> Result<(Replication, Option<Region>)> {
    match (text, region) {
        (Some("automatic") | None, None) => Ok((Replication::Automatic, None)),
        (Some("automatic"), Some(_)) => Err(invalid("`replication=automatic` excludes a region")),
        (Some("regional") | None, Some(region)) => Ok((Replication::Regional, Some(region))),
        (Some("regional"), None) => Err(invalid("`replication=regional` requires a region")),
        (Some("user-managed"), Some(region)) => Ok((Replication::UserManaged(region), None)),
        (Some("user-managed"), None) => Err(invalid("user-managed replication requires a region")
            .with_hint("set region (SECRET_STORE_GCP_REGION)")),
        (Some(_), _) => Err(invalid(
            "the setting `replication` must be `automatic`, `regional` or `user-managed`",
        )),
    }
}

fn credentials(settings: &SettingMap) -> Result<Credentials> {
    let text = |name| settings.text(name).filter(|text| !text.is_empty());
    let key = settings
        .secret("credentials")
        .filter(|key| !key.expose().trim().is_empty())
        .map(|key| Key::parse(&key))
        .transpose()?;
    if settings.trust().is_tenant() {
        match &key {
            Some(key) => key.check_tenants()?,
            None => {
                return Err(invalid(
                    "a tenant's Google store requires the tenant's own credentials",
                )
                .with_hint("set the JSON of a service account key"));
            }
        }
    }
    match (key, text("credentials-file"), text("credentials-source")) {
        (Some(_), Some(_), _) => Err(invalid(
            "`credentials` and `credentials-file` exclude each other",
        )),
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => Err(invalid(
            "credentials, as text or file, exclude the setting `credentials-source`",
        )),
        (Some(key), None, None) => Ok(Credentials::Key(key)),
        (None, Some(path), None) => Ok(Credentials::KeyFile(path.into())),
        (None, None, Some("default") | None) => Ok(Credentials::ApplicationDefault),
        (None, None, Some("metadata")) => Ok(Credentials::Metadata),
        (None, None, Some("anonymous")) => Ok(Credentials::Anonymous),
        (None, None, Some(_)) => Err(invalid(
            "the setting `credentials-source` must be `default`, `metadata` or `anonymous`",
        )),
    }
}

/// The source of the credentials.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    /// None, for an emulator on loopback.
    Anonymous,
    /// The application default credentials: the file in `GOOGLE_APPLICATION_CREDENTIALS` (a key, or
    /// a configuration of workload identity federation), gcloud's login, or the metadata server.
    ApplicationDefault,
    /// The contents of a credentials file.
    Key(Key),
    /// A credentials file, read again when it changes or is refused.
    KeyFile(PathBuf),
    /// Only the metadata server.
    Metadata,
}

/// Where Google stores the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Replication {
    /// Google decides.
    Automatic,
    /// In one region, as a regional secret.
    Regional,
    /// In one region, as a global secret.
    UserManaged(Region),
}

impl Replication {
    /// The required location of a customer's key.
    /// <https://cloud.google.com/secret-manager/docs/cmek>
    fn key_location<'a>(&'a self, place: &'a Place) -> &'a str {
        match self {
            Self::Automatic => "global",
            Self::Regional => place.region.as_ref().map_or("global", Region::as_str),
            Self::UserManaged(region) => region.as_str(),
        }
    }
}

/// Checks Google's rules for labels.
/// <https://cloud.google.com/secret-manager/docs/creating-and-managing-labels>
fn check_label(key: &str, value: &str) -> Result<()> {
    let allowed = |text: &str| {
        text.chars().count() <= 63
            && text.len() <= 128
            && text.chars().all(|char| {
                char == '_' || char == '-' || (char.is_alphanumeric() && !char.is_uppercase())
            })
    };
    let begins = key
        .chars()
        .next()
        .is_some_and(|first| first.is_alphabetic() && !first.is_uppercase());
    if begins && allowed(key) && allowed(value) {
        return Ok(());
    }
    Err(invalid(
        "a label's key and value must have at most 63 lowercase letters, digits, _ and -, and the key must \
         begin with a letter",
    ))
}

fn collect_labels(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (key, value) in pairs {
        check_label(&key, &value)?;
        if key == OWNER_LABEL {
            return Err(invalid(format!(
                "the label `{key}` is written by this store"
            )));
        }
        match labels.insert(key.clone(), value) {
            Some(previous) if labels.get(&key) != Some(&previous) => {
                return Err(invalid(format!("the label `{key}` is set twice")));
            }
            _ => {}
        }
    }
    // The owner needs one more.
    if labels.len() + 1 > MAX_LABELS {
        return Err(invalid(
            "Google allows 64 labels per secret, of which the owner takes one",
        ));
    }
    Ok(labels)
}

/// `projects/<project>/locations/<location>/keyRings/<ring>/cryptoKeys/<key>`.
/// <https://cloud.google.com/kms/docs/resource-hierarchy>
pub(crate) fn check_kms_key(key: &str, location: &str) -> Result<()> {
    let name = |text: &str| {
        (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    let parts: Vec<&str> = key.split('/').collect();
    match parts[..] {
        [
            "projects",
            project,
            "locations",
            place,
            "keyRings",
            ring,
            "cryptoKeys",
            key,
        ] if Project::parse(project).is_ok() && name(ring) && name(key) => {
            if place == location {
                return Ok(());
            }
            Err(invalid(format!(
                "the KMS key is in another location than {location}, which the secrets require"
            ))
            .with_hint(
                "secrets without a region require a key in the location `global`, others a key in \
                 their region",
            ))
        }
        _ => Err(
            invalid("the KMS key is not the resource name of a key").with_hint(
                "write projects/<project>/locations/<location>/keyRings/<ring>/cryptoKeys/<key>, \
                 without a version (SECRET_STORE_GCP_KMS_KEY)",
            ),
        ),
    }
}

/// Checks the email of a service account, so that it can be inserted into a URL or a command.
pub(crate) fn check_service_account(email: &str) -> Result<()> {
    let allowed = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)
            })
    };
    match email.split_once('@') {
        Some((name, domain))
            if email.len() <= 254
                && allowed(name)
                && allowed(domain)
                && domain.contains('.')
                && !email.contains("..") =>
        {
            Ok(())
        }
        _ => Err(
            invalid("`impersonate-service-account` is not the email of a service account")
                .with_hint("write <name>@<project>.iam.gserviceaccount.com"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::ErrorKind;

    use super::*;
    use crate::SETTINGS;

    fn config(more: &[(&str, &str)]) -> Result<Config> {
        let project = [("project-id", "my-project")];
        Config::from_settings(&SETTINGS.from_pairs(project.iter().chain(more).copied())?)
    }

    const KEY: &str = "projects/my-project/locations/global/keyRings/r/cryptoKeys/k";

    #[test]
    fn limits_of_google_are_ours_to_enforce() {
        let labels = |count: usize| -> String {
            let labels: Vec<String> = (0..count).map(|n| format!("k{n}=v")).collect();
            labels.join(",")
        };
        let (long, regional) = ("x".repeat(64), KEY.replace("global", "us-central1"));
        let (many, too_many) = (labels(63), labels(64));
        let region = ("region", "us-central1");
        let user_managed = ("replication", "user-managed");
        let accepted: [&[(&str, &str)]; 5] = [
            &[("labels", &many)],
            &[("labels", "größe=")],
            &[("kms-key", KEY)],
            &[region, ("kms-key", &regional)],
            &[region, user_managed, ("kms-key", &regional)],
        ];
        for settings in accepted {
            config(settings).unwrap();
        }
        let version = format!("{KEY}/cryptoKeyVersions/1");
        let long_key = format!("{long}=v");
        let long_value = format!("k={long}");
        let ours = format!("{OWNER_LABEL}=x");
        let refused: [&[(&str, &str)]; 16] = [
            &[("labels", &too_many)],
            &[("labels", &long_key)],
            &[("labels", "=v")],
            &[("labels", "1k=v")],
            &[("labels", &long_value)],
            &[("labels", "k=Value")],
            &[("labels", "k=a.b")],
            &[("labels", "k=1,k=2")],
            &[("labels", &ours)],
            &[("kms-key", &regional)],
            &[region, ("kms-key", KEY)],
            &[("kms-key", &version)],
            &[("kms-key", "k")],
            &[user_managed],
            &[("impersonate-service-account", "x/../y")],
            &[("credentials-source", "anonymous")],
        ];
        for settings in refused {
            let error = config(settings).expect_err(&format!("{settings:?}"));
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        }
    }

    #[test]
    fn debug_shows_no_credential() {
        let json = r#"{"type": "service_account", "project_id": "my-project",
            "private_key_id": "canary-id", "private_key": "canary-key",
            "client_email": "x@my-project.iam.gserviceaccount.com"}"#;
        let pasted = config(&[("endpoint-url", "https://user:canary@psc.example")]);
        let built = config(&[("credentials", json)]).unwrap();
        let shown = format!("{:?} {built:?}", pasted.unwrap_err());
        assert!(
            shown.contains("my-project") && !shown.contains("canary"),
            "{shown}"
        );
    }
}
