//! The store operations of both versions of the engine: authorised, audited, counted.

use std::sync::Arc;

use futures::TryStreamExt as _;
use secret_persistence::{
    AuditEvent, Coordinate, DeleteOptions, Entry, Error, ErrorKind, ListOptions, Listing,
    ManagedCoordinate, Operation, Recovery, SecretPersistenceExt as _, SecretValue, Write, Written,
};

use super::answer::KvError;
use super::names::{self, Folder};
use crate::gateway::Gateway;
use crate::server::{Caller, ProblemKind};
use crate::tokens::{Principal, Role};

/// A client could not use a longer listing.
const MAX_NAMES: usize = 100_000;

/// A caller of the engine.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    gateway: Gateway,
    caller: Principal,
    request: Option<Arc<str>>,
}

impl Engine {
    pub(super) fn new(gateway: &Gateway, caller: Caller) -> Self {
        Self {
            gateway: gateway.clone(),
            caller: caller.0,
            request: caller.1,
        }
    }

    fn require(&self, role: Role) -> Result<(), KvError> {
        if self.caller.may(role) {
            Ok(())
        } else {
            Err(KvError::denied())
        }
    }

    /// A secret that the caller may not see does not exist for the caller.
    fn require_sight(&self, coordinate: &Coordinate) -> Result<(), KvError> {
        if self.caller.binding.sees(coordinate) {
            Ok(())
        } else {
            Err(KvError::not_found())
        }
    }

    fn readable(&self, path: &str) -> Result<Coordinate, KvError> {
        let settings = self.gateway.settings();
        let coordinate = names::readable(&settings.kv.prefix, &settings.external_prefixes, path)?;
        self.require_sight(&coordinate)?;
        Ok(coordinate)
    }

    fn managed(&self, path: &str) -> Result<ManagedCoordinate, KvError> {
        let managed = names::managed(&self.gateway.settings().kv.prefix, path)?;
        self.require_sight(&Coordinate::Managed(managed.clone()))?;
        Ok(managed)
    }

    /// Refuses callers that may not write, before the request is parsed.
    pub(super) fn require_writable(&self, path: &str) -> Result<(), KvError> {
        self.require(Role::KvWrite)?;
        self.managed(path).map(|_| ())
    }

    /// Sends the audit event. If the audit is required and fails, the call fails.
    async fn audit(
        &self,
        operation: Operation,
        coordinate: Coordinate,
        failure: Option<ErrorKind>,
    ) -> Result<(), KvError> {
        let event = AuditEvent::new(self.caller.actor(), operation, coordinate)
            .with_request(self.request.clone())
            .with_failure(failure);
        self.gateway.stores().record(&[event]).await.map_err(|error| {
            tracing::error!(target: "secret_gateway", %error, "the audit is required and its sink failed");
            KvError::new(ProblemKind::AuditFailed, "the audit is required and its sink failed")
                .with_retry_after(5)
        })
    }

    /// A value.
    pub(super) async fn read(&self, path: &str) -> Result<SecretValue, ReadError> {
        self.require(Role::KvRead)?;
        let coordinate = self.readable(path)?;
        let read = self.gateway.store().read(&coordinate).await;
        self.audit(
            Operation::Read,
            coordinate.clone(),
            read.as_ref().err().map(Error::kind),
        )
        .await?;
        match read {
            Ok(read) => {
                self.gateway.health().answered(&coordinate);
                Ok(read.value)
            }
            Err(error) if error.kind() == ErrorKind::PendingDeletion => Err(ReadError::Deleted),
            Err(error) => Err(error.into()),
        }
    }

    /// Completes a write even if the caller disconnects, and counts it if it fails.
    pub(super) async fn write(
        &self,
        path: &str,
        value: Result<SecretValue, KvError>,
        only_new: bool,
    ) -> Result<(), KvError> {
        self.require(Role::KvWrite)?;
        let coordinate = self.managed(path)?;
        let ours = self.clone();
        let written = self
            .gateway
            .to_the_end(async move { ours.write_managed(coordinate, value, only_new).await });
        written.await.unwrap_or_else(|| {
            Err(KvError::new(
                ProblemKind::Internal,
                "the gateway failed; its log says more",
            ))
        })
    }

