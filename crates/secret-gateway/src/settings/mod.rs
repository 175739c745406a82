//! Parses the gateway's settings from environment, file and flags into types.

mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secret_persistence::connector::{MAX_DEPTH, Place};
use secret_persistence::{AllowedHosts, SecretValue};
use serde_json::Value;

pub use table::{Setting, TABLE, variable};

/// The parsed settings of the gateway. `Debug` shows no credential.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The listen address.
    pub listen: SocketAddr,
    /// The data folder.
    pub data_folder: PathBuf,
    /// The URL of the store.
    pub store: Option<String>,
    /// The file with the store's settings.
    pub store_settings: Option<PathBuf>,
    /// The file of further stores.
    pub storages_file: Option<PathBuf>,
    /// The journal of a migration that the page shows.
    pub migration_journal: Option<String>,
    /// The file with the sources of the platform's configurations.
    pub configurations_file: Option<PathBuf>,
    /// The journal of the collector.
    pub collect_journal: String,
    /// The file of tokens.
    pub tokens_file: PathBuf,
    /// TLS, if the gateway terminates it.
    pub tls: Option<Tls>,
    /// Whether a proxy terminates TLS.
    pub behind_proxy: bool,
    /// The hosts that requests may use, including loopback names if it listens there.
    pub allowed_hosts: AllowedHosts,
    /// Limits of a request.
    pub limits: Limits,
    /// How long requests may continue after a signal.
    pub shutdown: Duration,
    /// The KV API.
    pub kv: Kv,
    /// Prefixes of external names that may be read.
    pub external_prefixes: Vec<String>,
    /// Places whose change requires entering secrets again.
    pub guarded_places: Vec<Place>,
    /// JWTs, if they are accepted.
    pub jwt: Option<Jwt>,
    /// The Postgres database of the outbox.
    pub outbox_url: Option<SecretValue>,
    /// The file of the digest key.
    pub key_file: PathBuf,
    /// How long superseded secrets are kept.
    pub retention: Option<Duration>,
    /// How long ended changes are kept.
    pub changes_kept: Duration,
    /// Whether logs are JSON.
    pub json_logs: bool,
}

/// The server's certificate files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tls {
    /// PEM certificates.
    pub certificates: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// PEM authorities of client certificates.
    pub client_authorities: Option<PathBuf>,
}

/// Limits of a request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The largest body.
    pub body_bytes: usize,
    /// The deepest JSON.
    pub depth: usize,
    /// How long a request may take.
    pub timeout: Duration,
    /// Requests at once.
    pub concurrency: usize,
}

/// The protocol and the names of the KV API.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Kv {
    /// The mount, one segment.
    pub mount: String,
    /// The prefix of every name.
    pub prefix: String,
    /// Version 1 or 2 of the engine.
    pub version: KvVersion,
}

/// A version of Vault's KV engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvVersion {
    /// Values at `/v1/<mount>/<path>`.
    One,
    /// Values at `/v1/<mount>/data/<path>`.
    Two,
}

/// Which JWTs are accepted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Jwt {
    /// The source of their keys.
    pub keys: JwtKeys,
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// The claim with the roles.
    pub role_claim: String,
    /// The claim with the workspaces.
    pub workspace_claim: String,
}

/// The source of the public keys of JWTs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JwtKeys {
    /// In a file.
    File(PathBuf),
    /// At a URL.
    Url(url::Url),
}

/// An invalid setting: its name, the reason and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting(String);

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidSetting {}

impl InvalidSetting {
    pub(crate) fn new(name: &str, reason: impl fmt::Display) -> Self {
        Self(format!("`{name}`: {reason}"))
    }
}

