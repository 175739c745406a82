//! Why a request failed.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use secret_persistence_core::{Error, ErrorKind};

use crate::answer;
use crate::connect::Connect;
use crate::row::Row;

/// Codes and numbers, without anything that was sent or received, so that it can be the cause of an
/// [`Error`].
#[derive(Clone, Debug)]
pub struct Failure {
    /// The kind of failure.
    pub nature: Nature,
    /// The status of the response.
    pub status: Option<u16>,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// The difference between the server's clock and ours, in seconds.
    pub skew: Option<i64>,
    /// The credentials were refused, and reloading found others.
    pub new_credentials: bool,
}

/// The kind of failure of a request.
#[derive(Clone, Debug)]
pub enum Nature {
    /// The provider, or a proxy, refused with these codes, the most specific one first.
    Answered(Vec<String>),
    /// The request was not sent: no connection.
    Connect(Connect),
    /// There are no credentials; the error lists the sources that were tried.
    Credentials(Box<Error>),
    /// The response was invalid or incomplete.
    Garbled,
    /// The request timed out.
    TimedOut,
    /// The request could not be built; a defect.
    Unbuildable,
}

/// A provider's name in errors, the meaning of its codes, and default hints.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// Its name in sentences.
    pub name: &'static str,
    /// The meaning of its codes.
    pub rows: &'static [Row],
    /// The clock difference in seconds from which refused credentials are attributed to the clock.
    pub tolerated_skew: u64,
    /// The default hints.
    pub hints: Hints,
}

/// The hints for failures without a code of the provider.
#[derive(Clone, Copy, Debug)]
pub struct Hints {
    /// The response is not from the provider.
    pub answer: &'static str,
    /// No server listens, or another one does.
    pub address: &'static str,
    /// The certificate's authority is not trusted.
    pub authority: &'static str,
    /// The certificate is for another name.
    pub certificate_name: &'static str,
    /// The host does not exist.
    pub host: &'static str,
    /// The network blocks the connection.
    pub network: &'static str,
    /// The provider cannot serve at present.
    pub outage: &'static str,
}

impl Nature {
    /// Classifies an error below HTTP, from the client's description and its causes.
    #[must_use]
    pub fn unanswered(
        error: &(dyn StdError + 'static),
        is_connect: bool,
        is_timeout: bool,
    ) -> Self {
        if is_connect {
            let otherwise = if is_timeout {
                Connect::TimedOut
            } else {
                Connect::Other
            };
            Self::Connect(Connect::of(error).unwrap_or(otherwise))
        } else if is_timeout {
            Self::TimedOut
        } else {
            Self::Garbled
        }
    }

    /// A single code, if it looks like one.
    #[must_use]
    pub fn answered(code: Option<&str>) -> Self {
        Self::Answered(code.and_then(answer::identifier).into_iter().collect())
    }
}

impl From<Nature> for Failure {
    fn from(nature: Nature) -> Self {
        Self {
            nature,
            status: None,
            request_id: None,
            retry_after: None,
            skew: None,
            new_credentials: false,
        }
    }
}

impl Failure {
    /// The received codes, the most specific one first.
    #[must_use]
    pub fn codes(&self) -> &[String] {
        match &self.nature {
            Nature::Answered(codes) => codes,
            _ => &[],
        }
    }

    /// Whether this code was received.
    #[must_use]
    pub fn has(&self, code: &str) -> bool {
        self.codes().iter().any(|answered| answered == code)
    }

