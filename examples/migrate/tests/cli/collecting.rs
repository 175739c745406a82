//! `collect`: exactly what nothing needs goes, while services write and the process is killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt as _;
use parking_lot::Mutex;
use secret_persistence::database::{Config, Database, SETTINGS};
use secret_persistence_core::{
    DeleteOptions, Entry, ListOptions, ManagedCoordinate, Owner, Scope, SecretPersistenceExt as _,
    SecretValue, Timestamp, Write,
};
use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use crate::lab::{Lab, Ran};
#[cfg(feature = "postgres")]
use crate::postgres::Server;

const CONNECTORS: u32 = 3_500;
const PER_CONNECTOR: u32 = 5;
const ORPHANS: u32 = 2_000;
const EXPIRED: u32 = 500;
const FOREIGN: u32 = 2_000;

/// What each writer does at most, so that the listing has at most one page more.
const EDITS: u32 = 400;

/// Where the secrets and the journal are. Configurations are in SQLite.
enum Place {
    #[cfg(feature = "postgres")]
    Postgres(Server),
    Sqlite,
}

/// A store that two installations share, and connectors.
struct Site {
    lab: Arc<Lab>,
    place: Place,
}

impl Site {
    async fn open(&self, owner: &str) -> Database {
        let owner = Owner::parse(owner).unwrap();
        let pairs: Vec<(&str, String)> = match &self.place {
            #[cfg(feature = "postgres")]
            Place::Postgres(server) => vec![
                ("host", server.url.host_str().unwrap().to_owned()),
                ("port", server.url.port().unwrap_or(5432).to_string()),
                ("database", server.database.clone()),
                ("user", server.url.username().to_owned()),
                (
                    "password",
                    server.url.password().unwrap_or_default().to_owned(),
                ),
            ],
            Place::Sqlite => vec![("path", self.lab.file("store.db").display().to_string())],
        };
        let ring = self.lab.file("ring");
        let pairs = pairs
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain([("keyring-file", ring.to_str().unwrap())]);
        let settings = SETTINGS.from_pairs(pairs).unwrap();
        let config = Config::from_settings(&settings).unwrap();
        Database::connect(config.with_owner(owner)).await.unwrap()
    }

    fn command(&self, more: &[&str]) -> Command {
        let (store, journal) = match &self.place {
            #[cfg(feature = "postgres")]
            Place::Postgres(server) => (server.address("?mode=encrypted"), server.address("")),
            Place::Sqlite => (
                "sqlite:store.db?mode=encrypted".to_owned(),
                "collect.db".to_owned(),
            ),
        };
        let table = self.lab.table();
        let fixed = [
            "collect",
            "--json",
            "--store",
            &store,
            "--journal",
            &journal,
            "--configs",
            &table,
        ];
        let mut command = self.lab.command(&[&fixed[..], more].concat());
        command.env("SECRETS_KEYRING_FILE", "ring");
        #[cfg(feature = "postgres")]
        if let Place::Postgres(server) = &self.place {
            command.env("DATABASE_USER", server.url.username()).env(
                "DATABASE_PASSWORD",
                server.url.password().unwrap_or_default(),
            );
        }
        command
    }

    fn run(&self, more: &[&str]) -> Ran {
        Ran::from(self.command(more).output().unwrap()).never_says("canary")
    }

    /// Runs SQL on the store or on the journal.
    async fn sql(&self, file: &str, sql: &str) {
        match &self.place {
            #[cfg(feature = "postgres")]
            Place::Postgres(server) => server.sql(sql).await,
            Place::Sqlite => {
                let options =
                    sqlx::sqlite::SqliteConnectOptions::new().filename(self.lab.file(file));
                let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
                sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
                    .execute(&pool)
                    .await
                    .unwrap();
                pool.close().await;
            }
        }
    }

    /// A day and an hour pass for what the runs have seen.
    async fn wait(&self) {
        self.sql(
            "collect.db",
            "UPDATE collect_secret SET since = since - 90000",
        )
        .await;
    }

