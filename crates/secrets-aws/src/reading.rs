//! Reads: batches, the secrets that a batch cannot return, and single reads if batches are denied.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use secret_persistence_core::{Error, ErrorKind, Operation, SecretValue};
use tokio::time::Instant;
use tracing::warn;

use crate::error::Fault;
use crate::naming;
use crate::persistence::AwsSecretsManager;
use crate::policy::Action;

/// The maximum number of ids per batch.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html>
pub(crate) const MAX_BATCH: usize = 20;

/// How long batches are not tried after a denial. Policies change rarely.
const BATCH_DENIED_FOR: Duration = Duration::from_secs(600);

/// Log this once per process: the denial concerns the installation, not one store.
static BATCH_WARNING: AtomicBool = AtomicBool::new(false);

impl AwsSecretsManager {
    pub(crate) fn batches(&self) -> bool {
        let until = self.batch_denied_until.lock();
        until.is_none_or(|until| Instant::now() >= until)
    }

    fn deny_batches(&self) {
        *self.batch_denied_until.lock() = Some(Instant::now() + BATCH_DENIED_FOR);
        if !BATCH_WARNING.swap(true, Ordering::Relaxed) {
            warn!(
                store = %self,
                "the principal may not perform secretsmanager:BatchGetSecretValue: secrets are read one \
                 by one, which is slower; `secret-migrate policy aws` prints the policy that allows it"
            );
        }
    }

    /// Reads any number of distinct ids, with one result per id.
    pub(crate) async fn fetch(&self, ids: &[&str]) -> Vec<Result<SecretValue, Unread>> {
        if ids.len() > 1 && self.batches() {
            let chunks = ids.chunks(MAX_BATCH).map(|chunk| self.fetch_batch(chunk));
            return join_all(chunks).await.into_iter().flatten().collect();
        }
        join_all(ids.iter().map(|id| self.fetch_one(id))).await
    }

    async fn fetch_one(&self, id: &str) -> Result<SecretValue, Unread> {
        match self.client.get(id).await {
            Ok(answer) if naming::answers(id, answer.name.as_deref(), answer.arn.as_deref()) => {
                value(answer.secret_string, answer.secret_binary.is_some())
            }
            Ok(_) => Err(Unread::Confused),
            Err(fault) => Err(self.diagnose(id, fault).await),
        }
    }

    async fn fetch_batch(&self, ids: &[&str]) -> Vec<Result<SecretValue, Unread>> {
        let asked = ids.iter().map(|&id| id.to_owned()).collect();
        let mut answer = match self.client.get_batch(asked).await {
            Ok(answer) => answer,
            Err(fault) => return self.fetch_one_by_one(ids, fault).await,
        };
        let values = answer.secret_values.take().unwrap_or_default();
        let errors = answer.errors.take().unwrap_or_default();
        let mut found: Vec<Option<Result<SecretValue, Unread>>> = vec![None; ids.len()];
        for entry in values {
            let place = |id: &str| naming::answers(id, entry.name.as_deref(), entry.arn.as_deref());
            let read = value(entry.secret_string, entry.secret_binary.is_some());
            // A caller may request a secret both by name and by ARN.
            for (slot, _) in found.iter_mut().zip(ids).filter(|(_, id)| place(id)) {
                *slot = Some(read.clone());
            }
        }
        for error in errors {
            let fault = Fault::of_entry(error.error_code());
            for (slot, _) in found
                .iter_mut()
                .zip(ids)
                .filter(|(slot, id)| slot.is_none() && error.secret_id() == Some(**id))
            {
                *slot = Some(Err(Unread::Refused(fault.clone())));
            }
        }
        // A separate request for each id that the batch did not return (the page ended, or an id
        // came back in another spelling) or refused because of the secret's state.
        join_all(found.into_iter().zip(ids).map(|(slot, &id)| async move {
            match slot {
                None => self.fetch_one(id).await,
                Some(Err(Unread::Refused(fault))) => Err(self.diagnose(id, fault).await),
                Some(read) => read,
            }
        }))
        .await
    }

