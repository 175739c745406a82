//! The tool meets outages of servers, reports the cause, and continues from its journal.

use std::time::Duration;

use e2e::{
    FaultProxy, LocalStack, VaultServer, available,
    proxy::{Answer, Fault, Rule, aws_operation},
};
use secret_persistence_vault::{PolicyOptions, policy};
use serde_json::json;

use crate::{
    installation::{FIRST, Installation, LAST, answered, expect_middle},
    stores::{account, aws, vault},
};

/// Secrets in addition to the demo's, four each, so that there is a middle.
const OTHERS: usize = 20;

fn vault_url(address: &str, mount: &str) -> String {
    let address = address.strip_prefix("http://").unwrap();
    format!("vault://{address}/{mount}/airbyte/?tls=off")
}

fn aws_url(address: &str) -> String {
    format!("aws://us-east-1?endpoint-url={address}")
}

/// An installation with every permission in Vault.
async fn with_vault(server: &VaultServer) -> Option<(Installation, String)> {
    let mut installation = Installation::new(OTHERS).await?;
    // As long and random as real tokens, unlike that of a development server: it must not be shown.
    let token = server.create_token(&["root"], "10m").await;
    installation
        .program
        .set_credential("VAULT_AUTH_TOKEN", &token);
    Some((installation, server.mount_kv(2).await))
}

