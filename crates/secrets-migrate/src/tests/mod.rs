//! The engine over stores in memory, with faults injected wherever a run could be interrupted.

mod canaries;
mod classes;
mod collect;
mod inventory;
mod kills;
mod lapses;
mod left;
mod linked;
mod races;
mod refusals;
mod sent;
mod splits;
#[cfg(feature = "sqlite")]
mod tables;
mod tap;
mod unshares;
mod workspaces;
mod world;
pub(crate) mod wrapped;
mod writers;

use super::ConfigSource as _;

#[tokio::test]
async fn the_journal_in_memory_keeps_the_promises() {
    super::conformance::journal(async || super::MemoryJournal::new()).await;
}

/// Whatever is added or deleted, a page ends where it ended, and the next one begins there.
#[tokio::test]
async fn pages_of_memory_keep_their_ends() {
    let row = |id: &str| super::ConfigRow::new(id, serde_json::json!({}));
    let rows = ["a", "b", "c", "d"].map(row).to_vec();
    let configs = super::MemoryConfigs::new("configs", rows).unwrap();
    let ids = |page: super::ConfigPage| -> Vec<String> {
        page.rows.into_iter().map(|row| row.id).collect()
    };
    let end = configs.page(None, 2).await.unwrap().next.unwrap();
    configs.remove("b");
    configs.put(row("b"));
    let upto = configs.page_upto(None, &end, 9).await.unwrap();
    assert_eq!((upto.next.clone(), ids(upto)), (None, vec!["a".to_owned()]));
    let rest = configs.page(Some(&end), 9).await.unwrap();
    assert_eq!(ids(rest), ["c", "d", "b"]);
}
