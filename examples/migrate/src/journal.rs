//! Opens the journal of `--journal`.

use std::sync::Arc;

use secret_persistence::rates::SharedRates;
use secret_persistence::{Environment, Error};
use secret_persistence_migrate::{Journal, JournalStatus, MigrateResult, SqlJournal};

use crate::console::remark;
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
    opened(SqlJournal::open(text, &Role::Journal.variables(environment)).await)
}

/// Opens the journal for a command that several processes share, if it is in Postgres.
///
/// # Errors
/// If it cannot be opened, or another process uses it alone.
pub(crate) async fn open_shared(text: &str, environment: &Environment) -> Result<Opened> {
    opened(SqlJournal::open_shared(text, &Role::Journal.variables(environment)).await)
}

/// Reads what the journal says, while other processes may use it.
///
/// # Errors
/// If there is none, or if it cannot be read now.
pub(crate) async fn status(text: &str, environment: &Environment) -> Result<JournalStatus> {
    SqlJournal::status(text, &Role::Journal.variables(environment))
        .await
        .map_err(|error| Failure::from(error).at(Role::Journal.option()))
}

/// What the processes with this journal share their rates through, if it is in Postgres.
///
/// # Errors
/// If its settings cannot be used.
pub(crate) fn rates(text: &str, environment: &Environment) -> Result<Option<Arc<dyn SharedRates>>> {
    let waiting = |error: &Error| {
        remark(format!(
            "waiting for the journal's database, which hands out the requests to the stores: {error}"
        ));
    };
    SqlJournal::rates(text, &Role::Journal.variables(environment), waiting)
        .map_err(|error| Failure::from(error).at(Role::Journal.option()))
}

fn opened(journal: MigrateResult<SqlJournal>) -> Result<Opened> {
    journal
        .map(|journal| Opened {
            journal: Arc::new(journal),
        })
        .map_err(|error| Failure::from(error).at(Role::Journal.option()))
}
