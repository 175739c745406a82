//! The rates that the processes with one journal share.
use std::sync::Arc;

use secret_persistence_core::rates::SharedRates;

use super::SqlJournal;
use crate::address::{self, Variables};
use crate::{MigrateError, MigrateResult, database};

impl SqlJournal {
    /// The source of rates in the database of a journal in Postgres, for
    /// [`MigrateOptions::with_shared_rates`](crate::MigrateOptions::with_shared_rates) and for stores that are
    /// opened with a limit. There is none for a file, which admits one process. Sends nothing yet.
    ///
    /// # Errors
    /// As [`open`](Self::open), for settings that cannot be used.
    pub fn rates(
        text: &str,
        variables: Variables<'_>,
    ) -> MigrateResult<Option<Arc<dyn SharedRates>>> {
        if !address::is_url(text) {
            return Ok(None);
        }
        let url = address::parse(text)?;
        let settings = database::settings(&url, database::SERVER, variables)?;
        if url.scheme() == "sqlite" {
            return Ok(None);
        }
        #[cfg(feature = "postgres")]
        {
            use secret_persistence_db::{PostgresOptions, PostgresRates};

            let options = PostgresOptions::from_settings(&settings)
                .map_err(|error| MigrateError::of_setting(error).within(&url))?;
            Ok(Some(Arc::new(PostgresRates::new(&options))))
        }
        #[cfg(not(feature = "postgres"))]
        {
            let _ = settings;
            Ok(None)
        }
    }
}
