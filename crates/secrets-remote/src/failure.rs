//! Why one request failed.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use secret_persistence_core::{Error, ErrorKind};

use crate::answer;
use crate::connect::Connect;
use crate::row::Row;

/// Codes and numbers, and nothing of what was sent or answered, so that it can stand as the cause of
/// an [`Error`].
#[derive(Clone, Debug)]
pub struct Failure {
    /// In which way it failed.
    pub nature: Nature,
    /// The status of the answer.
    pub status: Option<u16>,
    /// The id under which the provider knows the request.
    pub request_id: Option<String>,
    /// How long the server asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The server's clock minus ours, in seconds.
    pub skew: Option<i64>,
    /// The credentials were refused, and others have been found since.
    pub new_credentials: bool,
}

/// In which way a request failed.
#[derive(Clone, Debug)]
pub enum Nature {
    /// The provider, or somebody in its place, answered no, with these codes: the most exact one first.
    Answered(Vec<String>),
    /// The request never got out: no connection.
    Connect(Connect),
    /// There is nothing to log in with; the error says what was tried.
    Credentials(Box<Error>),
    /// The answer could not be understood, or broke off.
    Garbled,
    /// The time was up.
    TimedOut,
    /// The request could not be built, a defect.
    Unbuildable,
}

/// What a provider is called in errors, what its codes mean, and what to advise where no code does.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// Its name in sentences.
    pub name: &'static str,
    /// What its codes mean.
    pub rows: &'static [Row],
    /// By how many seconds the clocks may differ before refused credentials are blamed on them.
    pub tolerated_skew: u64,
    /// What to advise.
    pub hints: Hints,
}

/// What to advise where no code of the provider does.
#[derive(Clone, Copy, Debug)]
pub struct Hints {
    /// The answer is not the provider's own.
    pub answer: &'static str,
    /// Nobody listens, or somebody else does.
    pub address: &'static str,
    /// The certificate's authority is not trusted.
    pub authority: &'static str,
    /// The certificate is for another name.
    pub certificate_name: &'static str,
    /// The host does not exist.
    pub host: &'static str,
    /// The network does not let us through.
    pub network: &'static str,
    /// The provider does not serve at present.
    pub outage: &'static str,
}

impl Nature {
    /// What an error below HTTP is, by what the client says of it and by its causes.
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

    /// A single code, as far as it is one.
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
    /// The codes that were answered, the most exact one first.
    #[must_use]
    pub fn codes(&self) -> &[String] {
        match &self.nature {
            Nature::Answered(codes) => codes,
            _ => &[],
        }
    }

    /// Whether this is among the codes that were answered.
    #[must_use]
    pub fn has(&self, code: &str) -> bool {
        self.codes().iter().any(|answered| answered == code)
    }

    /// The row of the most exact code that has one.
    #[must_use]
    pub fn row<'a>(&self, rows: &'a [Row]) -> Option<&'a Row> {
        self.codes().iter().find_map(|code| Row::of(rows, code))
    }

    /// The error for it, before anybody adds operation, store, coordinate and cause.
    ///
    /// `host` is where the request went. `special` is asked first about an answer: the caller knows
    /// what was asked for, and which right it needs.
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
                    "the answer of {host} broke off or is not one of {}",
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

    /// The error for a code that no table has, or for none: the status decides.
    #[must_use]
    pub fn explain_status(&self, provider: &Provider, host: &str) -> Error {
        let name = provider.name;
        let code = self.codes().first().map_or("no code", String::as_str);
        match self.status {
            Some(429) => Error::new(
                ErrorKind::Throttled,
                format!("{name} asks for fewer requests"),
            )
            .with_hint("switch the limit layer on"),
            Some(status @ (408 | 500..)) => Error::new(
                ErrorKind::Unavailable,
                format!("{name} cannot serve the request at present (HTTP {status}, {code})"),
            )
            .with_hint(provider.hints.outage),
            Some(status @ 300..400) => Error::new(
                ErrorKind::Unexpected,
                format!("{host} redirects (HTTP {status}), which is not followed"),
            )
            .with_hint(provider.hints.answer),
            Some(status) => Error::new(
                ErrorKind::Unexpected,
                format!("an answer without a place in our table (HTTP {status}, {code})"),
            )
            .with_hint(provider.hints.answer),
            None => Error::new(
                ErrorKind::Unexpected,
                format!("an answer without a place in our table ({code})"),
            ),
        }
    }
}

/// After the name of what was asked for: `GetSecret answered NOT_FOUND, HTTP 404`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.nature {
            Nature::Answered(codes) if codes.is_empty() => {
                f.write_str("answered without a code")?;
            }
            Nature::Answered(codes) => write!(f, "answered {}", codes.join(" "))?,
            Nature::Connect(connect) => write!(f, "found no connection: {connect}")?,
            Nature::Credentials(_) => f.write_str("had no credentials")?,
            Nature::Garbled => f.write_str("answered something unreadable")?,
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
                "authority that is trusted",
            ),
            (
                Connect::NoSuchHost,
                ErrorKind::Unavailable,
                "does not exist",
            ),
            (Connect::NotPublic, ErrorKind::InvalidConfig, "tenant"),
            (Connect::Refused, ErrorKind::Unavailable, "refuses"),
            (Connect::TimedOut, ErrorKind::Unavailable, "in time"),
            (Connect::Tls, ErrorKind::InvalidConfig, "TLS"),
        ] {
            let error = explain(&Nature::Connect(connect).into());
            assert_eq!(error.kind(), kind, "{connect}");
            assert!(error.message().contains(text) && error.message().contains("cloud.example"));
        }
    }
}
