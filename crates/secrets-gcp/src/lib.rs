//! Google Secret Manager as a store of connector secrets.
//!
//! ```no_run
//! use secret_persistence_core::{Coordinate, SecretPersistenceExt};
//! use secret_persistence_gcp::{Config, GoogleSecretManager};
//!
//! # async fn example() -> Result<(), secret_persistence_core::Error> {
//! let config = Config::builder("my-project")
//!     .with_region("europe-west3")
//!     .with_label("team", "data")
//!     .build()?;
//! let store = GoogleSecretManager::new(config);
//! let read = store.read(&Coordinate::parse("airbyte_workspace_1_secret_2_v1")?).await?;
//! # let _ = read; Ok(())
//! # }
//! ```
//!
//! From a URL it is `gcp://my-project/europe-west3?labels=team=data` ([`Config::from_url`]); all
//! settings, their environment variables and defaults stand in [`SETTINGS`].
//!
//! # What is stored how
//!
//! A coordinate is the secret's id, as it is; the value is its version 1. The create request carries
//! labels (those configured, and [`OWNER_LABEL`] with the owner), replication, the customer's key and
//! the expiry, which Google enforces; the value follows in a second request, with its CRC32C. A write
//! that was interrupted between the two is completed by the next, and its remains are removed by
//! deleting the name; until then it reads as not found. A version is never added to a secret that has
//! one, nor destroyed alone. The checksum of every value that is read is compared. External names are
//! ids or resource names, and may name a version: `db`, `db/versions/3`,
//! `projects/my-project/secrets/db/versions/3`. Deleting is for good: there is no recovery. The SDK
//! and its TLS keep copies of values and keys in buffers of their own, which are not wiped.
//!
//! # Regions
//!
//! | `region` | `replication` | secrets |
//! |---|---|---|
//! | none | `automatic` | global, replicated as Google likes |
//! | set | `regional`, the default | of that region alone, with endpoint and names of their own, as Airbyte writes them (its own reads do not look there) |
//! | set | `user-managed` | global, with one replica in that region |
//!
//! Global secrets and those of a region do not see each other: a store with other settings is
//! another store, and secrets are moved between them.
//!
//! # Credentials
//!
//! The first of these that is configured; on top of any, a service account can be impersonated
//! (`impersonate-service-account`).
//!
//! | setting | credentials |
//! |---|---|
//! | `credentials` | the JSON of a credentials file, plain or in base64 |
//! | `credentials-file` | such a file, read again when it changes or Google refuses it |
//! | `credentials-source=metadata` | the metadata server, and nothing else |
//! | none | the application default credentials: the file that `GOOGLE_APPLICATION_CREDENTIALS` names (a key, or workload identity federation), gcloud's login, the metadata server (workload identity of GKE) |
//!
//! The last is the first choice: nothing has to be kept secret. With a service account's key the SDK
//! signs the bearer token itself (<https://google.aip.dev/auth/4111>), so no token address is asked;
//! it lasts an hour by this machine's clock. An error is retryable where other credentials were found
//! after a refusal. Tokens are fetched by tasks of the SDK on the runtime of the first request.
//!
//! # Rights
//!
//! [`policy::roles`] makes the two least roles, which `migrate policy gcp` prints together with the
//! commands that bind them: one without a condition, for what Google checks on the project, and one
//! under a condition on the names of secrets.
//!
//! # Logs
//!
//! The `Debug` of the SDK's messages prints values, and where `GOOGLE_CLOUD_RUST_LOGGING` is set the
//! SDK logs requests. This crate runs the SDK without a subscriber, so its events never appear,
//! whatever is filtered; the crate's own events at DEBUG (target `secret_persistence_gcp::client`) name the
//! permission, the time it took, and the code and status of a failure.
//!
//! # When it does not work
//!
//! | symptom | cause | remedy |
//! |---|---|---|
//! | a secret is not visible in the console | the console shows another project, or global secrets instead of regional ones | the tab "Regional secrets"; `check` says project and region |
//! | `IAM_PERMISSION_DENIED`, `PERMISSION_DENIED` | a role lacks the permission, its condition does not hold (project's id instead of its number), or the project does not exist | the error names permission and resource; `migrate policy gcp`; the audit log of the project (`protoPayload.status.code=7`; reads only where Data Access logs are on) |
//! | the test secret of `check` fails | one right is missing | each step names its permission; a new role takes some minutes to arrive |
//! | `SERVICE_DISABLED` | the Secret Manager API is not enabled | `gcloud services enable secretmanager.googleapis.com` |
//! | `BILLING_DISABLED` | no billing account | link one |
//! | `CONSUMER_INVALID`, `RESOURCE_PROJECT_INVALID` | a project that does not exist | compare `project-id` with `gcloud projects list` |
//! | `CONSUMER_SUSPENDED` | Google has suspended the project | its owners have mail |
//! | `USER_PROJECT_DENIED` | the quota project of the credentials is another, and may not be used | `serviceusage.services.use` on it; unset it |
//! | `SECURITY_POLICY_VIOLATED`, `ORG_RESTRICTION_VIOLATION`, `RESOURCE_USAGE_RESTRICTION_VIOLATED` | VPC Service Controls, or a policy of the organisation | the audit log names the perimeter or policy |
//! | no Google credentials were found | no source has any | the error lists what was tried |
//! | the credentials were refused a token | a login that was revoked or has expired, a workload identity pool whose conditions do not fit | log in again; compare issuer, audience and conditions |
//! | the service account may not be impersonated | no right to | `roles/iam.serviceAccountTokenCreator` on it |
//! | `UNAUTHENTICATED`, `ACCESS_TOKEN_TYPE_UNSUPPORTED` | the key was revoked, or the clock is wrong | the error says where it is the clock; make a new key |
//! | `ACCESS_TOKEN_EXPIRED` | the clock is wrong, or a session has ended | synchronise the clock (NTP); log in again |
//! | `ACCOUNT_STATE_INVALID` | the service account is disabled or deleted | enable it, or take another |
//! | `ACCESS_TOKEN_SCOPE_INSUFFICIENT` | the scopes of a virtual machine | the scope `cloud-platform` |
//! | `CREDENTIALS_MISSING` | a proxy strips headers, or requests are anonymous | look at the proxies on the way, and at `credentials-source` |
//! | `RATE_LIMIT_EXCEEDED`, `RESOURCE_EXHAUSTED` | too many requests, ours and others' | the limit layer; a higher quota |
//! | `RESOURCE_QUOTA_EXCEEDED` | a quota on how many there are | delete some; a higher quota |
//! | `NOT_FOUND` on a secret | never written here, deleted, or expired | compare project, region and `replication` |
//! | `NOT_FOUND` on a write or a listing | project, region or KMS key do not exist | compare them |
//! | `FAILED_PRECONDITION` on a read | the newest version is disabled or destroyed, or its key cannot be used | the error says which; `gcloud secrets versions enable` |
//! | `FAILED_PRECONDITION` on a write | the KMS key is disabled or not granted to the service agent, or a policy forbids the location | `migrate policy gcp --kms-key …`; set `region` |
//! | `INVALID_ARGUMENT`, `OUT_OF_RANGE` | a setting or an expiry that Google refuses | look at labels, key, region, expiry |
//! | `ALREADY_EXISTS` | another value stands under the name | a new value needs a new coordinate |
//! | `ABORTED` | another process was changing the secret | try again; the retry layer does |
//! | `UNAVAILABLE`, `INTERNAL`, `DEADLINE_EXCEEDED`, `CANCELLED` | Google itself | try again; the retry layer does |
//! | `UNIMPLEMENTED` | the endpoint is of something else | look at `endpoint-url` and `region` |
//! | `DATA_LOSS`, or a value that does not have its checksum | data damaged on the way or at Google | try again; write it again |
//! | the host does not exist | the region is misspelt or has no regional secrets, or DNS fails | compare the region |
//! | no connection, or none in time | no route: firewall, proxy, Private Google Access | look at the network |
//! | no trusted TLS connection | a proxy replaces certificates | add its authority to the system's |

mod client;
mod config;
mod credentials;
mod error;
mod key;
mod naming;
mod persistence;
pub mod policy;
mod reading;
mod settings;
mod writing;

pub use config::{Config, ConfigBuilder, Credentials, OWNER_LABEL};
pub use key::Key;
pub use persistence::GoogleSecretManager;
pub use settings::SETTINGS;
