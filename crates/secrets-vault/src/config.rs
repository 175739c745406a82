//! Settings of the Vault store: one key table for every source.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secret_persistence_core::settings::{
    KeyTable, Setting, SettingMap, StoreUrl, invalid, is_loopback,
};
use secret_persistence_core::{Owner, Result, SecretValue};
use url::{Host, Url};

use crate::resolver::Reach;

/// Vault's default port.
const DEFAULT_PORT: u16 = 8200;

/// The default path of a pod's service account token.
/// <https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/>
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The key table: `vault://host[:port]/<mount>/<path>/?<setting>=…`, with the environment for
/// settings that the URL lacks. The path is the `prefix`. `vault` means https; `tls=off` works only
/// on loopback.
pub const SETTINGS: KeyTable = KeyTable::new(&["vault"], ROWS, read_url);

const ROWS: &[Setting] = &[
    Setting::new("address", "the address of the server, such as https://vault.example.com:8200")
        .with_env(&["VAULT_ADDRESS"])
        .with_helm(&["address"])
        .with_json(&["address"]),
    Setting::new(
        "prefix",
        "mount and path together, as in Airbyte: prepended to every name unchanged, so end it with /",
    )
    .with_env(&["VAULT_PREFIX"])
    .with_helm(&["prefix"])
    .with_json(&["prefix"])
    .with_default("secret/"),
    Setting::new("mount", "the mount of the KV engine, if it is not the first part of the prefix"),
    Setting::new("kv-version", "1, 2, or auto to ask the server").with_default("auto"),
    Setting::new("auth-method", "token, token-file, approle, kubernetes or jwt")
        .with_env(&["VAULT_AUTH_METHOD"])
        .with_default("token"),
    Setting::new("auth-mount", "the mount of the login method").with_default("the method's name"),
    Setting::new("token", "the token")
        .with_env(&["VAULT_AUTH_TOKEN"])
        .with_helm(&["authToken", "token"])
        .with_helm_secret(&["VAULT_AUTH_TOKEN"])
        .with_json(&["token"])
        .secret(),
    Setting::new("token-file", "a file with the token, reread when it changes").operator_only(),
    Setting::new("role", "the role to log in with (kubernetes, jwt)"),
    Setting::new("role-id", "the role id (approle)").with_env(&["VAULT_ROLE_ID"]),
    Setting::new("secret-id", "the secret id (approle)").with_env(&["VAULT_SECRET_ID"]).secret(),
    Setting::new("secret-id-file", "a file with the secret id, read at every login").operator_only(),
    Setting::new("jwt", "the signed token to log in with (jwt)").with_env(&["VAULT_JWT"]).secret(),
    Setting::new("jwt-file", "a file with the signed token, read at every login (kubernetes, jwt)")
        .with_default(SERVICE_ACCOUNT_TOKEN)
        .operator_only(),
    Setting::new("namespace", "the namespace (an Enterprise feature)").with_env(&["VAULT_NAMESPACE"]),
    Setting::new("ca-file", "PEM certificates to trust instead of the system's")
        .with_env(&["VAULT_CACERT"])
        .with_helm(&["caFile"])
        .with_json(&["caFile"])
        .operator_only(),
    Setting::new("client-cert-file", "PEM client certificate").operator_only(),
    Setting::new("client-key-file", "PEM private key of the client certificate").operator_only(),
    Setting::new("tls-server-name", "the expected name in the server's certificate"),
    Setting::new("tls", "`off` for plain HTTP, only on loopback")
        .with_default("on")
        .operator_only(),
    Setting::new("peers", "host:port,… of the servers that a standby may redirect to").operator_only(),
    Setting::new("connections", "maximum concurrent requests, from 1 to 256").with_default("32"),
    Setting::new("max-value-bytes", "the largest value that the server's storage accepts")
        .with_default("500000"),
    Setting::new("timeout-seconds", "how long one request may take, from 1 to 300").with_default("30"),
];

