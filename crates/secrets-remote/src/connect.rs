//! Why a connection failed.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use rustls::CertificateError;
use secret_persistence_core::{Error, ErrorKind};

use crate::failure::Hints;

/// Why a connection failed, from types and numbers in the causes of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// The server's certificate has expired.
    CertificateExpired,
    /// The server's certificate is not valid yet.
    CertificateNotYetValid,
    /// The server's certificate is for another name.
    CertificateOtherName,
    /// The server's certificate is not from a trusted authority, or is unusable for another reason.
    CertificateUntrusted,
    /// The host's name does not resolve.
    NoSuchHost,
    /// A tenant must not reach the host's address.
    NotPublic,
    /// Another reason: the network, a proxy.
    Other,
    /// No server listens at the address.
    Refused,
    /// The connection timed out.
    TimedOut,
    /// The peer does not speak TLS, or shares no version and cipher with us.
    Tls,
}

/// The error of our resolver, which is found again in the causes of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unresolved(pub Connect);

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl StdError for Unresolved {}

impl Connect {
    /// The first cause in a chain that explains the failure. Message texts are not used.
    #[must_use]
    pub fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(Unresolved(connect)) = error.downcast_ref() {
            return Some(*connect);
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(Self::of_tls(error));
        }
        let Some(io) = error.downcast_ref::<io::Error>() else {
            return error.source().and_then(Self::of);
        };
        // The inner error of an I/O error is not its source: the source is that of the inner one.
        if let Some(found) = io.get_ref().and_then(|inner| Self::of(inner)) {
            return Some(found);
        }
        match io.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::Refused),
            io::ErrorKind::TimedOut => Some(Self::TimedOut),
            io::ErrorKind::InvalidData => Some(Self::Tls),
            // A resolver's numbers are not the system's, and its errors have a kind without a name.
            kind if kind == unnamed() && io.raw_os_error().is_none() => Some(Self::NoSuchHost),
            _ => None,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
            NotValidYetContext,
        };
        let rustls::Error::InvalidCertificate(reason) = error else {
            return Self::Tls;
        };
        match reason {
            Expired | ExpiredContext { .. } => Self::CertificateExpired,
            NotValidYet | NotValidYetContext { .. } => Self::CertificateNotYetValid,
            NotValidForName | NotValidForNameContext { .. } => Self::CertificateOtherName,
            _ => Self::CertificateUntrusted,
        }
    }

    /// Converts it to an error.
    #[must_use]
    pub fn explain(self, host: &str, hints: &Hints) -> Error {
        let tls = |reason: &str| format!("no trusted TLS connection to {host}: {reason}");
        let clock = "check this machine's clock, or renew the server's certificate";
        let (message, hint) = match self {
            Self::CertificateExpired => (tls("its certificate has expired"), clock),
            Self::CertificateNotYetValid => (tls("its certificate is not valid yet"), clock),
            Self::CertificateOtherName => (
                tls("its certificate is for another name"),
                hints.certificate_name,
            ),
            Self::CertificateUntrusted => (
                tls("its certificate is not from a trusted authority"),
                hints.authority,
            ),
            Self::NoSuchHost => (format!("the host name {host} does not resolve"), hints.host),
            Self::NotPublic => (
                format!(
                    "the host {host} is not on the public internet, and a tenant may not reach this \
                    network"
                ),
                "the operator can allow the host for tenants",
            ),
            Self::Other => (format!("no connection to {host}"), hints.network),
            Self::Refused => (format!("{host} refuses the connection"), hints.address),
            Self::TimedOut => (format!("the connection to {host} timed out"), hints.network),
            Self::Tls => (
                tls("it does not speak TLS, or no secure version"),
                hints.address,
            ),
        };
        let kind = match self {
            Self::NoSuchHost | Self::Other | Self::Refused | Self::TimedOut => {
                ErrorKind::Unavailable
            }
            // Neither waiting nor retrying makes a certificate trusted or an address public.
            _ => ErrorKind::InvalidConfig,
        };
        Error::new(kind, message).with_hint(hint)
    }
}

/// For the cause of an error.
impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CertificateExpired => "certificate expired",
            Self::CertificateNotYetValid => "certificate not valid yet",
            Self::CertificateOtherName => "certificate for another name",
            Self::CertificateUntrusted => "certificate not trusted",
            Self::NoSuchHost => "host unknown",
            Self::NotPublic => "host not public",
            Self::Other => "network",
            Self::Refused => "connection refused",
            Self::TimedOut => "timed out",
            Self::Tls => "no TLS",
        })
    }
}

/// The kind of I/O errors that the standard library does not name.
fn unnamed() -> io::ErrorKind {
    // The system has no such number.
    io::Error::from_raw_os_error(i32::MAX).kind()
}

/// The first error of a type in a chain of causes.
#[must_use]
pub fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, Error as TlsError};
    use tokio::net::{TcpStream, lookup_host};

    use super::*;

    fn nested(error: impl Into<Box<dyn StdError + Send + Sync>>) -> io::Error {
        io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn certificates_say_what_is_wrong_with_them() {
        for (reason, expected) in [
            (CertificateError::Expired, Connect::CertificateExpired),
            (
                CertificateError::NotValidYet,
                Connect::CertificateNotYetValid,
            ),
            (
                CertificateError::NotValidForName,
                Connect::CertificateOtherName,
            ),
            (
                CertificateError::UnknownIssuer,
                Connect::CertificateUntrusted,
            ),
            (
                CertificateError::BadSignature,
                Connect::CertificateUntrusted,
            ),
        ] {
            let error = nested(TlsError::InvalidCertificate(reason));
            assert_eq!(Connect::of(&error), Some(expected));
        }
        for error in [
            nested(TlsError::AlertReceived(AlertDescription::HandshakeFailure)),
            nested("no TLS"),
        ] {
            assert_eq!(Connect::of(&error), Some(Connect::Tls));
        }
    }

    /// Uses the resolver's own error, without a second lookup to word an error.
    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_told_from_other_failures() {
        let error = lookup_host("nosuch.invalid:443").await.err().unwrap();
        assert_eq!(Connect::of(&error), Some(Connect::NoSuchHost), "{error:?}");
        let error = TcpStream::connect("127.0.0.1:1").await.err().unwrap();
        assert_eq!(Connect::of(&error), Some(Connect::Refused));
        for error in [
            io::Error::other("nosuch.invalid"),
            io::Error::from(io::ErrorKind::ConnectionReset),
            io::Error::from_raw_os_error(i32::MAX),
        ] {
            assert_eq!(Connect::of(&error), None);
        }
        let ours = io::Error::other(Unresolved(Connect::NotPublic));
        assert_eq!(Connect::of(&ours), Some(Connect::NotPublic));
    }
}
