//! JSON Web Tokens, really signed and really verified (RS256).

use std::sync::LazyLock;

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use uuid::Uuid;

/// Signs tokens, and knows its own again.
///
/// Making a key takes half a second, so all signers of a process share one, and tell their tokens apart by the name of
/// the key, which the signature covers.
pub(super) struct Signer {
    key: &'static KeyPair,
    id: String,
}

/// Why a token is not one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Invalid {
    /// It does not have the form of a signed token.
    Malformed,
    /// It names our key, but the signature is not of that key.
    Signature,
    /// It names a key that is not ours, or another algorithm.
    UnknownKey,
}

impl Signer {
    pub(super) fn new() -> Self {
        static KEY: LazyLock<KeyPair> =
            LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("memory and randomness"));
        Self {
            key: &KEY,
            id: Uuid::new_v4().simple().to_string(),
        }
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "RS256", "kid": self.id});
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .expect("the buffer has the length of the modulus");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns the claims, whatever they say: times, issuer and audience are for the caller to judge.
    pub(super) fn verify(&self, token: &str) -> Result<Value, Invalid> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Invalid::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Invalid::Malformed)?;
        let header = decode(header)?;
        if header["alg"] != "RS256" || header["kid"] != self.id.as_str() {
            return Err(Invalid::UnknownKey);
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Invalid::Malformed)?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| Invalid::Signature)?;
        decode(claims)
    }
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

fn decode(part: &str) -> Result<Value, Invalid> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Invalid::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Invalid::Malformed)
}
