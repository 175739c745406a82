//! Reads: the newest version or the first one, its checksum, and why there is nothing to read.

use google_cloud_secretmanager_v1::model::secret_version::State;
use google_cloud_secretmanager_v1::model::{AccessSecretVersionResponse, SecretVersion};
use secret_persistence_core::{Error, ErrorKind, Operation, SecretValue};

use crate::client::checksum;
use crate::error::Fault;
use crate::naming::{self, Version};
use crate::persistence::GoogleSecretManager;

impl GoogleSecretManager {
    /// The value of a version, or of the first one if the newest is not found.
    ///
    /// Access by number is strongly consistent, but `latest` is not: for a moment after a write it
    /// may not exist.
    /// <https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access>
    pub(crate) async fn fetch(&self, version: &Version) -> Result<Found, Unread> {
        match self.fetch_version(version).await {
            Err(unread) if unread.is_missing() && version.is_latest() => {
                self.fetch_version(&version.first()).await
            }
            read => read,
        }
    }

    pub(crate) async fn fetch_version(&self, version: &Version) -> Result<Found, Unread> {
        match self.client.access(version).await {
            Ok(answer) if version.is_answered_by(&answer.name) => {
                let number = naming::number(&answer.name);
                value(answer).map(|value| Found { value, number })
            }
            Ok(_) => Err(Unread::Confused),
            Err(fault) => Err(self.diagnose(version, fault).await),
        }
    }

    /// Asks for the version's metadata if Google's code is ambiguous.
    async fn diagnose(&self, version: &Version, fault: Fault) -> Unread {
        if !fault.is_precondition() {
            return Unread::Refused(fault);
        }
        match self.client.get_version(version).await {
            Ok(found) => Unread::State(condition(&found), fault),
            Err(_) => Unread::State(Condition::Unknown, fault),
        }
    }

    pub(crate) fn explain(
        &self,
        unread: &Unread,
        operation: Operation,
        version: &Version,
    ) -> Error {
        let error = match unread {
            Unread::Binary => Error::new(
                ErrorKind::Unsupported,
                "the secret is binary, and only text is supported",
            )
            .with_hint("store it as UTF-8, for example in base64"),
            Unread::Confused => Error::new(
                ErrorKind::Unexpected,
                "the response is for another secret than the requested one",
            )
            .with_hint("check endpoint-url"),
            Unread::Damaged => Error::new(
                ErrorKind::Integrity,
                "the value does not have the checksum that is stored with it",
            )
            .with_hint("try again; check proxies on the way"),
            Unread::Empty => Error::new(
                ErrorKind::Unexpected,
                "the response does not contain a value",
            )
            .with_hint("check endpoint-url"),
            Unread::Refused(fault) => {
                return self
                    .client
                    .explain(fault, operation, version.secret())
                    .with_store(self.to_string());
            }
            Unread::State(condition, fault) => condition.error().with_source(fault.clone()),
        };
        error.with_operation(operation).with_store(self.to_string())
    }
}

/// A value, and the number of its version if Google returned it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) value: SecretValue,
    pub(crate) number: Option<u64>,
}

/// Why one secret was not read.
#[derive(Clone, Debug)]
pub(crate) enum Unread {
    /// The value is not text.
    Binary,
    /// The response is for another secret.
    Confused,
    /// The checksum does not match.
    Damaged,
    /// The response does not contain a value.
    Empty,
    /// Google refused, or did not respond.
    Refused(Fault),
    /// The version exists, but its state prevents access.
    State(Condition, Fault),
}

impl Unread {
    /// Whether the version does not exist in any state.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(fault) if fault.is(ErrorKind::NotFound))
    }
}

/// The state that prevents access to an existing version.
/// <https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions#state>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Destroyed,
    /// Someone disabled it, and can enable it.
    Disabled,
    /// The version itself is enabled, so the key that encrypts it is unusable.
    Enabled,
    /// Disabled until its scheduled destruction.
    Scheduled,
    /// We may not read the state.
    Unknown,
}

