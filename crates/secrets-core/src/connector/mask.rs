//! Masks and scrubs configurations for display and export.

use std::mem;

use serde_json::Value;
use zeroize::Zeroize;

use super::error::{ConnectorError, Problem, ProblemKind, Problems};
use super::limits::{Budget, is_too_deep, too_deep};
use super::place::{Path, Place};
use super::pointer::{is_pointer, is_pointer_key, is_text_pointer};
use super::secret_json::{SecretJson, wipe};
use super::spec::{ConnectorSpec, Cursor, Position, Types};

/// The text that replaces a secret for display.
pub const MASK: &str = "**********";

/// JSON without pointers, and what was found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scrubbed {
    /// The JSON, with every pointer replaced by [`MASK`].
    pub value: Value,
    /// The number of pointers.
    pub masked: usize,
    /// The places with secrets in plain text, if a specification was given; they are masked too.
    pub raw: Vec<Place>,
}

/// Replaces every pointer by [`MASK`] in any JSON, without a specification.
///
/// Plain-text secrets cannot be recognised this way: with a specification, use
/// [`ConnectorSpec::scrub`].
///
/// ```
/// use secret_persistence_core::connector::scrub;
/// use serde_json::json;
///
/// let rows = json!([{"id": 1, "config": {"password": {"_secret": "airbyte_workspace_1_secret_2_v1"}}}]);
/// let scrubbed = scrub(rows)?;
/// assert_eq!(scrubbed.value, json!([{"id": 1, "config": {"password": "**********"}}]));
/// assert_eq!(scrubbed.masked, 1);
/// # Ok::<(), secret_persistence_core::connector::ConnectorError>(())
/// ```
///
/// # Errors
/// `LimitExceeded` for JSON that is nested too deeply.
pub fn scrub(value: Value) -> Result<Scrubbed, ConnectorError> {
    let mut value = SecretJson::new(value);
    let mut masked = 0;
    let mut open = vec![(&mut *value, 0)];
    while let Some((value, depth)) = open.pop() {
        if is_pointer(value) || value.as_str().is_some_and(is_text_pointer) {
            conceal(value);
            masked += 1;
            continue;
        }
        match value {
            _ if is_too_deep(value, depth) => {
                return Err(too_deep(Place::root()).into());
            }
            Value::Array(items) => open.extend(items.iter_mut().map(|item| (item, depth + 1))),
            Value::Object(members) => {
                open.extend(members.values_mut().map(|member| (member, depth + 1)));
            }
            _ => {}
        }
    }
    Ok(Scrubbed {
        value: value.into_inner(),
        masked,
        raw: Vec::new(),
    })
}

impl ConnectorSpec {
    /// Replaces every secret of a configuration by [`MASK`]: every value except `null` and `""` in
    /// a secret place, and every pointer anywhere.
    ///
    /// Works on configurations with pointers and with values. The result can be passed back as the
    /// edited configuration of an update, and changes nothing there.
    ///
    /// If secrets may be below a place and its value has a type that no schema allows, the whole
    /// value is masked. Users can still see such a row, and an update requires entering the value
    /// again.
    ///
    /// # Errors
    /// `LimitExceeded` for a configuration that is nested too deeply.
    pub fn mask(&self, config: Value) -> Result<Value, ConnectorError> {
        Masker::new(self).run(config, None)
    }

    /// Masks a configuration with values, given the saved one with pointers: a place with a pointer
    /// in the saved configuration is secret too, even if the specification no longer marks it.
    ///
    /// # Errors
    /// As for [`mask`](Self::mask).
    pub fn mask_hydrated(&self, full: Value, saved: &Value) -> Result<Value, ConnectorError> {
        Masker::new(self).run(full, Some(saved))
    }

    /// Masks a configuration and scrubs it for an export; returns the places with plain-text
    /// secrets.
    ///
    /// # Errors
    /// As for [`mask`](Self::mask), and `LimitExceeded` for too many plain-text secrets.
    pub fn scrub(&self, config: Value) -> Result<Scrubbed, ConnectorError> {
        let mut masker = Masker::new(self);
        masker.raw = Some(Found::new());
        let value = masker.run(config, None)?;
        let rest = scrub(value)?;
        Ok(Scrubbed {
            value: rest.value,
            masked: masker.pointers + rest.masked,
            raw: masker.raw.map(|raw| raw.places).unwrap_or_default(),
        })
    }

