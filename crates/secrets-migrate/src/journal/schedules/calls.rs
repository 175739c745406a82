//! The steps of a process: calls of the real journal.
use std::collections::BTreeSet;
use std::time::Duration;

use secret_persistence_core::ManagedCoordinate;

use super::super::passes::Turn;
use super::Explorer;
use super::tables::Tables;
use super::world::{At, Command, Held, Step, World};
use crate::{
    Claim, ConfigCursor, ConfigurationsPage, Halt, Journal, Layout, Member, Mention,
    MigrateErrorKind, MigrateResult, Next, Position, Select, SharedWork, State, Stop, Transition,
};

/// A lease that no step outlasts: it ends when the schedule says so.
const LEASE: Duration = Duration::from_secs(3600);

/// What a call depends on: the tables, what its process remembers, what that finds in the store, and
/// whether it halts the pass.
pub(super) type Call = (Tables, At, BTreeSet<String>, bool);

/// How a call ends, what its process remembers then, and the tables after it.
pub(super) type Called = (Result<(), MigrateErrorKind>, At, Tables);

impl Explorer {
    /// The world after a step.
    pub(super) async fn step(&mut self, before: &World, step: Step) -> World {
        let mut world = before.clone();
        match step {
            Step::Halt(process) => {
                world.left.halts -= 1;
                let at = world.processes[process].clone();
                world.tables = self.call(&world, &at, true).await.2;
            }
            Step::Process(process, twice) => self.go_on(&mut world, process, twice).await,
            _ => world.passively(step),
        }
        // Processes differ in nothing but what they remember.
        world.processes.sort();
        world
    }

    async fn go_on(&mut self, world: &mut World, process: usize, twice: bool) {
        let before = world.clone();
        let at = world.processes[process].clone();
        let held = at.held().copied();
        let was_current = held.is_some_and(|held| world.is_current(&held));
        let (mut result, mut next, mut tables) = self.call(world, &at, false).await;
        if twice {
            world.left.repeats -= 1;
            // The first answer is lost.
            world.tables = tables;
            (result, next, tables) = self.call(world, &at, false).await;
        }
        world.tables = tables;
        let is_known = match at {
            At::Idle(..) | At::Intended(..) => true,
            At::Looked(_, _, is_known) => is_known,
            _ => held.is_some_and(|held| held.is_known),
        };
        world.processes[process] = match (result, &at) {
            (Ok(()), _) => {
                assert!(
                    held.is_none()
                        || was_current
                        || matches!(at, At::Page(..) | At::Rows(_, _, _, true)),
                    "a write under a claim that is another's: {before:?}, {at:?}"
                );
                if let (At::Intended(held, names, _), At::Sent(..)) = (&at, &next) {
                    world.send(held.command, names);
                }
                if let (At::Looked(command, ..), At::Over) = (&at, &next) {
                    world.check_end(*command);
                }
                next.knowing(is_known)
            }
            // It is refused, and the operator tries again.
            (Err(MigrateErrorKind::AnotherRun), At::Outside(_)) => at,
            (Err(MigrateErrorKind::AnotherRun), At::Superseded(_)) => At::Over,
            (Err(error), _) => {
                assert_eq!(error, MigrateErrorKind::Lapsed, "{before:?}, {at:?}");
                if !twice {
                    assert!(
                        !was_current,
                        "a claim that is held lapses: {before:?}, {at:?}"
                    );
                    // But that it is alive, in a pass that is still its own.
                    let mut written = world.tables.clone();
                    written.pass.lasts = before.tables.pass.lasts;
                    assert_eq!(
                        written, before.tables,
                        "whoever lapsed writes nothing: {at:?}"
                    );
                }
                held.map_or(At::Over, |held| At::Idle(held.command, held.pass))
            }
        };
    }

