//! From schemas to merged nodes: a subset construction, as from a nondeterministic automaton to a
//! deterministic one, so that a walk over a configuration is in one node at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::automaton::Run;
use super::graph::{Graph, Patterns, SECRET, State, StateId, UNKNOWN};
use super::pattern::Match;
use super::schema::{NodeId, Nodes};
use super::types::Types;
use crate::connector::error::{ConnectorError, Problem, ProblemKind};
use crate::connector::limits::{MAX_MERGED_NODES, MAX_PATTERN_STEPS};
use crate::connector::place::Place;

/// How many schemas and names are looked at in all, and so what merged nodes remember of them; what a
/// specification of 10,000 schemas needs, twenty times over.
const MAX_STEPS: usize = 1_000_000;

/// Merges the schemas of every place.
///
/// # Errors
/// `LimitExceeded` for a specification that needs more than [`MAX_MERGED_NODES`].
pub(super) fn merge(nodes: &Nodes<'_>) -> Result<Graph, ConnectorError> {
    let mut merger = Merger {
        nodes,
        admitted: nodes.admitted(),
        states: vec![State::leaf(Types::ALL), State::leaf(Types::ALL)],
        by_kernel: HashMap::new(),
        by_schemas: HashMap::new(),
        names: HashMap::new(),
        pending: Vec::new(),
        seen: vec![0; nodes.nodes.len()],
        round: 0,
        steps: 0,
        run: Run::with_steps(MAX_PATTERN_STEPS),
    };
    let root = merger.state(vec![nodes.root])?;
    while let Some((id, schemas)) = merger.pending.pop() {
        let state = merger.expand(id, &schemas)?;
        merger.states[id as usize] = state;
    }
    let mut states = merger.states;
    mark_below(&mut states);
    Ok(Graph { states, root })
}

struct Merger<'n, 's> {
    nodes: &'n Nodes<'s>,
    /// Every name once, however many merged nodes list it.
    names: HashMap<&'s str, Arc<str>>,
    admitted: Vec<Types>,
    states: Vec<State>,
    by_kernel: HashMap<Vec<NodeId>, StateId>,
    by_schemas: HashMap<(Vec<NodeId>, Types), StateId>,
    pending: Vec<(StateId, Vec<NodeId>)>,
    /// In which round a node was seen last.
    seen: Vec<usize>,
    round: usize,
    steps: usize,
    run: Run,
}

