//! The settings of further stores: their credentials are pointers to secrets of the first one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use secret_persistence_core::StorageId;
use serde_json::Value;

use super::json;
use crate::{
    Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, MigrateError, MigrateErrorKind,
    MigrateResult, Update,
};

/// Settings by storage id. A page begins after an id.
type ById = BTreeMap<StorageId, Value>;

/// The settings of further stores as a source of configurations that is only read: what they name is
/// needed. A row is a store, its id the storage id.
///
/// It shows itself as the file with the settings, as other files do: a collector's journal knows which
/// files it has read, and the tool and a gateway that name the file alike share one.
pub struct StorageSettings {
    name: String,
    read: Box<dyn Fn() -> MigrateResult<ById> + Send + Sync>,
}

impl StorageSettings {
    /// The settings of this name, as a rule a path. Calls `read` for each page, which returns them as
    /// they are now.
    #[must_use]
    pub fn new<E: std::error::Error + Send + Sync + 'static>(
        name: impl Into<String>,
        read: impl Fn() -> Result<Vec<(StorageId, Value)>, E> + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let place = name.clone();
        let read = Box::new(move || {
            let settings =
                read().map_err(|error| unreadable().with_place(&place).with_source(error))?;
            Ok(settings.into_iter().collect())
        });
        Self { name, read }
    }

    /// The `storages-file` of a gateway: a JSON object of storage ids, read anew for each page.
    ///
    /// # Errors
    /// If it cannot be read now, or has another form.
    pub fn of_file(path: impl AsRef<Path>) -> MigrateResult<Self> {
        let path = path.as_ref().to_owned();
        let name = path.display().to_string();
        let read = move || parse(&path);
        read()?;
        Ok(Self {
            name,
            read: Box::new(read),
        })
    }
}

fn parse(path: &Path) -> MigrateResult<ById> {
    let read = || {
        let text =
            std::fs::read_to_string(path).map_err(|error| unreadable().with_source(error))?;
        let Value::Object(members) = json::parse("it", &text)? else {
            return Err(MigrateError::configurations(
                "it is not a JSON object of storage ids",
            ));
        };
        let one = |(id, settings): (String, Value)| {
            let id = StorageId::parse(&id).map_err(|error| {
                MigrateError::configurations("a name is not a storage id").with_source(error)
            })?;
            Ok((id, settings))
        };
        members.into_iter().map(one).collect()
    };
    read().map_err(|error: MigrateError| error.within(path.display()))
}

fn unreadable() -> MigrateError {
    MigrateError::configurations("the further stores cannot be read")
}

impl fmt::Debug for StorageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageSettings({})", self.name)
    }
}

impl fmt::Display for StorageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl ConfigSource for StorageSettings {
    fn access(&self) -> Access {
        Access::ReadOnly
    }

    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        let is_next = |id: &StorageId| after.is_none_or(|after| id.as_str() > after.as_str());
        let mut left = (self.read)()?.into_iter().filter(|(id, _)| is_next(id));
        let rows: Vec<_> = left.by_ref().take(limit).map(row).collect();
        let last = left.next().and_then(|_| rows.last());
        let next = last.map(|row| ConfigCursor::new(row.id.clone()));
        Ok(ConfigPage::new(rows, next))
    }

    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        let found = (self.read)()?
            .into_iter()
            .find(|(found, _)| found.as_str() == id);
        Ok(found.map(row))
    }

    async fn update(&self, _: &ConfigRow, _: &Value) -> MigrateResult<Update> {
        Err(MigrateError::new(
            MigrateErrorKind::Configurations,
            "the further stores are read-only",
        ))
    }
}

fn row((id, settings): (StorageId, Value)) -> ConfigRow {
    ConfigRow::new(id.as_str(), settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that was left out would lose its credentials.
    #[tokio::test]
    async fn pages_of_any_size_have_every_store_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("storages.json");
        let ids = ["b", "a", "tenant 10", "tenant 9", "ä"];
        let all: serde_json::Map<String, Value> = ids
            .iter()
            .map(|id| ((*id).to_owned(), Value::from(*id)))
            .collect();
        std::fs::write(&file, Value::from(all).to_string()).unwrap();
        let source = StorageSettings::of_file(&file).unwrap();
        for limit in [1, 2, 5, 100] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = source.page(after.as_ref(), limit).await.unwrap();
                found.extend(page.rows.into_iter().map(|row| row.id));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let mut expected = ids;
            expected.sort_unstable();
            assert_eq!(found, expected, "{limit}");
        }
        assert!(source.row("a").await.unwrap().is_some());
        assert!(source.row("c").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_file_of_stores_is_an_error_that_names_it_and_quotes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("storages.json");
        std::fs::write(&file, "{}").unwrap();
        let opened = StorageSettings::of_file(&file).unwrap();
        for text in [
            Some("[\"canary-51\"]"),
            Some("{\"a\": \"canary-51"),
            Some("{\"\": \"canary-51\"}"),
            None,
        ] {
            match text {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            for error in [
                StorageSettings::of_file(&file).unwrap_err(),
                opened.page(None, 10).await.unwrap_err(),
            ] {
                assert_eq!(error.kind(), MigrateErrorKind::Configurations, "{error}");
                let shown = format!("{error} {error:?}");
                assert!(shown.contains("storages.json"), "{shown}");
                assert!(!shown.contains("canary-51"), "{shown}");
            }
        }
    }
}
