//! From pointers back to values: a whole configuration or nothing.

use std::borrow::Borrow;
use std::mem;

use serde_json::{Map, Value};

use super::error::{ConnectorError, Problem, ProblemKind, Problems};
use super::executor::is_long;
use super::limits::{Budget, is_container, is_too_deep, too_deep};
use super::place::Path;
use super::pointer::{
    Encoding, MalformedPointer, Pointer, SECRET, is_pointer_object, pointers, visit_pointers,
};
use super::read::{self, Unread};
use super::secret_json::{SecretJson, parse_json};
use super::secrets::ActingSecrets;
use super::slots::Slots;
use crate::SecretValue;

/// Inserts the secrets of a configuration, for callers that read the values themselves.
///
/// Calls `value_of` once for every pointer, in the order of [`pointers`](super::pointers). `null`
/// becomes `{}`. Inserted values are never scanned.
///
/// ```
/// use secret_persistence_core::SecretValue;
/// use secret_persistence_core::connector::hydrate_with;
/// use serde_json::json;
///
/// let saved = json!({"host": "db", "password": {"_secret": "airbyte_workspace_1_secret_2_v1"}});
/// let full = hydrate_with(saved, |_| Some(SecretValue::new("hunter2".to_owned())))?;
/// assert_eq!(*full, json!({"host": "db", "password": "hunter2"}));
/// # Ok::<(), secret_persistence_core::connector::ConnectorError>(())
/// ```
///
/// # Errors
/// Every malformed pointer, every pointer without a value, and every value that does not decode,
/// each with its place; `LimitExceeded` for a configuration that is nested too deeply, has too many
/// pointers or becomes too large. A partly hydrated configuration is never returned.
pub fn hydrate_with<S: Borrow<SecretValue>>(
    config: Value,
    mut value_of: impl FnMut(&Pointer) -> Option<S>,
) -> Result<SecretJson, ConnectorError> {
    insert(SecretJson::new(config), |members| {
        let pointer = Pointer::of_members(members)?;
        let value = value_of(&pointer);
        Ok((pointer, value))
    })
}

/// Inserts the secrets of a configuration. Calls `next` once for every pointer object, for what it
/// says and its value.
fn insert<S: Borrow<SecretValue>>(
    mut config: SecretJson,
    next: impl FnMut(&Map<String, Value>) -> Result<(Pointer, Option<S>), MalformedPointer>,
) -> Result<SecretJson, ConnectorError> {
    if config.is_null() {
        *config = Value::Object(Map::new());
    }
    let mut hydrator = Hydrator {
        next,
        budget: Budget::new(),
        problems: Problems::default(),
    };
    hydrator.walk(&mut config, &Path::root(), 0)?;
    hydrator.problems.into_result()?;
    Ok(config)
}

impl ActingSecrets {
    /// Inserts the secrets of a saved configuration.
    ///
    /// Every secret is read once, however often its pointer occurs, and all stores are read
    /// concurrently. `null` becomes `{}`. The result is redacted in `Debug` and wiped when it
    /// drops. Values are never scanned for pointers. A row that was read before another change was
    /// committed may point to deleted secrets: [`hydrate_fresh`](Self::hydrate_fresh) reads it
    /// again.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use secret_persistence_core::connector::{ConnectorOptions, ConnectorSecrets};
    /// # use secret_persistence_core::{Actor, Memory, SecretValue, Stores};
    /// # use serde_json::json;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let store = Memory::new();
    /// store.insert("airbyte_workspace_1_secret_2_v1", SecretValue::new("hunter2".to_owned()));
    /// let stores = Stores::new(Arc::new(store));
    /// let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default());
    ///
    /// let saved = json!({"host": "db", "password": {"_secret": "airbyte_workspace_1_secret_2_v1"}});
    /// let full = secrets.acting_as(&Actor::new("job 7")).hydrate(saved).await?;
    /// assert_eq!(*full, json!({"host": "db", "password": "hunter2"}));
    ///
    /// let saved = json!({"password": {"_secret": "airbyte_workspace_1_secret_3_v1"}});
    /// let error = secrets.acting_as(&Actor::new("job 7")).hydrate(saved).await.unwrap_err();
    /// assert_eq!(error.problems()[0].place().as_str(), "/password");
    /// # Ok::<(), secret_persistence_core::connector::ConnectorError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// One error with every place that has no value, its coordinate and kind. The error never
    /// contains a part of the configuration, and a missing secret never becomes an empty string.
    pub async fn hydrate(&self, saved: Value) -> Result<SecretJson, ConnectorError> {
        let mut saved = SecretJson::new(saved);
        // The audit needs places, and an executor its own walk.
        if self.stores().is_audited() || self.executor(|| is_long(&saved)).is_some() {
            return Box::pin(self.hydrate_any(saved)).await;
        }
        if saved.is_null() {
            *saved = Value::Object(Map::new());
        }
        let Some(slots) = Slots::of(&mut saved) else {
            return Box::pin(self.hydrate_any(saved)).await;
        };
        if slots.names().is_empty() {
            return Ok(saved);
        }
        let reads = match self.read_names(slots.storage_id(), slots.names()).await {
            Ok(reads) => reads,
            Err(unread) => {
                let values = vec![Err(unread); slots.names().len()];
                return refuse(saved, values);
            }
        };
        if reads.iter().any(Result::is_err) {
            return refuse(saved, read::values(reads));
        }
        let values = || reads.iter().flatten().map(|read| &read.value);
        let mut budget = Budget::new();
        values().try_for_each(|value| budget.hydrate(value.len()))?;
        slots.fill(values());
        Ok(saved)
    }

