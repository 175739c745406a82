//! From pointers back to values.

use serde_json::{Value, json};

use super::hydrate_with;
use crate::SecretValue;
use crate::connector::{ConnectorError, Pointer, ProblemKind, SecretJson};

const MANAGED: &str = "airbyte_workspace_1_secret_2_v1";

/// Hydrates from a store that has `name` → the text after the colon of `name`.
fn hydrate(config: Value) -> Result<SecretJson, ConnectorError> {
    hydrate_with(config, |pointer: &Pointer| {
        let name = pointer.coordinate.as_ref()?.as_str();
        let text = match name {
            MANAGED => "hunter2",
            other => other.split_once(':')?.1,
        };
        Some(SecretValue::new(text.to_owned()))
    })
}

fn json_pointer(text: &str) -> Value {
    json!({"_secret": format!("x:{text}"), "_secret_encoding": "json"})
}

#[test]
fn every_pointer_anywhere_is_resolved() {
    let pointer = json!({"_secret": MANAGED});
    for (config, full) in [
        (pointer.clone(), json!("hunter2")),
        (
            json!({"a": [[pointer], {"b.c": pointer}]}),
            json!({"a": [["hunter2"], {"b.c": "hunter2"}]}),
        ),
        (json!({"a": json_pointer("5")}), json!({"a": 5})),
        (
            json!({"a": json_pointer(r#"{"k": [1.5, null, "x"]}"#)}),
            json!({"a": {"k": [1.5, null, "x"]}}),
        ),
        (
            json!({"a": "secret_coordinate::x:1"}),
            json!({"a": "secret_coordinate::x:1"}),
        ),
        (json!(null), json!({})),
        (json!([null]), json!([null])),
        // An empty value that others have stored.
        (json!({"a": {"_secret": "x:"}}), json!({"a": ""})),
    ] {
        assert_eq!(*hydrate(config.clone()).unwrap(), full, "{config}");
    }
}

#[test]
fn numbers_come_back_exactly() {
    for number in [
        0.1_f64 + 0.2,
        1.797_693_134_862_315_7e308,
        5e-324,
        1.0 / 3.0,
        9_007_199_254_740_993.0,
    ] {
        let value = json!(number);
        let full = hydrate(json!({"a": json_pointer(&value.to_string())})).unwrap();
        assert_eq!(full["a"].as_f64().unwrap().to_bits(), number.to_bits());
    }
    let full = hydrate(json!([
        json_pointer(&u64::MAX.to_string()),
        json_pointer(&i64::MIN.to_string())
    ]))
    .unwrap();
    assert_eq!(*full, json!([u64::MAX, i64::MIN]));
}

#[test]
fn hydrated_values_are_never_looked_at_again() {
    let inner = format!(r#"{{"_secret": "{MANAGED}"}}"#);
    let config = json!({"a": json_pointer(""), "b": {"_secret": "x"}});
    let full = hydrate_with(config, |_| Some(SecretValue::new(inner.clone()))).unwrap();
    assert_eq!(full["a"], json!({"_secret": MANAGED}));
    assert_eq!(full["b"], json!(inner));
}

#[test]
fn every_failing_place_is_listed_and_nothing_is_shown() {
    let config = json!({
        "gone": {"_secret": "missing"},
        "broken": json_pointer("{hunter2"),
        "trailing": json_pointer("1 hunter2"),
        "fine": {"_secret": MANAGED},
    });
    let error = hydrate(config).unwrap_err();
    let found: Vec<(&str, ProblemKind, Option<&str>)> = error
        .problems()
        .iter()
        .map(|problem| {
            (
                problem.place().as_str(),
                problem.kind(),
                problem.coordinate(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("/broken", ProblemKind::DecodingFailed, Some("x:{hunter2")),
            ("/gone", ProblemKind::Store, Some("missing")),
            (
                "/trailing",
                ProblemKind::DecodingFailed,
                Some("x:1 hunter2")
            ),
        ]
    );
    assert!(
        error
            .problems()
            .iter()
            .all(|problem| !problem.message().contains("hunter2"))
    );
}

#[test]
fn malformed_pointers_stop_everything() {
    for malformed in [
        json!({"_secret": 5}),
        json!({"_secret": MANAGED, "x": 1}),
        json!({"_secret": MANAGED, "_secret_encoding": "xml"}),
        // An alias of a managed secret, whatever a list might say.
        json!({"_secret": "arn:aws:secretsmanager:eu-west-1:1:secret:airbyte_x_v1"}),
        json!({"_secret": "airbyte-workspace-x"}),
    ] {
        let error = hydrate(json!({"a": malformed, "b": {"_secret": MANAGED}})).unwrap_err();
        assert_eq!(error.problems().len(), 1);
        assert_eq!(error.problems()[0].kind(), ProblemKind::MalformedPointer);
        assert_eq!(error.problems()[0].place().as_str(), "/a");
    }
}

#[test]
fn a_json_secret_has_as_many_levels_as_a_configuration_may_have() {
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(|| {
            let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            let stored = |levels: usize| {
                let value = SecretValue::new(nested(levels));
                hydrate_with(json!([json_pointer("")]), |_| Some(value.clone()))
            };
            assert!(stored(512).is_ok());
            for levels in [513, 100_000] {
                let error = stored(levels).unwrap_err();
                assert_eq!(error.problems()[0].kind(), ProblemKind::DecodingFailed);
            }
        })
        .unwrap()
        .join()
        .unwrap();
}
