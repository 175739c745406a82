//! The token file: hashes, roles and bindings; reread when it changes.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secret_persistence::{SecretValue, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::principal::{Binding, Principal, Role};

/// The prefix of every token, so that source code scanners recognise it.
const TOKEN_PREFIX: &str = "sgw_";

/// More than ten thousand tokens need. Limits what a wrong path makes us read.
const MAX_BYTES: u64 = 8 << 20;

/// The grant of a new token.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Grant {
    /// Its name, for audit events and for revoking.
    pub name: String,
    /// Its roles.
    pub roles: BTreeSet<Role>,
    /// The workspaces it is bound to.
    pub workspaces: BTreeSet<Uuid>,
    /// The name prefixes it is bound to.
    pub prefixes: Vec<String>,
    /// When it expires.
    pub expires: Option<Timestamp>,
}

impl Grant {
    /// A grant with this name and these roles, without bindings.
    #[must_use]
    pub fn new(name: impl Into<String>, roles: impl IntoIterator<Item = Role>) -> Self {
        Self {
            name: name.into(),
            roles: roles.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Binds it to workspaces.
    #[must_use]
    pub fn with_workspaces(mut self, workspaces: impl IntoIterator<Item = Uuid>) -> Self {
        self.workspaces.extend(workspaces);
        self
    }

    /// Binds it to names with these prefixes.
    #[must_use]
    pub fn with_prefixes<T: Into<String>>(mut self, prefixes: impl IntoIterator<Item = T>) -> Self {
        self.prefixes.extend(prefixes.into_iter().map(Into::into));
        self
    }

    /// Sets its expiry.
    #[must_use]
    pub fn with_expires(mut self, expires: Option<Timestamp>) -> Self {
        self.expires = expires;
        self
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    tokens: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    /// SHA-256 of the token, hexadecimal. A token has 256 random bits, so nothing slower is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Hash>,
    /// SHA-256 of a client certificate, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<Hash>,
    roles: BTreeSet<Role>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    workspaces: BTreeSet<Uuid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prefixes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    created: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hash([u8; 32]);

impl Hash {
    fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(hash)
    }

    fn is(self, other: Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = (text.len() == 64 && text.is_ascii()).then(|| {
            (0..32)
                .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok())
                .collect::<Option<Vec<u8>>>()
        });
        let bytes = bytes.flatten().and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a hash has 64 hexadecimal digits"))
    }
}

impl Entry {
    fn principal(&self) -> Principal {
        let binding = if self.workspaces.is_empty() && self.prefixes.is_empty() {
            Binding::All
        } else {
            Binding::To {
                workspaces: self.workspaces.clone(),
                prefixes: self.prefixes.clone(),
            }
        };
        Principal {
            name: self.name.clone(),
            roles: self.roles.clone(),
            binding,
            expires: self.expires.map(Timestamp::unix_seconds),
        }
    }
}

/// A token file. It is reread when it has changed, so that every process sees the changes.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    read: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    stamp: Stamp,
    contents: Contents,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(metadata),
        }
    }
}

