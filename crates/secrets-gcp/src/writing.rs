//! Writes: two requests per secret, interrupted writes, and concurrent writers.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use secret_persistence_core::{
    Error, ErrorKind, Operation, SecretValue, Timestamp, Write, Written,
};
use secret_persistence_remote::Nature;

use crate::error::Fault;
use crate::naming::{self, FIRST, LATEST, Version};
use crate::persistence::GoogleSecretManager;
use crate::reading::Unread;

/// The minimum time until a secret expires, in seconds.
/// <https://cloud.google.com/secret-manager/docs/creating-and-managing-expiring-secrets>
const SOONEST_EXPIRY: i64 = 60;

/// How many interrupted writes are remembered. A forgotten one costs one or two more requests.
const MOST_REMEMBERED: usize = 4_096;

impl GoogleSecretManager {
    pub(crate) async fn write_attempt(&self, write: &Write) -> Result<Written, Error> {
        let id = write.coordinate.as_str();
        let secret = self.config.place.secret(id);
        let value = &write.value;
        let result = match self.interrupted.take(id) {
            Some(Reached::Empty) => self.complete(secret, value).await,
            Some(Reached::Same) => self.check_visible(secret, value, true).await,
            Some(Reached::Secret) => self.resume(secret, value).await,
            None => match self.client.create(id, &self.config, write.expires).await {
                Ok(_) => self.complete(secret, value).await,
                Err(fault) if fault.is(ErrorKind::AlreadyExists) => {
                    self.compare(secret, value).await
                }
                Err(fault) => Err(self.refused_create(&fault, write.expires).into()),
            },
        };
        result.map_err(|halt| {
            if let Some(reached) = halt.reached.filter(|_| halt.error.is_retryable()) {
                self.interrupted.note(write.coordinate.shared(), reached);
            }
            halt.error
        })
    }

    /// The second step. As far as we know, the secret exists and has no version.
    async fn complete(&self, secret: String, value: &SecretValue) -> Result<Written, Halt> {
        let first = Version::new(secret, FIRST);
        match self.client.add(first.secret(), value).await {
            Ok(added) if naming::number(&added.name) == Some(1) => Ok(Written::Created),
            // Another writer completed it at the same time, and was faster.
            Ok(_) => match self.fetch_version(&first).await {
                Ok(found) if found.value == *value => Ok(Written::AlreadySame),
                Ok(_) => Err(taken().into()),
                Err(unread) => Err(self.halt(&unread, &first)),
            },
            Err(fault) if fault.is(ErrorKind::NotFound) => {
                Err(overtaken().with_source(fault).into())
            }
            Err(fault) => {
                // A refused request had no effect.
                let reached = match fault.failure.nature {
                    Nature::Answered(_) | Nature::Connect(_) | Nature::Credentials(_) => {
                        Reached::Empty
                    }
                    _ => Reached::Secret,
                };
                let error = self
                    .client
                    .explain(&fault, Operation::Write, first.secret());
                Err(Halt::at(reached, error))
            }
        }
    }

    /// Compares with the existing value: an earlier attempt of the same write, which may be
    /// incomplete, or another value.
    async fn compare(&self, secret: String, value: &SecretValue) -> Result<Written, Halt> {
        let first = Version::new(secret.clone(), FIRST);
        let latest = Version::new(secret.clone(), LATEST);
        match self.fetch_version(&latest).await {
            Ok(found) if found.value != *value => Err(taken().into()),
            Ok(found) if found.number == Some(1) => Ok(Written::AlreadySame),
            // Someone has added versions. This store never does, unless two writers complete a
            // write at the same time.
            Ok(_) => match self.fetch_version(&first).await {
                Ok(found) if found.value != *value => Err(taken().into()),
                Ok(_) | Err(Unread::State(..)) => Ok(Written::AlreadySame),
                Err(unread) if unread.is_missing() => Ok(Written::AlreadySame),
                Err(unread) => Err(self.halt(&unread, &first)),
            },
            // `latest` lags behind, or there is no version.
            Err(unread) if unread.is_missing() => match self.fetch_version(&first).await {
                Ok(found) if found.value == *value => Ok(Written::AlreadySame),
                Ok(_) => Err(taken().into()),
                Err(unread) if unread.is_missing() => self.complete(secret, value).await,
                Err(unread) => Err(self.halt(&unread, &first)),
            },
            Err(unread) => Err(self.halt(&unread, &latest)),
        }
    }

