//! Finds what was done to a ledger.

use std::collections::HashMap;
use std::fmt;

use super::line::{BEGINNING, Checked, Head, Keys, LedgerLine, Stored};

/// How many findings are listed; the others are counted.
const LISTED: usize = 1000;

/// What a verification found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// The lines that were read, without the marks of prunes.
    pub lines: u64,
    /// The chains that they are in.
    pub chains: u64,
    /// The lines that prunes have removed, as their marks say.
    pub pruned: u64,
    /// Lines that are cut off, at the end of a file: by a crash, a write that is under way, or
    /// somebody. Only a checkpoint tells, because a line that was whole when it was made is then
    /// [`Truncated`](FindingKind::Truncated).
    pub unfinished: u64,
    /// What is wrong: the first thousand findings.
    pub findings: Vec<Finding>,
    /// How many findings there are.
    pub found: u64,
    /// The last line of every chain.
    pub(super) heads: Vec<Head>,
}

impl Verified {
    fn find(&mut self, kind: FindingKind, writer: &str, sequence: i64) {
        self.found += 1;
        if self.findings.len() < LISTED {
            self.findings.push(Finding {
                kind,
                writer: writer.to_owned(),
                sequence,
            });
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.found == 0
    }
}

/// One thing that is wrong with a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// The chain.
    pub writer: String,
    /// The line, or the first of the missing ones.
    pub sequence: i64,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// Its digest is not that of its text: it was changed, or written without the key.
    Altered,
    /// It is genuine, but does not follow the line before it.
    Detached,
    /// It is where another line belongs: a column, or its place in a file, is not what it says.
    Displaced,
    /// It is missing, with those up to the next line that is there.
    Missing,
    /// A checkpoint has another line in its place.
    Rewritten,
    /// A checkpoint has it, and its chain ends before it.
    Truncated,
    /// The key ring does not have its key.
    UnknownKey,
    /// It is not a line of a ledger.
    Unreadable,
}

impl FindingKind {
    /// The kind in lower case, stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Detached => "detached",
            Self::Displaced => "displaced",
            Self::Missing => "missing",
            Self::Rewritten => "rewritten",
            Self::Truncated => "truncated",
            Self::UnknownKey => "unknown_key",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

pub(super) struct Verifier<'a> {
    keys: &'a Keys,
    verified: Verified,
    /// The chain that is being read.
    chain: Option<Chain>,
    /// What checkpoints say of each chain: positions and digests of lines.
    sought: HashMap<String, Vec<(i64, String)>>,
}

struct Chain {
    writer: String,
    /// The position of the next line.
    next: i64,
    /// The digest of the line before it; `None` if that line is missing or unreadable.
    previous: Option<String>,
    has_lines: bool,
}

impl<'a> Verifier<'a> {
    /// `heads` are lines that checkpoints say are there.
    pub(super) fn new(keys: &'a Keys, heads: impl IntoIterator<Item = Head>) -> Self {
        let mut sought: HashMap<String, Vec<(i64, String)>> = HashMap::new();
        for head in heads {
            let chain = sought.entry(head.writer).or_default();
            chain.push((head.sequence, head.digest));
        }
        Self {
            keys,
            verified: Verified::default(),
            chain: None,
            sought,
        }
    }

    /// Takes the next line. A chain's lines come together, in their order.
    pub(super) fn line(&mut self, stored: &Stored) {
        let mut chain = match self.chain.take() {
            Some(chain) if chain.writer == stored.writer => chain,
            other => {
                self.end(other);
                self.verified.chains += 1;
                Chain {
                    writer: stored.writer.clone(),
                    next: 1,
                    previous: Some(BEGINNING.to_owned()),
                    has_lines: false,
                }
            }
        };
        let digest = self.check(stored, &chain);
        chain.next = stored.sequence.saturating_add(1);
        chain.previous = digest;
        chain.has_lines = true;
        self.chain = Some(chain);
    }