/// Unparsed settings by name. The first source that sets one wins: flags, environment, file.
#[derive(Clone, Default)]
pub struct Texts(BTreeMap<&'static str, String>);

/// Shows only names.
impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Texts {
    /// No settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a setting that is not set yet.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> Result<(), InvalidSetting> {
        let known = TABLE.iter().find(|setting| setting.name == name);
        let setting = known.ok_or_else(|| {
            let names: Vec<&str> = TABLE.iter().map(|setting| setting.name).collect();
            InvalidSetting::new(
                &name.escape_debug().to_string(),
                format_args!("is not a setting; the settings are {}", names.join(", ")),
            )
        })?;
        self.0.entry(setting.name).or_insert_with(|| value.into());
        Ok(())
    }

    /// Adds the settings of a lookup of variables. An empty variable is unset.
    pub fn set_environment(&mut self, variables: impl Fn(&str) -> Option<String>) {
        for setting in TABLE {
            if let Some(value) = variables(&variable(setting.name)).filter(|text| !text.is_empty())
            {
                self.0.entry(setting.name).or_insert(value);
            }
        }
    }

    /// Adds the settings of a JSON file: one object with strings, numbers and booleans.
    ///
    /// # Errors
    /// If it cannot be read, is not such an object, or contains an unknown name.
    pub fn set_file(&mut self, path: &Path) -> Result<(), InvalidSetting> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            InvalidSetting::new(&place, format_args!("cannot be read: {error}"))
        })?;
        // The parser's message would quote the text.
        let Ok(Value::Object(members)) = serde_json::from_str(&text) else {
            return Err(InvalidSetting::new(&place, "is not a JSON object"));
        };
        for (name, value) in members {
            let text = match value {
                Value::String(text) => text,
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => {
                    return Err(InvalidSetting::new(
                        &name,
                        "is not a string, a number or a boolean",
                    ));
                }
            };
            self.set(&name, text)?;
        }
        Ok(())
    }

    fn text(&self, name: &str) -> Option<&str> {
        let default = || TABLE.iter().find(|setting| setting.name == name)?.default;
        self.0.get(name).map(String::as_str).or_else(default)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    fn parsed<T: FromStr>(&self, name: &str, what: &str) -> Result<T, InvalidSetting> {
        let text = self.text(name).unwrap_or_default();
        text.parse()
            .map_err(|_| InvalidSetting::new(name, format_args!("is not {what}")))
    }

    fn number(&self, name: &str, least: u64, most: u64) -> Result<u64, InvalidSetting> {
        let what = format!("a number from {least} to {most}");
        let number: u64 = self.parsed(name, &what)?;
        if (least..=most).contains(&number) {
            Ok(number)
        } else {
            Err(InvalidSetting::new(name, format_args!("is not {what}")))
        }
    }

    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let items = self.text(name).unwrap_or_default().split(',');
        items.map(str::trim).filter(|item| !item.is_empty())
    }

    /// Parses all settings.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn parse(&self) -> Result<Settings, InvalidSetting> {
        let data_folder = self.path("data-folder").unwrap_or_default();
        let data_folder = std::path::absolute(data_folder)
            .map_err(|error| InvalidSetting::new("data-folder", error))?;
        let in_folder =
            |name: &str, file: &str| self.path(name).unwrap_or_else(|| data_folder.join(file));
        let listen: SocketAddr = self.parsed("listen", "an address and a port")?;
        let mut allowed_hosts = AllowedHosts::named(self.list("allowed-hosts"));
        if listen.ip().is_loopback() {
            allowed_hosts = allowed_hosts.with_loopback();
        }
        let settings = Settings {
            listen,
            store: self.text("store").map(ToOwned::to_owned),
            store_settings: self.path("store-settings"),
            storages_file: self.path("storages-file"),
            migration_journal: self.text("migration-journal").map(ToOwned::to_owned),
            configurations_file: self.path("configurations-file"),
            collect_journal: match self.text("collect-journal") {
                Some(text) => text.to_owned(),
                None => data_folder.join("collect.db").display().to_string(),
            },
            tokens_file: in_folder("tokens-file", "tokens.json"),
            tls: self.tls()?,
            behind_proxy: self.parsed("behind-proxy", "true or false")?,
            allowed_hosts,
            limits: Limits {
                body_bytes: size(self.number("max-body-bytes", 1024, 64 << 20)?),
                // One level more than a configuration may have, for its envelope, twice.
                depth: MAX_DEPTH + 4,
                timeout: Duration::from_secs(self.number("request-timeout-seconds", 1, 600)?),
                concurrency: size(self.number("concurrency", 1, 65_536)?),
            },
            shutdown: Duration::from_secs(self.number("shutdown-seconds", 1, 600)?),
            kv: self.kv()?,
            external_prefixes: self
                .list("external-prefixes")
                .map(ToOwned::to_owned)
                .collect(),
            guarded_places: self
                .list("guarded-places")
                .map(|text| {
                    text.parse()
                        .map_err(|error| InvalidSetting::new("guarded-places", error))
                })
                .collect::<Result<_, _>>()?,
            jwt: self.jwt()?,
            outbox_url: self
                .text("outbox-url")
                .map(|text| SecretValue::new(text.to_owned())),
            key_file: in_folder("key-file", "gateway.key"),
            retention: match self.text("retention-seconds") {
                Some(_) => Some(Duration::from_secs(self.number(
                    "retention-seconds",
                    1,
                    1 << 32,
                )?)),
                None => None,
            },
            changes_kept: Duration::from_secs(self.number("changes-kept-seconds", 60, 1 << 32)?),
            json_logs: match self.text("log") {
                Some("json") => true,
                Some("text") => false,
                _ => return Err(InvalidSetting::new("log", "is neither json nor text")),
            },
            data_folder,
        };
        settings.check()?;
        Ok(settings)
    }

    fn tls(&self) -> Result<Option<Tls>, InvalidSetting> {
        let client_authorities = self.path("client-ca-file");
        match (self.path("tls-cert-file"), self.path("tls-key-file")) {
            (Some(certificates), Some(key)) => Ok(Some(Tls {
                certificates,
                key,
                client_authorities,
            })),
            (None, None) if client_authorities.is_some() => Err(InvalidSetting::new(
                "client-ca-file",
                "client certificates require `tls-cert-file`",
            )),
            (None, None) => Ok(None),
            (Some(_), None) => Err(InvalidSetting::new(
                "tls-key-file",
                "is missing; `tls-cert-file` requires it",
            )),
            (None, Some(_)) => Err(InvalidSetting::new(
                "tls-cert-file",
                "is missing; `tls-key-file` requires it",
            )),
        }
    }

    fn kv(&self) -> Result<Kv, InvalidSetting> {
        let mount = self
            .text("kv-mount")
            .unwrap_or_default()
            .trim_matches('/')
            .to_owned();
        let is_plain = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        if mount.is_empty()
            || !is_plain(&mount)
            || ["sys", "auth", "identity", "cubbyhole"].contains(&mount.as_str())
            || mount.starts_with('.')
        {
            return Err(InvalidSetting::new(
                "kv-mount",
                "is not one path segment of A-Z, a-z, 0-9, _, - and ., or is reserved by Vault",
            ));
        }
        let prefix = self
            .text("kv-prefix")
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned();
        if !prefix
            .split('/')
            .all(|part| is_plain(part) && part != ".." && part != ".")
            || prefix.contains("//")
        {
            return Err(InvalidSetting::new(
                "kv-prefix",
                "contains other characters than A-Z, a-z, 0-9, _, -, . and single /",
            ));
        }
        let version = match self.text("kv-version") {
            Some("1") => KvVersion::One,
            Some("2") => KvVersion::Two,
            _ => return Err(InvalidSetting::new("kv-version", "is neither 1 nor 2")),
        };
        Ok(Kv {
            mount,
            prefix,
            version,
        })
    }

    fn jwt(&self) -> Result<Option<Jwt>, InvalidSetting> {
        let keys = match (self.path("jwks-file"), self.text("jwks-url")) {
            (None, None) => {
                for name in ["jwt-issuer", "jwt-audience"] {
                    if self.text(name).is_some() {
                        return Err(InvalidSetting::new(
                            name,
                            "JWTs require `jwks-file` or `jwks-url`",
                        ));
                    }
                }
                return Ok(None);
            }
            (Some(file), None) => JwtKeys::File(file),
            (None, Some(text)) => JwtKeys::Url(jwks_url(text)?),
            (Some(_), Some(_)) => {
                return Err(InvalidSetting::new(
                    "jwks-url",
                    "`jwks-file` is set too; set only one of them",
                ));
            }
        };
        let required = |name: &str| {
            let reason = "must be set with JWTs, so that tokens for other audiences are refused";
            self.text(name)
                .map(ToOwned::to_owned)
                .ok_or_else(|| InvalidSetting::new(name, reason))
        };
        Ok(Some(Jwt {
            keys,
            issuer: required("jwt-issuer")?,
            audience: required("jwt-audience")?,
            role_claim: required("jwt-role-claim")?,
            workspace_claim: required("jwt-workspace-claim")?,
        }))
    }
}

