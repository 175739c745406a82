//! A split by several processes.
//!
//! A page of configurations is read by whoever claims it, which notes where it ends and thereby lays out the
//! next one. A change is recorded under the claim, and a row is saved by compare-and-swap.
//!
//! A process that was paused may still be about to save a row, so its secrets are deleted only when the row
//! is not what it has read any more, which the [outbox](crate::outbox) decides when all pages have ended.
use std::sync::Arc;

use tokio::time::sleep;
use uuid::Uuid;

use super::{Work, same_id};
use crate::session::{Meter, key, not_shared};
use crate::shared::{Held, Moment, POLL, of_another_command};
use crate::{
    Claim, ConfigCursor, ConfigPage, ConfigSource, ConfigurationsPage, Halt, MigrateError,
    MigrateErrorKind, MigrateResult, Next, Phase, Position, SharedWork, Sharing, Stop,
};

/// The largest number of configurations in a page: a process that is killed leaves them to another.
const PAGE: usize = 100;

/// After how many pages in a row that others have taken over it gives up: more than pauses explain.
const LAPSES: u32 = 10;

impl<'s> Work<'s> {
    /// Does the first page, or waits until another process has, and splits page by page until the last has
    /// ended.
    pub(super) async fn share(&self, sharing: &'s dyn Sharing) -> MigrateResult<()> {
        let split = self.split;
        if split.options.dry_run {
            return Err(not_shared("a dry run"));
        }
        if let Some(source) = split.configs.iter().find(|source| !source.admits_others()) {
            return Err(MigrateError::settings(
                "only one process can read and update these configurations",
            )
            .with_place(source.to_string())
            .with_hint("use a table, or a journal that is not shared"));
        }
        let worker = Uuid::new_v4().simple().to_string();
        let work = SharedWork::new("split", self.settings());
        let lease = split.options.lease;
        let mut member = sharing.join(&work, &worker, lease).await?;
        let mut lapses = 0;
        let mut told = None;
        self.tracker.began(Phase::Split, None);
        while !self.tracker.is_stopped() {
            let asked = Moment::now(sharing.session());
            let held = |claim: Claim| Held::new(sharing, claim, asked);
            let done = match sharing.claim(&member).await? {
                Next::Ended => break,
                Next::Halted(halt) => {
                    told = Some(halt);
                    break;
                }
                Next::Superseded => {
                    member = sharing.rejoin(&work, &worker, lease).await?;
                    continue;
                }
                Next::Wait => {
                    sleep(POLL).await;
                    continue;
                }
                Next::First(claim) => {
                    let scan = sharing.begin_scan_under(claim).await;
                    match scan {
                        Ok(scan) => sharing.lay_out_configurations(claim, scan).await,
                        Err(error) => Err(error),
                    }
                }
                Next::Configurations(page) => {
                    let held = held(page.claim);
                    held.during(self.configurations(&held, page)).await
                }
                Next::Last(claim) => {
                    let held = held(claim);
                    held.during(self.after_all(&held)).await
                }
                Next::Secrets(_) => Err(of_another_command()),
            };
            lapses = match done {
                Ok(()) => 0,
                Err(error) if error.kind() != MigrateErrorKind::Lapsed => return Err(error),
                Err(error) if lapses + 1 == LAPSES => {
                    return Err(error.with_hint(
                        "the store answers less often than the lease is long: give all processes a longer lease",
                    ));
                }
                Err(_) => lapses + 1,
            };
        }
        self.tracker.ended(Phase::Split);
        // Too many failures stop all; what needs a decision is left, and the others go on.
        let mut has_failed = false;
        self.tracker
            .note(|report| has_failed = report.stopped == Some(Stop::Failures));
        if has_failed && told.is_none() {
            let halt = Halt::new(Stop::Failures, Vec::new());
            sharing.halt(member.pass, &halt).await?;
        }
        self.tracker.decide();
        if let Some(halt) = told
            && self.tracker.worst() != Some(halt.stop)
        {
            self.tracker.halted(&halt);
        }
        Ok(())
    }

