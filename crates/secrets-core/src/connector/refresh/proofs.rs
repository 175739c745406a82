//! Finds a store that takes no writes before the old token is used up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::record::RefreshRecord;
use crate::connector::cleanup::Reason;
use crate::connector::error::{ConnectorError, Problem};
use crate::connector::place::Place;
use crate::connector::secrets::ActingSecrets;
use crate::ext::write_unique;
use crate::{
    Error, ErrorKind, Location, ManagedCoordinate, Operation, Result, SecretPersistence,
    SecretValue, StorageId, Stores, Write,
};

/// How long one write of this process proves that a storage takes writes.
const LASTS: Duration = Duration::from_secs(10 * 60);

/// When this process last wrote to each storage.
#[derive(Debug, Default)]
pub(in crate::connector) struct Proofs(Mutex<HashMap<Option<StorageId>, Instant>>);

impl Proofs {
    pub(super) fn hold(&self, storage_id: Option<&StorageId>) -> bool {
        let proofs = self.0.lock();
        let proven = proofs.get(&storage_id.cloned());
        proven.is_some_and(|proven| proven.elapsed() < LASTS)
    }

    /// Notes what became of a write.
    pub(in crate::connector) fn note(&self, storage_id: Option<&StorageId>, written: bool) {
        let mut proofs = self.0.lock();
        if written {
            proofs.insert(storage_id.cloned(), Instant::now());
        } else {
            proofs.remove(&storage_id.cloned());
        }
    }
}

impl ActingSecrets {
    /// Writes one value once.
    pub(super) async fn write_new(
        &self,
        to: &Location<ManagedCoordinate>,
        value: SecretValue,
    ) -> Result<()> {
        let storage_id = to.storage_id.as_ref();
        let write = [Write::new(to.coordinate.clone(), value)];
        let one = |store: Arc<dyn SecretPersistence>| {
            let write = &write;
            async move { write_unique(&*store, write).await }
        };
        let written = match self.stores().call(storage_id, one).await {
            Ok(Some(results)) => results.into_iter().next().unwrap_or_else(|| {
                Err(Error::new(
                    ErrorKind::Unexpected,
                    "the store did not answer a write",
                ))
            }),
            Ok(None) => Err(Stores::unknown(storage_id)),
            Err(error) => Err(error),
        };
        self.proofs().note(storage_id, written.is_ok());
        written.map(drop)
    }

    /// Writes the probe of a record, and deletes it. On success the record has no probe any more,
    /// unless it could not be deleted: then the record's end deletes it.
    pub(super) async fn prove(
        &self,
        record: &mut RefreshRecord,
        place: &Place,
    ) -> Result<(), ConnectorError> {
        let Some(probe) = record.probe().cloned() else {
            return Ok(());
        };
        let value = SecretValue::new("written and deleted by a refresh".to_owned());
        let written = self.write_new(&probe, value).await;
        let mut events = self.events(Operation::Write);
        let failure = written.as_ref().err().map(Error::kind);
        events.push(failure, || probe.clone().into());
        events.record().await?;
        written.map_err(|error| {
            Problem::of_store(place.clone(), error).with_coordinate(probe.coordinate.shared())
        })?;
        let deleted = self.clean_up(&[probe], Reason::Recorded).await?;
        if deleted.is_finished() {
            record.forget_probe();
        }
        Ok(())
    }
}
