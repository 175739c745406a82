//! One login for any number of callers.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a login that failed is not made again. All who waited for it have its answer coming; so
/// have those who were queued elsewhere, in an SDK or for a place under a limit, and ask one by one.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// What is made once and kept for all callers: credentials, a token.
///
/// Any number of callers make it once, and share the error where that fails, for a second. Nothing is
/// kept half made: a caller that is dropped while making it leaves the making to the next.
pub struct Shared<T, E> {
    held: RwLock<Option<Arc<T>>>,
    /// Taken while making; how and when that last failed.
    making: Mutex<Option<(Instant, E)>>,
}

impl<T, E> Default for Shared<T, E> {
    fn default() -> Self {
        Self {
            held: RwLock::new(None),
            making: Mutex::new(None),
        }
    }
}

/// Never what is held.
impl<T, E> fmt::Debug for Shared<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.held.read().is_some();
        f.debug_struct("Shared").field("held", &held).finish()
    }
}

impl<T, E: Clone> Shared<T, E> {
    /// What is held now, good or not.
    pub fn held(&self) -> Option<Arc<T>> {
        self.held.read().clone()
    }

    /// What is held, if it is good; created again otherwise. `make` gets what was held until then.
    ///
    /// # Errors
    /// The error of `make`: from our own call, or from another caller's while we waited or within the last second.
    pub async fn get<F>(
        &self,
        is_good: impl Fn(&T) -> bool,
        make: impl FnOnce(Option<Arc<T>>) -> F,
    ) -> Result<Arc<T>, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        if let Some(held) = self.held().filter(|held| is_good(held)) {
            return Ok(held);
        }
        let asked = Instant::now();
        let mut failed = self.making.lock().await;
        let old = self.held();
        if let Some(held) = old.as_ref().filter(|held| is_good(held)) {
            return Ok(Arc::clone(held));
        }
        if let Some(error) = still_failed(&failed, asked) {
            return Err(error);
        }
        match make(old).await {
            Ok(made) => {
                *failed = None;
                Ok(self.hold(made))
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Returns another value than the refused one: what another caller has made meanwhile, or what
    /// `make` finds; `None` if it finds nothing else. The refused value stays until there is another.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn replace<F>(
        &self,
        refused: &Arc<T>,
        make: impl FnOnce() -> F,
    ) -> Result<Option<Arc<T>>, E>
    where
        F: Future<Output = Result<Option<T>, E>>,
    {
        let asked = Instant::now();
        let mut failed = self.making.lock().await;
        if let Some(held) = self.held().filter(|held| !Arc::ptr_eq(held, refused)) {
            return Ok(Some(held));
        }
        if let Some(error) = still_failed(&failed, asked) {
            return Err(error);
        }
        match make().await {
            Ok(made) => {
                *failed = None;
                Ok(made.map(|made| self.hold(made)))
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Puts a new value in place of this one, unless it has been replaced. Returns whether it did.
    pub fn update(&self, old: &Arc<T>, new: T) -> bool {
        let mut held = self.held.write();
        let is_current = held.as_ref().is_some_and(|held| Arc::ptr_eq(held, old));
        if is_current {
            *held = Some(Arc::new(new));
        }
        is_current
    }

    /// Drops this value, unless it has been replaced.
    pub fn forget(&self, old: &Arc<T>) {
        let mut held = self.held.write();
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, old)) {
            *held = None;
        }
    }

    fn hold(&self, made: T) -> Arc<T> {
        let made = Arc::new(made);
        *self.held.write() = Some(Arc::clone(&made));
        made
    }
}

/// The last error, if it applies to a caller that started at this time.
fn still_failed<E: Clone>(failed: &Option<(Instant, E)>, asked: Instant) -> Option<E> {
    let (at, error) = failed.as_ref()?;
    (*at >= asked || at.elapsed() < FAILED_FOR).then(|| error.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::{advance, sleep};

    use super::*;

    type Number = Shared<u32, &'static str>;

    /// Makes numbers, and counts how often it was asked to.
    #[derive(Default)]
    struct Maker(AtomicU32);

    impl Maker {
        async fn make(&self, answer: Result<u32, &'static str>) -> Result<u32, &'static str> {
            self.0.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(10)).await;
            answer
        }

        fn calls(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_callers_make_it_once_and_share_the_failure() {
        for (answer, expected) in [(Ok(1), Ok(1)), (Err("no"), Err("no"))] {
            let (shared, maker) = (Number::default(), Maker::default());
            let get = || async {
                let got = shared.get(|_| true, |_| maker.make(answer)).await;
                got.map(|held| *held)
            };
            let all = tokio::join!(get(), get(), get(), get());
            assert_eq!(all, (expected, expected, expected, expected));
            assert_eq!(maker.calls(), 1);
            // Callers that were queued elsewhere arrive a little later.
            assert_eq!(get().await, expected);
            assert_eq!(maker.calls(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_for_a_second_only() {
        let (shared, maker) = (Number::default(), Maker::default());
        let failed = shared.get(|_| true, |_| maker.make(Err("no"))).await;
        assert_eq!(failed.unwrap_err(), "no");
        advance(FAILED_FOR).await;
        let made = shared.get(|_| true, |_| maker.make(Ok(2))).await;
        assert_eq!((*made.unwrap(), maker.calls()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_replaced_once() {
        let (shared, maker) = (Number::default(), Maker::default());
        let first = shared.get(|_| true, |_| maker.make(Ok(1))).await.unwrap();
        let replace = || shared.replace(&first, || async { maker.make(Ok(2)).await.map(Some) });
        let (one, other) = tokio::join!(replace(), replace());
        let (one, other) = (one.unwrap().unwrap(), other.unwrap().unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(maker.calls(), 2);
        // There is nothing else than what was refused: it stays.
        let held = shared.held().unwrap();
        assert_eq!(shared.replace(&held, || async { Ok(None) }).await, Ok(None));
        assert!(shared.held().is_some());
        // Looking for another fails: the others who were refused share the failure.
        let fail = || shared.replace(&held, || async { maker.make(Err("no")).await.map(Some) });
        assert_eq!(tokio::join!(fail(), fail()), (Err("no"), Err("no")));
        assert_eq!((shared.held().as_deref(), maker.calls()), (Some(&2), 3));
        shared.forget(&held);
        assert_eq!(shared.held(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_current_value_is_updated() {
        let (shared, maker) = (Number::default(), Maker::default());
        let first = shared.get(|_| true, |_| maker.make(Ok(1))).await.unwrap();
        assert!(shared.update(&first, 2));
        assert!(!shared.update(&first, 3));
        assert_eq!(shared.held().as_deref(), Some(&2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_caller_leaves_the_making_to_the_next() {
        let (shared, maker) = (Number::default(), Maker::default());
        let dropped = shared.get(|_| true, |_| maker.make(Ok(1)));
        let short = tokio::time::timeout(Duration::from_millis(1), dropped).await;
        assert!(short.is_err());
        let made = shared.get(|_| true, |_| maker.make(Ok(2))).await;
        assert_eq!(*made.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_good_is_made_anew_from_what_was_held() {
        let (shared, maker) = (Number::default(), Maker::default());
        for expected in 1..4 {
            let made = shared
                .get(
                    |held| *held == expected,
                    |old| maker.make(Ok(old.map_or(1, |old| *old + 1))),
                )
                .await;
            assert_eq!(*made.unwrap(), expected);
        }
    }
}
