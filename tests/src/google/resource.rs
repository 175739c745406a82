//! Secrets: the fields that clients set, and those that the server adds.
//!
//! See [the resource](https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets#resource:-secret).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    refusal::{Refusal, invalid_argument, unimplemented},
    schema::{self, Field, Kind},
};

const ENCRYPTION: &[Field] = &[Field::new("kmsKeyName", Kind::Text)];

const REPLICA: &[Field] = &[
    Field::new("location", Kind::Text),
    Field::new("customerManagedEncryption", Kind::Message(ENCRYPTION)),
];

const REPLICATION: &[Field] = &[
    Field::of(
        "replication",
        "automatic",
        Kind::Message(&[Field::new(
            "customerManagedEncryption",
            Kind::Message(ENCRYPTION),
        )]),
    ),
    Field::of(
        "replication",
        "userManaged",
        Kind::Message(&[Field::new(
            "replicas",
            Kind::Repeated(&Kind::Message(REPLICA)),
        )]),
    ),
];

/// A secret in a request.
pub(super) const SECRET: &[Field] = &[
    Field::new("annotations", Kind::Map(&Kind::Text)),
    Field::new("createTime", Kind::Timestamp),
    Field::new("customerManagedEncryption", Kind::Message(ENCRYPTION)),
    Field::new("etag", Kind::Text),
    Field::of("expiration", "expireTime", Kind::Timestamp),
    Field::of("expiration", "ttl", Kind::Duration),
    Field::new("labels", Kind::Map(&Kind::Text)),
    Field::new("name", Kind::Text),
    Field::new("replication", Kind::Message(REPLICATION)),
    Field::new(
        "rotation",
        Kind::Message(&[
            Field::new("nextRotationTime", Kind::Timestamp),
            Field::new("rotationPeriod", Kind::Duration),
        ]),
    ),
    Field::new("tags", Kind::Map(&Kind::Text)),
    Field::new(
        "topics",
        Kind::Repeated(&Kind::Message(&[Field::new("name", Kind::Text)])),
    ),
    Field::new("versionAliases", Kind::Map(&Kind::Integer)),
    Field::new("versionDestroyTtl", Kind::Duration),
];

/// The fields of a secret in filters.
pub(super) const SECRET_FILTERS: [&str; 9] = [
    "annotations",
    "create_time",
    "customer_managed_encryption",
    "etag",
    "expire_time",
    "labels",
    "name",
    "replication",
    "topics",
];

/// Locations of secrets; the service has
/// [more](https://cloud.google.com/secret-manager/docs/locations).
const LOCATIONS: [&str; 12] = [
    "asia-east1",
    "asia-northeast1",
    "asia-southeast1",
    "europe-north1",
    "europe-west1",
    "europe-west2",
    "europe-west3",
    "europe-west4",
    "me-central2",
    "us-central1",
    "us-east1",
    "us-west1",
];

/// Refuses an unknown location.
pub(super) fn check_location(location: &str) -> Result<(), Refusal> {
    if LOCATIONS.contains(&location) {
        return Ok(());
    }
    Err(invalid_argument(&format!(
        "Location [{location}] is not supported."
    )))
}

/// Whether this is a valid secret id: at most 255 letters, digits, hyphens and underscores
/// ([`secretId`](https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets/create#query-parameters)).
pub(super) fn is_secret_id(id: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=255).contains(&id.len()) && id.bytes().all(known)
}

/// The location of the data.
#[derive(Clone)]
pub(super) enum Replication {
    /// Anywhere.
    Automatic { key: Option<String> },
    /// In the location in the secret's name.
    Regional { key: Option<String> },
    /// In these locations.
    UserManaged(Vec<(String, Option<String>)>),
}

