//! What all connector calls share: stores, options, the actor, audit events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexSet;
use uuid::Uuid;

use super::error::{ConnectorError, Problem, ProblemKind};
use super::executor::Executor;
use super::place::Place;
use super::policy::Policy;
use super::references::{References, ResolveReferences};
use super::refresh::Proofs;
use crate::{Actor, AuditEvent, ErrorKind, Location, Operation, Stores, Timestamp};

/// Options of connector calls.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectorOptions {
    /// What configurations may contain.
    pub policy: Policy,
    /// Resolves reference ids. Without it, a configuration with a reference id is an error.
    pub references: Option<Arc<dyn ResolveReferences>>,
    /// How long superseded secrets are kept: at least the age of the oldest backup of the
    /// configuration database. By default `None`, which deletes them on commit.
    pub retention: Option<Duration>,
    /// How long after its plan a change may still write: the longest time from plan to stage,
    /// including all attempts of a write. An older plan is refused, and an abandoned record is
    /// healed repeatedly until it is older. 15 minutes by default.
    pub deadline: Duration,
    /// Runs walks that may take long. Without it they run on the thread that polls the call.
    pub long_walks: Option<Executor>,
}

impl Default for ConnectorOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            references: None,
            retention: None,
            deadline: Duration::from_secs(15 * 60),
            long_walks: None,
        }
    }
}

impl ConnectorOptions {
    /// Sets the policy.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the reference resolver.
    #[must_use]
    pub fn with_references(mut self, references: Arc<dyn ResolveReferences>) -> Self {
        self.references = Some(references);
        self
    }

    /// Sets how long superseded secrets are kept.
    #[must_use]
    pub fn with_retention(mut self, retention: Option<Duration>) -> Self {
        self.retention = retention;
        self
    }

    /// Sets the time from a plan to its last write.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets what runs long walks.
    #[must_use]
    pub fn with_long_walks(mut self, executor: Executor) -> Self {
        self.long_walks = Some(executor);
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
            .field("long_walks", &self.long_walks)
            .finish()
    }
}

/// Everything that connector calls need except the actor. Create it once and share it.
#[derive(Clone, Debug)]
pub struct ConnectorSecrets(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stores: Stores,
    options: ConnectorOptions,
    proofs: Proofs,
}

impl ConnectorSecrets {
    /// Creates the connector calls for these stores.
    #[must_use]
    pub fn new(stores: Stores, options: ConnectorOptions) -> Self {
        Self(Arc::new(Shared {
            stores,
            options,
            proofs: Proofs::default(),
        }))
    }

    /// The calls on behalf of an actor.
    #[must_use]
    pub fn acting_as(&self, actor: &Actor) -> ActingSecrets {
        ActingSecrets {
            shared: Arc::clone(&self.0),
            actor: actor.clone(),
            request: None,
        }
    }
}

