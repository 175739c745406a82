//! One class of operations whose quota several processes share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Mutex as Turnstile;
use tokio::time::{Instant, sleep_until, timeout};

use crate::layer::meter::Counter;
use crate::rates::{Draw, LATEST, SharedRates, Slice, number};

/// The time for which slots are drawn at once.
const SLICE: Duration = Duration::from_millis(100);
/// The next slots are drawn when those in hand last no longer than this.
const AHEAD: Duration = Duration::from_millis(50);
/// How long the source may take to answer. A caller waits this long where it does not respond.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the source is left alone after it has failed.
const PAUSE: Duration = Duration::from_secs(30);
/// What a slot is good for at least, however long the answer took.
const GRACE: Duration = Duration::from_millis(10);

/// The source cannot be reached: this process keeps to its own share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Away;

#[derive(Debug)]
pub(super) struct Shared {
    rates: Arc<dyn SharedRates>,
    bucket: String,
    per_second: f64,
    /// The most that one draw pays of what is owed.
    room: u32,
    /// The most slots that are drawn in advance.
    slice: u32,
    /// How many requests the callers wait for who are under way here.
    wanted: AtomicUsize,
    /// Requests that were made and have no slot yet.
    owed: AtomicU32,
    /// The slots in hand. Callers take them one after the other, in the order in which they came.
    held: Turnstile<Held>,
    state: Mutex<State>,
    unshared: Counter,
}

#[derive(Debug, Default)]
struct State {
    away_until: Option<Instant>,
    /// Whether it was said that the source is away, which is said once.
    is_told: bool,
}

