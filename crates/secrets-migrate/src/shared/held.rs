//! The claim of a process on a page.
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures::future::{BoxFuture, Either, select};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{Claim, MigrateResult, Sharing, Stop, Transition};

/// A journal that knows whether a claim lasts.
pub(crate) trait Claims: Debug + Send + Sync {
    /// [`Sharing::session`].
    fn current_session(&self) -> u64;

    /// [`Sharing::renew`].
    fn renew_claim(&self, claim: Claim) -> BoxFuture<'_, MigrateResult<()>>;
}

impl Claims for dyn Sharing + '_ {
    fn current_session(&self) -> u64 {
        self.session()
    }

    fn renew_claim(&self, claim: Claim) -> BoxFuture<'_, MigrateResult<()>> {
        self.renew(claim)
    }
}

/// A page that this process has claimed.
#[derive(Debug)]
pub(crate) struct Held<'s, C: Claims + ?Sized = dyn Sharing + 's> {
    pub(super) sharing: &'s C,
    pub(super) claim: Claim,
    /// When it was last known to last; `None` if the journal could not say so.
    renewed: Mutex<Option<Moment>>,
    progress: AtomicU64,
}

/// A time on two clocks, of which one stands still while the machine sleeps and the other may be set, and
/// the journal's session then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(Instant, SystemTime, u64);

impl Moment {
    pub(crate) fn now(session: u64) -> Self {
        Self(Instant::now(), SystemTime::now(), session)
    }

    fn is_within(self, length: Duration) -> bool {
        self.0.elapsed() < length && self.1.elapsed().is_ok_and(|elapsed| elapsed < length)
    }
}

impl<'s, C: Claims + ?Sized> Held<'s, C> {
    /// A claim that was asked for at this time.
    pub(crate) fn new(sharing: &'s C, claim: Claim, asked: Moment) -> Arc<Self> {
        Arc::new(Self {
            sharing,
            claim,
            renewed: Mutex::new(Some(asked)),
            progress: AtomicU64::new(0),
        })
    }

    /// The journal.
    pub(crate) fn sharing(&self) -> &'s C {
        self.sharing
    }

    /// The claim itself.
    pub(crate) fn claim(&self) -> Claim {
        self.claim
    }

    /// Notes that a request has returned.
    pub(crate) fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the journal whether the page still is this process's, unless it was a moment ago, in the same
    /// session.
    pub(crate) async fn check(&self) -> MigrateResult<()> {
        let renewed = *self.renewed.lock();
        let is_known = renewed.is_some_and(|moment| {
            moment.is_within(self.claim.lease / 3) && moment.2 == self.sharing.current_session()
        });
        if is_known {
            return Ok(());
        }
        self.renew().await
    }

    /// Asks the journal whether the page still is this process's.
    pub(crate) async fn renew(&self) -> MigrateResult<()> {
        let asked = Moment::now(self.sharing.current_session());
        let renewed = self.sharing.renew_claim(self.claim).await;
        *self.renewed.lock() = renewed.is_ok().then_some(asked);
        renewed
    }

    /// Runs work, and renews the claim whenever it has made progress.
    pub(crate) async fn during<T>(
        &self,
        work: impl Future<Output = MigrateResult<T>>,
    ) -> MigrateResult<T> {
        let renewals = async {
            let mut seen = 0;
            loop {
                sleep(self.claim.lease / 4).await;
                let progress = self.progress.load(Ordering::Relaxed);
                // What fails here fails again where it matters.
                if progress != seen && self.renew().await.is_ok() {
                    seen = progress;
                }
            }
        };
        let (work, renewals) = (std::pin::pin!(work), std::pin::pin!(renewals));
        match select(work, renewals).await {
            Either::Left((result, _)) => result,
            Either::Right((never, _)) => never,
        }
    }
}

impl Held<'_> {
    /// Writes transitions of the page, also after its end.
    pub(crate) async fn advance(&self, transitions: &[Transition]) -> MigrateResult<()> {
        // Renews the page, but not the pass, which another command may replace when it has lapsed.
        self.sharing.advance_under(self.claim, transitions).await
    }

    /// Stores a note, if the page still is this process's.
    pub(crate) async fn put_note(&self, key: &str, text: &str) -> MigrateResult<()> {
        self.sharing.put_note_under(self.claim, key, text).await
    }

    /// Writes the last transitions of the page, and what all processes must know of it.
    pub(crate) async fn finish(
        &self,
        transitions: &[Transition],
        found: Option<Stop>,
    ) -> MigrateResult<()> {
        self.sharing.finish(self.claim, transitions, found).await
    }

    /// Writes transitions, and gives the page back for another process to end.
    pub(crate) async fn leave(&self, transitions: &[Transition]) -> MigrateResult<()> {
        self.advance(transitions).await?;
        self.sharing.release(self.claim).await
    }
}

/// Checks the page, where the journal is shared.
pub(crate) async fn check<C: Claims + ?Sized>(held: Option<&Held<'_, C>>) -> MigrateResult<()> {
    match held {
        None => Ok(()),
        Some(held) => held.check().await,
    }
}
