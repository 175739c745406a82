//! What Azure answers, in our terms.

mod codes;
mod table;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use azure_core::error::ErrorKind as SdkKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::HeaderName;
use secret_persistence_core::{Error, ErrorKind};

use crate::config::Config;
use crate::policy::{Action, Model, advice};
use codes::{challenge_tenant, identifier, login_codes, parameter, vault_codes, wait};
use table::{Row, row};

/// Why one request failed: codes and numbers, and nothing of what was sent or answered, so that it
/// can stand as the [`source`](StdError::source) of an [`Error`].
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) action: Action,
    pub(crate) nature: Nature,
    pub(crate) status: Option<u16>,
    pub(crate) request_id: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// The host that was asked, where it is not the vault.
    pub(crate) host: Option<String>,
    /// The directory that the vault's challenge names.
    pub(crate) challenge_tenant: Option<String>,
}

/// In which way it failed.
#[derive(Clone, Debug)]
pub(crate) enum Nature {
    /// Azure, or somebody in its place, answered no, with these codes: the most exact one first.
    Answered(Vec<String>),
    /// The vault's challenge names a resource that its host does not belong to.
    Challenge,
    /// The request never got out: no connection.
    Connect(Connect),
    /// The answer could not be understood, or broke off.
    Garbled,
    /// There are no credentials to log in with.
    NoCredentials(NoCredentials),
    /// The time was up.
    TimedOut,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connect {
    /// The host's name does not resolve.
    NoSuchHost,
    /// All its addresses are ones that a tenant must not reach.
    NotPublic,
    /// Something else: the network, a proxy.
    Other,
    /// Nobody listens there.
    Refused,
    /// The certificate is not trusted, or the peer does not speak TLS.
    Tls,
}

/// Why there is nothing to log in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoCredentials {
    /// Neither of the command lines gave a token.
    DeveloperTools,
    /// No metadata service answers here.
    ManagedIdentity,
    /// The kind of managed identity that the environment announces is not supported.
    Unsupported,
    /// The file with the service account's token cannot be read.
    WorkloadIdentity(io::ErrorKind),
}

/// What our resolver says, found again in the SDK's chain of errors.
#[derive(Debug)]
pub(crate) struct Unresolved(pub(crate) Connect);

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl StdError for Unresolved {}

impl Fault {
    pub(crate) fn new(action: Action, nature: Nature) -> Self {
        Self {
            action,
            nature,
            status: None,
            request_id: None,
            retry_after: None,
            host: None,
            challenge_tenant: None,
        }
    }

    /// What an error of the SDK says about a request to the vault, without its text, its body and
    /// its headers.
    pub(crate) fn from_sdk(action: Action, error: &azure_core::Error) -> Self {
        // A login that failed inside the request has made its own fault.
        if let Some(fault) = find::<Self>(error) {
            return fault.clone();
        }
        if let Some((status, response)) = answer(error) {
            let codes = response.map(vault_codes).unwrap_or_default();
            return Self::answered(action, status, codes, response);
        }
        Self::unanswered(action, error).unwrap_or_else(|| {
            let nature = match error.kind() {
                // The SDK's authorizer refuses a challenge with nothing but a text.
                SdkKind::Other if error.source().is_none() => Nature::Challenge,
                SdkKind::Connection | SdkKind::Io => Nature::Connect(Connect::Other),
                _ => Nature::Garbled,
            };
            Self::new(action, nature)
        })
    }

