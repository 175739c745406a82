//! The stored data.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::{
    crc32c::crc32c,
    resource::{Settings, rfc3339},
    route::Target,
};

/// All secrets of the project.
pub(super) struct Store {
    pub(super) project: String,
    pub(super) number: u64,
    secrets: BTreeMap<String, Secret>,
    /// The secrets that listings still show.
    gone: Vec<Gone>,
    etags: u64,
}

pub(super) struct Secret {
    /// The full name, with the project's number.
    pub(super) name: String,
    parent: String,
    pub(super) settings: Settings,
    pub(super) created: OffsetDateTime,
    pub(super) etag: String,
    pub(super) policy: Value,
    /// The first version has the number 1.
    pub(super) versions: Vec<Version>,
}

pub(super) struct Version {
    pub(super) created: OffsetDateTime,
    pub(super) destroyed: Option<OffsetDateTime>,
    pub(super) state: State,
    pub(super) etag: String,
    pub(super) data: Vec<u8>,
    pub(super) checksum: u32,
    /// Whether the client sent a checksum.
    pub(super) checksum_given: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Destroyed,
    Disabled,
    Enabled,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Destroyed => "DESTROYED",
            Self::Disabled => "DISABLED",
            Self::Enabled => "ENABLED",
        }
    }

    /// The number in the enumeration's definition.
    fn number(self) -> u8 {
        match self {
            Self::Enabled => 1,
            Self::Disabled => 2,
            Self::Destroyed => 3,
        }
    }
}

struct Gone {
    parent: String,
    rendered: Map<String, Value>,
    created: OffsetDateTime,
    deleted: OffsetDateTime,
}

impl Store {
    pub(super) fn new(project: String, number: u64) -> Self {
        Self {
            project,
            number,
            secrets: BTreeMap::new(),
            gone: Vec::new(),
            etags: 0x0006_0000_0000_0000,
        }
    }

    /// The name with the project's number, whichever form the request used.
    pub(super) fn name(&self, target: &Target) -> String {
        target.name(&self.number.to_string())
    }

    pub(super) fn is_project(&self, project: &str) -> bool {
        project == self.project || project == self.number.to_string()
    }

    pub(super) fn next_etag(&mut self) -> String {
        self.etags += 1;
        // The quotation marks are part of it: https://cloud.google.com/secret-manager/docs/etags.
        format!("\"{:x}\"", self.etags)
    }

    pub(super) fn get(&mut self, name: &str, now: OffsetDateTime) -> Option<&mut Secret> {
        self.expire(now);
        self.secrets.get_mut(name)
    }

    pub(super) fn insert(
        &mut self,
        name: String,
        parent: String,
        settings: Settings,
        now: OffsetDateTime,
    ) {
        let secret = Secret {
            name: name.clone(),
            parent,
            settings,
            created: now,
            etag: self.next_etag(),
            policy: json!({"etag": "ACAB"}),
            versions: Vec::new(),
        };
        self.secrets.insert(name, secret);
    }

    pub(super) fn remove(&mut self, name: &str, now: OffsetDateTime) {
        if let Some(secret) = self.secrets.remove(name) {
            self.gone.push(Gone {
                rendered: secret.render(),
                parent: secret.parent,
                created: secret.created,
                deleted: now,
            });
        }
    }

    /// The secrets of a project or location in a listing, sorted by name.
    pub(super) fn list(
        &mut self,
        parent: &str,
        lag: Duration,
        now: OffsetDateTime,
    ) -> Vec<Map<String, Value>> {
        self.expire(now);
        let seen = now - lag;
        // No switch causes a longer lag.
        self.gone
            .retain(|gone| gone.deleted + Duration::from_secs(86_400) > now);
        let mut listed: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for gone in &self.gone {
            if gone.parent == parent && gone.created <= seen && gone.deleted > seen {
                let name = gone.rendered["name"].as_str().unwrap_or_default();
                listed.insert(name.to_owned(), gone.rendered.clone());
            }
        }
        for secret in self.secrets.values() {
            if secret.parent == parent && secret.created <= seen {
                listed.insert(secret.name.clone(), secret.render());
            }
        }
        listed.into_values().collect()
    }

