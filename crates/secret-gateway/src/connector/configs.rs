//! The configurations that a request is about: its own, or a page of the platform's.

use std::sync::Arc;

use secret_persistence::connector::{ResolveReferences, SecretJson};
use secret_persistence_migrate::{
    ConfigCursor, ConfigRow, MemoryConfigs, MigrateError, MigrateResult,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::inventory::Rows;
use super::members::Configuration;
use crate::configurations::Configurations;
use crate::digests::Digests;
use crate::gateway::Gateway;
use crate::server::{
    Fields, List, Maybe, Member, Problem, ProblemKind, Request as _, inline_schema, invalid,
    missing, request,
};

/// How many configurations one request may contain.
pub(super) const MAX_CONFIGURATIONS: usize = 1000;

/// How many configurations of the platform one response is about. A store may answer only ten
/// questions a second.
const PAGE: usize = 100;

/// The source of the configurations of a request. It is not shown.
pub(super) const SOURCE: &str = "request";

request! {
    /// A configuration with pointers, and whose it is.
    pub(super) struct Row {
        /// Unique within the request.
        id: String,
        #[schemars(default)]
        workspace: Maybe<Uuid>,
        configuration: Configuration,
    }
}

impl Member for Row {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        match value {
            Value::Object(members) => Self::take(Fields::new(members)),
            other => {
                drop(SecretJson::new(other));
                Err(invalid(name, "has an entry that is not an object"))
            }
        }
    }
}

request! {
    /// Where to continue.
    pub(super) struct Page {
        /// The `next` of the page before; only for configurations that `configurations-file` names.
        #[schemars(default)]
        after: Maybe<Continuation>,
    }
}

/// A source, and the place in it. It is signed, because a source takes only cursors of its own.
struct Continuation {
    source: usize,
    /// `None` for the beginning.
    cursor: Option<String>,
    signature: String,
}

inline_schema!(Continuation, {"type": "string"});

impl Member for Continuation {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let parse = || {
            let mut parts = value.as_str()?.splitn(3, '.');
            let source = parts.next()?.parse().ok()?;
            let signature = parts.next()?.to_owned();
            let cursor = parts.next()?;
            Some(Self {
                source,
                cursor: (!cursor.is_empty()).then(|| cursor.to_owned()),
                signature,
            })
        };
        parse().ok_or_else(|| wrong(name))
    }
}

fn wrong(name: &str) -> Problem {
    invalid(name, "is not the `next` of a response")
}

impl Continuation {
    fn text(digests: &Digests, source: usize, cursor: Option<&ConfigCursor>) -> String {
        let cursor = cursor.map_or("", ConfigCursor::as_str);
        let signature = signature(digests, source, cursor);
        format!("{source}.{signature}.{cursor}")
    }

    fn is_ours(&self, digests: &Digests) -> bool {
        let cursor = self.cursor.as_deref().unwrap_or_default();
        self.signature == signature(digests, self.source, cursor)
    }
}

/// In the characters of a URL.
fn signature(digests: &Digests, source: usize, cursor: &str) -> String {
    let digest = digests.of("continuation", &json!([source, cursor]));
    digest.replace('+', "-").replace('/', "_").replace('=', "")
}

/// The configurations of a request.
pub(super) struct Configs {
    pub(super) rows: MemoryConfigs,
    pub(super) references: Option<Arc<dyn ResolveReferences>>,
    /// The `after` of the next page.
    pub(super) next: Option<String>,
}

impl Configs {
    pub(super) async fn of(gateway: &Gateway, rows: Rows, page: Page) -> Result<Self, Problem> {
        let after = page.after.into_option();
        if let Maybe::Present(rows) = rows {
            return match after {
                None => Self::given(rows),
                Some(_) => Err(invalid(
                    "after",
                    "is for the gateway's own configurations, and the request has others",
                )),
            };
        }
        let Some(configurations) = gateway.configurations() else {
            return Err(missing("configurations"));
        };
        let digests = gateway.digests();
        if after.as_ref().is_some_and(|after| !after.is_ours(digests)) {
            return Err(wrong("after"));
        }
        let read = Self::read(configurations, digests, after).await;
        read.map_err(|error| unavailable(&error))
    }

    fn given(List(rows): List<Row, MAX_CONFIGURATIONS>) -> Result<Self, Problem> {
        let rows = rows.into_iter().map(|row| {
            ConfigRow::new(row.id, row.configuration.into_inner())
                .with_scope(None, row.workspace.into_option())
        });
        let rows = MemoryConfigs::new(SOURCE, rows.collect())
            .map_err(|_| invalid("configurations", "has two entries with the same `id`"))?;
        Ok(Self {
            rows,
            references: None,
            next: None,
        })
    }

    async fn read(
        configurations: &Configurations,
        digests: &Digests,
        after: Option<Continuation>,
    ) -> MigrateResult<Self> {
        let (index, cursor) = after.map_or((0, None), |after| (after.source, after.cursor));
        let references = configurations.references().await?;
        let Some(source) = configurations.source(index).await? else {
            return Ok(Self {
                rows: MemoryConfigs::new(SOURCE, Vec::new())?,
                references,
                next: None,
            });
        };
        let cursor = cursor.map(ConfigCursor::new);
        let page = source.page(cursor.as_ref(), PAGE).await?;
        let next = match page.next {
            Some(next) => Some(Continuation::text(digests, index, Some(&next))),
            None if index + 1 < configurations.count() => {
                Some(Continuation::text(digests, index + 1, None))
            }
            None => None,
        };
        Ok(Self {
            // Under the source's name, as in the journals of the tool.
            rows: MemoryConfigs::new(source.to_string(), page.rows)?,
            references,
            next,
        })
    }
}

/// The sources cannot be read. The error contains names and places, and no part of a configuration.
pub(super) fn unavailable(error: &MigrateError) -> Problem {
    let cause = std::error::Error::source(error).map(tracing::field::display);
    tracing::error!(target: "secret_gateway", %error, cause, "the configurations cannot be read");
    let detail = format!("the gateway cannot read the configurations: {error}");
    Problem::new(ProblemKind::ConfigurationsUnavailable, detail).with_retry_after(5)
}
