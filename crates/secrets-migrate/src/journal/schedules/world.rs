//! A state: the tables, what each process remembers, the store; and what must be true in it.
use std::collections::BTreeSet;

use super::tables::{Page, Tables};

/// The position after all configurations, as the journal writes it.
const END: &str = "[0,null]";

/// How much of what goes wrong a schedule contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Budget {
    pub(super) expiries: u8,
    pub(super) halts: u8,
    pub(super) kills: u8,
    pub(super) repeats: u8,
    /// How often the operator rolls back when a copy has ended.
    pub(super) rollbacks: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Command {
    Copy,
    Rollback,
    /// It changes rows, of which each is a page.
    Split,
}

impl Command {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Rollback => "rollback",
            Self::Split => "split",
        }
    }

    pub(super) fn of(text: &str) -> Self {
        let mut all = [Self::Copy, Self::Rollback, Self::Split].into_iter();
        all.find(|command| command.as_str() == text).unwrap()
    }
}

/// The page that a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Held {
    pub(super) command: Command,
    pub(super) pass: u64,
    pub(super) page: u64,
    pub(super) epoch: u64,
    /// Whether the journal said so a moment ago: then it is not asked again before a request.
    pub(super) is_known: bool,
}

/// What a process remembers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum At {
    /// It has not joined a pass.
    Outside(Command),
    /// Another pass has begun.
    Superseded(Command),
    /// It asks for work in this pass.
    Idle(Command, u64),
    /// It has seen that this pass counts, a moment ago if so, and is about to take a page of it.
    Looked(Command, u64, bool),
    /// It has the first page.
    First(Held),
    /// It has written what it found, with the number of the scan.
    Found(Held, u64),
    /// It has a page, with the last name before it and its last name.
    Page(Held, Option<String>, String),
    /// It has a page of configurations of this scan, which begins at this row; and whether another process has
    /// read it before.
    Rows(Held, u64, usize, bool),
    /// It has the page after all of them.
    Last(Held),
    /// It has read the page: what it is about to write, and what has landed before.
    Read(Held, Vec<String>, Vec<String>),
    /// It may write, or delete.
    Intended(Held, Vec<String>, Vec<String>),
    /// Its requests are under way.
    Sent(Held, Vec<String>, Vec<String>),
    /// It has ended.
    Over,
}

impl At {
    pub(super) fn held(&self) -> Option<&Held> {
        match self {
            Self::Outside(_)
            | Self::Superseded(_)
            | Self::Idle(..)
            | Self::Looked(..)
            | Self::Over => None,
            Self::First(held)
            | Self::Last(held)
            | Self::Found(held, _)
            | Self::Page(held, ..)
            | Self::Rows(held, ..)
            | Self::Read(held, ..)
            | Self::Intended(held, ..)
            | Self::Sent(held, ..) => Some(held),
        }
    }

    fn held_mut(&mut self) -> Option<&mut Held> {
        match self {
            Self::Outside(_)
            | Self::Superseded(_)
            | Self::Idle(..)
            | Self::Looked(..)
            | Self::Over => None,
            Self::First(held)
            | Self::Last(held)
            | Self::Found(held, _)
            | Self::Page(held, ..)
            | Self::Rows(held, ..)
            | Self::Read(held, ..)
            | Self::Intended(held, ..)
            | Self::Sent(held, ..) => Some(held),
        }
    }

    /// Whether the journal said a moment ago that its pass counts.
    fn known_mut(&mut self) -> Option<&mut bool> {
        match self {
            Self::Looked(_, _, is_known) => Some(is_known),
            other => other.held_mut().map(|held| &mut held.is_known),
        }
    }

    /// The same with another answer of the journal in mind.
    pub(super) fn knowing(mut self, is_known: bool) -> Self {
        if let Some(known) = self.known_mut() {
            *known = is_known;
        }
        self
    }

