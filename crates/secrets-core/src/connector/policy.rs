//! What an installation permits in the configurations that it splits.

use std::collections::BTreeMap;

use super::place::Place;
use super::pointer::Pointer;
use crate::StorageId;

/// What an installation permits in the configurations that it splits; by default as little as
/// possible.
///
/// ```
/// use secret_persistence_core::connector::{Place, Policy};
///
/// let policy = Policy::default()
///     .with_external_prefix(None, "team/")
///     .with_guarded_place("/host".parse::<Place>()?);
/// assert!(!policy.strings_only);
/// # Ok::<(), secret_persistence_core::connector::InvalidPlace>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Policy {
    /// Prefixes of external names that new references may have, per storage (`None` is the default
    /// store). Empty by default: no external name is allowed. An empty prefix allows every name.
    pub external_prefixes: BTreeMap<Option<StorageId>, Vec<String>>,
    /// Places whose change requires entering every secret again: masks and kept pointers are then
    /// refused. Otherwise, a user who may edit but not see secrets could point the connector to
    /// their own host and receive the password. A place covers everything below it.
    pub guarded_places: Vec<Place>,
    /// Refuses properties that the specification does not define; by default they stay in plain
    /// text.
    pub refuse_unknown_properties: bool,
    /// Refuses secrets that are not strings, for installations that may return to Airbyte, which
    /// would read the JSON text instead of the value.
    pub strings_only: bool,
    /// The storage for new secrets; by default `None`, the default store.
    pub write_storage: Option<StorageId>,
}

impl Policy {
    /// Allows external names of a storage that begin with a prefix.
    #[must_use]
    pub fn with_external_prefix(
        mut self,
        storage_id: Option<StorageId>,
        prefix: impl Into<String>,
    ) -> Self {
        self.external_prefixes
            .entry(storage_id)
            .or_default()
            .push(prefix.into());
        self
    }

    /// Adds a guarded place.
    #[must_use]
    pub fn with_guarded_place(mut self, place: Place) -> Self {
        self.guarded_places.push(place);
        self
    }

    /// Sets whether unknown properties are refused.
    #[must_use]
    pub fn with_refuse_unknown_properties(mut self, refuse: bool) -> Self {
        self.refuse_unknown_properties = refuse;
        self
    }

    /// Sets whether secrets that are not strings are refused.
    #[must_use]
    pub fn with_strings_only(mut self, strings_only: bool) -> Self {
        self.strings_only = strings_only;
        self
    }

    /// Sets the storage for new secrets.
    #[must_use]
    pub fn with_write_storage(mut self, storage_id: Option<StorageId>) -> Self {
        self.write_storage = storage_id;
        self
    }

    /// Whether a new external pointer is allowed.
    pub(crate) fn allows_external(&self, pointer: &Pointer) -> bool {
        let Some(coordinate) = &pointer.coordinate else {
            return false;
        };
        self.external_prefixes
            .get(&pointer.storage_id)
            .is_some_and(|prefixes| {
                prefixes
                    .iter()
                    .any(|prefix| coordinate.as_str().starts_with(prefix.as_str()))
            })
    }
}
