//! A table of configurations, or of bare coordinates.
use std::fmt;

use async_trait::async_trait;
use secret_persistence_core::settings::SettingMap;
use serde_json::{Value, json};

use super::identifier::Identifier;
use super::rows::{Order, Rows};
use crate::database::{ColumnInfo, Database, Purpose};
use crate::{
    Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, MigrateError, MigrateResult, Update,
};

/// An open table.
#[derive(Debug)]
pub(super) struct Table {
    rows: Rows,
    purpose: Purpose,
    /// Its name with its condition.
    reads: String,
    update: String,
    /// What the database says about which table it is.
    identity: Option<String>,
}

/// The roles of the columns.
#[derive(Debug)]
pub(super) struct Columns {
    table: Identifier,
    id: Identifier,
    content: Identifier,
    bare: bool,
    base_id: Option<Identifier>,
    prefix: Option<Prefix>,
    specification: Option<Identifier>,
    condition: Option<String>,
}

#[derive(Debug)]
enum Prefix {
    Column(Identifier),
    Literal(String),
}

impl Columns {
    /// Reads the column names from a source's settings.
    pub(super) fn parse(settings: &SettingMap) -> MigrateResult<Self> {
        let column = |name: &str| settings.text(name).map(Identifier::column).transpose();
        let table = settings.text("table").unwrap_or_default();
        let (content, bare) = match (column("configuration")?, column("coordinate")?) {
            (Some(content), None) => (content, false),
            (None, Some(content)) => (content, true),
            _ => {
                return Err(MigrateError::settings(
                    "set either configuration=… or coordinate=… with table=…",
                ));
            }
        };
        let prefix = match settings.text("prefix") {
            None => None,
            Some(text) => Some(match text.strip_prefix('\'') {
                None => Prefix::Column(Identifier::column(text)?),
                Some(rest) => Prefix::Literal(
                    rest.strip_suffix('\'')
                        .ok_or_else(|| {
                            MigrateError::settings(
                                "the quote of the literal in prefix=… is not closed",
                            )
                        })?
                        .to_owned(),
                ),
            }),
        };
        Ok(Self {
            table: Identifier::table(table)?,
            id: column("id")?
                .ok_or_else(|| MigrateError::settings("`id=…` is missing; table=… requires it"))?,
            content,
            bare,
            base_id: column("base_id")?,
            prefix,
            specification: column("specification")?,
            condition: settings.text("where").map(str::to_owned),
        })
    }

    /// Bare coordinates are never updated, whatever the command.
    pub(super) fn access(&self, wanted: Access) -> Access {
        if self.bare { Access::ReadOnly } else { wanted }
    }

    /// Columns are qualified, because SQLite treats an unknown name in double quotes as a string.
    fn select(&self) -> String {
        let text = |column: &Identifier| format!("CAST(source.{column} AS TEXT)");
        let optional = |column: &Option<Identifier>| column.as_ref().map_or("NULL".into(), text);
        let prefix = match &self.prefix {
            None => "NULL".into(),
            Some(Prefix::Column(column)) => text(column),
            Some(Prefix::Literal(literal)) => format!("'{}'", literal.replace('\'', "''")),
        };
        format!(
            "SELECT {}, {}, {prefix}, {}, {} FROM {} AS source",
            text(&self.id),
            optional(&self.base_id),
            optional(&self.specification),
            text(&self.content),
            self.table,
        )
    }

    /// Skip rows without a coordinate.
    fn condition(&self) -> Option<String> {
        let present = self
            .bare
            .then(|| format!("source.{} IS NOT NULL", self.content));
        match (&self.condition, present) {
            (None, present) => present,
            (Some(own), None) => Some(own.clone()),
            (Some(own), Some(present)) => Some(format!("{present} AND ({own}\n)")),
        }
    }

    fn update(
        &self,
        id: &ColumnInfo,
        content: &ColumnInfo,
        postgres: bool,
    ) -> MigrateResult<String> {
        let Self {
            table,
            id: id_column,
            content: content_column,
            ..
        } = self;
        // Compare as text: `json` has no equality, and the text of an unchanged row is the same on
        // every read.
        let same = format!("CAST({content_column} AS TEXT) = $3");
        if !postgres {
            return Ok(format!(
                "UPDATE {table} SET {content_column} = $1 WHERE CAST({id_column} AS TEXT) = $2 AND {id_column} = $2 AND {same}"
            ));
        }
        if !["JSON", "JSONB", "TEXT", "VARCHAR"].contains(&content.kind.as_str()) {
            return Err(MigrateError::settings(format!(
                "the column {content_column} has type {}; configurations must be json, jsonb or text",
                content.kind
            )));
        }
        let id_is = match id.kind.as_str() {
            kind @ ("UUID" | "TEXT" | "VARCHAR" | "INT2" | "INT4" | "INT8") => {
                format!("{id_column} = CAST($2 AS {kind})")
            }
            _ => format!("CAST({id_column} AS TEXT) = $2"),
        };
        Ok(format!(
            "UPDATE {table} SET {content_column} = CAST($1 AS {}) WHERE {id_is} AND {same}",
            content.kind
        ))
    }
}

