//! After a login, the mount is looked up concurrently with the first operation: what is guessed,
//! and what never is.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use secret_persistence_core::{
    Coordinate, ErrorKind, Expiry, ManagedCoordinate, SecretPersistence, SecretPersistenceExt,
    SecretValue, Write, Written,
};
use secret_persistence_vault::Vault;
use serde_json::{Value, json};
use support::{Fake, Reply, Seen, open, reply};

const LOGIN: [(&str, &str); 3] = [
    ("auth-method", "approle"),
    ("role-id", "role"),
    ("secret-id", "secret"),
];

const ASKED: &str = "/v1/sys/internal/ui/mounts/secret";

fn login() -> Reply {
    let auth = json!({"client_token": "t", "lease_duration": 3600, "renewable": true});
    reply(200, json!({"auth": auth}))
}

fn mount(path: &str, version: &str) -> Reply {
    let data = json!({"path": path, "type": "kv", "options": {"version": version}});
    reply(200, json!({"data": data}))
}

fn two(value: &str) -> Reply {
    let data = json!({"data": {"value": value}, "metadata": {}});
    reply(200, json!({"data": data}))
}

fn missing() -> Reply {
    reply(404, json!({"errors": []}))
}

/// A fake Vault that accepts every login, with a store.
async fn answering(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (Fake, Vault) {
    let fake = Fake::start(move |seen| match seen.path.as_str() {
        "/v1/auth/approle/login" => login(),
        _ => answer(seen),
    })
    .await;
    let store = open(&fake.address, &LOGIN).await.unwrap();
    assert_eq!(paths(&fake), ["POST /v1/auth/approle/login"]);
    fake.seen.lock().unwrap().clear();
    (fake, store)
}

/// All requests, sorted.
fn paths(fake: &Fake) -> Vec<String> {
    let seen = fake.seen.lock().unwrap();
    let mut paths: Vec<_> = seen
        .iter()
        .map(|seen| format!("{} {}", seen.method, seen.path))
        .collect();
    paths.sort();
    paths
}

fn name() -> ManagedCoordinate {
    ManagedCoordinate::parse("airbyte_w_secret_x_v1").unwrap()
}

fn managed() -> Coordinate {
    name().into()
}

#[tokio::test]
async fn the_first_read_goes_out_beside_the_question() {
    let (fake, store) = answering(|seen| match seen.path.as_str() {
        ASKED => mount("secret/", "2"),
        "/v1/secret/data/airbyte_w_secret_x_v1" => two("value"),
        _ => missing(),
    })
    .await;
    assert_eq!(store.capabilities().cost.read, 3);
    assert_eq!(
        store.read(&managed()).await.unwrap().value.expose(),
        "value"
    );
    let read = "GET /v1/secret/data/airbyte_w_secret_x_v1".to_owned();
    assert_eq!(paths(&fake), [read.clone(), format!("GET {ASKED}")]);
    assert_eq!(store.capabilities().cost.read, 1);
    fake.seen.lock().unwrap().clear();
    store.read(&managed()).await.unwrap();
    assert_eq!(paths(&fake), [read], "the mount is asked for once");
}

#[tokio::test]
async fn a_wrong_guess_costs_a_request_and_nothing_else() {
    // With the guess, the path belongs to another secret or is refused; neither may become the
    // result.
    for (joined, at, version, guessed) in [
        ("secret/", "secret/", "1", two("of somebody else")),
        ("secret/", "secret/", "1", reply(403, json!({"errors": []}))),
        ("secret/team/", "secret/team/", "2", two("of somebody else")),
        ("secret/team/", "secret/team/", "1", missing()),
    ] {
        let fake = Fake::start(move |seen| match (seen.path.as_str(), version) {
            ("/v1/auth/approle/login", _) => login(),
            (path, _) if path.starts_with("/v1/sys/internal/ui/mounts/") => mount(at, version),
            (path, "1") if path == format!("/v1/{at}airbyte_w_secret_x_v1") => {
                reply(200, json!({"data": {"value": "ours"}}))
            }
            (path, "2") if path == format!("/v1/{at}data/airbyte_w_secret_x_v1") => two("ours"),
            _ => guessed.clone(),
        })
        .await;
        let settings = [&LOGIN[..], &[("prefix", joined)]].concat();
        let store = open(&fake.address, &settings).await.unwrap();
        for _ in 0..2 {
            assert_eq!(store.read(&managed()).await.unwrap().value.expose(), "ours");
        }
        assert_eq!(fake.seen.lock().unwrap().len(), 5, "{:?}", paths(&fake));
        assert_eq!(
            fake.count("POST", "/login"),
            1,
            "a guess is no reason to log in again"
        );
        assert_eq!(store.capabilities().atomic_create, version == "2");
    }
}

#[tokio::test]
async fn nothing_is_changed_on_a_guess() {
    let (fake, store) = answering(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        (_, ASKED) => mount("secret/", "1"),
        ("POST" | "DELETE", _) => reply(204, Value::Null),
        _ => missing(),
    })
    .await;
    let value = SecretValue::new("value".into());
    store.delete(&name(), &Default::default()).await.unwrap();
    store.write(Write::new(name(), value)).await.unwrap();
    let changes: Vec<_> = paths(&fake)
        .into_iter()
        .filter(|path| !path.starts_with("GET"))
        .collect();
    let expected =
        ["DELETE", "POST"].map(|verb| format!("{verb} /v1/secret/airbyte_w_secret_x_v1"));
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn any_number_of_first_readers_ask_once_and_a_failure_is_not_remembered() {
    let is_sealed = Arc::new(AtomicBool::new(true));
    let sealed = Arc::clone(&is_sealed);
    let (fake, store) = answering(move |seen| match seen.path.as_str() {
        "/v1/sys/seal-status" => reply(200, json!({"initialized": true, "sealed": true})),
        _ if sealed.load(Ordering::Relaxed) => reply(503, json!({"errors": []})),
        ASKED => mount("secret/", "2"),
        _ => two("value"),
    })
    .await;
    let error = store.clone().ready().await.unwrap_err();
    assert!(error.message().contains("sealed"), "{error}");
    let error = store.read(&managed()).await.unwrap_err();
    assert!(error.message().contains("sealed"), "{error}");
    is_sealed.store(false, Ordering::Relaxed);
    fake.seen.lock().unwrap().clear();
    let readers = (0..50).map(|_| async { store.read(&managed()).await.unwrap() });
    futures::future::join_all(readers).await;
    assert_eq!(fake.count("GET", ASKED), 1);
    assert_eq!(fake.seen.lock().unwrap().len(), 51);
}

#[tokio::test]
async fn a_mount_that_is_not_there_fails_the_first_operation_and_waiting_for_it() {
    let (_fake, store) = answering(|_| reply(403, json!({"errors": []}))).await;
    for error in [
        store.read(&managed()).await.unwrap_err(),
        store.identity().await.unwrap_err(),
        store.clone().ready().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.message().contains("mount does not exist"), "{error}");
        assert!(
            error
                .store()
                .is_some_and(|store| store.ends_with("/secret/"))
        );
    }
}

