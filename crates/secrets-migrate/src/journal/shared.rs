//! A journal in Postgres that several processes share.
//!
//! Each statement is one transaction, so a process that is stopped between two of them holds nothing
//! but its lease. A write first updates the row of its page, if the epoch is still its own: claims and
//! writes of one page therefore have one order, and whoever comes late finds another epoch. No
//! condition looks at another table: after waiting for a row, Postgres evaluates only that row anew.
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence_core::ManagedCoordinate;
use serde_json::{Value, json};

use super::sql::{ADVANCED, MENTIONED, SEEN, SqlJournal, condition, distinct, once_each, twice};
use super::{Claim, Halt, Layout, Mark, Member, Next, SecretsPage, SharedWork, Sharing};
use crate::database::Texts;
use crate::{Mention, MigrateError, MigrateErrorKind, MigrateResult, Stop, Transition};

/// The tables beside those of every journal.
pub(super) const TABLES: [(&str, &str); 3] = [
    (
        "migrate_pass",
        "one BIGINT PRIMARY KEY CHECK (one = 1), pass BIGINT NOT NULL, command TEXT NOT NULL, \
         settings TEXT NOT NULL, ended BIGINT NOT NULL, halt TEXT, until TIMESTAMPTZ NOT NULL, \
         stragglers TIMESTAMPTZ",
    ),
    (
        "migrate_page",
        "pass BIGINT, page BIGINT, scan BIGINT, after TEXT{collation}, upto TEXT{collation}, \
         secrets BIGINT NOT NULL, epoch BIGINT NOT NULL, worker TEXT, until TIMESTAMPTZ, \
         done BIGINT NOT NULL, found TEXT, PRIMARY KEY (pass, page)",
    ),
    (
        "migrate_mark",
        "pass BIGINT, coordinate TEXT{collation}, storage TEXT, number BIGSERIAL PRIMARY KEY",
    ),
];

/// Begins a pass if nobody else is at work. A new journal counts from the time, so that a process
/// that was stopped since before its tables were dropped does not find its own pass again.
///
/// Those of a pass that was halted learn it with their next page, and until then go on with what they
/// have. The same command may do so beside them; what another one does, they would undo. It therefore waits
/// for the last lease of every halted pass since (`stragglers`), also if the pass after it has ended.
const JOIN: &str = "WITH alone AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(CAST($4 AS BIGINT)) AS yes), \
     begun AS ( \
        INSERT INTO migrate_pass AS now (one, pass, command, settings, ended, halt, until) \
        SELECT 1, CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT), $1, $2, 0, NULL, \
               now() + CAST($3 AS interval) FROM alone \
        ON CONFLICT (one) DO UPDATE SET pass = now.pass + 1, command = excluded.command, \
            settings = excluded.settings, ended = 0, halt = NULL, until = excluded.until, \
            stragglers = CASE WHEN (SELECT yes FROM alone) THEN NULL \
                WHEN now.halt IS NULL OR now.ended = 1 THEN now.stragglers \
                ELSE GREATEST(now.stragglers, now.until) END \
        WHERE (SELECT yes FROM alone) \
           OR ((now.ended = 1 OR now.until < now()) \
               AND (now.command = excluded.command OR COALESCE(now.stragglers < now(), true))) \
           OR (now.halt IS NOT NULL AND now.command = excluded.command) \
        RETURNING pass), \
     no_pages AS (DELETE FROM migrate_page USING begun WHERE migrate_page.pass < begun.pass), \
     no_marks AS (DELETE FROM migrate_mark USING begun WHERE migrate_mark.pass < begun.pass), \
     scan AS (INSERT INTO migrate_page (pass, page, secrets, epoch, done) SELECT pass, 0, 0, 0, 0 FROM begun) \
     SELECT CAST(pass AS TEXT) FROM begun";

/// Shows that the process is alive, which a write does only if nobody has done so lately.
const ALIVE: &str = "UPDATE migrate_pass SET until = now() + CAST($2 AS interval) \
     WHERE pass = CAST($1 AS BIGINT) AND until < now() + CAST($2 AS interval) * 0.7";

