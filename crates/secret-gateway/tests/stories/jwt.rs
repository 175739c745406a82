//! JWTs of the platform: whose key, for whom, until when, with which roles.

use axum::Router;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secret_gateway::router;
use secret_persistence::Environment;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{ask, kv_path, texts};

struct Platform {
    key: EncodingKey,
    router: Router,
    folder: tempfile::TempDir,
}

fn key() -> EncodingKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap()
}

fn key_set(keys: &[(&str, &EncodingKey)]) -> String {
    let keys = keys
        .iter()
        .map(|(id, key)| {
            let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
            jwk.common.key_id = Some((*id).to_owned());
            jwk
        })
        .collect();
    serde_json::to_string(&JwkSet { keys }).unwrap()
}

impl Platform {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = key();
        let set = folder.path().join("jwks.json");
        std::fs::write(&set, key_set(&[("one", &key)])).unwrap();
        let settings = texts(
            folder.path(),
            &[
                ("jwks-file", set.to_str().unwrap()),
                ("jwt-issuer", "https://platform.example"),
                ("jwt-audience", "secret-gateway"),
                ("jwt-role-claim", "gateway/roles"),
                ("jwt-workspace-claim", "gateway/workspaces"),
            ],
        );
        let started = secret_gateway::start(settings.parse().unwrap(), &Environment::empty(), None)
            .await
            .unwrap();
        assert!(
            started.tokens.is_empty(),
            "where JWTs are taken nobody needs a first token"
        );
        Self {
            key,
            router: router(started.gateway),
            folder,
        }
    }

    fn token(&self, key: &EncodingKey, id: &str, changes: Value) -> String {
        let mut claims = json!({
            "iss": "https://platform.example", "aud": "secret-gateway", "sub": "system:pod", "exp": 4_000_000_000_u64,
            "gateway": {"roles": ["kv-read", "kv-write", "theirs"], "workspaces": [Uuid::from_u128(1)]},
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(id.to_owned());
        encode(&header, &claims, key).unwrap()
    }

    async fn read(&self, token: &str, workspace: u128) -> u16 {
        let path = kv_path(workspace, 1);
        ask(
            &self.router,
            "GET",
            &path,
            &[("x-vault-token", token)],
            None,
        )
        .await
        .status
        .as_u16()
    }
}

#[tokio::test]
async fn a_jwt_is_good_for_its_audience_time_roles_and_workspaces() {
    let platform = Platform::new().await;
    let token = |changes: Value| platform.token(&platform.key, "one", changes);
    let good = token(json!({}));
    let path = kv_path(1, 1);
    let body = Some(json!({"data": {"value": "x"}}).to_string());
    ask(
        &platform.router,
        "POST",
        &path,
        &[("authorization", &format!("Bearer {good}"))],
        body,
    )
    .await
    .expect(200);
    assert_eq!(platform.read(&good, 1).await, 200);
    // Another workspace does not exist for it, and neither does a role that it has not.
    assert_eq!(platform.read(&good, 2).await, 404);
    let headers = [("x-vault-token", good.as_str())];
    ask(&platform.router, "GET", "/api/v1/stores", &headers, None)
        .await
        .expect_kind(403, "missing_role");

    for changes in [
        json!({"iss": "https://other.example"}),
        json!({"aud": "another"}),
        json!({"exp": 1_000_000_000}),
        json!({"exp": null}),
        json!({"nbf": 3_900_000_000_u64}),
        json!({"gateway": {}}),
        json!({"gateway": {"roles": ["kv-read"]}}),
        json!({"gateway": {"roles": [], "workspaces": ["*"]}}),
        json!({"gateway": {"roles": ["theirs"], "workspaces": ["*"]}}),
        json!({"gateway": {"roles": ["kv-read"], "workspaces": ["x"]}}),
        json!({"gateway": {"roles": ["kv-read"], "workspaces": []}}),
        json!({"gateway": {"roles": ["kv-read"], "workspaces": ["*", "x"]}}),
    ] {
        assert_eq!(
            platform.read(&token(changes.clone()), 1).await,
            403,
            "{changes}"
        );
    }
    let all = token(json!({"gateway": {"roles": "kv-read kv-write", "workspaces": "*"}}));
    assert_eq!(platform.read(&all, 2).await, 404);
    assert_eq!(platform.read(&all, 1).await, 200);
}

#[tokio::test]
async fn only_keys_of_the_set_count_and_a_changed_set_is_read_again() {
    let platform = Platform::new().await;
    let other = key();
    assert_eq!(
        platform
            .read(&platform.token(&other, "one", json!({})), 1)
            .await,
        403
    );
    assert_eq!(
        platform
            .read(&platform.token(&other, "two", json!({})), 1)
            .await,
        403
    );
    let good = platform.token(&platform.key, "one", json!({}));
    assert_eq!(platform.read(&good, 1).await, 404);
    // Signed with what everybody knows, or not at all.
    let (head, claims) = (
        json!({"alg": "none", "kid": "one"}),
        good.split('.').nth(1).unwrap(),
    );
    let unsigned = format!("{}.{claims}.", base64(&head.to_string()));
    assert_eq!(platform.read(&unsigned, 1).await, 403);
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("one".to_owned());
    let public = std::fs::read(platform.folder.path().join("jwks.json")).unwrap();
    let confused = encode(
        &header,
        &json!({"exp": 4_000_000_000_u64}),
        &EncodingKey::from_secret(&public),
    )
    .unwrap();
    assert_eq!(platform.read(&confused, 1).await, 403);

    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(
        platform.folder.path().join("jwks.json"),
        key_set(&[("two", &other)]),
    )
    .unwrap();
    assert_eq!(
        platform
            .read(&platform.token(&other, "two", json!({})), 1)
            .await,
        404
    );
    assert_eq!(platform.read(&good, 1).await, 403);
    std::fs::remove_file(platform.folder.path().join("jwks.json")).unwrap();
    assert_eq!(platform.read(&good, 1).await, 503);
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}
