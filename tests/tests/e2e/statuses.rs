//! One fault has one exit status, whatever the store. The table is in the tool's README.

use std::{collections::BTreeMap, fmt, fs, time::Duration};

use e2e::{
    FaultProxy, LocalStack, Postgres, VaultServer,
    azure::{self, Azure},
    google::{self, Google},
    proxy::{Answer, Fault as Injected, Rule, aws_operation},
};
use secret_persistence_core::{ManagedCoordinate, SecretPersistenceExt as _, SecretValue, Write};
use secret_persistence_vault::{PolicyOptions, policy};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{program::Program, stores};

/// What is wrong with a store, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    MissingCredential,
    WrongCredential,
    ExpiredCredential,
    WrongTable,
    MisspeltDatabase,
    UnreachableHost,
    Denied,
    MissingSecret,
}

use Fault::*;

impl Fault {
    /// How the README calls it.
    fn title(self) -> &'static str {
        match self {
            MissingCredential => "a missing credential or key ring",
            WrongCredential => "a wrong or revoked credential",
            ExpiredCredential => "an expired credential",
            WrongTable => "a missing table or mount",
            MisspeltDatabase => "a missing database or file",
            UnreachableHost => "a host that does not answer",
            Denied => "a missing permission",
            MissingSecret => "a secret of a configuration that is missing in the source",
        }
    }
}

/// The commands that meet it, in the order of the table.
const COMMANDS: [&str; 4] = ["plan --from", "plan --to", "copy --to", "check"];

type Statuses = [i32; COMMANDS.len()];

/// The tool with a store that has a fault, and another one that has none.
struct Bench {
    store: &'static str,
    fault: Fault,
    program: Program,
    url: String,
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.fault.title(), self.store)
    }
}

impl Bench {
    async fn new(store: &'static str, fault: Fault, url: impl Into<String>) -> Option<Self> {
        let program = Program::found()?;
        let name = ManagedCoordinate::parse("airbyte_workspace_1_secret_1_v1").unwrap();
        let row =
            json!({ "id": "a", "configuration": { "password": { "_secret": name.as_str() } } });
        fs::write(program.folder().join("configs.jsonl"), format!("{row}\n")).unwrap();
        for file in ["healthy.db", "empty.db", "store.db"] {
            let healthy = stores::sqlite(&program.folder().join(file)).await;
            if file == "healthy.db" {
                let value = SecretValue::new("value".into());
                healthy
                    .write(Write::new(name.clone(), value))
                    .await
                    .unwrap();
            }
        }
        Some(Self {
            store,
            fault,
            program,
            url: url.into(),
        })
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.program.set(name, value);
        self
    }

    /// Ends the test if an operator would read of layers, or of a kind of store twice.
    #[track_caller]
    fn expect_no_layers(&self, text: &str) {
        for layer in ["cache", "limit", "metrics", "probe", "retry", "timeout"] {
            assert!(!text.contains(&format!("{layer}(")), "{self}: {text}");
        }
        for kind in ["aws", "azure", "gcp", "postgres", "sqlite", "vault"] {
            assert!(!text.contains(&format!("{kind} {kind}")), "{self}: {text}");
        }
    }

    /// How each command ends.
    async fn statuses(&self) -> (Statuses, String) {
        let mut statuses = Statuses::default();
        let mut told = String::new();
        for (at, command) in COMMANDS.into_iter().enumerate() {
            let (from, to) = ("sqlite:healthy.db", "sqlite:empty.db");
            let moves = |command, from, to| {
                let configs = ["--configs", "configs.jsonl", "--journal", "journal.db"];
                [&[command, "--from", from, "--to", to][..], &configs].concat()
            };
            let arguments = match command {
                "plan --from" => moves("plan", &self.url, to),
                "plan --to" => moves("plan", from, &self.url),
                "copy --to" => moves("copy", from, &self.url),
                _ => vec!["check", "--store", &self.url],
            };
            let ended = self.program.run(&arguments).await;
            statuses[at] = ended.status;
            self.expect_no_layers(&ended.text);
            told += &format!("{command}: {}\n{}\n", ended.status, ended.text);
        }
        (statuses, told)
    }
}

/// A table of another installation of Postgres, which asks for passwords.
struct Table {
    server: &'static Postgres,
    database: String,
}

impl Table {
    async fn new() -> Option<Self> {
        let server = Postgres::start_or_env().await?;
        let database = format!("statuses_{}", uuid::Uuid::new_v4().simple());
        let table = Self { server, database };
        table
            .sql("postgres", &format!("CREATE DATABASE {}", table.database))
            .await;
        let create = "CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT)";
        table.sql(&table.database, create).await;
        for (role, more) in [
            ("all", ""),
            ("none", ""),
            ("old", "VALID UNTIL '2001-01-01'"),
        ] {
            let create = format!(
                "CREATE ROLE {}_{role} LOGIN PASSWORD 'made-up' {more} IN ROLE password_users",
                table.database
            );
            table.sql(&table.database, &create).await;
        }
        let grant = format!("GRANT ALL ON secrets TO {}_all", table.database);
        table.sql(&table.database, &grant).await;
        Some(table)
    }

