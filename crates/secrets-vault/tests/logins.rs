//! Every login method on a real Vault, and tokens that expire.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use secret_persistence_core::{
    Coordinate, ErrorKind, ManagedCoordinate, SecretPersistence, SecretPersistenceExt, SecretValue,
    Write,
};
use serde_json::{Value, json};
use support::{Admin, Fake, Seen, looked_up, open, reply};
use uuid::Uuid;

const READ_ALL: &str =
    r#"path "*" { capabilities = ["create", "read", "update", "delete", "list"] }"#;

fn coordinate() -> ManagedCoordinate {
    ManagedCoordinate::parse("airbyte_w_secret_x_v1").unwrap()
}

/// A mount with one secret in it, and a policy that allows everything.
async fn prepared(admin: &Admin) -> (String, String) {
    let prefix = format!("{}/", admin.mount(2).await);
    let store = admin.open(&[("prefix", &prefix)]).await.unwrap();
    store
        .write(Write::new(coordinate(), SecretValue::new("value".into())))
        .await
        .unwrap();
    let policy = format!("test-{}", Uuid::new_v4());
    admin
        .must(
            "PUT",
            &format!("sys/policies/acl/{policy}"),
            json!({"policy": READ_ALL}),
        )
        .await;
    (prefix, policy)
}

/// A mount of a login method.
async fn login_mount(admin: &Admin, method: &str) -> String {
    let mount = format!("{method}-{}", Uuid::new_v4());
    admin
        .must(
            "POST",
            &format!("sys/auth/{mount}"),
            json!({"type": method}),
        )
        .await;
    mount
}

/// An AppRole login mount with one role; mount, role id and secret id.
async fn approle(
    admin: &Admin,
    policy: &str,
    ttl: &str,
    max_ttl: &str,
) -> (String, String, String) {
    let mount = login_mount(admin, "approle").await;
    let role = format!("auth/{mount}/role/connector");
    let body = json!({"token_policies": [policy], "token_ttl": ttl, "token_max_ttl": max_ttl});
    admin.must("POST", &role, body).await;
    let answer = admin
        .must("GET", &format!("{role}/role-id"), Value::Null)
        .await;
    let role_id = answer["data"]["role_id"].as_str().unwrap().to_owned();
    let answer = admin
        .must("POST", &format!("{role}/secret-id"), json!({}))
        .await;
    (
        mount,
        role_id,
        answer["data"]["secret_id"].as_str().unwrap().to_owned(),
    )
}

/// The settings of an AppRole login.
fn with_approle<'t>(
    prefix: &'t str,
    mount: &'t str,
    role_id: &'t str,
    secret_id: &'t str,
) -> [(&'static str, &'t str); 5] {
    [
        ("prefix", prefix),
        ("auth-method", "approle"),
        ("auth-mount", mount),
        ("role-id", role_id),
        ("secret-id", secret_id),
    ]
}

async fn reads(store: &impl SecretPersistence) -> Result<(), secret_persistence_core::Error> {
    store
        .read(&coordinate().into())
        .await
        .map(|read| assert_eq!(read.value.expose(), "value"))
}

