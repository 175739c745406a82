//! Logins: one for any number of callers, kept until it ends, made anew when the vault refuses it.

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
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::config::{ClientSecret, Config, Credentials, WorkloadIdentity};
use crate::error::{Fault, Nature, NoCredentials};
use crate::policy::Action;
use crate::transport::Bounded;

/// How long a token that was just fetched is not fetched again, whoever says that it was refused:
/// many requests are refused together, and one login serves them all.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// How long a login that failed is not made again: the SDK lets one caller after the other ask for a
/// token, and all that wait have one answer coming.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// Our login, shared by all requests. Cloning shares the state.
///
/// The SDK asks for a token when it has none, when the one it has is about to end, and when the vault
/// refused it. Its own credentials would then hand out the refused one again; so each login is made
/// from the start, and a federated token file is read again.
#[derive(Clone)]
pub(crate) struct Login(Arc<Inner>);

struct Inner {
    credentials: Credentials,
    authority: Url,
    /// For Entra ID.
    entra: reqwest::Client,
    /// For the metadata service of this machine, which no proxy can reach for us.
    metadata: reqwest::Client,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// How the last login failed, and when.
    failed: Option<(Instant, Fault)>,
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
            held: Mutex::default(),
        }))
    }

    /// Who the last token says we are, as far as it can be read.
    pub(crate) async fn principal(&self) -> Option<String> {
        let held = self.0.held.lock().await;
        let token = held.token.as_ref()?;
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
        let mut held = self.0.held.lock().await;
        if let Some(token) = &held.token
            && token.scopes == wanted
            && token.fetched.elapsed() < FRESH_FOR
            && token.access.expires_on > OffsetDateTime::now_utc()
        {
            return Ok(token.access.clone());
        }
        if let Some((at, fault)) = &held.failed
            && at.elapsed() < FAILED_FOR
        {
            return Err(SdkError::new(SdkKind::Credential, fault.clone()));
        }
        match self.0.fetch(scopes).await {
            Ok(access) => {
                held.failed = None;
                held.token = Some(Token {
                    access: access.clone(),
                    scopes: wanted,
                    fetched: Instant::now(),
                });
                Ok(access)
            }
            Err(fault) => {
                held.failed = Some((Instant::now(), fault.clone()));
                Err(SdkError::new(SdkKind::Credential, fault))
            }
        }
    }
}

impl Inner {
    async fn fetch(&self, scopes: &[&str]) -> Result<AccessToken, Fault> {
        match &self.credentials {
            Credentials::ClientSecret(secret) => self.with_secret(secret, scopes).await,
            Credentials::DeveloperTools => {
                let none = |_: SdkError| {
                    // What the command lines print is theirs, and not for our errors.
                    Fault::new(
                        Action::Login,
                        Nature::NoCredentials(NoCredentials::DeveloperTools),
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
            Fault::new(
                Action::Login,
                Nature::NoCredentials(NoCredentials::WorkloadIdentity(reason)),
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

/// Takes refusals apart before the SDK does: it understands only some of them, and loses the number of
/// an error whose description holds an escaped character.
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
            return if self.is_metadata {
                with_end_as_text(response).await
            } else {
                Ok(response)
            };
        }
        let response = response.try_into_raw_response().await?;
        let fault = Fault::from_login(&response, self.is_metadata);
        Err(SdkError::new(SdkKind::Credential, fault))
    }
}

/// The metadata service writes the end of a token as a text, and the SDK takes nothing else; whatever
/// stands in for the service may write a number, as OAuth does and other libraries take it.
async fn with_end_as_text(response: AsyncRawResponse) -> azure_core::Result<AsyncRawResponse> {
    let (status, headers, body) = response.try_into_raw_response().await?.deconstruct();
    let body = as_text(&body, "expires_on").unwrap_or_else(|| body.to_vec());
    Ok(AsyncRawResponse::from_bytes(status, headers, body))
}

/// A JSON object with this number written as a text; nothing where there is none.
fn as_text(body: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut object: Value = serde_json::from_slice(body).ok()?;
    let number = object
        .get_mut(name)
        .filter(|value| value.is_i64() || value.is_u64())?;
    *number = Value::String(number.to_string());
    serde_json::to_vec(&object).ok()
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

/// What a token says of whom it was issued to. Only for people to read: a token is the vault's to
/// judge. <https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>
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
        // What a token says may be of any length and hold anything.
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
    fn the_end_of_a_token_is_a_text_whoever_wrote_it() {
        for (body, expected) in [
            (
                r#"{"expires_on":1795219200}"#,
                Some(r#"{"expires_on":"1795219200"}"#),
            ),
            (r#"{"expires_on":"1795219200"}"#, None),
            (r#"{"expires_on":1.5}"#, None),
            (r#"{"expires_in":3599}"#, None),
            ("no json", None),
        ] {
            let text = as_text(body.as_bytes(), "expires_on");
            assert_eq!(text.as_deref(), expected.map(str::as_bytes), "{body}");
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
