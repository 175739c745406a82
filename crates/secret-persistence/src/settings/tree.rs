//! YAML and JSON trees that are wiped, and their scalars as text.

mod node;
mod unique;

use secret_persistence_core::connector::SecretJson;
use secret_persistence_core::{Error, Result, SecretValue};
use serde_json::{Map, Value};
use serde_saphyr::NonFiniteFloatPolicy;

use self::node::Node;
use super::{invalid, placeholders};

/// Parses the documents of a YAML text. Errors contain the position but nothing of the text.
///
/// # Errors
/// `InvalidConfig` for invalid YAML, and for YAML that is too large or too deep for settings.
pub(super) fn yaml(what: &str, text: &str) -> Result<Vec<SecretJson>> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    let documents: Vec<Node> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| wrong_yaml(what, text, &error))?;
    Ok(documents
        .into_iter()
        .map(|document| SecretJson::new(document.into_value("", text)))
        .collect())
}

/// The error for an invalid YAML text, with the position. Omits the cause, which may quote the
/// text.
fn wrong_yaml(what: &str, text: &str, error: &serde_saphyr::Error) -> Error {
    if let Some(line) = json_in_a_comment(text) {
        return invalid(format!("{what} is not valid YAML")).with_hint(format!(
            "line {line} has the beginning of JSON in a comment: write `|` after the colon, and the JSON \
             below it"
        ));
    }
    let wrong = match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().filter(|key| looks_like_a_name(key));
            let key = key.map_or_else(|| String::from("a key"), |key| format!("the key `{key}`"));
            invalid(format!("{key} occurs twice in one block of {what}"))
        }
        _ => invalid(format!("{what} is not valid YAML")),
    };
    match error.location() {
        Some(place) => wrong.with_hint(format!(
            "see line {}, column {}",
            place.line(),
            place.column()
        )),
        None => wrong,
    }
}

/// A line whose value is a comment that begins with JSON, as some documentation prints it
/// (`gcp.json: ## {`).
fn json_in_a_comment(text: &str) -> Option<usize> {
    let torn = |line: &str| {
        let comment = line
            .split_once(": #")
            .map(|(_, comment)| comment.trim_end());
        comment.is_some_and(|comment| comment.trim_start_matches(['#', ' ']) == "{")
    };
    text.lines().position(torn).map(|at| at + 1)
}

/// Refuses a document that SOPS has encrypted, as a whole or in part.
///
/// # Errors
/// `InvalidConfig`, with how to decrypt it.
pub(super) fn refuse_encrypted(what: &str, document: &Value) -> Result<()> {
    match document.pointer("/sops/mac") {
        Some(_) => Err(invalid(format!("{what} is encrypted with SOPS"))
            .with_hint("pass the output of `sops -d`")),
        None => Ok(()),
    }
}

/// Whether a text may be shown as a name. It may be a pasted secret.
pub(super) fn looks_like_a_name(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic() || b"-_.".contains(&byte))
}

/// Parses a JSON text. Errors contain the position but nothing of the text.
///
/// # Errors
/// `InvalidConfig` for invalid JSON and for an object with a duplicate name.
pub(crate) fn json(what: &str, text: &str) -> Result<SecretJson> {
    let wrong = |message: String, error: &serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        invalid(message).with_hint(format!("see line {line}, column {column}"))
    };
    let value: Value = serde_json::from_str(text)
        .map_err(|error| wrong(format!("{what} is not valid JSON"), &error))?;
    let value = SecretJson::new(value);
    unique::check(text).map_err(|(name, error)| {
        let name = name.filter(|name| looks_like_a_name(name));
        let name = name.map_or_else(
            || String::from("a name"),
            |name| format!("the name `{name}`"),
        );
        wrong(
            format!("{name} occurs twice in one object of {what}"),
            &error,
        )
    })?;
    Ok(value)
}

/// Whether a value counts as unset: `null` and `""`, which are frequent in documented files.
pub(super) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The entries of an object; empty if it is unset.
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

/// A scalar as text; `None` if it is unset.
///
/// # Errors
/// `InvalidConfig` for lists and blocks; for numbers and booleans in an unusual spelling (`0x10`,
/// `yes`), because the original text is lost; and for a placeholder.
pub(super) fn scalar(place: &str, value: &Value) -> Result<Option<SecretValue>> {
    let text = match value {
        _ if is_unset(value) => return Ok(None),
        // The line end of a block scalar is not part of the value.
        Value::String(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Value::Number(_) => {
            return Err(invalid(format!(
                "`{place}` means a number or a boolean in YAML, in an unusual spelling"
            ))
            .with_hint("put it in quotes"));
        }
        Value::Array(_) | Value::Object(_) | Value::Null => {
            return Err(invalid(format!("`{place}` is not a single value")));
        }
    };
    placeholders::refuse_whole(&format!("`{place}`"), &text)?;
    Ok(Some(SecretValue::new(text)))
}

/// `true` or `false`; `None` if it is unset.
///
/// # Errors
/// `InvalidConfig` for anything else.
pub(super) fn flag(place: &str, value: &Value) -> Result<Option<bool>> {
    match value {
        Value::Bool(flag) => Ok(Some(*flag)),
        value if is_unset(value) => Ok(None),
        _ => Err(invalid(format!("`{place}` must be true or false"))),
    }
}

/// A block as JSON text: a key file that was pasted as YAML.
///
/// # Errors
/// `InvalidConfig` for a number or boolean in an unusual spelling.
pub(super) fn pasted(place: &str, value: &Value) -> Result<Option<SecretValue>> {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                pasted(&format!("{place}.{key}"), value)?;
            }
        }
        Value::Array(items) => {
            for item in items {
                pasted(place, item)?;
            }
        }
        value => {
            scalar(place, value)?;
        }
    }
    Ok(Some(SecretValue::new(value.to_string())))
}

