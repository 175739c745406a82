//! Finds the secrets that a saved configuration refers to.

use serde_json::Value;

use super::error::{ConnectorError, Problems};
use super::pointer::pointers;
use super::secrets::ActingSecrets;
use crate::{Location, ManagedCoordinate};

impl ActingSecrets {
    /// Lists the secrets that a saved configuration refers to, with references resolved:
    /// what a collector must keep. External secrets are not ours and are not listed.
    ///
    /// # Errors
    /// Every malformed pointer and every unresolved reference, with its place.
    pub async fn locations(
        &self,
        saved: &Value,
    ) -> Result<Vec<Location<ManagedCoordinate>>, ConnectorError> {
        let found = pointers(saved)?;
        let ids = found.iter().filter_map(|(_, pointer)| pointer.reference_id);
        let references = self.references(ids.collect()).await;
        let mut locations = Vec::with_capacity(found.len());
        let mut problems = Problems::default();
        for (place, pointer) in found {
            match references.locate(&pointer) {
                Ok(location) => locations.extend(location.managed()),
                Err(unresolved) => problems.push(|| unresolved.at(place, &pointer)),
            }
        }
        problems.into_result()?;
        Ok(locations)
    }
}
