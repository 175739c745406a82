//! Every schedule of processes that share a journal, on the journal itself.
//!
//! There is no model of the journal that could differ from it: a state is the content of the tables, what
//! each process remembers, and what the store holds. Each step of each process is a call of the real
//! journal on a real Postgres that was brought into that state; what the tables contain afterwards is the
//! next state. All states that can be reached are visited once. Beside the steps of the processes there
//! are these: a lease ends, a process is killed and starts anew, a call is delivered a second time because
//! its answer was lost, a request in flight reaches the store. A process that is paused is one that takes
//! no step while the others do.

// Clippy does not see that the module is one of tests.
#![allow(clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use secret_persistence_core::ManagedCoordinate;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};

use super::{Claim, Journal, Layout, Member, Mention, Next, Run, Select, SharedWork, State};
use crate::{MigrateErrorKind, MigrateResult, SqlJournal, Transition};

/// A lease that no step outlasts: it ends when the schedule says so.
const LEASE: Duration = Duration::from_secs(3600);

/// How much of what goes wrong a schedule contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Budget {
    expiries: u8,
    kills: u8,
    repeats: u8,
}

/// What a process remembers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum At {
    /// It has not joined a pass.
    Outside,
    /// It asks for work in this pass.
    Idle(u64),
    /// It has the scan.
    Scan(u64, u64),
    /// It has written what it found, with the number of the scan.
    Found(u64, u64, u64),
    /// It has a page, with the last name before it and its last name.
    Page(u64, u64, u64, Option<String>, String),
    /// It has read the page: what it is about to write, and what has landed before.
    Read(u64, u64, u64, Vec<String>, Vec<String>),
    /// Its intents are in the journal.
    Intended(u64, u64, u64, Vec<String>, Vec<String>),
    /// Its requests are under way.
    Sent(u64, u64, u64, Vec<String>, Vec<String>),
    /// The pass has ended.
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct World {
    tables: Tables,
    processes: Vec<At>,
    /// Requests that have left their process.
    flying: BTreeSet<String>,
    /// What the target holds.
    store: BTreeSet<String>,
    left: Budget,
}

/// The content of the tables, with times as far as they matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Tables {
    pass: (u64, bool, bool),
    pages: Vec<Page>,
    /// State and intent by name.
    secrets: BTreeMap<String, (String, bool, u64)>,
    scan: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Page {
    number: u64,
    scan: Option<u64>,
    after: Option<String>,
    upto: Option<String>,
    epoch: u64,
    /// Whether its lease lasts; `None` without one.
    lasts: Option<bool>,
    done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A process takes its next step; the second time, its call is delivered twice.
    Process(usize, bool),
    /// The lease of this page ends.
    Expire(usize),
    /// Nobody has shown itself for so long that the pass is left.
    Leave,
    Kill(usize),
    /// A request reaches the store.
    Land(usize),
}

/// What a call depends on: the tables, what its process remembers, and what that finds in the store.
type Call = (Tables, At, BTreeSet<String>);

/// How a call ends, what its process remembers then, and the tables after it.
type Called = (Result<(), MigrateErrorKind>, At, Tables);

struct Explorer {
    /// As many sessions as there are processes: a process that is alone begins a new pass.
    journals: Vec<SqlJournal>,
    calls: HashMap<Call, Called>,
    tables: PgPool,
    names: Vec<ManagedCoordinate>,
}

impl World {
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (at, process) in self.processes.iter().enumerate() {
            let waits = match process {
                At::Over => true,
                At::Sent(.., writes, _) => writes.iter().any(|name| self.flying.contains(name)),
                _ => false,
            };
            if !waits {
                steps.push(Step::Process(at, false));
                let writes = !matches!(process, At::Outside | At::Idle(_) | At::Page(..));
                if self.left.repeats > 0 && writes {
                    steps.push(Step::Process(at, true));
                }
            }
            if self.left.kills > 0 && !matches!(process, At::Outside | At::Over) {
                steps.push(Step::Kill(at));
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
            if self.tables.pass.2 && !self.tables.pass.1 && all_lapsed {
                steps.push(Step::Leave);
            }
        }
        steps.extend((0..self.flying.len()).map(Step::Land));
        steps
    }

