//! Serialize for what callers store or ship. Coordinates and locations can be read back.
//!
//! [`Record`](crate::connector::Record), [`StorageId`] and [`Timestamp`](crate::Timestamp) do not
//! need the feature.

use serde::de::Error as _;
use serde::ser::{SerializeSeq as _, SerializeStruct as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::connector::{Cleanup, Foreign, Undeleted};
use crate::{
    Actor, AuditEvent, Coordinate, ErrorKind, ExternalName, Location, ManagedCoordinate, Operation,
    Owner, StorageId,
};

/// Implements `Serialize` as the text of `as_str`.
macro_rules! text {
    ($($name:ty),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )+};
}

/// Implements `Deserialize` with `parse`, so that what is read is checked.
macro_rules! parsed {
    ($($name:ty),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )+};
}

text!(
    Actor,
    Coordinate,
    ErrorKind,
    ExternalName,
    ManagedCoordinate,
    Operation,
    Owner
);
parsed!(Coordinate, ExternalName, ManagedCoordinate, Owner);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLocation<C> {
    coordinate: C,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    storage_id: Option<StorageId>,
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawLocation {
            coordinate: &self.coordinate,
            storage_id: self.storage_id.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawLocation::<Coordinate>::deserialize(deserializer)?;
        Ok(Self::new(raw.coordinate).with_storage_id(raw.storage_id))
    }
}

impl Serialize for AuditEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut event = serializer.serialize_struct("AuditEvent", 8)?;
        event.serialize_field("at", &self.at)?;
        event.serialize_field("actor", &self.actor)?;
        event.serialize_field("operation", &self.operation)?;
        event.serialize_field("location", &self.location)?;
        event.serialize_field("places", &self.places)?;
        event.serialize_field("places_omitted", &self.places_omitted)?;
        event.serialize_field("request", &self.request.as_deref())?;
        event.serialize_field("failure", &self.failure)?;
        event.end()
    }
}

impl Serialize for Undeleted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut undeleted = serializer.serialize_struct("Undeleted", 3)?;
        undeleted.serialize_field("location", &self.location)?;
        undeleted.serialize_field("kind", &self.error.kind())?;
        undeleted.serialize_field("error", &self.error.to_string())?;
        undeleted.end()
    }
}

impl Serialize for Foreign {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut foreign = serializer.serialize_struct("Foreign", 2)?;
        foreign.serialize_field("location", &self.location)?;
        foreign.serialize_field("owner", &self.owner)?;
        foreign.end()
    }
}

impl Serialize for Cleanup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut cleanup = serializer.serialize_struct("Cleanup", 6)?;
        cleanup.serialize_field("deleted", &self.deleted)?;
        cleanup.serialize_field("failed", &self.failed)?;
        cleanup.serialize_field("foreign", &self.foreign)?;
        cleanup.serialize_field("retained", &self.retained)?;
        cleanup.serialize_field("released_references", &Ids(&self.released_references))?;
        cleanup.serialize_field("again", &self.again)?;
        cleanup.end()
    }
}

struct Ids<'a>(&'a [Uuid]);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut ids = serializer.serialize_seq(Some(self.0.len()))?;
        for id in self.0 {
            ids.serialize_element(&id.to_string())?;
        }
        ids.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;
    use crate::Error;

    const MANAGED: &str = "airbyte_workspace_1_secret_2_v3";

    #[test]
    fn names_are_read_back_and_checked() {
        for name in [MANAGED, "team/database-password"] {
            let coordinate = Coordinate::parse(name).unwrap();
            assert_eq!(to_value(&coordinate).unwrap(), name);
            assert_eq!(from_value::<Coordinate>(json!(name)).unwrap(), coordinate);
            let location = Location::new(coordinate);
            let stored = json!({ "coordinate": name });
            assert_eq!(to_value(&location).unwrap(), stored);
            assert_eq!(from_value::<Location>(stored).unwrap(), location);
        }
        let elsewhere = json!({ "coordinate": MANAGED, "storage_id": "team-a" });
        let location: Location = from_value(elsewhere.clone()).unwrap();
        assert_eq!(to_value(location).unwrap(), elsewhere);
        assert!(from_value::<ManagedCoordinate>(json!("team/password")).is_err());
        assert!(from_value::<Coordinate>(json!("")).is_err());
        assert!(from_value::<Owner>(json!("Not An Owner")).is_err());
        assert!(from_value::<Location>(json!({ "coordinate": MANAGED, "more": 1 })).is_err());
    }

    #[test]
    fn an_event_says_who_did_what_when() {
        let mut event = AuditEvent::new(
            Actor::new("maria"),
            Operation::Read,
            Coordinate::parse(MANAGED).unwrap(),
        )
        .with_request(Some("r-1".into()))
        .with_failure(Some(ErrorKind::NotFound));
        event.places = vec![crate::connector::Place::root().child("password")];
        event.at = "2026-11-21T06:47:53Z".parse().unwrap();
        assert_eq!(
            to_value(&event).unwrap(),
            json!({
                "at": "2026-11-21T06:47:53Z",
                "actor": "maria",
                "operation": "read",
                "location": { "coordinate": MANAGED },
                "places": ["/password"],
                "places_omitted": 0,
                "request": "r-1",
                "failure": "not_found",
            })
        );
    }

    #[test]
    fn a_cleanup_says_what_is_left() {
        let location = || Location::new(ManagedCoordinate::parse(MANAGED).unwrap());
        let mut cleanup = Cleanup::default();
        cleanup.deleted.push(location());
        cleanup.failed.push(Undeleted {
            location: location(),
            error: Error::new(ErrorKind::Throttled, "slower"),
        });
        cleanup.foreign.push(Foreign {
            location: location(),
            owner: "staging".into(),
        });
        cleanup.released_references.push(Uuid::nil());
        let place = json!({ "coordinate": MANAGED });
        assert_eq!(
            to_value(&cleanup).unwrap(),
            json!({
                "deleted": [place],
                "failed": [{ "location": place, "kind": "throttled", "error": "slower (throttled)" }],
                "foreign": [{ "location": place, "owner": "staging" }],
                "retained": [],
                "released_references": ["00000000-0000-0000-0000-000000000000"],
                "again": null,
            })
        );
    }
}
