//! The metadata server of a machine with the service account.
//!
//! See [its requests](https://cloud.google.com/compute/docs/metadata/querying-metadata) and
//! [its tokens](https://cloud.google.com/compute/docs/access/authenticate-workloads#applications).

use hyper::{HeaderMap, StatusCode, Uri, header::HeaderName};
use serde_json::json;
use time::OffsetDateTime;

use super::{
    accounts::{Accounts, CLOUD_PLATFORM},
    refusal::Answer,
    switches::Switches,
};

const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

pub(super) fn answer(
    accounts: &Accounts,
    switches: &Switches,
    uri: &Uri,
    headers: &HeaderMap,
    now: OffsetDateTime,
) -> Answer {
    let google = headers
        .get(&FLAVOR)
        .is_some_and(|flavor| flavor == "Google");
    // A forwarded request, or one that a browser was made to send, must not get a token.
    if headers.contains_key("x-forwarded-for") || (!google && uri.path() != "/") {
        let text = "Missing Metadata-Flavor:Google header.";
        return flavored(Answer::html(StatusCode::FORBIDDEN, "Forbidden", text));
    }
    let account = "/computeMetadata/v1/instance/service-accounts/";
    let (account, what) = match uri.path().strip_prefix(account) {
        Some(rest) => match rest.split_once('/') {
            Some((name, what)) if name == "default" || name == accounts.email() => (true, what),
            _ => (false, ""),
        },
        None => (false, uri.path()),
    };
    flavored(match (account, what) {
        (true, "token") => token(accounts, switches, uri, now),
        (true, "email") => Answer::text(StatusCode::OK, accounts.email()),
        (true, "scopes") => Answer::text(StatusCode::OK, format!("{CLOUD_PLATFORM}\n")),
        (false, "/") => Answer::text(StatusCode::OK, "computeMetadata/\n"),
        (false, "/computeMetadata/v1/project/project-id") => {
            Answer::text(StatusCode::OK, accounts.project())
        }
        (false, "/computeMetadata/v1/project/numeric-project-id") => {
            Answer::text(StatusCode::OK, accounts.project_number().to_string())
        }
        (false, "/computeMetadata/v1/universe/universe-domain") => {
            Answer::text(StatusCode::OK, "googleapis.com")
        }
        _ => {
            let text = format!(
                "The requested URL <code>{}</code> was not found on this server.",
                uri.path().replace('<', "&lt;")
            );
            Answer::html(StatusCode::NOT_FOUND, "Not Found", &text)
        }
    })
}

fn token(accounts: &Accounts, switches: &Switches, uri: &Uri, now: OffsetDateTime) -> Answer {
    let query = uri.query().unwrap_or_default();
    let scopes = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "scopes")
        .map_or_else(
            || vec![CLOUD_PLATFORM.to_owned()],
            |(_, scopes)| scopes.split(',').map(str::to_owned).collect(),
        );
    let token = accounts.issue(accounts.email(), scopes, now, switches.token_lifetime);
    Answer::json(
        StatusCode::OK,
        &json!({
            "access_token": token,
            "expires_in": switches.token_lifetime.as_secs().saturating_sub(1),
            "token_type": "Bearer",
        }),
    )
}

/// Clients recognise the metadata server by this header.
fn flavored(answer: Answer) -> Answer {
    answer.with_header(FLAVOR, "Google")
}
