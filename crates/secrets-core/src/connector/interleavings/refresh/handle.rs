//! What one actor sees of the database and the store: every operation is a step.

use std::fmt;
use std::sync::MutexGuard;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::model::{Model, State};
use crate::connector::interleavings::explorer::Touches;
use crate::connector::{Ended, Lease, RefreshRecord, RefreshRows, RefreshSaved, Taken};
use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity, ListOptions,
    ManagedCoordinate, Page, Read, Result, SecretPersistence, Write, Written,
};

pub(super) const LEASE: Touches = Touches {
    record: Some(0),
    ..Touches::NOTHING
};
pub(super) const FORGETS: Touches = Touches {
    record: Some(1),
    ..Touches::NOTHING
};
pub(super) const OUTBOX: Touches = Touches {
    record: Some(Touches::OUTBOX),
    ..Touches::NOTHING
};
pub(super) const READS_ROW: Touches = Touches {
    reads_row: true,
    ..Touches::NOTHING
};
pub(super) const SAVES: Touches = Touches {
    reads_row: true,
    writes_row: true,
    ..LEASE
};
pub(super) const READS_SECRETS: Touches = Touches {
    reads_secrets: true,
    ..Touches::NOTHING
};
pub(super) const WRITES_SECRETS: Touches = Touches {
    writes_secrets: true,
    ..LEASE
};
pub(super) const DELETES_SECRETS: Touches = Touches {
    deletes_secrets: true,
    ..Touches::NOTHING
};

/// What one actor sees of the database and the store.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) model: Model,
    pub(super) actor: usize,
}

impl Handle {
    pub(super) async fn step(
        &self,
        label: &'static str,
        touches: Touches,
    ) -> MutexGuard<'_, State> {
        self.model.world.step(label, touches).await;
        self.model.locked()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl RefreshRows for Handle {
    async fn read(&self, _: &str) -> Result<Option<(i64, String)>> {
        self.model.world.step("reads the row", READS_ROW).await;
        Ok(Some(self.model.locked().row.clone()))
    }

    async fn take(&self, row: &str, _: Duration) -> Result<Taken> {
        self.model.world.step("takes the lease", LEASE).await;
        let mut state = self.model.locked();
        if state.held && self.model.rules.lease_is_exclusive {
            return Ok(Taken::Busy);
        }
        state.held = true;
        state.epoch += 1;
        let epoch = state.epoch;
        state.epochs.insert(self.actor, epoch);
        Ok(Taken::Held {
            lease: Lease::new(row.to_owned(), epoch),
            record: state.record.clone(),
        })
    }

    async fn renew(&self, lease: &Lease, _: Duration) -> Result<bool> {
        self.model.world.step("renews the lease", LEASE).await;
        let mut state = self.model.locked();
        let ours = state.holds(lease);
        if ours {
            state.held = true;
            state.stale.remove(&lease.epoch);
        }
        Ok(ours)
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.model.world.step("releases the lease", LEASE).await;
        let mut state = self.model.locked();
        if state.holds(lease) || !self.model.rules.release_compares {
            state.held = false;
        }
        Ok(())
    }

    async fn open(&self, lease: &Lease, record: &RefreshRecord, _: Duration) -> Result<bool> {
        self.model.world.step("stores the record", LEASE).await;
        let mut state = self.model.locked();
        let holds = state.holds(lease) || !self.model.rules.open_compares;
        let ours = holds && state.record.is_none();
        if ours {
            if self.model.rules.record_is_stored {
                state.record = Some(record.clone());
            }
            state.held = true;
            state.stale.remove(&lease.epoch);
        }
        Ok(ours)
    }

    async fn save(
        &self,
        lease: &Lease,
        revision: i64,
        config: &str,
        ended: &[Ended],
    ) -> Result<RefreshSaved> {
        self.model.world.step("saves the row", SAVES).await;
        let mut state = self.model.locked();
        let has_record = state.record.is_some() || !self.model.rules.record_is_stored;
        if !state.holds(lease) || !has_record {
            return Ok(RefreshSaved::LeaseLost);
        }
        if state.row.0 != revision && self.model.rules.row_is_compared {
            return Ok(RefreshSaved::RowMoved);
        }
        state.row = (state.row.0 + 1, config.to_owned());
        state.record = None;
        state.outbox.extend_from_slice(ended);
        Ok(RefreshSaved::Saved(state.row.0))
    }

    async fn close(&self, lease: &Lease, ended: &[Ended]) -> Result<bool> {
        self.model.world.step("ends the record", LEASE).await;
        let mut state = self.model.locked();
        let ours = state.holds(lease) && state.record.is_some();
        if ours {
            state.record = None;
            state.outbox.extend_from_slice(ended);
        }
        Ok(ours)
    }

    async fn unfinished(&self) -> Result<Vec<String>> {
        let state = self.step("looks for open records", LEASE).await;
        let open = state.record.is_some() && !state.held;
        Ok(open.then(|| "row".to_owned()).into_iter().collect())
    }

    async fn ended(&self) -> Result<Vec<Result<Ended>>> {
        let state = self.step("looks into the outbox", OUTBOX).await;
        Ok(state.outbox.iter().cloned().map(Ok).collect())
    }

    async fn forget(&self, id: Uuid) -> Result<()> {
        let mut state = self.step("forgets an entry", FORGETS).await;
        state.outbox.retain(|ended| ended.id != id);
        Ok(())
    }
}

#[async_trait]
impl SecretPersistence for Handle {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            owner: false,
            ..self.model.memory.capabilities()
        }
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.model.world.step("reads secrets", READS_SECRETS).await;
        self.model.memory.read_batch(coordinates).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.model
            .world
            .step("writes a secret", WRITES_SECRETS)
            .await;
        let written = self.model.memory.write_batch(writes).await;
        let mut state = self.model.locked();
        if state.epochs[&self.actor] == state.epoch {
            let values = writes.iter().map(|write| write.value.expose().to_owned());
            state.written.extend(values);
        }
        written
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        self.model
            .world
            .step("deletes secrets", DELETES_SECRETS)
            .await;
        self.model.memory.delete_batch(coordinates, options).await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.model.memory.restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.model.memory.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.model.memory.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.model.memory.identity().await
    }
}
