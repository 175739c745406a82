//! The tool with a vault of Azure Key Vault, as operators run it.

use std::time::{Duration, Instant};

use e2e::azure::{Azure, Options};
use serde_json::Value;

use crate::program::{Ended, Program};

const SUBSCRIPTION: &str = "11111111-2222-3333-4444-555555555555";

/// The tool, and a separate vault.
struct Bench {
    program: Program,
    azure: Azure,
}

impl Bench {
    async fn new() -> Option<Self> {
        let mut program = Program::found()?;
        let azure = Azure::start(Options::default()).await.unwrap();
        program.set("AB_AZURE_KEY_VAULT_TENANT_ID", azure.tenant_id());
        program.set("AB_AZURE_KEY_VAULT_CLIENT_ID", azure.client_id());
        program.set_credential("AB_AZURE_KEY_VAULT_CLIENT_SECRET", azure.client_secret());
        Some(Self { program, azure })
    }

    fn url(&self) -> String {
        let host = self.azure.vault_url();
        let host = host.strip_prefix("https://").unwrap();
        format!(
            "azure://{host}?verify-challenge=false&ca-file={}&authority-host={}",
            self.azure.ca_file().display(),
            self.azure.authority_host()
        )
    }

    async fn check(&self, more: &[&str]) -> Ended {
        let url = self.url();
        let arguments = [&["check", "--store", &url], more].concat();
        self.program.run(&arguments).await
    }

    /// The role that the tool prints.
    async fn policy(&self, more: &[&str]) -> Value {
        let arguments = [
            "policy",
            "azure",
            "--vault",
            "my-vault",
            "--subscription",
            SUBSCRIPTION,
            "--resource-group",
            "data",
        ];
        self.program
            .run(&[&arguments[..], more].concat())
            .await
            .expect(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_is_checked_and_keeps_every_promise() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    let check = bench.check(&[]).await.expect(0);
    assert_eq!(check["works"], true, "{check}");
    let identity = check["steps"][0]["detail"].as_str().unwrap();
    assert!(identity.contains(bench.azure.client_id()), "{identity}");
    let url = bench.url();
    let report = bench.program.run(&["conformance", "--store", &url]).await;
    assert_eq!(report.expect(0)["passed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_role_is_enough_for_what_it_is_for() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    let give = |printed: &Value| {
        let actions = printed["role"]["DataActions"].as_array().unwrap();
        let actions: Vec<&str> = actions
            .iter()
            .map(|action| action.as_str().unwrap())
            .collect();
        bench
            .azure
            .switches(|switches| switches.allow_only(&actions));
    };
    let printed = bench.policy(&["--principal", SUBSCRIPTION]).await;
    let assign = printed["role_commands"][1].as_str().unwrap();
    assert!(assign.contains("vaults/my-vault") && assign.contains(SUBSCRIPTION));
    assert!(
        printed["access_policy_command"]
            .as_str()
            .unwrap()
            .contains("--secret-permissions get list set delete recover")
    );
    give(&printed);
    bench.check(&[]).await.expect(0);

    give(&bench.policy(&["--read-only"]).await);
    let reader = bench.check(&[]).await;
    assert_ne!(reader.status, 0, "a reader has written: {}", reader.text);
    assert!(
        reader.text.contains("secrets/setSecret/action"),
        "{}",
        reader.text
    );
}

/// A role assignment takes a while to arrive. The check waits for it, but not longer than
/// requested.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_waits_for_a_role_assignment_to_arrive() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    let late = Duration::from_secs(8);
    bench
        .azure
        .switches(|switches| switches.assign_role_after(late));
    let impatient = bench.check(&[]).await;
    assert_ne!(impatient.status, 0, "{}", impatient.text);
    assert!(impatient.text.contains("--wait"), "{}", impatient.text);
    let short = bench.check(&["--wait", "1s"]).await;
    assert_ne!(short.status, 0, "{}", short.text);
    let started = Instant::now();
    let check = bench.check(&["--wait", "2m"]).await.expect(0);
    assert_eq!(check["works"], true, "{check}");
    assert!(started.elapsed() < Duration::from_secs(60));
    // However often a step was retried, one secret was written, and it is gone.
    let written = bench
        .azure
        .requests()
        .iter()
        .filter(|request| request.operation == "SetSecret" && request.status == 200)
        .count();
    assert_eq!(written, 1);
}
