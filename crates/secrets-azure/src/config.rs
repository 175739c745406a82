//! The checked configuration of the store.

mod identity;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use secret_persistence_core::settings::{SettingMap, Trust, invalid};
use secret_persistence_core::{Error, Owner, Recovery, Result};
use url::{Host, Url};

pub(crate) use identity::{ClientSecret, Credentials, WorkloadIdentity};

/// The tag that contains the coordinate of a secret. The name is ambiguous, because `_` becomes `-`
/// and Key Vault ignores case.
pub const COORDINATE_TAG: &str = "secret-persistence-coordinate";

/// The tag that contains the owner of a secret.
pub const OWNER_TAG: &str = "secret-persistence-owner";

/// Key Vault allows 15 tags per secret, with names of 512 and values of 512 characters.
/// <https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#secret-tags>
const MAX_TAGS: usize = 15;
const MAX_TAG_NAME_CHARS: usize = 512;
const MAX_TAG_VALUE_CHARS: usize = 512;

/// The SDK's default, stated here because the setting `api-version` documents it.
pub(crate) const API_VERSION: &str = "2025-07-01";

/// The clouds: the domains of their vaults, and the issuers of their tokens.
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
/// use secret_persistence_azure::{Config, SETTINGS};
///
/// let config = Config::from_settings(&SETTINGS.from_pairs([
///     ("vault-url", "https://airbyte-prod.vault.azure.net"),
///     ("tenant-id", "11111111-2222-3333-4444-555555555555"),
///     ("client-id", "66666666-7777-8888-9999-000000000000"),
///     ("client-secret", "the secret's value"),
///     ("tags", "team=data"),
/// ])?)?;
/// assert!(!format!("{config:?}").contains("the secret's value"));
/// // A name without a domain is a vault of the public cloud.
/// assert!(Config::from_settings(&SETTINGS.from_pairs([("vault-url", "airbyte-prod")])?).is_ok());
/// // Plain HTTP is refused.
/// let clear = SETTINGS.from_pairs([("vault-url", "http://airbyte-prod.vault.azure.net")])?;
/// assert!(Config::from_settings(&clear).is_err());
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
    /// Checks settings of [`SETTINGS`](crate::SETTINGS), from any form. Reads no file and sends
    /// nothing. The owner is not a setting of the store: add it with
    /// [`with_owner`](Self::with_owner).
    ///
    /// A tenant's settings must contain a client secret, and name a vault on one of Key Vault's
    /// domains or on a host that the operator allowed. The store connects only to public addresses,
    /// except for hosts that the operator named.
    ///
    /// # Errors
    /// `InvalidConfig` if a setting is missing, contradicts another one, or is outside Azure's
    /// limits.
    pub fn from_settings(settings: &SettingMap) -> Result<Self> {
        let text = |name| settings.text(name).filter(|text| !text.is_empty());
        let vault = parse_vault(text("vault-url").unwrap_or_default(), text("vault-suffix"))?;
        let reach = Reach::of(settings.trust(), &vault)?;
        let authority = match text("authority-host") {
            Some(text) => parse_authority(text)?,
            None => default_authority(&vault)?,
        };
        let api_version = text("api-version").unwrap_or(API_VERSION);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
        if !(1..=32).contains(&api_version.len()) || !api_version.bytes().all(allowed) {
            return Err(
                invalid("`api-version` is not a version").with_hint("write 7.4 or 2025-07-01")
            );
        }
        Ok(Self {
            vault,
            credentials: Credentials::of(settings)?,
            authority,
            ca_file: text("ca-file").map(Into::into),
            verify_challenge: settings.flag("verify-challenge")?,
            tags: collect_tags(settings.pairs("tags")?)?,
            owner: None,
            purge: settings.choice(
                "purge",
                &[
                    ("never", Purge::Never),
                    ("on-request", Purge::OnRequest),
                    ("always", Purge::Always),
                ],
            )?,
            on_deleted: settings.choice(
                "on-deleted",
                &[
                    ("refuse", OnDeleted::Refuse),
                    ("recover", OnDeleted::Recover),
                    ("purge", OnDeleted::Purge),
                ],
            )?,
            wait: Duration::from_secs(settings.number("wait-seconds", 1..=300)?),
            timeout: Duration::from_secs(settings.number("timeout-seconds", 1..=300)?),
            api_version: api_version.to_owned(),
            reach,
        })
    }

    /// Sets the owner of written secrets.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// The host of the vault, with its port if that is not 443.
    pub(crate) fn place(&self) -> String {
        let host = self.vault.host_str().unwrap_or_default();
        match self.vault.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// Which deletes also purge, so that the secret cannot be recovered.
///
/// If the role or purge protection does not allow a purge, the secret stays soft-deleted until the
/// vault's retention period ends, with a warning in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purge {
    /// All of them.
    Always,
    /// None: a deleted secret can be recovered until the vault's retention period ends.
    Never,
    /// Those with [`Recovery::Immediate`], such as the deletes of an abort or a rollback.
    OnRequest,
}

