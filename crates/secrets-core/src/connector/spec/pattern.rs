//! Patterns of names: ECMA-262 expressions, with or without the `u` flag, which validators differ in.

use std::sync::Arc;

use super::automaton::{Automaton, Run};
use super::expression;
use crate::connector::limits::{MAX_NAME_STEPS, MAX_PATTERN_ROOM};

/// A pattern of `patternProperties`. Cloning shares.
///
/// `None` if it may match every name: it has a meaning that we do not know (look-around, back
/// references) or that depends on the flag, is no expression, or is too large.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Option<Arc<Automaton>>);

/// What a pattern says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    No,
    /// Taken for a match where that finds secrets, and for none where that finds secrets.
    Perhaps,
    Yes,
}

impl Pattern {
    /// A pattern that takes what it needs of the room for all patterns of a specification.
    pub(super) fn new(ecma: &str, room: &mut usize) -> Self {
        if ecma.len() > MAX_PATTERN_ROOM {
            return Self(None);
        }
        let automaton = expression::read(ecma)
            .and_then(|(expression, sets)| Automaton::build(&expression, sets, room));
        Self(automaton.map(Arc::new))
    }

    /// What it says of a name, within the steps that are left to a run.
    pub(super) fn matches(&self, name: &str, run: &mut Run) -> Match {
        let answer = match &self.0 {
            // By the name alone, so that every walk answers the same.
            Some(automaton) if automaton.size().saturating_mul(name.len()) <= MAX_NAME_STEPS => {
                automaton.matches(name, run)
            }
            _ => None,
        };
        match answer {
            Some(true) => Match::Yes,
            Some(false) => Match::No,
            None => Match::Perhaps,
        }
    }
}

#[cfg(test)]
mod tests;
