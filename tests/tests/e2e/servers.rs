//! Tests the properties of each server that other tests rely on.

use e2e::{LocalStack, Postgres, VaultOptions, VaultServer, available};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

async fn aws(server: &LocalStack, operation: &str, mut body: Value) -> (u16, Value) {
    if operation == "CreateSecret" {
        body["ClientRequestToken"] = uuid::Uuid::new_v4().to_string().into();
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client
        .post(server.url())
        .header("x-amz-target", format!("secretsmanager.{operation}"))
        .header("content-type", "application/x-amz-json-1.1")
        // LocalStack reads the region from here, and verifies no signature.
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/secretsmanager/aws4_request, \
             SignedHeaders=host, Signature=0",
        )
        .json(&body)
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn localstack_keeps_secrets() {
    let Some(server) = LocalStack::start_or_env().await else {
        return;
    };
    let name = format!("e2e-{}", uuid::Uuid::new_v4());
    let (status, created) = aws(
        server,
        "CreateSecret",
        json!({"Name": name, "SecretString": "one"}),
    )
    .await;
    assert_eq!(status, 200, "{created}");
    assert!(
        created["ARN"].as_str().unwrap().contains(":eu-central-1:"),
        "{created}"
    );
    let (status, refused) = aws(
        server,
        "CreateSecret",
        json!({"Name": name, "SecretString": "two"}),
    )
    .await;
    assert_eq!(
        (status, refused["__type"].as_str()),
        (400, Some("ResourceExistsException"))
    );

    let both = json!({"SecretIdList": [name, "e2e-none"]});
    let (status, batch) = aws(server, "BatchGetSecretValue", both).await;
    assert_eq!(status, 200, "{batch}");
    assert_eq!(batch["SecretValues"][0]["SecretString"], "one");
    assert_eq!(batch["Errors"][0]["SecretId"], "e2e-none");

    let delete = json!({"SecretId": name, "ForceDeleteWithoutRecovery": true});
    assert_eq!(aws(server, "DeleteSecret", delete).await.0, 200);
    let (status, missing) = aws(server, "GetSecretValue", json!({"SecretId": name})).await;
    assert_eq!(
        (status, missing["__type"].as_str()),
        (400, Some("ResourceNotFoundException"))
    );
}

/// A story kills it in the middle and restarts it.
#[tokio::test]
async fn localstack_forgets_everything_when_killed() {
    let Some(mut server) = available(LocalStack::start().await) else {
        return;
    };
    let secret = json!({"Name": "forgotten", "SecretString": "one"});
    assert_eq!(aws(&server, "CreateSecret", secret).await.0, 200);
    let url = server.url().to_owned();
    server.kill();
    assert!(reqwest::get(&url).await.unwrap_err().is_connect());

    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    let (status, missing) = aws(&server, "GetSecretValue", json!({"SecretId": "forgotten"})).await;
    assert_eq!(
        (status, missing["__type"].as_str()),
        (400, Some("ResourceNotFoundException"))
    );
}

#[tokio::test]
async fn vault_keeps_secrets_of_both_versions() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let first = server.mount_kv(1).await;
    let path = format!("{first}/a");
    server
        .request("POST", &path, Some(&json!({"value": "one"})))
        .await
        .expect("write");
    assert_eq!(
        server.request("GET", &path, None).await.expect("read")["data"]["value"],
        "one"
    );
    assert_eq!(
        server
            .request("GET", &format!("{first}/b"), None)
            .await
            .status,
        404
    );

    let second = server.mount_kv(2).await;
    let path = format!("{second}/data/a");
    let write = json!({"data": {"value": "one"}, "options": {"cas": 0}});
    server
        .request("POST", &path, Some(&write))
        .await
        .expect("write");
    let read = server.request("GET", &path, None).await.expect("read");
    assert_eq!(read["data"]["data"]["value"], "one");
    let conflict = server.request("POST", &path, Some(&write)).await;
    assert_eq!(conflict.status, 400);
    assert!(
        conflict.body["errors"][0]
            .as_str()
            .unwrap()
            .contains("check-and-set")
    );
    let listed = server
        .request("LIST", &format!("{second}/metadata/"), None)
        .await
        .expect("list");
    assert_eq!(listed["data"]["keys"], json!(["a"]));
}

#[tokio::test]
async fn vault_logs_in_and_refuses() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = server.mount_kv(2).await;
    let policy = server
        .write_policy(&format!(
            "path \"{mount}/data/*\" {{ capabilities = [\"read\"] }}"
        ))
        .await;
    let auth = format!("approle-{mount}");
    server
        .request(
            "POST",
            &format!("sys/auth/{auth}"),
            Some(&json!({"type": "approle"})),
        )
        .await
        .expect("mount");
    let role = format!("auth/{auth}/role/reader");
    let options =
        json!({"token_policies": [policy], "token_no_default_policy": true, "token_ttl": "60s"});
    server
        .request("POST", &role, Some(&options))
        .await
        .expect("role");
    let id = server
        .request("GET", &format!("{role}/role-id"), None)
        .await
        .expect("role id");
    let secret = server
        .request("POST", &format!("{role}/secret-id"), None)
        .await
        .expect("secret id");
    let login = json!({
        "role_id": id["data"]["role_id"],
        "secret_id": secret["data"]["secret_id"],
    });
    let login = server
        .request_as("", "POST", &format!("auth/{auth}/login"), Some(&login))
        .await;
    let login = login.expect("login");
    let token = login["auth"]["client_token"].as_str().unwrap();
    assert_eq!(login["auth"]["lease_duration"], 60);

    let path = format!("{mount}/data/a");
    assert_eq!(
        server.request_as(token, "GET", &path, None).await.status,
        404
    );
    let write = json!({"data": {"value": "one"}});
    assert_eq!(
        server
            .request_as(token, "POST", &path, Some(&write))
            .await
            .status,
        403
    );
    for kind in ["jwt", "kubernetes"] {
        let mount = format!("sys/auth/{kind}-{mount}");
        server
            .request("POST", &mount, Some(&json!({"type": kind})))
            .await
            .expect(kind);
    }
}