    pub(super) fn names(&mut self, now: OffsetDateTime) -> Vec<String> {
        self.expire(now);
        self.secrets.keys().cloned().collect()
    }

    pub(super) fn versions(&mut self, name: &str, now: OffsetDateTime) -> Vec<(u64, String)> {
        let secret = self.get(name, now);
        let versions = secret.into_iter().flat_map(|secret| &secret.versions);
        (1..)
            .zip(versions)
            .map(|(number, version)| (number, version.state.name().to_owned()))
            .collect()
    }

    pub(super) fn age(&mut self, by: Duration) {
        for secret in self.secrets.values_mut() {
            secret.created -= by;
            if let Some(expires) = &mut secret.settings.expires {
                *expires -= by;
            }
            for version in &mut secret.versions {
                version.created -= by;
            }
        }
        for gone in &mut self.gone {
            gone.created -= by;
            gone.deleted -= by;
        }
    }

    /// Deletes
    /// [expired](https://cloud.google.com/secret-manager/docs/creating-and-managing-expiring-secrets)
    /// secrets.
    fn expire(&mut self, now: OffsetDateTime) {
        let expired: Vec<_> = self
            .secrets
            .values()
            .filter_map(|secret| {
                let expires = secret.settings.expires.filter(|expires| *expires <= now)?;
                Some((secret.name.clone(), expires))
            })
            .collect();
        for (name, expires) in expired {
            self.remove(&name, expires);
        }
    }
}

impl Secret {
    pub(super) fn render(&self) -> Map<String, Value> {
        let mut rendered = Map::new();
        rendered.insert("name".to_owned(), Value::from(self.name.as_str()));
        rendered.insert("createTime".to_owned(), Value::from(rfc3339(self.created)));
        rendered.insert("etag".to_owned(), Value::from(self.etag.as_str()));
        self.settings.render(&mut rendered);
        rendered
    }

    /// The version with this number.
    pub(super) fn version(&mut self, number: usize) -> Option<&mut Version> {
        self.versions.get_mut(number.checked_sub(1)?)
    }

    /// The number of the newest version that is older than this, whatever its state.
    pub(super) fn newest(&self, before: OffsetDateTime) -> Option<usize> {
        let newest = self
            .versions
            .iter()
            .rposition(|version| version.created <= before)?;
        Some(newest + 1)
    }

    pub(super) fn version_name(&self, number: usize) -> String {
        format!("{}/versions/{number}", self.name)
    }

    pub(super) fn render_version(&self, number: usize, numeric_enums: bool) -> Map<String, Value> {
        let mut rendered = Map::new();
        let Some(version) = number
            .checked_sub(1)
            .and_then(|index| self.versions.get(index))
        else {
            return rendered;
        };
        let mut put = |name: &str, value: Value| {
            rendered.insert(name.to_owned(), value);
        };
        put("name", Value::from(self.version_name(number)));
        put("createTime", Value::from(rfc3339(version.created)));
        if let Some(destroyed) = version.destroyed {
            put("destroyTime", Value::from(rfc3339(destroyed)));
        }
        let state = if numeric_enums {
            Value::from(version.state.number())
        } else {
            Value::from(version.state.name())
        };
        put("state", state);
        put("etag", Value::from(version.etag.as_str()));
        if version.checksum_given {
            put("clientSpecifiedPayloadChecksum", Value::from(true));
        }
        self.settings.replication.describe_version(&mut rendered);
        rendered
    }
}

impl Version {
    pub(super) fn new(
        data: Vec<u8>,
        checksum_given: bool,
        etag: String,
        now: OffsetDateTime,
    ) -> Self {
        Self {
            created: now,
            destroyed: None,
            state: State::Enabled,
            etag,
            checksum: crc32c(&data),
            data,
            checksum_given,
        }
    }
}
