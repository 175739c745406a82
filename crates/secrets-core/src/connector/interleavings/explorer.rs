//! Runs a few futures in every order of their atomic steps.
//!
//! Each actor is a future of the real library code over a store and a database, whose every
//! operation first awaits a [`World::step`]. Only the explorer makes progress: it lets one waiting
//! step pass, polls its actor, checks the invariant, and chooses again. A crash drops the actor's
//! future after one of its steps. One run follows one path of choices. Runs are repeated from the
//! beginning until every path has been taken. For orders that differ only in the order of two
//! independent steps (two records, two new names), [`Orders::Different`] runs one of them, with the
//! sleep sets of partial-order model checking.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// The resources of a step. Two steps without a conflict may be swapped without any visible
/// difference, including the check after each step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touches {
    pub(super) reads_row: bool,
    pub(super) writes_row: bool,
    /// One record of the outbox, or [`Touches::OUTBOX`] for the list of records.
    pub(super) record: Option<usize>,
    pub(super) reads_secrets: bool,
    pub(super) writes_secrets: bool,
    pub(super) deletes_secrets: bool,
    /// Waits until nothing is in flight.
    pub(super) needs_quiet: bool,
    pub(super) lands: bool,
}

impl Touches {
    pub(super) const OUTBOX: usize = usize::MAX;

    pub(super) const NOTHING: Self = Self {
        reads_row: false,
        writes_row: false,
        record: None,
        reads_secrets: false,
        writes_secrets: false,
        deletes_secrets: false,
        needs_quiet: false,
        lands: false,
    };

    fn conflicts(self, other: Self) -> bool {
        let one_way = |a: Self, b: Self| {
            // The check depends on secrets that appear or disappear while the row is being saved.
            (a.writes_row && (b.reads_row || b.writes_row || b.writes_secrets || b.deletes_secrets))
                || (a.deletes_secrets && (b.reads_secrets || b.writes_secrets))
                || (a.writes_secrets && b.reads_secrets)
                || (a.needs_quiet && b.lands)
                || (a.record == Some(Self::OUTBOX) && b.record.is_some())
                || (a.record.is_some() && a.record == b.record)
        };
        one_way(self, other) || one_way(other, self)
    }
}

type Actor = Pin<Box<dyn Future<Output = ()>>>;
type Check = Box<dyn Fn() -> Result<(), String>>;

/// The parts of one run, created for each run.
pub(super) struct Scene {
    pub(super) actors: Vec<(&'static str, Actor)>,
    /// Must be true after every step.
    pub(super) always: Check,
    /// Runs after all actors have ended and all requests in flight have arrived: the healer's last
    /// round.
    pub(super) afterwards: Actor,
    /// Must be true after that.
    pub(super) finally: Check,
}

/// The result of an exploration.
#[derive(Debug)]
pub(super) struct Explored {
    pub(super) runs: u64,
    /// Paths that were abandoned because they only swap independent steps.
    pub(super) pruned: u64,
    pub(super) crashes: u64,
    pub(super) longest: usize,
    pub(super) violation: Option<String>,
}

/// The orders to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orders {
    /// One of several orders that differ only in the order of independent steps.
    Different,
    /// All orders.
    Every,
}

/// Explores the orders of a scene with at most `crashes` crashes in each. Stops at the first
/// violation.
pub(super) fn explore(
    orders: Orders,
    crashes: usize,
    scene: impl Fn(&Arc<World>) -> Scene,
) -> Explored {
    let mut explored = Explored {
        runs: 0,
        pruned: 0,
        crashes: 0,
        longest: 0,
        violation: None,
    };
    let mut path: Vec<usize> = Vec::new();
    loop {
        let world = Arc::new(World::default());
        world.locked().path.clone_from(&path);
        let outcome = run(&world, scene(&world), orders, crashes);
        let state = world.locked();
        if state.pruned {
            explored.pruned += 1;
        } else {
            explored.runs += 1;
            explored.crashes += state.crashed;
        }
        explored.longest = explored.longest.max(state.story.len());
        if let Err(problem) = outcome {
            let mut story = problem;
            for line in &state.story {
                let _ = write!(story, "\n  {line}");
            }
            explored.violation = Some(story);
            return explored;
        }
        // The next path differs at the last choice with another option.
        let mut trace = state.trace.clone();
        drop(state);
        loop {
            match trace.pop() {
                None => return explored,
                Some((chosen, options)) if chosen + 1 < options => {
                    path = trace.iter().map(|(chosen, _)| *chosen).collect();
                    path.push(chosen + 1);
                    break;
                }
                Some(_) => {}
            }
        }
    }
}