    /// The pass that it takes part in.
    fn pass(&self) -> Option<u64> {
        match self {
            Self::Idle(_, pass) | Self::Looked(_, pass, _) => Some(*pass),
            other => other.held().map(|held| held.pass),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct World {
    pub(super) tables: Tables,
    pub(super) processes: Vec<At>,
    /// Requests that have left their process.
    pub(super) flying: BTreeSet<(Command, String)>,
    /// What the target holds; for a split, the rows that are saved.
    pub(super) store: BTreeSet<String>,
    pub(super) left: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A process takes its next step; the second time, its call is delivered twice.
    Process(usize, bool),
    /// A process sends its requests without asking, because it knows that the page still is its own.
    Trust(usize),
    /// The lease of this page ends.
    Expire(usize),
    /// Nobody has shown itself for so long that the pass is left.
    Leave,
    /// So much time has passed since a halted pass was replaced that no lease of it lasts.
    Forget,
    /// A process stops its pass for all.
    Halt(usize),
    Kill(usize),
    /// The operator rolls back, in place of a process that has ended.
    Rollback(usize),
    /// A request reaches the store.
    Land(usize),
}

impl World {
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let pass = &self.tables.pass;
        for (at, process) in self.processes.iter().enumerate() {
            let waits = match process {
                At::Over => true,
                // A lease outlasts a request, so what is under way has landed by then.
                At::Outside(Command::Rollback) => !self.flying.is_empty(),
                At::Outside(Command::Copy) => pass.command == Command::Rollback,
                At::Sent(held, names, _) => names
                    .iter()
                    .any(|name| self.flying.contains(&(held.command, name.clone()))),
                _ => false,
            };
            if !waits {
                steps.push(Step::Process(at, false));
                let writes = !matches!(
                    process,
                    At::Outside(_)
                        | At::Superseded(_)
                        | At::Idle(..)
                        | At::Looked(..)
                        | At::Page(..)
                        | At::Rows(..)
                );
                if self.left.repeats > 0 && writes {
                    steps.push(Step::Process(at, true));
                }
            }
            if matches!(process, At::Intended(held, ..) if held.is_known) {
                steps.push(Step::Trust(at));
            }
            let is_at_work = !pass.is_ended && !pass.is_halted;
            if self.left.halts > 0 && is_at_work && process.pass() == Some(pass.number) {
                steps.push(Step::Halt(at));
            }
            if self.left.kills > 0 && !matches!(process, At::Outside(_) | At::Over) {
                steps.push(Step::Kill(at));
            }
            if self.left.rollbacks > 0 && *process == At::Over {
                steps.push(Step::Rollback(at));
            }
        }
        if self.left.expiries > 0 {
            let pages = self.tables.pages.iter().enumerate();
            let held = pages.filter(|(_, page)| page.lasts == Some(true) && !page.done);
            steps.extend(held.map(|(at, _)| Step::Expire(at)));
            let all_lapsed = self
                .tables
                .pages
                .iter()
                .all(|page| page.lasts != Some(true) || page.done);
            if pass.lasts && !pass.is_ended && all_lapsed {
                steps.push(Step::Leave);
            }
        }
        if pass.has_stragglers {
            steps.push(Step::Forget);
        }
        steps.extend((0..self.flying.len()).map(Step::Land));
        steps
    }

    /// The world after a step that calls no journal.
    pub(super) fn passively(&mut self, step: Step) {
        match step {
            Step::Kill(process) => {
                self.left.kills -= 1;
                let splits = self.tables.pass.command == Command::Split;
                self.processes[process] = At::Outside(match splits {
                    true => Command::Split,
                    false => Command::Copy,
                });
            }
            Step::Rollback(process) => {
                self.left.rollbacks -= 1;
                self.processes[process] = At::Outside(Command::Rollback);
            }
            Step::Expire(at) => {
                self.left.expiries -= 1;
                let page = &mut self.tables.pages[at];
                page.lasts = Some(false);
                let (number, epoch, pass) = (page.number, page.epoch, self.tables.pass.number);
                self.doubt(|_, held| {
                    held.is_some_and(|held| {
                        (held.pass, held.page, held.epoch) == (pass, number, epoch)
                    })
                });
            }
            Step::Leave => {
                self.left.expiries -= 1;
                self.tables.pass.lasts = false;
                self.tables.pass.has_stragglers = false;
                self.doubt(|_, _| true);
            }
            Step::Forget => {
                self.tables.pass.has_stragglers = false;
                let pass = self.tables.pass.number;
                self.doubt(|of, _| of < pass);
            }
            Step::Trust(process) => {
                if let At::Intended(held, names, rest) = self.processes[process].clone() {
                    self.send(held.command, &names);
                    self.processes[process] = At::Sent(held, names, rest);
                }
            }
            Step::Land(at) => {
                let request = self.flying.iter().nth(at).unwrap().clone();
                self.flying.remove(&request);
                match request {
                    (Command::Copy | Command::Split, name) => self.store.insert(name),
                    (Command::Rollback, name) => self.store.remove(&name),
                };
            }
            Step::Halt(_) | Step::Process(..) => panic!("{step:?} calls the journal"),
        }
    }

    pub(super) fn send(&mut self, command: Command, names: &[String]) {
        let requests = names.iter().map(|name| (command, name.clone()));
        self.flying.extend(requests);
    }

    /// So much time has passed for these that they ask before their next request.
    fn doubt(&mut self, which: impl Fn(u64, Option<Held>) -> bool) {
        for process in &mut self.processes {
            let held = process.held().copied();
            let is_doubted = process.pass().is_some_and(|pass| which(pass, held));
            if let Some(is_known) = process.known_mut() {
                *is_known &= !is_doubted;
            }
        }
    }

    /// What must be true in every state.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.tables.pass.command == Command::Split {
            self.check_split()?;
        }
        for name in self.store.difference(&self.tables.notes) {
            if !self.tables.secrets.get(name).is_some_and(|secret| secret.1) {
                return Err(format!(
                    "the store has {name} and the journal has no intent"
                ));
            }
        }
        for (name, (state, ..)) in &self.tables.secrets {
            let is_deleted = self.tables.pass.command == Command::Rollback;
            if state == "written" && !self.store.contains(name) && !is_deleted {
                return Err(format!(
                    "{name} counts as written and the store does not have it"
                ));
            }
            if state == "present" {
                return Err(format!("{name} is ours and counts as somebody else's"));
            }
        }
        let mut claims = BTreeSet::new();
        for held in self.processes.iter().filter_map(At::held) {
            if !claims.insert((held.pass, held.page, held.epoch)) {
                return Err(format!("two processes have {held:?}"));
            }
        }
        Ok(())
    }