    /// Lists the places that are secret by this specification and have a value other than `null`
    /// and `""`.
    ///
    /// # Errors
    /// `TypeMismatch` for a value that may contain a secret in an unknown place; `LimitExceeded`.
    pub fn secret_places(&self, config: &Value) -> Result<Vec<Place>, ConnectorError> {
        fn walk(
            cursor: &mut Cursor<'_>,
            value: &Value,
            at: Position,
            path: &Path<'_>,
            depth: usize,
            found: &mut Found,
            problems: &mut Problems,
        ) {
            if is_nothing(value) {
                return;
            }
            if cursor.is_secret(at) {
                if let Err(problem) = found.push(path) {
                    problems.push(|| problem);
                }
                return;
            }
            if let Some(problem) = refusal(cursor, value, at, depth) {
                return problems.push(|| problem(path.place()));
            }
            match value {
                Value::Array(items) => {
                    let level = path.level();
                    for (index, item) in items.iter().enumerate() {
                        let element = cursor.element(at, index);
                        let path = level.index(index);
                        walk(cursor, item, element, &path, depth + 1, found, problems);
                    }
                }
                Value::Object(members) => {
                    let level = path.level();
                    for (name, member) in members {
                        let position = cursor.member(at, name);
                        let path = level.key(name);
                        walk(cursor, member, position, &path, depth + 1, found, problems);
                    }
                }
                _ => {}
            }
        }
        let mut cursor = self.cursor(false);
        let root = cursor.root();
        let (mut found, mut problems) = (Found::new(), Problems::default());
        walk(
            &mut cursor,
            config,
            root,
            &Path::root(),
            0,
            &mut found,
            &mut problems,
        );
        problems.into_result()?;
        Ok(found.places)
    }
}

struct Masker<'a> {
    cursor: Cursor<'a>,
    problems: Problems,
    pointers: usize,
    /// Where plain-text secrets were, if requested.
    raw: Option<Found>,
}

/// A limited list of places.
struct Found {
    places: Vec<Place>,
    budget: Budget,
}

impl Found {
    fn new() -> Self {
        Self {
            places: Vec::new(),
            budget: Budget::new(),
        }
    }

    fn push(&mut self, path: &Path<'_>) -> Result<(), Problem> {
        self.budget.secret()?;
        self.places.push(self.budget.place(path.place())?);
        Ok(())
    }
}

impl<'a> Masker<'a> {
    fn new(spec: &'a ConnectorSpec) -> Self {
        Self {
            cursor: spec.cursor(false),
            problems: Problems::default(),
            pointers: 0,
            raw: None,
        }
    }

    fn run(&mut self, config: Value, saved: Option<&Value>) -> Result<Value, ConnectorError> {
        let mut config = SecretJson::new(config);
        let root = self.cursor.root();
        self.walk(&mut config, saved, root, &Path::root(), 0);
        mem::take(&mut self.problems).into_result()?;
        Ok(config.into_inner())
    }

    fn walk(
        &mut self,
        value: &mut Value,
        saved: Option<&Value>,
        at: Position,
        path: &Path<'_>,
        depth: usize,
    ) {
        if self.cursor.is_secret(at) || saved.is_some_and(is_pointer) {
            return self.secret(value, path);
        }
        if is_nothing(value) || value == MASK {
            return;
        }
        if !self.cursor.admits(at, Types::of(value)) {
            return self.secret(value, path);
        }
        if is_too_deep(value, depth) {
            if is_pointer(value) {
                return self.secret(value, path);
            }
            return self.problems.push(|| too_deep(path.place()));
        }
        match value {
            Value::Array(items) => {
                let old = saved.and_then(Value::as_array);
                let level = path.level();
                for (index, item) in items.iter_mut().enumerate() {
                    let element = self.cursor.element(at, index);
                    let old = old.and_then(|old| old.get(index));
                    self.walk(item, old, element, &level.index(index), depth + 1);
                }
            }
            Value::Object(members) => {
                let old = saved.and_then(Value::as_object);
                let level = path.level();
                for (name, member) in members {
                    if is_pointer_key(name) {
                        return self.secret(value, path);
                    }
                    let position = self.cursor.member(at, name);
                    let old = old.and_then(|old| old.get(name));
                    self.walk(member, old, position, &level.key(name), depth + 1);
                }
            }
            _ => {}
        }
    }

    fn secret(&mut self, value: &mut Value, path: &Path<'_>) {
        if is_nothing(value) || value == MASK {
            return;
        }
        if is_pointer(value) || value.as_str().is_some_and(is_text_pointer) {
            self.pointers += 1;
        } else if let Some(Err(problem)) = self.raw.as_mut().map(|raw| raw.push(path)) {
            self.problems.push(|| problem);
        }
        conceal(value);
    }
}

/// Why a walk stops at a value that is not secret.
fn refusal(
    cursor: &Cursor<'_>,
    value: &Value,
    at: Position,
    depth: usize,
) -> Option<fn(Place) -> Problem> {
    if is_too_deep(value, depth) {
        return Some(too_deep);
    }
    if !cursor.admits(at, Types::of(value)) {
        return Some(mismatch);
    }
    None
}

/// The problem of a value that may contain a secret in an unknown place.
pub(super) fn mismatch(place: Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::TypeMismatch,
        "no schema allows a value of this type, and the place may contain secrets; correct the value",
    )
}

/// Whether there is nothing to protect.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn conceal(value: &mut Value) {
    // A string's own buffer is reused after it is wiped.
    if let Value::String(text) = value {
        text.zeroize();
        text.push_str(MASK);
    } else {
        wipe(value);
        *value = Value::String(MASK.to_owned());
    }
}

#[cfg(test)]
mod tests;