/// The page after all secrets is free when no other is left, which the first has laid out before.
const CLAIM: &str = "WITH free AS ( \
        SELECT page AS number FROM migrate_page \
        WHERE pass = CAST($1 AS BIGINT) AND done = 0 AND (until IS NULL OR until < now()) \
          AND (page = 0 OR upto IS NOT NULL OR NOT EXISTS ( \
            SELECT 1 FROM migrate_page AS before \
            WHERE before.pass = CAST($1 AS BIGINT) AND before.done = 0 AND before.upto IS NOT NULL)) \
        ORDER BY page LIMIT 1 FOR UPDATE SKIP LOCKED) \
     UPDATE migrate_page SET epoch = epoch + 1, worker = $2, until = now() + CAST($3 AS interval) \
     FROM free WHERE pass = CAST($1 AS BIGINT) AND page = free.number \
     RETURNING CAST(page AS TEXT), CAST(epoch AS TEXT), CAST(scan AS TEXT), after, upto";

/// The first part of every write: renews the claim if it is still one.
fn held(change: &str) -> String {
    whose(change, " AND done = 0")
}

/// The same for a page that may have ended: nobody else can claim it then.
fn held_or_ended() -> String {
    whose("", "")
}

fn whose(change: &str, condition: &str) -> String {
    format!(
        "WITH held AS ( \
            UPDATE migrate_page SET until = now() + CAST($5 AS interval){change} \
            WHERE pass = CAST($2 AS BIGINT) AND page = CAST($3 AS BIGINT) \
              AND epoch = CAST($4 AS BIGINT){condition} RETURNING page)"
    )
}

fn interval(lease: Duration) -> String {
    format!("{} milliseconds", lease.as_millis())
}

impl SqlJournal {
    /// Runs one write under a claim.
    async fn write(
        &self,
        claim: Claim,
        change: &str,
        write: &str,
        items: String,
        more: Vec<String>,
    ) -> MigrateResult<()> {
        self.write_if(&held(change), claim, write, items, more)
            .await
    }

    async fn write_if(
        &self,
        held: &str,
        claim: Claim,
        write: &str,
        items: String,
        more: Vec<String>,
    ) -> MigrateResult<()> {
        let sql = format!("{held}{write} SELECT CAST(COUNT(*) AS TEXT) FROM held");
        let held: u64 = self.number(self.few(sql, under(claim, items, more)).await?)?;
        if held == 1 {
            Ok(())
        } else {
            Err(self.lapsed())
        }
    }

    async fn transitions(
        &self,
        claim: Claim,
        held: &str,
        transitions: &[Transition],
        more: Vec<String>,
    ) -> MigrateResult<()> {
        if transitions.is_empty() {
            return self.write_if(held, claim, "", "[]".into(), more).await;
        }
        self.bind().await?;
        let write = format!(
            ", changed AS (INSERT INTO migrate_secret (coordinate, state, intent, scan, holder, shared) \
             SELECT items.value ->> 'c', items.value ->> 's', CAST(items.value ->> 'i' AS BIGINT), 0, NULL, 0 \
             FROM {} CROSS JOIN held {ADVANCED})",
            self.items()
        );
        self.write_if(held, claim, &write, distinct(transitions), more)
            .await
    }

    fn lapsed(&self) -> MigrateError {
        MigrateError::new(
            MigrateErrorKind::Lapsed,
            "another process has taken over a page that this one made no progress on",
        )
        .with_place(self.to_string())
    }

    fn page_of(&self, member: &Member, row: Texts) -> MigrateResult<Next> {
        let page = || {
            let [page, epoch, scan, after, upto] = <[_; 5]>::try_from(row).ok()?;
            let (page, epoch) = (page?.parse().ok()?, epoch?.parse().ok()?);
            let claim = Claim::new(member.pass, page, epoch, member.lease);
            if page == 0 {
                return Some(Next::First(claim));
            }
            let Some(upto) = upto else {
                return Some(Next::Last(claim));
            };
            let after = match after {
                None => None,
                Some(name) => Some(ManagedCoordinate::parse(&name).ok()?),
            };
            let upto = ManagedCoordinate::parse(&upto).ok()?;
            let page = SecretsPage::new(claim, scan?.parse().ok()?, after, upto);
            Some(Next::Secrets(page))
        };
        page().ok_or_else(|| self.damaged())
    }