    /// What must be true in every state.
    fn check(&self) -> Result<(), String> {
        for name in &self.store {
            if !self.tables.secrets.get(name).is_some_and(|secret| secret.1) {
                return Err(format!("{name} was written and the journal has no intent"));
            }
        }
        for (name, (state, ..)) in &self.tables.secrets {
            if state == "written" && !self.store.contains(name) {
                return Err(format!(
                    "{name} counts as written and the store does not have it"
                ));
            }
            if state == "present" {
                return Err(format!("{name} is ours and counts as somebody else's"));
            }
        }
        let mut claims = BTreeSet::new();
        for claim in self.processes.iter().filter_map(At::claim) {
            if !claims.insert(claim) {
                return Err(format!("two processes have claim {claim:?}"));
            }
        }
        if self.processes.contains(&At::Over) {
            let written = |secret: &(String, bool, u64)| secret.0 == "written";
            if !self.tables.secrets.values().all(written) || self.tables.secrets.is_empty() {
                return Err("a process was told of the end, and secrets are left".into());
            }
        }
        Ok(())
    }

    /// Whether a claim is still the last one of a page that has not ended, in the pass that counts.
    fn is_current(&self, (pass, page, epoch): (u64, u64, u64)) -> bool {
        let mut pages = self.tables.pages.iter();
        self.tables.pass.0 == pass
            && pages.any(|row| row.number == page && row.epoch == epoch && !row.done)
    }
}

impl At {
    /// Pass, page and epoch.
    fn claim(&self) -> Option<(u64, u64, u64)> {
        match self {
            Self::Outside | Self::Idle(_) | Self::Over => None,
            Self::Scan(pass, epoch) | Self::Found(pass, epoch, _) => Some((*pass, 0, *epoch)),
            Self::Page(pass, page, epoch, ..)
            | Self::Read(pass, page, epoch, ..)
            | Self::Intended(pass, page, epoch, ..)
            | Self::Sent(pass, page, epoch, ..) => Some((*pass, *page, *epoch)),
        }
    }
}

fn coordinates(names: &[String]) -> Vec<ManagedCoordinate> {
    let parse = |name: &String| ManagedCoordinate::parse(name).unwrap();
    names.iter().map(parse).collect()
}

fn transitions(names: &[String], state: State) -> Vec<Transition> {
    let names = coordinates(names).into_iter();
    names
        .map(|name| Transition::new(name, state, true))
        .collect()
}

impl Explorer {
    /// The world after a step.
    async fn step(&mut self, before: &World, step: Step) -> World {
        let mut world = before.clone();
        match step {
            Step::Kill(process) => {
                world.left.kills -= 1;
                world.processes[process] = At::Outside;
            }
            Step::Expire(page) => {
                world.left.expiries -= 1;
                world.tables.pages[page].lasts = Some(false);
            }
            Step::Leave => {
                world.left.expiries -= 1;
                world.tables.pass.2 = false;
            }
            Step::Land(at) => {
                let name = world.flying.iter().nth(at).unwrap().clone();
                world.flying.remove(&name);
                world.store.insert(name);
            }
            Step::Process(process, twice) => {
                let at = world.processes[process].clone();
                let claim = at.claim();
                let was_current = claim.is_some_and(|claim| world.is_current(claim));
                let (mut result, mut next, mut tables) =
                    self.call(&world.tables, &at, &world.store).await;
                if twice {
                    world.left.repeats -= 1;
                    // The first answer is lost.
                    (result, next, tables) = self.call(&tables, &at, &world.store).await;
                }
                world.tables = tables;
                match result {
                    Ok(()) => {
                        assert!(
                            claim.is_none() || was_current || matches!(at, At::Page(..)),
                            "a write under a claim that is another's: {before:?}, {step:?}"
                        );
                        if let (At::Intended(.., writes, _), At::Sent(..)) = (&at, &next) {
                            world.flying.extend(writes.iter().cloned());
                        }
                        world.processes[process] = next;
                    }
                    Err(error) => {
                        assert_eq!(error, MigrateErrorKind::Lapsed, "{before:?}, {step:?}");
                        if !twice {
                            assert!(
                                !was_current,
                                "a claim that is held lapses: {before:?}, {step:?}"
                            );
                            // But that it is alive, in a pass that is still its own.
                            let mut written = world.tables.clone();
                            written.pass.2 = before.tables.pass.2;
                            assert_eq!(
                                written, before.tables,
                                "whoever lapsed writes nothing: {step:?}"
                            );
                        }
                        world.processes[process] = At::Idle(claim.map_or(0, |claim| claim.0));
                    }
                }
            }
        }
        // Processes differ in nothing but what they remember.
        world.processes.sort();
        world
    }

