//! Authenticates a request.

use std::fmt;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use secret_persistence::Timestamp;

use super::file::TokenFile;
use super::jwt::Jwts;
use super::principal::Principal;
use crate::settings::Jwt;

/// The client certificate of a connection (DER), verified against the configured authorities.
#[derive(Clone, Debug)]
pub struct PeerCertificate(pub Arc<[u8]>);

/// Why a caller is refused. It never contains what the caller sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is more than one token.
    Ambiguous,
    /// The token is valid but has expired.
    Expired,
    /// There is neither a token nor a certificate.
    Missing,
    /// A valid JWT without a role or workspace of this gateway.
    NoGrant,
    /// The tokens cannot be read, so every caller is refused.
    Unavailable,
    /// The token is unknown.
    Unknown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ambiguous => "the request has more than one token; send one, in one header",
            Self::Expired => "the token has expired",
            Self::Missing => {
                "the token is missing; send `Authorization: Bearer …` or `X-Vault-Token: …`"
            }
            Self::NoGrant => "the JWT has no role or no workspace of this gateway",
            Self::Unavailable => "the gateway cannot read its tokens",
            Self::Unknown => "the token is unknown",
        })
    }
}

impl std::error::Error for Refusal {}

/// Authenticates callers.
#[derive(Clone, Debug)]
pub struct Authenticator(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tokens: TokenFile,
    jwts: Option<Jwts>,
}

impl Authenticator {
    /// Accepts tokens of this file, and JWTs if they are configured.
    #[must_use]
    pub fn new(tokens: TokenFile, jwt: Option<Jwt>) -> Self {
        Self(Arc::new(Shared {
            tokens,
            jwts: jwt.map(Jwts::new),
        }))
    }

    /// The caller, by the token in the headers, otherwise by the client certificate.
    ///
    /// # Errors
    /// Why the caller is refused.
    pub async fn principal(
        &self,
        headers: &HeaderMap,
        certificate: Option<&PeerCertificate>,
    ) -> Result<Principal, Refusal> {
        let found = match (presented(headers)?, certificate) {
            (Some(token), _) => match &self.0.jwts {
                Some(jwts) if Jwts::looks_like_one(token) => Some(jwts.principal(token).await?),
                _ => self.0.tokens.find(token).map_err(unavailable)?,
            },
            (None, Some(certificate)) => self
                .0
                .tokens
                .find_certificate(&certificate.0)
                .map_err(unavailable)?,
            (None, None) => return Err(Refusal::Missing),
        };
        let principal = found.ok_or(Refusal::Unknown)?;
        if principal
            .expires
            .is_some_and(|expires| expires <= Timestamp::now().unix_seconds())
        {
            return Err(Refusal::Expired);
        }
        Ok(principal)
    }
}

fn unavailable(error: super::TokenFileError) -> Refusal {
    tracing::error!(%error, "every caller is refused");
    Refusal::Unavailable
}

/// The token in the headers. A repeated header and two different tokens are refused: whoever
/// checked the request before may have checked another one than would count here.
pub(crate) fn presented(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let text = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| Refusal::Unknown),
            (Some(_), Some(_)) => Err(Refusal::Ambiguous),
        }
    };
    let vault = text("x-vault-token")?.filter(|token| !token.is_empty());
    let bearer = match text(AUTHORIZATION.as_str())? {
        None => None,
        Some(value) => match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim()),
            _ => return Err(Refusal::Unknown),
        },
    };
    match (vault, bearer.filter(|token| !token.is_empty())) {
        (Some(vault), Some(bearer)) if vault != bearer => Err(Refusal::Ambiguous),
        (vault, bearer) => Ok(vault.or(bearer)),
    }
}
