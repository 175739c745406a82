//! Encrypts a table, or rotates its key, by several processes.

mod journal;
#[cfg(test)]
mod processes;

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use secret_persistence_db::{
    Conversion, Database, EncryptOptions, Ended, Range, RotateOptions, Step,
};
use serde::Serialize;
use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

pub use self::journal::ConvertJournal;
use crate::journal::passes::{Claimed, Turn};
use crate::shared::{Held, Moment, POLL};
use crate::{
    Cancellation, MigrateError, MigrateErrorKind, MigrateOptions, MigrateResult, SharedWork,
};

/// The rows of a range: a few transactions, so that claims cost little.
const ROWS: usize = 2000;

/// After how many pages in a row that others have taken over it gives up: more than pauses explain.
const LAPSES: u32 = 10;

/// What a page found that has rows which cannot be converted.
const DAMAGED: &str = "damaged";

/// Encrypts a table in place, or rotates its key, while the table is in use: what
/// [`Database::encrypt`] and [`Database::rotate`] do in one process, by several that share a journal in
/// Postgres.
///
/// One process divides the table into ranges of names, in the order that the database has; all of them
/// convert ranges, which they claim under a lease; and when the last range has ended, one searches the
/// table for rows that were written meanwhile, and ends the conversion. Each row is changed with
/// compare-and-swap, so that a process which was paused for longer than its lease changes none twice.
/// Before each transaction, a process asks the journal whether the range still is its own, unless that
/// said so less than a third of the lease ago.
pub struct Convert {
    conversion: Conversion,
    work: SharedWork,
    /// Whether rows do not show that they are done.
    repeats: bool,
    /// Whether the table is rewritten at the end.
    rewrites: bool,
    journal: Arc<ConvertJournal>,
    options: MigrateOptions,
    cancellation: Cancellation,
    /// When the process began with it, until it runs: before anything else that it does with the table.
    began: Mutex<Option<Instant>>,
}

impl Convert {
    /// Encrypts every plain row.
    ///
    /// # Errors
    /// As [`Database::encryption`].
    pub async fn encryption(
        database: &Database,
        options: &EncryptOptions,
        journal: Arc<ConvertJournal>,
    ) -> MigrateResult<Self> {
        let began = Instant::now();
        let conversion = database.encryption(options).await?;
        let settings = json!({
            "table": [database.to_string(), conversion.table_id().await?],
            "key": conversion.key().as_str(),
            "rewrite": options.rewrite,
        });
        let work = SharedWork::new("encrypt", settings.to_string());
        let mut convert = Self::of(conversion, work, journal, began);
        convert.rewrites = options.rewrite;
        Ok(convert)
    }

    /// Wraps every data key with the active key, or replaces it.
    ///
    /// # Errors
    /// As [`Database::rotation`].
    pub async fn rotation(
        database: &Database,
        options: &RotateOptions,
        journal: Arc<ConvertJournal>,
    ) -> MigrateResult<Self> {
        let began = Instant::now();
        let conversion = database.rotation(options).await?;
        let settings = json!({
            "table": [database.to_string(), conversion.table_id().await?],
            "key": conversion.key().as_str(),
            "reencrypt": options.reencrypt,
        });
        let work = SharedWork::new("rotate", settings.to_string());
        let mut convert = Self::of(conversion, work, journal, began);
        convert.repeats = options.reencrypt;
        Ok(convert)
    }

    fn of(
        conversion: Conversion,
        work: SharedWork,
        journal: Arc<ConvertJournal>,
        began: Instant,
    ) -> Self {
        Self {
            conversion,
            work,
            repeats: false,
            rewrites: false,
            journal,
            options: MigrateOptions::default(),
            cancellation: Cancellation::new(),
            began: Mutex::new(Some(began)),
        }
    }

