//! The HTTP client below the SDK: deadlines, no redirects, checked name resolution, bounded
//! responses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::Error as SdkError;
use azure_core::error::ErrorKind as SdkKind;
use azure_core::http::{AsyncRawResponse, HttpClient, Request};
use futures::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use secret_persistence_core::Result;
use secret_persistence_core::settings::invalid;
use secret_persistence_remote::{Connect, Unresolved};

use crate::config::{Config, Reach};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// No response is larger: a page has 25 entries with at most 15 tags, a secret 25 KB.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// TLS that trusts only the certificates in the setting `ca-file`.
pub(crate) async fn trust(config: &Config) -> Result<Option<ClientConfig>> {
    let Some(path) = &config.ca_file else {
        return Ok(None);
    };
    let pem = tokio::fs::read(path)
        .await
        .map_err(|cause| invalid(format!("cannot read {}", path.display())).with_source(cause))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<std::result::Result<_, _>>()
        .unwrap_or_default();
    let trusted = Trusted::new(certificates)
        .map_err(|_| invalid("`ca-file` does not contain a usable PEM certificate"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|cause| invalid("cannot set up TLS").with_source(cause))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trusted))
        .with_no_client_auth();
    Ok(Some(config))
}

/// A client with our deadlines, with or without the system's proxy.
pub(crate) fn client(
    config: &Config,
    tls: Option<&ClientConfig>,
    proxied: bool,
) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(config.timeout)
        .tcp_nodelay(true)
        // One request at a time per connection, so that none waits for a lost packet of another.
        .http1_only()
        .dns_resolver(Arc::new(Resolver(config.reach.clone())));
    // A proxy would resolve names itself, and reach hosts that a tenant must not reach.
    if !proxied || config.reach != Reach::Anywhere {
        builder = builder.no_proxy();
    }
    if let Some(tls) = tls {
        builder = builder.tls_backend_preconfigured(tls.clone());
    }
    builder
        .build()
        .map_err(|cause| invalid("cannot build the HTTP client").with_source(cause))
}

/// Trusts servers whose certificate was signed by a trusted authority, and servers that present a
/// trusted certificate itself.
///
/// The second kind is what `openssl req -x509` creates and most emulators have: a certificate that
/// is its own authority. Other libraries accept it if it is trusted, but rustls never does.
#[derive(Debug)]
struct Trusted {
    certificates: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl Trusted {
    fn new(certificates: Vec<CertificateDer<'static>>) -> std::result::Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        // An empty list of certificates is an error here.
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| rustls::Error::General("no usable root".to_owned()))?;
        Ok(Self {
            certificates,
            chains,
        })
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let checked = self
            .chains
            .verify_server_cert(end_entity, intermediates, name, ocsp, now);
        match checked {
            // By then its dates have been checked, but not its names.
            Err(error) if is_authority(&error) && self.certificates.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Whether a server's certificate was refused because it is an authority's.
fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = error
    else {
        return false;
    };
    matches!(other.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Rejects responses that are larger than any of Azure's: a tenant's vault may send anything.
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
                SdkError::with_message(SdkKind::DataConversion, "a response without end")
            })?;
            Ok(chunk)
        });
        Ok(AsyncRawResponse::new(status, headers, Box::pin(body)))
    }
}

/// Resolves names, so that the connection uses the checked addresses.
struct Resolver(Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = if host.ends_with(".localhost") {
                // RFC 6761 assigns this name to the local machine, but not every system resolver
                // knows it.
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
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::*;

    fn params(is_ca: bool, until: i32) -> CertificateParams {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    fn self_signed(is_ca: bool, until: i32) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let certificate = params(is_ca, until).self_signed(&key).unwrap();
        certificate.der().clone()
    }

    /// A certificate from `openssl req -x509`, and what it must not permit.
    #[test]
    fn a_certificate_of_the_file_is_trusted_as_itself() {
        let verdict = |file: &CertificateDer<'static>, shown: &CertificateDer<'_>, name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            Trusted::new(vec![file.clone()])
                .unwrap()
                .verify_server_cert(shown, &[], &name, &[], UnixTime::now())
                .is_ok()
        };
        for is_ca in [true, false] {
            let own = self_signed(is_ca, 2090);
            for name in ["localhost", "127.0.0.1"] {
                assert!(verdict(&own, &own, name), "{is_ca} {name}");
            }
            assert!(!verdict(&own, &own, "elsewhere.example"), "{is_ca}");
            assert!(!verdict(&own, &self_signed(is_ca, 2090), "localhost"));
            let ended = self_signed(is_ca, 2021);
            assert!(!verdict(&ended, &ended, "localhost"), "{is_ca}");
        }
        // A certificate from an authority is valid, as usual; a subordinate authority is not a
        // server.
        let key = KeyPair::generate().unwrap();
        let root = params(true, 2090).self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params(true, 2090), key);
        for (is_ca, expected) in [(false, true), (true, false)] {
            let key = KeyPair::generate().unwrap();
            let signed = params(is_ca, 2090).signed_by(&key, &issuer).unwrap();
            assert_eq!(verdict(&root, signed.der(), "localhost"), expected);
        }
        assert!(Trusted::new(Vec::new()).is_err());
    }

    #[test]
    fn a_tenant_is_connected_to_public_addresses_only() {
        let tenant = Reach::Public { allowed: None };
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let (public, private) = (address("52.94.133.131"), address("10.0.0.1"));
        let host = "my-vault.vault.azure.net";
        // The connection uses exactly the checked addresses.
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
