//! `rotate`: rewraps all rows with the active key, while the table is in use. Also retires keys.

use secret_persistence_core::{Error, ErrorKind, Operation, Result};

use crate::client::{Before, Columns, Content, Filter};
use crate::encrypt::{PAGE, Progress};
use crate::envelope::{Binding, Sealed};
use crate::keyring::{KeyId, KeyRing};
use crate::persistence::Database;
use crate::ring_check;

/// Where an interrupted `--reencrypt` continues: the active key's id and the last name, each on a
/// line.
const CURSOR: &str = "reencrypt";

/// How often a row that others have changed is tried again.
const ATTEMPTS: usize = 8;

const ACTIVATE: &str = "activate the key in every process that writes, and run it again";

/// Options of [`Database::rotate`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotateOptions {
    /// Whether values also get new data keys. Necessary after a leak of the key ring, because
    /// anyone who has it may have unwrapped the data keys.
    pub reencrypt: bool,
}

impl RotateOptions {
    /// Sets whether values also get new data keys.
    #[must_use]
    pub fn with_reencrypt(mut self, reencrypt: bool) -> Self {
        self.reencrypt = reencrypt;
        self
    }
}

/// The result of [`Database::rotate`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rotated {
    /// The number of rows that are now under the active key.
    pub rotated: u64,
    /// Rows that cannot be decrypted, unchanged; each is an `Integrity` error. Their keys cannot be
    /// retired.
    pub damaged: Vec<Error>,
}