    /// Sets the options, of which lease and listed apply.
    #[must_use]
    pub fn with_options(mut self, options: MigrateOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the token that stops this process, and no other, between two transactions.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Takes part until the conversion has ended, and tells `progress` how many more rows this process has
    /// converted. It can be killed at any moment and started again.
    ///
    /// What no row shows to be done, a new data key, and a rewritten table are not repeated at once: a process
    /// has nothing to do when others have ended it since the process opened its journal, or less than a lease
    /// before, unless a table that is rewritten has got plain rows since. When all processes of a
    /// re-encryption were killed, those that come later continue near where they were, unless the last range
    /// ended more than a day ago or the re-encryption was ended in another way, such as by one process
    /// without a journal: then every value gets a new data key.
    ///
    /// # Errors
    /// `AnotherRun` if processes share the journal for another table, key or option; `Store` if the
    /// database fails, and if others write rows faster than they are converted; and if the journal fails.
    pub async fn run(&self, progress: &(dyn Fn(u64) + Sync)) -> MigrateResult<ConvertReport> {
        let mut run = Run {
            convert: self,
            progress,
            named: HashSet::new(),
            report: ConvertReport::default(),
        };
        let began = self.began.lock().take().unwrap_or_else(Instant::now);
        run.share(began).await?;
        Ok(run.report)
    }
}

impl fmt::Debug for Convert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Convert")
            .field("work", &self.work)
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

/// What one process did of a conversion.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ConvertReport {
    /// The rows that this process has converted.
    pub converted: u64,
    /// The rows that it met and that cannot be converted, unchanged. Several processes may meet one.
    pub damaged: u64,
    /// The first of them, as errors without values.
    pub failures: Vec<String>,
    /// Whether only others have met such rows.
    pub others_damaged: bool,
    /// What was done at the end, by the process that did it.
    #[serde(skip)]
    pub ended: Option<Ended>,
    /// Why it stopped before the end.
    pub stopped: Option<ConvertStop>,
}

/// Why a process stopped before a conversion had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConvertStop {
    /// It was told to.
    Cancelled,
    /// Another process found that rows are written faster than they are converted.
    Conflict,
}

impl ConvertStop {
    /// The reason in `snake_case`, stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Conflict => "conflict",
        }
    }
}

/// What is left of a page.
enum Left {
    /// Nothing: it has ended.
    Nothing,
    /// The process is to stop, and others may have it.
    Given,
}

/// A process that takes part.
struct Run<'r> {
    convert: &'r Convert,
    progress: &'r (dyn Fn(u64) + Sync),
    /// The rows that the report counts as damaged.
    named: HashSet<String>,
    report: ConvertReport,
}

