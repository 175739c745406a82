//! Implements the trait with the KV engines.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use reqwest::Method;
use secret_persistence_core::{
    Capabilities, Coordinate, Cost, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry,
    Identity, ListOptions, Listing, ManagedCoordinate, Operation, Owner, Page, Read, Result,
    SecretPersistence, Write, Written,
};

use crate::auth::{Session, json};
use crate::client::{Answer, Body, Http};
use crate::config::{Config, KvVersion};
use crate::error::malformed;
use crate::mount::{KvMount, Mount};
use crate::naming::native;
use crate::walk::{Names, Position, Walks};
use crate::wire::{
    CheckAndSet, Create, CustomMetadata, Field, Fields, Keys, Lookup, Metadata, Value, Versioned,
    Versions, Wrapped,
};

const DEFAULT_PAGE: usize = 500;

/// HashiCorp Vault as a store: a mount of the KV engine, version 1 or 2. Clones share the
/// connection pool and the login.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    http: Arc<Http>,
    session: Arc<Session>,
    mount: Mount,
    config: Config,
    shown: Arc<str>,
    walks: Walks,
}

impl Vault {
    /// Logs in, and waits until the version of the KV engine is known, so that
    /// [`capabilities`](SecretPersistence::capabilities) are final.
    ///
    /// # Errors
    /// `InvalidConfig` for missing files and a mount that is not a KV engine; `Unauthenticated` for
    /// a refused login; `PermissionDenied` if the mount does not exist or the token has no
    /// permission in it; `Unavailable` if Vault does not respond, is sealed or is not initialised.
    pub async fn connect(config: Config) -> Result<Self> {
        Self::connect_lazy(config).await?.ready().await
    }

    /// Logs in. If the settings do not describe the mount, the first operation looks it up.
    ///
    /// With a token, the store looks up the mount concurrently with the token, in one round trip.
    /// With a login, it looks up the mount concurrently with the first operation: a first read,
    /// listing or description is sent at the same time, so that a start never costs more than one
    /// round trip. Only a first write or delete waits for the answer. Until then,
    /// [`capabilities`](SecretPersistence::capabilities) are those of version 2, and a missing
    /// mount is not noticed; [`ready`](Self::ready) waits for both. Afterwards a read is one
    /// request.
    ///
    /// # Errors
    /// `InvalidConfig` for missing files; `Unauthenticated` for a refused login; `Unavailable` if
    /// Vault does not respond, is sealed or is not initialised; with a token also the errors of
    /// [`ready`](Self::ready).
    pub async fn connect_lazy(config: Config) -> Result<Self> {
        let address = config.address.as_str().trim_end_matches('/');
        let in_store = |error: Error| {
            error
                .with_operation(Operation::Open)
                .with_store(format!("vault {address}"))
        };
        let http = Arc::new(Http::new(&config).await.map_err(in_store)?);
        let session = Session::open(Arc::clone(&http), config.login.clone())
            .await
            .map_err(in_store)?;
        let mount = Mount::new(Arc::clone(&http), Arc::clone(&session), &config);
        if session.is_given() {
            // Both at the same time: connecting is one round trip.
            let (leased, kv) = futures::join!(session.look_up_lease(), mount.resolve());
            leased.map_err(in_store)?;
            kv.map_err(in_store)?;
        }
        let root = &mount.presumed().root;
        let shown = format!("vault {address}/{}/{}", root.mount, root.prefix).into();
        Ok(Self(Arc::new(Inner {
            http,
            session,
            mount,
            config,
            shown,
            walks: Walks::default(),
        })))
    }

    /// Waits until the mount is known, so that capabilities are final.
    ///
    /// # Errors
    /// `InvalidConfig` for a mount that is not a KV engine; `PermissionDenied` if it does not exist
    /// or the token has no permission in it; `Unavailable` if Vault does not respond.
    pub async fn ready(self) -> Result<Self> {
        let kv = self.0.mount.resolve().await.map(drop);
        kv.map_err(|error| {
            error
                .with_operation(Operation::Open)
                .with_store(self.store())
        })?;
        Ok(self)
    }

