//! Matches names against expressions, step by counted step.
//!
//! A general engine bounds its memory and its time per byte, each per expression. A specification may
//! have thousands of them, so here both are counted for all of them together.

use super::expression::{Assertion, Expression, Set, SetId};

/// An expression as a nondeterministic automaton: it takes memory only for what it is, and matching
/// takes at most as many steps as the name has characters times the automaton instructions.
#[derive(Debug)]
pub(super) struct Automaton {
    instructions: Box<[Instruction]>,
    sets: Box<[Set]>,
    /// Whether a match can only begin where the name does.
    anchored: bool,
    /// Whether it can match a part of a character beyond U+FFFF, which is two without the `u` flag.
    matches_halves: bool,
}

#[derive(Debug)]
enum Instruction {
    Assert(Assertion),
    Fork(Address, Address),
    Jump(Address),
    Match,
    Read(SetId),
}

type Address = u32;

/// The room for automata and the room in which they run.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// How many more steps may be taken.
    pub(super) steps: usize,
    current: Vec<Address>,
    next: Vec<Address>,
    open: Vec<Address>,
    /// At which position of which run an instruction was seen last.
    seen: Vec<usize>,
    position: usize,
}

impl Run {
    pub(super) fn with_steps(steps: usize) -> Self {
        Self {
            steps,
            ..Self::default()
        }
    }

    /// Takes steps for work beside the automata.
    pub(super) fn take(&mut self, steps: usize) {
        self.steps = self.steps.saturating_sub(steps);
    }
}

impl Automaton {
    /// Builds it, if it needs no more than `room`, of which it then takes what it needs.
    pub(super) fn build(expression: &Expression, sets: Vec<Set>, room: &mut usize) -> Option<Self> {
        let ranges: usize = sets.iter().map(Vec::len).sum();
        let size = size(expression).saturating_add(1);
        *room = room.checked_sub(size.saturating_add(ranges))?;
        let mut builder = Builder(Vec::with_capacity(size));
        builder.part(expression);
        builder.push(Instruction::Match);
        Some(Self {
            anchored: begins_at_start(expression),
            instructions: builder.0.into(),
            matches_halves: sets.iter().flatten().any(|(_, last)| *last >= 0xD800),
            sets: sets.into(),
        })
    }

    /// Whether a part of the name matches; `None` where that depends on the `u` flag, or takes more
    /// steps than there are.
    pub(super) fn matches(&self, name: &str, run: &mut Run) -> Option<bool> {
        let answer = self.finds(name.chars().map(u32::from), run)?;
        if self.matches_halves && name.chars().any(|char| char > '\u{ffff}') {
            let without_flag = self.finds(name.encode_utf16().map(u32::from), run)?;
            return (answer == without_flag).then_some(answer);
        }
        Some(answer)
    }

    /// How many instructions there are.
    pub(super) fn size(&self) -> usize {
        self.instructions.len()
    }

    fn finds(&self, name: impl Iterator<Item = u32>, run: &mut Run) -> Option<bool> {
        if run.seen.len() < self.instructions.len() {
            run.seen.resize(self.instructions.len(), 0);
        }
        run.current.clear();
        let mut name = name.peekable();
        let (mut before, mut is_start) = (None, true);
        loop {
            let after = name.peek().copied();
            let at = Context { before, after };
            run.position += 1;
            run.next.clear();
            // What has read the character before, then what begins here.
            for index in 0..run.current.len() {
                let address = run.current[index];
                if self.enter(address, at, run)? {
                    return Some(true);
                }
            }
            if (is_start || !self.anchored) && self.enter(0, at, run)? {
                return Some(true);
            }
            let Some(char) = name.next() else {
                return Some(false);
            };
            run.current.clear();
            for &address in &run.next {
                run.steps = run.steps.checked_sub(1)?;
                if let Instruction::Read(set) = self.instructions[address as usize]
                    && contains(&self.sets[set as usize], char)
                {
                    run.current.push(address + 1);
                }
            }
            if self.anchored && run.current.is_empty() {
                return Some(false);
            }
            (before, is_start) = (Some(char), false);
        }
    }

    /// Goes on from an instruction to all that read the next character; whether one of them is the end.
    fn enter(&self, address: Address, at: Context, run: &mut Run) -> Option<bool> {
        run.open.clear();
        run.open.push(address);
        while let Some(address) = run.open.pop() {
            run.steps = run.steps.checked_sub(1)?;
            let seen = &mut run.seen[address as usize];
            if *seen == run.position {
                continue;
            }
            *seen = run.position;
            match self.instructions[address as usize] {
                Instruction::Assert(assertion) => {
                    if at.holds(assertion) {
                        run.open.push(address + 1);
                    }
                }
                Instruction::Fork(first, second) => run.open.extend([second, first]),
                Instruction::Jump(to) => run.open.push(to),
                Instruction::Match => return Some(true),
                Instruction::Read(_) => run.next.push(address),
            }
        }
        Some(false)
    }
}