    /// Hydrates a configuration with pointers of every kind, in two walks: to find them and to insert their values.
    async fn hydrate_any(&self, saved: SecretJson) -> Result<SecretJson, ConnectorError> {
        let mut found = Vec::new();
        let mut places = Vec::new();
        let mut malformed = false;
        let audited = self.stores().is_audited();
        visit_pointers(&saved, &mut |path, pointer| match pointer {
            Ok(pointer) => {
                found.push(pointer);
                if audited {
                    places.push(path.place());
                }
            }
            Err(_) => malformed = true,
        })?;
        if malformed {
            // The second walk determines the places.
            pointers(&saved)?;
        }
        let ids = found.iter().filter_map(|pointer| pointer.reference_id);
        let references = self.references(ids.collect()).await;
        let values = self.read(&found, &places, &references).await?;
        if values.iter().any(Result::is_err) {
            return refuse(saved, values);
        }
        let executor = self.executor(|| is_long(&saved));
        // In the order in which they were found; none is parsed again.
        let mut found = found.into_iter().zip(values);
        self.walk(executor, move || {
            insert(saved, |members| match found.next() {
                Some((pointer, value)) => Ok((pointer, value.ok())),
                None => Pointer::of_members(members).map(|pointer| (pointer, None)),
            })
        })
        .await
    }
}

/// Names every place of a configuration whose value could not be read.
fn refuse(
    saved: SecretJson,
    values: Vec<Result<SecretValue, Unread>>,
) -> Result<SecretJson, ConnectorError> {
    let mut problems = Problems::default();
    for ((place, pointer), value) in pointers(&saved)?.into_iter().zip(values) {
        if let Err(unread) = value {
            problems.push(|| unread.at(place, &pointer));
        }
    }
    problems.into_result().map(|()| saved)
}

/// A text secret as the value that replaces its pointer. The name's buffer is no longer needed and
/// nearly always large enough.
pub(super) fn text(pointer: Map<String, Value>, secret: &SecretValue) -> Value {
    let name = |(key, value)| match value {
        Value::String(name) if key == SECRET => Some(name),
        _ => None,
    };
    let mut text = pointer.into_iter().find_map(name).unwrap_or_default();
    text.clear();
    text.push_str(secret.expose());
    Value::String(text)
}

/// The value of a secret's text; `None` if it should be JSON and is not.
pub(crate) fn decode(secret: &SecretValue, encoding: Encoding) -> Option<SecretJson> {
    match encoding {
        Encoding::Text => Some(Value::String(secret.expose().to_owned())),
        Encoding::Json => parse_json(secret.expose()),
    }
    .map(SecretJson::new)
}

/// The problem of a secret that should be JSON and is not. The parser's own message would quote it.
pub(crate) fn undecodable(place: super::Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::DecodingFailed,
        "the secret should be JSON and does not decode; enter it again",
    )
}

struct Hydrator<F> {
    next: F,
    budget: Budget,
    problems: Problems,
}

impl<S, F> Hydrator<F>
where
    S: Borrow<SecretValue>,
    F: FnMut(&Map<String, Value>) -> Result<(Pointer, Option<S>), MalformedPointer>,
{
    /// Replaces pointers by values and never scans what it inserted. After a problem it continues
    /// to find all problems; the configuration is then wiped.
    fn walk(
        &mut self,
        value: &mut Value,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), ConnectorError> {
        if is_too_deep(value, depth) {
            return Err(too_deep(path.place()).into());
        }
        match value {
            Value::Array(items) => {
                let level = path.level();
                for (index, item) in items.iter_mut().enumerate() {
                    if is_container(item) {
                        self.walk(item, &level.index(index), depth + 1)?;
                    }
                }
            }
            Value::Object(members) => {
                if is_pointer_object(members) {
                    self.budget.secret()?;
                    match self.resolve(members, path) {
                        Ok(hydrated) => *value = hydrated,
                        Err(problem) if problem.kind() == ProblemKind::LimitExceeded => {
                            return Err(problem.into());
                        }
                        Err(problem) => self.problems.push(|| problem),
                    }
                } else {
                    let level = path.level();
                    for (name, member) in members {
                        if is_container(member) {
                            self.walk(member, &level.key(name), depth + 1)?;
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn resolve(
        &mut self,
        members: &mut Map<String, Value>,
        path: &Path<'_>,
    ) -> Result<Value, Problem> {
        let (pointer, secret) =
            (self.next)(members).map_err(|malformed| malformed.at(path.place()))?;
        if let Some(secret) = &secret {
            self.budget.hydrate(secret.borrow().len())?;
        }
        let hydrated = match (secret, pointer.encoding) {
            (Some(secret), Encoding::Text) => {
                return Ok(text(mem::take(members), secret.borrow()));
            }
            (Some(secret), Encoding::Json) => {
                parse_json(secret.borrow().expose()).ok_or_else(|| undecodable(path.place()))
            }
            (None, _) => Err(Problem::new(
                path.place(),
                ProblemKind::Store,
                "there is no value for this pointer",
            )),
        };
        hydrated.map_err(|problem| match &pointer.coordinate {
            Some(coordinate) => problem.with_coordinate(coordinate.shared()),
            None => problem,
        })
    }
}

#[cfg(test)]
mod tests;
