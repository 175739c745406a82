//! The built tool between real servers, as operators run it.

use std::{fs, path::Path};

use e2e::{LocalStack, VaultServer};
use serde_json::{Value, json};

use crate::{
    fleet::{Fleet, WORKSPACE, names},
    program::{Ended, Program},
    stores::{account, aws, sqlite, vault},
};

/// The tool, and two servers with a separate place in each.
struct Bench {
    program: Program,
    vault: &'static VaultServer,
    /// As long and random as real tokens, unlike that of a development server: it must not be
    /// shown.
    token: String,
    mount: String,
    localstack: &'static LocalStack,
    account: String,
}

impl Bench {
    async fn new() -> Option<Self> {
        let mut program = Program::found()?;
        let vault = VaultServer::start_or_env().await?;
        let localstack = LocalStack::start_or_env().await?;
        let token = vault.create_token(&["root"], "10m").await;
        let account = account();
        program.set_credential("VAULT_AUTH_TOKEN", &token);
        program.set("AWS_SECRET_MANAGER_ACCESS_KEY_ID", &account);
        program.set("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "none");
        Some(Self {
            program,
            token,
            mount: vault.mount_kv(2).await,
            vault,
            localstack,
            account,
        })
    }

    fn folder(&self) -> &Path {
        self.program.folder()
    }

    fn vault_url(&self) -> String {
        let address = self.vault.address().strip_prefix("http://").unwrap();
        format!("vault://{address}/{}/airbyte/?tls=off", self.mount)
    }

    fn aws_url(&self) -> String {
        format!("aws://us-east-1?endpoint-url={}", self.localstack.url())
    }

    /// Runs the tool with a token that has every permission. It must end with this status. Returns
    /// its JSON output.
    async fn run(&self, arguments: &[&str], status: i32) -> Value {
        self.program.run(arguments).await.expect(status)
    }

    /// Runs the tool with another token.
    async fn run_as(&mut self, token: &str, arguments: &[&str]) -> Ended {
        self.program.set_credential("VAULT_AUTH_TOKEN", token);
        self.program.run(arguments).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_goes_round_the_stores_and_comes_back() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    let fleet = Fleet::new(30);
    let lines = fleet.rows().enumerate().map(|(row, (saved, _))| {
        let line = json!({
            "id": row.to_string(),
            "baseId": WORKSPACE.to_string(),
            "configuration": saved,
        });
        format!("{line}\n")
    });
    fs::write(
        bench.folder().join("configs.jsonl"),
        lines.collect::<String>(),
    )
    .unwrap();
    let first = sqlite(&bench.folder().join("first.db")).await;
    fleet.save_in(&first).await;
    // The tool creates a table only on request.
    let last = sqlite(&bench.folder().join("last.db")).await;

    let (vault_url, aws_url) = (bench.vault_url(), bench.aws_url());
    let stations = ["sqlite:first.db", &vault_url, &aws_url, "sqlite:last.db"];
    for (leg, route) in stations.windows(2).enumerate() {
        let journal = format!("leg-{leg}.db");
        let step = async |command| {
            let arguments = [
                command,
                "--from",
                route[0],
                "--to",
                route[1],
                "--configs",
                "configs.jsonl",
                "--journal",
                &journal,
            ];
            let report = bench.run(&arguments, 0).await;
            assert_eq!(report["failed"], 0, "{report}");
            report["tally"].clone()
        };
        let secrets = fleet.secrets.len();
        assert_eq!(step("plan").await["secrets"], secrets);
        assert_eq!(step("copy").await["written"], secrets);
        assert_eq!(
            step("copy").await["written"],
            0,
            "a delta has nothing to do"
        );
        let verify = step("verify").await;
        assert_eq!(verify["verified"], secrets);
        assert_eq!(verify["hydrated"], 30);
    }
    fleet.expect_in(&last).await;
    fleet
        .expect_in(&vault(bench.vault.address(), &bench.mount, &bench.token).await)
        .await;

    // Back from the middle: only what this leg has written is deleted.
    let arguments = [
        "rollback",
        "--from",
        &vault_url,
        "--to",
        &aws_url,
        "--configs",
        "configs.jsonl",
        "--journal",
        "leg-1.db",
    ];
    let report = bench.run(&arguments, 0).await;
    assert_eq!(report["tally"]["deleted"], fleet.secrets.len());
    let aws = aws(bench.localstack.url(), &bench.account).await;
    assert_eq!(names(&aws).await, []);
    fleet.expect_in(&first).await;
    fleet.expect_in(&last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_conformance_pass_on_both_servers() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    for url in [bench.vault_url(), bench.aws_url()] {
        let check = bench.run(&["check", "--store", &url], 0).await;
        assert_eq!(check["works"], true, "{check}");
        let report = bench.run(&["conformance", "--store", &url], 0).await;
        assert_eq!(report["passed"], true, "{report}");
        assert!(report["cases"].as_array().unwrap().len() > 10, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policies_are_what_the_providers_take() {
    let Some(mut bench) = Bench::new().await else {
        return;
    };
    let url = bench.vault_url();
    let prefix = format!("{}/airbyte/", bench.mount);
    let mut tokens = Vec::new();
    for more in [
        &["--kv-version", "2"][..],
        &["--kv-version", "2", "--read-only"],
    ] {
        let arguments = [&["policy", "vault", "--prefix", &prefix], more].concat();
        let printed = bench.run(&arguments, 0).await;
        let name = bench
            .vault
            .write_policy(printed["policy"].as_str().unwrap())
            .await;
        tokens.push(bench.vault.create_token(&[&name], "10m").await);
    }
    let check = ["check", "--store", &url];
    bench.run_as(&tokens[0], &check).await.expect(0);
    let reader = bench.run_as(&tokens[1], &check).await;
    assert_ne!(reader.status, 0, "a reader has written: {}", reader.text);
    assert!(reader.text.contains("permission_denied"), "{}", reader.text);

    let arguments = [
        "policy",
        "aws",
        "--region",
        "us-east-1",
        "--account",
        "123456789012",
    ];
    let printed = bench.run(&arguments, 0).await;
    let policy = &printed["policy"];
    assert_eq!(policy["Version"], "2012-10-17", "{printed}");
    let statements = policy["Statement"].as_array().unwrap();
    assert!(
        statements
            .iter()
            .all(|statement| statement["Effect"] == "Allow")
    );
    assert!(policy.to_string().contains("secretsmanager:CreateSecret"));
}