fn run(world: &Arc<World>, scene: Scene, orders: Orders, mut crashes: usize) -> Result<(), String> {
    let names: Vec<&'static str> = scene.actors.iter().map(|(name, _)| *name).collect();
    // A crash affects only its actor. It therefore only matters after which of the actor's steps it
    // occurs, not its position among the steps of others.
    let mut moved = None;
    let mut asleep: Vec<(u64, Touches)> = Vec::new();
    let mut actors: Vec<Option<Actor>> = scene
        .actors
        .into_iter()
        .map(|(_, actor)| Some(actor))
        .collect();
    for at in 0..actors.len() {
        poll(world, &mut actors, at);
    }
    loop {
        let mut options = world.options(&actors, moved.filter(|_| crashes > 0));
        let enabled = options.len();
        options.retain(|option| {
            !asleep
                .iter()
                .any(|(number, _)| Some(*number) == option.number())
        });
        if options.is_empty() && enabled > 0 {
            world.locked().pruned = true;
            return Ok(());
        }
        if options.is_empty() {
            if let Some(at) = actors.iter().position(Option::is_some) {
                return Err(format!("{} waits forever", names[at]));
            }
            break;
        }
        let chosen = world.pick(options.len());
        if orders == Orders::Different {
            asleep.extend(options[..chosen].iter().filter_map(Choice::step));
        }
        match options[chosen].step() {
            Some((_, touches)) => asleep.retain(|(_, other)| !touches.conflicts(*other)),
            None => asleep.clear(),
        }
        match options[chosen] {
            Choice::Crash(at) => {
                crashes -= 1;
                world.locked().crashed += 1;
                world.tell(format!("{} crashes", names[at]));
                actors[at] = None;
                moved = None;
            }
            Choice::Land(number, _) => {
                world.land(number);
                moved = None;
            }
            Choice::Pass(number, at, _) => {
                world.pass(number, names[at]);
                poll(world, &mut actors, at);
                moved = Some(at);
            }
        }
        // A request that arrived wakes the task that waits for its response.
        for at in 0..actors.len() {
            if world.take_answered(at) {
                poll(world, &mut actors, at);
                moved = Some(at);
            }
        }
        (scene.always)()?;
    }
    world.locked().free = true;
    let mut afterwards = scene.afterwards;
    let ended = afterwards
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    if ended.is_pending() {
        return Err("the last round waits forever".to_owned());
    }
    (scene.always)()?;
    (scene.finally)()
}

fn poll(world: &World, actors: &mut [Option<Actor>], at: usize) {
    if let Some(actor) = &mut actors[at] {
        world.polling.store(at, Ordering::Relaxed);
        if actor
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
        {
            actors[at] = None;
        }
    }
}

enum Choice {
    Crash(usize),
    Land(u64, Touches),
    Pass(u64, usize, Touches),
}

impl Choice {
    fn step(&self) -> Option<(u64, Touches)> {
        match self {
            Self::Crash(_) => None,
            Self::Land(number, touches) | Self::Pass(number, _, touches) => {
                Some((*number, *touches))
            }
        }
    }

    fn number(&self) -> Option<u64> {
        self.step().map(|(number, _)| number)
    }
}