    /// The end of a pass whose pages have all ended: what the worst of them found.
    async fn ended(&self, pass: String) -> MigrateResult<Next> {
        let sql = "SELECT DISTINCT found FROM migrate_page \
                   WHERE pass = CAST($1 AS BIGINT) AND found IS NOT NULL";
        let rows = self.few(sql.into(), vec![pass]).await?;
        let mut found = Vec::with_capacity(rows.len());
        for text in rows.into_iter().flatten().flatten() {
            found.push(Stop::parse(&text).ok_or_else(|| self.damaged())?);
        }
        let worst = Stop::ALL.into_iter().find(|stop| found.contains(stop));
        Ok(worst.map_or(Next::Ended, |stop| {
            Next::Halted(Halt::new(stop, Vec::new()))
        }))
    }

    /// The number, command, settings, end and halt of the last pass, and whether processes of a pass that
    /// was halted before may still be at work.
    async fn pass(&self) -> MigrateResult<Option<[Option<String>; 6]>> {
        let sql = "SELECT CAST(pass AS TEXT), command, settings, CAST(ended AS TEXT), halt, \
                   CAST(COALESCE(stragglers >= now(), false) AS TEXT) FROM migrate_pass";
        let row = self.few(sql.into(), Vec::new()).await?.into_iter().next();
        row.map(|row| <[_; 6]>::try_from(row).map_err(|_| self.damaged()))
            .transpose()
    }
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

#[async_trait]
impl Sharing for SqlJournal {
    async fn join(
        &self,
        work: &SharedWork,
        worker: &str,
        lease: Duration,
    ) -> MigrateResult<Member> {
        let parameters = || {
            vec![
                work.command.clone(),
                work.settings.clone(),
                interval(lease),
                crate::database::JOURNAL_LOCK.to_string(),
            ]
        };
        loop {
            let begun = self.few(JOIN.into(), parameters()).await?;
            if !begun.is_empty() {
                return Ok(Member::new(self.number(begun)?, worker, lease));
            }
            let Some(
                [
                    Some(pass),
                    Some(command),
                    Some(settings),
                    Some(ended),
                    halt,
                    Some(stragglers),
                ],
            ) = self.pass().await?
            else {
                return Err(self.damaged());
            };
            let (is_ended, is_same) = (ended == "1", command == work.command);
            let is_over = is_ended && (is_same || stragglers == "false");
            if is_over || (halt.is_some() && is_same) {
                continue;
            }
            let theirs = SharedWork::new(command, settings);
            if theirs != *work {
                let message = if halt.is_some() || is_ended {
                    format!(
                        "processes that {} have been stopped, and may not have noticed it yet",
                        theirs.command
                    )
                } else if theirs.command == work.command {
                    "processes with other decisions or other sources of configurations share the journal now"
                        .to_owned()
                } else {
                    format!("processes that {} share the journal now", theirs.command)
                };
                return Err(MigrateError::new(MigrateErrorKind::AnotherRun, message)
                    .with_place(self.to_string())
                    .with_hint("use the same options, or wait until they have ended or for the length of their lease"));
            }
            let pass = pass.parse().map_err(|_| self.damaged())?;
            return Ok(Member::new(pass, worker, lease));
        }
    }

    async fn rejoin(
        &self,
        work: &SharedWork,
        worker: &str,
        lease: Duration,
    ) -> MigrateResult<Member> {
        match self.pass().await? {
            Some([Some(pass), Some(command), Some(settings), _, _, _])
                if SharedWork::new(command.as_str(), settings.as_str()) == *work =>
            {
                let pass = pass.parse().map_err(|_| self.damaged())?;
                Ok(Member::new(pass, worker, lease))
            }
            _ => Err(MigrateError::new(
                MigrateErrorKind::AnotherRun,
                "another command has begun while this process made no progress",
            )
            .with_place(self.to_string())
            .with_hint(
                "see what has been done since, then start this command again if it still is wanted",
            )),
        }
    }

