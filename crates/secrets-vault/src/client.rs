//! The HTTP layer: one pooled client, bounded requests, at most one redirect, bodies that are
//! wiped.
//!
//! The crate `vaultrs` is not used: its request layer hides response headers (Retry-After, the
//! Location of a standby) and the form of a 404, and its errors and spans contain response bodies.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Identity, Method, redirect};
use secret_persistence_core::settings::{invalid, is_loopback};
use secret_persistence_core::{Error, ErrorKind, Result, SecretValue};
use secret_persistence_remote::retry_after;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use url::Url;
use zeroize::{Zeroize, Zeroizing};

use crate::config::{Config, authority};
use crate::error::{from_status, from_transport, malformed};
use crate::resolver::Resolver;

/// No response of the KV engine is larger, because the server's storage limits its values.
const MAX_ANSWER_BYTES: usize = 32 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends requests to one Vault.
#[derive(Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    /// Scheme, host and port of every request. The host is the TLS server name, if one is set.
    base: Url,
    peers: Vec<String>,
    namespace: Option<HeaderValue>,
    /// Limits the requests in flight to the connections in the pool.
    in_flight: Semaphore,
}

/// The body of a request.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    Empty,
    /// Names and times.
    Open(&'a [u8]),
    /// The request or its response contains a value or a credential.
    Secret(&'a [u8]),
}

/// A response from Vault.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
    /// The capability and path that a refused request needs.
    needs: Option<String>,
}

impl Http {
    /// Builds the client and reads the certificate files.
    pub(crate) async fn new(config: &Config) -> Result<Self> {
        let mut base = config.address.clone();
        base.set_path("");
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(config.timeout)
            .pool_max_idle_per_host(config.connections)
            .tcp_nodelay(true);
        if base.scheme() == "http" {
            // Without TLS a proxy would see everything, and no certificates are needed.
            builder = builder.no_proxy().tls_certs_only(Vec::new());
        }
        if let Some(path) = &config.ca_file {
            let pem = read(path).await?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .ok_or_else(|| invalid("`ca-file` does not contain a PEM certificate"))?;
            builder = builder.tls_certs_only(certificates);
        }
        if let Some((cert, key)) = &config.client_cert {
            let mut pem = Zeroizing::new(read(cert).await?);
            let mut key = read(key).await?;
            pem.push(b'\n');
            pem.extend_from_slice(&key);
            key.zeroize();
            let identity = Identity::from_pem(&pem).map_err(|_| {
                invalid(
                    "`client-cert-file` and `client-key-file` are not a PEM certificate and key",
                )
            })?;
            builder = builder.identity(identity);
        }
        let mut resolver = Resolver::new(config.reach.clone());
        if !config.reach.is_everywhere() {
            // A proxy would resolve the name itself, without the check.
            builder = builder.no_proxy();
        }
        if let Some(name) = &config.tls_server_name {
            resolver = resolver.with_alias(name.clone(), authority(&base));
            // A name leaves scheme and port unchanged. The URL rejects an invalid one.
            base.set_host(Some(name))
                .map_err(|_| invalid("`tls-server-name` is not the name of a host"))?;
        }
        builder = builder.dns_resolver(Arc::new(resolver));
        let namespace = config
            .namespace
            .as_deref()
            .map(HeaderValue::from_str)
            .transpose();
        Ok(Self {
            client: builder
                .build()
                .map_err(|cause| invalid("cannot build the HTTP client").with_source(cause))?,
            base,
            peers: config.peers.clone(),
            namespace: namespace.map_err(|_| invalid("`namespace` is not a valid header value"))?,
            in_flight: Semaphore::new(config.connections),
        })
    }

