//! The conformance suite, with a stand-in that is as strict as the service.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests are tests"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use e2e::azure::PermissionModel;
use secret_persistence_azure::AzureKeyVault;
use secret_persistence_azure::policy::{PolicyOptions, role_definition};
use secret_persistence_core::conformance::{self, Options, Outcome};
use secret_persistence_core::layer::{Layers, RetryOptions, Stack};
use secret_persistence_core::{
    DeleteOptions, ListOptions, Owner, Recovery, Result, SecretPersistence, SecretPersistenceExt,
};
use support::{SomebodyElse, config, coordinate, open, stand_in, write};

const ID: &str = "11111111-2222-3333-4444-555555555555";

/// Short transitions, and frequent polls to see them.
fn options() -> Options {
    Options::default().with_poll_interval(Duration::from_millis(10))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_keeps_every_promise() {
    let azure = Arc::new(stand_in().await);
    let owner = Owner::parse("conformance").unwrap();
    let store: Arc<dyn SecretPersistence> =
        Arc::new(open(config(&azure).owner(owner.clone())).await);
    let reopened = Arc::clone(&azure);
    let options = options()
        .with_owner(owner)
        .with_outsider(Arc::new(SomebodyElse::new(&azure)))
        .with_reopen(move || {
            let azure = Arc::clone(&reopened);
            Box::pin(async move {
                let store = AzureKeyVault::connect(config(&azure).build()?).await?;
                Ok(Arc::new(store) as Arc<dyn SecretPersistence>)
            })
        });
    let report = conformance::run(&store, &options).await;
    println!("{report}");
    report.assert_passed();
}

/// If every delete purges, nothing can be restored, and the store says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_keeps_every_promise_where_deletes_purge() {
    let azure = stand_in().await;
    let store: Arc<dyn SecretPersistence> =
        Arc::new(open(config(&azure).set("purge", "always")).await);
    assert!(!store.capabilities().recovery);
    let report = conformance::run(&store, &options()).await;
    println!("{report}");
    report.assert_passed();
    assert!(azure.count("PurgeDeletedSecret") > 0);
}

/// Each treatment of a soft-deleted name passes its case, and the report names the treatment.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_frees_deleted_names_keeps_the_other_promises() {
    let cases = [
        ("on-request", "recover", "writing restores a pending name"),
        ("never", "purge", "writing purges a pending name"),
    ];
    let runs = cases.map(async |(purge, on_deleted, _)| {
        let azure = stand_in().await;
        let config = config(&azure)
            .set("purge", purge)
            .set("on-deleted", on_deleted);
        let store: Arc<dyn SecretPersistence> = Arc::new(open(config).await);
        conformance::run(&store, &options()).await
    });
    let reports = futures::future::join_all(runs).await;
    for (report, (_, on_deleted, kept)) in reports.iter().zip(cases) {
        report.assert_passed();
        for name in [
            "a pending name is not free",
            "writing purges a pending name",
            "writing restores a pending name",
        ] {
            let case = report.cases.iter().find(|case| case.name == name).unwrap();
            let passed = case.outcome == Outcome::Passed;
            assert_eq!(passed, name == kept, "{on_deleted}: {case}");
        }
    }
}

/// With quota errors, a lagging listing and empty pages, under the corresponding layers.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_keeps_every_promise_under_the_layers() {
    let azure = stand_in().await;
    azure.switches(|switches| {
        switches.throttle_every = Some(13);
        switches.list_lag = Duration::from_millis(300);
        switches.sparse_pages = true;
    });
    let backend = Arc::new(open(config(&azure)).await);
    let retry = RetryOptions::default().with_min_pause(Duration::from_millis(5));
    let store = Layers::over(Stack::over(backend).with_retry(retry)).build();
    let report = conformance::run(&store, &options()).await;
    println!("{report}");
    report.assert_passed();
}

/// The role allows every request of a conformance run, and is minimal: without any one data action,
/// some operation fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_role_is_enough_and_the_least() {
    for purge in [false, true] {
        let role = data_actions(PolicyOptions::new("my-vault", ID, "group").with_purge(purge));
        let allowed: Vec<&str> = role.iter().map(String::as_str).collect();
        let azure = stand_in().await;
        azure.switches(|switches| switches.allow_only(&allowed));
        let builder = || {
            let purge = if purge { "on-request" } else { "never" };
            config(&azure).set("purge", purge)
        };
        let store: Arc<dyn SecretPersistence> = Arc::new(open(builder()).await);
        conformance::run(&store, &options()).await.assert_passed();
        let refused = azure
            .requests()
            .into_iter()
            .filter(|request| request.status == 403);
        assert_eq!(refused.count(), 0);

        battery(&open(builder()).await, purge).await.unwrap();
        for dropped in &allowed {
            let poorer: Vec<&str> = allowed
                .iter()
                .copied()
                .filter(|kept| kept != dropped)
                .collect();
            azure.switches(|switches| switches.allow_only(&poorer));
            let result = battery(&open(builder()).await, purge).await;
            assert!(result.is_err(), "nothing needs {dropped}");
        }
    }
}

