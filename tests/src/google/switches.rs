//! The behaviour of the server, which can be changed while it runs.

use std::{collections::BTreeSet, time::Duration};

use super::{impersonation, route};

/// The behaviour of the server. By default there is no lag, no quota, and every permission.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Switches {
    /// The API is not enabled in the project.
    pub api_disabled: bool,
    /// The project has no billing account.
    pub billing_disabled: bool,
    /// How many seconds the server's clock is ahead of the client's; negative if behind.
    pub clock_offset: i64,
    /// One bit of each payload is flipped in the response; the checksum is that of the stored
    /// value.
    pub corrupt_payloads: bool,
    /// Requests whose connection is cut.
    pub cuts: Vec<Cut>,
    /// Permissions that the caller lacks, such as `secretmanager.versions.access`.
    pub denied: BTreeSet<String>,
    /// The caller's permissions; empty for all.
    pub granted: Option<Vec<Grant>>,
    /// The state of every key in Cloud KMS.
    pub kms: Kms,
    /// The duration of each request.
    pub latency: Duration,
    /// How long `latest` lags behind a new version.
    pub latest_lag: Duration,
    /// How long listings lag behind creations and deletions.
    pub list_lag: Duration,
    /// How long the metadata of a new secret or version is not readable. Does not affect access.
    pub metadata_lag: Duration,
    /// Payloads have no checksum, like those that were stored with a customer's key before July
    /// 2021.
    pub omit_checksums: bool,
    /// The maximum size of pages if the client does not set one.
    pub page_size: usize,
    /// Requests per second; `None` is unlimited.
    pub quota: Quota,
    /// How long a client that exceeds the quota should wait.
    pub retry_after: Option<Duration>,
    /// Every key of the service account is revoked.
    pub revoked_keys: bool,
    /// The global endpoint refuses regional names, like the service.
    pub strict_endpoints: bool,
    /// Exceeds the quota on every n-th request for secrets.
    pub throttle_every: Option<u32>,
    /// How long access tokens are valid.
    pub token_lifetime: Duration,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            api_disabled: false,
            billing_disabled: false,
            clock_offset: 0,
            corrupt_payloads: false,
            cuts: Vec::new(),
            denied: BTreeSet::new(),
            granted: None,
            kms: Kms::Usable,
            latency: Duration::ZERO,
            latest_lag: Duration::ZERO,
            list_lag: Duration::ZERO,
            metadata_lag: Duration::ZERO,
            omit_checksums: false,
            page_size: 100,
            quota: Quota::default(),
            retry_after: None,
            revoked_keys: false,
            strict_endpoints: false,
            throttle_every: None,
            token_lifetime: Duration::from_secs(3600),
        }
    }
}

impl Switches {
    /// Removes a permission.
    ///
    /// # Panics
    ///
    /// If no method requires it: a misspelt permission would test nothing.
    #[track_caller]
    pub fn deny(&mut self, permission: impl Into<String>) {
        let permission = permission.into();
        let known = permission == impersonation::PERMISSION
            || route::methods().any(|method| method.permission == permission);
        assert!(known, "no permission of what is served: {permission}");
        self.denied.insert(permission);
    }

    /// Cuts the connection of the next request of this method, such as `AddSecretVersion`.
    ///
    /// # Panics
    ///
    /// If the method does not exist.
    #[track_caller]
    pub fn cut(&mut self, method: impl Into<String>, when: When) {
        let method = method.into();
        let known = route::methods().any(|other| other.name == method);
        assert!(known, "no method of secrets: {method}");
        self.cuts.push(Cut {
            method,
            when,
            times: 1,
        });
    }

    /// Whether the caller has a permission for a resource, named with the project's number.
    pub(super) fn allows(&self, permission: &str, resource: &str) -> bool {
        !self.denied.contains(permission)
            && self.granted.as_ref().is_none_or(|grants| {
                grants
                    .iter()
                    .any(|grant| grant.allows(permission, resource))
            })
    }

    /// Returns the fault for the connection of a request of this method, and counts it.
    pub(super) fn meet(&mut self, method: &str) -> Option<When> {
        let cut = self
            .cuts
            .iter_mut()
            .find(|cut| cut.method == method && cut.times > 0)?;
        cut.times -= 1;
        Some(cut.when)
    }
}

/// Requests whose connection is closed without a response.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cut {
    /// The method, such as `AddSecretVersion`.
    pub method: String,
    /// When the connection is cut.
    pub when: When,
    /// How many more requests are cut.
    pub times: u32,
}

/// When a connection is cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// The request is executed, and its caller does not learn of it.
    AfterWork,
    /// The request is not executed.
    BeforeWork,
}

/// Permissions of an IAM role, possibly with a condition.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Grant {
    /// Permissions such as `secretmanager.secrets.create`.
    pub permissions: BTreeSet<String>,
    /// The condition: the resource's name begins with one of these. Empty for no condition.
    ///
    /// As in
    /// [`resource.name.startsWith`](https://cloud.google.com/iam/docs/conditions-resource-attributes),
    /// names contain the project's *number*. The resource of `create` and `list` is the project or
    /// its location.
    pub name_prefixes: Vec<String>,
}

impl Grant {
    /// These permissions without a condition.
    pub fn new<P: Into<String>>(permissions: impl IntoIterator<Item = P>) -> Self {
        Self {
            permissions: permissions.into_iter().map(Into::into).collect(),
            name_prefixes: Vec::new(),
        }
    }

    /// Restricts the permissions to resources whose names begin with this, or with the prefix of
    /// another such call.
    #[must_use]
    pub fn on_names_beginning(mut self, prefix: impl Into<String>) -> Self {
        self.name_prefixes.push(prefix.into());
        self
    }

    fn allows(&self, permission: &str, resource: &str) -> bool {
        let applies = self.name_prefixes.is_empty()
            || self
                .name_prefixes
                .iter()
                .any(|prefix| resource.starts_with(prefix));
        applies && self.permissions.contains(permission)
    }
}

/// The state of the customer's keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kms {
    /// The service agent may not use them.
    Denied,
    /// They are disabled.
    Disabled,
    /// The project's service agent was never created.
    NoServiceAgent,
    /// They are usable.
    Usable,
}

/// Requests per second for each of the classes that the service
/// [counts](https://cloud.google.com/secret-manager/quotas).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Quota {
    /// Reading payloads.
    pub access: Option<u32>,
    /// Reading anything else.
    pub read: Option<u32>,
    /// Changing anything.
    pub write: Option<u32>,
}

impl Quota {
    /// The same limit for each class.
    pub fn per_second(requests: u32) -> Self {
        Self {
            access: Some(requests),
            read: Some(requests),
            write: Some(requests),
        }
    }
}
