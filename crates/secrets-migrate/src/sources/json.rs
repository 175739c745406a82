//! JSON that may contain secrets: parsed up to the depth of a configuration, and never quoted in an
//! error.
use secret_persistence_core::connector::{MAX_DEPTH, json_depth};
use serde::Deserialize;
use serde_json::Value;

use crate::{MigrateError, MigrateResult};

/// Levels around a configuration: the object of its line.
const AROUND: usize = 1;

/// Parses JSON; `what` names it in errors.
///
/// # Errors
/// For text that is truncated, not JSON, or nested deeper than a configuration may be.
pub(super) fn parse(what: &str, text: &str) -> MigrateResult<Value> {
    // The parser recurses, so check the depth first.
    if json_depth(text) > MAX_DEPTH + AROUND {
        return Err(MigrateError::configurations(format!(
            "{what} is nested deeper than {MAX_DEPTH} levels"
        )));
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit();
    Value::deserialize(&mut parser)
        .and_then(|value| parser.end().map(|()| value))
        .map_err(|cause| {
            MigrateError::configurations(if cause.is_eof() {
                format!("{what} ends in the middle: it is truncated")
            } else {
                format!(
                    "{what} is not valid JSON at line {}, column {}",
                    cause.line(),
                    cause.column()
                )
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_bounded_where_configurations_are() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse("it", &nested(MAX_DEPTH + AROUND)).is_ok());
        let error = parse("it", &nested(1_000_000)).unwrap_err();
        assert!(error.to_string().contains("nested deeper"), "{error}");
        assert!(parse("it", &format!("{{\"{}\\\"\": 1}}", "[".repeat(9_999))).is_ok());
    }
}