impl Database {
    /// Rewraps every encrypted row with the ring's active key. Each row is changed with
    /// compare-and-swap, so that reads and writes continue. After an interruption, run it again.
    ///
    /// Distribute the ring with the new key to every process first, then activate the key
    /// everywhere, then rotate.
    ///
    /// # Errors
    /// `InvalidConfig` without a key ring, or if the active key was retired; `Conflict` if other
    /// processes write rows under another key faster than they are rotated.
    pub async fn rotate(
        &self,
        options: &RotateOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Rotated> {
        let ring = self.ring_for("rotate")?;
        let failed = self.failed(Operation::Write);
        self.registered(ring).await.map_err(&failed)?;
        let rotated = if options.reencrypt {
            self.reencrypt(ring, progress).await
        } else {
            self.rewrap(ring, progress).await
        };
        let mut rotated = rotated.map_err(&failed)?;
        rotated.damaged = rotated.damaged.into_iter().map(failed).collect();
        Ok(rotated)
    }

    /// Retires a key: no process can write with it afterwards. Refuses if a row uses the key. Then
    /// it can be removed from the ring ([`KeyRingFile::remove`](crate::KeyRingFile::remove)). Its
    /// id cannot be used again for this table.
    ///
    /// # Errors
    /// `InvalidConfig` for the ring's active key, and if rows use the key, with their number.
    pub async fn retire_key(&self, id: &KeyId) -> Result<()> {
        let ring = self.ring_for("retiring a key")?;
        let failed = self.failed(Operation::Write);
        if id == ring.active() {
            return Err(failed(in_use(id, "it is the active one")));
        }
        let client = self.client();
        let name = ring_check::entry(id.as_str());
        let entries = client.meta().await.map_err(&failed)?;
        let check = entries.into_iter().find(|(known, _)| *known == name);
        // Forbid writes with the key first, then wait for running writes to end. Only then is a
        // count reliable.
        client.remove_meta(&name).await.map_err(&failed)?;
        client.barrier().await.map_err(&failed)?;
        let rows = client.count(&Filter::SealedUnder(id.to_string())).await;
        let verdict =
            match rows {
                Ok(0) => {
                    client
                        .put_meta(&ring_check::tombstone(id), b"1", true)
                        .await
                }
                Ok(rows) => Err(in_use(id, &format!("{rows} rows are encrypted with it"))
                    .with_hint("rotate first")),
                Err(error) => Err(error),
            };
        if verdict.is_err()
            && let Some((name, value)) = check
        {
            client
                .put_meta(&name, &value, false)
                .await
                .map_err(&failed)?;
        }
        verdict.map_err(&failed)
    }

    async fn rewrap(
        &self,
        ring: &KeyRing,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Rotated> {
        let filter = Filter::SealedNotUnder(ring.active().to_string());
        let total = self.client().count(&filter).await?;
        let mut done = 0;
        progress(Progress { done, total });
        let damaged = self
            .convert(
                &filter,
                ACTIVATE,
                |content, binding| change(content, |sealed| sealed.rewrap(ring, binding)),
                &mut |rows| {
                    done += rows;
                    progress(Progress {
                        done,
                        total: total.max(done),
                    });
                },
            )
            .await?;
        Ok(Rotated {
            rotated: done,
            damaged,
        })
    }

    async fn reencrypt(
        &self,
        ring: &KeyRing,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Rotated> {
        let renew = |content: &Content, binding: Binding<'_>| {
            change(content, |sealed| {
                Sealed::seal(ring, binding, &sealed.clone().open(ring, binding)?)
            })
        };
        let total = self.client().count(&Filter::Sealed).await?;
        let mut done = 0;
        let mut damaged = Vec::new();
        let mut after = self.cursor(ring).await?;
        progress(Progress { done, total });
        loop {
            let mut rows = self
                .client()
                .scan(&Filter::Sealed, after.as_deref(), PAGE)
                .await?;
            let Some((last, _)) = rows.last() else { break };
            let last = last.clone();
            // A row that another process has just rewrapped still has its old data key.
            for attempt in 1.. {
                let page = self.swap_page(rows, &renew, &mut damaged).await?;
                done += page.swapped.len() as u64;
                if page.lost.is_empty() {
                    break;
                }
                if attempt == ATTEMPTS {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "rows are changed faster than they are encrypted again",
                    ));
                }
                let names: Vec<&str> = page.lost.iter().map(String::as_str).collect();
                let found = self.client().read(&names, Columns::Sealed).await?;
                rows = found
                    .into_iter()
                    .map(|(place, row)| (page.lost[place].clone(), row))
                    .collect();
            }
            progress(Progress {
                done,
                total: total.max(done),
            });
            let cursor = format!("{}\n{last}", ring.active());
            self.client()
                .put_meta(CURSOR, cursor.as_bytes(), true)
                .await?;
            after = Some(last);
        }
        // Rows that a process with the old ring has written behind the cursor.
        let filter = Filter::SealedNotUnder(ring.active().to_string());
        let late = self
            .convert(&filter, ACTIVATE, renew, &mut |rows| done += rows)
            .await?;
        let known: Vec<_> = damaged
            .iter()
            .filter_map(Error::coordinate)
            .map(str::to_owned)
            .collect();
        damaged.extend(late.into_iter().filter(|error| {
            !error
                .coordinate()
                .is_some_and(|name| known.iter().any(|other| other == name))
        }));
        self.client().remove_meta(CURSOR).await?;
        progress(Progress {
            done,
            total: total.max(done),
        });
        Ok(Rotated {
            rotated: done,
            damaged,
        })
    }

    /// The position of an earlier run with the same active key.
    async fn cursor(&self, ring: &KeyRing) -> Result<Option<String>> {
        let entries = self.client().meta().await?;
        Ok(entries
            .into_iter()
            .find(|(name, _)| name == CURSOR)
            .and_then(|(_, value)| String::from_utf8(value).ok())
            .and_then(|text| {
                let (active, last) = text.split_once('\n')?;
                (active == ring.active().as_str()).then(|| last.to_owned())
            }))
    }
}

fn change(
    content: &Content,
    after: impl FnOnce(&Sealed) -> Result<Sealed>,
) -> Result<(Before, Sealed)> {
    let sealed = content.to_sealed().ok_or_else(|| {
        Error::new(
            ErrorKind::Integrity,
            "the row was altered or damaged: columns of its encrypted value are empty",
        )
    })?;
    let after = after(&sealed)?;
    Ok((Before::Sealed(sealed.wrapped_key), after))
}

fn in_use(id: &KeyId, why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the key `{id}` cannot be retired: {why}"),
    )
}