/// Why a token file cannot be used or changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum TokenFileError {
    /// Another token has this name.
    NameTaken(String),
    /// The file is not a token file; its text is not shown.
    Malformed(PathBuf),
    /// It cannot be read or written.
    File(PathBuf, io::Error),
    /// No token has this name.
    Unknown(String),
    /// An invalid grant.
    Grant(&'static str),
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken(name) => write!(
                f,
                "a token named `{}` exists; revoke it first",
                name.escape_debug()
            ),
            Self::Malformed(path) => write!(f, "{} is not a token file", path.display()),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Unknown(name) => write!(f, "the token `{}` does not exist", name.escape_debug()),
            Self::Grant(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for TokenFileError {}

impl TokenFile {
    /// Uses the tokens of this file. If the file does not exist, there are no tokens.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read: Mutex::new(None),
        }
    }

    /// Whether the file exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// The principal of a token. Every hash is compared in constant time, even after a match.
    ///
    /// # Errors
    /// If the file cannot be read: then every caller is refused.
    pub fn find(&self, token: &str) -> Result<Option<Principal>, TokenFileError> {
        let hash = Hash::of(token.as_bytes());
        self.first(|entry| entry.sha256.is_some_and(|theirs| theirs.is(hash)))
    }

    /// The principal of a client certificate, given in DER.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub fn find_certificate(&self, der: &[u8]) -> Result<Option<Principal>, TokenFileError> {
        let hash = Hash::of(der);
        self.first(|entry| {
            entry
                .certificate_sha256
                .is_some_and(|theirs| theirs.is(hash))
        })
    }

    /// Creates a token and returns it. The token itself is not stored.
    ///
    /// # Errors
    /// If the name exists, the grant has no role, or the file cannot be written.
    pub fn create(&self, grant: &Grant) -> Result<SecretValue, TokenFileError> {
        let mut random = zeroize::Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut *random)
            .map_err(|_| TokenFileError::Grant("the system has no random numbers"))?;
        let token = SecretValue::new(format!(
            "{TOKEN_PREFIX}{}",
            URL_SAFE_NO_PAD.encode(random.as_slice())
        ));
        let hash = Hash::of(token.expose().as_bytes());
        self.add(grant, Some(hash), None)?;
        Ok(token)
    }

    /// Grants roles to a client certificate, given in DER.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn add_certificate(&self, grant: &Grant, der: &[u8]) -> Result<(), TokenFileError> {
        self.add(grant, None, Some(Hash::of(der)))
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// If no token has the name, or the file cannot be written.
    pub fn revoke(&self, name: &str) -> Result<(), TokenFileError> {
        self.change(|contents| {
            let before = contents.tokens.len();
            contents.tokens.retain(|entry| entry.name != name);
            if contents.tokens.len() == before {
                return Err(TokenFileError::Unknown(name.to_owned()));
            }
            Ok(())
        })
    }

    /// All tokens.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn list(&self) -> Result<Vec<Principal>, TokenFileError> {
        self.with_contents(|contents| contents.tokens.iter().map(Entry::principal).collect())
    }

    fn add(
        &self,
        grant: &Grant,
        sha256: Option<Hash>,
        certificate: Option<Hash>,
    ) -> Result<(), TokenFileError> {
        if grant.roles.is_empty() {
            return Err(TokenFileError::Grant("a token needs at least one role"));
        }
        if grant.name.is_empty()
            || grant.name.len() > 100
            || grant.name.chars().any(char::is_control)
        {
            return Err(TokenFileError::Grant(
                "a name must have 1 to 100 bytes and no control character",
            ));
        }
        if grant.prefixes.iter().any(String::is_empty) {
            return Err(TokenFileError::Grant(
                "an empty prefix would match every name; omit it",
            ));
        }
        self.change(|contents| {
            if contents.tokens.iter().any(|entry| entry.name == grant.name) {
                return Err(TokenFileError::NameTaken(grant.name.clone()));
            }
            contents.tokens.push(Entry {
                name: grant.name.clone(),
                sha256,
                certificate_sha256: certificate,
                roles: grant.roles.clone(),
                workspaces: grant.workspaces.clone(),
                prefixes: grant.prefixes.clone(),
                expires: grant.expires,
                created: Timestamp::now(),
            });
            Ok(())
        })
    }

    fn first(&self, is: impl Fn(&Entry) -> bool) -> Result<Option<Principal>, TokenFileError> {
        self.with_contents(|contents| {
            let mut found = None;
            for entry in &contents.tokens {
                if is(entry) {
                    found = Some(entry);
                }
            }
            found.map(Entry::principal)
        })
    }

    fn with_contents<T>(&self, look: impl FnOnce(&Contents) -> T) -> Result<T, TokenFileError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match std::fs::metadata(&self.path) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *read = None;
                return Ok(look(&Contents::default()));
            }
            Err(error) => return Err(TokenFileError::File(self.path.clone(), error)),
        };
        match &*read {
            Some(known) if known.stamp == stamp => Ok(look(&known.contents)),
            _ => {
                let contents = load(&self.path)?;
                let result = look(&contents);
                *read = Some(Read { stamp, contents });
                Ok(result)
            }
        }
    }

    /// One change at a time across all processes; readers see the old or the new file.
    fn change(
        &self,
        change: impl FnOnce(&mut Contents) -> Result<(), TokenFileError>,
    ) -> Result<(), TokenFileError> {
        let failed = |error| TokenFileError::File(self.path.clone(), error);
        let lock = private(&self.path.with_extension("lock"), false).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut contents = match load(&self.path) {
            Err(TokenFileError::File(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                Contents::default()
            }
            loaded => loaded?,
        };
        change(&mut contents)?;
        let mut text =
            serde_json::to_vec_pretty(&contents).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let new = self.path.with_extension("new");
        // Left behind by a killed process.
        let _ = std::fs::remove_file(&new);
        let written = private(&new, true).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        });
        written.map_err(failed)
    }
}

