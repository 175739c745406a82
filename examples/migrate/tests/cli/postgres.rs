//! Configurations, secrets and the journal in Postgres.

use std::ffi::OsStr;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use url::Url;
use uuid::Uuid;

use crate::lab::{Lab, Ran};

/// The variable with the URL of a superuser in any database; scripts/test starts a server and sets it.
const URL: &str = "TEST_POSTGRES_URL";

/// A database of our own on a real server.
pub(crate) struct Server {
    pub(crate) url: Url,
    pub(crate) database: String,
}

impl Server {
    /// None where there is no server, which fails where that matters.
    pub(crate) async fn new() -> Option<Self> {
        let Ok(url) = std::env::var(URL) else {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "{URL} is not set; run scripts/test"
            );
            eprintln!("SKIPPED: {URL} is not set");
            return None;
        };
        let server = Self {
            url: url.parse().unwrap(),
            database: format!("migrate_{}", Uuid::new_v4().simple()),
        };
        let create = format!("CREATE DATABASE {}", server.database);
        let mut connection = PgConnection::connect(server.url.as_str()).await.unwrap();
        sqlx::query(AssertSqlSafe(create))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        Some(server)
    }

    async fn connect(&self) -> PgConnection {
        let mut url = self.url.clone();
        url.set_path(&self.database);
        PgConnection::connect(url.as_str()).await.unwrap()
    }

    /// Runs a statement.
    pub(crate) async fn sql(&self, sql: &str) {
        let mut connection = self.connect().await;
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let mut connection = self.connect().await;
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Replicates a kind of changes of the secrets to another database of the same server, and waits
    /// until it does.
    async fn is_replicated_to(&self, follower: &Self, published: &str) {
        self.sql(&format!(
            "CREATE PUBLICATION everything FOR TABLE secrets WITH (publish = '{published}')"
        ))
        .await;
        // Within one server, a subscription that creates its own slot waits for itself.
        let slot = &self.database;
        self.sql(&format!(
            "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
        ))
        .await;
        let password = match self.url.password() {
            Some(password) => format!(" password={password}"),
            None => String::new(),
        };
        let place = format!(
            "host={} port={} user={} dbname={}{password}",
            self.url.host_str().unwrap(),
            self.url.port().unwrap_or(5432),
            self.url.username(),
            self.database,
        );
        follower
            .sql(&format!(
                "CREATE SUBSCRIPTION s_{slot} CONNECTION '{place}' PUBLICATION everything \
                 WITH (create_slot = false, slot_name = '{slot}', copy_data = false)"
            ))
            .await;
        let marker = "INSERT INTO secrets VALUES ('marker', '')";
        self.sql(marker).await;
        if published.contains("insert") {
            follower.until_markers(1).await;
        } else {
            follower.sql(marker).await;
        }
        self.sql("DELETE FROM secrets WHERE coordinate = 'marker'")
            .await;
        follower.until_markers(0).await;
    }

    async fn until_markers(&self, expected: usize) {
        for _ in 0..600 {
            let markers = self.texts("SELECT coordinate FROM secrets WHERE coordinate = 'marker'");
            if markers.await.len() == expected {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{} does not follow", self.database);
    }

    async fn is_no_longer_replicated_to(&self, follower: &Self) {
        let slot = &self.database;
        for sql in ["DISABLE", "SET (slot_name = NONE)"] {
            follower
                .sql(&format!("ALTER SUBSCRIPTION s_{slot} {sql}"))
                .await;
        }
        follower.sql(&format!("DROP SUBSCRIPTION s_{slot}")).await;
        // The server releases the slot a moment later.
        for _ in 0..600 {
            let active = format!(
                "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name = '{slot}' AND active"
            );
            if self.texts(&active).await.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        self.sql(&format!("SELECT pg_drop_replication_slot('{slot}')"))
            .await;
        self.sql("DROP PUBLICATION everything").await;
    }

    /// The URL as the tool takes it, without a user.
    pub(crate) fn address(&self, query: &str) -> String {
        let (host, port) = (
            self.url.host_str().unwrap(),
            self.url.port().unwrap_or(5432),
        );
        format!("postgres://{host}:{port}/{}{query}", self.database)
    }

    pub(crate) fn command<A: AsRef<OsStr>>(
        &self,
        lab: &Lab,
        arguments: &[A],
    ) -> std::process::Command {
        let mut command = lab.command(arguments);
        command
            .env("DATABASE_USER", self.url.username())
            .env("DATABASE_PASSWORD", self.url.password().unwrap_or_default());
        command
    }

    pub(crate) fn run<A: AsRef<OsStr>>(&self, lab: &Lab, arguments: &[A]) -> Ran {
        self.command(lab, arguments).output().unwrap().into()
    }

    /// Lets nobody write into a table until the connection is closed.
    pub(crate) async fn hold(&self, table: &str) -> PgConnection {
        let mut connection = self.connect().await;
        let sql = format!("BEGIN; LOCK TABLE {table} IN SHARE MODE");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> u64 {
        let sql = format!("SELECT COUNT(*)::text FROM {table}");
        self.texts(&sql).await[0].parse().unwrap()
    }

    /// How many secrets a table has, without the probe that each process of a rollback or a retirement
    /// writes and deletes, and that one which is killed leaves to the next.
    pub(crate) async fn secrets(&self, table: &str) -> u64 {
        self.count(&Self::without_probes(table)).await
    }

    /// A table of secrets without probes, for a `FROM`.
    pub(crate) fn without_probes(table: &str) -> String {
        let ephemeral = Uuid::nil();
        format!("(SELECT * FROM {table} WHERE coordinate NOT LIKE '%{ephemeral}%') AS lasting")
    }

    /// Waits until a query of tables that may not exist yet has a row.
    pub(crate) async fn until(&self, sql: &str) {
        let mut connection = self.connect().await;
        for _ in 0..3000 {
            let rows = sqlx::query(AssertSqlSafe(sql.to_owned()));
            let rows = rows.fetch_all(&mut connection).await;
            if rows.is_ok_and(|rows| !rows.is_empty()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("no row of {sql}");
    }

    /// Removes the database.
    pub(crate) async fn drop(self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        let mut connection = PgConnection::connect(self.url.as_str()).await.unwrap();
        sqlx::query(AssertSqlSafe(drop))
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_airbyte_like_database_is_split_moved_and_rolled_back() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::empty();
    server
        .sql("CREATE TABLE actor (id uuid PRIMARY KEY, workspace_id uuid NOT NULL, spec jsonb, configuration jsonb)")
        .await;
    server
        .sql("CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT)")
        .await;
    let spec =
        json!({ "properties": { "password": { "type": "string", "airbyte_secret": true } } });
    for row in 0..600 {
        server
            .sql(&format!(
                "INSERT INTO actor VALUES ('{}', '{}', '{spec}', '{{\"host\": \"h\", \"password\": \"raw-{row}\"}}')",
                Uuid::new_v4(),
                Uuid::from_u128(7)
            ))
            .await;
    }
    let actors = server.address(
        "?table=public.actor&id=id&configuration=configuration&base_id=workspace_id&specification=spec",
    );
    let secrets = server.address("?table=secrets&mode=plain");
    let journal = server.address("");
    let split = [
        "split",
        "--store",
        &secrets,
        "--configs",
        &actors,
        "--journal",
        "split.db",
        "--json",
    ];
    let report = server.run(&lab, &split).expect(0).json();
    assert_eq!(report["tally"]["split"], 600, "{report}");
    let raw = server
        .texts("SELECT id::text FROM actor WHERE configuration::text LIKE '%raw-%'")
        .await;
    assert!(raw.is_empty(), "{raw:?}");

    let between = |command: &'static str, more: &[&str]| {
        let fixed = [
            command,
            "--from",
            &secrets,
            "--to",
            "sqlite:target.db?mode=encrypted",
            "--configs",
            &actors,
            "--journal",
            &journal,
            "--json",
        ];
        server.run(&lab, &[&fixed[..], more].concat())
    };
    assert_eq!(
        between("plan", &[]).expect(0).json()["tally"]["secrets"],
        600
    );
    assert_eq!(
        between("copy", &[]).expect(0).json()["tally"]["written"],
        600
    );
    assert_eq!(
        between("verify", &[]).expect(0).json()["tally"]["hydrated"],
        600
    );
    assert_eq!(
        between("rollback", &[]).expect(0).json()["tally"]["deleted"],
        600
    );
    between("copy", &[]).expect(0);
    between("verify", &[]).expect(0);
    let retired = between("retire", &["--all-references"]).expect(0).json();
    assert_eq!(retired["tally"]["deleted"], 600);
    assert!(
        server
            .texts("SELECT coordinate FROM secrets")
            .await
            .is_empty()
    );
    server.drop().await;
}

#[tokio::test]
async fn the_database_itself_refuses_writes_to_a_source_that_is_read() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::with(1, 1).await;
    server
        .sql("CREATE TABLE actor (id text, configuration json)")
        .await;
    server.sql("INSERT INTO actor VALUES ('a', '{}')").await;
    server
        .sql("CREATE FUNCTION wipe() RETURNS text LANGUAGE sql AS $$ DELETE FROM actor RETURNING id $$")
        .await;
    lab.write(
        "q.sql",
        "SELECT id, configuration FROM actor WHERE wipe() IS NOT NULL",
    );
    let query = server.address("?query-file=q.sql");
    let ran = server.run(&lab, &lab.between("plan", &["--configs", &query]));
    assert_ne!(ran.status, 0, "{ran:?}");
    assert_eq!(server.texts("SELECT id FROM actor").await, ["a"]);
    server.drop().await;
}

#[tokio::test]
async fn what_keeps_a_database_from_opening_is_said() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::with(1, 1).await;
    let plan = |source: &str| server.run(&lab, &lab.between("plan", &["--configs", source]));
    let columns = "table=actor&id=id&configuration=configuration";
    plan(&server.address(&format!("?{columns}")))
        .expect(2)
        .says("actor");
    plan(&format!("postgres://127.0.0.1:1/x?{columns}"))
        .expect(4)
        .says("no connection");
    plan(&format!(
        "postgres://db.example/x?{columns}&sslmode=disable"
    ))
    .expect(2)
    .says("loopback");
    plan(&format!(
        "postgres://127.0.0.1/x?{columns}&password=hunter2"
    ))
    .expect(2)
    .never_says("hunter2");
    server.drop().await;
}

#[tokio::test]
async fn a_journal_that_a_copy_uses_is_refused_to_others() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::with(300, 4).await;
    let mut arguments = lab.between("copy", &["--rate", "1"]);
    let at = arguments.iter().position(|word| word == "journal.db");
    arguments[at.unwrap()] = server.address("");
    let mut first = server
        .command(&lab, &arguments)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    // Copies share it, and no other command does meanwhile.
    for (command, status, text) in [
        ("verify", 2, "processes that copy"),
        ("plan", 4, "another process"),
    ] {
        arguments[0] = command.to_owned();
        server.run(&lab, &arguments).expect(status).says(text);
    }
    first.kill().unwrap();
    first.wait().unwrap();
    server.drop().await;
}

/// More rows than a page has, on a server: owner and time are the store's, a missing secret is named, and
/// nothing is read.
#[tokio::test]
async fn ages_are_told_by_the_server() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::empty();
    server
        .sql("CREATE TABLE actor (id int PRIMARY KEY, workspace_id uuid, spec jsonb, configuration jsonb)")
        .await;
    server
        .sql(
            "INSERT INTO actor SELECT row, '00000000-0000-0000-0000-000000000007', \
             '{\"properties\": {\"password\": {\"type\": \"string\", \"airbyte_secret\": true}}}', \
             jsonb_build_object('password', 'raw-' || row) FROM generate_series(1, 600) AS row",
        )
        .await;
    let actors = server.address(
        "?table=actor&id=id&configuration=configuration&base_id=workspace_id&specification=spec",
    );
    let store = server.address("?table=secrets&mode=plain");
    let fixed = ["--store", &store, "--configs", &actors, "--json"];
    let run = |command: &str, more: &[&str]| {
        server
            .run(&lab, &[&[command], &fixed[..], more].concat())
            .expect(0)
            .never_says("raw-")
            .json()
    };
    run("split", &[]);
    server
        .sql("UPDATE secrets SET created = created - 864000 WHERE payload = 'raw-1'")
        .await;
    server
        .sql("DELETE FROM secrets WHERE payload = 'raw-2'")
        .await;
    let all = run("ages", &[]);
    assert_eq!(all["listed"], 600);
    assert_eq!(all["missing"], 1);
    let secrets = all["secrets"].as_array().unwrap();
    assert_eq!(secrets.len(), 600);
    let present = secrets.iter().filter(|secret| secret["owner"] == "lab");
    assert_eq!(present.count(), 599);
    let ids = |listed: &serde_json::Value| {
        let secrets = listed["secrets"].as_array().unwrap().iter();
        let mut ids: Vec<String> = secrets
            .map(|secret| {
                let key = secret["configuration"].as_str().unwrap();
                key.rsplit_once('#').unwrap().1.to_owned()
            })
            .collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(&run("ages", &["--older-than", "9d"])), ["1", "2"]);
    let yesterday = secret_persistence_core::Timestamp::now().unix_seconds() - 86_400;
    let yesterday = secret_persistence_core::Timestamp::from_unix_seconds(yesterday).unwrap();
    let until = run("affected", &["--until", &yesterday.to_string()]);
    assert_eq!(ids(&until), ["1", "2"]);
    let since = run("affected", &["--since", &yesterday.to_string()]);
    assert_eq!(since["listed"], 599);
    server.drop().await;
}

/// Ten secrets in a table, and a configuration for each.
async fn ten_secrets(server: &Server) {
    let name = "'airbyte_workspace_1_secret_' || n || '_v1'";
    for sql in [
        "CREATE TABLE actor (id text PRIMARY KEY, configuration text)",
        &format!("INSERT INTO secrets SELECT {name}, 'value' FROM generate_series(1, 10) AS n"),
        &format!(
            "INSERT INTO actor SELECT n, jsonb_build_object('password', jsonb_build_object('_secret', {name})) \
             FROM generate_series(1, 10) AS n"
        ),
    ] {
        server.sql(sql).await;
    }
}

/// Runs a command between two stores, on the configurations of a server.
fn moves(server: &Server, lab: &Lab, [command, from, to, lag]: [&str; 4], more: &[&str]) -> Ran {
    let actors = server.address("?table=actor&id=id&configuration=configuration");
    let fixed = [
        command,
        "--from",
        from,
        "--to",
        to,
        "--configs",
        &actors,
        "--journal",
        "journal.db",
        "--lag",
        lag,
    ];
    server.run(lab, &[&fixed[..], more].concat())
}

/// Two tables of one database, of which one loses what the other loses: as a replica would.
#[tokio::test]
async fn a_target_that_follows_the_source_is_not_retired_into_nothing() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::empty();
    for table in ["secrets", "copies"] {
        server
            .sql(&format!(
                "CREATE TABLE {table} (coordinate TEXT PRIMARY KEY, payload TEXT)"
            ))
            .await;
    }
    server
        .sql(
            "CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             DELETE FROM copies WHERE coordinate = OLD.coordinate; RETURN OLD; END $$",
        )
        .await;
    server
        .sql("CREATE TRIGGER follow AFTER DELETE ON secrets FOR EACH ROW EXECUTE FUNCTION follow()")
        .await;
    ten_secrets(&server).await;
    let (from, to) = (
        server.address("?table=secrets&mode=plain"),
        server.address("?table=copies&mode=plain"),
    );
    let run =
        |command: &str, more: &[&str]| moves(&server, &lab, [command, &from, &to, "1s"], more);
    run("copy", &[]).expect(0);
    run("verify", &[]).expect(0);
    run("retire", &["--all-references"])
        .expect(2)
        .says("one replicates the other");
    for table in ["secrets", "copies"] {
        let left = server
            .texts(&format!(
                "SELECT coordinate FROM {table} WHERE coordinate LIKE '%workspace_1_%'"
            ))
            .await;
        assert_eq!(left.len(), 10, "{table}");
    }
    server.drop().await;
}

/// Two databases, one of which follows the other through Postgres' own logical replication: of all
/// changes, or only of deletes.
#[tokio::test]
async fn a_logical_replica_is_neither_retired_nor_rolled_back_into_nothing() {
    let Some(source) = Server::new().await else {
        return;
    };
    if source.texts("SHOW wal_level").await != ["logical"] {
        eprintln!("SKIPPED: the server at {URL} has no wal_level = logical");
        return source.drop().await;
    }
    let target = Server::new().await.unwrap();
    for server in [&source, &target] {
        server
            .sql("CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT)")
            .await;
    }
    ten_secrets(&source).await;
    let (from, to) = (
        source.address("?table=secrets&mode=plain"),
        target.address("?table=secrets&mode=plain"),
    );
    let lab = Lab::empty();
    let run =
        |command: &str, more: &[&str]| moves(&source, &lab, [command, &from, &to, "2s"], more);
    run("copy", &[]).expect(0);
    run("verify", &[]).expect(0);
    for published in ["insert, update, delete, truncate", "delete"] {
        for (command, more, emptied, kept) in [
            ("retire", &["--all-references"][..], &source, &target),
            ("rollback", &[], &target, &source),
        ] {
            emptied.is_replicated_to(kept, published).await;
            run(command, more)
                .expect(2)
                .says("one replicates the other");
            // Everything that was on its way has arrived.
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            for server in [&source, &target] {
                let left = server
                    .texts("SELECT coordinate FROM secrets WHERE coordinate LIKE '%workspace_1_%'")
                    .await;
                assert_eq!(left.len(), 10, "{command} {published} {}", server.database);
            }
            emptied.is_no_longer_replicated_to(kept).await;
        }
    }
    // Nothing connects the two any more.
    let retired = run("retire", &["--all-references", "--json"]).expect(0);
    assert_eq!(retired.json()["tally"]["deleted"], 10);
    target.drop().await;
    source.drop().await;
}

/// What a trigger says may quote the row, under any code that it likes.
#[tokio::test]
async fn what_a_trigger_says_is_not_shown() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::with(1, 1).await;
    server
        .sql("CREATE TABLE actor (id text PRIMARY KEY, workspace_id uuid, spec jsonb, configuration jsonb)")
        .await;
    server
        .sql(
            "INSERT INTO actor VALUES ('a', '00000000-0000-0000-0000-000000000001', \
             '{\"properties\": {\"password\": {\"type\": \"string\", \"airbyte_secret\": true}}}', \
             '{\"password\": \"canary\"}')",
        )
        .await;
    for code in ["P0001", "42P01", "XX000"] {
        server
            .sql(&format!(
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 RAISE EXCEPTION 'no: %', OLD.configuration USING ERRCODE = '{code}'; END $$"
            ))
            .await;
        server
            .sql("CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE ON actor FOR EACH ROW EXECUTE FUNCTION refuse()")
            .await;
        let actors = server.address(
            "?table=actor&id=id&configuration=configuration&base_id=workspace_id&specification=spec",
        );
        let arguments = [
            "split",
            "--store",
            "sqlite:source.db",
            "--configs",
            &actors,
            "--journal",
            "split.db",
        ];
        let ran = server.run(&lab, &arguments).says(code).never_says("canary");
        assert_ne!(ran.status, 0, "{ran:?}");
    }
    server.drop().await;
}
