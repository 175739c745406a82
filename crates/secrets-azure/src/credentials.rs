//! Logins: one for all callers, cached until it expires, and repeated when the vault refuses it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::Error as SdkError;
use azure_core::base64::decode_url_safe;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind as SdkKind;
use azure_core::http::{
    AsyncRawResponse, ClientMethodOptions, ClientOptions, HttpClient, Request, RetryOptions,
    Transport,
};
use azure_core::time::OffsetDateTime;
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, DeveloperToolsCredential,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};
use secret_persistence_core::SecretValue;
use secret_persistence_remote::Shared;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use crate::config::{ClientSecret, Config, Credentials, WorkloadIdentity};
use crate::error::Fault;
use crate::transport::Bounded;

/// How long a new token is not replaced, even if the vault refuses it: many requests are refused
/// together, and one login serves them all.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// The longest token lifetime we accept, because the authority of a tenant may return any number.
const LONGEST_TOKEN_SECONDS: i64 = 366 * 86_400;

/// Our login, shared by all requests. Clones share the state.
///
/// The SDK requests a token when it has none, when the token is about to expire, and when the vault
/// has refused it. The SDK's own credentials would then return the refused token again. Therefore
/// each login starts from scratch, and a federated token file is read again.
#[derive(Clone)]
pub(crate) struct Login(Arc<Inner>);

struct Inner {
    credentials: Credentials,
    authority: Url,
    /// For Entra ID.
    entra: reqwest::Client,
    /// For the metadata service of this machine, which is not reachable through a proxy.
    metadata: reqwest::Client,
    shared: Shared<Token, Fault>,
}

struct Token {
    access: AccessToken,
    scopes: String,
    fetched: Instant,
}

impl Login {
    pub(crate) fn new(config: &Config, entra: reqwest::Client, metadata: reqwest::Client) -> Self {
        Self(Arc::new(Inner {
            credentials: config.credentials.clone(),
            authority: config.authority.clone(),
            entra,
            metadata,
            shared: Shared::default(),
        }))
    }

