//! The conformance suite, with a real LocalStack.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests are tests"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use secret_persistence_aws::policy::{PolicyOptions, iam_policy};
use secret_persistence_aws::{AwsSecretsManager, Config, SETTINGS};
use secret_persistence_core::conformance::{self, Options, Outsider};
use secret_persistence_core::{
    CheckOptions, Coordinate, ErrorKind, Owner, Read, Result, SecretPersistence,
    SecretPersistenceExt, SecretValue, Timestamp, Write, Written,
};
use serde_json::Value;
use support::evaluator::{Ask, allows};
use support::gate::{Act, Gate, Seen};
use support::{config, coordinate, localstack};

const KEY: &str = "arn:aws:kms:us-east-1:000000000000:key/11111111-2222-3333-4444-555555555555";

#[tokio::test(flavor = "multi_thread")]
async fn localstack_keeps_every_promise() {
    let Some(url) = localstack("localstack_keeps_every_promise") else {
        return;
    };
    let owner = Owner::parse("conformance").unwrap();
    let setup = config(&url).owner(owner);
    let store: Arc<dyn SecretPersistence> = Arc::new(setup.clone().connect().await);
    let outsider = SomebodyElse::new(localstack("outsider").unwrap());
    let options = Options::default()
        .with_owner(Owner::parse("conformance").unwrap())
        .with_outsider(Arc::new(outsider))
        .with_reopen(move || {
            let setup = setup.clone();
            Box::pin(
                async move { Ok(Arc::new(setup.connect().await) as Arc<dyn SecretPersistence>) },
            )
        });
    let report = conformance::run(&store, &options).await;
    println!("{report}");
    report.assert_passed();
}

/// Another implementation than LocalStack's. It differs from AWS in that it takes values above 64 KiB and
/// any number of requests, and checks no names: nothing that the suite relies on.
#[tokio::test(flavor = "multi_thread")]
async fn moto_keeps_every_promise() {
    let Some(moto) = e2e::Moto::start_or_env().await else {
        return;
    };
    let owner = Owner::parse("conformance").unwrap();
    let store = config(moto.url()).owner(owner.clone()).connect().await;
    let store: Arc<dyn SecretPersistence> = Arc::new(store);
    let options = Options::default()
        .with_owner(owner)
        .with_outsider(Arc::new(SomebodyElse::new(moto.url().to_owned())));
    let report = conformance::run(&store, &options).await;
    println!("{report}");
    report.assert_passed();
}

/// If deletes are immediate by configuration, nothing can be restored, and the store says so.
#[tokio::test(flavor = "multi_thread")]
async fn localstack_keeps_every_promise_with_immediate_deletes() {
    let Some(url) = localstack("localstack_keeps_every_promise_with_immediate_deletes") else {
        return;
    };
    let setup = config(&url).set("force-delete", true);
    let store: Arc<dyn SecretPersistence> = Arc::new(setup.connect().await);
    assert!(!store.capabilities().recovery);
    let report = conformance::run(&store, &Options::default()).await;
    println!("{report}");
    report.assert_passed();
}

/// The policy allows every request of a conformance run, and is minimal: without any one action,
/// some request would be refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_policy_is_enough_and_the_least() {
    let Some(url) = localstack("the_policy_is_enough_and_the_least") else {
        return;
    };
    let gate = Gate::open(Some(&url), |_| Act::Pass).await;
    let scoped = config(&gate.url)
        .set("tag-key", "AirbyteManaged")
        .set("kms-key-arn", KEY);
    let store: Arc<dyn SecretPersistence> = Arc::new(scoped.connect().await);
    conformance::run(&store, &Options::default())
        .await
        .assert_passed();
    let asks: Vec<Ask> = gate.seen().iter().flat_map(asks_of).collect();
    assert!(asks.len() > 500, "{} asks", asks.len());

    // The suite also reads an external name.
    let options = PolicyOptions::new("us-east-1", "000000000000")
        .with_tag_key("AirbyteManaged")
        .with_kms_key(KEY)
        .with_external("conformance-missing-");
    let policy = iam_policy(&options).unwrap();
    for ask in &asks {
        assert!(allows(&policy, ask), "refused: {ask:?}");
    }
    let mut dropped = 0;
    for (statement, action) in actions_of(&policy) {
        let poorer = without(&policy, statement, &action);
        assert!(
            asks.iter().any(|ask| !allows(&poorer, ask)),
            "nothing needs {action}"
        );
        dropped += 1;
    }
    assert_eq!(dropped, 11);

    // Conditions are necessary too: a secret without our tag is not accessible.
    for ask in asks.iter().filter(|ask| !ask.context.is_empty()) {
        let mut foreign = ask.clone();
        foreign.context.clear();
        assert!(!allows(&policy, &foreign), "allowed: {foreign:?}");
    }

    // A reader needs only the read-only policy.
    let reading = iam_policy(&options.with_read_only(true)).unwrap();
    let changes = [
        "CreateSecret",
        "DeleteSecret",
        "RestoreSecret",
        "TagResource",
        "GenerateDataKey",
    ];
    for ask in &asks {
        let is_change = changes.iter().any(|change| ask.action.ends_with(change));
        assert_eq!(allows(&reading, ask), !is_change, "{ask:?}");
    }
}

