//! Several replicas over one outbox in Postgres.

use std::sync::Arc;

use secret_gateway::{
    Authenticator, Digests, Gateway, Grant, Parts, PostgresOutbox, Role, TokenFile, router,
};
use secret_persistence::{SecretValue, Stores};
use serde_json::{Value, json};
use sqlx::Executor as _;
use uuid::Uuid;

use crate::world::{Answer, Faulty, ask, specification, texts, workspace};

struct Replica {
    router: axum::Router,
    token: SecretValue,
}

impl Replica {
    async fn new(
        folder: &std::path::Path,
        url: &str,
        store: &Arc<Faulty>,
        token: &SecretValue,
    ) -> Self {
        let gateway = Gateway::new(Parts {
            settings: texts(folder, &[]).parse().unwrap(),
            stores: Stores::new(store.clone() as _),
            storages: None,
            mirrored: false,
            migration: None,
            configurations: None,
            history: None,
            collecting: None,
            authenticator: Authenticator::new(TokenFile::new(folder.join("tokens.json")), None),
            outbox: Arc::new(
                PostgresOutbox::open(&SecretValue::new(url.to_owned()))
                    .await
                    .unwrap(),
            ),
            digests: Digests::open(&folder.join("gateway.key")).unwrap(),
            metrics: None,
        });
        Self {
            router: router(gateway),
            token: token.clone(),
        }
    }

    async fn post(&self, path: &str, key: &str, body: Value) -> Answer {
        let mut headers = vec![("x-vault-token", self.token.expose())];
        if !key.is_empty() {
            headers.push(("idempotency-key", key));
        }
        ask(&self.router, "POST", path, &headers, Some(body.to_string())).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_replica_ends_any_change_and_a_retry_anywhere_is_the_same_change() {
    let Some(server) = e2e::Postgres::start_or_env().await else {
        return;
    };
    let schema = format!("gateway_{}", Uuid::new_v4().simple());
    let pool = sqlx::PgPool::connect(server.url()).await.unwrap();
    pool.execute(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}")))
        .await
        .unwrap();
    let separator = if server.url().contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}options[search_path]={schema}", server.url());

    let folder = tempfile::tempdir().unwrap();
    let token = TokenFile::new(folder.path().join("tokens.json"))
        .create(&Grant::new("all", Role::ALL))
        .unwrap();
    let store: Arc<Faulty> = Arc::default();
    let (one, two) = futures::join!(
        Replica::new(folder.path(), &url, &store, &token),
        Replica::new(folder.path(), &url, &store, &token)
    );
    let create = json!({
        "kind": "create", "specification": specification(), "scope": workspace(1),
        "edited": {"host": "h", "password": "x"},
    });
    let made = one
        .post("/api/v1/changes", "k", create.clone())
        .await
        .expect(201);
    assert_eq!(
        two.post("/api/v1/changes", "k", create.clone())
            .await
            .expect(201),
        made
    );
    let end = |how: &str| format!("/api/v1/changes/{}/{how}", made["id"].as_str().unwrap());
    two.post(&end("commit"), "", json!({})).await.expect(200);
    one.post(&end("abort"), "", json!({}))
        .await
        .expect_kind(409, "change_ended_otherwise");

    // Both at once, many times: one change each, and one end each.
    for round in 0..20 {
        let key = format!("round {round}");
        let (a, b) = futures::join!(
            one.post("/api/v1/changes", &key, create.clone()),
            two.post("/api/v1/changes", &key, create.clone())
        );
        let made: Vec<&Value> = [&a, &b]
            .iter()
            .filter(|answer| answer.status == 201)
            .map(|answer| &answer.body)
            .collect();
        assert!(
            !made.is_empty() && made.iter().all(|body| body["id"] == made[0]["id"]),
            "{} {}",
            a.text,
            b.text
        );
        let end = |how: &str| format!("/api/v1/changes/{}/{how}", made[0]["id"].as_str().unwrap());
        let (commit, abort) = (end("commit"), end("abort"));
        let (a, b) = futures::join!(
            one.post(&commit, "", json!({})),
            two.post(&abort, "", json!({}))
        );
        let mut statuses = [a.status.as_u16(), b.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
    }
    pool.execute(sqlx::AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE")))
        .await
        .unwrap();
}

#[tokio::test]
async fn beyond_loopback_the_outbox_needs_verified_tls() {
    for url in [
        "postgres://u:canary@db.example/x?sslmode=disable",
        "sqlite:/canary",
        "not a url canary",
    ] {
        let error = PostgresOutbox::open(&SecretValue::new(url.to_owned()))
            .await
            .unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}