impl Replication {
    /// All keys of the customer.
    pub(super) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Automatic { key } | Self::Regional { key } => {
                key.iter().map(String::as_str).collect()
            }
            Self::UserManaged(replicas) => replicas
                .iter()
                .filter_map(|(_, key)| key.as_deref())
                .collect(),
        }
    }

    /// The form in a secret (`policy`) or in one of its versions: with the names of keys, or of key
    /// versions.
    fn render(&self, policy: bool) -> Option<Value> {
        let encryption = |mut parent: Value, key: &Option<String>| {
            if let Some(key) = key {
                parent["customerManagedEncryption"] = if policy {
                    json!({"kmsKeyName": key})
                } else {
                    json!({"kmsKeyVersionName": format!("{key}/cryptoKeyVersions/1")})
                };
            }
            parent
        };
        match self {
            Self::Automatic { key } => Some(json!({"automatic": encryption(json!({}), key)})),
            Self::Regional { .. } => None,
            Self::UserManaged(replicas) => {
                let replicas: Vec<_> = replicas
                    .iter()
                    .map(|(location, key)| encryption(json!({"location": location}), key))
                    .collect();
                Some(json!({"userManaged": {"replicas": replicas}}))
            }
        }
    }

    /// The location and the keys of a version.
    pub(super) fn describe_version(&self, version: &mut Map<String, Value>) {
        if let Some(status) = self.render(false) {
            version.insert("replicationStatus".to_owned(), status);
        }
        if let Self::Regional { key: Some(key) } = self {
            let status = json!({"kmsKeyVersionName": format!("{key}/cryptoKeyVersions/1")});
            version.insert("customerManagedEncryption".to_owned(), status);
        }
    }
}

/// The settings of a secret.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) replication: Replication,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) aliases: BTreeMap<String, i64>,
    pub(super) expires: Option<OffsetDateTime>,
}

impl Settings {
    /// The settings of a new secret.
    pub(super) fn create(
        secret: &Map<String, Value>,
        location: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<Self, Refusal> {
        check_absent(secret)?;
        if secret.contains_key("versionAliases") {
            return Err(invalid_argument(
                "Version aliases must point to existing versions, and a new secret has none.",
            ));
        }
        Ok(Self {
            replication: replication(secret, location)?,
            labels: labels(secret)?,
            annotations: annotations(secret)?,
            aliases: BTreeMap::new(),
            expires: expires(secret, now)?,
        })
    }

    /// Changes the fields in the mask to the values of the message, or removes those that the
    /// message lacks.
    pub(super) fn update(
        &mut self,
        secret: &Map<String, Value>,
        mask: &str,
        versions: i64,
        now: OffsetDateTime,
    ) -> Result<(), Refusal> {
        if mask.is_empty() {
            return Err(invalid_argument("Field [update_mask] is required."));
        }
        check_absent(secret)?;
        for path in mask.split(',').map(str::trim) {
            match schema::snake(path).as_str() {
                "annotations" => self.annotations = annotations(secret)?,
                "expiration" | "expire_time" | "ttl" => self.expires = expires(secret, now)?,
                "labels" => self.labels = labels(secret)?,
                "version_aliases" => self.aliases = aliases(secret, versions)?,
                "rotation" | "topics" | "version_destroy_ttl" => {
                    return Err(unimplemented("such field"));
                }
                "create_time"
                | "customer_managed_encryption"
                | "etag"
                | "name"
                | "replication"
                | "tags" => {
                    return Err(invalid_argument(&format!(
                        "Field [{path}] cannot be updated."
                    )));
                }
                _ => {
                    return Err(invalid_argument(&format!(
                        "Invalid update_mask: there is no field [{path}]."
                    )));
                }
            }
        }
        Ok(())
    }

    /// The fields of a secret from its settings.
    pub(super) fn render(&self, secret: &mut Map<String, Value>) {
        let mut put = |name: &str, value: Value| {
            secret.insert(name.to_owned(), value);
        };
        if let Some(replication) = self.replication.render(true) {
            put("replication", replication);
        }
        if let Replication::Regional { key: Some(key) } = &self.replication {
            put("customerManagedEncryption", json!({"kmsKeyName": key}));
        }
        // Empty fields are omitted.
        if !self.labels.is_empty() {
            put("labels", json!(self.labels));
        }
        if !self.annotations.is_empty() {
            put("annotations", json!(self.annotations));
        }
        if !self.aliases.is_empty() {
            // Numbers of 64 bits are strings in JSON.
            let aliases: BTreeMap<_, _> = self
                .aliases
                .iter()
                .map(|(alias, version)| (alias, version.to_string()))
                .collect();
            put("versionAliases", json!(aliases));
        }
        if let Some(expires) = self.expires {
            put("expireTime", Value::from(rfc3339(expires)));
        }
    }
}

/// A time in the service's format.
pub(super) fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

fn check_absent(secret: &Map<String, Value>) -> Result<(), Refusal> {
    for (field, what) in [
        ("rotation", "rotation"),
        ("tags", "tags"),
        ("topics", "Pub/Sub topics"),
        ("versionDestroyTtl", "delayed destruction"),
    ] {
        let empty = match secret.get(field) {
            None => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(entries)) => entries.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(unimplemented(what));
        }
    }
    Ok(())
}

