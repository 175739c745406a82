//! Reference ids: the coordinate and storage that an id resolves to.
use std::collections::HashMap;

use async_trait::async_trait;
use secret_persistence_core::connector::ResolveReferences;
use secret_persistence_core::settings::Setting;
use secret_persistence_core::{Coordinate, Location};
use uuid::Uuid;

use super::identifier::Identifier;
use super::query;
use crate::address::{self, Variables};
use crate::database::{self, Database, Purpose};
use crate::{MigrateError, MigrateErrorKind, MigrateResult};

/// The parameters of a `--references` URL.
pub(crate) const SETTINGS: &[Setting] =
    &database::with_server::<{ 5 + database::SERVER.len() }>(&[
        Setting::new(
            "table",
            "the table, or a view that joins what belongs together",
        )
        .operator_only(),
        Setting::new(
            "query-file",
            "a file with a SELECT of the same columns, in place of a table",
        )
        .operator_only(),
        Setting::new("id", "the column of the reference's id").with_default("id"),
        Setting::new("coordinate", "the column of the coordinate").with_default("coordinate"),
        Setting::new(
            "storage_id",
            "the column of the storage's id, where there are several",
        ),
    ]);

/// The coordinates and storages by reference id.
#[derive(Debug, Default)]
pub struct ReferenceTable(HashMap<Uuid, Location>);

impl ReferenceTable {
    /// Reads the whole table: it contains names, not values, and configurations need it in random
    /// order.
    ///
    /// # Errors
    /// For wrong settings and invalid rows.
    pub async fn open(text: &str, variables: Variables<'_>) -> MigrateResult<Self> {
        let url = address::parse(text)?;
        let settings = database::settings(&url, SETTINGS, variables)?;
        let from = match (settings.text("table"), settings.text("query-file")) {
            (Some(table), None) => Identifier::table(table)?.to_string(),
            // A newline ends a comment at the end of the query.
            (None, Some(file)) => format!("({}\n)", query::read(file)?),
            _ => {
                return Err(
                    MigrateError::settings("set either table=… or query-file=…").within(url)
                );
            }
        };
        let column = |name: &str, default: &str| {
            Identifier::column(settings.text(name).unwrap_or(default))
                .map(|column| format!("CAST(source.{column} AS TEXT)"))
        };
        let storage = match settings.text("storage_id") {
            None => "NULL".to_owned(),
            Some(name) => column(name, name)?,
        };
        let sql = format!(
            "SELECT {}, {}, {storage} FROM {from} AS source",
            column("id", "id")?,
            column("coordinate", "coordinate")?
        );
        let database = Database::open(&url, &settings, Purpose::Read).await?;
        let mut targets = HashMap::new();
        for row in database.few(sql, Vec::new()).await? {
            let [Some(id), Some(coordinate), storage_id] =
                <[_; 3]>::try_from(row).map_err(|_| {
                    MigrateError::unavailable("the database returned another number of columns")
                })?
            else {
                continue;
            };
            let at_row = |error: MigrateError| error.at_row(&id).within(&url);
            let key = Uuid::parse_str(&id)
                .map_err(|_| at_row(MigrateError::configurations("the id is not a UUID")))?;
            let coordinate = Coordinate::parse(&coordinate).map_err(|error| {
                at_row(MigrateError::of_setting(error).of_kind(MigrateErrorKind::Configurations))
            })?;
            let storage_id = storage_id
                .map(|id| id.parse())
                .transpose()
                .map_err(|_| at_row(MigrateError::configurations("the storage id is not valid")))?;
            let target = Location::new(coordinate).with_storage_id(storage_id);
            if targets.insert(key, target).is_some() {
                return Err(at_row(MigrateError::configurations("the id occurs twice")));
            }
        }
        database.close().await;
        Ok(Self(targets))
    }
}

#[async_trait]
impl ResolveReferences for ReferenceTable {
    async fn resolve(
        &self,
        ids: &[Uuid],
    ) -> secret_persistence_core::Result<Vec<Option<Location>>> {
        Ok(ids.iter().map(|id| self.0.get(id).cloned()).collect())
    }
}
