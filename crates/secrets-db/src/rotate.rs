//! `rotate`: rewraps all rows with the active key, while the table is in use. Also retires keys.

use std::collections::HashSet;

use secret_persistence_core::{Error, ErrorKind, Operation, Result, Timestamp};

use crate::client::Filter;
use crate::conversion::{Conversion, Kind, Range};
use crate::encrypt::Progress;
use crate::keyring::KeyId;
use crate::persistence::Database;
use crate::reencryption::Reencryption;
use crate::ring_check;

/// Options of [`Database::rotate`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotateOptions {
    /// Whether values also get new data keys. Necessary after a leak of the key ring, because
    /// anyone who has it may have unwrapped the data keys. If it is interrupted, the next run with the same
    /// key goes on where it was, unless that was more than a day ago or another run has ended since: then
    /// every value gets a new one.
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
        let rotation = self.rotation(options).await?;
        let total = rotation.count().await?;
        let (mut done, mut damaged) = (0, Vec::new());
        progress(Progress { done, total });
        let mut told = |rows| {
            done += rows;
            progress(Progress {
                done,
                total: total.max(done),
            });
        };
        if options.reencrypt {
            damaged = self.reencrypt(&rotation, &mut told).await?;
        }
        // For a reencryption, those that a process with the old ring has written behind the cursor.
        let late = rotation.rest(&mut told).await?;
        let known: HashSet<String> = damaged.iter().filter_map(name).collect();
        damaged.extend(
            late.into_iter()
                .filter(|error| name(error).is_none_or(|name| !known.contains(&name))),
        );
        rotation.end(&|| ()).await?;
        Ok(Rotated {
            rotated: done,
            damaged,
        })
    }

    /// The same for several processes that share the table.
    ///
    /// # Errors
    /// `InvalidConfig` as for [`rotate`](Self::rotate).
    pub async fn rotation(&self, options: &RotateOptions) -> Result<Conversion> {
        let ring = self.ring_for("rotate")?;
        let kind = match options.reencrypt {
            true => Kind::Reencrypt,
            false => Kind::Rewrap,
        };
        Conversion::begin(self, ring, kind).await
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

    /// Encrypts every row again, from where an interrupted run was.
    async fn reencrypt(
        &self,
        rotation: &Conversion,
        told: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Vec<Error>> {
        let failed = self.failed(Operation::Write);
        let client = self.client();
        let mut damaged = Vec::new();
        let under_way = Reencryption::under_way(client, rotation.key()).await;
        let mut under_way = under_way.map_err(&failed)?;
        let mut range = Some(Range::new(under_way.cursor(Timestamp::now()), None));
        while let Some(left) = range {
            let step = rotation.convert(&left).await?;
            let (mut done, mut lost) = (step.converted, step.lost);
            damaged.extend(step.damaged);
            for attempt in 1.. {
                if lost.is_empty() {
                    break;
                }
                if attempt == Conversion::ROUNDS {
                    return Err(rotation.too_fast());
                }
                let again = rotation.convert_again(&lost).await?;
                done += again.converted;
                damaged.extend(again.damaged);
                lost = again.lost;
            }
            told(done);
            range = step.rest;
            if let Some(last) = range.as_ref().and_then(|range| range.after.as_deref()) {
                under_way.reach(client, last).await.map_err(&failed)?;
            }
        }
        Ok(damaged)
    }
}

fn name(error: &Error) -> Option<String> {
    error.coordinate().map(str::to_owned)
}

fn in_use(id: &KeyId, why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the key `{id}` cannot be retired: {why}"),
    )
}
