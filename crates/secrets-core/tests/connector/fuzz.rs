//! Any two JSON values as specification and configuration: an error or a round trip, never a panic.

use std::collections::HashMap;

use arbitrary::{Result, Unstructured};
use secret_persistence_core::SecretValue;
use secret_persistence_core::connector::{
    ConnectorSpec, Pointer, Policy, References, hydrate_with, plan_create, plan_update,
    saved_pointers_needed, scrub,
};
use serde_json::{Map, Value, json};

use crate::generator::Random;
use crate::round_trip::{scope, stored};

/// What names and texts are made of: mostly words that mean something somewhere.
const WORDS: [&str; 40] = [
    "$anchor",
    "$defs",
    "$dynamicRef",
    "$id",
    "$recursiveRef",
    "$ref",
    "$schema",
    "_secret",
    "_secret_encoding",
    "_secret_reference_id",
    "_secret_storage_id",
    "additionalProperties",
    "airbyte_secret",
    "allOf",
    "anyOf",
    "contains",
    "contentSchema",
    "default",
    "dependencies",
    "items",
    "not",
    "oneOf",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "type",
    "object",
    "array",
    "string",
    "#",
    "#/$defs/a",
    "#a",
    "^(a|b",
    "**********",
    "secret_coordinate::x",
    "airbyte_workspace_1_secret_2_v1",
    "json",
    "a",
    "",
];

fn word(bytes: &mut Unstructured<'_>) -> Result<&'static str> {
    bytes.choose(&WORDS).copied()
}

fn value(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    Ok(match bytes.int_in_range(0..=9)? {
        0 => Value::Null,
        1 => Value::Bool(bytes.arbitrary()?),
        2 => Value::from(bytes.arbitrary::<i16>()?),
        3 | 4 => Value::from(word(bytes)?),
        5 | 6 if depth < 12 => (0..bytes.int_in_range(0..=3)?)
            .map(|_| value(bytes, depth + 1))
            .collect::<Result<_>>()?,
        7..=9 if depth < 12 => {
            let mut members = Map::new();
            for _ in 0..bytes.int_in_range(0..=4)? {
                let name = word(bytes)?;
                let member = match name {
                    // Marked more often than not.
                    "airbyte_secret" => Value::Bool(bytes.ratio(3, 4)?),
                    _ => value(bytes, depth + 1)?,
                };
                members.insert(name.to_owned(), member);
            }
            Value::Object(members)
        }
        _ => Value::from(""),
    })
}

/// A frame that something can be found in, filled with anything.
fn specification(bytes: &mut Unstructured<'_>) -> Result<Value> {
    Ok(json!({
        "properties": {"a": value(bytes, 0)?, "": value(bytes, 0)?, "json": {"airbyte_secret": true}},
        "items": value(bytes, 0)?,
        "allOf": [value(bytes, 0)?],
        "$defs": {"a": value(bytes, 0)?},
    }))
}

fn configuration(bytes: &mut Unstructured<'_>) -> Result<Value> {
    Ok(json!({"a": value(bytes, 0)?, "": value(bytes, 0)?, "json": value(bytes, 0)?}))
}

#[derive(Default)]
struct Reached {
    compiled: usize,
    split: usize,
    secrets: usize,
}

/// The fuzz function: whatever the bytes are, it does not panic.
fn run(bytes: &[u8], reached: &mut Reached) -> Result<()> {
    let mut bytes = Unstructured::new(bytes);
    let specification = specification(&mut bytes)?;
    let (config, edited) = (configuration(&mut bytes)?, configuration(&mut bytes)?);
    scrub(config.clone()).unwrap();
    let Ok(spec) = ConnectorSpec::compile(&specification) else {
        return Ok(());
    };
    reached.compiled += 1;
    let policy = Policy::default();
    let Ok(plan) = plan_create(&spec, &scope(), &policy, config.clone()) else {
        return Ok(());
    };
    reached.split += 1;
    reached.secrets += plan.writes.len();
    let mut values = stored(&plan);
    let value_of =
        |values: &HashMap<_, SecretValue>, pointer: &Pointer| values.get(pointer).cloned();
    let full = hydrate_with(plan.config.clone(), |pointer| value_of(&values, pointer)).unwrap();
    assert_eq!(*full, config);
    let shown = spec.mask(plan.config.clone()).unwrap();
    for edited in [shown, edited] {
        let Ok(needed) = saved_pointers_needed(&spec, &policy, &plan.config, &edited) else {
            continue;
        };
        assert!(
            needed
                .iter()
                .all(|(_, pointer)| values.contains_key(pointer))
        );
        let none = References::default();
        let update = plan_update(
            &spec,
            &scope(),
            &policy,
            &plan.config,
            &values,
            &none,
            edited,
        )
        .unwrap();
        values.extend(stored(&update));
        hydrate_with(update.config, |pointer| value_of(&values, pointer)).unwrap();
    }
    Ok(())
}

#[test]
fn any_input_ends_in_an_error_or_comes_back() {
    let mut reached = Reached::default();
    for seed in 0..6_000 {
        let mut random = Random::new(seed);
        let bytes: Vec<u8> = (0..600)
            .map(|_| u8::try_from(random.below(256)).unwrap())
            .collect();
        // Too few bytes make no input.
        let _ = run(&bytes, &mut reached);
    }
    let Reached {
        compiled,
        split,
        secrets,
    } = reached;
    println!("{compiled} specifications compiled, {split} configurations split, {secrets} secrets");
    assert!(
        secrets > 1_000,
        "the inputs have become too strange to reach anything"
    );
}
