//! Shows the progress of a migration from its journal.

use std::fmt;
use std::time::Duration;

use secret_persistence::Environment;
use serde_json::{Value, json};

/// The timeout for reading a journal, because a person waits for the page.
const LOOK: Duration = Duration::from_secs(3);

/// The journal of a migration. `Debug` shows no credential.
#[derive(Clone)]
pub struct MigrationJournal {
    text: String,
    environment: Environment,
}

impl fmt::Debug for MigrationJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MigrationJournal").field(&self.text).finish()
    }
}

impl MigrationJournal {
    /// The journal at a path or a URL. Its credentials are in variables that begin with `JOURNAL_`.
    #[must_use]
    pub fn new(text: impl Into<String>, environment: &Environment) -> Self {
        Self {
            text: text.into(),
            environment: environment.with_prefix("JOURNAL_"),
        }
    }

    /// The counts of secrets by state, or that they cannot be read now.
    pub(crate) async fn progress(&self) -> Value {
        match tokio::time::timeout(LOOK, counts(&self.text, &self.environment)).await {
            Ok(Some(counts)) => counts,
            // The tool's log has the details. A file is locked while the tool runs.
            _ => json!({"readable": false}),
        }
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
async fn counts(text: &str, environment: &Environment) -> Option<Value> {
    let variables = |name: &str| environment.get(name);
    let counts = secret_persistence_migrate::SqlJournal::progress(text, &variables)
        .await
        .inspect_err(|error| {
            tracing::debug!(target: "secret_gateway", %error, "the journal cannot be read");
        })
        .ok()?;
    Some(json!({
        "readable": true,
        "pending": counts.pending,
        "intent": counts.intent,
        "written": counts.written,
        "verified": counts.verified,
        "present": counts.present,
        "conflict": counts.conflict,
    }))
}

/// A build without a database reads no journals.
#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
async fn counts(_: &str, _: &Environment) -> Option<Value> {
    None
}
