//! Behaviour that a real Vault does not show on request: standbys, seals, malformed responses, lost
//! connections.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

mod support;

use std::time::Duration;

use secret_persistence_core::{
    Coordinate, Error, ErrorKind, ManagedCoordinate, SecretPersistence, SecretPersistenceExt,
    SecretValue, Write, Written,
};
use secret_persistence_vault::Vault;
use serde_json::json;
use support::{Fake, Reply, Seen, looked_up, open, reply};

/// A fake Vault with the response `answer` to everything except opening, and a store.
async fn answering(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (Fake, Vault) {
    let fake = Fake::start(move |seen| match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => looked_up(),
        _ => answer(seen),
    })
    .await;
    let store = open(&fake.address, &[("token", "t"), ("kv-version", "2")])
        .await
        .unwrap();
    (fake, store)
}

async fn read(store: &Vault) -> Error {
    store
        .read(&Coordinate::parse("team/db").unwrap())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn every_status_has_its_kind() {
    for (status, kind) in [
        (400, ErrorKind::InvalidConfig),
        (403, ErrorKind::PermissionDenied),
        (404, ErrorKind::NotFound),
        (405, ErrorKind::InvalidConfig),
        (412, ErrorKind::Unavailable),
        (413, ErrorKind::PayloadTooLarge),
        (429, ErrorKind::Throttled),
        (472, ErrorKind::Unavailable),
        (473, ErrorKind::Unavailable),
        (500, ErrorKind::Unavailable),
        (501, ErrorKind::Unavailable),
        (502, ErrorKind::Unavailable),
        (503, ErrorKind::Unavailable),
    ] {
        let (_fake, store) = answering(move |_| reply(status, json!({"errors": []}))).await;
        let error = read(&store).await;
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert!(
            error.hint().is_some()
                && error
                    .store()
                    .is_some_and(|store| store.starts_with("vault"))
        );
    }
}

#[tokio::test]
async fn a_missing_route_is_told_from_a_missing_secret() {
    let (_fake, store) =
        answering(|_| reply(404, json!({"errors": ["no handler for route \"x\""]}))).await;
    assert_eq!(read(&store).await.kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn a_refusal_names_capability_and_path() {
    let (_fake, store) = answering(|_| reply(403, json!({"errors": []}))).await;
    let hint = read(&store).await.hint().unwrap().to_owned();
    assert!(hint.contains("`read` on `secret/data/team/db`"), "{hint}");
    let listed = store
        .list_page(&Default::default(), None)
        .await
        .unwrap_err();
    assert!(
        listed
            .hint()
            .unwrap()
            .contains("`list` on `secret/metadata`"),
        "{listed}"
    );
    let name = ManagedCoordinate::parse("airbyte_w_secret_x_v1").unwrap();
    let deleted = store.delete(&name, &Default::default()).await.unwrap_err();
    let path = "`delete` on `secret/metadata/airbyte_w_secret_x_v1`";
    assert!(deleted.hint().unwrap().contains(path), "{deleted}");
}

#[tokio::test]
async fn the_namespace_goes_with_every_request() {
    let fake = Fake::start(|seen: &Seen| match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => looked_up(),
        _ => reply(
            200,
            json!({"data": {"data": {"value": "v"}, "metadata": {}}}),
        ),
    })
    .await;
    let settings = [("token", "t"), ("kv-version", "2"), ("namespace", "team/a")];
    let store = open(&fake.address, &settings).await.unwrap();
    store
        .read(&Coordinate::parse("team/db").unwrap())
        .await
        .unwrap();
    let seen = fake.seen.lock().unwrap();
    // The token, the mount and the secret.
    assert_eq!(seen.len(), 3);
    let has = |seen: &Seen| {
        seen.headers
            .to_lowercase()
            .contains("x-vault-namespace: team/a")
    };
    assert!(seen.iter().all(has));
}

#[tokio::test]
async fn a_dropped_store_renews_nothing_any_more() {
    let fake = Fake::start(|seen: &Seen| match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => reply(
            200,
            json!({"data": {"ttl": 3, "renewable": true, "display_name": "", "policies": []}}),
        ),
        "/v1/auth/token/renew-self" => {
            let auth = json!({"client_token": "t", "lease_duration": 3, "renewable": true});
            reply(200, json!({"auth": auth}))
        }
        _ => reply(404, json!({"errors": []})),
    })
    .await;
    let store = open(&fake.address, &[("token", "t"), ("kv-version", "2")])
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(
        fake.count("POST", "/renew-self"),
        1,
        "renewed after two thirds of the lease"
    );
    drop(store);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(fake.count("POST", "/renew-self"), 1);
}

#[tokio::test]
async fn retry_after_is_handed_on() {
    let (_fake, store) = answering(|_| {
        (
            429,
            "Retry-After: 7\r\n".into(),
            json!({"errors": []}).to_string(),
        )
    })
    .await;
    let error = read(&store).await;
    assert_eq!(
        (error.kind(), error.retry_after()),
        (ErrorKind::Throttled, Some(Duration::from_secs(7)))
    );
}

/// Numbers that overflow a clock: they would end the caller's task, and the renewal.
#[tokio::test]
async fn no_number_of_a_server_ends_a_task() {
    let largest = u64::MAX;
    let (_fake, store) = answering(move |_| {
        (
            429,
            format!("Retry-After: {largest}\r\n"),
            json!({"errors": []}).to_string(),
        )
    })
    .await;
    let error = read(&store).await;
    assert_eq!(
        (error.kind(), error.retry_after()),
        (ErrorKind::Throttled, Some(Error::LONGEST_WAIT))
    );
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_called_so() {
    let authority = e2e::Authority::new().unwrap();
    let address = authority.serve_expired().await.unwrap();
    let url = format!("https://{address}");
    let file = authority.ca_file().to_str().unwrap();
    let error = open(&url, &[("token", "t"), ("ca-file", file)])
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::InvalidConfig, false)
    );
    assert!(
        error.message().contains("certificate has expired"),
        "{error}"
    );
    let error = open("https://no-such-host.invalid", &[("token", "t")])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("does not resolve"), "{error}");
}

