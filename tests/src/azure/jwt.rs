//! The tokens of Entra ID and of the cluster that it trusts.

use serde_json::Value;

use crate::jwt::{Jwt, SigningKey};

/// Signs and verifies tokens.
pub(super) struct Signer(SigningKey);

/// Why a token is invalid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Invalid {
    /// It is not a signed token.
    Malformed,
    /// It names our key, but has another key's signature.
    Signature,
    /// It names another key or algorithm.
    UnknownKey,
}

impl Signer {
    pub(super) fn new() -> Self {
        Self(SigningKey::shared())
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.0.sign(claims)
    }

    /// Returns the claims. The caller checks times, issuer and audience.
    pub(super) fn verify(&self, token: &str) -> Result<Value, Invalid> {
        let jwt = Jwt::parse(token).ok_or(Invalid::Malformed)?;
        if jwt.algorithm() != Some("RS256") || jwt.key_id() != Some(self.0.id()) {
            return Err(Invalid::UnknownKey);
        }
        if !jwt.is_signed_by(&self.0) {
            return Err(Invalid::Signature);
        }
        Ok(jwt.claims().clone())
    }
}
