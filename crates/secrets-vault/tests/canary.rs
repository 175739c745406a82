//! No output contains a value or a credential: errors, Debug, logs of every target at TRACE.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

mod support;

use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex};

use base64::engine::{Engine as _, general_purpose::STANDARD};
use e2e::Canaries;
use secret_persistence_core::{
    Coordinate, ManagedCoordinate, SecretPersistence, SecretPersistenceExt, SecretValue, Write,
};
use serde_json::json;
use support::{Admin, Fake, Seen, looked_up, open, reply};
use tracing_subscriber::fmt::MakeWriter;

/// Several lines, each searched for, with characters that JSON and URLs escape.
const VALUE: &str = "canary-first \"line\"\ncanary-second/line+&\ncanary-third\ttab";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn nothing_that_is_printed_shows_a_secret() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .finish();
    // Includes events of the `log` crate, which reqwest and hyper use.
    let _ = tracing_log();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let mut printed = String::new();
    let mut show = |what: &dyn std::fmt::Debug| printed.push_str(&format!("{what:?} {what:#?}\n"));
    let mut credentials = vec![];

    let hcl = r#"path "*" { capabilities = ["create", "read", "update", "delete", "list"] }"#;
    let token = admin.token(hcl, "1h").await;
    credentials.push(token.clone());
    let name = ManagedCoordinate::parse("airbyte_w_secret_x_v1").unwrap();
    for version in [1, 2] {
        let prefix = format!("{}/", admin.mount(version).await);
        let settings = [("prefix", prefix.as_str()), ("token", &token)];
        let store = admin.open(&settings).await.unwrap();
        let write = Write::new(name.clone(), SecretValue::new(VALUE.into()));
        show(&write);
        show(&store.write(write.clone()).await);
        show(&store.write(write).await);
        show(
            &store
                .write(Write::new(
                    name.clone(),
                    SecretValue::new("canary-second".into()),
                ))
                .await,
        );
        show(
            &store
                .write(Write::new(
                    name.clone(),
                    SecretValue::new("canary-third".repeat(100_000)),
                ))
                .await,
        );
        show(&store.read(&name.clone().into()).await);
        show(&store.describe(&name).await);
        show(&store.list_page(&Default::default(), None).await);
        show(&store.identity().await);
        show(&store.check(&Default::default()).await);
        show(&store.delete(&name, &Default::default()).await);
        show(&store);
    }
    // Every refused login, and responses that are cut or malformed.
    for (method, secret, more) in [
        ("approle", "secret-id", ("role-id", "role")),
        ("jwt", "jwt", ("role", "role")),
        ("token", "token", ("prefix", "secret/")),
    ] {
        let canary = format!("credential-canary-{method}");
        let settings = [("auth-method", method), (secret, canary.as_str()), more];
        let error = admin.open(&settings).await.unwrap_err();
        show(&error);
        let mut cause = error.source();
        while let Some(deeper) = cause {
            show(&format!("{deeper} {deeper:?}"));
            cause = deeper.source();
        }
        credentials.push(canary);
    }
    let broken = Fake::start(|seen: &Seen| match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => looked_up(),
        path if path.ends_with("cut") => (
            200,
            "X-Canary: 1\r\n".into(),
            json!({"data": VALUE}).to_string(),
        ),
        _ => reply(500, json!({"errors": [VALUE]})),
    })
    .await;
    let store = open(&broken.address, &[("token", &token), ("kv-version", "2")])
        .await
        .unwrap();
    for external in ["cut", "failed"] {
        let error = store
            .read(&Coordinate::parse(external).unwrap())
            .await
            .unwrap_err();
        show(&error);
        show(&error.to_string());
    }
    // A server that repeats the request in its warnings, unchanged and encoded.
    let echo = Fake::start(|seen: &Seen| match seen.path.as_str() {
        "/v1/auth/approle/login" => {
            let auth = json!({"client_token": "credential-canary-issued", "lease_duration": 0,
                "renewable": false});
            let warnings = [
                seen.body.as_str(),
                &STANDARD.encode(&seen.body),
                &auth.to_string(),
            ];
            reply(200, json!({"auth": auth, "warnings": warnings}))
        }
        path if path.contains("/metadata/") && seen.method == "GET" => {
            reply(404, json!({"errors": []}))
        }
        path if path.contains("/metadata/") => {
            reply(200, json!({"warnings": ["a remark on metadata"]}))
        }
        _ => {
            let warnings = [seen.body.as_str(), &STANDARD.encode(&seen.body), VALUE];
            reply(200, json!({"data": {"version": 1}, "warnings": warnings}))
        }
    })
    .await;
    let settings = [
        ("auth-method", "approle"),
        ("role-id", "role"),
        ("secret-id", "credential-canary-warned"),
        ("kv-version", "2"),
        ("owner", "tests"),
    ];
    let store = open(&echo.address, &settings).await.unwrap();
    show(
        &store
            .write(Write::new(name, SecretValue::new(VALUE.into())))
            .await,
    );
    credentials.push("credential-canary-warned".into());
    credentials.push("credential-canary-issued".into());
    admin
        .must("POST", "auth/token/revoke", json!({"token": token}))
        .await;

    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(
        logged.len() > 1000,
        "nothing was logged, so nothing was proved:\n{logged}"
    );
    let warnings = |text: &str| logged.matches(text).count();
    assert_eq!(
        warnings("a remark on metadata"),
        1,
        "Vault's warnings are logged"
    );
    assert_eq!(
        warnings("the text is withheld"),
        2,
        "but not what may repeat a secret"
    );
    let mut canaries = Canaries::default();
    canaries.add(VALUE);
    for credential in credentials {
        canaries.add(&credential);
    }
    canaries.expect_none_in(printed.as_bytes(), "errors and Debug");
    canaries.expect_none_in(logged.as_bytes(), "the logs");
}

/// Forwards the `log` crate's records to `tracing`.
fn tracing_log() -> Result<(), Box<dyn std::error::Error>> {
    Ok(tracing_log::LogTracer::init()?)
}
