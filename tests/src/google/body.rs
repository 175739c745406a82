//! The body of a request, as JSON.

use hyper::{HeaderMap, header};
use serde_json::{Value, json};

use super::refusal::{Refusal, Violation, bad_request, invalid_argument};

/// An empty body is an empty message.
pub(super) fn json(headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(match kind {
            // The fields of a form are treated as query parameters. Only their names are repeated.
            "application/x-www-form-urlencoded" => bad_request(&form(body)),
            _ => invalid_argument("The body of a request must be of the type application/json."),
        });
    }
    serde_json::from_slice(body).map_err(|error| {
        bad_request(&[Violation {
            field: String::new(),
            description: format!(
                "Invalid JSON payload received. Parsing ended at line {}, column {}.",
                error.line(),
                error.column()
            ),
        }])
    })
}

fn form(body: &[u8]) -> Vec<Violation> {
    url::form_urlencoded::parse(body)
        .map(|(key, _)| Violation {
            field: String::new(),
            description: format!(
                "Invalid JSON payload received. Unknown name \"{key}\": Cannot bind query parameter. Field '{key}' could \
                 not be found in request message."
            ),
        })
        .collect()
}
