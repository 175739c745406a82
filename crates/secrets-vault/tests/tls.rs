//! TLS with a real Vault: trusted authorities, server names, client certificates.

#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod support;

use secret_persistence_core::{ErrorKind, SecretPersistence};
use support::{Admin, open, required};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// An administrator, the address for TLS, and the file of its authority.
fn with_tls() -> Option<(Admin, String, String)> {
    Some((
        Admin::from_env()?,
        required("TEST_VAULT_TLS_ADDR")?,
        required("TEST_VAULT_CA_FILE")?,
    ))
}

#[tokio::test]
async fn a_private_ca_is_trusted_where_it_is_named_and_only_there() {
    let Some((admin, address, ca)) = with_tls() else {
        return;
    };
    let prefix = format!("{}/", admin.mount(2).await);
    let settings = [("prefix", prefix.as_str()), ("token", &admin.token)];
    let store = open(&address, &[&settings[..], &[("ca-file", &ca)]].concat())
        .await
        .unwrap();
    store.identity().await.unwrap();
    let error = open(&address, &settings).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.hint().unwrap().contains("ca-file"), "{error}");
}

/// Go's servers refuse it with a status and a text, others with a TLS alert.
#[tokio::test]
async fn a_port_for_tls_that_is_spoken_to_without_is_called_so() {
    let alert = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("http://{}", alert.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = alert.accept().await {
            let mut request = [0; 64];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 10]).await;
        }
    });
    let error = open(&place, &[("token", "t")]).await.unwrap_err();
    assert!(error.hint().unwrap().contains("https"), "{error}");

    let Some(address) = required("TEST_VAULT_TLS_ADDR") else {
        return;
    };
    let address = address.replacen("https", "http", 1);
    for version in ["auto", "1", "2"] {
        let settings = [("token", "t"), ("kv-version", version)];
        let error = open(&address, &settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.message().contains("TLS"), "{error}");
        assert!(error.hint().unwrap().contains("https"), "{error}");
    }
}

#[tokio::test]
async fn the_certificate_is_checked_against_the_server_name() {
    let Some((admin, address, ca)) = with_tls() else {
        return;
    };
    let prefix = format!("{}/", admin.mount(2).await);
    // Another host, for which the server's certificate is valid too.
    let (_, port) = address.rsplit_once(':').unwrap();
    let address = format!("https://127.0.0.1:{port}");
    let named = async |name: &str| {
        let settings = [
            ("prefix", prefix.as_str()),
            ("token", &admin.token),
            ("ca-file", &ca),
            ("tls-server-name", name),
        ];
        open(&address, &settings).await
    };
    named("vault.test").await.unwrap();
    let error = named("other.test").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.hint().unwrap().contains("tls-server-name"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_set() {
    let (Some(admin), Some(address), Some(ca), Some(cert), Some(key)) = (
        Admin::from_env(),
        required("TEST_VAULT_MTLS_ADDR"),
        required("TEST_VAULT_CA_FILE"),
        required("TEST_VAULT_CLIENT_CERT_FILE"),
        required("TEST_VAULT_CLIENT_KEY_FILE"),
    ) else {
        return;
    };
    let prefix = format!("{}/", admin.mount(2).await);
    let base = [
        ("prefix", prefix.as_str()),
        ("token", &admin.token),
        ("ca-file", &ca),
    ];
    let shown = [
        ("client-cert-file", cert.as_str()),
        ("client-key-file", &key),
    ];
    let store = open(&address, &[&base[..], &shown[..]].concat())
        .await
        .unwrap();
    store.identity().await.unwrap();
    assert_eq!(
        open(&address, &base).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let wrong = [
        ("client-cert-file", cert.as_str()),
        ("client-key-file", ca.as_str()),
    ];
    let error = open(&address, &[&base[..], &wrong[..]].concat())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let missing = open(
        &address,
        &[&base[..2], &[("ca-file", "/nowhere.pem")]].concat(),
    )
    .await;
    assert!(missing.unwrap_err().message().contains("/nowhere.pem"));
}
