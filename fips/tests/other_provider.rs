//! A program that has installed a provider of its own is refused. One process has one default, so
//! this test is a program of its own.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use secret_persistence::{ErrorKind, FipsModule};

#[test]
fn a_provider_with_more_than_fips_approves_is_refused() {
    let mut provider = aws_lc_rs::default_provider();
    assert!(provider.fips());
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    assert!(!provider.fips());
    provider
        .install_default()
        .expect("nothing was installed before");
    let installed: Option<&Arc<CryptoProvider>> = CryptoProvider::get_default();
    assert!(installed.is_some_and(|provider| !provider.fips()));

    let error = FipsModule::require().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("not in FIPS mode"), "{error}");
}