/// Airbyte's documented policy grants neither deletes nor batches. Installations with it keep
/// working.
#[tokio::test(flavor = "multi_thread")]
async fn an_installation_under_airbytes_own_policy_keeps_working() {
    let Some(url) = localstack("an_installation_under_airbytes_own_policy_keeps_working") else {
        return;
    };
    let logs = e2e::Logs::default();
    // Global, because the concurrent requests run on other threads. Only this test uses it.
    let _ = tracing::dispatcher::set_global_default(logs.dispatch());
    let gate = Gate::open(Some(&url), |seen| match seen.action.as_str() {
        "BatchGetSecretValue" | "DeleteSecret" => Act::error("AccessDeniedException"),
        _ => Act::Pass,
    })
    .await;
    let store = config(&gate.url).connect().await;
    assert_eq!(store.capabilities().read_batch, 20);
    let writes: Vec<Write> = (0..25)
        .map(|n| Write::new(coordinate(), SecretValue::new(format!("value {n}"))))
        .collect();
    for written in store.write_many(&writes).await {
        assert_eq!(written.unwrap(), Written::Created);
    }
    gate.take_actions();
    let names: Vec<Coordinate> = writes
        .iter()
        .map(|write| write.coordinate.clone().into())
        .collect();
    for round in 0..2 {
        for (read, write) in store.read_many(&names).await.into_iter().zip(&writes) {
            assert_eq!(read.unwrap().value, write.value);
        }
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for action in gate.take_actions() {
            *count.entry(action).or_default() += 1;
        }
        // The first round learns it, chunk by chunk. Later ones do not try again.
        let denied = if round == 0 { 2 } else { 0 };
        assert_eq!(
            count.get("BatchGetSecretValue").copied().unwrap_or(0),
            denied
        );
        assert_eq!(count["GetSecretValue"], 25);
        assert_eq!(store.capabilities().read_batch, 1);
    }
    let warnings = logs
        .text()
        .matches("may not perform secretsmanager:BatchGetSecretValue")
        .count();
    assert_eq!(warnings, 1, "{}", logs.text());

    let report = store.check(&CheckOptions::default()).await;
    assert!(
        report
            .summary()
            .contains("works, cannot delete: superseded secrets will remain"),
        "{report}"
    );
    let refused = report.failures().next().unwrap().1;
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert!(
        refused.message().contains("secretsmanager:DeleteSecret"),
        "{refused}"
    );

    let cleaner = config(&url).set("force-delete", true).connect().await;
    for write in &writes {
        cleaner
            .delete(&write.coordinate, &Default::default())
            .await
            .unwrap();
    }
    cleaner
        .delete(&report.coordinate, &Default::default())
        .await
        .unwrap();
}

/// One request per twenty secrets, all of them concurrent.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_secrets_are_five_requests() {
    let Some(url) = localstack("a_hundred_secrets_are_five_requests") else {
        return;
    };
    let gate = Gate::open(Some(&url), |_| Act::Pass).await;
    let store = config(&gate.url).set("force-delete", true).connect().await;
    let writes: Vec<Write> = (0..100)
        .map(|n| Write::new(coordinate(), SecretValue::new(format!("value {n}"))))
        .collect();
    for written in store.write_many(&writes).await {
        written.unwrap();
    }
    assert_eq!(gate.take_actions().len(), 100);
    let names: Vec<Coordinate> = writes
        .iter()
        .map(|write| write.coordinate.clone().into())
        .collect();
    let reads: Vec<Result<Read>> = store.read_many(&names).await;
    for (read, write) in reads.into_iter().zip(&writes) {
        assert_eq!(read.unwrap().value, write.value);
    }
    assert_eq!(gate.take_actions(), vec!["BatchGetSecretValue"; 5]);
    for write in &writes {
        store
            .delete(&write.coordinate, &Default::default())
            .await
            .unwrap();
    }
}

