//! The engine over stores in memory, with faults injected wherever a run could be interrupted.

mod canaries;
mod classes;
mod kills;
mod left;
mod linked;
mod races;
mod refusals;
mod splits;
mod tap;
mod world;
mod writers;

#[tokio::test]
async fn the_journal_in_memory_keeps_the_promises() {
    super::conformance::journal(async || super::MemoryJournal::new()).await;
}
