//! Hostile servers: every operation of every backend ends with a typed error, in bounded time and memory, and shows
//! nothing of what was sent.

use std::{error::Error as _, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use e2e::{Asked, Authority, Honest, Hostile, Misbehaviour};
use futures::{TryStreamExt as _, future::join_all};
use secret_persistence_aws::AwsSecretsManager;
use secret_persistence_azure::AzureKeyVault;
use secret_persistence_core::{
    DeleteOptions, Entry, Error, ErrorKind, ListOptions, ManagedCoordinate, Scope,
    SecretPersistence, SecretPersistenceExt, SecretValue, Write, settings::SettingMap,
};
use secret_persistence_gcp::GoogleSecretManager;
use secret_persistence_vault::Vault;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

/// Longer than any deadline of ours.
const PATIENCE: Duration = Duration::from_secs(90);

/// In every answer; no error may show it.
const CANARY: &str = "canary-of-the-answer";

/// The largest response that each store reads, in bytes.
const AWS_LIMIT: u64 = 16 << 20;
const AZURE_LIMIT: u64 = 4 << 20;
const VAULT_LIMIT: u64 = 32 << 20;

fn coordinate() -> ManagedCoordinate {
    ManagedCoordinate::new(&Scope::workspace(Uuid::new_v4()), Uuid::new_v4(), 1).unwrap()
}

/// Every operation once, all at the same time.
async fn all(store: &dyn SecretPersistence) -> Vec<(&'static str, Result<(), Error>)> {
    let name = coordinate();
    let (external, value) = (name.clone().into(), SecretValue::new("value".to_owned()));
    let (list, delete) = (ListOptions::default(), DeleteOptions::default());
    let (read, write, deleted, restored, described, listed, identity) = tokio::join!(
        store.read(&external),
        store.write(Write::new(name.clone(), value)),
        store.delete(&name, &delete),
        store.restore(&name),
        store.describe(&name),
        store.list_page(&list, None),
        store.identity(),
    );
    vec![
        ("read", read.map(drop)),
        ("write", write.map(drop)),
        ("delete", deleted),
        ("restore", restored),
        ("describe", described.map(drop)),
        ("list", listed.map(drop)),
        ("identity", identity.map(drop)),
    ]
}

/// Meets one misbehaviour with every operation.
async fn endure(misbehaviour: Misbehaviour, store: &dyn SecretPersistence) {
    let Ok(outcomes) = timeout(PATIENCE, all(store)).await else {
        panic!("{misbehaviour:?}: an operation has no end");
    };
    for (operation, outcome) in outcomes {
        let error = match outcome {
            Err(error) => error,
            Ok(()) => {
                let readable = matches!(
                    misbehaviour,
                    Misbehaviour::Dates(_) | Misbehaviour::Numbers(_)
                );
                assert!(
                    operation != "read" || readable,
                    "{misbehaviour:?} was read as a value"
                );
                continue;
            }
        };
        let mut shown = format!("{error} {error:?} {:?}", error.hint());
        let mut cause = error.source();
        while let Some(error) = cause {
            shown.push_str(&format!("{error} {error:?}"));
            cause = error.source();
        }
        for canary in [CANARY, "Welcome", "aaaaaaaa"] {
            assert!(
                !shown.contains(canary),
                "{misbehaviour:?}, {operation}: {shown}"
            );
        }
        let wait = error.retry_after().unwrap_or_default();
        assert!(wait <= Error::LONGEST_WAIT, "{misbehaviour:?}: {wait:?}");
    }
}

/// All misbehaviours at once, each from a server of its own.
async fn endure_all<F>(misbehaviours: &[Misbehaviour], meet: impl Fn(Misbehaviour) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let met = misbehaviours
        .iter()
        .map(|&misbehaviour| tokio::spawn(meet(misbehaviour)));
    for (result, misbehaviour) in join_all(met).await.into_iter().zip(misbehaviours) {
        assert!(result.is_ok(), "{misbehaviour:?}: {result:?}");
    }
}

/// A listing that goes round in a circle of two pages.
async fn expect_circle_ends(store: &dyn SecretPersistence) {
    let options = ListOptions::default();
    let listing = store.list(&options).try_collect::<Vec<Entry>>();
    let ended = timeout(PATIENCE, listing).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Unexpected);
}

/// Names the other page of two.
fn other_page(asked: &str) -> &'static str {
    if asked.contains("page-a") {
        "page-b"
    } else {
        "page-a"
    }
}

async fn aws(hostile: &Hostile) -> AwsSecretsManager {
    let settings = secret_persistence_aws::SETTINGS.from_pairs([
        ("region", "us-east-1"),
        ("endpoint-url", hostile.url()),
        ("access-key-id", "AKIAIOSFODNN7EXAMPLE"),
        ("secret-access-key", "secret"),
    ]);
    let config = secret_persistence_aws::Config::from_settings(&settings.unwrap()).unwrap();
    AwsSecretsManager::connect(config).await.unwrap()
}

