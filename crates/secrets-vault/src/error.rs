//! One table from Vault's answers to kinds.
//!
//! Vault says little in codes: a status, and on some statuses a list of texts which this library
//! neither matches nor shows. What a status leaves open is asked of the server's own state
//! (`sys/seal-status`), which has typed fields.

use std::fmt;
use std::time::Duration;

use secret_persistence_core::{Error, ErrorKind};
use secret_persistence_remote::{Hints, Nature};

use crate::config::authority;

/// One row: a status, what it means here, what to do.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) status: u16,
    pub(crate) kind: ErrorKind,
    pub(crate) message: &'static str,
    pub(crate) hint: &'static str,
}

/// The statuses that Vault documents, and 307 and 429 which its listeners answer.
/// <https://developer.hashicorp.com/vault/api-docs#http-status-codes>
pub(crate) const TABLE: &[Row] = &[
    // The request was understood and is wrong: for us a mount of the other KV version, mostly.
    Row {
        status: 400,
        kind: ErrorKind::InvalidConfig,
        message: "Vault refuses the request as invalid",
        hint: "check mount, kv-version and namespace (namespaces are an Enterprise feature)",
    },
    // Vault does not tell a bad token from a missing capability by code; `auth` tells them apart.
    Row {
        status: 403,
        kind: ErrorKind::PermissionDenied,
        message: "the token may not do this",
        hint: "grant the capability with the policy that `migrate policy vault` prints; \
               where the token may have expired, log in again",
    },
    // A 404 without a list of texts is a missing name; with one it is a missing route.
    Row {
        status: 404,
        kind: ErrorKind::NotFound,
        message: "Vault has nothing under this name",
        hint: "check mount and prefix; a secret written to another store must be copied first",
    },
    // The route exists and has no such verb: the mount is no KV engine, or of the other version.
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
        hint: "try again, or talk to the primary cluster",
    },
    // Above `max_request_size` of the listener.
    Row {
        status: 413,
        kind: ErrorKind::PayloadTooLarge,
        message: "the request is larger than the listener takes",
        hint: "lower max-value-bytes, or raise max_request_size of the listener",
    },
    Row {
        status: 429,
        kind: ErrorKind::Throttled,
        message: "a rate limit quota of Vault is used up",
        hint: "lower the rate, or raise the quota of the path",
    },
    // A disaster recovery secondary answers no client.
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
        hint: "see the server's log; where its storage is full or too large a value was sent, mend that",
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
    // `sys/seal-status` tells a sealed server from one in maintenance.
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
        None if status >= 500 => {
            Error::new(ErrorKind::Unavailable, "Vault cannot serve at present")
        }
        None => Error::new(
            ErrorKind::Unexpected,
            "Vault answered a status without meaning here",
        ),
    }
    .with_source(Status(status));
    match retry_after {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

/// The cause of an error that Vault answered: its status and nothing of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u16);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP status {}", self.0)
    }
}

impl std::error::Error for Status {}

const HINTS: Hints = Hints {
    answer: "is the address that of a Vault server, and not of a proxy before it?",
    address: "check address and port: with a TLS listener the address begins with https",
    authority: "set ca-file to the authority of the server's certificate",
    certificate_name: "set tls-server-name to a name in the server's certificate",
    host: "check address, and whether DNS works",
    network: "check address, port and network",
    outage: "see the server's log",
};

/// The error for a request that got no answer. `reqwest`'s errors hold the URL, which is a name, and
/// the cause; never a header or a body.
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
        _ => Error::new(ErrorKind::Unavailable, "the connection to Vault broke").with_hint(
            match cause.url().map(url::Url::scheme) {
                // What other servers than Vault's own do on a TLS port.
                Some("http") => {
                    "try again; where it goes on see the server's log, and whether the port is one \
                     for TLS: then the address begins with https"
                }
                _ => "try again; see the server's log if it goes on",
            },
        ),
    };
    error.with_source(cause.without_url())
}

/// The error for an answer that is not what the API documents. It carries where, never what.
pub(crate) fn malformed(what: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, what)
        .with_hint("is the address that of a Vault server, and not of a proxy before it?")
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

    /// What an operator can meet stands in the crate's documentation, with its remedy.
    #[test]
    fn every_row_stands_in_the_table_of_the_docs() {
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
