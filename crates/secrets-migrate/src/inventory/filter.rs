//! Which secrets an inventory lists.

use std::collections::BTreeSet;

use secret_persistence_core::Timestamp;
use uuid::Uuid;

use super::report::{SecretAt, Standing};

/// Which secrets an [`Inventory`](crate::Inventory) lists: those that meet every condition.
///
/// What nobody knows leaves no secret out: one without a known time meets every condition on it,
/// because it may be one of those that are looked for. A secret that the store describes without an
/// expiry never expires.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SecretFilter {
    /// Created at this time or later.
    pub created_from: Option<Timestamp>,
    /// Created at this time or earlier.
    pub created_until: Option<Timestamp>,
    /// Expires at this time or earlier, or has expired.
    pub expires_until: Option<Timestamp>,
    /// Of one of these workspaces, by the row's base id or by the name of the secret; all if empty.
    /// A secret belongs to none of them only if the row or the name says so.
    pub workspaces: BTreeSet<Uuid>,
    /// Not in another storage than the inventory's store.
    pub in_store: bool,
    /// Without a genuine read that the [history](crate::Inventory::with_history) knows. A record that is not
    /// genuine proves no read, and leaves no secret out.
    pub never_read: bool,
    /// Not [`Standing::Present`]: what a connector may lack.
    pub not_present: bool,
}

impl SecretFilter {
    /// Whether a secret meets every condition but that on workspaces.
    pub(super) fn admits(&self, secret: &SecretAt) -> bool {
        let is_told = matches!(
            secret.standing,
            Standing::Present | Standing::PendingDeletion | Standing::Restored
        );
        let is_created = secret.created.is_none_or(|created| {
            self.created_from.is_none_or(|from| created >= from)
                && self.created_until.is_none_or(|until| created <= until)
        });
        let expires = self
            .expires_until
            .is_none_or(|until| secret.expires.map_or(!is_told, |expires| expires <= until));
        let is_present = secret.standing == Standing::Present;
        let genuine = secret
            .reads
            .as_ref()
            .and_then(|reads| reads.last_read_genuine);
        is_created
            && !(self.never_read && genuine == Some(true))
            && expires
            && !(self.not_present && is_present)
            && !(self.in_store && secret.standing == Standing::Elsewhere)
    }
}
