//! Maps Vault's responses to error kinds with one table.
//!
//! Vault has few codes: a status, and for some statuses a list of texts, which this library neither
//! matches nor shows. If a status is ambiguous, the library reads the server's state
//! (`sys/seal-status`), which has typed fields.

use std::fmt;
use std::time::Duration;

use secret_persistence_core::{Error, ErrorKind};
use secret_persistence_remote::{Hints, Nature};

use crate::config::authority;

/// One row: a status, its meaning, the remedy.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) status: u16,
    pub(crate) kind: ErrorKind,
    pub(crate) message: &'static str,
    pub(crate) hint: &'static str,
}

/// The statuses that Vault documents, and 307 and 429, which its listeners return.
/// <https://developer.hashicorp.com/vault/api-docs#http-status-codes>
pub(crate) const TABLE: &[Row] = &[
    // The request was parsed but is wrong, usually because the mount has the other KV version.
    Row {
        status: 400,
        kind: ErrorKind::InvalidConfig,
        message: "Vault refuses the request as invalid",
        hint: "check mount, kv-version and namespace (namespaces are an Enterprise feature)",
    },
    // Vault does not distinguish a bad token from a missing capability by code; `auth` does.
    Row {
        status: 403,
        kind: ErrorKind::PermissionDenied,
        message: "the token lacks the permission",
        hint: "grant the capability with the policy that `secret-migrate policy vault` prints; \
               if the token may have expired, log in again",
    },
    // A 404 without a list of texts means a missing name, a 404 with one a missing route.
    Row {
        status: 404,
        kind: ErrorKind::NotFound,
        message: "Vault does not have a secret of this name",
        hint: "check mount and prefix; a secret written to another store must be copied first",
    },
    // The route exists but not with this method: the mount is not a KV engine, or has the other
    // version.
    Row {
        status: 405,
        kind: ErrorKind::InvalidConfig,
        message: "the mount does not support this operation",
        hint: "check that the mount is a KV engine and kv-version is right",
    },
    // An Enterprise replica that has not seen our last write yet.
    Row {
        status: 412,
        kind: ErrorKind::Unavailable,
        message: "this replica is behind",
        hint: "retry, or use the primary cluster",
    },
    // Above `max_request_size` of the listener.
    Row {
        status: 413,
        kind: ErrorKind::PayloadTooLarge,
        message: "the request is larger than the listener accepts",
        hint: "lower max-value-bytes, or raise max_request_size of the listener",
    },
    Row {
        status: 429,
        kind: ErrorKind::Throttled,
        message: "a rate limit quota of Vault is exhausted",
        hint: "lower the rate, or raise the quota of the path",
    },
    // A disaster recovery secondary does not answer clients.
    Row {
        status: 472,
        kind: ErrorKind::Unavailable,
        message: "this is a disaster recovery secondary",
        hint: "use the address of the primary cluster",
    },
    Row {
        status: 473,
        kind: ErrorKind::Unavailable,
        message: "this is a performance standby that cannot serve the request",
        hint: "use the address of the active server",
    },
    Row {
        status: 500,
        kind: ErrorKind::Unavailable,
        message: "Vault failed internally",
        hint: "see the server's log; its storage may be full, or the value too large",
    },
    Row {
        status: 501,
        kind: ErrorKind::Unavailable,
        message: "Vault is not initialised",
        hint: "run `vault operator init`",
    },
    // A plug-in or an identity provider behind Vault.
    Row {
        status: 502,
        kind: ErrorKind::Unavailable,
        message: "a service that Vault depends on failed",
        hint: "see the server's log",
    },
    // `sys/seal-status` distinguishes a sealed server from one in maintenance.
    Row {
        status: 503,
        kind: ErrorKind::Unavailable,
        message: "Vault is sealed or in maintenance",
        hint: "unseal it with `vault operator unseal`",
    },
];