    /// Checks a line, and returns the digest that the next one must name.
    fn check(&mut self, stored: &Stored, chain: &Chain) -> Option<String> {
        let (at, writer) = (stored.sequence, &chain.writer);
        let (line, digest, wrong) = match self.keys.check(&stored.text) {
            Checked::Genuine(line, digest) => (Some(line), Some(digest), None),
            Checked::Altered(line, digest) => {
                (Some(line), Some(digest), Some(FindingKind::Altered))
            }
            Checked::UnknownKey(line, digest) => {
                (Some(line), Some(digest), Some(FindingKind::UnknownKey))
            }
            Checked::Unreadable => (None, None, Some(FindingKind::Unreadable)),
        };
        if let Some(kind) = wrong {
            self.verified.find(kind, writer, at);
        }
        if line.as_ref().is_some_and(|line| !agrees(stored, line)) {
            self.verified.find(FindingKind::Displaced, writer, at);
        }
        if let Some(line) = &line
            && let Some(pruned) = &line.pruned
            && wrong.is_none()
        {
            // It stands for everything before it.
            if chain.has_lines {
                self.verified.find(FindingKind::Displaced, writer, at);
            }
            self.verified.pruned += u64::try_from(pruned.lines).unwrap_or_default();
            self.compare(writer, at, &line.previous);
            // What checkpoints say about pruned lines can no longer be compared.
            if let Some(sought) = self.sought.get_mut(writer) {
                sought.retain(|(sequence, _)| *sequence > at);
            }
            return Some(line.previous.clone());
        }
        self.verified.lines += 1;
        if at > chain.next {
            self.verified.find(FindingKind::Missing, writer, chain.next);
        } else if at < chain.next {
            self.verified.find(FindingKind::Displaced, writer, at);
        } else if let (Some(line), Some(previous)) = (&line, &chain.previous)
            && line.previous != *previous
        {
            self.verified.find(FindingKind::Detached, writer, at);
        }
        if let Some(digest) = &digest {
            self.compare(writer, at, digest);
        }
        digest
    }

    /// Compares a digest with what a checkpoint says.
    fn compare(&mut self, writer: &str, sequence: i64, digest: &str) {
        let Some(sought) = self.sought.get_mut(writer) else {
            return;
        };
        let here = sought.extract_if(.., |(at, _)| *at == sequence);
        if here.filter(|(_, sought)| sought != digest).count() > 0 {
            self.verified.find(FindingKind::Rewritten, writer, sequence);
        }
    }

    fn end(&mut self, chain: Option<Chain>) {
        if let Some(Chain {
            writer,
            next,
            previous: Some(digest),
            ..
        }) = chain
        {
            let sequence = next - 1;
            self.verified.heads.push(Head {
                writer,
                sequence,
                digest,
            });
        }
    }

    /// Ends the last chain. What a checkpoint says and was not there has been cut off.
    pub(super) fn finish(mut self, unfinished: u64) -> Verified {
        self.verified.unfinished = unfinished;
        let last = self.chain.take();
        self.end(last);
        let mut cut: Vec<(String, i64)> = self
            .sought
            .into_iter()
            .flat_map(|(writer, chain)| {
                let positions = chain.into_iter().map(|(sequence, _)| sequence);
                positions.map(move |sequence| (writer.clone(), sequence))
            })
            .collect();
        cut.sort_unstable();
        cut.dedup();
        for (writer, sequence) in cut {
            self.verified
                .find(FindingKind::Truncated, &writer, sequence);
        }
        self.verified
    }
}

/// Whether the columns of a line are what the line says.
pub(super) fn agrees(stored: &Stored, line: &LedgerLine) -> bool {
    line.writer == stored.writer
        && line.sequence == stored.sequence
        && line.at.unix_seconds() == stored.at
        && line.coordinate.as_deref().unwrap_or_default() == stored.coordinate
}