    async fn sql(&self, database: &str, sql: &str) {
        let mut url: url::Url = self.server.url().parse().unwrap();
        url.set_path(database);
        let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }

    fn port(&self) -> u16 {
        let url: url::Url = self.server.url().parse().unwrap();
        url.port().unwrap_or(5432)
    }

    async fn bench(&self, fault: Fault, place: &str, role: &str) -> Option<Bench> {
        let url = format!("postgres://{place}");
        let bench = Bench::new("postgres", fault, url).await?;
        Some(match role {
            "" => bench,
            role => bench
                .set("DATABASE_USER", &format!("{}_{role}", self.database))
                .set(
                    "DATABASE_PASSWORD",
                    if fault == WrongCredential {
                        "other"
                    } else {
                        "made-up"
                    },
                ),
        })
    }

    async fn drop(self) {
        self.sql(
            "postgres",
            &format!("DROP DATABASE {} WITH (FORCE)", self.database),
        )
        .await;
        for role in ["all", "none", "old"] {
            self.sql("postgres", &format!("DROP ROLE {}_{role}", self.database))
                .await;
        }
    }
}

/// Adds what each bench says to the table.
async fn look(benches: Vec<Bench>) -> BTreeMap<(Fault, &'static str), (Statuses, String)> {
    let mut all = BTreeMap::new();
    for bench in benches {
        all.insert((bench.fault, bench.store), bench.statuses().await);
    }
    all
}

/// What the README says: one row for each fault, whatever the store.
fn documented() -> BTreeMap<&'static str, Statuses> {
    let readme = include_str!("../../../examples/migrate/README.md");
    let rows = readme.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (title, numbers) = cells.split_first()?;
        let numbers: Vec<i32> = numbers
            .iter()
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        Some((*title, numbers.try_into().ok()?))
    });
    rows.collect()
}

