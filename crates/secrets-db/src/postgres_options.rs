//! The connection options of Postgres: one parser for stores, databases of configurations and
//! journals.

use std::fmt;

use secret_persistence_core::settings::{
    Setting, SettingMap, StoreUrl, Variables, invalid, is_loopback,
};
use secret_persistence_core::{Result, SecretValue};

use crate::config::unbracketed;
use crate::database_url::{self, Address};

/// The schemes of a Postgres URL.
pub const POSTGRES_SCHEMES: &[&str] = &["postgres", "postgresql"];

const URL: Setting = Setting::new(
    "url",
    "the database as a libpq, JDBC or SQLite URL, credentials allowed; for host, port, database, user and password",
)
.with_env(&["DATABASE_URL"])
.with_helm(&["jdbcUrl"])
.secret()
.operator_only();

const HOST: Setting = Setting::new("host", "the Postgres server, or the folder of its socket")
    .with_env(&["DATABASE_HOST"])
    .with_helm(&["host"])
    .operator_only();

const PORT: Setting = Setting::new("port", "the port of the Postgres server")
    .with_env(&["DATABASE_PORT"])
    .with_helm(&["port"])
    .with_default("5432")
    .operator_only();

const DATABASE: Setting = Setting::new("database", "the Postgres database")
    .with_env(&["DATABASE_DB"])
    .with_helm(&["database", "name"])
    .operator_only();

const USER: Setting = Setting::new("user", "the Postgres role")
    .with_env(&["DATABASE_USER"])
    .with_helm(&["user"])
    .with_helm_secret(&["DATABASE_USER"])
    .operator_only();

const PASSWORD: Setting = Setting::new("password", "the password of the Postgres role")
    .with_env(&["DATABASE_PASSWORD"])
    .with_helm(&["password"])
    .with_helm_secret(&["DATABASE_PASSWORD"])
    .secret()
    .operator_only();

const SSLMODE: Setting = Setting::new(
    "sslmode",
    "verify-full by default; prefer, require and verify-ca are verified in full as well; disable and allow, without TLS, are allowed only on loopback and sockets, where disable is the default",
)
.operator_only();

const SSL_ROOT_CERT: Setting = Setting::new(
    "ssl-root-cert",
    "a PEM file with further certificate authorities for the Postgres server's certificate",
)
.with_env(&["DATABASE_SSL_ROOT_CERT"])
.with_helm(&["sslRootCert"])
.operator_only();

/// The settings of a Postgres server, as rows for a larger key table: `url`, `host`, `port`,
/// `database`, `user`, `password`, `sslmode` and `ssl-root-cert`.
pub const POSTGRES_SETTINGS: [Setting; 8] = [
    URL,
    HOST,
    PORT,
    DATABASE,
    USER,
    PASSWORD,
    SSLMODE,
    SSL_ROOT_CERT,
];

/// The location of a Postgres database and our role, complete and checked. `Debug` and `Display`
/// show no credential.
///
/// ```
/// use secret_persistence_core::settings::{KeyTable, StoreUrl};
/// use secret_persistence_db::{POSTGRES_SCHEMES, POSTGRES_SETTINGS, PostgresOptions};
///
/// const JOURNAL: KeyTable =
///     KeyTable::new(POSTGRES_SCHEMES, &POSTGRES_SETTINGS, PostgresOptions::read_url)
///         .with_reads(PostgresOptions::reads);
///
/// let url = StoreUrl::parse("postgres://db.example/journal?user=migrate")?;
/// let variable = |name: &str| (name == "DATABASE_PASSWORD").then(|| "hunter2".to_owned());
/// let options = PostgresOptions::from_settings(&JOURNAL.from_url(&url, &variable)?)?;
/// assert_eq!(options.to_string(), "db.example:5432/journal");
/// assert!(!format!("{options:?}").contains("hunter2"));
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) password: Option<SecretValue>,
    pub(crate) tls: bool,
    /// PEM text.
    pub(crate) root_certificates: Option<Vec<u8>>,
}

impl PostgresOptions {
    /// Parses `postgres://<host>[:port]/<database>` for a key table with these settings.
    ///
    /// # Errors
    /// `InvalidConfig` if the query contradicts the rest of the URL.
    pub fn read_url(url: &StoreUrl, settings: &mut SettingMap) -> Result<()> {
        if let Some(host) = url.host() {
            settings.set("host", unbracketed(host))?;
        }
        if let Some(port) = url.port() {
            settings.set("port", port.to_string())?;
        }
        match url.path().trim_start_matches('/') {
            "" => Ok(()),
            database => settings.set("database", database),
        }
    }

    /// Whether to use a variable: `DATABASE_URL` is ignored if the host is set.
    #[must_use]
    pub fn reads(explicit: &SettingMap, _: Variables<'_>, variable: &str) -> bool {
        variable != "DATABASE_URL" || !explicit.is_set("host")
    }

