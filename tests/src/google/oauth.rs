//! The token endpoint, `oauth2.googleapis.com/token`.
//!
//! See [the request of a service
//! account](https://developers.google.com/identity/protocols/oauth2/service-account#httprest),
//! [the request of a user's
//! client](https://developers.google.com/identity/protocols/oauth2/native-app#offline), and
//! [the error
//! codes](https://developers.google.com/identity/protocols/oauth2/service-account#error-codes).

use std::collections::BTreeMap;

use hyper::{HeaderMap, StatusCode, header};
use serde_json::json;
use time::OffsetDateTime;

use super::{
    accounts::{Accounts, CLOUD_PLATFORM},
    bearer::{LONGEST, SKEW},
    refusal::{Answer, Refusal},
    switches::Switches,
};
use crate::jwt::Jwt;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The fields of a form; `None` if the body is something else.
pub(super) fn form(headers: &HeaderMap, body: &[u8]) -> Option<BTreeMap<String, String>> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = kind.split(';').next()?.trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        .then(|| {
            url::form_urlencoded::parse(body)
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect()
        })
}

/// The fields of a form, or of a JSON object, which this endpoint also accepts: the provider's
/// client for Rust [sends a user's refresh token in
/// one](https://docs.rs/google-cloud-auth/latest/google_cloud_auth/credentials/user_account/).
fn fields(headers: &HeaderMap, body: &[u8]) -> Option<BTreeMap<String, String>> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    if kind
        .split(';')
        .next()?
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        let fields: BTreeMap<String, Option<String>> = serde_json::from_slice(body).ok()?;
        return Some(
            fields
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)))
                .collect(),
        );
    }
    form(headers, body)
}

/// A refusal in the form of [RFC 6749](https://www.rfc-editor.org/rfc/rfc6749#section-5.2).
pub(super) fn refuse(status: StatusCode, error: &str, description: &str) -> Refusal {
    Box::new(Answer::json(
        status,
        &json!({"error": error, "error_description": description}),
    ))
}

pub(super) fn exchange(
    accounts: &Accounts,
    switches: &Switches,
    headers: &HeaderMap,
    body: &[u8],
    now: OffsetDateTime,
) -> Result<Answer, Refusal> {
    let bad = |error, description| refuse(StatusCode::BAD_REQUEST, error, description);
    let form = fields(headers, body)
        .ok_or_else(|| bad("invalid_request", "Could not parse the body as a form."))?;
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let (principal, scopes) = match field("grant_type") {
        "" => {
            return Err(bad(
                "invalid_request",
                "Required parameter is missing: grant_type",
            ));
        }
        JWT_BEARER => {
            let scopes = assertion(accounts, switches, field("assertion"), now)?;
            (accounts.email().to_owned(), scopes)
        }
        "refresh_token" => {
            if field("client_id") != accounts.client_id() {
                return Err(refuse(
                    StatusCode::UNAUTHORIZED,
                    "invalid_client",
                    "The OAuth client was not found.",
                ));
            }
            if field("client_secret") != accounts.client_secret() {
                return Err(refuse(
                    StatusCode::UNAUTHORIZED,
                    "invalid_client",
                    "The provided client secret is invalid.",
                ));
            }
            if field("refresh_token") != accounts.refresh_token() {
                return Err(bad("invalid_grant", "Token has been expired or revoked."));
            }
            let user = "operator@example.com".to_owned();
            (user, vec![CLOUD_PLATFORM.to_owned()])
        }
        other => {
            let description = format!("Invalid grant_type: {other}");
            return Err(bad("unsupported_grant_type", &description));
        }
    };
    let token = accounts.issue(&principal, scopes, now, switches.token_lifetime);
    Ok(Answer::json(
        StatusCode::OK,
        &json!({
            "access_token": token,
            // One second less than the actual lifetime, like the service.
            "expires_in": switches.token_lifetime.as_secs().saturating_sub(1),
            "token_type": "Bearer",
        }),
    ))
}

/// The scopes of a signed assertion, if it is valid.
fn assertion(
    accounts: &Accounts,
    switches: &Switches,
    text: &str,
    now: OffsetDateTime,
) -> Result<Vec<String>, Refusal> {
    let bad = |error, description| refuse(StatusCode::BAD_REQUEST, error, description);
    if text.is_empty() {
        return Err(bad(
            "invalid_request",
            "Required parameter is missing: assertion",
        ));
    }
    let jwt = Jwt::parse(text).ok_or_else(|| {
        bad(
            "invalid_grant",
            "Bad Request: the assertion is not a valid JWT.",
        )
    })?;
    if jwt.text("iss") != Some(accounts.email()) {
        return Err(bad("invalid_grant", "Invalid grant: account not found"));
    }
    if switches.revoked_keys || !accounts.has_signed(&jwt) {
        return Err(bad("invalid_grant", "Invalid JWT Signature."));
    }
    let token_url = accounts.token_url();
    if jwt.text("aud") != Some(&token_url) {
        return Err(bad(
            "invalid_grant",
            "Invalid JWT: Failed audience check. The right audience is the address of this endpoint.",
        ));
    }
    let now = now.unix_timestamp();
    let in_time = matches!(
        (jwt.number("iat"), jwt.number("exp")),
        (Some(issued), Some(expires))
            if issued <= now + SKEW && expires > now && expires > issued && expires - issued <= LONGEST
    );
    if !in_time {
        return Err(bad(
            "invalid_grant",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat \
             and exp values in the JWT claim.",
        ));
    }
    // Acting for a user of a Workspace domain requires a delegation, which does not exist.
    if jwt.text("sub").is_some_and(|sub| sub != accounts.email()) {
        return Err(refuse(
            StatusCode::UNAUTHORIZED,
            "unauthorized_client",
            "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of \
             the scopes requested.",
        ));
    }
    let scopes = jwt.scopes();
    if scopes.is_empty() {
        return Err(bad(
            "invalid_scope",
            "Invalid OAuth scope or ID token audience provided.",
        ));
    }
    Ok(scopes)
}
