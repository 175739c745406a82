//! How the store is set up: types that hold only what has been checked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use secret_persistence_core::settings;
use secret_persistence_core::{Error, ErrorKind, Operation, Owner, Result};
use url::Url;

use crate::key::Key;
use crate::naming::{Place, Project, Region};

/// The label that says which installation wrote a secret.
pub const OWNER_LABEL: &str = "secret-persistence-owner";

/// The most labels per secret.
/// <https://cloud.google.com/secret-manager/docs/creating-and-managing-labels>
const MAX_LABELS: usize = 64;

/// A complete, checked configuration.
///
/// ```
/// use secret_persistence_gcp::Config;
///
/// let config = Config::builder("my-project")
///     .with_region("europe-west3")
///     .with_label("team", "data")
///     .build()?;
/// # let _ = config;
/// // What Google would refuse later is refused here.
/// assert!(Config::builder("my-project").with_label("Team", "data").build().is_err());
/// assert!(Config::builder("").build().is_err());
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
    /// Starts a configuration for a project.
    pub fn builder(project: impl Into<String>) -> ConfigBuilder {
        ConfigBuilder::new(project)
    }

    /// The same configuration, marking what is written with this owner.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }
}

/// Collects a [`Config`]. Setters cannot fail, [`build`](Self::build) can.
#[derive(Clone)]
pub struct ConfigBuilder {
    pub(crate) project: String,
    pub(crate) region: Option<String>,
    pub(crate) user_managed: bool,
    pub(crate) credentials: Credentials,
    pub(crate) impersonate: Option<String>,
    pub(crate) kms_key: Option<String>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) owner: Option<Owner>,
    pub(crate) endpoint: Option<String>,
}

impl ConfigBuilder {
    fn new(project: impl Into<String>) -> Self {
        Self {
            project: project.into(),
            region: None,
            user_managed: false,
            credentials: Credentials::default(),
            impersonate: None,
            kms_key: None,
            labels: Vec::new(),
            owner: None,
            endpoint: None,
        }
    }

    /// The region that secrets stay in: as regional secrets, with an endpoint and names of their own,
    /// unless [`with_user_managed_replication`](Self::with_user_managed_replication) says otherwise.
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Whether the region is where global secrets have their one replica, instead of regional
    /// secrets.
    #[must_use]
    pub fn with_user_managed_replication(mut self, user_managed: bool) -> Self {
        self.user_managed = user_managed;
        self
    }

    /// Where credentials come from; by default the application default credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// The service account to act as, by its email, with those credentials.
    #[must_use]
    pub fn with_impersonation(mut self, service_account: impl Into<String>) -> Self {
        self.impersonate = Some(service_account.into());
        self
    }

    /// The Cloud KMS key that encrypts new secrets, by its resource name.
    #[must_use]
    pub fn with_kms_key(mut self, key: impl Into<String>) -> Self {
        self.kms_key = Some(key.into());
        self
    }

    /// A label of every new secret.
    #[must_use]
    pub fn with_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }

    /// The installation that writes.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Another endpoint of Secret Manager. Plain http works on loopback only.
    #[must_use]
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the setting: a project, region, label, key, endpoint or service
    /// account key that Google would not take, or two settings that exclude each other.
    pub fn build(self) -> Result<Config> {
        let project = Project::parse(&self.project)?;
        let region = self.region.as_deref().map(Region::parse).transpose()?;
        let (replication, region) = match (region, self.user_managed) {
            (None, false) => (Replication::Automatic, None),
            (None, true) => {
                return Err(invalid("user-managed replication needs a region")
                    .with_hint("set region (SECRET_STORE_GCP_REGION)"));
            }
            (Some(region), false) => (Replication::Regional, Some(region)),
            (Some(region), true) => (Replication::UserManaged(region), None),
        };
        let place = Place { project, region };
        if let Some(key) = &self.kms_key {
            check_kms_key(key, replication.key_location(&place))?;
        }
        if let Some(account) = &self.impersonate {
            check_service_account(account)?;
        }
        let endpoint = self
            .endpoint
            .as_deref()
            .map(settings::endpoint)
            .transpose()?;
        if matches!(self.credentials, Credentials::Anonymous)
            && !endpoint
                .as_ref()
                .and_then(Url::host_str)
                .is_some_and(settings::is_loopback)
        {
            return Err(invalid(
                "anonymous requests are for an emulator on loopback, named by endpoint-url",
            ));
        }
        Ok(Config {
            place,
            replication,
            credentials: self.credentials,
            impersonate: self.impersonate,
            kms_key: self.kms_key,
            labels: collect_labels(self.labels)?,
            owner: self.owner,
            endpoint,
        })
    }
}

