//! Signed tokens, RS256 only, which is what the provider
//! [prescribes](https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests).

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
pub(super) struct SigningKey {
    id: String,
    pair: Arc<KeyPair>,
}

/// Who signs to begin with. Making a key takes half a second where nothing is optimised, so all servers of a process have
/// the same ones under ids of their own, which signatures cover.
#[derive(Clone, Copy)]
pub(super) enum Signer {
    ServiceAccount,
    Workload,
}

impl SigningKey {
    /// The first key of a signer.
    pub(super) fn first(signer: Signer) -> Self {
        type Shared = LazyLock<Arc<KeyPair>>;
        static SERVICE_ACCOUNT: Shared = LazyLock::new(|| Arc::new(make()));
        static WORKLOAD: Shared = LazyLock::new(|| Arc::new(make()));
        let pair = match signer {
            Signer::ServiceAccount => &SERVICE_ACCOUNT,
            Signer::Workload => &WORKLOAD,
        };
        Self::with(Arc::clone(pair))
    }

    /// Another key than all before.
    pub(super) fn generate() -> Self {
        Self::with(Arc::new(make()))
    }

    fn with(pair: Arc<KeyPair>) -> Self {
        Self {
            // Forty hexadecimal digits, as the service gives out.
            id: format!(
                "{}{:.8}",
                Uuid::new_v4().simple(),
                Uuid::new_v4().simple().to_string()
            ),
            pair,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The private key, PKCS #8 in PEM.
    pub(super) fn pem(&self) -> io::Result<String> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(io::Error::other)?;
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
        Ok(pem)
    }

    /// A token with these claims.
    pub(super) fn sign(&self, claims: &Value) -> io::Result<String> {
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
            .map_err(io::Error::other)?;
        Ok(format!(
            "{signed}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(signature)
        ))
    }
}

fn make() -> KeyPair {
    KeyPair::generate(KeySize::Rsa2048).expect("memory and randomness")
}

/// A token in its parts, of which nothing is believed yet.
pub(super) struct Jwt {
    header: Value,
    claims: Value,
    signed: String,
    signature: Vec<u8>,
}

impl Jwt {
    pub(super) fn parse(text: &str) -> Option<Self> {
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

    /// The id of the key that is said to have signed it.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.header["kid"].as_str()
    }

    /// Whether this key has signed it, by the algorithm that its header names.
    pub(super) fn is_signed_by(&self, key: &SigningKey) -> bool {
        let public =
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.pair.public_key().as_ref());
        self.header["alg"] == "RS256"
            && public
                .verify(self.signed.as_bytes(), &self.signature)
                .is_ok()
    }

    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.claims[claim].as_str()
    }

    pub(super) fn number(&self, claim: &str) -> Option<i64> {
        self.claims[claim].as_i64()
    }

    /// The scopes that it asks for.
    pub(super) fn scopes(&self) -> Vec<String> {
        let scopes = self.text("scope").unwrap_or_default();
        scopes.split_whitespace().map(str::to_owned).collect()
    }
}