    /// Sends one request and reads the whole response, whatever its status.
    ///
    /// A standby responds with 307. It is followed once, to a configured peer, over TLS (or on
    /// loopback). The token is sent nowhere else.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&SecretValue>,
        body: Body<'_>,
    ) -> Result<Answer> {
        // The semaphore is never closed.
        let _permit = self
            .in_flight
            .acquire()
            .await
            .map_err(|_| malformed("the client is closed"))?;
        let response = self.request(&self.base, &method, path, token, body).await?;
        if response.status().as_u16() != 307 {
            let answer = read_answer(response).await?.of(&method, path, body);
            if self.base.scheme() == "http" && answer.status == 400 && !answer.is_json() {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "the server refuses plain HTTP, and the response is not from Vault: this is a TLS port",
                )
                .with_hint("use an address that begins with https")
                .with_source(crate::error::Status(400)));
            }
            return Ok(answer);
        }
        let target = self.redirect(response.headers())?;
        let response = self.request(&target, &method, path, token, body).await?;
        if response.status().is_redirection() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "two standbys redirect to each other",
            )
            .with_hint("the cluster has no active server; see `vault operator raft list-peers`"));
        }
        Ok(read_answer(response).await?.of(&method, path, body))
    }

    async fn request(
        &self,
        base: &Url,
        method: &Method,
        path: &str,
        token: Option<&SecretValue>,
        body: Body<'_>,
    ) -> Result<reqwest::Response> {
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = base.clone();
        // The path is already percent-encoded. Setting it keeps every `%` unchanged.
        url.set_path(&format!("/v1/{path}"));
        url.set_query(query);
        // Vault refuses requests without it if the listener requires protection against forged
        // requests.
        let mut request = self
            .client
            .request(method.clone(), url)
            .header("X-Vault-Request", "true");
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| {
                invalid("the token contains characters that are invalid in a token")
            })?;
            value.set_sensitive(true);
            request = request.header("X-Vault-Token", value);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Body::Open(body) | Body::Secret(body) = body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.to_vec());
        }
        request.send().await.map_err(from_transport)
    }

    /// The target of a standby's redirect, if it is a configured peer.
    fn redirect(&self, headers: &HeaderMap) -> Result<Url> {
        let refuse = |message: &'static str| {
            Error::new(ErrorKind::Unavailable, message)
                .with_retryable(false)
                .with_hint("use the address of the active server, or list the cluster's servers in `peers`")
        };
        let mut target = headers
            .get(LOCATION)
            .and_then(|location| location.to_str().ok())
            .and_then(|location| self.base.join(location).ok())
            .ok_or_else(|| refuse("a standby returned an invalid redirect"))?;
        let secure = target.scheme() == "https"
            || (self.base.scheme() == "http"
                && target.scheme() == "http"
                && target.host_str().is_some_and(is_loopback));
        if !secure {
            return Err(refuse("a standby redirects to a server without TLS"));
        }
        let place = authority(&target);
        if place != authority(&self.base) && !self.peers.contains(&place) {
            return Err(refuse(
                "a standby redirects to a server that is not in `peers`",
            ));
        }
        target.set_path("");
        target.set_query(None);
        Ok(target)
    }

    /// Explains a 503 with the server's own state.
    pub(crate) async fn diagnose(&self, error: Error) -> Error {
        #[derive(Deserialize)]
        struct SealStatus {
            initialized: bool,
            sealed: bool,
        }
        let Ok(answer) = self
            .send(Method::GET, "sys/seal-status", None, Body::Empty)
            .await
        else {
            return error;
        };
        match answer.parse::<SealStatus>() {
            Ok(SealStatus {
                initialized: false, ..
            }) => from_status(501, None),
            Ok(SealStatus { sealed: true, .. }) => {
                Error::new(ErrorKind::Unavailable, "Vault is sealed")
                    .with_hint("unseal it with `vault operator unseal`")
                    .with_source(crate::error::Status(503))
            }
            _ => error,
        }
    }
}

