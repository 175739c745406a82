//! Who read a secret last, and from when on the ledger knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence_core::{
    Actor, Coordinate, LastRead, LastReads, Operation, ReadHistory, Result, Timestamp,
};

use super::LedgerReader;
use super::line::{Checked, Keys, LedgerLine, Stored};
use super::table::Names;
use super::verify::agrees;

/// Checks the digest of every line that it answers from. That no line is missing, only
/// [`verify`](LedgerReader::verify) finds out.
///
/// A table answers with one statement that looks into an index for each name. A folder has no index:
/// every call reads all its files once, and keeps one line for each name in memory.
///
/// The ledger goes back to its oldest line; one that was pruned, to the first second after the newest
/// line that was removed. Nobody can tell if this line, or the mark of a prune, is not genuine, and in a
/// ledger without lines. From then on every read is known only if every process had the ledger with
/// [`AuditMode::Required`](secret_persistence_core::AuditMode::Required), without a pause: a read without a
/// line leaves no trace.
#[async_trait]
impl ReadHistory for LedgerReader {
    async fn last_reads(&self, names: &BTreeSet<Coordinate>) -> Result<LastReads> {
        let mut found = Found::new(&self.keys, names);
        let mut wanted = Names::default();
        for name in names {
            match name {
                Coordinate::Managed(name) => wanted.managed.push(name.as_str()),
                Coordinate::External(name) => wanted.external.push(name.as_str()),
            }
        }
        let mut each = |stored: Stored| found.line(&stored);
        let asked = self.place.history(&wanted, &mut each).await;
        asked.map_err(|error| self.named(error))?;
        Ok(found.finish())
    }
}

struct Found<'a> {
    keys: &'a Keys,
    wanted: BTreeMap<&'a str, &'a Coordinate>,
    reads: BTreeMap<Coordinate, LastRead>,
    /// The time of the oldest line, and whether it is genuine.
    oldest: Option<(Timestamp, bool)>,
    /// The latest time of lines that were removed.
    pruned: Option<Timestamp>,
    /// A mark is not genuine, so that nobody knows what was removed.
    forged: bool,
}

impl<'a> Found<'a> {
    fn new(keys: &'a Keys, names: &'a BTreeSet<Coordinate>) -> Self {
        Self {
            keys,
            wanted: names.iter().map(|name| (name.as_str(), name)).collect(),
            reads: BTreeMap::new(),
            oldest: None,
            pruned: None,
            forged: false,
        }
    }

    fn line(&mut self, stored: &Stored) {
        let (line, genuine) = match self.keys.check(&stored.text) {
            Checked::Genuine(line, _) => {
                let agrees = agrees(stored, &line);
                (Some(line), agrees)
            }
            Checked::Altered(line, _) | Checked::UnknownKey(line, _) => (Some(line), false),
            Checked::Unreadable => (None, false),
        };
        if stored.coordinate.is_empty() {
            match line.and_then(|line| line.pruned) {
                Some(pruned) if genuine => self.pruned = self.pruned.max(Some(pruned.last)),
                _ => self.forged = true,
            }
            return;
        }
        let Ok(at) = Timestamp::from_unix_seconds(stored.at) else {
            self.forged = true;
            return;
        };
        if self.oldest.is_none_or(|(oldest, _)| at < oldest) {
            self.oldest = Some((at, genuine));
        }
        // The oldest line may be about another name, or another operation.
        let returned = line.as_ref().is_none_or(is_returned);
        let Some(name) = self.wanted.get(&*stored.coordinate).filter(|_| returned) else {
            return;
        };
        // In another storage, a name that others manage is another secret.
        let is_elsewhere = line.as_ref().is_some_and(|line| line.storage_id.is_some());
        if is_elsewhere && matches!(name, Coordinate::External(_)) {
            return;
        }
        let later = self.reads.get(*name).is_none_or(|known| at >= known.at);
        if later {
            let actor = line.and_then(|line| line.actor).map(Actor::new);
            let read = LastRead::new(at, actor, genuine);
            self.reads.insert((*name).clone(), read);
        }
    }

    fn finish(self) -> LastReads {
        let mut found = LastReads::default();
        found.reads = self.reads;
        found.since = match (self.pruned, self.oldest) {
            _ if self.forged => None,
            // The second itself may have had more lines.
            (Some(pruned), _) => Some(pruned.saturating_add(Duration::from_secs(1))),
            (None, Some((oldest, true))) => Some(oldest),
            (None, _) => None,
        };
        found
    }
}

fn is_returned(line: &LedgerLine) -> bool {
    line.operation.as_deref() == Some(Operation::Read.as_str())
        && line.outcome.as_deref() == Some("ok")
}
