//! A command whose pages several processes share.
//!
//! A page belongs to this process while it makes progress. Its claim is renewed when reads and writes
//! return, and checked before each call that changes a store: the journal's answer counts for a third of
//! the lease, within one session with it. A process that was paused for longer than its lease makes no
//! such call any more, because another one has, or may have, its page; what waits in the limit of a call
//! that has begun is still sent.
mod alone;
pub(crate) mod held;
mod task;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

pub(crate) use self::held::{Held, Moment, check};
pub(crate) use self::task::Task;
use crate::session::{Meter, Running, Session, Unit, Work};
use crate::{
    Halt, Layout, Mark, Member, MigrateError, MigrateErrorKind, MigrateResult, Next, SecretsPage,
    Shared, SharedWork, Sharing, Stop, Transition,
};

/// How long to wait before asking for a page again.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// What a process knows about the pass.
struct Pass<'s> {
    sharing: &'s dyn Sharing,
    task: Task,
    member: Member,
    /// Why another process has stopped it.
    halted: Option<Halt>,
    /// Whether what the first page has marked is loaded.
    is_marked: bool,
    /// Whether another pass has begun.
    is_superseded: bool,
}

impl<'m> Session<'m> {
    /// Does the first page, or waits until another process has, and works on pages until the last has
    /// ended.
    pub(super) async fn share(&self, sharing: &'m dyn Sharing, task: Task) -> MigrateResult<()> {
        let unshares = task == Task::Copy && self.options.decisions.shared == Some(Shared::Unshare);
        if self.options.dry_run || unshares {
            return Err(MigrateError::settings(
                "a dry run and unshare need a journal that is not shared",
            ));
        }
        let worker = Uuid::new_v4().simple().to_string();
        let work = SharedWork::new(task.command(), self.settings());
        let lease = self.options.lease;
        let mut member = sharing.join(&work, &worker, lease).await?;
        while !self.attend(sharing, task, member).await? {
            // Nothing of the pass that is gone applies to the next one.
            self.left.forget();
            self.orphans.lock().clear();
            member = sharing.rejoin(&work, &worker, lease).await?;
        }
        Ok(())
    }

    /// Takes part in a pass. Returns whether that has ended; otherwise another one has begun.
    async fn attend(
        &self,
        sharing: &'m dyn Sharing,
        task: Task,
        member: Member,
    ) -> MigrateResult<bool> {
        let mut pass = Pass {
            sharing,
            task,
            member,
            halted: None,
            is_marked: false,
            is_superseded: false,
        };
        let mut running = Running::new(task.phase());
        let claimed = self.claim_pages(&mut pass, &mut running).await;
        // Others stop while the units of this process end.
        self.decide(task);
        self.tell_others(&pass).await?;
        while running.one_ends().await {}
        let looked = match self.sides_of(task) {
            None => Ok(()),
            Some(sides) => if_lapsed(self.look_at_the_last(sides).await),
        };
        if pass.is_marked {
            self.tracker.ended(task.phase());
        }
        self.decide(task);
        self.tell_others(&pass).await?;
        if let Some(halt) = pass.halted {
            self.tracker.halted(&halt);
        }
        running.result.and(claimed).and(looked)?;
        Ok(!pass.is_superseded)
    }