#[tokio::test(flavor = "multi_thread")]
async fn approle_outlives_its_lease_and_its_maximum() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let (prefix, policy) = prepared(&admin).await;
    // Renewed after two seconds; logged in again near the maximum of six seconds.
    let (mount, role_id, secret_id) = approle(&admin, &policy, "3s", "6s").await;
    let settings = with_approle(&prefix, &mount, &role_id, &secret_id);
    let store = admin.open(&settings).await.unwrap();
    for _ in 0..20 {
        reads(&store).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_replaced_by_one_login_for_all_callers() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let (prefix, policy) = prepared(&admin).await;
    let (mount, role_id, secret_id) = approle(&admin, &policy, "1h", "1h").await;
    let settings = with_approle(&prefix, &mount, &role_id, &secret_id);
    let store = admin.open(&settings).await.unwrap();
    reads(&store).await.unwrap();
    // Revokes every token of this login mount.
    admin
        .must(
            "PUT",
            &format!("sys/leases/revoke-prefix/auth/{mount}"),
            json!({}),
        )
        .await;
    let all = futures::future::join_all((0..50).map(|_| reads(&store))).await;
    for outcome in all {
        outcome.unwrap();
    }
    let accessors = admin
        .must("LIST", "auth/token/accessors", Value::Null)
        .await;
    let mut alive = 0;
    for accessor in accessors["data"]["keys"].as_array().unwrap() {
        let body = json!({"accessor": accessor});
        let (status, answer) = admin
            .request("POST", "auth/token/lookup-accessor", body)
            .await;
        let path = format!("auth/{mount}/login");
        alive += usize::from(status == 200 && answer["data"]["path"] == path.as_str());
    }
    assert_eq!(alive, 1, "one login serves any number of callers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_is_read_again_when_its_token_is_refused() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let (prefix, _) = prepared(&admin).await;
    let file = std::env::temp_dir().join(format!("vault-token-{}", Uuid::new_v4()));
    let first = admin.token(READ_ALL, "1h").await;
    std::fs::write(&file, format!("{first}\n")).unwrap();
    let path = file.to_str().unwrap();
    let settings = [
        ("prefix", prefix.as_str()),
        ("auth-method", "token-file"),
        ("token-file", path),
    ];
    let store = admin.open(&settings).await.unwrap();
    reads(&store).await.unwrap();
    std::fs::write(&file, admin.token(READ_ALL, "1h").await).unwrap();
    admin
        .must("POST", "auth/token/revoke", json!({"token": first}))
        .await;
    reads(&store).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let missing = admin.open(&settings).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidConfig);
    assert!(missing.message().contains("vault-token-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_token_is_renewed_and_its_end_is_said() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let (prefix, _) = prepared(&admin).await;
    let token = admin.token(READ_ALL, "3s").await;
    let store = admin
        .open(&[("prefix", &prefix), ("token", &token)])
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    reads(&store).await.unwrap();
    admin
        .must("POST", "auth/token/revoke", json!({"token": token}))
        .await;
    let error = reads(&store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(
        error.to_string().contains("expired or was revoked"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_capability_is_told_from_a_bad_token() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let (prefix, _) = prepared(&admin).await;
    let mount = prefix.trim_end_matches('/');
    let hcl = format!(
        "path \"{mount}/data/other\" {{ capabilities = [\"read\"] }}\n\
         path \"auth/token/lookup-self\" {{ capabilities = [\"read\"] }}"
    );
    let token = admin.token(&hcl, "1h").await;
    let store = admin
        .open(&[("prefix", &prefix), ("token", &token)])
        .await
        .unwrap();
    let error = reads(&store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(error.coordinate(), Some("airbyte_w_secret_x_v1"));
    assert!(
        error
            .hint()
            .unwrap()
            .contains("secret-migrate policy vault")
    );
}

/// The status is 403, as for a missing capability, and the mount looks as if it did not exist.
#[tokio::test]
async fn a_token_that_vault_does_not_know_is_called_so() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let prefix = format!("{}/", admin.mount(2).await);
    let gone = admin
        .token(r#"path "*" { capabilities = ["read"] }"#, "1h")
        .await;
    let body = json!({"token": gone});
    admin.must("POST", "auth/token/revoke", body).await;
    for token in ["hvs.nonsense", "nonsense", &gone] {
        for version in ["auto", "2"] {
            let settings = [
                ("prefix", prefix.as_str()),
                ("token", token),
                ("kv-version", version),
            ];
            let error = open(&admin.address, &settings).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
            assert!(
                error.message().contains("invalid or has expired"),
                "{error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_logs_in_with_a_signed_token() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let (prefix, policy) = prepared(&admin).await;
    let mount = login_mount(&admin, "jwt").await;
    let key = include_str!("fixtures/jwt-public-key.pem");
    let config = json!({"jwt_validation_pubkeys": [key], "jwt_supported_algs": ["ES256"]});
    admin
        .must("POST", &format!("auth/{mount}/config"), config)
        .await;
    let role = json!({
        "role_type": "jwt", "bound_audiences": ["vault"], "user_claim": "sub",
        "bound_subject": "connector", "token_policies": [policy],
    });
    admin
        .must("POST", &format!("auth/{mount}/role/connector"), role)
        .await;
    let jwt = include_str!("fixtures/jwt.txt").trim();
    let open = async |role: &str| {
        let settings = [
            ("prefix", prefix.as_str()),
            ("auth-method", "jwt"),
            ("auth-mount", &mount),
            ("role", role),
            ("jwt", jwt),
        ];
        admin.open(&settings).await
    };
    reads(&open("connector").await.unwrap()).await.unwrap();
    let error = open("other").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.hint().unwrap().contains("role"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_logs_in_with_the_service_account() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let (prefix, policy) = prepared(&admin).await;
    // The part of the Kubernetes API that Vault calls to validate a service account token.
    let api = Fake::start(|seen: &Seen| {
        assert!(seen.path.contains("tokenreviews"), "{}", seen.path);
        reply(
            201,
            json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                "status": {"authenticated": true, "user": {
                    "username": "system:serviceaccount:airbyte:server",
                    "uid": "5bf2e9a0-0000-4000-8000-000000000001",
                    "groups": ["system:serviceaccounts"],
                }},
            }),
        )
    })
    .await;
    let mount = login_mount(&admin, "kubernetes").await;
    let config = json!({"kubernetes_host": api.address, "token_reviewer_jwt": "reviewer",
        "disable_local_ca_jwt": true, "kubernetes_ca_cert": ""});
    admin
        .must("POST", &format!("auth/{mount}/config"), config)
        .await;
    let role = json!({
        "bound_service_account_names": ["server"], "bound_service_account_namespaces": ["airbyte"],
        "token_policies": [policy],
    });
    admin
        .must("POST", &format!("auth/{mount}/role/connector"), role)
        .await;
    let file = format!(
        "{}/tests/fixtures/service-account.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let settings = [
        ("prefix", prefix.as_str()),
        ("auth-method", "kubernetes"),
        ("auth-mount", &mount),
        ("role", "connector"),
        ("jwt-file", &file),
    ];
    reads(&admin.open(&settings).await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_logins_and_missing_methods_say_so() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let (prefix, policy) = prepared(&admin).await;
    let (mount, role_id, _) = approle(&admin, &policy, "1h", "1h").await;
    for mount in [mount.as_str(), "nothing-here"] {
        let settings = with_approle(&prefix, mount, &role_id, "canary-secret-id");
        let error = admin.open(&settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
    let error = admin
        .open(&[("prefix", "no-such-mount/")])
        .await
        .unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::PermissionDenied | ErrorKind::InvalidConfig
        ),
        "{error}"
    );
    let error = admin.open(&[("prefix", "sys/")]).await.unwrap_err();
    assert!(error.message().contains("engine"), "{error}");
}

/// Counts logins with a fake Vault whose tokens the test ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_capability_does_not_become_a_login_per_request() {
    let fake = Fake::start(|seen: &Seen| match seen.path.as_str() {
        "/v1/auth/approle/login" => {
            let auth =
                json!({"client_token": Uuid::new_v4().to_string(), "lease_duration": 0, "renewable": false});
            reply(200, json!({"auth": auth}))
        }
        _ => reply(403, json!({"errors": ["permission denied"]})),
    })
    .await;
    let settings = [
        ("kv-version", "2"),
        ("auth-method", "approle"),
        ("role-id", "r"),
        ("secret-id", "s"),
    ];
    let store = open(&fake.address, &settings).await.unwrap();
    let name = Coordinate::parse("team/db").unwrap();
    let denied = futures::future::join_all((0..40).map(|_| store.read(&name))).await;
    assert!(denied.iter().all(|outcome| {
        outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }));
    assert_eq!(
        fake.count("POST", "/login"),
        2,
        "one at the start, one after the first refusal"
    );
}

/// Concurrent callers share a failed login: a server in trouble, or one that locks out clients
/// after failed logins, does not get a login from each of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_is_shared_by_all_callers() {
    let logins = AtomicUsize::new(0);
    let fake = Fake::start(move |seen: &Seen| match seen.path.as_str() {
        "/v1/auth/approle/login" => match logins.fetch_add(1, Ordering::Relaxed) {
            0 => reply(
                200,
                json!({"auth": {"client_token": "t", "lease_duration": 1, "renewable": false}}),
            ),
            _ => reply(400, json!({"errors": ["invalid secret id"]})),
        },
        _ => reply(403, json!({"errors": ["permission denied"]})),
    })
    .await;
    let settings = [
        ("kv-version", "2"),
        ("auth-method", "approle"),
        ("role-id", "r"),
        ("secret-id", "s"),
    ];
    let store = open(&fake.address, &settings).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let before = fake.count("POST", "/login");
    let name = Coordinate::parse("team/db").unwrap();
    let refused = futures::future::join_all((0..40).map(|_| store.read(&name))).await;
    assert!(refused.iter().all(|outcome| {
        outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Unauthenticated)
    }));
    // The renewal logs in now and then too.
    let made = fake.count("POST", "/login") - before;
    assert!(made < 5, "{made} logins for 40 reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_makes_more_than_its_one_request() {
    let fake = Fake::start(|seen: &Seen| match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => looked_up(),
        "/v1/sys/internal/ui/mounts/secret" => reply(
            200,
            json!({"data": {"path": "secret/", "type": "kv", "options": {"version": "2"}}}),
        ),
        _ => reply(
            200,
            json!({"data": {"data": {"value": "v"}, "metadata": {}}}),
        ),
    })
    .await;
    let store = open(&fake.address, &[("token", "t")]).await.unwrap();
    assert_eq!(
        fake.seen.lock().unwrap().len(),
        2,
        "opening asks for the lease and for the mount"
    );
    let names: Vec<Coordinate> = (0..100)
        .map(|n| Coordinate::parse(&format!("name-{n}")).unwrap())
        .collect();
    assert!(store.read_many(&names).await.iter().all(Result::is_ok));
    assert_eq!(fake.seen.lock().unwrap().len(), 102);
}
