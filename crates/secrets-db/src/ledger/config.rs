//! The place of a ledger, its keys, and their settings.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secret_persistence_core::Result;
use secret_persistence_core::settings::{KeyTable, Setting, SettingMap, invalid};

use crate::config::{KEYRING_SETTINGS, key_ring};
use crate::keyring::KeyRing;
use crate::naming::TableName;
use crate::postgres_options::{POSTGRES_SETTINGS, PostgresOptions};

/// The key table of ledgers.
pub const LEDGER_SETTINGS: KeyTable = KeyTable::new(
    &["sqlite", "postgres", "postgresql", "file"],
    ROWS,
    |url, settings| match url.scheme() {
        "sqlite" => settings.set("path", url.file()?),
        "file" => settings.set("folder", url.file()?),
        _ if settings.is_set("path") || settings.is_set("folder") => {
            Err(invalid("`path` and `folder` do not apply to Postgres"))
        }
        _ => PostgresOptions::read_url(url, settings),
    },
)
.with_reads(|explicit, variable, name| {
    let for_postgres = POSTGRES_SETTINGS.iter().any(|row| row.env.contains(&name));
    // A ring that the URL names replaces the one of the store.
    let for_ring = KEYRING_SETTINGS.iter().any(|row| row.env.contains(&name));
    !(for_postgres && (explicit.is_set("path") || explicit.is_set("folder")))
        && !(for_ring && explicit.is_set("keyring-file"))
        && PostgresOptions::reads(explicit, variable, name)
});

const ROWS: &[Setting] = &[
    POSTGRES_SETTINGS[0],
    Setting::new("path", "the file of an SQLite database").operator_only(),
    Setting::new("folder", "the folder of JSON lines").operator_only(),
    POSTGRES_SETTINGS[1],
    POSTGRES_SETTINGS[2],
    POSTGRES_SETTINGS[3],
    POSTGRES_SETTINGS[4],
    POSTGRES_SETTINGS[5],
    POSTGRES_SETTINGS[6],
    POSTGRES_SETTINGS[7],
    Setting::new("table", "the table, with or without its schema").with_default("secret_ledger"),
    KEYRING_SETTINGS[0],
    KEYRING_SETTINGS[1],
    Setting::new(
        "file-bytes",
        "the size after which the next line begins a new file of the folder, as it does after a day; 1 to 1099511627776",
    )
    .with_default("67108864"),
    Setting::new(
        "timeout",
        "how many seconds a write may take, with the connection before it, 1 to 600",
    )
    .with_default("10"),
];

/// The checked location, keys and options of a ledger.
///
/// ```
/// use secret_persistence_core::settings::StoreUrl;
/// use secret_persistence_db::{LEDGER_SETTINGS, LedgerConfig};
///
/// let ring = "active=k;k=dGhpcyBpcyAzMiBieXRlcyBvZiBhbiBleGFtcGxlISE=";
/// let variable = |name: &str| (name == "SECRETS_KEYRING").then(|| ring.to_owned());
/// let url = StoreUrl::parse("sqlite:///var/lib/ledger.db")?;
/// let config = LedgerConfig::from_settings(&LEDGER_SETTINGS.from_url(&url, &variable)?)?;
/// assert_eq!(config.to_string(), "ledger sqlite /var/lib/ledger.db table secret_ledger");
/// // Without a key, nobody could tell a line from a forged one.
/// assert!(LedgerConfig::from_settings(&LEDGER_SETTINGS.from_url(&url, &|_| None)?).is_err());
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone)]
pub struct LedgerConfig {
    pub(super) target: Target,
    pub(super) ring: KeyRing,
    pub(super) timeout: Duration,
}

#[derive(Clone)]
pub(super) enum Target {
    /// Parsed even without the feature `postgres`, so that mistakes in it are reported first.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    Postgres(PostgresOptions, TableName),
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
    Sqlite(PathBuf, TableName),
    /// With the size of a file.
    Folder(PathBuf, u64),
}

impl LedgerConfig {
    /// Checks settings of [`LEDGER_SETTINGS`]. Reads the files that they name.
    ///
    /// # Errors
    /// `InvalidConfig` for a missing or contradictory setting, a missing or unusable key ring, and
    /// disabled TLS for a server that is not on loopback.
    pub fn from_settings(settings: &SettingMap) -> Result<Self> {
        let table = settings.text("table").unwrap_or("secret_ledger").parse()?;
        let most_bytes = settings.number("file-bytes", 1..=1 << 40)?;
        let target = match (settings.text("path"), settings.text("folder")) {
            (Some(path), None) => Target::Sqlite(PathBuf::from(path), table),
            (None, Some(folder)) => Target::Folder(PathBuf::from(folder), most_bytes),
            (Some(_), Some(_)) => return Err(invalid("`path` and `folder` exclude each other")),
            (None, None) => Target::Postgres(PostgresOptions::from_settings(settings)?, table),
        };
        let ring = key_ring(settings)?.ok_or_else(|| {
            invalid("a ledger requires a key ring").with_hint(
                "set LEDGER_SECRETS_KEYRING_FILE or SECRETS_KEYRING_FILE; keygen creates one",
            )
        })?;
        Ok(Self {
            target,
            ring,
            timeout: Duration::from_secs(settings.number("timeout", 1..=600)?),
        })
    }
}

/// The ledger's name in errors: engine, location and table, never a credential.
impl fmt::Display for LedgerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Postgres(target, table) => write!(f, "ledger postgres {target} table {table}"),
            Target::Folder(folder, _) => write!(f, "ledger folder {}", folder.display()),
            Target::Sqlite(path, table) => {
                write!(f, "ledger sqlite {} table {table}", path.display())
            }
        }
    }
}

impl fmt::Debug for LedgerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerConfig")
            .field("place", &format_args!("{self}"))
            .field("ring", &self.ring)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