    async fn claim_pages<'s>(
        &'s self,
        pass: &mut Pass<'m>,
        running: &mut Running<'s>,
    ) -> MigrateResult<()> {
        loop {
            while running.units.len() >= self.most(pass.task) {
                running.one_ends().await;
            }
            if running.result.is_err() || self.tracker.is_stopped() {
                return Ok(());
            }
            let asked = Moment::now(pass.sharing.session());
            let next = pass.sharing.claim(&pass.member);
            match running.meanwhile(next).await? {
                Next::Ended => return Ok(()),
                Next::Superseded => {
                    pass.is_superseded = true;
                    return Ok(());
                }
                Next::Halted(halt) => {
                    // What this process has found itself, it says itself.
                    if self.tracker.worst() != Some(halt.stop) {
                        self.tracker.halted(&halt);
                        pass.halted = Some(halt);
                    }
                    return Ok(());
                }
                Next::Wait => running.meanwhile(sleep(POLL)).await,
                Next::First(claim) => {
                    let held = Held::new(pass.sharing, claim, asked);
                    if_lapsed(self.first_page(pass, &held).await)?;
                }
                Next::Secrets(page) => {
                    if !pass.is_marked {
                        let marks = pass.sharing.marks(pass.member.pass);
                        self.load(running.meanwhile(marks).await?);
                        self.tracker.began(pass.task.phase(), None);
                        pass.is_marked = true;
                    }
                    let held = Held::new(pass.sharing, page.claim, asked);
                    running.units.push(self.secrets_page(pass.task, page, held));
                }
                Next::Configurations(_) => return Err(of_another_command()),
                Next::Last(claim) => {
                    let held = Held::new(pass.sharing, claim, asked);
                    if_lapsed(self.last_page(pass.task, &held).await)?;
                }
            }
        }
    }

    /// How many pages to have at once. Before the first secret is deleted and looked at, more would
    /// only wait for that, and without progress a claim ends.
    fn most(&self, task: Task) -> usize {
        let is_tried = !task.deletes() || self.tried.try_lock().is_ok_and(|tried| *tried);
        if is_tried {
            self.units_under_way(self.unit())
        } else {
            1
        }
    }

    /// Works on one page. Another process that has taken it over does it again.
    fn secrets_page<'s>(&'s self, task: Task, page: SecretsPage, held: Arc<Held<'m>>) -> Work<'s> {
        Box::pin(async move {
            let select = task.select().with_upto(page.upto);
            let work = async {
                let limit = usize::MAX >> 1;
                let entries = self
                    .journal
                    .page(&select, page.after.as_ref(), limit)
                    .await?;
                let meter = Meter::new(&self.tracker, task.phase(), entries.len());
                let unit = Unit {
                    entries,
                    meter: Arc::clone(&meter),
                    held: Some(Arc::clone(&held)),
                };
                self.do_task(task, page.scan, unit).await?;
                meter.end();
                Ok(())
            };
            if_lapsed(held.during(work).await)
        })
    }

    /// Does for all processes what comes before the secrets, and lays out the pages.
    async fn first_page(&self, pass: &Pass<'_>, held: &Arc<Held<'m>>) -> MigrateResult<()> {
        let task = pass.task;
        self.orphans.lock().clear();
        let scan = self.alone_with(held, self.begin_task(task)).await?;
        if self.tracker.is_stopped() {
            // Before another process does the same in vain.
            self.tell_others(pass).await?;
            return held.leave(&[]).await;
        }
        let layout = Layout::new(scan, task.select(), self.unit()).with_last(task.has_last());
        held.sharing.lay_out(held.claim, &layout).await
    }

    /// Does for all processes what comes after the secrets.
    async fn last_page(&self, task: Task, held: &Arc<Held<'m>>) -> MigrateResult<()> {
        self.alone_with(held, self.end_task(task)).await?;
        if self.tracker.is_cancelled() {
            return held.leave(&[]).await;
        }
        self.end_unit(Some(held), &[]).await
    }

    /// Ends a unit of work: with its page, if the journal is shared, and with what it found.
    pub(super) async fn end_unit(
        &self,
        held: Option<&Held<'_>>,
        transitions: &[Transition],
    ) -> MigrateResult<()> {
        match held {
            None => self.advance(transitions).await,
            Some(held) => {
                // Every process names the classes, so they are told before this ends the last page.
                if self.tracker.worst() == Some(Stop::Undecided) {
                    self.tracker.decide();
                    self.tell(held.sharing, held.claim().pass).await?;
                }
                held.finish(transitions, self.tracker.worst()).await
            }
        }
    }

    /// The classes that need a decision stop a copy. The others report what they find.
    fn decide(&self, task: Task) {
        if task == Task::Copy {
            self.tracker.decide();
        }
    }

    /// What all processes of a pass have in common.
    fn settings(&self) -> String {
        let configs: Vec<String> = self.configs.iter().map(ToString::to_string).collect();
        let options = self.options;
        serde_json::json!({
            "configs": configs,
            "decisions": options.decisions,
            "recovery": format!("{:?}", options.recovery),
            "unexpected": options.unexpected,
        })
        .to_string()
    }

    /// Stops the pass if this process has found what stops all, and not only this process.
    async fn tell_others(&self, pass: &Pass<'_>) -> MigrateResult<()> {
        if pass.halted.is_some() {
            return Ok(());
        }
        self.tell(pass.sharing, pass.member.pass).await
    }

    async fn tell(&self, sharing: &dyn Sharing, pass: u64) -> MigrateResult<()> {
        let (mut stopped, mut undecided) = (None, Vec::new());
        self.tracker.note(|report| {
            stopped = report.stopped.filter(|stop| *stop != Stop::Cancelled);
            undecided.clone_from(&report.undecided);
        });
        match stopped {
            None => Ok(()),
            Some(stop) => {
                let halt = Halt::new(stop, undecided);
                sharing.halt(pass, &halt).await
            }
        }
    }

    fn load(&self, marks: Vec<Mark>) {
        for mark in marks {
            match mark {
                Mark::Left(name, storage) => self.left.note(name, storage),
                Mark::Orphan(name) => {
                    self.orphans.lock().insert(name);
                }
            }
        }
    }
}

/// A page of a sort that the command does not lay out.
pub(crate) fn of_another_command() -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::Journal,
        "the journal contains a page that this version did not write",
    )
}

/// A page that another process has taken over is its business.
fn if_lapsed(result: MigrateResult<()>) -> MigrateResult<()> {
    match result {
        Err(error) if error.kind() == MigrateErrorKind::Lapsed => Ok(()),
        other => other,
    }
}
