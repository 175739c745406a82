//! The key ring as a file: its permissions are checked, and it is replaced atomically.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use secret_persistence_core::{Error, ErrorKind, Result, SecretValue};
use zeroize::Zeroizing;

use crate::keyring::{KeyId, KeyRing, invalid};

/// More than any ring needs. Limits what a wrong path makes us read.
const MAX_BYTES: u64 = 1 << 20;

/// A key ring in a file, and the changes of `keygen`.
///
/// Symlinks are followed, so a mounted Kubernetes secret works with `defaultMode: 0440` or stricter
/// (the default, 0644, lets everyone read it). Files are written with mode 0600 and renamed into
/// place, so that a reader sees either the old ring or the new one.
/// ```
/// use secret_persistence_db::KeyRingFile;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("keyring");
/// let mut file = KeyRingFile::create(&path, "2025-03".parse()?)?;
/// file.add("2026-11".parse()?)?;
/// file.activate(&"2026-11".parse()?)?;
/// assert_eq!(KeyRingFile::open(&path)?.ring().active().as_str(), "2026-11");
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Debug)]
pub struct KeyRingFile {
    path: PathBuf,
    ring: KeyRing,
}

impl KeyRingFile {
    /// Reads a file.
    ///
    /// # Errors
    /// `InvalidConfig` if the file cannot be read, if others may read it or users other than its
    /// owner may write it, or if it is not a key ring.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let ring = KeyRing::parse(&read(path)?)?;
        Ok(Self {
            path: path.to_owned(),
            ring,
        })
    }

    /// Creates a file with one new key, which is active.
    ///
    /// # Errors
    /// `InvalidConfig` if the file exists, whatever its contents, or cannot be written.
    pub fn create(path: impl AsRef<Path>, id: KeyId) -> Result<Self> {
        let path = path.as_ref();
        if path.symlink_metadata().is_ok() {
            return Err(invalid(format!("{} already exists", path.display()))
                .with_hint("add a key to it, or choose another file"));
        }
        let file = Self {
            path: path.to_owned(),
            ring: KeyRing::generate(id)?,
        };
        file.save(None)?;
        Ok(file)
    }

    /// The ring.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Adds a new random key, which is not active yet. Distribute the file to every process that
    /// reads the database before you call [`activate`](Self::activate).
    ///
    /// # Errors
    /// As [`KeyRing::add`]; also if the file cannot be replaced.
    pub fn add(&mut self, id: KeyId) -> Result<()> {
        self.change(|ring| ring.add(id))
    }

    /// Makes another key the active one.
    ///
    /// # Errors
    /// As [`KeyRing::activate`]; also if the file cannot be replaced.
    pub fn activate(&mut self, id: &KeyId) -> Result<()> {
        self.change(|ring| ring.activate(id))
    }

    /// Removes a key. Call [`Database::retire_key`](crate::Database::retire_key) first.
    ///
    /// # Errors
    /// As [`KeyRing::remove`]; also if the file cannot be replaced.
    pub fn remove(&mut self, id: &KeyId) -> Result<()> {
        self.change(|ring| ring.remove(id))
    }

    fn change(&mut self, change: impl FnOnce(&mut KeyRing) -> Result<()>) -> Result<()> {
        let mut ring = self.ring.clone();
        change(&mut ring)?;
        let before = std::mem::replace(&mut self.ring, ring);
        self.save(Some(&before)).inspect_err(|_| self.ring = before)
    }

    /// Replaces the file, unless it has changed since `before`. Otherwise a key that another
    /// process has just added would be lost, and with it the values that it encrypts.
    fn save(&self, before: Option<&KeyRing>) -> Result<()> {
        // Follows a symlink, so that the link remains.
        let target = match before {
            Some(_) => {
                fs::canonicalize(&self.path).map_err(|error| unreadable(&self.path, error))?
            }
            None => self.path.clone(),
        };
        let failed = |error| {
            invalid(format!("{} cannot be written", target.display()))
                .with_hint("change a mounted secret at its source, not in the mount")
                .with_source(Cause::from(error))
        };
        let folder = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let mut suffix = [0; 8];
        suffix.copy_from_slice(&crate::cipher::random_key()?[..8]);
        let temporary = folder.join(format!(".{name}.{:016x}", u64::from_be_bytes(suffix)));
        let written = write_new(&temporary, self.ring.to_text()).and_then(|()| match before {
            // Fails if another process has created the file meanwhile.
            None => fs::hard_link(&temporary, &target).and_then(|()| fs::remove_file(&temporary)),
            Some(_) => Ok(()),
        });
        if let Err(error) = written {
            // If this fails too, nothing can be done. The file contains no key that is in use.
            let _ = fs::remove_file(&temporary);
            return Err(failed(error));
        }
        if let Some(before) = before {
            let unchanged = read(&target).and_then(|text| KeyRing::parse(&text));
            if !unchanged.is_ok_and(|ring| ring.to_text() == before.to_text()) {
                let _ = fs::remove_file(&temporary);
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "the key ring's file was changed by another process",
                ));
            }
            fs::rename(&temporary, &target).map_err(failed)?;
        }
        // The name must survive a crash too, because rows will depend on the key.
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)
    }
}