    /// The row of the most specific code that has one.
    #[must_use]
    pub fn row<'a>(&self, rows: &'a [Row]) -> Option<&'a Row> {
        self.codes().iter().find_map(|code| Row::of(rows, code))
    }

    /// The error for this failure, without operation, store, coordinate and cause.
    ///
    /// `host` is the destination of the request. For responses, `special` is called first, because
    /// the caller knows the request and the permission that it needs.
    pub fn explain(
        &self,
        provider: &Provider,
        host: &str,
        special: impl FnOnce(Option<&Row>) -> Option<Error>,
    ) -> Error {
        let error = match &self.nature {
            Nature::Answered(_) => {
                let row = self.row(provider.rows);
                let error = special(row).unwrap_or_else(|| match row {
                    Some(row) => self.explain_row(row, provider),
                    None => self.explain_status(provider, host),
                });
                match row.and_then(|row| row.retryable) {
                    Some(retryable) => error.with_retryable(retryable),
                    None => error,
                }
            }
            Nature::Connect(connect) => connect.explain(host, &provider.hints),
            Nature::Credentials(error) => (**error).clone(),
            Nature::Garbled => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the response of {host} is incomplete or is not from {}",
                    provider.name
                ),
            )
            .with_hint(provider.hints.answer),
            Nature::TimedOut => Error::new(
                ErrorKind::Unavailable,
                format!("{host} did not answer in time"),
            )
            .with_hint(provider.hints.network),
            Nature::Unbuildable => {
                Error::new(ErrorKind::Unexpected, "the SDK could not build the request")
                    .with_hint("report it as a defect")
            }
        };
        let error = match self.retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        };
        if self.new_credentials {
            error.with_retryable(true)
        } else {
            error
        }
    }

    fn explain_row(&self, row: &Row, provider: &Provider) -> Error {
        match self.skew {
            Some(skew)
                if row.kind == ErrorKind::Unauthenticated
                    && skew.unsigned_abs() > provider.tolerated_skew =>
            {
                let direction = if skew > 0 { "behind" } else { "ahead of" };
                let message = format!(
                    "{}: this machine's clock is {} s {direction} {}'s",
                    row.message,
                    skew.unsigned_abs(),
                    provider.name
                );
                Error::new(row.kind, message).with_hint("synchronise the clock (NTP)")
            }
            _ => Error::new(row.kind, row.message).with_hint(row.hint),
        }
    }

    /// The error for an unknown code or without a code: the status decides.
    #[must_use]
    pub fn explain_status(&self, provider: &Provider, host: &str) -> Error {
        let name = provider.name;
        let code = self.codes().first().map_or("no code", String::as_str);
        match self.status {
            Some(429) => Error::new(
                ErrorKind::Throttled,
                format!("{name} requests a lower rate"),
            )
            .with_hint("enable the limit layer"),
            Some(status @ (408 | 500..)) => Error::new(
                ErrorKind::Unavailable,
                format!("{name} cannot serve the request at present (HTTP {status}, {code})"),
            )
            .with_hint(provider.hints.outage),
            Some(status @ 300..400) => Error::new(
                ErrorKind::Unexpected,
                format!("{host} redirects (HTTP {status}); redirects are not followed"),
            )
            .with_hint(provider.hints.answer),
            Some(status) => Error::new(
                ErrorKind::Unexpected,
                format!("an unknown response (HTTP {status}, {code})"),
            )
            .with_hint(provider.hints.answer),
            None => Error::new(
                ErrorKind::Unexpected,
                format!("an unknown response ({code})"),
            ),
        }
    }
}