/// [Required and immutable](https://cloud.google.com/secret-manager/docs/choosing-replication) for
/// a global secret. A regional one must not have it, and the service
/// [says so](https://github.com/airbytehq/airbyte/issues/73660).
fn replication(
    secret: &Map<String, Value>,
    location: Option<&str>,
) -> Result<Replication, Refusal> {
    let policy = secret.get("replication").and_then(Value::as_object);
    let own_key = key(secret)?;
    if let Some(location) = location {
        if policy.is_some() {
            return Err(invalid_argument(
                "Secret.replication should not be provided.",
            ));
        }
        if let Some(key) = &own_key {
            check_key_location(key, location)?;
        }
        return Ok(Replication::Regional { key: own_key });
    }
    if own_key.is_some() {
        return Err(invalid_argument(
            "Secret.customer_managed_encryption should not be provided for a global secret.",
        ));
    }
    let policy = policy.filter(|policy| !policy.is_empty());
    let policy =
        policy.ok_or_else(|| invalid_argument("Field [secret.replication] is required."))?;
    if let Some(automatic) = policy.get("automatic").and_then(Value::as_object) {
        let key = key(automatic)?;
        if let Some(key) = &key {
            // The message is from
            // https://github.com/GoogleCloudPlatform/terraform-google-secret-manager/pull/74.
            if key_location(key) != Some("global") {
                return Err(invalid_argument(&format!(
                    "Automatic replication policy can only be configured with Cloud KMS keys in location [global]. \
                     Requested: [{key}]"
                )));
            }
        }
        return Ok(Replication::Automatic { key });
    }
    let replicas = policy
        .get("userManaged")
        .and_then(|managed| managed.get("replicas"))
        .and_then(Value::as_array)
        .filter(|replicas| !replicas.is_empty())
        .ok_or_else(|| {
            invalid_argument("Field [secret.replication.user_managed.replicas] is required.")
        })?;
    let mut locations = Vec::new();
    for replica in replicas.iter().filter_map(Value::as_object) {
        let location = replica
            .get("location")
            .and_then(Value::as_str)
            .unwrap_or_default();
        check_location(location)?;
        if locations.iter().any(|(other, _)| other == location) {
            return Err(invalid_argument(&format!(
                "Location [{location}] is given more than once."
            )));
        }
        let key = key(replica)?;
        if let Some(key) = &key {
            check_key_location(key, location)?;
        }
        locations.push((location.to_owned(), key));
    }
    // https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets#replica
    let keys = locations.iter().filter(|(_, key)| key.is_some()).count();
    if keys != 0 && keys != locations.len() {
        return Err(invalid_argument(
            "Customer-managed encryption must be configured for all replicas or for none.",
        ));
    }
    Ok(Replication::UserManaged(locations))
}

/// The name of the customer's key: `projects/*/locations/*/keyRings/*/cryptoKeys/*`.
fn key(parent: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    let Some(encryption) = parent.get("customerManagedEncryption") else {
        return Ok(None);
    };
    let key = encryption
        .get("kmsKeyName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if key_location(key).is_none() {
        return Err(invalid_argument(&format!(
            "Resource ID [{key}] is not in a valid format: \
             projects/*/locations/*/keyRings/*/cryptoKeys/* is expected."
        )));
    }
    Ok(Some(key.to_owned()))
}

fn key_location(key: &str) -> Option<&str> {
    let parts: Vec<_> = key.split('/').collect();
    match parts.as_slice() {
        [
            "projects",
            _,
            "locations",
            location,
            "keyRings",
            _,
            "cryptoKeys",
            _,
        ] if parts.iter().all(|part| !part.is_empty()) => Some(location),
        _ => None,
    }
}

/// [A key must be where the data is](https://cloud.google.com/secret-manager/docs/cmek).
fn check_key_location(key: &str, location: &str) -> Result<(), Refusal> {
    if key_location(key) == Some(location) {
        return Ok(());
    }
    Err(invalid_argument(&format!(
        "The Cloud KMS key must be in location [{location}]. Requested: [{key}]"
    )))
}

