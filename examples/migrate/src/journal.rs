//! The option `--journal`, opened.

use std::sync::Arc;

use secret_persistence::Environment;
use secret_persistence_migrate::{Journal, SqlJournal};

use crate::kill;
use crate::role::Role;
use crate::status::{Failure, Result};

/// A journal, and the same one as a command is given it.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    journal: Arc<SqlJournal>,
}

impl Opened {
    /// For a run; in a test every call is a point at which the process may be stopped.
    pub(crate) fn for_run(&self) -> Arc<dyn Journal> {
        kill::journal(Arc::clone(&self.journal))
    }

    /// Closes it, so that nothing of it is left beside its file.
    pub(crate) async fn close(&self) {
        self.journal.close().await;
    }
}

/// Opens it: a path, or a URL.
///
/// # Errors
/// Where it cannot be opened or another process has it.
pub(crate) async fn open(text: &str, environment: &Environment) -> Result<Opened> {
    SqlJournal::open(text, &Role::Journal.variables(environment))
        .await
        .map(|journal| Opened {
            journal: Arc::new(journal),
        })
        .map_err(|error| Failure::from(error).at(Role::Journal.option()))
}
