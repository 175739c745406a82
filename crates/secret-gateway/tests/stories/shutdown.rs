//! A shutdown ends what it began.

use std::time::Duration;

use e2e::{FaultProxy, VaultServer};
use secret_persistence::Timestamp;
use serde_json::{Value, json};

use crate::program::{Program, everything};
use crate::world::name;

#[tokio::test]
async fn requests_under_way_are_answered_and_new_ones_are_not_taken() {
    let Some(vault) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = vault.mount_kv(2).await;
    let proxy = FaultProxy::builder(vault.address()).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let token = everything(folder.path());
    let address = proxy.url().replace("http://", "");
    let store = format!("vault://{address}/{mount}/?tls=off");
    let variables = [
        ("VAULT_AUTH_TOKEN", vault.root_token().to_owned()),
        ("SECRETS_OWNER", "stories".to_owned()),
    ];
    let start = || Program::start_with(folder.path(), &["--store", &store], &variables);
    let gateway = start();
    proxy.set_delay(Duration::from_millis(700));
    let before = proxy.total();
    let write = |secret: u128| {
        reqwest::Client::new()
            .post(format!(
                "{}/v1/secret/data/{}",
                gateway.base,
                name(1, secret)
            ))
            .header("x-vault-token", &token)
            .body(json!({"data": {"value": "kept"}}).to_string())
            .send()
    };
    let under_way: Vec<_> = (0..5).map(|secret| tokio::spawn(write(secret))).collect();
    // Its caller is gone before it is written, and it is written all the same.
    let gone = tokio::spawn(write(5));
    // All six are under way once the store has a request of each.
    let all_six = async {
        while proxy.total() < before + 6 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_six)
        .await
        .expect("the gateway accepts six requests");
    assert!(!gone.is_finished(), "the store is slow");
    gone.abort();
    gateway.terminate();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(write(6).await.is_err(), "it takes no new connections");
    for sent in under_way {
        assert_eq!(sent.await.unwrap().unwrap().status(), 200);
    }
    let began = Timestamp::now();
    assert!(gateway.wait().success());
    assert!(Timestamp::now().unix_seconds() - began.unix_seconds() < 25);

    proxy.set_delay(Duration::ZERO);
    let gateway = start();
    for secret in 0..6 {
        let read = reqwest::Client::new()
            .get(format!(
                "{}/v1/secret/data/{}",
                gateway.base,
                name(1, secret)
            ))
            .header("x-vault-token", &token)
            .send()
            .await
            .unwrap();
        let read: Value = serde_json::from_str(&read.text().await.unwrap()).unwrap();
        assert_eq!(read["data"]["data"]["value"], "kept", "{secret}");
    }
}
