//! Changes of connectors, each in the same five steps: plan, record, stage, save, commit.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use secret_persistence::connector::{
    ActingSecrets, Cleanup, ConnectorError, ConnectorSecrets, ConnectorSpec, FreshError, Place,
    PlacedValues, Planned, RecordState, Refresh, RefreshError, Refreshed, Scrubbed, SecretJson,
    Settled, scrub,
};
use secret_persistence::{Actor, Scope, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::rows::{Outcome, Row, Rows};

/// How long an open record is left to the process that wrote it. Claiming it earlier would be safe
/// too, but a slow save would fail.
const PATIENCE: Duration = Duration::from_secs(120);

/// Connectors: rows in this database, secrets in the stores. Clones share everything.
#[derive(Clone, Debug)]
pub struct Connectors {
    rows: Rows,
    secrets: ConnectorSecrets,
    patience: Duration,
}

/// A saved change.
#[derive(Clone, Debug)]
pub struct Change {
    /// The row's new revision.
    pub revision: i64,
    /// The configuration for display: secrets are masked.
    pub masked: Value,
}

/// Why a change failed, or a row could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// The configuration or the specification is invalid, or a store failed.
    Connector(ConnectorError),
    /// The service's database failed.
    Database(sqlx::Error),
    /// A refresh that crashed could not be ended.
    Healing(RefreshError<Infallible>),
    /// There is no such connector.
    Missing,
    /// The revision has changed: read the row and repeat the change.
    Moved,
    /// The save's outcome is unknown, and the row equals neither the saved nor the staged
    /// configuration.
    Undecided,
}

impl Connectors {
    /// Creates connectors with these rows and stores.
    #[must_use]
    pub fn new(rows: Rows, secrets: ConnectorSecrets) -> Self {
        Self {
            rows,
            secrets,
            patience: PATIENCE,
        }
    }

    /// Sets how long the healer leaves an open record to the process that wrote it; two minutes by
    /// default.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Creates a connector.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is left behind that the healer does not find.
    pub async fn create(
        &self,
        actor: &Actor,
        workspace: Uuid,
        specification: Value,
        configuration: Value,
    ) -> Result<(Uuid, Change), ChangeError> {
        let id = Uuid::new_v4();
        let secrets = self.secrets.acting_as(actor);
        let spec = ConnectorSpec::compile(&specification)?;
        let planned = secrets
            .plan_create(&spec, &Scope::workspace(workspace), configuration)
            .await?;
        let insert = |configuration: Value, record| {
            let specification = specification.clone();
            let row = Row {
                id,
                workspace,
                specification,
                configuration,
                revision: 1,
            };
            async move { self.rows.insert(&row, record).await }
        };
        let saved = self.carry_out(id, planned, insert).await?;
        Ok((
            id,
            Change {
                revision: 1,
                masked: spec.mask(saved)?,
            },
        ))
    }

    /// Changes a connector's configuration. `edited` may contain masks, pointers and new values.
    ///
    /// # Errors
    /// [`ChangeError::Moved`] if `revision` is no longer current.
    pub async fn update(
        &self,
        actor: &Actor,
        id: Uuid,
        revision: i64,
        edited: Value,
    ) -> Result<Change, ChangeError> {
        let row = self.row_at(id, revision).await?;
        let secrets = self.secrets.acting_as(actor);
        let spec = ConnectorSpec::compile(&row.specification)?;
        let scope = Scope::workspace(row.workspace);
        let planned = secrets
            .plan_update(&spec, &scope, row.configuration, edited)
            .await?;
        let update = |configuration: Value, record| async move {
            self.rows.update(id, revision, &configuration, record).await
        };
        let saved = self.carry_out(id, planned, update).await?;
        Ok(Change {
            revision: revision + 1,
            masked: spec.mask(saved)?,
        })
    }

    /// Deletes a connector and its secrets.
    ///
    /// # Errors
    /// [`ChangeError::Moved`] if `revision` is no longer current.
    pub async fn delete(&self, actor: &Actor, id: Uuid, revision: i64) -> Result<(), ChangeError> {
        let row = self.row_at(id, revision).await?;
        let scope = Scope::workspace(row.workspace);
        let secrets = self.secrets.acting_as(actor);
        let planned = secrets.plan_delete(&scope, row.configuration).await?;
        let delete = |_, record| async move { self.rows.delete(id, revision, record).await };
        self.carry_out(id, planned, delete).await.map(|_| ())
    }

