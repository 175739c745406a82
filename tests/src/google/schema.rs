//! Validates bodies: [proto3's JSON](https://protobuf.dev/programming-guides/json/).
//!
//! A field's name is accepted in camel case and in its original form; a 64-bit number as a number
//! or a string; bytes in standard or URL base64, padded or not; null means that the field is
//! missing. Everything else is refused, with the path of the field.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::refusal::{Refusal, Violation, bad_request};

/// The type of a field.
pub(super) enum Kind {
    /// Base64.
    Bytes,
    /// Such as `3600s`.
    Duration,
    /// A 64-bit number.
    Integer,
    /// Strings or integers by name.
    Map(&'static Kind),
    Message(&'static [Field]),
    Repeated(&'static Kind),
    Text,
    /// Such as `2026-11-21T09:58:00Z`.
    Timestamp,
}

/// A field of a message.
pub(super) struct Field {
    /// In camel case.
    name: &'static str,
    kind: Kind,
    /// Only one of the fields of a group may be set.
    group: Option<&'static str>,
}

impl Field {
    pub(super) const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            group: None,
        }
    }

    pub(super) const fn of(group: &'static str, name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            group: Some(group),
        }
    }
}

/// A message: its set fields in camel case, with integers as numbers.
pub(super) fn parse(
    value: &Value,
    fields: &[Field],
    path: &str,
) -> Result<Map<String, Value>, Refusal> {
    let mut violations = Vec::new();
    let parsed = message(value, fields, path, &mut violations);
    if violations.is_empty() {
        Ok(parsed)
    } else {
        Err(bad_request(&violations))
    }
}

/// Bytes in either alphabet.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .ok()
}

pub(super) fn timestamp(text: &str) -> Option<OffsetDateTime> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(parsed.to_offset(UtcOffset::UTC))
}

pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.strip_suffix('s')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (negative, whole) = match whole.strip_prefix('-') {
        Some(whole) => (true, whole),
        None => (false, whole),
    };
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    // Ten thousand years, the maximum of the message.
    let seconds: i64 = whole
        .parse()
        .ok()
        .filter(|whole| *whole <= 315_576_000_000)?;
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    let duration = Duration::seconds(seconds) + Duration::nanoseconds(nanos);
    Some(if negative { -duration } else { duration })
}

fn message(
    value: &Value,
    fields: &[Field],
    path: &str,
    violations: &mut Vec<Violation>,
) -> Map<String, Value> {
    let mut parsed = Map::new();
    let Some(object) = value.as_object() else {
        violations.push(unknown("", path, "Root element must be a message."));
        return parsed;
    };
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for (name, value) in object {
        let known = fields
            .iter()
            .find(|field| field.name == name || snake(field.name) == *name);
        let Some(field) = known else {
            violations.push(unknown(name, path, "Cannot find field."));
            continue;
        };
        if value.is_null() {
            continue;
        }
        let place = join(path, &snake(field.name));
        if let Some(group) = field.group {
            if let Some((_, first)) = groups.iter().find(|(other, _)| *other == group) {
                violations.push(Violation {
                    field: path.to_owned(),
                    description: format!(
                        "Invalid value at '{path}' (oneof), oneof field '{group}' is already set. Cannot set '{}' \
                         beside '{first}'",
                        snake(field.name)
                    ),
                });
                continue;
            }
            groups.push((group, field.name));
        }
        if let Some(value) = single(value, &field.kind, &place, violations) {
            parsed.insert(field.name.to_owned(), value);
        }
    }
    parsed
}

