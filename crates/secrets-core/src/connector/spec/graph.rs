//! The compiled specification: for every place of a configuration one merged node.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::automaton::Run;
use super::pattern::{Match, Pattern};
use super::types::Types;
use crate::connector::limits::{MAX_PATTERN_STEPS, MAX_UNION_MEMBERS};

pub(super) type StateId = u32;

/// The state of places that the specification does not know.
pub(super) const UNKNOWN: StateId = 0;
/// The state of all secret places: what lies below them is part of the secret.
pub(super) const SECRET: StateId = 1;

/// Merged nodes. Each represents a set of schemas of one place.
#[derive(Debug)]
pub(in crate::connector) struct Graph {
    pub(super) states: Vec<State>,
    pub(super) root: StateId,
}

/// All schemas of one place, merged.
#[derive(Debug)]
pub(super) struct State {
    /// Whether secrets lie below.
    pub(super) below: bool,
    /// The types that some schema admits.
    pub(super) admits: Types,
    /// The properties that some schema lists, sorted by name.
    pub(super) names: Box<[(Arc<str>, StateId)]>,
    /// The state of all other names, patterns left out.
    pub(super) others: StateId,
    /// Per schema that has patterns, what it says of a name that is not listed.
    pub(super) patterns: Box<[Patterns]>,
    /// The states of the first elements, where they differ.
    pub(super) listed: Box<[StateId]>,
    /// The state of the elements after those.
    pub(super) rest: StateId,
}

impl State {
    pub(super) fn leaf(admits: Types) -> Self {
        Self {
            below: false,
            admits,
            names: Box::new([]),
            others: UNKNOWN,
            patterns: Box::new([]),
            listed: Box::new([]),
            rest: UNKNOWN,
        }
    }

    /// Everything it leads to.
    pub(super) fn edges(&self) -> impl Iterator<Item = StateId> {
        self.names
            .iter()
            .map(|(_, state)| *state)
            .chain(self.patterns.iter().flat_map(|patterns| {
                let each = patterns.each.iter().map(|(_, state)| *state);
                each.chain([patterns.otherwise])
            }))
            .chain(self.listed.iter().copied())
            .chain([self.others, self.rest])
    }

    fn pattern_count(&self) -> usize {
        self.patterns
            .iter()
            .map(|patterns| 1 + patterns.each.len())
            .sum()
    }

    fn name(&self, name: &str) -> Option<StateId> {
        // A few names are found faster one by one: most differ in length already.
        if self.names.len() <= 8 {
            let found = self.names.iter().find(|(listed, _)| **listed == *name);
            return found.map(|(_, state)| *state);
        }
        self.names
            .binary_search_by(|(listed, _)| (**listed).cmp(name))
            .ok()
            .map(|index| self.names[index].1)
    }
}

/// The patterns of one schema.
#[derive(Debug)]
pub(super) struct Patterns {
    pub(super) each: Box<[(Pattern, StateId)]>,
    /// The state of names that none of them matches for sure.
    pub(super) otherwise: StateId,
}

/// Where a walk is in a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::connector) struct Position(u32);

impl Position {
    /// Below here the specification knows nothing.
    pub(in crate::connector) const UNKNOWN: Self = Self(UNKNOWN);
}

/// A walk through a [`Graph`].
///
/// Names that patterns decide lead to several states at once; such unions are made as they occur,
/// because making all in advance would double the states with every pattern.
#[derive(Debug)]
pub(in crate::connector) struct Cursor<'g> {
    graph: &'g Graph,
    unions: Vec<Union>,
    /// How many members the unions have together.
    union_members: usize,
    run: Run,
    by_members: HashMap<Rc<[StateId]>, Position>,
    /// Whether known and unknown places matter where no secrets lie below.
    exhaustive: bool,
}

#[derive(Debug)]
struct Union {
    members: Rc<[StateId]>,
    below: bool,
    admits: Types,
    listed: usize,
}

impl<'g> Cursor<'g> {
    pub(in crate::connector) fn new(graph: &'g Graph, exhaustive: bool) -> Self {
        Self {
            graph,
            unions: Vec::new(),
            union_members: 0,
            run: Run::with_steps(MAX_PATTERN_STEPS),
            by_members: HashMap::new(),
            exhaustive,
        }
    }

    pub(in crate::connector) fn root(&self) -> Position {
        Position(self.graph.root)
    }

    /// Whether the place is secret.
    pub(in crate::connector) fn is_secret(&self, at: Position) -> bool {
        at.0 == SECRET
    }

