//! Detects whether a file has changed since it was read.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

/// The state of a file before it was read.
///
/// Take it before reading: if the file changes while it is read, it is read again, and no change is
/// missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStamp {
    path: PathBuf,
    /// Modification time and length; `None` if there is no such file.
    state: Option<(SystemTime, u64)>,
}

impl FileStamp {
    /// The current state of the file, whether it exists or not.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            state: state(&path),
            path,
        }
    }

    /// Whether the file was written, created or deleted since.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.state != state(&self.path)
    }
}

/// Follow symbolic links: Kubernetes swaps them when a mounted secret changes.
fn state(path: &PathBuf) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_when_it_is_made_written_or_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let absent = FileStamp::of(&path);
        assert!(!absent.has_changed());
        fs::write(&path, "a").unwrap();
        assert!(absent.has_changed());
        let present = FileStamp::of(&path);
        assert!(!present.has_changed());
        fs::write(&path, "longer").unwrap();
        assert!(present.has_changed());
        fs::remove_file(&path).unwrap();
        assert!(FileStamp::of(&path) == absent && present.has_changed());
    }
}
