//! Whose settings they are, and what a tenant's settings may reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose settings they are.
///
/// The operator's settings may use ambient credentials, files and other endpoints. A tenant's
/// settings (for another store by storage id) may not: they could use the platform's identity, read
/// its files, or reach hosts inside its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trust {
    /// The operator's.
    #[default]
    Operator,
    /// A tenant's.
    Tenant {
        /// Additional hosts that the operator allows, in lower case: `vault.example`, or `.example`
        /// for every host below it. They may have private addresses.
        allowed_hosts: Vec<String>,
    },
}

impl Trust {
    /// Creates the trust level of a tenant without additional hosts.
    #[must_use]
    pub fn tenant() -> Self {
        Self::Tenant {
            allowed_hosts: Vec::new(),
        }
    }

    /// Creates the trust level of a tenant with these additional hosts.
    #[must_use]
    pub fn tenant_reaching<T: Into<String>>(hosts: impl IntoIterator<Item = T>) -> Self {
        let hosts = hosts
            .into_iter()
            .map(|host| host.into().to_ascii_lowercase());
        Self::Tenant {
            allowed_hosts: hosts.collect(),
        }
    }

    /// Whether the settings are from a tenant.
    #[must_use]
    pub fn is_tenant(&self) -> bool {
        matches!(self, Self::Tenant { .. })
    }

    /// Whether the operator allows this host; always true for the operator's own settings.
    ///
    /// ```
    /// use secret_persistence_core::settings::Trust;
    ///
    /// let trust = Trust::Tenant { allowed_hosts: vec![".example".into(), "vault.test".into()] };
    /// assert!(trust.allows_host("kv.team.example") && trust.allows_host("Vault.Test"));
    /// assert!(!trust.allows_host("example") && !trust.allows_host("my.vault.test"));
    /// ```
    #[must_use]
    pub fn allows_host(&self, host: &str) -> bool {
        let Self::Tenant { allowed_hosts } = self else {
            return true;
        };
        let host = host.to_ascii_lowercase();
        allowed_hosts.iter().any(|allowed| {
            if allowed.starts_with('.') {
                host.len() > allowed.len() && host.ends_with(allowed.as_str())
            } else {
                host == *allowed
            }
        })
    }
}

/// Whether an address is on the public internet: not this host, this network, any range that the
/// IANA reserves for special purposes (RFC 6890 and its successors), or a cloud's internal address
/// for its machines. An IPv6 address that contains an IPv4 address is as public as that one.
///
/// ```
/// use secret_persistence_core::settings::is_public;
///
/// assert!(is_public("52.94.133.131".parse()?) && is_public("2600:1f18::1".parse()?));
/// assert!(!is_public("169.254.169.254".parse()?) && !is_public("::ffff:127.0.0.1".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Azure's virtual machines get certificates and settings from this address: the range is public,
/// but the host answers.
/// <https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16>
const AZURE_WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0 // this network
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b)) // carriers' own
        || (a == 192 && b == 0 && c == 0) // protocol assignments
        || (a == 192 && b == 88 && c == 99) // the 6to4 relay
        || (a == 198 && (18..20).contains(&b)) // benchmarking
        || address == AZURE_WIRE_SERVER
        || a >= 240) // reserved, and broadcast
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo and the other protocol assignments, then documentation.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        // Only this part is given out as global unicast.
        [first, ..] => (0x2000..0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_public_internet_is_known() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "100.128.0.1",
            "168.63.129.15",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.254",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2001:4860:4860::8888",
            "2002:101:101::1",
            "2600::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_tenant_sets_nothing_of_the_operators() {
        use crate::ErrorKind;
        use crate::settings::{Setting, SettingMap};

        const TABLE: &[Setting] = &[
            Setting::new("endpoint", "another endpoint").operator_only(),
            Setting::new("region", "the region").with_env(&["REGION"]),
        ];
        let mut settings = SettingMap::with_trust(TABLE, Trust::tenant());
        let error = settings
            .set("endpoint", "http://169.254.169.254")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        settings.set_env(|_| Some("eu-west-1".to_owned()));
        assert_eq!(settings.text("region"), None);
        settings.set("region", "us-east-1").unwrap();
        settings
            .set_by_operator("endpoint", "https://proxy.example".to_owned())
            .unwrap();
        // Repeating the operator's value is harmless.
        settings.set("endpoint", "https://proxy.example").unwrap();
        assert!(settings.set("endpoint", "https://other.example").is_err());
        assert!(SettingMap::new(TABLE).set("endpoint", "x").is_ok());
    }
}
