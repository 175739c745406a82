//! HashiCorp Vault as a store of connector secrets: the KV engine, version 1 and 2.
//!
//! ```no_run
//! use secrets_core::settings::StoreUrl;
//! use secrets_core::{ManagedCoordinate, SecretPersistenceExt};
//! use secrets_vault::{Vault, VaultConfig};
//!
//! # async fn example() -> secrets_core::Result<()> {
//! let url = StoreUrl::parse("vault://vault.example.com:8200/secret/airbyte/")?;
//! let config = VaultConfig::from_url(&url, |name| std::env::var(name).ok())?;
//! let vault = Vault::connect(config).await?;
//! let coordinate = ManagedCoordinate::parse("airbyte_workspace_1_secret_2_v1")?;
//! let value = vault.read(&coordinate.into()).await?.value;
//! # Ok(())
//! # }
//! ```
//!
//! # What is stored where
//!
//! The value is the field `value` of a secret at `<mount>/<prefix><coordinate>`, as Airbyte stores it.
//! The setting `prefix` is put before the coordinate as it stands, which is what Airbyte does: a prefix
//! without a trailing slash gives `secret/airbyteairbyte_…`. In a store's URL the path is a folder.
//! On version 2 owner and expiry are custom metadata (`airbyte-owner`, `airbyte-expires`); version 1
//! has room for neither.
//!
//! # Requests
//!
//! | operation | version 2 | version 1 |
//! |---|---|---|
//! | read | 1 | 1 |
//! | write with owner or expiry | 3: look at the metadata, write it, write the value with check-and-set 0 | 2: look, write |
//! | write without | 1 | 2 |
//! | write that meets an existing name | one more, to compare | one more, to compare |
//! | delete | 1 | 1 |
//! | list a page | 1, with details one more per name | 1 |
//!
//! Version 1 cannot refuse a concurrent second write (`atomic_create` is false there). Logging in and
//! renewing are not among these: one login serves any number of callers, and a lease is renewed in the
//! background after two thirds of its length. A refused token leads to one new login (or one new look at
//! its file), and the request is sent once more.
//!
//! Vault has no recovery window: deleting removes metadata and every version. What somebody else
//! soft-deleted reads as `PendingDeletion`; `restore` undeletes it.
//!
//! # Symptom, cause, remedy
//!
//! | symptom | cause | remedy |
//! |---|---|---|
//! | `permission_denied`: there is no such mount, or the token has no right in it | a wrong prefix, or a policy for other paths: version 2 needs rules on `data/` and `metadata/` | `vault secrets list`; `migrate policy vault --prefix …` |
//! | `permission_denied`: the token may not do this | the policy lacks a capability on this path | the audit log names path and capability; `migrate policy vault` prints the least policy |
//! | `unauthenticated`: the token has expired or was revoked | a token without a login method to renew it by | a login method: `auth-method` approle, kubernetes or jwt |
//! | `unauthenticated`: Vault refuses the login | a used-up secret id; a role that is not bound to this service account; another audience | `vault read auth/<mount>/role/<role>` |
//! | `invalid_config`: there is no mount at this path | wrong mount, or a namespace is missing | `vault secrets list -namespace=…` |
//! | `invalid_config`: Vault refuses the request as invalid | a mount of the other KV version, or a namespace on a server that has none | `kv-version=auto`; leave `namespace` unset outside Enterprise |
//! | `unavailable`: Vault is sealed | a restart without auto-unseal | `vault operator unseal`; then run the same command again |
//! | `unavailable`: no connection to Vault | address, port, network, or a certificate that is not trusted | `ca-file`, `tls-server-name`; the cause says which |
//! | `unavailable`: a standby sends us to a server that is not among the peers | the address is a standby's | the active server's address, or `peers` |
//! | `throttled` | a rate limit quota | `vault list sys/quotas/rate-limit`; lower the rate |
//! | `pending_deletion` | somebody ran `vault kv delete` | `vault kv undelete`, or `restore` |

mod auth;
mod client;
mod config;
mod error;
mod naming;
mod persistence;
mod policy;
mod wire;

pub use config::{SETTINGS, VaultConfig};
pub use persistence::Vault;
pub use policy::{PolicyOptions, policy};