    /// The next call of a process on the real journal, made once for everything that it depends on.
    async fn call(&mut self, world: &World, at: &At, halts: bool) -> Called {
        let store = match at {
            At::Page(..) | At::Rows(..) => world.store.clone(),
            _ => BTreeSet::new(),
        };
        let call = (world.tables.clone(), at.clone().knowing(true), store, halts);
        if let Some(called) = self.calls.get(&call) {
            return called.clone();
        }
        self.bring_about(&world.tables).await;
        let next = if halts {
            self.halt(world.tables.pass.number)
                .await
                .map(|()| at.clone())
        } else {
            self.ask(&call.2, at).await
        };
        let tables = self.look().await;
        let called = match next {
            Ok(next) => (Ok(()), next, tables),
            Err(error) => (Err(error.kind()), At::Over, tables),
        };
        self.calls.insert(call, called.clone());
        called
    }

    async fn halt(&self, pass: u64) -> MigrateResult<()> {
        let halt = Halt::new(Stop::Failures, Vec::new());
        self.journals[0].sharing().unwrap().halt(pass, &halt).await
    }

    async fn ask(&self, store: &BTreeSet<String>, at: &At) -> MigrateResult<At> {
        let journal = &self.journals[0];
        let sharing = journal.sharing().unwrap();
        let worker = "worker";
        let work = |command: Command| SharedWork::new(command.as_str(), "settings");
        let claim = at
            .held()
            .map(|held| Claim::new(held.pass, held.page, held.epoch, LEASE));
        Ok(match (at.clone(), claim) {
            (At::Outside(command), _) => {
                let member = sharing.join(&work(command), worker, LEASE).await?;
                At::Idle(command, member.pass)
            }
            (At::Superseded(command), _) => {
                let member = sharing.rejoin(&work(command), worker, LEASE).await?;
                At::Idle(command, member.pass)
            }
            (At::Idle(command, pass), _) => {
                let member = Member::new(pass, worker, LEASE);
                match journal.passes().look(&member).await? {
                    None => At::Looked(command, pass, true),
                    Some(Turn::Superseded) => At::Superseded(command),
                    // The operator starts the command again.
                    Some(Turn::Halted(_)) => At::Outside(command),
                    Some(turn) => panic!("{turn:?} before it is asked for a page"),
                }
            }
            (At::Looked(command, pass, _), _) => {
                let member = Member::new(pass, worker, LEASE);
                let held = |claim: Claim| Held {
                    command,
                    pass,
                    page: claim.page,
                    epoch: claim.epoch,
                    is_known: true,
                };
                match journal.next(journal.passes().take(&member).await?)? {
                    Next::Ended => At::Over,
                    Next::Superseded => At::Superseded(command),
                    Next::Wait => At::Idle(command, pass),
                    // The operator starts the command again.
                    Next::Halted(_) => At::Outside(command),
                    Next::First(claim) => At::First(held(claim)),
                    Next::Secrets(page) => At::Page(
                        held(page.claim),
                        page.after.map(|name| name.to_string()),
                        page.upto.to_string(),
                    ),
                    Next::Configurations(page) => At::Rows(
                        held(page.claim),
                        page.scan,
                        place(&page.after),
                        page.upto.is_some(),
                    ),
                    Next::Last(claim) => At::Last(held(claim)),
                }
            }
            (At::First(held), Some(claim)) if held.command == Command::Copy => {
                let scan = sharing.begin_scan_under(claim).await?;
                let names = self.names.iter();
                let mentions: Vec<Mention> =
                    names.map(|name| Mention::new(name.clone(), None)).collect();
                sharing.mention_under(claim, scan, &mentions).await?;
                At::Found(held, scan)
            }
            (At::First(held), Some(claim)) if held.command == Command::Split => {
                At::Found(held, sharing.begin_scan_under(claim).await?)
            }
            (At::First(held), Some(claim)) => self.lay_out(held, claim, 0).await?,
            (At::Found(held, scan), Some(claim)) if held.command == Command::Split => {
                sharing.lay_out_configurations(claim, scan).await?;
                At::Idle(held.command, held.pass)
            }
            (At::Found(held, scan), Some(claim)) => self.lay_out(held, claim, scan).await?,
            (At::Page(held, after, upto), Some(_)) => {
                let upto = ManagedCoordinate::parse(&upto).unwrap();
                let after = after.map(|name| ManagedCoordinate::parse(&name).unwrap());
                let select = select(held.command).with_upto(upto);
                let entries = journal.page(&select, after.as_ref(), 9).await?;
                let copies = held.command == Command::Copy;
                let (mut requests, mut rest) = (Vec::new(), Vec::new());
                for entry in entries {
                    let name = entry.coordinate.to_string();
                    let is_there = store.contains(&name);
                    if is_there == copies {
                        assert!(entry.intent, "what only we write is in the journal");
                        rest.push(name);
                    } else {
                        requests.push(name);
                    }
                }
                match held.command {
                    Command::Copy => At::Read(held, requests, rest),
                    // Nothing is noted before a delete.
                    Command::Rollback => At::Intended(held, requests, rest),
                    Command::Split => panic!("a split has no pages of secrets"),
                }
            }
            (At::Rows(held, scan, row, is_read), Some(claim)) => {
                let key = self.names[row].to_string();
                if !is_read {
                    let cursor = (row + 1 < self.names.len()).then(|| (row + 1).to_string());
                    let upto = Position::new(0, cursor.map(ConfigCursor::new));
                    let next = upto.cursor.is_some().then_some(&upto);
                    let page = ConfigurationsPage::new(claim, scan, position(row), None);
                    let keys = std::slice::from_ref(&key);
                    let twice = sharing.extend(&page, &upto, next, keys).await?;
                    assert!(twice.is_empty(), "a page that nobody has read has new rows");
                }
                // What is saved needs no change.
                if store.contains(&key) {
                    At::Sent(held, Vec::new(), Vec::new())
                } else {
                    At::Read(held, vec![key], Vec::new())
                }
            }
            (At::Last(held), Some(claim)) => {
                sharing.finish(claim, &[], None).await?;
                At::Idle(held.command, held.pass)
            }
            (At::Read(held, rows, rest), Some(claim)) if held.command == Command::Split => {
                for row in &rows {
                    sharing.put_note_under(claim, row, "").await?;
                }
                At::Intended(held, rows, rest)
            }
            (At::Read(held, writes, landed), Some(claim)) => {
                let intents = transitions(&writes, State::Intent, true);
                sharing.advance_under(claim, &intents).await?;
                At::Intended(held, writes, landed)
            }
            (At::Intended(held, requests, rest), Some(claim)) => {
                sharing.renew(claim).await?;
                At::Sent(held, requests, rest)
            }
            (At::Sent(held, requests, rest), Some(claim)) => {
                let names = [requests, rest].concat();
                let done = match held.command {
                    Command::Copy => transitions(&names, State::Written, true),
                    Command::Rollback => transitions(&names, State::Pending, false),
                    Command::Split => Vec::new(),
                };
                sharing.finish(claim, &done, None).await?;
                At::Idle(held.command, held.pass)
            }
            (at, _) => panic!("{at:?} takes no step"),
        })
    }

