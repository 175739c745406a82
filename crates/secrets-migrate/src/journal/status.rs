//! What a journal says about a run, for a process that takes no part in it.
use serde::Serialize;

use super::passes::Passes;
use super::sql::{self, SqlJournal};
use super::{Counts, Halt, Run, shared};
use crate::address::Variables;
use crate::{Class, MigrateError, MigrateResult};

/// What a journal says about a run at one moment. Serialisable. Nothing in it is derived from a value.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct JournalStatus {
    /// The run that the journal belongs to; none if there is only a collector's or a conversion's, or if the process that
    /// created the journal was killed before it noted the run.
    pub run: Option<Run>,
    /// The number of secrets in each state.
    pub states: Counts,
    /// The last pass of processes that [share](super::Sharing) the journal, if there is one and no process has
    /// used the journal alone since.
    pub pass: Option<PassStatus>,
    /// The same for a [collector's](crate::CollectJournal) journal in the same database.
    pub collect: Option<PassStatus>,
    /// The same for an encryption or a rotation of a table. What it counts as secrets are rows.
    pub convert: Option<PassStatus>,
}

/// The state of a pass: one run of a command by all its processes.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PassStatus {
    /// Its number.
    pub pass: u64,
    /// The command.
    pub command: String,
    /// How far it is.
    pub phase: PassPhase,
    /// Why all processes stopped, if they did: a [`Halt`](crate::Halt), or a collector's
    /// [`CollectStop`](crate::CollectStop), or `stale` if the next pass is to read the configurations again,
    /// or that of a conversion.
    pub halt: Option<PassHalt>,
    /// What pages that have ended found, as reasons to stop.
    pub found: Vec<String>,
    /// The pages that it consists of, without the first one, which lays them out.
    pub pages: u64,
    /// Those that have ended.
    pub ended: u64,
    /// The secrets in all pages; of a split, the configurations in those pages that were read.
    pub secrets: u64,
    /// The secrets in pages that have not ended.
    pub remaining: u64,
    /// The secrets that a page which has ended left undone, because they failed or wait for a decision.
    /// Only a copy and a verify leave a trace of them in the journal.
    pub failed: Option<u64>,
    /// The secrets per second of the pages that ended in the last minute in which any did; none before
    /// two have ended.
    pub per_second: Option<f64>,
    /// The processes that hold pages or have ended some, by name.
    pub workers: Vec<WorkerStatus>,
}

/// Why all processes of a pass stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PassHalt {
    /// The reason in `snake_case`.
    pub stop: String,
    /// The classes of findings that need a decision.
    pub undecided: Vec<Class>,
}

/// How far a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PassPhase {
    /// One process does what comes before the secrets, and the others wait.
    Beginning,
    /// Its last page has ended.
    Ended,
    /// Nobody has shown itself for the length of a lease, so the next process begins a new pass.
    Left,
    /// A process has found what stops all.
    Stopped,
    /// The processes work on pages of secrets.
    Working,
}

impl PassPhase {
    /// The phase in `snake_case`, stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Beginning => "beginning",
            Self::Ended => "ended",
            Self::Left => "left",
            Self::Stopped => "stopped",
            Self::Working => "working",
        }
    }
}

/// What a process has of a pass.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The process.
    pub worker: String,
    /// The pages that it works on.
    pub holds: u64,
    /// The secrets in pages that it has ended.
    pub done: u64,
    /// The seconds until others take over the first of its pages, if it makes no progress; none if it holds
    /// none.
    pub lapses_in: Option<f64>,
}

/// In this order: the first page's end, pages, ended pages, secrets, remaining secrets.
const PAGES: &str = "SELECT CAST(COALESCE(MIN(CASE WHEN page = 0 THEN done END), 1) AS TEXT), \
        CAST(COUNT(*) FILTER (WHERE page > 0) AS TEXT), \
        CAST(COUNT(*) FILTER (WHERE page > 0 AND done = 1) AS TEXT), \
        CAST(COALESCE(SUM(secrets), 0) AS TEXT), \
        CAST(COALESCE(SUM(secrets) FILTER (WHERE done = 0), 0) AS TEXT) \
     FROM @_page WHERE pass = CAST($1 AS BIGINT)";

/// What pages that have ended found, each once.
const FOUND: &str = "SELECT DISTINCT found FROM @_page \
     WHERE pass = CAST($1 AS BIGINT) AND found IS NOT NULL ORDER BY found";

/// An end renews the lease a last time, so the times of two ends differ as those of their leases do.
const RATE: &str = "WITH ended AS ( \
        SELECT until, secrets, MIN(until) OVER () AS earliest, MAX(until) OVER () AS latest FROM @_page \
        WHERE pass = CAST($1 AS BIGINT) AND page > 0 AND done = 1 AND until > ( \
            SELECT MAX(until) - interval '60 seconds' FROM @_page \
            WHERE pass = CAST($1 AS BIGINT) AND page > 0 AND done = 1)) \
     SELECT CAST(SUM(secrets) FILTER (WHERE until > earliest) \
            / NULLIF(extract(epoch FROM MAX(latest) - MIN(earliest)), 0) AS TEXT) FROM ended";

const WORKERS: &str = "SELECT worker, \
        CAST(COUNT(*) FILTER (WHERE done = 0 AND until > now()) AS TEXT), \
        CAST(COALESCE(SUM(secrets) FILTER (WHERE done = 1), 0) AS TEXT), \
        CAST(MIN(extract(epoch FROM until - now())) FILTER (WHERE done = 0 AND until > now()) AS TEXT) \
     FROM @_page WHERE pass = CAST($1 AS BIGINT) AND worker IS NOT NULL \
     GROUP BY worker ORDER BY worker";