/// The create arrived, but its response did not: the same write finds its own value.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_create_is_recognised() {
    let Some(url) = localstack("an_interrupted_create_is_recognised") else {
        return;
    };
    let first = std::sync::atomic::AtomicBool::new(true);
    let gate = Gate::open(Some(&url), move |seen| {
        if seen.action == "CreateSecret" && first.swap(false, std::sync::atomic::Ordering::Relaxed)
        {
            Act::DropAnswer
        } else {
            Act::Pass
        }
    })
    .await;
    let store = config(&gate.url).set("force-delete", true).connect().await;
    let write = Write::new(coordinate(), SecretValue::new("once\nonly".into()));
    let lost = store.write(write.clone()).await.unwrap_err();
    assert!(lost.is_retryable(), "{lost}");
    assert_eq!(
        store.write(write.clone()).await.unwrap(),
        Written::AlreadySame
    );
    let tokens: BTreeSet<String> = gate
        .seen()
        .iter()
        .filter_map(|seen| seen.body["ClientRequestToken"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(tokens.len(), 2, "each attempt has a token of its own");
    store
        .delete(&write.coordinate, &Default::default())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_described_and_listed_with_tags_key_and_expiry() {
    let Some(url) = localstack("what_is_written_is_described") else {
        return;
    };
    let tagged = || {
        config(&url)
            .set("tags", "team=data platform")
            .set("tag-key", "AirbyteManaged")
            .set("kms-key-arn", KEY)
            .set("description", "described")
            .set("force-delete", true)
            .owner(Owner::parse("prod").unwrap())
    };
    let store = tagged().connect().await;
    let expires: Timestamp = "2031-02-03T04:05:06Z".parse().unwrap();
    let write = Write::new(coordinate(), SecretValue::new("v".into())).with_expires(Some(expires));
    store.write(write.clone()).await.unwrap();
    let entry = store.describe(&write.coordinate).await.unwrap();
    let tags: Vec<(&str, &str)> = entry
        .tags
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        tags,
        [
            ("AirbyteManaged", "true"),
            ("secret-persistence:expires", "2031-02-03T04:05:06Z"),
            ("secret-persistence:owner", "prod"),
            ("team", "data platform"),
        ]
    );
    assert_eq!(entry.owner.as_deref(), Some("prod"));
    assert_eq!(entry.expires, Some(expires));
    assert_eq!(entry.key.as_deref(), Some(KEY));
    assert!(entry.created.is_some());

    let prefix = write.coordinate.as_str().to_owned();
    let list = async |store: &AwsSecretsManager| {
        let options = secret_persistence_core::ListOptions::default()
            .with_prefix(&prefix)
            .with_details(true);
        store.list_page(&options, None).await.unwrap()
    };
    assert_eq!(list(&store).await.entries, [entry]);
    // With another installation's tag, it is not in the listing.
    let other = tagged().set("tag-key", "Staging").connect().await;
    assert!(list(&other).await.entries.is_empty());

    let identity = store.identity().await.unwrap();
    assert_eq!(identity.store, "aws");
    assert!(identity.principal.starts_with("arn:aws:"), "{identity}");
    assert!(identity.location.contains("000000000000") && identity.location.contains("us-east-1"));
    store
        .delete(&write.coordinate, &Default::default())
        .await
        .unwrap();
}

/// Airbyte's old form: first the full name, then the base.
#[tokio::test(flavor = "multi_thread")]
async fn unversioned_names_are_found_where_the_option_says_so() {
    let Some(url) = localstack("unversioned_names") else {
        return;
    };
    let outsider = SomebodyElse::new(url.clone());
    let (old, both, missing) = (coordinate(), coordinate(), coordinate());
    let value = |text: &str| SecretValue::new(text.to_owned());
    outsider.create(old.base(), &value("old")).await;
    outsider.create(both.base(), &value("old")).await;
    outsider.create(both.as_str(), &value("new")).await;
    let names: Vec<Coordinate> = [&missing, &old, &both]
        .into_iter()
        .cloned()
        .map(Coordinate::from)
        .collect();
    let gate = Gate::open(Some(&url), |_| Act::Pass).await;
    let open = async |unversioned: bool| {
        let setup = config(&gate.url).set("unversioned-names", unversioned);
        setup.connect().await
    };
    let reads = open(true).await.read_many(&names).await;
    assert_eq!(reads[0].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        reads[0].as_ref().unwrap_err().coordinate(),
        Some(missing.as_str())
    );
    assert_eq!(reads[1].as_ref().unwrap().value, value("old"));
    assert_eq!(reads[2].as_ref().unwrap().value, value("new"));
    assert_eq!(gate.take_actions(), ["BatchGetSecretValue"; 2]);
    let reads = open(false).await.read_many(&names).await;
    assert_eq!(reads[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    for name in [old.base(), both.base(), both.as_str()] {
        outsider.delete(name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assumed_on_top_of_keys() {
    let Some(url) = localstack("a_role_is_assumed_on_top_of_keys") else {
        return;
    };
    let gate = Gate::open(Some(&url), |_| Act::Pass).await;
    let store = config(&gate.url)
        .set("role-arn", "arn:aws:iam::000000000000:role/airbyte")
        .set("external-id", "ext-1")
        .set("session-name", "session-1")
        .connect()
        .await;
    let missing: Coordinate = coordinate().into();
    for _ in 0..2 {
        assert_eq!(
            store.read(&missing).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    let seen = gate.seen();
    let actions: Vec<&str> = seen.iter().map(|seen| seen.action.as_str()).collect();
    // Only once: the session is cached.
    assert_eq!(
        actions,
        ["sts:AssumeRole", "GetSecretValue", "GetSecretValue"]
    );
    assert_eq!(seen[0].signer(), support::KEY_ID);
    assert_eq!(seen[0].body["ExternalId"], "ext-1");
    assert_eq!(seen[0].body["RoleSessionName"], "session-1");
    assert_ne!(seen[1].signer(), support::KEY_ID);
    assert!(
        store
            .identity()
            .await
            .unwrap()
            .principal
            .contains("assumed-role/airbyte")
    );
}

/// The permissions that a recorded request needs, from AWS's documentation of each action.
fn asks_of(seen: &Seen) -> Vec<Ask> {
    const TAG: &str = "AirbyteManaged";
    let arn =
        |id: &str| format!("arn:aws:secretsmanager:us-east-1:000000000000:secret:{id}-AbCdEf");
    let on = |action: &str, id: &str| {
        let ask = Ask::new(format!("secretsmanager:{action}"), arn(id));
        if id.starts_with("airbyte_") {
            ask.with(format!("secretsmanager:ResourceTag/{TAG}"), "true")
        } else {
            ask
        }
    };
    let key = |action: &str| {
        Ask::new(action, KEY).with("kms:ViaService", "secretsmanager.us-east-1.amazonaws.com")
    };
    match seen.action.as_str() {
        "BatchGetSecretValue" => {
            let ids = seen.body["SecretIdList"].as_array().unwrap();
            let mut asks = vec![Ask::new("secretsmanager:BatchGetSecretValue", "*")];
            asks.extend(
                ids.iter()
                    .map(|id| on("GetSecretValue", id.as_str().unwrap())),
            );
            asks.push(key("kms:Decrypt"));
            asks
        }
        "CreateSecret" => {
            let tags: BTreeMap<&str, &str> = seen.body["Tags"]
                .as_array()
                .expect("every create brings its tags")
                .iter()
                .map(|tag| (tag["Key"].as_str().unwrap(), tag["Value"].as_str().unwrap()))
                .collect();
            let name = seen.secret().unwrap();
            let mut asks: Vec<Ask> = ["CreateSecret", "TagResource"]
                .map(|action| {
                    Ask::new(format!("secretsmanager:{action}"), arn(name))
                        .with(format!("aws:RequestTag/{TAG}"), tags[TAG])
                })
                .into();
            assert_eq!(seen.body["KmsKeyId"], KEY);
            asks.extend([key("kms:GenerateDataKey"), key("kms:Decrypt")]);
            asks
        }
        "GetSecretValue" => vec![
            on("GetSecretValue", seen.secret().unwrap()),
            key("kms:Decrypt"),
        ],
        "DeleteSecret" | "RestoreSecret" => vec![on(&seen.action, seen.secret().unwrap())],
        // Also requested for missing secrets, which have no tag.
        "DescribeSecret" => {
            vec![Ask::new(
                "secretsmanager:DescribeSecret",
                arn(seen.secret().unwrap()),
            )]
        }
        "ListSecrets" => vec![Ask::new("secretsmanager:ListSecrets", "*")],
        // Needs no permission.
        "sts:GetCallerIdentity" => Vec::new(),
        other => panic!("a request that the table does not know: {other}"),
    }
}

fn actions_of(policy: &Value) -> Vec<(usize, String)> {
    let statements = policy["Statement"].as_array().unwrap().iter().enumerate();
    statements
        .flat_map(|(at, statement)| {
            let actions = statement["Action"].as_array().unwrap().iter();
            actions.map(move |action| (at, action.as_str().unwrap().to_owned()))
        })
        .collect()
}

fn without(policy: &Value, statement: usize, action: &str) -> Value {
    let mut policy = policy.clone();
    let actions = policy["Statement"][statement]["Action"]
        .as_array_mut()
        .unwrap();
    actions.retain(|other| other != action);
    policy
}

/// Another client of the same account, with the bare SDK.
struct SomebodyElse(aws_sdk_secretsmanager::Client);

impl SomebodyElse {
    fn new(url: String) -> Self {
        use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
        Self(aws_sdk_secretsmanager::Client::from_conf(
            aws_sdk_secretsmanager::Config::builder()
                .behavior_version(BehaviorVersion::v2026_01_12())
                .region(Region::new("us-east-1"))
                .endpoint_url(url)
                .credentials_provider(Credentials::new(
                    support::KEY_ID,
                    support::SECRET_KEY,
                    None,
                    None,
                    "test",
                ))
                .build(),
        ))
    }

    async fn create(&self, name: &str, value: &SecretValue) {
        let create = self
            .0
            .create_secret()
            .name(name)
            .secret_string(value.expose());
        create.send().await.unwrap();
    }

    async fn delete(&self, name: &str) {
        let delete = self
            .0
            .delete_secret()
            .secret_id(name)
            .force_delete_without_recovery(true);
        delete.send().await.unwrap();
    }
}

impl fmt::Debug for SomebodyElse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SomebodyElse")
    }
}

#[async_trait]
impl Outsider for SomebodyElse {
    async fn insert(&self, name: &str, value: &SecretValue) -> Result<Coordinate> {
        if value.is_empty() {
            // LocalStack accepts it, but AWS does not: the shortest value has one character.
            return Err(secret_persistence_core::Error::new(
                ErrorKind::InvalidValue,
                "AWS stores no empty value",
            ));
        }
        self.create(name, value).await;
        Coordinate::parse(name)
    }

    async fn remove(&self, coordinate: &Coordinate) -> Result<()> {
        self.delete(coordinate.as_str()).await;
        Ok(())
    }
}

/// A store opened from a URL, as `migrate` opens it, works.
#[tokio::test(flavor = "multi_thread")]
async fn a_url_opens_the_store() {
    let Some(url) = localstack("a_url_opens_the_store") else {
        return;
    };
    let endpoint = url.replace(':', "%3A").replace('/', "%2F");
    let text =
        format!("aws://us-east-1?endpoint-url={endpoint}&tag-key=AirbyteManaged&force-delete=true");
    let store_url = secret_persistence_core::settings::StoreUrl::parse(&text).unwrap();
    let settings = SETTINGS.from_url(&store_url, &|name| match name {
        "AWS_SECRET_MANAGER_ACCESS_KEY_ID" => Some(support::KEY_ID.into()),
        "AWS_SECRET_MANAGER_SECRET_ACCESS_KEY" => Some(support::SECRET_KEY.into()),
        _ => None,
    });
    let config = Config::from_settings(&settings.unwrap()).unwrap();
    let store = AwsSecretsManager::connect(config).await.unwrap();
    let report = store.check(&CheckOptions::default()).await;
    assert_eq!(report.summary(), "works", "{report}");
}

/// The whole stack of layers over it passes the suite too.
#[tokio::test(flavor = "multi_thread")]
async fn localstack_keeps_every_promise_under_the_layers() {
    use secret_persistence_core::layer::{CacheOptions, Layers, RetryOptions, Stack};

    let Some(url) = localstack("localstack_keeps_every_promise_under_the_layers") else {
        return;
    };
    let store = Arc::new(config(&url).connect().await);
    let stack = Stack::over(store)
        .with_cache(CacheOptions::default())
        .with_retry(RetryOptions::default())
        .with_limit(AwsSecretsManager::quotas());
    let store: Arc<dyn SecretPersistence> = Layers::over(stack).build();
    let report = conformance::run(&store, &Options::default()).await;
    println!("{report}");
    report.assert_passed();
}
