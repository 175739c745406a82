//! AWS Secrets Manager as a store of connector secrets.
//!
//! ```no_run
//! use secret_persistence_aws::{AwsSecretsManager, Config};
//! use secret_persistence_core::{Coordinate, SecretPersistenceExt};
//!
//! # async fn example() -> Result<(), secret_persistence_core::Error> {
//! let config = Config::builder("eu-west-1")
//!     .with_tag_key("AirbyteManaged")
//!     .with_kms_key("alias/airbyte")
//!     .build()?;
//! let store = AwsSecretsManager::new(config);
//! let read = store.read(&Coordinate::parse("airbyte_workspace_1_secret_2_v1")?).await?;
//! # let _ = read; Ok(())
//! # }
//! ```
//!
//! From a URL it is `aws://eu-west-1?kms-key-arn=…&tag-key=…` ([`Config::from_url`]); all settings,
//! their environment variables and defaults stand in [`SETTINGS`].
//!
//! # What is stored how
//!
//! A coordinate is the secret's name, as it is; the value is its `SecretString`. Description, KMS
//! key and tags (those configured, the tag key with the value `true`, the owner, the expiry) go into
//! the one create request, so that policies which are scoped by tag can allow it. A secret is never
//! updated. Expired ones are removed by a sweep, not by AWS. External names and ARNs of this account
//! or others, in this region, can be read. Binary secrets cannot. The SDK and its TLS keep copies of
//! values and keys in buffers of their own, which are not wiped.
//!
//! # Credentials
//!
//! The first of these that is configured; on top of any, a role can be assumed (`role-arn`, with
//! `external-id` and `session-name`).
//!
//! | setting | credentials |
//! |---|---|
//! | `access-key-id` and `secret-access-key` | this access key |
//! | `credentials=imds` | the instance metadata service, and nothing else |
//! | none, or `profile` | the AWS SDK's default chain: environment, profile (SSO, processes, roles), web identity (IRSA), ECS, EKS Pod Identity, instance metadata |
//!
//! A chain is the first choice: nothing has to be kept secret. Credentials are loaded at the first
//! request, kept, renewed five minutes before their end, and loaded again as soon as the AWS files
//! change or AWS refuses them; an error is then retryable if others were found.
//!
//! # Rights
//!
//! [`policy::iam_policy`] makes the least policy, which `migrate policy aws` prints. Under Airbyte's
//! own documented policy, which has neither `BatchGetSecretValue` nor `DeleteSecret`, everything but
//! deleting works, and reading takes one request per secret.
//!
//! # Logs
//!
//! At the level TRACE the AWS SDK prints access key ids and answers, and where `LOG_SIGNABLE_BODY` and
//! `LOG_SENSITIVE_BODIES` are set everything else too. This crate runs the SDK without a subscriber,
//! so its events never appear, whatever is filtered; the crate's own events at DEBUG (target `secret_persistence_aws::client`) name the action, the time it
//! took, and the code, status and request id of a failure.
//!
//! # When it does not work
//!
//! | symptom | cause | remedy |
//! |---|---|---|
//! | a secret is not visible in the console | the console shows another region or account | switch the console to the region of the settings; `check` says the account |
//! | `AccessDeniedException`, `AccessDenied`, `NotAuthorized`, `UnauthorizedOperation` on a secret | the policy lacks the action, or asks for a tag that the secret has not | the error names action, resource and condition; grant it, or tag the secret; the event of that name in CloudTrail (`eventSource` `secretsmanager.amazonaws.com`, `errorCode` `AccessDenied`) says which policy decided |
//! | `AccessDenied` on `sts:AssumeRole`: the role is not assumable | the trust policy does not name the principal, or asks for an external id | [`policy::trust_policy`]; the event `AssumeRole` in CloudTrail |
//! | `InvalidIdentityToken`, `IDPRejectedClaim`, or a source of credentials that failed, on EKS | the service account's `eks.amazonaws.com/role-arn` annotation, the role's trust policy and the cluster's identity provider do not fit | compare issuer, subject and audience; the event `AssumeRoleWithWebIdentity` in CloudTrail |
//! | the test secret of `check` fails | one right is missing | each step names its right; `CreateSecret`, `GetSecretValue`, `DeleteSecret` in CloudTrail's event history of this region |
//! | no AWS credentials were found | no source of the chain has any | the error lists what was tried |
//! | `ExpiredToken`, `ExpiredTokenException`, `TokenRefreshRequired` | a session has ended | `aws sso login`, or a new session token |
//! | `InvalidClientTokenId`, `UnrecognizedClientException`, `InvalidAccessKeyId`, `AuthFailure` | the access key was deleted, is of another partition, lacks its session token, or the region is not enabled | make a new key; set `session-token`; look at the account's regions |
//! | `InvalidSignatureException`, `SignatureDoesNotMatch` | a wrong secret access key, a wrong region for the endpoint, or a wrong clock | the error says where it is the clock |
//! | `RequestExpired`, `RequestTimeTooSkewed`, `RequestInTheFuture` | this machine's clock | synchronise it (NTP) |
//! | `IncompleteSignature`, `IncompleteSignatureException`, `MissingAuthenticationToken`, `MissingAuthenticationTokenException` | a proxy strips headers | look at the proxies on the way |
//! | `OptInRequired`, `RegionDisabledException` | the account has not enabled the region | enable it |
//! | the host does not exist | the region is misspelt, or DNS fails | compare the region; from inside a VPC look at its DNS settings |
//! | no connection, or none in time | no route: security group, missing VPC endpoint, proxy | look at the network |
//! | no trusted TLS connection | a proxy replaces certificates | add its authority to the system's |
//! | `EncryptionFailure`, `KMSNotFoundException`, `NotFoundException` on a write | the KMS key is misspelt, or of another region | compare `kms-key-arn` |
//! | `KMSDisabledException`, `KMSInvalidStateException`, `KMSInvalidKeyUsageException` | the KMS key is disabled, scheduled for deletion, or asymmetric | enable it, or take another |
//! | `DecryptionFailure`, `KMSAccessDeniedException` | no right to the KMS key | `kms:Decrypt` and `kms:GenerateDataKey`, in the key's policy and ours |
//! | `Throttling`, `ThrottlingException`, `RequestLimitExceeded`, `RequestThrottled`, `RequestThrottledException`, `SlowDown`, `TooManyRequestsException`, `KMSThrottlingException` | too many requests, ours and others' | the limit layer; a higher quota |
//! | `LimitExceededException` | the account has its full number of secrets | delete some; a higher quota |
//! | `InternalFailure`, `InternalServerError`, `InternalServiceError`, `ServiceUnavailable`, `ServiceUnavailableException`, `RequestTimeout`, `RequestTimeoutException` | AWS itself | try again; the retry layer does |
//! | `ResourceNotFoundException` | the secret is not in this region and account | compare them; `unversioned-names` for what Airbyte stored long ago |
//! | `ResourceExistsException` | another value stands under the name | a new value needs a new coordinate |
//! | `InvalidRequestException` on a secret that is not scheduled for deletion | a replica, or a secret that another AWS service manages | look at it in the console |
//! | `InvalidParameterException`, `InvalidParameterValue`, `ValidationError`, `ValidationException` | a setting that AWS refuses | look at tags, KMS key, description |
//! | `MalformedPolicyDocumentException`, `PackedPolicyTooLarge` | a policy that AWS refuses | look at the role's session policies |
//! | `PreconditionNotMetException` | another process was changing the secret | try again; the retry layer does |
//! | `InvalidNextTokenException` | a listing was left lying too long | start it again |
//! | a warning that secrets are read one by one | the policy lacks `BatchGetSecretValue` | grant it on `*`: it takes neither resource nor tag |

mod arn;
mod client;
mod config;
mod credentials;
mod error;
mod naming;
mod persistence;
pub mod policy;
mod reading;
mod settings;

pub use config::{
    AccessKey, AssumeRole, Config, ConfigBuilder, Credentials, EXPIRES_TAG, OWNER_TAG,
};
pub use persistence::AwsSecretsManager;
pub use settings::SETTINGS;
