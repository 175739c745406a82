//! Lists changes, a page at a time.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use secret_persistence::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::api::Query;
use super::changes::{ShownChange, exists_for, shown};
use super::members::{At, Told};
use crate::gateway::Gateway;
use crate::outbox::{After, State as ChangeState};
use crate::server::{Caller, Maybe, Member, Problem, inline_schema, invalid, request};
use crate::tokens::Role;

/// How many changes one query of the outbox returns.
const PAGE: u32 = 100;

/// How many changes one response may have.
const MAX_LIST: usize = 500;

/// How many it has, unless the caller asks for another number.
const DEFAULT_LIST: usize = 100;

/// Maximum queries for one response, if most changes are invisible to the caller.
const LOOKS: usize = 20;

request! {
    /// Which changes to list.
    pub(super) struct Listing {
        #[schemars(default, extend("default" = Told(ChangeState::Open)))]
        state: Maybe<Told>,
        /// Only what began before this.
        #[schemars(default)]
        before: Maybe<At>,
        /// The `next` of the page before.
        #[schemars(default)]
        after: Maybe<After>,
        #[schemars(default)]
        limit: Maybe<PageSize>,
    }
}

/// The number of changes on a page, at most.
struct PageSize(usize);

inline_schema!(PageSize, {
    "type": "integer", "minimum": 1, "maximum": MAX_LIST, "default": DEFAULT_LIST,
});

impl Member for PageSize {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let size = value.as_str().and_then(|text| text.parse().ok());
        size.filter(|size| (1..=MAX_LIST).contains(size))
            .map(Self)
            .ok_or_else(|| {
                let reason = format!("is not a number from 1 to {MAX_LIST}");
                invalid(name, &reason).with_limit(MAX_LIST as u64)
            })
    }
}

inline_schema!(After, {"type": "string"});

impl Member for After {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let parse = || {
            let (created, id) = value.as_str()?.split_once('.')?;
            Some(Self {
                created: created.parse().ok()?,
                id: Uuid::try_parse(id).ok()?,
            })
        };
        parse().ok_or_else(|| invalid(name, "is not the `next` of a response"))
    }
}

/// A page of changes, oldest first.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Page {
    changes: Vec<ShownChange>,
    /// The `after` of the next page; null on the last one.
    next: Option<String>,
}

pub(super) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    query: Query<Listing>,
) -> Result<Json<Page>, Problem> {
    caller.require(Role::Change)?;
    let asked = query.parse()?;
    let state = asked.state.into_option();
    let state = state.map_or(ChangeState::Open, |Told(state)| state);
    let before = asked.before.into_option().map_or_else(
        || Timestamp::now().saturating_add(Duration::from_secs(86_400)),
        |At(before)| before,
    );
    let limit = asked.limit.into_option();
    let limit = limit.map_or(DEFAULT_LIST, |PageSize(limit)| limit);
    let mut after = asked.after.into_option();
    let mut found = Vec::new();
    let mut more = true;
    for _ in 0..LOOKS {
        let page = gateway.outbox().list(state, before, after, PAGE).await?;
        more = page.len() == PAGE as usize;
        for change in page {
            if found.len() == limit {
                more = true;
                break;
            }
            after = Some(After {
                created: change.created.unix_seconds(),
                id: change.id,
            });
            if exists_for(&caller, &change) {
                found.push(shown(&change, false));
            }
        }
        if !more || found.len() == limit {
            break;
        }
    }
    let next = after
        .filter(|_| more)
        .map(|after| format!("{}.{}", after.created, after.id));
    Ok(Json(Page {
        changes: found,
        next,
    }))
}
