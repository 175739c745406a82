//! Tables as sources of configurations.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use crate::{Access, ConfigSource, sources};

/// A table in a file.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    async fn with(rows: &str) -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        site.sql("CREATE TABLE actor (id TEXT, configuration TEXT, hmac_key TEXT)")
            .await;
        site.sql(&format!("INSERT INTO actor VALUES {rows}")).await;
        site
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("rows.db")
    }

    async fn sql(&self, sql: &str) {
        let options = SqliteConnectOptions::new()
            .filename(self.path())
            .create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    async fn open(&self, columns: &str) -> std::sync::Arc<dyn ConfigSource> {
        let place = format!(
            "sqlite:{}?table=actor&id=id&{columns}",
            self.path().display()
        );
        sources::open(&place, &|_| None, Access::ReadOnly)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_row_that_is_deleted_between_two_pages_hides_no_other() {
    let site =
        Site::with("('a', '{}', ''), ('b', '{}', ''), ('c', '{}', ''), ('d', '{}', '')").await;
    let source = site.open("configuration=configuration").await;
    let mut read = Vec::new();
    let mut after = None;
    for deleted in ["", "DELETE FROM actor WHERE id = 'b'", ""] {
        if !deleted.is_empty() {
            site.sql(deleted).await;
        }
        let page = source.page(after.as_ref(), 2).await.unwrap();
        read.extend(page.rows.into_iter().map(|row| row.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    // The first page ends with b.
    assert!(after.is_none());
    assert_eq!(read, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_page_ends_where_it_ended_whatever_was_added_or_deleted() {
    let site =
        Site::with("('b', '{}', ''), ('d', '{}', ''), ('f', '{}', ''), ('h', '{}', '')").await;
    let source = site.open("configuration=configuration").await;
    let first = source.page(None, 2).await.unwrap().next.unwrap();
    let second = source.page(Some(&first), 1).await.unwrap().next.unwrap();
    let ids = |page: crate::ConfigPage| -> Vec<String> {
        assert!(page.next.is_none());
        page.rows.into_iter().map(|row| row.id).collect()
    };
    let upto = |after, upto| source.page_upto(after, upto, 9);
    assert_eq!(ids(upto(None, &first).await.unwrap()), ["b", "d"]);
    assert_eq!(ids(upto(Some(&first), &second).await.unwrap()), ["f"]);
    site.sql("DELETE FROM actor WHERE id IN ('d', 'f')").await;
    site.sql("INSERT INTO actor VALUES ('a', '{}', ''), ('e', '{}', ''), ('g', '{}', '')")
        .await;
    assert_eq!(ids(upto(None, &first).await.unwrap()), ["a", "b"]);
    assert_eq!(ids(upto(Some(&first), &second).await.unwrap()), ["e"]);
    // A page that got longer is read in two.
    let part = source.page_upto(None, &first, 1).await.unwrap();
    assert_eq!(part.rows[0].id, "a");
    let rest = source.page_upto(part.next.as_ref(), &first, 9).await;
    assert_eq!(ids(rest.unwrap()), ["b"]);
}

#[tokio::test]
async fn two_columns_and_two_conditions_are_told_apart() {
    let site = Site::with("('a', '{}', '{}')").await;
    let plain = site.open("configuration=configuration").await;
    let other = site.open("configuration=hmac_key").await;
    let some = site
        .open("configuration=configuration&where=id > 'b'")
        .await;
    assert!(plain.to_string().ends_with(" \"actor\""), "{plain}");
    assert_ne!(plain.to_string(), other.to_string());
    // The same source, of which less is read.
    assert_eq!(plain.to_string(), some.to_string());
    assert_ne!(plain.reads(), some.reads());
}

/// Only the database knows: two hosts may have one address for two tables, and a file is another one on each.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_table_is_told_apart_by_what_its_database_says() {
    use crate::collect::lapses::Place;

    async fn open(place: &Place, more: &str) -> std::sync::Arc<dyn ConfigSource> {
        let text = format!("{}?{more}&id=id&configuration=configuration", place.url());
        let variables = |name: &str| place.variable(name);
        sources::open(&text, &variables, Access::Update)
            .await
            .unwrap()
    }

    let (Some(one), Some(other)) = (Place::new().await, Place::new().await) else {
        return;
    };
    for place in [&one, &other] {
        let sql = "CREATE TABLE actor (id TEXT, configuration TEXT)";
        sqlx::query(sql)
            .execute(&mut place.connect().await)
            .await
            .unwrap();
    }
    let plain = open(&one, "table=actor").await;
    assert!(plain.admits_others());
    assert_ne!(plain.identity(), plain.to_string());
    assert_eq!(
        plain.identity(),
        open(&one, "table=public.actor").await.identity()
    );
    assert_ne!(
        plain.identity(),
        open(&other, "table=actor").await.identity()
    );
    let file = Site::with("('a', '{}', '')").await;
    let place = format!(
        "sqlite:{}?table=actor&id=id&configuration=configuration",
        file.path().display()
    );
    let file = sources::open(&place, &|_| None, Access::Update).await;
    assert!(!file.unwrap().admits_others());
    one.drop().await;
    other.drop().await;
}