    /// The pages are a chain: each begins where the one before it ends, and each row is in one. Whatever may
    /// be saved is noted.
    fn check_split(&self) -> Result<(), String> {
        let rows = self.tables.rows();
        for (before, page) in rows.iter().zip(rows.iter().skip(1)) {
            if before.1 != Some(page.0) {
                return Err(format!("the pages are no chain: {rows:?}"));
            }
        }
        let read = rows.iter().filter(|(_, upto)| upto.is_some()).count();
        let seen = self.tables.seen.iter();
        let seen = seen.filter(|(_, scan)| **scan == self.tables.scan).count();
        // Those of an earlier pass are seen until the next scan.
        if !rows.is_empty() && read != seen {
            return Err(format!("{read} pages are read, and {seen} rows are seen"));
        }
        let has_last = self.tables.pages.iter().any(Page::is_last);
        let is_whole = rows.last().is_some_and(|(_, upto)| *upto == Some(END));
        if has_last != is_whole {
            return Err(format!("the last page is not where the rows end: {rows:?}"));
        }
        let sent = self.flying.iter().map(|(_, name)| name);
        match sent
            .chain(&self.store)
            .find(|name| !self.tables.notes.contains(*name))
        {
            Some(name) => Err(format!("{name} may be saved and is not noted")),
            None => Ok(()),
        }
    }

    /// What must be true when a process is told that its command has ended.
    pub(super) fn check_end(&self, command: Command) {
        let secrets = &self.tables.secrets;
        match command {
            Command::Copy => {
                let written = |(name, secret): (&String, &(String, bool, u64))| {
                    secret.0 == "written" && self.store.contains(name)
                };
                assert!(
                    !secrets.is_empty() && secrets.iter().all(written),
                    "the copy ended, and secrets are left: {self:?}"
                );
            }
            Command::Split => {
                let (rows, pages) = (self.tables.rows(), &self.tables.pages);
                assert!(
                    rows.last().is_some_and(|(_, upto)| *upto == Some(END))
                        && rows.len() == self.store.len()
                        && pages.iter().all(|page| page.done),
                    "the split ended, and rows are left: {self:?}"
                );
            }
            Command::Rollback => assert!(
                self.store.is_empty() && secrets.values().all(|secret| !secret.1),
                "the rollback ended, and secrets are left: {self:?}"
            ),
        }
    }

    /// Whether no process does anything more. After a rollback, no copy begins.
    pub(super) fn is_over(&self) -> bool {
        self.processes.iter().all(|process| match process {
            At::Over => true,
            At::Outside(Command::Copy) => self.tables.pass.command == Command::Rollback,
            _ => false,
        })
    }

    /// Whether a claim is still the last one of a page that has not ended, in the pass that counts.
    pub(super) fn is_current(&self, held: &Held) -> bool {
        let mut pages = self.tables.pages.iter();
        self.tables.pass.number == held.pass
            && pages.any(|row| row.number == held.page && row.epoch == held.epoch && !row.done)
    }
}