/// What is left in pages that have ended.
const FAILED: &str = "SELECT CAST(COUNT(*) AS TEXT) FROM migrate_page AS page JOIN migrate_secret AS secret \
        ON secret.coordinate <= page.upto AND (page.after IS NULL OR secret.coordinate > page.after) \
     WHERE page.pass = CAST($1 AS BIGINT) AND page.page > 0 AND page.done = 1 \
       AND secret.state IN ('pending', 'intent', 'conflict')";

impl SqlJournal {
    /// Reads what the journal says at this moment, from any machine and without taking part. In Postgres,
    /// processes may use it meanwhile; a file is locked while one does.
    ///
    /// # Errors
    /// If there is no journal, or if it cannot be read now.
    pub async fn status(text: &str, variables: Variables<'_>) -> MigrateResult<JournalStatus> {
        let journal = Self::look(text, variables).await?;
        let status = journal.read_status().await;
        // Not `close`, which may remove the journal.
        journal.stop_looking().await;
        status
    }

    pub(super) async fn read_status(&self) -> MigrateResult<JournalStatus> {
        let collects = self.tables(&COLLECTOR).await? == COLLECTOR.len();
        let converts = self.tables(&CONVERSION).await? == CONVERSION.len();
        let is_there = self.tables(&sql::TABLES).await? == sql::TABLES.len();
        if !is_there && !collects && !converts {
            return Err(
                MigrateError::settings("there is no journal here").with_place(self.to_string())
            );
        }
        let (mut run, mut states, mut pass) = (None, Counts::default(), None);
        if is_there {
            if let Some((_, kept)) = self.kept().await? {
                run = Some(serde_json::from_str(&kept).map_err(|_| self.damaged())?);
            }
            states = crate::Journal::counts(self).await?;
            if self.tables(&shared::TABLES).await? == shared::TABLES.len() {
                pass = self.passes().status().await?;
            }
        }
        if let Some(pass) = &mut pass
            && matches!(pass.command.as_str(), "copy" | "verify")
        {
            let failed = self.few(FAILED.into(), vec![pass.pass.to_string()]);
            pass.failed = Some(self.number(failed.await?)?);
        }
        let collect = match collects {
            true => self.passes_of("collect").status().await?,
            false => None,
        };
        let convert = match converts {
            true => self.passes_of("convert").status().await?,
            false => None,
        };
        Ok(JournalStatus {
            run,
            states,
            pass,
            collect,
            convert,
        })
    }
}

/// The tables of passes of a collector's journal.
const COLLECTOR: [(&str, &str); 2] = [("collect_pass", ""), ("collect_page", "")];

/// The same of a conversion's.
const CONVERSION: [(&str, &str); 2] = [("convert_pass", ""), ("convert_page", "")];

impl Passes<'_> {
    /// The state of the last pass, without what only the secrets tell.
    async fn status(&self) -> MigrateResult<Option<PassStatus>> {
        let sql = "SELECT CAST(pass AS TEXT), command, CAST(ended AS TEXT), halt, \
                   CAST(until > now() AS TEXT) FROM @_pass WHERE command <> ''";
        let Some(row) = self.few(sql, Vec::new()).await?.into_iter().next() else {
            return Ok(None);
        };
        let Ok([Some(number), Some(command), Some(ended), halt, Some(lasts)]) =
            <[_; 5]>::try_from(row)
        else {
            return Err(self.damaged());
        };
        let of_pass = async |sql: &str| self.few(sql, vec![number.clone()]).await;
        let halt = halt.map(|text| {
            // A collector's is a word.
            let halt: Option<Halt> = serde_json::from_str(&text).ok();
            PassHalt {
                stop: halt.as_ref().map_or(text, |halt| halt.stop.to_string()),
                undecided: halt.map(|halt| halt.undecided).unwrap_or_default(),
            }
        });
        let mut counts = Vec::new();
        for text in of_pass(PAGES).await?.into_iter().flatten().flatten() {
            counts.push(text.parse().map_err(|_| self.damaged())?);
        }
        let [is_scanned, pages, ended_pages, secrets, remaining] =
            <[u64; 5]>::try_from(counts).map_err(|_| self.damaged())?;
        let phase = match (&halt, ended.as_str(), lasts.as_str(), is_scanned) {
            (Some(_), ..) => PassPhase::Stopped,
            (None, "1", ..) => PassPhase::Ended,
            (None, _, "false", _) => PassPhase::Left,
            (None, _, _, 0) => PassPhase::Beginning,
            _ => PassPhase::Working,
        };
        let found = of_pass(FOUND).await?.into_iter().flatten().flatten();
        let found = found.collect();
        let mut rate = of_pass(RATE).await?.into_iter().flatten().flatten();
        let mut workers = Vec::new();
        for row in of_pass(WORKERS).await? {
            workers.push(worker(row).ok_or_else(|| self.damaged())?);
        }
        Ok(Some(PassStatus {
            pass: number.parse().map_err(|_| self.damaged())?,
            command,
            phase,
            halt,
            found,
            pages,
            ended: ended_pages,
            secrets,
            remaining,
            failed: None,
            per_second: rate.next().and_then(|rate| rate.parse().ok()),
            workers,
        }))
    }
}

fn worker(row: Vec<Option<String>>) -> Option<WorkerStatus> {
    let [worker, holds, done, lapses_in] = <[_; 4]>::try_from(row).ok()?;
    Some(WorkerStatus {
        worker: worker?,
        holds: holds?.parse().ok()?,
        done: done?.parse().ok()?,
        lapses_in: match lapses_in {
            None => None,
            Some(seconds) => Some(seconds.parse().ok()?),
        },
    })
}
