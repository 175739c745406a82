//! What a staged change will write and supersede, without values, for the caller's outbox.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Location, ManagedCoordinate, StorageId, Timestamp};

/// An entry of the caller's outbox: storage ids and coordinates of one staged change, no values.
///
/// The caller stores it as `open` before staging and sets it to `saved` in the transaction that
/// saves the configuration. A healer sets it to `abandoned` before it heals. Each is a
/// compare-and-swap, so that only one of them succeeds. The format has a version; an unknown
/// version is an error.
///
/// ```
/// use secret_persistence_core::connector::Record;
///
/// let text = r#"{"format":"1","planned":"2026-11-21T06:47:53Z",
///     "writes":[{"coordinate":"airbyte_workspace_1_secret_2_v1"}],"supersedes":[]}"#;
/// let record: Record = serde_json::from_str(text)?;
/// assert_eq!(record.writes()[0].coordinate.as_str(), "airbyte_workspace_1_secret_2_v1");
/// let newer = text.replace(r#""format":"1""#, r#""format":"2""#);
/// assert!(serde_json::from_str::<Record>(&newer).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Versioned", into = "Versioned")]
pub struct Record {
    planned: Timestamp,
    writes: Vec<Location<ManagedCoordinate>>,
    supersedes: Vec<Location<ManagedCoordinate>>,
}

impl Record {
    pub(super) fn new(
        planned: Timestamp,
        writes: Vec<Location<ManagedCoordinate>>,
        supersedes: Vec<Location<ManagedCoordinate>>,
    ) -> Self {
        Self {
            planned,
            writes,
            supersedes,
        }
    }

    /// Creates the record of a change that is planned now, writes these secrets and supersedes
    /// nothing, for callers that write under new names themselves and heal like after any other
    /// change.
    #[must_use]
    pub fn of_writes(writes: Vec<Location<ManagedCoordinate>>) -> Self {
        Self::new(Timestamp::now(), writes, Vec::new())
    }

    /// When the change was planned.
    #[must_use]
    pub fn planned(&self) -> Timestamp {
        self.planned
    }

    /// The secrets that the change writes, all under new names.
    #[must_use]
    pub fn writes(&self) -> &[Location<ManagedCoordinate>] {
        &self.writes
    }

    /// The secrets that are superseded once the change is saved.
    #[must_use]
    pub fn supersedes(&self) -> &[Location<ManagedCoordinate>] {
        &self.supersedes
    }

    /// Whether there is never anything to heal, so that the caller need not store it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.supersedes.is_empty()
    }

    /// The end of a duration that began when the change was planned, if `now` is before it.
    pub(super) fn before(&self, duration: Duration, now: Timestamp) -> Option<Timestamp> {
        let end = self.planned.saturating_add(duration);
        (now < end).then_some(end)
    }
}

/// The outcome of a change, for [`heal`].
///
/// [`heal`]: crate::connector::ActingSecrets::heal
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// The healer has claimed it: it will never be saved.
    Abandoned,
    /// The configuration was saved.
    Saved,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "format")]
enum Versioned {
    #[serde(rename = "1")]
    One(One),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    planned: Timestamp,
    writes: Vec<Location<ManagedCoordinate>>,
    supersedes: Vec<Location<ManagedCoordinate>>,
}

impl From<Versioned> for Record {
    fn from(Versioned::One(one): Versioned) -> Self {
        Self::new(one.planned, one.writes, one.supersedes)
    }
}

impl From<Record> for Versioned {
    fn from(record: Record) -> Self {
        Self::One(One {
            planned: record.planned,
            writes: record.writes,
            supersedes: record.supersedes,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLocation<T> {
    coordinate: T,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    storage_id: Option<T>,
}

impl Serialize for Location<ManagedCoordinate> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawLocation {
            coordinate: self.coordinate.as_str(),
            storage_id: self.storage_id.as_ref().map(StorageId::as_str),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Location<ManagedCoordinate> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawLocation::<String>::deserialize(deserializer)?;
        let coordinate =
            ManagedCoordinate::parse(&raw.coordinate).map_err(serde::de::Error::custom)?;
        let storage_id = raw
            .storage_id
            .map(|id| StorageId::parse(&id))
            .transpose()
            .map_err(serde::de::Error::custom)?;
        Ok(Self::new(coordinate).with_storage_id(storage_id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Record {
        let location =
            |name: &str| Location::new(ManagedCoordinate::parse(name).expect("a coordinate"));
        Record::new(
            "2026-11-21T06:47:53Z".parse().unwrap(),
            vec![location("airbyte_w_v2")],
            vec![
                location("airbyte_w_v1").with_storage_id(Some(StorageId::parse("other").unwrap())),
            ],
        )
    }

    #[test]
    fn text_round_trips_and_says_its_form() {
        let text = json!({
            "format": "1",
            "planned": "2026-11-21T06:47:53Z",
            "writes": [{"coordinate": "airbyte_w_v2"}],
            "supersedes": [{"coordinate": "airbyte_w_v1", "storage_id": "other"}],
        });
        assert_eq!(serde_json::to_value(record()).unwrap(), text);
        assert_eq!(serde_json::from_value::<Record>(text).unwrap(), record());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let text = serde_json::to_value(record()).unwrap();
        for (place, wrong) in [
            ("/format", json!("2")),
            ("/planned", json!("yesterday")),
            ("/writes/0/coordinate", json!("somebody/elses")),
            ("/supersedes/0/coordinate", json!("airbyte_w_v01")),
            (
                "/writes/0",
                json!({"coordinate": "airbyte_w_v2", "payload": 1}),
            ),
            ("/supersedes", json!(null)),
        ] {
            let mut changed = text.clone();
            *changed.pointer_mut(place).unwrap() = wrong;
            assert!(
                serde_json::from_value::<Record>(changed).is_err(),
                "{place}"
            );
        }
        let mut more = text;
        more["more"] = json!(1);
        assert!(serde_json::from_value::<Record>(more).is_err());
    }

    #[test]
    fn time_counts_from_the_plan() {
        let (record, minute) = (record(), Duration::from_secs(60));
        let end = record.planned().saturating_add(minute);
        assert_eq!(record.before(minute, record.planned()), Some(end));
        assert_eq!(record.before(minute, end), None);
    }
}
