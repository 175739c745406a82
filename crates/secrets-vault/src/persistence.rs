//! The promises of the trait, kept with the KV engines.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use reqwest::Method;
use secrets_core::{
    Capabilities, Coordinate, Cost, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry,
    Identity, ListOptions, Listing, ManagedCoordinate, Operation, Owner, Page, Read, Result,
    SecretPersistence, Write, Written,
};

use crate::auth::{Session, json};
use crate::client::{Answer, Http};
use crate::config::{KvVersion, Place, VaultConfig};
use crate::error::malformed;
use crate::naming::{Root, encode, native};
use crate::wire::{
    CheckAndSet, Create, CustomMetadata, Field, Fields, Keys, Lookup, Metadata, Mount, Value,
    Versioned, Versions, Wrapped,
};

const DEFAULT_PAGE: usize = 500;

/// HashiCorp Vault as a store: a mount of the KV engine, version 1 or 2. Clones share everything.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    http: Arc<Http>,
    session: Arc<Session>,
    root: Root,
    version: KvVersion,
    config: VaultConfig,
    shown: Arc<str>,
}

impl Vault {
    /// Logs in and asks which KV engine the mount is, where the settings leave that open.
    ///
    /// With a token both are one round trip; after a login the mount is a second one, unless `kv-version`
    /// is set. Afterwards a read is one request, the first included.
    ///
    /// # Errors
    /// `InvalidConfig` for files and mounts that are not there, `Unauthenticated` for a refused login,
    /// `PermissionDenied` where the token has no right in the mount, `Unavailable` where Vault does not
    /// answer, is sealed or not initialised.
    pub async fn connect(config: VaultConfig) -> Result<Self> {
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
        // Side by side: with a token that was given to us, connecting is one round trip.
        let (learnt, located) = futures::join!(session.learn(), locate(&http, &session, &config));
        learnt.map_err(in_store)?;
        let (root, version) = located.map_err(in_store)?;
        let shown = format!("vault {address}/{}/{}", root.mount, root.prefix).into();
        Ok(Self(Arc::new(Inner {
            http,
            session,
            root,
            version,
            config,
            shown,
        })))
    }

    /// Sends a request with the present token; once more with another where this one is refused.
    async fn send(&self, method: Method, path: &str, body: Option<&[u8]>) -> Result<Answer> {
        self.0.session.send(&self.0.http, method, path, body).await
    }

    fn store(&self) -> Arc<str> {
        Arc::clone(&self.0.shown)
    }

