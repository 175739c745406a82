//! Who may do what, endpoint by endpoint.

use secret_gateway::{Grant, Role};
use secret_persistence::{SecretValue, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{
    Faulty, World, configurations, kv_path, name, specification, workspace, written,
};

/// Every endpoint that needs a role: what is asked, and the answer to those who may.
fn endpoints(change: &str) -> Vec<(Role, &'static str, String, Option<Value>, u16)> {
    let data = kv_path(1, 1);
    let full = json!({"host": "h", "password": "p"});
    let named = Some(json!({"configurations": [
        {"id": "1", "configuration": {"password": {"_secret": name(1, 1)}}},
    ]}));
    let presented = Some(json!({"specification": specification(), "configuration": full}));
    vec![
        (Role::KvRead, "GET", data.clone(), None, 200),
        (
            Role::KvRead,
            "GET",
            format!("/v1/secret/metadata/{}", name(1, 1)),
            None,
            200,
        ),
        (
            Role::KvRead,
            "LIST",
            "/v1/secret/metadata/".to_owned(),
            None,
            200,
        ),
        (
            Role::KvRead,
            "GET",
            "/v1/secret/metadata?list=true".to_owned(),
            None,
            200,
        ),
        (Role::KvWrite, "POST", data.clone(), written("x"), 200),
        (Role::KvWrite, "PUT", data.clone(), written("x"), 200),
        (Role::KvWrite, "DELETE", kv_path(1, 9), None, 204),
        (
            Role::KvWrite,
            "DELETE",
            format!("/v1/secret/metadata/{}", name(1, 9)),
            None,
            204,
        ),
        (
            Role::KvWrite,
            "POST",
            format!("/v1/secret/delete/{}", name(1, 9)),
            Some(json!({"versions": [1]})),
            204,
        ),
        (
            Role::KvWrite,
            "POST",
            format!("/v1/secret/undelete/{}", name(1, 9)),
            Some(json!({"versions": [2]})),
            204,
        ),
        (Role::Change, "GET", "/api/v1/changes".to_owned(), None, 200),
        (
            Role::Change,
            "GET",
            format!("/api/v1/changes/{change}"),
            None,
            200,
        ),
        (
            Role::Change,
            "POST",
            "/api/v1/changes".to_owned(),
            Some(
                json!({"kind": "create", "specification": specification(), "scope": workspace(1), "edited": full}),
            ),
            201,
        ),
        (
            Role::Change,
            "POST",
            format!("/api/v1/changes/{change}/settle"),
            Some(json!({"current": {"other": 1}})),
            200,
        ),
        (
            Role::Change,
            "POST",
            format!("/api/v1/changes/{change}/commit"),
            None,
            200,
        ),
        (
            Role::Change,
            "POST",
            format!("/api/v1/changes/{change}/abort"),
            None,
            409,
        ),
        (
            Role::Hydrate,
            "POST",
            "/api/v1/hydrate".to_owned(),
            Some(json!({"configurations": [{"a": 1}]})),
            200,
        ),
        (
            Role::Change,
            "POST",
            "/api/v1/mask".to_owned(),
            presented.clone(),
            200,
        ),
        (
            Role::Change,
            "POST",
            "/api/v1/scrub".to_owned(),
            presented.clone(),
            200,
        ),
        (
            Role::Change,
            "POST",
            "/api/v1/places".to_owned(),
            presented,
            200,
        ),
        (Role::Operate, "GET", "/api/v1/stores".to_owned(), None, 200),
        (
            Role::Operate,
            "POST",
            "/api/v1/stores/default/check".to_owned(),
            None,
            200,
        ),
        (Role::Operate, "GET", "/api/v1/status".to_owned(), None, 200),
        (
            Role::Operate,
            "POST",
            "/api/v1/ages".to_owned(),
            named.clone(),
            200,
        ),
        (
            Role::Operate,
            "POST",
            "/api/v1/affected".to_owned(),
            named.clone(),
            200,
        ),
        (
            Role::Operate,
            "POST",
            "/api/v1/restore".to_owned(),
            named,
            200,
        ),
        (
            Role::Operate,
            "GET",
            "/api/v1/collect".to_owned(),
            None,
            200,
        ),
        (
            Role::Operate,
            "POST",
            "/api/v1/collect".to_owned(),
            Some(json!({})),
            202,
        ),
        (
            Role::Operate,
            "POST",
            format!("/api/v1/collect/{}/delete", Uuid::nil()),
            Some(json!({"all_references": true})),
            404,
        ),
        (
            Role::Operate,
            "POST",
            format!("/api/v1/collect/{}/stop", Uuid::nil()),
            None,
            404,
        ),
    ]
}

async fn opened(world: &World) -> String {
    let body = json!({
        "kind": "create", "specification": specification(), "scope": workspace(1),
        "edited": {"host": "h", "password": "p"},
    });
    let body = world
        .call("POST", "/api/v1/changes", Some(body))
        .await
        .expect(201);
    body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_endpoint_serves_its_role_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = configurations(folder.path(), &[("1", json!({}))]);
    let settings = [("configurations-file", file.as_str())];
    let world = World::over(Faulty::owned(), folder, &settings).await;
    let tokens: Vec<(Role, SecretValue)> = Role::ALL
        .into_iter()
        .map(|role| (role, world.token(Grant::new(role.as_str(), [role]))))
        .collect();
    world
        .call("POST", &kv_path(1, 1), written("x"))
        .await
        .expect(200);
    let change = opened(&world).await;
    for (role, method, path, body, status) in endpoints(&change) {
        world
            .call_as(None, method, &path, body.clone())
            .await
            .expect(if path.starts_with("/v1/") { 403 } else { 401 });
        let wrong = SecretValue::new("sgw_wrong".to_owned());
        world
            .call_as(Some(&wrong), method, &path, body.clone())
            .await
            .expect(if path.starts_with("/v1/") { 403 } else { 401 });
        for (theirs, token) in &tokens {
            let answer = world
                .call_as(Some(token), method, &path, body.clone())
                .await;
            let expected = if *theirs == role { status } else { 403 };
            assert_eq!(
                answer.status.as_u16(),
                expected,
                "{method} {path} as {theirs}: {}",
                answer.text
            );
        }
    }
}

#[tokio::test]
async fn what_a_bound_token_may_not_see_does_not_exist_for_it() {
    let world = World::new().await;
    let bound = world.token(
        Grant::new("bound", Role::ALL)
            .with_workspaces([Uuid::from_u128(2)])
            .with_prefixes(["airbyte_shared_"]),
    );
    world
        .call("POST", &kv_path(1, 1), written("x"))
        .await
        .expect(200);
    let change = opened(&world).await;
    for (_, method, path, body, _) in endpoints(&change) {
        // These have nothing of anybody's.
        let own = [
            "/api/v1/changes",
            "/api/v1/mask",
            "/api/v1/scrub",
            "/api/v1/places",
            "/api/v1/hydrate",
        ];
        if own.contains(&path.as_str())
            && body.as_ref().is_none_or(|body| body.get("kind").is_none())
        {
            continue;
        }
        let answer = world.call_as(Some(&bound), method, &path, body).await;
        assert_eq!(
            answer.status.as_u16(),
            404,
            "{method} {path}: {}",
            answer.text
        );
    }
    let listed = world
        .call_as(Some(&bound), "GET", "/api/v1/changes", None)
        .await
        .expect(200);
    assert_eq!(listed["changes"], json!([]));

    // A configuration that points at another workspace's secret is not hydrated, nor taken as saved.
    let foreign = json!({"host": "h", "password": {"_secret": name(1, 1)}});
    let body = Some(json!({"configurations": [foreign, {"a": 1}]}));
    let answer = world
        .call_as(Some(&bound), "POST", "/api/v1/hydrate", body)
        .await
        .expect(200);
    assert_eq!(answer["configurations"][0]["problem"]["status"], 404);
    assert_eq!(
        answer["configurations"][1]["configuration"],
        json!({"a": 1})
    );
    let body = json!({
        "kind": "update", "specification": specification(), "scope": workspace(2),
        "saved": foreign, "edited": {"host": "h", "password": "guess"},
    });
    world
        .call_as(Some(&bound), "POST", "/api/v1/changes", Some(body))
        .await
        .expect_kind(404, "not_found");
    let body = json!({"kind": "delete", "scope": workspace(2), "saved": foreign});
    world
        .call_as(Some(&bound), "POST", "/api/v1/changes", Some(body))
        .await
        .expect_kind(404, "not_found");

    // Its own exists.
    let path = kv_path(2, 1);
    world
        .call_as(Some(&bound), "POST", &path, written("x"))
        .await
        .expect(200);
    world
        .call_as(Some(&bound), "GET", &path, None)
        .await
        .expect(200);
    let shared = "/v1/secret/data/airbyte_shared_secret_1_v1";
    world
        .call_as(Some(&bound), "POST", shared, written("x"))
        .await
        .expect(200);
    let keys = world
        .call_as(Some(&bound), "LIST", "/v1/secret/metadata", None)
        .await
        .expect(200);
    assert_eq!(
        keys["data"]["keys"],
        json!(["airbyte_shared_secret_1_v1", name(2, 1)])
    );
}

#[tokio::test]
async fn tokens_end_by_time_and_by_revoking() {
    let world = World::new().await;
    let past = Timestamp::from_unix_seconds(1_000_000_000).unwrap();
    let ended = world.token(Grant::new("ended", [Role::Operate]).with_expires(Some(past)));
    world
        .call_as(Some(&ended), "GET", "/api/v1/stores", None)
        .await
        .expect_kind(401, "token_expired");
    world
        .call_as(Some(&ended), "GET", "/v1/auth/token/lookup-self", None)
        .await
        .expect(403);
    let revoked = world.token(Grant::new("revoked", [Role::Operate]));
    world
        .call_as(Some(&revoked), "GET", "/api/v1/stores", None)
        .await
        .expect(200);
    world.revoke("revoked");
    world
        .call_as(Some(&revoked), "GET", "/api/v1/stores", None)
        .await
        .expect_kind(401, "token_unknown");
    world
        .call_as(None, "GET", "/api/v1/stores", None)
        .await
        .expect_kind(401, "token_missing");
    // A file that is not understood lets nobody in.
    let fresh = world.token(Grant::new("fresh", [Role::Operate]));
    world
        .call_as(Some(&fresh), "GET", "/api/v1/stores", None)
        .await
        .expect(200);
    std::fs::write(world.folder.path().join("tokens.json"), "{").unwrap();
    world
        .call_as(Some(&fresh), "GET", "/api/v1/stores", None)
        .await
        .expect_kind(503, "tokens_unavailable");
}

#[tokio::test]
async fn a_token_comes_as_vaults_header_or_as_bearer_and_two_must_agree() {
    let world = World::new().await;
    let token = world.token(Grant::new("a", [Role::Operate]));
    let bearer = format!("Bearer {}", token.expose());
    let path = "/api/v1/stores";
    world
        .send("GET", path, &[("authorization", &bearer)], None)
        .await
        .expect(200);
    world
        .send(
            "GET",
            path,
            &[
                ("authorization", &bearer),
                ("x-vault-token", token.expose()),
            ],
            None,
        )
        .await
        .expect(200);
    for headers in [
        vec![("authorization", "Basic eDp5")],
        vec![("authorization", token.expose())],
    ] {
        world.send("GET", path, &headers, None).await.expect(401);
    }
}

/// A proxy that checks one token while the gateway takes the other lets in whom it refuses.
#[tokio::test]
async fn a_request_with_two_tokens_is_refused_and_neither_counts() {
    let world = World::new().await;
    let role = [Role::Operate, Role::KvRead];
    let token = world.token(Grant::new("a", role));
    let other = world.token(Grant::new("b", role));
    let (ours, theirs) = (token.expose(), other.expose());
    let (bearer, foreign) = (format!("Bearer {ours}"), format!("Bearer {theirs}"));
    let kv = kv_path(1, 1);
    for headers in [
        [("x-vault-token", ours), ("x-vault-token", theirs)],
        [("x-vault-token", ours), ("x-vault-token", "unknown")],
        [("x-vault-token", ours), ("x-vault-token", ours)],
        [("x-vault-token", ""), ("x-vault-token", ours)],
        [("authorization", &bearer), ("authorization", &foreign)],
        [("authorization", &bearer), ("authorization", &bearer)],
        [("authorization", &bearer), ("authorization", "Basic eDp5")],
        [("authorization", &bearer), ("x-vault-token", theirs)],
        [("authorization", &bearer), ("x-vault-token", "unknown")],
    ] {
        let problem = world.send("GET", "/api/v1/stores", &headers, None).await;
        assert!(!problem.text.contains(ours) && !problem.text.contains(theirs));
        problem.expect_kind(400, "token_ambiguous");
        let vault = world.send("GET", &kv, &headers, None).await;
        let kind = "<urn:secret-gateway:problem:token_ambiguous>; rel=\"type\"";
        assert_eq!(vault.headers["link"], kind);
        assert_eq!(
            vault.expect(400),
            json!({"errors": ["the request has more than one token; send one, in one header"]})
        );
    }
}
