//! The task that owns a chain: it writes the lines of all calls that wait, in one write.

use std::time::Duration;

use secret_persistence_core::{AuditEvent, Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::LedgerConfig;
use super::line::{Head, Keys, Stored};
use super::table::{self, Append};

/// How many lines one write may have before further calls wait for the next one.
const MOST_LINES: usize = 4096;

/// The same for the text of their places. A call may have one mebibyte of it.
const MOST_PLACE_BYTES: usize = 4 << 20;

/// The events of one call, and who waits for their lines.
pub(super) struct Batch {
    pub(super) events: Vec<AuditEvent>,
    pub(super) done: oneshot::Sender<Result<()>>,
}

/// Starts the task, which ends when the last sender is dropped.
pub(super) fn spawn(config: LedgerConfig, mut calls: mpsc::Receiver<Batch>) -> Result<()> {
    let mut writer = Writer {
        place: table::appender(&config)?,
        keys: Keys::of(&config.ring),
        head: Head::new(),
        timeout: config.timeout,
    };
    tokio::spawn(async move {
        while let Some(first) = calls.recv().await {
            let batches = gather(first, &mut calls);
            let written = writer
                .write(&batches)
                .await
                .map_err(|error| error.with_store(config.to_string()));
            for batch in batches {
                // A caller that was cancelled does not wait any more.
                let _ = batch.done.send(written.clone());
            }
        }
    });
    Ok(())
}

/// The calls of one write: the first one, and those that wait.
fn gather(first: Batch, calls: &mut mpsc::Receiver<Batch>) -> Vec<Batch> {
    let mut lines = first.events.len();
    let mut bytes = first.place_bytes();
    let mut batches = vec![first];
    while lines < MOST_LINES
        && bytes < MOST_PLACE_BYTES
        && let Ok(next) = calls.try_recv()
    {
        lines += next.events.len();
        bytes += next.place_bytes();
        batches.push(next);
    }
    batches
}

impl Batch {
    fn place_bytes(&self) -> usize {
        let places = self.events.iter().flat_map(|event| &event.places);
        places.map(|place| place.as_str().len()).sum()
    }
}

struct Writer {
    place: Box<dyn Append>,
    keys: Keys,
    head: Head,
    timeout: Duration,
}

impl Writer {
    /// Writes the lines, and tries once more if the connection was lost since the last write: an idle
    /// connection ends for many reasons, and each would refuse a read.
    async fn write(&mut self, batches: &[Batch]) -> Result<()> {
        match self.attempt(batches).await {
            Err(error) if error.is_retryable() => self.attempt(batches).await,
            outcome => outcome,
        }
    }

    async fn attempt(&mut self, batches: &[Batch]) -> Result<()> {
        let mut head = self.head.clone();
        let lines: Vec<Stored> = batches
            .iter()
            .flat_map(|batch| &batch.events)
            .map(|event| self.keys.append(&mut head, event))
            .collect::<Result<_>>()?;
        let written = match timeout(self.timeout, self.place.append(&lines)).await {
            Ok(written) => written,
            Err(_) => Err(
                Error::new(ErrorKind::Unavailable, "the ledger was not written in time")
                    .with_hint("check the database of the ledger, or raise `timeout` in its URL"),
            ),
        };
        self.head = match written {
            Ok(()) => head,
            // The lines may be there, or arrive later, so that nothing must follow them. They are the
            // end of a chain, and what comes next is a new one.
            Err(_) => Head::new(),
        };
        written
    }
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::connector::Place;
    use secret_persistence_core::{Actor, Coordinate, Operation};

    use super::*;

    /// Otherwise a thousand calls that wait become one write of a gigabyte.
    #[test]
    fn one_write_is_bounded_by_its_text_too() {
        let batch = || {
            let coordinate = Coordinate::parse("airbyte_workspace_1_secret_2_v1").unwrap();
            let mut event = AuditEvent::new(Actor::new("maria"), Operation::Read, coordinate);
            event.places = vec![Place::root().child(&"k".repeat(1 << 20))];
            Batch {
                events: vec![event],
                done: oneshot::channel().0,
            }
        };
        let (sender, mut calls) = mpsc::channel(16);
        for _ in 0..16 {
            sender.try_send(batch()).unwrap();
        }
        let first = calls.try_recv().unwrap();
        assert_eq!(gather(first, &mut calls).len(), 4);
        assert_eq!(calls.len(), 12);
    }
}