    /// Checks settings of a table that contains the rows of [`POSTGRES_SETTINGS`]. Reads the file
    /// that `ssl-root-cert` names.
    ///
    /// `sslmode` has the six values of libpq. TLS is always fully verified, and always used for a
    /// remote server, even if `sslmode` requires less.
    ///
    /// # Errors
    /// `InvalidConfig` with the name of a missing or invalid setting, and if TLS is disabled for a
    /// remote server.
    pub fn from_settings(settings: &SettingMap) -> Result<Self> {
        let address = match settings.secret("url") {
            Some(url) => database_url::parse(&url)?,
            None => Address::default(),
        };
        Self::new(settings, address)
    }

    /// Parses a URL that contains everything, including credentials:
    /// `postgres://user:password@host/database`, in the form of libpq or JDBC. Ignores the
    /// environment.
    ///
    /// # Errors
    /// `InvalidConfig`, as for [`Self::from_settings`]. Never contains the URL.
    pub fn from_url(url: &SecretValue) -> Result<Self> {
        let mut settings = SettingMap::new(&POSTGRES_SETTINGS);
        settings.set_by_operator("url", url.clone())?;
        Self::from_settings(&settings).map_err(|error| {
            error.with_hint(
                "write postgres://user:password@host/database; TLS is fully verified; only a \
                 server on this machine may be used without it",
            )
        })
    }

    /// Checks settings with an already parsed `url`.
    pub(crate) fn new(settings: &SettingMap, address: Address) -> Result<Self> {
        if address.file.is_some() {
            return Err(invalid(
                "the database's URL is for SQLite, not for Postgres",
            ));
        }
        let required = |name: &str, variable: &str, value: Option<String>| {
            value.ok_or_else(|| {
                invalid(format!("`{name}` is missing"))
                    .with_hint(format!("set {variable}, or DATABASE_URL, or a store's URL"))
            })
        };
        let text = |name: &str| settings.text(name).map(str::to_owned);
        let has_url = settings.is_set("url");
        // A URL names the whole location. Another source's host, port or database would mix two
        // locations.
        let place = |name: &str, from_url: Option<String>| {
            if has_url { from_url } else { text(name) }
        };
        let host = required("host", "DATABASE_HOST", place("host", address.host))?;
        let port = match address.port {
            Some(port) => port,
            None if has_url => 5432,
            None => settings.number("port", 1..=u16::MAX)?,
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
        let certificates = text("ssl-root-cert").or(address.root_certificate);
        let sslmode = text("sslmode").or(address.sslmode);
        let tls = tls(sslmode.as_deref(), is_local(&host), certificates.is_some())?;
        let root_certificates = match certificates.filter(|_| tls) {
            Some(path) => Some(std::fs::read(&path).map_err(|error| {
                invalid(format!("`ssl-root-cert` {path} cannot be read"))
                    .with_hint("it must be a file of PEM certificates")
                    .with_source(error)
            })?),
            None => None,
        };
        Ok(Self {
            host,
            port,
            database,
            user,
            password: address.password.or_else(|| settings.secret("password")),
            tls,
            root_certificates,
        })
    }

    /// The driver's options, without statement logging and without reading a password file. For the
    /// crates of this workspace: the driver's types are not part of the stable API.
    #[cfg(feature = "postgres")]
    #[doc(hidden)]
    #[must_use]
    pub fn to_driver(&self, application: &str) -> sqlx::postgres::PgConnectOptions {
        use sqlx::ConnectOptions as _;
        use sqlx::postgres::{PgConnectOptions, PgSslMode};

        let password = self.password.as_ref();
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .database(&self.database)
            .username(&self.user)
            .password(password.map_or("", |password| password.expose()))
            .ssl_mode(if self.tls {
                PgSslMode::VerifyFull
            } else {
                PgSslMode::Disable
            })
            .application_name(application)
            // PgBouncer refuses this parameter, and no column is a float.
            .extra_float_digits(None)
            .disable_statement_logging();
        match &self.root_certificates {
            Some(pem) => options.ssl_root_cert_from_pem(pem.clone()),
            None => options,
        }
    }
}

/// Shows the location, never the role.
impl fmt::Display for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("place", &format_args!("{self}"))
            .field("user", &self.user)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Whether to use TLS, which is then fully verified.
fn tls(sslmode: Option<&str>, local: bool, has_certificates: bool) -> Result<bool> {
    match sslmode {
        None => Ok(!local),
        Some("disable" | "allow") if local => Ok(false),
        Some("disable" | "allow") => Err(invalid(
            "TLS must not be disabled for a remote server",
        )
        .with_hint("this is allowed only for loopback and sockets; remove `sslmode`, which then defaults to verify-full; set a private authority as `ssl-root-cert`")),
        // Weaker modes are upgraded to full verification.
        Some("prefer" | "require" | "verify-ca") if local => Ok(has_certificates),
        Some("prefer" | "require" | "verify-ca" | "verify-full") => Ok(true),
        Some(_) => Err(invalid("`sslmode` is invalid").with_hint(
            "use verify-full or disable; allow, prefer, require and verify-ca are accepted too",
        )),
    }
}

/// Whether the connection stays on this machine: loopback, or the folder of a socket.
fn is_local(host: &str) -> bool {
    host.starts_with('/') || is_loopback(host)
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::settings::KeyTable;

    use super::*;

    const TABLE: KeyTable = KeyTable::new(
        POSTGRES_SCHEMES,
        &POSTGRES_SETTINGS,
        PostgresOptions::read_url,
    )
    .with_reads(PostgresOptions::reads);

    fn of(url: &str, variables: &[(&str, &str)]) -> Result<PostgresOptions> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let settings = TABLE.from_url(&StoreUrl::parse(url)?, &variable)?;
        PostgresOptions::from_settings(&settings)
    }