    /// A connector for display, with masked secrets. Does not call a store.
    ///
    /// # Errors
    /// [`ChangeError::Missing`]; a specification that does not compile.
    pub async fn masked(&self, id: Uuid) -> Result<Change, ChangeError> {
        let row = self.rows.get(id).await?.ok_or(ChangeError::Missing)?;
        let spec = ConnectorSpec::compile(&row.specification)?;
        Ok(Change {
            revision: row.revision,
            masked: spec.mask(row.configuration)?,
        })
    }

    /// A connector for the runner: the full configuration, wiped when it drops.
    ///
    /// A row that was read before another commit may point to deleted secrets. Then the row is read
    /// again, at most three times.
    ///
    /// # Errors
    /// [`ChangeError::Missing`]; all places whose secrets cannot be read.
    pub async fn hydrated(&self, actor: &Actor, id: Uuid) -> Result<SecretJson, ChangeError> {
        let read_row = || async move {
            let row = self.rows.get(id).await?.ok_or(ChangeError::Missing)?;
            Ok((row.revision, row.configuration))
        };
        match self.secrets.acting_as(actor).hydrate_fresh(read_row).await {
            Ok((_, full)) => Ok(full),
            Err(FreshError::Row(error)) => Err(error),
            Err(FreshError::Secrets(error)) => Err(error.into()),
        }
    }

    /// Exchanges tokens that may be used once, such as an OAuth refresh token: one exchange at a
    /// time, and callers that wait get the new values.
    ///
    /// `row` is the one that the expired token is from, and the first place has the token. The
    /// exchange gets the old values and returns the new ones.
    ///
    /// # Errors
    /// [`RefreshError`]; no new value is lost that a store has.
    pub async fn refreshed<X, Fut, E>(
        &self,
        actor: &Actor,
        row: &Row,
        places: impl IntoIterator<Item = Place>,
        exchange: X,
    ) -> Result<Refreshed, RefreshError<E>>
    where
        X: FnOnce(PlacedValues) -> Fut + Send + 'static,
        Fut: Future<Output = Result<PlacedValues, E>> + Send + 'static,
        E: Send + 'static,
    {
        let scope = Scope::workspace(row.workspace);
        let refresh = Refresh::new(row.id.to_string(), &scope, &row.configuration, places)?;
        let secrets = self.secrets.acting_as(actor);
        secrets
            .refresh(self.rows.refreshes(), &refresh, exchange)
            .await
    }