    /// Sends a request with the current token, and resends it with another one if the server
    /// refuses the token.
    async fn send(&self, method: Method, path: &str, body: Body<'_>) -> Result<Answer> {
        self.0.session.send(&self.0.http, method, path, body).await
    }

    fn store(&self) -> Arc<str> {
        Arc::clone(&self.0.shown)
    }

    async fn read_one(&self, coordinate: &Coordinate) -> Result<Read> {
        let (name, field) = native(coordinate)?;
        let (kv, answer) = self
            .0
            .mount
            .send_read(Method::GET, |at| at.root.path(at.part("data"), name))
            .await?;
        let mut fields = match (kv.version, answer.status) {
            (KvVersion::One, 200) => answer.parse::<Wrapped<Fields>>()?.data,
            (KvVersion::Two, 200) => answer
                .parse::<Wrapped<Versioned>>()?
                .data
                .data
                .unwrap_or_default(),
            (KvVersion::Two, 404) if is_deleted(&answer) => return Err(pending_deletion()),
            _ => return Err(answer.error()),
        };
        match fields.0.remove(field) {
            Some(Field(Some(value))) => Ok(Read::new(value)),
            Some(Field(None)) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("the field `{field}` of this secret is not a string"),
            )),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("the secret has no field `{field}`"),
            )
            .with_hint("an external name may choose another field: folder/name#field")),
        }
    }

    async fn delete_one(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let (vault, name) = (self.clone(), coordinate.clone());
        // A separate task, so that dropping this future does not cancel the request: if the client
        // disconnects midway, Vault leaves metadata without versions, and answers 500 for it.
        let request = tokio::spawn(async move {
            let kv = vault.0.mount.resolve().await?;
            let path = kv.root.path(kv.part("metadata"), name.as_str());
            vault.send(Method::DELETE, &path, Body::Empty).await
        });
        let answer = request
            .await
            .unwrap_or_else(|_| Err(malformed("the request ended with its runtime")));
        let outcome = match answer {
            Ok(answer) if answer.status == 404 && !answer.is_missing_route() => Ok(()),
            Ok(answer) => expect_success(answer),
            Err(error) => Err(error),
        };
        outcome.map_err(|error| self.explain(error, Operation::Delete, coordinate.shared()))
    }

    async fn write_one(&self, write: &Write) -> Result<Written> {
        let kv = self.0.mount.resolve().await?;
        self.capabilities().accepts(write)?;
        match kv.version {
            KvVersion::One => self.write_version_1(kv, write).await,
            KvVersion::Two => self.write_version_2(kv, write).await,
        }
    }

    /// Version 1 cannot refuse a second write, so read first.
    async fn write_version_1(&self, kv: &KvMount, write: &Write) -> Result<Written> {
        match self.compare(write).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            outcome => return outcome,
        }
        let path = kv.root.path(None, write.coordinate.as_str());
        let body = json(&Value {
            value: write.value.expose(),
        })?;
        let answer = self.send(Method::POST, &path, Body::Secret(&body)).await?;
        match answer.status {
            // Another writer was faster, and a policy that grants only `create` refuses a second
            // write.
            403 => self.or_compare(answer, write).await,
            _ => expect_success(answer).map(|()| Written::Created),
        }
    }

    /// Writes the metadata first, so that no value ever exists without its owner and expiry. Never
    /// replaces the metadata of an existing value, which may belong to another installation. Skips
    /// metadata that a previous attempt wrote: if the request for the value keeps failing, the next
    /// attempt is one request shorter.
    async fn write_version_2(&self, kv: &KvMount, write: &Write) -> Result<Written> {
        let name = write.coordinate.as_str();
        let owner = self.0.config.owner.as_ref().map(Owner::as_str);
        if let Some(wanted) = CustomMetadata::of(owner, write.expires) {
            let path = kv.root.path(Some("metadata"), name);
            let answer = self.send(Method::GET, &path, Body::Empty).await?;
            let present = match answer.status {
                200 => Some(answer.parse::<Wrapped<Metadata>>()?.data),
                404 if !answer.is_missing_route() => None,
                _ => return Err(answer.error()),
            };
            if let Some(present) = &present
                && present.current_version > 0
            {
                return self.compare(write).await;
            }
            if present.is_none_or(|present| !wanted.equals(&present)) {
                let body = json(&wanted)?;
                expect_success(self.send(Method::POST, &path, Body::Open(&body)).await?)?;
            }
        }
        let path = kv.root.path(Some("data"), name);
        let body = json(&Create {
            options: CheckAndSet { cas: 0 },
            data: Value {
                value: write.value.expose(),
            },
        })?;
        let answer = self.send(Method::POST, &path, Body::Secret(&body)).await?;
        match answer.status {
            200..300 => Ok(Written::Created),
            // Either the check failed, or a policy grants only `create` and the name needs
            // `update`. Reading the secret distinguishes both from an invalid request.
            400 | 403 => self.or_compare(answer, write).await,
            _ => Err(answer.error()),
        }
    }

    /// The meaning of a refused write: the name exists, or the error of the response.
    async fn or_compare(&self, refusal: Answer, write: &Write) -> Result<Written> {
        match self.compare(write).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(refusal.error()),
            outcome => outcome,
        }
    }

    /// Whether the name already has the same value.
    async fn compare(&self, write: &Write) -> Result<Written> {
        let present = self.read_one(&write.coordinate.clone().into()).await;
        match present {
            Ok(read) if read.value == write.value => Ok(Written::AlreadySame),
            Ok(_) => Err(Error::new(
                ErrorKind::AlreadyExists,
                "the name already has another value",
            )),
            Err(error) => Err(error),
        }
    }

    async fn describe_one(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        match self.metadata_of(coordinate).await? {
            Some(metadata) => metadata.entry(coordinate.clone()).ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    "a write of this secret was not completed",
                )
                .with_hint("write it again, or delete it")
            }),
            None => Ok(Entry::new(coordinate.clone())),
        }
    }

    /// The metadata of a name in version 2. Version 1 has none: `None` if the secret exists.
    async fn metadata_of(&self, coordinate: &ManagedCoordinate) -> Result<Option<Metadata>> {
        let name = coordinate.as_str();
        let (kv, answer) = self
            .0
            .mount
            // On version 1, only a read shows whether the secret exists.
            .send_read(Method::GET, |at| at.root.path(at.part("metadata"), name))
            .await?;
        match (answer.status, kv.version) {
            (200, KvVersion::One) => Ok(None),
            (200, KvVersion::Two) => Ok(Some(answer.parse::<Wrapped<Metadata>>()?.data)),
            _ => Err(answer.error()),
        }
    }

    /// Adds the operation, the store and the coordinate to an error.
    fn explain(&self, error: Error, operation: Operation, coordinate: Arc<str>) -> Error {
        error
            .with_operation(operation)
            .with_store(self.store())
            .with_coordinate(coordinate)
    }
}

