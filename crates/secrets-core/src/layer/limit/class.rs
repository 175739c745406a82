//! One class of operations: how many at once, how many per second, how fast at present.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turnstile, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::shared::Shared;
use super::{ClassLimit, SharedLimit};
use crate::layer::meter::Counter;
use crate::{Error, ErrorKind, Result};

/// What is left of the pace after the provider has throttled.
const SLOWER: f64 = 0.7;
/// No class is limited to more requests per second than this.
const FASTEST: f64 = 1_000_000.0;
/// The pace never falls below this part.
const SLOWEST: f64 = 0.02;
/// Requests that were under way together are throttled together; that counts once.
pub(super) const COOLDOWN: Duration = Duration::from_secs(1);
/// How much of the full pace comes back each second.
const RECOVERY_PER_SECOND: f64 = 0.05;
/// No store may silence us for longer, whatever its Retry-After says.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// What callers who had to wait may catch up on: timers have a granularity of a millisecond.
const CATCH_UP: Duration = Duration::from_millis(20);
/// The window slides in steps of this part: few enough to remember, small enough to waste nothing.
const STEPS: u32 = 64;
/// Sums of fractions are not exact.
const ROUNDING: f64 = 1e-6;

#[derive(Debug)]
pub(super) struct Class {
    name: &'static str,
    slots: Semaphore,
    /// Callers who have to wait for the rate do so one after the other, in the order in which they
    /// came.
    turnstile: Turnstile<()>,
    waiting: AtomicUsize,
    state: Mutex<State>,
    /// The quota, where several processes share it.
    shared: Option<Shared>,
    /// The part of the pace that is this process's while the others cannot be seen.
    alone: f64,
    permits: Counter,
    slowed: Counter,
}

/// What the answer to a call tells about the requests it made.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// How many requests it may have made beyond those that were paid when it began.
    pub(super) extra: u32,
    pub(super) throttled: bool,
    pub(super) retry_after: Option<Duration>,
}

impl Learned {
    /// The outcome of one entry.
    pub(super) fn note<T>(&mut self, result: &Result<T>) {
        if let Err(error) = result
            && error.kind() == ErrorKind::Throttled
        {
            self.throttled = true;
            self.retry_after = self.retry_after.max(Error::retry_after(error));
        }
    }
}

impl Class {
    pub(super) fn new(
        store: &Arc<str>,
        name: &'static str,
        limit: ClassLimit,
        share: f64,
        shared: Option<(&SharedLimit, &Arc<str>)>,
    ) -> Self {
        // No setting can stall us or divide by zero.
        let share = between(share, 0.001, 1.0);
        let per_second = between(limit.per_second * share, 0.01, FASTEST);
        let counter = |metric| {
            let labels = [("store", Arc::clone(store).into()), ("class", name.into())];
            Counter::new(metric, labels)
        };
        Self {
            name,
            slots: Semaphore::new(limit.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            turnstile: Turnstile::new(()),
            waiting: AtomicUsize::new(0),
            state: Mutex::new(State {
                pace: Pace::full(Instant::now()),
                window: Window::new(per_second, Instant::now()),
            }),
            // What has no limit needs no slots.
            shared: shared
                .filter(|_| per_second < FASTEST)
                .map(|(shared, account)| {
                    let rates = Arc::clone(&shared.rates);
                    Shared::new(rates, account, (store, name), per_second, counter)
                }),
            alone: shared.map_or(1.0, |(shared, _)| 1.0 / f64::from(shared.replicas.max(1))),
            permits: counter("secrets_limit_permits_total"),
            slowed: counter("secrets_limit_slowed_total"),
        }
    }

    /// Waits for a slot and for the requests that are sure to be made, makes the call, and learns from
    /// its answer what else it has cost.
    pub(super) async fn call<T>(
        &self,
        requests: u32,
        call: impl Future<Output = T>,
        learn: impl FnOnce(&T) -> Learned,
    ) -> T {
        let slot = self.admit(requests).await;
        let answer = call.await;
        drop(slot);
        self.learn(&learn(&answer));
        answer
    }

    pub(super) async fn admit(&self, requests: u32) -> Option<SemaphorePermit<'_>> {
        let slot = match self.slots.try_acquire() {
            Ok(slot) => Some(slot),
            // Never closed, so there is a permit in the end.
            Err(_) => self.slots.acquire().await.ok(),
        };
        let requests = requests.max(1);
        let cost = f64::from(requests);
        loop {
            let shared = self.shared.as_ref().filter(|shared| !shared.is_away());
            let is_free = self.waiting.load(Ordering::Acquire) == 0;
            if !is_free || self.take(cost).is_err() {
                self.wait(cost).await;
            }
            let Some(shared) = shared else { break };
            // If the source went away, this process's own share is less than what it has paid for.
            if shared.take(requests).await.is_ok() {
                break;
            }
        }
        self.permits.add(requests.into());
        slot
    }

    async fn wait(&self, cost: f64) {
        let _waiting = Waiting::among(&self.waiting);
        let _turn = self.turnstile.lock().await;
        while let Err(until) = self.take(cost) {
            tokio::time::sleep_until(until).await;
        }
        let mut state = self.state.lock();
        let now = Instant::now();
        let part = self.part(&state, now);
        state.window.space(now, cost, part);
    }

    /// The part of the full pace that is this process's at present.
    fn part(&self, state: &State, now: Instant) -> f64 {
        let part = state.pace.part_at(now);
        match &self.shared {
            Some(shared) if shared.is_away() => part * self.alone,
            _ => part,
        }
    }