    /// The next call of a process on the real journal, made once for everything that it depends on.
    async fn call(&mut self, tables: &Tables, at: &At, store: &BTreeSet<String>) -> Called {
        let store = match at {
            At::Page(..) => store.clone(),
            _ => BTreeSet::new(),
        };
        let call = (tables.clone(), at.clone(), store);
        if let Some(called) = self.calls.get(&call) {
            return called.clone();
        }
        self.bring_about(tables).await;
        let next = self.ask(&call.2, at).await;
        let tables = self.look().await;
        let called = match next {
            Ok(next) => (Ok(()), next, tables),
            Err(error) => (Err(error.kind()), At::Outside, tables),
        };
        self.calls.insert(call, called.clone());
        called
    }

    async fn ask(&self, store: &BTreeSet<String>, at: &At) -> MigrateResult<At> {
        let journal = &self.journals[0];
        let sharing = journal.sharing().unwrap();
        let worker = "worker";
        let claim = at
            .claim()
            .map(|(pass, page, epoch)| Claim::new(pass, page, epoch, LEASE));
        Ok(match (at.clone(), claim) {
            (At::Outside, _) => {
                let work = SharedWork::new("copy", "settings");
                At::Idle(sharing.join(&work, worker, LEASE).await?.pass)
            }
            (At::Idle(pass), _) => {
                let member = Member::new(pass, worker, LEASE);
                match sharing.claim(&member).await? {
                    Next::Ended => At::Over,
                    Next::Superseded => At::Outside,
                    Next::Wait => At::Idle(pass),
                    Next::First(claim) => At::Scan(pass, claim.epoch),
                    Next::Secrets(page) => At::Page(
                        pass,
                        page.claim.page,
                        page.claim.epoch,
                        page.after.map(|name| name.to_string()),
                        page.upto.to_string(),
                    ),
                    Next::Halted(_) | Next::Last(_) => {
                        panic!("nobody halts, and a copy has no last page")
                    }
                }
            }
            (At::Scan(pass, epoch), Some(claim)) => {
                let scan = sharing.begin_scan_under(claim).await?;
                let names = self.names.iter();
                let mentions: Vec<Mention> =
                    names.map(|name| Mention::new(name.clone(), None)).collect();
                sharing.mention_under(claim, scan, &mentions).await?;
                At::Found(pass, epoch, scan)
            }
            (At::Found(pass, _, scan), Some(claim)) => {
                let select = Select::all().with_states(&[State::Pending, State::Intent]);
                sharing
                    .lay_out(claim, &Layout::new(scan, select, 1))
                    .await?;
                At::Idle(pass)
            }
            (At::Page(pass, page, epoch, after, upto), Some(_)) => {
                let upto = ManagedCoordinate::parse(&upto).unwrap();
                let after = after.map(|name| ManagedCoordinate::parse(&name).unwrap());
                let select = Select::all()
                    .with_states(&[State::Pending, State::Intent])
                    .with_upto(upto);
                let entries = journal.page(&select, after.as_ref(), 9).await?;
                let (mut writes, mut landed) = (Vec::new(), Vec::new());
                for entry in entries {
                    let name = entry.coordinate.to_string();
                    if !store.contains(&name) {
                        writes.push(name);
                    } else {
                        assert!(entry.intent, "what only we write is in the journal");
                        landed.push(name);
                    }
                }
                At::Read(pass, page, epoch, writes, landed)
            }
            (At::Read(pass, page, epoch, writes, landed), Some(claim)) => {
                let intents = transitions(&writes, State::Intent);
                sharing.advance_under(claim, &intents).await?;
                At::Intended(pass, page, epoch, writes, landed)
            }
            (At::Intended(pass, page, epoch, writes, landed), Some(claim)) => {
                sharing.renew(claim).await?;
                At::Sent(pass, page, epoch, writes, landed)
            }
            (At::Sent(pass, _, _, writes, landed), Some(claim)) => {
                let done = transitions(&[writes, landed].concat(), State::Written);
                sharing.finish(claim, &done, None).await?;
                At::Idle(pass)
            }
            (at, _) => panic!("{at:?} takes no step"),
        })
    }