impl Shared {
    pub(super) fn new(
        rates: Arc<dyn SharedRates>,
        bucket: String,
        per_second: f64,
        counter: impl FnOnce(&'static str) -> Counter,
    ) -> Self {
        Self {
            rates,
            bucket,
            per_second,
            room: Draw::new("", per_second, 1).room().max(1),
            slice: number(SLICE, Draw::new("", per_second, 1).spacing()).max(1),
            wanted: AtomicUsize::new(0),
            owed: AtomicU32::new(0),
            held: Turnstile::default(),
            state: Mutex::default(),
            unshared: counter("secrets_limit_unshared_total"),
        }
    }

    /// Whether the source failed a moment ago.
    pub(super) fn is_away(&self) -> bool {
        let until = self.state.lock().away_until;
        until.is_some_and(|until| until > Instant::now())
    }

    /// Waits for the slots of a call. Slots of a caller that gives up meanwhile are lost.
    pub(super) async fn take(&self, units: u32) -> Result<(), Away> {
        let _wanted = Wanted::by(self, units);
        let mut held = self.held.lock().await;
        loop {
            if self.is_away() {
                return Err(Away);
            }
            if self.owed.load(Ordering::Acquire) > self.room {
                // Other processes draw between one window's worth and the next.
                let paid = self.ask(&mut held, 0).await?;
                sleep_until(paid).await;
                continue;
            }
            held.forget_lapsed(Instant::now());
            if held.count() < u64::from(units) {
                self.draw(&mut held, units, 0).await?;
            }
            let Some(last) = held.take(units) else {
                // Some have lapsed while the others were drawn.
                continue;
            };
            let at = last.at.max(Instant::now());
            let is_last = held.end().is_none_or(|end| end < at + AHEAD);
            if is_last && self.missing(&held, units) > 0 {
                self.draw(&mut held, 1, units).await?;
            }
            sleep_until(last.at).await;
            if last.until >= Instant::now() {
                return Ok(());
            }
        }
    }

    /// Counts requests that were made without a slot; the next draws pay for them.
    pub(super) fn owe(&self, units: u32) {
        let add = |owed: u32| Some(owed.saturating_add(units));
        // The closure never refuses.
        let _ = self
            .owed
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    /// How many requests wait for slots that nobody has drawn, beside those that are served.
    fn missing(&self, held: &Held, served: u32) -> u32 {
        let wanted = self.wanted.load(Ordering::Acquire);
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let missing = wanted
            .saturating_sub(served.into())
            .saturating_sub(held.count());
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    /// Draws as many slots as the callers wait for, at least these, and beyond these no more than a
    /// slice. Others can draw what nobody here needs.
    async fn draw(&self, held: &mut Held, least: u32, served: u32) -> Result<(), Away> {
        let missing = self.missing(held, served);
        let wanted = missing.clamp(least, self.slice.max(least));
        self.ask(held, wanted).await.map(drop)
    }

    /// Draws so many slots, and those that pay for what is owed, a window's worth at most. Returns when
    /// what it has paid for is over.
    async fn ask(&self, held: &mut Held, wanted: u32) -> Result<Instant, Away> {
        let owed = self.owed.load(Ordering::Acquire).min(self.room);
        let draw = Draw::new(
            self.bucket.clone(),
            self.per_second,
            wanted.saturating_add(owed),
        );
        let asked = Instant::now();
        let answer = timeout(PATIENCE, self.rates.draw(&draw)).await;
        let reason = match answer {
            Ok(Ok(slice)) => {
                self.returned();
                self.owed.fetch_sub(owed, Ordering::AcqRel);
                return Ok(held.add(slice, asked, owed, wanted));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer for {PATIENCE:?}"),
        };
        self.left(&reason);
        Err(Away)
    }

    fn returned(&self) {
        let mut state = self.state.lock();
        state.away_until = None;
        if std::mem::take(&mut state.is_told) {
            tracing::info!(bucket = self.bucket, "the quota is shared again");
        }
    }

    fn left(&self, reason: &str) {
        let mut state = self.state.lock();
        state.away_until = Some(Instant::now() + PAUSE);
        // The window has paid for it, also for what was learned since it was asked.
        self.owed.store(0, Ordering::Release);
        self.unshared.add(1);
        if !std::mem::replace(&mut state.is_told, true) {
            tracing::warn!(
                bucket = self.bucket,
                reason,
                "the database of shared rates cannot be used: this process keeps to its own share of \
                 the quota, by `replicas`, until it can"
            );
        }
    }
}

/// Counts the requests that a caller waits for.
struct Wanted<'a>(&'a Shared, usize);

impl<'a> Wanted<'a> {
    fn by(shared: &'a Shared, units: u32) -> Self {
        let units = usize::try_from(units).unwrap_or(usize::MAX);
        shared.wanted.fetch_add(units, Ordering::AcqRel);
        Self(shared, units)
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// Slots in hand, in their order.
#[derive(Debug, Default)]
struct Held(VecDeque<Run>);

/// Slots of one draw.
#[derive(Debug)]
struct Run {
    /// When the next one comes, by the latest reading of the source's clock.
    next: Instant,
    spacing: Duration,
    left: u32,
    /// How long one is good for.
    good: Duration,
}

/// The last of the slots of a call.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: Instant,
    until: Instant,
}

impl Held {
    /// Adds the slots of an answer, without those that pay for what was owed. Returns when these are over.
    fn add(&mut self, slice: Slice, asked: Instant, owed: u32, units: u32) -> Instant {
        let ahead = slice.first.saturating_sub(slice.now);
        // The source read its clock between the question and the answer, so the slot has certainly come
        // at this time, and came this much earlier at most.
        let uncertain = asked.elapsed();
        let now = Instant::now();
        let Some(first) = now
            .checked_add(ahead)
            .and_then(|first| first.checked_add(slice.spacing.checked_mul(owed)?))
        else {
            return now;
        };
        self.0.push_back(Run {
            next: first,
            spacing: slice.spacing,
            left: units,
            good: LATEST.saturating_sub(uncertain).max(GRACE),
        });
        first
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|run| u64::from(run.left)).sum()
    }

    fn end(&self) -> Option<Instant> {
        self.0
            .back()
            .map(|run| run.slot(run.left.saturating_sub(1)).at)
    }

    fn forget_lapsed(&mut self, now: Instant) {
        while let Some(run) = self.0.front_mut() {
            run.forget_lapsed(now);
            if run.left > 0 {
                return;
            }
            self.0.pop_front();
        }
    }

    /// Takes slots out, and returns the last of them.
    fn take(&mut self, units: u32) -> Option<Last> {
        if self.count() < u64::from(units) {
            return None;
        }
        let mut missing = units;
        loop {
            let run = self.0.front_mut()?;
            let taken = missing.min(run.left);
            missing -= taken;
            let last = run.slot(taken.saturating_sub(1));
            run.next = run.slot(taken).at;
            run.left -= taken;
            if run.left == 0 {
                self.0.pop_front();
            }
            if missing == 0 {
                return Some(last);
            }
        }
    }
}

impl Run {
    fn slot(&self, number: u32) -> Last {
        // A run lasts for a slice of a second, or one call's requests.
        let after = self.spacing.checked_mul(number).unwrap_or(Duration::MAX);
        let at = self.next.checked_add(after).unwrap_or(self.next);
        Last {
            at,
            until: at.checked_add(self.good).unwrap_or(at),
        }
    }

    fn forget_lapsed(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.slot(0).until);
        if late.is_zero() {
            return;
        }
        let lapsed = match self.spacing.as_nanos() {
            0 => self.left,
            spacing => {
                let number = late.as_nanos().div_ceil(spacing);
                u32::try_from(number).unwrap_or(u32::MAX).min(self.left)
            }
        };
        self.next = self.slot(lapsed).at;
        self.left -= lapsed;
    }
}

#[cfg(test)]
mod bucket;
#[cfg(test)]
mod tests;