fn single(
    value: &Value,
    kind: &Kind,
    path: &str,
    violations: &mut Vec<Violation>,
) -> Option<Value> {
    let mut wrong = |kind: &str| {
        // Never the value itself: it may be a secret, and tests print this.
        violations.push(Violation {
            field: path.to_owned(),
            description: format!("Invalid value at '{path}' {kind}"),
        });
        None
    };
    match kind {
        Kind::Bytes => match value.as_str() {
            Some(text) if bytes(text).is_some() => Some(value.clone()),
            _ => wrong("(TYPE_BYTES), Base64 decoding failed"),
        },
        Kind::Duration => match value.as_str() {
            Some(text) if duration(text).is_some() => Some(value.clone()),
            _ => wrong("(type.googleapis.com/google.protobuf.Duration)"),
        },
        Kind::Integer => {
            let number = match value {
                Value::String(text) => text.parse().ok(),
                other => other.as_i64(),
            };
            match number {
                Some(number) => Some(Value::from(number)),
                None => wrong("(TYPE_INT64)"),
            }
        }
        Kind::Map(kind) => match value.as_object() {
            Some(object) => {
                let mut parsed = Map::new();
                for (index, (key, value)) in object.iter().enumerate() {
                    let place = format!("{path}[{index}].value");
                    if let Some(value) = single(value, kind, &place, violations) {
                        parsed.insert(key.clone(), value);
                    }
                }
                Some(Value::Object(parsed))
            }
            None => wrong("(a map)"),
        },
        Kind::Message(fields) => Some(Value::Object(message(value, fields, path, violations))),
        Kind::Repeated(kind) => match value.as_array() {
            Some(items) => {
                let parsed = items.iter().enumerate().filter_map(|(index, value)| {
                    single(value, kind, &format!("{path}[{index}]"), violations)
                });
                Some(Value::Array(parsed.collect()))
            }
            None => wrong("(a list)"),
        },
        Kind::Text => match value {
            Value::String(_) => Some(value.clone()),
            _ => wrong("(TYPE_STRING)"),
        },
        Kind::Timestamp => match value.as_str() {
            Some(text) if timestamp(text).is_some() => Some(value.clone()),
            _ => wrong("(type.googleapis.com/google.protobuf.Timestamp)"),
        },
    }
}

fn unknown(name: &str, path: &str, reason: &str) -> Violation {
    let place = if path.is_empty() {
        String::new()
    } else {
        format!(" at '{path}'")
    };
    Violation {
        field: path.to_owned(),
        description: format!(
            "Invalid JSON payload received. Unknown name \"{name}\"{place}: {reason}"
        ),
    }
}

/// The original form of a name.
pub(super) fn snake(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::Duration;

    use super::{Field, Kind, duration, parse};

    const INNER: &[Field] = &[
        Field::of("expiration", "expireTime", Kind::Timestamp),
        Field::of("expiration", "ttl", Kind::Duration),
        Field::new("data", Kind::Bytes),
        Field::new("dataCrc32c", Kind::Integer),
        Field::new("labels", Kind::Map(&Kind::Text)),
    ];
    const OUTER: &[Field] = &[Field::new("secret", Kind::Message(INNER))];

    #[test]
    fn what_is_understood() {
        for (given, parsed) in [
            (json!({}), json!({})),
            (json!({"secret": null}), json!({})),
            (
                json!({"secret": {"ttl": "60s"}}),
                json!({"secret": {"ttl": "60s"}}),
            ),
            (
                json!({"secret": {"data_crc32c": "163439259", "data": "YQo"}}),
                json!({"secret": {"dataCrc32c": 163_439_259, "data": "YQo"}}),
            ),
        ] {
            let understood = parse(&given, OUTER, "").map_err(|refusal| refusal.body);
            assert_eq!(
                understood.map(serde_json::Value::Object),
                Ok(parsed),
                "{given}"
            );
        }
    }

    #[test]
    fn what_is_refused() {
        for (given, message) in [
            (json!([]), "Root element must be a message"),
            (
                json!({"secrets": {}}),
                "Unknown name \\\"secrets\\\": Cannot find",
            ),
            (
                json!({"secret": {"TTL": "1s"}}),
                "Unknown name \\\"TTL\\\" at 'secret'",
            ),
            (
                json!({"secret": {"ttl": 60}}),
                "'secret.ttl' (type.googleapis.com",
            ),
            (
                json!({"secret": {"ttl": "1 hour"}}),
                "'secret.ttl' (type.googleapis.com",
            ),
            (
                json!({"secret": {"labels": {"a": 5}}}),
                "'secret.labels[0].value' (TYPE_STRING",
            ),
            (json!({"secret": {"data": "§"}}), "Base64 decoding failed"),
            (
                json!({"secret": {"dataCrc32c": 1.5}}),
                "'secret.data_crc32c' (TYPE_INT64",
            ),
            (
                json!({"secret": {"ttl": "60s", "expireTime": "2040-01-01T00:00:00Z"}}),
                "oneof field 'expiration' is already set",
            ),
        ] {
            let refusal = parse(&given, OUTER, "").unwrap_err();
            assert_eq!(refusal.status.as_u16(), 400, "{given}");
            assert!(refusal.body.contains(message), "{given}: {}", refusal.body);
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1.5s"), Some(Duration::milliseconds(1500)));
        assert_eq!(duration("-2s"), Some(Duration::seconds(-2)));
        for wrong in ["", "s", "1", "1m", "1.s", "1e3s", "+1s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
