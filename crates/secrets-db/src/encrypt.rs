//! `encrypt`: encrypts the rows of a plain table in place, while the table is in use.

use secret_persistence_core::{Error, ErrorKind, Operation, Result};

use crate::conversion::{Conversion, Kind};
use crate::keyring::KeyRing;
use crate::persistence::Database;

/// Options of [`Database::encrypt`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncryptOptions {
    /// The confirmation that nothing else reads the table. Afterwards, processes without this key
    /// ring fail. Required.
    pub nothing_else_reads: bool,
    /// Whether to rewrite the table at the end, so that its free space contains no old values. On
    /// Postgres this is `VACUUM FULL`, which locks the table while it runs and requires ownership.
    pub rewrite: bool,
}

impl EncryptOptions {
    /// Confirms that nothing else reads the table.
    #[must_use]
    pub fn with_nothing_else_reads(mut self, stated: bool) -> Self {
        self.nothing_else_reads = stated;
        self
    }

    /// Sets whether to rewrite the table at the end. SQLite always does.
    #[must_use]
    pub fn with_rewrite(mut self, rewrite: bool) -> Self {
        self.rewrite = rewrite;
        self
    }
}

/// The progress of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of finished rows.
    pub done: u64,
    /// The number of rows at the beginning.
    pub total: u64,
}

/// The result of [`Database::encrypt`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Encrypted {
    /// The number of converted rows.
    pub converted: u64,
    /// Rows that are neither plain nor encrypted, unchanged; each is an `Integrity` error.
    pub damaged: Vec<Error>,
    /// Whether the table was rewritten, so that its files contain no plain text. If not: on
    /// Postgres this was not requested, on SQLite another process was reading at the time.
    pub rewritten: bool,
    /// Where plain text may remain that the store cannot erase, for display. The last entry says
    /// what to do about it.
    pub out_of_reach: Vec<&'static str>,
}

impl Database {
    /// Encrypts every plain row in place. Each row is changed with compare-and-swap, so that
    /// concurrent writes and deletes are neither lost nor undone. After an interruption, run it
    /// again. External rows are encrypted too: afterwards the table contains no plain text.
    ///
    /// The procedure without downtime: `prepare`; set the services to `mode=converting`, which
    /// reads both and writes encrypted; `encrypt`; set them to `mode=encrypted`.
    ///
    /// # Errors
    /// `InvalidConfig` without a key ring or without the confirmation that nothing else reads the
    /// table; `Conflict` if other processes write plain rows faster than they are converted.
    pub async fn encrypt(
        &self,
        options: &EncryptOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Encrypted> {
        let encryption = self.encryption(options).await?;
        let total = encryption.count().await?;
        let mut done = 0;
        progress(Progress { done, total });
        let mut told = |rows| {
            done += rows;
            progress(Progress {
                done,
                total: total.max(done),
            });
        };
        let damaged = encryption.rest(&mut told).await?;
        let ended = encryption.end(&|| ()).await?;
        Ok(Encrypted {
            converted: done,
            damaged,
            rewritten: ended.rewritten,
            out_of_reach: ended.out_of_reach,
        })
    }

    /// The same for several processes that share the table.
    ///
    /// # Errors
    /// `InvalidConfig` as for [`encrypt`](Self::encrypt), and if the active key was retired.
    pub async fn encryption(&self, options: &EncryptOptions) -> Result<Conversion> {
        let ring = self.ring_for("encrypt")?;
        if !options.nothing_else_reads {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "encrypt requires the confirmation that nothing else reads the table",
            )
            .with_operation(Operation::Write)
            .with_store(self.to_string())
            .with_hint("readers without the key ring fail afterwards, including Airbyte itself"));
        }
        let kind = Kind::Encrypt {
            rewrite: options.rewrite,
        };
        Conversion::begin(self, ring, kind).await
    }

    /// The key ring, which a conversion requires.
    pub(crate) fn ring_for(&self, command: &str) -> Result<&KeyRing> {
        self.ring().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("{command} requires a key ring"),
            )
            .with_operation(Operation::Write)
            .with_store(self.to_string())
            .with_hint("set SECRETS_KEYRING_FILE or SECRETS_KEYRING; keygen creates one")
        })
    }
}