/// The connector calls: hydrate, stage, plan, heal, collect. Cheap to clone.
///
/// # A change, and the caller's compare-and-swap
///
/// Save the row only if it still has the revision that the change was staged from. Otherwise, two
/// changes from the same saved configuration could both be saved, and the second would restore a
/// pointer whose secret the first has deleted.
///
/// ```
/// # use std::sync::{Arc, Mutex};
/// # use secret_persistence_core::connector::{ConnectorOptions, ConnectorSecrets, ConnectorSpec};
/// # use secret_persistence_core::{Actor, Memory, Scope, Stores};
/// # use serde_json::{Value, json};
/// # use uuid::Uuid;
/// // The caller's table with one row.
/// struct Table(Mutex<(u64, Value)>);
///
/// impl Table {
///     fn row(&self) -> (u64, Value) {
///         self.0.lock().unwrap().clone()
///     }
///
///     /// `UPDATE … SET configuration = $1, revision = revision + 1 WHERE revision = $2`;
///     /// `None` if the connection broke before the answer arrived.
///     fn save(&self, config: &Value, revision: u64) -> Option<bool> {
///         let mut row = self.0.lock().unwrap();
///         if row.0 == revision {
///             *row = (revision + 1, config.clone());
///             return Some(true);
///         }
///         Some(false)
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let spec = ConnectorSpec::compile(&json!({
///     "properties": {"host": {"type": "string"}, "password": {"type": "string", "airbyte_secret": true}},
/// }))?;
/// let scope = Scope::workspace(Uuid::from_u128(1));
/// let stores = Stores::new(Arc::new(Memory::new()));
/// let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default())
///     .acting_as(&Actor::new("alice"));
///
/// // A new row: the secret is written first, then the row with its pointer.
/// let staged = secrets
///     .stage_create(&spec, &scope, json!({"host": "db", "password": "hunter2"}))
///     .await?;
/// let table = Table(Mutex::new((1, staged.config().clone())));
/// staged.commit().await?;
///
/// // Two people edit it at the same time, one of them through a mask.
/// let (revision, saved) = table.row();
/// let edited = json!({"host": "db", "password": "correct horse"});
/// let first = secrets.stage_update(&spec, &scope, saved.clone(), edited).await?;
/// let edited = json!({"host": "db2", "password": "**********"});
/// let second = secrets.stage_update(&spec, &scope, saved, edited).await?;
///
/// for staged in [first, second] {
///     match table.save(staged.config(), revision) {
///         // Saved: delete what it replaced.
///         Some(true) => {
///             staged.commit().await?;
///         }
///         // Another save came first: delete what this one wrote. Its user reads the row again.
///         Some(false) => {
///             staged.abort().await?;
///         }
///         // Unknown. The row, read with a lock, decides.
///         None => {
///             let (_, current) = table.row();
///             staged.settle(Some(&current)).await?;
///         }
///     }
/// }
///
/// let full = secrets.hydrate(table.row().1).await?;
/// assert_eq!(*full, json!({"host": "db", "password": "correct horse"}));
/// # Ok::<(), secret_persistence_core::connector::ConnectorError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The same with an outbox
///
/// A process that crashes between staging and commit leaves unreferenced secrets. The collector
/// finds them eventually; a record in the caller's outbox identifies them immediately and exactly.
/// The record is `open` when the plan is made, `saved` in the transaction that saves the row, and
/// `abandoned` when a healer has claimed it, each by compare-and-swap.
///
/// ```
/// # use std::sync::Arc;
/// # use secret_persistence_core::connector::{ConnectorOptions, ConnectorSecrets, ConnectorSpec, Record, RecordState};
/// # use secret_persistence_core::{Actor, Memory, Scope, Stores};
/// # use serde_json::json;
/// # use uuid::Uuid;
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// # let spec = ConnectorSpec::compile(&json!({
/// #     "properties": {"password": {"type": "string", "airbyte_secret": true}},
/// # }))?;
/// # let scope = Scope::workspace(Uuid::from_u128(1));
/// # let store = Arc::new(Memory::new());
/// # let secrets = ConnectorSecrets::new(Stores::new(store.clone()), ConnectorOptions::default())
/// #     .acting_as(&Actor::new("alice"));
/// let planned = secrets
///     .plan_create(&spec, &scope, json!({"password": "hunter2"}))
///     .await?;
/// // INSERT INTO outbox (record, state) VALUES ($1, 'open')
/// let row = serde_json::to_string(planned.record())?;
/// let staged = planned.stage().await?;
/// // Here the process crashes and is restarted.
/// drop(staged);
///
/// // UPDATE outbox SET state = 'abandoned' WHERE id = $1 AND state = 'open'
/// let record: Record = serde_json::from_str(&row)?;
/// let cleanup = secrets.heal(&record, RecordState::Abandoned).await?;
/// assert_eq!(cleanup.deleted.len(), 1);
/// assert!(store.is_empty());
/// // A write that timed out may still arrive, so the record stays until then.
/// assert!(cleanup.again.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ActingSecrets {
    shared: Arc<Shared>,
    actor: Actor,
    request: Option<Arc<str>>,
}

impl ActingSecrets {
    /// Sets the id of the request that these calls serve, for audit events.
    #[must_use]
    pub fn for_request(mut self, id: impl Into<Arc<str>>) -> Self {
        self.request = Some(id.into());
        self
    }

    pub(super) fn stores(&self) -> &Stores {
        &self.shared.stores
    }

    pub(super) fn options(&self) -> &ConnectorOptions {
        &self.shared.options
    }

    /// Which stores have taken a write of this process.
    pub(super) fn proofs(&self) -> &Proofs {
        &self.shared.proofs
    }

    /// Resolves these references.
    pub(super) async fn references(&self, ids: Vec<Uuid>) -> References {
        References::look_up(self.options().references.as_deref(), ids).await
    }

    /// The executor of long walks, if a configuration is long and the options have one.
    pub(super) fn executor(&self, is_long: impl FnOnce() -> bool) -> Option<&Executor> {
        self.options().long_walks.as_ref().filter(|_| is_long())
    }

    /// Walks over configurations on the executor, or on this thread.
    pub(super) async fn walk<T: Send + 'static>(
        &self,
        executor: Option<&Executor>,
        walk: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
    ) -> Result<T, ConnectorError> {
        match executor {
            Some(executor) => executor.run(walk).await,
            None => walk(),
        }
    }

    /// Collects the audit events of one operation.
    pub(super) fn events(&self, operation: Operation) -> Events<'_> {
        Events {
            secrets: self,
            operation,
            at: None,
            events: Vec::new(),
            place_bytes: 0,
        }
    }
}

