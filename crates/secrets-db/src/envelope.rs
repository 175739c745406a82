//! Envelope encryption of one value: a random data key encrypts the value, and the key ring wraps
//! the data key.
//!
//! Both use AES-256-GCM, each with a fresh 96-bit nonce. The value is bound to the format, its
//! coordinate and its expiry; the wrapped data key is bound to the same and the key's id. A row
//! therefore cannot be decrypted after it was moved, swapped with another one, or given another
//! expiry or key id.
//!
//! A random nonce is safe for 2³² wraps under one key of the ring. Rotate the ring long before.

use secret_persistence_core::{Error, ErrorKind, Result, SecretValue};
use zeroize::{Zeroize, Zeroizing};

use crate::cipher::{Cipher, KEY_BYTES, NONCE_BYTES, TAG_BYTES, random_key};
use crate::keyring::{KeyId, KeyRing};

/// The prefix of all authenticated data, so that bytes for one purpose are never valid for another.
const VALUE: &str = "secret-persistence-db 1 value";
const DATA_KEY: &str = "secret-persistence-db 1 data key";

/// A data key and its tag.
const WRAPPED_BYTES: usize = KEY_BYTES + TAG_BYTES;

/// The columns of an encrypted row.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) ciphertext: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) wrapped_key: Vec<u8>,
    pub(crate) key_nonce: Vec<u8>,
    pub(crate) key_id: String,
}

/// What a row is bound to.
#[derive(Clone, Copy)]
pub(crate) struct Binding<'a> {
    pub(crate) coordinate: &'a str,
    /// Seconds since 1970, as in the column.
    pub(crate) expires: Option<i64>,
}

impl Sealed {
    /// Encrypts a value under a new data key, wrapped by the ring's active key.
    pub(crate) fn seal(ring: &KeyRing, binding: Binding<'_>, value: &SecretValue) -> Result<Self> {
        let data_key = random_key()?;
        let mut buffer = Vec::with_capacity(value.len() + TAG_BYTES);
        buffer.extend_from_slice(value.expose().as_bytes());
        let sealed = Cipher::new(&data_key)?.seal(&binding.associated(VALUE, None), buffer)?;
        let wrapped = wrap(ring, binding, &data_key)?;
        Ok(Self {
            ciphertext: sealed.0,
            nonce: sealed.1.to_vec(),
            wrapped_key: wrapped.0,
            key_nonce: wrapped.1.to_vec(),
            key_id: ring.active().as_str().to_owned(),
        })
    }

    /// Decrypts the value, in place.
    pub(crate) fn open(self, ring: &KeyRing, binding: Binding<'_>) -> Result<SecretValue> {
        let data_key = self.unwrap_key(ring, binding)?;
        open_value(&data_key, &self.nonce, binding, self.ciphertext)
    }

    /// The same value and data key, wrapped by the ring's active key.
    pub(crate) fn rewrap(&self, ring: &KeyRing, binding: Binding<'_>) -> Result<Self> {
        let data_key = self.unwrap_key(ring, binding)?;
        let wrapped = wrap(ring, binding, &data_key)?;
        Ok(Self {
            ciphertext: self.ciphertext.clone(),
            nonce: self.nonce.clone(),
            wrapped_key: wrapped.0,
            key_nonce: wrapped.1.to_vec(),
            key_id: ring.active().as_str().to_owned(),
        })
    }

    fn unwrap_key(
        &self,
        ring: &KeyRing,
        binding: Binding<'_>,
    ) -> Result<Zeroizing<[u8; KEY_BYTES]>> {
        // The id comes from the row, so it is shown only if it is valid.
        let key_id: KeyId = self
            .key_id
            .parse()
            .map_err(|_| damaged("its key id is invalid"))?;
        let key = ring.cipher(&key_id).ok_or_else(|| {
            damaged(format!(
                "its key id is `{key_id}`, which the key ring lacks"
            ))
            .with_hint("if that key was added recently, restart with the new key ring")
        })?;
        let associated = binding.associated(DATA_KEY, Some(key_id.as_str()));
        unwrap(key, &self.key_nonce, &self.wrapped_key, &associated)
            .ok_or_else(|| damaged("its data key cannot be decrypted"))
    }
}

/// Decrypts the value of a row under the ring's active key whose columns are joined: key nonce,
/// wrapped key, nonce, ciphertext. `None` if that does not succeed; the columns say why.
pub(crate) fn open_joined(
    mut joined: Vec<u8>,
    ring: &KeyRing,
    binding: Binding<'_>,
) -> Option<SecretValue> {
    const HEAD: usize = NONCE_BYTES + WRAPPED_BYTES + NONCE_BYTES;
    let head: [u8; HEAD] = *joined.first_chunk()?;
    joined.drain(..HEAD);
    let (key_nonce, rest) = head.split_at(NONCE_BYTES);
    let (wrapped_key, nonce) = rest.split_at(WRAPPED_BYTES);
    let associated = binding.associated(DATA_KEY, Some(ring.active().as_str()));
    let data_key = unwrap(ring.active_cipher(), key_nonce, wrapped_key, &associated)?;
    open_value(&data_key, nonce, binding, joined).ok()
}

/// Decrypts a data key.
fn unwrap(
    key: &Cipher,
    nonce: &[u8],
    wrapped: &[u8],
    associated: &[u8],
) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut buffer: Zeroizing<[u8; WRAPPED_BYTES]> = Zeroizing::new(wrapped.try_into().ok()?);
    key.open(nonce, associated, &mut *buffer)?;
    buffer.first_chunk().copied().map(Zeroizing::new)
}

