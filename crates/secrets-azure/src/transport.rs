//! The HTTP client below the SDK: deadlines, no redirects, names resolved by ourselves, bounded answers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::Error as SdkError;
use azure_core::error::ErrorKind as SdkKind;
use azure_core::http::{AsyncRawResponse, HttpClient, Request};
use futures::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, redirect};
use secrets_core::Result;

use crate::config::{Config, Reach, invalid};
use crate::error::{Connect, Unresolved};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// No answer is larger: a page has 25 entries with at most 15 tags, a secret 25 KB.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The certificates of the setting `ca-file`.
pub(crate) async fn certificates(config: &Config) -> Result<Option<Vec<Certificate>>> {
    let Some(path) = &config.ca_file else {
        return Ok(None);
    };
    let pem = tokio::fs::read(path)
        .await
        .map_err(|cause| invalid(format!("cannot read {}", path.display())).with_source(cause))?;
    Certificate::from_pem_bundle(&pem)
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .map(Some)
        .ok_or_else(|| invalid("`ca-file` holds no PEM certificate"))
}

/// A client with our deadlines, that goes through the system's proxy or does not.
pub(crate) fn client(
    config: &Config,
    certificates: Option<&[Certificate]>,
    proxied: bool,
) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(config.timeout)
        .tcp_nodelay(true)
        // One request at a time per connection, so that none waits for another's loss.
        .http1_only()
        .dns_resolver(Arc::new(Resolver(config.reach.clone())));
    // A proxy would resolve names itself, and reach what a tenant must not.
    if !proxied || config.reach != Reach::Anywhere {
        builder = builder.no_proxy();
    }
    if let Some(certificates) = certificates {
        builder = builder.tls_certs_only(certificates.iter().cloned());
    }
    builder
        .build()
        .map_err(|cause| invalid("the HTTP client cannot be built").with_source(cause))
}

/// Ends answers that are larger than any of Azure's: a vault that a tenant names may send what it likes.
#[derive(Clone, Debug)]
pub(crate) struct Bounded(pub(crate) reqwest::Client);

#[async_trait]
impl HttpClient for Bounded {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let (status, headers, body) = self.0.execute_request(request).await?.deconstruct();
        let mut left = MAX_ANSWER_BYTES;
        let body = body.map(move |chunk| {
            let chunk = chunk?;
            left = left.checked_sub(chunk.len()).ok_or_else(|| {
                SdkError::with_message(SdkKind::DataConversion, "an answer without end")
            })?;
            Ok(chunk)
        });
        Ok(AsyncRawResponse::new(status, headers, Box::pin(body)))
    }
}

/// Resolves names ourselves, so that what was checked is what is connected to.
struct Resolver(Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = if host.ends_with(".localhost") {
                // Of this machine, by RFC 6761, which not every resolver of a system knows.
                vec![
                    (Ipv4Addr::LOCALHOST, 0).into(),
                    (Ipv6Addr::LOCALHOST, 0).into(),
                ]
            } else {
                tokio::net::lookup_host((host, 0))
                    .await
                    .map_err(|_| Unresolved(Connect::NoSuchHost))?
                    .collect()
            };
            let addresses = permitted(&reach, host, found.into_iter())?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a host that may be connected to.
fn permitted(
    reach: &Reach,
    host: &str,
    found: impl Iterator<Item = SocketAddr>,
) -> std::result::Result<Vec<SocketAddr>, Unresolved> {
    let (good, bad): (Vec<_>, Vec<_>) =
        found.partition(|address| reach.permits(host, address.ip()));
    match (good.is_empty(), bad.is_empty()) {
        (false, _) => Ok(good),
        (true, false) => Err(Unresolved(Connect::NotPublic)),
        (true, true) => Err(Unresolved(Connect::NoSuchHost)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_connected_to_public_addresses_only() {
        let tenant = Reach::Public { allowed: None };
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let (public, private) = (address("52.94.133.131"), address("10.0.0.1"));
        let host = "my-vault.vault.azure.net";
        // The very addresses that were checked, and none of the others.
        let good = permitted(&tenant, host, [private, public].into_iter()).unwrap();
        assert_eq!(good, [public]);
        let bad = permitted(
            &tenant,
            host,
            [private, address("169.254.169.254")].into_iter(),
        );
        assert_eq!(bad.unwrap_err().0, Connect::NotPublic);
        let none = permitted(&tenant, host, std::iter::empty());
        assert_eq!(none.unwrap_err().0, Connect::NoSuchHost);
        let operator = permitted(&Reach::Anywhere, host, [private].into_iter());
        assert_eq!(operator.unwrap(), [private]);
    }
}
