//! The beginning of a change: what it writes and supersedes, before it does.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::error::{ConnectorError, Problems};
use super::guarded::GuardedValue;
use super::place::Place;
use super::plan::SplitPlan;
use super::pointer::{Pointer, pointers, visit_pointers};
use super::read::References;
use super::record::{Location, Record};
use super::secrets::ActingSecrets;
use super::spec::ConnectorSpec;
use super::split;
use super::staged::{Change, Planned, Staged};
use super::update;
use crate::{Coordinate, Scope, SecretValue, Timestamp};

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
        let plan = split::plan_create(spec, scope, &self.options().policy, config)?;
        Ok(self.planned(plan, None))
    }

    /// Plans an edited configuration in place of a saved one. Writes nothing.
    ///
    /// `edited` may hold masks and pointers, which keep what is saved, and values; those that equal
    /// the saved ones, which are read once and in one batch, are not written again. A saved secret
    /// that the store no longer has counts as changed, so that entering it again repairs the
    /// configuration.
    ///
    /// # Errors
    /// Every problem of the configurations, every reference that is not resolved and every saved
    /// secret that cannot be read, by place.
    pub async fn plan_update(
        &self,
        spec: &ConnectorSpec,
        scope: &Scope,
        saved: Value,
        edited: Value,
    ) -> Result<Planned, ConnectorError> {
        let (saved, edited) = (GuardedValue::new(saved), GuardedValue::new(edited));
        let needed = update::saved_pointers_needed(spec, &self.options().policy, &saved, &edited)?;
        let (places, needed): (Vec<Place>, Vec<Pointer>) = needed.into_iter().unzip();
        let references = self.saved_references(&saved).await?;
        let mut values: HashMap<Pointer, SecretValue> = HashMap::with_capacity(needed.len());
        let mut problems = Problems::default();
        let read = self.read(&needed, &references).await?;
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
        let plan = update::plan_update(
            spec,
            scope,
            &self.options().policy,
            &saved,
            &values,
            &references.identities(),
            edited.into_inner(),
        )?;
        Ok(self.planned(plan, Some(saved)))
    }

    /// Plans the end of a saved configuration: commit deletes its secrets of this scope.
    ///
    /// # Errors
    /// Every malformed pointer, by place.
    pub async fn plan_delete(
        &self,
        scope: &Scope,
        saved: Value,
    ) -> Result<Planned, ConnectorError> {
        let saved = GuardedValue::new(saved);
        let mut supersedes: Vec<Location> = Vec::new();
        let mut released = Vec::new();
        let mut referenced = HashSet::new();
        for (_, pointer) in pointers(&saved)? {
            let Some(Coordinate::Managed(coordinate)) = pointer.coordinate else {
                released.extend(pointer.reference_id);
                continue;
            };
            if let Some(id) = pointer.reference_id {
                // The row that names it is the caller's, and so is the secret.
                released.push(id);
                referenced.insert(coordinate);
            } else if scope.contains(&coordinate) {
                supersedes.push(Location::new(coordinate).with_storage_id(pointer.storage_id));
            }
        }
        supersedes.retain(|location| !referenced.contains(&location.coordinate));
        supersedes.sort_unstable();
        supersedes.dedup();
        Ok(Planned {
            secrets: self.clone(),
            change: Change {
                config: None,
                saved: Some(saved),
                record: Record::new(Timestamp::now(), Vec::new(), supersedes),
                released_references: released,
            },
            writes: Vec::new(),
            expires: None,
        })
    }

    /// Plans a new configuration and writes its secrets: [`plan_create`](Self::plan_create) and
    /// [`stage`](Planned::stage) in one, without an outbox.
    ///
    /// # Errors
    /// As both say.
    pub async fn stage_create(
        &self,
        spec: &ConnectorSpec,
        scope: &Scope,
        config: Value,
    ) -> Result<Staged, ConnectorError> {
        self.plan_create(spec, scope, config).await?.stage().await
    }

    /// Plans an edited configuration and writes its new secrets: [`plan_update`](Self::plan_update)
    /// and [`stage`](Planned::stage) in one, without an outbox.
    ///
    /// # Errors
    /// As both say.
    pub async fn stage_update(
        &self,
        spec: &ConnectorSpec,
        scope: &Scope,
        saved: Value,
        edited: Value,
    ) -> Result<Staged, ConnectorError> {
        self.plan_update(spec, scope, saved, edited)
            .await?
            .stage()
            .await
    }

    /// Plans the end of a saved configuration: [`plan_delete`](Self::plan_delete) and
    /// [`stage`](Planned::stage) in one, without an outbox. The caller deletes the row, then commits.
    ///
    /// # Errors
    /// As both say.
    pub async fn stage_delete(
        &self,
        scope: &Scope,
        saved: Value,
    ) -> Result<Staged, ConnectorError> {
        self.plan_delete(scope, saved).await?.stage().await
    }

    /// What the references of a saved configuration name, all of them.
    async fn saved_references(&self, saved: &Value) -> Result<References, ConnectorError> {
        let mut has_any = false;
        visit_pointers(saved, &mut |_, pointer| {
            has_any |= pointer.is_ok_and(|pointer| pointer.reference_id.is_some());
        })?;
        if !has_any {
            return Ok(References::none());
        }
        let (places, pointers): (Vec<Place>, Vec<Pointer>) = pointers(saved)?.into_iter().unzip();
        let references = self.resolve(&pointers).await;
        let mut problems = Problems::default();
        for (place, pointer) in places.into_iter().zip(&pointers) {
            if let Err(unread) = references.target(pointer) {
                problems.push(|| unread.at(place, pointer));
            }
        }
        problems.into_result()?;
        Ok(references)
    }

    fn planned(&self, plan: SplitPlan, saved: Option<GuardedValue>) -> Planned {
        let storage_id = &self.options().policy.write_storage;
        let writes = plan
            .writes
            .iter()
            .map(|write| {
                Location::new(write.coordinate.clone()).with_storage_id(storage_id.clone())
            })
            .collect();
        let supersedes = plan
            .superseded
            .into_iter()
            .filter_map(|pointer| match pointer.coordinate {
                Some(Coordinate::Managed(coordinate)) => {
                    Some(Location::new(coordinate).with_storage_id(pointer.storage_id))
                }
                _ => None,
            })
            .collect();
        let released = plan.released_references.into_iter();
        Planned {
            secrets: self.clone(),
            change: Change {
                config: Some(plan.config),
                saved,
                record: Record::new(Timestamp::now(), writes, supersedes),
                released_references: released
                    .filter_map(|(_, pointer)| pointer.reference_id)
                    .collect(),
            },
            writes: plan.writes,
            expires: None,
        }
    }
}
