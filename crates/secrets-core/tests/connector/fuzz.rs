//! Any two JSON values as specification and configuration: an error or a round trip, never a panic.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use secrets_core::connector::{
    ConnectorSpec, Policy, hydrate_with, plan_create, plan_update, saved_pointers_needed, scrub,
};
use serde_json::{Map, Value, json};

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

/// Reads a JSON value from bytes.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn word(&mut self) -> &'static str {
        WORDS[usize::from(self.next()) % WORDS.len()]
    }

    fn value(&mut self, depth: usize) -> Value {
        let kind = self.next();
        match kind % 10 {
            0 => Value::Null,
            1 => Value::Bool(kind > 127),
            2 => Value::from(i64::from(self.next()) - 100),
            3 | 4 => Value::from(self.word()),
            5 | 6 if depth < 12 => (0..self.next() % 4)
                .map(|_| self.value(depth + 1))
                .collect(),
            7..=9 if depth < 12 => {
                let members = (0..self.next() % 5).map(|_| {
                    let name = self.word();
                    let value = match name {
                        // Marked more often than not.
                        "airbyte_secret" => Value::Bool(self.next() < 200),
                        _ => self.value(depth + 1),
                    };
                    (name.to_owned(), value)
                });
                Value::Object(members.collect::<Map<_, _>>())
            }
            _ => Value::from(""),
        }
    }
}

#[test]
fn any_input_ends_in_an_error_or_comes_back() {
    let [compiled, split, secrets] = [const { AtomicUsize::new(0) }; 3];
    bolero::check!()
        .with_iterations(6_000)
        .with_max_len(400)
        .for_each(|input: &[u8]| {
            let mut bytes = Bytes(input);
            // A frame that something can be found in, filled with anything.
            let specification = json!({
                "properties": {"a": bytes.value(0), "": bytes.value(0), "json": {"airbyte_secret": true}},
                "items": bytes.value(0),
                "allOf": [bytes.value(0)],
                "$defs": {"a": bytes.value(0)},
            });
            let mut configuration = || json!({"a": bytes.value(0), "": bytes.value(0), "json": bytes.value(0)});
            let (config, edited) = (configuration(), configuration());
            let _ = scrub(config.clone()).unwrap();
            let Ok(spec) = ConnectorSpec::compile(&specification) else {
                return;
            };
            compiled.fetch_add(1, Relaxed);
            let policy = Policy::default();
            let Ok(plan) = plan_create(&spec, &scope(), &policy, config.clone()) else {
                return;
            };
            split.fetch_add(1, Relaxed);
            secrets.fetch_add(plan.writes.len(), Relaxed);
            let values = stored(&plan);
            let full =
                hydrate_with(plan.config.clone(), |pointer| values.get(pointer).cloned()).unwrap();
            if !config.is_null() {
                assert_eq!(*full, config);
            }
            let shown = spec.mask(plan.config.clone()).unwrap();
            for edited in [shown, edited] {
                let Ok(needed) = saved_pointers_needed(&spec, &policy, &plan.config, &edited)
                else {
                    continue;
                };
                assert!(
                    needed
                        .iter()
                        .all(|(_, pointer)| values.contains_key(pointer))
                );
                let update = plan_update(
                    &spec,
                    &scope(),
                    &policy,
                    &plan.config,
                    &values,
                    &HashMap::new(),
                    edited,
                );
                if let Ok(update) = update {
                    let mut all = values.clone();
                    all.extend(stored(&update));
                    hydrate_with(update.config, |pointer| all.get(pointer).cloned()).unwrap();
                }
            }
        });
    println!(
        "{} specifications compiled, {} configurations split, {} secrets",
        compiled.load(Relaxed),
        split.load(Relaxed),
        secrets.load(Relaxed)
    );
    assert!(
        secrets.load(Relaxed) > 100,
        "the inputs have become too strange to reach anything"
    );
}
