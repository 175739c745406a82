//! Exchanges a workload's token, `sts.googleapis.com/v1/token`.
//!
//! See [the method](https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token) and
//! [the errors](https://cloud.google.com/iam/docs/troubleshoot-workload-identity-federation).

use std::{collections::BTreeMap, time::Duration};

use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    accounts::Accounts,
    oauth::{form, refuse},
    refusal::{Answer, Refusal},
    switches::Switches,
};
use crate::jwt::Jwt;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const SUBJECT_TYPES: [&str; 2] = [
    "urn:ietf:params:oauth:token-type:id_token",
    "urn:ietf:params:oauth:token-type:jwt",
];

pub(super) fn exchange(
    accounts: &Accounts,
    switches: &Switches,
    headers: &HeaderMap,
    body: &[u8],
    now: OffsetDateTime,
) -> Result<Answer, Refusal> {
    let bad = |error, description: &str| refuse(StatusCode::BAD_REQUEST, error, description);
    let fields = form(headers, body)
        .or_else(|| object(body))
        .ok_or_else(|| bad("invalid_request", "The request body cannot be parsed."))?;
    // Names have underscores in forms and camel case in JSON; both are accepted in both.
    let field = |snake: &str, camel: &str| {
        let value = fields.get(snake).or_else(|| fields.get(camel));
        value.map(String::as_str).unwrap_or_default()
    };
    if field("grant_type", "grantType") != TOKEN_EXCHANGE {
        return Err(bad("unsupported_grant_type", "Invalid grant type."));
    }
    if field("requested_token_type", "requestedTokenType") != ACCESS_TOKEN {
        return Err(bad("invalid_request", "Invalid requested token type."));
    }
    let audience = field("audience", "audience");
    if !is_provider(audience) {
        return Err(bad(
            "invalid_request",
            "Invalid value for \"audience\". This value should be the full resource name of the Identity Provider. See \
             https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token for the list of possible formats.",
        ));
    }
    if audience != accounts.provider() {
        return Err(bad(
            "invalid_target",
            "The target service indicated by the \"audience\" parameters is invalid. This might either be because the \
             pool or provider is disabled or deleted or because it doesn't exist.",
        ));
    }
    if !SUBJECT_TYPES.contains(&field("subject_token_type", "subjectTokenType")) {
        return Err(bad("invalid_request", "Invalid subject token type."));
    }
    let subject = subject(accounts, field("subject_token", "subjectToken"), now)?;
    let scopes: Vec<_> = field("scope", "scope")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    if scopes.is_empty() {
        return Err(bad("invalid_scope", "Some requested scopes were invalid."));
    }
    let pool = accounts.provider();
    let pool = pool.split("/providers/").next().unwrap_or_default();
    let principal = format!("principal:{pool}/subject/{subject}");
    // An hour at most.
    let lifetime = switches.token_lifetime.min(Duration::from_secs(3600));
    let token = accounts.issue(&principal, scopes, now, lifetime);
    Ok(Answer::json(
        StatusCode::OK,
        &json!({
            "access_token": token,
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": lifetime.as_secs().saturating_sub(1),
        }),
    ))
}

/// The subject of a token that the workload's provider issued for this purpose.
fn subject(accounts: &Accounts, text: &str, now: OffsetDateTime) -> Result<String, Refusal> {
    let bad = |description: &str| refuse(StatusCode::BAD_REQUEST, "invalid_grant", description);
    let jwt = Jwt::parse(text).ok_or_else(|| bad("Unable to parse the ID Token."))?;
    if !accounts.workload_has_signed(&jwt) {
        return Err(bad(
            "The issuer in ID Token does not match the expected one, or its signature cannot be verified.",
        ));
    }
    let provider = accounts.provider();
    let audience = jwt.text("aud").unwrap_or_default();
    if audience.strip_prefix("https:").unwrap_or(audience) != provider {
        return Err(bad(&format!(
            "The audience in ID Token [{audience}] does not match the expected audience {provider}."
        )));
    }
    let now = now.unix_timestamp();
    match (jwt.number("iat"), jwt.number("exp")) {
        (Some(issued), Some(expires)) if issued <= now + 60 && expires > now => {}
        _ => {
            return Err(bad("ID Token is stale to sign-in: check its iat and exp."));
        }
    }
    jwt.text("sub").map(str::to_owned).ok_or_else(|| {
        bad("Could not obtain a value for google.subject from the given credential.")
    })
}

/// Whether it is the full name of a provider, which contains the project's number.
fn is_provider(audience: &str) -> bool {
    let parts: Vec<_> = audience.split('/').collect();
    matches!(
        parts.as_slice(),
        ["", "", "iam.googleapis.com", "projects", number, "locations", "global",
         "workloadIdentityPools", pool, "providers", provider]
            if !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && !pool.is_empty()
                && !provider.is_empty()
    )
}

fn object(body: &[u8]) -> Option<BTreeMap<String, String>> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let fields = value.as_object()?;
    let texts = fields.iter().map(|(key, value)| {
        let text = value.as_str().unwrap_or_default();
        (key.clone(), text.to_owned())
    });
    Some(texts.collect())
}
