//! The hosts that a server answers for, so that no web page can rebind its own name to the server.

use std::collections::BTreeSet;

/// The values of the `Host` header that a server accepts.
///
/// A web page can make its own name resolve to `127.0.0.1` (DNS rebinding). The browser then treats
/// a service on loopback as the page's server and shows the responses to the page. Its requests
/// contain the page's name, so a server is safe if it refuses foreign names.
///
/// # Example
///
/// ```
/// use secret_persistence::AllowedHosts;
///
/// let hosts = AllowedHosts::named(["config.example"]).with_loopback();
/// assert!(hosts.allows("config.example") && hosts.allows("localhost:8080"));
/// assert!(!hosts.allows("evil.example") && !hosts.allows(""));
///
/// // A browser sends the origin of the page.
/// assert!(AllowedHosts::same_origin("localhost:8080", "http://localhost:8080"));
/// assert!(!AllowedHosts::same_origin("localhost:8080", "https://evil.example"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    named: BTreeSet<String>,
    loopback: bool,
}

impl AllowedHosts {
    /// Creates a list of names, each with its port unless that is the scheme's default, in upper or
    /// lower case.
    #[must_use]
    pub fn named<I>(names: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let lower = |name: I::Item| name.as_ref().to_ascii_lowercase();
        Self {
            named: names.into_iter().map(lower).collect(),
            loopback: false,
        }
    }

    /// Adds the loopback names with any port: `localhost`, `127.0.0.1` and `[::1]`.
    #[must_use]
    pub fn with_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// Whether the server accepts this value of `Host`. An empty value, as for a missing header, is
    /// never accepted.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if host.is_empty() {
            return false;
        }
        self.named.contains(&host)
            || self.loopback && matches!(without_port(&host), "localhost" | "127.0.0.1" | "[::1]")
    }

    /// Whether a value of `Origin` is a page of this host.
    #[must_use]
    pub fn same_origin(host: &str, origin: &str) -> bool {
        origin.split_once("://").is_some_and(|(scheme, rest)| {
            matches!(scheme, "http" | "https") && rest.eq_ignore_ascii_case(host)
        })
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_allowed_are_answered() {
        let named = AllowedHosts::named(["Gateway.example", "g:8220"]);
        for host in ["gateway.example", "GATEWAY.example", "g:8220"] {
            assert!(named.allows(host), "{host}");
        }
        for host in ["localhost", "g", "g:1", "gateway.example:8220", ""] {
            assert!(!named.allows(host), "{host}");
        }
        let loopback = AllowedHosts::default().with_loopback();
        for host in [
            "localhost",
            "LocalHost:8220",
            "127.0.0.1:1",
            "[::1]:8220",
            "[::1]",
        ] {
            assert!(loopback.allows(host), "{host}");
        }
        for host in [
            "",
            "rebound.example:8220",
            "localhost.evil.example",
            "localhost:x",
            "localhost:",
            "127.0.0.1.evil",
            "::1",
        ] {
            assert!(!loopback.allows(host), "{host}");
        }
        assert!(!AllowedHosts::default().allows("localhost"));
    }

    #[test]
    fn another_scheme_host_or_port_is_another_origin() {
        let same = |origin| AllowedHosts::same_origin("localhost:8220", origin);
        assert!(same("http://localhost:8220") && same("https://LOCALHOST:8220"));
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://localhost:8221",
            "file://localhost:8220",
            "http://localhost:8220.evil",
        ] {
            assert!(!same(origin), "{origin}");
        }
    }
}
