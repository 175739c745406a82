//! Quotas that several processes share: what a source of them promises.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::Result;

/// A request may begin this much later than its slot, so this much more than a second has to pass
/// between a slot and the one that a whole quota separates from it.
#[cfg(feature = "layers")]
pub(crate) const LATEST: Duration = Duration::from_millis(40);

/// The second in which a provider counts, how late a request may begin, and as much again for its way:
/// how much longer than another one it may take from where it is let through to where it is counted.
const WINDOW: Duration = Duration::from_millis(1080);

/// A place that hands out the requests of a quota to any number of processes.
///
/// Every class of requests of a store has a *bucket*. A bucket is a sequence of *slots*, each for one
/// request at one time; a process draws several at once.
///
/// # Contract
/// - No slot is handed out twice. No [`window`](Draw::window), wherever it begins, contains more slots
///   than [`per_second`](Draw::per_second), rounded up.
/// - Where the slots so far leave room for all that are drawn, they are handed out at once; otherwise
///   the next ones, at even distances of [`spacing`](Draw::spacing), which lie in the future where other
///   processes have drawn those before.
/// - A draw that is [ahead](Draw::ahead) gets no slot before that time, and none at once.
/// - Nobody gives slots back: those of a process that ends or dies pass like any others.
/// - One clock counts for all processes, and it is the source's. Caller and source agree on the time by
///   the answers: [`Slice::now`] was the time there between question and answer.
///
/// `conformance::shared_rates` checks an implementation.
#[async_trait]
pub trait SharedRates: Debug + Send + Sync + 'static {
    /// Draws the next slots of a bucket.
    ///
    /// # Errors
    /// If the source cannot be reached within the time for which its callers can wait. They then keep to
    /// their own share. A source for callers that can wait longer waits.
    async fn draw(&self, draw: &Draw) -> Result<Slice>;
}

/// The same source with buckets of their own, for what must not share with others.
#[must_use]
pub fn named(rates: Arc<dyn SharedRates>, name: impl Into<String>) -> Arc<dyn SharedRates> {
    Arc::new(Named {
        rates,
        name: name.into(),
    })
}

#[derive(Debug)]
struct Named {
    rates: Arc<dyn SharedRates>,
    name: String,
}

#[async_trait]
impl SharedRates for Named {
    async fn draw(&self, draw: &Draw) -> Result<Slice> {
        let bucket = format!("{}: {}", self.name, draw.bucket);
        let draw = Draw {
            bucket,
            ..draw.clone()
        };
        self.rates.draw(&draw).await
    }
}

/// A question for slots.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Draw {
    /// The account at the provider and the class of requests.
    pub bucket: String,
    /// The quota that all processes share, in requests per second, above 0.
    pub per_second: f64,
    /// How many slots.
    pub units: u32,
    /// How far from now the first slot is at least: longer than the answer takes, where that is slow,
    /// because a slot that has passed when it arrives is lost. Zero unless told.
    pub ahead: Duration,
}

impl Draw {
    /// Asks for so many slots of a bucket.
    #[must_use]
    pub fn new(bucket: impl Into<String>, per_second: f64, units: u32) -> Self {
        Self {
            bucket: bucket.into(),
            per_second,
            units,
            ahead: Duration::ZERO,
        }
    }

    /// Sets how far from now the first slot is at least.
    #[must_use]
    pub fn with_ahead(mut self, ahead: Duration) -> Self {
        self.ahead = ahead;
        self
    }

    /// The time that a whole quota takes: 1.08 seconds, because requests arrive up to 80 milliseconds
    /// after their slot.
    #[must_use]
    pub fn window(&self) -> Duration {
        WINDOW
    }

    /// The distance of two slots: the window by the quota.
    #[must_use]
    pub fn spacing(&self) -> Duration {
        Duration::try_from_secs_f64(WINDOW.as_secs_f64() / self.per_second)
            .unwrap_or(WINDOW)
            .max(Duration::from_nanos(1))
    }

    /// The most slots that a window has room for at once.
    #[must_use]
    pub fn room(&self) -> u32 {
        number(WINDOW, self.spacing())
    }
}

/// How many slots at this distance a time has.
pub(crate) fn number(time: Duration, spacing: Duration) -> u32 {
    let number = time.as_nanos() / spacing.as_nanos().max(1);
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Slots that were drawn: as many as were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slice {
    /// The time at which they were drawn, by the clock of the source.
    pub now: Duration,
    /// The time of the first one, by the same clock.
    pub first: Duration,
    /// The distance of the following ones: zero if all are for now.
    pub spacing: Duration,
}

impl Slice {
    /// Describes slots.
    #[must_use]
    pub fn new(now: Duration, first: Duration, spacing: Duration) -> Self {
        Self {
            now,
            first,
            spacing,
        }
    }
}
