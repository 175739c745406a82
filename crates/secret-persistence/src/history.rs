//! Who read a secret last, as the ledger of the settings knows it.

use std::sync::Arc;

use secret_persistence_core::{AuditMode, ReadHistory, Result};

use crate::ledger;
use crate::settings::{Settings, audit_mode};

/// Answers from the ledger of the settings who read a secret last; `None` without a ledger. Each call
/// connects for itself, so that a database that is down fails that call and nothing else.
///
/// It reads the ledger: in Postgres, its role needs `SELECT`. With `audit` at `best_effort`, reads may have no
/// line, so nobody can tell from when on every read is known: [`since`](secret_persistence_core::LastReads::since) is `None`.
///
/// # Errors
/// `InvalidConfig` for wrong settings of the ledger.
pub fn read_history(settings: &Settings) -> Result<Option<Arc<dyn ReadHistory>>> {
    let values = ledger::of(settings)?;
    let mode = audit_mode(settings.common())?.unwrap_or(AuditMode::Required);
    let of_ledger = |values| ledger::history(values, mode);
    values.as_ref().map(of_ledger).transpose()
}
