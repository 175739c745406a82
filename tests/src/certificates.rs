//! A certificate authority for one test.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// A certificate authority that nothing trusts by default.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_file: PathBuf,
    // Removed with the value.
    _folder: Option<TempDir>,
}

/// A certificate and its key, as PEM texts.
pub(crate) struct Certificate {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Certificate {
    /// The TLS configuration for clients.
    pub(crate) fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        // The provider is explicit, because rustls only chooses one if no other crate adds a
        // second.
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(
                chain.map_err(io::Error::other)?,
                key.map_err(io::Error::other)?,
            )
            .map_err(io::Error::other)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Authority {
    /// Creates an authority. Its file exists as long as the value.
    ///
    /// # Errors
    ///
    /// If the temporary folder for its certificate cannot be written.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Self::in_folder(folder.path())?;
        Ok(Self {
            _folder: Some(folder),
            ..authority
        })
    }

    /// Creates an authority with its file in this folder.
    pub(crate) fn in_folder(folder: &Path) -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;

        let ca_file = folder.join("ca.pem");
        fs::write(&ca_file, certificate.pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            ca_file,
            _folder: None,
        })
    }

    /// The PEM file of the authority's certificate, for clients that trust it.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Starts a server on loopback whose certificate for `localhost` and 127.0.0.1 has expired. It
    /// ends with the runtime.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub async fn serve_expired(&self) -> io::Result<SocketAddr> {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        let acceptor = self.sign(params, &["localhost", "127.0.0.1"])?.acceptor()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not accept the certificate ends here and reports it.
                tokio::spawn(acceptor.accept(stream));
            }
        });
        Ok(address)
    }

    /// Issues a server certificate for these names and IP addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> io::Result<Certificate> {
        self.sign(CertificateParams::default(), names)
    }

    fn sign(&self, mut params: CertificateParams, names: &[&str]) -> io::Result<Certificate> {
        params
            .distinguished_name
            .push(DnType::CommonName, "Test server");
        for name in names {
            let name = match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().map_err(io::Error::other)?),
            };
            params.subject_alt_names.push(name);
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(io::Error::other)?;
        Ok(Certificate {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}
