//! The JSON object that replaces a secret.

use std::fmt;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::{ConnectorError, Problem, ProblemKind, Problems};
use super::limits::{Budget, is_container, is_too_deep, too_deep};
use super::place::{Path, Place};
use crate::{Coordinate, StorageId};

pub(super) const SECRET: &str = "_secret";
pub(super) const STORAGE_ID: &str = "_secret_storage_id";
const REFERENCE_ID: &str = "_secret_reference_id";
pub(super) const ENCODING: &str = "_secret_encoding";

/// The most members of a pointer: one for each key.
pub(super) const MAX_FIELDS: usize = 4;

/// A text in a secret place that begins with this prefix names a coordinate; input only.
const TEXT_POINTER: &str = "secret_coordinate::";

/// How a secret's text becomes the configuration's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// The text is JSON: a number, a boolean, an object or an array was stored.
    Json,
    /// The text is the value.
    #[default]
    Text,
}

/// The object that replaces a secret in a configuration.
///
/// Two pointers are the same only if all fields are equal. A pointer has a coordinate, a reference
/// id, or both.
///
/// ```
/// use secret_persistence_core::connector::{Encoding, Pointer};
/// use serde_json::json;
///
/// let stored = json!({"_secret": "airbyte_workspace_1_secret_2_v1", "_secret_encoding": "json"});
/// let pointer = Pointer::parse(&stored).expect("it has the keys of one")?;
/// assert_eq!(pointer.encoding, Encoding::Json);
/// assert_eq!(pointer.to_value(), stored);
///
/// assert!(Pointer::parse(&json!({"host": "db"})).is_none());
/// assert!(Pointer::parse(&json!({"_secret": "x", "host": "db"})).unwrap().is_err());
/// # Ok::<(), secret_persistence_core::connector::MalformedPointer>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Pointer {
    /// The name of the secret; optional if there is a reference id.
    pub coordinate: Option<Coordinate>,
    /// The storage of the secret; the default store if missing.
    pub storage_id: Option<StorageId>,
    /// The caller's row that names the secret. If present, it takes precedence.
    pub reference_id: Option<Uuid>,
    /// How the text becomes the value.
    pub encoding: Encoding,
}

impl Pointer {
    /// Creates a pointer to a text secret of the default store.
    #[must_use]
    pub fn new(coordinate: Coordinate) -> Self {
        Self {
            coordinate: Some(coordinate),
            storage_id: None,
            reference_id: None,
            encoding: Encoding::Text,
        }
    }

    /// Sets the storage.
    #[must_use]
    pub fn with_storage_id(mut self, storage_id: Option<StorageId>) -> Self {
        self.storage_id = storage_id;
        self
    }

    /// Sets the caller's row that names the secret.
    #[must_use]
    pub fn with_reference_id(mut self, reference_id: Option<Uuid>) -> Self {
        self.reference_id = reference_id;
        self
    }

    /// Sets the encoding.
    #[must_use]
    pub fn with_encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Parses a pointer object. `None` for a value with neither the key `_secret` nor
    /// `_secret_reference_id`, which is not a pointer.
    ///
    /// # Errors
    /// [`MalformedPointer`] for an unknown key, a field of a wrong type, and an invalid coordinate,
    /// storage id, reference id or encoding.
    #[must_use]
    pub fn parse(value: &Value) -> Option<Result<Self, MalformedPointer>> {
        let members = value.as_object()?;
        if !is_pointer_object(members) {
            return None;
        }
        Some(Self::of_members(members))
    }