/// [The rules](https://cloud.google.com/secret-manager/docs/add-labels-to-secrets): at most 64
/// labels; keys of 1 to 63 characters that begin with a lowercase or international letter, values
/// of at most 63; lowercase or international letters, digits, underscores and dashes; 128 bytes.
fn labels(secret: &Map<String, Value>) -> Result<BTreeMap<String, String>, Refusal> {
    let labels = texts(secret, "labels");
    if labels.len() > 64 {
        return Err(invalid_argument(
            "No more than 64 labels can be assigned to a secret.",
        ));
    }
    let letter = |character: char| character.is_alphabetic() && !character.is_uppercase();
    let allowed =
        |character: char| letter(character) || character.is_numeric() || "_-".contains(character);
    let sized = |text: &str| text.chars().count() <= 63 && text.len() <= 128;
    for (key, value) in &labels {
        if !sized(key) || !key.starts_with(letter) || !key.chars().all(allowed) {
            return Err(invalid_argument(&format!(
                "Label key [{key}] is invalid. It must match [\\p{{Ll}}\\p{{Lo}}][\\p{{Ll}}\\p{{Lo}}\\p{{N}}_-]{{0,62}}."
            )));
        }
        if !sized(value) || !value.chars().all(allowed) {
            return Err(invalid_argument(&format!(
                "The value of label [{key}] is invalid. It must match [\\p{{Ll}}\\p{{Lo}}\\p{{N}}_-]{{0,63}}."
            )));
        }
    }
    Ok(labels)
}

/// [The
/// rules](https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets#resource:-secret):
/// keys of 1 to 63 characters, with letters and digits at both ends, and dashes, underscores and
/// dots between; less than 16 KiB in total.
fn annotations(secret: &Map<String, Value>) -> Result<BTreeMap<String, String>, Refusal> {
    let annotations = texts(secret, "annotations");
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    for key in annotations.keys() {
        let bytes = key.as_bytes();
        let valid = bytes.len() <= 63
            && end(bytes.first())
            && end(bytes.last())
            && bytes.iter().copied().all(inner);
        if !valid {
            return Err(invalid_argument(&format!(
                "Annotation key [{key}] is invalid."
            )));
        }
    }
    let size: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if size >= 16 * 1024 {
        return Err(invalid_argument(
            "The total size of annotation keys and values must be less than 16KiB.",
        ));
    }
    Ok(annotations)
}

/// [The rules](https://cloud.google.com/secret-manager/docs/assign-alias-to-secret-version): at
/// most 50, for existing versions; letters, digits, hyphens and underscores, beginning with a
/// letter, neither `latest` nor `NEW`.
fn aliases(secret: &Map<String, Value>, versions: i64) -> Result<BTreeMap<String, i64>, Refusal> {
    let mut aliases = BTreeMap::new();
    let given = secret.get("versionAliases").and_then(Value::as_object);
    for (alias, version) in given.into_iter().flatten() {
        let version = version.as_i64().unwrap_or_default();
        if !is_alias(alias) {
            return Err(invalid_argument(&format!(
                "Version alias [{alias}] is invalid."
            )));
        }
        if !(1..=versions).contains(&version) {
            return Err(invalid_argument(&format!(
                "Version alias [{alias}] points to version [{version}], which does not exist."
            )));
        }
        aliases.insert(alias.clone(), version);
    }
    if aliases.len() > 50 {
        return Err(invalid_argument(
            "No more than 50 aliases can be assigned to a secret.",
        ));
    }
    Ok(aliases)
}

pub(super) fn is_alias(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && is_secret_id(text)
        && text != "latest"
        && text != "NEW"
}

/// [Between a minute and a hundred years](https://cloud.google.com/secret-manager/docs/creating-and-managing-expiring-secrets#limitations)
/// from now.
fn expires(
    secret: &Map<String, Value>,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, Refusal> {
    let text = |field: &str| secret.get(field).and_then(Value::as_str);
    let expires = if let Some(ttl) = text("ttl").and_then(schema::duration) {
        now.checked_add(ttl)
    } else if let Some(time) = text("expireTime") {
        schema::timestamp(time)
    } else {
        return Ok(None);
    };
    let expires = expires.filter(|expires| {
        *expires >= now + Duration::seconds(60) && *expires <= now + Duration::days(36_525)
    });
    match expires {
        Some(expires) => Ok(Some(expires)),
        None => Err(invalid_argument(
            "The expiration of a secret cannot be less than 60 seconds away or more than 100 years away.",
        )),
    }
}

fn texts(secret: &Map<String, Value>, field: &str) -> BTreeMap<String, String> {
    let given = secret.get(field).and_then(Value::as_object);
    given
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