/// Decrypts a value, in place.
fn open_value(
    data_key: &[u8; KEY_BYTES],
    nonce: &[u8],
    binding: Binding<'_>,
    mut ciphertext: Vec<u8>,
) -> Result<SecretValue> {
    let length = Cipher::new(data_key)?
        .open(nonce, &binding.associated(VALUE, None), &mut ciphertext)
        .ok_or_else(|| damaged("its value cannot be decrypted"))?;
    ciphertext.truncate(length);
    String::from_utf8(ciphertext)
        .map(SecretValue::new)
        .map_err(|error| {
            // The error would contain the plain text.
            error.into_bytes().zeroize();
            damaged("its value is not text")
        })
}

impl Binding<'_> {
    /// Every part, preceded by its length, so that different bindings have different bytes.
    fn associated(self, purpose: &str, key_id: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(purpose.len() + self.coordinate.len() + 96);
        let mut part = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        part(purpose.as_bytes());
        part(self.coordinate.as_bytes());
        match self.expires {
            Some(seconds) => part(&seconds.to_be_bytes()),
            None => part(&[]),
        }
        if let Some(key_id) = key_id {
            part(key_id.as_bytes());
        }
        bytes
    }
}

fn wrap(
    ring: &KeyRing,
    binding: Binding<'_>,
    data_key: &[u8; KEY_BYTES],
) -> Result<(Vec<u8>, [u8; NONCE_BYTES])> {
    let mut buffer = Vec::with_capacity(KEY_BYTES + TAG_BYTES);
    buffer.extend_from_slice(data_key);
    ring.active_cipher().seal(
        &binding.associated(DATA_KEY, Some(ring.active().as_str())),
        buffer,
    )
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Integrity,
        format!("the row was moved, altered or damaged: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> KeyRing {
        KeyRing::generate("k1".parse().unwrap()).unwrap()
    }

    const HOME: Binding<'_> = Binding {
        coordinate: "airbyte_workspace_1_secret_2_v1",
        expires: Some(1_700_000_000),
    };

    fn value() -> SecretValue {
        SecretValue::new("päss\0word".to_owned())
    }

    #[test]
    fn what_is_sealed_opens_and_no_two_envelopes_are_alike() {
        let ring = ring();
        let first = Sealed::seal(&ring, HOME, &value()).unwrap();
        let second = Sealed::seal(&ring, HOME, &value()).unwrap();
        assert_eq!(first.clone().open(&ring, HOME).unwrap(), value());
        assert_ne!(first.ciphertext, second.ciphertext);
        assert_ne!(first.wrapped_key, second.wrapped_key);
        assert_eq!(first.ciphertext.len(), value().len() + TAG_BYTES);
    }

    #[test]
    fn another_place_another_expiry_or_another_key_is_integrity() {
        let mut ring = ring();
        ring.add("k2".parse().unwrap()).unwrap();
        let sealed = Sealed::seal(&ring, HOME, &value()).unwrap();
        let elsewhere = Binding {
            coordinate: "airbyte_workspace_1_secret_2_v2",
            ..HOME
        };
        let later = Binding {
            expires: Some(1_700_000_001),
            ..HOME
        };
        let never = Binding {
            expires: None,
            ..HOME
        };
        for binding in [elsewhere, later, never] {
            let error = sealed.clone().open(&ring, binding).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity);
        }
        for key_id in ["k2", "k3", "", "not an id"] {
            let mut altered = sealed.clone();
            altered.key_id = key_id.to_owned();
            let error = altered.clone().open(&ring, HOME).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity, "{key_id}");
        }
    }

    #[test]
    fn every_altered_or_shortened_column_is_integrity() {
        let ring = ring();
        let sealed = Sealed::seal(&ring, HOME, &value()).unwrap();
        let columns: [fn(&mut Sealed) -> &mut Vec<u8>; 4] = [
            |sealed| &mut sealed.ciphertext,
            |sealed| &mut sealed.nonce,
            |sealed| &mut sealed.wrapped_key,
            |sealed| &mut sealed.key_nonce,
        ];
        for column in columns {
            for at in 0..column(&mut sealed.clone()).len() {
                let mut altered = sealed.clone();
                column(&mut altered)[at] ^= 1;
                assert_eq!(
                    altered.clone().open(&ring, HOME).unwrap_err().kind(),
                    ErrorKind::Integrity
                );
                let mut shortened = sealed.clone();
                column(&mut shortened).truncate(at);
                assert_eq!(
                    shortened.clone().open(&ring, HOME).unwrap_err().kind(),
                    ErrorKind::Integrity
                );
            }
        }
    }

    #[test]
    fn rewrapping_changes_the_wrapped_key_alone() {
        let mut ring = ring();
        let sealed = Sealed::seal(&ring, HOME, &value()).unwrap();
        ring.add("k2".parse().unwrap()).unwrap();
        ring.activate(&"k2".parse().unwrap()).unwrap();
        let rewrapped = sealed.rewrap(&ring, HOME).unwrap();
        assert_eq!(rewrapped.ciphertext, sealed.ciphertext);
        assert_eq!(rewrapped.key_id, "k2");
        ring.remove(&"k1".parse().unwrap()).unwrap();
        assert_eq!(rewrapped.clone().open(&ring, HOME).unwrap(), value());
        assert!(sealed.clone().open(&ring, HOME).is_err());
    }

    /// Two bindings whose parts run together must not authenticate the same bytes.
    #[test]
    fn bindings_are_unambiguous() {
        let plain = |coordinate, expires| Binding {
            coordinate,
            expires,
        };
        let all = [
            plain("a", None).associated(VALUE, None),
            plain("a", None).associated(VALUE, Some("")),
            plain("a", None).associated(DATA_KEY, None),
            plain("a", Some(0)).associated(VALUE, None),
            plain("ab", None).associated(VALUE, None),
            plain("a", None).associated(VALUE, Some("b")),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
    }
}