/// State that the actors of one run share with the explorer.
#[derive(Default)]
pub(super) struct World {
    /// The index of the actor that is being polled, which owns the step.
    polling: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    waiting: Vec<Waiting>,
    flying: Vec<Flying>,
    path: Vec<usize>,
    trace: Vec<(usize, usize)>,
    story: Vec<String>,
    crashed: u64,
    pruned: bool,
    /// Steps pass without waiting: only the last round is left.
    free: bool,
}

struct Waiting {
    number: u64,
    actor: usize,
    label: &'static str,
    passed: bool,
    touches: Touches,
    waker: Waker,
}

/// A request that has left its sender. It arrives even if the sender crashes or gives up.
struct Flying {
    number: u64,
    label: &'static str,
    touches: Touches,
    arrive: Option<Box<dyn FnOnce() + Send>>,
    actor: usize,
    waker: Option<Waker>,
    answered: bool,
}

impl World {
    /// Waits until the explorer lets this step pass. The code until the next step is atomic and
    /// uses only the given resources.
    pub(super) fn step(self: &Arc<Self>, label: &'static str, touches: Touches) -> Step {
        Step {
            world: Arc::clone(self),
            label,
            touches,
            number: None,
        }
    }

    /// Sends a request that arrives whenever the explorer chooses, and waits for the response.
    pub(super) fn send(
        self: &Arc<Self>,
        label: &'static str,
        touches: Touches,
        arrive: impl FnOnce() + Send + 'static,
    ) -> Answer {
        let mut state = self.locked();
        if state.free {
            drop(state);
            arrive();
            return Answer {
                world: Arc::clone(self),
                number: None,
            };
        }
        state.next += 1;
        let number = state.next;
        let actor = self.polling.load(Ordering::Relaxed);
        state.flying.push(Flying {
            number,
            label,
            touches: Touches {
                lands: true,
                ..touches
            },
            arrive: Some(Box::new(arrive)),
            actor,
            waker: None,
            answered: false,
        });
        Answer {
            world: Arc::clone(self),
            number: Some(number),
        }
    }

    /// One of several alternatives. All of them are explored.
    pub(super) fn pick(&self, options: usize) -> usize {
        let mut state = self.locked();
        if state.free {
            return 0;
        }
        let at = state.trace.len();
        let chosen = state.path.get(at).copied().unwrap_or(0);
        assert!(chosen < options, "a run is not a function of its path");
        state.trace.push((chosen, options));
        chosen
    }

    /// Adds a line to the output for a run with a violation.
    pub(super) fn tell(&self, line: impl Into<String>) {
        self.locked().story.push(line.into());
    }

    fn options(&self, actors: &[Option<Actor>], may_crash: Option<usize>) -> Vec<Choice> {
        let state = self.locked();
        let quiet = state.flying.iter().all(|flying| flying.arrive.is_none());
        let mut options: Vec<Choice> = state
            .waiting
            .iter()
            .filter(|waiting| !waiting.passed && (quiet || !waiting.touches.needs_quiet))
            .map(|waiting| Choice::Pass(waiting.number, waiting.actor, waiting.touches))
            .collect();
        options.extend(
            state
                .flying
                .iter()
                .filter(|flying| flying.arrive.is_some())
                .map(|flying| Choice::Land(flying.number, flying.touches)),
        );
        options.extend(
            may_crash
                .filter(|at| actors[*at].is_some())
                .map(Choice::Crash),
        );
        options
    }

    fn pass(&self, number: u64, name: &str) {
        let mut state = self.locked();
        let mut line = String::new();
        if let Some(waiting) = state
            .waiting
            .iter_mut()
            .find(|waiting| waiting.number == number)
        {
            waiting.passed = true;
            waiting.waker.wake_by_ref();
            line = format!("{name}: {}", waiting.label);
        }
        state.story.push(line);
    }

    fn land(&self, number: u64) {
        let mut state = self.locked();
        let Some(flying) = state
            .flying
            .iter_mut()
            .find(|flying| flying.number == number)
        else {
            return;
        };
        let arrive = flying.arrive.take();
        flying.answered = true;
        if let Some(waker) = &flying.waker {
            waker.wake_by_ref();
        }
        let line = format!("network: {} arrives", flying.label);
        state.story.push(line);
        drop(state);
        if let Some(arrive) = arrive {
            arrive();
        }
    }

