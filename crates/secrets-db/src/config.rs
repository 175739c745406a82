//! Settings: one key table for URL, environment and map.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secret_persistence_core::settings::{Setting, Settings, StoreUrl};
use secret_persistence_core::{Error, ErrorKind, Operation, Owner, Result, SecretValue};

use crate::database_url::{self, Address};
use crate::keyring::KeyRing;
use crate::keyring_file;
use crate::naming::TableName;

/// The key table. Postgres settings are not looked at for SQLite, and the reverse.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "url",
        "the database as a libpq, JDBC or SQLite URL, credentials allowed; for host, port, database, user and password",
    )
    .with_env(&["DATABASE_URL"])
    .with_helm(&["jdbcUrl"])
    .secret()
    .operator_only(),
    Setting::new("path", "the file of an SQLite database").operator_only(),
    Setting::new("host", "the Postgres server, or the folder of its socket")
        .with_env(&["DATABASE_HOST"])
        .with_helm(&["host"])
        .operator_only(),
    Setting::new("port", "the port of the Postgres server")
        .with_env(&["DATABASE_PORT"])
        .with_helm(&["port"])
        .with_default("5432")
        .operator_only(),
    Setting::new("database", "the Postgres database")
        .with_env(&["DATABASE_DB"])
        .with_helm(&["database", "name"])
        .operator_only(),
    Setting::new("user", "the Postgres role")
        .with_env(&["DATABASE_USER"])
        .with_helm(&["user"])
        .with_helm_secret(&["DATABASE_USER"])
        .operator_only(),
    Setting::new("password", "the password of the Postgres role")
        .with_env(&["DATABASE_PASSWORD"])
        .with_helm(&["password"])
        .with_helm_secret(&["DATABASE_PASSWORD"])
        .secret()
        .operator_only(),
    Setting::new(
        "sslmode",
        "verify-full, or disable, which only loopback and sockets may have and have by default",
    )
    .operator_only(),
    Setting::new(
        "ssl-root-cert",
        "a PEM file of further certificate authorities that the Postgres server may be certified by",
    )
    .with_env(&["DATABASE_SSL_ROOT_CERT"])
    .operator_only(),
    Setting::new("table", "the table, with or without its schema").with_default("secrets"),
    Setting::new(
        "mode",
        "plain, encrypted, or converting (reads both, writes encrypted); encrypted by default where there is a key ring, else plain",
    ),
    Setting::new("keyring", "the key ring itself")
        .with_env(&["SECRETS_KEYRING"])
        .secret()
        .operator_only(),
    Setting::new("keyring-file", "the file that holds the key ring")
        .with_env(&["SECRETS_KEYRING_FILE"])
        .operator_only(),
    Setting::new(
        "owner",
        "the id of this installation, written with every secret",
    )
    .with_env(&["SECRETS_OWNER"]),
    Setting::new("create", "whether a missing database file or table is made")
        .with_default("true"),
    Setting::new("pool-size", "the most connections at once, 1 to 1000").with_default("10"),
    Setting::new(
        "connect-timeout",
        "how many seconds to wait for a connection, or for SQLite's lock, 1 to 600",
    )
    .with_default("10"),
];

/// Settings that only make sense for one engine, and are refused for the other where given explicitly.
const POSTGRES_ONLY: &[&str] = &[
    "host",
    "port",
    "database",
    "user",
    "password",
    "sslmode",
    "ssl-root-cert",
];

/// Which rows a store accepts and writes. The setting decides, never what the table looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reads plain and encrypted rows and writes encrypted ones: for the processes that run while
    /// [`Database::encrypt`](crate::Database::encrypt) converts the table.
    Converting,
    /// Reads and writes encrypted rows; a plain one is `Integrity`.
    Encrypted,
    /// Reads and writes plain rows; an encrypted one is `Integrity`.
    Plain,
}

impl Mode {
    /// The mode as a setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Converting => "converting",
            Self::Encrypted => "encrypted",
            Self::Plain => "plain",
        }
    }
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Converting, Self::Encrypted, Self::Plain]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| {
                invalid("`mode` cannot be understood")
                    .with_hint("it is plain, converting or encrypted")
            })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a database is and how to use it. Built by [`DbConfig::builder`] or [`DbConfig::from_url`].
