//! JSON values with secrets: wiped when they drop, never shown, and dropped without recursion.

use std::fmt::{self, Write};
use std::mem;
use std::ops::{Deref, DerefMut};

use serde::Deserialize;
use serde_json::Value;

use super::limits::MAX_DEPTH;
use crate::secret::wipe_text;

/// A JSON value that contains secrets.
///
/// Its strings and keys are wiped when it drops, and its `Debug` is redacted. Dropping it never
/// recurses, however deeply it is nested. Numbers and booleans are not wiped.
///
/// ```
/// use secret_persistence_core::connector::SecretJson;
/// use serde_json::json;
///
/// let full = SecretJson::new(json!({"password": "hunter2"}));
/// assert_eq!(full["password"], "hunter2");
/// assert_eq!(format!("{full:?}"), "SecretJson(redacted)");
/// ```
pub struct SecretJson(Value);

impl SecretJson {
    /// Takes ownership of a value.
    #[must_use]
    pub fn new(value: Value) -> Self {
        Self(value)
    }

    /// Returns the value, which the caller must then wipe.
    #[must_use]
    pub fn into_inner(mut self) -> Value {
        mem::take(&mut self.0)
    }
}

impl Deref for SecretJson {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl DerefMut for SecretJson {
    fn deref_mut(&mut self) -> &mut Value {
        &mut self.0
    }
}

impl Drop for SecretJson {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for SecretJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretJson(redacted)")
    }
}

/// Replaces the value by `null` and wipes every string and key. Iterative: a deep value would
/// overflow the stack when it drops.
pub(crate) fn wipe(value: &mut Value) {
    let mut next = match mem::take(value) {
        Value::String(text) => return wipe_text(text),
        container @ (Value::Array(_) | Value::Object(_)) => Some(container),
        _ => return,
    };
    let mut open = Vec::new();
    // Texts are wiped where they are found.
    let take = |open: &mut Vec<Value>, value| match value {
        Value::String(text) => wipe_text(text),
        container @ (Value::Array(_) | Value::Object(_)) => open.push(container),
        _ => {}
    };
    while let Some(value) = next {
        match value {
            Value::Array(items) => items.into_iter().for_each(|item| take(&mut open, item)),
            Value::Object(members) => {
                for (name, member) in members {
                    wipe_text(name);
                    take(&mut open, member);
                }
            }
            // Only objects and arrays wait.
            _ => {}
        }
        next = open.pop();
    }
}

/// The JSON text of a value, in one allocation: a growing buffer would leave copies behind.
pub(crate) fn json_text(value: &Value) -> String {
    let mut length = Length(0);
    // Formatting a `Value` fails only if the writer fails, and these two cannot.
    let counted = write!(length, "{value}");
    let mut text = String::with_capacity(length.0);
    let written = write!(text, "{value}");
    debug_assert!(counted.is_ok() && written.is_ok() && text.len() == length.0);
    text
}

/// Whether `serde_json` treats an object with this key specially: as a number or as raw text, with
/// features that any crate in the caller's dependency tree may enable.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with("$serde_json::private::")
}

/// Parses the JSON text of a secret, up to the depth of a configuration.
pub(crate) fn parse_json(text: &str) -> Option<Value> {
    parse_json_to(text, MAX_DEPTH)
}

/// Parses a JSON text of at most so many levels.
pub(super) fn parse_json_to(text: &str, deepest: usize) -> Option<Value> {
    // The parser recurses, so check the depth first.
    if json_depth(text) > deepest {
        return None;
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit();
    let value = Value::deserialize(&mut parser).ok()?;
    match parser.end() {
        Ok(()) => Some(value),
        Err(_) => {
            wipe(&mut { value });
            None
        }
    }
}

/// The maximum number of open brackets in a JSON text, to compare with [`MAX_DEPTH`] before a
/// recursive parser starts.
#[must_use]
pub fn json_depth(text: &str) -> usize {
    let (mut open, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                open += 1;
                deepest = deepest.max(open);
            }
            b']' | b'}' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_of_a_million_levels_is_taken_apart_on_a_small_stack() {
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(|| {
                let mut value = json!("core");
                for level in 0..1_000_000 {
                    value = if level % 2 == 0 {
                        Value::Array(vec![value])
                    } else {
                        Value::Object([("a".to_owned(), value)].into_iter().collect())
                    };
                }
                drop(SecretJson::new(value));
            })
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn json_text_is_one_allocation_of_the_right_size() {
        let value = json!({"a": [1, 2.5, true, null, "\u{1}\"ü"], "": {}});
        let text = json_text(&value);
        assert_eq!(text, serde_json::to_string(&value).unwrap());
        assert_eq!(text.capacity(), text.len());
    }
}
