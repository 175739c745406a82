//! What Azure answers, in our terms.

mod codes;
mod table;

use std::error::Error as StdError;
use std::fmt;
use std::io;

use azure_core::error::ErrorKind as SdkKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::HeaderName;
use secret_persistence_core::{Error, ErrorKind};
use secret_persistence_remote::{
    Connect, Failure, Hints, Nature, Provider, Row, clock_skew, find, identifier, retry_after,
};

use crate::config::Config;
use crate::policy::{Action, Model, advice};
use codes::{challenge_tenant, login_codes, parameter, vault_codes};
use table::TABLE;

const AZURE: Provider = Provider {
    name: "Azure",
    rows: TABLE,
    // Tokens are valid five minutes before and after their time.
    tolerated_skew: 300,
    hints: Hints {
        answer: "try again; look at the vault's URL and at proxies on the way",
        address: "look at the URL, and whether anything listens there",
        authority: "look whether a proxy replaces certificates, and set `ca-file` to its authority's",
        certificate_name: "look at the URL, and whether a proxy replaces certificates",
        host: "look whether the vault's name is spelt right and the vault was not deleted (`az keyvault \
               list-deleted`), and whether DNS works",
        network: "look at the network, private endpoints, proxies and firewalls",
        outage: "try again; see https://azure.status.microsoft",
    },
};

/// Where tokens come from.
const LOGIN: Provider = Provider {
    name: "the login",
    hints: Hints {
        host: "look at `authority-host`, and whether DNS works",
        ..AZURE.hints
    },
    ..AZURE
};

/// Why one request failed.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) action: Action,
    pub(crate) failure: Failure,
    /// The host that was asked, where it is not the vault.
    host: Option<String>,
    /// The directory that the vault's challenge names.
    challenge_tenant: Option<String>,
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

impl Fault {
    pub(crate) fn new(action: Action, nature: Nature) -> Self {
        Self {
            action,
            failure: nature.into(),
            host: None,
            challenge_tenant: None,
        }
    }

    /// There is nothing to log in with.
    pub(crate) fn no_credentials(reason: NoCredentials) -> Self {
        Self::new(Action::Login, no_credentials(reason))
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
                SdkKind::Other if error.source().is_none() => challenge(),
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
        match Self::unanswered(Action::Login, error) {
            // Nothing answers at that address but on machines of Azure.
            Some(_) if is_metadata => Self::no_credentials(NoCredentials::ManagedIdentity),
            Some(fault) => fault,
            None if is_metadata => Self::no_credentials(NoCredentials::Unsupported),
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

    /// A failure below HTTP.
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

    pub(crate) fn has(&self, code: &str) -> bool {
        self.failure.has(code)
    }

    /// Whether the vault has nothing under the name, deleted or not.
    pub(crate) fn is_missing(&self) -> bool {
        self.failure.status == Some(404)
    }

    /// Whether the vault refuses the action, for want of a right or for purge protection.
    pub(crate) fn is_denied(&self) -> bool {
        self.failure.status == Some(403)
            && !self.is_disabled()
            && !self.has("SecretManagedByKeyVault")
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
        self.failure.status == Some(409) && !self.is_pending()
    }

    /// Whether nobody knows what became of the request: it was lost, or its answer.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(
            self.failure.nature,
            Nature::Connect(Connect::Other | Connect::TimedOut)
                | Nature::Garbled
                | Nature::TimedOut
        )
    }

    /// Whether the vault or the way to it fails for the moment.
    pub(crate) fn is_passing(&self) -> bool {
        self.is_unknown() || matches!(self.failure.status, Some(408 | 429 | 500..))
    }

    /// Whether the vault refuses and does not say why: older interfaces say no more of a taken name than
    /// that there is a conflict, and emulators no more than that the request is bad.
    pub(crate) fn is_vague(&self) -> bool {
        match self.failure.status {
            Some(400) => self.failure.row(TABLE).is_none(),
            Some(409) => !self
                .failure
                .codes()
                .iter()
                .any(|code| code.starts_with("ObjectIs")),
            _ => false,
        }
    }

