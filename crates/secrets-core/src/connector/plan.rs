//! The beginning of a change: what it will write and supersede.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_json::Value;

use super::error::{ConnectorError, Problems};
use super::executor::is_long;
use super::place::Place;
use super::pointer::{Pointer, pointers, visit_pointers};
use super::record::Record;
use super::references::References;
use super::secret_json::SecretJson;
use super::secrets::ActingSecrets;
use super::spec::ConnectorSpec;
use super::split;
use super::staged::{Change, Planned, Staged};
use super::update::{self, Left};
use crate::{Location, ManagedCoordinate, Scope, SecretValue, Timestamp, Write};

/// A configuration with its pointers, and the secrets to write for them.
#[non_exhaustive]
pub struct SplitPlan {
    /// The configuration to save once everything is written.
    pub config: Value,
    /// The secrets to write, all under new names, to the policy's storage. Each has the place of
    /// its pointer in `config`.
    pub writes: Vec<Write>,
    /// Secrets of the scope that are in the saved configuration and not in this one.
    pub superseded: Vec<Location<ManagedCoordinate>>,
    /// References that are in the saved configuration and not in this one. The rows belong to the
    /// caller, and so do the secrets they name.
    pub released_references: Vec<(Place, Pointer)>,
}

impl fmt::Debug for SplitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SplitPlan")
            .field("writes", &self.writes)
            .field("superseded", &self.superseded)
            .field("released_references", &self.released_references)
            .finish_non_exhaustive()
    }
}

impl ActingSecrets {
    /// Plans a new configuration: its secrets will get new names in the storage of the
    /// [policy](super::Policy). Writes nothing.
    ///
    /// # Errors
    /// Every problem of the configuration, by place.
    pub async fn plan_create(
        &self,
        spec: &ConnectorSpec,
        scope: &Scope,
        config: Value,
    ) -> Result<Planned, ConnectorError> {
        // Wiped if the walk never runs.
        let config = SecretJson::new(config);
        let policy = &self.options().policy;
        let plan = match self.executor(|| spec.has_patterns() || is_long(&config)) {
            None => split::plan_create(spec, scope, policy, config.into_inner())?,
            Some(executor) => {
                let (spec, scope, policy) = (spec.clone(), scope.clone(), policy.clone());
                let walk = move || split::plan_create(&spec, &scope, &policy, config.into_inner());
                Box::pin(executor.run(walk)).await?
            }
        };
        Ok(self.planned(plan, None, &References::default()))
    }

    /// Plans an edited configuration that replaces a saved one. Writes nothing.
    ///
    /// `edited` may contain values, and masks and pointers that keep what is saved. Values that
    /// equal the saved ones, which are read in one batch, are not written again. A saved secret
    /// that is missing in the store counts as changed, so that entering it again repairs the
    /// configuration.
    ///
    /// # Errors
    /// Every problem of the configurations, every unresolved reference and every saved secret that
    /// cannot be read, by place.
    pub async fn plan_update(
        &self,
        spec: &ConnectorSpec,
        scope: &Scope,
        saved: Value,
        edited: Value,
    ) -> Result<Planned, ConnectorError> {
        let (saved, edited) = (SecretJson::new(saved), SecretJson::new(edited));
        let executor = self.executor(|| spec.has_patterns() || is_long(&saved) || is_long(&edited));
        let (owned, policy) = (spec.clone(), self.options().policy.clone());
        let (needed, saved, edited) = self
            .walk(executor, move || {
                let needed = update::saved_pointers_needed(&owned, &policy, &saved, &edited)?;
                Ok((needed, saved, edited))
            })
            .await?;
        let (places, needed): (Vec<Place>, Vec<Pointer>) = needed.into_iter().unzip();
        let references = self.saved_references(&saved).await?;
        let mut values: HashMap<Pointer, SecretValue> = HashMap::with_capacity(needed.len());
        let mut problems = Problems::default();
        let read = self.read(&needed, &places, &references).await?;
        for ((place, pointer), value) in places.into_iter().zip(needed).zip(read) {
            match value {
                Ok(value) => {
                    values.insert(pointer, value);
                }
                Err(unread) if unread.is_gone() => {}
                Err(unread) => problems.push(|| unread.at(place, &pointer)),
            }
        }
        problems.into_result()?;
        let (owned, scope) = (spec.clone(), scope.clone());
        let policy = self.options().policy.clone();
        let (plan, saved, references) = self
            .walk(executor, move || {
                let plan = update::plan_update(
                    &owned,
                    &scope,
                    &policy,
                    &saved,
                    &values,
                    &references,
                    edited.into_inner(),
                )?;
                Ok((plan, saved, references))
            })
            .await?;
        Ok(self.planned(plan, Some(saved), &references))
    }