fn load(path: &Path) -> Result<Contents, TokenFileError> {
    let failed = |error| TokenFileError::File(path.to_owned(), error);
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    serde_json::from_str(&text).map_err(|_| TokenFileError::Malformed(path.to_owned()))
}

/// Opens a file that only its owner can read.
pub(crate) fn private(path: &Path, new: bool) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .create_new(new)
        .truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_as_a_hash_and_ends_when_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let (file, other_process) = (TokenFile::new(&path), TokenFile::new(&path));
        assert!(file.find("anything").unwrap().is_none());

        let workspace = Uuid::from_u128(7);
        let grant = Grant::new("pod", [Role::KvRead])
            .with_workspaces([workspace])
            .with_prefixes(["team/"]);
        let token = other_process.create(&grant).unwrap();
        assert!(token.expose().starts_with("sgw_") && token.expose().len() == 47);
        let found = file.find(token.expose()).unwrap().unwrap();
        assert_eq!(
            (
                found.name.as_str(),
                found.may(Role::KvRead),
                found.may(Role::KvWrite)
            ),
            ("pod", true, false)
        );
        assert_ne!(found.binding, Binding::All);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&token.expose()[4..]));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }

        assert!(matches!(
            file.create(&grant),
            Err(TokenFileError::NameTaken(_))
        ));
        let mut wrong = token.expose().to_owned();
        wrong.pop();
        assert!(file.find(&wrong).unwrap().is_none());
        other_process.revoke("pod").unwrap();
        assert!(file.find(token.expose()).unwrap().is_none());
        assert!(matches!(
            file.revoke("pod"),
            Err(TokenFileError::Unknown(_))
        ));
    }

    #[test]
    fn a_file_that_is_not_understood_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let file = TokenFile::new(&path);
        let token = file.create(&Grant::new("a", [Role::Operate])).unwrap();
        assert!(file.find(token.expose()).unwrap().is_some());
        let good = std::fs::read_to_string(&path).unwrap();
        for bad in [
            "",
            "{}",
            "[]",
            &good.replace("operate", "everything"),
            &good.replace("\"created\"", "\"made\""),
        ] {
            std::fs::write(&path, bad).unwrap();
            assert!(
                matches!(file.find(token.expose()), Err(TokenFileError::Malformed(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_grant_has_a_role_a_name_and_no_empty_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::new(folder.path().join("tokens.json"));
        for grant in [
            Grant::new("a", []),
            Grant::new("", [Role::Change]),
            Grant::new("a\nb", [Role::Change]),
            Grant::new("a", [Role::Change]).with_prefixes([""]),
        ] {
            assert!(matches!(file.create(&grant), Err(TokenFileError::Grant(_))));
        }
        assert!(!file.exists());
    }
}
