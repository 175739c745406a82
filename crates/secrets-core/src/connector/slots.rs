//! The usual configuration to hydrate: every pointer is a text of one storage. One walk finds where the values go, and
//! what is read meanwhile cannot fail to fit.

use std::mem;

use serde_json::Value;

use super::hydrate::text;
use super::limits::{MAX_DEPTH, MAX_SECRETS, is_container};
use super::pointer::{Encoding, MAX_FIELDS, Pointer, is_pointer_key, is_pointer_object};
use crate::{Coordinate, SecretValue, StorageId};

/// The pointers of a configuration, in the order of [`pointers`](super::pointers).
#[derive(Default)]
pub(super) struct Slots<'v> {
    slots: Vec<&'v mut Value>,
    names: Vec<Coordinate>,
    storage_id: Option<StorageId>,
}

impl<'v> Slots<'v> {
    /// `None` for a configuration that exceeds a limit, or has a pointer that is malformed, has a reference, is JSON,
    /// or leads to another storage than the others.
    pub(super) fn of(config: &'v mut Value) -> Option<Self> {
        let mut found = Self::default();
        found.walk(config, 0)?;
        Some(found)
    }

    /// The names to read, in the order of the values to fill in.
    pub(super) fn names(&self) -> &[Coordinate] {
        &self.names
    }

    /// The storage of all names.
    pub(super) fn storage_id(&self) -> Option<&StorageId> {
        self.storage_id.as_ref()
    }

    /// Replaces the pointers by these values, as many and in the same order.
    pub(super) fn fill<'s>(self, values: impl Iterator<Item = &'s SecretValue>) {
        for (slot, value) in self.slots.into_iter().zip(values) {
            if let Value::Object(pointer) = slot {
                *slot = text(mem::take(pointer), value);
            }
        }
    }

    fn walk(&mut self, value: &'v mut Value, depth: usize) -> Option<()> {
        match value {
            Value::Object(members) if members.len() <= MAX_FIELDS && is_pointer_object(members) => {
                self.add(value)
            }
            Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => None,
            Value::Array(items) => items
                .iter_mut()
                .filter(|item| is_container(item))
                .try_for_each(|item| self.walk(item, depth + 1)),
            Value::Object(members) => {
                for (name, member) in members {
                    // With more members than a pointer has.
                    if is_pointer_key(name) {
                        return None;
                    }
                    if is_container(member) {
                        self.walk(member, depth + 1)?;
                    }
                }
                Some(())
            }
            _ => Some(()),
        }
    }

    fn add(&mut self, slot: &'v mut Value) -> Option<()> {
        let Pointer {
            coordinate: Some(name),
            storage_id,
            reference_id: None,
            encoding: Encoding::Text,
        } = Pointer::parse(slot)?.ok()?
        else {
            return None;
        };
        if self.names.is_empty() {
            self.storage_id = storage_id;
        } else if self.storage_id != storage_id || self.names.len() == MAX_SECRETS {
            return None;
        }
        self.names.push(name);
        self.slots.push(slot);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAME: &str = "airbyte_workspace_1_secret_2_v1";

    #[test]
    fn values_go_into_their_places_in_order() {
        let at = |storage: &str| json!({"_secret": NAME, "_secret_storage_id": storage});
        // In the order of their names, which serde_json keeps with and without `preserve_order`.
        let mut config = json!({"a": at("s"), "b": [at("s"), {"x": at("s")}], "host": "db"});
        let slots = Slots::of(&mut config).expect("texts of one storage");
        assert_eq!(slots.names().len(), 3);
        assert_eq!(slots.storage_id().map(StorageId::as_str), Some("s"));
        let values = ["one", "two", "three"].map(|value| SecretValue::new(value.to_owned()));
        slots.fill(values.iter());
        let full = json!({"a": "one", "b": ["two", {"x": "three"}], "host": "db"});
        assert_eq!(config, full);
    }

    #[test]
    fn what_can_fail_later_is_left_alone() {
        let deep =
            |levels: usize| (0..levels).fold(json!({"_secret": NAME}), |value, _| json!([value]));
        assert!(Slots::of(&mut deep(MAX_DEPTH)).is_some());
        for config in [
            deep(MAX_DEPTH + 1),
            json!({"_secret": NAME, "_secret_encoding": "json"}),
            json!({"_secret": NAME, "_secret_reference_id": "00000000-0000-0000-0000-00000000000a"}),
            json!({"_secret_reference_id": "00000000-0000-0000-0000-00000000000a"}),
            json!([{"_secret": NAME}, {"_secret": NAME, "_secret_storage_id": "s"}]),
            json!({"_secret": 5}),
            json!({"a": 1, "b": 2, "c": 3, "d": 4, "_secret": NAME}),
            json!(vec![json!({"_secret": NAME}); MAX_SECRETS + 1]),
        ] {
            let mut same = config.clone();
            assert!(Slots::of(&mut same).is_none());
            assert_eq!(same, config);
        }
    }
}