    /// Whether the request is none that this vault knows: one without soft delete has nothing that could
    /// be asked for, recovered or purged.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self.failure.status, Some(400 | 405 | 501))
    }

    /// The error for it, before anybody adds operation, store and coordinate.
    pub(crate) fn explain(&self, config: &Config) -> Error {
        let vault = config.place();
        let host = self.host.as_deref().unwrap_or(&vault);
        let provider = match self.action {
            Action::Login => &LOGIN,
            _ => &AZURE,
        };
        self.failure
            .explain(provider, host, |row| {
                self.explain_answer(row, provider, config, &vault)
            })
            .with_source(self.clone())
    }

    /// What an answer means where that depends on more than its code.
    fn explain_answer(
        &self,
        row: Option<&Row>,
        provider: &Provider,
        config: &Config,
        vault: &str,
    ) -> Option<Error> {
        // Whatever words go with it.
        if self.failure.status == Some(429) {
            return Some(self.failure.explain_status(provider, vault));
        }
        let Some(row) = row else {
            return self.explain_status(vault);
        };
        if row.is_denial() {
            let model = match row.codes[0] {
                "AccessDenied" => Model::AccessPolicy,
                "ForbiddenByRbac" => Model::Roles,
                _ => Model::Unknown,
            };
            let (message, hint) = advice(self.action, model, vault);
            return Some(Error::new(row.kind, message).with_hint(hint));
        }
        let (theirs, ours) = (
            self.challenge_tenant.as_ref()?,
            config.credentials.tenant()?,
        );
        let is_other = row.kind == ErrorKind::Unauthenticated
            && self.action != Action::Login
            && !theirs.eq_ignore_ascii_case(ours);
        is_other.then(|| {
            let message = format!(
                "{}: it belongs to the directory {theirs}, and we log in to {ours}",
                row.message
            );
            Error::new(row.kind, message)
                .with_hint("set the tenant id to the vault's directory, with an application of it")
        })
    }

    /// What a status means that no code comes with, or one that the table does not have: older
    /// interfaces and emulators say no more.
    fn explain_status(&self, vault: &str) -> Option<Error> {
        let is_login = self.action == Action::Login;
        let code = self
            .failure
            .codes()
            .first()
            .map_or("no code", String::as_str);
        Some(match self.failure.status? {
            status @ (401 | 403) if status == 401 || is_login => {
                let who = if is_login { "the login" } else { vault };
                Error::new(
                    ErrorKind::Unauthenticated,
                    format!("{who} does not accept the credentials ({code})"),
                )
                .with_hint("compare tenant, client and cloud with the vault's")
            }
            403 => {
                let (message, hint) = advice(self.action, Model::Unknown, vault);
                Error::new(ErrorKind::PermissionDenied, message).with_hint(hint)
            }
            404 if !is_login => {
                Error::new(ErrorKind::NotFound, "the store has nothing under this name")
                    .with_hint("look whether this is the vault it was written to")
            }
            409 => Error::new(
                ErrorKind::Conflict,
                "somebody else is changing the secret at this moment",
            )
            .with_hint("try again"),
            _ => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.as_str(), self.failure)
    }
}

impl StdError for Fault {}

/// The vault's challenge names a resource that its host does not belong to.
fn challenge() -> Nature {
    Nature::Credentials(Box::new(
        Error::new(
            ErrorKind::Unauthenticated,
            "the vault asks for a token of a resource that its host does not belong to",
        )
        .with_hint(
            "look whether the vault's URL is spelt right; for an emulator or another cloud set \
             `verify-challenge=false`; see https://aka.ms/azsdk/blog/vault-uri",
        ),
    ))
}

fn no_credentials(reason: NoCredentials) -> Nature {
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
    Nature::Credentials(Box::new(
        Error::new(ErrorKind::Unauthenticated, message).with_hint(hint),
    ))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use azure_core::http::StatusCode;
    use azure_core::http::headers::Headers;

    use super::*;

    fn config() -> Config {
        of(&[])
    }

    fn of(more: &[(&str, &str)]) -> Config {
        let vault = [("vault-url", "my-vault")];
        let settings = crate::SETTINGS.from_pairs(vault.iter().chain(more).copied());
        Config::from_settings(&settings.unwrap()).unwrap()
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
            ("SecretManagedByKeyVault", false),
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
                r#"{"error":{"code":"Forbidden","message":"x","innererror":{"code":"SecretManagedByKeyVault"}}}"#,
                vec!["SecretManagedByKeyVault", "Forbidden"],
                ErrorKind::Conflict,
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
            assert_eq!(fault.failure.codes(), codes);
            let error = fault.explain(&config());
            assert_eq!(error.kind(), ErrorKind::Unauthenticated);
            assert!(error.message().contains(message), "{error}");
            assert!(!format!("{error:?}").contains("canary"));
        }
    }

    #[test]
    fn a_refused_token_is_blamed_on_the_directory_where_that_differs() {
        let config = of(&[
            ("tenant-id", "ours"),
            ("client-id", "client"),
            ("client-secret", "x"),
        ]);
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
            fault.failure.status = Some(status);
            assert_eq!(fault.explain(&config()).kind(), kind, "{status}");
            fault.failure.nature = Nature::Answered(Vec::new());
            assert_eq!(fault.explain(&config()).kind(), kind, "{status}");
        }
    }
}
