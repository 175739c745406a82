//! YAML and JSON as trees that are wiped, and their scalars as text.

mod unique;

use secret_persistence_core::connector::SecretJson;
use secret_persistence_core::{Result, SecretValue};
use serde_json::{Map, Value};

use super::invalid;

/// Parses the documents of a YAML text. An error says where, and shows nothing of the text.
///
/// # Errors
/// `InvalidConfig` for what is no YAML, or too large or deep to be settings.
pub(super) fn yaml(what: &str, text: &str) -> Result<Vec<SecretJson>> {
    let options = serde_saphyr::options! { with_snippet: false };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let place = error
                .location()
                .map(|place| format!("look at line {}, column {}", place.line(), place.column()));
            // The cause may quote what stands there.
            let error = invalid(format!("{what} is not valid YAML"));
            match place {
                Some(place) => error.with_hint(place),
                None => error,
            }
        })?;
    Ok(documents.into_iter().map(SecretJson::new).collect())
}

/// Parses a JSON text. An error says where, and shows nothing of the text.
///
/// # Errors
/// `InvalidConfig` for what is no JSON, and where one object has a name twice.
pub(crate) fn json(what: &str, text: &str) -> Result<SecretJson> {
    let wrong = |message: String, error: &serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        invalid(message).with_hint(format!("look at line {line}, column {column}"))
    };
    let value: Value = serde_json::from_str(text)
        .map_err(|error| wrong(format!("{what} is not valid JSON"), &error))?;
    let value = SecretJson::new(value);
    unique::check(text).map_err(|error| wrong(format!("a name stands twice in {what}"), &error))?;
    Ok(value)
}

/// Whether a value counts as unset: `null` and `""`, of which documented files are full.
pub(super) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The entries of an object; none where it is unset.
///
/// # Errors
/// `InvalidConfig` for anything else.
pub(super) fn entries<'a>(
    place: &str,
    value: Option<&'a Value>,
) -> Result<Option<&'a Map<String, Value>>> {
    match value {
        None => Ok(None),
        Some(value) if is_unset(value) => Ok(None),
        Some(Value::Object(entries)) => Ok(Some(entries)),
        Some(_) => Err(invalid(format!("`{place}` is not a block of settings"))),
    }
}

/// A scalar as text; `None` where it is unset.
///
/// # Errors
/// `InvalidConfig` for lists and blocks, and for numbers whose spelling is lost.
pub(super) fn scalar(place: &str, value: &Value) -> Result<Option<SecretValue>> {
    let text = match value {
        _ if is_unset(value) => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Value::Number(_) => {
            return Err(invalid(format!(
                "`{place}` is read as a number, and its spelling is lost"
            ))
            .with_hint("put it in quotes"));
        }
        Value::Array(_) | Value::Object(_) | Value::Null => {
            return Err(invalid(format!("`{place}` is not a single value")));
        }
    };
    Ok(Some(SecretValue::new(text)))
}

/// Tags as one text, `key=value,key=value`: from that text, from a list of `key` and `value`, or from
/// a block.
///
/// # Errors
/// `InvalidConfig` for other forms, and for a key or value that the text could not hold.
pub(super) fn tags(place: &str, value: &Value) -> Result<Option<SecretValue>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let text = |value: Option<&Value>| match value {
        None => Ok(None),
        Some(value) => scalar(place, value),
    };
    match value {
        Value::Array(items) => {
            for item in items.iter().filter(|item| !is_unset(item)) {
                let Value::Object(entry) = item else {
                    return Err(wrong_tags(place));
                };
                if entry.keys().any(|key| key != "key" && key != "value") {
                    return Err(wrong_tags(place));
                }
                match (text(entry.get("key"))?, text(entry.get("value"))?) {
                    (Some(key), value) => {
                        let value = value.map(|value| value.expose().to_owned());
                        pairs.push((key.expose().to_owned(), value.unwrap_or_default()));
                    }
                    // `- key:` and `value:` left empty, as the documentation prints them.
                    (None, None) => {}
                    (None, Some(_)) => return Err(wrong_tags(place)),
                }
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                let value = scalar(place, value)?.map(|value| value.expose().to_owned());
                pairs.push((key.clone(), value.unwrap_or_default()));
            }
        }
        _ => return scalar(place, value),
    }
    if pairs.is_empty() {
        return Ok(None);
    }
    if pairs
        .iter()
        .any(|(key, value)| key.contains(['=', ',']) || value.contains(','))
    {
        return Err(invalid(format!(
            "`{place}` has a tag with a comma, or a key with `=`"
        )));
    }
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Ok(Some(SecretValue::new(pairs.join(","))))
}

fn wrong_tags(place: &str) -> secret_persistence_core::Error {
    invalid(format!("`{place}` cannot be understood"))
        .with_hint("write a list of tags, each with `key` and `value`")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tags_are_read_in_every_form() {
        let read = |value: Value| {
            tags("tags", &value).map(|text| text.map(|text| text.expose().to_owned()))
        };
        let both = Some(String::from("a=1,b=x=y"));
        assert_eq!(
            read(json!([{"key": "a", "value": 1}, {"key": "b", "value": "x=y"}])).unwrap(),
            both
        );
        assert_eq!(read(json!("a=1,b=x=y")).unwrap(), both);
        assert_eq!(read(json!({"a": "1", "b": "x=y"})).unwrap(), both);
        for empty in [
            json!(null),
            json!(""),
            json!([]),
            json!([{"key": null, "value": null}]),
        ] {
            assert_eq!(read(empty).unwrap(), None);
        }
        for wrong in [
            json!([{"name": "a"}]),
            json!(["a=1"]),
            json!([{"key": "a", "value": "1,2"}]),
            json!([{"value": 1}]),
        ] {
            assert!(read(wrong).is_err());
        }
    }

    #[test]
    fn errors_say_where_and_show_nothing() {
        for text in [
            "a: [canary",
            "a: 'canary",
            "a: {canary: 1",
            "a: *canary",
            "a: 1\na: canary",
        ] {
            let error = yaml("the file", text).expect_err(text);
            assert!(
                !format!("{error} {error:?}").contains("canary"),
                "{text}: {error:?}"
            );
        }
        let error = json("the text", "{\n\"canary\": canary}").unwrap_err();
        assert!(error.to_string().contains("line 2") && !format!("{error:?}").contains("canary"));
    }

    #[test]
    fn a_name_stands_once_in_an_object() {
        for text in [
            "{\"a\": 1,\n\"a\": \"canary\"}",
            "{\"x\": [{\"b\": null,\n\"\\u0062\": \"canary\"}]}",
        ] {
            let error = json("the text", text).unwrap_err();
            assert!(error.message().contains("stands twice"), "{error}");
            assert!(error.hint().unwrap().contains("line 2"), "{error}");
            assert!(!format!("{error:?}").contains("canary"));
        }
        let fine = "{\"a\": {\"a\": [1, -1, 1.5, true, null, \"a\"]}, \"b\": {\"a\": 1e400}}";
        assert!(
            json(
                "the text",
                &fine.replace("1e400", "12345678901234567890123")
            )
            .is_ok()
        );
    }

    #[test]
    fn a_number_that_lost_its_spelling_is_refused() {
        assert_eq!(scalar("x", &json!(5432)).unwrap().unwrap().expose(), "5432");
        assert!(
            scalar("x", &json!(1.5))
                .unwrap_err()
                .hint()
                .unwrap()
                .contains("quotes")
        );
    }
}
