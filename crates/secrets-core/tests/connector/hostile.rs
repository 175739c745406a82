//! Input that is meant to hurt: too deep, too large, too many. Everything on a 2 MiB stack.

use std::mem;

use secret_persistence_core::SecretValue;
use secret_persistence_core::connector::{
    ConnectorError, ConnectorSpec, MAX_DEPTH, Policy, ProblemKind, SecretJson, SplitPlan,
    hydrate_with, plan_create, plan_update, pointers, saved_pointers_needed, scrub,
};
use serde_json::{Value, json};

use crate::round_trip::{check, scope};

fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(test)
        .unwrap()
        .join()
        .unwrap();
}

/// An update of which no saved secret is known.
fn update(spec: &ConnectorSpec, saved: &Value, edited: Value) -> Result<SplitPlan, ConnectorError> {
    let (policy, values, references) = Default::default();
    plan_update(spec, &scope(), &policy, saved, &values, &references, edited)
}

/// A value with as many containers around it.
fn nested(levels: usize, core: Value) -> Value {
    let mut value = core;
    for level in 0..levels {
        value = if level % 2 == 0 {
            member("a", value)
        } else {
            Value::Array(vec![value])
        };
    }
    value
}

/// An object with one member; `json!` would recurse into it.
fn member(name: &str, value: Value) -> Value {
    let mut members = serde_json::Map::new();
    members.insert(name.to_owned(), value);
    Value::Object(members)
}

fn limit_exceeded<T>(result: Result<T, ConnectorError>) {
    let error = result.err().expect("it is permitted");
    assert!(
        error
            .problems()
            .iter()
            .any(|problem| problem.kind() == ProblemKind::LimitExceeded),
        "{error}"
    );
}

/// Secret if a value is not a container.
fn recursive_spec() -> ConnectorSpec {
    ConnectorSpec::compile(&json!({
        "type": ["object", "array"],
        "properties": {"a": {"$ref": "#"}, "s": {"airbyte_secret": true}, "whole": {"airbyte_secret": true}},
        "items": {"$ref": "#"},
    }))
    .unwrap()
}

#[test]
fn configurations_of_512_levels_come_back() {
    on_a_small_stack(|| {
        let spec = recursive_spec();
        let config = nested(MAX_DEPTH - 1, json!({"s": "canary"}));
        check(&spec, &config, &["canary".to_owned()]).unwrap();
        // One secret that is an object of as many levels.
        let config = json!({"whole": nested(MAX_DEPTH - 1, json!("canary"))});
        let plan = check(&spec, &config, &["canary".to_owned()]).unwrap();
        assert_eq!(plan.writes.len(), 1);
    });
}

#[test]
fn deeper_configurations_are_refused_everywhere() {
    on_a_small_stack(|| {
        let spec = recursive_spec();
        let policy = Policy::default();
        let saved = json!({"s": "v"});
        for levels in [MAX_DEPTH + 1, 100_000] {
            for core in [json!({"s": "v"}), json!("v")] {
                let deep = || nested(levels, core.clone());
                limit_exceeded(plan_create(&spec, &scope(), &policy, deep()));
                limit_exceeded(plan_create(
                    &spec,
                    &scope(),
                    &policy,
                    member("whole", deep()),
                ));
                limit_exceeded(spec.mask(deep()));
                limit_exceeded(scrub(deep()));
                limit_exceeded(hydrate_with(deep(), |_| None::<SecretValue>));
                limit_exceeded(update(&spec, &saved, deep()));
                let deep = SecretJson::new(deep());
                limit_exceeded(update(&spec, &deep, saved.clone()));
                limit_exceeded(saved_pointers_needed(&spec, &policy, &saved, &deep));
                limit_exceeded(spec.secret_places(&deep));
                limit_exceeded(pointers(&deep));
                limit_exceeded(ConnectorSpec::compile(&deep));
            }
        }
    });
}

#[test]
fn specifications_of_512_levels_compile() {
    on_a_small_stack(|| {
        let mut schema = json!({"airbyte_secret": true});
        for _ in 0..MAX_DEPTH / 2 - 1 {
            schema = json!({"properties": {"a": schema}});
        }
        let spec = ConnectorSpec::compile(&schema).unwrap();
        let mut config = json!("canary");
        for _ in 0..MAX_DEPTH / 2 - 1 {
            config = json!({"a": config});
        }
        check(&spec, &config, &["canary".to_owned()]).unwrap();
    });
}