#[tokio::test]
async fn waiting_for_the_mount_makes_capabilities_final() {
    let (fake, store) = answering(|_| mount("secret/", "1")).await;
    assert_eq!(
        store.capabilities().expiry,
        Expiry::Swept,
        "what most mounts keep"
    );
    let store = store.ready().await.unwrap();
    assert_eq!(store.capabilities().expiry, Expiry::None);
    store.ready().await.unwrap();
    assert_eq!(fake.count("GET", ASKED), 1);
}

/// A mount of version 2 has no such name under version 1's paths. Conversely, a value is written
/// where a delete deletes nothing. Neither is reported as missing, and nothing is sent.
#[tokio::test]
async fn a_version_that_is_not_the_mounts_is_refused_before_anything_is_sent() {
    for (told, is) in [("1", "2"), ("2", "1")] {
        let fake = Fake::start(move |seen| match seen.path.as_str() {
            "/v1/auth/approle/login" => login(),
            "/v1/auth/token/lookup-self" => support::looked_up(),
            ASKED => mount("secret/", is),
            _ => reply(204, Value::Null),
        })
        .await;
        let settings = [&LOGIN[..], &[("kv-version", told)]].concat();
        let store = open(&fake.address, &settings).await.unwrap();
        let value = SecretValue::new("value".to_owned());
        let error = store.write(Write::new(name(), value)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("is version {is} of the KV engine")),
            "{text}"
        );
        assert!(text.contains(&format!("set kv-version to {is}")), "{text}");
        let error = store.read(&managed()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert_eq!(fake.count("POST", "airbyte_w_secret_x_v1"), 0);
        // With a token, connecting already fails.
        let settings = [("token", "t"), ("kv-version", told)];
        let error = open(&fake.address, &settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
}

/// A proxy that blocks the lookup, and an outage at the same time.
#[tokio::test]
async fn a_version_that_is_told_stands_where_the_server_does_not_say() {
    for status in [403, 404, 405, 503] {
        let fake = Fake::start(move |seen| match seen.path.as_str() {
            ASKED => reply(status, json!({"errors": ["no"]})),
            "/v1/secret/airbyte_w_secret_x_v1" => reply(200, json!({"data": {"value": "v"}})),
            _ => support::looked_up(),
        })
        .await;
        let settings = [("token", "t"), ("kv-version", "1")];
        let store = open(&fake.address, &settings).await.unwrap();
        let read = store.read(&managed()).await.unwrap();
        assert_eq!(read.value.expose(), "v");
        let again = fake.count("GET", ASKED);
        store.read(&managed()).await.unwrap();
        // It is only looked up again if that may succeed now.
        assert_eq!(fake.count("GET", ASKED) > again, status == 503);
    }
}

/// Every third request is refused, and the write of a value with an owner is three. If each attempt
/// wrote the metadata again, the value would never be written.
#[tokio::test]
async fn an_attempt_does_not_repeat_the_metadata_of_the_one_before() {
    let calls = Arc::new(std::sync::Mutex::new((0, None::<Value>)));
    let fake = Fake::start(move |seen| {
        let mut state = calls.lock().unwrap();
        match seen.path.as_str() {
            "/v1/auth/token/lookup-self" => return support::looked_up(),
            ASKED => return mount("secret/", "2"),
            _ => {}
        }
        state.0 += 1;
        if state.0 % 3 == 0 {
            return reply(429, json!({"errors": []}));
        }
        match (seen.method.as_str(), seen.path.contains("/metadata/")) {
            ("POST", true) => {
                let body: Value = serde_json::from_str(&seen.body).unwrap();
                state.1 = Some(body["custom_metadata"].clone());
                reply(204, Value::Null)
            }
            ("GET", true) => match &state.1 {
                Some(custom) => reply(
                    200,
                    json!({"data": {"current_version": 0, "custom_metadata": custom, "versions": {}}}),
                ),
                None => missing(),
            },
            _ => reply(200, json!({"data": {"version": 1}})),
        }
    })
    .await;
    let settings = [("token", "t"), ("kv-version", "2"), ("owner", "tests")];
    let store = open(&fake.address, &settings).await.unwrap();
    let write = Write::new(name(), SecretValue::new("value".into()));
    let refused = store.write(write.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Throttled);
    assert_eq!(store.write(write.clone()).await.unwrap(), Written::Created);
    assert_eq!(fake.count("POST", "/metadata/airbyte_w_secret_x_v1"), 1);
}

#[tokio::test]
async fn the_metadata_of_another_unfinished_write_gives_way() {
    let fake = Fake::start(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        (_, "/v1/auth/token/lookup-self") => support::looked_up(),
        ("GET", _) => {
            let theirs = json!({"airbyte-owner": "others"});
            let data = json!({"current_version": 0, "custom_metadata": theirs, "versions": {}});
            reply(200, json!({"data": data}))
        }
        _ => reply(200, json!({"data": {"version": 1}})),
    })
    .await;
    let settings = [("token", "t"), ("kv-version", "2"), ("owner", "tests")];
    let store = open(&fake.address, &settings).await.unwrap();
    let write = Write::new(name(), SecretValue::new("value".into()));
    assert_eq!(store.write(write).await.unwrap(), Written::Created);
    let seen = fake.seen.lock().unwrap();
    let metadata = seen
        .iter()
        .find(|seen| seen.method == "POST" && seen.path.contains("/metadata/"));
    let body: Value = serde_json::from_str(&metadata.unwrap().body).unwrap();
    assert_eq!(body, json!({"custom_metadata": {"airbyte-owner": "tests"}}));
}