/// The checked settings of one Vault store.
///
/// ```
/// use secret_persistence_core::settings::StoreUrl;
/// use secret_persistence_vault::{Config, SETTINGS};
///
/// let url = StoreUrl::parse("vault://vault.example.com:8200/secret/airbyte/?namespace=team")?;
/// let variable = |name: &str| (name == "VAULT_AUTH_TOKEN").then(|| "hvs.example".to_owned());
/// let config = Config::from_settings(&SETTINGS.from_url(&url, &variable)?)?;
/// assert!(!format!("{config:?}").contains("hvs.example"));
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) address: Url,
    pub(crate) place: Place,
    pub(crate) version: Option<KvVersion>,
    pub(crate) reach: Reach,
    pub(crate) login: Login,
    pub(crate) namespace: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) client_cert: Option<(PathBuf, PathBuf)>,
    pub(crate) tls_server_name: Option<String>,
    pub(crate) peers: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) max_value_bytes: usize,
    pub(crate) timeout: Duration,
    pub(crate) owner: Option<Owner>,
}

/// The location of the secrets on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Mount and path together: the server knows where the mount ends.
    Joined(String),
    /// A mount, and the prefix of every name within it.
    Separate { mount: String, prefix: String },
}

/// The version of a mount's KV engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvVersion {
    One,
    Two,
}

impl KvVersion {
    /// Its name in settings.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// How to obtain a token.
#[derive(Clone)]
pub(crate) enum Login {
    AppRole {
        mount: String,
        role_id: String,
        secret_id: Credential,
    },
    Jwt {
        mount: String,
        role: String,
        jwt: Credential,
    },
    Token(SecretValue),
    TokenFile(PathBuf),
}

/// A credential, given or read from a file each time it is needed.
#[derive(Clone)]
pub(crate) enum Credential {
    File(PathBuf),
    Given(SecretValue),
}

impl Config {
    /// Sets the owner of written secrets.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Checks settings and fills in defaults. Reads no file and sends nothing.
    ///
    /// # Errors
    /// `InvalidConfig`, with the setting and the remedy. Also if a tenant's settings would log in
    /// with credentials of this process, or would reach a host outside the public internet that the
    /// operator did not list. A host name is resolved for each connection, every address is
    /// checked, and the connection uses the checked address.
    pub fn from_settings(settings: &SettingMap) -> Result<Self> {
        let address = address(settings)?;
        let reach = Reach::of(settings.trust(), &address)?;
        let client_cert = match (
            settings.text("client-cert-file"),
            settings.text("client-key-file"),
        ) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => {
                return Err(invalid(
                    "`client-cert-file` and `client-key-file` require each other",
                ));
            }
        };
        let versions = [
            ("auto", None),
            ("1", Some(KvVersion::One)),
            ("2", Some(KvVersion::Two)),
        ];
        Ok(Self {
            address,
            place: place(settings)?,
            version: settings.choice("kv-version", &versions)?,
            reach,
            login: login(settings)?,
            namespace: settings.text("namespace").map(header_text).transpose()?,
            ca_file: settings.text("ca-file").map(Into::into),
            client_cert,
            tls_server_name: settings
                .text("tls-server-name")
                .map(host_name)
                .transpose()?,
            peers: peers(settings)?,
            connections: settings.number("connections", 1..=256)?,
            max_value_bytes: settings.number("max-value-bytes", 1..=16 << 20)?,
            timeout: Duration::from_secs(settings.number("timeout-seconds", 1..=300)?),
            owner: None,
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("address", &self.address.as_str())
            .field("place", &self.place)
            .field("version", &self.version)
            .field("reach", &self.reach)
            .field("login", &self.login.name())
            .field("namespace", &self.namespace)
            .field("ca_file", &self.ca_file)
            .field(
                "client_cert",
                &self.client_cert.as_ref().map(|(cert, _)| cert),
            )
            .field("tls_server_name", &self.tls_server_name)
            .field("peers", &self.peers)
            .field("connections", &self.connections)
            .field("max_value_bytes", &self.max_value_bytes)
            .field("timeout", &self.timeout)
            .field("owner", &self.owner)
            .finish()
    }
}

impl Login {
    /// The method's name, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::AppRole { .. } => "approle",
            Self::Jwt { .. } => "jwt",
            Self::Token(_) => "token",
            Self::TokenFile(_) => "token-file",
        }
    }
}