#[async_trait]
impl SecretPersistence for Vault {
    fn capabilities(&self) -> Capabilities {
        let two = self.0.mount.presumed().version == KvVersion::Two;
        // The lookup of the mount, and the request that was based on the guess.
        let first = if self.0.mount.is_known() { 0 } else { 2 };
        Capabilities {
            concurrency: self.0.config.connections,
            max_value_bytes: self.0.config.max_value_bytes,
            atomic_create: two,
            nul: true,
            owner: two,
            // A delete leaves nothing to restore. `restore` is for secrets that others
            // soft-deleted.
            recovery: false,
            expiry: if two { Expiry::Swept } else { Expiry::None },
            listing: Listing::Immediate,
            cost: Cost {
                read: 1 + first,
                // Read, metadata, value, and a comparison after a conflict.
                write: first + if two { 4 } else { 3 },
                delete: 1 + first,
                restore: 2 + first,
                // None if the names of the page are kept.
                list: 1 + first,
                list_detail: u32::from(two),
                describe: 1 + first,
            },
            least: Cost {
                write: if two { 3 } else { 2 },
                // The folder. A page whose names are kept needs nothing, but which one that is nobody knows
                // before, and a rate must not be exceeded.
                ..Cost::ONE
            },
            ..Capabilities::LEAST
        }
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        futures::future::join_all(coordinates.iter().map(|coordinate| async move {
            self.read_one(coordinate)
                .await
                .map_err(|error| self.explain(error, Operation::Read, coordinate.shared()))
        }))
        .await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        futures::future::join_all(writes.iter().map(|write| async move {
            self.write_one(write)
                .await
                .map_err(|error| self.explain(error, Operation::Write, write.coordinate.shared()))
        }))
        .await
    }

