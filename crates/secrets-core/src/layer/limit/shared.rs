//! One class of operations whose quota several processes share.
//!
//! A request begins when its slot has certainly come, and at most [`LATEST`] after it; a slot of which
//! that cannot be said is not used. However late an answer of the source is, its slots keep their times,
//! so it adds nothing to the quota.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use parking_lot::Mutex;
use tokio::sync::Mutex as Turnstile;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::clock::Clock;
use self::held::Slots;
use crate::layer::meter::Counter;
use crate::rates::{Draw, LATEST, SharedRates, Slice, number};
use crate::{Error, ErrorKind, Result};

mod clock;
mod held;

/// The time for which slots are drawn at once.
const SLICE: Duration = Duration::from_millis(100);
/// The next slots are drawn when those in hand last no longer than this.
const AHEAD: Duration = Duration::from_millis(50);
/// How long the source is left alone after it has failed.
const PAUSE: Duration = Duration::from_secs(30);
/// What a slot is good for at least, where it is used.
const GRACE: Duration = Duration::from_millis(10);
/// What took longer says too little about the source's clock.
const PROMPT: Duration = LATEST.saturating_sub(GRACE);
/// After so many answers whose slots had lapsed when they arrived, slots are drawn for the time when the
/// answer will be there, until one is prompt. Not before: where others have drawn those before, slots come
/// later anyway, and nobody gets what lies between.
const LATE: u32 = 2;
/// After so many of them, without a prompt one within a minute or so, the source is far away rather than
/// busy. Its slots are used as late as it answers, because otherwise nothing would ever be sent.
const FAR: u32 = 10;
/// A source that answers has answered within this time.
const LONGEST: Duration = Duration::from_secs(2);
/// What nobody has waited for is asked anew.
const STALE: Duration = Duration::from_millis(500);

/// The source cannot be reached: this process keeps to its own share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Away;

