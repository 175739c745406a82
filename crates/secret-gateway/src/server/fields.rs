//! The members of requests: one definition parses them and describes them in the OpenAPI document.
//!
//! Requests are not parsed by serde's derived code. Its errors quote values, it stops at the first
//! unknown member, and it would copy configurations once more, with a recursion as deep as they are.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use secret_persistence::connector::SecretJson;
use serde_json::{Map, Value};

use super::kind::ProblemKind;
use super::problem::Problem;
use crate::digests::Digests;

/// The members of an object, taken one by one. The remaining ones are unknown, and an error.
pub(crate) struct Fields(GuardedMap);

/// Wiped when dropped, because a value may contain secrets.
struct GuardedMap(Map<String, Value>);

impl Drop for GuardedMap {
    fn drop(&mut self) {
        drop(SecretJson::new(Value::Object(std::mem::take(&mut self.0))));
    }
}

impl Fields {
    pub(crate) fn new(members: Map<String, Value>) -> Self {
        Self(GuardedMap(members))
    }

    /// The members of a body.
    pub(super) fn of(value: SecretJson) -> Result<Self, Problem> {
        match value.into_inner() {
            Value::Object(members) => Ok(Self::new(members)),
            other => {
                drop(SecretJson::new(other));
                Err(invalid("body", "is not an object"))
            }
        }
    }

    /// The digest of the whole object in its current state.
    pub(super) fn digest(&self, digests: &Digests, purpose: &str) -> String {
        digests.of_members(purpose, &self.0.0)
    }

    /// A member by its name.
    pub(crate) fn take<M: Member>(&mut self, name: &'static str) -> Result<M, Problem> {
        // Keys keep their order, so the others do not move.
        match self.0.0.shift_remove(name) {
            Some(value) => M::of(name, value),
            None => M::absent(name),
        }
    }

    /// Fails if members remain, with their names.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        let unknown: Vec<String> = self
            .0
            .0
            .keys()
            .take(10)
            .map(|name| name.chars().take(64).flat_map(char::escape_debug).collect())
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let detail = format!("unknown fields: {}", unknown.join(", "));
        Err(Problem::new(ProblemKind::UnknownField, detail)
            .with(|members| members.fields = Some(unknown)))
    }
}

/// An object that a request contains, as its body or as its query. [`request!`](super::request)
/// implements it.
pub(crate) trait Request: JsonSchema + Sized {
    /// Parses the members, and refuses others.
    fn take(fields: Fields) -> Result<Self, Problem>;
}

/// Defines a request: its members are parsed in their order, and described with their comments.
macro_rules! request {
    (
        $(#[$attribute:meta])*
        $visible:vis struct $name:ident {
            $($(#[$of_field:meta])* $of:vis $field:ident: $member:ty,)*
        }
    ) => {
        #[derive(schemars::JsonSchema)]
        $(#[$attribute])*
        #[schemars(deny_unknown_fields)]
        $visible struct $name {
            $($(#[$of_field])* $of $field: $member,)*
        }

        impl $crate::server::Request for $name {
            fn take(
                mut fields: $crate::server::Fields,
            ) -> Result<Self, $crate::server::Problem> {
                let request = Self {
                    $($field: fields.take(stringify!($field))?,)*
                };
                fields.finish()?;
                Ok(request)
            }
        }
    };
}
pub(crate) use request;

/// A member of a request. Its errors name it, and never show its value.
pub(crate) trait Member: JsonSchema + Sized {
    /// Parses its value.
    fn of(name: &'static str, value: Value) -> Result<Self, Problem>;

    /// What it is if the request does not have it: required, unless a type says otherwise.
    fn absent(name: &'static str) -> Result<Self, Problem> {
        Err(missing(name))
    }
}

/// A member that may be missing; `null` is a value as any other.
#[derive(Default)]
pub(crate) enum Maybe<M> {
    #[default]
    Absent,
    Present(M),
}

impl<M> Maybe<M> {
    pub(crate) fn into_option(self) -> Option<M> {
        match self {
            Self::Absent => None,
            Self::Present(member) => Some(member),
        }
    }
}

impl<M: Member> Member for Maybe<M> {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        M::of(name, value).map(Self::Present)
    }

    fn absent(_: &'static str) -> Result<Self, Problem> {
        Ok(Self::Absent)
    }
}

impl<M: JsonSchema> JsonSchema for Maybe<M> {
    fn inline_schema() -> bool {
        M::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        M::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        M::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        M::json_schema(generator)
    }
}

/// A member that may be missing or `null`.
impl<M: Member> Member for Option<M> {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        match value {
            Value::Null => Ok(None),
            value => M::of(name, value).map(Some),
        }
    }

    fn absent(_: &'static str) -> Result<Self, Problem> {
        Ok(None)
    }
}

/// A list with a limit.
pub(crate) struct List<M, const MOST: usize>(pub(crate) Vec<M>);

impl<M, const MOST: usize> Default for List<M, MOST> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<M: Member, const MOST: usize> Member for List<M, MOST> {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let Value::Array(items) = value else {
            drop(SecretJson::new(value));
            return Err(invalid(name, "is not a list"));
        };
        if items.len() > MOST {
            drop(SecretJson::new(Value::Array(items)));
            return Err(
                invalid(name, &format!("has more than {MOST} entries")).with_limit(MOST as u64)
            );
        }
        let items = items.into_iter().map(|item| M::of(name, item));
        items.collect::<Result<_, _>>().map(Self)
    }
}

impl<M: JsonSchema, const MOST: usize> JsonSchema for List<M, MOST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("List_of_{}", M::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<M>();
        schemars::json_schema!({"type": "array", "maxItems": MOST, "items": items})
    }
}

/// A text.
impl Member for String {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        match value {
            Value::String(text) => Ok(text),
            other => {
                drop(SecretJson::new(other));
                Err(invalid(name, "is not a string"))
            }
        }
    }
}

/// The schema of a type without a component of its own.
macro_rules! inline_schema {
    ($type:ty, $schema:tt) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
pub(crate) use inline_schema;

/// A time, in schemas.
pub(crate) struct Time;

inline_schema!(Time, {"type": "string", "format": "date-time"});

/// The error for a missing member.
pub(crate) fn missing(field: &str) -> Problem {
    Problem::new(ProblemKind::MissingField, format!("`{field}` is missing")).with_field(field)
}

/// The error for an invalid member.
pub(crate) fn invalid(field: &str, reason: &str) -> Problem {
    Problem::new(ProblemKind::InvalidField, format!("`{field}` {reason}")).with_field(field)
}
