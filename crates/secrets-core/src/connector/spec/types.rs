//! Sets of JSON types.

use std::ops::{BitAnd, BitOr};

use serde_json::{Map, Value};

/// A set of JSON types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::connector) struct Types(u8);

impl Types {
    pub(super) const NONE: Self = Self(0);
    const NULL: Self = Self(1);
    const BOOLEAN: Self = Self(2);
    const NUMBER: Self = Self(4);
    const STRING: Self = Self(8);
    pub(super) const ARRAY: Self = Self(16);
    pub(super) const OBJECT: Self = Self(32);
    pub(super) const ALL: Self = Self(63);

    /// The type of a value.
    pub(in crate::connector) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(_) => Self::NUMBER,
            Value::String(_) => Self::STRING,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The types that a schema admits by its own words, its combinators left out: `type`, else the
    /// types of `const` and `enum`, else what its structural keywords are about, else all.
    ///
    /// A validator would let a string pass `{"properties": …}`. Here it is taken for what it says,
    /// because the question is whether a value may carry what should be secret.
    pub(super) fn admitted_by(schema: &Map<String, Value>) -> Self {
        if let Some(declared) = schema.get("type") {
            return Self::declared(declared);
        }
        if let Some(value) = schema.get("const") {
            return Self::of(value);
        }
        if let Some(Value::Array(values)) = schema.get("enum") {
            return values.iter().map(Self::of).fold(Self::NONE, BitOr::bitor);
        }
        let mut structural = Self::NONE;
        for (keyword, value) in schema {
            match keyword.as_str() {
                "properties" | "patternProperties" => structural = structural | Self::OBJECT,
                "additionalProperties" | "unevaluatedProperties" if value.is_object() => {
                    structural = structural | Self::OBJECT;
                }
                "items" | "prefixItems" | "contains" | "additionalItems" | "unevaluatedItems"
                    if !value.is_boolean() =>
                {
                    structural = structural | Self::ARRAY;
                }
                _ => {}
            }
        }
        if structural == Self::NONE {
            Self::ALL
        } else {
            structural
        }
    }

    fn declared(declared: &Value) -> Self {
        match declared {
            Value::String(name) => match name.as_str() {
                "null" => Self::NULL,
                "boolean" => Self::BOOLEAN,
                "integer" | "number" => Self::NUMBER,
                "string" => Self::STRING,
                "array" => Self::ARRAY,
                "object" => Self::OBJECT,
                // Draft 3 has `any`; what nobody defines restricts nothing.
                _ => Self::ALL,
            },
            Value::Array(names) => names
                .iter()
                .map(Self::declared)
                .fold(Self::NONE, BitOr::bitor),
            _ => Self::ALL,
        }
    }
}

impl BitAnd for Types {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Types {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