fn read_url(url: &StoreUrl, settings: &mut SettingMap) -> Result<()> {
    let host = url.host().ok_or_else(|| {
        invalid("this is not the URL of a Vault store")
            .with_hint("write it like vault://vault.example.com:8200/secret/airbyte/")
    })?;
    let scheme = if settings.text("tls") == Some("off") {
        "http"
    } else {
        "https"
    };
    let port = url.port().unwrap_or(DEFAULT_PORT);
    settings.set("address", format!("{scheme}://{host}:{port}"))?;
    match url.path().trim_start_matches('/') {
        // The URL defines the address, so no variable may.
        "" if settings.is_set("prefix") => Ok(()),
        "" => settings.set("prefix", ""),
        // People expect a folder here; the setting `prefix` accepts anything, like Airbyte.
        path => {
            let slash = if path.ends_with('/') { "" } else { "/" };
            settings.set("prefix", format!("{path}{slash}"))
        }
    }
}

fn address(settings: &SettingMap) -> Result<Url> {
    let text = settings.text("address").ok_or_else(|| {
        invalid("`address` is missing")
            .with_hint("set VAULT_ADDRESS, like https://vault.example.com:8200")
    })?;
    let wrong = || {
        invalid("`address` is not a server's address")
            .with_hint("write it like https://vault.example.com:8200, without path and credentials")
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/" | "/v1" | "/v1/")
        && url.query().is_none()
        && url.fragment().is_none();
    if !bare || url.host().is_none() {
        return Err(wrong());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if settings.trust().is_tenant() => Err(invalid("a tenant's store must use https")),
        "http" if url.host_str().is_some_and(is_loopback) => Ok(url),
        "http" => Err(invalid("plain http is refused outside loopback").with_hint(
            "use https; otherwise the token and every secret would be sent in plain text",
        )),
        _ => Err(wrong()),
    }
}

fn place(settings: &SettingMap) -> Result<Place> {
    let clean = |text: &str| {
        let inner = text.strip_suffix('/').unwrap_or(text);
        let tricky = |segment: &str| {
            segment.is_empty()
                || segment == "."
                || segment == ".."
                || segment.chars().any(char::is_control)
        };
        if !inner.is_empty() && inner.split('/').any(tricky) {
            return Err(invalid(
                "`prefix` and `mount` must be paths without empty, . or .. parts",
            ));
        }
        Ok(())
    };
    let prefix = settings.text("prefix");
    if let Some(mount) = settings.text("mount") {
        clean(mount)?;
        let prefix = prefix.unwrap_or("");
        clean(prefix)?;
        let mount = mount.trim_end_matches('/').to_owned();
        return Ok(Place::Separate {
            mount,
            prefix: prefix.to_owned(),
        });
    }
    let joined = match prefix.unwrap_or("") {
        // Airbyte prepends the prefix unchanged, which has no meaning without a mount or its slash;
        // nothing can have been stored that way.
        "" => String::from("secret/"),
        mount if !mount.contains('/') => format!("{mount}/"),
        other => other.to_owned(),
    };
    clean(&joined)?;
    Ok(Place::Joined(joined))
}

fn login(settings: &SettingMap) -> Result<Login> {
    let method = settings
        .text("auth-method")
        .unwrap_or("token")
        .to_ascii_lowercase();
    let mount = |default: &str| {
        settings
            .text("auth-mount")
            .unwrap_or(default)
            .trim_matches('/')
            .to_owned()
    };
    let text = |name: &'static str| {
        settings.text(name).map(str::to_owned).ok_or_else(|| {
            invalid(format!("`{name}` is missing"))
                .with_hint(format!("the login method {method} requires it"))
        })
    };
    // This pod's token is the platform's identity, which a tenant must not use.
    let own_token = (!settings.trust().is_tenant()).then_some(SERVICE_ACCOUNT_TOKEN);
    match method.as_str() {
        "approle" => Ok(Login::AppRole {
            mount: mount("approle"),
            role_id: text("role-id")?,
            secret_id: credential(settings, "secret-id", "secret-id-file", None)?,
        }),
        "kubernetes" => Ok(Login::Jwt {
            mount: mount("kubernetes"),
            role: text("role")?,
            jwt: credential(settings, "jwt", "jwt-file", own_token)?,
        }),
        "jwt" => Ok(Login::Jwt {
            mount: mount("jwt"),
            role: text("role")?,
            jwt: credential(settings, "jwt", "jwt-file", own_token)?,
        }),
        "token" => match (settings.secret("token"), settings.text("token-file")) {
            (Some(token), None) => Ok(Login::Token(token)),
            (None, Some(path)) => Ok(Login::TokenFile(path.into())),
            (Some(_), Some(_)) => Err(invalid("`token` and `token-file` exclude each other")),
            (None, None) => Err(invalid("no token").with_hint(
                "set VAULT_AUTH_TOKEN or token-file, or use another auth-method: approle, kubernetes, jwt",
            )),
        },
        "token-file" => Ok(Login::TokenFile(text("token-file")?.into())),
        _ => Err(invalid("`auth-method` must be token, token-file, approle, kubernetes or jwt")),
    }
}

