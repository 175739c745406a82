//! Processes of one migration together use a quota, and no more than it: counted by a proxy in front of
//! the store.

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use e2e::{FaultProxy, LocalStack, Postgres, VaultServer, proxy::aws_operation};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url::Url;
use uuid::Uuid;

use crate::{
    fleet::{Fleet, WORKSPACE},
    program::Program,
    stores::{account, sqlite},
};

const SECOND: Duration = Duration::from_secs(1);

/// What arrived while the processes wrote.
#[derive(Debug)]
struct Used {
    requests: usize,
    /// The most in any second.
    most: usize,
    /// Without the first and the last second, in which not all processes are at work.
    per_second: f64,
}

impl Used {
    /// Counts the requests to a store, of which those that write show when the processes copy.
    fn of(proxy: &FaultProxy, writes: &str) -> Self {
        let requests = proxy.requests();
        let mut times: Vec<Instant> = requests.iter().map(|request| request.at).collect();
        times.sort();
        let until = |time: Instant| times.partition_point(|at| *at < time);
        let most = (0..times.len()).map(|first| until(times[first] + SECOND) - first);
        let copied: Vec<Instant> = requests
            .iter()
            .filter(|request| request.operation.starts_with(writes))
            .map(|request| request.at)
            .collect();
        let begin = *copied.iter().min().expect("a write") + SECOND;
        let end = *copied.iter().max().expect("a write") - SECOND;
        Self {
            requests: times.len(),
            most: most.max().unwrap_or(0),
            per_second: (until(end) - until(begin)) as f64 / (end - begin).as_secs_f64(),
        }
    }
}

/// The tool with a journal in a database of its own.
struct Shared {
    program: Program,
    journal: String,
    administrator: PgConnection,
    database: String,
}

impl Shared {
    async fn new(postgres: &Postgres) -> Option<Self> {
        let mut program = Program::found()?;
        let database = format!("quota_{}", Uuid::new_v4().simple());
        let mut administrator = PgConnection::connect(postgres.url()).await.unwrap();
        let made = sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}")));
        made.execute(&mut administrator).await.unwrap();
        let url = Url::parse(postgres.url()).unwrap();
        program.set("JOURNAL_DATABASE_USER", url.username());
        let password = url.password().unwrap_or_default();
        program.set("JOURNAL_DATABASE_PASSWORD", password);
        let (host, port) = (url.host_str().unwrap(), url.port().unwrap_or(5432));
        let journal = format!("postgres://{host}:{port}/{database}");
        Some(Self {
            program,
            journal,
            administrator,
            database,
        })
    }

    /// Copies new secrets with so many processes.
    async fn copy(&self, to: &str, rate: usize, workers: usize, secrets: usize) {
        let fleet = Fleet::new(secrets / 4);
        let mut lines = String::new();
        for (row, (saved, _)) in fleet.rows().enumerate() {
            let base = WORKSPACE.to_string();
            let line = json!({"id": row.to_string(), "baseId": base, "configuration": saved});
            writeln!(lines, "{line}").unwrap();
        }
        let folder = self.program.folder();
        fs::write(folder.join("configs.jsonl"), lines).unwrap();
        fleet.save_in(&sqlite(&folder.join("from.db")).await).await;
        let (rate, workers) = (rate.to_string(), workers.to_string());
        let arguments = [
            ["--from", "sqlite:from.db"],
            ["--to", to],
            ["--configs", "configs.jsonl"],
            ["--journal", &self.journal],
            ["--rate", &rate],
            ["--workers", &workers],
        ];
        let arguments = [&["copy"][..], arguments.as_flattened()].concat();
        self.program.run(&arguments).await.expect(0);
    }

    async fn end(mut self) {
        let dropped = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        let dropped = sqlx::query(AssertSqlSafe(dropped));
        dropped.execute(&mut self.administrator).await.unwrap();
    }
}

/// So many processes for half a minute, one quota.
#[expect(clippy::print_stdout, reason = "the figures are what the run is for")]
async fn shares(
    store: &str,
    rate: usize,
    secrets: usize,
    to: impl AsyncFn(&mut Program) -> Target,
) {
    let Some(postgres) = Postgres::start_or_env().await else {
        return;
    };
    for workers in [1, 2, 4] {
        let Some(mut shared) = Shared::new(postgres).await else {
            return;
        };
        let target = to(&mut shared.program).await;
        shared.copy(&target.url, rate, workers, secrets).await;
        let used = Used::of(&target.proxy, target.writes);
        println!(
            "{store}, {workers} processes, quota {rate}: {:.1} a second of {} in all, {} in the busiest second",
            used.per_second, used.requests, used.most
        );
        assert!(used.most <= rate, "{workers} on {store}: {used:?}");
        let part = used.per_second / rate as f64;
        assert!(
            (0.9..=1.0).contains(&part),
            "{workers} on {store}: {used:?}"
        );
        shared.end().await;
    }
}

/// A store behind a proxy.
struct Target {
    url: String,
    proxy: FaultProxy,
    /// The beginning of the operation that writes.
    writes: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: needs a machine that is not busy otherwise"]
async fn vault_gets_its_quota_from_one_two_and_four_processes() {
    let Some(vault) = VaultServer::start_or_env().await else {
        return;
    };
    shares("Vault", 100, 1_000, async |program| {
        let proxy = FaultProxy::builder(vault.address()).start().unwrap();
        let token = vault.create_token(&["root"], "1h").await;
        program.set_credential("VAULT_AUTH_TOKEN", &token);
        let mount = vault.mount_kv(2).await;
        let address = proxy.url();
        let address = address.strip_prefix("http://").unwrap();
        Target {
            url: format!("vault://{address}/{mount}/airbyte/?tls=off"),
            proxy,
            writes: "POST",
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: needs a machine that is not busy otherwise"]
async fn localstack_gets_its_quota_from_one_two_and_four_processes() {
    let Some(localstack) = LocalStack::start_or_env().await else {
        return;
    };
    // On two cores, it cannot answer fifty a second.
    shares("LocalStack", 12, 300, async |program| {
        let proxy = FaultProxy::builder(localstack.url())
            .with_operations(aws_operation)
            .start()
            .unwrap();
        program.set("AWS_SECRET_MANAGER_ACCESS_KEY_ID", &account());
        program.set("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "none");
        Target {
            url: format!("aws://us-east-1?endpoint-url={}", proxy.url()),
            proxy,
            writes: "CreateSecret",
        }
    })
    .await;
}