/// Reads the text of a key ring.
pub(crate) fn read(path: &Path) -> Result<SecretValue> {
    let mut file = File::open(path).map_err(|error| unreadable(path, error))?;
    // Checks the open file, because the path may lead to another one later.
    refuse_loose_permissions(path, &file)?;
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let length = Read::by_ref(&mut file)
        .take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(path, error))?;
    if length as u64 == MAX_BYTES {
        return Err(invalid(format!("{} is too large", path.display())));
    }
    Ok(SecretValue::new(std::mem::take(&mut *text)))
}

#[cfg(unix)]
fn refuse_loose_permissions(path: &Path, file: &File) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    const OTHERS_READ: u32 = 0o004;
    const NOT_THE_OWNER_WRITES: u32 = 0o022;
    let mode = file
        .metadata()
        .map_err(|error| unreadable(path, error))?
        .permissions()
        .mode();
    if mode & (OTHERS_READ | NOT_THE_OWNER_WRITES) == 0 {
        return Ok(());
    }
    Err(invalid(format!(
        "{} has mode {:04o}: others may read it, or users other than its owner may write it",
        path.display(),
        mode & 0o7777
    ))
    .with_hint("run chmod 600; for a Kubernetes secret, set `defaultMode: 0440` on the volume"))
}

/// On other systems, files have access lists, which only their owner can judge.
#[cfg(not(unix))]
fn refuse_loose_permissions(_: &Path, _: &File) -> Result<()> {
    Ok(())
}

fn write_new(path: &Path, text: SecretValue) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.expose().as_bytes())?;
    file.sync_all()
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    invalid(format!("{} cannot be read", path.display()))
        .with_hint("check the path, and that this user may read it")
        .with_source(Cause::from(error))
}

/// An I/O error without the data that was read or written.
#[derive(Debug)]
struct Cause(io::ErrorKind, Option<i32>);

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self(error.kind(), error.raw_os_error())
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(code) => write!(f, "{} (os error {code})", self.0),
            None => self.0.fmt(f),
        }
    }
}

impl std::error::Error for Cause {}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn id(text: &str) -> KeyId {
        text.parse().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_are_private_and_never_overwritten_by_create() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring");
        let file = KeyRingFile::create(&path, id("k1")).unwrap();
        assert_eq!(mode(&path), 0o600);
        let error = KeyRingFile::create(&path, id("k1")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let read = KeyRingFile::open(&path).unwrap();
        assert_eq!(read.ring().to_text(), file.ring().to_text());
        // The folder contains nothing else.
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn only_loose_permissions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring");
        KeyRingFile::create(&path, id("k1")).unwrap();
        for (mode, accepted) in [
            (0o400, true),
            (0o440, true),
            (0o600, true),
            (0o640, true),
            (0o644, false),
            (0o604, false),
            (0o660, false),
            (0o602, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let opened = KeyRingFile::open(&path);
            assert_eq!(opened.is_ok(), accepted, "{mode:o}");
            if let Err(error) = opened {
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
        }
    }

    /// Kubernetes mounts `keyring → ..data/keyring`, `..data → ..2026_11_21`.
    #[test]
    fn mounted_secrets_are_read_through_their_symlinks_and_links_survive_changes() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("..2026_11_21");
        fs::create_dir(&data).unwrap();
        KeyRingFile::create(data.join("keyring"), id("k1")).unwrap();
        symlink("..2026_11_21", folder.path().join("..data")).unwrap();
        let mounted = folder.path().join("keyring");
        symlink("..data/keyring", &mounted).unwrap();
        let mut file = KeyRingFile::open(&mounted).unwrap();
        file.add(id("k2")).unwrap();
        file.activate(&id("k2")).unwrap();
        file.remove(&id("k1")).unwrap();
        assert!(mounted.symlink_metadata().unwrap().is_symlink());
        assert_eq!(mode(&data.join("keyring")), 0o600);
        let read = KeyRingFile::open(&mounted).unwrap();
        assert_eq!(read.ring().ids().collect::<Vec<_>>(), [&id("k2")]);
    }

    /// Otherwise, two concurrent operators would lose one's new key.
    #[test]
    fn a_file_that_changed_meanwhile_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring");
        let mut ours = KeyRingFile::create(&path, id("k1")).unwrap();
        KeyRingFile::open(&path).unwrap().add(id("theirs")).unwrap();
        let error = ours.add(id("ours")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(!ours.ring().contains(&id("ours")));
        assert!(
            KeyRingFile::open(&path)
                .unwrap()
                .ring()
                .contains(&id("theirs"))
        );
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }
}