    /// The part of a path that version 2 has and version 1 has not.
    fn part(&self, name: &'static str) -> Option<&'static str> {
        (self.0.version == KvVersion::Two).then_some(name)
    }

    async fn read_one(&self, coordinate: &Coordinate) -> Result<Read> {
        let (name, field) = native(coordinate)?;
        let path = self.0.root.path(self.part("data"), name);
        let answer = self.send(Method::GET, &path, None).await?;
        let mut fields = match (self.0.version, answer.status) {
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
                format!("the field `{field}` of this secret is not text"),
            )),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("the secret has no field `{field}`"),
            )
            .with_hint("an external name may choose another field: folder/name#field")),
        }
    }

    async fn write_one(&self, write: &Write) -> Result<Written> {
        self.capabilities().accepts(write)?;
        match self.0.version {
            KvVersion::One => self.write_version_1(write).await,
            KvVersion::Two => self.write_version_2(write).await,
        }
    }

    /// Version 1 cannot refuse a second write: look first.
    async fn write_version_1(&self, write: &Write) -> Result<Written> {
        match self.compare(write).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            outcome => return outcome,
        }
        let path = self.0.root.path(None, write.coordinate.as_str());
        let body = json(&Value {
            value: write.value.expose(),
        })?;
        let answer = self.send(Method::POST, &path, Some(&body)).await?;
        match answer.status {
            // Somebody was faster, and a policy that grants `create` alone lets nobody write twice.
            403 => self.or_compare(answer, write).await,
            _ => expect_success(answer).map(|()| Written::Created),
        }
    }

    /// Metadata first, so that no value ever stands without its owner and expiry; but never over the
    /// metadata of a value that is there, which may be another installation's.
    async fn write_version_2(&self, write: &Write) -> Result<Written> {
        let metadata = CustomMetadata::of(
            self.0.config.owner.as_ref().map(Owner::as_str),
            write.expires,
        );
        if let Some(metadata) = metadata {
            let path = self
                .0
                .root
                .path(Some("metadata"), write.coordinate.as_str());
            let answer = self.send(Method::GET, &path, None).await?;
            match answer.status {
                200 if answer.parse::<Wrapped<Metadata>>()?.data.current_version > 0 => {
                    return self.compare(write).await;
                }
                200 | 404 if !answer.names_no_route() => {}
                _ => return Err(answer.error()),
            }
            expect_success(
                self.send(Method::POST, &path, Some(&json(&metadata)?))
                    .await?,
            )?;
        }
        let path = self.0.root.path(Some("data"), write.coordinate.as_str());
        let body = json(&Create {
            options: CheckAndSet { cas: 0 },
            data: Value {
                value: write.value.expose(),
            },
        })?;
        let answer = self.send(Method::POST, &path, Some(&body)).await?;
        match answer.status {
            200..300 => Ok(Written::Created),
            // The check failed, or a policy grants `create` and the name would need `update`; a look
            // at what is there tells both from an invalid request.
            400 | 403 => self.or_compare(answer, write).await,
            _ => Err(answer.error()),
        }
    }

    /// What a refused write means: that the name is there, or what the answer says.
    async fn or_compare(&self, refusal: Answer, write: &Write) -> Result<Written> {
        match self.compare(write).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(refusal.error()),
            outcome => outcome,
        }
    }

    /// Whether the name has the very value that is to be written.
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
        let name = coordinate.as_str();
        if self.0.version == KvVersion::One {
            // The only way to see that it is there.
            self.read_one(&coordinate.clone().into()).await?;
            return Ok(Entry::new(coordinate.clone()));
        }
        let path = self.0.root.path(Some("metadata"), name);
        let answer = self.send(Method::GET, &path, None).await?;
        if answer.status != 200 {
            return Err(answer.error());
        }
        let metadata = answer.parse::<Wrapped<Metadata>>()?.data;
        metadata.entry(coordinate.clone()).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                "a write of this secret was never finished",
            )
            .with_hint("write it again, or delete it")
        })
    }

    /// Adds where and on what an operation failed.
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
        let two = self.0.version == KvVersion::Two;
        Capabilities {
            concurrency: self.0.config.connections,
            max_value_bytes: self.0.config.max_value_bytes,
            atomic_create: two,
            nul: true,
            owner: two,
            // Deleting leaves nothing to restore; `restore` is for what others soft-deleted.
            recovery: false,
            expiry: if two { Expiry::Swept } else { Expiry::None },
            listing: Listing::Immediate,
            cost: Cost {
                // Look, (metadata,) value, and a comparison after a conflict.
                write: if two { 4 } else { 3 },
                restore: 2,
                list_detail: u32::from(two),
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

    /// Removes metadata and every version: Vault has no recovery window of its own, so the options'
    /// recovery changes nothing.
    async fn delete(&self, coordinate: &ManagedCoordinate, _: &DeleteOptions) -> Result<()> {
        let (vault, name) = (self.clone(), coordinate.clone());
        // A task of its own, so that dropping this future does not cut the request: where the client
        // goes away midway, Vault leaves metadata whose versions are gone, and answers 500 for it.
        let request = tokio::spawn(async move {
            let root = &vault.0.root;
            let path = root.path(vault.part("metadata"), name.as_str());
            vault.send(Method::DELETE, &path, None).await
        });
        let answer = request
            .await
            .unwrap_or_else(|_| Err(malformed("the request was stopped with its runtime")));
        let outcome = match answer {
            Ok(answer) if answer.status == 404 && !answer.names_no_route() => Ok(()),
            Ok(answer) => expect_success(answer),
            Err(error) => Err(error),
        };
        outcome.map_err(|error| self.explain(error, Operation::Delete, coordinate.shared()))
    }

    /// Undeletes the latest version of a secret that somebody soft-deleted.
    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let restore = async {
            if self.0.version == KvVersion::One {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "version 1 of the KV engine has no recovery",
                ));
            }
            let path = self.0.root.path(Some("metadata"), coordinate.as_str());
            let answer = self.send(Method::GET, &path, None).await?;
            if answer.status != 200 {
                return Err(answer.error());
            }
            let metadata = answer.parse::<Wrapped<Metadata>>()?.data;
            match metadata.latest() {
                Some(version) if !version.destroyed && version.is_deleted() => {}
                Some(version) if !version.destroyed => return Ok(()),
                _ => {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        "no version of this secret is left",
                    ));
                }
            }
            let path = self.0.root.path(Some("undelete"), coordinate.as_str());
            let body = json(&Versions {
                versions: [metadata.current_version],
            })?;
            expect_success(self.send(Method::POST, &path, Some(&body)).await?)
        };
        restore
            .await
            .map_err(|error| self.explain(error, Operation::Restore, coordinate.shared()))
    }

    /// One request lists the folder; with details one more per name of the page. The names of folders
    /// and of others are skipped and counted.
    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let explain = |error: Error| {
            error
                .with_operation(Operation::List)
                .with_store(self.store())
        };
        let path = self.0.root.folder_path(self.part("metadata"));
        // Vault lists a folder in one answer, sorted; the cursor is the last name of the page before.
        let answer = self
            .send(list_method(), path.trim_end_matches('/'), None)
            .await
            .map_err(explain)?;
        let names = match answer.status {
            200 => answer.parse::<Wrapped<Keys>>().map_err(explain)?.data.keys,
            404 if !answer.names_no_route() => Vec::new(),
            _ => return Err(explain(answer.error())),
        };
        let begins = self.0.root.folder().1;
        let mut page = Page::default();
        let mut coordinates = Vec::new();
        let limit = options.page_size.unwrap_or(DEFAULT_PAGE).max(1);
        for name in names {
            let Some(ours) = name
                .strip_prefix(begins)
                .filter(|ours| ours.starts_with(&options.prefix))
            else {
                continue;
            };
            if after.is_some_and(|cursor| ours <= cursor.as_str()) {
                continue;
            }
            if coordinates.len() == limit {
                page.next = coordinates
                    .last()
                    .map(|last: &ManagedCoordinate| Cursor::new(last.as_str()));
                break;
            }
            match ManagedCoordinate::parse(ours) {
                Ok(coordinate) => coordinates.push(coordinate),
                Err(_) => page.skipped += 1,
            }
        }
        if !options.details || self.0.version == KvVersion::One {
            page.entries = coordinates.into_iter().map(Entry::new).collect();
            return Ok(page);
        }
        let details: Vec<Option<Entry>> = stream::iter(coordinates)
            .map(|coordinate| async move {
                match self.describe_detail(&coordinate).await {
                    // Deleted since it was listed.
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
        let answer = self
            .send(Method::GET, "auth/token/lookup-self", None)
            .await
            .map_err(explain)?;
        let principal = match answer.status {
            200 => {
                let data = answer.parse::<Wrapped<Lookup>>().map_err(explain)?.data;
                format!(
                    "{} (policies {})",
                    data.display_name,
                    data.policies.join(", ")
                )
            }
            403 => String::from("a token that may not look itself up"),
            _ => return Err(explain(answer.error())),
        };
        Ok(Identity::new("vault", principal, self.to_string()))
    }
}

impl Vault {
    /// An entry for a listing: also one whose write was never finished, so that it can be swept.
    async fn describe_detail(&self, coordinate: &ManagedCoordinate) -> Result<Option<Entry>> {
        let path = self.0.root.path(Some("metadata"), coordinate.as_str());
        let answer = self.send(Method::GET, &path, None).await?;
        if answer.status != 200 {
            return Err(answer.error());
        }
        let metadata = answer.parse::<Wrapped<Metadata>>()?.data;
        Ok(Some(metadata.entry(coordinate.clone()).unwrap_or_else(
            || metadata.custom(Entry::new(coordinate.clone())),
        )))
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
            .field("root", &self.0.root)
            .field("version", &self.0.version)
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Sends a request with the present token; once more with another where this one is refused.
    async fn send(
        self: &Arc<Self>,
        http: &Http,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Answer> {
        let token = self.token().await?;
        let answer = http
            .send(method.clone(), path, Some(&token.value), body)
            .await?;
        match answer.status {
            403 => {}
            503 => return Err(http.diagnose(answer.error()).await),
            _ => return Ok(answer),
        }
        match self.after_refusal(&token).await? {
            Some(token) => http.send(method, path, Some(&token.value), body).await,
            None if self.has_lost(&token).await => Err(Error::new(
                ErrorKind::Unauthenticated,
                "the token has expired or was revoked",
            )
            .with_hint("give the store a new token, or a login method that gets one by itself")),
            None => Ok(answer),
        }
    }
}

/// Finds mount and version: from the settings, or by asking the server once.
async fn locate(
    http: &Http,
    session: &Arc<Session>,
    config: &VaultConfig,
) -> Result<(Root, KvVersion)> {
    if let Some(version) = config.version {
        let root = match &config.place {
            Place::Joined(joined) => Root::first_segment(joined),
            Place::Separate { mount, prefix } => Root {
                mount: mount.clone(),
                prefix: prefix.clone(),
            },
        };
        return Ok((root, version));
    }
    let asked = match &config.place {
        Place::Joined(joined) => joined.as_str(),
        Place::Separate { mount, .. } => mount.as_str(),
    };
    // What the CLI asks too; needs no right but one to anything within the mount.
    let path = format!(
        "sys/internal/ui/mounts/{}",
        encode(asked.trim_end_matches('/'))
    );
    let answer = session.send(http, Method::GET, &path, None).await?;
    match answer.status {
        200 => {}
        403 => {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                "there is no such mount, or the token has no right in it",
            )
            .with_hint(
                "check mount and prefix (`vault secrets list`), namespace, and the token's policy: \
                 `migrate policy vault` prints the least one",
            ));
        }
        _ => return Err(answer.error()),
    }
    let mount = answer.parse::<Wrapped<Mount>>()?.data;
    let version = match (
        mount.kind.as_str(),
        mount.options.unwrap_or_default().version.as_deref(),
    ) {
        ("kv", Some("2")) => KvVersion::Two,
        ("kv" | "generic", _) => KvVersion::One,
        (other, _) => {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the mount `{}` is a `{other}` engine", mount.path),
            )
            .with_hint("give the mount of a KV engine"));
        }
    };
    let root = match &config.place {
        Place::Joined(joined) => Root::split(joined, &mount.path)
            .ok_or_else(|| malformed("Vault names a mount that is not at the prefix"))?,
        Place::Separate { prefix, .. } => Root {
            mount: mount.path.trim_matches('/').to_owned(),
            prefix: prefix.clone(),
        },
    };
    Ok((root, version))
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
    .with_hint("restore it (`vault kv undelete`), or delete it wholly (`vault kv metadata delete`)")
}

/// A soft-deleted version answers 404 too, but with its metadata. A destroyed one is gone.
fn is_deleted(answer: &Answer) -> bool {
    answer.parse::<Wrapped<Versioned>>().is_ok_and(|body| {
        body.data
            .metadata
            .is_some_and(|version| !version.destroyed && version.is_deleted())
    })
}

/// Vault's own verb; `GET` with `list=true` is the same for clients that cannot send it.
fn list_method() -> Method {
    // "LIST" is a valid token, so this cannot fail; GET is a harmless answer if it could.
    Method::from_bytes(b"LIST").unwrap_or(Method::GET)
}
