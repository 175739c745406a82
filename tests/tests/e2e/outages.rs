//! A copy survives outages of servers, and continues where it stopped.

use std::{sync::Arc, time::Duration};

use e2e::{
    FaultProxy, LocalStack, VaultServer, available,
    proxy::{Answer, Fault, Rule, aws_operation},
};
use secret_persistence_migrate::{MemoryJournal, MigrateOptions, Migration, Report, Stop};
use secret_persistence_vault::{PolicyOptions, policy};
use serde_json::json;

use crate::{
    fleet::{Fleet, expect_failures},
    stores::{Store, account, aws, repeating, sqlite, vault},
};

/// A fleet in an embedded store, about to move.
struct Departure {
    fleet: Fleet,
    source: Store,
    journal: Arc<MemoryJournal>,
    _folder: tempfile::TempDir,
}

impl Departure {
    async fn new(configurations: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = sqlite(&folder.path().join("secrets.db")).await;
        let fleet = Fleet::new(configurations);
        fleet.save_in(&source).await;
        Self {
            fleet,
            source,
            journal: Arc::default(),
            _folder: folder,
        }
    }

    fn to(&self, target: &Store) -> Migration {
        self.fleet.migration(&self.source, target, &self.journal)
    }

    fn secrets(&self) -> u64 {
        self.fleet.secrets.len() as u64
    }

    /// Fails the test unless this copy completes interrupted ones, and the target then contains
    /// everything once.
    async fn expect_resumed(&self, migration: &Migration, before: &Report, target: &Store) {
        let report = migration.copy().await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        let tally = report.tally;
        assert_eq!(
            before.tally.written + tally.written + tally.resumed,
            self.secrets(),
            "{tally:?} after {:?}",
            before.tally
        );
        self.expect_arrived(migration, target).await;
    }

    async fn expect_arrived(&self, migration: &Migration, target: &Store) {
        self.fleet.expect_verified(migration).await;
        self.fleet.expect_in(target).await;
        self.fleet.expect_in(&self.source).await;
    }
}

/// Copies, and acts when the proxy has received this many requests.
async fn copy_struck(
    migration: &Migration,
    proxy: &FaultProxy,
    (pattern, count): (&str, usize),
    strike: impl AsyncFnOnce(),
) -> Report {
    let strike = async {
        let reached = proxy.reached(pattern, count);
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("the copy gets that far");
        strike().await;
    };
    let (report, ()) = tokio::join!(migration.copy(), strike);
    report.unwrap()
}

/// Fails the test unless the copy was stopped in the middle.
#[track_caller]
fn expect_middle(report: &Report, secrets: u64) {
    let written = report.tally.written;
    assert!((1..secrets).contains(&written), "{written} of {secrets}");
}