fn aws_answer(asked: &Asked) -> Honest {
    let request: Value = serde_json::from_str(&asked.body).unwrap_or_default();
    let name = request["SecretId"]
        .as_str()
        .unwrap_or("airbyte_w_secret_x_v1");
    Honest::json(
        200,
        json!({
            "ARN": format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:{name}-AbCdEf"),
            "Name": name,
            "SecretString": CANARY,
            "CreatedDate": 1_600_000_000,
            "LastChangedDate": 1_600_000_000,
            "DeletedDate": 1_600_000_000,
            "DeletionDate": 1_600_000_000,
            "Tags": [{ "Key": "expires", "Value": "2026-11-21T06:47:53Z" }],
            "SecretList": [{ "Name": "airbyte_w_secret_x_v1", "CreatedDate": 1_600_000_000 }],
        }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_endures_a_hostile_server() {
    endure_all(Misbehaviour::ALL, |misbehaviour| async move {
        let hostile = Hostile::start(misbehaviour, aws_answer).await.unwrap();
        endure(misbehaviour, &aws(&hostile).await).await;
        hostile.assert_bounded(AWS_LIMIT);
    })
    .await;
    let circle = Hostile::saying(None, |asked| {
        let next = other_page(&asked.body);
        Honest::json(200, json!({ "SecretList": [], "NextToken": next }))
    });
    expect_circle_ends(&aws(&circle.await.unwrap()).await).await;
}

async fn google(hostile: &Hostile) -> GoogleSecretManager {
    let settings = secret_persistence_gcp::SETTINGS.from_pairs([
        ("project-id", "my-project"),
        ("endpoint-url", hostile.url()),
        ("credentials-source", "anonymous"),
    ]);
    let config = secret_persistence_gcp::Config::from_settings(&settings.unwrap()).unwrap();
    GoogleSecretManager::connect(config).await.unwrap()
}

fn google_answer(asked: &Asked) -> Honest {
    let path = asked.path.split(['?', ':']).next().unwrap_or_default();
    let name = path.trim_start_matches("/v1/").replace("/latest", "/1");
    Honest::json(
        200,
        json!({
            "name": name,
            "payload": { "data": BASE64_STANDARD.encode(CANARY) },
            "createTime": "2024-11-21T06:47:53Z",
            "expireTime": "2026-11-21T06:47:53Z",
            "etag": "\"1\"",
            "state": 1,
            "labels": { "owner": "tests" },
            "secrets": [{
                "name": "projects/1/secrets/airbyte_w_secret_x_v1",
                "createTime": "2024-11-21T06:47:53Z",
                "expireTime": "2026-11-21T06:47:53Z",
            }],
            "totalSize": 1,
        }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn google_endures_a_hostile_server() {
    // The SDK has no place for a limit of ours: only its deadline ends what has no end.
    let endless = [Misbehaviour::Bomb, Misbehaviour::EndlessBody];
    let misbehaviours: Vec<_> = Misbehaviour::ALL
        .iter()
        .copied()
        .filter(|misbehaviour| !endless.contains(misbehaviour))
        .collect();
    endure_all(&misbehaviours, |misbehaviour| async move {
        let hostile = Hostile::start(misbehaviour, google_answer).await.unwrap();
        endure(misbehaviour, &google(&hostile).await).await;
    })
    .await;
    let circle = Hostile::saying(None, |asked| {
        let next = other_page(&asked.path);
        Honest::json(200, json!({ "secrets": [], "nextPageToken": next }))
    });
    expect_circle_ends(&google(&circle.await.unwrap()).await).await;
}

async fn azure(hostile: &Hostile, authority: &Authority) -> AzureKeyVault {
    let ca_file = authority.ca_file().to_str().unwrap();
    let settings = secret_persistence_azure::SETTINGS.from_pairs([
        ("vault-url", hostile.url()),
        ("authority-host", hostile.url()),
        ("ca-file", ca_file),
        ("verify-challenge", "false"),
        ("timeout-seconds", "3"),
        ("credentials", "client-secret"),
        ("tenant-id", "11111111-2222-3333-4444-555555555555"),
        ("client-id", "11111111-2222-3333-4444-555555555555"),
        ("client-secret", "secret"),
    ]);
    let config = secret_persistence_azure::Config::from_settings(&settings.unwrap()).unwrap();
    AzureKeyVault::connect(config).await.unwrap()
}

/// The vault and its login, each of which may be the honest one.
fn azure_answer(asked: &Asked, honest_login: bool) -> Honest {
    let host = asked
        .head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("host: ")
                .map(str::to_owned)
        })
        .unwrap_or_default();
    if asked.path.contains("oauth2") {
        let login = Honest::json(
            200,
            json!({ "token_type": "Bearer", "expires_in": 3600, "access_token": "a.b.c" }),
        );
        return if honest_login { login.kept() } else { login };
    }
    if !asked.head.to_ascii_lowercase().contains("authorization:") {
        let challenge = format!(
            "Bearer authorization=\"https://{host}/11111111-2222-3333-4444-555555555555\", \
             resource=\"https://vault.azure.net\""
        );
        return Honest::json(401, json!({}))
            .with_header("WWW-Authenticate", &challenge)
            .kept();
    }
    let path = asked.path.split('?').next().unwrap_or_default();
    let name = path.split('/').nth(2).unwrap_or_default();
    let facts = |name: &str| {
        json!({
            "id": format!("https://{host}/secrets/{name}/0123456789abcdef0123456789abcdef"),
            "attributes": {
                "enabled": true,
                "created": 1_600_000_000,
                "updated": 1_600_000_000,
                "exp": 1_900_000_000,
                "recoverableDays": 90,
                "recoveryLevel": "Recoverable+Purgeable",
            },
            "tags": { "airbyte-coordinate": name.replace('-', "_") },
            "deletedDate": 1_600_000_000,
            "scheduledPurgeDate": 1_900_000_000,
            "recoveryId": format!("https://{host}/deletedsecrets/{name}"),
        })
    };
    if name.is_empty() {
        return Honest::json(200, json!({ "value": [facts("airbyte-w-secret-x-v1")] }));
    }
    let mut secret = facts(name);
    secret["value"] = CANARY.into();
    Honest::json(200, secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_endures_a_hostile_server() {
    let authority = Arc::new(Authority::new().unwrap());
    for honest_login in [true, false] {
        endure_all(Misbehaviour::ALL, |misbehaviour| {
            let authority = Arc::clone(&authority);
            async move {
                let answer = move |asked: &Asked| azure_answer(asked, honest_login);
                let hostile = Hostile::start_with_tls(misbehaviour, &authority, answer);
                let hostile = hostile.await.unwrap();
                endure(misbehaviour, &azure(&hostile, &authority).await).await;
                hostile.assert_bounded(AZURE_LIMIT);
            }
        })
        .await;
    }
    let circle = Hostile::saying(Some(&authority), |asked| {
        if asked.path.contains("oauth2")
            || !asked.head.to_ascii_lowercase().contains("authorization:")
        {
            return azure_answer(asked, true);
        }
        let link = format!(
            "https://elsewhere.example/secrets?$skiptoken={}",
            other_page(&asked.path)
        );
        Honest::json(200, json!({ "value": [], "nextLink": link }))
    });
    expect_circle_ends(&azure(&circle.await.unwrap(), &authority).await).await;
}

async fn vault(hostile: &Hostile, role: bool) -> Result<Vault, Error> {
    let mut settings = SettingMap::new(secret_persistence_vault::SETTINGS.rows());
    settings.set("address", hostile.url())?;
    settings.set("prefix", "secret/")?;
    settings.set("timeout-seconds", "3")?;
    if role {
        settings.set("auth-method", "approle")?;
        settings.set("role-id", "role")?;
        settings.set("secret-id", "secret")?;
    } else {
        settings.set("token", "token")?;
    }
    Vault::connect_lazy(secret_persistence_vault::Config::from_settings(&settings)?).await
}

fn vault_answer(asked: &Asked, honest_opening: bool) -> Honest {
    let path = asked.path.trim_start_matches("/v1/");
    let opening = |body| {
        let answer = Honest::json(200, body);
        if honest_opening {
            answer.kept()
        } else {
            answer
        }
    };
    if path.starts_with("auth/approle") {
        return opening(json!({ "auth": {
            "client_token": "hvs.token", "lease_duration": 3600, "renewable": true,
        } }));
    }
    if path.starts_with("auth/token") {
        return opening(json!({
            "data": { "ttl": 3600, "renewable": true, "display_name": "tests" },
            "auth": { "client_token": "hvs.token", "lease_duration": 3600, "renewable": true },
        }));
    }
    if path.starts_with("sys/internal/ui/mounts") {
        return opening(json!({ "data": {
            "path": "secret/", "type": "kv", "options": { "version": "2" },
        } }));
    }
    let version = json!({ "created_time": "2024-11-21T06:47:53Z", "deletion_time": "", "destroyed": false, "version": 1 });
    let list = asked.method == "LIST" || asked.path.contains("list=true");
    let data = match path.strip_prefix("secret/") {
        Some(_) if list => json!({ "keys": ["airbyte_w_secret_x_v1"] }),
        Some(name) if name.starts_with("data/") => {
            json!({ "data": { "value": CANARY }, "metadata": version })
        }
        _ => json!({
            "current_version": 1,
            "created_time": "2024-11-21T06:47:53Z",
            "custom_metadata": { "airbyte-expires": "2026-11-21T06:47:53Z" },
            "versions": { "1": version },
        }),
    };
    Honest::json(200, json!({ "data": data }))
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_endures_a_hostile_server() {
    for (honest_opening, role) in [(true, false), (false, false), (false, true)] {
        endure_all(Misbehaviour::ALL, |misbehaviour| async move {
            let answer = move |asked: &Asked| vault_answer(asked, honest_opening);
            let hostile = Hostile::start(misbehaviour, answer).await.unwrap();
            match timeout(PATIENCE, vault(&hostile, role)).await.unwrap() {
                Ok(store) => endure(misbehaviour, &store).await,
                // A login, and the look at a token, are made when the store is opened.
                Err(error) => assert!(!honest_opening, "{misbehaviour:?}: {error}"),
            }
            hostile.assert_bounded(VAULT_LIMIT);
        })
        .await;
    }
}
