//! Maps Azure's responses to errors.

mod codes;
mod sdk;
mod table;

use std::error::Error as StdError;
use std::fmt;

use secret_persistence_core::{Error, ErrorKind};
use secret_persistence_remote::{Connect, Failure, Hints, Nature, Provider, Row};

use crate::config::Config;
use crate::policy::{Action, Model, advice};
use table::TABLE;

const AZURE: Provider = Provider {
    name: "Azure",
    rows: TABLE,
    // Tokens are valid five minutes before and after their time.
    tolerated_skew: 300,
    hints: Hints {
        answer: "try again; check the vault's URL and at proxies on the way",
        address: "check the URL, and whether anything listens there",
        authority: "check whether a proxy replaces certificates, and set `ca-file` to its authority's",
        certificate_name: "check the URL, and whether a proxy replaces certificates",
        host: "check whether the vault's name is spelt correctly and the vault was not deleted (`az keyvault \
               list-deleted`), and whether DNS works",
        network: "check the network, private endpoints, proxies and firewalls",
        outage: "try again; see https://azure.status.microsoft",
    },
};

/// The token issuer.
const LOGIN: Provider = Provider {
    name: "the login",
    hints: Hints {
        host: "check `authority-host`, and whether DNS works",
        ..AZURE.hints
    },
    ..AZURE
};

/// A failed request.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) action: Action,
    pub(crate) failure: Failure,
    /// The host of the request, if it is not the vault.
    host: Option<String>,
    /// The directory in the vault's challenge.
    challenge_tenant: Option<String>,
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

    pub(crate) fn has(&self, code: &str) -> bool {
        self.failure.has(code)
    }

    /// Whether the vault has no secret of the name, deleted or not.
    pub(crate) fn is_missing(&self) -> bool {
        self.failure.status == Some(404)
    }

    /// Whether the vault refuses the action, because of a missing permission or purge protection.
    pub(crate) fn is_denied(&self) -> bool {
        self.failure.status == Some(403)
            && !self.is_disabled()
            && !self.has("SecretManagedByKeyVault")
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.has("SecretDisabled")
    }

    /// Whether the vault's firewall refuses.
    pub(crate) fn is_blocked(&self) -> bool {
        self.has("ForbiddenByConnection") || self.has("ForbiddenByFirewall")
    }

    /// Whether the name is soft-deleted.
    pub(crate) fn is_pending(&self) -> bool {
        self.has("ObjectIsDeletedButRecoverable")
    }

    /// Whether the state of the secret is changing.
    pub(crate) fn is_conflict(&self) -> bool {
        self.failure.status == Some(409) && !self.is_pending()
    }

    /// Whether the outcome of the request is unknown, because the request or its response was lost.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(
            self.failure.nature,
            Nature::Connect(Connect::Other | Connect::TimedOut)
                | Nature::Garbled
                | Nature::TimedOut
        )
    }

    /// Whether the vault or the connection to it fails temporarily.
    pub(crate) fn is_transient(&self) -> bool {
        self.is_unknown() || matches!(self.failure.status, Some(408 | 429 | 500..))
    }

    /// Whether the vault refuses without a reason: older APIs return only a conflict for an
    /// existing name, and emulators only a bad request.
    pub(crate) fn is_ambiguous(&self) -> bool {
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

    /// Whether the vault does not support the request. A vault without soft delete has no deleted
    /// secrets to read, recover or purge.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self.failure.status, Some(400 | 405 | 501))
    }

    /// The error, still without operation, store and coordinate.
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

    /// The meaning of a response that depends on more than its code.
    fn explain_answer(
        &self,
        row: Option<&Row>,
        provider: &Provider,
        config: &Config,
        vault: &str,
    ) -> Option<Error> {
        // Whatever codes come with it.
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
                "{}: it belongs to the directory {theirs}, but the login is to {ours}",
                row.message
            );
            Error::new(row.kind, message)
                .with_hint("set the tenant id to the vault's directory, and use an application of that directory")
        })
    }

    /// The meaning of a status without a code, or with a code that is not in the table. Older APIs
    /// and emulators return no more.
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
                    format!("{who} refuses the credentials ({code})"),
                )
                .with_hint("compare tenant, client and cloud with the vault's")
            }
            403 => {
                let (message, hint) = advice(self.action, Model::Unknown, vault);
                Error::new(ErrorKind::PermissionDenied, message).with_hint(hint)
            }
            404 if !is_login => Error::new(
                ErrorKind::NotFound,
                "the store does not have a secret of this name",
            )
            .with_hint("check whether this is the vault it was written to"),
            409 => Error::new(
                ErrorKind::Conflict,
                "the secret is being changed concurrently",
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

#[cfg(test)]
mod tests;
