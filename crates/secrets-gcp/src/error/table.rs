//! The table of Google's codes: their error kinds, with a reason and a hint.

use secret_persistence_core::ErrorKind;
use secret_persistence_remote::Row;

/// Every known code: first reasons, which are more specific, then statuses.
/// <https://cloud.google.com/apis/design/errors>,
/// <https://cloud.google.com/dotnet/docs/reference/Google.Api.CommonProtos/latest/Google.Api.ErrorReason>.
pub(super) const TABLE: &[Row] = &[
    // IAM denied the request. Message and hint come from the policy table, which knows the
    // permission.
    Row::new(
        &["IAM_PERMISSION_DENIED", "PERMISSION_DENIED"],
        ErrorKind::PermissionDenied,
        "the principal lacks the permission",
        "",
    ),
    Row::new(
        &["SERVICE_DISABLED"],
        ErrorKind::InvalidConfig,
        "the Secret Manager API is not enabled in the project",
        "run `gcloud services enable secretmanager.googleapis.com --project <project>` and wait a few \
         minutes; and check whether project-id (SECRET_STORE_GCP_PROJECT_ID) is the right one",
    ),
    Row::new(
        &["BILLING_DISABLED"],
        ErrorKind::InvalidConfig,
        "the project has no billing account",
        "link one at https://console.cloud.google.com/billing/projects and wait a few minutes",
    ),
    // A project id that is misspelt or deleted, or an invalid number.
    Row::new(
        &["CONSUMER_INVALID", "RESOURCE_PROJECT_INVALID"],
        ErrorKind::InvalidConfig,
        "Google does not know the project",
        "compare project-id (SECRET_STORE_GCP_PROJECT_ID) with `gcloud projects list`: it is the id, \
         not the display name",
    ),
    Row::new(
        &["CONSUMER_SUSPENDED"],
        ErrorKind::PermissionDenied,
        "Google has suspended the project",
        "read the mail to its owners, and see https://console.cloud.google.com",
    ),
    // The project for quota and billing, which the credentials may name.
    Row::new(
        &["USER_PROJECT_DENIED"],
        ErrorKind::PermissionDenied,
        "the principal may not use the quota project of its credentials",
        "grant it serviceusage.services.use on that project, or unset GOOGLE_CLOUD_QUOTA_PROJECT and \
         `quota_project_id` in the credentials",
    ),
    Row::new(
        &[
            "ORG_RESTRICTION_VIOLATION",
            "RESOURCE_USAGE_RESTRICTION_VIOLATED",
            "SECURITY_POLICY_VIOLATED",
        ],
        ErrorKind::PermissionDenied,
        "an organisation policy forbids the request",
        "check the perimeters of VPC Service Controls and the organisation's policies; the audit \
         log of the project names the policy that applied",
    ),
    // Our clock determines the time in a self-signed token. `skew` reveals a wrong clock.
    Row::new(
        &["ACCESS_TOKEN_EXPIRED"],
        ErrorKind::Unauthenticated,
        "the access token has expired",
        "check this machine's clock; log in again (`gcloud auth application-default login`)",
    ),
    // The scopes of a virtual machine limit its service account.
    Row::new(
        &["ACCESS_TOKEN_SCOPE_INSUFFICIENT"],
        ErrorKind::PermissionDenied,
        "the access token lacks the scope",
        "give the machine the scope https://www.googleapis.com/auth/cloud-platform, or use workload \
         identity",
    ),
    // A token signed with a deleted key.
    Row::new(
        &["ACCESS_TOKEN_TYPE_UNSUPPORTED"],
        ErrorKind::Unauthenticated,
        "Google does not accept the token",
        "check whether the service account's key was deleted or disabled (`gcloud iam service-accounts \
         keys list`), and create a new one",
    ),
    Row::new(
        &["ACCOUNT_STATE_INVALID"],
        ErrorKind::Unauthenticated,
        "the service account is disabled or deleted",
        "enable it (`gcloud iam service-accounts enable <email>`), or use another",
    ),
    Row::new(
        &["CREDENTIALS_MISSING"],
        ErrorKind::Unauthenticated,
        "the request arrived without credentials",
        "check for a proxy that strips the Authorization header, and credentials-source",
    ),
    Row::new(
        &["RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"],
        ErrorKind::Throttled,
        "the project's request quota is currently exhausted",
        "enable the limit layer, or request a higher quota at \
         https://console.cloud.google.com/iam-admin/quotas",
    ),
    // A quota on the number of secrets, not on the rate. Waiting does not help.
    Row::new(
        &["RESOURCE_QUOTA_EXCEEDED"],
        ErrorKind::Unavailable,
        "a quota of the project is exhausted",
        "delete secrets, or request a higher quota at \
         https://console.cloud.google.com/iam-admin/quotas",
    )
    .with_retryable(false),
    Row::new(
        &["ABORTED"],
        ErrorKind::Conflict,
        "another process was changing the secret",
        "try again",
    ),
    // Only a create returns this, and the store then compares the values.
    Row::new(
        &["ALREADY_EXISTS"],
        ErrorKind::AlreadyExists,
        "the name already has another value",
        "use a new coordinate for a new value",
    ),
    Row::new(
        &["DATA_LOSS"],
        ErrorKind::Integrity,
        "Google has lost the data, or received it damaged",
        "write it again; check https://status.cloud.google.com",
    ),
    // The state of the version, which the store reads; for writes, the key or a policy.
    Row::new(
        &["FAILED_PRECONDITION"],
        ErrorKind::Conflict,
        "the state of the secret does not allow this",
        "check the secret's versions in the console, and the KMS key",
    )
    .with_retryable(false),
    Row::new(
        &["INVALID_ARGUMENT", "OUT_OF_RANGE"],
        ErrorKind::InvalidConfig,
        "Google refuses a parameter of the request",
        "check labels, region and expiry (between a minute and a hundred years ahead), and, with a \
         KMS key, whether Secret Manager's service agent exists (`secret-migrate policy gcp --kms-key …`)",
    ),
    Row::new(
        &["NOT_FOUND"],
        ErrorKind::NotFound,
        "the store does not have a secret of this name: it was never written, was deleted, or has expired",
        "check whether project-id and region are the ones it was written to, and `replication`: \
         global and regional secrets are separate",
    ),
    // Without a reason: an invalid token, one of a deleted key, or one with a wrong time.
    Row::new(
        &["UNAUTHENTICATED"],
        ErrorKind::Unauthenticated,
        "Google does not accept the credentials",
        "check whether the service account's key was deleted or disabled (`gcloud iam service-accounts \
         keys list`), and this machine's clock",
    ),
    Row::new(
        &["CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE"],
        ErrorKind::Unavailable,
        "Google cannot serve the request at present",
        "try again; see https://status.cloud.google.com",
    ),
    Row::new(
        &["UNIMPLEMENTED"],
        ErrorKind::InvalidConfig,
        "the endpoint does not serve Secret Manager",
        "check endpoint-url, and whether the region has regional secrets",
    ),
];