    /// Whether there is a response for this actor that it has not been polled for.
    fn take_answered(&self, actor: usize) -> bool {
        let mut state = self.locked();
        let before = state.flying.len();
        state
            .flying
            .retain(|flying| !(flying.answered && flying.actor == actor));
        state.flying.len() != before
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// One atomic step that waits for its turn.
pub(super) struct Step {
    world: Arc<World>,
    label: &'static str,
    touches: Touches,
    number: Option<u64>,
}

impl Future for Step {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let actor = this.world.polling.load(Ordering::Relaxed);
        let mut state = this.world.locked();
        if state.free {
            return Poll::Ready(());
        }
        let Some(number) = this.number else {
            state.next += 1;
            this.number = Some(state.next);
            let number = state.next;
            state.waiting.push(Waiting {
                number,
                actor,
                label: this.label,
                passed: false,
                touches: this.touches,
                waker: context.waker().clone(),
            });
            return Poll::Pending;
        };
        let Some(at) = state
            .waiting
            .iter()
            .position(|waiting| waiting.number == number)
        else {
            return Poll::Ready(());
        };
        if state.waiting[at].passed {
            state.waiting.remove(at);
            return Poll::Ready(());
        }
        state.waiting[at].waker.clone_from(context.waker());
        Poll::Pending
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.world
                .locked()
                .waiting
                .retain(|waiting| waiting.number != number);
        }
    }
}

/// The response to a request in flight.
pub(super) struct Answer {
    world: Arc<World>,
    number: Option<u64>,
}

impl Future for Answer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(number) = self.number else {
            return Poll::Ready(());
        };
        let mut state = self.world.locked();
        match state
            .flying
            .iter_mut()
            .find(|flying| flying.number == number)
        {
            Some(flying) if !flying.answered => {
                flying.waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

#[test]
fn every_order_of_two_actors_is_run_once() {
    // Three steps each: 6! / (3! 3!) orders, each seen exactly once.
    assert_eq!(orders(Orders::Every, [record(0), record(1)]), (20, 20));
    assert_eq!(orders(Orders::Different, [record(0), record(0)]), (20, 20));
    let list = record(Touches::OUTBOX);
    assert_eq!(orders(Orders::Different, [record(0), list]), (20, 20));
}

#[test]
fn orders_that_nobody_can_tell_apart_are_run_once() {
    assert_eq!(orders(Orders::Different, [record(0), record(1)]), (1, 1));
}

const fn record(id: usize) -> Touches {
    Touches {
        record: Some(id),
        ..Touches::NOTHING
    }
}

/// The number of runs, and of different orders, of two actors with three steps each.
fn orders(orders: Orders, touches: [Touches; 2]) -> (u64, usize) {
    let seen: Arc<Mutex<Vec<Vec<&str>>>> = Arc::default();
    let explored = explore(orders, 0, |world| {
        let order: Arc<Mutex<Vec<&str>>> = Arc::default();
        let actor = |name: &'static str, touches: Touches| -> (&'static str, Actor) {
            let (world, order) = (Arc::clone(world), Arc::clone(&order));
            let steps = async move {
                for _ in 0..3 {
                    world.step(name, touches).await;
                    order.lock().unwrap().push(name);
                }
            };
            (name, Box::pin(steps))
        };
        let actors = vec![actor("a", touches[0]), actor("b", touches[1])];
        let seen = Arc::clone(&seen);
        Scene {
            actors,
            always: Box::new(|| Ok(())),
            afterwards: Box::pin(async {}),
            finally: Box::new(move || {
                seen.lock().unwrap().push(order.lock().unwrap().clone());
                Ok(())
            }),
        }
    });
    let mut orders = seen.lock().unwrap().clone();
    orders.sort();
    orders.dedup();
    (explored.runs, orders.len())
}