    /// Writes the tables.
    async fn bring_about(&self, tables: &Tables) {
        let time = |lasts: bool| {
            if lasts {
                "now() + interval '1 hour'"
            } else {
                "now() - interval '1 hour'"
            }
        };
        let text = |text: &Option<String>| {
            text.as_ref()
                .map_or("NULL".into(), |text| format!("'{text}'"))
        };
        let (pass, ended, lasts) = tables.pass;
        let mut sql = format!(
            "BEGIN; DELETE FROM migrate_page; DELETE FROM migrate_secret; UPDATE migrate_run SET scan = {}; \
             UPDATE migrate_pass SET pass = {pass}, ended = {}, until = {};",
            tables.scan,
            u8::from(ended),
            time(lasts)
        );
        for page in &tables.pages {
            let scan = page.scan.map_or("NULL".into(), |scan| scan.to_string());
            write!(
                sql,
                "INSERT INTO migrate_page VALUES ({pass}, {}, {scan}, {}, {}, 1, {}, 'worker', {}, {});",
                page.number,
                text(&page.after),
                text(&page.upto),
                page.epoch,
                page.lasts.map_or("NULL", time),
                u8::from(page.done),
            )
            .unwrap();
        }
        for (name, (state, intent, scan)) in &tables.secrets {
            write!(
                sql,
                "INSERT INTO migrate_secret VALUES ('{name}', '{state}', {}, {scan}, NULL, 0);",
                u8::from(*intent)
            )
            .unwrap();
        }
        sql.push_str("COMMIT");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&self.tables)
            .await
            .unwrap();
    }

    /// Reads the tables.
    async fn look(&self) -> Tables {
        let rows =
            async |sql: &'static str| sqlx::query(sql).fetch_all(&self.tables).await.unwrap();
        let number = |row: &sqlx::postgres::PgRow, at: usize| {
            row.get::<Option<i64>, _>(at).map(i64::unsigned_abs)
        };
        let pass = rows("SELECT pass, ended, until > now() FROM migrate_pass").await;
        let pages = rows(
            "SELECT page, scan, after, upto, epoch, until > now(), done \
             FROM migrate_page WHERE pass = (SELECT pass FROM migrate_pass) ORDER BY page",
        );
        let secrets = rows("SELECT coordinate, state, intent, scan FROM migrate_secret");
        let secret = |row: &sqlx::postgres::PgRow| {
            let is_intended = number(row, 2) == Some(1);
            (
                row.get::<String, _>(0),
                (
                    row.get::<String, _>(1),
                    is_intended,
                    number(row, 3).unwrap(),
                ),
            )
        };
        Tables {
            pass: (
                number(&pass[0], 0).unwrap(),
                number(&pass[0], 1) == Some(1),
                pass[0].get(2),
            ),
            pages: pages
                .await
                .iter()
                .map(|row| Page {
                    number: number(row, 0).unwrap(),
                    scan: number(row, 1),
                    after: row.get(2),
                    upto: row.get(3),
                    epoch: number(row, 4).unwrap(),
                    lasts: row.get(5),
                    done: number(row, 6) == Some(1),
                })
                .collect(),
            secrets: secrets.await.iter().map(secret).collect(),
            scan: number(&rows("SELECT scan FROM migrate_run").await[0], 0).unwrap(),
        }
    }

    /// Visits every state that can be reached; returns how many there are, how many steps, and how
    /// many different calls those made.
    async fn explore(&mut self, left: Budget) -> (usize, usize, usize) {
        let start = World {
            tables: Tables {
                pass: (1, true, true),
                pages: Vec::new(),
                secrets: BTreeMap::new(),
                scan: 0,
            },
            processes: vec![At::Outside; self.journals.len()],
            flying: BTreeSet::new(),
            store: BTreeSet::new(),
            left,
        };
        let mut numbers = HashMap::from([(start.clone(), 0)]);
        let mut worlds = vec![start];
        let mut came: Vec<Option<(usize, Step)>> = vec![None];
        let mut before: Vec<Vec<usize>> = vec![Vec::new()];
        let mut open = VecDeque::from([0]);
        let mut steps = 0;
        while let Some(number) = open.pop_front() {
            for step in worlds[number].steps() {
                steps += 1;
                let next = self.step(&worlds[number].clone(), step).await;
                let is_new = !numbers.contains_key(&next);
                let to = *numbers.entry(next.clone()).or_insert(worlds.len());
                if is_new {
                    let problem = next.check();
                    worlds.push(next);
                    came.push(Some((number, step)));
                    before.push(Vec::new());
                    open.push_back(to);
                    if let Err(problem) = problem {
                        panic!("{problem}:\n{}", story(&worlds, &came, to));
                    }
                }
                before[to].push(number);
            }
        }
        // From every state, however it was reached, the processes come to the end.
        let ended = |world: &World| world.processes.iter().all(|process| *process == At::Over);
        let mut ends: Vec<bool> = worlds.iter().map(ended).collect();
        let mut open: Vec<usize> = (0..worlds.len()).filter(|at| ends[*at]).collect();
        assert!(!open.is_empty(), "some schedule ends");
        while let Some(number) = open.pop() {
            for earlier in &before[number] {
                if !std::mem::replace(&mut ends[*earlier], true) {
                    open.push(*earlier);
                }
            }
        }
        // Whoever waits for a lease needs it to end.
        let stuck = (0..worlds.len()).find(|at| !ends[*at] && worlds[*at].left.expiries > 0);
        if let Some(stuck) = stuck {
            panic!("this never ends:\n{}", story(&worlds, &came, stuck));
        }
        (worlds.len(), steps, self.calls.len())
    }
}

