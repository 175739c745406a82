//! Properties that a specification does not know.

use serde_json::Value;

use super::error::{ConnectorError, Problems};
use super::limits::{Budget, is_too_deep, too_deep};
use super::place::{Path, Place};
use super::pointer::is_pointer;
use super::spec::{ConnectorSpec, Cursor, Position};

impl ConnectorSpec {
    /// Lists the properties of a configuration that the specification does not know: an upgrade has
    /// removed them, or somebody has mistyped one. A secret in one stays in clear when a configuration is
    /// split. Below such a property, below a secret and below a pointer nothing is listed.
    ///
    /// [`Policy::refuse_unknown_properties`](super::Policy::refuse_unknown_properties) refuses what this
    /// lists.
    ///
    /// # Errors
    /// `LimitExceeded` for a configuration that is nested too deeply, and for more properties than can be
    /// listed.
    pub fn unknown_properties(&self, config: &Value) -> Result<Vec<Place>, ConnectorError> {
        let mut walk = Walk {
            cursor: self.cursor(true),
            budget: Budget::new(),
            found: Vec::new(),
            problems: Problems::default(),
        };
        let root = walk.cursor.root();
        walk.value(config, root, &Path::root(), 0);
        walk.problems.into_result()?;
        Ok(walk.found)
    }
}

struct Walk<'s> {
    cursor: Cursor<'s>,
    budget: Budget,
    found: Vec<Place>,
    problems: Problems,
}

impl Walk<'_> {
    fn value(&mut self, value: &Value, at: Position, path: &Path<'_>, depth: usize) {
        if self.cursor.is_secret(at) || at == Position::UNKNOWN || is_pointer(value) {
            return;
        }
        if is_too_deep(value, depth) {
            return self.problems.push(|| too_deep(path.place()));
        }
        match value {
            Value::Array(items) => {
                let level = path.level();
                for (index, item) in items.iter().enumerate() {
                    let element = self.cursor.element(at, index);
                    self.value(item, element, &level.index(index), depth + 1);
                }
            }
            Value::Object(members) => {
                let level = path.level();
                for (name, member) in members {
                    let position = self.cursor.member(at, name);
                    let path = level.key(name);
                    if position == Position::UNKNOWN {
                        match self.listed(&path) {
                            Ok(place) => self.found.push(place),
                            Err(problem) => return self.problems.push(|| problem),
                        }
                    }
                    self.value(member, position, &path, depth + 1);
                }
            }
            _ => {}
        }
    }

    fn listed(&mut self, path: &Path<'_>) -> Result<Place, super::error::Problem> {
        self.budget.secret()?;
        self.budget.place(path.place())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_unknown_is_listed_and_nothing_below_it_or_below_a_secret() {
        let spec = ConnectorSpec::compile(&json!({
            "type": "object",
            "properties": {
                "host": {"type": "string"},
                "key": {"type": "object", "airbyte_secret": true},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            },
        }))
        .unwrap();
        let config = json!({
            "host": "h",
            "key": {"canary": "hunter2"},
            "old": {"below": {"it": 1}},
            "list": [{"a": "x"}, {"a": "x", "b": "y"}],
        });
        let places = spec.unknown_properties(&config).unwrap();
        let mut places: Vec<&str> = places.iter().map(Place::as_str).collect();
        places.sort_unstable();
        assert_eq!(places, ["/list/1/b", "/old"]);
        let pointer = json!({"host": "h", "key": {"_secret": "airbyte_workspace_1_secret_2_v1"}});
        assert_eq!(spec.unknown_properties(&pointer).unwrap(), []);
    }
}