impl Condition {
    fn error(self) -> Error {
        match self {
            // Permanently gone, like a deleted secret.
            Self::Destroyed => Error::new(
                ErrorKind::NotFound,
                "the newest version of the secret was destroyed",
            )
            .with_hint("it cannot be restored; add a version, or enter the secret again"),
            Self::Disabled => permanent(
                "the newest version of the secret is disabled",
                "enable it: `gcloud secrets versions enable <version> --secret=<id>`",
            ),
            Self::Enabled => permanent(
                "the version is enabled, but the customer's key that encrypts it cannot be \
                 used",
                "check whether the KMS key version is enabled, and granted to the service agent of \
                 Secret Manager (`secret-migrate policy gcp --kms-key …`)",
            ),
            Self::Scheduled => Error::new(
                ErrorKind::PendingDeletion,
                "the newest version of the secret is disabled and will be destroyed",
            )
            .with_hint(
                "enable it to keep it: `gcloud secrets versions enable <version> --secret=<id>`",
            ),
            Self::Unknown => permanent(
                "the newest version of the secret is disabled or destroyed, or its key cannot be used",
                "grant secretmanager.versions.get to find out which",
            ),
        }
    }
}

fn permanent(message: &'static str, hint: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, message)
        .with_hint(hint)
        .with_retryable(false)
}

fn condition(version: &SecretVersion) -> Condition {
    match version.state {
        State::Destroyed => Condition::Destroyed,
        State::Disabled if version.scheduled_destroy_time.is_some() => Condition::Scheduled,
        State::Disabled => Condition::Disabled,
        State::Enabled => Condition::Enabled,
        _ => Condition::Unknown,
    }
}

/// Takes the SDK's bytes, without a copy if they are not shared.
fn value(answer: AccessSecretVersionResponse) -> Result<SecretValue, Unread> {
    let payload = answer.payload.ok_or(Unread::Empty)?;
    // Google stores a checksum with every value, even if the writer sent none.
    if payload
        .data_crc32c
        .is_some_and(|stored| stored != checksum(&payload.data))
    {
        return Err(Unread::Damaged);
    }
    String::from_utf8(Vec::from(payload.data))
        .map(SecretValue::new)
        .map_err(|_| Unread::Binary)
}

#[cfg(test)]
mod tests {
    use google_cloud_secretmanager_v1::model::SecretPayload;

    use super::*;

    fn answer(data: &[u8], checksum: Option<i64>) -> AccessSecretVersionResponse {
        let payload = SecretPayload::new()
            .set_data(data.to_vec())
            .set_or_clear_data_crc32c(checksum);
        AccessSecretVersionResponse::new().set_payload(payload)
    }

    #[test]
    fn values_are_checked_and_bytes_refused() {
        let text = "line one\nline two";
        let good = value(answer(text.as_bytes(), Some(checksum(text.as_bytes()))));
        assert_eq!(good.unwrap().expose(), text);
        assert_eq!(value(answer(b"x", None)).unwrap().expose(), "x");
        assert_eq!(value(answer(b"", Some(0))).unwrap().len(), 0);
        for wrong in [0, checksum(text.as_bytes()) ^ 1, -1] {
            let damaged = value(answer(text.as_bytes(), Some(wrong)));
            assert!(matches!(damaged, Err(Unread::Damaged)));
        }
        let bytes = [0xff, 0xfe];
        let binary = value(answer(&bytes, Some(checksum(&bytes))));
        assert!(matches!(binary, Err(Unread::Binary)));
        let empty = value(AccessSecretVersionResponse::new());
        assert!(matches!(empty, Err(Unread::Empty)));
    }

    #[test]
    fn states_are_told_apart_in_kind_or_message() {
        let mut seen = std::collections::BTreeSet::new();
        for condition in [
            Condition::Destroyed,
            Condition::Disabled,
            Condition::Enabled,
            Condition::Scheduled,
            Condition::Unknown,
        ] {
            let error = condition.error();
            assert!(!error.is_retryable() && error.hint().is_some());
            assert!(seen.insert(error.message().to_owned()));
        }
    }
}
