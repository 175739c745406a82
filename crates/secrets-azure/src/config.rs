//! How the store is set up: types that hold only what has been checked.

mod identity;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use secret_persistence_core::{Error, ErrorKind, Operation, Owner, Recovery, Result};
use url::{Host, Url};

pub use identity::{ClientSecret, Credentials, WorkloadIdentity};

/// The tag that says which coordinate a secret is: its name alone cannot, because `_` became `-`
/// and Key Vault ignores case.
pub const COORDINATE_TAG: &str = "secret-persistence-coordinate";

/// The tag that says which installation wrote a secret.
pub const OWNER_TAG: &str = "secret-persistence-owner";

/// Key Vault keeps 15 tags per secret, with names of 512 and values of 512 characters.
/// <https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#secret-tags>
const MAX_TAGS: usize = 15;
const MAX_TAG_NAME_CHARS: usize = 512;
const MAX_TAG_VALUE_CHARS: usize = 512;

/// How long a change of state is waited for, where waiting was asked for.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// The SDK's own default, stated because `api-version` documents it.
pub(crate) const API_VERSION: &str = "2025-07-01";

/// How long one request may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);

/// The clouds: how the hosts of their vaults end, and who issues their tokens.
/// <https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#dns-suffixes-for-object-identifiers>,
/// <https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud>
const CLOUDS: [(&str, &str); 3] = [
    (".vault.azure.net", "https://login.microsoftonline.com"),
    (".vault.azure.cn", "https://login.chinacloudapi.cn"),
    (
        ".vault.usgovcloudapi.net",
        "https://login.microsoftonline.us",
    ),
];

/// A complete, checked configuration.
///
/// ```
/// use secret_persistence_azure::{ClientSecret, Config, Credentials};
/// use secret_persistence_core::SecretValue;
///
/// let secret = SecretValue::new("the secret's value".to_owned());
/// let config = Config::builder("https://airbyte-prod.vault.azure.net")
///     .with_credentials(Credentials::ClientSecret(ClientSecret::new(
///         "11111111-2222-3333-4444-555555555555",
///         "66666666-7777-8888-9999-000000000000",
///         secret,
///     )))
///     .with_tag("team", "data")
///     .build()?;
/// assert!(!format!("{config:?}").contains("the secret's value"));
/// // A name alone is a vault of the public cloud.
/// assert!(Config::builder("airbyte-prod").build().is_ok());
/// // What would be sent in the clear is refused.
/// assert!(Config::builder("http://airbyte-prod.vault.azure.net").build().is_err());
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) vault: Url,
    pub(crate) credentials: Credentials,
    pub(crate) authority: Url,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) verify_challenge: bool,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) owner: Option<Owner>,
    pub(crate) purge: Purge,
    pub(crate) on_deleted: OnDeleted,
    pub(crate) wait: Duration,
    pub(crate) timeout: Duration,
    pub(crate) api_version: String,
    pub(crate) reach: Reach,
}

impl Config {
    /// Starts a configuration for a vault: its URL, or its name alone.
    pub fn builder(vault: impl Into<String>) -> ConfigBuilder {
        ConfigBuilder::new(vault)
    }

    /// The same configuration, marking what is written with this owner.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// The host of the vault, with its port where that is not 443.
    pub(crate) fn place(&self) -> String {
        let host = self.vault.host_str().unwrap_or_default();
        match self.vault.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// Collects a [`Config`]. Setters cannot fail, [`build`](Self::build) can.
#[derive(Clone)]
pub struct ConfigBuilder {
    pub(crate) vault: String,
    pub(crate) vault_suffix: Option<String>,
    pub(crate) credentials: Credentials,
    pub(crate) authority: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) verify_challenge: bool,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) owner: Option<Owner>,
    pub(crate) purge: Purge,
    pub(crate) on_deleted: OnDeleted,
    pub(crate) wait: Duration,
    pub(crate) timeout: Duration,
    pub(crate) api_version: String,
    pub(crate) reach: Reach,
}

impl ConfigBuilder {
    fn new(vault: impl Into<String>) -> Self {
        Self {
            vault: vault.into(),
            vault_suffix: None,
            credentials: Credentials::default(),
            authority: None,
            ca_file: None,
            verify_challenge: true,
            tags: Vec::new(),
            owner: None,
            purge: Purge::default(),
            on_deleted: OnDeleted::default(),
            wait: WAIT,
            timeout: TIMEOUT,
            api_version: API_VERSION.to_owned(),
            reach: Reach::default(),
        }
    }

