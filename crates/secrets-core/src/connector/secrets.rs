//! The connector calls' common ground: stores, options, the actor, audit events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::audit::{Actor, AuditEvent};
use super::error::{ConnectorError, Problem, ProblemKind};
use super::place::Place;
use super::pointer::StorageId;
use super::policy::Policy;
use super::references::ResolveReferences;
use crate::{Coordinate, ErrorKind, Operation, Stores, Timestamp};

/// How connector calls behave.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectorOptions {
    /// What configurations may hold.
    pub policy: Policy,
    /// Finds what reference ids stand for. Without it, a configuration that has any is an error.
    pub references: Option<Arc<dyn ResolveReferences>>,
    /// For how long superseded secrets are kept: as long as the oldest backup of the configuration
    /// database is. `None`, the default, deletes them on commit.
    pub retention: Option<Duration>,
    /// How long after its plan a change may still write: the longest time from plan to stage, and all
    /// attempts of a write with it. An older plan is refused, and an abandoned record is healed again
    /// until it is older. 15 minutes unless told.
    pub deadline: Duration,
}

impl Default for ConnectorOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            references: None,
            retention: None,
            deadline: Duration::from_secs(15 * 60),
        }
    }
}

impl ConnectorOptions {
    /// Applies this policy.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Resolves references through this.
    #[must_use]
    pub fn with_references(mut self, references: Arc<dyn ResolveReferences>) -> Self {
        self.references = Some(references);
        self
    }

    /// Keeps superseded secrets for this long.
    #[must_use]
    pub fn with_retention(mut self, retention: Option<Duration>) -> Self {
        self.retention = retention;
        self
    }

    /// Allows this long from a plan to its last write.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl fmt::Debug for ConnectorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorOptions")
            .field("policy", &self.policy)
            .field("references", &self.references.is_some())
            .field("retention", &self.retention)
            .field("deadline", &self.deadline)
            .finish()
    }
}

/// Everything that connector calls need but the actor. Made once, shared by all.
#[derive(Clone, Debug)]
pub struct ConnectorSecrets(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stores: Stores,
    options: ConnectorOptions,
}

impl ConnectorSecrets {
    /// Connector calls over these stores.
    #[must_use]
    pub fn new(stores: Stores, options: ConnectorOptions) -> Self {
        Self(Arc::new(Shared { stores, options }))
    }

    /// The calls, on behalf of somebody.
    #[must_use]
    pub fn acting_as(&self, actor: &Actor) -> ActingSecrets {
        ActingSecrets {
            shared: Arc::clone(&self.0),
            actor: actor.clone(),
        }
    }
}

/// The connector calls: hydrate, stage, plan, heal, collect. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ActingSecrets {
    shared: Arc<Shared>,
    actor: Actor,
}

impl ActingSecrets {
    pub(super) fn stores(&self) -> &Stores {
        &self.shared.stores
    }

    pub(super) fn options(&self) -> &ConnectorOptions {
        &self.shared.options
    }

    /// Collects the audit events of one operation.
    pub(super) fn events(&self, operation: Operation) -> Events<'_> {
        Events {
            secrets: self,
            operation,
            at: None,
            events: Vec::new(),
        }
    }
}

/// The audit events of one operation. Nothing is made where nobody listens.
pub(super) struct Events<'a> {
    secrets: &'a ActingSecrets,
    operation: Operation,
    at: Option<Timestamp>,
    events: Vec<AuditEvent>,
}

impl Events<'_> {
    pub(super) fn succeeded(
        &mut self,
        storage_id: Option<&StorageId>,
        coordinate: impl FnOnce() -> Coordinate,
    ) {
        self.push(storage_id, coordinate, None);
    }

    pub(super) fn failed(
        &mut self,
        storage_id: Option<&StorageId>,
        coordinate: impl FnOnce() -> Coordinate,
        kind: ErrorKind,
    ) {
        self.push(storage_id, coordinate, Some(kind));
    }

    /// Sends them. An error means that the operation must fail.
    pub(super) async fn record(self) -> Result<(), ConnectorError> {
        self.secrets
            .stores()
            .record(&self.events)
            .await
            .map_err(|error| {
                Problem::new(
                    Place::root(),
                    ProblemKind::AuditFailed,
                    "the audit is required and its sink failed",
                )
                .with_error(error)
                .into()
            })
    }

    fn push(
        &mut self,
        storage_id: Option<&StorageId>,
        coordinate: impl FnOnce() -> Coordinate,
        failure: Option<ErrorKind>,
    ) {
        if self.secrets.stores().is_audited() {
            self.events.push(AuditEvent {
                at: *self.at.get_or_insert_with(Timestamp::now),
                actor: self.secrets.actor.clone(),
                operation: self.operation,
                storage_id: storage_id.cloned(),
                coordinate: coordinate(),
                failure,
            });
        }
    }
}
