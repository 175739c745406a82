//! What can be changed while the stand-in runs.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How the service behaves from now on. Changed through [`Azure::switches`](super::Azure::switches).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Switches {
    /// Whether the client secret has passed its end date. Not by default.
    pub client_secret_expired: bool,
    /// How far the clock of the vault is ahead of the one that dates tokens. Zero by default.
    pub clock_ahead: Duration,
    /// How long a deleted secret stays in the state `deleting`. 20 ms by default.
    pub deleting: Duration,
    /// The names (in lower case) of secrets that are disabled whatever their attributes say. None by default.
    pub disabled: BTreeSet<String>,
    /// How many of the next changes are done without an answer: the connection ends instead. None by default.
    pub drop_after_work: u32,
    /// The status with which Entra ID and the managed identity endpoints answer everything. None by default.
    pub entra_failure: Option<u16>,
    /// The status (5xx) with which the vault answers everything. None by default.
    pub failure: Option<u16>,
    /// What the vault's network rules say to the caller. Everybody is let in by default.
    pub firewall: Firewall,
    /// How long every request is held back. Not at all by default.
    pub latency: Duration,
    /// How long a new secret is missing from listings, and a deleted one still in them. Zero by default.
    pub list_lag: Duration,
    /// What decides about permissions. Roles by default.
    pub permission_model: PermissionModel,
    /// Whether deleted secrets can be purged before their time. They can by default.
    pub purge_protection: bool,
    /// How long a name that was purged cannot be used again. 20 ms by default.
    pub purging: Duration,
    /// How long a recovered secret cannot be read yet. 20 ms by default.
    pub recovering: Duration,
    /// The most requests to the vault within one second; the others are throttled. Unlimited by default.
    pub requests_per_second: Option<u32>,
    /// The seconds in `Retry-After` of a throttled request. Absent by default.
    pub retry_after: Option<u32>,
    /// Whether every second page of a listing is empty, though a next one follows. Not by default.
    pub sparse_pages: bool,
    /// Throttles every n-th request to the vault. None by default.
    pub throttle_every: Option<u32>,
    /// How long tokens are valid. An hour less a second by default.
    pub token_lifetime: Duration,
    pub(super) denied: BTreeSet<&'static str>,
    pub(super) role_assigned: Option<Instant>,
}

/// What the network rules of the vault say.
///
/// See <https://learn.microsoft.com/azure/key-vault/general/network-security>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Firewall {
    /// The caller's address is not in the list: `ForbiddenByFirewall`.
    AddressNotAllowed,
    /// Everybody is let in.
    #[default]
    Open,
    /// Only private links and trusted services are let in: `ForbiddenByConnection`.
    PublicAccessDisabled,
}

/// What decides whether a caller may do something.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum PermissionModel {
    /// The vault's own list of permissions, as older vaults have it: refusals are `ForbiddenByPolicy`.
    AccessPolicy,
    /// Roles with data actions: refusals are `ForbiddenByRbac`.
    #[default]
    Roles,
}

/// The data actions that the operations on secrets need.
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
    /// Allows everything again.
    pub fn allow_all(&mut self) {
        self.denied.clear();
        self.role_assigned = None;
    }

    /// Allows these data actions and no others.
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

    /// Lets the caller's role assignment arrive after this time. Until then everything is refused.
    pub fn assign_role_after(&mut self, time: Duration) {
        self.role_assigned = Some(Instant::now() + time);
    }

    /// Denies this data action. Under [`PermissionModel::AccessPolicy`] that takes the permission away which covers it.
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