    /// Where credentials come from; by default the managed identity of this machine.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Who issues tokens, for clouds that are not known here: `https://login.example`.
    #[must_use]
    pub fn with_authority_host(mut self, url: impl Into<String>) -> Self {
        self.authority = Some(url.into());
        self
    }

    /// How the hosts of vaults end, for clouds that are not known here: it completes a name.
    #[must_use]
    pub fn with_vault_suffix(mut self, suffix: impl Into<String>) -> Self {
        self.vault_suffix = Some(suffix.into());
        self
    }

    /// PEM certificates to trust instead of the system's.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Whether tokens are only asked for resources that the vault's host belongs to; on unless told.
    /// Emulators need it off: <https://aka.ms/azsdk/blog/vault-uri>.
    #[must_use]
    pub fn with_verify_challenge(mut self, verify: bool) -> Self {
        self.verify_challenge = verify;
        self
    }

    /// A tag of every new secret.
    #[must_use]
    pub fn with_tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((name.into(), value.into()));
        self
    }

    /// The installation that writes.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Which deletes purge what they have deleted.
    #[must_use]
    pub fn with_purge(mut self, purge: Purge) -> Self {
        self.purge = purge;
        self
    }

    /// What a write does where its name is soft-deleted.
    #[must_use]
    pub fn with_on_deleted(mut self, on_deleted: OnDeleted) -> Self {
        self.on_deleted = on_deleted;
        self
    }

    /// How long restores, purges and recovering writes wait for the vault to get there.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long one request may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The version of Key Vault's interface, for clouds that do not have the newest.
    #[must_use]
    pub fn with_api_version(mut self, version: impl Into<String>) -> Self {
        self.api_version = version.into();
        self
    }

    /// Checks everything. Reads no file and sends nothing.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the setting: a vault, identity, tag or time that Azure would not take.
    pub fn build(self) -> Result<Config> {
        let vault = parse_vault(&self.vault, self.vault_suffix.as_deref())?;
        self.credentials.check()?;
        let authority = match &self.authority {
            Some(text) => parse_authority(text)?,
            None => default_authority(&vault)?,
        };
        if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&self.wait) {
            return Err(invalid("`wait-seconds` is 1 to 300"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&self.timeout) {
            return Err(invalid("`timeout-seconds` is 1 to 300"));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
        if !(1..=32).contains(&self.api_version.len()) || !self.api_version.bytes().all(allowed) {
            return Err(invalid("`api-version` does not look like one")
                .with_hint("write 7.4 or 2025-07-01"));
        }
        Ok(Config {
            vault,
            credentials: self.credentials,
            authority,
            ca_file: self.ca_file,
            verify_challenge: self.verify_challenge,
            tags: collect_tags(self.tags)?,
            owner: self.owner,
            purge: self.purge,
            on_deleted: self.on_deleted,
            wait: self.wait,
            timeout: self.timeout,
            api_version: self.api_version,
            reach: self.reach,
        })
    }
}

/// Shows little: nothing is checked yet, and a password may stand in a URL.
impl fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder")
            .field("credentials", &self.credentials)
            .field("purge", &self.purge)
            .field("on_deleted", &self.on_deleted)
            .finish_non_exhaustive()
    }
}

/// Which deletes purge what they have deleted, so that it cannot be recovered.
///
/// A purge is tried where it is asked for; where it is not allowed, by role or by purge protection,
/// the secret stays soft-deleted until the vault's retention ends, with a warning in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purge {
    /// All of them.
    Always,
    /// None: what is deleted can be recovered until the vault's retention ends.
    #[default]
    Never,
    /// Those that ask for [`Recovery::Immediate`]: what an abort or a rollback removes.
    OnRequest,
}

impl Purge {
    /// Whether a delete purges.
    pub(crate) fn applies(self, recovery: Recovery) -> bool {
        match self {
            // Who asks for a window asks for recovery; how long it lasts is the vault's to say.
            Self::Always => !matches!(recovery, Recovery::Window { .. }),
            Self::Never => false,
            Self::OnRequest => recovery == Recovery::Immediate,
        }
    }
}

/// What a write does where its name is soft-deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDeleted {
    /// Purges what was deleted, then writes.
    Purge,
    /// Recovers what was deleted, then compares.
    Recover,
    /// Fails with `PendingDeletion`.
    #[default]
    Refuse,
}

/// Which addresses may be connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All of them.
    #[default]
    Anywhere,
    /// Public ones only; any for the host that the operator allowed.
    Public { allowed: Option<String> },
}