    /// Resumes a write whose name is taken and whose value is unknown. The first version is the
    /// most reliable, because access to it does not lag behind.
    async fn resume(&self, secret: String, value: &SecretValue) -> Result<Written, Halt> {
        let first = Version::new(secret.clone(), FIRST);
        match self.fetch_version(&first).await {
            Ok(found) if found.value == *value => self.check_visible(secret, value, true).await,
            Ok(_) => Err(taken().into()),
            Err(unread) if unread.is_missing() => self.complete(secret, value).await,
            // Someone who adds versions has disabled the first one.
            Err(Unread::State(..)) => self.check_visible(secret, value, false).await,
            Err(unread) => Err(self.halt(&unread, &first)),
        }
    }

    /// Whether readers will see the value: someone may have added versions. `is_same` means that
    /// the first version contains the value; otherwise it is unknown.
    async fn check_visible(
        &self,
        secret: String,
        value: &SecretValue,
        is_same: bool,
    ) -> Result<Written, Halt> {
        let latest = Version::new(secret, LATEST);
        match self.fetch_version(&latest).await {
            Ok(found) if found.value == *value => Ok(Written::AlreadySame),
            Ok(_) => Err(taken().into()),
            // `latest` lags behind, but the first version does not.
            Err(unread) if is_same && unread.is_missing() => Ok(Written::AlreadySame),
            Err(unread) if unread.is_missing() => Err(overtaken().into()),
            Err(unread) => {
                let halt = self.halt(&unread, &latest);
                Err(if is_same {
                    Halt::at(Reached::Same, halt.error)
                } else {
                    halt
                })
            }
        }
    }

    fn halt(&self, unread: &Unread, version: &Version) -> Halt {
        let error = self.explain(unread, Operation::Write, version);
        Halt::at(Reached::Secret, error)
    }

    /// An expiry that is too near is the most likely refused parameter. The store does not check it
    /// in advance, because Google's clock counts, not this machine's.
    fn refused_create(&self, fault: &Fault, expires: Option<Timestamp>) -> Error {
        let parent = self.config.place.parent();
        let error = self.client.explain(fault, Operation::Write, &parent);
        let is_near = expires.is_some_and(|time| {
            time.unix_seconds() <= Timestamp::now().unix_seconds() + SOONEST_EXPIRY
        });
        if !is_near || !fault.has("INVALID_ARGUMENT") {
            return error;
        }
        Error::new(
            ErrorKind::InvalidValue,
            "Google refuses secrets that expire within a minute or have expired",
        )
        .with_hint("remove the expiry, or set a later one")
        .with_source(fault.clone())
    }
}

/// Why a write stopped, and its progress.
struct Halt {
    error: Error,
    reached: Option<Reached>,
}

impl Halt {
    fn at(reached: Reached, error: Error) -> Self {
        Self {
            error,
            reached: Some(reached),
        }
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self {
            error,
            reached: None,
        }
    }
}

/// The progress of a write when it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// The secret exists and has no version.
    Empty,
    /// The first version has the value.
    Same,
    /// The secret exists.
    Secret,
}

/// The progress of writes that stopped for a temporary reason, so that the next attempt does not
/// repeat requests. With an exhausted quota, this decides whether an attempt ever succeeds. It is
/// only an optimisation: without it, the next attempt finds out by asking.
#[derive(Debug, Default)]
pub(crate) struct Interrupted(Mutex<HashMap<Arc<str>, Reached>>);

impl Interrupted {
    /// Forgets a name that is deleted or written again.
    pub(crate) fn forget(&self, id: &str) {
        self.take(id);
    }

    fn take(&self, id: &str) -> Option<Reached> {
        self.0.lock().remove(id)
    }

    fn note(&self, id: Arc<str>, reached: Reached) {
        let mut names = self.0.lock();
        if names.len() >= MOST_REMEMBERED {
            names.clear();
        }
        names.insert(id, reached);
    }
}

fn taken() -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        "the name already has another value",
    )
    .with_hint("use a new coordinate for a new value")
}

fn overtaken() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "another client was creating or deleting the secret",
    )
    .with_hint("try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_told_once() {
        let interrupted = Interrupted::default();
        for number in 0..MOST_REMEMBERED + 1 {
            interrupted.note(number.to_string().into(), Reached::Secret);
        }
        assert_eq!(interrupted.0.lock().len(), 1);
        let last = MOST_REMEMBERED.to_string();
        assert_eq!(interrupted.take(&last), Some(Reached::Secret));
        assert_eq!(interrupted.take(&last), None);
    }
}
