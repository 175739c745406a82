//! Behaviour that can be changed while the stand-in runs.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// The behaviour of the service from now on. Change it with
/// [`Azure::switches`](super::Azure::switches).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Switches {
    /// Whether the client secret has expired. By default it has not.
    pub client_secret_expired: bool,
    /// How far the vault's clock is ahead of the token issuer's. By default zero.
    pub clock_ahead: Duration,
    /// How long a deleted secret stays in the state `deleting`. By default 20 ms.
    pub deleting: Duration,
    /// The names (in lower case) of secrets that are disabled, whatever their attributes. By
    /// default none.
    pub disabled: BTreeSet<String>,
    /// The number of next changes that are executed without a response: the connection is closed.
    /// By default none.
    pub drop_after_work: u32,
    /// The status of every response of Entra ID and the managed identity endpoints. By default
    /// none.
    pub entra_failure: Option<u16>,
    /// The status (5xx) of every response of the vault. By default none.
    pub failure: Option<u16>,
    /// The vault's network rules. By default they admit everyone.
    pub firewall: Firewall,
    /// The delay of every request. By default none.
    pub latency: Duration,
    /// How long listings lag behind creations and deletions. By default zero.
    pub list_lag: Duration,
    /// The permission model. By default roles.
    pub permission_model: PermissionModel,
    /// Whether deleted secrets can be purged. By default they can.
    pub purge_protection: bool,
    /// How long the name of a purged secret cannot be reused. By default 20 ms.
    pub purging: Duration,
    /// How long a recovered secret cannot be read. By default 20 ms.
    pub recovering: Duration,
    /// The maximum number of requests to the vault per second; others are throttled. By default
    /// unlimited.
    pub requests_per_second: Option<u32>,
    /// The seconds in `Retry-After` of a throttled request. By default none.
    pub retry_after: Option<u32>,
    /// Whether every second page of a listing is empty and has a successor. By default it is not.
    pub sparse_pages: bool,
    /// Throttles every n-th request to the vault. By default none.
    pub throttle_every: Option<u32>,
    /// How long tokens are valid. By default an hour minus a second.
    pub token_lifetime: Duration,
    pub(super) denied: BTreeSet<&'static str>,
    pub(super) role_assigned: Option<Instant>,
}

/// The network rules of the vault.
///
/// See <https://learn.microsoft.com/azure/key-vault/general/network-security>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Firewall {
    /// The caller's address is not in the list: `ForbiddenByFirewall`.
    AddressNotAllowed,
    /// Everyone is admitted.
    #[default]
    Open,
    /// Only private links and trusted services are admitted: `ForbiddenByConnection`.
    PublicAccessDisabled,
}

/// The permission model of the vault.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum PermissionModel {
    /// The vault's list of permissions, as in older vaults: refusals are `ForbiddenByPolicy`.
    AccessPolicy,
    /// Roles with data actions: refusals are `ForbiddenByRbac`.
    #[default]
    Roles,
}

/// The data actions of the operations on secrets.
///
/// See <https://learn.microsoft.com/azure/role-based-access-control/permissions/security#microsoftkeyvault>.
pub const DATA_ACTIONS: [&str; 7] = [
    "Microsoft.KeyVault/vaults/secrets/delete",
    "Microsoft.KeyVault/vaults/secrets/getSecret/action",
    "Microsoft.KeyVault/vaults/secrets/purge/action",
    "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
    "Microsoft.KeyVault/vaults/secrets/recover/action",
    "Microsoft.KeyVault/vaults/secrets/setSecret/action",
    "Microsoft.KeyVault/vaults/secrets/update/action",
];

impl Switches {
    /// Allows everything.
    pub fn allow_all(&mut self) {
        self.denied.clear();
        self.role_assigned = None;
    }

    /// Allows only these data actions.
    ///
    /// # Panics
    ///
    /// If one is not among [`DATA_ACTIONS`].
    #[track_caller]
    pub fn allow_only(&mut self, actions: &[&str]) {
        let allowed: BTreeSet<_> = actions.iter().map(|action| known(action)).collect();
        self.denied = DATA_ACTIONS.into_iter().collect();
        self.denied.retain(|action| !allowed.contains(action));
    }

    /// Makes the caller's role assignment arrive after this time. Until then everything is refused.
    pub fn assign_role_after(&mut self, time: Duration) {
        self.role_assigned = Some(Instant::now() + time);
    }

    /// Denies this data action. Under [`PermissionModel::AccessPolicy`], this removes the
    /// permission that covers it.
    ///
    /// # Panics
    ///
    /// If it is not among [`DATA_ACTIONS`].
    #[track_caller]
    pub fn deny(&mut self, action: &str) {
        self.denied.insert(known(action));
    }
}

impl Default for Switches {
    fn default() -> Self {
        const TRANSITION: Duration = Duration::from_millis(20);
        Self {
            client_secret_expired: false,
            clock_ahead: Duration::ZERO,
            deleting: TRANSITION,
            disabled: BTreeSet::new(),
            drop_after_work: 0,
            entra_failure: None,
            failure: None,
            firewall: Firewall::default(),
            latency: Duration::ZERO,
            list_lag: Duration::ZERO,
            permission_model: PermissionModel::default(),
            purge_protection: false,
            purging: TRANSITION,
            recovering: TRANSITION,
            requests_per_second: None,
            retry_after: None,
            sparse_pages: false,
            throttle_every: None,
            token_lifetime: Duration::from_secs(3599),
            denied: BTreeSet::new(),
            role_assigned: None,
        }
    }
}

#[track_caller]
fn known(action: &str) -> &'static str {
    DATA_ACTIONS
        .into_iter()
        .find(|known| *known == action)
        .unwrap_or_else(|| panic!("no data action of secrets: {action}"))
}