    pub(crate) fn of_members(members: &Map<String, Value>) -> Result<Self, MalformedPointer> {
        let mut pointer = Self {
            coordinate: None,
            storage_id: None,
            reference_id: None,
            encoding: Encoding::Text,
        };
        for (key, value) in members {
            let text = value
                .as_str()
                .ok_or(MalformedPointer("a pointer's fields must be strings"))?;
            match key.as_str() {
                SECRET => pointer.coordinate = Some(parse_coordinate(text)?),
                STORAGE_ID => {
                    pointer.storage_id = Some(StorageId::parse(text).map_err(|_| {
                        MalformedPointer("`_secret_storage_id` is not a storage id")
                    })?);
                }
                REFERENCE_ID => {
                    pointer.reference_id =
                        Some(Uuid::try_parse(text).map_err(|_| {
                            MalformedPointer("`_secret_reference_id` is not a UUID")
                        })?);
                }
                ENCODING if text == "json" => pointer.encoding = Encoding::Json,
                ENCODING => {
                    return Err(MalformedPointer(
                        "the encoding is not `json`, the only one that this version supports",
                    ));
                }
                _ => {
                    return Err(MalformedPointer(
                        "a pointer has keys other than `_secret`, `_secret_storage_id`, \
                        `_secret_reference_id` and `_secret_encoding`",
                    ));
                }
            }
        }
        Ok(pointer)
    }

    /// Parses the text form `secret_coordinate::<name>`, which is input only; `None` for other
    /// text.
    pub(crate) fn of_text(text: &str) -> Option<Result<Self, MalformedPointer>> {
        let name = text.strip_prefix(TEXT_POINTER)?;
        Some(parse_coordinate(name).map(Self::new))
    }

    /// The JSON object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut members = Map::new();
        let mut put = |key: &str, text: &str| {
            members.insert(key.to_owned(), Value::String(text.to_owned()));
        };
        if let Some(coordinate) = &self.coordinate {
            put(SECRET, coordinate.as_str());
        }
        if let Some(storage_id) = &self.storage_id {
            put(STORAGE_ID, storage_id.as_str());
        }
        if let Some(reference_id) = &self.reference_id {
            put(REFERENCE_ID, &reference_id.to_string());
        }
        if self.encoding == Encoding::Json {
            put(ENCODING, "json");
        }
        Value::Object(members)
    }
}

/// An object with the keys of a pointer that breaks a rule. The message names the rule, without any
/// content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedPointer(&'static str);

impl MalformedPointer {
    pub(crate) fn at(self, place: Place) -> Problem {
        Problem::new(place, ProblemKind::MalformedPointer, self.0)
    }
}

impl fmt::Display for MalformedPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for MalformedPointer {}

/// Lists every pointer object of a value with its place, in the order in which hydrate visits them.
///
/// # Errors
/// Every malformed pointer with its place; `LimitExceeded` for a value that is nested too deeply or
/// has too many pointers.
pub fn pointers(value: &Value) -> Result<Vec<(Place, Pointer)>, ConnectorError> {
    let mut found = Vec::new();
    let mut problems = Problems::default();
    let mut budget = Budget::new();
    let mut over = None;
    visit_pointers(value, &mut |path, pointer| match pointer {
        Ok(pointer) => match budget.place(path.place()) {
            Ok(place) => found.push((place, pointer)),
            Err(problem) => over = Some(problem),
        },
        Err(malformed) => problems.push(|| malformed.at(path.place())),
    })?;
    problems.into_result()?;
    match over {
        None => Ok(found),
        Some(problem) => Err(problem.into()),
    }
}

