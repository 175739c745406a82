//! Passes and pages in Postgres: what processes with one journal claim, under a lease with an epoch.
//!
//! Each statement is one transaction, so a process that is stopped between two of them holds nothing
//! but its lease. A write first updates the row of its page, if the epoch is still its own: claims and
//! writes of one page therefore have one order, and whoever comes late finds another epoch. No
//! condition looks at another table: after waiting for a row, Postgres evaluates only that row anew.
use std::time::Duration;

use super::sql::of_journal;
use super::{Claim, Member, SharedWork};
use crate::database::{Database, JOURNAL_LOCK, Texts};
use crate::{MigrateError, MigrateErrorKind, MigrateResult};

/// The columns of the table of passes, which has one row.
pub(crate) const PASS: &str = "one BIGINT PRIMARY KEY CHECK (one = 1), pass BIGINT NOT NULL, \
     command TEXT NOT NULL, settings TEXT NOT NULL, ended BIGINT NOT NULL, halt TEXT, \
     until TIMESTAMPTZ NOT NULL, stragglers TIMESTAMPTZ";

/// The columns of the table of pages. `scan` is what the first page tells all others: a number.
pub(crate) const PAGE: &str = "pass BIGINT, page BIGINT, scan BIGINT, after TEXT{collation}, upto TEXT{collation}, \
     secrets BIGINT NOT NULL, epoch BIGINT NOT NULL, worker TEXT, until TIMESTAMPTZ, \
     done BIGINT NOT NULL, found TEXT, PRIMARY KEY (pass, page)";

/// Begins a pass if nobody else is at work. A new journal counts from the time, so that a process
/// that was stopped since before its tables were dropped does not find its own pass again.
///
/// Those of a pass that was halted learn it with their next page, and until then go on with what they
/// have. The same command may do so beside them; what another one does, they would undo. It therefore waits
/// for the last lease of every halted pass since (`stragglers`), also if the pass after it has ended.
///
/// With `$5`, none begins if one of the same work has ended since so long ago, or less than a lease before: how
/// long it still had to live when it ended is in `until`.
const JOIN: &str = "WITH alone AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(CAST($4 AS BIGINT)) AS yes), \
     begun AS ( \
        INSERT INTO @_pass AS now (one, pass, command, settings, ended, halt, until) \
        SELECT 1, CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT), $1, $2, 0, NULL, \
               now() + CAST($3 AS interval) FROM alone \
        ON CONFLICT (one) DO UPDATE SET pass = now.pass + 1, command = excluded.command, \
            settings = excluded.settings, ended = 0, halt = NULL, until = excluded.until, \
            stragglers = CASE WHEN (SELECT yes FROM alone) THEN NULL \
                WHEN now.halt IS NULL OR now.ended = 1 THEN now.stragglers \
                ELSE GREATEST(now.stragglers, now.until) END \
        WHERE ((SELECT yes FROM alone) \
               OR ((now.ended = 1 OR now.until < now()) \
                   AND (now.command = excluded.command OR COALESCE(now.stragglers < now(), true))) \
               OR (now.halt IS NOT NULL AND now.command = excluded.command)) \
          AND NOT COALESCE(now.ended = 1 AND now.halt IS NULL AND now.command = excluded.command \
               AND now.settings = excluded.settings \
               AND now.until > now() - CAST(NULLIF($5, '') AS interval), false) \
        RETURNING pass), \
     no_pages AS (DELETE FROM @_page USING begun WHERE @_page.pass < begun.pass), \
     first AS (INSERT INTO @_page (pass, page, secrets, epoch, done) SELECT pass, 0, 0, 0, 0 FROM begun) \
     SELECT CAST(pass AS TEXT) FROM begun";

/// Shows that the process is alive, which a write does only if nobody has done so lately. In a pass that has
/// ended nobody is at work: how long ago it ended must not depend on who asks.
const ALIVE: &str = "UPDATE @_pass SET until = now() + CAST($2 AS interval) \
     WHERE pass = CAST($1 AS BIGINT) AND ended = 0 AND until < now() + CAST($2 AS interval) * 0.7";

