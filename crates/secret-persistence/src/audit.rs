//! The audit sinks that settings can select: the ledger, a file or the log.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use secret_persistence_core::{
    AuditEvent, AuditMode, AuditSink, Error, ErrorKind, Result, StorageId,
};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::ledger;
use crate::settings::{Settings, audit_mode, invalid};

/// Returns the sink of the settings or of the program, and what happens if it fails.
///
/// # Errors
/// `InvalidConfig` if `required` is set but only the log is available, because a lost log line goes
/// unnoticed.
pub(crate) async fn sink(
    settings: &Settings,
    given: Option<Arc<dyn AuditSink>>,
) -> Result<Option<(Arc<dyn AuditSink>, AuditMode)>> {
    let values = settings.common();
    let mode = audit_mode(values)?;
    let sink = match (given, values.text("audit-file"), values.text("ledger")) {
        (Some(sink), None, None) => Some(sink),
        (None, Some(path), None) => Some(Arc::new(AuditFile::new(path)) as Arc<dyn AuditSink>),
        (None, None, Some(_)) => match ledger::of(settings)? {
            Some(values) => Some(ledger::open(&values, mode.unwrap_or(AuditMode::Required)).await?),
            None => None,
        },
        (None, None, None) => None,
        _ => {
            return Err(invalid(
                "`audit-file`, `ledger` and the program's audit sink exclude each other",
            ));
        }
    };
    match (sink, mode) {
        // A configured place or sink implies that events are wanted.
        (Some(sink), mode) => Ok(Some((sink, mode.unwrap_or(AuditMode::Required)))),
        (None, None) => Ok(None),
        (None, Some(AuditMode::BestEffort)) => {
            Ok(Some((Arc::new(AuditLog), AuditMode::BestEffort)))
        }
        (None, Some(_)) => Err(invalid(
            "`audit` is required, but there is neither a ledger nor a file nor a sink for audit events",
        )
        .with_hint(
            "set SECRETS_LEDGER or SECRETS_AUDIT_FILE, or pass a sink with StoresSettings::with_audit_sink",
        )),
    }
}

/// Appends audit events to a file, one JSON object per line. Each call reopens the file, so that it
/// can be rotated; a missing file is created for its owner only. The lines of a call are one write,
/// and on disk when it returns. What a write has left unfinished, as on a full disk, stays a line of
/// its own: the next call ends it first.
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

    async fn append(&self, lines: String) -> io::Result<()> {
        let _alone = self.writing.lock().await;
        let path = self.path.clone();
        // Not tokio's file, whose buffer would divide a large write.
        spawn_blocking(move || append(&path, lines))
            .await
            .map_err(io::Error::other)?
    }
}

fn append(path: &Path, mut lines: String) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = options().open(path)?;
    if is_new {
        // The name must survive a power failure too.
        sync_folder(path)?;
    }
    if is_cut_off(path)? {
        lines.insert(0, '\n');
    }
    file.write_all(lines.as_bytes())?;
    file.sync_data()
}

/// Whether the file does not end with a whole line. One that may only be written cannot be asked, and
/// a pipe or a device has no end.
fn is_cut_off(path: &Path) -> io::Result<bool> {
    if !path.metadata()?.is_file() {
        return Ok(false);
    }
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        file => file?,
    };
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        // Only Unix opens folders.
        return Ok(());
    }
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[async_trait]
impl AuditSink for AuditFile {
    async fn record(&self, events: &[AuditEvent]) -> Result<()> {
        let lines: String = events.iter().map(line).collect();
        self.append(lines)
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
        "places": event.places,
        "places_omitted": event.places_omitted,
        "request": event.request.as_deref(),
        "failure": event.failure.map(ErrorKind::as_str),
    });
    format!("{line}\n")
}

fn unwritable(path: &Path, error: io::Error) -> Error {
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
                places = ?event.places,
                places_omitted = event.places_omitted,
                request = event.request.as_deref(),
                failure = event.failure.map(ErrorKind::as_str),
                "audit"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::{Actor, Coordinate, Operation};

    use super::*;

    /// A reader of lines would lose the event after a full disk, too.
    #[tokio::test]
    async fn a_line_after_one_that_was_cut_off_is_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let file = AuditFile::new(&path);
        let coordinate = Coordinate::parse("airbyte_workspace_1_secret_2_v1").unwrap();
        let event = AuditEvent::new(Actor::new("maria"), Operation::Read, coordinate);
        file.record(std::slice::from_ref(&event)).await.unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{}", &whole[..20])).unwrap();
        file.record(&[event.clone(), event]).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        let whole = whole.trim_end();
        assert_eq!(lines, [whole, &whole[..20], whole, whole]);
        assert!(text.ends_with('\n'));
    }
}
