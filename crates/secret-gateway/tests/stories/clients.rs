//! Clients of Vault that nobody here wrote do the same story on Vault and on the gateway.

use std::process::Command;

use e2e::{Client, VaultServer};
use serde_json::{Value, json};

use crate::program::{Program, everything};
use crate::world::name;

/// Two names that are written, and one that never is.
fn names() -> [String; 3] {
    [name(1, 1), name(1, 2), name(1, 3)]
}

/// What a client saw, step by step.
fn story(mut command: Command, mount: &str, address: &str, token: &str) -> Vec<(String, Value)> {
    let output = command
        .arg(mount)
        .args(names())
        .env("VAULT_ADDR", address)
        .env("VAULT_TOKEN", token)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{out}{err}");
    out.lines()
        .map(|line| {
            let mut step: Value = serde_json::from_str(line).unwrap();
            (
                step["step"].as_str().unwrap().to_owned(),
                step["seen"].take(),
            )
        })
        .collect()
}

/// Runs a client against both. `differences` are all the steps at which the gateway answers otherwise, with
/// what it answers; docs/gateway.md has them in its table.
async fn same_story(
    command: impl Fn() -> Option<Command>,
    steps: usize,
    differences: &[(&str, Value)],
) {
    same_story_told_by(story, command, steps, differences).await;
}

type Story = fn(Command, &str, &str, &str) -> Vec<(String, Value)>;

async fn same_story_told_by(
    story: Story,
    command: impl Fn() -> Option<Command>,
    steps: usize,
    differences: &[(&str, Value)],
) {
    let Some(ours) = command() else { return };
    let Some(vault) = VaultServer::start_or_env().await else {
        return;
    };
    let Some(theirs) = command() else { return };
    let mount = vault.mount_kv(2).await;
    let folder = tempfile::tempdir().unwrap();
    let token = everything(folder.path());
    let gateway = Program::start(folder.path(), &["--kv-mount", &mount]);

    let on_gateway = story(ours, &mount, &gateway.base, &token);
    // A root token cannot be renewed.
    let theirs_token = vault.create_token(&["root"], "1h").await;
    let on_vault = story(theirs, &mount, vault.address(), &theirs_token);
    assert_eq!(on_vault.len(), steps, "{on_vault:#?}");
    let titles = |story: &[(String, Value)]| -> Vec<String> {
        story.iter().map(|(title, _)| title.clone()).collect()
    };
    assert_eq!(titles(&on_gateway), titles(&on_vault));
    let differing: Vec<(&str, Value)> = on_gateway
        .iter()
        .zip(&on_vault)
        .filter(|(ours, theirs)| ours != theirs)
        .map(|((title, seen), _)| (title.as_str(), seen.clone()))
        .collect();
    assert_eq!(differing, differences, "on Vault: {on_vault:#?}");
}

/// The client that Airbyte uses.
#[tokio::test]
async fn the_java_driver_sees_a_vault() {
    let command = || {
        let mut java = Client::Java.command()?;
        java.arg(Client::Java.story("Story.java"));
        Some(java)
    };
    same_story(
        command,
        17,
        &[
            ("write the equal value", json!([200, "1"])),
            ("write another value", json!([400, "none"])),
        ],
    )
    .await;
}

#[tokio::test]
async fn hvac_sees_a_vault() {
    let command = || {
        let mut python = Client::Python.command()?;
        python.arg(Client::Python.story("story.py"));
        Some(python)
    };
    same_story(
        command,
        30,
        &[
            ("write the equal value", json!(1)),
            ("write another value", json!("InvalidRequest")),
            ("patch", json!("InvalidRequest")),
        ],
    )
    .await;
}

#[tokio::test]
async fn vaults_go_client_sees_a_vault() {
    same_story(
        || Client::Go.command(),
        22,
        &[
            ("write another value", json!("status 400")),
            // This client takes Vault's answer for a version whose value can come back for a success.
            ("read deleted", json!("not found")),
        ],
    )
    .await;
}

#[tokio::test]
async fn node_vault_sees_a_vault() {
    let command = || {
        let mut node = Client::Node.command()?;
        node.arg(Client::Node.story("story.js"));
        Some(node)
    };
    same_story(command, 20, &[("write another value", json!("status 400"))]).await;
}

/// What OpenBao's command line answers: its exit status, and what of its output has to be the same.
fn command_lines(
    command: Command,
    mount: &str,
    address: &str,
    token: &str,
) -> Vec<(String, Value)> {
    let program = command.get_program().to_owned();
    let home = tempfile::tempdir().unwrap();
    let [name, other, missing] = names();
    let value = format!("-field=value {name}");
    [
        ("status -format=json", "/sealed"),
        ("token lookup -format=json", "/data/type"),
        ("token renew -format=json", "/auth/renewable"),
        (&format!("kv get {missing}"), ""),
        ("kv list -format=json", ""),
        (
            &format!("kv put -format=json -cas=0 {name} value=hunter2"),
            "/data/version",
        ),
        (&format!("kv get {value}"), ""),
        (
            &format!("kv put -format=json -cas=0 {name} value=hunter2"),
            "",
        ),
        (
            &format!("kv put -format=json {other} value=x"),
            "/data/version",
        ),
        (
            &format!("kv put -format=json {other} value=y"),
            "/data/version",
        ),
        ("kv list -format=json", ""),
        (
            &format!("kv metadata get -format=json {name}"),
            "/data/current_version",
        ),
        (&format!("kv delete {name}"), ""),
        (&format!("kv get {name}"), ""),
        (&format!("kv undelete -versions=1 {name}"), ""),
        (&format!("kv get {value}"), ""),
        (&format!("kv metadata delete {name}"), ""),
        (&format!("kv metadata delete {other}"), ""),
        ("kv list -format=json", ""),
    ]
    .into_iter()
    .map(|(line, member)| {
        let mut words = line.split(' ');
        let mut run = Command::new(&program);
        let (first, second) = (words.next().unwrap(), words.next().unwrap());
        run.arg(first).arg(second);
        let mut words = words.peekable();
        if second == "metadata" {
            run.arg(words.next().unwrap());
        }
        if first == "kv" {
            run.arg(format!("-mount={mount}"));
        }
        let output = run
            .args(words)
            .env_clear()
            .env("HOME", home.path())
            .env("BAO_ADDR", address)
            .env("BAO_TOKEN", token)
            .env("BAO_MAX_RETRIES", "0")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let parsed: Option<Value> = serde_json::from_str(&text).ok();
        let seen = match parsed {
            Some(json) if !member.is_empty() => json.pointer(member).cloned().unwrap_or_default(),
            // What it prints of a refusal quotes the address.
            _ if !output.status.success() => Value::Null,
            Some(json) => json,
            None => json!(text.trim_end()),
        };
        (line.to_owned(), json!([output.status.code(), seen]))
    })
    .collect()
}

#[tokio::test]
async fn openbaos_command_line_sees_a_vault() {
    let [name, other, _] = names();
    same_story_told_by(
        command_lines,
        || Client::Bao.command(),
        19,
        &[
            ("token renew -format=json", json!([0, false])),
            (
                &format!("kv put -format=json {other} value=y"),
                json!([2, null]),
            ),
            (&format!("kv get {name}"), json!([2, null])),
            // SQLite has no recovery window.
            (&format!("kv undelete -versions=1 {name}"), json!([2, null])),
            (&format!("kv get -field=value {name}"), json!([2, null])),
        ],
    )
    .await;
}