fn story(worlds: &[World], came: &[Option<(usize, Step)>], mut at: usize) -> String {
    let mut lines = vec![format!("{:#?}", worlds[at])];
    while let Some((before, step)) = &came[at] {
        lines.push(format!("{step:?}: {:?}", worlds[at].processes));
        at = *before;
    }
    lines.reverse();
    lines.join("\n")
}

/// Explores on a database of its own; skipped visibly without a server.
async fn explore(processes: usize, secrets: u32, left: Budget) -> Option<(usize, usize, usize)> {
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "TEST_POSTGRES_URL is not set; run scripts/test"
        );
        eprintln!("SKIPPED: TEST_POSTGRES_URL is not set");
        return None;
    };
    let mut place: url::Url = url.parse().unwrap();
    let database = format!("schedules_{}", uuid::Uuid::new_v4().simple());
    let mut administrator = PgConnection::connect(&url).await.unwrap();
    let sql = format!("CREATE DATABASE {database}");
    sqlx::query(AssertSqlSafe(sql))
        .execute(&mut administrator)
        .await
        .unwrap();
    place.set_path(&database);
    let tables = PgPool::connect(place.as_str()).await.unwrap();
    let (user, password) = (
        place.username().to_owned(),
        place.password().map(str::to_owned),
    );
    let variables = move |name: &str| match name {
        "DATABASE_USER" => Some(user.clone()),
        "DATABASE_PASSWORD" => password.clone(),
        _ => None,
    };
    place.set_username("").unwrap();
    place.set_password(None).unwrap();
    let run = Run {
        source: "source".into(),
        target: Some("target".into()),
        owner: None,
        workspaces: Vec::new(),
    };
    let mut journals = Vec::new();
    for _ in 0..processes {
        let journal = SqlJournal::open_shared(place.as_str(), &variables)
            .await
            .unwrap();
        journal.open(&run).await.unwrap();
        journals.push(journal);
    }
    // A pass that has ended, so that the next one has a number that is known.
    let sql = "INSERT INTO migrate_pass VALUES (1, 1, 'copy', 'settings', 1, NULL, now())";
    sqlx::query(sql).execute(&tables).await.unwrap();
    let name = |number| format!("airbyte_workspace_1_secret_{number}_v1");
    let mut explorer = Explorer {
        journals,
        calls: HashMap::new(),
        tables,
        names: (1..=secrets)
            .map(|number| ManagedCoordinate::parse(&name(number)).unwrap())
            .collect(),
    };
    let explored = explorer.explore(left).await;
    let sql = format!("DROP DATABASE {database} WITH (FORCE)");
    sqlx::query(AssertSqlSafe(sql))
        .execute(&mut administrator)
        .await
        .unwrap();
    Some(explored)
}

#[tokio::test]
async fn no_schedule_of_two_processes_breaks_a_promise() {
    let left = Budget {
        expiries: 1,
        kills: 1,
        repeats: 1,
    };
    let Some((states, steps, calls)) = explore(2, 1, left).await else {
        return;
    };
    println!("{states} states, {steps} steps, {calls} calls of the journal");
    assert!(states > 500, "{states}");
}

#[tokio::test]
#[ignore = "takes many minutes"]
async fn no_longer_schedule_of_two_processes_breaks_a_promise() {
    let left = Budget {
        expiries: 2,
        kills: 1,
        repeats: 1,
    };
    if let Some((states, steps, calls)) = explore(2, 2, left).await {
        println!("{states} states, {steps} steps, {calls} calls of the journal");
    }
}
