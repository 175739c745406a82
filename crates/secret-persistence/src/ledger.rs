//! The read ledger of the settings.

use secret_persistence_core::Result;
use secret_persistence_core::settings::SettingMap;

use crate::settings::{Environment, Settings};

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use built_in::{check, history, open, settings};
#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
pub(crate) use missing::{check, history, open, settings};

/// The settings of the ledger, if there is one: as they were read, or those of its URL alone.
pub(crate) fn of(store: &Settings) -> Result<Option<SettingMap>> {
    match (store.ledger(), store.common().text("ledger")) {
        (Some(values), _) => Ok(Some(values.clone())),
        (None, Some(url)) => settings(url, &Environment::empty()).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod built_in {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use async_trait::async_trait;
    use secret_persistence_core::settings::{SettingMap, StoreUrl};
    use secret_persistence_core::{
        AuditMode, AuditSink, Coordinate, Error, LastReads, ReadHistory, Result,
    };
    use secret_persistence_db::{LEDGER_SETTINGS, Ledger, LedgerConfig, LedgerReader};

    use crate::settings::Environment;

    /// The prefix of a ledger's variables.
    const PREFIX: &str = "LEDGER_";

    /// Reads the URL of a ledger, with the variables that have the ledger's prefix.
    pub(crate) fn settings(url: &str, environment: &Environment) -> Result<SettingMap> {
        let variables = environment.with_prefix(PREFIX);
        StoreUrl::parse(url)
            .and_then(|url| LEDGER_SETTINGS.from_url(&url, &|name| variables.get(name)))
            .map_err(of_ledger)
    }

    pub(crate) fn check(values: &SettingMap) -> Result<()> {
        LedgerConfig::from_settings(values)
            .map(drop)
            .map_err(of_ledger)
    }

    /// Opens the ledger. One that is not required may be out of reach at first.
    pub(crate) async fn open(values: &SettingMap, mode: AuditMode) -> Result<Arc<dyn AuditSink>> {
        let ledger = LedgerConfig::from_settings(values)
            .and_then(Ledger::new)
            .map_err(of_ledger)?;
        match (ledger.ready().await, mode) {
            (Err(error), AuditMode::BestEffort) => {
                tracing::warn!(target: "secret_persistence", %error, "the ledger cannot be written yet");
            }
            (ready, _) => ready?,
        }
        Ok(Arc::new(ledger))
    }

    /// Checks the settings, and opens the ledger for each question.
    pub(crate) fn history(values: &SettingMap, mode: AuditMode) -> Result<Arc<dyn ReadHistory>> {
        let config = LedgerConfig::from_settings(values).map_err(of_ledger)?;
        Ok(Arc::new(History { config, mode }))
    }

    struct History {
        config: LedgerConfig,
        mode: AuditMode,
    }

    #[async_trait]
    impl ReadHistory for History {
        async fn last_reads(&self, names: &BTreeSet<Coordinate>) -> Result<LastReads> {
            let reader = LedgerReader::open(&self.config).await?;
            let mut found = reader.last_reads(names).await?;
            // Reads whose lines were lost were handed out nevertheless.
            if self.mode != AuditMode::Required {
                found.since = None;
            }
            Ok(found)
        }
    }

    fn of_ledger(error: Error) -> Error {
        match error.store() {
            Some(_) => error,
            None => error.with_store("ledger"),
        }
    }
}

#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
mod missing {
    use std::sync::Arc;

    use secret_persistence_core::settings::SettingMap;
    use secret_persistence_core::{AuditMode, AuditSink, Error, ReadHistory, Result};

    use crate::settings::{Environment, invalid};

    pub(crate) fn settings(_: &str, _: &Environment) -> Result<SettingMap> {
        Err(absent())
    }

    pub(crate) fn check(_: &SettingMap) -> Result<()> {
        Err(absent())
    }

    pub(crate) async fn open(_: &SettingMap, _: AuditMode) -> Result<Arc<dyn AuditSink>> {
        Err(absent())
    }

    pub(crate) fn history(_: &SettingMap, _: AuditMode) -> Result<Arc<dyn ReadHistory>> {
        Err(absent())
    }

    fn absent() -> Error {
        invalid("a ledger needs a database").with_hint("add the feature `postgres` or `sqlite`")
    }
}
