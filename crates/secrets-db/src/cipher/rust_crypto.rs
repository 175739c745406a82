//! The cipher of RustCrypto, for a build without TLS: nothing in C but SQLite.

use aes_gcm::aead::{AeadInOut, Generate, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, Mac as _};
use secret_persistence_core::{Error, ErrorKind, Result};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::{KEY_BYTES, MAC_BYTES, NONCE_BYTES, TAG_BYTES, no_randomness};

pub(crate) struct Cipher(Aes256Gcm);

impl Cipher {
    #[allow(clippy::unnecessary_wraps, reason = "as in the other implementation")]
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Result<Self> {
        Ok(Self(Aes256Gcm::new(key.into())))
    }

    /// Encrypts in place, so that there is no second copy of the plain text.
    pub(crate) fn seal(
        &self,
        associated: &[u8],
        mut buffer: Vec<u8>,
    ) -> Result<(Vec<u8>, [u8; NONCE_BYTES])> {
        let nonce: [u8; NONCE_BYTES] = Generate::try_generate().map_err(|_| no_randomness())?;
        if self
            .0
            .encrypt_in_place(&Nonce::from(nonce), associated, &mut buffer)
            .is_err()
        {
            buffer.zeroize();
            return Err(Error::new(
                ErrorKind::PayloadTooLarge,
                "the value is too large for AES-GCM",
            ));
        }
        Ok((buffer, nonce))
    }

    /// Decrypts in place and returns the length of the plain text; `None` for anything that differs
    /// from the encrypted data.
    pub(crate) fn open(&self, nonce: &[u8], associated: &[u8], buffer: &mut [u8]) -> Option<usize> {
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let (text, tag) = buffer.split_last_chunk_mut::<TAG_BYTES>()?;
        let length = text.len();
        self.0
            .decrypt_inout_detached(&Nonce::from(nonce), associated, text.into(), &(*tag).into())
            .ok()?;
        Some(length)
    }
}

/// HMAC-SHA-256 with one key.
#[derive(Clone)]
pub(crate) struct Mac(Hmac<Sha256>);

impl Mac {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        // HMAC pads a short key with zeros to a block.
        let mut block = Zeroizing::new([0; 64]);
        block[..KEY_BYTES].copy_from_slice(key);
        Self(KeyInit::new((&*block).into()))
    }

    pub(crate) fn sign(&self, text: &[u8]) -> [u8; MAC_BYTES] {
        self.0
            .clone()
            .chain_update(text)
            .finalize()
            .into_bytes()
            .into()
    }

    /// In constant time.
    pub(crate) fn verifies(&self, text: &[u8], tag: &[u8]) -> bool {
        self.0.clone().chain_update(text).verify_slice(tag).is_ok()
    }
}

/// A random key from the system's generator.
pub(crate) fn random_key() -> Result<Zeroizing<[u8; KEY_BYTES]>> {
    Generate::try_generate()
        .map(Zeroizing::new)
        .map_err(|_| no_randomness())
}
