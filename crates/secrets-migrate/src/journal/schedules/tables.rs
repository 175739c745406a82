//! The content of the journal's tables: brought about before a call, and read after it.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Row as _};

use super::Explorer;
use super::world::Command;

/// The content of the tables, with times as far as they matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tables {
    pub(super) pass: Pass,
    pub(super) pages: Vec<Page>,
    /// State, intent and scan by name.
    pub(super) secrets: BTreeMap<String, (String, bool, u64)>,
    pub(super) scan: u64,
    /// The configurations, with the last scan that has seen each.
    pub(super) seen: BTreeMap<String, u64>,
    /// The keys of the notes.
    pub(super) notes: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pass {
    pub(super) number: u64,
    pub(super) command: Command,
    pub(super) is_ended: bool,
    pub(super) is_halted: bool,
    pub(super) lasts: bool,
    pub(super) has_stragglers: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Page {
    pub(super) number: u64,
    scan: Option<u64>,
    after: Option<String>,
    upto: Option<String>,
    pub(super) epoch: u64,
    /// Whether its lease lasts; `None` without one.
    pub(super) lasts: Option<bool>,
    pub(super) done: bool,
}

impl Tables {
    /// The pages of configurations in order: the position before each, and its end once that is known.
    pub(super) fn rows(&self) -> Vec<(&str, Option<&str>)> {
        let pages = self.pages.iter().filter_map(|page| {
            let end = page.upto.as_deref().filter(|end| !end.is_empty());
            Some((page.after.as_deref()?, end))
        });
        pages.collect()
    }
}

impl Page {
    /// Whether it is the page after all others.
    pub(super) fn is_last(&self) -> bool {
        self.number > 0 && self.upto.is_none()
    }
}

impl Explorer {
    /// Writes the tables.
    pub(super) async fn bring_about(&self, tables: &Tables) {
        let time = |lasts: bool| {
            if lasts {
                "now() + interval '1 hour'"
            } else {
                "now() - interval '1 hour'"
            }
        };
        let text = |text: &Option<String>| {
            text.as_ref()
                .map_or("NULL".into(), |text| format!("'{text}'"))
        };
        let Pass {
            number: pass,
            command,
            is_ended,
            is_halted,
            lasts,
            has_stragglers,
        } = tables.pass;
        let halt = match is_halted {
            true => r#"'{"stop":"failures","undecided":[]}'"#,
            false => "NULL",
        };
        let stragglers = match has_stragglers {
            true => time(true),
            false => "NULL",
        };
        let mut sql = format!(
            "BEGIN; DELETE FROM migrate_page; DELETE FROM migrate_secret; DELETE FROM migrate_configuration; \
             DELETE FROM migrate_note; UPDATE migrate_run SET scan = {}; \
             UPDATE migrate_pass SET pass = {pass}, command = '{}', ended = {}, halt = {halt}, until = {}, \
                stragglers = {stragglers};",
            tables.scan,
            command.as_str(),
            u8::from(is_ended),
            time(lasts)
        );
        for page in &tables.pages {
            let scan = page.scan.map_or("NULL".into(), |scan| scan.to_string());
            write!(
                sql,
                "INSERT INTO migrate_page VALUES ({pass}, {}, {scan}, {}, {}, 1, {}, 'worker', {}, {});",
                page.number,
                text(&page.after),
                text(&page.upto),
                page.epoch,
                page.lasts.map_or("NULL", time),
                u8::from(page.done),
            )
            .unwrap();
        }
        for (name, (state, intent, scan)) in &tables.secrets {
            write!(
                sql,
                "INSERT INTO migrate_secret VALUES ('{name}', '{state}', {}, {scan}, NULL, 0);",
                u8::from(*intent)
            )
            .unwrap();
        }
        for (key, scan) in &tables.seen {
            write!(
                sql,
                "INSERT INTO migrate_configuration (key, scan) VALUES ('{key}', {scan});"
            )
            .unwrap();
        }
        for key in &tables.notes {
            write!(
                sql,
                "INSERT INTO migrate_note (key, text) VALUES ('{key}', '');"
            )
            .unwrap();
        }
        sql.push_str("COMMIT");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&self.tables)
            .await
            .unwrap();
    }

    /// Reads the tables.
    pub(super) async fn look(&self) -> Tables {
        let rows =
            async |sql: &'static str| sqlx::query(sql).fetch_all(&self.tables).await.unwrap();
        let number = |row: &sqlx::postgres::PgRow, at: usize| {
            row.get::<Option<i64>, _>(at).map(i64::unsigned_abs)
        };
        let pass = rows(
            "SELECT pass, ended, halt IS NOT NULL, until > now(), COALESCE(stragglers > now(), false), \
                command FROM migrate_pass",
        )
        .await;
        let pages = rows(
            "SELECT page, scan, after, upto, epoch, until > now(), done \
             FROM migrate_page WHERE pass = (SELECT pass FROM migrate_pass) ORDER BY page",
        );
        let secrets = rows("SELECT coordinate, state, intent, scan FROM migrate_secret");
        let secret = |row: &sqlx::postgres::PgRow| {
            let is_intended = number(row, 2) == Some(1);
            (
                row.get::<String, _>(0),
                (
                    row.get::<String, _>(1),
                    is_intended,
                    number(row, 3).unwrap(),
                ),
            )
        };
        Tables {
            pass: Pass {
                number: number(&pass[0], 0).unwrap(),
                command: Command::of(pass[0].get(5)),
                is_ended: number(&pass[0], 1) == Some(1),
                is_halted: pass[0].get(2),
                lasts: pass[0].get(3),
                has_stragglers: pass[0].get(4),
            },
            pages: pages
                .await
                .iter()
                .map(|row| Page {
                    number: number(row, 0).unwrap(),
                    scan: number(row, 1),
                    after: row.get(2),
                    upto: row.get(3),
                    epoch: number(row, 4).unwrap(),
                    lasts: row.get(5),
                    done: number(row, 6) == Some(1),
                })
                .collect(),
            secrets: secrets.await.iter().map(secret).collect(),
            scan: number(&rows("SELECT scan FROM migrate_run").await[0], 0).unwrap(),
            seen: rows("SELECT key, scan FROM migrate_configuration")
                .await
                .iter()
                .map(|row| (row.get(0), number(row, 1).unwrap()))
                .collect(),
            notes: rows("SELECT key FROM migrate_note")
                .await
                .iter()
                .map(|row| row.get(0))
                .collect(),
        }
    }
}
