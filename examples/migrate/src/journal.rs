//! Opens the journal of `--journal`.

use std::sync::Arc;

use secret_persistence::Environment;
use secret_persistence_migrate::{Journal, SqlJournal};

use crate::kill;
use crate::role::Role;
use crate::status::{Failure, Result};

/// A journal, and the handle that a command gets.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    journal: Arc<SqlJournal>,
}

impl Opened {
    /// The journal for a run. In a test, every call is a point where the process may be stopped.
    pub(crate) fn for_run(&self) -> Arc<dyn Journal> {
        kill::journal(Arc::clone(&self.journal))
    }

    /// Closes the journal, so that no auxiliary files remain.
    pub(crate) async fn close(&self) {
        self.journal.close().await;
    }
}

/// Opens the journal at a path or URL.
///
/// # Errors
/// If it cannot be opened, or another process uses it.
pub(crate) async fn open(text: &str, environment: &Environment) -> Result<Opened> {
    SqlJournal::open(text, &Role::Journal.variables(environment))
        .await
        .map(|journal| Opened {
            journal: Arc::new(journal),
        })
        .map_err(|error| Failure::from(error).at(Role::Journal.option()))
}
