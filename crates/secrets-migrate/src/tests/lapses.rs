//! Claims that another process takes over while this one works under them.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence_core::{
    DeleteOptions, ManagedCoordinate, Recovery, SecretPersistenceExt as _,
};

use super::tap::{Process, TapJournal};
use super::world::{World, assert_complete, contents, remove};
use crate::session::{Meter, Session, Unit};
use crate::shared::{Held, Moment};
use crate::{
    Claim, ConfigurationsPage, Halt, Journal as _, Layout, Mark, Member, Mention, MigrateError,
    MigrateErrorKind, MigrateResult, Migration, Next, Phase, Position, SharedWork, Sharing, Stop,
    Transition,
};

const LAG: Duration = Duration::from_secs(2);

/// A shared journal that grants every claim until it is told to refuse all.
#[derive(Debug, Default)]
struct Claims {
    lapsed: AtomicBool,
    session: AtomicU64,
    renewals: AtomicU64,
}

impl Claims {
    fn answer<T: Default>(&self) -> MigrateResult<T> {
        if self.lapsed.load(Ordering::SeqCst) {
            Err(lapsed())
        } else {
            Ok(T::default())
        }
    }

    fn lapse(&self) {
        self.lapsed.store(true, Ordering::SeqCst);
    }

    fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::SeqCst)
    }
}

fn lapsed() -> MigrateError {
    MigrateError::new(MigrateErrorKind::Lapsed, "another process has the page")
}

#[async_trait]
impl Sharing for Claims {
    async fn join(&self, _: &SharedWork, _: &str, _: Duration) -> MigrateResult<Member> {
        Err(lapsed())
    }

    async fn rejoin(&self, _: &SharedWork, _: &str, _: Duration) -> MigrateResult<Member> {
        Err(lapsed())
    }

    async fn claim(&self, _: &Member) -> MigrateResult<Next> {
        Ok(Next::Superseded)
    }

    fn session(&self) -> u64 {
        self.session.load(Ordering::SeqCst)
    }

    async fn renew(&self, _: Claim) -> MigrateResult<()> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        self.answer()
    }

    async fn release(&self, _: Claim) -> MigrateResult<()> {
        Ok(())
    }

    async fn begin_scan_under(&self, _: Claim) -> MigrateResult<u64> {
        self.answer()
    }

    async fn see_under(&self, _: Claim, _: u64, _: &[String]) -> MigrateResult<Vec<String>> {
        self.answer()
    }

    async fn mention_under(&self, _: Claim, _: u64, _: &[Mention]) -> MigrateResult<()> {
        self.answer()
    }

    async fn mark(&self, _: Claim, _: &[Mark]) -> MigrateResult<()> {
        self.answer()
    }

    async fn marks(&self, _: u64) -> MigrateResult<Vec<Mark>> {
        self.answer()
    }

    async fn lay_out(&self, _: Claim, _: &Layout) -> MigrateResult<()> {
        self.answer()
    }

    async fn lay_out_configurations(&self, _: Claim, _: u64) -> MigrateResult<()> {
        self.answer()
    }

    async fn extend(
        &self,
        _: &ConfigurationsPage,
        _: &Position,
        _: Option<&Position>,
        _: &[String],
    ) -> MigrateResult<Vec<String>> {
        self.answer()
    }

    async fn put_note_under(&self, _: Claim, _: &str, _: &str) -> MigrateResult<()> {
        self.answer()
    }

    async fn advance_under(&self, _: Claim, _: &[Transition]) -> MigrateResult<()> {
        self.answer()
    }

    async fn finish(&self, _: Claim, _: &[Transition], _: Option<Stop>) -> MigrateResult<()> {
        self.answer()
    }

    async fn halt(&self, _: u64, _: &Halt) -> MigrateResult<()> {
        Ok(())
    }
}

async fn copied(claims: &Arc<Claims>) -> (World, Migration) {
    let mut world = World::with(6, 2).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    world.options = world.options.with_lag(LAG);
    let journal = TapJournal::new(world.journal.clone(), &Process::endless());
    let journal = Arc::new(journal.with_sharing(claims.clone()));
    let migration = Migration::new(world.source.clone(), world.target.clone(), journal)
        .with_configs(world.configs.clone())
        .with_options(world.options.clone());
    (world, migration)
}

