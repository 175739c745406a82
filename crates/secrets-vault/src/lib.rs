//! HashiCorp Vault as a store of connector secrets: the KV engine, version 1 and 2.
//!
//! ```no_run
//! use secret_persistence_core::settings::StoreUrl;
//! use secret_persistence_core::{ManagedCoordinate, SecretPersistenceExt};
//! use secret_persistence_vault::{Vault, VaultConfig};
//!
//! # async fn example() -> secret_persistence_core::Result<()> {
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
//! Version 1 cannot refuse a concurrent second write (`atomic_create` is false there). Metadata that an
//! interrupted write left is not written again. Logging in and renewing are not among these: one login
//! serves any number of callers, and a lease is renewed in the background after two thirds of its length.
//! A refused token leads to one new login (or one new look at its file), and the request is sent once more.
//!
//! A start costs one round trip before the first answer: with a token its lease and the mount are asked for
//! at once; with a login the mount is asked for beside the first read, which goes out on the guess that it
//! is version 2 at the first part of the prefix, and again where it is not (a policy for version 1 then shows
//! one refused request in the audit log). `kv-version` spares the question.
//!
//! # Logs
//!
//! Vault's warnings are logged with the path they are about. Where the request carried a value or a
//! credential only their number is: a server may repeat what it was sent.
//!
//! Vault has no recovery window: deleting removes metadata and every version. What somebody else
//! soft-deleted reads as `PendingDeletion`; `restore` undeletes it.
//!
//! # Symptom, cause, remedy
//!
//! The number is the HTTP status, which the error's cause has too.
//!
//! | symptom | cause | remedy |
//! |---|---|---|
//! | `invalid_config` (400): Vault refuses the request as invalid | a mount of the other KV version, mostly | `kv-version=auto` |
//! | `permission_denied` (403): the token may not do this | a token without the capability | the hint says which capability on which path; `migrate policy vault --prefix …` prints the least policy |
//! | `permission_denied` while opening: there is no such mount, or the token has no right in it | a wrong prefix, a missing namespace (a server without Enterprise ignores it), or a policy for other paths: version 2 needs rules on `data/` and `metadata/` | `vault secrets list` |
//! | `unauthenticated`: the token has expired or was revoked | a token without a login method to renew it by | `auth-method` approle, kubernetes or jwt |
//! | `unauthenticated`: Vault refuses the login | a used-up secret id; a role that is not bound to this service account; another audience | `vault read auth/<mount>/role/<role>` |
//! | `not_found` (404) | another mount or prefix, or a secret that was never copied to this store | compare with `vault kv list`; `migrate copy` |
//! | `invalid_config`: there is no mount at this path | wrong mount, or a missing namespace | `vault secrets list -namespace=…` |
//! | `invalid_config` (405): the mount does not support this operation | the mount is no KV engine | `vault secrets list` |
//! | `pending_deletion` | somebody ran `vault kv delete` | `vault kv undelete`, or `restore` |
//! | `unavailable` (412): this replica is behind | an Enterprise replica has not seen the last write | it is tried again; or use the primary cluster |
//! | `payload_too_large` (413) | the listener's `max_request_size` | raise it, or lower `max-value-bytes` |
//! | `throttled` (429) | a rate limit quota | `vault list sys/quotas/rate-limit`; lower the rate |
//! | `unavailable` (472): this is a disaster recovery secondary | the address of the wrong cluster | the primary's address |
//! | `unavailable` (473): this is a performance standby | the request needs the active server | the active server's address |
//! | `unavailable` (500): Vault failed internally | its storage, mostly: full, or a value above its limit | the server's log |
//! | `unavailable` (501): Vault is not initialised | a new server | `vault operator init` |
//! | `unavailable` (502): a service that Vault depends on failed | a plug-in, an identity provider | the server's log |
//! | `unavailable` (503): Vault is sealed or in maintenance | a restart without auto-unseal | `vault operator unseal`; then run the same command again |
//! | `unavailable`: no connection to Vault | address, port, network, or a certificate that is not trusted | `ca-file`, `tls-server-name`; the cause says which |
//! | `unavailable`: a standby sends us to a server that is not among the peers | the address is a standby's | the active server's address, or `peers` |
//! | the test secret of `check` fails | one capability is missing, or a path is wrong | each step names its capability and path; the audit log (`vault audit list`) has the request with `permission denied` |

mod auth;
mod client;
mod config;
mod error;
mod mount;
mod naming;
mod persistence;
mod policy;
mod resolver;
mod wire;

pub use config::{SETTINGS, VaultConfig};
pub use persistence::Vault;
pub use policy::{PolicyOptions, policy};
