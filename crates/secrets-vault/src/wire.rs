//! Request and response bodies: the JSON of the KV engine's API, with values in memory that is
//! wiped.
//!
//! <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2>

use std::collections::BTreeMap;
use std::fmt;

use secret_persistence_core::{Entry, ManagedCoordinate, SecretValue, Timestamp};
use serde::{Deserialize, Serialize};

/// Keys of the custom metadata (version 2 only).
const OWNER_KEY: &str = "airbyte-owner";
const EXPIRES_KEY: &str = "airbyte-expires";

#[derive(Serialize)]
pub(crate) struct Value<'a> {
    pub(crate) value: &'a str,
}

#[derive(Serialize)]
pub(crate) struct Create<'a> {
    pub(crate) options: CheckAndSet,
    pub(crate) data: Value<'a>,
}

#[derive(Serialize)]
pub(crate) struct CheckAndSet {
    pub(crate) cas: u32,
}

#[derive(Serialize)]
pub(crate) struct Versions {
    pub(crate) versions: [u64; 1],
}

#[derive(Serialize)]
pub(crate) struct CustomMetadata {
    pub(crate) custom_metadata: BTreeMap<&'static str, String>,
}

impl CustomMetadata {
    pub(crate) fn of(owner: Option<&str>, expires: Option<Timestamp>) -> Option<Self> {
        let owner = owner.map(|owner| (OWNER_KEY, owner.to_owned()));
        let expires = expires.map(|expires| (EXPIRES_KEY, expires.to_string()));
        let custom_metadata: BTreeMap<_, _> = owner.into_iter().chain(expires).collect();
        (!custom_metadata.is_empty()).then_some(Self { custom_metadata })
    }

    /// Whether a name already has exactly this metadata.
    pub(crate) fn equals(&self, metadata: &Metadata) -> bool {
        let present = metadata.custom_metadata.iter().flatten();
        present.map(|(key, value)| (key.as_str(), value)).eq(self
            .custom_metadata
            .iter()
            .map(|(&key, value)| (key, value)))
    }
}

#[derive(Deserialize)]
pub(crate) struct Wrapped<T> {
    pub(crate) data: T,
}

#[derive(Deserialize)]
pub(crate) struct Versioned {
    pub(crate) data: Option<Fields>,
    pub(crate) metadata: Option<Version>,
}

/// The fields of a secret, each in memory that is wiped.
#[derive(Default, Deserialize)]
pub(crate) struct Fields(pub(crate) BTreeMap<String, Field>);

/// The text of a field, or `None` if it is not a string.
pub(crate) struct Field(pub(crate) Option<SecretValue>);

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Field;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Field, E> {
                Ok(Field(Some(SecretValue::new(text.to_owned()))))
            }
            fn visit_string<E>(self, text: String) -> Result<Field, E> {
                Ok(Field(Some(SecretValue::new(text))))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
                Ok(Field(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
                Ok(Field(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Field, E> {
                Ok(Field(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
                Ok(Field(None))
            }
            fn visit_unit<E>(self) -> Result<Field, E> {
                Ok(Field(None))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<Field, A::Error> {
                while items.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Field(None))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut entries: A,
            ) -> Result<Field, A::Error> {
                use serde::de::IgnoredAny;
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Field(None))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Deserialize)]
pub(crate) struct Version {
    #[serde(default)]
    pub(crate) created_time: String,
    #[serde(default)]
    pub(crate) deletion_time: String,
    #[serde(default)]
    pub(crate) destroyed: bool,
}

impl Version {
    /// The deletion time is in the future if `delete_version_after` is set.
    pub(crate) fn is_deleted(&self) -> bool {
        !self.deletion_time.is_empty()
            && self
                .deletion_time
                .parse()
                .map_or(true, |time: Timestamp| time <= Timestamp::now())
    }
}

#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) current_version: u64,
    #[serde(default)]
    pub(crate) created_time: String,
    pub(crate) custom_metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) versions: BTreeMap<u64, Version>,
}

impl Metadata {
    pub(crate) fn latest(&self) -> Option<&Version> {
        self.versions.get(&self.current_version)
    }

    /// The entry of a secret that has a version; `None` if its write was not completed.
    pub(crate) fn entry(&self, coordinate: ManagedCoordinate) -> Option<Entry> {
        let version = self.latest()?;
        let created = version
            .created_time
            .parse()
            .or_else(|_| self.created_time.parse())
            .ok();
        Some(
            self.custom(Entry::new(coordinate))
                .with_created(created)
                .with_pending_deletion(version.is_deleted() || version.destroyed),
        )
    }

    pub(crate) fn custom(&self, entry: Entry) -> Entry {
        let tags = self.custom_metadata.clone().unwrap_or_default();
        entry
            .with_owner(tags.get(OWNER_KEY).cloned())
            .with_expires(tags.get(EXPIRES_KEY).and_then(|text| text.parse().ok()))
            .with_created(self.created_time.parse().ok())
            .with_tags(tags)
    }
}

#[derive(Deserialize)]
pub(crate) struct Keys {
    pub(crate) keys: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Mount {
    pub(crate) path: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) options: Option<MountOptions>,
}

#[derive(Default, Deserialize)]
pub(crate) struct MountOptions {
    pub(crate) version: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Lookup {
    #[serde(default)]
    pub(crate) display_name: String,
    #[serde(default)]
    pub(crate) policies: Vec<String>,
}
