//! Shows the progress of a migration from its journal.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use secret_persistence::Environment;
use serde::Serialize;

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
    pub(crate) async fn progress(&self) -> Progress {
        match tokio::time::timeout(LOOK, counts(&self.text, &self.environment)).await {
            Ok(counts) => Progress {
                readable: counts.is_some(),
                counts,
            },
            // The tool's log has the details. A file is locked while the tool runs.
            Err(_) => Progress {
                readable: false,
                counts: None,
            },
        }
    }
}

/// The progress of a migration.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Migration", deny_unknown_fields)]
pub(crate) struct Progress {
    /// Whether the journal could be read now. Without it there are no counts.
    readable: bool,
    #[serde(flatten)]
    counts: Option<Counts>,
}

/// The number of secrets in each state of the journal.
#[derive(Serialize, JsonSchema)]
#[cfg_attr(
    not(any(feature = "postgres", feature = "sqlite")),
    allow(dead_code, reason = "a build without a database reads no journals")
)]
struct Counts {
    pending: u64,
    intent: u64,
    written: u64,
    verified: u64,
    present: u64,
    conflict: u64,
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
async fn counts(text: &str, environment: &Environment) -> Option<Counts> {
    let variables = |name: &str| environment.get(name);
    let counts = secret_persistence_migrate::SqlJournal::progress(text, &variables)
        .await
        .inspect_err(|error| {
            tracing::debug!(target: "secret_gateway", %error, "the journal cannot be read");
        })
        .ok()?;
    Some(Counts {
        pending: counts.pending,
        intent: counts.intent,
        written: counts.written,
        verified: counts.verified,
        present: counts.present,
        conflict: counts.conflict,
    })
}

/// A build without a database reads no journals.
#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
async fn counts(_: &str, _: &Environment) -> Option<Counts> {
    None
}