/// The page after all secrets is free when no other is left, which the first has laid out before.
const CLAIM: &str = "WITH free AS ( \
        SELECT page AS number FROM @_page \
        WHERE pass = CAST($1 AS BIGINT) AND done = 0 AND (until IS NULL OR until < now()) \
          AND (page = 0 OR upto IS NOT NULL OR NOT EXISTS ( \
            SELECT 1 FROM @_page AS before \
            WHERE before.pass = CAST($1 AS BIGINT) AND before.done = 0 AND before.upto IS NOT NULL)) \
        ORDER BY page LIMIT 1 FOR UPDATE SKIP LOCKED) \
     UPDATE @_page SET epoch = epoch + 1, worker = $2, until = now() + CAST($3 AS interval) \
     FROM free WHERE pass = CAST($1 AS BIGINT) AND page = free.number \
     RETURNING CAST(page AS TEXT), CAST(epoch AS TEXT), CAST(scan AS TEXT), after, upto";

/// What is left of a pass. In one statement: between two, another pass may begin, which removes these pages,
/// and none would look as if all had ended.
const LEFT: &str = "SELECT pass.halt, CAST(COUNT(page.page) AS TEXT), \
        CAST(COUNT(page.page) FILTER (WHERE page.done = 0) AS TEXT), \
        CAST(COALESCE(jsonb_agg(DISTINCT page.found) FILTER (WHERE page.found IS NOT NULL), '[]') AS TEXT) \
     FROM @_pass AS pass LEFT JOIN @_page AS page ON page.pass = pass.pass \
     WHERE pass.pass = CAST($1 AS BIGINT) GROUP BY pass.one, pass.halt";

/// The pages go in the statement that ends their pass, so that no kill leaves a pass without any.
const END: &str = "WITH ended AS ( \
        UPDATE @_pass SET ended = 1, pass = pass + 1, command = '', stragglers = NULL RETURNING pass) \
     DELETE FROM @_page USING ended WHERE @_page.pass < ended.pass";

/// The first part of every write: renews the claim if it is still one.
pub(crate) fn held(change: &str) -> String {
    whose(change, " AND done = 0")
}

/// The same for a page that may have ended: nobody else can claim it then.
pub(super) fn held_or_ended() -> String {
    whose("", "")
}

fn whose(change: &str, condition: &str) -> String {
    format!(
        "WITH held AS ( \
            UPDATE @_page SET until = now() + CAST($5 AS interval){change} \
            WHERE pass = CAST($2 AS BIGINT) AND page = CAST($3 AS BIGINT) \
              AND epoch = CAST($4 AS BIGINT){condition} RETURNING page)"
    )
}

/// The passes of a journal.
#[derive(Debug)]
pub(crate) struct Passes<'j> {
    database: &'j Database,
    /// What the names of its tables begin with; `@` in the statements.
    prefix: &'static str,
}

/// What a process does next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// All pages have ended, and some of them found this.
    Ended(Vec<String>),
    Halted(String),
    Page(Claimed),
    Superseded,
    Wait,
}

/// A page that a process has claimed: what is after one name and up to another.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) claim: Claim,
    /// What the first page told all others.
    pub(crate) scan: Option<u64>,
    pub(crate) after: Option<String>,
    /// None for the first page, and for the last.
    pub(crate) upto: Option<String>,
}

/// The pages that the first one lays out.
#[derive(Debug)]
pub(crate) struct Pages {
    /// A query of them: `page`, from 1, `after`, `upto` and `secrets`.
    pub(crate) pages: String,
    /// The first parameter, for the query.
    pub(crate) parameter: String,
    pub(crate) scan: u64,
    pub(crate) last: bool,
}

/// Divides rows into pages: `rows` is what follows `FROM`. They have a column `coordinate`.
pub(crate) fn divided(rows: &str, size: usize) -> String {
    format!(
        "SELECT page, lag(MAX(coordinate)) OVER (ORDER BY page) AS after, MAX(coordinate) AS upto, \
                COUNT(*) AS secrets \
         FROM (SELECT coordinate, (row_number() OVER (ORDER BY coordinate) - 1) / {size} + 1 AS page \
               FROM {rows}) AS numbered \
         GROUP BY page"
    )
}

impl<'j> Passes<'j> {
    pub(crate) fn new(database: &'j Database, prefix: &'static str) -> Self {
        Self { database, prefix }
    }

    /// [`Sharing::join`](super::Sharing::join).
    pub(crate) async fn join(
        &self,
        work: &SharedWork,
        worker: &str,
        lease: Duration,
    ) -> MigrateResult<Member> {
        self.enter(work, worker, lease, None).await
    }

