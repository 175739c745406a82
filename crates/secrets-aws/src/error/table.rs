//! The table of AWS's codes: their error kinds, with a reason and a hint.

use secret_persistence_core::ErrorKind;
use secret_persistence_remote::Row;

/// Every known code, from the services' documentation:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html#API_CreateSecret_Errors>
/// and related pages,
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html>,
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.
pub(super) const TABLE: &[Row] = &[
    // IAM denied the action. JSON services return `AccessDeniedException`, query services like STS
    // `AccessDenied`. Message and hint come from the policy table, which knows the action.
    Row::new(
        &[
            "AccessDeniedException",
            "AccessDenied",
            "NotAuthorized",
            "UnauthorizedOperation",
        ],
        ErrorKind::PermissionDenied,
        "the principal lacks the permission",
        "",
    ),
    // The key is unusable because of its policy or state, whatever the value.
    Row::new(
        &["DecryptionFailure"],
        ErrorKind::PermissionDenied,
        "Secrets Manager cannot decrypt the secret with its KMS key",
        "check whether the key is enabled and not scheduled for deletion, and allow kms:Decrypt on \
         it in the key's policy and in ours",
    ),
    Row::new(
        &["EncryptionFailure"],
        ErrorKind::InvalidConfig,
        "Secrets Manager cannot encrypt with the configured KMS key",
        "check whether kms-key-arn (AWS_KMS_KEY_ARN) names an enabled, symmetric key of this region, \
         and allow kms:GenerateDataKey and kms:Decrypt on it",
    ),
    // A session expired. Not retryable, unless the client found new credentials.
    Row::new(
        &[
            "ExpiredToken",
            "ExpiredTokenException",
            "TokenRefreshRequired",
        ],
        ErrorKind::Unauthenticated,
        "the credentials have expired",
        "log in again (`aws sso login`), or renew the session token; permanent keys of IAM \
         and roles do not expire this way",
    ),
    // The trust policy or the identity provider refused a web identity login.
    Row::new(
        &["IDPRejectedClaim", "InvalidIdentityToken"],
        ErrorKind::Unauthenticated,
        "STS refuses the web identity token",
        "compare the service account's eks.amazonaws.com/role-arn annotation, the role's trust \
         policy (issuer, subject, audience) and the IAM identity provider",
    ),
    Row::new(
        &[
            "IncompleteSignature",
            "IncompleteSignatureException",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
        ],
        ErrorKind::Unauthenticated,
        "the request arrived without a complete signature",
        "check for a proxy that strips the Authorization header, and for spaces around the access key",
    ),
    Row::new(
        &[
            "InternalFailure",
            "InternalServerError",
            "InternalServiceError",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "RequestTimeout",
            "RequestTimeoutException",
        ],
        ErrorKind::Unavailable,
        "AWS cannot serve the request at present",
        "try again; see https://health.aws.amazon.com",
    ),
    Row::new(
        &[
            "InvalidClientTokenId",
            "UnrecognizedClientException",
            "InvalidAccessKeyId",
            "AuthFailure",
        ],
        ErrorKind::Unauthenticated,
        "AWS does not know the access key or the session token",
        "check whether the key was deleted or deactivated in IAM, belongs to another partition \
         (China, GovCloud), lacks its session token, or whether the region is one that the account \
         has not enabled",
    ),
    Row::new(
        &["InvalidNextTokenException"],
        ErrorKind::InvalidValue,
        "the listing cannot be continued from here",
        "start the listing again",
    ),
    Row::new(
        &[
            "InvalidParameterException",
            "ValidationError",
            "ValidationException",
            "InvalidParameterValue",
        ],
        ErrorKind::InvalidConfig,
        "AWS refuses a parameter of the request",
        "check the tags, the KMS key and the description in the settings",
    ),
    // The state of the secret does not allow the action, for example because of replicas or another
    // service. Scheduled deletions are handled elsewhere.
    Row::new(
        &["InvalidRequestException"],
        ErrorKind::Conflict,
        "the state of the secret does not allow this",
        "check it in the console: it may be a replica, have replicas, or be managed by another \
         AWS service",
    )
    .with_retryable(false),
    // A wrong secret key, a wrong region in the scope, or a clock difference, which `skew` reveals.
    Row::new(
        &["InvalidSignatureException", "SignatureDoesNotMatch"],
        ErrorKind::Unauthenticated,
        "AWS refuses the signature of the request",
        "compare the secret access key with the access key id, and the region with the endpoint",
    ),
    Row::new(
        &["KMSAccessDeniedException"],
        ErrorKind::PermissionDenied,
        "the KMS key may not be used",
        "allow kms:GenerateDataKey and kms:Decrypt on the key, in its policy and in ours",
    ),
    Row::new(
        &[
            "KMSDisabledException",
            "KMSInvalidStateException",
            "KMSInvalidKeyUsageException",
        ],
        ErrorKind::InvalidConfig,
        "the KMS key is disabled, scheduled for deletion or of the wrong kind",
        "enable the key, or set kms-key-arn (AWS_KMS_KEY_ARN) to a symmetric key that is enabled",
    ),
    Row::new(
        &["KMSNotFoundException", "NotFoundException"],
        ErrorKind::InvalidConfig,
        "the KMS key does not exist in this region",
        "compare kms-key-arn (AWS_KMS_KEY_ARN) with the keys of this account and region",
    ),
    // A quota on the number of secrets, not on the rate. Waiting does not help.
    Row::new(
        &["LimitExceededException"],
        ErrorKind::Unavailable,
        "a quota of the account is exhausted",
        "delete secrets, or request a higher quota of Secrets Manager in Service Quotas",
    )
    .with_retryable(false),
    Row::new(
        &["MalformedPolicyDocumentException", "PackedPolicyTooLarge"],
        ErrorKind::InvalidConfig,
        "AWS refuses a policy",
        "check the role's session policies and the secret's resource policy",
    ),
    Row::new(
        &["OptInRequired", "RegionDisabledException"],
        ErrorKind::InvalidConfig,
        "the account has not enabled this region",
        "enable the region in the account's settings, or set another one",
    ),
    Row::new(
        &["PreconditionNotMetException"],
        ErrorKind::Conflict,
        "another process was changing the secret",
        "try again",
    ),
    Row::new(
        &[
            "RequestExpired",
            "RequestTimeTooSkewed",
            "RequestInTheFuture",
        ],
        ErrorKind::Unauthenticated,
        "this machine's clock differs too much from AWS's",
        "synchronise the clock (NTP)",
    ),
    // Only a create returns this, and the client then compares the values.
    Row::new(
        &["ResourceExistsException"],
        ErrorKind::AlreadyExists,
        "the name already has another value",
        "use a new coordinate for a new value",
    ),
    Row::new(
        &["ResourceNotFoundException"],
        ErrorKind::NotFound,
        "the store does not have a secret of this name",
        "check whether the region and the account are the ones it was written to",
    ),
    Row::new(
        &[
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
            "KMSThrottlingException",
        ],
        ErrorKind::Throttled,
        "AWS requests a lower rate",
        "enable the limit layer, or request a higher rate in Service Quotas",
    ),
];