    /// The identity in the last token, if it is readable.
    pub(crate) fn principal(&self) -> Option<String> {
        let token = self.0.shared.held()?;
        Claims::of(token.access.token.secret())?.principal()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("credentials", &self.0.credentials)
            .field("authority", &self.0.authority.as_str())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenCredential for Login {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let wanted = scopes.join(" ");
        // The SDK calls this without a token, or with one that was refused or is about to expire.
        let is_fresh = |token: &Token| {
            token.scopes == wanted
                && token.fetched.elapsed() < FRESH_FOR
                && token.access.expires_on > OffsetDateTime::now_utc()
        };
        let fetch = |_| async {
            Ok(Token {
                access: self.0.fetch(scopes).await?,
                scopes: wanted.clone(),
                fetched: Instant::now(),
            })
        };
        match self.0.shared.get(is_fresh, fetch).await {
            Ok(token) => Ok(token.access.clone()),
            Err(fault) => Err(SdkError::new(SdkKind::Credential, fault)),
        }
    }
}

impl Inner {
    async fn fetch(&self, scopes: &[&str]) -> Result<AccessToken, Fault> {
        match &self.credentials {
            Credentials::ClientSecret(secret) => self.with_secret(secret, scopes).await,
            Credentials::DeveloperTools => {
                let none = |_: SdkError| {
                    // The output of the command lines does not belong into our errors.
                    Fault::no_credentials(
                        "neither the Azure CLI nor the Azure Developer CLI returned a token",
                        "log in with `az login` or `azd auth login`",
                    )
                };
                let tools = DeveloperToolsCredential::new(None).map_err(none)?;
                tools.get_token(scopes, None).await.map_err(none)
            }
            Credentials::ManagedIdentity { client_id } => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                    client_options: self.options(&self.metadata, true),
                };
                let failed = |error: SdkError| Fault::from_credential(&error, true);
                let identity = ManagedIdentityCredential::new(Some(options)).map_err(failed)?;
                identity.get_token(scopes, None).await.map_err(failed)
            }
            Credentials::WorkloadIdentity(identity) => self.federated(identity, scopes).await,
        }
    }

    async fn with_secret(
        &self,
        secret: &ClientSecret,
        scopes: &[&str],
    ) -> Result<AccessToken, Fault> {
        let failed = |error: SdkError| Fault::from_credential(&error, false);
        let options = ClientSecretCredentialOptions {
            client_options: self.options(&self.entra, false),
        };
        let credential = ClientSecretCredential::new(
            &secret.tenant_id,
            secret.client_id.clone(),
            Secret::new(secret.secret.expose().to_owned()),
            Some(options),
        )
        .map_err(failed)?;
        credential.get_token(scopes, None).await.map_err(failed)
    }

    async fn federated(
        &self,
        identity: &WorkloadIdentity,
        scopes: &[&str],
    ) -> Result<AccessToken, Fault> {
        let failed = |error: SdkError| Fault::from_credential(&error, false);
        let unreadable = |reason| {
            Fault::no_credentials(
                format!("the federated token file cannot be read: {reason}"),
                "check `federated-token-file` (AZURE_FEDERATED_TOKEN_FILE), the pod's label \
                 azure.workload.identity/use and its service account",
            )
        };
        // Kubernetes renews the file, so it is read at every login.
        let text = tokio::fs::read_to_string(&identity.token_file)
            .await
            .map(SecretValue::new)
            .map_err(|error| unreadable(error.kind()))?;
        if text.expose().trim().is_empty() {
            return Err(unreadable(std::io::ErrorKind::UnexpectedEof));
        }
        let credential = ClientAssertionCredential::new(
            identity.tenant_id.clone(),
            identity.client_id.clone(),
            ServiceAccount(text),
            Some(ClientAssertionCredentialOptions {
                client_options: self.options(&self.entra, false),
            }),
        )
        .map_err(failed)?;
        credential.get_token(scopes, None).await.map_err(failed)
    }

    fn options(&self, http: &reqwest::Client, is_metadata: bool) -> ClientOptions {
        let mut cloud = CustomConfiguration::default();
        self.authority
            .as_str()
            .clone_into(&mut cloud.authority_host);
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(Refusals {
                http: Bounded(http.clone()),
                is_metadata,
            }))),
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
            ..ClientOptions::default()
        }
    }
}

/// Parses refusals before the SDK does: the SDK understands only some of them, and loses the number
/// of an error whose description contains an escaped character.
#[derive(Debug)]
struct Refusals {
    http: Bounded,
    is_metadata: bool,
}

#[async_trait]
impl HttpClient for Refusals {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let response = self.http.execute_request(request).await?;
        if response.status().is_success() {
            return with_accepted_expiry(response).await;
        }
        let response = response.try_into_raw_response().await?;
        let fault = Fault::from_login(&response, self.is_metadata);
        Err(SdkError::new(SdkKind::Credential, fault))
    }
}

/// Converts the expiry of a token into the form that the SDK accepts.
async fn with_accepted_expiry(response: AsyncRawResponse) -> azure_core::Result<AsyncRawResponse> {
    let (status, headers, body) = response.try_into_raw_response().await?.deconstruct();
    let body = accepted_expiry(&body).unwrap_or_else(|| body.to_vec());
    Ok(AsyncRawResponse::from_bytes(status, headers, body))
}

/// The body with such an expiry; `None` if it already has one.
///
/// The metadata service writes the expiry as a string, and the SDK accepts nothing else. A
/// substitute for the service may write a number, like OAuth, and other libraries accept it. The
/// SDK adds the remaining seconds to the current time without a limit.
fn accepted_expiry(body: &[u8]) -> Option<Vec<u8>> {
    let mut object: Value = serde_json::from_slice(body).ok()?;
    let mut changed = false;
    if let Some(end) = object.get_mut("expires_on")
        && (end.is_i64() || end.is_u64())
    {
        *end = Value::String(end.to_string());
        changed = true;
    }
    if let Some(left) = object.get_mut("expires_in")
        && (left.is_i64() || left.is_u64())
    {
        let seconds = match left.as_i64() {
            Some(seconds) => seconds.clamp(0, LONGEST_TOKEN_SECONDS),
            None => LONGEST_TOKEN_SECONDS,
        };
        changed |= left.as_i64() != Some(seconds);
        *left = seconds.into();
    }
    changed.then(|| serde_json::to_vec(&object).ok()).flatten()
}