    /// Whether a value may stand there: false where secrets lie below and no schema admits its type.
    pub(in crate::connector) fn admits(&self, at: Position, types: Types) -> bool {
        match self.state(at) {
            Ok(state) => !state.below || state.admits.overlaps(types),
            Err(union) => !union.below || union.admits.overlaps(types),
        }
    }

    /// How many first elements of an array have schemas of their own.
    pub(in crate::connector) fn listed(&self, at: Position) -> usize {
        match self.state(at) {
            Ok(state) => state.listed.len(),
            Err(union) => union.listed,
        }
    }

    /// The place of an object's member.
    pub(in crate::connector) fn member(&mut self, at: Position, name: &str) -> Position {
        match self.state(at) {
            Ok(state) if !state.below && !self.exhaustive => Position::UNKNOWN,
            Ok(state) => match state.name(name) {
                Some(state) => Position(state),
                None if state.patterns.is_empty() => Position(state.others),
                None => {
                    self.run.take(state.pattern_count());
                    if self.run.steps == 0 {
                        return beyond(state.below);
                    }
                    let mut states = vec![state.others];
                    push_matching(state, name, &mut self.run, &mut states);
                    self.union(states)
                }
            },
            Err(union) => {
                let (members, below) = (Rc::clone(&union.members), union.below);
                let mut states = Vec::with_capacity(members.len());
                for &member in &*members {
                    let state = &self.graph.states[member as usize];
                    self.run.take(1 + state.pattern_count());
                    if self.run.steps == 0 {
                        return beyond(below);
                    }
                    match state.name(name) {
                        Some(state) => states.push(state),
                        None => {
                            states.push(state.others);
                            push_matching(state, name, &mut self.run, &mut states);
                        }
                    }
                }
                self.union(states)
            }
        }
    }

    /// The place of an array's element.
    pub(in crate::connector) fn element(&mut self, at: Position, index: usize) -> Position {
        let element = |state: &State| state.listed.get(index).copied().unwrap_or(state.rest);
        match self.state(at) {
            Ok(state) => Position(element(state)),
            Err(union) => {
                let (members, below) = (Rc::clone(&union.members), union.below);
                self.run.take(members.len());
                if self.run.steps == 0 {
                    return beyond(below);
                }
                let states = members
                    .iter()
                    .map(|&member| element(&self.graph.states[member as usize]))
                    .collect();
                self.union(states)
            }
        }
    }

    fn state(&self, at: Position) -> Result<&'g State, &Union> {
        let at = at.0 as usize;
        match self.graph.states.get(at) {
            Some(state) => Ok(state),
            None => Err(&self.unions[at - self.graph.states.len()]),
        }
    }

    fn union(&mut self, mut states: Vec<StateId>) -> Position {
        states.sort_unstable();
        states.dedup();
        states.retain(|&state| state != UNKNOWN);
        match states[..] {
            [] => return Position::UNKNOWN,
            [only] => return Position(only),
            [SECRET, ..] => return Position(SECRET),
            _ => {}
        }
        if let Some(&known) = self.by_members.get(&states[..]) {
            return known;
        }
        let merged = |state: &StateId| &self.graph.states[*state as usize];
        let below = states.iter().map(merged).any(|state| state.below);
        if !below && !self.exhaustive {
            return Position::UNKNOWN;
        }
        self.union_members += states.len();
        if self.union_members > MAX_UNION_MEMBERS {
            return beyond(below);
        }
        // There are fewer than four billion places in a configuration that fits into memory.
        let id = u32::try_from(self.graph.states.len() + self.unions.len()).unwrap_or(SECRET);
        let members: Rc<[StateId]> = states.into();
        self.unions.push(Union {
            below,
            admits: members
                .iter()
                .map(merged)
                .fold(Types::NONE, |admits, state| admits | state.admits),
            listed: members
                .iter()
                .map(merged)
                .map(|state| state.listed.len())
                .max()
                .unwrap_or(0),
            members: Rc::clone(&members),
        });
        self.by_members.insert(members, Position(id));
        Position(id)
    }
}

/// The place that takes more than a walk may look at or remember: whatever lies below may be secret.
fn beyond(below: bool) -> Position {
    if below {
        Position(SECRET)
    } else {
        Position::UNKNOWN
    }
}

fn push_matching(state: &State, name: &str, run: &mut Run, states: &mut Vec<StateId>) {
    for patterns in &state.patterns {
        let mut matched = false;
        for (pattern, state) in &patterns.each {
            let answer = pattern.matches(name, run);
            if answer != Match::No {
                states.push(*state);
            }
            matched |= answer == Match::Yes;
        }
        if !matched {
            states.push(patterns.otherwise);
        }
    }
}
