//! Parses the body of `POST /changes`.

use axum::http::HeaderMap;
use secret_persistence::connector::{ConnectorSpec, Place, Policy, SecretJson};
use secret_persistence::{Scope, Timestamp};
use serde_json::{Value, json};

use super::sight;
use crate::digests::Digests;
use crate::outbox::{ChangeKind, Idempotency};
use crate::server::{Fields, Problem, invalid, missing, too_many};
use crate::tokens::Principal;

/// How many places one request may guard.
const MAX_GUARDED: usize = 1000;

/// The longest `Idempotency-Key`.
const MAX_KEY: usize = 255;

/// A requested change.
pub(super) struct Wanted {
    pub(super) scope: Scope,
    pub(super) saved_digest: String,
    pub(super) what: What,
    pub(super) policy: Policy,
    pub(super) expires: Option<Timestamp>,
}

/// The configurations of the change.
pub(super) enum What {
    Create {
        spec: ConnectorSpec,
        edited: SecretJson,
    },
    Update {
        spec: ConnectorSpec,
        saved: SecretJson,
        edited: SecretJson,
    },
    Delete {
        saved: SecretJson,
    },
}

impl What {
    pub(super) fn kind(&self) -> ChangeKind {
        match self {
            Self::Create { .. } => ChangeKind::Create,
            Self::Update { .. } => ChangeKind::Update,
            Self::Delete { .. } => ChangeKind::Delete,
        }
    }
}

impl Wanted {
    pub(super) fn parse(
        mut fields: Fields,
        caller: &Principal,
        external: &[String],
        digests: &Digests,
    ) -> Result<Self, Problem> {
        let kind = fields.text("kind")?;
        let scope = sight::scope(&fields.require("scope")?)?;
        let guarded = match fields.take("guarded") {
            None => Vec::new(),
            Some(value) => places(&value)?,
        };
        let expires = match fields.take("expires") {
            None | Some(Value::Null) => None,
            Some(value) => Some(
                value
                    .as_str()
                    .and_then(|text| text.parse::<Timestamp>().ok())
                    .ok_or_else(|| invalid("expires", "is not an RFC 3339 time"))?,
            ),
        };
        let mut saved = fields.take("saved").map(SecretJson::new);
        let mut edited = fields.take("edited").map(SecretJson::new);
        let specification = fields.take("specification").map(SecretJson::new);
        fields.finish()?;
        if !caller.binding.sees_scope(&scope) {
            return Err(Problem::not_found(
                "the scope does not exist for this token",
            ));
        }
        let compile = || {
            let specification = specification
                .as_ref()
                .ok_or_else(|| missing("specification"))?;
            ConnectorSpec::compile(specification).map_err(Problem::from)
        };
        let saved_digest = saved
            .as_ref()
            .map(|saved| digests.of("configuration", saved))
            .unwrap_or_default();
        if let Some(saved) = &saved {
            sight::require(caller, external, saved)?;
        }
        let what = match (kind.as_str(), saved.take(), edited.take()) {
            ("create", None, Some(edited)) => What::Create {
                spec: compile()?,
                edited,
            },
            ("create", Some(_), _) => {
                return Err(invalid("saved", "is not allowed for a create"));
            }
            ("update", Some(saved), Some(edited)) => What::Update {
                spec: compile()?,
                saved,
                edited,
            },
            ("update" | "delete", None, _) => return Err(missing("saved")),
            ("create" | "update", _, None) => return Err(missing("edited")),
            ("delete", Some(saved), None) => What::Delete { saved },
            ("delete", _, Some(_)) => {
                return Err(invalid("edited", "is not allowed for a delete"));
            }
            _ => return Err(invalid("kind", "must be create, update or delete")),
        };
        let policy = guarded
            .into_iter()
            .fold(Policy::default(), Policy::with_guarded_place);
        Ok(Self {
            scope,
            saved_digest,
            what,
            policy: sight::external(caller, external, policy),
            expires,
        })
    }
}

fn places(value: &Value) -> Result<Vec<Place>, Problem> {
    let wrong = || invalid("guarded", "is not a list of JSON Pointers");
    let items = value.as_array().ok_or_else(wrong)?;
    if items.len() > MAX_GUARDED {
        return Err(too_many("guarded", MAX_GUARDED));
    }
    items
        .iter()
        .map(|item| {
            item.as_str()
                .and_then(|text| text.parse().ok())
                .ok_or_else(wrong)
        })
        .collect()
}

/// The `Idempotency-Key`, with the caller's name and hashed: it may be any text.
pub(super) fn idempotency(
    headers: &HeaderMap,
    caller: &Principal,
    request: &Fields,
    digests: &Digests,
) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = key
        .to_str()
        .ok()
        .filter(|key| (1..=MAX_KEY).contains(&key.len()))
        .ok_or_else(|| {
            invalid("Idempotency-Key", "must have 1 to 255 printable characters")
                .with("limit", MAX_KEY)
        })?;
    Ok(Some(Idempotency {
        key: digests.of("idempotency key", &json!([caller.name, key])),
        digest: request.digest(digests, "request"),
    }))
}