    /// All six values, for local and remote servers: what libpq would leave unverified is fully
    /// verified.
    #[test]
    fn tls_is_full_outside_loopback() {
        for (host, sslmode, expected) in [
            ("localhost", None, Some(false)),
            ("LOCALHOST", None, Some(false)),
            ("127.0.0.9", None, Some(false)),
            ("[::1]", None, Some(false)),
            ("localhost", Some("disable"), Some(false)),
            ("localhost", Some("allow"), Some(false)),
            ("localhost", Some("prefer"), Some(false)),
            ("localhost", Some("require"), Some(false)),
            ("localhost", Some("verify-ca"), Some(false)),
            ("localhost", Some("verify-full"), Some(true)),
            ("localhost.example", None, Some(true)),
            ("10.0.0.1", None, Some(true)),
            ("db", Some("require"), Some(true)),
            ("db", Some("prefer"), Some(true)),
            ("db", Some("verify-ca"), Some(true)),
            ("db", Some("verify-full"), Some(true)),
            ("db", Some("disable"), None),
            ("db", Some("allow"), None),
            ("db", Some("no"), None),
        ] {
            let query = sslmode.map_or(String::new(), |mode| format!("?sslmode={mode}"));
            let read = of(
                &format!("postgres://{host}/d{query}"),
                &[("DATABASE_USER", "u")],
            );
            assert_eq!(
                read.ok().map(|options| options.tls),
                expected,
                "{host} {sslmode:?}"
            );
        }
    }

    #[test]
    fn one_url_contains_everything_and_the_environment_nothing() {
        let read = |text: &str| PostgresOptions::from_url(&SecretValue::new(text.to_owned()));
        for (url, place, tls) in [
            ("postgres://u:canary@localhost/d", "localhost:5432/d", false),
            ("postgres://u:canary@db:1/d", "db:1/d", true),
            (
                "postgres://u:canary@db/d?sslmode=require",
                "db:5432/d",
                true,
            ),
            (
                "jdbc:postgresql://db/d?user=u&password=canary",
                "db:5432/d",
                true,
            ),
        ] {
            let options = read(url).unwrap();
            assert_eq!(
                (options.to_string().as_str(), options.tls),
                (place, tls),
                "{url}"
            );
            assert_eq!(options.user, "u");
            assert_eq!(options.password.unwrap().expose(), "canary");
        }
        for url in [
            "postgres://u:canary@db/d?sslmode=disable",
            "postgres://canary@db",
            "postgres://db/canary",
            "sqlite:/canary",
            "not a url canary",
        ] {
            let error = read(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn the_url_says_where_and_the_environment_as_whom() {
        let variables = [
            ("DATABASE_URL", "postgres://other:canary@elsewhere/x"),
            ("DATABASE_HOST", "elsewhere"),
            ("DATABASE_USER", "reader"),
            ("DATABASE_PASSWORD", "canary"),
        ];
        let options = of("postgres://[::1]:5433/journal", &variables).unwrap();
        assert_eq!(options.to_string(), "::1:5433/journal");
        assert_eq!(options.user, "reader");
        assert_eq!(options.password.as_ref().unwrap().expose(), "canary");
        assert!(!format!("{options:?}").contains("canary"));
        // Without a host in the URL, the variable defines the whole location.
        let options = of("postgres:?sslmode=require", &variables).unwrap();
        assert_eq!(options.to_string(), "elsewhere:5432/x");
        assert_eq!(options.user, "other");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for url in [
            "postgres://db/d",
            "postgres://db/?user=u",
            "postgres:///d?user=u",
            "postgres://db/d?user=u&port=0",
            "postgres://db/d?user=u&password=canary",
            "postgres://db/d?user=u&ssl-root-cert=/nowhere.pem",
            "mysql://db/d?user=u",
        ] {
            let error = of(url, &[]).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{url}");
        }
    }
}
