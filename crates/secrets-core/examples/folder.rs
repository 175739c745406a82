//! A whole backend: a folder with one JSON file per secret. It passes the conformance suite.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use secret_persistence_core::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, Listing, ManagedCoordinate, Operation, Page, Read, Result, SecretPersistence,
    SecretValue, Write, Written, conformance,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A store in a folder. A real one would do its input and output in `spawn_blocking`.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

/// What a file contains.
#[derive(Deserialize, Serialize)]
struct Content<T> {
    value: T,
}

impl Folder {
    /// The file of a name. External names may contain anything, `../` among it: such have no file.
    fn file(&self, name: &str) -> Option<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        (name.len() < 200 && name.chars().all(plain))
            .then(|| self.path.join(format!("{name}.json")))
    }

    /// Every failure says the operation, the store and the coordinate, and keeps its cause.
    fn error(&self, operation: Operation, name: &str, cause: io::Error) -> Error {
        let kind = match cause.kind() {
            io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, "the file system refuses")
            .with_operation(operation)
            .with_store(self.to_string())
            .with_coordinate(name)
            .with_source(cause)
    }

    fn read_one(&self, name: &str) -> Result<SecretValue> {
        let error = |cause| self.error(Operation::Read, name, cause);
        let file = self
            .file(name)
            .ok_or_else(|| error(io::ErrorKind::NotFound.into()))?;
        // A `SecretValue` from the first moment, so that the text is wiped as well.
        let text = SecretValue::new(fs::read_to_string(file).map_err(error)?);
        match serde_json::from_str::<Content<String>>(text.expose()) {
            Ok(content) => Ok(SecretValue::new(content.value)),
            // serde_json's error may quote what it read, so it is not kept.
            Err(_) => Err(error(io::Error::other("not a file of this store"))),
        }
    }

    fn write_one(&self, write: &Write) -> Result<Written> {
        let name = write.coordinate.as_str();
        let error = |cause| self.error(Operation::Write, name, cause);
        // Empty, too long: what the capabilities exclude is refused before anything is done.
        self.capabilities()
            .accepts(write)
            .map_err(|error| error.with_store(self.to_string()))?;
        let file = self
            .file(name)
            .ok_or_else(|| error(io::ErrorKind::InvalidInput.into()))?;
        let content = Content {
            value: write.value.expose(),
        };
        let text = serde_json::to_string(&content).map_err(|cause| error(cause.into()))?;
        let text = SecretValue::new(text);

        // Linking a finished file is what makes the create atomic: nobody sees half a value, and of two
        // writers one is refused.
        let draft = self.path.join(format!(".{}", Uuid::new_v4()));
        let linked = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&draft)
            .and_then(|mut draft| draft.write_all(text.expose().as_bytes()))
            .and_then(|()| fs::hard_link(&draft, file));
        let removed = fs::remove_file(&draft);
        match linked.and(removed) {
            Ok(()) => Ok(Written::Created),
            // A repeated write succeeds, so that retries are safe.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                if self.read_one(name)? == write.value {
                    Ok(Written::AlreadySame)
                } else {
                    Err(error(cause))
                }
            }
            Err(cause) => Err(error(cause)),
        }
    }
}

/// Names the store for people; never with a credential.
impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder {}", self.path.display())
    }
}

#[async_trait]
impl SecretPersistence for Folder {
    /// Begins with the least, and adds what is true here.
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_create: true,
            nul: true,
            listing: Listing::Immediate,
            ..Capabilities::LEAST
        }
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let read = |name: &Coordinate| self.read_one(name.as_str()).map(Read::new);
        coordinates.iter().map(read).collect()
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        writes.iter().map(|write| self.write_one(write)).collect()
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        _: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let delete = |coordinate: &ManagedCoordinate| {
            let name = coordinate.as_str();
            match self.file(name).map_or(Ok(()), fs::remove_file) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    Err(self.error(Operation::Delete, name, cause))
                }
                // Deleting a missing secret succeeds.
                _ => Ok(()),
            }
        };
        coordinates.iter().map(delete).collect()
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        Err(
            Error::new(ErrorKind::Unsupported, "a folder recovers nothing")
                .with_operation(Operation::Restore)
                .with_store(self.to_string())
                .with_coordinate(coordinate.as_str()),
        )
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let error = |cause| self.error(Operation::List, &options.prefix, cause);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(error)? {
            let file = entry.map_err(error)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
            names.extend(
                name.filter(|name| name.starts_with(&options.prefix))
                    .map(str::to_owned),
            );
        }
        // The order of names is the order of pages, so the last name of a page is its cursor.
        names.sort();
        names.retain(|name| after.is_none_or(|after| name.as_str() > after.as_str()));
        let size = options.page_size.unwrap_or(1000).max(1);
        let more = names.len() > size;
        names.truncate(size);
        let next = names.last().filter(|_| more).map(Cursor::new);
        let entries: Vec<Entry> = names
            .iter()
            .filter_map(|name| ManagedCoordinate::parse(name).ok().map(Entry::new))
            .collect();
        let skipped = names.len() - entries.len();
        Ok(Page::new(entries, next).with_skipped(skipped as u64))
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let name = coordinate.as_str();
        let error = |cause| self.error(Operation::Describe, name, cause);
        let file = self
            .file(name)
            .ok_or_else(|| error(io::ErrorKind::NotFound.into()))?;
        fs::metadata(file).map_err(error)?;
        Ok(Entry::new(coordinate.clone()))
    }

    async fn identity(&self) -> Result<Identity> {
        Ok(Identity::new(
            "folder",
            "this process",
            self.path.display().to_string(),
        ))
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let path = std::env::temp_dir().join(Uuid::new_v4().to_string());
    fs::create_dir(&path)?;
    let store: Arc<dyn SecretPersistence> = Arc::new(Folder { path: path.clone() });
    let report = conformance::run(&store, &conformance::Options::default()).await;
    report.assert_passed();
    fs::remove_dir(path) // Which succeeds only if the suite has left nothing.
}