/// A reader needs only the read-only role, and can change nothing with it.
#[tokio::test(flavor = "multi_thread")]
async fn the_read_only_role_reads() {
    let azure = stand_in().await;
    let store = open(config(&azure)).await;
    let there = write();
    store.write(there.clone()).await.unwrap();
    let role = data_actions(PolicyOptions::new("my-vault", ID, "group").with_read_only(true));
    let allowed: Vec<&str> = role.iter().map(String::as_str).collect();
    azure.switches(|switches| switches.allow_only(&allowed));
    let read = store.read(&there.coordinate.clone().into()).await.unwrap();
    assert_eq!(read.value, there.value);
    store.describe(&there.coordinate).await.unwrap();
    store
        .list_page(&ListOptions::default(), None)
        .await
        .unwrap();
    store.identity().await.unwrap();
    assert!(store.write(write()).await.is_err());
    let delete = DeleteOptions::default();
    assert!(store.delete(&there.coordinate, &delete).await.is_err());
}

/// Older vaults have permissions instead of roles. The same ones are sufficient.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_with_access_policies_works_the_same() {
    let azure = stand_in().await;
    let role = data_actions(PolicyOptions::new("my-vault", ID, "group").with_purge(true));
    let mut allowed: Vec<&str> = role.iter().map(String::as_str).collect();
    // `set` covers the two data actions that change a secret.
    allowed.push("Microsoft.KeyVault/vaults/secrets/update/action");
    azure.switches(|switches| {
        switches.permission_model = PermissionModel::AccessPolicy;
        switches.allow_only(&allowed);
    });
    let store = open(config(&azure).set("purge", "on-request")).await;
    battery(&store, true).await.unwrap();
}

/// A hundred reads are sent concurrently.
#[tokio::test(flavor = "multi_thread")]
async fn reads_go_out_together() {
    let azure = stand_in().await;
    let store: Arc<dyn SecretPersistence> = Arc::new(open(config(&azure)).await);
    let writes: Vec<_> = (0..32).map(|_| write()).collect();
    for result in store.write_many(&writes).await {
        result.unwrap();
    }
    let names: Vec<_> = writes
        .iter()
        .map(|write| write.coordinate.clone().into())
        .collect();
    // Connections are open.
    store.read_many(&names).await;
    azure.reset();
    azure.switches(|switches| switches.latency = Duration::from_secs(1));
    let started = std::time::Instant::now();
    for read in store.read_many(&names).await {
        read.unwrap();
    }
    assert!(
        started.elapsed() < Duration::from_secs(16),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(azure.count("GetSecret"), 32);
    assert_eq!(azure.requests().len(), 32);
}

/// The stated costs are the maximum of a usual call.
#[tokio::test(flavor = "multi_thread")]
async fn no_operation_makes_more_requests_than_its_cost() {
    let azure = stand_in().await;
    for on_deleted in ["refuse", "recover", "purge"] {
        let store = open(
            config(&azure)
                .set("purge", "on-request")
                .set("on-deleted", on_deleted),
        )
        .await;
        store.identity().await.unwrap();
        let cost = store.capabilities().cost;
        let counted = |most: u32, what: &str| {
            let made = azure.requests().len();
            assert!(made as u64 <= u64::from(most), "{what}: {made} of {most}");
            azure.reset();
        };
        azure.reset();
        let write = write();
        store.write(write.clone()).await.unwrap();
        counted(cost.write, "write");
        store.write(write.clone()).await.unwrap();
        counted(cost.write, "write again");
        store.read(&write.coordinate.clone().into()).await.unwrap();
        counted(cost.read, "read");
        store.read(&coordinate().into()).await.unwrap_err();
        counted(cost.read, "read of nothing");
        store.describe(&write.coordinate).await.unwrap();
        counted(cost.describe, "describe");
        store
            .delete(&write.coordinate, &DeleteOptions::default())
            .await
            .unwrap();
        counted(cost.delete, "delete");
        let _ = store.write(write.clone()).await;
        counted(cost.write, "write of what is deleted");
        let _ = store
            .delete(&write.coordinate, &DeleteOptions::default())
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        azure.reset();
        store.restore(&write.coordinate).await.unwrap();
        counted(cost.restore, "restore");
        let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
        store.delete(&write.coordinate, &immediate).await.unwrap();
        counted(cost.delete, "purging delete");
        store
            .list_page(&ListOptions::default(), None)
            .await
            .unwrap();
        counted(cost.list, "list");
    }
}

/// Every operation once. Each must succeed.
async fn battery(store: &AzureKeyVault, purge: bool) -> Result<()> {
    let write = write();
    store.write(write.clone()).await?;
    store.read(&write.coordinate.clone().into()).await?;
    store.describe(&write.coordinate).await?;
    store.list_page(&ListOptions::default(), None).await?;
    store.identity().await?;
    store
        .delete(&write.coordinate, &DeleteOptions::default())
        .await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.restore(&write.coordinate).await?;
    let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
    store.delete(&write.coordinate, &immediate).await?;
    let listed = store
        .list_page(&ListOptions::default().with_deleted(true), None)
        .await?;
    drop(listed);
    // A denied purge does not fail the delete: the secret stays restorable.
    if purge && store.restore(&write.coordinate).await.is_ok() {
        return Err(secret_persistence_core::Error::new(
            secret_persistence_core::ErrorKind::PermissionDenied,
            "nothing was purged",
        ));
    }
    Ok(())
}

fn data_actions(options: PolicyOptions) -> Vec<String> {
    let role = role_definition(&options).unwrap();
    let actions = role["DataActions"].as_array().unwrap();
    actions
        .iter()
        .map(|action| action.as_str().unwrap().to_owned())
        .collect()
}