    /// The same for work that is not repeated: joins also a pass of this work that has ended since so long ago,
    /// or less than a lease before.
    pub(crate) async fn join_recent(
        &self,
        work: &SharedWork,
        worker: &str,
        lease: Duration,
        since: Duration,
    ) -> MigrateResult<Member> {
        self.enter(work, worker, lease, Some(since)).await
    }

    async fn enter(
        &self,
        work: &SharedWork,
        worker: &str,
        lease: Duration,
        since: Option<Duration>,
    ) -> MigrateResult<Member> {
        let parameters = || {
            vec![
                work.command.clone(),
                work.settings.clone(),
                interval(lease),
                JOURNAL_LOCK.to_string(),
                since.map_or_else(String::new, interval),
            ]
        };
        loop {
            let begun = self.few(JOIN, parameters()).await?;
            if !begun.is_empty() {
                return Ok(Member::new(self.number(begun)?, worker, lease));
            }
            let pass = self.last().await?.ok_or_else(|| self.damaged())?;
            let is_same = pass.command == work.command;
            let is_joined = since.is_some()
                && pass.is_ended
                && pass.halt.is_none()
                && is_same
                && pass.settings == work.settings;
            if is_joined {
                return Ok(Member::new(pass.number, worker, lease));
            }
            let is_over = pass.is_ended && (is_same || !pass.has_stragglers);
            if is_over || (pass.halt.is_some() && is_same) {
                continue;
            }
            let is_over = pass.halt.is_some() || pass.is_ended;
            let theirs = SharedWork::new(pass.command, pass.settings);
            if theirs != *work {
                let message = if is_over {
                    format!(
                        "processes that {} have been stopped, and may not have noticed it yet",
                        theirs.command
                    )
                } else if theirs.command == work.command {
                    "processes that work on something else or with other options share the journal now"
                        .to_owned()
                } else {
                    format!("processes that {} share the journal now", theirs.command)
                };
                return Err(MigrateError::new(MigrateErrorKind::AnotherRun, message)
                    .with_place(self.place())
                    .with_hint("use the same options, or wait until they have ended or for the length of their lease"));
            }
            return Ok(Member::new(pass.number, worker, lease));
        }
    }

    /// [`Sharing::rejoin`](super::Sharing::rejoin).
    pub(crate) async fn rejoin(
        &self,
        work: &SharedWork,
        worker: &str,
        lease: Duration,
    ) -> MigrateResult<Member> {
        match self.last().await? {
            Some(pass) if pass.command == work.command && pass.settings == work.settings => {
                Ok(Member::new(pass.number, worker, lease))
            }
            _ => Err(MigrateError::new(
                MigrateErrorKind::AnotherRun,
                "another command has begun while this process made no progress",
            )
            .with_place(self.place())
            .with_hint(
                "see what has been done since, then start this command again if it still is wanted",
            )),
        }
    }

    /// [`Sharing::claim`](super::Sharing::claim).
    pub(crate) async fn claim(&self, member: &Member) -> MigrateResult<Turn> {
        match self.look(member).await? {
            Some(turn) => Ok(turn),
            None => self.take(member).await,
        }
    }

    /// The first step of a claim: shows that the process is alive, and learns whether its pass still counts.
    pub(super) async fn look(&self, member: &Member) -> MigrateResult<Option<Turn>> {
        let alive = vec![member.pass.to_string(), interval(member.lease)];
        self.change(ALIVE, alive).await?;
        let last = self.last().await?;
        let Some(pass) = last.filter(|last| last.number == member.pass) else {
            return Ok(Some(Turn::Superseded));
        };
        Ok(pass.halt.map(Turn::Halted))
    }

