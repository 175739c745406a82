//! A run by several processes.
//!
//! The safe order is one of the journal: the pages of what is due come into being in the statement that
//! ends the first page, and whoever has that has listed, then read every configuration, both under this
//! claim. Whoever takes it over lists again.
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

use super::delete::told;
use super::joining::STALE;
use super::journal::FAILED;
use super::report::{CollectReport, CollectStop, Fate};
use super::{Each, Run};
use crate::journal::passes::{Claimed, Turn};
use crate::shared::{Held, Moment};
use crate::{Claim, MigrateErrorKind, MigrateResult, SharedWork};

/// How long to wait before asking for a page again.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// The smallest and the largest number of secrets in a page.
const PAGE: (usize, usize) = (16, 256);

/// After how many pages in a row that others have taken over it gives up: more than pauses explain.
const LAPSES: u32 = 10;

impl Run<'_> {
    /// Does the first page, or waits until another process has, and deletes page by page until the last has
    /// ended.
    pub(super) async fn share(&mut self, sources: &[String], each: Each<'_>) -> MigrateResult<()> {
        let collect = self.collect;
        let passes = collect.journal.passes();
        let worker = Uuid::new_v4().simple().to_string();
        let work = SharedWork::new("collect", self.settings(sources));
        let lease = collect.options.lease;
        let Some(mut member) = self.join(&work, &worker).await? else {
            return Ok(());
        };
        let mut lapses = 0;
        loop {
            if self.is_cancelled() {
                return Ok(());
            }
            let asked = Moment::now(collect.journal.session());
            match passes.claim(&member).await? {
                Turn::Ended(found) => {
                    let failed = found.iter().any(|found| found == FAILED);
                    self.report.others_failed = failed && self.report.failed == 0;
                    return Ok(());
                }
                // Whoever joins in the place of this process has the same settings, and lists first.
                Turn::Halted(halt) if halt == STALE => {
                    member = passes.join(&work, &worker, lease).await?;
                }
                Turn::Halted(halt) => {
                    let halt = CollectStop::parse(&halt);
                    let halt = halt.ok_or_else(|| collect.journal.damaged())?;
                    self.report.stopped_by_another = self.report.stopped.is_none();
                    self.stop(halt);
                    return Ok(());
                }
                Turn::Superseded => member = passes.rejoin(&work, &worker, lease).await?,
                Turn::Wait => sleep(POLL).await,
                Turn::Page(page) => {
                    let is_first = page.claim.page == 0;
                    let held = Held::new(&*collect.journal, page.claim, asked);
                    self.held = Some(Arc::clone(&held));
                    let done = if is_first {
                        held.during(self.first_page(page.claim, sources, each))
                            .await
                    } else {
                        held.during(self.delete_page(page, each)).await
                    };
                    self.held = None;
                    lapses = match done {
                        Ok(()) => 0,
                        Err(error) if error.kind() != MigrateErrorKind::Lapsed => {
                            return Err(error);
                        }
                        Err(error) if lapses + 1 == LAPSES => {
                            return Err(error.with_hint(
                                "the store answers less often than the lease is long: give all processes a \
                                 longer lease",
                            ));
                        }
                        Err(_) => lapses + 1,
                    };
                    if is_first {
                        // Another process has taken it over: what this one found may not be so.
                        if lapses > 0 && self.report.stopped != Some(CollectStop::Cancelled) {
                            self.report.stopped = None;
                        }
                    } else if self.has_failed() {
                        self.tell_others(member.pass).await?;
                    }
                }
            }
        }
    }

    /// Lists, reads every configuration, and lays out the pages of what is due.
    async fn first_page(
        &mut self,
        claim: Claim,
        sources: &[String],
        each: Each<'_>,
    ) -> MigrateResult<()> {
        let journal = &self.collect.journal;
        // What an earlier attempt has found is found again; what was deleted before stays so.
        let before = std::mem::take(&mut self.report);
        self.report = CollectReport {
            deleted: before.deleted,
            ephemeral: before.ephemeral,
            expired: before.expired,
            failed: before.failed,
            failures: before.failures,
            orphaned: before.orphaned,
            ..CollectReport::default()
        };
        self.number = journal.begin(Some(claim), &self.memory, sources).await?;
        self.began = (self.collect.clock)();
        self.list().await?;
        self.read().await?;
        if self.report.unreadable > 0 {
            self.stop(CollectStop::Unreadable);
        }
        if self.report.stopped.is_some() {
            return self.leave(claim).await;
        }
        self.settle(sources).await?;
        let until = self.until();
        self.check_share(until).await?;
        let mut after = None;
        loop {
            let limit = self.collect.options.page.get();
            let page = journal.page(&self.memory, after.as_ref(), limit).await?;
            let is_last = page.len() < limit;
            after = page.last().map(|seen| seen.listed.coordinate.clone());
            let mut told = told(page, until);
            if self.report.stopped.is_none() {
                // Whoever deletes it tells it.
                told.retain(|told| told.1.fate != Fate::Due);
            }
            self.tell(&told, each);
            self.still_held().await?;
            if is_last {
                break;
            }
        }
        if self.report.stopped.is_some() {
            return self.leave(claim).await;
        }
        let capabilities = self.store.capabilities();
        let size = capabilities
            .delete_batch
            .max(2 * capabilities.concurrency)
            .clamp(PAGE.0, PAGE.1);
        let lay_out = journal.lay_out(claim, &self.memory, until, size);
        lay_out.await
    }

    /// Stops all processes, if it still is this one that says so, and gives the first page back.
    async fn leave(&self, claim: Claim) -> MigrateResult<()> {
        self.collect.journal.passes().renew(claim).await?;
        self.tell_others(claim.pass).await?;
        self.collect.journal.passes().release(claim).await
    }

    /// Stops the pass, but not if only this process is to stop.
    async fn tell_others(&self, pass: u64) -> MigrateResult<()> {
        match self.report.stopped {
            None | Some(CollectStop::Cancelled) => Ok(()),
            Some(stop) => {
                let passes = self.collect.journal.passes();
                passes.halt(pass, stop.as_str().to_owned()).await
            }
        }
    }

    async fn delete_page(&mut self, page: Claimed, each: Each<'_>) -> MigrateResult<()> {
        let journal = &self.collect.journal;
        if journal.is_stale(page.claim).await? {
            return journal
                .passes()
                .halt(page.claim.pass, STALE.to_owned())
                .await;
        }
        let (until, due) = journal.due_in(&self.memory, &page).await?;
        let mut told = told(due, until);
        let failed = self.report.failed;
        let (gone, ended) = self.delete(&mut told).await;
        // Whoever deletes the others tells of them.
        told.retain(|told| told.1.fate != Fate::Due);
        self.tell(&told, each);
        ended?;
        let found = (self.report.failed > failed).then_some(FAILED);
        journal.finish(page.claim, &self.memory, &gone, found).await
    }

    /// What all processes of a pass have in common.
    fn settings(&self, sources: &[String]) -> String {
        let rules = &self.collect.rules;
        json!({
            "store": self.memory,
            "sources": sources,
            "grace": rules.grace.as_secs(),
            "retention": rules.retention.map(|retention| retention.as_secs()),
            "most_percent": rules.most_percent,
            "recovery": format!("{:?}", self.collect.options.recovery),
        })
        .to_string()
    }
}