    /// Deletes metadata and every version. Vault has no recovery window, so the option has no
    /// effect.
    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        _: &DeleteOptions,
    ) -> Vec<Result<()>> {
        futures::future::join_all(
            coordinates
                .iter()
                .map(|coordinate| self.delete_one(coordinate)),
        )
        .await
    }

    /// Undeletes the latest version of a secret that another client soft-deleted.
    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let restore = async {
            let Some(metadata) = self.metadata_of(coordinate).await? else {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "version 1 of the KV engine has no recovery",
                ));
            };
            match metadata.latest() {
                Some(version) if !version.destroyed && version.is_deleted() => {}
                Some(version) if !version.destroyed => return Ok(()),
                _ => {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        "this secret has no version left",
                    ));
                }
            }
            let kv = self.0.mount.resolve().await?;
            let path = kv.root.path(Some("undelete"), coordinate.as_str());
            let body = json(&Versions {
                versions: [metadata.current_version],
            })?;
            expect_success(self.send(Method::POST, &path, Body::Open(&body)).await?)
        };
        restore
            .await
            .map_err(|error| self.explain(error, Operation::Restore, coordinate.shared()))
    }

    /// One request lists the folder, for all pages of a walk; details take one request per name of
    /// the page. Folders and foreign names are skipped and counted.
    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let explain = |error: Error| {
            error
                .with_operation(Operation::List)
                .with_store(self.store())
        };
        let position = after.map(Position::parse);
        let kept = position.and_then(|position| {
            let number = position.walk?;
            Some((number, self.0.walks.names(number, Instant::now())?))
        });
        let (walk, names) = match kept {
            Some((number, names)) => (Some(number), names),
            None => (None, self.list_folder(options).await.map_err(explain)?),
        };
        let mut page = Page::default();
        let mut coordinates = Vec::new();
        let limit = options.page_size.unwrap_or(DEFAULT_PAGE).max(1);
        for name in names.after(position.map(|position| position.last)) {
            if coordinates.len() == limit {
                let walk =
                    walk.unwrap_or_else(|| self.0.walks.keep(Arc::clone(&names), Instant::now()));
                page.next = coordinates
                    .last()
                    .map(|last: &ManagedCoordinate| Position::cursor(walk, last.as_str()));
                break;
            }
            match ManagedCoordinate::parse(name) {
                Ok(coordinate) => coordinates.push(coordinate),
                Err(_) => page.skipped += 1,
            }
        }
        if let (Some(walk), None) = (walk, &page.next) {
            self.0.walks.end(walk);
        }
        let kv = self.0.mount.presumed();
        if !options.details || kv.version == KvVersion::One {
            page.entries = coordinates.into_iter().map(Entry::new).collect();
            return Ok(page);
        }
        let details: Vec<Option<Entry>> = stream::iter(coordinates)
            .map(|coordinate| async move {
                match self.describe_detail(&coordinate).await {
                    // Deleted since the listing.
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    outcome => outcome,
                }
            })
            .buffered(self.0.config.connections)
            .try_collect()
            .await
            .map_err(explain)?;
        page.entries = details
            .into_iter()
            .flatten()
            .filter(|entry| options.deleted || !entry.pending_deletion)
            .collect();
        Ok(page)
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.describe_one(coordinate)
            .await
            .map_err(|error| self.explain(error, Operation::Describe, coordinate.shared()))
    }

    async fn identity(&self) -> Result<Identity> {
        let explain = |error: Error| {
            error
                .with_operation(Operation::Identity)
                .with_store(self.store())
        };
        let (kv, answer) = futures::join!(
            self.0.mount.resolve(),
            self.send(Method::GET, "auth/token/lookup-self", Body::Empty)
        );
        kv.map_err(explain)?;
        let answer = answer.map_err(explain)?;
        let principal = match answer.status {
            200 => {
                let data = answer.parse::<Wrapped<Lookup>>().map_err(explain)?.data;
                format!(
                    "{} (policies {})",
                    data.display_name,
                    data.policies.join(", ")
                )
            }
            403 => String::from("a token without permission to look itself up"),
            _ => return Err(explain(answer.error())),
        };
        // The display name already says the kind of store.
        let location = self.0.shown.trim_start_matches("vault ");
        Ok(Identity::new("vault", principal, location))
    }
}