impl Reach {
    /// Whether an address of a host may be connected to.
    pub(crate) fn permits(&self, host: &str, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Public { allowed } => {
                allowed.as_deref() == Some(host)
                    || secret_persistence_core::settings::is_public(address)
            }
        }
    }
}

/// Whether a host is one of Key Vault's own, in any of its clouds.
pub(crate) fn is_of_key_vault(host: &str) -> bool {
    cloud_of(host).is_some()
}

fn cloud_of(host: &str) -> Option<(&'static str, &'static str)> {
    CLOUDS
        .into_iter()
        .find(|(suffix, _)| host.strip_suffix(suffix).is_some_and(is_vault_name))
}

/// A vault's name has letters, digits and hyphens, begins with a letter and has no `--`; a dot would
/// make it another host.
/// <https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#vault-name-and-object-name>
pub(crate) fn is_vault_name(name: &str) -> bool {
    (3..=24).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && !name.ends_with('-')
        && !name.contains("--")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn parse_vault(text: &str, suffix: Option<&str>) -> Result<Url> {
    let wrong = || {
        invalid("this is not the URL of a vault").with_hint(
            "write https://<name>.vault.azure.net, or the name alone, without path and credentials",
        )
    };
    if text.is_empty() {
        return Err(invalid("the vault is missing").with_hint(
            "set AB_AZURE_KEY_VAULT_VAULT_URL to https://<name>.vault.azure.net, or write \
             azure://<name>.vault.azure.net",
        ));
    }
    let completed;
    let text = if is_vault_name(text) && text != "localhost" {
        let suffix = suffix.map_or("vault.azure.net", |suffix| suffix.trim_start_matches('.'));
        completed = format!("https://{text}.{suffix}");
        &completed
    } else {
        text
    };
    parse_bare_https(text, "a vault").map_err(|error| error.unwrap_or_else(wrong))
}

fn parse_authority(text: &str) -> Result<Url> {
    parse_bare_https(text, "an authority").map_err(|error| {
        error.unwrap_or_else(|| {
            invalid("`authority-host` is not the URL of an authority").with_hint(
                "write https://login.microsoftonline.us or its like, without tenant and path",
            )
        })
    })
}

fn default_authority(vault: &Url) -> Result<Url> {
    let host = vault.host_str().unwrap_or_default();
    let (_, authority) = cloud_of(host).unwrap_or(CLOUDS[0]);
    parse_authority(authority)
}

/// A URL of scheme, host and port alone; `Err(None)` for what is none.
fn parse_bare_https(text: &str, what: &'static str) -> Result<Url, Option<Error>> {
    let url = Url::parse(text).map_err(|_| None)?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && matches!(
            url.host(),
            Some(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_))
        );
    match url.scheme() {
        "https" if bare => Ok(url),
        "http" if bare => Err(Some(
            invalid(format!("the URL of {what} must be https")).with_hint(
                "tokens and secrets would go over the wire in the clear; for an emulator set \
                 `ca-file` to its certificate",
            ),
        )),
        _ => Err(None),
    }
}

fn collect_tags(tags: Vec<(String, String)>) -> Result<BTreeMap<String, String>> {
    let mut collected = BTreeMap::new();
    for (name, value) in tags {
        let fits = |text: &str, most: usize| {
            text.chars().count() <= most && !text.chars().any(char::is_control)
        };
        if name.is_empty() || !fits(&name, MAX_TAG_NAME_CHARS) || !fits(&value, MAX_TAG_VALUE_CHARS)
        {
            return Err(invalid(
                "a tag's name has 1 to 512 characters and its value at most 512",
            ));
        }
        if name == COORDINATE_TAG || name == OWNER_TAG {
            return Err(invalid(format!("the tag `{name}` is set by this library")));
        }
        if collected.insert(name, value).is_some() {
            return Err(invalid("a tag is set twice"));
        }
    }
    // Coordinate and owner are tags too.
    if collected.len() > MAX_TAGS - 2 {
        return Err(invalid(format!(
            "a secret has at most {MAX_TAGS} tags, of which this library needs 2"
        )));
    }
    Ok(collected)
}

