//! Authenticates a request with its token.

use hyper::{HeaderMap, header};
use time::OffsetDateTime;

use super::{
    accounts::{Accounts, CLOUD_PLATFORM},
    refusal::{Refusal, credentials_invalid, credentials_missing, scope_insufficient},
};
use crate::jwt::Jwt;

/// The longest lifetime of a self-signed token, in seconds.
///
/// It is [an hour](https://google.aip.dev/auth/4111), plus a minute for clients that tolerate
/// differences between clocks. The service's own tolerance is not documented.
pub(super) const LONGEST: i64 = 3600 + 60;

/// How far in the future the issue time of a token may be, in seconds. The service's own tolerance
/// is not documented.
pub(super) const SKEW: i64 = 30;

/// The account of a request for this service.
///
/// Two kinds of tokens are accepted: those of the token endpoints, and those that a service account
/// signed itself ([AIP-4111](https://google.aip.dev/auth/4111)), which most of the provider's own
/// clients send.
pub(super) fn caller(
    accounts: &Accounts,
    keys_revoked: bool,
    headers: &HeaderMap,
    now: OffsetDateTime,
    service: &str,
    method: &str,
) -> Result<String, Refusal> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| credentials_missing(service, method))?;
    let invalid = |reason| credentials_invalid(reason, service, method);

    if let Some(token) = accounts.token(token) {
        if token.expires <= now.unix_timestamp() {
            return Err(invalid("ACCESS_TOKEN_EXPIRED"));
        }
        if !token.scopes.iter().any(|scope| scope == CLOUD_PLATFORM) {
            return Err(scope_insufficient(service, method));
        }
        return Ok(token.principal);
    }

    let jwt = Jwt::parse(token).ok_or_else(|| invalid("ACCESS_TOKEN_TYPE_UNSUPPORTED"))?;
    let own = jwt.text("iss") == Some(accounts.email())
        && jwt.text("sub") == Some(accounts.email())
        && jwt.key_id().is_some()
        && accounts.has_signed(&jwt);
    let (Some(issued), Some(expires)) = (jwt.number("iat"), jwt.number("exp")) else {
        return Err(invalid("ACCESS_TOKEN_TYPE_UNSUPPORTED"));
    };
    let now = now.unix_timestamp();
    if !own || keys_revoked || expires - issued > LONGEST || issued > now + SKEW {
        return Err(invalid("ACCESS_TOKEN_TYPE_UNSUPPORTED"));
    }
    if expires <= now {
        return Err(invalid("ACCESS_TOKEN_EXPIRED"));
    }
    // Either an audience or scopes, not both.
    match (jwt.text("aud"), jwt.scopes().as_slice()) {
        (Some(audience), []) if audience == format!("https://{service}/") => {
            Ok(accounts.email().to_owned())
        }
        (None, scopes) if !scopes.is_empty() => {
            if scopes.iter().any(|scope| scope == CLOUD_PLATFORM) {
                Ok(accounts.email().to_owned())
            } else {
                Err(scope_insufficient(service, method))
            }
        }
        _ => Err(invalid("ACCESS_TOKEN_TYPE_UNSUPPORTED")),
    }
}
