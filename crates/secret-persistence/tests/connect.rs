//! Layers by settings, over SQLite.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use secret_persistence::{
    Environment, ErrorKind, ManagedCoordinate, Result, SecretPersistence, SecretPersistenceExt,
    SecretValue, Settings, Write, connect,
};

fn url(path: &Path, query: &str) -> String {
    format!("sqlite://{}?mode=plain&{query}", path.display())
}

async fn open(path: &Path, query: &str) -> Result<Arc<dyn SecretPersistence>> {
    connect(Settings::from_url(
        &url(path, query),
        &Environment::empty(),
    )?)
    .await
}

fn write() -> Write {
    let coordinate = ManagedCoordinate::parse("airbyte_workspace_1_secret_2_v1").unwrap();
    Write::new(coordinate, SecretValue::new("hunter2".to_owned()))
}

#[tokio::test]
async fn settings_switch_each_layer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let bare = open(&path, "metrics=false&retry=false")
        .await
        .unwrap()
        .to_string();
    for (query, around) in [
        ("", "metrics(retry(timeout(STORE)))"),
        ("metrics=false", "retry(timeout(STORE))"),
        ("retry=false&cache=true", "metrics(cache(STORE))"),
        (
            "limit=true&read-only=true&metrics=false",
            "read_only(retry(limit(timeout(STORE))))",
        ),
        (
            "limit-reads-per-second=5&retry=false",
            "metrics(limit(STORE))",
        ),
    ] {
        let store = open(&path, query).await.unwrap();
        assert_eq!(
            format!("{store:#}"),
            around.replace("STORE", &bare),
            "{query}"
        );
        assert_eq!(store.to_string(), bare, "{query}");
    }
    for wrong in [
        "cache=yes",
        "cach=true",
        "replicas=0",
        "limit-share=2",
        "owner=Capital",
    ] {
        let error = open(&path, wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{wrong}");
    }
}

#[tokio::test]
async fn a_mirror_keeps_a_second_store_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.db"), folder.path().join("new.db"));
    let environment = Environment::from_iter([
        ("SECRETS_MIRROR", url(&new, "cache=true")),
        ("SECRETS_OWNER", String::from("here")),
    ]);
    let settings = Settings::from_url(&url(&old, ""), &environment).unwrap();
    let store = connect(settings).await.unwrap();
    assert!(format!("{store:#}").contains("mirror(retry("), "{store:#}");
    store.write(write()).await.unwrap();
    for path in [&old, &new] {
        let store = open(path, "").await.unwrap();
        let coordinate = write().coordinate;
        assert_eq!(
            store.read(&coordinate.clone().into()).await.unwrap().value,
            write().value
        );
        assert_eq!(
            store.describe(&coordinate).await.unwrap().owner.as_deref(),
            Some("here")
        );
    }
}

#[test]
fn a_misspelt_layer_is_named_beside_a_misspelt_setting_of_the_store() {
    for (query, meant) in [("cach=true", "`cache`"), ("tabel=x", "`table`")] {
        let error = Settings::from_url(&format!("sqlite:///a?{query}"), &Environment::empty());
        let error = error.unwrap_err();
        assert!(error.hint().unwrap().contains(meant), "{error}");
    }
}

#[test]
fn the_database_of_shared_rates_is_a_credential() {
    let url = "postgres://rates:canary@db.example/platform";
    let name = "SECRETS_LIMIT_SHARED";
    let of = |query: &str, variable: &str| {
        let environment = Environment::from_iter([(name, variable)]);
        Settings::from_url(&format!("sqlite:///a?mode=plain{query}"), &environment)
    };
    let settings = of("", url).unwrap();
    settings.check().unwrap();
    assert!(!format!("{settings:?}").contains("canary"));
    assert_eq!(settings.common().text("limit-shared"), None);
    // Not in a URL, and only one that can be used.
    let encoded = url.replace(':', "%3A").replace('/', "%2F");
    let error = of(&format!("&limit-shared={encoded}"), "").unwrap_err();
    assert!(error.hint().unwrap().contains(name), "{error}");
    for wrong in [
        "mysql://rates:canary@db.example/platform",
        "postgres://rates:canary@db.example",
    ] {
        let error = of("", wrong).unwrap().check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.message().contains(name), "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
    let error = of("&limit=false", url).unwrap().check().unwrap_err();
    assert!(error.message().contains(name), "{error}");
}

#[tokio::test]
async fn without_the_database_of_shared_rates_requests_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let shared = format!("postgres://u:p@{}/none", closed.local_addr().unwrap());
    drop(closed);
    let environment = Environment::from_iter([("SECRETS_LIMIT_SHARED", shared)]);
    let settings = Settings::from_url(&url(&folder.path().join("a.db"), ""), &environment);
    let store = connect(settings.unwrap()).await.unwrap();
    assert!(format!("{store:#}").contains("limit("), "{store:#}");
    store.write(write()).await.unwrap();
}

/// Otherwise each replica would use the whole share of the second store's quota.
#[test]
fn replicas_divide_the_quota_of_the_second_store_too() {
    let replicas = |mirror: &str| {
        let url = format!("sqlite:///a?mode=plain&replicas=5&mirror={mirror}");
        let settings = Settings::from_url(&url, &Environment::empty()).unwrap();
        let mirror = settings.mirror().unwrap();
        mirror.common().text("replicas").map(str::to_owned)
    };
    assert_eq!(replicas("sqlite:///b").as_deref(), Some("5"));
    let own = replicas("sqlite:///b%3Freplicas%3D2");
    assert_eq!(own.as_deref(), Some("2"));
}

#[tokio::test]
async fn what_stands_around_both_stores_is_no_setting_of_the_mirror() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    for query in ["read-only=true", "mirror=aws://eu-west-1", "owner=other"] {
        let environment = Environment::from_iter([("SECRETS_MIRROR", url(&path, query))]);
        let error = Settings::from_url(&url(&path, ""), &environment).unwrap_err();
        assert!(error.message().contains("both stores"), "{query}: {error}");
    }
}

#[tokio::test]
async fn a_read_only_store_refuses_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("s.db"), "read-only=true")
        .await
        .unwrap();
    let error = store.write(write()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

/// An operator of OpenBao looks for its name.
#[test]
fn a_url_of_openbao_says_what_to_write() {
    for scheme in ["openbao", "bao", "hashicorp"] {
        let url = format!("{scheme}://bao.example:8200/secret/airbyte/");
        let error = Settings::from_url(&url, &Environment::empty()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        let hint = error.hint().unwrap_or_default();
        assert!(
            hint.contains("OpenBao") && hint.contains("vault://"),
            "{error}"
        );
    }
}