    /// What a refused login answers: of Entra ID, or of the metadata service.
    pub(crate) fn from_login(response: &RawResponse, is_metadata: bool) -> Self {
        let status = u16::from(response.status());
        let mut codes = login_codes(response);
        if is_metadata {
            if codes.is_empty() {
                // App Service has no codes, and these meanings of its statuses; other clouds have other
                // services at the address of Azure's, which do not know the path.
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

    /// What an error of the SDK says about a login, where our transport has not made a fault of it.
    pub(crate) fn from_credential(error: &azure_core::Error, is_metadata: bool) -> Self {
        if let Some(fault) = find::<Self>(error) {
            return fault.clone();
        }
        let none = |reason| Nature::NoCredentials(reason);
        match Self::unanswered(Action::Login, error) {
            // Nothing answers at that address but on machines of Azure.
            Some(fault) if is_metadata => Self {
                nature: none(NoCredentials::ManagedIdentity),
                ..fault
            },
            Some(fault) => fault,
            None if is_metadata => Self::new(Action::Login, none(NoCredentials::Unsupported)),
            None => Self::new(Action::Login, Nature::Garbled),
        }
    }

    fn answered(
        action: Action,
        status: u16,
        codes: Vec<String>,
        response: Option<&RawResponse>,
    ) -> Self {
        let mut fault = Self::new(action, Nature::Answered(codes));
        fault.status = Some(status);
        let header = |name: &'static str| {
            let name = HeaderName::from_static(name);
            response.and_then(|response| response.headers().get_optional_str(&name))
        };
        fault.request_id = header("x-ms-request-id").and_then(identifier);
        fault.retry_after = wait(
            header("retry-after-ms").or_else(|| header("x-ms-retry-after-ms")),
            header("retry-after"),
        );
        if let Some(challenge) = header("www-authenticate") {
            fault.challenge_tenant = challenge_tenant(challenge);
            if let Nature::Answered(codes) = &mut fault.nature {
                codes.extend(parameter(challenge, "error").and_then(identifier));
            }
        }
        fault
    }

    /// A failure below HTTP.
    fn unanswered(action: Action, error: &azure_core::Error) -> Option<Self> {
        let cause: &reqwest::Error = find(error)?;
        let nature = if let Some(connect) = connect(cause) {
            Nature::Connect(connect)
        } else if cause.is_timeout() {
            Nature::TimedOut
        } else if cause.is_connect() {
            Nature::Connect(Connect::Other)
        } else {
            Nature::Garbled
        };
        let mut fault = Self::new(action, nature);
        fault.host = cause
            .url()
            .and_then(|url| url.host_str())
            .map(str::to_owned);
        Some(fault)
    }

    /// The codes that were answered, the most exact one first.
    pub(crate) fn codes(&self) -> &[String] {
        match &self.nature {
            Nature::Answered(codes) => codes,
            _ => &[],
        }
    }

    /// The row of the most exact code that has one.
    fn row(&self) -> Option<&'static Row> {
        self.codes().iter().find_map(|code| row(code))
    }

    pub(crate) fn has(&self, code: &str) -> bool {
        self.codes().iter().any(|answered| answered == code)
    }

    /// Whether the vault has nothing under the name, deleted or not.
    pub(crate) fn is_missing(&self) -> bool {
        self.status == Some(404)
    }

    /// Whether the vault refuses the action, for want of a right or for purge protection.
    pub(crate) fn is_denied(&self) -> bool {
        self.status == Some(403) && !self.is_disabled()
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.has("SecretDisabled")
    }

    /// Whether the vault's firewall is what refuses.
    pub(crate) fn is_blocked(&self) -> bool {
        self.has("ForbiddenByConnection") || self.has("ForbiddenByFirewall")
    }

    /// Whether the name is soft-deleted.
    pub(crate) fn is_pending(&self) -> bool {
        self.has("ObjectIsDeletedButRecoverable")
    }

    /// Whether the state of the secret is between two others.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status == Some(409) && !self.is_pending()
    }

