//! Pages of rows from SQL, in a stable order for any type of id.
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use secret_persistence_core::SecretValue;
use serde_json::Value;
use uuid::Uuid;

use super::json;
use crate::database::{ColumnInfo, Database, Texts};
use crate::{ConfigCursor, ConfigPage, ConfigRow, MigrateError, MigrateResult};

/// How many parsed specifications are cached: rows of one connector share theirs.
const SPECIFICATIONS: usize = 128;

/// A SELECT that returns id, base id, prefix, specification and content in this order, and the
/// expression to order by.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) database: Database,
    /// The database and the table or the query in it, for errors.
    pub(super) place: String,
    /// The text up to its FROM clause, whose table has the alias `source`.
    select: String,
    condition: Option<String>,
    order: Order,
    bare: bool,
    specifications: Mutex<HashMap<String, Arc<Value>>>,
}

/// How ids are compared: in their own type if an index may help, otherwise as text.
#[derive(Debug)]
pub(super) struct Order {
    expression: String,
    parameter: String,
}

impl Order {
    /// The order of a column with an already quoted name.
    pub(super) async fn of(
        database: &Database,
        column: &str,
        info: &ColumnInfo,
        types_in_use: Option<String>,
    ) -> MigrateResult<Self> {
        if database.is_postgres() {
            // Only types whose text form parses back to the same value and that are ordered.
            let native = ["UUID", "TEXT", "VARCHAR", "INT2", "INT4", "INT8"];
            return Ok(if native.contains(&info.kind.as_str()) {
                Self {
                    expression: format!("source.{column}"),
                    parameter: format!("CAST($1 AS {})", info.kind),
                }
            } else {
                Self {
                    expression: format!("CAST(source.{column} AS TEXT) COLLATE \"C\""),
                    parameter: "$1".into(),
                }
            });
        }
        // In SQLite, values have types, not columns: a text parameter is greater than every
        // integer.
        let in_use = match types_in_use {
            None => Vec::new(),
            Some(sql) => database.few(sql, Vec::new()).await?,
        };
        let only = |kind: &str| {
            in_use.iter().all(|row| {
                row.first()
                    .is_some_and(|name| name.as_deref() == Some(kind))
            })
        };
        Ok(if !in_use.is_empty() && only("text") {
            Self {
                expression: format!("source.{column} COLLATE BINARY"),
                parameter: "$1".into(),
            }
        } else if !in_use.is_empty() && only("integer") {
            Self {
                expression: format!("source.{column}"),
                parameter: "CAST($1 AS INTEGER)".into(),
            }
        } else {
            Self {
                expression: format!("CAST(source.{column} AS TEXT) COLLATE BINARY"),
                parameter: "$1".into(),
            }
        })
    }
}

impl Rows {
    /// Selects the rows that meet a condition.
    pub(super) fn new(
        (database, place): (Database, String),
        select: String,
        condition: Option<String>,
        order: Order,
        bare: bool,
    ) -> Self {
        Self {
            database,
            place,
            select,
            condition,
            order,
            bare,
            specifications: Mutex::default(),
        }
    }

    /// Reads one page. Duplicate ids are returned twice, even across two pages, so that the caller
    /// can detect them: a cursor contains how many rows with its id were returned.
    pub(super) async fn page(
        &self,
        after: Option<&ConfigCursor>,
        limit: usize,
    ) -> MigrateResult<ConfigPage> {
        let page = self.read_page(after, None, limit).await;
        page.map_err(|error| error.within(&self.place))
    }

    /// The same, but no rows after the last one of an earlier page. The database compares.
    pub(super) async fn page_upto(
        &self,
        after: Option<&ConfigCursor>,
        upto: &ConfigCursor,
        limit: usize,
    ) -> MigrateResult<ConfigPage> {
        let page = self.read_page(after, Some(upto), limit).await;
        page.map_err(|error| error.within(&self.place))
    }

