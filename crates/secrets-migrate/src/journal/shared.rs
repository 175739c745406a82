//! A journal in Postgres that several processes share: the secrets under its [passes](super::passes).
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence_core::ManagedCoordinate;
use serde_json::{Value, json};

use super::passes::{Claimed, PAGE, PASS, Pages, Turn, divided, held, held_or_ended};
use super::sql::SqlJournal;
use super::sql::entries::{MENTIONED, SEEN, by_state, condition, once_each, twice};
use super::{
    Claim, ConfigurationsPage, Halt, Layout, Mark, Member, Next, Position, SecretsPage, SharedWork,
    Sharing,
};
use crate::{ConfigCursor, Mention, MigrateResult, Stop, Transition};

/// The tables beside those of every journal.
pub(super) const TABLES: [(&str, &str); 3] = [
    ("migrate_pass", PASS),
    ("migrate_page", PAGE),
    (
        "migrate_mark",
        "pass BIGINT, coordinate TEXT{collation}, storage TEXT, number BIGSERIAL PRIMARY KEY",
    ),
];

/// Finds the table of passes of a build that did not know about stragglers.
pub(super) const EARLY: &str = "SELECT '' WHERE to_regclass('migrate_pass') IS NOT NULL AND NOT EXISTS ( \
     SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('migrate_pass') AND attname = 'stragglers')";

/// Adds what that table is without.
pub(super) const COMPLETE: &str =
    "ALTER TABLE migrate_pass ADD COLUMN IF NOT EXISTS stragglers TIMESTAMPTZ;";

/// For a role that may not.
pub(super) const BY_ITS_OWNER: &str = "let the owner of the table run \
     `ALTER TABLE migrate_pass ADD COLUMN stragglers TIMESTAMPTZ`";

impl SqlJournal {
    /// Runs one write under a claim.
    async fn write(
        &self,
        claim: Claim,
        write: &str,
        items: String,
        more: Vec<String>,
    ) -> MigrateResult<()> {
        let passes = self.passes();
        passes.write(&held(""), claim, write, items, more).await
    }

    async fn transitions(
        &self,
        claim: Claim,
        held: &str,
        transitions: &[Transition],
        more: Vec<String>,
    ) -> MigrateResult<()> {
        let passes = self.passes();
        if transitions.is_empty() {
            return passes.write(held, claim, "", "{}".into(), more).await;
        }
        self.bind().await?;
        let write = format!(", changed AS ({})", self.advancing("CROSS JOIN held"));
        passes
            .write(held, claim, &write, by_state(transitions), more)
            .await
    }

    pub(super) fn next(&self, turn: Turn) -> MigrateResult<Next> {
        match turn {
            Turn::Ended(found) => self.ended(&found),
            Turn::Halted(halt) => {
                let halt = serde_json::from_str(&halt).map_err(|_| self.damaged())?;
                Ok(Next::Halted(halt))
            }
            Turn::Page(page) => self.claimed(page),
            Turn::Superseded => Ok(Next::Superseded),
            Turn::Wait => Ok(Next::Wait),
        }
    }

    fn claimed(&self, page: Claimed) -> MigrateResult<Next> {
        let Claimed {
            claim,
            scan,
            after,
            upto,
        } = page;
        if claim.page == 0 {
            return Ok(Next::First(claim));
        }
        let Some(upto) = upto else {
            return Ok(Next::Last(claim));
        };
        if let Some(after) = after.as_deref().and_then(position) {
            let page = ConfigurationsPage::new(
                claim,
                scan.ok_or_else(|| self.damaged())?,
                after,
                match upto.as_str() {
                    NOT_READ => None,
                    upto => Some(position(upto).ok_or_else(|| self.damaged())?),
                },
            );
            return Ok(Next::Configurations(page));
        }
        let name = |text: String| ManagedCoordinate::parse(&text).map_err(|_| self.damaged());
        let scan = scan.ok_or_else(|| self.damaged())?;
        let after = after.map(name).transpose()?;
        let page = SecretsPage::new(claim, scan, after, name(upto)?);
        Ok(Next::Secrets(page))
    }

    /// The end of a pass whose pages have all ended: what the worst of them found.
    fn ended(&self, texts: &[String]) -> MigrateResult<Next> {
        let mut found = Vec::with_capacity(texts.len());
        for text in texts {
            found.push(Stop::parse(text).ok_or_else(|| self.damaged())?);
        }
        let worst = Stop::ALL.into_iter().find(|stop| found.contains(stop));
        Ok(worst.map_or(Next::Ended, |stop| {
            Next::Halted(Halt::new(stop, Vec::new()))
        }))
    }
}

#[async_trait]
impl Sharing for SqlJournal {
    async fn join(
        &self,
        work: &SharedWork,
        worker: &str,
        lease: Duration,
    ) -> MigrateResult<Member> {
        self.passes().join(work, worker, lease).await
    }

