//! Files that only their owner may read and that appear complete or not at all.
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

use crate::{MigrateError, MigrateResult};

/// A file being written: mode 0600, under a temporary name in the same folder, until it is renamed
/// into place.
#[derive(Debug)]
pub(crate) struct PrivateFile(NamedTempFile);

impl PrivateFile {
    /// Begins a file for `path`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(crate) fn begin(path: &Path) -> MigrateResult<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // tempfile creates with mode 0600, and never follows or reuses an existing entry.
        Builder::new()
            .prefix(".migrate-")
            .tempfile_in(folder)
            .map(Self)
            .map_err(|cause| not_written(path, cause))
    }

    /// Renames the file into place once it is on disk. An existing file is replaced only if
    /// `replace` is set.
    ///
    /// # Errors
    /// If the disk is full, or a file exists that must not be replaced.
    pub(crate) fn put(self, path: &Path, replace: bool) -> MigrateResult<()> {
        self.0
            .as_file()
            .sync_all()
            .map_err(|cause| not_written(path, cause))?;
        let persisted = if replace {
            self.0.persist(path)
        } else {
            self.0.persist_noclobber(path)
        };
        persisted
            .map(drop)
            .map_err(|failed| not_written(path, failed.error))
    }
}

impl Write for PrivateFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_file_mut().flush()
    }
}

/// Opens our own file of an earlier run: never through a symbolic link, and only if nobody else
/// owns it or may write it, so that nobody else can supply its content.
///
/// # Errors
/// `NotFound`, and if the file cannot be trusted.
pub(crate) fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

        use rustix::fs::OFlags;

        // The bits of a flag fit in any type that the platform uses.
        let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file = options.mode(0o600).custom_flags(no_follow).open(path)?;
        let metadata = file.metadata()?;
        let refused = |reason: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        if !metadata.is_file() {
            return refused("it is not a regular file");
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return refused("another user owns it");
        }
        if metadata.mode() & 0o022 != 0 {
            return refused(
                "others may write it; remove it, or restrict its permissions (chmod go-w)",
            );
        }
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path)
}

/// The failure for a file that cannot be trusted.
pub(crate) fn not_trusted(path: &Path, cause: io::Error) -> MigrateError {
    MigrateError::settings(format!("cannot continue with this file: {cause}"))
        .with_place(path.display().to_string())
}

/// The error for a file that could not be written.
pub(crate) fn not_written(path: &Path, cause: io::Error) -> MigrateError {
    MigrateError::unavailable(format!("{} was not written", path.display())).with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn others_cannot_read_it_and_nothing_is_replaced_unasked() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let write = |text: &str, replace| {
            let mut file = PrivateFile::begin(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.put(&path, replace)
        };
        write("one", false).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        write("two", false).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        write("three", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