    async fn write_managed(
        &self,
        coordinate: ManagedCoordinate,
        value: Result<SecretValue, KvError>,
        only_new: bool,
    ) -> Result<(), KvError> {
        let failed = |kind: ErrorKind, error: Option<&Error>| {
            self.gateway.failed_writes().failed(
                "kv",
                &self.caller.name,
                coordinate.as_str(),
                kind,
                error,
            );
        };
        let value = value.inspect_err(|_| failed(ErrorKind::InvalidValue, None))?;
        let written = self
            .gateway
            .store()
            .write(Write::new(coordinate.clone(), value))
            .await;
        let audited = self
            .audit(
                Operation::Write,
                Coordinate::Managed(coordinate.clone()),
                written.as_ref().err().map(Error::kind),
            )
            .await;
        match (written, audited) {
            // It may have been written. Writing it again succeeds, and the operator requires the
            // failure.
            (Ok(_), Err(unaudited)) => {
                failed(ErrorKind::Unavailable, None);
                Err(unaudited)
            }
            (Ok(Written::AlreadySame), Ok(())) if only_new => Err(cas_mismatch()),
            (Ok(_), Ok(())) => Ok(()),
            (Err(error), _) => {
                failed(error.kind(), Some(&error));
                Err(match error.kind() {
                    ErrorKind::AlreadyExists if only_new => cas_mismatch(),
                    ErrorKind::AlreadyExists => KvError::new(
                        ProblemKind::ValueExists,
                        "the name has another value, and a managed name keeps one value forever; use a new name for a new value",
                    ),
                    ErrorKind::PendingDeletion => KvError::new(
                        ProblemKind::ValueExists,
                        "the name is scheduled for deletion; undelete it, or use a new name",
                    ),
                    _ => error.into(),
                })
            }
        }
    }

    /// Deletes a value, with or without the store's recovery window.
    pub(super) async fn delete(&self, path: &str, recovery: Recovery) -> Result<(), KvError> {
        self.require(Role::KvWrite)?;
        let coordinate = self.managed(path)?;
        let ours = self.clone();
        let deleted = self.gateway.to_the_end(async move {
            let store = ours.gateway.store();
            let options = DeleteOptions::default().with_recovery(recovery);
            let deleted = match store.delete(&coordinate, &options).await {
                // Permissions often allow only a delete with a recovery window.
                Err(error)
                    if recovery == Recovery::Immediate
                        && matches!(
                            error.kind(),
                            ErrorKind::PermissionDenied | ErrorKind::Unsupported
                        ) =>
                {
                    store.delete(&coordinate, &DeleteOptions::default()).await
                }
                deleted => deleted,
            };
            let failure = deleted.as_ref().err().map(Error::kind);
            ours.audit(Operation::Delete, Coordinate::Managed(coordinate), failure)
                .await?;
            deleted.map_err(KvError::from)
        });
        deleted.await.unwrap_or_else(|| {
            Err(KvError::new(
                ProblemKind::Internal,
                "the gateway failed; its log says more",
            ))
        })
    }

    /// Restores a value.
    pub(super) async fn restore(&self, path: &str) -> Result<(), KvError> {
        self.require(Role::KvWrite)?;
        let coordinate = self.managed(path)?;
        let restored = self.gateway.store().restore(&coordinate).await;
        let failure = restored.as_ref().err().map(Error::kind);
        self.audit(Operation::Restore, Coordinate::Managed(coordinate), failure)
            .await?;
        restored.map_err(KvError::from)
    }

    /// The store's description of a name.
    pub(super) async fn describe(&self, path: &str) -> Result<Entry, KvError> {
        self.require(Role::KvRead)?;
        let Coordinate::Managed(coordinate) = self.readable(path)? else {
            return Err(KvError::not_found());
        };
        let described = self.gateway.store().describe(&coordinate).await;
        let failure = described.as_ref().err().map(Error::kind);
        self.audit(
            Operation::Describe,
            Coordinate::Managed(coordinate.clone()),
            failure,
        )
        .await?;
        match described {
            Err(error) if error.kind() == ErrorKind::PendingDeletion => {
                Ok(Entry::new(coordinate).with_pending_deletion(true))
            }
            described => described.map_err(KvError::from),
        }
    }

    /// The names in a folder that the caller may see. An empty one is 404, as in Vault.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<String>, KvError> {
        self.require(Role::KvRead)?;
        let stem = match names::folder(&self.gateway.settings().kv.prefix, path) {
            Folder::Empty => return Err(KvError::not_found()),
            Folder::Sub(folder) => return Ok(vec![folder]),
            Folder::Names(stem) => stem,
        };
        let store = self.gateway.store();
        if store.capabilities().listing == Listing::None {
            return Err(KvError::new(
                ProblemKind::Unsupported,
                "this store cannot list",
            ));
        }
        let options = ListOptions::default();
        let mut entries = store.list(&options);
        let mut names = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            let coordinate = Coordinate::Managed(entry.coordinate);
            if entry.pending_deletion || !self.caller.binding.sees(&coordinate) {
                continue;
            }
            if names.len() == MAX_NAMES {
                return Err(KvError::new(
                    ProblemKind::Unsupported,
                    format!(
                        "there are more than {MAX_NAMES} names; use a token that is bound to a workspace"
                    ),
                ));
            }
            names.push(format!("{stem}{coordinate}"));
        }
        if names.is_empty() {
            return Err(KvError::not_found());
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// Why there is no value.
#[derive(Debug)]
pub(super) enum ReadError {
    Deleted,
    Failed(KvError),
}

impl From<KvError> for ReadError {
    fn from(error: KvError) -> Self {
        Self::Failed(error)
    }
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

fn cas_mismatch() -> KvError {
    KvError::new(
        ProblemKind::VersionMismatch,
        "check-and-set parameter did not match the current version",
    )
}
