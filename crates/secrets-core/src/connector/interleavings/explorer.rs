//! Runs a handful of futures in every order of their atomic steps.
//!
//! Each actor is a future of the real library code over a store and a database whose every operation
//! first takes a [`World::step`]. Nothing moves but by the explorer: it lets one waiting step pass,
//! polls its actor, checks the invariant, and chooses again; a crash is the actor's future dropped at
//! a step. One run follows one path of choices; runs are repeated from the beginning until every path
//! has been taken.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

type Actor = Pin<Box<dyn Future<Output = ()>>>;
type Check = Box<dyn Fn() -> Result<(), String>>;

/// What one run is made of. Built anew for every run.
pub(super) struct Scene {
    pub(super) actors: Vec<(&'static str, Actor)>,
    /// Holds after every single step.
    pub(super) always: Check,
    /// Runs when all actors have ended, and everything in flight has landed: the healer's last round.
    pub(super) afterwards: Actor,
    /// Holds after that.
    pub(super) finally: Check,
}

/// What an exploration found.
#[derive(Debug)]
pub(super) struct Explored {
    pub(super) runs: u64,
    pub(super) crashes: u64,
    pub(super) longest: usize,
    pub(super) violation: Option<String>,
}

/// Explores every path of a scene with at most so many crashes in each. Stops at the first violation.
pub(super) fn explore(crashes: usize, scene: impl Fn(&Arc<World>) -> Scene) -> Explored {
    let mut explored = Explored {
        runs: 0,
        crashes: 0,
        longest: 0,
        violation: None,
    };
    let mut path: Vec<usize> = Vec::new();
    loop {
        let world = Arc::new(World::default());
        world.locked().path.clone_from(&path);
        let outcome = run(&world, scene(&world), crashes);
        let state = world.locked();
        explored.runs += 1;
        explored.crashes += state.crashed;
        explored.longest = explored.longest.max(state.story.len());
        if let Err(problem) = outcome {
            let mut story = problem;
            for line in &state.story {
                let _ = write!(story, "\n  {line}");
            }
            explored.violation = Some(story);
            return explored;
        }
        // The next path differs at the last choice that has another option left.
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

fn run(world: &Arc<World>, scene: Scene, mut crashes: usize) -> Result<(), String> {
    let names: Vec<&'static str> = scene.actors.iter().map(|(name, _)| *name).collect();
    // A crash touches nothing but its actor, so it only matters after which of the actor's own steps it
    // comes, not when among the steps of others.
    let mut moved = None;
    let mut actors: Vec<Option<Actor>> = scene
        .actors
        .into_iter()
        .map(|(_, actor)| Some(actor))
        .collect();
    for at in 0..actors.len() {
        poll(world, &mut actors, at);
    }
    loop {
        let options = world.options(&actors, moved.filter(|_| crashes > 0));
        if options.is_empty() {
            if let Some(at) = actors.iter().position(Option::is_some) {
                return Err(format!("{} waits for what never comes", names[at]));
            }
            break;
        }
        match options[world.pick(options.len())] {
            Choice::Crash(at) => {
                crashes -= 1;
                world.locked().crashed += 1;
                world.tell(format!("{} crashes", names[at]));
                actors[at] = None;
                moved = None;
            }
            Choice::Land(number) => {
                world.land(number);
                moved = None;
            }
            Choice::Pass(number, at) => {
                world.pass(number, names[at]);
                poll(world, &mut actors, at);
                moved = Some(at);
            }
        }
        // What has landed wakes whoever waits for the answer.
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
        return Err("the last round waits for what never comes".to_owned());
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
    Land(u64),
    Pass(u64, usize),
}

/// What the actors of one run share with the explorer.
#[derive(Default)]
pub(super) struct World {
    /// The index of the actor that is being polled: a step belongs to it.
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
    /// Steps pass by themselves: everything is over but the last round.
    free: bool,
}

struct Waiting {
    number: u64,
    actor: usize,
    label: String,
    passed: bool,
    needs_quiet: bool,
    waker: Waker,
}

/// A request that has left its sender, who may crash or give up: it arrives all the same.
struct Flying {
    number: u64,
    label: String,
    arrive: Option<Box<dyn FnOnce() + Send>>,
    actor: usize,
    waker: Option<Waker>,
    answered: bool,
}

impl World {
    /// Waits until the explorer lets this step pass. What follows, up to the next step, is atomic.
    pub(super) fn step(self: &Arc<Self>, label: impl Into<String>) -> Step {
        self.new_step(label.into(), false)
    }

    /// As [`step`](Self::step), but passes only once nothing is in flight: the longest deadline of an
    /// attempt is over.
    pub(super) fn quiet(self: &Arc<Self>, label: impl Into<String>) -> Step {
        self.new_step(label.into(), true)
    }

    /// Sends a request that arrives whenever the explorer wants, and waits for the answer.
    pub(super) fn send(
        self: &Arc<Self>,
        label: impl Into<String>,
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
            label: label.into(),
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

    /// One of so many ways things can go. Every one is explored.
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

    /// Adds a line to what is printed of a run that broke a promise.
    pub(super) fn tell(&self, line: impl Into<String>) {
        self.locked().story.push(line.into());
    }

    fn new_step(self: &Arc<Self>, label: String, needs_quiet: bool) -> Step {
        Step {
            world: Arc::clone(self),
            label: Some(label),
            needs_quiet,
            number: None,
        }
    }

    fn options(&self, actors: &[Option<Actor>], may_crash: Option<usize>) -> Vec<Choice> {
        let state = self.locked();
        let quiet = state.flying.iter().all(|flying| flying.arrive.is_none());
        let mut options: Vec<Choice> = state
            .waiting
            .iter()
            .filter(|waiting| !waiting.passed && (quiet || !waiting.needs_quiet))
            .map(|waiting| Choice::Pass(waiting.number, waiting.actor))
            .collect();
        options.extend(
            state
                .flying
                .iter()
                .filter(|flying| flying.arrive.is_some())
                .map(|flying| Choice::Land(flying.number)),
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

    /// Whether an answer is there for this actor that it has not been polled for.
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
    label: Option<String>,
    needs_quiet: bool,
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
                label: this.label.take().unwrap_or_default(),
                passed: false,
                needs_quiet: this.needs_quiet,
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

/// The answer to a request in flight.
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
    let seen: Arc<Mutex<Vec<Vec<&str>>>> = Arc::default();
    let explored = explore(0, |world| {
        let order: Arc<Mutex<Vec<&str>>> = Arc::default();
        let actor = |name: &'static str| -> (&'static str, Actor) {
            let (world, order) = (Arc::clone(world), Arc::clone(&order));
            (
                name,
                Box::pin(async move {
                    for _ in 0..3 {
                        world.step(name).await;
                        order.lock().unwrap().push(name);
                    }
                }),
            )
        };
        let actors = vec![actor("a"), actor("b")];
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
    assert_eq!((explored.runs, orders.len()), (20, 20));
}
