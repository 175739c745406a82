//! A source of shared rates in this process, in virtual time: the rules of a bucket, once more.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::rates::{Draw, SharedRates, Slice};
use crate::{Error, ErrorKind, Result};

/// Buckets that clones share, as processes share a database.
#[derive(Clone, Debug)]
pub(super) struct Buckets(Arc<Inner>);

struct Inner {
    began: Instant,
    /// How long the next way takes, there or back.
    way: Mutex<Box<dyn FnMut() -> Duration + Send>>,
    fails: AtomicBool,
    asked: AtomicU32,
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("buckets", &self.buckets)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Bucket {
    next: Duration,
    /// Until when nothing is handed out at once.
    quiet: Duration,
    since: Duration,
    spent: u32,
    before: u32,
}

impl Buckets {
    pub(super) fn answering_after(latency: Duration) -> Self {
        Self::with_ways(move || latency)
    }

    pub(super) fn with_ways(way: impl FnMut() -> Duration + Send + 'static) -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            way: Mutex::new(Box::new(way)),
            fails: AtomicBool::new(false),
            asked: AtomicU32::new(0),
            buckets: Mutex::default(),
        }))
    }

    pub(super) fn answer_after(&self, latency: Duration) {
        *self.0.way.lock() = Box::new(move || latency);
    }

    pub(super) fn fail(&self, fails: bool) {
        self.0.fails.store(fails, Ordering::Relaxed);
    }

    pub(super) fn asked(&self) -> u32 {
        self.0.asked.load(Ordering::Relaxed)
    }

    async fn travel(&self) {
        let way = self.0.way.lock()();
        tokio::time::sleep(way).await;
    }
}

#[async_trait]
impl SharedRates for Buckets {
    async fn draw(&self, draw: &Draw) -> Result<Slice> {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        self.travel().await;
        if self.0.fails.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "as told"));
        }
        let now = self.0.began.elapsed() + Duration::from_secs(1000);
        let slice = {
            let mut buckets = self.0.buckets.lock();
            buckets
                .entry(draw.bucket.clone())
                .or_default()
                .draw(draw, now)
        };
        self.travel().await;
        Ok(slice)
    }
}

impl Bucket {
    fn draw(&mut self, draw: &Draw, now: Duration) -> Slice {
        if now >= self.since + draw.window() {
            self.before = if now >= self.since + draw.window() * 2 {
                0
            } else {
                self.spent
            };
            (self.spent, self.since) = (0, now);
        }
        let first = self.next.max(now + draw.ahead);
        self.next = first + draw.spacing() * draw.units;
        let is_now = draw.ahead.is_zero() && now >= self.quiet;
        if is_now && self.spent + self.before + draw.units <= draw.room() {
            self.spent += draw.units;
            return Slice::new(now, now, Duration::ZERO);
        }
        self.quiet = self.next + draw.window();
        Slice::new(now, first, draw.spacing())
    }
}

#[cfg(feature = "conformance")]
#[tokio::test(start_paused = true)]
async fn they_keep_every_promise() {
    let buckets = Buckets::answering_after(Duration::from_millis(2));
    crate::conformance::shared_rates(&[buckets.clone(), buckets.clone(), buckets]).await;
}