fn credential(
    settings: &SettingMap,
    given: &'static str,
    file: &'static str,
    default: Option<&str>,
) -> Result<Credential> {
    match (settings.secret(given), settings.text(file).or(default)) {
        (Some(_), Some(_)) if settings.text(file).is_some() => Err(invalid(format!(
            "`{given}` and `{file}` exclude each other"
        ))),
        (Some(value), _) => Ok(Credential::Given(value)),
        (None, Some(path)) => Ok(Credential::File(path.into())),
        (None, None) if settings.trust().is_tenant() => Err(invalid(format!(
            "`{given}` is missing"
        ))
        .with_hint("a tenant must supply credentials; those of this process are never used")),
        (None, None) => Err(invalid(format!("`{given}` or `{file}` is missing"))),
    }
}

fn peers(settings: &SettingMap) -> Result<Vec<String>> {
    let list = settings.text("peers").unwrap_or("");
    list.split(',')
        .map(str::trim)
        .filter(|peer| !peer.is_empty())
        .map(|peer| match Url::parse(&format!("https://{peer}")) {
            Ok(url) if url.path() == "/" && url.username().is_empty() => Ok(authority(&url)),
            _ => Err(invalid(
                "`peers` must be a list like vault-0.internal:8200,vault-1.internal:8200",
            )),
        })
        .collect()
}

/// `host:port`, with the port that the scheme implies.
pub(crate) fn authority(url: &Url) -> String {
    format!(
        "{}:{}",
        url.host_str().unwrap_or(""),
        url.port_or_known_default().unwrap_or(0)
    )
}

/// A host name, not an address: the connection would use that address instead of the server's.
fn host_name(text: &str) -> Result<String> {
    match Host::parse(text) {
        Ok(Host::Domain(_)) => header_text(text),
        _ => Err(invalid(
            "`tls-server-name` must be a host name, not an address",
        )),
    }
}

