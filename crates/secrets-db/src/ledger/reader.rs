//! The reading end of a ledger: verify, checkpoint, search, prune.

use std::fmt;
use std::sync::Arc;

use secret_persistence_core::{Error, ErrorKind, Result, Timestamp};

use super::line::{Checked, Head, Keys, LedgerLine, PrunedLines, Stored};
use super::table::{self, Examine};
use super::verify::{Verified, Verifier};
use super::{Checkpoint, LedgerConfig, LedgerQuery};

/// Reads, checks and prunes a ledger.
pub struct LedgerReader {
    pub(super) place: Box<dyn Examine>,
    pub(super) keys: Keys,
    name: Arc<str>,
}

/// What a prune removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// The lines.
    pub lines: u64,
    /// The chains that they were in.
    pub chains: u64,
}

impl LedgerReader {
    /// Opens an existing ledger.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn open(config: &LedgerConfig) -> Result<Self> {
        let name: Arc<str> = config.to_string().into();
        let place = table::examiner(config).await;
        Ok(Self {
            place: place.map_err(|error| error.with_store(&*name))?,
            keys: Keys::of(&config.ring),
            name,
        })
    }

    /// Checks every line, and that every chain is whole from its beginning, or from what was pruned,
    /// to the last line that is there; and that the lines of the checkpoints are there.
    ///
    /// What is missing at the *end* of a chain, and a chain that is missing whole, leaves nothing that
    /// could be found. Only a checkpoint that is newer than these lines finds it.
    ///
    /// # Errors
    /// If the ledger cannot be read. What is found is no error.
    pub async fn verify(&self, checkpoints: &[Checkpoint]) -> Result<Verified> {
        self.verify_and(checkpoints, &mut |_| {}).await
    }

    async fn verify_and(
        &self,
        checkpoints: &[Checkpoint],
        each: &mut (dyn FnMut(&Stored) + Send),
    ) -> Result<Verified> {
        let heads = checkpoints.iter().flat_map(|checkpoint| &checkpoint.chains);
        let mut verifier = Verifier::new(&self.keys, heads.cloned());
        let scanned = self
            .place
            .scan(&mut |stored| {
                verifier.line(&stored);
                each(&stored);
            })
            .await;
        let unfinished = scanned.map_err(|error| self.named(error))?;
        Ok(verifier.finish(unfinished))
    }

    /// Verifies the ledger, and returns what it has.
    ///
    /// # Errors
    /// `Integrity` if anything is wrong: a checkpoint would hide it.
    pub async fn checkpoint(&self, earlier: &[Checkpoint]) -> Result<Checkpoint> {
        let verified = self.verify(earlier).await?;
        self.require_intact(&verified)?;
        Checkpoint::of(verified.heads, &self.keys)
    }

    /// Reads the text of a checkpoint.
    ///
    /// # Errors
    /// `Integrity` if it was changed or is of another ledger; `InvalidConfig` if its key is missing.
    pub fn read_checkpoint(&self, text: &str) -> Result<Checkpoint> {
        Checkpoint::parse(text, &self.keys).map_err(|error| self.named(error))
    }

    /// Calls `each` with the lines that a search finds, by time, and whether each is genuine: its
    /// digest is that of its text. Only [`verify`](Self::verify) says whether lines are missing.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn search(
        &self,
        query: &LedgerQuery,
        each: &mut (dyn FnMut(LedgerLine, bool) + Send),
    ) -> Result<()> {
        let mut check = |stored: Stored| {
            let (line, genuine) = match self.keys.check(&stored.text) {
                Checked::Genuine(line, _) => (line, true),
                Checked::Altered(line, _) | Checked::UnknownKey(line, _) => (line, false),
                Checked::Unreadable => return,
            };
            if query.has(&line) {
                each(line, genuine);
            }
        };
        let searched = self.place.search(query, &mut check).await;
        searched.map_err(|error| self.named(error))
    }

    /// Verifies the ledger, and removes from the beginning of every chain what is older than a time.
    /// A mark with a digest stays in its place, so that a verification still passes and counts what
    /// was pruned. In a folder only whole files are removed, and none that a process still writes.
    ///
    /// # Errors
    /// `Integrity` if anything is wrong: a prune would hide it. `Conflict` if another prune of a table
    /// has removed verified lines meanwhile; of a folder, the second one waits.
    pub async fn prune(&self, before: Timestamp, checkpoints: &[Checkpoint]) -> Result<Pruned> {
        let _alone = self
            .place
            .alone()
            .await
            .map_err(|error| self.named(error))?;
        let cuts = self.cuts(before, checkpoints).await?;
        self.remove(cuts).await
    }

    /// Verifies the ledger, and finds what to remove.
    async fn cuts(&self, before: Timestamp, checkpoints: &[Checkpoint]) -> Result<Vec<Cut>> {
        let mut cuts = Cuts {
            keys: &self.keys,
            before: before.unix_seconds(),
            found: Vec::new(),
        };
        let verified = self
            .verify_and(checkpoints, &mut |stored| cuts.line(stored))
            .await?;
        let Cuts { found, .. } = cuts;
        self.require_intact(&verified)?;
        Ok(found)
    }

    async fn remove(&self, found: Vec<Cut>) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for cut in found.into_iter().filter(|cut| cut.lines > 0) {
            let mark = LedgerLine {
                writer: cut.head.writer,
                sequence: cut.head.sequence,
                at: Timestamp::now(),
                actor: None,
                operation: None,
                coordinate: None,
                storage_id: None,
                places: Vec::new(),
                places_omitted: 0,
                outcome: None,
                request: None,
                pruned: Some(PrunedLines {
                    lines: cut.earlier + cut.lines,
                    last: cut.last,
                }),
                key: self.keys.active(),
                previous: cut.head.digest,
            };
            let (mark, _) = self.keys.sign(&mark)?;
            let rows = u64::try_from(cut.marks + cut.lines).unwrap_or_default();
            let done = self.place.prune(&mark, rows).await;
            done.map_err(|error| self.named(error))?;
            pruned.lines += u64::try_from(cut.lines).unwrap_or_default();
            pruned.chains += 1;
        }
        Ok(pruned)
    }

    fn require_intact(&self, verified: &Verified) -> Result<()> {
        if verified.is_intact() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Integrity,
            format!("the ledger is not intact: {} findings", verified.found),
        )
        .with_store(&*self.name)
        .with_hint("ledger verify lists them"))
    }

    pub(super) fn named(&self, error: Error) -> Error {
        error.with_store(&*self.name)
    }
}

