//! `encrypt`: encrypts the rows of a plain table in place, while the table is in use.

use std::collections::HashSet;

use secret_persistence_core::{Error, ErrorKind, Operation, Result};

use crate::client::{Before, Content, Filter, Row, Swap};
use crate::envelope::{Binding, Sealed};
use crate::keyring::KeyRing;
use crate::persistence::Database;
use crate::ring_check;

/// Rows per page: one transaction, one round trip.
pub(crate) const PAGE: usize = 500;

/// How often the rows that others changed meanwhile are searched again.
const PASSES: usize = 8;

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
        let failed = self.failed(Operation::Write);
        let (converted, damaged) = self.encrypt_rows(ring, progress).await.map_err(&failed)?;
        let rewritten = self
            .client()
            .scrub(options.rewrite)
            .await
            .map_err(&failed)?;
        Ok(Encrypted {
            converted,
            damaged: damaged.into_iter().map(failed).collect(),
            rewritten,
            out_of_reach: self.client().out_of_reach().to_vec(),
        })
    }

    async fn encrypt_rows(
        &self,
        ring: &KeyRing,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(u64, Vec<Error>)> {
        self.registered(ring).await?;
        let total = self.client().count(&Filter::Plain).await?;
        let mut done = 0;
        progress(Progress { done, total });
        let damaged = self
            .convert(
                &Filter::Plain,
                "let all processes write encrypted rows (mode=converting or mode=encrypted), and run it again",
                |content, binding| match content {
                    Content {
                        payload: Some(value),
                        ..
                    } if !content.is_touched_by_encryption() => {
                        let after = Sealed::seal(ring, binding, value)?;
                        Ok((Before::Plain(value.clone()), after))
                    }
                    _ => Err(Error::new(
                        ErrorKind::Integrity,
                        "the row is partly plain and partly encrypted",
                    )
                    .with_hint("restore it from a backup, or delete it")),
                },
                &mut |rows| {
                    done += rows;
                    progress(Progress {
                        done,
                        total: total.max(done),
                    });
                },
            )
            .await?;
        Ok((done, damaged))
    }

    /// Converts all rows of a kind, page by page, until a pass finds nothing to change. Returns the
    /// rows that cannot be converted. `remedy` is for processes that keep making such rows.
    pub(crate) async fn convert(
        &self,
        filter: &Filter,
        remedy: &'static str,
        change: impl Fn(&Content, Binding<'_>) -> Result<(Before, Sealed)> + Sync,
        changed: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Vec<Error>> {
        for _ in 0..PASSES {
            let mut damaged = Vec::new();
            let mut moved = false;
            let mut after = None;
            loop {
                let rows = self.client().scan(filter, after.as_deref(), PAGE).await?;
                let Some((last, _)) = rows.last() else { break };
                after = Some(last.clone());
                let page = self.swap_page(rows, &change, &mut damaged).await?;
                // The next pass reads rows that others have changed.
                moved |= page.attempted > 0;
                changed(page.swapped.len() as u64);
            }
            if !moved {
                return Ok(damaged);
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "rows are changed faster than they are converted",
        )
        .with_hint(remedy))
    }

    /// Changes one page, row by row or in one statement, depending on the engine.
    pub(crate) async fn swap_page(
        &self,
        rows: Vec<(String, Row)>,
        change: &(impl Fn(&Content, Binding<'_>) -> Result<(Before, Sealed)> + Sync),
        damaged: &mut Vec<Error>,
    ) -> Result<Page> {
        let mut swaps = Vec::with_capacity(rows.len());
        for (coordinate, row) in rows {
            let binding = Binding {
                coordinate: &coordinate,
                expires: row.expires,
            };
            match row.content.and_then(|content| change(&content, binding)) {
                Ok((before, after)) => swaps.push(Swap {
                    coordinate,
                    expires: row.expires,
                    before,
                    after,
                }),
                Err(error) => damaged.push(error.with_coordinate(coordinate)),
            }
        }
        let swapped = if swaps.is_empty() {
            HashSet::new()
        } else {
            self.client().swap(&swaps).await?
        };
        if let Some(swap) = swaps.first()
            && swapped.is_empty()
        {
            self.still_registered(&swap.after.key_id).await?;
        }
        Ok(Page {
            attempted: swaps.len(),
            lost: swaps
                .into_iter()
                .map(|swap| swap.coordinate)
                .filter(|name| !swapped.contains(name))
                .collect(),
            swapped,
        })
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

    /// Distinguishes a retired key from rows that others have changed.
    async fn still_registered(&self, key_id: &str) -> Result<()> {
        let name = ring_check::entry(key_id);
        let entries = self.client().meta().await?;
        if entries.iter().any(|(known, _)| *known == name) {
            return Ok(());
        }
        Err(ring_check::retired(&key_id.parse()?))
    }
}

/// The result for a page.
pub(crate) struct Page {
    pub(crate) attempted: usize,
    pub(crate) swapped: HashSet<String>,
    /// Rows that others have changed or deleted meanwhile.
    pub(crate) lost: Vec<String>,
}