/// Gives an installation a unique account of LocalStack.
fn use_account(installation: &mut Installation) -> String {
    let account = account();
    let program = &mut installation.program;
    program.set("AWS_SECRET_MANAGER_ACCESS_KEY_ID", &account);
    program.set_credential("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "canary-secret-key");
    account
}

fn aws_proxy(server: &LocalStack) -> FaultProxy {
    let proxy = FaultProxy::builder(server.url()).with_operations(aws_operation);
    proxy.start().unwrap()
}

fn vault_proxy(server: &VaultServer) -> FaultProxy {
    FaultProxy::builder(server.address()).start().unwrap()
}

/// Fails the test unless Vault contains everything, each secret written once: version 2 counts its
/// versions.
async fn expect_in_vault(installation: &Installation, server: &VaultServer, mount: &str) {
    let store = vault(server.address(), mount, server.root_token()).await;
    installation.expect_in(&store).await;
    for name in installation.secrets.keys() {
        let path = format!("{mount}/metadata/airbyte/{name}");
        let metadata = server.request("GET", &path, None).await.expect("metadata");
        assert_eq!(metadata["data"]["current_version"], 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demos_connectors_go_round_while_every_third_request_is_throttled() {
    let (Some(vault_server), Some(localstack)) = (
        VaultServer::start_or_env().await,
        LocalStack::start_or_env().await,
    ) else {
        return;
    };
    let Some((mut installation, mount)) = with_vault(vault_server).await else {
        return;
    };
    let account = use_account(&mut installation);
    let (vault_proxy, aws_proxy) = (vault_proxy(vault_server), aws_proxy(localstack));
    // Requests that open a store are not retried, because an operator wants to know at once.
    let throttling = Fault::Respond(Answer::vault_throttling(0));
    for method in ["GET", "LIST", "POST"] {
        let pattern = format!("{method} /v1/{mount}/*");
        vault_proxy.inject(Rule::new(throttling.clone()).on(pattern).every(3));
    }
    for operation in ["BatchGetSecretValue", "CreateSecret", "ListSecrets"] {
        let throttling = Fault::Respond(Answer::aws_throttling());
        aws_proxy.inject(Rule::new(throttling).on(operation).every(3));
    }

    let (in_vault, in_aws) = (
        vault_url(&vault_proxy.url(), &mount),
        aws_url(&aws_proxy.url()),
    );
    let stations = [FIRST, &in_vault, &in_aws, LAST];
    for (leg, route) in stations.windows(2).enumerate() {
        let journal = format!("journal-{leg}.db");
        let step = installation.step(route[0], route[1], &journal);
        // A request that fails eight times in a row is reported, and the next run continues.
        let mut written = 0;
        for _ in 0..5 {
            let ended = step.run("copy").await;
            let report = ended.expect(i32::from(ended.status != 0));
            written += report["tally"]["written"].as_u64().unwrap();
            let failures = report["failures"].as_array().unwrap();
            for failure in failures {
                assert_eq!(failure["kind"], "throttled", "{report}");
            }
            if failures.is_empty() {
                break;
            }
        }
        assert_eq!(written, installation.secrets());
        step.expect_verified().await;
    }
    assert!(answered(&vault_proxy, 429) > 50, "Vault never throttled");
    assert!(answered(&aws_proxy, 400) > 20, "AWS never throttled");
    expect_in_vault(&installation, vault_server, &mount).await;
    installation
        .expect_in(&aws(localstack.url(), &account).await)
        .await;
    installation.expect_in(&installation.last).await;
    installation.expect_in(&installation.first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vaults_token_expires_under_the_tool() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let Some((mut installation, mount)) = with_vault(server).await else {
        return;
    };
    let options = PolicyOptions::new(format!("{mount}/airbyte/")).with_kv_version(Some(2));
    let policy = server.write_policy(&policy(&options).unwrap()).await;
    // A maximum, so that early renewal does not help.
    let token = json!({
        "policies": [policy], "no_default_policy": true, "ttl": "4s", "explicit_max_ttl": "4s",
    });
    let answer = server.request("POST", "auth/token/create", Some(&token));
    let answer = answer.await.expect("token");
    let token = answer["auth"]["client_token"].as_str().unwrap();
    installation
        .program
        .set_credential("VAULT_AUTH_TOKEN", token);

    let proxy = vault_proxy(server);
    let to = vault_url(&proxy.url(), &mount);
    let step = installation.step(FIRST, &to, "journal.db");
    let writes = format!("POST /v1/{mount}/data/*");
    let ended = step
        .copy_struck(&proxy, (&writes, 20), async |_| {
            // Later requests wait until the token has expired.
            proxy.set_delay(Duration::from_secs(5));
            tokio::time::sleep(Duration::from_secs(4)).await;
            proxy.set_delay(Duration::ZERO);
        })
        .await;
    let report = ended.expect(4);
    let written = expect_middle(
        &report,
        installation.secrets(),
        "unauthenticated",
        "has expired",
    );

    let token = server.create_token(&[&policy], "10m").await;
    installation
        .program
        .set_credential("VAULT_AUTH_TOKEN", &token);
    let step = installation.step(FIRST, &to, "journal.db");
    step.expect_resumed(written).await;
    expect_in_vault(&installation, server, &mount).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_is_sealed_under_the_tool() {
    let Some(server) = available(VaultServer::start().await) else {
        return;
    };
    let Some((installation, mount)) = with_vault(&server).await else {
        return;
    };
    let proxy = FaultProxy::builder(server.address()).with_delay(Duration::from_millis(5));
    let proxy = proxy.start().unwrap();
    let to = vault_url(&proxy.url(), &mount);
    let step = installation.step(FIRST, &to, "journal.db");
    let writes = format!("POST /v1/{mount}/data/*");
    let ended = step
        .copy_struck(&proxy, (&writes, 20), async |_| server.seal().await)
        .await;
    let report = ended.expect(4);
    let written = expect_middle(
        &report,
        installation.secrets(),
        "unavailable",
        "Vault is sealed",
    );

    // Until then, nothing works: one error explains why.
    let ended = step.run("copy").await;
    assert_eq!(ended.status, 4, "{}", ended.text);
    assert!(ended.text.contains("Vault is sealed"), "{}", ended.text);
    assert!(
        ended.text.contains("vault operator unseal"),
        "{}",
        ended.text
    );

    server.unseal().await;
    step.expect_resumed(written).await;
    expect_in_vault(&installation, &server, &mount).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn localstack_is_killed_under_the_tool_and_forgets_everything() {
    let Some(mut server) = available(LocalStack::start().await) else {
        return;
    };
    let Some(mut installation) = Installation::new(OTHERS).await else {
        return;
    };
    let account = use_account(&mut installation);
    let proxy = aws_proxy(&server);
    let to = aws_url(&proxy.url());
    let step = installation.step(FIRST, &to, "journal.db");
    let ended = step
        .copy_struck(&proxy, ("CreateSecret", 20), async |_| server.kill())
        .await;
    let report = ended.expect(4);
    let written = expect_middle(&report, installation.secrets(), "unavailable", "");

    server.restart().await.unwrap();
    let report = step.run("verify").await.expect(1);
    assert_eq!(report["stopped"], "unverified", "{report}");
    assert_eq!(report["tally"]["lost"], written, "{report}");
    assert_eq!(report["tally"]["hydrated"], 0, "{report}");

    let tally = step.done("copy").await;
    assert_eq!(
        tally["written"],
        installation.secrets(),
        "all of it again: {tally}"
    );
    step.expect_verified().await;
    installation
        .expect_in(&aws(server.url(), &account).await)
        .await;
}

/// Vault executes the write and the connection is closed, repeatedly and without any report. Then
/// the tool is killed while it waits for a response: its journal contains the intent, and the next
/// run finds out that it wrote.
#[tokio::test(flavor = "multi_thread")]
async fn vault_writes_and_neither_the_connection_nor_the_tool_lives_to_hear_of_it() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let Some((installation, mount)) = with_vault(server).await else {
        return;
    };
    let proxy = vault_proxy(server);
    let to = vault_url(&proxy.url(), &mount);
    let step = installation.step(FIRST, &to, "journal.db");
    let writes = format!("POST /v1/{mount}/data/*");
    let cut = Rule::new(Fault::CutAfterWork).on(&*writes).every(5);
    proxy.inject(cut.times(3));
    proxy.inject(Rule::new(Fault::HangAfterWork).on(&*writes).after(20));
    let ended = step
        .copy_struck(&proxy, (&writes, 26), async |child| {
            // Vault has received them and had time to execute them.
            tokio::time::sleep(Duration::from_millis(300)).await;
            child.kill().unwrap();
        })
        .await;
    assert_eq!(ended.status, -1, "it was killed: {}", ended.text);
    proxy.heal();

    let tally = step.done("copy").await;
    let count = |name: &str| tally[name].as_u64().unwrap();
    assert!(count("resumed") > 0, "{tally}");
    assert!(count("written") > 0, "{tally}");
    step.expect_verified().await;
    expect_in_vault(&installation, server, &mount).await;

    // Writes without a response belong to this migration too: a rollback deletes all of them.
    let tally = step.done("rollback").await;
    assert_eq!(tally["deleted"], installation.secrets(), "{tally}");
    installation.expect_in(&installation.first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_writes_and_neither_the_connection_nor_the_tool_lives_to_hear_of_it() {
    let Some(server) = LocalStack::start_or_env().await else {
        return;
    };
    let Some(mut installation) = Installation::new(OTHERS).await else {
        return;
    };
    let account = use_account(&mut installation);
    let proxy = aws_proxy(server);
    let to = aws_url(&proxy.url());
    let step = installation.step(FIRST, &to, "journal.db");
    let cut = Rule::new(Fault::CutAfterWork).on("CreateSecret").every(5);
    proxy.inject(cut.times(3));
    proxy.inject(Rule::new(Fault::HangAfterWork).on("CreateSecret").after(20));
    let ended = step
        .copy_struck(&proxy, ("CreateSecret", 26), async |child| {
            tokio::time::sleep(Duration::from_millis(500)).await;
            child.kill().unwrap();
        })
        .await;
    assert_eq!(ended.status, -1, "it was killed: {}", ended.text);
    proxy.heal();

    let tally = step.done("copy").await;
    assert!(tally["resumed"].as_u64().unwrap() > 0, "{tally}");
    step.expect_verified().await;
    installation
        .expect_in(&aws(server.url(), &account).await)
        .await;
}