///
/// ```
/// use secret_persistence_core::ErrorKind;
/// use secret_persistence_db::{DbConfig, Mode};
///
/// let config = DbConfig::from_url("sqlite:///var/lib/secrets.db?table=secrets").build()?;
/// assert_eq!(config.mode(), Mode::Plain);
/// // Unknown settings are errors that say what was probably meant.
/// let error = DbConfig::from_url("sqlite:///var/lib/secrets.db?tabel=x").build().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// assert!(error.hint().unwrap().contains("table"));
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone)]
pub struct DbConfig {
    pub(crate) target: Target,
    pub(crate) table: TableName,
    pub(crate) mode: Mode,
    pub(crate) ring: Option<KeyRing>,
    pub(crate) owner: Option<Owner>,
    pub(crate) create: bool,
    pub(crate) pool_size: u32,
    pub(crate) connect_timeout: Duration,
}

#[derive(Clone)]
pub(crate) enum Target {
    Postgres(PostgresTarget),
    Sqlite(PathBuf),
}

/// Without the feature `postgres` it is still read, so that what is wrong with it is said first.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
#[derive(Clone)]
pub(crate) struct PostgresTarget {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) password: Option<SecretValue>,
    pub(crate) tls: bool,
    /// PEM text.
    pub(crate) root_certificates: Option<Vec<u8>>,
}

impl DbConfig {
    /// Nothing set yet.
    pub fn builder() -> DbConfigBuilder {
        DbConfigBuilder {
            settings: Settings::new(SETTINGS),
            engine: None,
            ring: None,
            problem: None,
        }
    }

    /// From a store's URL without credentials: `sqlite:///path?table=secrets&mode=encrypted` or
    /// `postgres://host:port/database?table=…`. Add [`env`](DbConfigBuilder::env) for the rest.
    pub fn from_url(url: &str) -> DbConfigBuilder {
        Self::builder().url(url)
    }

    /// From settings of [`SETTINGS`], wherever they came from. Reads the files they name.
    ///
    /// # Errors
    /// `InvalidConfig`: as [`DbConfigBuilder::build`]; and a tenant's settings, because a database is
    /// the operator's.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        DbConfigBuilder {
            settings: settings.clone(),
            ..Self::builder()
        }
        .build()
    }

    /// The same configuration, marking what is written with this owner.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Which rows are accepted.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The key ring, if there is one.
    #[must_use]
    pub fn keyring(&self) -> Option<&KeyRing> {
        self.ring.as_ref()
    }

    /// The installation's id, if there is one.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }
}

/// As errors name the store: engine, place and table, and never a credential.
impl fmt::Display for DbConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Postgres(target) => write!(f, "postgres {target}")?,
            Target::Sqlite(path) => write!(f, "sqlite {}", path.display())?,
        }
        write!(f, " table {}", self.table)
    }
}

impl fmt::Display for PostgresTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

impl fmt::Debug for DbConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbConfig")
            .field("store", &format_args!("{self}"))
            .field("mode", &self.mode)
            .field("ring", &self.ring)
            .field("owner", &self.owner)
            .field("create", &self.create)
            .field("pool_size", &self.pool_size)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// Collects settings. Setters cannot fail: the first thing that is wrong is what
/// [`build`](Self::build) answers.
#[derive(Clone, Debug)]
#[must_use]
pub struct DbConfigBuilder {
    settings: Settings,
    engine: Option<Engine>,
    ring: Option<KeyRing>,
    problem: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Postgres,
    Sqlite,
}

impl DbConfigBuilder {
    /// Takes a store's URL without credentials.
    pub fn url(mut self, url: &str) -> Self {
        match StoreUrl::parse(url) {
            Ok(url) => self.store_url(&url),
            Err(error) => {
                self.attempt(|_| Err(error));
                self
            }
        }
    }