    /// Runs it to its k-th point and kills it there with SIGKILL.
    fn killed(&self, more: &[&str], at: u64) {
        let mut child = self
            .command(more)
            .env("MIGRATE_TEST_STOP_AT", at.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let stopped = stderr
            .lines()
            .any(|line| line.unwrap().starts_with("stopped at point"));
        // `Child::kill` is SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(stopped, "it was over before point {at}");
    }
}

fn name(kind: u128, number: u32) -> ManagedCoordinate {
    let id = Uuid::from_u128(kind << 64 | u128::from(number));
    ManagedCoordinate::new(&Scope::workspace(Uuid::from_u128(7)), id, 1).unwrap()
}

async fn write(store: &Database, names: &[ManagedCoordinate], expires: Option<Timestamp>) {
    let writes: Vec<Write> = names
        .iter()
        .map(|name| {
            let value = SecretValue::new(format!("canary of {name}"));
            Write::new(name.clone(), value).with_expires(expires)
        })
        .collect();
    for written in store.write_many(&writes).await {
        written.unwrap();
    }
}

async fn listed(store: &Database) -> BTreeSet<ManagedCoordinate> {
    let options = ListOptions::default();
    let entries: Vec<Entry> = store.list(&options).try_collect().await.unwrap();
    entries.into_iter().map(|entry| entry.coordinate).collect()
}

/// A service that saves new connectors, and rotates the secrets of others.
async fn service(
    site: Arc<Site>,
    number: u32,
    expected: Arc<Mutex<BTreeSet<ManagedCoordinate>>>,
    stop: Arc<AtomicBool>,
) -> u32 {
    let store = site.open("lab").await;
    let table = site.lab.configurations().await;
    let mut edits = 0;
    while edits < EDITS && !stop.load(Ordering::Relaxed) {
        let written = name(10 + u128::from(number), edits);
        write(&store, std::slice::from_ref(&written), None).await;
        expected.lock().insert(written.clone());
        let pointer = json!({ "_secret": written.as_str() });
        if edits % 2 == 0 {
            sqlx::query("INSERT INTO actor (id, configuration) VALUES ($1, $2)")
                .bind(format!("service-{number}-{edits}"))
                .bind(json!({ "secret0": pointer }).to_string())
                .execute(&table)
                .await
                .unwrap();
        } else {
            // Of its own connectors, from both ends of the table.
            let row = if edits % 4 == 1 {
                edits
            } else {
                CONNECTORS - edits
            } / 2
                * 2
                + number;
            let replaced = name(1, row * PER_CONNECTOR);
            let updated = sqlx::query(
                "UPDATE actor SET configuration = json_set(configuration, '$.secret0', json($1)) WHERE id = $2",
            )
            .bind(pointer.to_string())
            .bind(format!("connector-{row:06}"))
            .execute(&table)
            .await
            .unwrap();
            assert_eq!(updated.rows_affected(), 1);
            store
                .delete(&replaced, &DeleteOptions::default())
                .await
                .unwrap();
            expected.lock().remove(&replaced);
        }
        edits += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    table.close().await;
    store.close().await;
    edits
}

async fn exactly_the_superfluous_go(place: Place) {
    let site = Arc::new(Site {
        lab: Arc::new(Lab::empty()),
        place,
    });
    let ours = site.open("lab").await;
    let numbers = |kind: u128, count: u32| -> Vec<ManagedCoordinate> {
        (0..count).map(|number| name(kind, number)).collect()
    };
    let used = numbers(1, CONNECTORS * PER_CONNECTOR);
    let (orphans, expired) = (numbers(2, ORPHANS), numbers(3, EXPIRED));
    let foreign = numbers(4, FOREIGN);
    write(&ours, &used, None).await;
    write(&ours, &orphans, None).await;
    let past = Timestamp::now().saturating_sub(Duration::from_secs(60));
    write(&ours, &expired, Some(past)).await;
    let theirs = site.open("staging").await;
    write(&theirs, &foreign, None).await;
    theirs.close().await;
    let table = site.lab.configurations().await;
    let mut transaction = table.begin().await.unwrap();
    for row in 0..CONNECTORS {
        let mut configuration = json!({ "host": "db" });
        for field in 0..PER_CONNECTOR {
            let name = &used[(row * PER_CONNECTOR + field) as usize];
            configuration[format!("secret{field}")] = json!({ "_secret": name.as_str() });
        }
        sqlx::query("INSERT INTO actor (id, configuration) VALUES ($1, $2)")
            .bind(format!("connector-{row:06}"))
            .bind(configuration.to_string())
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    site.sql("store.db", "UPDATE secrets SET created = created - 172800")
        .await;

    // The first run deletes nothing but what has expired, and without --delete not even that.
    let first = site.run(&[]).expect(0).json();
    assert_eq!(first["owned"], 20_000);
    assert_eq!(
        (&first["waiting"], &first["expired"]),
        (&json!(2_000), &json!(500))
    );
    assert_eq!(
        (&first["foreign"], &first["deleted"]),
        (&json!(2_000), &json!(0))
    );
    site.wait().await;
    // 12.5 % would go, and nobody has said that this is right.
    let delete = ["--delete", "--all-references"];
    site.run(&delete[..1]).expect(3).says("--all-references");
    let refused = site.run(&delete).expect(3).json();
    assert_eq!(refused["stopped"], "share");
    assert_eq!(
        (&refused["orphaned"], &refused["deleted"]),
        (&json!(2_000), &json!(0))
    );
    assert_eq!(listed(&ours).await.len(), 22_000);
    let told = [&delete[..], &["--max-share", "13"]].concat();
    let output = site
        .command(&["--max-share", "13"])
        .env("MIGRATE_TEST_POINTS", "points")
        .output();
    Ran::from(output.unwrap()).expect(0);
    let points = std::fs::read_to_string(site.lab.file("points")).unwrap();
    let points: u64 = points.parse().unwrap();

    let expected = Arc::new(Mutex::new(
        used.iter()
            .chain(&foreign)
            .cloned()
            .collect::<BTreeSet<_>>(),
    ));
    let stop = Arc::new(AtomicBool::new(false));
    let services: Vec<_> = (0..2)
        .map(|number| {
            tokio::spawn(service(
                Arc::clone(&site),
                number,
                Arc::clone(&expected),
                Arc::clone(&stop),
            ))
        })
        .collect();
    let kill = |at: u64| {
        let (site, told) = (Arc::clone(&site), told.clone());
        tokio::task::spawn_blocking(move || site.killed(&told, at))
    };
    // While it lists: nothing is deleted.
    kill(points / 2).await.unwrap();
    let superfluous: BTreeSet<_> = orphans.iter().chain(&expired).cloned().collect();
    let left = |listed: &BTreeSet<ManagedCoordinate>| listed.intersection(&superfluous).count();
    assert_eq!(left(&listed(&ours).await), 2_500);
    // While it deletes: some are deleted. A listing with one page more moves this by two points.
    kill(points + 5).await.unwrap();
    let after_kill = left(&listed(&ours).await);
    assert!((500..2_500).contains(&after_kill), "{after_kill}");
    let last = {
        let (site, told) = (Arc::clone(&site), told.clone());
        tokio::task::spawn_blocking(move || site.run(&told))
    };
    let last = last.await.unwrap().expect(0).json();
    assert_eq!(last["deleted"], after_kill);
    assert!(
        last["young"].as_u64().unwrap() > 0,
        "nobody wrote meanwhile"
    );
    stop.store(true, Ordering::Relaxed);
    for service in services {
        assert!(service.await.unwrap() > 10, "the service did nothing");
    }

    let expected = std::mem::take(&mut *expected.lock());
    let kept = listed(&ours).await;
    let (lost, left): (Vec<_>, Vec<_>) = (
        expected.difference(&kept).collect(),
        kept.difference(&expected).collect(),
    );
    assert!(
        lost.is_empty() && left.is_empty(),
        "lost {lost:?}, left {left:?}"
    );
    for row in sqlx::query("SELECT configuration FROM actor")
        .fetch_all(&table)
        .await
        .unwrap()
    {
        let saved: serde_json::Value = serde_json::from_str(row.get::<&str, _>(0)).unwrap();
        for pointer in saved.as_object().unwrap().values() {
            let Some(name) = pointer["_secret"].as_str() else {
                continue;
            };
            let name = ManagedCoordinate::parse(name).unwrap();
            assert!(kept.contains(&name), "{name}");
        }
    }
    table.close().await;
    ours.close().await;
    #[cfg(feature = "postgres")]
    if let Ok(Site {
        place: Place::Postgres(server),
        ..
    }) = Arc::try_unwrap(site).map_err(drop)
    {
        server.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_superfluous_secrets_of_twenty_thousand_go() {
    exactly_the_superfluous_go(Place::Sqlite).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_superfluous_secrets_of_twenty_thousand_go_in_postgres() {
    let Some(server) = Server::new().await else {
        return;
    };
    exactly_the_superfluous_go(Place::Postgres(server)).await;
}

#[test]
fn what_contradicts_the_rules_is_refused() {
    let lab = Lab::empty();
    lab.write("configs.jsonl", "");
    let run = |more: &[&str]| {
        let fixed = [
            "collect",
            "--store",
            "sqlite:store.db",
            "--configs",
            "configs.jsonl",
        ];
        lab.run(&[&fixed[..], more].concat())
    };
    run(&["--max-share", "101"]).expect(2);
    run(&["--grace", "soon"]).expect(2);
    // A misspelt store is not made.
    run(&[]).expect(2);
    assert!(!lab.file("store.db").exists());
    let prepared = ["prepare", "--store", "sqlite:store.db?mode=plain", "--run"];
    lab.run(&prepared).expect(0);
    let plain = ["--store", "sqlite:store.db?mode=plain"];
    let short = ["--grace", "59m"];
    let collect = |more: &[&str], owner: &str| -> Ran {
        let fixed = ["collect", "--configs", "configs.jsonl"];
        let mut command = lab.command(&[&fixed[..], &plain, more].concat());
        command.env("SECRETS_OWNER", owner);
        command.output().unwrap().into()
    };
    collect(&short, "lab").expect(2).says("at least an hour");
    collect(&[], "").expect(2).says("SECRETS_OWNER");
    collect(&[], "lab").expect(0).says("nothing was deleted");
}

/// The credentials of a gateway's further stores are in no connector. Losing them would close those stores.
#[tokio::test]
async fn what_a_storages_file_names_is_needed() {
    let site = Site {
        lab: Arc::new(Lab::empty()),
        place: Place::Sqlite,
    };
    site.lab.configurations().await.close().await;
    let store = site.open("lab").await;
    let [token, orphan, second] = [1, 2, 3].map(|number| name(1, number));
    write(&store, &[token.clone(), orphan, second.clone()], None).await;
    site.sql("store.db", "UPDATE secrets SET created = created - 172800")
        .await;
    let tenant = json!({"type": "vault", "token": {"_secret": token.as_str()}});
    let file = json!({"tenant": tenant, "other": {}}).to_string();
    site.lab.write("storages.json", &file);
    // Another gateway has the same store, and further ones of its own.
    let other = json!({"tenant": {"token": {"_secret": second.as_str()}}}).to_string();
    site.lab.write("other.json", &other);
    let common = ["--max-share", "100", "--storages-file", "storages.json"];
    let with = [&common[..], &["--storages-file", "other.json"]].concat();
    let first = site.run(&with).expect(0).json();
    assert_eq!((&first["waiting"], &first["names"]), (&json!(1), &json!(2)));
    site.wait().await;
    let delete = ["--delete", "--all-references"];
    let alone = [&common[..], &delete].concat();
    let delete = [&with[..], &delete].concat();
    // What cannot be read may name anything.
    for broken in ["[]", "{\"tenant\": {\"_secret\": 7}}"] {
        site.lab.write("storages.json", broken);
        let refused = site.run(&delete);
        assert!([2, 3].contains(&refused.status), "{}", refused.stderr);
        assert_eq!(listed(&store).await.len(), 3);
    }
    site.lab.write("storages.json", &file);
    // An earlier run has read it, so that this one must.
    let without = site.run(&["--max-share", "100", "--delete", "--all-references"]);
    without.expect(3).says("other.json");
    // Nor is one of them enough, or another one in its place.
    site.run(&alone).expect(3).says("other.json");
    site.lab.write("third.json", "{}");
    let swapped = [&alone[..], &["--storages-file", "third.json"]].concat();
    site.run(&swapped).expect(3).says("other.json");
    assert_eq!(listed(&store).await.len(), 3);
    let done = site.run(&delete).expect(0).json();
    assert_eq!(done["deleted"], 1);
    assert_eq!(listed(&store).await, BTreeSet::from([token, second]));
    store.close().await;
}
