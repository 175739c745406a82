//! A caller's database in memory.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use crate::connector::{Ended, Lease, RefreshRecord, RefreshRows, RefreshSaved, Taken};
use crate::{Error, ErrorKind, Result};

/// A caller's database with one row.
#[derive(Debug, Default)]
pub(super) struct Table {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) row: Option<(i64, String)>,
    epoch: i64,
    pub(super) expires: Option<Instant>,
    pub(super) record: Option<RefreshRecord>,
    pub(super) ended: Vec<Ended>,
    /// The next save fails before it does anything.
    pub(super) fails: bool,
    /// No save changes the row, as if a trigger refused it.
    pub(super) refuses: bool,
    /// How many saves were asked for.
    pub(super) saves: usize,
}

impl Table {
    pub(super) fn new(config: &Value) -> Arc<Self> {
        Self::of_text(&config.to_string())
    }

    pub(super) fn of_text(text: &str) -> Arc<Self> {
        let table = Self::default();
        table.locked().row = Some((1, text.to_owned()));
        Arc::new(table)
    }

    pub(super) fn rows(self: &Arc<Self>) -> Arc<dyn RefreshRows> {
        Arc::<Self>::clone(self)
    }

    pub(super) fn text(&self) -> String {
        self.locked().row.clone().unwrap().1
    }

    pub(super) fn config(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// The configuration, whatever its depth.
    pub(super) fn deep_config(&self) -> Value {
        let text = self.text();
        let mut parser = serde_json::Deserializer::from_str(&text);
        parser.disable_recursion_limit();
        serde::Deserialize::deserialize(&mut parser).unwrap()
    }

    /// Another change of the row.
    pub(super) fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut state = self.locked();
        let (revision, text) = state.row.as_mut().unwrap();
        let mut config = serde_json::from_str(text).unwrap();
        edit(&mut config);
        *text = config.to_string();
        *revision += 1;
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn holds(&self, lease: &Lease) -> bool {
        self.epoch == lease.epoch
    }
}

#[async_trait]
impl RefreshRows for Table {
    async fn read(&self, _: &str) -> Result<Option<(i64, String)>> {
        Ok(self.locked().row.clone())
    }

    async fn take(&self, row: &str, duration: Duration) -> Result<Taken> {
        let mut state = self.locked();
        let now = Instant::now();
        if state.expires.is_some_and(|expires| expires > now) {
            return Ok(Taken::Busy);
        }
        state.epoch += 1;
        state.expires = Some(now + duration);
        Ok(Taken::Held {
            lease: Lease::new(row.to_owned(), state.epoch),
            record: state.record.clone(),
        })
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<bool> {
        let mut state = self.locked();
        let ours = state.holds(lease);
        if ours {
            state.expires = Some(Instant::now() + duration);
        }
        Ok(ours)
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let mut state = self.locked();
        if state.holds(lease) {
            state.expires = None;
        }
        Ok(())
    }

    async fn open(&self, lease: &Lease, record: &RefreshRecord, time: Duration) -> Result<bool> {
        let mut state = self.locked();
        let ours = state.holds(lease) && state.record.is_none();
        if ours {
            // As a database would store it.
            let text = serde_json::to_string(record).unwrap();
            state.record = Some(serde_json::from_str(&text).unwrap());
            state.expires = Some(Instant::now() + time);
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
        let mut state = self.locked();
        state.saves += 1;
        if std::mem::take(&mut state.fails) {
            return Err(Error::new(ErrorKind::Unavailable, "the database is down"));
        }
        if !state.holds(lease) || state.record.is_none() {
            return Ok(RefreshSaved::LeaseLost);
        }
        if state.refuses || state.row.as_ref().map(|row| row.0) != Some(revision) {
            return Ok(RefreshSaved::RowMoved);
        }
        state.row = Some((revision + 1, config.to_owned()));
        state.record = None;
        state.ended.extend_from_slice(ended);
        Ok(RefreshSaved::Saved(revision + 1))
    }

    async fn close(&self, lease: &Lease, ended: &[Ended]) -> Result<bool> {
        let mut state = self.locked();
        let ours = state.holds(lease) && state.record.is_some();
        if ours {
            state.record = None;
            state.ended.extend_from_slice(ended);
        }
        Ok(ours)
    }

    async fn unfinished(&self) -> Result<Vec<String>> {
        let open = self.locked().record.is_some();
        Ok(open.then(|| "row".to_owned()).into_iter().collect())
    }

    async fn ended(&self) -> Result<Vec<Result<Ended>>> {
        Ok(self.locked().ended.iter().cloned().map(Ok).collect())
    }

    async fn forget(&self, id: Uuid) -> Result<()> {
        self.locked().ended.retain(|ended| ended.id != id);
        Ok(())
    }
}