    /// Takes a store's URL that has been read already.
    pub fn store_url(mut self, url: &StoreUrl) -> Self {
        self.attempt(|builder| {
            match url.scheme() {
                "sqlite" => {
                    builder.engine = Some(Engine::Sqlite);
                    builder
                        .settings
                        .set("path", database_url::sqlite_path(url)?)?;
                }
                "postgres" | "postgresql" => {
                    builder.engine = Some(Engine::Postgres);
                    if let Some(host) = url.host() {
                        builder.settings.set("host", unbracketed(host))?;
                    }
                    if let Some(port) = url.port() {
                        builder.settings.set("port", port.to_string())?;
                    }
                    let database = url.path().trim_start_matches('/');
                    if !database.is_empty() {
                        builder.settings.set("database", database)?;
                    }
                }
                _ => {
                    return Err(invalid("the URL is not of a database")
                        .with_hint("it begins with sqlite: or postgres:"));
                }
            }
            builder.settings.set_query(url)
        });
        self
    }

    /// Sets one value by the name it has in [`SETTINGS`].
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attempt(|builder| builder.settings.set(name, value));
        self
    }

    /// Sets what is not set yet from environment variables, asked through `variable`, so that the
    /// caller decides about prefixes: `|name| std::env::var(name).ok()`.
    pub fn env(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        // What is given in the URL decides the engine; the other engine's variables are not for us.
        let engine = self.engine;
        let complete = self.settings.text("host").is_some();
        self.settings.set_env(|name| {
            let for_postgres = name.starts_with("DATABASE_");
            if for_postgres && engine == Some(Engine::Sqlite) || name == "DATABASE_URL" && complete
            {
                return None;
            }
            variable(name)
        });
        self
    }

    /// Sets the key ring, in place of the settings `keyring` and `keyring-file`.
    pub fn keyring(mut self, ring: KeyRing) -> Self {
        self.ring = Some(ring);
        self
    }

    /// Sets the mode.
    pub fn mode(self, mode: Mode) -> Self {
        self.set("mode", mode.as_str())
    }

    /// Sets the owner.
    pub fn owner(self, owner: &Owner) -> Self {
        self.set("owner", owner.as_str())
    }

    /// Whether a missing database file or table is made.
    pub fn create(self, create: bool) -> Self {
        self.set("create", if create { "true" } else { "false" })
    }

    /// What was collected, not yet checked as a whole: for [`DbConfig::from_settings`].
    ///
    /// # Errors
    /// `InvalidConfig`: the first thing that was wrong with what was collected.
    pub fn into_settings(self) -> Result<Settings> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        self.refuse_postgres_settings()?;
        match self.settings.text("path") {
            Some(_) if self.engine == Some(Engine::Postgres) => {
                Err(invalid("`path` is for SQLite"))
            }
            _ => Ok(self.settings),
        }
    }

    /// Checks everything, and reads the files it names.
    ///
    /// # Errors
    /// `InvalidConfig`: an unknown, contradictory or missing setting, a key ring that cannot be
    /// used, TLS switched off for a server that is not on loopback.
    pub fn build(self) -> Result<DbConfig> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let settings = &self.settings;
        if settings.trust().is_tenant() {
            return Err(
                invalid("a tenant's store is no database: databases are the operator's")
                    .with_hint("use a secret manager of the tenant's own"),
            );
        }
        let address = match settings.secret("url") {
            Some(url) => database_url::parse(&url)?,
            None => Address::default(),
        };
        let target = match settings
            .text("path")
            .map(PathBuf::from)
            .or(address.file.clone())
        {
            Some(path) if self.engine != Some(Engine::Postgres) => {
                self.refuse_postgres_settings()?;
                Target::Sqlite(path)
            }
            Some(_) => return Err(invalid("`path` is for SQLite")),
            None => Target::Postgres(self.postgres(address)?),
        };
        let mode = settings.text("mode").map(Mode::from_str).transpose()?;
        let ring = match mode {
            // A ring that stands in the environment for another store is none of this one's business.
            Some(Mode::Plain) => None,
            _ => self.key_ring()?,
        };
        let mode = mode.unwrap_or(match ring {
            Some(_) => Mode::Encrypted,
            None => Mode::Plain,
        });
        if mode != Mode::Plain && ring.is_none() {
            return Err(invalid(format!("`mode={mode}` needs a key ring"))
                .with_hint("set SECRETS_KEYRING_FILE or SECRETS_KEYRING; keygen makes one"));
        }
        let pool_size = bounded(settings, "pool-size", 10, 1000)?;
        let seconds = bounded(settings, "connect-timeout", 10, 600)?;
        Ok(DbConfig {
            target,
            table: match settings.text("table") {
                Some(table) => table.parse()?,
                None => "secrets".parse()?,
            },
            mode,
            ring,
            owner: settings.text("owner").map(Owner::parse).transpose()?,
            create: settings.parse("create")?.unwrap_or(true),
            pool_size,
            connect_timeout: Duration::from_secs(u64::from(seconds)),
        })
    }

    fn attempt(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) {
        if self.problem.is_none() {
            self.problem = step(self).err();
        }
    }

    /// Those that were given explicitly; the environment's never get this far.
    fn refuse_postgres_settings(&self) -> Result<()> {
        if self.engine != Some(Engine::Sqlite) {
            return Ok(());
        }
        match self
            .settings
            .names()
            .find(|name| POSTGRES_ONLY.contains(name))
        {
            Some(name) => Err(invalid(format!("`{name}` is for Postgres"))),
            None => Ok(()),
        }
    }

    fn postgres(&self, address: Address) -> Result<PostgresTarget> {
        let settings = &self.settings;
        let required = |name: &str, variable: &str, value: Option<String>| {
            value.ok_or_else(|| {
                invalid(format!("`{name}` is missing"))
                    .with_hint(format!("set {variable}, or DATABASE_URL, or a store's URL"))
            })
        };
        let text = |name: &str| settings.text(name).map(str::to_owned);
        let has_url = settings.secret("url").is_some();
        // A URL names the place as a whole: another source's host, port or database beside it would
        // mix two places.
        let place = |name: &str, from_url: Option<String>| {
            if has_url { from_url } else { text(name) }
        };
        let host = required("host", "DATABASE_HOST", place("host", address.host))?;
        let port = match address.port {
            Some(port) => port,
            None if has_url => 5432,
            None => settings.parse("port")?.unwrap_or(5432),
        };
        let database = required(
            "database",
            "DATABASE_DB",
            place("database", address.database),
        )?;
        let user = required(
            "user",
            "DATABASE_USER",
            address.user.or_else(|| text("user")),
        )?;
        let sslmode = text("sslmode").or(address.sslmode);
        let local = is_local(&host);
        let tls = match sslmode.as_deref() {
            None => !local,
            Some("disable" | "allow") if local => false,
            Some("disable" | "allow") => {
                return Err(
                    invalid("TLS must not be switched off for a server elsewhere")
                        .with_hint("leave `sslmode` out: it is verify-full then"),
                );
            }
            // Whoever asks for less than full verification gets full verification.
            Some("prefer" | "require" | "verify-ca") if local => text("ssl-root-cert").is_some(),
            Some("prefer" | "require" | "verify-ca" | "verify-full") => true,
            Some(_) => {
                return Err(invalid("`sslmode` cannot be understood")
                    .with_hint("it is verify-full or disable"));
            }
        };
        let certificates = text("ssl-root-cert").or(address.root_certificate);
        let root_certificates = match certificates.filter(|_| tls) {
            Some(path) => Some(std::fs::read(&path).map_err(|error| {
                invalid(format!("`ssl-root-cert` {path} cannot be read"))
                    .with_hint("it is a file of certificates in PEM form")
                    .with_source(error)
            })?),
            None => None,
        };
        Ok(PostgresTarget {
            host,
            port,
            database,
            user,
            password: address.password.or_else(|| settings.secret("password")),
            tls,
            root_certificates,
        })
    }

    fn key_ring(&self) -> Result<Option<KeyRing>> {
        let text = self.settings.secret("keyring");
        let file = self.settings.text("keyring-file");
        match (&self.ring, text, file) {
            (Some(ring), _, _) => Ok(Some(ring.clone())),
            (None, Some(_), Some(_)) => {
                Err(invalid("`keyring` and `keyring-file` exclude each other"))
            }
            (None, Some(text), None) => KeyRing::parse(&text).map(Some),
            (None, None, Some(path)) => {
                KeyRing::parse(&keyring_file::read(path.as_ref())?).map(Some)
            }
            (None, None, None) => Ok(None),
        }
    }
}