pub(crate) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with_operation(Operation::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(text: &str) -> Result<Config> {
        Config::builder(text).build()
    }

    #[test]
    fn vaults_are_urls_or_names() {
        for (text, place, authority) in [
            (
                "my-vault",
                "my-vault.vault.azure.net",
                "login.microsoftonline.com",
            ),
            (
                "https://my-vault.vault.azure.net/",
                "my-vault.vault.azure.net",
                "login.microsoftonline.com",
            ),
            (
                "https://MY-vault.vault.azure.cn",
                "my-vault.vault.azure.cn",
                "login.chinacloudapi.cn",
            ),
            (
                "https://my-vault.vault.usgovcloudapi.net",
                "my-vault.vault.usgovcloudapi.net",
                "login.microsoftonline.us",
            ),
            (
                "https://localhost:8443",
                "localhost:8443",
                "login.microsoftonline.com",
            ),
        ] {
            let config = vault(text).unwrap();
            assert_eq!(config.place(), place);
            assert_eq!(config.authority.host_str(), Some(authority));
        }
        for text in [
            "",
            "my vault",
            "http://my-vault.vault.azure.net",
            "https://user:canary@my-vault.vault.azure.net",
            "https://my-vault.vault.azure.net/secrets",
            "https://my-vault.vault.azure.net?canary=1",
            "https://",
            "ftp://my-vault.vault.azure.net",
            "my-vault.vault.azure.net",
        ] {
            let error = vault(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
            assert!(error.hint().is_some(), "{text}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{text}");
        }
    }

    #[test]
    fn other_clouds_have_their_suffix_and_authority() {
        let config = Config::builder("my-vault")
            .with_vault_suffix(".vault.cloud.example")
            .with_authority_host("https://login.cloud.example/")
            .build()
            .unwrap();
        assert_eq!(config.place(), "my-vault.vault.cloud.example");
        assert_eq!(config.authority.as_str(), "https://login.cloud.example/");
        for authority in [
            "http://login.example",
            "login.example",
            "https://login.example/tenant",
        ] {
            let error = Config::builder("my-vault")
                .with_authority_host(authority)
                .build()
                .unwrap_err();
            assert!(error.message().contains("authority"), "{error}");
        }
    }

    #[test]
    fn only_hosts_right_below_a_suffix_are_key_vaults() {
        assert!(is_of_key_vault("my-vault.vault.azure.net"));
        for host in [
            "vault.azure.net",
            ".vault.azure.net",
            "a.b.vault.azure.net",
            "my-vault.vault.azure.net.example",
            "my-vaultXvault.azure.net",
            "my--vault.vault.azure.net",
            "1vault.vault.azure.net",
            "my-vault.vault.microsoftazure.de",
        ] {
            assert!(!is_of_key_vault(host), "{host}");
        }
    }

    #[test]
    fn tags_keep_to_the_limits_of_key_vault() {
        let tags = |tags: Vec<(String, String)>| {
            let mut builder = Config::builder("my-vault");
            builder.tags = tags;
            builder.build()
        };
        let many = |count: usize| {
            (0..count)
                .map(|at| (at.to_string(), String::new()))
                .collect()
        };
        assert!(tags(many(13)).is_ok());
        assert!(tags(vec![("n".repeat(512), "v".repeat(512))]).is_ok());
        for bad in [
            many(14),
            vec![("n".repeat(513), String::new())],
            vec![("n".to_owned(), "v".repeat(513))],
            vec![(String::new(), String::new())],
            vec![("a\nb".to_owned(), String::new())],
            vec![(OWNER_TAG.to_owned(), "x".to_owned())],
            vec![(COORDINATE_TAG.to_owned(), "x".to_owned())],
            vec![
                ("a".to_owned(), "1".to_owned()),
                ("a".to_owned(), "2".to_owned()),
            ],
        ] {
            assert_eq!(tags(bad).unwrap_err().kind(), ErrorKind::InvalidConfig);
        }
    }

    #[test]
    fn a_purge_is_made_where_it_is_configured() {
        let week = Recovery::Window { days: 7 };
        for (purge, configured, immediate, window) in [
            (Purge::Never, false, false, false),
            (Purge::OnRequest, false, true, false),
            (Purge::Always, true, true, false),
        ] {
            assert_eq!(purge.applies(Recovery::Configured), configured);
            assert_eq!(purge.applies(Recovery::Immediate), immediate);
            assert_eq!(purge.applies(week), window);
        }
    }

    #[test]
    fn tenants_reach_public_addresses_and_what_the_operator_allowed() {
        let private: IpAddr = "10.0.0.1".parse().unwrap();
        let public: IpAddr = "52.94.133.131".parse().unwrap();
        let tenant = Reach::Public { allowed: None };
        assert!(tenant.permits("a.vault.azure.net", public));
        assert!(!tenant.permits("a.vault.azure.net", private));
        let allowed = Reach::Public {
            allowed: Some("kv.example".to_owned()),
        };
        assert!(allowed.permits("kv.example", private));
        assert!(!allowed.permits("login.microsoftonline.com", private));
        assert!(Reach::Anywhere.permits("kv.example", private));
    }
}