/// Follows the name of the request: `GetSecret answered NOT_FOUND, HTTP 404`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.nature {
            Nature::Answered(codes) if codes.is_empty() => {
                f.write_str("answered without a code")?;
            }
            Nature::Answered(codes) => write!(f, "answered {}", codes.join(" "))?,
            Nature::Connect(connect) => write!(f, "found no connection: {connect}")?,
            Nature::Credentials(_) => f.write_str("had no credentials")?,
            Nature::Garbled => f.write_str("received an invalid response")?,
            Nature::TimedOut => f.write_str("timed out")?,
            Nature::Unbuildable => f.write_str("could not be built")?,
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

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: Provider = Provider {
        name: "Cloud",
        rows: &[
            Row::new(&["Denied"], ErrorKind::PermissionDenied, "denied", ""),
            Row::new(&["Quota"], ErrorKind::Unavailable, "used up", "ask").with_retryable(false),
            Row::new(
                &["Refused"],
                ErrorKind::Unauthenticated,
                "refused",
                "log in",
            ),
        ],
        tolerated_skew: 60,
        hints: Hints {
            answer: "answer",
            address: "address",
            authority: "authority",
            certificate_name: "name",
            host: "host",
            network: "network",
            outage: "outage",
        },
    };

    fn answered(code: &str) -> Failure {
        Nature::answered(Some(code)).into()
    }

    fn explain(failure: &Failure) -> Error {
        failure.explain(&PROVIDER, "cloud.example", |_| None)
    }

    #[test]
    fn a_row_decides_and_whoever_knows_more_comes_first() {
        let error = explain(&answered("Quota"));
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (ErrorKind::Unavailable, false)
        );
        let special = |row: Option<&Row>| {
            row.filter(|row| row.is_denial())
                .map(|row| Error::new(row.kind, "grant it"))
        };
        let error = answered("Denied").explain(&PROVIDER, "h", special);
        assert_eq!(error.message(), "grant it");
        let exact = Failure::from(Nature::Answered(vec!["New".into(), "Refused".into()]));
        assert_eq!(explain(&exact).message(), "refused");
    }

    #[test]
    fn refused_credentials_are_blamed_on_the_clock_where_the_clock_is_wrong() {
        let mut failure = answered("Refused");
        for (skew, text) in [
            (900, "900 s behind"),
            (-900, "900 s ahead of"),
            (i64::MIN, "9223372036854775808 s ahead of"),
        ] {
            failure.skew = Some(skew);
            assert!(explain(&failure).message().contains(text));
        }
        failure.skew = Some(20);
        assert!(!explain(&failure).message().contains("clock"));
    }

    #[test]
    fn unknown_codes_are_judged_by_their_status() {
        for (status, kind) in [
            (Some(302), ErrorKind::Unexpected),
            (Some(400), ErrorKind::Unexpected),
            (Some(408), ErrorKind::Unavailable),
            (Some(429), ErrorKind::Throttled),
            (Some(503), ErrorKind::Unavailable),
            (None, ErrorKind::Unexpected),
        ] {
            let mut failure = answered("BrandNew");
            failure.status = status;
            assert_eq!(explain(&failure).kind(), kind, "{status:?}");
        }
    }

    #[test]
    fn new_credentials_are_worth_another_try() {
        let mut failure = answered("Refused");
        assert!(!explain(&failure).is_retryable());
        failure.new_credentials = true;
        assert!(explain(&failure).is_retryable());
    }

    #[test]
    fn what_has_no_connection_says_why() {
        for (connect, kind, text) in [
            (
                Connect::CertificateExpired,
                ErrorKind::InvalidConfig,
                "has expired",
            ),
            (
                Connect::CertificateNotYetValid,
                ErrorKind::InvalidConfig,
                "not valid yet",
            ),
            (
                Connect::CertificateOtherName,
                ErrorKind::InvalidConfig,
                "another name",
            ),
            (
                Connect::CertificateUntrusted,
                ErrorKind::InvalidConfig,
                "from a trusted authority",
            ),
            (
                Connect::NoSuchHost,
                ErrorKind::Unavailable,
                "does not resolve",
            ),
            (Connect::NotPublic, ErrorKind::InvalidConfig, "tenant"),
            (Connect::Refused, ErrorKind::Unavailable, "refuses"),
            (Connect::TimedOut, ErrorKind::Unavailable, "timed out"),
            (Connect::Tls, ErrorKind::InvalidConfig, "TLS"),
        ] {
            let error = explain(&Nature::Connect(connect).into());
            assert_eq!(error.kind(), kind, "{connect}");
            assert!(error.message().contains(text) && error.message().contains("cloud.example"));
        }
    }
}