impl Purge {
    /// Whether a delete purges.
    pub(crate) fn applies(self, recovery: Recovery) -> bool {
        match self {
            // A caller that requests a window wants recovery. The vault determines its length.
            Self::Always => !matches!(recovery, Recovery::Window { .. }),
            Self::Never => false,
            Self::OnRequest => recovery == Recovery::Immediate,
        }
    }
}

/// What a write does if its name is soft-deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDeleted {
    /// Purges the deleted secret, then writes.
    Purge,
    /// Recovers the deleted secret, then compares.
    Recover,
    /// Fails with `PendingDeletion`.
    Refuse,
}

/// The addresses that may be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All of them.
    Anywhere,
    /// Only public ones; any for the host that the operator allowed.
    Public { allowed: Option<String> },
}

impl Reach {
    /// The addresses that these settings may reach.
    pub(crate) fn of(trust: &Trust, vault: &Url) -> Result<Self> {
        if !trust.is_tenant() {
            return Ok(Self::Anywhere);
        }
        let host = vault.host_str().unwrap_or_default();
        if trust.allows_host(host) {
            return Ok(Self::Public {
                allowed: Some(host.to_owned()),
            });
        }
        if !is_of_key_vault(host) {
            return Err(invalid(
                "the vault's host is neither on one of Key Vault's domains nor allowed by the operator",
            )
            .with_hint("use https://<name>.vault.azure.net, or ask the operator to allow it"));
        }
        if vault.port().is_some() {
            return Err(invalid("Key Vault listens on port 443 only").with_hint("remove the port"));
        }
        Ok(Self::Public { allowed: None })
    }

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

/// Whether a host is on one of Key Vault's domains, in any of its clouds.
pub(crate) fn is_of_key_vault(host: &str) -> bool {
    cloud_of(host).is_some()
}

fn cloud_of(host: &str) -> Option<(&'static str, &'static str)> {
    CLOUDS
        .into_iter()
        .find(|(suffix, _)| host.strip_suffix(suffix).is_some_and(is_vault_name))
}

/// A vault's name consists of letters, digits and hyphens, begins with a letter and does not
/// contain `--`. A dot would make it another host.
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
            "write https://<name>.vault.azure.net, or only the name, without path and credentials",
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
                "write it like https://login.microsoftonline.us, without tenant and path",
            )
        })
    })
}

fn default_authority(vault: &Url) -> Result<Url> {
    let host = vault.host_str().unwrap_or_default();
    let (_, authority) = cloud_of(host).unwrap_or(CLOUDS[0]);
    parse_authority(authority)
}

/// Parses a URL with only scheme, host and port; `Err(None)` if it is not one.
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
                "otherwise tokens and secrets would be sent in plain text; for an emulator set \
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
                "a tag's name must have 1 to 512 characters and its value at most 512",
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
            "a secret can have at most {MAX_TAGS} tags, and this library needs 2 of them"
        )));
    }
    Ok(collected)
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::ErrorKind;

    use super::*;
    use crate::SETTINGS;

    fn config(more: &[(&str, &str)]) -> Result<Config> {
        let vault = [("vault-url", "my-vault")];
        Config::from_settings(&SETTINGS.from_pairs(vault.iter().chain(more).copied())?)
    }

    fn vault(text: &str) -> Result<Config> {
        Config::from_settings(&SETTINGS.from_pairs([("vault-url", text)])?)
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
        let config = config(&[
            ("vault-suffix", ".vault.cloud.example"),
            ("authority-host", "https://login.cloud.example/"),
        ])
        .unwrap();
        assert_eq!(config.place(), "my-vault.vault.cloud.example");
        assert_eq!(config.authority.as_str(), "https://login.cloud.example/");
        for authority in [
            "http://login.example",
            "login.example",
            "https://login.example/tenant",
        ] {
            let error = self::config(&[("authority-host", authority)]).unwrap_err();
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
        let tags = |text: &str| config(&[("tags", text)]);
        let many = |count: usize| -> String {
            let tags: Vec<String> = (0..count).map(|at| format!("{at}=")).collect();
            tags.join(",")
        };
        assert!(tags(&many(13)).is_ok());
        assert!(tags(&format!("{}={}", "n".repeat(512), "v".repeat(512))).is_ok());
        for bad in [
            many(14),
            format!("{}=", "n".repeat(513)),
            format!("n={}", "v".repeat(513)),
            "=".to_owned(),
            "a\nb=".to_owned(),
            format!("{OWNER_TAG}=x"),
            format!("{COORDINATE_TAG}=x"),
            "a=1,a=2".to_owned(),
        ] {
            assert_eq!(tags(&bad).unwrap_err().kind(), ErrorKind::InvalidConfig);
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