impl Run<'_> {
    /// `began` is when this process began with it.
    async fn share(&mut self, began: Instant) -> MigrateResult<()> {
        let Convert {
            conversion,
            work,
            repeats,
            rewrites,
            journal,
            options,
            ..
        } = self.convert;
        let passes = journal.passes();
        let worker = Uuid::new_v4().simple().to_string();
        let mut member = if *repeats || *rewrites {
            let joined = passes.join_recent(work, &worker, options.lease, began.elapsed());
            joined.await?
        } else {
            passes.join(work, &worker, options.lease).await?
        };
        let mut lapses = 0;
        let mut is_first = true;
        loop {
            if self.is_cancelled() {
                return Ok(());
            }
            let came_late = std::mem::replace(&mut is_first, false);
            let asked = Moment::now(journal.session());
            match passes.claim(&member).await? {
                // What was written since then is still plain, or under another key.
                Turn::Ended(_)
                    if came_late && (*rewrites || *repeats) && conversion.has_late().await? =>
                {
                    member = passes.join(work, &worker, options.lease).await?;
                }
                Turn::Ended(found) => {
                    let is_damaged = found.iter().any(|found| found == DAMAGED);
                    self.report.others_damaged = is_damaged && self.report.damaged == 0;
                    return Ok(());
                }
                Turn::Halted(halt) if halt == ConvertStop::Conflict.as_str() => {
                    self.report.stopped = Some(ConvertStop::Conflict);
                    return Ok(());
                }
                Turn::Halted(_) => return Err(journal.damaged()),
                Turn::Superseded => member = passes.rejoin(work, &worker, options.lease).await?,
                Turn::Wait => sleep(POLL).await,
                Turn::Page(page) => {
                    let held = Held::new(&**journal, page.claim, asked);
                    lapses = match held.during(self.page(&held, page)).await {
                        Ok(()) => 0,
                        Err(error) if error.kind() != MigrateErrorKind::Lapsed => {
                            return Err(error);
                        }
                        Err(error) if lapses + 1 == LAPSES => {
                            return Err(error.with_hint(
                                "the database answers less often than the lease is long: give all processes a \
                                 longer lease",
                            ));
                        }
                        Err(_) => lapses + 1,
                    };
                }
            }
        }
    }

    /// Does a page, or gives it back if this process is to stop.
    async fn page(&mut self, held: &Holding<'_>, page: Claimed) -> MigrateResult<()> {
        let claim = page.claim;
        let left = if claim.page == 0 {
            self.lay_out(held).await?
        } else if page.upto.is_some() {
            self.range(held, Range::new(page.after, page.upto)).await?
        } else {
            self.rest(held).await?
        };
        match left {
            Left::Nothing => Ok(()),
            Left::Given => self.convert.journal.passes().release(claim).await,
        }
    }

    /// Divides the table into ranges.
    async fn lay_out(&mut self, held: &Holding<'_>) -> MigrateResult<Left> {
        let Convert {
            conversion,
            work,
            repeats,
            journal,
            ..
        } = self.convert;
        let (mut reencryption, mut after) = (0, None);
        if *repeats {
            held.check().await?;
            reencryption = of_table(conversion.reencryption().await?, work);
            after = journal.position(reencryption).await?;
        }
        let mut ranges = Vec::new();
        loop {
            if self.is_cancelled() {
                return Ok(Left::Given);
            }
            held.check().await?;
            let Some((range, rows)) = conversion.range_after(after.as_deref(), ROWS).await? else {
                break;
            };
            held.progressed();
            after.clone_from(&range.upto);
            ranges.push((range, rows));
        }
        journal.lay_out(held.claim(), reencryption, ranges).await?;
        Ok(Left::Nothing)
    }

    /// Converts a range.
    async fn range(&mut self, held: &Holding<'_>, range: Range) -> MigrateResult<Left> {
        let Convert {
            conversion,
            repeats,
            journal,
            ..
        } = self.convert;
        let mut is_damaged = false;
        let mut left = Some(range);
        while let Some(range) = left {
            if self.is_cancelled() {
                return Ok(Left::Given);
            }
            held.check().await?;
            let mut step = conversion.convert(&range).await?;
            held.progressed();
            left = step.rest.take();
            for attempt in 1.. {
                let lost = std::mem::take(&mut step.lost);
                is_damaged |= self.note(step);
                if lost.is_empty() {
                    break;
                }
                if attempt == Conversion::ROUNDS {
                    return Err(self.conflict(held).await);
                }
                held.check().await?;
                step = conversion.convert_again(&lost).await?;
                held.progressed();
            }
        }
        let found = is_damaged.then_some(DAMAGED);
        journal.finish(held.claim(), found, *repeats).await?;
        Ok(Left::Nothing)
    }

    /// Converts what others have written meanwhile, and ends the conversion. It goes through the table in
    /// ranges too, so that each answer comes soon.
    async fn rest(&mut self, held: &Holding<'_>) -> MigrateResult<Left> {
        let Convert {
            conversion,
            journal,
            ..
        } = self.convert;
        for _ in 0..Conversion::ROUNDS {
            let (mut is_settled, mut is_damaged) = (true, false);
            let mut after = None;
            while let Some((range, _)) = conversion.range_after(after.as_deref(), ROWS).await? {
                after.clone_from(&range.upto);
                let mut left = Some(range);
                while let Some(range) = left {
                    if self.is_cancelled() {
                        return Ok(Left::Given);
                    }
                    held.check().await?;
                    let mut step = conversion.convert_late(&range).await?;
                    held.progressed();
                    left = step.rest.take();
                    is_settled &= step.is_settled;
                    is_damaged |= self.note(step);
                }
            }
            if is_settled {
                held.renew().await?;
                let ended = conversion.end(&|| held.progressed()).await?;
                let found = is_damaged.then_some(DAMAGED);
                journal.finish_last(held.claim(), found).await?;
                self.report.ended = Some(ended);
                return Ok(Left::Nothing);
            }
        }
        Err(self.conflict(held).await)
    }

    /// Stops all processes, if the page still is this one's.
    async fn conflict(&self, held: &Holding<'_>) -> MigrateError {
        let passes = self.convert.journal.passes();
        let halt = async {
            held.renew().await?;
            let halt = ConvertStop::Conflict.as_str().to_owned();
            passes.halt(held.claim().pass, halt).await
        };
        match halt.await {
            Ok(()) => self.convert.conversion.too_fast().into(),
            Err(error) => error,
        }
    }

    /// Adds a step to the report. Returns whether it met rows that cannot be converted.
    fn note(&mut self, step: Step) -> bool {
        self.report.converted += step.converted;
        if step.converted > 0 {
            (self.progress)(step.converted);
        }
        let is_damaged = !step.damaged.is_empty();
        for error in step.damaged {
            let name = error.coordinate().map(str::to_owned);
            if name.is_none_or(|name| self.named.insert(name)) {
                self.report.damaged += 1;
                if self.report.failures.len() < self.convert.options.listed {
                    self.report.failures.push(error.to_string());
                }
            }
        }
        is_damaged
    }

    fn is_cancelled(&mut self) -> bool {
        let is_cancelled = self.convert.cancellation.is_cancelled();
        if is_cancelled {
            self.report.stopped = Some(ConvertStop::Cancelled);
        }
        is_cancelled
    }
}

type Holding<'h> = Arc<Held<'h, ConvertJournal>>;

/// The id of a re-encryption of this table: a restored or cloned one has the same entry at another address.
fn of_table(reencryption: u64, work: &SharedWork) -> u64 {
    let mut hasher = DefaultHasher::new();
    (reencryption, &work.settings).hash(&mut hasher);
    // Numbers of Postgres have a sign.
    hasher.finish() >> 1
}