/// Fails the test unless every secret was written once: version 2 counts its versions.
async fn expect_one_version_each(server: &VaultServer, mount: &str, fleet: &Fleet) {
    for name in fleet.secrets.keys() {
        let path = format!("{mount}/metadata/airbyte/{name}");
        let metadata = server.request("GET", &path, None).await.expect("metadata");
        assert_eq!(metadata["data"]["current_version"], 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vaults_token_expires_in_the_middle() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let departure = Departure::new(30).await;
    let mount = server.mount_kv(2).await;
    let options = PolicyOptions::new(format!("{mount}/airbyte/")).with_kv_version(Some(2));
    let policy = server.write_policy(&policy(&options).unwrap()).await;
    let proxy = FaultProxy::builder(server.address()).start().unwrap();

    // A maximum, so that early renewal does not help.
    let token = json!({
        "policies": [policy], "no_default_policy": true, "ttl": "4s", "explicit_max_ttl": "4s",
    });
    let answer = server.request("POST", "auth/token/create", Some(&token));
    let answer = answer.await.expect("token");
    let token = answer["auth"]["client_token"].as_str().unwrap().to_owned();
    let target = repeating(&vault(&proxy.url(), &mount, &token).await, 3);
    let migration = departure.to(&target);
    let writes = format!("POST /v1/{mount}/data/*");
    let report = copy_struck(&migration, &proxy, (&writes, 40), async || {
        // Later requests wait until the token has expired.
        proxy.set_delay(Duration::from_secs(5));
        tokio::time::sleep(Duration::from_secs(4)).await;
        proxy.set_delay(Duration::ZERO);
    })
    .await;
    expect_failures(&report, "unauthenticated", "has expired");
    assert_eq!(report.stopped, Some(Stop::Failures), "{report:?}");
    expect_middle(&report, departure.secrets());

    let token = server.create_token(&[&policy], "10m").await;
    let target = repeating(&vault(&proxy.url(), &mount, &token).await, 3);
    let migration = departure.to(&target);
    departure.expect_resumed(&migration, &report, &target).await;
    expect_one_version_each(server, &mount, &departure.fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_is_sealed_in_the_middle() {
    let Some(server) = available(VaultServer::start().await) else {
        return;
    };
    let departure = Departure::new(30).await;
    let mount = server.mount_kv(2).await;
    let proxy = FaultProxy::builder(server.address())
        .with_delay(Duration::from_millis(5))
        .start()
        .unwrap();
    let target = vault(&proxy.url(), &mount, server.root_token()).await;
    let target = repeating(&target, 3);
    let migration = departure.to(&target);
    let writes = format!("POST /v1/{mount}/data/*");
    let report = copy_struck(&migration, &proxy, (&writes, 30), async || {
        server.seal().await;
    })
    .await;
    expect_failures(&report, "unavailable", "Vault is sealed");
    assert_eq!(report.stopped, Some(Stop::Failures), "{report:?}");
    expect_middle(&report, departure.secrets());

    // Until then, nothing works: one error explains why.
    let error = migration.copy().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("Vault is sealed"), "{cause}");

    server.unseal().await;
    departure.expect_resumed(&migration, &report, &target).await;
    expect_one_version_each(&server, &mount, &departure.fleet).await;
}

/// The operator is fast enough: the copy does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_seal_is_waited_for() {
    let Some(server) = available(VaultServer::start().await) else {
        return;
    };
    let departure = Departure::new(30).await;
    let mount = server.mount_kv(2).await;
    let proxy = FaultProxy::builder(server.address())
        .with_delay(Duration::from_millis(5))
        .start()
        .unwrap();
    let target = vault(&proxy.url(), &mount, server.root_token()).await;
    let target = repeating(&target, 200);
    let migration = departure.to(&target);
    let writes = format!("POST /v1/{mount}/data/*");
    let report = copy_struck(&migration, &proxy, (&writes, 30), async || {
        server.seal().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.unseal().await;
    })
    .await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.tally.written, departure.secrets());
    let refused = |request: &e2e::proxy::Request| request.status.is_some_and(|s| s == 503);
    assert!(proxy.requests().iter().any(refused), "it was never sealed");
    departure.expect_arrived(&migration, &target).await;
    expect_one_version_each(&server, &mount, &departure.fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn localstack_is_killed_in_the_middle_and_forgets_everything() {
    let Some(mut server) = available(LocalStack::start().await) else {
        return;
    };
    let departure = Departure::new(25).await;
    let proxy = FaultProxy::builder(server.url())
        .with_operations(aws_operation)
        .start()
        .unwrap();
    let target = repeating(&aws(&proxy.url(), &account()).await, 2);
    let migration = departure.to(&target);
    let report = copy_struck(&migration, &proxy, ("CreateSecret", 30), async || {
        server.kill();
    })
    .await;
    expect_failures(&report, "unavailable", "");
    expect_middle(&report, departure.secrets());

    server.restart().await.unwrap();
    let verify = migration.verify().await.unwrap();
    assert_eq!(verify.stopped, Some(Stop::Unverified), "{verify:?}");
    assert_eq!(verify.tally.lost, report.tally.written, "{verify:?}");
    assert_eq!(verify.tally.hydrated, 0);

    let copy = migration.copy().await.unwrap();
    assert!(copy.is_complete(), "{copy:?}");
    assert_eq!(copy.tally.written, departure.secrets(), "all of it again");
    departure.expect_arrived(&migration, &target).await;
}

/// Both sides throttle, without any report to the caller.
#[tokio::test(flavor = "multi_thread")]
async fn every_third_request_is_throttled() {
    let (Some(vault_server), Some(localstack)) = (
        VaultServer::start_or_env().await,
        LocalStack::start_or_env().await,
    ) else {
        return;
    };
    let departure = Departure::new(15).await;
    let mount = vault_server.mount_kv(2).await;
    let vault_proxy = FaultProxy::builder(vault_server.address()).start().unwrap();
    let aws_proxy = FaultProxy::builder(localstack.url())
        .with_operations(aws_operation)
        .start()
        .unwrap();
    let token = vault_server.root_token();
    let middle = repeating(&vault(&vault_proxy.url(), &mount, token).await, 40);
    let target = repeating(&aws(&aws_proxy.url(), &account()).await, 40);
    vault_proxy.inject(Rule::new(Fault::Respond(Answer::vault_throttling(0))).every(3));
    // Not the other service, which returns our identity in another protocol.
    for operation in ["BatchGetSecretValue", "CreateSecret", "ListSecrets"] {
        let throttling = Fault::Respond(Answer::aws_throttling());
        aws_proxy.inject(Rule::new(throttling).on(operation).every(3));
    }

    let there = departure.to(&middle);
    let report = there.copy().await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.tally.written, departure.secrets());

    let journal = Arc::default();
    let onwards = departure.fleet.migration(&middle, &target, &journal);
    let report = onwards.copy().await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.tally.written, departure.secrets());
    departure.fleet.expect_verified(&onwards).await;

    // A write to Vault is three requests, so an attempt that started over each time would never
    // end.
    let lone = Departure::new(1).await;
    let one_by_one = MigrateOptions::default().with_concurrency(1.try_into().unwrap());
    let migration = lone.to(&middle).with_options(one_by_one);
    let report = migration.copy().await.unwrap();
    assert_eq!(report.tally.written, lone.secrets(), "{report:?}");

    for proxy in [&vault_proxy, &aws_proxy] {
        let refused = |request: &&e2e::proxy::Request| {
            matches!(
                request.status.map(|status| status.as_u16()),
                Some(400 | 429)
            )
        };
        let throttled = proxy.requests().iter().filter(refused).count();
        assert!(throttled >= proxy.total() / 5, "{throttled}");
    }
    assert!(migration.rollback().await.unwrap().is_complete());
    departure.expect_arrived(&there, &middle).await;
    departure.fleet.expect_in(&target).await;
    expect_one_version_each(vault_server, &mount, &departure.fleet).await;
}

/// Copies to a store that executes every fifth write without a response: first without retries, so
/// that the next run must find out, then another fleet with retries.
async fn writes_without_answer(
    proxy: &FaultProxy,
    pattern: &str,
    target: &Store,
) -> (Departure, Departure) {
    let first = Departure::new(10).await;
    let cut = Rule::new(Fault::CutAfterWork).on(pattern).every(5);
    proxy.inject(cut.clone());
    let migration = first.to(target);
    let report = migration.copy().await.unwrap();
    expect_failures(&report, "unavailable", "");
    assert_eq!(report.failed, first.secrets() / 5, "{report:?}");
    assert_eq!(report.tally.written, first.secrets() * 4 / 5, "{report:?}");
    proxy.heal();
    let again = migration.copy().await.unwrap();
    assert!(again.is_complete(), "{again:?}");
    // They existed, and were ours.
    assert_eq!(again.tally.resumed, report.failed, "{again:?}");
    assert_eq!(again.tally.written, 0, "{again:?}");
    first.expect_arrived(&migration, target).await;
    let back = migration.rollback().await.unwrap();
    assert!(back.is_complete(), "{back:?}");
    assert_eq!(back.tally.deleted, first.secrets(), "{back:?}");

    let second = Departure::new(10).await;
    proxy.inject(cut);
    let target = repeating(target, 10);
    let migration = second.to(&target);
    let report = migration.copy().await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.tally.written, second.secrets());
    proxy.heal();
    second.expect_arrived(&migration, &target).await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_writes_and_the_connection_drops() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = server.mount_kv(2).await;
    let proxy = FaultProxy::builder(server.address()).start().unwrap();
    let target = vault(&proxy.url(), &mount, server.root_token()).await;
    let pattern = format!("POST /v1/{mount}/data/*");
    let (_, second) = writes_without_answer(&proxy, &pattern, &target).await;
    expect_one_version_each(server, &mount, &second.fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_writes_and_the_connection_drops() {
    let Some(server) = LocalStack::start_or_env().await else {
        return;
    };
    let proxy = FaultProxy::builder(server.url())
        .with_operations(aws_operation)
        .start()
        .unwrap();
    let target = aws(&proxy.url(), &account()).await;
    writes_without_answer(&proxy, "CreateSecret", &target).await;
}