impl Settings {
    /// Checks combinations of settings.
    fn check(&self) -> Result<(), InvalidSetting> {
        if !self.listens_on_loopback() {
            if self.tls.is_none() && !self.behind_proxy {
                return Err(InvalidSetting::new(
                    "listen",
                    "beyond loopback the gateway requires `tls-cert-file` and `tls-key-file`, or `behind-proxy=true` if a proxy terminates TLS",
                ));
            }
            if self.allowed_hosts == AllowedHosts::default() {
                return Err(InvalidSetting::new(
                    "allowed-hosts",
                    "beyond loopback, set the host names that clients use, such as secret-gateway.airbyte.svc:8220",
                ));
            }
        }
        if self.store.is_some() && self.store_settings.is_some() {
            return Err(InvalidSetting::new(
                "store",
                "`store-settings` is set too; set only one of them",
            ));
        }
        Ok(())
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn listens_on_loopback(&self) -> bool {
        self.listen.ip().is_loopback()
    }
}

fn jwks_url(text: &str) -> Result<url::Url, InvalidSetting> {
    let invalid = |reason: &str| InvalidSetting::new("jwks-url", reason);
    let url = url::Url::parse(text).map_err(|_| invalid("is not a URL"))?;
    let loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return Err(invalid("has no host")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("contains credentials"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        _ => Err(invalid("is neither https nor http on loopback")),
    }
}

/// The table limits it far below the maximum of `usize`.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<Settings, InvalidSetting> {
        let mut texts = Texts::new();
        for (name, value) in pairs {
            texts.set(name, *value)?;
        }
        texts.parse()
    }

