//! The secrets of a vault, and the states of a name.
//!
//! ```text
//!            delete              time                recover            time
//!   active ─────────▶ deleting ───────▶ deleted ───────────▶ recovering ───────▶ active
//!                                          │ purge          time
//!                                          └───────▶ purging ───────▶ (gone)
//! ```
//!
//! See <https://learn.microsoft.com/azure/key-vault/general/soft-delete-overview>.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{refusal::Refusal, request::Content};
use crate::azure::{clock::unix_now, switches::Switches};

/// The default number of days in which a deleted secret can be recovered.
const RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);

type Result<T> = std::result::Result<T, Refusal>;

/// All secrets, by name in lower case: names ignore case,
/// <https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#vault-name-and-object-name>.
#[derive(Default)]
pub(super) struct Secrets(BTreeMap<String, Secret>);

pub(super) struct Secret {
    /// The name as it was first written.
    pub(super) name: String,
    pub(super) deleted: Option<Deleted>,
    state: State,
    // The oldest first; never empty.
    versions: Vec<Version>,
    // When listings begin and end to show it.
    listed_from: Instant,
    listed_until: Option<Instant>,
}

pub(super) struct Version {
    pub(super) id: String,
    pub(super) value: String,
    pub(super) content: Content,
    pub(super) created: i64,
    pub(super) updated: i64,
}

/// The times of its deletion and of its final removal.
#[derive(Clone, Copy)]
pub(super) struct Deleted {
    pub(super) at: i64,
    pub(super) purged: i64,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Active,
    Deleted,
    Deleting(Instant),
    Purging(Instant),
    Recovering(Instant),
}

impl Secrets {
    /// Writes a version: the first one, or another one of an existing secret.
    pub(super) fn set(
        &mut self,
        name: &str,
        value: String,
        content: Content,
        switches: &Switches,
    ) -> Result<(&Secret, &Version)> {
        self.settled(name);
        let now = unix_now();
        let version = Version {
            id: uuid::Uuid::new_v4().simple().to_string(),
            value,
            content,
            created: now,
            updated: now,
        };
        let secret = self.0.entry(key(name)).or_insert_with(|| Secret {
            name: name.to_owned(),
            deleted: None,
            state: State::Active,
            versions: Vec::new(),
            listed_from: Instant::now() + switches.list_lag,
            listed_until: None,
        });
        match secret.state {
            State::Active => (),
            State::Deleted => return Err(Refusal::deleted(&secret.name)),
            State::Deleting(_) | State::Purging(_) => {
                return Err(Refusal::name_being_deleted(&secret.name));
            }
            State::Recovering(_) => return Err(Refusal::being_recovered(&secret.name)),
        }
        secret.versions.push(version);
        Ok((secret, secret.latest()))
    }

    /// Reads a version: the newest or a given one.
    pub(super) fn get(
        &mut self,
        name: &str,
        version: Option<&str>,
        disabled: &BTreeSet<String>,
    ) -> Result<(&Secret, &Version)> {
        let secret = self.active(name)?;
        let found = secret.version(version)?;
        // Neither `nbf` nor `exp` prevents reading a value, only this does:
        // https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#date-time-controlled-operations
        if !found.content.enabled || disabled.contains(&key(name)) {
            return Err(Refusal::disabled());
        }
        Ok((secret, found))
    }

    /// Changes the attributes of a version, also of a disabled one, which can thus be enabled.
    pub(super) fn update(
        &mut self,
        name: &str,
        version: Option<&str>,
        change: impl FnOnce(&mut Content),
    ) -> Result<(&Secret, &Version)> {
        let secret = match self.settled(name) {
            Some(secret) if secret.state == State::Active => secret,
            _ => return Err(Refusal::not_found(name)),
        };
        let index = secret.index(version)?;
        let found = &mut secret.versions[index];
        change(&mut found.content);
        found.updated = unix_now();
        Ok((secret, &secret.versions[index]))
    }

    /// Begins to delete a secret with all its versions.
    pub(super) fn delete(
        &mut self,
        name: &str,
        switches: &Switches,
    ) -> Result<(&Secret, &Version)> {
        let Some(secret) = self.settled(name) else {
            return Err(Refusal::not_found(name));
        };
        match secret.state {
            State::Active => (),
            State::Deleting(_) => return Err(Refusal::being_deleted()),
            State::Recovering(_) => return Err(Refusal::being_recovered(&secret.name)),
            State::Deleted | State::Purging(_) => return Err(Refusal::not_found(name)),
        }
        let now = unix_now();
        let retention = i64::try_from(RETENTION.as_secs()).expect("90 days");
        secret.deleted = Some(Deleted {
            at: now,
            purged: now + retention,
        });
        secret.state = State::Deleting(Instant::now() + switches.deleting);
        secret.listed_until = Some(Instant::now() + switches.list_lag);
        Ok((secret, secret.latest()))
    }

    /// Returns a secret that can be recovered or purged.
    pub(super) fn get_deleted(
        &mut self,
        name: &str,
        disabled: &BTreeSet<String>,
    ) -> Result<(&Secret, &Version)> {
        let secret = self.recoverable(name)?;
        // Seen in the recordings of https://github.com/Azure/azure-sdk-for-js: the same refusal as
        // for an existing one.
        if !secret.latest().content.enabled || disabled.contains(&key(name)) {
            return Err(Refusal::disabled());
        }
        Ok((secret, secret.latest()))
    }