    async fn configurations(
        &self,
        held: &Arc<Held<'s>>,
        page: ConfigurationsPage,
    ) -> MigrateResult<()> {
        let sources = &self.split.configs;
        let at = page.after.source;
        let source = sources.get(at).ok_or_else(of_another_command)?;
        let limit = self.split.options.page.get().min(PAGE);
        let mut after = page.after.cursor.clone();
        if let Some(upto) = &page.upto {
            // Another process has begun it. What it has saved needs no change any more.
            loop {
                let read = match &upto.cursor {
                    None => source.page(after.as_ref(), limit).await?,
                    Some(end) => source.page_upto(after.as_ref(), end, limit).await?,
                };
                let next = moves_on(read.next.clone(), after.as_ref(), &**source)?;
                self.in_page(held, &**source, read).await?;
                after = next;
                if after.is_none() || self.tracker.is_stopped() {
                    break;
                }
            }
        } else {
            let read = source.page(after.as_ref(), limit).await?;
            let end = moves_on(read.next.clone(), after.as_ref(), &**source)?;
            held.progressed();
            let upto = Position::new(at, end.clone());
            let next = match end {
                Some(_) => Some(upto.clone()),
                None if at + 1 < sources.len() => Some(Position::new(at + 1, None)),
                None => None,
            };
            let keys: Vec<String> = read
                .rows
                .iter()
                .map(|row| key(&**source, &row.id))
                .collect();
            let extended = held.sharing().extend(&page, &upto, next.as_ref(), &keys);
            if let Some(twice) = extended.await?.into_iter().next() {
                let halt = Halt::new(Stop::Failures, Vec::new());
                held.sharing().halt(page.claim.pass, &halt).await?;
                return Err(same_id(twice));
            }
            self.in_page(held, &**source, read).await?;
        }
        self.end_page(held).await
    }

    async fn in_page(
        &self,
        held: &Arc<Held<'s>>,
        source: &dyn ConfigSource,
        page: ConfigPage,
    ) -> MigrateResult<()> {
        held.progressed();
        let meter = Meter::new(&self.tracker, Phase::Split, page.rows.len());
        self.rows(source, &page.rows, &meter, Some(held)).await?;
        meter.end();
        Ok(())
    }

    /// Ends a page with what it found, or gives it back if this process is to stop.
    async fn end_page(&self, held: &Held<'_>) -> MigrateResult<()> {
        if self.tracker.is_stopped() {
            return held.sharing().release(held.claim()).await;
        }
        let undecided = self.tracker.has_undecided().then_some(Stop::Undecided);
        held.finish(&[], undecided.or(self.tracker.worst())).await
    }

    /// Ends what processes that are gone have recorded.
    async fn after_all(&self, held: &Held<'_>) -> MigrateResult<()> {
        for source in &self.split.configs {
            source.finish().await?;
        }
        self.end_after(Some(held)).await?;
        self.end_page(held).await
    }

    /// What all processes of a pass have in common.
    fn settings(&self) -> String {
        let split = self.split;
        let told = |from: &Arc<dyn ConfigSource>| [from.identity(), from.reads()];
        serde_json::json!({
            "configs": split.configs.iter().map(told).collect::<Vec<_>>(),
            "decisions": split.options.decisions,
            "policy": format!("{:?}", split.stores.connector.policy),
        })
        .to_string()
    }
}

/// Refuses a source that goes round in a circle.
fn moves_on(
    next: Option<ConfigCursor>,
    after: Option<&ConfigCursor>,
    source: &dyn ConfigSource,
) -> MigrateResult<Option<ConfigCursor>> {
    if next.is_some() && next.as_ref() == after {
        return Err(crate::session::in_a_circle(source));
    }
    Ok(next)
}
