//! AES-256-GCM, HMAC-SHA-256 and random keys: from aws-lc-rs, as TLS has it, or from RustCrypto in a build without
//! TLS. What one encrypts, the other decrypts.

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
#[cfg(any(test, not(feature = "aws-lc-rs")))]
mod rust_crypto;

use secret_persistence_core::{Error, ErrorKind};

#[cfg(feature = "aws-lc-rs")]
pub(crate) use aws_lc::{Cipher, Mac, random_key};
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) use rust_crypto::{Cipher, Mac, random_key};

pub(crate) const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const KEY_BYTES: usize = 32;
pub(crate) const MAC_BYTES: usize = 32;

fn no_randomness() -> Error {
    Error::new(ErrorKind::Unavailable, "the random number generator failed")
}

#[cfg(all(test, feature = "aws-lc-rs"))]
mod tests {
    use super::{KEY_BYTES, TAG_BYTES, aws_lc, rust_crypto};

    const KEY: [u8; KEY_BYTES] = *b"0123456789abcdef0123456789ABCDEF";

    /// Otherwise a table would be lost to a build with other features.
    #[test]
    fn what_one_implementation_encrypts_the_other_decrypts() {
        let aws_lc = aws_lc::Cipher::new(&KEY).unwrap();
        let rust_crypto = rust_crypto::Cipher::new(&KEY).unwrap();
        for plain in ["", "p", "hunter2 hunter2 hunter2"] {
            let (sealed, nonce) = aws_lc.seal(b"here", plain.into()).unwrap();
            assert_eq!(sealed.len(), plain.len() + TAG_BYTES);
            let mut buffer = sealed.clone();
            let opened = rust_crypto.open(&nonce, b"here", &mut buffer);
            assert_eq!(
                opened.map(|length| &buffer[..length]),
                Some(plain.as_bytes())
            );
            assert_eq!(
                rust_crypto.open(&nonce, b"there", &mut sealed.clone()),
                None
            );

            let (sealed, nonce) = rust_crypto.seal(b"here", plain.into()).unwrap();
            let mut buffer = sealed.clone();
            let opened = aws_lc.open(&nonce, b"here", &mut buffer);
            assert_eq!(
                opened.map(|length| &buffer[..length]),
                Some(plain.as_bytes())
            );
            for (nonce, here, sealed) in [
                (&nonce[..], b"there".as_slice(), &sealed[..]),
                (&nonce[1..], b"here", &sealed),
                (&nonce, b"here", &sealed[..TAG_BYTES - 1]),
            ] {
                assert_eq!(aws_lc.open(nonce, here, &mut sealed.to_vec()), None);
                assert_eq!(rust_crypto.open(nonce, here, &mut sealed.to_vec()), None);
            }
        }
    }

    /// Case 1 of RFC 4231, whose key is padded to ours.
    #[test]
    fn what_one_implementation_signs_the_other_verifies() {
        let mut key = [0; KEY_BYTES];
        key[..20].fill(0x0b);
        let (aws_lc, rust_crypto) = (aws_lc::Mac::new(&key), rust_crypto::Mac::new(&key));
        let tag = aws_lc.sign(b"Hi There");
        assert_eq!(tag[..4], [0xb0, 0x34, 0x4c, 0x61]);
        assert_eq!(tag, rust_crypto.sign(b"Hi There"));
        for (text, tag, genuine) in [
            (&b"Hi There"[..], &tag[..], true),
            (b"Hi there", &tag, false),
            (b"Hi There", &tag[1..], false),
            (b"Hi There", &[], false),
        ] {
            assert_eq!(aws_lc.verifies(text, tag), genuine);
            assert_eq!(rust_crypto.verifies(text, tag), genuine);
        }
    }

    #[test]
    fn no_two_keys_and_no_two_nonces_are_alike() {
        let cipher = aws_lc::Cipher::new(&KEY).unwrap();
        let nonce = || cipher.seal(b"", Vec::new()).unwrap().1;
        assert_ne!(nonce(), nonce());
        assert_ne!(aws_lc::random_key().unwrap(), aws_lc::random_key().unwrap());
        assert_ne!(
            rust_crypto::random_key().unwrap(),
            rust_crypto::random_key().unwrap()
        );
    }
}