#[tokio::test]
async fn a_sealed_server_is_told_from_one_that_was_never_initialised() {
    for (initialized, sealed, says) in [
        (true, true, "sealed"),
        (false, true, "not initialised"),
        (true, false, "maintenance"),
    ] {
        let (_fake, store) = answering(move |seen| match seen.path.as_str() {
            "/v1/sys/seal-status" => {
                reply(200, json!({"initialized": initialized, "sealed": sealed}))
            }
            _ => reply(503, json!({"errors": ["Vault is sealed"]})),
        })
        .await;
        let error = read(&store).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.message().contains(says) && error.is_retryable(),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_standby_is_followed_once_to_a_known_peer_and_the_token_goes_nowhere_else() {
    let active = Fake::start(|_| reply(200, json!({"data": {"data": {"value": "v"}}}))).await;
    let stranger =
        Fake::start(|_| reply(200, json!({"data": {"data": {"value": "stolen"}}}))).await;
    let redirect = |to: String| {
        move |seen: &Seen| match seen.path.as_str() {
            "/v1/auth/token/lookup-self" => looked_up(),
            path => (307, format!("Location: {to}{path}\r\n"), String::new()),
        }
    };
    let peers = active.address.trim_start_matches("http://").to_owned();
    let settings = [
        ("token", "t"),
        ("kv-version", "2"),
        ("peers", peers.as_str()),
    ];
    let name = Coordinate::parse("team/db").unwrap();

    let standby = Fake::start(redirect(active.address.clone())).await;
    let store = open(&standby.address, &settings).await.unwrap();
    assert_eq!(store.read(&name).await.unwrap().value.expose(), "v");
    assert_eq!(active.seen.lock().unwrap()[0].token.as_deref(), Some("t"));

    for target in [
        stranger.address.clone(),
        "http://vault.invalid:8200".into(),
        "ftp://127.0.0.1".into(),
    ] {
        let standby = Fake::start(redirect(target)).await;
        let store = open(&standby.address, &settings).await.unwrap();
        let error = read(&store).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.hint().unwrap().contains("peers") && !error.is_retryable());
    }
    assert!(
        stranger.seen.lock().unwrap().is_empty(),
        "a server nobody named was contacted"
    );
}

#[tokio::test]
async fn two_standbys_that_point_at_each_other_are_no_loop() {
    let fake = Fake::start(|seen: &Seen| match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => looked_up(),
        path => (307, format!("Location: {path}\r\n"), String::new()),
    })
    .await;
    let store = open(&fake.address, &[("token", "t"), ("kv-version", "2")])
        .await
        .unwrap();
    assert_eq!(read(&store).await.kind(), ErrorKind::Unavailable);
    assert_eq!(fake.count("GET", "/team/db"), 2);
}

#[tokio::test]
async fn answers_of_another_form_are_errors_without_their_text() {
    for body in [
        "canary",
        "{\"data\": \"canary\"}",
        "{\"data\": {\"data\": [\"canary\"]}}",
        "{\"data\": {\"data\": {\"value\": \"canary",
        "<html>canary</html>",
        "",
    ] {
        let (_fake, store) = answering(move |_| (200, String::new(), body.to_owned())).await;
        let error = read(&store).await;
        assert_eq!(error.kind(), ErrorKind::Unexpected, "{body}");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_recognised_as_the_same() {
    // The first attempt succeeded: check-and-set refuses the second one, and the value is ours.
    let (_fake, store) =
        answering(
            |seen| match (seen.method.as_str(), seen.body.contains("cas")) {
                ("POST", true) => reply(
                    400,
                    json!({"errors": ["check-and-set parameter did not match"]}),
                ),
                _ => reply(
                    200,
                    json!({"data": {"data": {"value": "value"}, "metadata": {}}}),
                ),
            },
        )
        .await;
    let coordinate = ManagedCoordinate::parse("airbyte_w_secret_x_v1").unwrap();
    let write = |value: &str| Write::new(coordinate.clone(), SecretValue::new(value.into()));
    assert_eq!(
        store.write(write("value")).await.unwrap(),
        Written::AlreadySame
    );
    assert_eq!(
        store.write(write("other")).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
}

#[tokio::test]
async fn nobody_there_and_nobody_answering_are_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let silent = open(&address, &[("token", "t"), ("timeout-seconds", "1")])
        .await
        .unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::Unavailable);
    assert!(silent.message().contains("in time"), "{silent}");
    drop(listener);
    let gone = open(&address, &[("token", "t")]).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Unavailable);
    assert!(gone.message().contains("no connection"), "{gone}");
    assert!(std::error::Error::source(&gone).is_some());
}
