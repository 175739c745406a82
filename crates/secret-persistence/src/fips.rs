//! Whether the cryptography of this process is a FIPS module.

use std::fmt;

use secret_persistence_core::{Error, ErrorKind, Result};

/// The FIPS module of AWS-LC, as the cryptography of this process: TLS of every store, encryption
/// of the database store, random keys.
///
/// No feature of this crate links it. A program has it if its own dependencies switch it on:
///
/// ```toml
/// aws-lc-rs = { version = ">=1.17.1, <1.18", default-features = false, features = ["fips"] }
/// rustls = { version = "0.23", default-features = false, features = ["fips"] }
/// ```
///
/// The version of aws-lc-rs decides which module that is. `SECURITY.md` in the repository says
/// which one is validated, what it covers, and what it does not.
///
/// `Display` names the library: `AWS-LC FIPS 3.6.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FipsModule {
    version: &'static str,
}

impl FipsModule {
    /// The module, as the linked library itself reports it; `None` in an ordinary build.
    #[must_use]
    pub fn of_process() -> Option<Self> {
        #[cfg(feature = "aws-lc-rs")]
        if aws_lc_rs::try_fips_mode().is_ok() {
            return Some(Self {
                version: aws_lc_rs::awslc_version(),
            });
        }
        None
    }

    /// Requires the module, also of TLS. Call it in `main`, before the first store is opened.
    ///
    /// It makes rustls with this module the process's default. A library that installs another
    /// provider later therefore fails.
    ///
    /// ```
    /// use secret_persistence::{ErrorKind, FipsModule};
    ///
    /// // An ordinary build, such as that of this example, does not have it.
    /// let error = FipsModule::require().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// ```
    ///
    /// # Errors
    /// `InvalidConfig` if the linked library is not a FIPS module, if rustls was built without its
    /// feature `fips`, or if another provider that is not in FIPS mode is the default of the
    /// process.
    pub fn require() -> Result<Self> {
        let module = Self::of_process().ok_or_else(|| {
            refused("the cryptography of this build is not a FIPS module")
                .with_hint("run the programs that `scripts/fips` builds: SECURITY.md, \"FIPS\"")
        })?;
        #[cfg(feature = "aws-lc-rs")]
        pin_tls()?;
        Ok(module)
    }

    /// The version of the library that contains the module. Its major version is the module's.
    #[must_use]
    pub fn version(self) -> &'static str {
        self.version
    }
}

impl fmt::Display for FipsModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AWS-LC FIPS {}", self.version)
    }
}

/// Some clients take rustls's own provider, others the default of the process: both are checked.
#[cfg(feature = "aws-lc-rs")]
fn pin_tls() -> Result<()> {
    use rustls::crypto::{CryptoProvider, aws_lc_rs};

    let provider = aws_lc_rs::default_provider();
    if !provider.fips() {
        return Err(refused("TLS of this build is not in FIPS mode")
            .with_hint("switch on the feature `fips` of rustls"));
    }
    // An error means that there is one already, which the next check looks at.
    let _ = provider.install_default();
    if CryptoProvider::get_default().is_some_and(|provider| provider.fips()) {
        return Ok(());
    }
    Err(
        refused("this process has installed a provider for TLS that is not in FIPS mode")
            .with_hint("call `FipsModule::require` first in `main`"),
    )
}

fn refused(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The package `fips`, which has the module, tests the opposite.
    #[test]
    fn an_ordinary_build_is_none_and_says_so() {
        assert_eq!(FipsModule::of_process(), None);
        let error = FipsModule::require().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.hint().unwrap().contains("scripts/fips"), "{error}");
    }

    /// With the feature of aws-lc-rs alone, clients would offer what FIPS does not approve.
    #[cfg(feature = "aws-lc-rs")]
    #[test]
    fn tls_without_its_feature_is_refused_and_installs_nothing() {
        let error = pin_tls().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.hint().unwrap().contains("rustls"), "{error}");
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    }
}