/// Shows little: nothing is checked yet, and a password may stand in an endpoint.
impl fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder")
            .field("project", &self.project)
            .field("region", &self.region)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// Where credentials come from.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// None at all, for an emulator on loopback.
    Anonymous,
    /// The application default credentials: the file that `GOOGLE_APPLICATION_CREDENTIALS` names
    /// (a key, or a configuration of workload identity federation), gcloud's own, or the metadata
    /// server.
    #[default]
    ApplicationDefault,
    /// What a credentials file holds.
    Key(Key),
    /// A credentials file, read again when it changes or is refused.
    KeyFile(PathBuf),
    /// The metadata server and nothing else.
    Metadata,
}

/// Where the value of a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Replication {
    /// Wherever Google decides.
    Automatic,
    /// In one region, as a regional secret.
    Regional,
    /// In one region, as a global secret.
    UserManaged(Region),
}

impl Replication {
    /// Where a customer's key must be.
    /// <https://cloud.google.com/secret-manager/docs/cmek>
    fn key_location<'a>(&'a self, place: &'a Place) -> &'a str {
        match self {
            Self::Automatic => "global",
            Self::Regional => place.region.as_ref().map_or("global", Region::as_str),
            Self::UserManaged(region) => region.as_str(),
        }
    }
}

/// Refuses what Google would.
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
        "a label's key and value have at most 63 small letters, digits, _ and -, and the key begins \
         with a letter",
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
    // The owner comes on top.
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
                "the KMS key is of another location than the secrets need, which is {location}"
            ))
            .with_hint(
                "secrets without a region need a key in the location `global`, the others one in \
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

/// The email of a service account, whose characters let nothing else into a URL or a command.
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
        _ => Err(invalid("the service account is not the email of one")
            .with_hint("write <name>@<project>.iam.gserviceaccount.com")),
    }
}

pub(crate) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with_operation(Operation::Open)
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::SecretValue;

    use super::*;

    const KEY: &str = "projects/my-project/locations/global/keyRings/r/cryptoKeys/k";

    #[test]
    fn limits_of_google_are_ours_to_enforce() {
        let build = |change: &dyn Fn(ConfigBuilder) -> ConfigBuilder| {
            change(Config::builder("my-project")).build()
        };
        let long = "x".repeat(64);
        let accepted: [&dyn Fn(ConfigBuilder) -> ConfigBuilder; 5] = [
            &|b| (0..63).fold(b, |b, n| b.with_label(format!("k{n}"), "v")),
            &|b| b.with_label("größe", ""),
            &|b| b.with_kms_key(KEY),
            &|b| {
                b.with_region("us-central1")
                    .with_kms_key(KEY.replace("global", "us-central1"))
            },
            &|b| {
                b.with_region("us-central1")
                    .with_user_managed_replication(true)
                    .with_kms_key(KEY.replace("global", "us-central1"))
            },
        ];
        for change in accepted {
            build(change).unwrap();
        }
        let refused: [&dyn Fn(ConfigBuilder) -> ConfigBuilder; 16] = [
            &|b| (0..64).fold(b, |b, n| b.with_label(format!("k{n}"), "v")),
            &|b| b.with_label(&long, "v"),
            &|b| b.with_label("", "v"),
            &|b| b.with_label("1k", "v"),
            &|b| b.with_label("k", &long),
            &|b| b.with_label("k", "Value"),
            &|b| b.with_label("k", "a.b"),
            &|b| b.with_label("k", "1").with_label("k", "2"),
            &|b| b.with_label(OWNER_LABEL, "x"),
            &|b| b.with_kms_key(KEY.replace("global", "us-central1")),
            &|b| b.with_region("us-central1").with_kms_key(KEY),
            &|b| b.with_kms_key(format!("{KEY}/cryptoKeyVersions/1")),
            &|b| b.with_kms_key("k"),
            &|b| b.with_user_managed_replication(true),
            &|b| b.with_impersonation("x/../y"),
            &|b| b.with_credentials(Credentials::Anonymous),
        ];
        for (at, change) in refused.into_iter().enumerate() {
            let error = build(change).expect_err(&at.to_string());
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        }
    }

    #[test]
    fn debug_shows_no_credential() {
        let json = r#"{"type": "service_account", "project_id": "my-project",
            "private_key_id": "canary-id", "private_key": "canary-key",
            "client_email": "x@my-project.iam.gserviceaccount.com"}"#;
        let key = Key::parse(&SecretValue::new(json.to_owned())).unwrap();
        let builder = Config::builder("my-project").with_credentials(Credentials::Key(key));
        let pasted = builder
            .clone()
            .with_endpoint("https://user:canary@private.example");
        let shown = format!("{pasted:?} {:?}", builder.build().unwrap());
        assert!(
            shown.contains("my-project") && !shown.contains("canary"),
            "{shown}"
        );
    }
}