#[track_caller]
fn expect_documented(all: &BTreeMap<(Fault, &'static str), (Statuses, String)>) {
    let documented = documented();
    let mut wrong = String::new();
    for ((fault, store), (statuses, told)) in all {
        let row = documented.get(fault.title());
        if row != Some(statuses) {
            wrong += &format!(
                "{} of {store}: {statuses:?}, and the README says {row:?}\n{told}\n",
                fault.title()
            );
        }
    }
    assert!(wrong.is_empty(), "{COMMANDS:?}\n{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let Some(healthy) = Bench::new("sqlite", MissingSecret, "sqlite:store.db").await else {
        return;
    };
    let mut benches = vec![healthy];
    for (fault, url) in [
        (MissingCredential, "sqlite:store.db?mode=encrypted"),
        (WrongTable, "sqlite:store.db?table=secretz&create=false"),
        (MisspeltDatabase, "sqlite:nosuch.db?create=false"),
    ] {
        benches.extend(Bench::new("sqlite", fault, url).await);
    }
    expect_documented(&look(benches).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let Some(table) = Table::new().await else {
        return;
    };
    let place = &*format!("127.0.0.1:{}/{}", table.port(), table.database);
    let nosuch = &*format!("127.0.0.1:{}/nosuch", table.port());
    let mut benches = Vec::new();
    for (fault, place, query, role) in [
        (MissingSecret, place, "", "all"),
        (MissingCredential, place, "", ""),
        (WrongCredential, place, "", "all"),
        (ExpiredCredential, place, "", "old"),
        (WrongTable, place, "&table=secretz", "all"),
        (MisspeltDatabase, nosuch, "", "all"),
        (UnreachableHost, "127.0.0.1:1/x", "", "all"),
        (Denied, place, "", "none"),
    ] {
        let url = format!("{place}?mode=plain&create=false{query}");
        benches.extend(table.bench(fault, &url, role).await);
    }
    let all = look(benches).await;
    table.drop().await;
    expect_documented(&all);
}

#[tokio::test(flavor = "multi_thread")]
async fn vault() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = server.mount_kv(2).await;
    let policy = policy(&PolicyOptions::new(format!("{mount}/airbyte/")).with_kv_version(Some(2)));
    let granted = server.write_policy(&policy.unwrap()).await;
    let other = server
        .write_policy("path \"elsewhere/*\" { capabilities = [\"read\"] }")
        .await;
    let token = server.create_token(&[&granted], "10m").await;
    let denied = server.create_token(&[&other], "10m").await;
    let expired = server.create_token(&[&granted], "1s").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let address = server.address().strip_prefix("http://").unwrap();
    let mut benches = Vec::new();
    for (fault, place, token) in [
        (MissingSecret, format!("{address}/{mount}"), &*token),
        (MissingCredential, format!("{address}/{mount}"), ""),
        (WrongCredential, format!("{address}/{mount}"), "hvs.made-up"),
        (ExpiredCredential, format!("{address}/{mount}"), &*expired),
        (WrongTable, format!("{address}/nosuch"), server.root_token()),
        (UnreachableHost, format!("127.0.0.1:1/{mount}"), &*token),
        (Denied, format!("{address}/{mount}"), &*denied),
    ] {
        let url = format!("vault://{place}/airbyte/?tls=off");
        let bench = Bench::new("vault", fault, url).await;
        benches.extend(bench.map(|bench| bench.set("VAULT_AUTH_TOKEN", token)));
    }
    expect_documented(&look(benches).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn aws() {
    let Some(server) = LocalStack::start_or_env().await else {
        return;
    };
    let mut benches = Vec::new();
    let mut proxies = Vec::new();
    // STS has codes of its own. The identity needs no permission.
    let refusing = |(code, sts): (&str, Option<&str>)| {
        let proxy = FaultProxy::builder(server.url()).with_operations(aws_operation);
        let proxy = proxy.start().unwrap();
        let passed = Injected::Delay(Duration::ZERO);
        let sts = sts.map_or(passed, |sts| Injected::Respond(Answer::sts_error(sts)));
        proxy.inject(Rule::new(sts).on("POST /"));
        proxy.inject(Rule::new(Injected::Respond(Answer::aws_error(
            400, code, "no",
        ))));
        proxy
    };
    let wrong = ("UnrecognizedClientException", Some("InvalidClientTokenId"));
    let expired = ("ExpiredTokenException", Some("ExpiredToken"));
    for (fault, codes) in [
        (MissingSecret, None),
        (MissingCredential, None),
        (UnreachableHost, None),
        (WrongCredential, Some(wrong)),
        (ExpiredCredential, Some(expired)),
        (Denied, Some(("AccessDeniedException", None))),
    ] {
        let address = match codes {
            Some(codes) => {
                let proxy = refusing(codes);
                let address = proxy.url();
                proxies.push(proxy);
                address
            }
            None if fault == UnreachableHost => "http://127.0.0.1:1".to_owned(),
            None => server.url().to_owned(),
        };
        let url = format!("aws://us-east-1?endpoint-url={address}");
        let bench = Bench::new("aws", fault, url).await.map(|bench| {
            let bench = bench.set("AWS_EC2_METADATA_DISABLED", "true");
            if fault == MissingCredential {
                return bench;
            }
            bench
                .set("AWS_SECRET_MANAGER_ACCESS_KEY_ID", &stores::account())
                .set("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "none")
        });
        benches.extend(bench);
    }
    expect_documented(&look(benches).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn google() {
    let mut servers = Vec::new();
    let mut benches = Vec::new();
    for fault in [
        MissingSecret,
        WrongCredential,
        ExpiredCredential,
        UnreachableHost,
        Denied,
    ] {
        let server = Google::start(google::Options::default()).await.unwrap();
        let credentials = server.service_account_json();
        server.switches(|switches| match fault {
            WrongCredential => switches.revoked_keys = true,
            ExpiredCredential => switches.clock_offset = 7 * 24 * 3600,
            Denied => switches.granted = Some(Vec::new()),
            _ => {}
        });
        let address = match fault {
            UnreachableHost => "http://127.0.0.1:1".to_owned(),
            _ => server.endpoint(),
        };
        let url = format!("gcp://{}", server.project());
        // Without credentials the metadata server is asked, and none is a host that does not answer.
        let bench = Bench::new("google", fault, url).await.map(|bench| {
            bench
                .set("SECRET_STORE_GCP_ENDPOINT_URL", &address)
                .set("SECRET_STORE_GCP_CREDENTIALS", &credentials)
        });
        benches.extend(bench);
        servers.push(server);
    }
    expect_documented(&look(benches).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn azure() {
    let mut servers = Vec::new();
    let mut benches = Vec::new();
    for fault in [
        MissingSecret,
        MissingCredential,
        WrongCredential,
        ExpiredCredential,
        UnreachableHost,
        Denied,
    ] {
        let server = Azure::start(azure::Options::default()).await.unwrap();
        server.switches(|switches| match fault {
            ExpiredCredential => switches.client_secret_expired = true,
            Denied => switches.allow_only(&[]),
            _ => {}
        });
        let host = match fault {
            UnreachableHost => "127.0.0.1:1".to_owned(),
            _ => server.vault_url().replace("https://", ""),
        };
        let url = format!(
            "azure://{host}?verify-challenge=false&ca-file={}&authority-host={}",
            server.ca_file().display(),
            server.authority_host()
        );
        let bench = Bench::new("azure", fault, url).await.map(|bench| {
            let bench = bench
                .set("AB_AZURE_KEY_VAULT_TENANT_ID", server.tenant_id())
                .set("AB_AZURE_KEY_VAULT_CLIENT_ID", server.client_id());
            // Without any of the three, the machine's identity is asked for.
            let secret = match fault {
                MissingCredential => return bench,
                WrongCredential => "made-up",
                _ => server.client_secret(),
            };
            bench.set("AB_AZURE_KEY_VAULT_CLIENT_SECRET", secret)
        });
        benches.extend(bench);
        servers.push(server);
    }
    expect_documented(&look(benches).await);
}