/// The error for a status.
pub(crate) fn from_status(status: u16, retry_after: Option<Duration>) -> Error {
    let error = match TABLE.iter().find(|row| row.status == status) {
        Some(row) => Error::new(row.kind, row.message).with_hint(row.hint),
        None if status >= 500 => Error::new(
            ErrorKind::Unavailable,
            "Vault cannot serve the request at present",
        ),
        None => Error::new(ErrorKind::Unexpected, "Vault returned an unknown status"),
    }
    .with_source(Status(status));
    match retry_after {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

/// The cause of an error from Vault: its status and nothing of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u16);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP status {}", self.0)
    }
}

impl std::error::Error for Status {}

const HINTS: Hints = Hints {
    answer: "check that the address is a Vault server and not a proxy",
    address: "check address and port; for a TLS listener, the address begins with https",
    authority: "set ca-file to the authority of the server's certificate",
    certificate_name: "set tls-server-name to a name in the server's certificate",
    host: "check the address, and that DNS works",
    network: "check address, port and network",
    outage: "see the server's log",
};

/// The error for a request without a response. `reqwest`'s errors contain the URL, which is not
/// secret, and the cause, but never a header or a body.
pub(crate) fn from_transport(cause: reqwest::Error) -> Error {
    let error = match Nature::unanswered(&cause, cause.is_connect(), cause.is_timeout()) {
        Nature::Connect(connect) => {
            let host = cause.url().map(authority).unwrap_or_default();
            let error = connect.explain(&host, &HINTS);
            let message = format!("no connection to Vault: {}", error.message());
            Error::new(error.kind(), message).with_hint(error.hint().unwrap_or_default().to_owned())
        }
        Nature::TimedOut => Error::new(ErrorKind::Unavailable, "Vault did not answer in time")
            .with_hint("check the server's load, or raise timeout-seconds"),
        _ => Error::new(ErrorKind::Unavailable, "the connection to Vault was lost").with_hint(
            match cause.url().map(url::Url::scheme) {
                // Servers other than Vault's own close the connection on a TLS port.
                Some("http") => {
                    "retry; if it persists, see the server's log, and check whether the port uses \
                    TLS: then the address begins with https"
                }
                _ => "retry; if it persists, see the server's log",
            },
        ),
    };
    error.with_source(cause.without_url())
}

/// The error for a response that the API does not document. It contains where, never what.
pub(crate) fn malformed(what: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, what)
        .with_hint("check that the address is a Vault server and not a proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_kind_and_a_remedy() {
        for row in TABLE {
            let error = from_status(row.status, None);
            assert_eq!(error.kind(), row.kind);
            assert!(error.hint().is_some_and(|hint| !hint.is_empty()));
            assert_eq!(
                error.is_retryable(),
                matches!(row.status, 412 | 429 | 472..)
            );
        }
    }

    /// The documentation explains every status, with its remedy.
    #[test]
    fn every_row_is_in_the_table_of_the_docs() {
        let docs = include_str!("../README.md");
        for row in TABLE {
            let (kind, status) = (row.kind, row.status);
            let has = |line: &str| {
                line.starts_with(&format!("| `{kind}` ({status})"))
                    && line.matches(" | ").count() >= 2
            };
            assert!(docs.lines().any(has), "{kind} ({status}) is not explained");
        }
        let rows = docs
            .lines()
            .filter(|line| line.starts_with("| `") && line.contains("` ("));
        for line in rows {
            let known = |row: &Row| line.starts_with(&format!("| `{}` ({})", row.kind, row.status));
            assert!(TABLE.iter().any(known), "no error leads to: {line}");
        }
    }

    #[test]
    fn other_statuses_are_retried_only_where_the_server_is_at_fault() {
        assert_eq!(from_status(599, None).kind(), ErrorKind::Unavailable);
        assert_eq!(from_status(418, None).kind(), ErrorKind::Unexpected);
        let wait = Duration::from_secs(7);
        assert_eq!(from_status(429, Some(wait)).retry_after(), Some(wait));
    }
}
