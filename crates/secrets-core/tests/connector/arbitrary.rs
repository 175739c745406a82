//! Arbitrary schemas and configurations against the oracle.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::Config;
use secret_persistence_core::connector::ConnectorSpec;
use serde_json::{Map, Value, json};

use crate::oracle;
use crate::round_trip::check;

const NAMES: [&str; 6] = ["a", "b", "ab", "c", "x/y~z", ""];
const DEFINITIONS: usize = 4;

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        2 => Just(json!({})),
        2 => Just(json!({"airbyte_secret": true})),
        1 => Just(json!({"airbyte_secret": false})),
        2 => (0..DEFINITIONS).prop_map(|index| json!({"$ref": format!("#/$defs/d{index}")})),
        1 => Just(json!({"$ref": "#"})),
        1 => Just(json!({"default": {"airbyte_secret": true}})),
    ];
    leaf.prop_map(of_every_type)
        .prop_recursive(4, 40, 4, |inner| {
            let one = prop::sample::select(
                &[
                    "if",
                    "then",
                    "else",
                    "not",
                    "additionalProperties",
                    "unevaluatedProperties",
                    "items",
                    "additionalItems",
                    "unevaluatedItems",
                    "contains",
                ][..],
            );
            let list =
                prop::sample::select(&["allOf", "anyOf", "oneOf", "prefixItems", "items"][..]);
            let names =
                prop::sample::select(&["properties", "dependentSchemas", "dependencies"][..]);
            let pattern = prop::sample::select(&["^a", "b$", "^(?!a)"][..]);
            let keyword = prop_oneof![
                (one, inner.clone()).prop_map(|(keyword, schema)| (keyword, schema)),
                (list, vec(inner.clone(), 1..4))
                    .prop_map(|(keyword, list)| (keyword, Value::Array(list))),
                (names, btree_map(name(), inner.clone(), 1..4))
                    .prop_map(|(keyword, names)| (keyword, names.into_iter().collect())),
                (vec((pattern, inner.clone()), 1..3)).prop_map(|patterns| {
                    let patterns = patterns
                        .into_iter()
                        .map(|(key, schema)| (key.to_owned(), schema));
                    ("patternProperties", Value::Object(patterns.collect()))
                }),
                (0..DEFINITIONS).prop_map(|index| ("$ref", json!(format!("#/$defs/d{index}")))),
            ];
            vec(keyword, 1..5).prop_map(|keywords| {
                let keywords = keywords
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value));
                of_every_type(Value::Object(keywords.collect()))
            })
        })
}

fn specification() -> impl Strategy<Value = Value> {
    (schema(), vec(schema(), DEFINITIONS)).prop_map(|(mut root, definitions)| {
        let definitions: Map<String, Value> = definitions
            .into_iter()
            .enumerate()
            .map(|(index, schema)| (format!("d{index}"), schema))
            .collect();
        root["$defs"] = Value::Object(definitions);
        root
    })
}

/// Types are refused by rules of their own; here every value reaches its place.
fn of_every_type(mut schema: Value) -> Value {
    schema["type"] = json!(["null", "boolean", "number", "string", "array", "object"]);
    schema
}

fn configuration() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!("")),
        "[a-z \"\\\\\n]{1,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            btree_map(name(), inner, 0..5).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(Config { cases: 500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_secret_places_are_the_oracles(specification in specification(), config in configuration()) {
        let spec = ConnectorSpec::compile(&specification).unwrap();
        let mut found: Vec<String> = spec
            .secret_places(&config)
            .unwrap()
            .into_iter()
            .map(String::from)
            .collect();
        found.sort();
        prop_assert_eq!(found, oracle::secret_places(&specification, &config));
    }

    #[test]
    fn every_configuration_comes_back(specification in specification(), config in configuration()) {
        let spec = ConnectorSpec::compile(&specification).unwrap();
        let plan = check(&spec, &config, &[]).unwrap();
        prop_assert_eq!(plan.writes.len(), oracle::secret_places(&specification, &config).len());
    }
}
