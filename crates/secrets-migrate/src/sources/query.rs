//! A read-only SELECT, for joins: Airbyte keeps the specification in another table.
use std::fmt;

use async_trait::async_trait;
use secret_persistence_core::settings::SettingMap;
use serde_json::Value;

use super::given;
use super::rows::{Order, Rows};
use crate::database::Database;
use crate::{
    Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, MigrateError, MigrateErrorKind,
    MigrateResult, Update,
};

/// The optional columns of a query beside its content, in the order of a row.
const COLUMNS: [&str; 4] = ["id", "base_id", "prefix", "specification"];

/// A query whose columns are known.
#[derive(Debug)]
pub(super) struct Query {
    rows: Rows,
    /// Its name with its text.
    reads: String,
}

impl Query {
    /// Opens a query and checks its columns.
    pub(super) async fn open(database: Database, file: &str, query: String) -> MigrateResult<Self> {
        let columns = database.columns(query.clone()).await?;
        let find = |name: &str| columns.iter().find(|column| column.name == name);
        let known =
            |name: &str| COLUMNS.contains(&name) || name == "configuration" || name == "coordinate";
        if let Some(unknown) = columns.iter().find(|column| !known(&column.name)) {
            return Err(MigrateError::settings(format!(
                "the query returns a column `{}`; use the names id, configuration or coordinate, base_id, prefix, specification",
                unknown.name.escape_debug()
            )));
        }
        let content = match (find("configuration"), find("coordinate")) {
            (Some(_), None) => "configuration",
            (None, Some(_)) => "coordinate",
            _ => {
                return Err(MigrateError::settings(
                    "the query must return a column named configuration or coordinate",
                ));
            }
        };
        let id = find("id")
            .ok_or_else(|| MigrateError::settings("the query must return a column named id"))?;
        let order = Order::of(&database, "id", id, None).await?;
        let bare = content == "coordinate";
        let selected: Vec<String> = COLUMNS
            .iter()
            .map(|name| match find(name) {
                Some(_) => text(name),
                None => "NULL".into(),
            })
            .chain([text(content)])
            .collect();
        // A newline ends a comment at the end of the query.
        let select = format!("SELECT {} FROM ({query}\n) AS source", selected.join(", "));
        let condition = bare.then(|| "source.coordinate IS NOT NULL".to_owned());
        let place = format!("{} {file}", database.name());
        let reads = format!("{place}: {query}");
        Ok(Self {
            rows: Rows::new((database, place), select, condition, order, bare),
            reads,
        })
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rows.place)
    }
}

#[async_trait]
impl ConfigSource for Query {
    fn access(&self) -> Access {
        Access::ReadOnly
    }

    fn reads(&self) -> String {
        self.reads.clone()
    }

    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        self.rows.page(after, limit).await
    }

    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        self.rows.one(id).await
    }

    async fn update(&self, _: &ConfigRow, _: &Value) -> MigrateResult<Update> {
        Err(
            MigrateError::new(MigrateErrorKind::Settings, "a query is read-only")
                .with_place(self.to_string())
                .with_hint("use the table itself with table=…"),
        )
    }
}

fn text(column: &str) -> String {
    format!("CAST(source.{column} AS TEXT)")
}

/// Reads the SELECT in a file, without a trailing semicolon.
pub(super) fn read(file: &str) -> MigrateResult<String> {
    let text = std::fs::read_to_string(file).map_err(|cause| {
        MigrateError::settings(format!("query-file {file} cannot be read")).with_source(cause)
    })?;
    let query = text.trim().trim_end_matches(';').trim_end();
    if query.is_empty() {
        return Err(MigrateError::settings(format!(
            "query-file {file} is empty"
        )));
    }
    Ok(query.to_owned())
}

/// Refuses column settings: a query names its columns itself.
pub(super) fn refuse_columns(settings: &SettingMap) -> MigrateResult<()> {
    let columns = [
        "id",
        "configuration",
        "coordinate",
        "base_id",
        "prefix",
        "specification",
        "where",
    ];
    match given(settings, &columns) {
        None => Ok(()),
        Some(name) => Err(MigrateError::settings(format!(
            "`{name}=…` requires table=…; a query names its columns itself"
        ))),
    }
}
