//! Reference ids: which coordinate, in which storage, an id stands for.

use std::collections::HashMap;

use async_trait::async_trait;
use secret_persistence_core::Coordinate;
use secret_persistence_core::connector::{ResolveReferences, ResolvedReference};
use secret_persistence_core::settings::Setting;
use uuid::Uuid;

use super::{PASSWORD, SSL_ROOT_CERT, SSLMODE, USER, query};
use crate::address;
use crate::database::{Database, Purpose};
use crate::environment::{Environment, Role};
use crate::identifier::Identifier;
use crate::status::{Failure, Result};

/// What a `--references` URL may hold.
const SETTINGS: &[Setting] = &[
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
    USER,
    PASSWORD,
    SSLMODE,
    SSL_ROOT_CERT,
];

/// What ids stand for.
#[derive(Debug, Default)]
pub(crate) struct References(HashMap<Uuid, ResolvedReference>);

impl References {
    /// Reads the whole table: it holds names, not values, and configurations ask for it at random.
    pub(crate) async fn open(text: &str, environment: &Environment) -> Result<Self> {
        let at = |failure: Failure| failure.at("--references");
        let url = address::parse(text, Role::Config).map_err(at)?;
        let settings = address::settings(&url, SETTINGS, Role::Config, environment).map_err(at)?;
        let from = match (settings.text("table"), settings.text("query-file")) {
            (Some(table), None) => Identifier::table(table).map_err(at)?.to_string(),
            // A line break ends a comment that the query may end with.
            (None, Some(file)) => format!("({}\n)", query::read(file).map_err(at)?),
            _ => return Err(at(Failure::input("give either table=… or query-file=…"))),
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
        let database = Database::open(&url, &settings, Role::Config, Purpose::Read)
            .await
            .map_err(at)?;
        let mut targets = HashMap::new();
        for row in database.few(sql, Vec::new()).await.map_err(at)? {
            let [Some(id), Some(coordinate), storage_id] =
                <[_; 3]>::try_from(row).map_err(|_| {
                    at(Failure::failed(
                        "the database answered another number of columns",
                    ))
                })?
            else {
                continue;
            };
            let at_row = |failure: Failure| at(failure.at_row(&id));
            let key =
                Uuid::parse_str(&id).map_err(|_| at_row(Failure::input("the id is no UUID")))?;
            let coordinate =
                Coordinate::parse(&coordinate).map_err(|error| at_row(error.into()))?;
            let storage_id = storage_id
                .map(|id| id.parse())
                .transpose()
                .map_err(|_| at_row(Failure::input("the storage id is none")))?;
            let target = ResolvedReference::new(coordinate).with_storage_id(storage_id);
            if targets.insert(key, target).is_some() {
                return Err(at_row(Failure::input("the id stands twice")));
            }
        }
        database.close().await;
        Ok(Self(targets))
    }
}

#[async_trait]
impl ResolveReferences for References {
    async fn resolve(
        &self,
        ids: &[Uuid],
    ) -> secret_persistence_core::Result<Vec<Option<ResolvedReference>>> {
        Ok(ids.iter().map(|id| self.0.get(id).cloned()).collect())
    }
}