/// Which table it is, if the database says so: an address may lead to another server on another host, and a
/// file is another one there.
async fn identity(database: &Database, table: &Identifier) -> Option<String> {
    if !database.is_postgres() {
        return None;
    }
    let sql = "SELECT CAST(control.system_identifier AS TEXT), CAST(current_database() AS TEXT), \
                      CAST(spaces.nspname AS TEXT), CAST(classes.relname AS TEXT) \
               FROM pg_control_system() AS control, pg_class AS classes \
               JOIN pg_namespace AS spaces ON spaces.oid = classes.relnamespace \
               WHERE classes.oid = to_regclass($1)";
    // Another engine that speaks the protocol may not have the function, nor the role the right to call it.
    let rows = database.few(sql.into(), vec![table.to_string()]).await;
    let row: Option<Vec<String>> = rows.ok()?.into_iter().next()?.into_iter().collect();
    row.map(|row| json!(row).to_string())
}

impl Table {
    /// Opens a table and checks that its columns exist.
    pub(super) async fn open(
        database: Database,
        columns: Columns,
        purpose: Purpose,
    ) -> MigrateResult<Self> {
        let Columns {
            table, id, content, ..
        } = &columns;
        database.columns(columns.select()).await?;
        let infos = database
            .columns(format!(
                "SELECT source.{id}, source.{content} FROM {table} AS source"
            ))
            .await?;
        let [id_info, content_info] = <[ColumnInfo; 2]>::try_from(infos).map_err(|_| {
            MigrateError::unavailable("the database described another number of columns")
        })?;
        let in_use = format!("SELECT DISTINCT typeof(source.{id}) FROM {table} AS source");
        let order = Order::of(&database, &id.to_string(), &id_info, Some(in_use)).await?;
        let update = if purpose == Purpose::Update {
            columns.update(&id_info, &content_info, database.is_postgres())?
        } else {
            String::new()
        };
        let identity = match purpose {
            Purpose::Update => identity(&database, table).await,
            _ => None,
        };
        let mut place = format!("{} {table}", database.name());
        // Two columns of a table are two sources. Most have one, with this name.
        if content.to_string() != "\"configuration\"" {
            place.push_str(&format!(" {content}"));
        }
        let (select, condition) = (columns.select(), columns.condition());
        let reads = match &condition {
            None => place.clone(),
            Some(condition) => format!("{place} where {condition}"),
        };
        let rows = Rows::new((database, place), select, condition, order, columns.bare);
        Ok(Self {
            rows,
            purpose,
            reads,
            update,
            identity,
        })
    }

    async fn replace(&self, row: &ConfigRow, configuration: &Value) -> MigrateResult<Update> {
        let Some(as_read) = &row.as_read else {
            return Err(MigrateError::settings("the row was read without its text"));
        };
        let parameters = vec![
            configuration.to_string(),
            row.id.clone(),
            as_read.expose().to_owned(),
        ];
        match self
            .rows
            .database
            .execute(self.update.clone(), parameters)
            .await?
        {
            0 => Ok(Update::Changed),
            1 => Ok(Update::Saved),
            changed => Err(MigrateError::unavailable(format!(
                "the id matched {changed} rows, and all of them were updated; restore them, and use a unique column as the id"
            ))),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rows.place)
    }
}

#[async_trait]
impl ConfigSource for Table {
    fn access(&self) -> Access {
        match self.purpose {
            Purpose::Update => Access::Update,
            _ => Access::ReadOnly,
        }
    }

    fn reads(&self) -> String {
        self.reads.clone()
    }

    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        self.rows.page(after, limit).await
    }

    fn identity(&self) -> String {
        let identity = self.identity.as_ref();
        identity.map_or_else(|| self.to_string(), Clone::clone)
    }

    fn admits_others(&self) -> bool {
        self.identity.is_some()
    }

    async fn page_upto(
        &self,
        after: Option<&ConfigCursor>,
        upto: &ConfigCursor,
        limit: usize,
    ) -> MigrateResult<ConfigPage> {
        self.rows.page_upto(after, upto, limit).await
    }

    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        self.rows.one(id).await
    }

    async fn update(&self, row: &ConfigRow, configuration: &Value) -> MigrateResult<Update> {
        self.replace(row, configuration)
            .await
            .map_err(|error| error.at_row(&row.id).within(self))
    }
}