    async fn claim(&self, member: &Member) -> MigrateResult<Next> {
        let number = member.pass.to_string();
        self.change(ALIVE.into(), vec![number.clone(), interval(member.lease)])
            .await?;
        match self.pass().await? {
            Some([Some(pass), _, _, Some(ended), halt, _]) if pass == number => {
                if let Some(halt) = halt {
                    let halt = serde_json::from_str(&halt).map_err(|_| self.damaged())?;
                    return Ok(Next::Halted(halt));
                }
                if ended == "1" {
                    return self.ended(number).await;
                }
            }
            _ => return Ok(Next::Superseded),
        }
        let parameters = vec![
            number.clone(),
            member.worker.clone(),
            interval(member.lease),
        ];
        if let Some(row) = self.few(CLAIM.into(), parameters).await?.into_iter().next() {
            return self.page_of(member, row);
        }
        // The first page ends in the statement that lays out the pages, so there is no moment without any.
        let sql = "SELECT CAST(COUNT(*) AS TEXT) FROM migrate_page \
                   WHERE pass = CAST($1 AS BIGINT) AND done = 0";
        let open: u64 = self.number(self.few(sql.into(), vec![number.clone()]).await?)?;
        if open > 0 {
            return Ok(Next::Wait);
        }
        let sql = "UPDATE migrate_pass SET ended = 1 WHERE pass = CAST($1 AS BIGINT)";
        self.change(sql.into(), vec![number.clone()]).await?;
        self.ended(number).await
    }

    fn session(&self) -> u64 {
        self.sessions()
    }

    async fn renew(&self, claim: Claim) -> MigrateResult<()> {
        // A statement of its own: in the one below, it would lock the page before the pass, and a process
        // that joins locks them the other way round. First, so that nobody begins another pass between
        // the two: who has the page then has it as long as the pass lasts.
        let alive = vec![claim.pass.to_string(), interval(claim.lease)];
        self.change(ALIVE.into(), alive).await?;
        self.write(claim, "", "", "[]".into(), Vec::new()).await
    }

    async fn release(&self, claim: Claim) -> MigrateResult<()> {
        let released = self.write(claim, ", epoch = epoch + 1", "", "[]".into(), Vec::new());
        match released.await {
            Err(error) if error.kind() == MigrateErrorKind::Lapsed => return Ok(()),
            other => other?,
        }
        let sql = "UPDATE migrate_page SET until = NULL WHERE pass = CAST($1 AS BIGINT) \
                   AND page = CAST($2 AS BIGINT) AND epoch = CAST($3 AS BIGINT)";
        let numbers = [claim.pass, claim.page, claim.epoch + 1];
        self.change(
            sql.into(),
            numbers.map(|number| number.to_string()).to_vec(),
        )
        .await
    }

    async fn begin_scan_under(&self, claim: Claim) -> MigrateResult<u64> {
        let sql = format!(
            "{}, no_marks AS (DELETE FROM migrate_mark USING held WHERE migrate_mark.pass = CAST($2 AS BIGINT)) \
             UPDATE migrate_run SET scan = scan + 1 FROM held RETURNING CAST(scan AS TEXT)",
            held("")
        );
        let rows = self
            .few(sql, under(claim, String::new(), Vec::new()))
            .await?;
        if rows.is_empty() {
            return Err(self.lapsed());
        }
        self.number(rows)
    }

    async fn see_under(
        &self,
        claim: Claim,
        scan: u64,
        configurations: &[String],
    ) -> MigrateResult<Vec<String>> {
        let (keys, twice) = twice(configurations);
        let twice = self.seen_before(scan, &keys, twice).await?;
        let write = format!(
            ", changed AS (INSERT INTO migrate_configuration (key, scan) \
             SELECT items.value ->> 'k', CAST($6 AS BIGINT) FROM {} CROSS JOIN held {SEEN})",
            self.items()
        );
        self.write(claim, "", &write, keys, vec![scan.to_string()])
            .await?;
        Ok(twice.among(configurations))
    }

    async fn mention_under(
        &self,
        claim: Claim,
        scan: u64,
        mentions: &[Mention],
    ) -> MigrateResult<()> {
        let write = format!(
            ", changed AS (INSERT INTO migrate_secret (coordinate, state, intent, scan, holder, shared) \
             SELECT items.value ->> 'c', 'pending', 0, CAST($6 AS BIGINT), items.value ->> 'h', \
                    CAST(items.value ->> 's' AS BIGINT) \
             FROM {} CROSS JOIN held {MENTIONED})",
            self.items()
        );
        self.write(
            claim,
            "",
            &write,
            once_each(mentions),
            vec![scan.to_string()],
        )
        .await
    }

