//! TLS: the server's certificate, reloaded when it changes, and client certificates.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum_server::accept::{Accept, DefaultAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::future::BoxFuture;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tower::Layer as _;

use crate::settings::Tls;
use crate::tokens::PeerCertificate;

/// The interval of checking the files.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The current configuration, and the task that reloads it.
pub(super) fn config(tls: &Tls) -> io::Result<RustlsConfig> {
    let config = RustlsConfig::from_config(load(tls)?);
    let (ours, tls) = (config.clone(), tls.clone());
    tokio::spawn(async move {
        let mut known = stamps(&tls);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = stamps(&tls);
            if now == known {
                continue;
            }
            match load(&tls) {
                Ok(loaded) => {
                    ours.reload_from_config(loaded);
                    known = now;
                    tracing::info!(target: "secret_gateway", "the TLS certificate was reloaded");
                }
                // The files are changed one after the other. The next check finds both.
                Err(error) => {
                    tracing::warn!(target: "secret_gateway", %error, "the changed TLS certificate cannot be used yet; the old one stays in use");
                }
            }
        }
    });
    Ok(config)
}

fn stamps(tls: &Tls) -> Vec<Option<SystemTime>> {
    let modified = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    [
        Some(&tls.certificates),
        Some(&tls.key),
        tls.client_authorities.as_ref(),
    ]
    .into_iter()
    .flatten()
    .map(|path| modified(path))
    .collect()
}

fn load(tls: &Tls) -> io::Result<Arc<ServerConfig>> {
    let wrong = |path: &Path, reason: &dyn std::fmt::Display| {
        io::Error::other(format!("{}: {reason}", path.display()))
    };
    let certificates = |path: &Path| -> io::Result<Vec<CertificateDer<'static>>> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
            .map_err(|error| wrong(path, &error))?
            .collect();
        let found = found.map_err(|error| wrong(path, &error))?;
        if found.is_empty() {
            Err(wrong(path, &"does not contain a certificate"))
        } else {
            Ok(found)
        }
    };
    let chain = certificates(&tls.certificates)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|_| wrong(&tls.key, &"does not contain a private key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match &tls.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| wrong(path, &error))?;
            }
            // A client without a certificate needs a token.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| wrong(path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&tls.certificates, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts a connection, and passes its client certificate to its requests.
#[derive(Clone, Debug)]
pub(super) struct Acceptor(RustlsAcceptor);

impl Acceptor {
    pub(super) fn new(config: RustlsConfig) -> Self {
        Self(RustlsAcceptor::new(config).acceptor(DefaultAcceptor::new()))
    }
}

impl<S> Accept<TcpStream, S> for Acceptor
where
    S: Send + 'static,
{
    type Stream = TlsStream<TcpStream>;
    type Service = tower::util::Either<axum::middleware::AddExtension<S, PeerCertificate>, S>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepting = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            let certificate = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map(|certificate| PeerCertificate(certificate.as_ref().into()));
            let service = match certificate {
                Some(certificate) => {
                    tower::util::Either::Left(axum::Extension(certificate).layer(service))
                }
                None => tower::util::Either::Right(service),
            };
            Ok((stream, service))
        })
    }
}
