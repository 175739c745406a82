//! Reads: the value, the coordinate it belongs to, and the reason for a missing name.

use secret_persistence_core::{
    Coordinate, Error, ErrorKind, ManagedCoordinate, Operation, Read, Result,
};

use crate::client::Facts;
use crate::config::COORDINATE_TAG;
use crate::error::Fault;
use crate::naming::{SecretName, is_tagged};
use crate::persistence::AzureKeyVault;

impl AzureKeyVault {
    pub(crate) async fn read_one(&self, coordinate: &Coordinate) -> Result<Read> {
        let fail = |error: Error| {
            error
                .with_operation(Operation::Read)
                .with_store(self.to_string())
                .with_coordinate(coordinate.shared())
        };
        let name = SecretName::of(coordinate).map_err(fail)?;
        match self.client.get(&name).await {
            Ok(stored) => {
                if let Some(managed) = coordinate.managed() {
                    check(managed, &stored.facts).map_err(fail)?;
                }
                Ok(Read::new(stored.value).with_expires(stored.facts.expires))
            }
            Err(fault) if fault.is_missing() => Err(fail(match self.deleted(&name).await {
                Ok(Some(_)) => pending(&fault),
                Ok(None) => fault.explain(&self.config),
                Err(fault) => fault.explain(&self.config),
            })),
            Err(fault) => Err(fail(fault.explain(&self.config))),
        }
    }

    /// The soft-deleted secret of a name. If the principal may not read it, or the vault does not
    /// support soft delete, the name counts as missing.
    pub(crate) async fn deleted(&self, name: &SecretName) -> Result<Option<Facts>, Fault> {
        match self.client.get_deleted(name).await {
            Ok(facts) => Ok(Some(facts)),
            // Key Vault reveals only that a disabled secret exists, deleted or not.
            Err(fault) if fault.is_disabled() => Ok(Some(Facts::default())),
            Err(fault) if fault.is_missing() || fault.is_denied() || fault.is_unsupported() => {
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }
}

/// Refuses a secret of another coordinate with the same name. A secret without a tag, for example
/// one that Airbyte wrote, is accepted.
pub(crate) fn check(coordinate: &ManagedCoordinate, facts: &Facts) -> Result<()> {
    match facts.tags.get(COORDINATE_TAG) {
        Some(tag) if !is_tagged(coordinate, tag) => Err(Error::new(
            ErrorKind::Integrity,
            "the vault has another coordinate under this name; nothing was changed",
        )
        .with_hint(
            "Key Vault does not support `_` and ignores case, so two coordinates map to one name: check the \
             secret's tags, and use a separate vault for each installation",
        )),
        _ => Ok(()),
    }
}

/// The error for a name that is soft-deleted.
pub(crate) fn pending(fault: &Fault) -> Error {
    Error::new(
        ErrorKind::PendingDeletion,
        "the secret is soft-deleted, and its name stays reserved until it is recovered or purged",
    )
    .with_hint("restore it, or wait until the vault's retention period ends")
    .with_source(fault.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_coordinate_under_the_same_name_is_told() {
        let coordinate = ManagedCoordinate::parse("airbyte_a_b_v1").unwrap();
        let tagged = |tag: &str| Facts {
            tags: [(COORDINATE_TAG.to_owned(), tag.to_owned())].into(),
            ..Facts::default()
        };
        assert!(check(&coordinate, &Facts::default()).is_ok());
        assert!(check(&coordinate, &tagged("airbyte_a_b_v1")).is_ok());
        assert!(check(&coordinate, &tagged("Airbyte_A_b_v1")).is_ok());
        for tag in ["airbyte_a-b_v1", "airbyte_a_b_v2", ""] {
            let error = check(&coordinate, &tagged(tag)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity, "{tag}");
        }
    }
}
