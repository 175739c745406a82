//! The program itself: TLS, client certificates, signals, and what is true after a kill.

use std::process::Command;
use std::time::Duration;

use secret_gateway::{Grant, Role, TokenFile};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::program::{Program, token};
use crate::world::{name, specification, workspace};

/// What a caller was told is true, wherever the process is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_is_true_after_every_kill() {
    let folder = tempfile::tempdir().unwrap();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let mut told: Vec<(String, String)> = Vec::new();
    let mut saved: Vec<Value> = Vec::new();
    for round in 0..10_u32 {
        let process = Program::start(folder.path(), &[]);
        let (write, change) = (
            token(folder.path(), "kv-write"),
            token(folder.path(), "change"),
        );
        let base = process.base.clone();
        let kv = {
            let (client, base, write) = (client.clone(), base.clone(), write.clone());
            tokio::spawn(async move {
                let mut told = Vec::new();
                for secret in 0.. {
                    let name = name(1, u128::from(round) * 1_000_000 + secret);
                    let value = format!("canary-value-{}", Uuid::new_v4());
                    let sent = client
                        .post(format!("{base}/v1/secret/data/{name}"))
                        .header("x-vault-token", &write)
                        .body(json!({"data": {"value": value}}).to_string())
                        .send()
                        .await;
                    match sent {
                        Ok(answer) if answer.status().is_success() => told.push((name, value)),
                        _ => break,
                    }
                }
                told
            })
        };
        let changes = {
            let (client, base) = (client.clone(), base.clone());
            tokio::spawn(async move {
                let mut saved = Vec::new();
                loop {
                    let body = json!({
                        "kind": "create", "specification": specification(), "scope": workspace(2),
                        "edited": {"host": "h", "password": format!("canary-value-{}", Uuid::new_v4())},
                    });
                    let sent = client
                        .post(format!("{base}/api/v1/changes"))
                        .header("x-vault-token", &change)
                        .header("content-type", "application/json")
                        .header("idempotency-key", Uuid::new_v4().to_string())
                        .body(body.to_string())
                        .send()
                        .await;
                    let Ok(answer) = sent else { break };
                    let Ok(text) = answer.text().await else { break };
                    let made: Value = serde_json::from_str(&text).unwrap();
                    if made["state"] != "open" {
                        break;
                    }
                    // The row is saved; whether the commit arrives is the kill's to say.
                    saved.push(made.clone());
                    let path = format!(
                        "{base}/api/v1/changes/{}/commit",
                        made["id"].as_str().unwrap()
                    );
                    if client
                        .post(path)
                        .header("x-vault-token", &change)
                        .send()
                        .await
                        .is_err()
                    {
                        break;
                    }
                }
                saved
            })
        };
        tokio::time::sleep(Duration::from_millis(150 + u64::from(round) * 37)).await;
        process.kill();
        told.extend(kv.await.unwrap());
        saved.extend(changes.await.unwrap());
    }
    assert!(
        told.len() > 10 && saved.len() > 5,
        "{} {}",
        told.len(),
        saved.len()
    );

    let process = Program::start(folder.path(), &[]);
    let read = token(folder.path(), "kv-read");
    for (name, value) in &told {
        let answer = client
            .get(format!("{}/v1/secret/data/{name}", process.base))
            .header("x-vault-token", &read)
            .send()
            .await
            .unwrap();
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(body["data"]["data"]["value"], value.as_str());
    }
    // The callers' settle loop: what is open is settled by the row.
    let change = token(folder.path(), "change");
    let post = |path: String, token: String, body: Value| {
        let client = client.clone();
        async move {
            let sent = client
                .post(path)
                .header("x-vault-token", token)
                .header("content-type", "application/json")
                .body(body.to_string());
            let answer = sent.send().await.unwrap();
            serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap()
        }
    };
    let open = client
        .get(format!(
            "{}/api/v1/changes?state=open&limit=500",
            process.base
        ))
        .header("x-vault-token", &change)
        .send()
        .await
        .unwrap();
    let open: Value = serde_json::from_str(&open.text().await.unwrap()).unwrap();
    for left in open["changes"].as_array().unwrap() {
        let row = saved
            .iter()
            .find(|saved| saved["id"] == left["id"])
            .map(|saved| saved["configuration"].clone());
        let path = format!(
            "{}/api/v1/changes/{}/settle",
            process.base,
            left["id"].as_str().unwrap()
        );
        let settled = post(path, change.clone(), json!({"current": row})).await;
        let expected = if row.is_some() {
            "committed"
        } else {
            "aborted"
        };
        assert_eq!(settled["state"], expected, "{settled}");
    }
    // No saved configuration points at nothing.
    let rows: Vec<&Value> = saved.iter().map(|saved| &saved["configuration"]).collect();
    for rows in rows.chunks(500) {
        let path = format!("{}/api/v1/hydrate", process.base);
        let full = post(
            path,
            token(folder.path(), "hydrate"),
            json!({"configurations": rows}),
        )
        .await;
        for answer in full["configurations"].as_array().unwrap() {
            assert!(
                answer["configuration"]["password"]
                    .as_str()
                    .unwrap()
                    .starts_with("canary-value-"),
                "{answer}"
            );
        }
    }
    // No orphan is left: what the store has is what was told, or is named by a saved row, or was being
    // written by a KV caller that was not told.
    let deadline = std::time::Instant::now() + Duration::from_secs(40);
    let wanted: std::collections::BTreeSet<String> = saved
        .iter()
        .map(|saved| {
            saved["writes"][0]["coordinate"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let prefix = format!("airbyte_workspace_{}_", Uuid::from_u128(2));
    loop {
        let listed = client
            .get(format!("{}/v1/secret/metadata?list=true", process.base))
            .header("x-vault-token", &read)
            .send()
            .await
            .unwrap();
        let listed: Value = serde_json::from_str(&listed.text().await.unwrap()).unwrap();
        let found: std::collections::BTreeSet<String> = listed["data"]["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key.as_str().unwrap().to_owned())
            .filter(|key| key.starts_with(&prefix))
            .collect();
        if found == wanted {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{:?}",
            found.symmetric_difference(&wanted)
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // No value and no token shows in what was logged.
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("secret_gateway::access"));
    for secret in ["canary-value-", "sgw_"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn tls_serves_tokens_and_client_certificates_of_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = parameters.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::from_params(&parameters, &authority);
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        (
            certificate.pem(),
            key.serialize_pem(),
            certificate.der().to_vec(),
        )
    };
    let (server, client) = (issue("localhost"), issue("pod"));
    std::fs::write(file("ca.pem"), ca.pem()).unwrap();
    std::fs::write(file("server.pem"), &server.0).unwrap();
    std::fs::write(file("server.key"), &server.1).unwrap();
    let paths: Vec<String> = ["server.pem", "server.key", "ca.pem"]
        .iter()
        .map(|name| file(name).display().to_string())
        .collect();
    let flags = [
        "--tls-cert-file",
        &paths[0],
        "--tls-key-file",
        &paths[1],
        "--client-ca-file",
        &paths[2],
    ];
    let process = Program::start(folder.path(), &flags);
    assert!(process.base.starts_with("https://127.0.0.1:"));
    let url = process.base.replace("127.0.0.1", "localhost") + "/v1/auth/token/lookup-self";
    let trusting = || {
        reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(ca.pem().as_bytes()).unwrap()])
    };
    let plain = trusting().build().unwrap();
    assert_eq!(plain.get(&url).send().await.unwrap().status(), 403);
    let with_token = plain
        .get(&url)
        .header("x-vault-token", token(folder.path(), "kv-read"))
        .send()
        .await
        .unwrap();
    assert_eq!(with_token.status(), 200);
    assert!(
        with_token
            .headers()
            .contains_key("strict-transport-security")
    );

    let identity =
        reqwest::Identity::from_pem(format!("{}{}", client.0, client.1).as_bytes()).unwrap();
    let certified = trusting().identity(identity).build().unwrap();
    assert_eq!(
        certified.get(&url).send().await.unwrap().status(),
        403,
        "of the authority, but nobody's"
    );
    let tokens = TokenFile::new(folder.path().join("data/tokens.json"));
    tokens
        .add_certificate(&Grant::new("pod", [Role::KvRead]), &client.2)
        .unwrap();
    let answer = certified.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(body["data"]["display_name"], "pod");

    // Of another authority: the handshake fails.
    let key = rcgen::KeyPair::generate().unwrap();
    let stranger = rcgen::CertificateParams::new(vec!["pod".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let identity = reqwest::Identity::from_pem(
        format!("{}{}", stranger.pem(), key.serialize_pem()).as_bytes(),
    )
    .unwrap();
    let stranger = trusting().identity(identity).build().unwrap();
    assert!(stranger.get(&url).send().await.is_err());
}

/// Behind a proxy it serves plain HTTP, and says so at every start.
#[tokio::test]
async fn behind_a_proxy_it_warns_at_every_start() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--listen", "0.0.0.0:0", "--behind-proxy", "true"];
    let flags = [&flags[..], &["--allowed-hosts", "gateway.example"]].concat();
    for start in 1..=2 {
        let gateway = Program::start(folder.path(), &flags);
        let url = gateway.base.replace("0.0.0.0", "127.0.0.1");
        let live = reqwest::get(format!("{url}/health/live")).await.unwrap();
        assert_eq!(live.status(), 200);
        let other = reqwest::get(format!("{url}/v1/sys/health")).await.unwrap();
        assert_eq!(other.status(), 421, "only for its name");
        let warnings = crate::program::log_of(folder.path());
        let warnings = warnings.matches("behind-proxy: serving plain HTTP").count();
        assert_eq!(warnings, start);
    }
}

#[test]
fn beyond_loopback_plain_http_is_refused_and_tokens_are_managed() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_secret-gateway"))
            .args(arguments)
            .args(["--data-folder", folder.path().to_str().unwrap()])
            .env_clear()
            .output()
            .unwrap()
    };
    let refused = run(&["--listen", "0.0.0.0:0"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("behind-proxy"));

    let made = run(&[
        "token",
        "create",
        "--name",
        "pod",
        "--role",
        "kv-read,kv-write",
        "--workspace",
        "00000000-0000-4000-8000-000000000001",
    ]);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let token = String::from_utf8(made.stdout).unwrap();
    assert!(token.starts_with("sgw_"));
    let listed = run(&["token", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("pod\troles kv-read,kv-write\tbound to workspace 00000000")
            && !listed.contains(token.trim()),
        "{listed}"
    );
    assert!(
        !run(&["token", "create", "--name", "pod", "--role", "operate"])
            .status
            .success()
    );
    assert!(
        !run(&["token", "create", "--name", "x", "--role", "root"])
            .status
            .success()
    );
    assert!(run(&["token", "revoke", "--name", "pod"]).status.success());
    assert!(!run(&["token", "revoke", "--name", "pod"]).status.success());
}

/// A deployment that requires the module must not run an image without it.
#[tokio::test]
async fn a_build_without_the_fips_module_does_not_start_where_it_is_required() {
    let folder = tempfile::tempdir().unwrap();
    let required = [("SECRETS_FIPS", "required".to_owned())];
    assert!(Program::try_start(folder.path(), &[], &required).is_none());
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("`SECRETS_FIPS=required`"), "{log}");
    assert!(log.contains("scripts/fips"), "{log}");
}

/// For a platform that is not Airbyte, whose names the gateway must not confuse with Airbyte's.
#[tokio::test]
async fn the_process_follows_a_prefix_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = |text: &str| [("SECRETS_MANAGED_PREFIX", text.to_owned())];
    assert!(Program::try_start(folder.path(), &[], &prefix("Acme")).is_none());
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("SECRETS_MANAGED_PREFIX"), "{log}");

    let process = Program::start_with(folder.path(), &[], &prefix("acme_"));
    let write = token(folder.path(), "kv-write");
    let client = reqwest::Client::new();
    let airbytes = name(1, 1);
    let ours = airbytes.replacen("airbyte_", "acme_", 1);
    for (name, expected) in [(&ours, 200), (&airbytes, 400)] {
        let sent = client
            .post(format!("{}/v1/secret/data/{name}", process.base))
            .header("x-vault-token", &write)
            .body(json!({"data": {"value": "canary-value"}}).to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), expected, "{name}");
    }
    let read = token(folder.path(), "kv-read");
    let answer = client
        .get(format!("{}/v1/secret/data/{ours}", process.base))
        .header("x-vault-token", &read)
        .send()
        .await
        .unwrap();
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(body["data"]["data"]["value"], "canary-value");
}
