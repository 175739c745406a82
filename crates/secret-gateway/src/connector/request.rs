//! The body of `POST /changes`.

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::request::Parts;
use secret_persistence::connector::{ConnectorSpec, Policy, SecretJson};
use secret_persistence::{Scope, Timestamp};
use serde_json::json;

use super::members::{At, Configuration, Pointer, RequestedScope, Specification};
use super::sight;
use crate::digests::Digests;
use crate::outbox::{ChangeKind, Idempotency};
use crate::server::{Body, List, Maybe, Problem, invalid, missing, request};
use crate::tokens::Principal;

/// How many places one request may guard.
const MAX_GUARDED: usize = 1000;

/// The longest `Idempotency-Key`.
pub(super) const MAX_KEY: usize = 255;

request! {
    /// A change of a row.
    pub(super) struct ChangeRequest {
        kind: ChangeKind,
        scope: RequestedScope,
        /// JSON Pointers: where one of them changes, masks and kept pointers are refused.
        #[schemars(default)]
        guarded: Maybe<List<Pointer, MAX_GUARDED>>,
        /// When the new secrets expire, in the future.
        expires: Option<At>,
        /// The configuration of the row; for update and delete.
        #[schemars(default)]
        saved: Maybe<Configuration>,
        /// The new configuration, with masks, kept pointers and new values; for create and update.
        #[schemars(default)]
        edited: Maybe<Configuration>,
        /// For create and update.
        #[schemars(default)]
        specification: Maybe<Specification>,
    }
}

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
    pub(super) fn of(
        request: ChangeRequest,
        caller: &Principal,
        external: &[String],
        digests: &Digests,
    ) -> Result<Self, Problem> {
        let ChangeRequest {
            kind,
            scope: RequestedScope(scope),
            guarded,
            expires,
            saved,
            edited,
            specification,
        } = request;
        let expires = expires.map(|At(expires)| expires);
        if expires.is_some_and(|expires| expires <= Timestamp::now()) {
            return Err(invalid("expires", "is not in the future"));
        }
        if !caller.binding.sees_scope(&scope) {
            return Err(Problem::not_found(
                "the scope does not exist for this token",
            ));
        }
        let configuration =
            |member: Maybe<Configuration>| member.into_option().map(|Configuration(json)| json);
        let (saved, edited) = (configuration(saved), configuration(edited));
        let specification = specification.into_option();
        let compile = || {
            specification
                .as_ref()
                .ok_or_else(|| missing("specification"))?
                .compile()
        };
        let saved_digest = saved
            .as_ref()
            .map(|saved| digests.of("configuration", saved))
            .unwrap_or_default();
        if let Some(saved) = &saved {
            sight::require(caller, external, saved)?;
        }
        let what = match (kind, saved, edited) {
            (ChangeKind::Create, None, Some(edited)) => What::Create {
                spec: compile()?,
                edited,
            },
            (ChangeKind::Create, Some(_), _) => {
                return Err(invalid("saved", "is not allowed for a create"));
            }
            (ChangeKind::Update, Some(saved), Some(edited)) => What::Update {
                spec: compile()?,
                saved,
                edited,
            },
            (ChangeKind::Update | ChangeKind::Delete, None, _) => return Err(missing("saved")),
            (ChangeKind::Create | ChangeKind::Update, _, None) => return Err(missing("edited")),
            (ChangeKind::Delete, Some(saved), None) => What::Delete { saved },
            (ChangeKind::Delete, Some(_), Some(_)) => {
                return Err(invalid("edited", "is not allowed for a delete"));
            }
        };
        let guarded = guarded
            .into_option()
            .map_or_else(Vec::new, |List(places)| places);
        let policy = guarded
            .into_iter()
            .map(|Pointer(place)| place)
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

/// The header `Idempotency-Key`.
pub(super) struct IdempotencyKey(Option<HeaderValue>);

impl IdempotencyKey {
    pub(super) const NAME: &str = "Idempotency-Key";

    /// The key, with the caller's name and hashed: it may be any text.
    pub(super) fn of(
        self,
        caller: &Principal,
        request: &Body<ChangeRequest>,
        digests: &Digests,
    ) -> Result<Option<Idempotency>, Problem> {
        let Some(key) = self.0 else {
            return Ok(None);
        };
        let key = key
            .to_str()
            .ok()
            .filter(|key| (1..=MAX_KEY).contains(&key.len()))
            .ok_or_else(|| {
                let reason = format!("must have 1 to {MAX_KEY} printable characters");
                invalid(Self::NAME, &reason).with_limit(MAX_KEY as u64)
            })?;
        Ok(Some(Idempotency {
            key: digests.of("idempotency key", &json!([caller.name, key])),
            digest: request.digest(digests, "request"),
        }))
    }
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.headers.get(Self::NAME).cloned()))
    }
}
