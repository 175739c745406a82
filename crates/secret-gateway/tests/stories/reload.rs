//! What is read again when it changes: further stores, the certificate.

use std::time::{Duration, SystemTime};

use e2e::VaultServer;
use secret_persistence::Environment;
use serde_json::{Value, json};

use crate::program::{Program, everything};
use crate::world::{ask, name, texts};

#[tokio::test]
async fn further_stores_are_those_of_the_file_as_it_is() {
    let Some(vault) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = vault.mount_kv(2).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("storages.json");
    let secret = name(1, 1);
    let storage = json!({
        "address": vault.address(), "prefix": format!("{mount}/"), "token": {"_secret": secret},
    });
    std::fs::write(&file, json!({"tenant": storage}).to_string()).unwrap();
    let settings = texts(folder.path(), &[("storages-file", file.to_str().unwrap())]);
    let started = secret_gateway::start(settings.parse().unwrap(), &Environment::empty(), None)
        .await
        .unwrap();
    let router = secret_gateway::router(started.gateway);
    let token =
        |role: &str| std::fs::read_to_string(folder.path().join(format!("token-{role}"))).unwrap();
    let call = |role: &str, method: &'static str, path: String, body: Option<Value>| {
        let (router, token) = (router.clone(), token(role));
        async move {
            let headers = [("x-vault-token", token.as_str())];
            ask(
                &router,
                method,
                &path,
                &headers,
                body.map(|body| body.to_string()),
            )
            .await
        }
    };
    // Its credential is a secret of the default store.
    let credential = json!({"data": {"value": vault.root_token()}});
    call(
        "kv-write",
        "POST",
        format!("/v1/secret/data/{secret}"),
        Some(credential),
    )
    .await
    .expect(200);
    // Somebody's value in the other store.
    let value = json!({"data": {"value": "of the tenant"}});
    vault
        .request(
            "POST",
            &format!("{mount}/data/{}", name(1, 2)),
            Some(&value),
        )
        .await
        .expect("write");
    let pointing = |id: &str| {
        json!({"configurations": [
            {"password": {"_secret": name(1, 2), "_secret_storage_id": id}},
        ]})
    };
    let hydrate = |id: &str| {
        call(
            "hydrate",
            "POST",
            "/api/v1/hydrate".to_owned(),
            Some(pointing(id)),
        )
    };
    let full = hydrate("tenant").await.expect(200);
    assert_eq!(
        full["configurations"][0]["configuration"]["password"], "of the tenant",
        "{full}"
    );
    let unknown = hydrate("other").await.expect(200);
    assert!(
        unknown["configurations"][0]["problem"].is_object(),
        "{unknown}"
    );
    let check = |id: &str| {
        call(
            "operate",
            "POST",
            format!("/api/v1/stores/{id}/check"),
            None,
        )
    };
    assert_eq!(check("tenant").await.expect(200)["works"], true);
    check("other").await.expect_kind(404, "not_found");

    // The file changes, and with it what there is.
    std::fs::write(
        &file,
        json!({"tenant": storage, "other": storage}).to_string(),
    )
    .unwrap();
    let later = SystemTime::now() + Duration::from_secs(5);
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(later)
        .unwrap();
    let full = hydrate("other").await.expect(200);
    assert_eq!(
        full["configurations"][0]["configuration"]["password"], "of the tenant",
        "{full}"
    );
    assert_eq!(check("other").await.expect(200)["works"], true);
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let _token = everything(folder.path());
    let (chain, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let issue = || {
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
            .unwrap()
            .self_signed(&pair)
            .unwrap();
        std::fs::write(&chain, certificate.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        let trusted = reqwest::Certificate::from_pem(certificate.pem().as_bytes()).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([trusted])
            .build()
            .unwrap()
    };
    let first = issue();
    let paths = [chain.display().to_string(), key.display().to_string()];
    let flags = ["--tls-cert-file", &paths[0], "--tls-key-file", &paths[1]];
    let gateway = Program::start(folder.path(), &flags);
    let url = gateway.base.replace("127.0.0.1", "localhost") + "/health/live";
    assert_eq!(first.get(&url).send().await.unwrap().status(), 200);

    // A broken renewal changes nothing; the next look finds both files.
    std::fs::write(&chain, "half a file").unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(first.get(&url).send().await.unwrap().status(), 200);
    let second = issue();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while second.get(&url).send().await.is_err() {
        assert!(
            std::time::Instant::now() < deadline,
            "the old certificate is still served"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
