//! A tenant's settings, and what the operator adds to them.

use std::fmt;

use secret_persistence_core::SecretValue;
use secret_persistence_core::settings::Trust;

use super::Environment;

/// The operator's settings for one tenant, in addition to the tenant's settings.
///
/// ```
/// use secret_persistence::Tenant;
///
/// let tenant = Tenant::new()
///     .with_external_id("organization-7")
///     .with_allowed_hosts(["vault.partner.example", ".vaults.internal"]);
/// # let _ = tenant;
/// ```
#[derive(Clone, Default, PartialEq)]
#[must_use]
pub struct Tenant {
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) external_id: Option<SecretValue>,
    pub(crate) base_key: Option<(SecretValue, SecretValue)>,
}

impl Tenant {
    /// A tenant without a role and without additional hosts.
    pub fn new() -> Self {
        Self::default()
    }

    /// The external id for assuming this tenant's AWS role. The platform generates one for each
    /// scope and tells it to the tenant, whose role's trust policy requires it. Settings with
    /// another external id are refused, because it could belong to another tenant.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html>
    pub fn with_external_id(mut self, id: impl Into<String>) -> Self {
        self.external_id = Some(SecretValue::new(id.into()));
        self
    }

    /// Hosts outside the provider's domains that this tenant may reach: `vault.example`, or
    /// `.example` for all its subdomains. They may have private addresses.
    pub fn with_allowed_hosts<T: Into<String>>(
        mut self,
        hosts: impl IntoIterator<Item = T>,
    ) -> Self {
        self.allowed_hosts.extend(hosts.into_iter().map(Into::into));
        self
    }

    /// Adds the access key that assumes tenants' roles, from `AWS_ASSUME_ROLE_ACCESS_KEY_ID` and
    /// `AWS_ASSUME_ROLE_SECRET_ACCESS_KEY`. It belongs to the operator, and no tenant gets it.
    pub fn with_environment(mut self, environment: &Environment) -> Self {
        let id = environment.secret("AWS_ASSUME_ROLE_ACCESS_KEY_ID");
        let secret = environment.secret("AWS_ASSUME_ROLE_SECRET_ACCESS_KEY");
        self.base_key = id.zip(secret);
        self
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::tenant_reaching(self.allowed_hosts.iter().cloned())
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("allowed_hosts", &self.allowed_hosts)
            .field("external_id", &self.external_id)
            .field("base_key", &self.base_key.as_ref().map(|_| "redacted"))
            .finish()
    }
}
