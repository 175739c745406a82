//! The JSON of secrets.
//!
//! See <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret#secretbundle> and the definitions on
//! the pages of the other operations.

use serde_json::{Value, json};

use super::secrets::{Deleted, Secret, Version};
use crate::azure::switches::Switches;

/// The number of days in which a deleted secret can be recovered.
const RECOVERABLE_DAYS: u32 = 90;

pub(super) struct Bundles<'a> {
    host: &'a str,
    recovery_level: &'static str,
    switches: &'a Switches,
}

impl<'a> Bundles<'a> {
    pub(super) fn new(host: &'a str, switches: &'a Switches) -> Self {
        // https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret#deletionrecoverylevel
        let recovery_level = if switches.purge_protection {
            "Recoverable"
        } else {
            "Recoverable+Purgeable"
        };
        Self {
            host,
            recovery_level,
            switches,
        }
    }

    /// The response to get and set.
    pub(super) fn with_value(&self, secret: &Secret, version: &Version) -> Value {
        let mut bundle = self.without_value(secret, version);
        bundle["value"] = json!(version.value);
        bundle
    }

    /// The response to update and recover, and one version in a list of versions.
    pub(super) fn without_value(&self, secret: &Secret, version: &Version) -> Value {
        let id = format!(
            "https://{}/secrets/{}/{}",
            self.host, secret.name, version.id
        );
        self.described(&id, secret, version)
    }

    /// One secret in a list, without a version.
    pub(super) fn item(&self, secret: &Secret) -> Value {
        let id = format!("https://{}/secrets/{}", self.host, secret.name);
        self.described(&id, secret, secret.latest())
    }

    /// The response to delete and get deleted.
    pub(super) fn deleted(&self, secret: &Secret, version: &Version) -> Value {
        self.with_deletion(self.without_value(secret, version), secret)
    }

    /// One secret in a list of deleted ones.
    pub(super) fn deleted_item(&self, secret: &Secret) -> Value {
        self.with_deletion(self.item(secret), secret)
    }

    fn with_deletion(&self, mut bundle: Value, secret: &Secret) -> Value {
        bundle["recoveryId"] = json!(format!(
            "https://{}/deletedsecrets/{}",
            self.host, secret.name
        ));
        if let Some(Deleted { at, purged }) = secret.deleted {
            bundle["deletedDate"] = json!(at);
            bundle["scheduledPurgeDate"] = json!(purged);
        }
        bundle
    }

    /// Omits missing members.
    fn described(&self, id: &str, secret: &Secret, version: &Version) -> Value {
        let content = &version.content;
        let disabled = self
            .switches
            .disabled
            .contains(&secret.name.to_ascii_lowercase());
        let mut attributes = json!({
            "enabled": content.enabled && !disabled,
            "created": version.created,
            "updated": version.updated,
            "recoveryLevel": self.recovery_level,
            "recoverableDays": RECOVERABLE_DAYS,
        });
        if let Some(expires) = content.expires {
            attributes["exp"] = json!(expires);
        }
        if let Some(not_before) = content.not_before {
            attributes["nbf"] = json!(not_before);
        }
        let mut bundle = json!({"id": id, "attributes": attributes});
        if let Some(content_type) = &content.content_type {
            bundle["contentType"] = json!(content_type);
        }
        if let Some(tags) = &content.tags {
            bundle["tags"] = json!(tags);
        }
        bundle
    }
}