    /// Whether nobody knows what became of the request: it was lost, or its answer.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(
            self.nature,
            Nature::Connect(Connect::Other) | Nature::Garbled | Nature::TimedOut
        )
    }

    /// Whether the vault or the way to it fails for the moment.
    pub(crate) fn is_passing(&self) -> bool {
        self.is_unknown() || matches!(self.status, Some(408 | 429 | 500..))
    }

    /// Whether the vault refuses and does not say why: older interfaces say no more of a taken name than
    /// that there is a conflict, and emulators no more than that the request is bad.
    pub(crate) fn is_vague(&self) -> bool {
        match self.status {
            Some(400) => self.row().is_none(),
            Some(409) => !self.codes().iter().any(|code| code.starts_with("ObjectIs")),
            _ => false,
        }
    }

    /// Whether the request is none that this vault knows: one without soft delete has nothing that could
    /// be asked for, recovered or purged.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self.status, Some(400 | 405 | 501))
    }

    /// The error for it, before anybody adds operation, store and coordinate.
    pub(crate) fn explain(&self, config: &Config) -> Error {
        let vault = config.place();
        let host = self.host.as_deref().unwrap_or(&vault);
        let error = match &self.nature {
            Nature::Answered(_) => match self.row() {
                // Whatever words go with it.
                _ if self.status == Some(429) => self.explain_status(&vault),
                Some(row) => self.explain_row(row, config, &vault),
                None => self.explain_status(&vault),
            },
            Nature::Challenge => Error::new(
                ErrorKind::Unauthenticated,
                format!("{vault} asks for a token of a resource that its host does not belong to"),
            )
            .with_hint(
                "look whether the vault's URL is spelt right; for an emulator or another cloud set \
                 `verify-challenge=false`; see https://aka.ms/azsdk/blog/vault-uri",
            ),
            Nature::Connect(cause) => explain_connect(*cause, host, host == config_host(config)),
            Nature::Garbled => Error::new(
                ErrorKind::Unavailable,
                format!("the answer of {host} broke off or is not one of Azure"),
            )
            .with_hint("try again; look at the vault's URL and at proxies on the way"),
            Nature::NoCredentials(reason) => explain_no_credentials(*reason),
            Nature::TimedOut => Error::new(
                ErrorKind::Unavailable,
                format!("{host} did not answer in time"),
            )
            .with_hint("try again; look at the network, private endpoints and proxies"),
        };
        let error = match self.retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        };
        error.with_source(self.clone())
    }

    fn explain_row(&self, row: &Row, config: &Config, vault: &str) -> Error {
        if row.hint.is_empty() {
            let model = match row.codes[0] {
                "AccessDenied" => Model::AccessPolicy,
                "ForbiddenByRbac" => Model::Roles,
                _ => Model::Unknown,
            };
            let (message, hint) = advice(self.action, model, vault);
            return Error::new(row.kind, message).with_hint(hint);
        }
        let mut error = Error::new(row.kind, row.message).with_hint(row.hint);
        if row.kind == ErrorKind::Unauthenticated
            && let (Some(theirs), Some(ours)) =
                (&self.challenge_tenant, config.credentials.tenant())
            && !theirs.eq_ignore_ascii_case(ours)
            && self.action != Action::Login
        {
            error = Error::new(
                row.kind,
                format!(
                    "{}: it belongs to the directory {theirs}, and we log in to {ours}",
                    row.message
                ),
            )
            .with_hint("set the tenant id to the vault's directory, with an application of it");
        }
        match row.retryable {
            Some(retryable) => error.with_retryable(retryable),
            None => error,
        }
    }

    /// Codes that the table does not have, or none: the status decides.
    fn explain_status(&self, vault: &str) -> Error {
        let code = self.codes().first().map_or("no code", String::as_str);
        let who = if self.action == Action::Login {
            "the login"
        } else {
            vault
        };
        match self.status {
            Some(status @ (401 | 403)) if status == 401 || self.action == Action::Login => {
                Error::new(
                    ErrorKind::Unauthenticated,
                    format!("{who} does not accept the credentials ({code})"),
                )
                .with_hint("compare tenant, client and cloud with the vault's")
            }
            Some(403) => {
                let (message, hint) = advice(self.action, Model::Unknown, vault);
                Error::new(ErrorKind::PermissionDenied, message).with_hint(hint)
            }
            Some(404) if self.action != Action::Login => {
                Error::new(ErrorKind::NotFound, "the store has nothing under this name")
                    .with_hint("look whether this is the vault it was written to")
            }
            Some(409) => Error::new(
                ErrorKind::Conflict,
                "somebody else is changing the secret at this moment",
            )
            .with_hint("try again"),
            Some(429) => Error::new(
                ErrorKind::Throttled,
                format!("{who} asks for fewer requests"),
            )
            .with_hint("switch the limit layer on"),
            Some(status @ (408 | 500..)) => Error::new(
                ErrorKind::Unavailable,
                format!("{who} cannot serve the request at present (HTTP {status}, {code})"),
            )
            .with_hint("try again; see https://azure.status.microsoft"),
            Some(status @ 300..=399) => Error::new(
                ErrorKind::Unexpected,
                format!("{who} redirects (HTTP {status}), which is not followed"),
            )
            .with_hint("set the vault's own URL, and look at proxies on the way"),
            Some(status) => Error::new(
                ErrorKind::Unexpected,
                format!("{who}: an answer without a place in our table (HTTP {status}, {code})"),
            )
            .with_hint("look at the vault's URL and at proxies on the way"),
            None => Error::new(
                ErrorKind::Unexpected,
                format!("{who}: an answer without a place in our table ({code})"),
            ),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = self.action.as_str();
        match &self.nature {
            Nature::Answered(codes) if codes.is_empty() => {
                write!(f, "{action} answered without a code")?;
            }
            Nature::Answered(codes) => write!(f, "{action} answered {}", codes.join(" "))?,
            Nature::Challenge => write!(f, "{action} was challenged for another resource")?,
            Nature::Connect(cause) => write!(f, "{action} found no connection: {cause:?}")?,
            Nature::Garbled => write!(f, "{action} answered something unreadable")?,
            Nature::NoCredentials(reason) => write!(f, "{action} had no credentials: {reason:?}")?,
            Nature::TimedOut => write!(f, "{action} timed out")?,
        }
        if let Some(status) = self.status {
            write!(f, ", HTTP {status}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, ", request id {id}")?;
        }
        Ok(())
    }
}

impl StdError for Fault {}

fn config_host(config: &Config) -> &str {
    config.vault.host_str().unwrap_or_default()
}

fn explain_connect(cause: Connect, host: &str, is_vault: bool) -> Error {
    let (message, hint) = match cause {
        Connect::NoSuchHost if is_vault => (
            format!("the host {host} does not exist, as far as this machine's DNS knows"),
            "look whether the vault's name is spelt right and the vault was not deleted (`az keyvault \
             list-deleted`), and whether DNS works",
        ),
        Connect::NoSuchHost => (
            format!("the host {host} does not exist, as far as this machine's DNS knows"),
            "look at `authority-host`, and whether DNS works",
        ),
        Connect::NotPublic => (
            format!("the host {host} has no public address"),
            "a tenant's vault must be reachable from the internet, or its host allowed by the operator",
        ),
        Connect::Other => (
            format!("no connection to {host}"),
            "look at the network, private endpoints, proxies and firewalls",
        ),
        Connect::Refused => (
            format!("{host} refuses the connection"),
            "look at the URL, and whether anything listens there",
        ),
        Connect::Tls => (
            format!("no trusted TLS connection to {host}"),
            "look whether a proxy replaces certificates, and set `ca-file` to its authority's",
        ),
    };
    let kind = match cause {
        // Neither waiting nor repeating makes a certificate trusted or an address public.
        Connect::Tls | Connect::NotPublic => ErrorKind::InvalidConfig,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, message).with_hint(hint)
}

fn explain_no_credentials(reason: NoCredentials) -> Error {
    let (message, hint) = match reason {
        NoCredentials::DeveloperTools => (
            "neither the Azure CLI nor the Azure Developer CLI gave a token".to_owned(),
            "log in with `az login` or `azd auth login`",
        ),
        NoCredentials::ManagedIdentity => (
            "no metadata service answers: this machine has no managed identity".to_owned(),
            "outside Azure set tenant id, client id and client secret \
             (AB_AZURE_KEY_VAULT_TENANT_ID, …_CLIENT_ID, …_CLIENT_SECRET), or \
             `credentials=developer-tools` after `az login`",
        ),
        NoCredentials::Unsupported => (
            "the managed identity of this kind of machine is not supported".to_owned(),
            "use an Azure virtual machine, App Service, Functions, Container Apps or AKS, or other \
             credentials",
        ),
        NoCredentials::WorkloadIdentity(reason) => (
            format!("the federated token file cannot be read: {reason}"),
            "look at `federated-token-file` (AZURE_FEDERATED_TOKEN_FILE), the pod's label \
             azure.workload.identity/use and its service account",
        ),
    };
    Error::new(ErrorKind::Unauthenticated, message).with_hint(hint)
}

/// The answer in a chain of errors, if there is one.
fn answer(error: &azure_core::Error) -> Option<(u16, Option<&RawResponse>)> {
    let mut current: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = current {
        if let Some(error) = error.downcast_ref::<azure_core::Error>()
            && let SdkKind::HttpResponse {
                status,
                raw_response,
                ..
            } = error.kind()
        {
            return Some((u16::from(*status), raw_response.as_deref()));
        }
        current = error.source();
    }
    None
}

/// The first error of a type in a chain.
fn find<'a, E: StdError + 'static>(error: &'a azure_core::Error) -> Option<&'a E> {
    let mut current: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

/// Why there is no connection, if that is what it is.
fn connect(error: &(dyn StdError + 'static)) -> Option<Connect> {
    if let Some(Unresolved(connect)) = error.downcast_ref::<Unresolved>() {
        return Some(*connect);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => return Some(Connect::Refused),
            // What rustls reports through tokio-rustls: the certificate, or no TLS at all.
            io::ErrorKind::InvalidData => return Some(Connect::Tls),
            _ => {}
        }
        // An error in an I/O error is not its source: that would be the source of the inner one.
        if let Some(inner) = error.get_ref() {
            return connect(inner);
        }
    }
    error.source().and_then(connect)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use azure_core::http::StatusCode;
    use azure_core::http::headers::Headers;

    use super::table::TABLE;
    use super::*;

    fn config() -> Config {
        Config::builder("my-vault").build().unwrap()
    }

    fn fault(code: &str) -> Fault {
        Fault::new(Action::Get, Nature::Answered(vec![code.to_owned()]))
    }

    fn response(status: u16, body: &str) -> RawResponse {
        RawResponse::from_bytes(StatusCode::from(status), Headers::new(), body.to_owned())
    }

    #[test]
    fn every_code_stands_once_and_has_kind_message_and_hint() {
        let mut seen = BTreeSet::new();
        for row in TABLE {
            for code in row.codes {
                assert!(seen.insert(code), "{code} stands twice");
                let error = fault(code).explain(&config());
                assert_eq!(error.kind(), row.kind, "{code}");
                assert!(
                    !error.message().is_empty() && error.hint().is_some(),
                    "{code}"
                );
                assert!(error.source().unwrap().to_string().contains(code));
            }
        }
    }

    /// The table of symptoms in the crate's documentation has every code, and no code we do not know.
    #[test]
    fn the_documentation_knows_every_code() {
        let symptoms: BTreeSet<&str> = include_str!("../README.md")
            .lines()
            .skip_while(|line| !line.contains("# When it does not work"))
            .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        let codes: BTreeSet<&str> = TABLE.iter().flat_map(|row| row.codes).copied().collect();
        assert_eq!(symptoms, codes);
    }

    #[test]
    fn only_what_waiting_can_help_is_retryable() {
        for (code, retryable) in [
            ("Throttled", true),
            ("ServiceUnavailable", true),
            ("ObjectIsBeingDeleted", true),
            ("AKV10046", true),
            ("temporarily_unavailable", true),
            ("ObjectIsDeletedButRecoverable", false),
            ("ForbiddenByRbac", false),
            ("AADSTS7000222", false),
        ] {
            let error = fault(code).explain(&config());
            assert_eq!(error.is_retryable(), retryable, "{code}");
        }
    }

    #[test]
    fn the_most_exact_code_decides() {
        for (status, body, codes, kind) in [
            (
                403,
                r#"{"error":{"code":"Forbidden","message":"x","innererror":{"code":"ForbiddenByRbac"}}}"#,
                vec!["ForbiddenByRbac", "Forbidden"],
                ErrorKind::PermissionDenied,
            ),
            (
                409,
                r#"{"error":{"code":"Conflict","message":"x","innererror":{"code":"ObjectIsDeletedButRecoverable"}}}"#,
                vec!["ObjectIsDeletedButRecoverable", "Conflict"],
                ErrorKind::PendingDeletion,
            ),
            (
                401,
                r#"{"error":{"code":"Unauthorized","message":"AKV10032: Invalid issuer. Expected x"}}"#,
                vec!["AKV10032", "Unauthorized"],
                ErrorKind::Unauthenticated,
            ),
            (
                403,
                r#"{"error":{"code":"Forbidden","message":"x","innererror":{"code":"SecretDisabled"}}}"#,
                vec!["SecretDisabled", "Forbidden"],
                ErrorKind::PermissionDenied,
            ),
        ] {
            let response = response(status, body);
            let found = vault_codes(&response);
            assert_eq!(found, codes);
            let fault = Fault::answered(Action::Set, status, found, Some(&response));
            assert_eq!(fault.explain(&config()).kind(), kind, "{body}");
        }
    }

    #[test]
    fn logins_are_judged_by_number_then_by_word() {
        for (body, codes, message) in [
            (
                r#"{"error":"invalid_client","error_description":"canary","error_codes":[7000215]}"#,
                vec!["AADSTS7000215", "invalid_client"],
                "refuses the client secret",
            ),
            (
                r#"{"error":"invalid_client","error_codes":[7999999]}"#,
                vec!["AADSTS7999999", "invalid_client"],
                "refuses the application's credentials",
            ),
        ] {
            let fault = Fault::from_login(&response(401, body), false);
            assert_eq!(fault.codes(), codes);
            let error = fault.explain(&config());
            assert_eq!(error.kind(), ErrorKind::Unauthenticated);
            assert!(error.message().contains(message), "{error}");
            assert!(!format!("{error:?}").contains("canary"));
        }
    }

    #[test]
    fn a_refused_token_is_blamed_on_the_directory_where_that_differs() {
        let secret = secret_persistence_core::SecretValue::new("x".to_owned());
        let config = Config::builder("my-vault")
            .with_credentials(crate::Credentials::ClientSecret(crate::ClientSecret::new(
                "ours", "client", secret,
            )))
            .build()
            .unwrap();
        let mut fault = fault("AKV10032");
        fault.challenge_tenant = challenge_tenant(
            r#"Bearer authorization="https://login.microsoftonline.com/theirs", resource="https://vault.azure.net""#,
        );
        let error = fault.explain(&config);
        assert!(error.message().contains("directory theirs"), "{error}");
        assert!(error.message().contains("log in to ours"), "{error}");
    }

    #[test]
    fn unknown_codes_are_judged_by_their_status() {
        for (status, kind) in [
            (302, ErrorKind::Unexpected),
            (400, ErrorKind::Unexpected),
            (401, ErrorKind::Unauthenticated),
            (403, ErrorKind::PermissionDenied),
            (404, ErrorKind::NotFound),
            (408, ErrorKind::Unavailable),
            (409, ErrorKind::Conflict),
            (429, ErrorKind::Throttled),
            (503, ErrorKind::Unavailable),
        ] {
            let mut fault = fault("BrandNew");
            fault.status = Some(status);
            assert_eq!(fault.explain(&config()).kind(), kind, "{status}");
            fault.nature = Nature::Answered(Vec::new());
            assert_eq!(fault.explain(&config()).kind(), kind, "{status}");
        }
    }
}