    /// Begins to recover a deleted secret with all its versions.
    pub(super) fn recover(
        &mut self,
        name: &str,
        switches: &Switches,
    ) -> Result<(&Secret, &Version)> {
        let secret = self.deleted_for_change(name)?;
        secret.state = State::Recovering(Instant::now() + switches.recovering);
        secret.deleted = None;
        secret.listed_from = Instant::now() + switches.recovering + switches.list_lag;
        secret.listed_until = None;
        Ok((secret, secret.latest()))
    }

    /// Begins to delete a deleted secret permanently.
    pub(super) fn purge(&mut self, name: &str, vault: &str, switches: &Switches) -> Result<()> {
        let secret = self.deleted_for_change(name)?;
        if switches.purge_protection {
            return Err(Refusal::purge_protected(vault));
        }
        secret.state = State::Purging(Instant::now() + switches.purging);
        Ok(())
    }

    /// The secrets after this name, sorted by their names in lower case, with their keys. Listings
    /// lag: a new secret may be missing, and a deleted one may still be there.
    pub(super) fn listed(&mut self, after: Option<&str>) -> Vec<(&str, &Secret)> {
        self.settle();
        let now = Instant::now();
        self.after(after)
            .filter(|(_, secret)| {
                let alive = secret.state == State::Active && secret.listed_from <= now;
                alive || secret.listed_until.is_some_and(|until| now < until)
            })
            .collect()
    }

    /// The deleted secrets after this name, likewise.
    pub(super) fn listed_deleted(&mut self, after: Option<&str>) -> Vec<(&str, &Secret)> {
        self.settle();
        self.after(after)
            .filter(|(_, secret)| secret.state == State::Deleted)
            .collect()
    }

    /// The versions of a secret.
    pub(super) fn versions(&mut self, name: &str) -> Result<(&Secret, &[Version])> {
        let secret = self.active(name)?;
        Ok((secret, &secret.versions))
    }

    fn after(&self, after: Option<&str>) -> impl Iterator<Item = (&str, &Secret)> {
        self.0
            .iter()
            .map(|(key, secret)| (key.as_str(), secret))
            .filter(move |(key, _)| after.is_none_or(|after| *key > after))
    }

    /// While a secret is being deleted, purged or recovered, it does not exist for readers:
    /// <https://github.com/Azure/azure-sdk-for-net/issues/26027>.
    fn active(&mut self, name: &str) -> Result<&Secret> {
        match self.settled(name) {
            Some(secret) if secret.state == State::Active => Ok(secret),
            _ => Err(Refusal::not_found(name)),
        }
    }

    /// Nor is it among the deleted ones before the deletion is complete.
    fn recoverable(&mut self, name: &str) -> Result<&Secret> {
        match self.settled(name) {
            Some(secret) if secret.state == State::Deleted => Ok(secret),
            _ => Err(Refusal::deleted_not_found(name)),
        }
    }

    fn deleted_for_change(&mut self, name: &str) -> Result<&mut Secret> {
        match self.settled(name) {
            Some(secret) => match secret.state {
                State::Deleted => Ok(secret),
                State::Deleting(_) | State::Purging(_) => Err(Refusal::being_deleted()),
                State::Recovering(_) => Err(Refusal::being_recovered(&secret.name)),
                State::Active => Err(Refusal::deleted_not_found(name)),
            },
            None => Err(Refusal::deleted_not_found(name)),
        }
    }

    /// The secret of this name, after finished transitions.
    fn settled(&mut self, name: &str) -> Option<&mut Secret> {
        let key = key(name);
        let now = Instant::now();
        if self.0.get_mut(&key)?.settle(now) == Settled::Gone {
            self.0.remove(&key);
        }
        self.0.get_mut(&key)
    }

    /// Ends all transitions whose time has passed.
    fn settle(&mut self) {
        let now = Instant::now();
        self.0
            .retain(|_, secret| secret.settle(now) == Settled::Here);
    }
}

#[derive(PartialEq)]
enum Settled {
    Gone,
    Here,
}

impl Secret {
    fn settle(&mut self, now: Instant) -> Settled {
        match self.state {
            State::Deleting(until) if until <= now => self.state = State::Deleted,
            State::Purging(until) if until <= now => return Settled::Gone,
            State::Recovering(until) if until <= now => self.state = State::Active,
            _ => (),
        }
        Settled::Here
    }

    pub(super) fn latest(&self) -> &Version {
        self.versions.last().expect("a secret has a version")
    }

    fn version(&self, id: Option<&str>) -> Result<&Version> {
        Ok(&self.versions[self.index(id)?])
    }

    fn index(&self, id: Option<&str>) -> Result<usize> {
        match id {
            None => Ok(self.versions.len() - 1),
            Some(id) => self
                .versions
                .iter()
                .position(|version| version.id.eq_ignore_ascii_case(id))
                .ok_or_else(|| Refusal::not_found(&format!("{}/{id}", self.name))),
        }
    }
}

fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}