    /// The second step: takes a page, or says why there is none. The pass may have been replaced since the
    /// first step, and its pages with it.
    pub(super) async fn take(&self, member: &Member) -> MigrateResult<Turn> {
        let number = member.pass.to_string();
        let parameters = vec![
            number.clone(),
            member.worker.clone(),
            interval(member.lease),
        ];
        if let Some(row) = self.few(CLAIM, parameters).await?.into_iter().next() {
            return page(member, row)
                .map(Turn::Page)
                .ok_or_else(|| self.damaged());
        }
        let Some(row) = self
            .few(LEFT, vec![number.clone()])
            .await?
            .into_iter()
            .next()
        else {
            return Ok(Turn::Superseded);
        };
        match left(row).ok_or_else(|| self.damaged())? {
            Left {
                halt: Some(halt), ..
            } => Ok(Turn::Halted(halt)),
            // The first page is there from the beginning, and lays out the others in the statement that ends it.
            Left { pages: 0, .. } => Err(self.damaged()),
            Left { open: 1.., .. } => Ok(Turn::Wait),
            Left { found, .. } => {
                let sql = "UPDATE @_pass SET ended = 1 WHERE pass = CAST($1 AS BIGINT)";
                self.change(sql, vec![number]).await?;
                Ok(Turn::Ended(found))
            }
        }
    }

    /// [`Sharing::renew`](super::Sharing::renew).
    pub(crate) async fn renew(&self, claim: Claim) -> MigrateResult<()> {
        // A statement of its own: in the one below, it would lock the page before the pass, and a process
        // that joins locks them the other way round. First, so that nobody begins another pass between
        // the two: who has the page then has it as long as the pass lasts.
        let alive = vec![claim.pass.to_string(), interval(claim.lease)];
        self.change(ALIVE, alive).await?;
        self.write(&held(""), claim, "", String::new(), Vec::new())
            .await
    }

    /// [`Sharing::release`](super::Sharing::release).
    pub(crate) async fn release(&self, claim: Claim) -> MigrateResult<()> {
        let held = held(", epoch = epoch + 1");
        let released = self.write(&held, claim, "", String::new(), Vec::new());
        match released.await {
            Err(error) if error.kind() == MigrateErrorKind::Lapsed => return Ok(()),
            other => other?,
        }
        let sql = "UPDATE @_page SET until = NULL WHERE pass = CAST($1 AS BIGINT) \
                   AND page = CAST($2 AS BIGINT) AND epoch = CAST($3 AS BIGINT)";
        let numbers = [claim.pass, claim.page, claim.epoch + 1];
        self.change(sql, numbers.map(|number| number.to_string()).to_vec())
            .await
    }

    /// [`Sharing::halt`](super::Sharing::halt).
    pub(crate) async fn halt(&self, pass: u64, halt: String) -> MigrateResult<()> {
        let sql = "UPDATE @_pass SET halt = $2 WHERE pass = CAST($1 AS BIGINT) AND halt IS NULL";
        self.change(sql, vec![pass.to_string(), halt]).await
    }

    /// Ends the first page and lays out the others, in one step.
    pub(crate) async fn lay_out(&self, claim: Claim, pages: Pages) -> MigrateResult<()> {
        let last = if pages.last {
            ", last AS ( \
                INSERT INTO @_page (pass, page, scan, secrets, epoch, done) \
                SELECT CAST($2 AS BIGINT), COALESCE(MAX(pages.page), 0) + 1, CAST($6 AS BIGINT), 0, 0, 0 \
                FROM held LEFT JOIN pages ON true GROUP BY held.page)"
        } else {
            ""
        };
        let write = format!(
            ", pages AS ({}), \
             laid AS ( \
                INSERT INTO @_page (pass, page, scan, after, upto, secrets, epoch, done) \
                SELECT CAST($2 AS BIGINT), pages.page, CAST($6 AS BIGINT), pages.after, pages.upto, pages.secrets, 0, 0 \
                FROM pages CROSS JOIN held){last}",
            pages.pages
        );
        let scan = vec![pages.scan.to_string()];
        self.write(&held(", done = 1"), claim, &write, pages.parameter, scan)
            .await
    }

    /// What a process does alone may undo what a pass has done, so that nobody joins it any more, and
    /// one that has lost its connection and comes back finds none of its pages.
    pub(crate) async fn end(&self) -> MigrateResult<()> {
        self.change(END, Vec::new()).await
    }

    /// Runs one write under a claim, which begins with [`held`].
    pub(crate) async fn write(
        &self,
        held: &str,
        claim: Claim,
        write: &str,
        items: String,
        more: Vec<String>,
    ) -> MigrateResult<()> {
        let sql = format!("{held}{write} SELECT CAST(COUNT(*) AS TEXT) FROM held");
        let held: u64 = self.number(self.few(&sql, under(claim, items, more)).await?)?;
        if held == 1 {
            Ok(())
        } else {
            Err(self.lapsed())
        }
    }

