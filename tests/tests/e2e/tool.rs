//! The tool that operators run, as it is built, between real servers.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use e2e::{Absent, LocalStack, VaultServer, available};
use serde_json::{Value, json};

use crate::{
    fleet::{Fleet, names},
    stores::{account, aws, sqlite, vault},
};

/// The program beside the one that runs: a test of the whole workspace with all features builds both.
fn program() -> Option<PathBuf> {
    let own = env::current_exe().unwrap();
    let built = own.ancestors().nth(2).unwrap().join("migrate");
    available(if built.is_file() {
        Ok(built)
    } else {
        Err(Absent::Missing {
            server: "migrate",
            remedy: "run `cargo build -p migrate --all-features`".into(),
        })
    })
}

/// The tool, and two servers with a place of its own in each.
struct Bench {
    program: PathBuf,
    folder: tempfile::TempDir,
    vault: &'static VaultServer,
    /// As long and random as tokens are, unlike that of a development server: it must not be shown.
    token: String,
    mount: String,
    localstack: &'static LocalStack,
    account: String,
}

impl Bench {
    async fn new() -> Option<Self> {
        let program = program()?;
        let vault = VaultServer::start_or_env().await?;
        let localstack = LocalStack::start_or_env().await?;
        Some(Self {
            program,
            folder: tempfile::tempdir().unwrap(),
            token: vault.create_token(&["root"], "10m").await,
            mount: vault.mount_kv(2).await,
            vault,
            localstack,
            account: account(),
        })
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn vault_url(&self) -> String {
        let address = self.vault.address().strip_prefix("http://").unwrap();
        format!("vault://{address}/{}/airbyte/?tls=off", self.mount)
    }

    fn aws_url(&self) -> String {
        format!("aws://us-east-1?endpoint-url={}", self.localstack.url())
    }

    /// Runs the tool with a token that may do everything; it must end with this status. The object that it prints.
    fn run(&self, arguments: &[&str], status: i32) -> Value {
        let (ended, output) = self.run_as(&self.token, arguments);
        assert_eq!(ended, status, "{arguments:?}: {output}");
        let start = output.find('{').expect("an object");
        let mut objects = serde_json::Deserializer::from_str(&output[start..]).into_iter();
        objects.next().expect("an object").unwrap()
    }

    /// Runs the tool with another token, and nothing of this process's environment.
    fn run_as(&self, token: &str, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(&self.program)
            .args(arguments)
            .arg("--json")
            .current_dir(self.folder())
            .env_clear()
            .env("AWS_SECRET_MANAGER_ACCESS_KEY_ID", &self.account)
            .env("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "none")
            .env("SECRETS_OWNER", "stories")
            .env("VAULT_AUTH_TOKEN", token)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert!(!shown.contains(token), "{arguments:?} shows the token");
        (output.status.code().unwrap_or(-1), shown)
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
            "baseId": "00000000-0000-0000-0000-000000000001",
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
    // The tool makes a table only where it is told to.
    let last = sqlite(&bench.folder().join("last.db")).await;

    let (vault_url, aws_url) = (bench.vault_url(), bench.aws_url());
    let stations = ["sqlite:first.db", &vault_url, &aws_url, "sqlite:last.db"];
    for (leg, route) in stations.windows(2).enumerate() {
        let journal = format!("leg-{leg}.db");
        let step = |command| {
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
            let report = bench.run(&arguments, 0);
            assert_eq!(report["failed"], 0, "{report}");
            report["tally"].clone()
        };
        let secrets = fleet.secrets.len();
        assert_eq!(step("plan")["secrets"], secrets);
        assert_eq!(step("copy")["written"], secrets);
        assert_eq!(step("copy")["written"], 0, "a delta has nothing to do");
        let verify = step("verify");
        assert_eq!(verify["verified"], secrets);
        assert_eq!(verify["hydrated"], 30);
    }
    fleet.expect_in(&last).await;
    fleet
        .expect_in(&vault(bench.vault.address(), &bench.mount, &bench.token).await)
        .await;

    // Back out of the middle: what this leg has written goes, and only there.
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
    let report = bench.run(&arguments, 0);
    assert_eq!(report["tally"]["deleted"], fleet.secrets.len());
    let aws = aws(bench.localstack.url(), &bench.account);
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
        let check = bench.run(&["check", "--store", &url], 0);
        assert_eq!(check["works"], true, "{check}");
        let report = bench.run(&["conformance", "--store", &url], 0);
        assert_eq!(report["passed"], true, "{report}");
        assert!(report["cases"].as_array().unwrap().len() > 10, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policies_are_what_the_providers_take() {
    let Some(bench) = Bench::new().await else {
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
        let printed = bench.run(&arguments, 0);
        let name = bench
            .vault
            .write_policy(printed["policy"].as_str().unwrap())
            .await;
        tokens.push(bench.vault.create_token(&[&name], "10m").await);
    }
    let (status, output) = bench.run_as(&tokens[0], &["check", "--store", &url]);
    assert_eq!(status, 0, "{output}");
    let (status, output) = bench.run_as(&tokens[1], &["check", "--store", &url]);
    assert_ne!(status, 0, "a reader has written: {output}");
    assert!(output.contains("permission_denied"), "{output}");

    let arguments = [
        "policy",
        "aws",
        "--region",
        "us-east-1",
        "--account",
        "123456789012",
    ];
    let printed = bench.run(&arguments, 0);
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
