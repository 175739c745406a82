//! Parses addresses of servers.

use std::net::IpAddr;

use url::Url;

use super::invalid;
use crate::Result;

/// Parses the address of a server: https, or http on loopback, with a host, a port and optionally a
/// path.
///
/// # Errors
/// `InvalidConfig` for any other text, and for credentials, a query or a fragment. The text is
/// never shown, because people paste passwords into URLs.
///
/// ```
/// use secret_persistence_core::settings::endpoint;
///
/// assert!(endpoint("https://vpce-1.secretsmanager.eu-west-1.vpce.amazonaws.com").is_ok());
/// assert!(endpoint("http://localhost:4566").is_ok());
/// for refused in [
///     "http://example.com",
///     "ftp://localhost",
///     "https://u:canary@example.com",
///     "https:u:12/canary@example.com",
/// ] {
///     let error = endpoint(refused).unwrap_err();
///     assert!(!format!("{error} {error:?}").contains("canary"));
/// }
/// ```
pub fn endpoint(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|_| invalid("the endpoint is not a URL"))?;
    // A slash in a password ends the host, so the password may be in the path too.
    if url.as_str().contains('@') {
        return Err(invalid("an endpoint must not contain credentials"));
    }
    if url.query().is_some() || url.fragment().is_some() || url.host().is_none() {
        return Err(invalid(
            "an endpoint may contain only a scheme, a host and a port",
        ));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if url.host_str().is_some_and(is_loopback) => Ok(url),
        "http" => Err(invalid("an endpoint outside loopback must be https")),
        _ => Err(invalid("an endpoint must be https, or http on loopback")),
    }
}

/// Whether a host is this machine: a loopback address, with or without a URL's brackets, or
/// `localhost`. Names below `localhost` do not count: RFC 6761 reserves them, but some resolvers
/// ask the network for them.
///
/// ```
/// use secret_persistence_core::settings::is_loopback;
///
/// assert!(is_loopback("localhost") && is_loopback("127.0.0.2") && is_loopback("[::1]"));
/// assert!(!is_loopback("localhost.example") && !is_loopback("10.0.0.1"));
/// ```
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_and_nothing_that_looks_like_it() {
        let is = |text: &str| is_loopback(Url::parse(text).unwrap().host_str().unwrap());
        for text in [
            "http://127.0.0.1",
            "http://127.9.9.9:1",
            "http://[::1]",
            "http://LOCALHOST",
        ] {
            assert!(is(text), "{text}");
        }
        for text in [
            "http://localhost.example",
            "http://mylocalhost",
            "http://my-vault.localhost:8443",
            "http://128.0.0.1",
            "http://[::2]",
            "http://0.0.0.0",
        ] {
            assert!(!is(text), "{text}");
        }
        // As in a setting or a database URL.
        for host in ["127.0.0.1", "::1", "[::1]", "LocalHost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "[]",
            "[localhost]",
            "10.0.0.1",
            "127.0.0.1.example",
            "127.1",
            "::2",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