fn header_text(text: &str) -> Result<String> {
    if text.is_empty() || !text.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return Err(invalid(
            "`namespace` and `tls-server-name` must be printable ASCII without spaces",
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::ErrorKind;
    use secret_persistence_core::settings::Trust;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> SettingMap {
        let mut settings = SettingMap::new(SETTINGS.rows());
        for (name, value) in pairs {
            settings.set(name, *value).unwrap();
        }
        settings
    }

    fn build(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::from_settings(&settings(pairs))
    }

    #[test]
    fn a_prefix_is_understood_as_airbyte_writes_it() {
        for (prefix, expected) in [
            ("secret/", "secret/"),
            ("secret", "secret/"),
            ("", "secret/"),
            ("secret/airbyte/", "secret/airbyte/"),
            // Airbyte joins without a slash, and has stored secrets that way.
            ("secret/airbyte", "secret/airbyte"),
        ] {
            let config =
                build(&[("address", "https://v"), ("token", "t"), ("prefix", prefix)]).unwrap();
            assert_eq!(config.place, Place::Joined(expected.to_owned()), "{prefix}");
        }
        for prefix in [
            "/secret/",
            "secret//x/",
            "secret/../sys/",
            "./",
            "secret/\n/",
        ] {
            assert!(
                build(&[("address", "https://v"), ("token", "t"), ("prefix", prefix)]).is_err()
            );
        }
    }

    #[test]
    fn mount_and_prefix_can_be_given_apart() {
        let config = build(&[
            ("address", "https://v"),
            ("token", "t"),
            ("mount", "kv/team/"),
            ("prefix", "airbyte/"),
        ]);
        let expected = Place::Separate {
            mount: "kv/team".into(),
            prefix: "airbyte/".into(),
        };
        assert_eq!(config.unwrap().place, expected);
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for (address, fine) in [
            ("https://vault.example.com:8200", true),
            ("https://vault.example.com:8200/v1", true),
            ("http://127.0.0.1:8200", true),
            ("http://localhost:8200", true),
            ("http://[::1]:8200", true),
            ("http://vault.example.com:8200", false),
            ("http://127.0.0.1.example.com", false),
            ("https://user:hunter2@vault.example.com", false),
            ("https://vault.example.com/ui?token=hunter2", false),
            ("tcp://10.0.0.1:8200", false),
            ("vault.example.com", false),
        ] {
            let result = build(&[("address", address), ("token", "t")]);
            assert_eq!(result.is_ok(), fine, "{address}");
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::InvalidConfig);
                assert!(!format!("{error} {error:?}").contains("hunter2"));
            }
        }
    }

    #[test]
    fn logins_say_what_they_need() {
        let base = [("address", "https://v")];
        let with = |more: &[(&'static str, &'static str)]| build(&[&base, more].concat());
        assert_eq!(with(&[("token", "t")]).unwrap().login.name(), "token");
        assert_eq!(
            with(&[("token-file", "/t")]).unwrap().login.name(),
            "token-file"
        );
        let approle = [
            ("auth-method", "AppRole"),
            ("role-id", "r"),
            ("secret-id", "s"),
        ];
        assert_eq!(with(&approle).unwrap().login.name(), "approle");
        let kubernetes = with(&[("auth-method", "kubernetes"), ("role", "r")]).unwrap();
        assert!(matches!(
            kubernetes.login,
            Login::Jwt { jwt: Credential::File(path), mount, .. }
                if path.ends_with("serviceaccount/token") && mount == "kubernetes"
        ));
        for wrong in [
            &[][..],
            &[("token", "t"), ("token-file", "/t")],
            &[("auth-method", "approle"), ("role-id", "r")],
            &[("auth-method", "jwt"), ("jwt", "j")],
            &[("auth-method", "ldap")],
        ] {
            assert_eq!(with(wrong).unwrap_err().kind(), ErrorKind::InvalidConfig);
        }
    }

    #[test]
    fn urls_set_address_and_prefix_and_never_secrets() {
        let parse = |text: &str| SETTINGS.from_url(&StoreUrl::parse(text)?, &|_| None);
        let settings = parse("vault://vault.example.com/secret/airbyte?kv-version=2").unwrap();
        assert_eq!(
            settings.text("address"),
            Some("https://vault.example.com:8200")
        );
        assert_eq!(settings.text("prefix"), Some("secret/airbyte/"));
        let local = parse("vault://127.0.0.1:1/kv/?tls=off").unwrap();
        assert_eq!(local.text("address"), Some("http://127.0.0.1:1"));
        for wrong in [
            "vault:///secret/",
            "vault://h/s/?token=x",
            "vault://h/s/?nope=x",
            "aws://x",
        ] {
            assert_eq!(
                parse(wrong).unwrap_err().kind(),
                ErrorKind::InvalidConfig,
                "{wrong}"
            );
        }
        let remote = parse("vault://vault.example.com/kv/?tls=off").unwrap();
        assert!(Config::from_settings(&remote).is_err());
    }

    fn tenant(pairs: &[(&str, &str)]) -> Result<Config> {
        let trust = Trust::tenant_reaching(["vault.internal", ".team.internal"]);
        let mut settings = SettingMap::with_trust(SETTINGS.rows(), trust);
        for (name, value) in pairs {
            settings.set(name, *value)?;
        }
        Config::from_settings(&settings)
    }

    #[test]
    fn a_tenant_gives_an_address_and_a_token() {
        for address in [
            "https://vault.example.com:8200",
            "https://1.1.1.1",
            "https://vault.internal",
        ] {
            tenant(&[("address", address), ("token", "t")]).unwrap();
        }
    }

    #[test]
    fn a_tenant_may_not_use_plain_http() {
        for address in [
            "http://127.0.0.1:8200",
            "http://vault.example.com",
            "http://vault.internal",
        ] {
            let error = tenant(&[("address", address), ("token", "t")]).unwrap_err();
            assert!(error.message().contains("https"), "{error}");
        }
    }

    #[test]
    fn a_tenant_may_not_name_an_address_of_this_network() {
        for address in [
            "https://127.0.0.1:8200",
            "https://[::1]:8200",
            "https://10.0.0.5",
            "https://169.254.169.254",
            "https://[::ffff:10.0.0.5]",
            "https://[fd00::1]",
            // What other parsers treat as an address, this one must too.
            "https://2130706433",
            "https://0x7f.1",
        ] {
            let error = tenant(&[("address", address), ("token", "t")]).unwrap_err();
            assert!(
                error.message().contains("public internet"),
                "{address}: {error}"
            );
        }
    }

    #[test]
    fn a_tenant_may_not_smuggle_an_address_into_the_tls_server_name() {
        for name in ["10.0.0.1", "[::1]", "2130706433", "a/b"] {
            let settings = [
                ("address", "https://v.example"),
                ("token", "t"),
                ("tls-server-name", name),
            ];
            let error = tenant(&settings).unwrap_err();
            assert!(
                error.message().contains("tls-server-name"),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn a_tenant_may_not_read_files() {
        for (name, path) in [
            ("token-file", "/run/token"),
            ("secret-id-file", "/run/id"),
            ("jwt-file", "/run/jwt"),
            ("ca-file", "/run/ca"),
            ("client-cert-file", "/run/cert"),
            ("client-key-file", "/run/key"),
        ] {
            let error = tenant(&[("address", "https://v.example"), (name, path)]).unwrap_err();
            assert!(error.message().contains("operator"), "{error}");
        }
    }

    #[test]
    fn a_tenant_may_not_log_in_with_the_pods_own_token() {
        for method in ["kubernetes", "jwt"] {
            let login = [
                ("address", "https://v.example"),
                ("auth-method", method),
                ("role", "r"),
            ];
            let error = tenant(&login).unwrap_err();
            assert!(error.message().contains("`jwt` is missing"), "{error}");
            tenant(&[&login[..], &[("jwt", "j")]].concat()).unwrap();
        }
    }

    #[test]
    fn a_tenant_may_not_name_peers_or_switch_tls_off() {
        for pair in [("peers", "10.0.0.1:8200"), ("tls", "off")] {
            let error =
                tenant(&[("address", "https://v.example"), ("token", "t"), pair]).unwrap_err();
            assert!(error.message().contains("operator"), "{error}");
        }
    }

    #[test]
    fn the_table_has_no_name_twice_and_debug_no_secret() {
        let names: std::collections::BTreeSet<_> = ROWS.iter().map(|one| one.name).collect();
        assert_eq!(names.len(), ROWS.len());
        let config = build(&[
            ("address", "https://v"),
            ("auth-method", "approle"),
            ("role-id", "r"),
            ("secret-id", "canary"),
        ]);
        assert!(!format!("{config:?}").contains("canary"));
    }
}