impl Vault {
    /// The names of the folder that begin with the prefixes of the store and the listing, without
    /// that of the store.
    async fn list_folder(&self, options: &ListOptions) -> Result<Arc<Names>> {
        let folder = |at: &KvMount| {
            let path = at.root.folder_path(at.part("metadata"));
            path.trim_end_matches('/').to_owned()
        };
        let (kv, answer) = self.0.mount.send_read(list_method(), folder).await?;
        let keys = match answer.status {
            200 => answer.parse::<Wrapped<Keys>>()?.data.keys,
            404 if !answer.is_missing_route() => Vec::new(),
            _ => return Err(answer.error()),
        };
        let begins = kv.root.folder().1;
        let ours = keys
            .iter()
            .filter_map(|name| name.strip_prefix(begins))
            .filter(|name| name.starts_with(&options.prefix));
        Ok(Arc::new(Names::new(ours.collect())))
    }

    /// An entry for a listing. Includes secrets whose write was not completed, so that a sweep
    /// finds them.
    async fn describe_detail(&self, coordinate: &ManagedCoordinate) -> Result<Option<Entry>> {
        let metadata = self.metadata_of(coordinate).await?;
        Ok(metadata.map(|metadata| {
            metadata
                .entry(coordinate.clone())
                .unwrap_or_else(|| metadata.custom(Entry::new(coordinate.clone())))
        }))
    }
}

impl fmt::Display for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.shown)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("mount", self.0.mount.presumed())
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

fn expect_success(answer: Answer) -> Result<()> {
    if answer.is_success() {
        Ok(())
    } else {
        Err(answer.error())
    }
}

fn pending_deletion() -> Error {
    Error::new(
        ErrorKind::PendingDeletion,
        "the latest version of the secret is soft-deleted",
    )
    .with_hint("restore it (`vault kv undelete`), or delete it with all versions (`vault kv metadata delete`)")
}

/// A soft-deleted version returns 404 with its metadata. A destroyed one returns none.
fn is_deleted(answer: &Answer) -> bool {
    answer.parse::<Wrapped<Versioned>>().is_ok_and(|body| {
        body.data
            .metadata
            .is_some_and(|version| !version.destroyed && version.is_deleted())
    })
}

/// Vault's own method. `GET` with `list=true` is the same for clients that cannot send it.
fn list_method() -> Method {
    // "LIST" is a valid method, so this cannot fail. GET would be harmless.
    Method::from_bytes(b"LIST").unwrap_or(Method::GET)
}