    /// Handles a batch that failed as a whole: reads the ids one by one if that may help.
    async fn fetch_one_by_one(
        &self,
        ids: &[&str],
        fault: Fault,
    ) -> Vec<Result<SecretValue, Unread>> {
        let denied = fault.is_denied();
        // One secret with an unusable key or state must not fail the others.
        let of_one = [
            "DecryptionFailure",
            "InvalidParameterException",
            "InvalidRequestException",
            "ResourceNotFoundException",
        ]
        .iter()
        .any(|code| fault.has(code));
        if !denied && !of_one {
            return ids
                .iter()
                .map(|_| Err(Unread::Refused(fault.clone())))
                .collect();
        }
        let reads = join_all(ids.iter().map(|id| self.fetch_one(id))).await;
        // If single reads succeed, only batches are denied; otherwise everything is.
        let alone = reads.iter().any(|read| match read {
            Err(Unread::Refused(fault)) => {
                fault.is(ErrorKind::NotFound) || fault.is_invalid_request()
            }
            _ => true,
        });
        if denied && alone {
            self.deny_batches();
        }
        reads
    }

    /// Asks for the secret's metadata if AWS's code is ambiguous. A scheduled deletion is refused
    /// like any other state. If permissions are scoped by tag, a missing secret has no tag and is
    /// denied like another owner's.
    pub(crate) async fn diagnose(&self, id: &str, fault: Fault) -> Unread {
        let tagless = self.config.tag_key.is_some()
            && fault.is_denied()
            && fault.action == Action::GetSecretValue;
        if !fault.is_invalid_request() && !tagless {
            return Unread::Refused(fault);
        }
        match self.client.describe(id).await {
            Ok(secret) if secret.deleted_date.is_some() && !tagless => {
                Unread::Pending { confirmed: true }
            }
            Ok(_) => Unread::Refused(fault),
            // According to AWS's documentation, reads are refused for no other state.
            Err(described) if described.is_denied() && !tagless => {
                Unread::Pending { confirmed: false }
            }
            Err(described) if described.is_denied() => Unread::Refused(fault),
            Err(described) => Unread::Refused(described),
        }
    }

    pub(crate) fn explain(&self, unread: &Unread, operation: Operation, name: &str) -> Error {
        let error = match unread {
            Unread::Binary => Error::new(
                ErrorKind::Unsupported,
                "the secret is binary, and only text is supported",
            )
            .with_hint("store it as SecretString, for example in base64"),
            Unread::Confused => Error::new(
                ErrorKind::Unexpected,
                "the response is for another secret than the requested one",
            )
            .with_hint("check endpoint-url; refer to the secret by its full ARN"),
            Unread::Empty => Error::new(
                ErrorKind::Unexpected,
                "the response has neither text nor bytes",
            )
            .with_hint("check endpoint-url"),
            Unread::Pending { confirmed } => Error::new(
                ErrorKind::PendingDeletion,
                "the secret is scheduled for deletion",
            )
            .with_hint(if *confirmed {
                "restore it, or wait until the recovery window has ended"
            } else {
                "probably: this could not be confirmed without the permission \
                 secretsmanager:DescribeSecret"
            }),
            Unread::Refused(fault) => {
                return self
                    .client
                    .explain(fault, &self.config, operation, Some(name))
                    .with_store(self.to_string());
            }
        };
        error.with_operation(operation).with_store(self.to_string())
    }
}

/// Why one secret was not read.
#[derive(Clone, Debug)]
pub(crate) enum Unread {
    /// The value is binary.
    Binary,
    /// The response is for another secret.
    Confused,
    /// The response has neither text nor bytes.
    Empty,
    /// Scheduled for deletion, confirmed by the secret's dates or only inferred.
    Pending { confirmed: bool },
    /// AWS refused, or did not respond.
    Refused(Fault),
}

impl Unread {
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(fault) if fault.is(ErrorKind::NotFound))
    }
}

/// Takes the SDK's text without a copy.
fn value(text: Option<String>, has_bytes: bool) -> Result<SecretValue, Unread> {
    match text {
        Some(text) => Ok(SecretValue::new(text)),
        None if has_bytes => Err(Unread::Binary),
        None => Err(Unread::Empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_over_and_bytes_refused() {
        let text = "line one\nline two".to_owned();
        let address = text.as_ptr();
        let read = value(Some(text), false).unwrap();
        assert_eq!(read.expose().as_ptr(), address);
        assert!(matches!(value(None, true), Err(Unread::Binary)));
        assert!(matches!(value(None, false), Err(Unread::Empty)));
        assert_eq!(value(Some(String::new()), false).unwrap().len(), 0);
    }
}