/// Whether traffic to it stays on this machine.
fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

pub(crate) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn bounded(settings: &Settings, name: &str, default: u32, most: u32) -> Result<u32> {
    match settings.parse(name)? {
        None => Ok(default),
        Some(number) if (1..=most).contains(&number) => Ok(number),
        Some(_) => Err(invalid(format!("`{name}` must be 1 to {most}"))),
    }
}

pub(crate) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with_operation(Operation::Open)
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::settings::Trust;

    use super::*;

    fn postgres(config: &DbConfig) -> &PostgresTarget {
        match &config.target {
            Target::Postgres(target) => target,
            Target::Sqlite(_) => panic!("not Postgres"),
        }
    }

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            pairs
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        }
    }

    const RING: &str = "active=k;k=dGhpcyBpcyAzMiBieXRlcyBvZiBhbiBleGFtcGxlISE=";

    #[test]
    fn a_url_and_the_environment_make_a_postgres_store() {
        let config = DbConfig::from_url("postgres://db.example:5433/airbyte?table=public.secrets")
            .env(env(&[
                ("DATABASE_HOST", "elsewhere"),
                ("DATABASE_URL", "postgres://other:canary@elsewhere/x"),
                ("DATABASE_USER", "reader"),
                ("DATABASE_PASSWORD", "canary"),
            ]))
            .build()
            .unwrap();
        let target = postgres(&config);
        assert_eq!(target.to_string(), "db.example:5433/airbyte");
        assert_eq!(target.user, "reader");
        assert!(target.tls);
        assert_eq!(
            config.to_string(),
            "postgres db.example:5433/airbyte table public.secrets"
        );
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn airbytes_variables_are_understood() {
        let airbyte = [
            (
                "DATABASE_URL",
                "jdbc:postgresql://localhost:5444/db-airbyte",
            ),
            ("DATABASE_HOST", "ignored"),
            ("DATABASE_PORT", "1"),
            ("DATABASE_DB", "ignored"),
            ("DATABASE_USER", "airbyte"),
            ("DATABASE_PASSWORD", "canary"),
        ];
        for (skip, printed) in [(0, "localhost:5444/db-airbyte"), (1, "ignored:1/ignored")] {
            let config = DbConfig::builder()
                .env(env(&airbyte[skip..]))
                .build()
                .unwrap();
            let target = postgres(&config);
            assert_eq!(target.to_string(), printed);
            assert_eq!(target.user, "airbyte");
            assert_eq!(target.password.as_ref().unwrap().expose(), "canary");
        }
    }

    #[test]
    fn sqlite_is_not_disturbed_by_what_is_set_for_postgres() {
        let config = DbConfig::from_url("sqlite:///a/b.db?mode=plain&owner=here")
            .env(env(&[
                ("DATABASE_URL", "postgres://u:canary@h/d"),
                ("DATABASE_PORT", "x"),
                ("SECRETS_KEYRING", RING),
            ]))
            .build()
            .unwrap();
        assert!(matches!(&config.target, Target::Sqlite(path) if path.ends_with("a/b.db")));
        assert_eq!(config.mode, Mode::Plain);
        let error = DbConfig::from_url("sqlite:///a/b.db?host=h")
            .build()
            .unwrap_err();
        assert!(error.to_string().contains("`host`"));
    }

    #[test]
    fn a_key_ring_means_encrypted_unless_told() {
        let build = |url: &str, variables: &[(&str, &str)]| {
            DbConfig::from_url(url).env(env(variables)).build()
        };
        let ring = [("SECRETS_KEYRING", RING)];
        assert_eq!(build("sqlite:///a", &[]).unwrap().mode, Mode::Plain);
        assert_eq!(build("sqlite:///a", &ring).unwrap().mode, Mode::Encrypted);
        assert_eq!(
            build("sqlite:///a?mode=converting", &ring).unwrap().mode,
            Mode::Converting
        );
        for (url, variables) in [
            ("sqlite:///a?mode=encrypted", &[][..]),
            ("sqlite:///a?mode=Encrypted", &ring[..]),
            ("sqlite:///a?keyring-file=/nowhere/ring", &[][..]),
            ("sqlite:///a?keyring-file=/nowhere/ring", &ring[..]),
            ("sqlite:///a?keyring=canary", &[][..]),
        ] {
            let error = build(url, variables).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(!format!("{error:?}").contains("canary"));
        }
    }

    #[test]
    fn tls_is_full_outside_loopback() {
        for (host, sslmode, tls) in [
            ("localhost", None, Some(false)),
            ("127.0.0.9", None, Some(false)),
            ("[::1]", None, Some(false)),
            ("localhost", Some("verify-full"), Some(true)),
            ("localhost.example", None, Some(true)),
            ("10.0.0.1", None, Some(true)),
            ("db", Some("require"), Some(true)),
            ("db", Some("prefer"), Some(true)),
            ("db", Some("disable"), None),
            ("db", Some("allow"), None),
            ("db", Some("no"), None),
        ] {
            let query = sslmode.map_or(String::new(), |mode| format!("?sslmode={mode}"));
            let built = DbConfig::from_url(&format!("postgres://{host}/d{query}"))
                .env(env(&[("DATABASE_USER", "u")]))
                .build();
            assert_eq!(
                built.ok().map(|config| postgres(&config).tls),
                tls,
                "{host} {sslmode:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_refused_before_anything_is_opened() {
        for url in [
            "sqlite:",
            "sqlite::memory:",
            "sqlite:///",
            "postgres://host/db?user=u&pool-size=0",
            "postgres://host/db?user=u&connect-timeout=601",
            "postgres://host/db?user=u&connect-timeout=x",
            "postgres://host/db?user=u&create=maybe",
            "postgres://host/db?user=u&table=a;b",
            "postgres://host/db?user=u&owner=Capital",
            "postgres://host/db?user=u&password=canary",
            "postgres://host/db?user=u&path=x",
            "postgres://host/db",
            "postgres://host/?user=u",
            "postgres:///db?user=u",
            "postgres://u:canary@host/db",
            "mysql://host/db?user=u",
            "canary",
        ] {
            let error = DbConfig::from_url(url).build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{url}");
        }
    }

    #[test]
    fn settings_and_builder_mean_the_same() {
        for url in [
            "sqlite:///a/b.db?mode=plain&table=x.y",
            "postgres://localhost:5/db?user=u&pool-size=3",
        ] {
            let builder = DbConfig::from_url(url).env(env(&[("DATABASE_PASSWORD", "canary")]));
            let settings = builder.clone().into_settings().unwrap();
            let config = DbConfig::from_settings(&settings).unwrap();
            assert_eq!(
                format!("{config:?}"),
                format!("{:?}", builder.build().unwrap())
            );
        }
        for url in [
            "postgres://h/db?path=x",
            "sqlite:///a?host=h",
            "mysql://h/d",
        ] {
            assert!(DbConfig::from_url(url).into_settings().is_err(), "{url}");
        }
    }

    #[test]
    fn a_tenant_has_no_database() {
        let mut settings = Settings::with_trust(SETTINGS, Trust::tenant());
        let error = settings.set("host", "10.0.0.1").unwrap_err();
        assert!(error.message().contains("operator"), "{error}");
        let error = DbConfig::from_settings(&settings).unwrap_err();
        assert!(error.message().contains("tenant"), "{error}");
    }

    #[test]
    fn every_setting_is_documented_once() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(!setting.doc.is_empty() && !setting.doc.ends_with('.'));
            assert!(
                SETTINGS[..index]
                    .iter()
                    .all(|other| other.name != setting.name)
            );
        }
        for name in POSTGRES_ONLY {
            assert!(SETTINGS.iter().any(|setting| setting.name == *name));
        }
    }
}
