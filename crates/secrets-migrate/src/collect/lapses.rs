//! Processes that share the journal, one of which was paused.

// Clippy does not see that the module is one of tests.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::time::Duration;

use secret_persistence_core::{ManagedCoordinate, Timestamp};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::journal::{FAILED, Listed};
use super::{CollectJournal, Reason};
use crate::journal::passes::{Claimed, Turn};
use crate::{Member, MigrateErrorKind, MigrateResult, SharedWork};

/// Longer than a case takes.
const LONG: Duration = Duration::from_secs(60);

/// Short: it ends while the test sleeps.
const SHORT: Duration = Duration::from_millis(300);

const STORE: &str = "store";

fn listed(number: u32) -> Listed {
    let name = format!("airbyte_workspace_1_secret_{number}_v1");
    Listed {
        coordinate: ManagedCoordinate::parse(&name).unwrap(),
        reason: Reason::Orphaned,
        created: None,
    }
}

async fn claim(journal: &CollectJournal, member: &Member) -> Claimed {
    match journal.passes().claim(member).await.unwrap() {
        Turn::Page(page) => page,
        other => panic!("no page: {other:?}"),
    }
}

fn lapses<T: std::fmt::Debug>(result: MigrateResult<T>) {
    let error = result.expect_err("another process has taken it over");
    assert_eq!(error.kind(), MigrateErrorKind::Lapsed);
}

/// Every row, with the number of its run.
async fn rows(connection: &mut PgConnection) -> Vec<String> {
    let sql = "SELECT coordinate || ' ' || COALESCE(since, 0) || ' ' || secret.run || ' ' || whole.run \
               FROM collect_secret AS secret JOIN collect_run AS whole USING (store) ORDER BY coordinate";
    sqlx::query_scalar(sql).fetch_all(connection).await.unwrap()
}

/// A database of its own, for a journal.
pub(crate) struct Place {
    administrator: PgConnection,
    database: String,
    server: url::Url,
    place: url::Url,
}

impl Place {
    pub(crate) async fn new() -> Option<Self> {
        let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
            assert!(
                std::env::var_os("CI").is_none(),
                "TEST_POSTGRES_URL is not set; run scripts/test"
            );
            eprintln!("SKIPPED: TEST_POSTGRES_URL is not set");
            return None;
        };
        let server: url::Url = url.parse().unwrap();
        let database = format!("collect_{}", uuid::Uuid::new_v4().simple());
        let mut administrator = PgConnection::connect(&url).await.unwrap();
        let sql = format!("CREATE DATABASE {database}");
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut administrator)
            .await
            .unwrap();
        let mut place = server.clone();
        place.set_path(&database);
        Some(Self {
            administrator,
            database,
            server,
            place,
        })
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(self.place.as_str()).await.unwrap()
    }

    pub(super) async fn open(&self) -> CollectJournal {
        let (url, variables) = (self.url(), |name: &str| self.variable(name));
        let journal = CollectJournal::open_shared(&url, &variables).await;
        journal.unwrap()
    }

    async fn open_alone(&self) -> CollectJournal {
        let (url, variables) = (self.url(), |name: &str| self.variable(name));
        CollectJournal::open(&url, &variables).await.unwrap()
    }

    pub(crate) fn url(&self) -> String {
        let mut url = self.place.clone();
        url.set_username("").unwrap();
        url.set_password(None).unwrap();
        url.into()
    }

    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        match name {
            "DATABASE_USER" => Some(self.server.username().to_owned()),
            "DATABASE_PASSWORD" => self.server.password().map(str::to_owned),
            _ => None,
        }
    }

    pub(crate) async fn drop(mut self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut self.administrator)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn whoever_lapsed_changes_nothing() {
    let Some(place) = Place::new().await else {
        return;
    };
    let mut connection = place.connect().await;
    let (slow, quick) = (place.open().await, place.open().await);
    let work = SharedWork::new("collect", "settings");
    let member = quick.passes().join(&work, "quick", LONG).await.unwrap();
    let other = slow.passes().join(&work, "slow", SHORT).await.unwrap();
    assert_eq!(other.pass, member.pass);

    // It has listed, and is paused.
    let stale = claim(&slow, &other).await.claim;
    let run = slow.begin(Some(stale), STORE, &[]).await.unwrap();
    let list = [listed(1), listed(2), listed(3)];
    slow.list(Some(stale), STORE, run, &list).await.unwrap();
    tokio::time::sleep(SHORT * 2).await;
    let first = claim(&quick, &member).await.claim;
    assert!(first.epoch > stale.epoch);
    let next = quick.begin(Some(first), STORE, &[]).await.unwrap();
    assert!(next > run);
    quick.list(Some(first), STORE, next, &list).await.unwrap();
    let before = rows(&mut connection).await;
    let now = Timestamp::now();
    let names: Vec<ManagedCoordinate> = list.iter().map(|one| one.coordinate.clone()).collect();
    lapses(slow.begin(Some(stale), STORE, &[]).await);
    lapses(slow.list(Some(stale), STORE, run, &[listed(4)]).await);
    lapses(slow.mention(Some(stale), STORE, &names).await);
    lapses(slow.settle(Some(stale), STORE, run, &[], now).await);
    lapses(slow.lay_out(stale, STORE, now, 1).await);
    lapses(slow.finish(stale, STORE, &names, None).await);
    lapses(slow.passes().renew(stale).await);
    assert_eq!(rows(&mut connection).await, before, "it changed nothing");

    // Nobody deletes before whoever has listed has also read everything.
    let wait = slow.passes().claim(&other).await.unwrap();
    assert!(matches!(wait, Turn::Wait), "{wait:?}");
    let named = &names[..1];
    quick.mention(Some(first), STORE, named).await.unwrap();
    let settle = quick.settle(Some(first), STORE, next, &[], now);
    settle.await.unwrap();
    assert_eq!(quick.due(STORE, now).await.unwrap(), 2);
    quick.lay_out(first, STORE, now, 1).await.unwrap();
    let late = claim(&slow, &other).await;
    let (until, due) = slow.due_in(STORE, &late).await.unwrap();
    assert_eq!((until.unix_seconds(), due.len()), (now.unix_seconds(), 1));
    tokio::time::sleep(SHORT * 2).await;
    for _ in 0..2 {
        let page = claim(&quick, &member).await;
        let (_, due) = quick.due_in(STORE, &page).await.unwrap();
        let gone: Vec<ManagedCoordinate> =
            due.into_iter().map(|due| due.listed.coordinate).collect();
        assert_eq!(gone.len(), 1);
        let finish = quick.finish(page.claim, STORE, &gone, Some(FAILED));
        finish.await.unwrap();
    }
    lapses(slow.passes().renew(late.claim).await);
    assert_eq!(rows(&mut connection).await, Vec::<String>::new());
    for process in [&quick, &slow] {
        let ended = process.passes().claim(&member).await.unwrap();
        assert!(
            matches!(&ended, Turn::Ended(found) if found == &[FAILED]),
            "{ended:?}"
        );
    }

    // A run alone ends what others had begun.
    let member = quick.passes().join(&work, "quick", LONG).await.unwrap();
    let left = claim(&quick, &member).await.claim;
    slow.close().await;
    quick.close().await;
    let alone = place.open_alone().await;
    alone.begin(None, STORE, &[]).await.unwrap();
    alone.close().await;
    let back = place.open().await;
    lapses(back.passes().renew(left).await);
    let turn = back.passes().claim(&member).await.unwrap();
    assert!(matches!(turn, Turn::Superseded), "{turn:?}");
    back.close().await;
    place.drop().await;
}