/// Tags as text, `key=value,key=value`: from such a text, from a list of `key` and `value`, or from
/// a block.
///
/// # Errors
/// `InvalidConfig` for other forms, and for a key or value that the text cannot represent.
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
                    // `- key:` and `value:` without a value, as in the documentation.
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

fn wrong_tags(place: &str) -> Error {
    invalid(format!("`{place}` is invalid"))
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
            assert!(error.message().contains("occurs twice"), "{error}");
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

    /// The scalar of a text, read as a credential.
    fn of_yaml(written: &str) -> Result<Option<String>> {
        let documents = yaml("the file", &format!("a: [é, {{x: {written}}}]\n"))?;
        let value = documents[0].pointer("/a/1/x").unwrap();
        scalar("x", value).map(|value| value.map(|value| value.expose().to_owned()))
    }

    #[test]
    fn a_scalar_is_what_is_written_or_refused() {
        for same in [
            "5432",
            "-7",
            "0",
            "18446744073709551615",
            "1.5",
            "-0.25",
            "true",
            "false",
            "a b",
            "1.2.3",
            "12:30:45",
            "2001-01-01",
            "hvs.x",
            ".inf",
            "0x1g",
            "yess",
            "1e",
        ] {
            let read = of_yaml(same).unwrap_or_else(|error| panic!("{same}: {error}"));
            assert_eq!(read.as_deref(), Some(same), "{same}");
        }
        for respelt in [
            "0x10",
            "1_000",
            "+42",
            "0o17",
            "-0",
            "0b11",
            "007",
            "1.10",
            "1e3",
            "1.",
            ".5",
            "yes",
            "No",
            "on",
            "OFF",
            "y",
            "N",
            "True",
            "FALSE",
            ".INF",
            ".NaN",
            "18446744073709551616",
            "!!int '7'",
        ] {
            let error = of_yaml(respelt).expect_err(respelt);
            assert!(
                error.hint().unwrap().contains("quotes"),
                "{respelt}: {error}"
            );
            // In quotes, it is a string like any other.
            for quote in ['"', '\''] {
                let quoted = format!("{quote}{respelt}{quote}");
                if !respelt.starts_with("!!") {
                    assert_eq!(
                        of_yaml(&quoted).unwrap().as_deref(),
                        Some(respelt),
                        "{quoted}"
                    );
                }
            }
        }
        for unset in ["", "null", "~", "''"] {
            assert_eq!(of_yaml(unset).unwrap(), None, "{unset}");
        }
    }

    #[test]
    fn aliases_merges_and_blocks_keep_their_spelling() {
        let text = "a: &a {x: 0x10, y: 12}\nb: *a\nc: {<<: *a, z: 1}\nd: |\n  007\ne: >-\n  yes\n";
        let documents = yaml("the file", text).unwrap();
        let at = |path: &str| scalar(path, documents[0].pointer(path).unwrap());
        for path in ["/a/x", "/b/x", "/c/x"] {
            assert!(at(path).is_err(), "{path}");
        }
        for (path, expected) in [
            ("/b/y", "12"),
            ("/c/y", "12"),
            ("/c/z", "1"),
            ("/d", "007"),
            ("/e", "yes"),
        ] {
            assert_eq!(at(path).unwrap().unwrap().expose(), expected, "{path}");
        }
    }

    /// JSON has one spelling for integers and strings, and does not keep the spelling of fractions.
    #[test]
    fn numbers_of_json_are_integers() {
        assert_eq!(scalar("x", &json!(5432)).unwrap().unwrap().expose(), "5432");
        for number in ["1.50", "1e3", "-0", "123456789012345678901234567890"] {
            let value: Value = serde_json::from_str(number).unwrap();
            assert!(scalar("x", &value).is_err(), "{number}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_named_where_it_looks_like_one() {
        let error = yaml("the file", "global: {a: 1}\nb: 2\nglobal: {c: 3}").unwrap_err();
        assert!(
            error.to_string().contains("`global` occurs twice"),
            "{error}"
        );
        assert!(error.to_string().contains("line 3"), "{error}");
        let error = yaml("the file", "{a: 1, p4ssw0rd: 1, p4ssw0rd: 2}").unwrap_err();
        assert!(!error.to_string().contains("p4ssw0rd"), "{error}");
        let error = json("the text", "{\"token\": 1, \"token\": 2}").unwrap_err();
        assert!(
            error.to_string().contains("`token` occurs twice"),
            "{error}"
        );
    }
}
