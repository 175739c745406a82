//! Who read a secret last, as the ledger of the settings knows it.

use std::sync::Arc;

use secret_persistence_core::{ReadHistory, Result};

use crate::ledger;
use crate::settings::Settings;

/// Answers from the ledger of the settings who read a secret last; `None` without a ledger. Each call
/// connects for itself, so that a database that is down fails that call and nothing else.
///
/// It reads the ledger: in Postgres, its role needs `SELECT`.
///
/// # Errors
/// `InvalidConfig` for wrong settings of the ledger.
pub fn read_history(settings: &Settings) -> Result<Option<Arc<dyn ReadHistory>>> {
    let values = ledger::of(settings)?;
    values.as_ref().map(ledger::history).transpose()
}
