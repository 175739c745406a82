//! The table of Azure's codes: their error kinds, with a reason and a hint.

use secret_persistence_core::ErrorKind;
use secret_persistence_remote::Row;

/// Every known code of Key Vault's errors and inner errors (`AKV…` precedes the message), of Entra
/// ID (`AADSTS…`, from the list of numbers, and OAuth's codes), and of the metadata service (with
/// the prefix `imds:`). From the services' documentation:
/// <https://learn.microsoft.com/azure/key-vault/general/rest-error-codes>,
/// <https://learn.microsoft.com/azure/key-vault/general/common-error-codes>,
/// <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>,
/// <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>.
pub(super) const TABLE: &[Row] = &[
    // The three ways in which a vault denies a known principal. Message and hint come from the
    // table of permissions, which knows the data action and the permission.
    Row::new(
        &["AccessDenied", "ForbiddenByPolicy"],
        ErrorKind::PermissionDenied,
        "no access policy allows it",
        "",
    ),
    Row::new(
        &["ForbiddenByRbac"],
        ErrorKind::PermissionDenied,
        "no role allows it",
        "",
    ),
    // Without an inner code: older APIs, and refusals for other reasons.
    Row::new(
        &["Forbidden"],
        ErrorKind::PermissionDenied,
        "the principal lacks the permission",
        "",
    ),
    // The vault checks its firewall before permissions, so a role does not help.
    Row::new(
        &["ForbiddenByConnection", "ForbiddenByFirewall"],
        ErrorKind::PermissionDenied,
        "the vault's firewall does not allow this machine's address",
        "add the address or the subnet under Networking in the vault (`az keyvault network-rule add`), \
         or connect through its private endpoint; the permissions are not the cause",
    ),
    // `enabled: false` is the only attribute that prevents reading a value.
    Row::new(
        &["SecretDisabled"],
        ErrorKind::PermissionDenied,
        "the secret is disabled",
        "enable it (`az keyvault secret set-attributes --enabled true`), or let the connector's \
         owner enter another value",
    ),
    // The secret of a certificate: the certificate determines its name, value and expiry.
    Row::new(
        &["SecretManagedByKeyVault"],
        ErrorKind::Conflict,
        "the secret belongs to a certificate of this name, and can only be changed and deleted with it",
        "change or delete the certificate (`az keyvault certificate`), or use another name",
    )
    .with_retryable(false),
    Row::new(
        &["NotFoundException", "SecretNotFound"],
        ErrorKind::NotFound,
        "the store does not have a secret of this name",
        "check whether this is the vault it was written to",
    ),
    // Transitional states, which end without any action.
    Row::new(
        &["Conflict", "ObjectIsBeingDeleted", "ObjectIsBeingRecovered"],
        ErrorKind::Conflict,
        "the secret is being deleted, recovered or written concurrently",
        "try again",
    ),
    Row::new(
        &["ObjectIsDeletedButRecoverable"],
        ErrorKind::PendingDeletion,
        "the secret is soft-deleted, and its name stays reserved until it is recovered or purged",
        "restore it, purge it (`az keyvault secret purge`), wait until the vault's retention period ends, or \
         set `on-deleted` to recover or purge",
    ),
    Row::new(
        &["BadParameter"],
        ErrorKind::InvalidConfig,
        "Key Vault refuses a parameter of the request",
        "check the tags in the settings, and `api-version`, which not every cloud supports",
    ),
    // Codes of a 401, which Key Vault puts before its message.
    Row::new(
        &["AKV10022"],
        ErrorKind::Unauthenticated,
        "the token is for another resource than this vault",
        "check `authority-host` and the vault's suffix: both must belong to the same cloud",
    ),
    Row::new(
        &["AKV10032"],
        ErrorKind::Unauthenticated,
        "the token is from another directory than the vault's",
        "set the tenant id to the directory that the vault belongs to (`az keyvault show --query \
         properties.tenantId`)",
    ),
    Row::new(
        &["TokenExpired"],
        ErrorKind::Unauthenticated,
        "according to the vault, the token has expired, although it was just issued",
        "synchronise the clock of this machine (NTP), and check for a proxy that answers logins from a \
         cache",
    ),
    // The directory rotates its keys; the vault will load the new ones.
    Row::new(
        &["AKV10046"],
        ErrorKind::Unauthenticated,
        "the vault cannot resolve the key that signed the token",
        "try again; if it persists, check whether tenant and `authority-host` are of the vault's cloud",
    )
    .with_retryable(true),
    // Codes of the challenge, from RFC 6750 and continuous access evaluation.
    Row::new(
        &["insufficient_claims"],
        ErrorKind::Unauthenticated,
        "the conditions for a login have changed since the token was issued",
        "log in again; check Conditional Access and the service principal's sign-in log",
    ),
    Row::new(
        &["AKV10000", "Unauthorized", "invalid_token"],
        ErrorKind::Unauthenticated,
        "the vault does not accept the token",
        "compare tenant, client and cloud with the vault's; check whether a proxy strips the \
         Authorization header, and this machine's clock",
    ),
    Row::new(
        &["Throttled", "TooManyRequests"],
        ErrorKind::Throttled,
        "Key Vault requests a lower rate",
        "enable the limit layer, or spread secrets over several vaults: a vault allows 4,000 reads and 300 writes \
         in 10 seconds",
    ),
    Row::new(
        &["InternalServerError", "ServiceUnavailable"],
        ErrorKind::Unavailable,
        "Key Vault cannot serve the request at present",
        "try again; see https://azure.status.microsoft",
    ),
    // Entra ID about the application.
    Row::new(
        &["AADSTS700016"],
        ErrorKind::Unauthenticated,
        "the directory has no application with this client id",
        "compare client id and tenant id: set the application (client) id, and the directory it is \
         registered in",
    ),
    Row::new(
        &["AADSTS7000112"],
        ErrorKind::Unauthenticated,
        "the application is disabled in its directory",
        "enable it under Enterprise applications (`Enabled for users to sign-in`)",
    ),
    Row::new(
        &["AADSTS7000215"],
        ErrorKind::Unauthenticated,
        "Entra ID refuses the client secret",
        "set the secret's value, not its id, check whether it belongs to this client id, or create a new \
         one under Certificates & secrets",
    ),
    Row::new(
        &["AADSTS7000222"],
        ErrorKind::Unauthenticated,
        "the client secret has expired",
        "create a new one under Certificates & secrets (`az ad app credential reset`) and set it",
    ),
    Row::new(
        &["AADSTS900023", "AADSTS90002"],
        ErrorKind::Unauthenticated,
        "Entra ID does not know this tenant",
        "compare the tenant id (`az account show --query tenantId`), and its cloud with \
         `authority-host`",
    ),
    // Entra ID about federation: the service account's token.
    Row::new(
        &[
            "AADSTS70021",
            "AADSTS700211",
            "AADSTS700212",
            "AADSTS700213",
        ],
        ErrorKind::Unauthenticated,
        "no federated credential of the application matches the service account's token",
        "compare issuer, subject (system:serviceaccount:<namespace>:<name>) and audience \
         (api://AzureADTokenExchange) of the federated credential with the token",
    ),
    Row::new(
        &["AADSTS700024"],
        ErrorKind::Unauthenticated,
        "the service account's token has expired or is not valid yet",
        "check whether `federated-token-file` is the file that Kubernetes renews, and this machine's \
         clock",
    ),
    Row::new(
        &["AADSTS50013", "AADSTS50027", "AADSTS700027"],
        ErrorKind::Unauthenticated,
        "Entra ID cannot verify the service account's token",
        "check whether `federated-token-file` contains a token, and whether the cluster's issuer publishes \
         its keys",
    ),
    // Entra ID about the resource of the token and its conditions.
    Row::new(
        &["AADSTS500011", "imds:invalid_resource", "invalid_resource"],
        ErrorKind::Unauthenticated,
        "the directory does not know the resource for which the vault requires a token",
        "check whether tenant, `authority-host` and the vault's suffix belong to the same cloud",
    ),
    Row::new(
        &["AADSTS53003"],
        ErrorKind::Unauthenticated,
        "a Conditional Access policy blocks the login",
        "check the service principal's sign-in log in Entra ID, which names the policy",
    ),
    // OAuth's codes, for numbers that are not above.
    Row::new(
        &["invalid_client", "unauthorized_client", "access_denied"],
        ErrorKind::Unauthenticated,
        "Entra ID refuses the application's credentials",
        "check the service principal's sign-in log in Entra ID; \
         https://login.microsoftonline.com/error explains the number in the cause",
    ),
    Row::new(
        &["invalid_grant", "invalid_request", "invalid_scope"],
        ErrorKind::Unauthenticated,
        "Entra ID refuses the login",
        "compare tenant id, client id and `authority-host`; \
         https://login.microsoftonline.com/error explains the number in the cause",
    ),
    Row::new(
        &["AADSTS90033", "temporarily_unavailable"],
        ErrorKind::Unavailable,
        "Entra ID cannot serve the login at present",
        "try again; see https://azure.status.microsoft",
    ),
    // The metadata service about this machine's identities.
    Row::new(
        &["imds:invalid_request", "imds:identity_not_found"],
        ErrorKind::Unauthenticated,
        "this machine does not have this managed identity",
        "assign one to it (`az vm identity assign`, `az webapp identity assign`), or set the client id \
         to that of a user-assigned identity that it has",
    ),
    Row::new(
        &["imds:unauthorized_client", "imds:unauthenticated"],
        ErrorKind::Unauthenticated,
        "the metadata service refuses to issue a token",
        "check whether this machine is on Azure, the identity still exists, and the pod may use it; \
         elsewhere set tenant id, client id and client secret",
    ),
];