    /// Plans the deletion of a saved configuration: commit deletes its secrets of this scope.
    ///
    /// # Errors
    /// Every malformed pointer and every unresolved reference, by place.
    pub async fn plan_delete(
        &self,
        scope: &Scope,
        saved: Value,
    ) -> Result<Planned, ConnectorError> {
        let saved = SecretJson::new(saved);
        pointers(&saved)?;
        let references = self.saved_references(&saved).await?;
        let left = Left::of(&Value::Null, scope, &saved, &references)?;
        let plan = SplitPlan {
            config: Value::Null,
            writes: Vec::new(),
            superseded: left.superseded,
            released_references: left.released_references,
        };
        let mut planned = self.planned(plan, Some(saved), &references);
        planned.change.config = None;
        Ok(planned)
    }

    /// Plans a new configuration and writes its secrets: [`plan_create`](Self::plan_create) and
    /// [`stage`](Planned::stage) in one call, without an outbox.
    ///
    /// # Errors
    /// The errors of both.
    pub async fn stage_create(
        &self,
        spec: &ConnectorSpec,
        scope: &Scope,
        config: Value,
    ) -> Result<Staged, ConnectorError> {
        self.plan_create(spec, scope, config)
            .await?
            .stage_now()
            .await
    }

    /// Plans an edited configuration and writes its new secrets: [`plan_update`](Self::plan_update)
    /// and [`stage`](Planned::stage) in one call, without an outbox.
    ///
    /// # Errors
    /// The errors of both.
    pub async fn stage_update(
        &self,
        spec: &ConnectorSpec,
        scope: &Scope,
        saved: Value,
        edited: Value,
    ) -> Result<Staged, ConnectorError> {
        self.plan_update(spec, scope, saved, edited)
            .await?
            .stage_now()
            .await
    }

    /// Plans the deletion of a saved configuration: [`plan_delete`](Self::plan_delete) and
    /// [`stage`](Planned::stage) in one call, without an outbox. The caller deletes the row, then
    /// commits.
    ///
    /// # Errors
    /// The errors of both.
    pub async fn stage_delete(
        &self,
        scope: &Scope,
        saved: Value,
    ) -> Result<Staged, ConnectorError> {
        self.plan_delete(scope, saved).await?.stage_now().await
    }

    /// Resolves all references of a saved configuration.
    async fn saved_references(&self, saved: &Value) -> Result<References, ConnectorError> {
        let mut ids = Vec::new();
        visit_pointers(saved, &mut |_, pointer| {
            ids.extend(pointer.ok().and_then(|pointer| pointer.reference_id));
        })?;
        if ids.is_empty() {
            return Ok(References::default());
        }
        let found = pointers(saved)?;
        let references = self.references(ids).await;
        references.check(&found)?;
        Ok(references)
    }

    fn planned(
        &self,
        mut plan: SplitPlan,
        saved: Option<SecretJson>,
        references: &References,
    ) -> Planned {
        if !plan.superseded.is_empty() {
            let named = named(&plan.config, saved.as_deref(), references);
            plan.superseded
                .retain(|location| !named.contains(&location.coordinate));
        }
        let storage_id = &self.options().policy.write_storage;
        let writes = plan.writes.iter().map(|write| {
            Location::new(write.coordinate.clone()).with_storage_id(storage_id.clone())
        });
        let released = plan.released_references.into_iter();
        Planned {
            secrets: self.clone(),
            change: Change {
                config: Some(plan.config),
                saved,
                record: Record::new(Timestamp::now(), writes.collect(), plan.superseded),
                released_references: released
                    .filter_map(|(_, pointer)| pointer.reference_id)
                    .collect(),
            },
            writes: plan.writes,
        }
    }
}

/// The names to keep: those in the new configuration, and those that references of the saved one
/// resolve to. The storage id does not matter: two ids may lead to the same store, and a managed
/// name is unique.
fn named(
    config: &Value,
    saved: Option<&Value>,
    references: &References,
) -> HashSet<ManagedCoordinate> {
    let mut named = HashSet::new();
    for (value, is_saved) in [(Some(config), false), (saved, true)] {
        // Both have been walked before, so neither is too deep.
        let _ = visit_pointers(value.unwrap_or(&Value::Null), &mut |_, pointer| {
            if let Ok(pointer) = pointer
                && (!is_saved || pointer.reference_id.is_some())
                && let Ok(location) = references.locate(&pointer)
            {
                named.extend(location.managed().map(|location| location.coordinate));
            }
        });
    }
    named
}