/// The characters on both sides of a position.
#[derive(Clone, Copy)]
struct Context {
    before: Option<u32>,
    after: Option<u32>,
}

impl Context {
    fn holds(self, assertion: Assertion) -> bool {
        let is_word = |char: Option<u32>| {
            char.and_then(|char| u8::try_from(char).ok())
                .is_some_and(|char| char.is_ascii_alphanumeric() || char == b'_')
        };
        let is_boundary = is_word(self.before) != is_word(self.after);
        match assertion {
            Assertion::Boundary => is_boundary,
            Assertion::End => self.after.is_none(),
            Assertion::NoBoundary => !is_boundary,
            Assertion::Start => self.before.is_none(),
        }
    }
}

fn contains(set: &Set, char: u32) -> bool {
    let after = set.partition_point(|(first, _)| *first <= char);
    after > 0 && set[after - 1].1 >= char
}

fn begins_at_start(expression: &Expression) -> bool {
    match expression {
        Expression::Assertion(assertion) => matches!(assertion, Assertion::Start),
        Expression::Choice(branches) => branches.iter().all(begins_at_start),
        Expression::Repeated(part, least, _) => *least > 0 && begins_at_start(part),
        Expression::Sequence(parts) => parts.first().is_some_and(begins_at_start),
        Expression::Set(_) => false,
    }
}

/// How many instructions an expression becomes at most.
fn size(expression: &Expression) -> usize {
    let sum = |parts: &[Expression]| parts.iter().map(size).fold(0, usize::saturating_add);
    match expression {
        Expression::Assertion(_) | Expression::Set(_) => 1,
        Expression::Sequence(parts) => sum(parts),
        Expression::Choice(branches) => sum(branches).saturating_add(2 * (branches.len() - 1)),
        Expression::Repeated(part, least, most) => {
            let once = size(part);
            let (least, more) = (*least as usize, most.map(|most| (most - least) as usize));
            once.saturating_mul(least).saturating_add(match more {
                None => once.saturating_add(2),
                Some(more) => once.saturating_add(1).saturating_mul(more),
            })
        }
    }
}

struct Builder(Vec<Instruction>);

impl Builder {
    fn push(&mut self, instruction: Instruction) -> Address {
        self.0.push(instruction);
        self.here() - 1
    }

    /// The room for automata is far below four billion instructions.
    fn here(&self) -> Address {
        Address::try_from(self.0.len()).unwrap_or(Address::MAX)
    }

    fn part(&mut self, expression: &Expression) {
        match expression {
            Expression::Assertion(assertion) => {
                self.push(Instruction::Assert(*assertion));
            }
            Expression::Set(set) => {
                self.push(Instruction::Read(*set));
            }
            Expression::Sequence(parts) => {
                for part in parts {
                    self.part(part);
                }
            }
            Expression::Choice(branches) => self.choice(branches),
            Expression::Repeated(part, least, most) => self.repeated(part, *least, *most),
        }
    }

    fn choice(&mut self, branches: &[Expression]) {
        let mut jumps = Vec::new();
        for (index, branch) in branches.iter().enumerate() {
            if index + 1 == branches.len() {
                self.part(branch);
                break;
            }
            let fork = self.push(Instruction::Fork(0, 0));
            self.part(branch);
            jumps.push(self.push(Instruction::Jump(0)));
            self.0[fork as usize] = Instruction::Fork(fork + 1, self.here());
        }
        let end = self.here();
        for jump in jumps {
            self.0[jump as usize] = Instruction::Jump(end);
        }
    }

    fn repeated(&mut self, part: &Expression, least: u32, most: Option<u32>) {
        for _ in 0..least {
            let before = self.here();
            self.part(part);
            if self.here() == before {
                // Nothing, however often it is repeated.
                break;
            }
        }
        let mut forks = Vec::new();
        match most {
            None => {
                let fork = self.push(Instruction::Fork(0, 0));
                self.part(part);
                self.push(Instruction::Jump(fork));
                forks.push(fork);
            }
            Some(most) => {
                for _ in least..most {
                    forks.push(self.push(Instruction::Fork(0, 0)));
                    self.part(part);
                }
            }
        }
        let end = self.here();
        for fork in forks {
            self.0[fork as usize] = Instruction::Fork(fork + 1, end);
        }
    }
}
