//! Tokens for another service account, `iamcredentials.googleapis.com`.
//!
//! See [the method](https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken).

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    accounts::Accounts,
    refusal::{Answer, Refusal, impersonation_denied, invalid_argument, not_found},
    schema::{self, Field, Kind},
    switches::Switches,
};

pub(super) const SERVICE: &str = "iamcredentials.googleapis.com";

/// The permission that the caller needs for the other account.
pub(super) const PERMISSION: &str = "iam.serviceAccounts.getAccessToken";

const REQUEST: &[Field] = &[
    Field::new("delegates", Kind::Repeated(&Kind::Text)),
    Field::new("scope", Kind::Repeated(&Kind::Text)),
    Field::new("lifetime", Kind::Duration),
];

pub(super) fn generate(
    accounts: &Accounts,
    switches: &Switches,
    email: &str,
    body: &Value,
    now: OffsetDateTime,
) -> Result<Answer, Refusal> {
    let request = schema::parse(body, REQUEST, "")?;
    if !switches.allows(PERMISSION, email) {
        return Err(impersonation_denied());
    }
    if email != accounts.impersonated_email() {
        return Err(not_found(&format!(
            "Not found; Gaia id not found for email {email}"
        )));
    }
    let scopes: Vec<String> = request
        .get("scope")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|scope| scope.as_str().map(str::to_owned))
        .collect();
    if scopes.is_empty() {
        return Err(invalid_argument("Request contains an invalid argument."));
    }
    // A chain of delegation would require accounts that trust each other.
    let delegated = request
        .get("delegates")
        .and_then(Value::as_array)
        .is_some_and(|delegates| !delegates.is_empty());
    if delegated {
        return Err(impersonation_denied());
    }
    let lifetime = match request.get("lifetime").and_then(Value::as_str) {
        None => Duration::from_secs(3600),
        Some(text) => schema::duration(text)
            .and_then(|duration| duration.try_into().ok())
            .filter(|lifetime: &Duration| {
                !lifetime.is_zero() && *lifetime <= Duration::from_secs(3600)
            })
            .ok_or_else(|| invalid_argument("The lifetime must be between 1 and 3600 seconds."))?,
    };
    let lifetime = lifetime.min(switches.token_lifetime);
    let token = accounts.issue(email, scopes, now, lifetime);
    let expires = (now + lifetime).format(&Rfc3339).unwrap_or_default();
    Ok(Answer::json(
        StatusCode::OK,
        &json!({"accessToken": token, "expireTime": expires}),
    ))
}
