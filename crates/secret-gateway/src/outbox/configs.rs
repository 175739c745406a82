//! The records of changes that have not ended, as a source of configurations: what they name is needed.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence::Timestamp;
use secret_persistence_migrate::{
    Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, MigrateError, MigrateErrorKind,
    MigrateResult, Update,
};
use serde_json::Value;
use uuid::Uuid;

use super::{After, Change, OutboxError, State};
use crate::gateway::Gateway;

/// In this order: a change that is opened meanwhile is read a second time, and not missed.
const STATES: [State; 2] = [State::Staging, State::Open];

/// The outbox of a gateway.
#[derive(Debug)]
pub(crate) struct OpenChanges(pub(crate) Gateway);

impl fmt::Display for OpenChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the gateway's outbox")
    }
}

fn failed(error: OutboxError) -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::Unavailable,
        "the outbox could not be read",
    )
    .with_source(error)
}

fn row(change: &Change) -> MigrateResult<ConfigRow> {
    let record = serde_json::to_value(&change.record).map_err(|_| {
        MigrateError::new(
            MigrateErrorKind::Configurations,
            "the record of a change is unreadable",
        )
    })?;
    Ok(ConfigRow::new(
        format!("{} {}", change.state.as_str(), change.id),
        record,
    ))
}

/// The state and the position after which the reading continues.
fn position(cursor: &ConfigCursor) -> Option<(usize, Option<After>)> {
    let mut parts = cursor.as_str().split('.');
    let state = parts.next()?.parse().ok()?;
    let after = match (parts.next(), parts.next()) {
        (Some(created), Some(id)) => Some(After {
            created: created.parse().ok()?,
            id: Uuid::try_parse(id).ok()?,
        }),
        _ => None,
    };
    Some((state, after))
}

#[async_trait]
impl ConfigSource for OpenChanges {
    fn access(&self) -> Access {
        Access::ReadOnly
    }

    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        let (index, after) = match after {
            None => (0, None),
            Some(cursor) => position(cursor).ok_or_else(|| {
                MigrateError::new(MigrateErrorKind::Unavailable, "a cursor of another source")
            })?,
        };
        let Some(state) = STATES.get(index) else {
            return Ok(ConfigPage::default());
        };
        // The clocks of replicas differ.
        let before = Timestamp::now().saturating_add(Duration::from_secs(86_400));
        let most = u32::try_from(limit).unwrap_or(u32::MAX);
        let outbox = self.0.outbox();
        let changes = outbox.list(*state, before, after, most);
        let changes = changes.await.map_err(failed)?;
        let next = match changes.last() {
            Some(last) if changes.len() == limit => Some(format!(
                "{index}.{}.{}",
                last.created.unix_seconds(),
                last.id
            )),
            _ if index + 1 < STATES.len() => Some((index + 1).to_string()),
            _ => None,
        };
        let rows = changes.iter().map(row).collect::<MigrateResult<_>>()?;
        Ok(ConfigPage::new(rows, next.map(ConfigCursor::new)))
    }

    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        let id = id.split(' ').next_back();
        let Some(id) = id.and_then(|id| Uuid::try_parse(id).ok()) else {
            return Ok(None);
        };
        let change = self.0.outbox().get(id).await.map_err(failed)?;
        change.as_ref().map(row).transpose()
    }

    async fn update(&self, _: &ConfigRow, _: &Value) -> MigrateResult<Update> {
        Err(MigrateError::new(
            MigrateErrorKind::Configurations,
            "the outbox is read-only",
        ))
    }
}