#[tokio::test]
async fn vault_tokens_expire() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = server.mount_kv(2).await;
    let policy = server
        .write_policy(&format!(
            "path \"{mount}/data/*\" {{ capabilities = [\"read\"] }}"
        ))
        .await;
    let token = server.create_token(&[&policy], "1s").await;
    let path = format!("{mount}/data/a");
    assert_eq!(
        server.request_as(&token, "GET", &path, None).await.status,
        404
    );
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while server.request_as(&token, "GET", &path, None).await.status != 403 {
        assert!(std::time::Instant::now() < deadline, "the token lives on");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn vault_is_sealed_and_unsealed() {
    let Some(server) = available(VaultServer::start().await) else {
        return;
    };
    let mount = server.mount_kv(2).await;
    let path = format!("{mount}/data/a");
    let write = json!({"data": {"value": "one"}});
    server
        .request("POST", &path, Some(&write))
        .await
        .expect("write");
    server.seal().await;
    let sealed = server.request("GET", &path, None).await;
    assert_eq!(
        (sealed.status.as_u16(), &sealed.body["errors"][0]),
        (503, &json!("Vault is sealed"))
    );
    server.unseal().await;
    let read = server.request("GET", &path, None).await.expect("read");
    assert_eq!(read["data"]["data"]["value"], "one");
}

#[tokio::test]
async fn a_vault_standby_redirects_and_takes_over() {
    let options = VaultOptions::default()
        .with_standby()
        .with_redirect_to_tls();
    let Some(server) = available(VaultServer::start_with(&options).await) else {
        return;
    };
    let authority = std::fs::read(server.ca_file()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([reqwest::Certificate::from_pem(&authority).unwrap()])
        .build()
        .unwrap();
    let ask = async || {
        let url = format!("{}/v1/sys/mounts", server.standby_tls_address());
        client
            .get(url)
            .header("x-vault-token", server.root_token())
            .send()
            .await
            .unwrap()
    };
    let answer = ask().await;
    assert_eq!(answer.status(), 307);
    let active = format!("{}/v1/sys/mounts", server.tls_address());
    assert_eq!(answer.headers()["location"].to_str().unwrap(), active);

    server.step_down().await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while ask().await.status() != 200 {
        assert!(
            std::time::Instant::now() < deadline,
            "the standby does not take over"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(server.request("GET", "sys/mounts", None).await.status, 307);
}

#[tokio::test]
async fn vault_checks_client_certificates() {
    let Some(server) = available(VaultServer::start().await) else {
        return;
    };
    let (certificate, key) = server.client_certificate();
    let pem = [
        std::fs::read(certificate).unwrap(),
        std::fs::read(key).unwrap(),
    ]
    .concat();
    let authority = std::fs::read(server.ca_file()).unwrap();
    let builder = || {
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(&authority).unwrap()])
    };
    let known = builder()
        .identity(reqwest::Identity::from_pem(&pem).unwrap())
        .build()
        .unwrap();
    let unknown = builder().build().unwrap();
    let health = |address: &str| format!("{address}/v1/sys/health");
    let mutual = health(server.mtls_address());
    assert_eq!(known.get(&mutual).send().await.unwrap().status(), 200);
    assert!(unknown.get(&mutual).send().await.is_err());
    assert_eq!(
        unknown
            .get(health(server.tls_address()))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn postgres_answers_with_and_without_tls() {
    let Some(mut server) = available(Postgres::start().await) else {
        return;
    };
    let encrypted = |url: String| async move {
        let mut connection = PgConnection::connect(&url).await?;
        let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        sqlx::query_scalar::<_, bool>(query)
            .fetch_one(&mut connection)
            .await
    };
    assert!(
        !encrypted(format!("{}?sslmode=disable", server.url()))
            .await
            .unwrap()
    );
    let verified = format!("{}?sslmode=verify-full", server.url());
    let trusted = format!("{verified}&sslrootcert={}", server.ca_file().display());
    assert!(encrypted(trusted.clone()).await.unwrap());
    assert!(
        encrypted(verified).await.is_err(),
        "nobody trusts the authority unasked"
    );

    server.kill();
    assert!(encrypted(trusted.clone()).await.is_err());
    server.restart().unwrap();
    assert!(encrypted(trusted).await.unwrap());
}

#[tokio::test]
async fn postgres_asks_some_roles_for_a_password() {
    let Some(server) = Postgres::start_or_env().await else {
        return;
    };
    let mut connection = PgConnection::connect(server.url()).await.unwrap();
    let role = format!("e2e_{}", uuid::Uuid::new_v4().simple());
    let create = format!("CREATE ROLE {role} LOGIN PASSWORD 'right' IN ROLE password_users");
    sqlx::query(sqlx::AssertSqlSafe(create))
        .execute(&mut connection)
        .await
        .unwrap();
    let connect = async |password: &str| {
        let url = server
            .url()
            .replace("postgres@", &format!("{role}:{password}@"));
        PgConnection::connect(&url).await
    };
    assert!(connect("right").await.is_ok());
    let refused = connect("wrong").await.unwrap_err();
    assert_eq!(
        refused.as_database_error().unwrap().code().unwrap(),
        "28P01"
    );
    sqlx::query(sqlx::AssertSqlSafe(format!("DROP ROLE {role}")))
        .execute(&mut connection)
        .await
        .unwrap();
}