impl<'s> Merger<'_, 's> {
    /// The state of a place for which these schemas are given.
    fn state(&mut self, mut kernel: Vec<NodeId>) -> Result<StateId, ConnectorError> {
        kernel.sort_unstable();
        kernel.dedup();
        if kernel.is_empty() {
            return Ok(UNKNOWN);
        }
        if let Some(&known) = self.by_kernel.get(&kernel) {
            return Ok(known);
        }
        let admits = kernel
            .iter()
            .fold(Types::NONE, |admits, &node| admits | self.admitted[node]);
        let schemas = self.closure(&kernel)?;
        let id = if schemas.iter().any(|&node| self.nodes.nodes[node].secret) {
            SECRET
        } else if let Some(&known) = self.by_schemas.get(&(schemas.clone(), admits)) {
            known
        } else {
            let id = StateId::try_from(self.states.len()).unwrap_or(StateId::MAX);
            if self.states.len() >= MAX_MERGED_NODES {
                return Err(too_large());
            }
            self.states.push(State::leaf(admits));
            self.by_schemas.insert((schemas.clone(), admits), id);
            self.pending.push((id, schemas));
            id
        };
        self.by_kernel.insert(kernel, id);
        Ok(id)
    }

    /// All schemas of the place, sorted.
    fn closure(&mut self, kernel: &[NodeId]) -> Result<Vec<NodeId>, ConnectorError> {
        self.round += 1;
        let mut schemas = Vec::new();
        let mut open = kernel.to_vec();
        while let Some(node) = open.pop() {
            if self.seen[node] != self.round {
                self.seen[node] = self.round;
                schemas.push(node);
                open.extend(&self.nodes.nodes[node].same);
                self.step(self.nodes.nodes[node].same.len() + 1)?;
            }
        }
        schemas.sort_unstable();
        Ok(schemas)
    }

    fn expand(&mut self, id: StateId, schemas: &[NodeId]) -> Result<State, ConnectorError> {
        let nodes = self.nodes;
        let schemas = || schemas.iter().map(|&id| &nodes.nodes[id]);

        let mut names: BTreeMap<&'s str, Vec<NodeId>> = BTreeMap::new();
        let mut others = Vec::new();
        let mut patterns = Vec::new();
        for schema in schemas() {
            self.step(1 + schema.members.len() + schema.patterns.len())?;
            for (name, member) in &schema.members {
                names.entry(name).or_default().push(*member);
            }
            if schema.patterns.is_empty() {
                others.extend(&schema.others);
            } else {
                let each: Result<Vec<_>, ConnectorError> = schema
                    .patterns
                    .iter()
                    .map(|(pattern, node)| Ok((pattern.clone(), self.state(vec![*node])?)))
                    .collect();
                patterns.push(Patterns {
                    each: each?.into(),
                    otherwise: self.state(schema.others.clone())?,
                });
            }
        }
        for schema in schemas() {
            if schema.others.is_empty() && schema.patterns.is_empty() {
                continue;
            }
            self.step(names.len() * (1 + schema.patterns.len()))?;
            for (name, members) in &mut names {
                let mut covered = schema
                    .properties
                    .is_some_and(|properties| properties.contains_key(*name));
                for (pattern, member) in &schema.patterns {
                    let answer = pattern.matches(name, &mut self.run);
                    if answer != Match::No {
                        members.push(*member);
                    }
                    covered |= answer == Match::Yes;
                }
                if !covered {
                    members.extend(&schema.others);
                }
            }
        }
        let names: Result<Box<[_]>, ConnectorError> = names
            .into_iter()
            .map(|(name, members)| {
                let shared = self.names.entry(name).or_insert_with(|| Arc::from(name));
                Ok((Arc::clone(shared), self.state(members)?))
            })
            .collect();

        let lengths = schemas().flat_map(|schema| {
            let lists = schema.lists.iter().map(Vec::len);
            lists.chain(schema.tails.iter().map(|(from, _)| *from))
        });
        let listed = lengths.max().unwrap_or(0);
        let mut elements = Vec::new();
        for index in 0..=listed {
            let mut element = Vec::new();
            for schema in schemas() {
                self.step(1 + schema.lists.len() + schema.tails.len())?;
                element.extend(schema.lists.iter().filter_map(|list| list.get(index)));
                let tails = schema.tails.iter().filter(|(from, _)| *from <= index);
                element.extend(tails.map(|(_, node)| *node));
            }
            elements.push(self.state(element)?);
        }
        let rest = elements.pop().unwrap_or(UNKNOWN);

        Ok(State {
            below: false,
            admits: self.states[id as usize].admits,
            names: names?,
            others: self.state(others)?,
            patterns: patterns.into(),
            listed: elements.into(),
            rest,
        })
    }

    fn step(&mut self, count: usize) -> Result<(), ConnectorError> {
        self.steps += count;
        if self.steps > MAX_STEPS {
            return Err(too_large());
        }
        Ok(())
    }
}

fn too_large() -> ConnectorError {
    Problem::new(
        Place::root(),
        ProblemKind::LimitExceeded,
        "the specification has more than 10,000 merged schema nodes, or takes more than 1,000,000 \
         steps to merge them; simplify its combinations of schemas",
    )
    .into()
}

/// Marks every state from which a secret can be reached.
fn mark_below(states: &mut [State]) {
    let mut leading: Vec<Vec<StateId>> = vec![Vec::new(); states.len()];
    for (id, state) in states.iter().enumerate() {
        let id = StateId::try_from(id).unwrap_or(UNKNOWN);
        for other in state.edges() {
            leading[other as usize].push(id);
        }
    }
    let mut pending = vec![SECRET];
    while let Some(id) = pending.pop() {
        for &other in &leading[id as usize] {
            let state = &mut states[other as usize];
            if !state.below {
                state.below = true;
                pending.push(other);
            }
        }
    }
}
