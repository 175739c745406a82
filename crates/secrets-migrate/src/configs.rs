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
/// `Display` names it for people, shows no credential, and stays the same from run to run: with a
/// row's id it makes the configuration's key in journal and report.
///
/// # Errors
///
/// Every error is of kind `Configurations` and has a place: the number of the line, or the row and
/// its id. It never shows a piece of a configuration, which may hold raw secrets; that includes a
/// JSON parser's message about text that it does not accept.
#[async_trait]
pub trait ConfigSource: Debug + Display + Send + Sync {
    /// Whether rows can be updated.
    fn access(&self) -> Access;

    /// Reads rows in a stable order, from the beginning or after a cursor of the page before, at
    /// most `limit`. Rows that are added meanwhile may or may not be seen.
    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage>;

    /// Reads one row again, as it is now: `None` where it has gone.
    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>>;

    /// Saves a configuration in the place of the one that was read, by compare-and-swap: only
    /// where the row still is [`ConfigRow::as_read`].
    ///
    /// # Errors
    /// Where the source is read-only, and where it fails.
    async fn update(&self, row: &ConfigRow, configuration: &Value) -> MigrateResult<Update>;

    /// Called once after the last update of a run, also where there was none: a source that writes
    /// a new file puts it into place here. A run that fails or is stopped does not call it.
    async fn finish(&self) -> MigrateResult<()> {
        Ok(())
    }
}

/// Whether a source's rows can be updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They cannot: the source is a query, or holds bare coordinates.
    ReadOnly,
    /// They can, by compare-and-swap.
    Update,
}

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Somebody else has changed or removed the row since it was read; nothing was saved.
    Changed,
    /// Saved.
    Saved,
}

/// Where reading goes on. Opaque, and only good for the source that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigCursor(String);

impl ConfigCursor {
    /// A cursor in the source's own terms.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The source's own terms.
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
    /// Where to go on, if this was not the last page.
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
/// `Debug` shows the id and the place only: the configuration may hold raw secrets.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConfigRow {
    /// Unique within the source.
    pub id: String,
    /// Where it stands, for errors: `line 7`, or nothing where the id says enough.
    pub place: Option<String>,
    /// The scope's prefix; `workspace_` where none is given.
    pub prefix: Option<String>,
    /// The scope's base id, the workspace for example. Only a split needs it.
    pub base_id: Option<Uuid>,
    /// The connection specification. Only a split needs it. Shared, because many rows have the same.
    pub specification: Option<Arc<Value>>,
    /// What the row holds.
    pub content: Content,
    /// What [`ConfigSource::update`] compares with: the configuration's text or the revision as the
    /// source read it. Wiped on drop, since it may hold raw secrets.
    pub as_read: Option<SecretValue>,
}

/// What a row holds.
#[derive(Clone)]
pub enum Content {
    /// A configuration. Shared and wiped on drop, since it may hold raw secrets.
    Configuration(Arc<SecretJson>),
    /// A coordinate without a configuration, as some tables hold it.
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

    /// Adds where it stands.
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
