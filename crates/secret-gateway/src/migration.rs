//! How far a migration is, from the journal that an operator names.

use std::fmt;
use std::time::Duration;

use secret_persistence::Environment;
use serde_json::{Value, json};

/// How long a look at a journal may take: somebody waits for the page.
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
    /// The journal at a path, or at a URL whose credentials are in variables that begin with `JOURNAL_`.
    #[must_use]
    pub fn new(text: impl Into<String>, environment: &Environment) -> Self {
        Self {
            text: text.into(),
            environment: environment.with_prefix("JOURNAL_"),
        }
    }

    /// The counts of secrets by state, or that they cannot be read now.
    pub(crate) async fn progress(&self) -> Value {
        match tokio::time::timeout(LOOK, self.counts()).await {
            Ok(Some(counts)) => counts,
            // The log of the tool says what it does; a file is locked while it runs.
            _ => json!({"readable": false}),
        }
    }

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    async fn counts(&self) -> Option<Value> {
        let variables = |name: &str| self.environment.get(name);
        let counts = secret_persistence_migrate::SqlJournal::progress(&self.text, &variables)
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

    #[cfg(not(any(feature = "postgres", feature = "sqlite")))]
    async fn counts(&self) -> Option<Value> {
        None
    }
}
