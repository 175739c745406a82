//! The cipher of aws-lc-rs. Keys and nonces come from its generator, the nonces from inside the
//! module: FIPS 140 approves AES-GCM only so.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use secret_persistence_core::{Error, ErrorKind, Result};
use zeroize::{Zeroize, Zeroizing};

use super::{KEY_BYTES, MAC_BYTES, NONCE_BYTES, no_randomness};

pub(crate) struct Cipher(RandomizedNonceKey);

impl Cipher {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Result<Self> {
        RandomizedNonceKey::new(&AES_256_GCM, key)
            .map(Self)
            .map_err(|_| Error::new(ErrorKind::Unexpected, "AES-GCM refuses the key"))
    }

    /// Encrypts in place, so that there is no second copy of the plain text.
    pub(crate) fn seal(
        &self,
        associated: &[u8],
        mut buffer: Vec<u8>,
    ) -> Result<(Vec<u8>, [u8; NONCE_BYTES])> {
        match self
            .0
            .seal_in_place_append_tag(Aad::from(associated), &mut buffer)
        {
            Ok(nonce) => Ok((buffer, *nonce.as_ref())),
            Err(_) => {
                buffer.zeroize();
                Err(Error::new(
                    ErrorKind::Unexpected,
                    "AES-GCM cannot encrypt the value",
                ))
            }
        }
    }

    /// Decrypts in place and returns the length of the plain text; `None` for anything that differs
    /// from the encrypted data.
    pub(crate) fn open(&self, nonce: &[u8], associated: &[u8], buffer: &mut [u8]) -> Option<usize> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(associated), buffer)
            .map(|plain| plain.len())
            .ok();
        if opened.is_none() {
            // It may have been decrypted before the tag was found to be wrong.
            buffer.zeroize();
        }
        opened
    }
}

/// HMAC-SHA-256 with one key.
#[derive(Clone)]
pub(crate) struct Mac(hmac::Key);

impl Mac {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, key))
    }

    pub(crate) fn sign(&self, text: &[u8]) -> [u8; MAC_BYTES] {
        let mut tag = [0; MAC_BYTES];
        tag.copy_from_slice(hmac::sign(&self.0, text).as_ref());
        tag
    }

    /// In constant time.
    pub(crate) fn verifies(&self, text: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, text, tag).is_ok()
    }
}

pub(crate) fn random_key() -> Result<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    aws_lc_rs::rand::fill(key.as_mut_slice()).map_err(|_| no_randomness())?;
    Ok(key)
}