    /// Pays for requests, or says when to ask again.
    fn take(&self, cost: f64) -> std::result::Result<(), Instant> {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.pace.silent_until > now {
            return Err(state.pace.silent_until);
        }
        let part = self.part(&state, now);
        state.window.take(now, cost, part)
    }

    /// Counts requests that were made beyond those that were paid for.
    pub(super) fn charge(&self, extra: u32) {
        if extra == 0 {
            return;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        let part = self.part(&state, now);
        state.window.spend(now, f64::from(extra), part);
        drop(state);
        // While the source is away, the window has paid for them.
        if let Some(shared) = self.shared.as_ref().filter(|shared| !shared.is_away()) {
            shared.owe(extra);
        }
        self.permits.add(extra.into());
    }

    fn learn(&self, learned: &Learned) {
        self.charge(learned.extra);
        if !learned.throttled {
            return;
        }
        let now = Instant::now();
        let pace = &mut self.state.lock().pace;
        if let Some(wait) = learned.retry_after {
            pace.silent_until = pace.silent_until.max(now + wait.min(LONGEST_SILENCE));
        }
        if now.duration_since(pace.since) >= COOLDOWN || pace.part >= 1.0 {
            pace.part = (pace.part_at(now) * SLOWER).max(SLOWEST);
            pace.since = now;
            self.slowed.add(1);
            tracing::debug!(
                class = self.name,
                percent = pace.part * 100.0,
                "the store throttles; going slower"
            );
        }
    }
}

/// Counts a caller among those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug)]
struct State {
    pace: Pace,
    window: Window,
}

/// How fast we go at present, and whether we go at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The part of the full pace at `since`; it grows from there.
    pub(super) part: f64,
    pub(super) since: Instant,
    pub(super) silent_until: Instant,
}

impl Pace {
    fn full(now: Instant) -> Self {
        Self {
            part: 1.0,
            since: now,
            silent_until: now,
        }
    }

    pub(super) fn part_at(&self, now: Instant) -> f64 {
        if self.part >= 1.0 {
            return 1.0;
        }
        let rested = now.duration_since(self.since).saturating_sub(COOLDOWN);
        (self.part + rested.as_secs_f64() * RECOVERY_PER_SECOND).min(1.0)
    }
}

/// What was spent within the last second.
///
/// No second, wherever it begins, contains more requests than the share: what a token bucket with a
/// burst of a second's share could not promise, since it lets twice as much through in its first
/// second. A caller who finds room goes at once. Those who had to wait go at even distances, so that
/// not all of a second's requests leave in the instant in which the window has slid over the last.
#[derive(Debug)]
struct Window {
    per_second: f64,
    /// The most that is spent within `length`: a second's share, rounded up to whole requests.
    capacity: f64,
    length: Duration,
    step: Duration,
    start: Instant,
    /// Until when what was spent counts, and how much it is.
    spent: VecDeque<(Instant, f64)>,
    sum: f64,
    next: Instant,
}

impl Window {
    fn new(per_second: f64, now: Instant) -> Self {
        let capacity = per_second.ceil().max(2.0);
        let length = Duration::from_secs_f64(capacity / per_second);
        Self {
            per_second,
            capacity,
            length,
            step: (length / STEPS).max(Duration::from_nanos(1)),
            start: now,
            spent: VecDeque::new(),
            sum: 0.0,
            next: now,
        }
    }

    fn take(&mut self, now: Instant, cost: f64, part: f64) -> std::result::Result<(), Instant> {
        while let Some((_, units)) = self.spent.pop_front_if(|(until, _)| *until <= now) {
            self.sum -= units;
        }
        if self.spent.is_empty() {
            self.sum = 0.0;
        }
        if self.next > now {
            return Err(self.next);
        }
        let room = self.capacity * part + ROUNDING;
        // What costs more than there ever is room for waits for all of it, and is paid off later.
        let cost_now = cost.min(room);
        let mut sum = self.sum;
        if sum + cost_now <= room {
            self.spend(now, cost, part);
            return Ok(());
        }
        for (until, units) in &self.spent {
            sum -= units;
            if sum + cost_now <= room {
                return Err(*until);
            }
        }
        Err(self
            .spent
            .back()
            .map_or(now + self.step, |(until, _)| *until))
    }

    /// Counts requests. Those beyond the capacity count for as long as the rate takes to make up for
    /// them.
    fn spend(&mut self, now: Instant, units: f64, part: f64) {
        self.sum += units;
        let made_up = Duration::try_from_secs_f64(self.sum / (self.per_second * part));
        let counts = self.length.max(made_up.unwrap_or(self.length));
        let until = now.checked_add(counts).unwrap_or(now + self.length);
        let steps = until.duration_since(self.start).as_nanos() / self.step.as_nanos() + 1;
        let until = u32::try_from(steps)
            .ok()
            .and_then(|steps| self.step.checked_mul(steps))
            .and_then(|after| self.start.checked_add(after))
            .unwrap_or(until);
        match self.spent.back_mut() {
            Some((last, sum)) if *last >= until => *sum += units,
            _ => self.spent.push_back((until, units)),
        }
    }

    /// Keeps the next caller at a distance.
    fn space(&mut self, now: Instant, cost: f64, part: f64) {
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let distance = Duration::try_from_secs_f64(cost / (self.per_second * part));
        self.next = self.next.max(earliest) + distance.unwrap_or(self.length);
    }
}

/// The number, or the nearest that is allowed; the least for what is no number.
fn between(number: f64, least: f64, most: f64) -> f64 {
    if number.is_nan() {
        least
    } else {
        number.clamp(least, most)
    }
}