/// A service account's token.
#[derive(Debug)]
struct ServiceAccount(SecretValue);

#[async_trait]
impl ClientAssertion for ServiceAccount {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.expose().trim().to_owned())
    }
}

/// The identity in a token. Only for display: the vault verifies the token.
/// <https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>
#[derive(Deserialize)]
struct Claims {
    appid: Option<String>,
    azp: Option<String>,
    oid: Option<String>,
    tid: Option<String>,
    upn: Option<String>,
    unique_name: Option<String>,
    xms_mirid: Option<String>,
}

impl Claims {
    fn of(token: &str) -> Option<Self> {
        let payload = token.split('.').nth(1)?;
        serde_json::from_slice(&decode_url_safe(payload).ok()?).ok()
    }

    fn principal(self) -> Option<String> {
        // Claims may have any length and content.
        let printable = |text: Option<String>| {
            text.filter(|text| text.len() <= 300 && !text.chars().any(char::is_control))
        };
        let tenant = printable(self.tid);
        let object = printable(self.oid);
        let mut parts = Vec::new();
        if let Some(user) = printable(self.upn.or(self.unique_name)) {
            parts.push(format!("user {user}"));
        } else if let Some(resource) = printable(self.xms_mirid) {
            parts.push(format!("managed identity {resource}"));
        } else if let Some(app) = printable(self.appid.or(self.azp)) {
            parts.push(format!("application {app}"));
        }
        parts.extend(object.map(|id| format!("object {id}")));
        parts.extend(tenant.map(|id| format!("directory {id}")));
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(claims: &str) -> Option<String> {
        let payload = azure_core::base64::encode_url_safe(claims);
        Claims::of(&format!("header.{payload}.signature"))?.principal()
    }

    #[test]
    fn every_form_of_expiry_is_accepted() {
        for (body, expected) in [
            (
                r#"{"expires_on":1795219200}"#,
                Some(r#"{"expires_on":"1795219200"}"#),
            ),
            (r#"{"expires_on":"1795219200"}"#, None),
            (r#"{"expires_on":1.5}"#, None),
            (r#"{"expires_in":3599}"#, None),
            (
                r#"{"expires_in":9223372036854775807}"#,
                Some(r#"{"expires_in":31622400}"#),
            ),
            (
                r#"{"expires_in":18446744073709551615}"#,
                Some(r#"{"expires_in":31622400}"#),
            ),
            (
                r#"{"expires_in":-9223372036854775808}"#,
                Some(r#"{"expires_in":0}"#),
            ),
            ("no json", None),
        ] {
            let usable = accepted_expiry(body.as_bytes());
            assert_eq!(usable.as_deref(), expected.map(str::as_bytes), "{body}");
        }
    }

    #[test]
    fn tokens_say_who_we_are_in_the_words_of_the_console() {
        for (claims, expected) in [
            (
                r#"{"appid":"a","oid":"o","tid":"t","aud":"x"}"#,
                Some("application a, object o, directory t"),
            ),
            (
                r#"{"appid":"a","upn":"ada@contoso.com","tid":"t"}"#,
                Some("user ada@contoso.com, directory t"),
            ),
            (
                r#"{"xms_mirid":"/subscriptions/s/x","oid":"o"}"#,
                Some("managed identity /subscriptions/s/x, object o"),
            ),
            (r#"{"azp":"a"}"#, Some("application a")),
            (r#"{"upn":"a\nb"}"#, None),
            ("{}", None),
            ("no json", None),
        ] {
            assert_eq!(principal(claims).as_deref(), expected, "{claims}");
        }
        for opaque in ["", "opaque", "a.b.c", "a.é.c"] {
            assert!(Claims::of(opaque).is_none(), "{opaque}");
        }
    }
}