#[derive(Debug)]
pub(super) struct Shared {
    rates: Arc<dyn SharedRates>,
    bucket: String,
    store: Arc<str>,
    class: &'static str,
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

#[derive(Debug, Default)]
struct Held {
    slots: Slots,
    /// The question that is under way. Whoever comes next waits for its answer, if its caller gave up.
    asking: Option<Asking>,
    clock: Option<Clock>,
    /// How many answers in a row were not prompt, and how long the last one took.
    slow: u32,
    took: Duration,
    /// How many times slots had lapsed when they arrived, since the last prompt answer.
    late: u32,
}

struct Asking {
    /// One task, so that the question comes to its end, and gives back what it holds of the source, also
    /// while nobody waits for it. It is aborted with this.
    task: JoinSet<Result<Slice>>,
    asked: Instant,
    /// When somebody began or ceased to wait for it.
    seen: Instant,
    owed: u32,
    wanted: u32,
}

impl Asking {
    /// Can be called again when a caller gave up.
    async fn answer(&mut self) -> Result<Slice> {
        match self.task.join_next().await {
            Some(Ok(answer)) => answer,
            // The runtime in which it was asked is gone, or the source has panicked.
            Some(Err(_)) | None => Err(Error::new(
                ErrorKind::Unavailable,
                "the draw was broken off",
            )),
        }
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking")
            .field("asked", &self.asked)
            .field("owed", &self.owed)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        rates: Arc<dyn SharedRates>,
        account: &str,
        (store, class): (&Arc<str>, &'static str),
        per_second: f64,
        counter: impl FnOnce(&'static str) -> Counter,
    ) -> Self {
        Self {
            rates,
            bucket: format!("{account} {class}"),
            store: Arc::clone(store),
            class,
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

    /// Waits for the slots of a call.
    pub(super) async fn take(&self, units: u32) -> Result<(), Away> {
        let _wanted = Wanted::by(self, units);
        let mut held = self.held.lock().await;
        loop {
            if self.is_away() {
                return Err(Away);
            }
            if self.owed.load(Ordering::Acquire) > self.room {
                // Other processes draw between one window's worth and the next.
                if let Some(paid) = self.pay(&mut held).await? {
                    sleep_until(paid).await;
                }
                continue;
            }
            held.forget_lapsed(Instant::now());
            if held.slots.count() < u64::from(units) {
                self.draw(&mut held, units).await?;
            }
            let Some(last) = held.slots.take(units) else {
                // Some have lapsed while the others were drawn.
                continue;
            };
            let at = last.at.max(Instant::now());
            let ahead = AHEAD.max(held.ahead());
            let is_last = held.slots.end().is_none_or(|end| end < at + ahead);
            if is_last && held.asking.is_none() && self.missing(&held, units) > 0 {
                self.ask(&mut held, 1, units);
            }
            self.wait(&mut held, last.at).await;
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
            .saturating_sub(held.slots.count());
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    /// Asks for as many slots as the callers wait for, at least these, and beyond these no more than a
    /// slice. Others can draw what nobody here needs. They come with those that pay for what is owed, a
    /// window's worth at most.
    fn ask(&self, held: &mut Held, least: u32, served: u32) {
        let ahead = held.ahead();
        let most = if held.good(Instant::now()).is_some() {
            // Until the next answer, if that takes longer than a slice.
            let spacing = Draw::new("", self.per_second, 1).spacing();
            self.slice.max(number(ahead, spacing)).max(least)
        } else {
            // They are lost if the answer takes long.
            least
        };
        let wanted = self.missing(held, served).clamp(least, most);
        let owed = self.owed.load(Ordering::Acquire).min(self.room);
        let units = wanted.saturating_add(owed);
        let draw = Draw::new(self.bucket.clone(), self.per_second, units).with_ahead(ahead);
        let (rates, now) = (Arc::clone(&self.rates), Instant::now());
        let mut task = JoinSet::new();
        task.spawn(async move { rates.draw(&draw).await });
        held.asking = Some(Asking {
            task,
            asked: now,
            seen: now,
            owed,
            wanted,
        });
    }

    /// Waits for the answer to a question under way, or to a new one for at least so many slots.
    async fn draw(&self, held: &mut Held, least: u32) -> Result<(), Away> {
        if held.asking.is_none() {
            self.ask(held, least, 0);
        }
        self.answer(held).await.map(drop)
    }

    /// Pays for what is owed, a window's worth. Returns when that is over.
    async fn pay(&self, held: &mut Held) -> Result<Option<Instant>, Away> {
        self.answer(held).await?;
        self.ask(held, 0, u32::MAX);
        self.answer(held).await
    }

    /// Waits until a time, and meanwhile for an answer.
    async fn wait(&self, held: &mut Held, until: Instant) {
        let mut slept = pin!(sleep_until(until));
        let answer = match &mut held.asking {
            None => None,
            Some(asking) => {
                let answered = match select(pin!(asking.answer()), slept.as_mut()).await {
                    Either::Left((answer, _)) => Some(answer),
                    Either::Right(_) => None,
                };
                if answered.is_none() {
                    asking.seen = Instant::now();
                    return;
                }
                answered
            }
        };
        if let Some((answer, asking)) = answer.zip(held.asking.take()) {
            // Whoever waits here has a slot, also if the source has failed since.
            let _ = self.note(held, &asking, answer);
        }
        slept.await;
    }

    /// Waits for the answer to the question under way. Returns when what it pays for is over.
    async fn answer(&self, held: &mut Held) -> Result<Option<Instant>, Away> {
        let Some(asking) = &mut held.asking else {
            return Ok(None);
        };
        let answer = asking.answer().await;
        match held.asking.take() {
            None => Ok(None),
            Some(asking) => self.note(held, &asking, answer).map(Some),
        }
    }

    fn note(
        &self,
        held: &mut Held,
        asking: &Asking,
        answer: Result<Slice>,
    ) -> Result<Instant, Away> {
        match answer {
            Ok(slice) => {
                self.returned();
                self.owed.fetch_sub(asking.owed, Ordering::AcqRel);
                Ok(held.add(slice, asking))
            }
            Err(error) => {
                self.left(&error.to_string());
                Err(Away)
            }
        }
    }

    fn returned(&self) {
        let mut state = self.state.lock();
        state.away_until = None;
        if std::mem::take(&mut state.is_told) {
            let (store, class) = (&*self.store, self.class);
            tracing::info!(store, class, "the quota is shared again");
        }
    }

    fn left(&self, reason: &str) {
        let mut state = self.state.lock();
        state.away_until = Some(Instant::now() + PAUSE);
        // The window has paid for it, also for what was learned since it was asked.
        self.owed.store(0, Ordering::Release);
        self.unshared.add(1);
        if !std::mem::replace(&mut state.is_told, true) {
            // As the metrics do; the account is for the table alone.
            let (store, class) = (&*self.store, self.class);
            tracing::warn!(
                store,
                class,
                reason,
                "the database of shared rates cannot be used: this process keeps to its own share of \
                 the quota, by `replicas`, until it can"
            );
        }
    }
}

impl Held {
    /// Adds the slots of an answer, without those that pay for what was owed. Returns when these are over.
    fn add(&mut self, slice: Slice, asking: &Asking) -> Instant {
        let (asked, now) = (asking.asked, Instant::now());
        let clock = match self.clock {
            None => Clock::new(asked, now, slice.now),
            Some(clock) => clock.after(asked, now, slice.now),
        };
        self.clock = Some(clock);
        self.took = now - asked;
        if self.took > PROMPT {
            self.slow = self.slow.saturating_add(1);
        } else {
            (self.slow, self.late) = (0, 0);
        }
        let paid = slice.spacing.checked_mul(asking.owed);
        let first = paid.and_then(|paid| slice.first.checked_add(paid));
        let first = clock.here_at(first.unwrap_or(slice.first));
        let good = self.good(now);
        if self.slow > 0 && good.is_none_or(|good| first + good < now) {
            self.late = self.late.saturating_add(1);
        }
        if let Some(good) = good
            && asking.wanted > 0
        {
            self.slots.add(slice, first, asking.wanted, good);
        }
        first
    }

    fn forget_lapsed(&mut self, now: Instant) {
        self.slots.forget_lapsed(now);
        // A question of which nobody has taken note since.
        self.asking
            .take_if(|asking| now.saturating_duration_since(asking.seen) > STALE);
    }

    /// How long after it has certainly come a slot is good for. `None` as long as it may have lapsed by
    /// then: the next answer may say more about the time.
    fn good(&self, now: Instant) -> Option<Duration> {
        let uncertainty = self.clock?.uncertainty(now);
        if uncertainty <= PROMPT {
            Some(LATEST.saturating_sub(uncertainty))
        } else if self.slow >= FAR {
            Some(GRACE)
        } else {
            None
        }
    }

    /// How far ahead the next slots have to be, so that they have not lapsed when they arrive.
    fn ahead(&self) -> Duration {
        match self.late >= LATE {
            true => (self.took + self.took / 2).min(LONGEST),
            false => Duration::ZERO,
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

#[cfg(test)]
mod bucket;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;
