//! Where configurations come from.
use std::fmt::{self, Debug, Display};
use std::sync::Arc;

use async_trait::async_trait;
use secret_persistence_core::SecretValue;
use secret_persistence_core::connector::SecretJson;
use serde_json::Value;
use uuid::Uuid;

use crate::MigrateResult;

/// A table, a query or a file of connector configurations, read in pages.
///
/// `Display` names it for people, shows no credential, and stays the same from run to run. Together
/// with a row's id, it is the configuration's key in journal and report.
///
/// # Errors
///
/// Every error has the kind `Configurations` and a place: the line number, or the row's id. It
/// never contains a part of a configuration, which may contain raw secrets. This includes a JSON
/// parser's message about the text.
#[async_trait]
pub trait ConfigSource: Debug + Display + Send + Sync {
    /// Whether rows can be updated.
    fn access(&self) -> Access;

    /// Which rows it reads, where its name does not tell: a table with its condition, a query with
    /// its text. Its name unless told.
    fn reads(&self) -> String {
        self.to_string()
    }

    /// What tells it apart from every other source, also from one with the same name: two tables may have one
    /// address on two hosts. Its name unless told. A source that
    /// [admits others](Self::admits_others) asks its database, and does not admit them without an answer.
    fn identity(&self) -> String {
        self.to_string()
    }

    /// Reads at most `limit` rows in a stable order, from the beginning or after the cursor of the
    /// previous page. Rows that are added in the meantime may or may not be returned.
    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage>;

    /// Whether several processes may read it and update its rows at the same time: an update is there for
    /// all of them when it returns. Then [`page_upto`](Self::page_upto) keeps its promise.
    fn admits_others(&self) -> bool {
        false
    }

    /// Reads at most `limit` rows after a position, and none after another one that an earlier page
    /// returned as its end, whatever was added or deleted since.
    async fn page_upto(
        &self,
        after: Option<&ConfigCursor>,
        upto: &ConfigCursor,
        limit: usize,
    ) -> MigrateResult<ConfigPage> {
        let _ = upto;
        self.page(after, limit).await
    }

    /// Reads the current state of one row: `None` if it was deleted.
    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>>;

    /// Replaces a configuration by compare-and-swap: only if the row still equals
    /// [`ConfigRow::as_read`].
    ///
    /// # Errors
    /// If the source is read-only or fails.
    async fn update(&self, row: &ConfigRow, configuration: &Value) -> MigrateResult<Update>;

    /// Called once after the last update of a run, even if there was no update. A source that
    /// writes a new file renames it into place here. A run that fails or is stopped does not call
    /// it.
    async fn finish(&self) -> MigrateResult<()> {
        Ok(())
    }
}

/// Whether a source's rows can be updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read-only: the source is a query, or contains bare coordinates.
    ReadOnly,
    /// By compare-and-swap.
    Update,
}

/// The result of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The row was changed or removed since it was read; nothing was saved.
    Changed,
    /// Saved.
    Saved,
}

/// The position where reading continues. Opaque, and valid only for the source that returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigCursor(String);

impl ConfigCursor {
    /// Creates a cursor from the source's own notation.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The source's own notation.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One page of rows.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ConfigPage {
    /// The rows, in the source's order.
    pub rows: Vec<ConfigRow>,
    /// The cursor of the next page, unless this is the last one.
    pub next: Option<ConfigCursor>,
}

impl ConfigPage {
    /// A page.
    #[must_use]
    pub fn new(rows: Vec<ConfigRow>, next: Option<ConfigCursor>) -> Self {
        Self { rows, next }
    }
}

/// One configuration, or one bare coordinate.
///
/// `Debug` shows only the id and the place: the configuration may contain raw secrets.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConfigRow {
    /// Unique within the source.
    pub id: String,
    /// Its place for errors, such as `line 7`, or empty if the id is enough.
    pub place: Option<String>,
    /// The scope's prefix, by default `workspace_`.
    pub prefix: Option<String>,
    /// The scope's base id, the workspace for example. Only a split needs it.
    pub base_id: Option<Uuid>,
    /// The connection specification. Only a split needs it. Shared between rows with the same one.
    pub specification: Option<Arc<Value>>,
    /// The content of the row.
    pub content: Content,
    /// What [`ConfigSource::update`] compares with: the configuration's text or the revision as the
    /// source read it. Wiped on drop, since it may contain raw secrets.
    pub as_read: Option<SecretValue>,
}

/// The content of a row.
#[derive(Clone)]
pub enum Content {
    /// A configuration. Shared and wiped on drop, since it may contain raw secrets.
    Configuration(Arc<SecretJson>),
    /// A coordinate without a configuration, as in some tables.
    Coordinate(String),
}

impl ConfigRow {
    /// A configuration.
    pub fn new(id: impl Into<String>, configuration: Value) -> Self {
        Self {
            id: id.into(),
            place: None,
            prefix: None,
            base_id: None,
            specification: None,
            content: Content::Configuration(Arc::new(SecretJson::new(configuration))),
            as_read: None,
        }
    }

    /// A bare coordinate.
    pub fn bare(id: impl Into<String>, coordinate: impl Into<String>) -> Self {
        Self {
            content: Content::Coordinate(coordinate.into()),
            ..Self::new(id, Value::Null)
        }
    }

    /// Adds the place.
    #[must_use]
    pub fn with_place(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Adds the scope.
    #[must_use]
    pub fn with_scope(mut self, prefix: Option<String>, base_id: Option<Uuid>) -> Self {
        self.prefix = prefix;
        self.base_id = base_id;
        self
    }

    /// Adds the connection specification.
    #[must_use]
    pub fn with_specification(mut self, specification: Option<Arc<Value>>) -> Self {
        self.specification = specification;
        self
    }

    /// Adds what an update compares with.
    #[must_use]
    pub fn with_as_read(mut self, as_read: SecretValue) -> Self {
        self.as_read = Some(as_read);
        self
    }
}

impl Debug for ConfigRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigRow")
            .field("id", &self.id)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(_) => f.write_str("Configuration(redacted)"),
            Self::Coordinate(name) => write!(f, "Coordinate({name})"),
        }
    }
}
