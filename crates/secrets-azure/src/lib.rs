//! Azure Key Vault as a store of connector secrets.
//!
//! ```no_run
//! use secret_persistence_azure::{AzureKeyVault, Config};
//! use secret_persistence_core::{Coordinate, SecretPersistenceExt};
//!
//! # async fn example() -> Result<(), secret_persistence_core::Error> {
//! let config = Config::builder("https://airbyte-prod.vault.azure.net")
//!     .with_tag("team", "data")
//!     .build()?;
//! let store = AzureKeyVault::connect(config).await?;
//! let read = store.read(&Coordinate::parse("airbyte_workspace_1_secret_2_v1")?).await?;
//! # let _ = read; Ok(())
//! # }
//! ```
//!
//! From a URL it is `azure://airbyte-prod.vault.azure.net?tags=…&purge=…` ([`Config::from_url`]); all
//! settings, their environment variables and defaults stand in [`SETTINGS`].
//!
//! # What is stored how
//!
//! A secret's name is the coordinate with `-` for `_`, as Airbyte writes it. That is not injective, and
//! Key Vault ignores case, so the coordinate stands in the tag [`COORDINATE_TAG`], and is compared
//! before anything is read, changed or deleted: another one there is `Integrity`. What has no tag was
//! written by others and is read; in listings its coordinate is what the known shape says, and names of
//! another shape are skipped and counted. Tags (those configured, the coordinate, the owner) and expiry
//! (`attributes.exp`) go into the one request that sets the secret. A secret is never given another
//! version. Expired ones are removed by a sweep: `exp` does not keep Key Vault from serving them.
//! External names are valid names of secrets, without version. The SDK and its TLS keep copies of
//! values and tokens in buffers of their own, which are not wiped.
//!
//! # Deleting
//!
//! What is deleted stays recoverable for the vault's retention, 7 to 90 days, and keeps its name until
//! then: a read and a write of it are `PendingDeletion`. The setting `purge` ends that at once where the
//! role allows it; where it does not, or the vault has purge protection, the delete succeeds all the
//! same, with a warning in the log, and no purge is tried for ten minutes. `restore` recovers, and
//! `on-deleted` lets a write recover or purge what is in its way.
//!
//! # Credentials
//!
//! | setting | credentials |
//! |---|---|
//! | `tenant-id`, `client-id` and `client-secret` | the secret of an app registration |
//! | `tenant-id`, `client-id` and `federated-token-file` | the service account of a pod, by workload identity; its webhook sets all three (`AZURE_…`) |
//! | none, or `client-id` | the managed identity of this machine, system-assigned or the user-assigned one |
//! | `credentials=developer-tools` | whoever is logged in with `az` or `azd` |
//!
//! The first that is configured is taken; identities that Azure keeps are the first choice, since
//! nothing has to be kept secret. One login serves any number of callers; a new one is made five minutes before
//! its end, and when the vault refuses the token. The cloud (public, China, US government) is known from
//! the vault's host; others are set with `authority-host` and `vault-suffix`.
//!
//! # Rights
//!
//! [`policy::role_definition`] makes the least role, which `migrate policy azure` prints with the
//! commands that assign it, and the access policy for older vaults. Azure cannot scope a right by a
//! secret's name: give connectors a vault of their own.
//!
//! # Logs
//!
//! This crate runs the SDK without a subscriber, so its events never appear, whatever is filtered; the
//! crate's own events at DEBUG (target `secret_persistence_azure::client`) name the request as Key Vault's own log
//! does, the time it took, and the codes, status and request id of a failure.
//!
//! # When it does not work
//!
//! | symptom | cause | remedy |
//! |---|---|---|
//! | `ForbiddenByRbac` | no role of the principal has the data action on this vault | the error names it: assign a role; it takes minutes to arrive, `migrate check --wait 10m` waits for it |
//! | `AccessDenied`, `ForbiddenByPolicy` | the vault uses access policies, and none grants the permission | `az keyvault set-policy`; the object id is the service principal's, not the application's |
//! | `Forbidden` | one of both, purge protection, or a disabled secret | `az keyvault show --query properties.enableRbacAuthorization` says which the vault uses |
//! | `ForbiddenByFirewall`, `ForbiddenByConnection` | the vault's firewall | add the address or subnet, or use the private endpoint; a role does not help |
//! | `SecretDisabled` | the secret is disabled | enable it in the portal |
//! | the test secret of a check fails | one right is missing | each step names its right; the operation of that name in the vault's log (AzureDiagnostics, category AuditEvent) says who was refused |
//! | a secret is not visible in the portal | the portal's user has no right to list, or it is among the deleted ones | give yourself `Key Vault Secrets User`; look under Manage deleted secrets |
//! | `SecretNotFound`, `NotFoundException` | the secret is not in this vault | compare the vault's URL |
//! | `ObjectIsDeletedButRecoverable` | the name belongs to a soft-deleted secret | restore or purge it, or set `on-deleted` |
//! | `ObjectIsBeingDeleted`, `ObjectIsBeingRecovered`, `Conflict` | the vault is still changing the secret | try again; the retry layer does |
//! | a warning that secrets are not purged | purge protection, or no right to purge | it cannot be switched off; `migrate policy azure --purge` prints the right |
//! | the host does not exist | the vault's name is misspelt, the vault was deleted, or DNS fails | compare the URL; `az keyvault list-deleted`; inside a virtual network look at its private DNS zone |
//! | no connection, or none in time | no route: firewall, proxy, private endpoint | look at the network |
//! | no trusted TLS connection | a proxy replaces certificates, or an emulator has one of its own | set `ca-file` to its authority's, or to that one |
//! | the vault asks for a token of another resource | the host is not of a known cloud, or an emulator | compare the URL; `verify-challenge=false` for emulators |
//! | no metadata service answers | not a machine of Azure, or one without identity | assign one, or configure other credentials |
//! | `imds:invalid_request`, `imds:identity_not_found` | this machine has no such managed identity | `az vm identity assign`; compare `client-id` |
//! | `imds:unauthorized_client`, `imds:unauthenticated` | the metadata service refuses | look whether the identity still exists |
//! | neither the Azure CLI nor the Azure Developer CLI gave a token | nobody is logged in | `az login` |
//! | `AADSTS7000215` | a wrong client secret: often its id instead of its value | set the value, or make a new one |
//! | `AADSTS7000222` | the client secret has expired | `az ad app credential reset` |
//! | `AADSTS700016` | a wrong client id, or another directory's | compare client id and tenant id |
//! | `AADSTS7000112` | the application is disabled | enable it under Enterprise applications |
//! | `AADSTS90002`, `AADSTS900023` | a wrong tenant id, or another cloud's | `az account show`; `authority-host` |
//! | `AADSTS70021`, `AADSTS700211`, `AADSTS700212`, `AADSTS700213` | the federated credential does not fit the service account | compare issuer, subject and audience |
//! | `AADSTS700024` | the service account's token has expired | look at `federated-token-file` and the clock |
//! | `AADSTS50013`, `AADSTS50027`, `AADSTS700027` | the service account's token cannot be verified | look at the file, and at the cluster's issuer |
//! | `AADSTS500011`, `invalid_resource`, `imds:invalid_resource` | tenant and vault are of different clouds | `authority-host`, the vault's suffix |
//! | `AADSTS53003` | a Conditional Access policy | the sign-in log names it |
//! | `invalid_client`, `unauthorized_client`, `access_denied` | another reason of Entra ID | the cause has the number; the sign-in log explains it |
//! | `invalid_grant`, `invalid_request`, `invalid_scope` | another reason of Entra ID | the same |
//! | `AKV10032` | the token is of another directory than the vault's | the error names both; set the vault's |
//! | `AKV10022` | the token is for another cloud | `authority-host`, the vault's suffix |
//! | `AKV10046` | the directory has new keys, or another cloud's | try again; compare the cloud |
//! | `TokenExpired` | the clock | synchronise it (NTP); look for a proxy that answers logins from a cache |
//! | `insufficient_claims` | conditions of access have changed | log in again; the sign-in log |
//! | `Unauthorized`, `AKV10000`, `invalid_token` | the token does not arrive, or has ended | look at proxies and at the clock |
//! | `BadParameter` | a setting that Key Vault refuses | look at the tags, and at `api-version` |
//! | `Throttled`, `TooManyRequests` | too many requests, ours and others' | the limit layer; several vaults |
//! | `InternalServerError`, `ServiceUnavailable`, `AADSTS90033`, `temporarily_unavailable` | Azure itself | try again; the retry layer does |

mod client;
mod config;
mod credentials;
mod error;
mod naming;
mod persistence;
pub mod policy;
mod reading;
mod settings;
mod transport;
mod waiting;

pub use config::{
    COORDINATE_TAG, ClientSecret, Config, ConfigBuilder, Credentials, OWNER_TAG, OnDeleted, Purge,
    WorkloadIdentity,
};
pub use persistence::AzureKeyVault;
pub use settings::SETTINGS;
