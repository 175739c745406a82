//! JSON Web Tokens with real signatures: only RS256, which the providers require.

use std::{
    io,
    sync::{Arc, LazyLock},
};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// A private key and its id.
pub(crate) struct SigningKey {
    id: String,
    pair: Arc<KeyPair>,
}

impl SigningKey {
    /// A key with a unique id.
    ///
    /// Creating a key takes half a second without optimisation, so all of them are the same key.
    /// Their ids, which signatures cover, distinguish them.
    pub(crate) fn shared() -> Self {
        static PAIR: LazyLock<Arc<KeyPair>> = LazyLock::new(|| {
            Arc::new(KeyPair::generate(KeySize::Rsa2048).expect("memory and randomness"))
        });
        Self::with(Arc::clone(&PAIR))
    }

    /// A key that differs from all previous ones.
    pub(crate) fn generate() -> io::Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(io::Error::other)?;
        Ok(Self::with(Arc::new(pair)))
    }

    fn with(pair: Arc<KeyPair>) -> Self {
        Self {
            // Forty hexadecimal digits.
            id: format!(
                "{}{:.8}",
                Uuid::new_v4().simple(),
                Uuid::new_v4().simple().to_string()
            ),
            pair,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The private key, PKCS #8 in PEM.
    pub(crate) fn pem(&self) -> String {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().expect("every key has this form");
        let text = BASE64_STANDARD.encode(der.as_ref());
        let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        pem
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.id});
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .expect("the buffer has the length of the modulus");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A token in its parts, not verified yet.
pub(crate) struct Jwt {
    header: Value,
    claims: Value,
    signed: String,
    signature: Vec<u8>,
}

impl Jwt {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| -> Option<Value> {
            let text = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice(&text).ok().filter(Value::is_object)
        };
        Some(Self {
            header: decode(header)?,
            claims: decode(claims)?,
            signed: signed.to_owned(),
            signature: BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// All claims.
    pub(crate) fn claims(&self) -> &Value {
        &self.claims
    }

    /// The algorithm in its header.
    pub(crate) fn algorithm(&self) -> Option<&str> {
        self.header["alg"].as_str()
    }

    /// The id of the key in its header.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.header["kid"].as_str()
    }

    /// Whether this key signed it, with the algorithm in its header.
    pub(crate) fn is_signed_by(&self, key: &SigningKey) -> bool {
        let public =
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.pair.public_key().as_ref());
        self.algorithm() == Some("RS256")
            && public
                .verify(self.signed.as_bytes(), &self.signature)
                .is_ok()
    }

    pub(crate) fn text(&self, claim: &str) -> Option<&str> {
        self.claims[claim].as_str()
    }

    pub(crate) fn number(&self, claim: &str) -> Option<i64> {
        self.claims[claim].as_i64()
    }

    /// The requested scopes.
    pub(crate) fn scopes(&self) -> Vec<String> {
        let scopes = self.text("scope").unwrap_or_default();
        scopes.split_whitespace().map(str::to_owned).collect()
    }
}
