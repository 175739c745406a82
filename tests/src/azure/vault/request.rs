//! Validates requests like the service.

use std::collections::BTreeMap;

use hyper::{HeaderMap, header};
use serde_json::Value;

use super::refusal::Refusal;
use crate::azure::route::Query;

/// The known versions of the protocol. There is no default.
///
/// See <https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses#api-version> and
/// <https://github.com/Azure/azure-rest-api-specs/tree/main/specification/keyvault/data-plane>.
const API_VERSIONS: [&str; 9] = [
    "2016-10-01",
    "7.0",
    "7.1",
    "7.2",
    "7.3",
    "7.4",
    "7.5",
    "7.6",
    "2025-07-01",
];

/// See <https://learn.microsoft.com/rest/api/keyvault/secrets/set-secret/set-secret#uri-parameters>.
const NAME_LIMIT: usize = 127;
/// See <https://learn.microsoft.com/azure/key-vault/secrets/about-secrets>: "a maximum size of 25k bytes".
const VALUE_LIMIT: usize = 25 * 1024;
/// See <https://learn.microsoft.com/azure/key-vault/secrets/about-secrets>.
const CONTENT_TYPE_LIMIT: usize = 255;
/// See <https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#secret-tags>.
const TAG_LIMIT: usize = 15;
/// See <https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#secret-tags>: the name's
/// and the value's limit.
const TAG_LENGTH_LIMIT: usize = 512;
/// See <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secrets/get-secrets#uri-parameters>.
const PAGE_LIMIT: usize = 25;

type Result<T> = std::result::Result<T, Refusal>;

/// The attributes of a version, besides its value.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) content_type: Option<String>,
    pub(super) enabled: bool,
    pub(super) expires: Option<i64>,
    pub(super) not_before: Option<i64>,
    pub(super) tags: Option<BTreeMap<String, String>>,
}

/// The attributes that a request contains.
#[derive(Default)]
pub(super) struct Change {
    content_type: Option<String>,
    enabled: Option<bool>,
    expires: Option<i64>,
    not_before: Option<i64>,
    tags: Option<BTreeMap<String, String>>,
}

impl Change {
    pub(super) fn apply(self, content: &mut Content) {
        if self.content_type.is_some() {
            content.content_type = self.content_type;
        }
        if let Some(enabled) = self.enabled {
            content.enabled = enabled;
        }
        if self.expires.is_some() {
            content.expires = self.expires;
        }
        if self.not_before.is_some() {
            content.not_before = self.not_before;
        }
        // All tags or none: https://learn.microsoft.com/rest/api/keyvault/secrets/update-secret/update-secret
        if self.tags.is_some() {
            content.tags = self.tags;
        }
    }

    pub(super) fn into_content(self) -> Content {
        let mut content = Content {
            content_type: None,
            enabled: true,
            expires: None,
            not_before: None,
            tags: None,
        };
        self.apply(&mut content);
        content
    }
}

pub(super) fn check_api_version(query: &Query) -> Result<()> {
    match query.get("api-version") {
        None => Err(Refusal::bad_parameter("api-version must be specified")),
        Some(version) if API_VERSIONS.contains(&version) => Ok(()),
        Some(version) => Err(Refusal::bad_parameter(format!(
            "The specified version ({version}) is not recognized. Consider using the latest supported version (2025-07-01)."
        ))),
    }
}

/// A name matches `^[0-9a-zA-Z-]{1,127}$`. It may begin with a digit or a hyphen:
/// <https://github.com/MicrosoftDocs/azure-docs/issues/99541>.
pub(super) fn check_name(name: &str) -> Result<()> {
    let valid = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if valid && (1..=NAME_LIMIT).contains(&name.len()) {
        Ok(())
    } else {
        let message = format!("The request URI contains an invalid name: {name}");
        Err(Refusal::bad_parameter(message))
    }
}

/// A body must be JSON, with its content type.
///
/// See
/// <https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses#request-body>;
/// the status is HTTP's.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if json {
        Ok(())
    } else {
        Err(Refusal::media_type())
    }
}

/// The number of entries in a page.
pub(super) fn page_size(query: &Query) -> Result<usize> {
    match query.get("maxresults") {
        None => Ok(PAGE_LIMIT),
        Some(number) => number
            .parse()
            .ok()
            .filter(|number| (1..=PAGE_LIMIT).contains(number))
            .ok_or_else(|| {
                Refusal::bad_parameter("maxresults must be an integer between 1 and 25")
            }),
    }
}

/// The body of set: a value and its attributes.
pub(super) fn parse_set(body: &[u8]) -> Result<(String, Content)> {
    let body = parse(body)?;
    // An empty string is a value: https://github.com/microsoft/azure-container-apps/issues/1291
    let Some(value) = body["value"].as_str() else {
        return Err(invalid("value"));
    };
    if value.len() > VALUE_LIMIT {
        return Err(invalid("value"));
    }
    Ok((value.to_owned(), change(&body)?.into_content()))
}

/// The body of update, without a value.
pub(super) fn parse_update(body: &[u8]) -> Result<Change> {
    change(&parse(body)?)
}

fn parse(body: &[u8]) -> Result<Value> {
    match serde_json::from_slice(body) {
        Ok(body @ Value::Object(_)) => Ok(body),
        _ => Err(Refusal::bad_parameter(
            "Request body not specified or not a JSON object",
        )),
    }
}

fn change(body: &Value) -> Result<Change> {
    let content_type = optional(&body["contentType"], "contentType", |value| {
        value.as_str().map(str::to_owned)
    })?;
    if content_type
        .as_ref()
        .is_some_and(|text| text.chars().count() > CONTENT_TYPE_LIMIT)
    {
        return Err(invalid("contentType"));
    }
    let attributes = &body["attributes"];
    if !(attributes.is_object() || attributes.is_null()) {
        return Err(invalid("attributes"));
    }
    Ok(Change {
        content_type,
        enabled: optional(&attributes["enabled"], "enabled", Value::as_bool)?,
        expires: optional(&attributes["exp"], "exp", Value::as_i64)?,
        not_before: optional(&attributes["nbf"], "nbf", Value::as_i64)?,
        tags: optional(&body["tags"], "tags", tags)?,
    })
}

fn tags(value: &Value) -> Option<BTreeMap<String, String>> {
    let tags: BTreeMap<_, _> = value
        .as_object()?
        .iter()
        .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect::<Option<_>>()?;
    let fits = |text: &String| text.chars().count() <= TAG_LENGTH_LIMIT;
    let valid = tags.len() <= TAG_LIMIT
        && tags
            .iter()
            .all(|(name, value)| !name.is_empty() && fits(name) && fits(value));
    valid.then_some(tags)
}

/// A missing member and `null` are equal.
fn optional<T>(
    value: &Value,
    property: &str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>> {
    if value.is_null() {
        return Ok(None);
    }
    read(value).map(Some).ok_or_else(|| invalid(property))
}

/// The message of <https://github.com/Azure/azure-sdk-for-node/issues/2198>.
fn invalid(property: &str) -> Refusal {
    Refusal::bad_parameter(format!("Property {property} has invalid value\r\n"))
}
