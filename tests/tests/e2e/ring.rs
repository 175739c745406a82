//! The demo's connectors and a few hundred more secrets move from an embedded store through Vault
//! and AWS to another embedded one.

use std::sync::Arc;

use e2e::{LocalStack, VaultServer};
use secret_persistence_migrate::{AllReferences, ConfigRow, MemoryConfigs};

use crate::{
    demo,
    fleet::{Fleet, names},
    stores::{account, aws, calls, repeating, sqlite, vault},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_value_is_equal_after_the_ring() {
    let (Some(vault_server), Some(localstack)) = (
        VaultServer::start_or_env().await,
        LocalStack::start_or_env().await,
    ) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mount = vault_server.mount_kv(2).await;
    let token = vault_server.root_token();
    let first = sqlite(&folder.path().join("first.db")).await;
    let stations = [
        first,
        repeating(&vault(vault_server.address(), &mount, token).await, 8),
        repeating(&aws(localstack.url(), &account()).await, 8),
        sqlite(&folder.path().join("last.db")).await,
    ];

    let connectors = demo::save_in(&stations[0]).await;
    let rows = connectors
        .iter()
        .map(|saved| ConfigRow::new(&saved.name, saved.configuration.clone()))
        .collect();
    let rows = Arc::new(MemoryConfigs::new("demo", rows).unwrap());
    let fleet = Fleet::new(75);
    let demos = names(&stations[0]).await;
    fleet.save_in(&stations[0]).await;
    let secrets = (demos.len() + fleet.secrets.len()) as u64;
    assert!(secrets > 320, "{secrets}");
    let configurations = connectors.len() as u64 + 75;

    for leg in stations.windows(2) {
        let (from, to) = (&leg[0], &leg[1]);
        let migration = fleet
            .migration(from, to, &Arc::default())
            .with_configs(Arc::clone(&rows) as _);
        let copy = migration.copy().await.unwrap();
        assert!(copy.is_complete(), "{from} to {to}: {copy:?}");
        assert_eq!(copy.tally.written, secrets, "{from} to {to}");
        let verify = migration.verify().await.unwrap();
        assert!(verify.is_complete(), "{from} to {to}: {verify:?}");
        assert_eq!(verify.tally.verified, secrets, "{from} to {to}");
        assert_eq!(verify.tally.hydrated, configurations, "{from} to {to}");
        let retire = migration.retire(AllReferences::confirmed()).await.unwrap();
        assert!(retire.is_complete(), "{from} to {to}: {retire:?}");
        assert_eq!(retire.tally.deleted, secrets, "{from} to {to}");
        // Hydrating from another store would not be a move.
        assert_eq!(names(from).await, [], "left in {from}");
    }

    let last = &stations[3];
    for saved in connectors {
        let full = calls(last).hydrate(saved.configuration).await.unwrap();
        assert!(*full == saved.full, "{} differs", saved.name);
    }
    for (row, full) in fleet.rows() {
        let hydrated = calls(last).hydrate(row).await.unwrap();
        assert!(*hydrated == full, "{} differs", full["host"]);
    }
    assert_eq!(names(last).await.len() as u64, secrets);
}