#[test]
fn a_chain_of_references_is_no_recursion() {
    on_a_small_stack(|| {
        const LENGTH: usize = 9_000;
        let mut definitions = serde_json::Map::new();
        for index in 0..LENGTH {
            let next = format!("#/$defs/d{}", index + 1);
            definitions.insert(format!("d{index}"), json!({"$ref": next}));
        }
        definitions.insert(
            format!("d{LENGTH}"),
            json!({"properties": {"s": {"airbyte_secret": true}}}),
        );
        let schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
        let spec = ConnectorSpec::compile(&schema).unwrap();
        assert_eq!(spec.secret_places(&json!({"s": "v"})).unwrap().len(), 1);
    });
}

#[test]
fn specifications_that_merge_to_too_much_are_refused() {
    on_a_small_stack(|| {
        let properties: serde_json::Map<String, Value> = (0..11_000)
            .map(|index| {
                (
                    format!("p{index}"),
                    json!({"properties": {"s": {"airbyte_secret": true}}}),
                )
            })
            .collect();
        limit_exceeded(ConnectorSpec::compile(&json!({"properties": properties})));
        // Few nodes and much work: every branch covers every name of every other.
        let branches: Vec<Value> = (0..3_000)
            .map(|index| json!({"properties": {format!("p{index}"): {}}, "additionalProperties": {"airbyte_secret": true}}))
            .collect();
        limit_exceeded(ConnectorSpec::compile(&json!({"anyOf": branches})));
    });
}

#[test]
fn ten_thousand_secrets_come_back() {
    on_a_small_stack(|| {
        let spec = ConnectorSpec::compile(&json!({"properties": {"list": {"type": "array", "items": {
            "type": "object", "properties": {"name": {"type": "string"}, "s": {"airbyte_secret": true}},
        }}}}))
        .unwrap();
        let list: Vec<Value> = (0..10_000)
            .map(|index| json!({"name": format!("n{index}"), "s": format!("v{index}")}))
            .collect();
        let plan = check(&spec, &json!({"list": list}), &[]).unwrap();
        assert_eq!(plan.writes.len(), 10_000);
        // Reversed and masked: every element is recognised by its content.
        let mut shown = spec.mask(plan.config.clone()).unwrap();
        let Value::Array(items) = shown["list"].take() else {
            panic!()
        };
        shown["list"] = items.into_iter().rev().collect();
        let update = update(&spec, &plan.config, shown).unwrap();
        assert!(update.writes.is_empty() && update.superseded.is_empty());
        assert_eq!(update.config["list"][0], plan.config["list"][9_999]);
    });
}

#[test]
fn fifty_megabytes_come_back() {
    on_a_small_stack(|| {
        let spec = recursive_spec();
        let rows: Vec<Value> = (0..100_000)
            .map(|index| json!({"a": {"n": index, "text": "x".repeat(480)}}))
            .collect();
        let mut config = json!({"s": "v".repeat(1 << 20), "a": rows});
        assert!(config.to_string().len() > 50_000_000);
        let plan = plan_create(&spec, &scope(), &Policy::default(), config.clone()).unwrap();
        assert_eq!(plan.writes.len(), 1);
        let secret = plan.writes[0].value.clone();
        let full = hydrate_with(plan.config.clone(), |_| Some(secret.clone())).unwrap();
        assert!(*full == config);
        let shown = spec.mask(mem::take(&mut config)).unwrap();
        let update = update(&spec, &plan.config, shown).unwrap();
        assert!(update.config == plan.config);
    });
}

#[test]
fn arrays_nested_in_arrays_are_looked_at_once() {
    on_a_small_stack(|| {
        // Were each level's content created again, this would take 500 times as long.
        let spec = ConnectorSpec::compile(
            &json!({"items": {"$ref": "#"}, "properties": {"s": {"airbyte_secret": true}}}),
        )
        .unwrap();
        let leaves: Vec<Value> = (0..2_000)
            .map(|index| json!({"n": index, "s": "v"}))
            .collect();
        let mut config = Value::Array(leaves);
        for level in 0..500 {
            config = json!([config, {"level": level}]);
        }
        let plan = check(&spec, &config, &[]).unwrap();
        assert_eq!(plan.writes.len(), 2_000);
    });
}

#[test]
fn a_million_problems_end_in_a_bounded_error() {
    let spec = recursive_spec();
    let config = json!({"a": vec!["**********"; 1_000_000]});
    let error = plan_create(&spec, &scope(), &Policy::default(), config).unwrap_err();
    assert!(error.problems().len() <= 10_001);
}