    async fn rejoin(
        &self,
        work: &SharedWork,
        worker: &str,
        lease: Duration,
    ) -> MigrateResult<Member> {
        self.passes().rejoin(work, worker, lease).await
    }

    async fn claim(&self, member: &Member) -> MigrateResult<Next> {
        self.next(self.passes().claim(member).await?)
    }

    fn session(&self) -> u64 {
        self.sessions()
    }

    async fn renew(&self, claim: Claim) -> MigrateResult<()> {
        self.passes().renew(claim).await
    }

    async fn release(&self, claim: Claim) -> MigrateResult<()> {
        self.passes().release(claim).await
    }

    async fn begin_scan_under(&self, claim: Claim) -> MigrateResult<u64> {
        // Also the marks of earlier passes.
        let write = ", no_marks AS (DELETE FROM migrate_mark USING held WHERE migrate_mark.pass <= CAST($2 AS BIGINT)) \
             UPDATE migrate_run SET scan = scan + 1 FROM held RETURNING CAST(scan AS TEXT)";
        let passes = self.passes();
        passes
            .write_for(claim, write, String::new(), Vec::new())
            .await
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
             SELECT items.value, CAST($6 AS BIGINT) FROM {} CROSS JOIN held {SEEN})",
            self.texts()
        );
        self.write(claim, &write, keys, vec![scan.to_string()])
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
        self.write(claim, &write, once_each(mentions), vec![scan.to_string()])
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
        self.write(claim, &write, items, Vec::new()).await
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
        let rows = format!("migrate_secret WHERE {}", condition(&layout.select));
        let pages = Pages {
            pages: divided(&rows, layout.size),
            parameter: String::new(),
            scan: layout.scan,
            last: layout.last,
        };
        self.passes().lay_out(claim, pages).await
    }

    async fn lay_out_configurations(&self, claim: Claim, scan: u64) -> MigrateResult<()> {
        let write = ", first AS ( \
                INSERT INTO @_page (pass, page, scan, after, upto, secrets, epoch, done) \
                SELECT CAST($2 AS BIGINT), 1, CAST($6 AS BIGINT), $1, $7, 0, 0, 0 FROM held)";
        let more = vec![scan.to_string(), NOT_READ.to_owned()];
        let passes = self.passes();
        let end = held(", done = 1");
        passes
            .write(&end, claim, write, text(&Position::default()), more)
            .await
    }

    async fn extend(
        &self,
        page: &ConfigurationsPage,
        upto: &Position,
        next: Option<&Position>,
        configurations: &[String],
    ) -> MigrateResult<Vec<String>> {
        let (keys, twice) = twice(configurations);
        let twice = self.seen_before(page.scan, &keys, twice).await?;
        // Both in one statement: whoever takes over a page that was not read, sees it for the first time.
        let write = format!(
            ", following AS ( \
                INSERT INTO @_page (pass, page, scan, after, upto, secrets, epoch, done) \
                SELECT CAST($2 AS BIGINT), CAST($3 AS BIGINT) + 1, CAST($6 AS BIGINT), \
                       NULLIF($9, ''), CASE WHEN $9 = '' THEN NULL ELSE $10 END, 0, 0, 0 FROM held), \
             changed AS (INSERT INTO migrate_configuration (key, scan) \
                SELECT items.value, CAST($6 AS BIGINT) FROM {} CROSS JOIN held {SEEN})",
            self.texts()
        );
        let more = vec![
            page.scan.to_string(),
            text(upto),
            configurations.len().to_string(),
            next.map(text).unwrap_or_default(),
            NOT_READ.to_owned(),
        ];
        let read = held(", upto = $7, secrets = CAST($8 AS BIGINT)");
        let passes = self.passes();
        passes.write(&read, page.claim, &write, keys, more).await?;
        Ok(twice.among(configurations))
    }

    async fn put_note_under(&self, claim: Claim, key: &str, text: &str) -> MigrateResult<()> {
        self.bind().await?;
        let write = ", noted AS (INSERT INTO migrate_note (key, text) SELECT $1, $6 FROM held \
             ON CONFLICT (key) DO UPDATE SET text = excluded.text)";
        self.write(claim, write, key.to_owned(), vec![text.to_owned()])
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
        self.passes().halt(pass, halt).await
    }
}

/// The end of a page of configurations that nobody has read. Not NULL, which means the last page of all.
const NOT_READ: &str = "";

/// A position as a page has it. No name of a secret looks like it.
fn text(position: &Position) -> String {
    let cursor = position.cursor.as_ref().map(ConfigCursor::as_str);
    json!([position.source, cursor]).to_string()
}

fn position(text: &str) -> Option<Position> {
    let (source, cursor): (usize, Option<String>) = serde_json::from_str(text).ok()?;
    Some(Position::new(source, cursor.map(ConfigCursor::new)))
}
