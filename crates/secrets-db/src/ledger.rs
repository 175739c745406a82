//! The read ledger: an audit sink whose lines are chained by keyed digests.

mod checkpoint;
mod config;
mod file;
mod history;
mod line;
#[cfg(feature = "postgres")]
mod postgres;
mod query;
mod reader;
#[cfg(feature = "sqlite")]
mod sqlite;
mod table;
mod verify;
mod writer;

pub use checkpoint::Checkpoint;
pub use config::{LEDGER_SETTINGS, LedgerConfig};
pub use line::{LedgerLine, PrunedLines};
pub use query::LedgerQuery;
pub use reader::{LedgerReader, Pruned};
pub use verify::{Finding, FindingKind, Verified};

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use secret_persistence_core::{AuditEvent, AuditSink, Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};

use writer::Batch;

/// How many calls may wait for the writer before the next one waits to be heard.
const WAITING: usize = 1024;

/// The writing end of a ledger: an [`AuditSink`] that returns when every line of the call is
/// durable.
///
/// A ledger has one chain per writer, that is per `Ledger` of a process, so that processes which
/// share a table do not wait for each other. A chain is numbered from 1; each line names the digest
/// of the one before it, and has a digest of its own under a key that is derived from the key ring's
/// active key. [`LedgerReader`](crate::LedgerReader) checks them.
///
/// The lines of one call are one write, and calls that wait together share one. After a write that
/// failed, and may have been done nevertheless, a new chain begins.
///
/// Clones share the chain.
#[derive(Clone)]
pub struct Ledger {
    calls: mpsc::Sender<Batch>,
    name: Arc<str>,
}

impl Ledger {
    /// Starts the writer, on the runtime of the caller. It connects with the first call.
    ///
    /// # Errors
    /// `InvalidConfig` if the engine is not built in.
    pub fn new(config: LedgerConfig) -> Result<Self> {
        let name = config.to_string().into();
        let (calls, waiting) = mpsc::channel(WAITING);
        writer::spawn(config, waiting)?;
        Ok(Self { calls, name })
    }

    /// Connects, creates the table if it is missing, and finds out whether lines can be written,
    /// without writing one: a program that requires the ledger calls it at its start. A full disk
    /// shows with the first line.
    ///
    /// # Errors
    /// If the ledger cannot be written now.
    pub async fn ready(&self) -> Result<()> {
        self.record(&[]).await
    }
}

#[async_trait]
impl AuditSink for Ledger {
    async fn record(&self, events: &[AuditEvent]) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        let batch = Batch {
            events: events.to_vec(),
            done,
        };
        let ended = || {
            Error::new(ErrorKind::Unavailable, "the writer of the ledger has ended")
                .with_store(Arc::clone(&self.name))
        };
        self.calls.send(batch).await.map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())?
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({})", self.name)
    }
}