/// Calls `visit` with every pointer object of a value.
pub(crate) fn visit_pointers(
    value: &Value,
    visit: &mut dyn FnMut(&Path<'_>, Result<Pointer, MalformedPointer>),
) -> Result<(), ConnectorError> {
    fn walk(
        value: &Value,
        path: &Path<'_>,
        depth: usize,
        budget: &mut Budget,
        visit: &mut dyn FnMut(&Path<'_>, Result<Pointer, MalformedPointer>),
    ) -> Result<(), ConnectorError> {
        match value {
            _ if is_too_deep(value, depth) => {
                return Err(too_deep(path.place()).into());
            }
            Value::Array(items) => {
                let level = path.level();
                for (index, item) in items.iter().enumerate() {
                    if is_container(item) {
                        walk(item, &level.index(index), depth + 1, budget, visit)?;
                    }
                }
            }
            Value::Object(members) if is_pointer_object(members) => {
                budget.secret()?;
                visit(path, Pointer::of_members(members));
            }
            Value::Object(members) => {
                let level = path.level();
                for (name, member) in members {
                    if is_container(member) {
                        walk(member, &level.key(name), depth + 1, budget, visit)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
    walk(value, &Path::root(), 0, &mut Budget::new(), visit)
}

/// Whether an object has one of the keys that make it a pointer, well-formed or not.
pub(crate) fn is_pointer_object(members: &Map<String, Value>) -> bool {
    members.keys().any(|key| is_pointer_key(key))
}

/// Whether a key makes its object a pointer.
pub(crate) fn is_pointer_key(key: &str) -> bool {
    key == SECRET || key == REFERENCE_ID
}

/// Whether a text is the input form of a pointer.
pub(crate) fn is_text_pointer(text: &str) -> bool {
    text.starts_with(TEXT_POINTER)
}

/// Whether a value is an object with a pointer's keys.
pub(crate) fn is_pointer(value: &Value) -> bool {
    value.as_object().is_some_and(is_pointer_object)
}

fn parse_coordinate(name: &str) -> Result<Coordinate, MalformedPointer> {
    // The coordinate's own error contains the name, which may have been meant as a value.
    Coordinate::parse(name).map_err(|_| {
        MalformedPointer(
            "the name is neither a managed coordinate nor a valid external one: it is empty, \
            too long, contains `..`, or is an alias of a managed secret",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MANAGED: &str = "airbyte_workspace_1_secret_2_v1";
    const UUID: &str = "00000000-0000-0000-0000-00000000000a";

    #[test]
    fn every_valid_form_reads_and_prints_the_same() {
        let forms = [
            json!({"_secret": MANAGED}),
            json!({"_secret": "team/password"}),
            json!({"_secret": MANAGED, "_secret_storage_id": "other"}),
            json!({"_secret_reference_id": UUID}),
            json!({"_secret": MANAGED, "_secret_reference_id": UUID}),
            json!({"_secret": MANAGED, "_secret_storage_id": "s", "_secret_reference_id": UUID, "_secret_encoding": "json"}),
        ];
        for form in forms {
            assert_eq!(Pointer::parse(&form).unwrap().unwrap().to_value(), form);
        }
    }

    #[test]
    fn what_has_a_pointers_key_and_breaks_a_rule_is_malformed() {
        let malformed = [
            json!({"_secret": 5}),
            json!({"_secret": null}),
            json!({"_secret": ""}),
            json!({"_secret": "a/../b"}),
            json!({"_secret": "AIRBYTE_x_v1"}),
            json!({"_secret": "airbyte_x_v01"}),
            json!({"_secret": MANAGED, "x": "y"}),
            json!({"_secret": MANAGED, "_secret_other": "y"}),
            json!({"_secret": MANAGED, "_secret_encoding": "text"}),
            json!({"_secret": MANAGED, "_secret_encoding": null}),
            json!({"_secret": MANAGED, "_secret_storage_id": ""}),
            json!({"_secret": MANAGED, "_secret_storage_id": null}),
            json!({"_secret": MANAGED, "_secret_reference_id": "x"}),
            json!({"_secret_reference_id": null}),
        ];
        for value in malformed {
            assert!(Pointer::parse(&value).unwrap().is_err(), "{value}");
        }
    }

    #[test]
    fn other_values_are_no_pointers() {
        for value in [
            json!({}),
            json!({"_secret_storage_id": "s"}),
            json!({"secret": MANAGED}),
            json!([{"x": 1}]),
            json!("secret_coordinate::x"),
            json!(null),
        ] {
            assert!(Pointer::parse(&value).is_none(), "{value}");
        }
    }

    #[test]
    fn a_malformed_pointer_never_shows_what_stands_in_it() {
        let value = json!({"a": {"_secret": "hunter2/../x"}, "b": {"_secret": "x", "hunter2": 1}});
        let error = pointers(&value).unwrap_err();
        assert_eq!(error.problems().len(), 2);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn pointers_are_found_at_the_root_and_in_arrays_of_arrays() {
        let root = json!({"_secret": MANAGED});
        assert_eq!(pointers(&root).unwrap()[0].0, Place::root());
        let nested = json!({"a": [[{"_secret": MANAGED}], {"b.c": {"_secret": "x"}}]});
        let places: Vec<String> = pointers(&nested)
            .unwrap()
            .into_iter()
            .map(|(place, _)| place.to_string())
            .collect();
        assert_eq!(places, ["/a/0/0", "/a/1/b.c"]);
    }
}