impl Answer {
    /// Records the request, for errors and logs.
    fn of(mut self, method: &Method, path: &str, body: Body<'_>) -> Self {
        if self.status == 403 {
            let capability = match method.as_str() {
                "DELETE" => "delete",
                "GET" => "read",
                "LIST" => "list",
                _ => "create` and `update",
            };
            self.needs = Some(format!("`{capability}` on `{path}`"));
        }
        // Vault's warnings about a request that it executed. Responses to reads are not parsed
        // again, because they contain values.
        if self.is_success() && method != Method::GET && !self.says_no_warnings() {
            let warnings = self.parse::<Warnings>().ok().and_then(|body| body.warnings);
            log_warnings(path, body, &warnings.unwrap_or_default());
        }
        self
    }

    /// Whether the response says that it has no warnings. Then the response, perhaps a long list of
    /// names, is not parsed twice.
    fn says_no_warnings(&self) -> bool {
        const NONE: &[u8] = b"\"warnings\":null";
        self.body.windows(NONE.len()).any(|bytes| bytes == NONE)
    }

    /// Whether the status means success.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Parses the body as JSON of the documented form.
    ///
    /// # Errors
    /// `Unexpected`, without the text, which may contain a value.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|_| malformed("Vault's response does not have the documented form"))
    }

    /// Whether the body is JSON, as in all of Vault's responses.
    fn is_json(&self) -> bool {
        self.parse::<serde::de::IgnoredAny>().is_ok()
    }

    /// Whether a 404 is about a route and not about a name. Then Vault gives the reason in a list
    /// of texts.
    pub(crate) fn is_missing_route(&self) -> bool {
        #[derive(Deserialize)]
        struct Errors {
            #[serde(default)]
            errors: Vec<serde::de::IgnoredAny>,
        }
        self.status == 404
            && self
                .parse::<Errors>()
                .is_ok_and(|body| !body.errors.is_empty())
    }

    /// The error for its status.
    pub(crate) fn error(&self) -> Error {
        if self.is_missing_route() {
            return Error::new(
                ErrorKind::InvalidConfig,
                "no engine is mounted at this path",
            )
            .with_hint("check mount, prefix and namespace; `vault secrets list` shows the mounts")
            .with_source(crate::error::Status(404));
        }
        let error = from_status(self.status, self.retry_after);
        match &self.needs {
            Some(needs) => error.with_hint(format!(
                "it needs {needs}: `secret-migrate policy vault` prints the minimal policy; if the token may \
                 have expired, log in again"
            )),
            None => error,
        }
    }
}

#[derive(Deserialize)]
struct Warnings {
    warnings: Option<Vec<String>>,
}

/// Logs warnings. A server may repeat the request in a warning, in any form. If the request
/// contained a secret, only the number of warnings is logged.
fn log_warnings(path: &str, body: Body<'_>, warnings: &[String]) {
    if let Body::Secret(_) = body {
        if !warnings.is_empty() {
            let count = warnings.len();
            tracing::warn!(
                target: "secret_persistence_vault",
                path,
                count,
                "Vault returned warnings; the text is withheld, because the request contained a secret"
            );
        }
        return;
    }
    for warning in warnings {
        tracing::warn!(target: "secret_persistence_vault", path, warning = ?warning, "Vault returned a warning");
    }
}

async fn read_answer(mut response: reqwest::Response) -> Result<Answer> {
    let status = response.status().as_u16();
    let seconds = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after(None, seconds.and_then(|text| text.to_str().ok()));
    let expected = response
        .content_length()
        .and_then(|length| usize::try_from(length).ok());
    let mut body = Zeroizing::new(Vec::with_capacity(
        expected.unwrap_or(1024).min(MAX_ANSWER_BYTES),
    ));
    while let Some(chunk) = response.chunk().await.map_err(from_transport)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(malformed("Vault's response is larger than any secret"));
        }
        if body.len() + chunk.len() > body.capacity() {
            // Growing in place could leave a copy behind.
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * (body.len() + chunk.len())));
            larger.extend_from_slice(&body);
            body = larger;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status,
        retry_after,
        body,
        needs: None,
    })
}

/// Reads a file that the settings name.
pub(crate) async fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    tokio::fs::read(path)
        .await
        .map_err(|cause| invalid(format!("cannot read {}", path.display())).with_source(cause))
}