    #[test]
    fn nothing_set_listens_on_loopback_with_version_2() {
        let settings = parsed(&[]).unwrap();
        assert!(settings.listens_on_loopback() && settings.tls.is_none());
        assert_eq!(settings.kv.version, KvVersion::Two);
        assert_eq!((&*settings.kv.mount, &*settings.kv.prefix), ("secret", ""));
        assert!(settings.external_prefixes.is_empty());
    }

    #[test]
    fn what_is_dangerous_or_contradictory_is_refused_by_name() {
        for (pairs, named) in [
            (vec![("listen", "0.0.0.0:8220")], "listen"),
            (
                vec![("listen", "0.0.0.0:8220"), ("behind-proxy", "true")],
                "allowed-hosts",
            ),
            (
                vec![("listen", "[::]:8220"), ("tls-cert-file", "a")],
                "tls-key-file",
            ),
            (vec![("client-ca-file", "a")], "client-ca-file"),
            (vec![("kv-mount", "a/b")], "kv-mount"),
            (vec![("kv-mount", "sys")], "kv-mount"),
            (vec![("kv-prefix", "../x/")], "kv-prefix"),
            (vec![("kv-prefix", "a//b")], "kv-prefix"),
            (vec![("kv-version", "3")], "kv-version"),
            (vec![("max-body-bytes", "1")], "max-body-bytes"),
            (vec![("concurrency", "many")], "concurrency"),
            (vec![("jwks-file", "a")], "jwt-issuer"),
            (vec![("jwt-issuer", "a")], "jwt-issuer"),
            (vec![("jwks-url", "http://keys.example/")], "jwks-url"),
            (vec![("jwks-url", "https://u:p@keys.example/")], "jwks-url"),
            (
                vec![("store", "sqlite:///x"), ("store-settings", "y")],
                "store",
            ),
            (vec![("guarded-places", "host")], "guarded-places"),
            (vec![("log", "xml")], "log"),
            (vec![("lisen", "x")], "lisen"),
        ] {
            let error = parsed(&pairs).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{named}`")),
                "{pairs:?}: {error}"
            );
        }
    }

    #[test]
    fn flags_come_before_the_environment_and_that_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.json");
        std::fs::write(
            &file,
            r#"{"kv-mount": "file", "kv-version": 1, "behind-proxy": true}"#,
        )
        .unwrap();
        let mut texts = Texts::new();
        texts.set("kv-mount", "flag").unwrap();
        texts.set_environment(|name| match name {
            "SECRET_GATEWAY_KV_MOUNT" => Some("environment".to_owned()),
            "SECRET_GATEWAY_KV_VERSION" => Some("2".to_owned()),
            "SECRET_GATEWAY_LISTEN" => Some(String::new()),
            _ => None,
        });
        texts.set_file(&file).unwrap();
        let settings = texts.parse().unwrap();
        assert_eq!(settings.kv.mount, "flag");
        assert_eq!(settings.kv.version, KvVersion::Two);
        assert!(settings.behind_proxy);

        std::fs::write(&file, r#"{"kv-mont": "x"}"#).unwrap();
        assert!(Texts::new().set_file(&file).is_err());
    }
}
