//! Whether a file has changed since it was read.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

/// What a file looked like before it was read.
///
/// Take it before reading: a file that changes meanwhile is then read once more, and not missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStamp {
    path: PathBuf,
    /// Time of change and length; `None` where there is no such file.
    state: Option<(SystemTime, u64)>,
}

impl FileStamp {
    /// What the file looks like now, whether it exists or not.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            state: state(&path),
            path,
        }
    }

    /// Whether the file has changed since: was written, made, or deleted.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.state != state(&self.path)
    }
}

/// Symbolic links are followed: Kubernetes swaps them when a mounted secret changes.
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