    /// Runs one write under a claim, and returns the number that it makes.
    pub(crate) async fn write_for(
        &self,
        claim: Claim,
        write: &str,
        items: String,
        more: Vec<String>,
    ) -> MigrateResult<u64> {
        let sql = format!("{}{write}", held(""));
        let rows = self.few(&sql, under(claim, items, more)).await?;
        if rows.is_empty() {
            return Err(self.lapsed());
        }
        self.number(rows)
    }

    fn lapsed(&self) -> MigrateError {
        MigrateError::new(
            MigrateErrorKind::Lapsed,
            "another process has taken over a page that this one made no progress on",
        )
        .with_place(self.place())
    }

    async fn last(&self) -> MigrateResult<Option<Last>> {
        let sql = "SELECT CAST(pass AS TEXT), command, settings, CAST(ended AS TEXT), halt, \
                   CAST(COALESCE(stragglers >= now(), false) AS TEXT) FROM @_pass";
        let row = self.few(sql, Vec::new()).await?.into_iter().next();
        row.map(|row| last(row).ok_or_else(|| self.damaged()))
            .transpose()
    }

    pub(super) async fn few(
        &self,
        sql: &str,
        parameters: Vec<String>,
    ) -> MigrateResult<Vec<Texts>> {
        let rows = self.database.few(self.named(sql), parameters);
        rows.await.map_err(of_journal)
    }

    async fn change(&self, sql: &str, parameters: Vec<String>) -> MigrateResult<()> {
        let changed = self.database.execute(self.named(sql), parameters).await;
        changed.map(drop).map_err(of_journal)
    }

    fn named(&self, sql: &str) -> String {
        sql.replace("@_", &format!("{}_", self.prefix))
    }

    /// The only number of a result.
    fn number(&self, rows: Vec<Texts>) -> MigrateResult<u64> {
        let number = rows.into_iter().next().and_then(|mut row| row.pop()?);
        number
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| self.damaged())
    }

    fn place(&self) -> String {
        format!("journal {}", self.database.name())
    }

    pub(super) fn damaged(&self) -> MigrateError {
        MigrateError::new(
            MigrateErrorKind::Journal,
            "the journal contains an entry that this version did not write",
        )
        .with_place(self.place())
    }
}

/// The last pass.
struct Last {
    number: u64,
    command: String,
    settings: String,
    is_ended: bool,
    halt: Option<String>,
    /// Whether processes of a pass that was halted before may still be at work.
    has_stragglers: bool,
}

fn last(row: Texts) -> Option<Last> {
    let [number, command, settings, ended, halt, stragglers] = <[_; 6]>::try_from(row).ok()?;
    Some(Last {
        number: number?.parse().ok()?,
        command: command?,
        settings: settings?,
        is_ended: ended? == "1",
        halt,
        has_stragglers: stragglers? == "true",
    })
}

/// What is left of a pass.
struct Left {
    halt: Option<String>,
    pages: u64,
    /// Those that have not ended.
    open: u64,
    /// What the others found, each once.
    found: Vec<String>,
}

fn left(row: Texts) -> Option<Left> {
    let [halt, pages, open, found] = <[_; 4]>::try_from(row).ok()?;
    Some(Left {
        halt,
        pages: pages?.parse().ok()?,
        open: open?.parse().ok()?,
        found: serde_json::from_str(&found?).ok()?,
    })
}

fn page(member: &Member, row: Texts) -> Option<Claimed> {
    let [page, epoch, scan, after, upto] = <[_; 5]>::try_from(row).ok()?;
    let (page, epoch) = (page?.parse().ok()?, epoch?.parse().ok()?);
    let scan = match scan {
        None => None,
        Some(scan) => Some(scan.parse().ok()?),
    };
    Some(Claimed {
        claim: Claim::new(member.pass, page, epoch, member.lease),
        scan,
        after,
        upto,
    })
}

fn under(claim: Claim, items: String, more: Vec<String>) -> Vec<String> {
    let mut parameters = vec![
        items,
        claim.pass.to_string(),
        claim.page.to_string(),
        claim.epoch.to_string(),
        interval(claim.lease),
    ];
    parameters.extend(more);
    parameters
}

pub(crate) fn interval(lease: Duration) -> String {
    format!("{} milliseconds", lease.as_millis())
}
