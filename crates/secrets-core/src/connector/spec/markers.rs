//! What marks a schema's place as secret.

use serde_json::{Map, Value};

/// What marks a place of a specification as secret: one keyword or several.
///
/// The default is Airbyte's `airbyte_secret`. Platforms with other specifications name their own
/// markers when they [compile](super::ConnectorSpec::compile_with) one.
///
/// ```
/// use secret_persistence_core::connector::{ConnectorSpec, Markers};
/// use serde_json::json;
///
/// let specification = json!({"properties": {
///     "user": {"type": "string"},
///     "password": {"type": "string", "format": "password"},
///     "token": {"type": "string", "writeOnly": true},
///     "key": {"type": "string", "x-secret": true},
/// }});
/// let markers = Markers::json_schema().with_keyword("x-secret");
/// let spec = ConnectorSpec::compile_with(&specification, &markers)?;
/// let masked = spec.mask(json!({"user": "u", "password": "p", "token": "t", "key": "k"}))?;
/// assert_eq!(masked["user"], "u");
/// for name in ["password", "token", "key"] {
///     assert_eq!(masked[name], "**********");
/// }
/// # Ok::<(), secret_persistence_core::connector::ConnectorError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Markers(Vec<Marker>);

#[derive(Clone, Debug, PartialEq)]
struct Marker {
    keyword: String,
    /// The value that marks; without it any but `false` and `"false"`.
    value: Option<Value>,
}

impl Markers {
    /// One keyword, with any value except `false` and `"false"`.
    #[must_use]
    pub fn keyword(keyword: impl Into<String>) -> Self {
        Self(Vec::new()).with_keyword(keyword)
    }

    /// Those of JSON Schema: `writeOnly: true` and `format: password`.
    ///
    /// Both are hints there, so a specification may use them for values that are not secret. Such
    /// a value is stored as a secret too.
    #[must_use]
    pub fn json_schema() -> Self {
        Self(Vec::new())
            .with_value("writeOnly", true)
            .with_value("format", "password")
    }

    /// Adds a keyword that marks with any value except `false` and `"false"`.
    #[must_use]
    pub fn with_keyword(mut self, keyword: impl Into<String>) -> Self {
        self.0.push(Marker {
            keyword: keyword.into(),
            value: None,
        });
        self
    }

    /// Adds a keyword that marks with this value.
    #[must_use]
    pub fn with_value(mut self, keyword: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.push(Marker {
            keyword: keyword.into(),
            value: Some(value.into()),
        });
        self
    }

    /// Whether a schema has one of them.
    pub(super) fn mark(&self, schema: &Map<String, Value>) -> bool {
        self.0.iter().any(|marker| {
            schema
                .get(&marker.keyword)
                .is_some_and(|value| match &marker.value {
                    Some(marking) => value == marking,
                    None => *value != Value::Bool(false) && value != "false",
                })
        })
    }
}

/// Airbyte's `airbyte_secret`.
impl Default for Markers {
    fn default() -> Self {
        Self::keyword("airbyte_secret")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_keyword_marks_with_every_value_but_false() {
        let markers = Markers::default();
        for (value, marks) in [
            (json!(true), true),
            (json!("true"), true),
            (json!(1), true),
            (json!(null), true),
            (json!({}), true),
            (json!(false), false),
            (json!("false"), false),
        ] {
            let schema = json!({ "airbyte_secret": value });
            assert_eq!(markers.mark(schema.as_object().unwrap()), marks, "{schema}");
        }
        assert!(!markers.mark(&Map::new()));
    }

    #[test]
    fn a_value_marks_alone() {
        let markers = Markers::json_schema();
        for (schema, marks) in [
            (json!({ "writeOnly": true }), true),
            (json!({ "writeOnly": false }), false),
            (json!({ "format": "password" }), true),
            (json!({ "format": "date" }), false),
            (json!({ "airbyte_secret": true }), false),
        ] {
            assert_eq!(markers.mark(schema.as_object().unwrap()), marks, "{schema}");
        }
    }
}