    async fn lay_out(&self, held: Held, claim: Claim, scan: u64) -> MigrateResult<At> {
        let layout = Layout::new(scan, select(held.command), 1);
        let sharing = self.journals[0].sharing().unwrap();
        sharing.lay_out(claim, &layout).await?;
        Ok(At::Idle(held.command, held.pass))
    }
}

/// The secrets of a command.
fn select(command: Command) -> Select {
    match command {
        Command::Copy => Select::all().with_states(&[State::Pending, State::Intent]),
        Command::Rollback => Select::all().with_intent(true),
        Command::Split => panic!("a split has no pages of secrets"),
    }
}

/// The position before a row, which the cursor numbers.
fn position(row: usize) -> Position {
    let cursor = (row > 0).then(|| ConfigCursor::new(row.to_string()));
    Position::new(0, cursor)
}

fn place(position: &Position) -> usize {
    let cursor = position.cursor.as_ref();
    cursor.map_or(0, |cursor| cursor.as_str().parse().unwrap())
}

fn transitions(names: &[String], state: State, intent: bool) -> Vec<Transition> {
    let parse = |name: &String| ManagedCoordinate::parse(name).unwrap();
    let names = names.iter().map(parse);
    names
        .map(|name| Transition::new(name, state, intent))
        .collect()
}
