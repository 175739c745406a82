//! A certificate authority for one test.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

/// A certificate authority that nothing trusts unless it is told to.
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

impl Authority {
    /// Makes a new authority, whose file lives as long as the value.
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

    /// Makes a new authority with its file in this folder.
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

    /// The PEM file of the authority's own certificate, for clients that are to trust it.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Issues a server certificate for the names, IP addresses among them.
    pub(crate) fn issue(&self, names: &[&str]) -> io::Result<Certificate> {
        let mut params = CertificateParams::default();
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
