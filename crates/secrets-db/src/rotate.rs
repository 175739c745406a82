//! `rotate`: brings all rows under the active key, while they are in use; and the end of a key.

use secret_persistence_core::{Error, ErrorKind, Operation, Result};

use crate::client::{Before, Columns, Content, Filter};
use crate::encrypt::{PAGE, Progress};
use crate::envelope::{Binding, Sealed};
use crate::keyring::{KeyId, KeyRing};
use crate::persistence::Database;
use crate::ring_check;

/// Where a `--reencrypt` that was killed goes on: the active key's id and the last name, one a line.
const CURSOR: &str = "reencrypt";

/// How often a row is tried again that somebody else has changed.
const ATTEMPTS: usize = 8;

/// What `rotate` does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotateOptions {
    /// Whether values get new data keys too. For a leaked key ring: anyone who has it may have
    /// unwrapped the data keys.
    pub reencrypt: bool,
}

impl RotateOptions {
    /// Gives values new data keys too.
    #[must_use]
    pub fn with_reencrypt(mut self, reencrypt: bool) -> Self {
        self.reencrypt = reencrypt;
        self
    }
}

/// What `rotate` did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rotated {
    /// Rows that are under the active key now.
    pub rotated: u64,
    /// Rows that do not open, left as they are: each an `Integrity` error. Their keys cannot be retired.
    pub damaged: Vec<Error>,
}

impl Database {
    /// Brings every encrypted row under the ring's active key, each by compare-and-swap, so that
    /// reading and writing go on. Killed at any moment it is simply run again.
    ///
    /// Give every process the ring with the new key first, then activate it everywhere, then rotate.
    ///
    /// # Errors
    /// `InvalidConfig` without a key ring, or where the active key has been retired; `Conflict` where
    /// others change rows faster than they are rotated.
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

    /// Ends a key: refuses where a row uses it, and from then on nothing can be written under it,
    /// by whatever process. Afterwards it can be removed from the ring
    /// ([`KeyRingFile::remove`](crate::KeyRingFile::remove)); its id is not used again for this table.
    ///
    /// # Errors
    /// `InvalidConfig` for the ring's active key, and where rows use it, saying how many.
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
        // First forbid writes with it, then wait for running writes to end, and only then
        // does a count say anything.
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
            let Some(last) = rows.last() else { break };
            let last = last.coordinate.clone();
            // A row that somebody else has just rewrapped still has its old data key.
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
                rows = self.client().read(&names, Columns::Sealed).await?;
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
            .convert(&filter, renew, &mut |rows| done += rows)
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

    /// Where an earlier run ended that was for the same active key.
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
