//! Settings: one key table for URL, environment and map.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secret_persistence_core::settings::{KeyTable, Setting, SettingMap, invalid};
use secret_persistence_core::{Owner, Result};

use crate::database_url::{self, Address};
use crate::keyring::KeyRing;
use crate::keyring_file;
use crate::naming::TableName;
use crate::postgres_options::{POSTGRES_SETTINGS, PostgresOptions};

/// The key table. Rejects Postgres settings together with an SQLite file.
pub const SETTINGS: KeyTable = KeyTable::new(
    &["sqlite", "postgres", "postgresql"],
    ROWS,
    |url, settings| match url.scheme() {
        "sqlite" => settings.set("path", url.file()?),
        _ if settings.is_set("path") => Err(invalid("`path` applies to SQLite only")),
        _ => PostgresOptions::read_url(url, settings),
    },
)
.with_reads(|explicit, variable, name| {
    // With an SQLite file, Postgres settings in the environment belong to something else.
    let for_postgres = POSTGRES_SETTINGS.iter().any(|row| row.env.contains(&name));
    !(for_postgres && explicit.is_set("path")) && PostgresOptions::reads(explicit, variable, name)
});

const ROWS: &[Setting] = &[
    POSTGRES_SETTINGS[0],
    Setting::new("path", "the file of an SQLite database").operator_only(),
    POSTGRES_SETTINGS[1],
    POSTGRES_SETTINGS[2],
    POSTGRES_SETTINGS[3],
    POSTGRES_SETTINGS[4],
    POSTGRES_SETTINGS[5],
    POSTGRES_SETTINGS[6],
    POSTGRES_SETTINGS[7],
    Setting::new("table", "the table, with or without its schema").with_default("secrets"),
    Setting::new(
        "mode",
        "plain, encrypted, or converting (reads both, writes encrypted); by default encrypted if there is a key ring, otherwise plain",
    ),
    KEYRING_SETTINGS[0],
    KEYRING_SETTINGS[1],
    Setting::new(
        "create",
        "what happens if the database file or table is missing: true creates it, false refuses, dry-run treats it as empty and writes nothing",
    )
    .with_default("true"),
    Setting::new("pool-size", "the maximum number of connections, 1 to 1000").with_default("10"),
    Setting::new(
        "connect-timeout",
        "how many seconds to wait for a connection, or for SQLite's lock, 1 to 600",
    )
    .with_default("10"),
];

/// The rows of [`key_ring`], which a store and a ledger have.
pub(crate) const KEYRING_SETTINGS: [Setting; 2] = [
    Setting::new("keyring", "the key ring itself")
        .with_env(&["SECRETS_KEYRING"])
        .secret()
        .operator_only(),
    Setting::new("keyring-file", "the file with the key ring")
        .with_env(&["SECRETS_KEYRING_FILE"])
        .operator_only(),
];

/// The rows that a store accepts and writes. Only the setting decides, never the table's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reads plain and encrypted rows, and writes encrypted ones. For all processes while
    /// [`Database::encrypt`](crate::Database::encrypt) converts the table.
    Converting,
    /// Reads and writes encrypted rows; a plain row is `Integrity`.
    Encrypted,
    /// Reads and writes plain rows; an encrypted row is `Integrity`.
    Plain,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Plain, Self::Converting, Self::Encrypted];

    /// The mode's name in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Converting => "converting",
            Self::Encrypted => "encrypted",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The checked location and options of a database.
///
/// ```
/// use secret_persistence_core::ErrorKind;
/// use secret_persistence_core::settings::StoreUrl;
/// use secret_persistence_db::{Config, Mode, SETTINGS};
///
/// let url = StoreUrl::parse("sqlite:///var/lib/secrets.db?table=secrets")?;
/// let config = Config::from_settings(&SETTINGS.from_url(&url, &|_| None)?)?;
/// assert_eq!(config.mode(), Mode::Plain);
/// // Unknown settings are errors with a suggestion.
/// let misspelt = StoreUrl::parse("sqlite:///var/lib/secrets.db?tabel=x")?;
/// let error = SETTINGS.from_url(&misspelt, &|_| None).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// assert!(error.hint().unwrap().contains("table"));
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) target: Target,
    pub(crate) table: TableName,
    pub(crate) mode: Mode,
    pub(crate) ring: Option<KeyRing>,
    pub(crate) owner: Option<Owner>,
    pub(crate) if_missing: IfMissing,
    pub(crate) pool_size: u32,
    pub(crate) connect_timeout: Duration,
}