impl fmt::Debug for LedgerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LedgerReader({})", self.name)
    }
}

/// Finds the old beginning of every chain.
struct Cuts<'a> {
    keys: &'a Keys,
    before: i64,
    found: Vec<Cut>,
}

struct Cut {
    /// The last line to remove.
    head: Head,
    /// The latest time of the lines up to that one.
    last: Timestamp,
    /// The same of those in `pending` too.
    seen: Timestamp,
    /// How many lines were pruned earlier, and are to be pruned now.
    earlier: i64,
    lines: i64,
    /// The mark of an earlier prune, if there is one.
    marks: i64,
    /// Lines since `head`, which can only be removed with a later one.
    pending: i64,
    /// A line that is not old has come.
    is_complete: bool,
}

impl Cuts<'_> {
    fn line(&mut self, stored: &Stored) {
        // What is not genuine is found by the verification, which then refuses the prune.
        let Checked::Genuine(line, digest) = self.keys.check(&stored.text) else {
            return;
        };
        let starts = self
            .found
            .last()
            .is_none_or(|cut| cut.head.writer != stored.writer);
        if starts {
            self.found.push(Cut {
                head: Head {
                    writer: stored.writer.clone(),
                    sequence: 0,
                    digest: String::new(),
                },
                last: line.at,
                seen: line.at,
                earlier: 0,
                lines: 0,
                marks: 0,
                pending: 0,
                is_complete: false,
            });
        }
        let Some(cut) = self.found.last_mut() else {
            return;
        };
        if let Some(pruned) = &line.pruned {
            cut.earlier = pruned.lines;
            cut.marks = 1;
            cut.seen = pruned.last;
            return;
        }
        cut.is_complete |= line.at.unix_seconds() >= self.before;
        if cut.is_complete {
            return;
        }
        cut.pending += 1;
        cut.seen = cut.seen.max(line.at);
        if stored.separable {
            cut.lines += std::mem::take(&mut cut.pending);
            cut.head.sequence = line.sequence;
            cut.head.digest = digest;
            cut.last = cut.seen;
        }
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use secret_persistence_core::settings::StoreUrl;
    use secret_persistence_core::{Actor, AuditEvent, AuditSink as _, Coordinate, Operation};

    use super::super::{LEDGER_SETTINGS, Ledger};
    use super::*;

    const RING: &str = "active=k;k=dGhpcyBpcyAzMiBieXRlcyBvZiBhbiBleGFtcGxlISE=";

    /// Both verify before either removes. The second mark would count lines that the first one has
    /// counted, and every later verification fail.
    #[tokio::test]
    async fn a_prune_that_another_one_overtook_removes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("ledger.db").display());
        let variable = |name: &str| (name == "SECRETS_KEYRING").then(|| RING.to_owned());
        let settings = LEDGER_SETTINGS.from_url(&StoreUrl::parse(&url).unwrap(), &variable);
        let config = LedgerConfig::from_settings(&settings.unwrap()).unwrap();
        let ledger = Ledger::new(config.clone()).unwrap();
        let event = |seconds| {
            let coordinate = Coordinate::parse("airbyte_workspace_1_secret_2_v1").unwrap();
            let mut event = AuditEvent::new(Actor::new("maria"), Operation::Read, coordinate);
            event.at = Timestamp::now().saturating_sub(std::time::Duration::from_secs(seconds));
            event
        };
        let events: Vec<_> = [500, 400, 300, 200, 100].map(event).into();
        ledger.record(&events).await.unwrap();
        let ago =
            |seconds| Timestamp::now().saturating_sub(std::time::Duration::from_secs(seconds));
        let one = LedgerReader::open(&config).await.unwrap();
        let other = LedgerReader::open(&config).await.unwrap();
        for seconds in [350, 150] {
            let (first, second) = (
                one.cuts(ago(seconds), &[]).await.unwrap(),
                other.cuts(ago(seconds - 100), &[]).await.unwrap(),
            );
            assert_eq!(one.remove(first).await.unwrap().lines, 2);
            let error = other.remove(second).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            let verified = one.verify(&[]).await.unwrap();
            assert!(verified.is_intact(), "{verified:?}");
        }
        let verified = one.verify(&[]).await.unwrap();
        assert_eq!((verified.lines, verified.pruned), (1, 4));
    }
}
