//! What a refresh will write, and where it belongs, without values.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::request::Refresh;
use super::rows::Ended;
use crate::connector::error::{ConnectorError, Problem};
use crate::connector::place::Place;
use crate::connector::pointer::{Pointer, visit_pointers};
use crate::connector::{Record, RecordState};
use crate::{Coordinate, Location, ManagedCoordinate, Scope, StorageId, Timestamp};

/// The open record of a refresh: for each place the pointer that it replaces and the name that the
/// new value gets. It is stored before the exchange, so that new values are found and adopted after
/// a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Versioned", into = "Versioned")]
pub struct RefreshRecord {
    planned: Timestamp,
    targets: Vec<RefreshTarget>,
    probe: Option<Location<ManagedCoordinate>>,
}

/// One place of a refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RefreshTarget {
    /// The place.
    pub place: Place,
    /// The pointer that it had, or `null`.
    pub from: Value,
    /// The name of the new value.
    pub to: Location<ManagedCoordinate>,
    /// The secret to delete once the new value is saved; `None` if it is not ours.
    pub supersedes: Option<Location<ManagedCoordinate>>,
}

impl RefreshTarget {
    fn plan(
        place: &Place,
        from: &Value,
        scope: &Scope,
        storage_id: Option<&StorageId>,
    ) -> Result<Self, ConnectorError> {
        let old = Pointer::parse(from).and_then(Result::ok);
        let old = old.and_then(|pointer| {
            let location = Location::new(pointer.coordinate?);
            location.with_storage_id(pointer.storage_id).managed()
        });
        let supersedes = old.filter(|old| scope.contains(&old.coordinate));
        let version = supersedes
            .as_ref()
            .map_or(1, |old| old.coordinate.version().saturating_add(1));
        let id = Uuid::new_v4();
        // The UUID makes the name unique, as in a split.
        let to = ManagedCoordinate::new(scope, id, version)
            .or_else(|_| ManagedCoordinate::new(scope, id, 1))
            .map_err(|error| Problem::of_store(place.clone(), error))?;
        Ok(Self {
            place: place.clone(),
            from: from.clone(),
            to: Location::new(to).with_storage_id(storage_id.cloned()),
            supersedes,
        })
    }

    /// The pointer to the new value.
    pub(super) fn pointer(&self) -> Pointer {
        Pointer::new(Coordinate::Managed(self.to.coordinate.clone()))
            .with_storage_id(self.to.storage_id.clone())
    }
}

impl RefreshRecord {
    /// Gives every place of a refresh a new name, and one to a probe of the store.
    pub(super) fn plan(
        refresh: &Refresh,
        storage_id: Option<&StorageId>,
        probes: bool,
    ) -> Result<Self, ConnectorError> {
        let probe = if probes {
            let place = refresh.seen[0].0.clone();
            let name = ManagedCoordinate::new(&refresh.scope, Uuid::new_v4(), 1)
                .map_err(|error| Problem::of_store(place, error))?;
            Some(Location::new(name).with_storage_id(storage_id.cloned()))
        } else {
            None
        };
        let targets = refresh
            .seen
            .iter()
            .map(|(place, from)| RefreshTarget::plan(place, from, &refresh.scope, storage_id));
        Ok(Self {
            planned: Timestamp::now(),
            targets: targets.collect::<Result<_, _>>()?,
            probe,
        })
    }

    /// The places, in the order of the refresh.
    #[must_use]
    pub fn targets(&self) -> &[RefreshTarget] {
        &self.targets
    }

    /// What is written before the exchange, to prove that the store takes writes, and deleted.
    #[must_use]
    pub fn probe(&self) -> Option<&Location<ManagedCoordinate>> {
        self.probe.as_ref()
    }

    /// The probe is deleted.
    pub(super) fn forget_probe(&mut self) {
        self.probe = None;
    }

    /// When the refresh was planned.
    #[must_use]
    pub fn planned(&self) -> Timestamp {
        self.planned
    }

    /// The end of adopted values: what they supersede is deleted, unless the new configuration
    /// still has it.
    pub(super) fn saved(&self, adopted: &[&RefreshTarget], config: &Value) -> Ended {
        let mut kept = Vec::new();
        // The configuration has been walked before.
        let _ = visit_pointers(config, &mut |_, pointer| {
            kept.extend(pointer.ok().and_then(|pointer| pointer.coordinate));
        });
        let is_kept = |old: &Location<ManagedCoordinate>| {
            kept.iter()
                .any(|kept| kept.as_str() == old.coordinate.as_str())
        };
        let writes = adopted.iter().map(|target| target.to.clone()).collect();
        let old = adopted
            .iter()
            .filter_map(|target| target.supersedes.clone());
        let mut supersedes: Vec<_> = old.filter(|old| !is_kept(old)).collect();
        supersedes.sort();
        supersedes.dedup();
        // Retention counts from now.
        let record = Record::new(Timestamp::now(), writes, supersedes);
        Ended::new(Uuid::new_v4(), record, RecordState::Saved)
    }

    /// The end of names that no row will ever have; `None` if there are none.
    pub(super) fn abandoned(&self, targets: &[&RefreshTarget]) -> Option<Ended> {
        let names = targets.iter().map(|target| target.to.clone());
        let writes: Vec<_> = names.chain(self.probe.clone()).collect();
        if writes.is_empty() {
            return None;
        }
        // A write may be in flight for the whole deadline from now.
        let record = Record::new(Timestamp::now(), writes, Vec::new());
        Some(Ended::new(Uuid::new_v4(), record, RecordState::Abandoned))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "format")]
enum Versioned {
    #[serde(rename = "1")]
    One(Fields),
    /// With a probe. A version that does not know probes must not take it for the format that it
    /// knows.
    #[serde(rename = "2")]
    Two(Fields),
}

/// Of both formats: probes were written in the first one for a while.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    planned: Timestamp,
    targets: Vec<RefreshTarget>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probe: Option<Location<ManagedCoordinate>>,
}

impl From<Versioned> for RefreshRecord {
    fn from((Versioned::One(fields) | Versioned::Two(fields)): Versioned) -> Self {
        Self {
            planned: fields.planned,
            targets: fields.targets,
            probe: fields.probe,
        }
    }
}

impl From<RefreshRecord> for Versioned {
    fn from(record: RefreshRecord) -> Self {
        let fields = Fields {
            planned: record.planned,
            targets: record.targets,
            probe: record.probe,
        };
        if fields.probe.is_some() {
            Self::Two(fields)
        } else {
            Self::One(fields)
        }
    }
}