/// What happens if the file or the table is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMissing {
    /// Create it.
    Create,
    /// Treat it as empty, and refuse every change.
    Empty,
    /// Fail to open.
    Refuse,
}

impl IfMissing {
    const ALL: [(&'static str, Self); 3] = [
        ("true", Self::Create),
        ("false", Self::Refuse),
        ("dry-run", Self::Empty),
    ];
}

#[derive(Clone)]
pub(crate) enum Target {
    /// Parsed even without the feature `postgres`, so that mistakes in it are reported first.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    Postgres(PostgresOptions),
    Sqlite(PathBuf),
}

impl Config {
    /// Checks settings of [`SETTINGS`] from any form. Reads the files that they name.
    ///
    /// # Errors
    /// `InvalidConfig` for a missing or contradictory setting, an unusable key ring, and disabled
    /// TLS for a server that is not on loopback; and for a tenant's settings, because databases
    /// belong to the operator.
    pub fn from_settings(settings: &SettingMap) -> Result<Self> {
        if settings.trust().is_tenant() {
            return Err(invalid(
                "a tenant's store must not be a database: databases belong to the operator",
            )
            .with_hint("use a secret manager of the tenant"));
        }
        let mode = match settings.text("mode") {
            None => None,
            Some(_) => Some(settings.choice("mode", &Mode::ALL.map(|mode| (mode.as_str(), mode)))?),
        };
        let ring = match mode {
            // A key ring in the environment may be for another store.
            Some(Mode::Plain) => None,
            _ => key_ring(settings)?,
        };
        let mode = mode.unwrap_or(match ring {
            Some(_) => Mode::Encrypted,
            None => Mode::Plain,
        });
        if mode != Mode::Plain && ring.is_none() {
            return Err(invalid(format!("`mode={mode}` requires a key ring"))
                .with_hint("set SECRETS_KEYRING_FILE or SECRETS_KEYRING; keygen creates one"));
        }
        Ok(Self {
            target: target(settings)?,
            table: settings.text("table").unwrap_or("secrets").parse()?,
            mode,
            ring,
            owner: None,
            if_missing: settings.choice("create", &IfMissing::ALL)?,
            pool_size: settings.number("pool-size", 1..=1000)?,
            connect_timeout: Duration::from_secs(settings.number("connect-timeout", 1..=600)?),
        })
    }

    /// Sets the owner of written secrets.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// The rows that the store accepts.
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

/// The store's name in errors: engine, location and table, never a credential.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Postgres(target) => write!(f, "postgres {target}")?,
            Target::Sqlite(path) => write!(f, "sqlite {}", path.display())?,
        }
        write!(f, " table {}", self.table)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("store", &format_args!("{self}"))
            .field("mode", &self.mode)
            .field("ring", &self.ring)
            .field("owner", &self.owner)
            .field("create", &self.if_missing)
            .field("pool_size", &self.pool_size)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

fn target(settings: &SettingMap) -> Result<Target> {
    if let Some(path) = settings.text("path") {
        let both = POSTGRES_SETTINGS
            .iter()
            .find(|row| settings.is_set(row.name));
        return match both {
            Some(row) => Err(invalid(format!("`{}` applies to Postgres only", row.name))),
            None => Ok(Target::Sqlite(PathBuf::from(path))),
        };
    }
    let address = match settings.secret("url") {
        Some(url) => database_url::parse(&url)?,
        None => Address::default(),
    };
    match address.file {
        Some(file) => Ok(Target::Sqlite(file)),
        None => Ok(Target::Postgres(PostgresOptions::new(settings, address)?)),
    }
}

/// Reads the key ring of [`KEYRING_SETTINGS`].
pub(crate) fn key_ring(settings: &SettingMap) -> Result<Option<KeyRing>> {
    match (settings.secret("keyring"), settings.text("keyring-file")) {
        (Some(_), Some(_)) => Err(invalid("`keyring` and `keyring-file` exclude each other")),
        (Some(text), None) => KeyRing::parse(&text).map(Some),
        (None, Some(path)) => KeyRing::parse(&keyring_file::read(path.as_ref())?).map(Some),
        (None, None) => Ok(None),
    }
}

pub(crate) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::ErrorKind;
    use secret_persistence_core::settings::{StoreUrl, Trust};