    /// Every connector for an export: masked by its specification, then every pointer is scrubbed.
    /// A row whose specification does not compile is listed instead of exported.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn export(&self) -> Result<(Vec<(Uuid, Value)>, Vec<Uuid>), ChangeError> {
        let (mut exported, mut left_out) = (Vec::new(), Vec::new());
        for id in self.rows.ids().await? {
            let scrubbed = match self.masked(id).await {
                Ok(change) => scrub(change.masked),
                Err(ChangeError::Missing) => continue,
                Err(ChangeError::Connector(error)) => Err(error),
                Err(other) => return Err(other),
            };
            match scrubbed {
                Ok(Scrubbed { value, .. }) => exported.push((id, value)),
                Err(_) => left_out.push(id),
            }
        }
        Ok((exported, left_out))
    }

    /// Ends crashed changes: claims records that are still open and deletes their secrets, deletes
    /// what saved changes have superseded, and adopts what crashed refreshes have written. Run it at the start and every minute; concurrent
    /// runs are harmless.
    ///
    /// # Errors
    /// If the database or a required audit fails. Secrets that a store did not delete stay in the
    /// outbox for the next round.
    pub async fn heal(&self) -> Result<(), ChangeError> {
        let secrets = self.secrets.acting_as(&Actor::new("healer"));
        let now = Timestamp::now();
        for (id, record, state) in self.rows.records().await? {
            let state = match state {
                Some(state) => state,
                None if now < record.planned().saturating_add(self.patience) => continue,
                None if self.rows.abandon(id).await? => RecordState::Abandoned,
                // Its save came first.
                None => RecordState::Saved,
            };
            let cleanup = secrets.heal(&record, state).await?;
            self.close(id, &cleanup).await?;
        }
        let healed = secrets.heal_refreshes(self.rows.refreshes()).await?;
        for undeleted in &healed.failed {
            tracing::warn!(error = %undeleted.error, "left for the next round");
        }
        for (row, error) in &healed.open {
            tracing::warn!(%row, %error, "the refresh is left for the next round");
        }
        for error in &healed.unreadable {
            tracing::warn!(%error, "left to the version that wrote it");
        }
        Ok(())
    }

    /// Record, stage, save, commit. Returns the saved configuration.
    async fn carry_out<F>(
        &self,
        id: Uuid,
        planned: Planned,
        save: impl FnOnce(Value, Uuid) -> F,
    ) -> Result<Value, ChangeError>
    where
        F: Future<Output = sqlx::Result<Outcome>>,
    {
        // Before anything is written, so that a crash leaves only recorded secrets.
        let record = self.rows.open_record(planned.record()).await?;
        let staged = planned.stage().await?;
        let configuration = staged.config().clone();
        let cleanup = match save(configuration.clone(), record).await {
            Ok(Outcome::Saved) => staged.commit().await?,
            Ok(Outcome::Moved) => {
                // Whether it wins against the healer or loses: it will never be saved.
                self.rows.abandon(record).await?;
                let cleanup = staged.abort().await?;
                self.close(record, &cleanup).await?;
                return Err(ChangeError::Moved);
            }
            Err(error) => {
                tracing::warn!(%error, "the save's outcome is unknown");
                // A save that is not in the row now must not arrive later.
                self.rows.abandon(record).await?;
                let current = self.rows.get(id).await?.map(|row| row.configuration);
                match staged.settle(current.as_ref()).await? {
                    Settled::Committed(cleanup) => cleanup,
                    Settled::Aborted(cleanup) => {
                        self.close(record, &cleanup).await?;
                        return Err(error.into());
                    }
                    _ => return Err(ChangeError::Undecided),
                }
            }
        };
        self.close(record, &cleanup).await?;
        Ok(configuration)
    }

    async fn row_at(&self, id: Uuid, revision: i64) -> Result<Row, ChangeError> {
        let row = self.rows.get(id).await?.ok_or(ChangeError::Missing)?;
        if row.revision == revision {
            Ok(row)
        } else {
            Err(ChangeError::Moved)
        }
    }

    /// Removes the record of a finished change; otherwise the healer continues.
    async fn close(&self, record: Uuid, cleanup: &Cleanup) -> Result<(), ChangeError> {
        for undeleted in &cleanup.failed {
            tracing::warn!(error = %undeleted.error, "left for the healer");
        }
        if cleanup.is_finished() {
            self.rows.close_record(record).await?;
        }
        Ok(())
    }

    /// The connector calls on behalf of an actor, for everything that this service does not wrap.
    #[must_use]
    pub fn secrets(&self, actor: &Actor) -> ActingSecrets {
        self.secrets.acting_as(actor)
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connector(error) => error.fmt(f),
            Self::Healing(error) => error.fmt(f),
            Self::Database(_) => f.write_str("the service's database failed"),
            Self::Missing => f.write_str("there is no such connector"),
            Self::Moved => f.write_str("the connector has changed; read it and try again"),
            Self::Undecided => {
                f.write_str("the outcome of the save is unknown; read the connector")
            }
        }
    }
}

impl std::error::Error for ChangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connector(error) => error.source(),
            Self::Database(error) => Some(error),
            Self::Healing(error) => error.source(),
            Self::Missing | Self::Moved | Self::Undecided => None,
        }
    }
}

impl From<ConnectorError> for ChangeError {
    fn from(error: ConnectorError) -> Self {
        Self::Connector(error)
    }
}

impl From<RefreshError<Infallible>> for ChangeError {
    fn from(error: RefreshError<Infallible>) -> Self {
        Self::Healing(error)
    }
}

impl From<sqlx::Error> for ChangeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}