fn held(claims: &Claims, lease: Duration) -> Arc<Held<'_>> {
    Held::new(
        claims,
        Claim::new(1, 1, 1, lease),
        Moment::now(claims.session()),
    )
}

#[tokio::test]
async fn a_claim_is_asked_for_again_when_others_may_have_it() {
    let hour = Duration::from_secs(3600);
    let claims = Claims::default();
    let page = held(&claims, hour);
    page.check().await.unwrap();
    assert_eq!(claims.renewals(), 0, "it has just been claimed");
    claims.session.store(1, Ordering::SeqCst);
    page.check().await.unwrap();
    assert_eq!(claims.renewals(), 1, "somebody may have been alone between");
    page.check().await.unwrap();
    assert_eq!(claims.renewals(), 1, "the journal has just said so");
    claims.lapse();
    page.renew().await.unwrap_err();
    page.check().await.unwrap_err();
    assert_eq!(claims.renewals(), 3, "it did not say so");

    let claims = Claims::default();
    let page = held(&claims, Duration::from_millis(30));
    tokio::time::sleep(Duration::from_millis(10)).await;
    page.advance(&[]).await.unwrap();
    page.check().await.unwrap();
    assert_eq!(claims.renewals(), 1, "a write does not renew the pass");
}

/// Whoever takes over the first page deletes the probes of others. One that was paused meanwhile would
/// end with the wrong reason, and stop all.
#[tokio::test(start_paused = true)]
async fn a_probe_that_another_process_deletes_proves_nothing() {
    for is_paused in [true, false] {
        let claims = Arc::<Claims>::default();
        let (world, migration) = copied(&claims).await;
        let session = Session::begin(&migration, "rollback").await.unwrap();
        let page = held(&claims, Duration::from_secs(3600));
        let proof = session.prove_independence(session.emptying_target());
        let other = async {
            tokio::time::sleep(LAG * 3 / 2).await;
            if is_paused {
                claims.lapse();
            }
            let notes = world.journal.notes(Some("probe "), 9).await.unwrap();
            let probe = notes[0].key.strip_prefix("probe ").unwrap();
            let probe = ManagedCoordinate::parse(probe).unwrap();
            let at_once = DeleteOptions::default().with_recovery(Recovery::Immediate);
            world.source.delete(&probe, &at_once).await.unwrap();
        };
        let (proved, ()) = tokio::join!(session.alone_with(&page, proof), other);
        let expected = match is_paused {
            true => MigrateErrorKind::Lapsed,
            false => MigrateErrorKind::SameStore,
        };
        assert_eq!(proved.unwrap_err().kind(), expected);
    }
}

/// Otherwise both stores would be without those that are looked at after it.
#[tokio::test(start_paused = true)]
async fn every_lost_secret_is_put_back_though_a_claim_has_lapsed() {
    let claims = Arc::<Claims>::default();
    let (world, migration) = copied(&claims).await;
    let before = contents(&world.target).await;
    let session = Session::begin(&migration, "rollback").await.unwrap();
    let entries = world.entries().await;
    for page in entries.chunks(3) {
        let unit = Unit {
            entries: page.to_vec(),
            meter: Meter::new(&session.tracker, Phase::Delete, page.len()),
            held: Some(held(&claims, Duration::from_secs(3600))),
        };
        session.rollback_unit(unit).await.unwrap();
    }
    assert_eq!(world.target.len(), 0, "all are deleted");
    // The last one of each page is looked at once more.
    for number in [3, 6] {
        remove(&world.source, number).await;
    }
    claims.lapse();
    let looked = session.look_at_the_last(session.emptying_target()).await;
    assert_eq!(looked.unwrap_err().kind(), MigrateErrorKind::Lapsed);
    let now = contents(&world.target).await;
    assert_eq!(now.len(), 2, "both are back");
    assert!(now.iter().all(|(name, value)| before[name] == *value));
}
