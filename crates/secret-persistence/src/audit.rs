//! The audit sinks that settings can select: a file or the log.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use secret_persistence_core::settings::SettingMap;
use secret_persistence_core::{
    AuditEvent, AuditMode, AuditSink, Error, ErrorKind, Result, StorageId,
};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::settings::{audit_mode, invalid};

/// Returns the sink of the settings or of the program, and what happens if it fails.
///
/// # Errors
/// `InvalidConfig` if `required` is set but only the log is available, because a lost log line goes
/// unnoticed.
pub(crate) fn sink(
    values: &SettingMap,
    given: Option<Arc<dyn AuditSink>>,
) -> Result<Option<(Arc<dyn AuditSink>, AuditMode)>> {
    let mode = audit_mode(values)?;
    let sink = match (given, values.text("audit-file")) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "`audit-file` and the program's audit sink exclude each other",
            ));
        }
        (Some(sink), None) => Some(sink),
        (None, Some(path)) => Some(Arc::new(AuditFile::new(path)) as Arc<dyn AuditSink>),
        (None, None) => None,
    };
    match (sink, mode) {
        // A configured file or sink implies that events are wanted.
        (Some(sink), mode) => Ok(Some((sink, mode.unwrap_or(AuditMode::Required)))),
        (None, None) => Ok(None),
        (None, Some(AuditMode::BestEffort)) => {
            Ok(Some((Arc::new(AuditLog), AuditMode::BestEffort)))
        }
        (None, Some(_)) => Err(invalid(
            "`audit` is required, but there is neither a file nor a sink for audit events",
        )
        .with_hint("set SECRETS_AUDIT_FILE, or pass a sink with StoresSettings::with_audit_sink")),
    }
}

/// Appends audit events to a file, one JSON object per line. Each call reopens the file, so that it
/// can be rotated; a missing file is created for its owner only. A line is written in one piece and
/// is on disk when the call returns.
pub struct AuditFile {
    path: PathBuf,
    /// One writer at a time, so that lines of concurrent calls do not mix.
    writing: Mutex<()>,
}

impl AuditFile {
    /// Creates a sink for this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            writing: Mutex::new(()),
        }
    }

    async fn append(&self, lines: &[u8]) -> std::io::Result<()> {
        let _alone = self.writing.lock().await;
        let mut file = options().open(&self.path).await?;
        file.write_all(lines).await?;
        file.sync_data().await
    }
}

fn options() -> tokio::fs::OpenOptions {
    let mut options = tokio::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    options.mode(0o600);
    options
}

#[async_trait]
impl AuditSink for AuditFile {
    async fn record(&self, events: &[AuditEvent]) -> Result<()> {
        let lines: String = events.iter().map(line).collect();
        self.append(lines.as_bytes())
            .await
            .map_err(|error| unwritable(&self.path, error))
    }
}

impl fmt::Debug for AuditFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditFile({})", self.path.display())
    }
}

fn line(event: &AuditEvent) -> String {
    let line = json!({
        "at": event.at.to_string(),
        "actor": event.actor.as_str(),
        "operation": event.operation.as_str(),
        "storage_id": event.location.storage_id.as_ref().map(StorageId::as_str),
        "coordinate": event.location.coordinate.as_str(),
        "failure": event.failure.map(ErrorKind::as_str),
    });
    format!("{line}\n")
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("audit events cannot be written to {}", path.display()),
    )
    .with_hint(
        "free disk space or correct the file's permissions, or set SECRETS_AUDIT to best_effort",
    )
    .with_source(error)
}

/// Logs audit events at level INFO, under the target `secrets_audit`.
#[derive(Debug)]
struct AuditLog;

#[async_trait]
impl AuditSink for AuditLog {
    async fn record(&self, events: &[AuditEvent]) -> Result<()> {
        for event in events {
            tracing::info!(
                target: "secrets_audit",
                at = %event.at,
                actor = %event.actor,
                operation = event.operation.as_str(),
                storage_id = event.location.storage_id.as_ref().map(StorageId::as_str),
                coordinate = %event.location.coordinate,
                failure = event.failure.map(ErrorKind::as_str),
                "audit"
            );
        }
        Ok(())
    }
}