    async fn mark(&self, claim: Claim, marks: &[Mark]) -> MigrateResult<()> {
        let items: Vec<Value> = marks
            .iter()
            .map(|mark| match mark {
                // No storage id is empty.
                Mark::Left(name, storage) => {
                    json!({ "c": name.as_str(), "t": storage.as_deref().unwrap_or_default() })
                }
                Mark::Orphan(name) => json!({ "c": name.as_str() }),
            })
            .collect();
        let write = format!(
            ", changed AS (INSERT INTO migrate_mark (pass, coordinate, storage) \
             SELECT CAST($2 AS BIGINT), items.value ->> 'c', items.value ->> 't' \
             FROM {} CROSS JOIN held)",
            self.items()
        );
        let items = Value::Array(items).to_string();
        self.write(claim, "", &write, items, Vec::new()).await
    }

    async fn marks(&self, pass: u64) -> MigrateResult<Vec<Mark>> {
        const PAGE: usize = 1000;
        let sql = format!(
            "SELECT coordinate, storage, CAST(number AS TEXT) FROM migrate_mark \
             WHERE pass = CAST($1 AS BIGINT) AND number > CAST($2 AS BIGINT) ORDER BY migrate_mark.number LIMIT {PAGE}"
        );
        let (mut marks, mut after) = (Vec::new(), "0".to_owned());
        loop {
            let rows = self
                .few(sql.clone(), vec![pass.to_string(), after.clone()])
                .await?;
            let is_last = rows.len() < PAGE;
            for row in rows {
                let [Some(name), storage, Some(number)] =
                    <[_; 3]>::try_from(row).map_err(|_| self.damaged())?
                else {
                    return Err(self.damaged());
                };
                let name = ManagedCoordinate::parse(&name).map_err(|_| self.damaged())?;
                marks.push(match storage {
                    Some(storage) => Mark::Left(name, Some(storage).filter(|id| !id.is_empty())),
                    None => Mark::Orphan(name),
                });
                after = number;
            }
            if is_last {
                return Ok(marks);
            }
        }
    }

    async fn lay_out(&self, claim: Claim, layout: &Layout) -> MigrateResult<()> {
        let last = if layout.last {
            ", last AS ( \
                INSERT INTO migrate_page (pass, page, scan, secrets, epoch, done) \
                SELECT CAST($2 AS BIGINT), COALESCE(MAX(pages.page), 0) + 1, CAST($6 AS BIGINT), 0, 0, 0 \
                FROM held LEFT JOIN pages ON true GROUP BY held.page)"
        } else {
            ""
        };
        let write = format!(
            ", numbered AS ( \
                SELECT coordinate, (row_number() OVER (ORDER BY coordinate) - 1) / {} + 1 AS page \
                FROM migrate_secret WHERE {}), \
             pages AS ( \
                SELECT page, MAX(coordinate) AS upto, COUNT(*) AS secrets FROM numbered GROUP BY page), \
             laid AS ( \
                INSERT INTO migrate_page (pass, page, scan, after, upto, secrets, epoch, done) \
                SELECT CAST($2 AS BIGINT), pages.page, CAST($6 AS BIGINT), \
                       lag(upto) OVER (ORDER BY pages.page), upto, secrets, 0, 0 \
                FROM pages CROSS JOIN held){last}",
            layout.size,
            condition(&layout.select)
        );
        let scan = vec![layout.scan.to_string()];
        self.write(claim, ", done = 1", &write, String::new(), scan)
            .await
    }

    async fn advance_under(&self, claim: Claim, transitions: &[Transition]) -> MigrateResult<()> {
        self.transitions(claim, &held_or_ended(), transitions, Vec::new())
            .await
    }

    async fn finish(
        &self,
        claim: Claim,
        transitions: &[Transition],
        found: Option<Stop>,
    ) -> MigrateResult<()> {
        let end = held(", done = 1, found = NULLIF($6, '')");
        let found = found.map_or_else(String::new, |stop| stop.to_string());
        self.transitions(claim, &end, transitions, vec![found])
            .await
    }

    async fn halt(&self, pass: u64, halt: &Halt) -> MigrateResult<()> {
        let halt = serde_json::to_string(halt).map_err(|_| self.damaged())?;
        let sql =
            "UPDATE migrate_pass SET halt = $2 WHERE pass = CAST($1 AS BIGINT) AND halt IS NULL";
        self.change(sql.into(), vec![pass.to_string(), halt]).await
    }
}
