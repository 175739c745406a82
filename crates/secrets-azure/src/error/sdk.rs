//! Maps errors of the SDK and responses of Azure to faults, without their text, bodies and headers.

use std::borrow::Cow;
use std::error::Error as StdError;

use azure_core::error::ErrorKind as SdkKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::HeaderName;
use secret_persistence_core::{Error, ErrorKind};
use secret_persistence_remote::{Connect, Nature, clock_skew, find, identifier, retry_after};

use super::Fault;
use super::codes::{challenge_tenant, login_codes, parameter, vault_codes};
use crate::policy::Action;

impl Fault {
    /// There are no credentials.
    pub(crate) fn no_credentials(
        message: impl Into<Cow<'static, str>>,
        hint: &'static str,
    ) -> Self {
        Self::new(Action::Login, credentials(message, hint))
    }

    /// Takes the codes of an SDK error for a request to the vault, without its text, body and
    /// headers.
    pub(crate) fn from_sdk(action: Action, error: &azure_core::Error) -> Self {
        // A login that failed within the request has its own fault.
        if let Some(fault) = find::<Self>(error) {
            return fault.clone();
        }
        if let Some((status, response)) = answer(error) {
            let codes = response.map(vault_codes).unwrap_or_default();
            return Self::answered(action, status, codes, response);
        }
        Self::unanswered(action, error).unwrap_or_else(|| {
            let nature = match error.kind() {
                // The SDK's authorizer refuses a challenge with only a text.
                SdkKind::Other if error.source().is_none() => credentials(
                    "the vault requests a token for a resource that its host does not belong to",
                    "check whether the vault's URL is spelt correctly; for an emulator or another cloud set \
                     `verify-challenge=false`; see https://aka.ms/azsdk/blog/vault-uri",
                ),
                SdkKind::Connection | SdkKind::Io => Nature::Connect(Connect::Other),
                _ => Nature::Garbled,
            };
            Self::new(action, nature)
        })
    }

    /// A refused login, from Entra ID or the metadata service.
    pub(crate) fn from_login(response: &RawResponse, is_metadata: bool) -> Self {
        let status = u16::from(response.status());
        let mut codes = login_codes(response);
        if is_metadata {
            if codes.is_empty() {
                // App Service has no codes, and gives its statuses these meanings. Other clouds
                // have other services at this address, which do not know the path.
                codes.extend(match status {
                    400 | 404 => Some("identity_not_found".to_owned()),
                    401 | 403 => Some("unauthenticated".to_owned()),
                    _ => None,
                });
            }
            for code in &mut codes {
                code.insert_str(0, "imds:");
            }
        }
        Self::answered(Action::Login, status, codes, Some(response))
    }

    /// An SDK error for a login that our transport did not see.
    pub(crate) fn from_credential(error: &azure_core::Error, is_metadata: bool) -> Self {
        if let Some(fault) = find::<Self>(error) {
            return fault.clone();
        }
        match Self::unanswered(Action::Login, error) {
            // Only machines on Azure have a service at that address.
            Some(_) if is_metadata => Self::no_credentials(
                "no metadata service responds: this machine has no managed identity",
                "outside Azure set tenant id, client id and client secret \
                 (AB_AZURE_KEY_VAULT_TENANT_ID, …_CLIENT_ID, …_CLIENT_SECRET), or \
                 `credentials=developer-tools` after `az login`",
            ),
            Some(fault) => fault,
            None if is_metadata => Self::no_credentials(
                "the managed identity of this kind of machine is not supported",
                "use an Azure virtual machine, App Service, Functions, Container Apps or AKS, or other \
                 credentials",
            ),
            None => Self::new(Action::Login, Nature::Garbled),
        }
    }

    pub(super) fn answered(
        action: Action,
        status: u16,
        codes: Vec<String>,
        response: Option<&RawResponse>,
    ) -> Self {
        let mut fault = Self::new(action, Nature::Answered(codes));
        fault.failure.status = Some(status);
        let header = |name: &'static str| {
            let name = HeaderName::from_static(name);
            response.and_then(|response| response.headers().get_optional_str(&name))
        };
        fault.failure.skew = header("date").and_then(clock_skew);
        fault.failure.request_id = header("x-ms-request-id").and_then(identifier);
        fault.failure.retry_after = retry_after(
            header("retry-after-ms").or_else(|| header("x-ms-retry-after-ms")),
            header("retry-after"),
        );
        if let Some(challenge) = header("www-authenticate") {
            fault.challenge_tenant = challenge_tenant(challenge);
            if let Nature::Answered(codes) = &mut fault.failure.nature {
                codes.extend(parameter(challenge, "error").and_then(identifier));
            }
        }
        fault
    }

    /// A failure without a response.
    fn unanswered(action: Action, error: &azure_core::Error) -> Option<Self> {
        let cause: &reqwest::Error = find(error)?;
        let nature = Nature::unanswered(cause, cause.is_connect(), cause.is_timeout());
        let mut fault = Self::new(action, nature);
        fault.host = cause
            .url()
            .and_then(|url| url.host_str())
            .map(str::to_owned);
        Some(fault)
    }
}

fn credentials(message: impl Into<Cow<'static, str>>, hint: &'static str) -> Nature {
    let error = Error::new(ErrorKind::Unauthenticated, message).with_hint(hint);
    Nature::Credentials(Box::new(error))
}

/// The response in a chain of errors, if there is one.
fn answer(error: &azure_core::Error) -> Option<(u16, Option<&RawResponse>)> {
    let first: &(dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |&error| error.source()).find_map(|error| {
        match error.downcast_ref::<azure_core::Error>()?.kind() {
            SdkKind::HttpResponse {
                status,
                raw_response,
                ..
            } => Some((u16::from(*status), raw_response.as_deref())),
            _ => None,
        }
    })
}
