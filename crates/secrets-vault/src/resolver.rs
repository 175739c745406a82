//! Resolves names, and restricts the addresses that a tenant may reach.
//!
//! The check applies to the same addresses that the connection uses. Otherwise, the owner of a name
//! could return one address to the check and another one to the connection.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use secret_persistence_core::Result;
use secret_persistence_core::settings::{Trust, invalid, is_public};
use secret_persistence_remote::{Connect, Unresolved};
use url::{Host, Url};

/// The addresses that may be connected to.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// All: the operator chose the host.
    Everywhere,
    /// The public internet.
    PublicOnly,
}

impl Reach {
    /// The addresses that settings of this trust may reach. A literal IP address is checked at
    /// once, because it is never resolved.
    ///
    /// # Errors
    /// `InvalidConfig` for an address that a tenant may not reach.
    pub(crate) fn of(trust: &Trust, address: &Url) -> Result<Self> {
        if trust.allows_host(address.host_str().unwrap_or_default()) {
            return Ok(Self::Everywhere);
        }
        let literal = match address.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => None,
        };
        if literal.is_some_and(|address| !is_public(address)) {
            return Err(invalid(
                "`address` is not on the public internet, and a tenant may not reach this network",
            )
            .with_hint("the operator can allow the host for tenants"));
        }
        Ok(Self::PublicOnly)
    }

    pub(crate) fn is_everywhere(&self) -> bool {
        matches!(self, Self::Everywhere)
    }

    fn permits(&self, address: IpAddr) -> bool {
        match self {
            Self::Everywhere => true,
            Self::PublicOnly => is_public(address),
        }
    }
}

/// Resolves names for the HTTP client, and the TLS server name to the real address.
#[derive(Debug)]
pub(crate) struct Resolver {
    alias: Option<(String, String)>,
    reach: Reach,
}

impl Resolver {
    pub(crate) fn new(reach: Reach) -> Self {
        Self { alias: None, reach }
    }

    /// Resolves `name` to the addresses of `real`, a host and a port.
    pub(crate) fn with_alias(mut self, name: String, real: String) -> Self {
        self.alias = Some((name, real));
        self
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = match &self.alias {
            Some((alias, real)) if alias == name.as_str() => real.clone(),
            _ => format!("{}:0", name.as_str()),
        };
        let reach = self.reach.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host(host)
                .await
                .map_err(|_| Unresolved(Connect::NoSuchHost))?
                .collect();
            let addresses = permitted(&reach, found)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// One forbidden address rejects the name: a legitimate name does not have one.
fn permitted(reach: &Reach, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Unresolved> {
    if found.iter().all(|address| reach.permits(address.ip())) {
        return Ok(found);
    }
    Err(Unresolved(Connect::NotPublic))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use secret_persistence_core::ErrorKind;

    use super::*;

    fn resolver(trust: &Trust, address: &str) -> Resolver {
        Resolver::new(Reach::of(trust, &Url::parse(address).unwrap()).unwrap())
    }

    async fn resolve(resolver: &Resolver, name: &str) -> Option<Vec<IpAddr>> {
        let found = resolver.resolve(Name::from_str(name).unwrap()).await.ok()?;
        Some(found.map(|address| address.ip()).collect())
    }

    #[tokio::test]
    async fn a_name_of_this_network_is_refused_where_a_tenant_chose_it() {
        let tenant = resolver(&Trust::tenant(), "https://localhost");
        assert_eq!(resolve(&tenant, "localhost").await, None);
        let aliased = resolver(&Trust::tenant(), "https://localhost")
            .with_alias("vault.example".into(), "localhost:8200".into());
        assert_eq!(resolve(&aliased, "vault.example").await, None);
        let listed = resolver(&Trust::tenant_reaching(["localhost"]), "https://localhost");
        assert!(resolve(&listed, "localhost").await.is_some());
        let operator = resolver(&Trust::Operator, "https://localhost");
        assert!(resolve(&operator, "localhost").await.is_some());
    }

    #[test]
    fn one_private_address_among_public_ones_spoils_the_name() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let public = addresses(&["1.1.1.1:0", "[2606:4700::1]:0"]);
        assert_eq!(
            permitted(&Reach::PublicOnly, public.clone()).unwrap(),
            public
        );
        let mixed = addresses(&["1.1.1.1:0", "10.0.0.1:0"]);
        let refused = permitted(&Reach::PublicOnly, mixed.clone()).unwrap_err();
        assert_eq!(refused, Unresolved(Connect::NotPublic));
        assert!(permitted(&Reach::Everywhere, mixed).is_ok());
    }

    #[tokio::test]
    async fn a_refused_connection_says_so() {
        let trust = Trust::tenant();
        let mut settings = secret_persistence_core::settings::SettingMap::with_trust(
            crate::SETTINGS.rows(),
            trust,
        );
        settings.set("address", "https://localhost:1").unwrap();
        settings.set("token", "canary").unwrap();
        let config = crate::Config::from_settings(&settings).unwrap();
        let error = crate::Vault::connect(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(error.to_string().contains("tenant"), "{error}");
        assert!(!format!("{error:?}").contains("canary"));
    }
}
