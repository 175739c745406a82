//! The members that several requests and answers have.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secret_persistence::connector::{ConnectorSpec, Place, SecretJson};
use secret_persistence::{Scope, Timestamp};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::outbox::{ChangeKind, State};
use crate::server::{Fields, Member, Problem, Request as _, inline_schema, invalid, request};

/// A configuration.
pub(super) struct Configuration(pub(super) SecretJson);

inline_schema!(Configuration, {"description": "Any JSON."});

impl Member for Configuration {
    fn of(_: &'static str, value: Value) -> Result<Self, Problem> {
        Ok(Self(SecretJson::new(value)))
    }
}

impl Configuration {
    /// The value, for the library, which wipes it.
    pub(super) fn into_inner(self) -> Value {
        self.0.into_inner()
    }
}

/// A connection specification: a JSON schema whose secret fields have `airbyte_secret: true`.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct Specification(#[schemars(with = "Value")] SecretJson);

impl Member for Specification {
    fn of(_: &'static str, value: Value) -> Result<Self, Problem> {
        Ok(Self(SecretJson::new(value)))
    }
}

impl Specification {
    pub(super) fn compile(&self) -> Result<ConnectorSpec, Problem> {
        ConnectorSpec::compile(&self.0).map_err(Problem::from)
    }
}

request! {
    #[schemars(inline)]
    struct ByWorkspace {
        workspace: Uuid,
    }
}

request! {
    #[schemars(inline)]
    struct ByPrefix {
        prefix: String,
        id: Uuid,
    }
}

/// The scope of a request, of which the names of new secrets are made.
pub(super) struct RequestedScope(pub(super) Scope);

impl Member for RequestedScope {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let wrong = |_| {
            invalid(
                name,
                "must be {\"workspace\": id} or {\"prefix\": text, \"id\": id}",
            )
        };
        let Value::Object(members) = value else {
            return Err(wrong(value));
        };
        let is_workspace = members.contains_key("workspace");
        let fields = Fields::new(members);
        let scope = if is_workspace {
            let asked = ByWorkspace::take(fields).map_err(|_| wrong(Value::Null))?;
            Scope::workspace(asked.workspace)
        } else {
            let asked = ByPrefix::take(fields).map_err(|_| wrong(Value::Null))?;
            Scope::new(&asked.prefix, asked.id).map_err(|error| invalid(name, error.message()))?
        };
        Ok(Self(scope))
    }
}

impl JsonSchema for RequestedScope {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scope".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let shapes = [
            generator.subschema_for::<ByWorkspace>(),
            generator.subschema_for::<ByPrefix>(),
        ];
        json_schema!({"oneOf": shapes})
    }
}

impl Member for Uuid {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let text = String::of(name, value)?;
        Self::try_parse(&text).map_err(|_| invalid(name, "is not a UUID"))
    }
}

/// A time.
pub(super) struct At(pub(super) Timestamp);

inline_schema!(At, {"type": "string", "format": "date-time"});

impl Member for At {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let time = value.as_str().and_then(|text| text.parse().ok());
        time.map(Self)
            .ok_or_else(|| invalid(name, "is not an RFC 3339 time"))
    }
}

/// A span of time.
pub(super) struct Seconds(pub(super) u64);

impl Seconds {
    /// A century: a sum with the present time is a time.
    pub(super) const MOST: u64 = 100 * 366 * 86_400;
}

inline_schema!(Seconds, {"type": "integer", "minimum": 0, "maximum": Seconds::MOST});

impl Member for Seconds {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let seconds = value.as_u64().filter(|seconds| *seconds <= Self::MOST);
        drop(SecretJson::new(value));
        seconds.map(Self).ok_or_else(|| {
            let reason = format!("is not a whole number from 0 to {}", Self::MOST);
            invalid(name, &reason).with_limit(Self::MOST)
        })
    }
}

/// Yes or no.
pub(super) struct Flag(pub(super) bool);

inline_schema!(Flag, {"type": "boolean"});

impl Member for Flag {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let set = value.as_bool();
        drop(SecretJson::new(value));
        set.map(Self)
            .ok_or_else(|| invalid(name, "is not true or false"))
    }
}

/// A place of a configuration.
pub(super) struct Pointer(pub(super) Place);

inline_schema!(Pointer, {"type": "string"});

impl Member for Pointer {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let place = value.as_str().and_then(|text| text.parse().ok());
        place
            .map(Self)
            .ok_or_else(|| invalid(name, "has an entry that is not a JSON Pointer"))
    }
}

inline_schema!(ChangeKind, {"type": "string", "enum": ChangeKind::ALL.map(ChangeKind::as_str)});

impl Member for ChangeKind {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let text = String::of(name, value)?;
        Self::parse(&text).ok_or_else(|| invalid(name, "must be create, update or delete"))
    }
}

inline_schema!(State, {"type": "string", "enum": State::ALL.map(State::as_str)});

/// A state that callers are told: of a change that was answered.
#[derive(Clone, Copy, Serialize)]
#[serde(transparent)]
pub(super) struct Told(pub(super) State);

impl Told {
    const ALL: [State; 3] = [State::Open, State::Committed, State::Aborted];
}

inline_schema!(Told, {"type": "string", "enum": Told::ALL.map(State::as_str)});

impl Member for Told {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let text = String::of(name, value)?;
        State::parse(&text)
            .filter(|state| Self::ALL.contains(state))
            .map(Self)
            .ok_or_else(|| invalid(name, "must be open, committed or aborted"))
    }
}
