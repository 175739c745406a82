//! Which hosts a server answers for, so that no web page can rebind its own name to it.

use std::collections::BTreeSet;

/// The values of the `Host` header that a server answers for.
///
/// A web page can let its own name point at `127.0.0.1` (DNS rebinding). The browser then takes a
/// service on loopback for the page's own server and shows the page every answer. Its requests ask for
/// the page's name, so a server that refuses names that are not its own is safe.
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
/// // What a page sends says where it is from.
/// assert!(AllowedHosts::same_origin("localhost:8080", "http://localhost:8080"));
/// assert!(!AllowedHosts::same_origin("localhost:8080", "https://evil.example"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    named: BTreeSet<String>,
    loopback: bool,
}

impl AllowedHosts {
    /// These names, each with its port where that is not the scheme's, in any case of letters.
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

    /// Adds the names of loopback with any port: `localhost`, `127.0.0.1` and `[::1]`.
    #[must_use]
    pub fn with_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// Whether the server answers for this value of `Host`. An empty one, which stands for a missing
    /// header, is never allowed.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if host.is_empty() {
            return false;
        }
        self.named.contains(&host)
            || self.loopback && matches!(without_port(&host), "localhost" | "127.0.0.1" | "[::1]")
    }

    /// Whether a value of `Origin` is the page of this host itself.
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