/// How much text the places of one event may have, and those of all events of a call. A place may be
/// as long as a configuration and have a hundred thousand siblings, and a sink writes each in full.
const EVENT_PLACE_BYTES: usize = 64 << 10;
const CALL_PLACE_BYTES: usize = 1 << 20;

/// The places of one event.
#[derive(Default)]
pub(super) struct EventPlaces<'p> {
    distinct: IndexSet<&'p Place>,
    bytes: usize,
    omitted: usize,
}

/// The audit events of one operation. Nothing is allocated without a sink.
pub(super) struct Events<'a> {
    secrets: &'a ActingSecrets,
    operation: Operation,
    at: Option<Timestamp>,
    events: Vec<AuditEvent>,
    /// The text of the places that are in them.
    place_bytes: usize,
}

impl Events<'_> {
    /// Adds what became of one secret: `None` is success.
    pub(super) fn push(&mut self, failure: Option<ErrorKind>, location: impl FnOnce() -> Location) {
        self.push_at(failure, || (location(), EventPlaces::default()));
    }

    /// Adds a place to those of one event, or counts it if there is no room for its text.
    pub(super) fn place<'p>(&mut self, places: &mut EventPlaces<'p>, place: &'p Place) {
        // With the quotes and the comma of a list.
        let bytes = place.length() + 3;
        let event = places.bytes + bytes;
        let call = self.place_bytes + bytes;
        if event > EVENT_PLACE_BYTES || call > CALL_PLACE_BYTES {
            places.omitted += 1;
        } else if places.distinct.insert(place) {
            places.bytes = event;
            self.place_bytes = call;
        }
    }

    /// Adds what became of one secret whose places are known.
    pub(super) fn push_at<'p>(
        &mut self,
        failure: Option<ErrorKind>,
        secret: impl FnOnce() -> (Location, EventPlaces<'p>),
    ) {
        if self.secrets.stores().is_audited() {
            let (location, places) = secret();
            self.events.push(AuditEvent {
                at: *self.at.get_or_insert_with(Timestamp::now),
                actor: self.secrets.actor.clone(),
                operation: self.operation,
                location,
                places: places.distinct.into_iter().cloned().collect(),
                places_omitted: places.omitted,
                request: self.secrets.request.clone(),
                failure,
            });
        }
    }

    /// Sends them. On error, the operation must fail.
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
}
