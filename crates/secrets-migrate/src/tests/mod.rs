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
mod splits;
#[cfg(feature = "sqlite")]
mod tables;
mod tap;
mod workspaces;
mod world;
mod writers;

#[tokio::test]
async fn the_journal_in_memory_keeps_the_promises() {
    super::conformance::journal(async || super::MemoryJournal::new()).await;
}
