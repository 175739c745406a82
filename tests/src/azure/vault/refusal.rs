//! The refusals of the vault: status, code, inner code and message of each.
//!
//! The form is `{"error": {"code", "message", "innererror": {"code"}}}`, as
//! <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret#keyvaulterror>
//! documents it. If the documentation has no message, it is the one in the linked report.

use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use serde_json::json;

use crate::azure::reply::Reply;

/// Why the vault refuses a request.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    inner: Option<&'static str>,
    message: String,
    challenge: Option<String>,
    retry_after: Option<u32>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            inner: None,
            message: message.into(),
            challenge: None,
            retry_after: None,
        }
    }

    fn inner(mut self, code: &'static str) -> Self {
        self.inner = Some(code);
        self
    }

    pub(super) fn reply(self) -> Reply {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(inner) = self.inner {
            error["innererror"] = json!({"code": inner});
        }
        let mut reply = Reply::json(self.status, &json!({"error": error}));
        if let Some(challenge) = self.challenge {
            let challenge = HeaderValue::from_str(&challenge).expect("addresses are visible ASCII");
            reply = reply.with_header(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after {
            reply = reply.with_header(header::RETRY_AFTER, seconds.into());
        }
        reply
    }

    /// The token is missing, or this vault does not accept it.
    ///
    /// See <https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses#authentication>.
    pub(super) fn unauthorized(challenge: String, message: impl Into<String>) -> Self {
        Self {
            challenge: Some(challenge),
            ..Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
        }
    }

    /// The request itself is invalid.
    ///
    /// See <https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses#error-responses>;
    /// the code is that of <https://github.com/aspnet/MicrosoftConfigurationBuilders/issues/22>.
    pub(super) fn bad_parameter(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadParameter", message)
    }

    /// See <https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses#request-body>.
    pub(super) fn media_type() -> Self {
        let message = "The content type of the request body must be application/json";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    /// See <https://learn.microsoft.com/azure/key-vault/general/rest-error-codes#error-due-to-firewall-policy>.
    pub(super) fn firewall(caller: &str, vault: &str) -> Self {
        let message = format!(
            "Client address is not authorized and caller is not a trusted service.\r\nClient address: 127.0.0.1\r\nCaller: \
             {caller}\r\nVault: {vault}"
        );
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).inner("ForbiddenByFirewall")
    }

    /// See <https://learn.microsoft.com/azure/key-vault/general/private-link-service>.
    pub(super) fn connection(caller: &str, vault: &str) -> Self {
        let message = format!(
            "Public network access is disabled and request is not from a trusted service nor via an approved private \
             link.\r\nCaller: {caller}\r\nVault: {vault}"
        );
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).inner("ForbiddenByConnection")
    }

    /// See <https://learn.microsoft.com/azure/key-vault/general/rbac-guide>, the message in
    /// <https://github.com/piyushsachdeva/Terraform_AKS/issues/2>.
    pub(super) fn role(caller: &str, action: &str, resource: &str, vault: &str) -> Self {
        let message = format!(
            "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role \
             definitions were changed recently, please observe propagation time.\r\nCaller: {caller}\r\nAction: \
             '{action}'\r\nResource: '{resource}'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: \
             'DeniedWithNoValidRBAC' \r\nVault: {vault}\r\n"
        );
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).inner("ForbiddenByRbac")
    }

    /// See <https://learn.microsoft.com/azure/key-vault/general/rest-error-codes#http-403-insufficient-permissions>.
    pub(super) fn policy(caller: &str, permission: &str, vault: &str) -> Self {
        let message = format!(
            "The user, group or application '{caller}' does not have secrets {permission} permission on key vault \
             '{vault}'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287"
        );
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).inner("ForbiddenByPolicy")
    }

    /// See <https://learn.microsoft.com/azure/key-vault/general/rest-error-codes#http-429-too-many-requests>, the body in
    /// <https://github.com/vcsjones/AzureSignTool/issues/219>.
    pub(super) fn throttled(retry_after: Option<u32>) -> Self {
        let message = "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached";
        Self {
            retry_after,
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "Throttled", message)
        }
    }

    /// See <https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses#error-responses>.
    pub(super) fn failed(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("the switch is a status");
        Self::new(
            status,
            "InternalServerError",
            "An unexpected error occurred.",
        )
    }

    /// See <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret>.
    pub(super) fn not_found(name: &str) -> Self {
        let message = format!(
            "A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you may \
             be able to recover it using the correct recovery command. For help resolving this issue, please see \
             https://go.microsoft.com/fwlink/?linkid=2125182"
        );
        Self::new(StatusCode::NOT_FOUND, "SecretNotFound", message)
    }

    /// See <https://learn.microsoft.com/rest/api/keyvault/secrets/get-deleted-secret/get-deleted-secret>, the body in
    /// <https://github.com/Azure/azure-sdk-for-net/issues/26027>.
    pub(super) fn deleted_not_found(name: &str) -> Self {
        let message = format!("Deleted Secret not found: {name}");
        Self::new(StatusCode::NOT_FOUND, "SecretNotFound", message)
    }

    /// See <https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#secret-attributes>, the body in
    /// <https://github.com/Azure/azure-sdk-for-js/issues/24756>.
    pub(super) fn disabled() -> Self {
        let message = "Operation get is not allowed on a disabled secret.";
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).inner("SecretDisabled")
    }

    /// See <https://learn.microsoft.com/azure/key-vault/general/soft-delete-overview>, the body in
    /// <https://github.com/ironmansoftware/powershell-universal/issues/1990>.
    pub(super) fn deleted(name: &str) -> Self {
        let message = format!(
            "Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this state, \
             the secret can only be recovered or purged."
        );
        Self::conflict(message).inner("ObjectIsDeletedButRecoverable")
    }

    /// A write to a name that is being deleted,
    /// <https://github.com/Azure/azure-sdk-for-net/issues/34322>.
    pub(super) fn name_being_deleted(name: &str) -> Self {
        let message = format!(
            "Secret {name} is currently being deleted and cannot be re-created; retry later."
        );
        Self::conflict(message).inner("ObjectIsBeingDeleted")
    }

    /// A purge, recovery or second delete before the first one is complete,
    /// <https://github.com/Azure/azure-cli/issues/12722>.
    pub(super) fn being_deleted() -> Self {
        Self::conflict("Secret is currently being deleted.").inner("ObjectIsBeingDeleted")
    }

    /// A change before the recovery is complete,
    /// <https://github.com/Azure/azure-sdk-for-net/issues/31581>.
    pub(super) fn being_recovered(name: &str) -> Self {
        let message = format!(
            "Secret {name} is currently being recovered and cannot be re-created; retry later."
        );
        Self::conflict(message).inner("ObjectIsBeingRecovered")
    }

    /// See <https://learn.microsoft.com/azure/key-vault/general/soft-delete-overview#purge-protection>, the message in
    /// <https://github.com/Azure/sap-automation/pull/200>.
    pub(super) fn purge_protected(vault: &str) -> Self {
        let message = format!(
            "Operation \"purge\" is not allowed because purge protection is enabled for this vault. Key Vault service will \
             automatically purge it after the retention period has passed.\r\nVault: {vault}"
        );
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", message)
    }
}
