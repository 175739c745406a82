//! How the server behaves, changeable while it runs.

use std::{collections::BTreeSet, time::Duration};

use super::{impersonation, route};

/// Everything that can be other than on a good day. The default is a good day: no lag, no quota, all permissions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Switches {
    /// The API is not enabled in the project.
    pub api_disabled: bool,
    /// The project has no billing account.
    pub billing_disabled: bool,
    /// How many seconds the server's clock is ahead of the client's; behind if negative.
    pub clock_offset: i64,
    /// One bit of each payload is turned on its way out; the checksum is that of what is stored.
    pub corrupt_payloads: bool,
    /// Requests whose connection is cut.
    pub cuts: Vec<Cut>,
    /// Permissions that the caller lacks, such as `secretmanager.versions.access`.
    pub denied: BTreeSet<String>,
    /// What the caller may do; everything, if there is nothing here.
    pub granted: Option<Vec<Grant>>,
    /// What has become of every key in Cloud KMS.
    pub kms: Kms,
    /// How long each request takes.
    pub latency: Duration,
    /// How long it takes until `latest` names a new version.
    pub latest_lag: Duration,
    /// How long it takes until listings show what was created or deleted.
    pub list_lag: Duration,
    /// How long it takes until the metadata of a new secret or version can be read. Access is not concerned.
    pub metadata_lag: Duration,
    /// Payloads come without a checksum, as those stored under a customer's key before July 2021 do.
    pub omit_checksums: bool,
    /// The most secrets on a page whose size the client leaves to the server.
    pub page_size: usize,
    /// Requests per second; unlimited if none.
    pub quota: Quota,
    /// How long a client that exceeds the quota is told to wait.
    pub retry_after: Option<Duration>,
    /// Every key of the service account is revoked.
    pub revoked_keys: bool,
    /// Regional names are refused by the global endpoint, as the service does.
    pub strict_endpoints: bool,
    /// Exceeds the quota on every n-th request for secrets.
    pub throttle_every: Option<u32>,
    /// How long access tokens last.
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
    /// Takes a permission away.
    ///
    /// # Panics
    ///
    /// If nothing that is served takes it: a misspelt one would test nothing.
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
    /// If there is no such method of secrets.
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

    /// Whether the caller has a permission on a resource, named with the project's number.
    pub(super) fn allows(&self, permission: &str, resource: &str) -> bool {
        !self.denied.contains(permission)
            && self.granted.as_ref().is_none_or(|grants| {
                grants
                    .iter()
                    .any(|grant| grant.allows(permission, resource))
            })
    }

    /// What happens to the connection of a request of this method; counts it.
    pub(super) fn meet(&mut self, method: &str) -> Option<When> {
        let cut = self
            .cuts
            .iter_mut()
            .find(|cut| cut.method == method && cut.times > 0)?;
        cut.times -= 1;
        Some(cut.when)
    }
}

/// Requests whose connection breaks off without an answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cut {
    /// The method, such as `AddSecretVersion`.
    pub method: String,
    /// When it is cut.
    pub when: When,
    /// How many requests still are to be cut.
    pub times: u32,
}

/// When a connection is cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// The work is done, and nobody learns of it.
    AfterWork,
    /// Nothing is done.
    BeforeWork,
}

/// Permissions, as an IAM role grants them, possibly on a condition.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Grant {
    /// Permissions such as `secretmanager.secrets.create`.
    pub permissions: BTreeSet<String>,
    /// The condition: the resource's name begins with one of these. Unconditional, if empty.
    ///
    /// As in [`resource.name.startsWith`](https://cloud.google.com/iam/docs/conditions-resource-attributes), names have
    /// the project's *number*; the resource of `create` and `list` is the project itself, or its location.
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

    /// On resources only whose name begins so, or as another such call says.
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
    /// The project's service agent was never made.
    NoServiceAgent,
    /// They work.
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