    async fn read_page(
        &self,
        after: Option<&ConfigCursor>,
        upto: Option<&ConfigCursor>,
        limit: usize,
    ) -> MigrateResult<ConfigPage> {
        let mut conditions: Vec<String> = Vec::new();
        // A newline ends a comment at the end of the condition.
        conditions.extend(self.condition.iter().map(|own| format!("({own}\n)")));
        let (mut seen, mut last) = (0, None);
        let mut parameters = Vec::new();
        if let Some(cursor) = after {
            let (count, id) = parts(cursor)?;
            seen = count;
            last = Some(id.to_owned());
            parameters.push(id.to_owned());
            conditions.push(format!(
                "{} >= {}",
                self.order.expression, self.order.parameter
            ));
        }
        if let Some(cursor) = upto {
            parameters.push(parts(cursor)?.1.to_owned());
            let parameter = format!("${}", parameters.len());
            let parameter = self.order.parameter.replace("$1", &parameter);
            conditions.push(format!("{} <= {parameter}", self.order.expression));
        }
        let filter = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        let sql = format!(
            "{}{filter} ORDER BY {} LIMIT {}",
            self.select,
            self.order.expression,
            limit.saturating_add(seen)
        );
        let mut texts = self.database.few(sql, parameters).await?;
        let full = texts.len() >= limit.saturating_add(seen);
        // Not skipped by an offset: if the last row was deleted meanwhile, that would skip another one.
        let known = |row: &&Vec<Option<String>>| row.first() == Some(&last);
        let known = texts.iter().take(seen).take_while(known).count();
        texts.drain(..known);
        if known < seen {
            seen = known;
        }
        let mut rows = Vec::with_capacity(texts.len());
        for row in texts {
            let row = self.row(row)?;
            if last.as_deref() == Some(row.id.as_str()) {
                seen += 1;
            } else {
                (seen, last) = (1, Some(row.id.clone()));
            }
            rows.push(row);
        }
        let next = last
            .filter(|_| full)
            .map(|id| ConfigCursor::new(format!("{seen}:{id}")));
        Ok(ConfigPage::new(rows, next))
    }

    /// Reads the current state of one row.
    pub(super) async fn one(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        let row = self.read_one(id).await;
        row.map_err(|error| error.within(&self.place))
    }

    async fn read_one(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        let sql = format!(
            "{} WHERE {} = {} LIMIT 2",
            self.select, self.order.expression, self.order.parameter
        );
        let mut rows = self.database.few(sql, vec![id.to_owned()]).await?;
        match rows.len() {
            0 => Ok(None),
            1 => self.row(rows.remove(0)).map(Some),
            _ => Err(MigrateError::configurations("the id occurs twice").at_row(id)),
        }
    }

    fn row(&self, texts: Texts) -> MigrateResult<ConfigRow> {
        let [id, base_id, prefix, specification, content] =
            <[_; 5]>::try_from(texts).map_err(|_| {
                MigrateError::unavailable("the database returned another number of columns")
            })?;
        let id = id.ok_or_else(|| MigrateError::configurations("a row has no id"))?;
        let base_id = base_id
            .map(|text| {
                Uuid::parse_str(&text).map_err(|_| {
                    MigrateError::configurations("the base id is not a UUID").at_row(&id)
                })
            })
            .transpose()?;
        let specification = specification
            .map(|text| self.specification(text).map_err(|error| error.at_row(&id)))
            .transpose()?;
        let row = match content {
            None => ConfigRow::new(&id, Value::Null),
            Some(name) if self.bare => ConfigRow::bare(&id, name),
            Some(text) => {
                let configuration =
                    json::parse("the configuration", &text).map_err(|error| error.at_row(&id))?;
                ConfigRow::new(&id, configuration).with_as_read(SecretValue::new(text))
            }
        };
        Ok(row
            .with_scope(prefix, base_id)
            .with_specification(specification))
    }

    fn specification(&self, text: String) -> MigrateResult<Arc<Value>> {
        let mut known = self.specifications.lock();
        if let Some(specification) = known.get(&text) {
            return Ok(Arc::clone(specification));
        }
        let specification = Arc::new(json::parse("the specification", &text)?);
        if known.len() >= SPECIFICATIONS {
            known.clear();
        }
        known.insert(text, Arc::clone(&specification));
        Ok(specification)
    }
}

/// How many rows with the id of a cursor were returned, and the id.
fn parts(cursor: &ConfigCursor) -> MigrateResult<(usize, &str)> {
    let (count, id) = cursor
        .as_str()
        .split_once(':')
        .ok_or_else(|| MigrateError::unavailable("a cursor of another source"))?;
    Ok((count.parse().unwrap_or(0), id))
}