    use super::*;

    fn from_url(url: &str, variables: &[(&str, &str)]) -> Result<Config> {
        Config::from_settings(&SETTINGS.from_url(&StoreUrl::parse(url)?, &env(variables))?)
    }

    fn postgres(config: &Config) -> &PostgresOptions {
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
        let config = from_url(
            "postgres://db.example:5433/airbyte?table=public.secrets",
            &[
                ("DATABASE_HOST", "elsewhere"),
                ("DATABASE_URL", "postgres://other:canary@elsewhere/x"),
                ("DATABASE_USER", "reader"),
                ("DATABASE_PASSWORD", "canary"),
            ],
        )
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
            let config = Config::from_settings(&SETTINGS.from_env(&env(&airbyte[skip..]))).unwrap();
            let target = postgres(&config);
            assert_eq!(target.to_string(), printed);
            assert_eq!(target.user, "airbyte");
            assert_eq!(target.password.as_ref().unwrap().expose(), "canary");
        }
    }

    #[test]
    fn sqlite_is_not_disturbed_by_what_is_set_for_postgres() {
        let config = from_url(
            "sqlite:///a/b.db?mode=plain",
            &[
                ("DATABASE_URL", "postgres://u:canary@h/d"),
                ("DATABASE_PORT", "x"),
                ("SECRETS_KEYRING", RING),
            ],
        )
        .unwrap();
        assert!(matches!(&config.target, Target::Sqlite(path) if path.ends_with("a/b.db")));
        assert_eq!(config.mode, Mode::Plain);
        let error = from_url("sqlite:///a/b.db?host=h", &[]).unwrap_err();
        assert!(error.to_string().contains("`host`"));
    }

    #[test]
    fn a_key_ring_means_encrypted_unless_told() {
        let build = from_url;
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
            "postgres://host/db?user=u&password=canary",
            "postgres://host/db?user=u&path=x",
            "postgres://host/db",
            "postgres://host/?user=u",
            "postgres:///db?user=u",
            "postgres://u:canary@host/db",
            "mysql://host/db?user=u",
            "canary",
        ] {
            let error = from_url(url, &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{url}");
        }
    }

    #[test]
    fn what_is_for_one_engine_is_refused_for_the_other() {
        for url in [
            "postgres://h/db?path=x",
            "sqlite:///a?host=h",
            "sqlite:///a?ssl-root-cert=x",
            "mysql://h/d",
        ] {
            assert!(from_url(url, &[]).is_err(), "{url}");
        }
        for name in POSTGRES_SETTINGS.map(|row| row.name) {
            let both = SETTINGS.from_pairs([("path", "/a"), (name, "1")]).unwrap();
            let error = Config::from_settings(&both).unwrap_err();
            assert!(error.message().contains(name), "{error}");
        }
    }

    #[test]
    fn a_tenant_has_no_database() {
        let mut settings = SettingMap::with_trust(SETTINGS.rows(), Trust::tenant());
        let error = settings.set("host", "10.0.0.1").unwrap_err();
        assert!(error.message().contains("operator"), "{error}");
        let error = Config::from_settings(&settings).unwrap_err();
        assert!(error.message().contains("tenant"), "{error}");
    }

    #[test]
    fn every_setting_is_documented_once() {
        for (index, setting) in ROWS.iter().enumerate() {
            assert!(!setting.doc.is_empty() && !setting.doc.ends_with('.'));
            assert!(ROWS[..index].iter().all(|other| other.name != setting.name));
        }
    }
}
