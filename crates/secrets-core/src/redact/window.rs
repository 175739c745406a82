//! The end of a stream that may be the beginning of a value.

use zeroize::Zeroize as _;

use super::Redactor;
use crate::connector::MASK;

/// Takes chunks, and gives what is certain: text without values. Keeps at most as many bytes
/// as the longest pattern has.
pub(super) struct Window {
    redactor: Redactor,
    /// Not yet given: it could become a value with the next chunk.
    held: Vec<u8>,
    /// How many bytes at the beginning of `held` belong to a value whose mask was given.
    covered: usize,
    begun: bool,
}

impl Window {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self {
            redactor,
            held: Vec::new(),
            covered: 0,
            begun: false,
        }
    }

    /// Whether anything came since the last [`finish`](Self::finish).
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Adds a chunk, and appends to `out` what is certain.
    pub(super) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if chunk.is_empty() {
            return;
        }
        self.begun = true;
        self.held.extend_from_slice(chunk);
        let undecided = self.redactor.0.begins_at(&self.held);
        self.give(undecided, out);
    }

    /// Appends to `out` what is held: nothing follows. What begins like a value and has the least length is
    /// a value that was cut off.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let rest = self.held.len();
        if rest - self.covered >= self.redactor.0.least {
            // An earlier value overlaps it, and its mask covers both.
            if self.covered == 0 {
                out.extend_from_slice(MASK.as_bytes());
            }
        } else {
            out.extend_from_slice(&self.held[self.covered..]);
        }
        self.drop_first(rest);
        self.covered = 0;
        self.begun = false;
    }

    /// Gives the bytes before `end`. Values may overlap; together they become one mask.
    fn give(&mut self, end: usize, out: &mut Vec<u8>) {
        // The bytes before `given` are in `out`, or masked there.
        let mut given = self.covered;
        let automaton = &self.redactor.0.automaton;
        if automaton.is_match(&self.held) {
            for (start, stop) in merged(automaton.find_overlapping_iter(&self.held)) {
                if start >= end {
                    break;
                }
                if stop <= given {
                    continue;
                }
                if start > given || given == 0 {
                    out.extend_from_slice(&self.held[given..start]);
                    out.extend_from_slice(MASK.as_bytes());
                }
                given = stop;
            }
        }
        if given < end {
            out.extend_from_slice(&self.held[given..end]);
        }
        self.covered = given.saturating_sub(end);
        self.drop_first(end);
    }

    fn drop_first(&mut self, bytes: usize) {
        let rest = self.held.len() - bytes;
        self.held.copy_within(bytes.., 0);
        self.held[rest..].zeroize();
        self.held.truncate(rest);
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}

/// The matches as ranges that do not touch, in ascending order. Matches come in the order of their ends.
fn merged(matches: impl Iterator<Item = aho_corasick::Match>) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for found in matches {
        let mut start = found.start();
        while let Some(&(before, stop)) = ranges.last() {
            if stop < start {
                break;
            }
            start = start.min(before);
            ranges.pop();
        }
        ranges.push((start, found.end()));
    }
    ranges
}
