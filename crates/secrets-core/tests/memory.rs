//! What every call takes of memory, counted by an allocator, on input that is meant to take much.
//!
//! One test, because the allocator counts the whole process.

// Clippy knows functions with `#[test]`; the helpers of a test binary are tests as well. A test reports
// to its output.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::sync::Arc;

use peak_alloc::PeakAlloc;
use secret_persistence_core::connector::{
    ConnectorOptions, ConnectorSecrets, ConnectorSpec, MASK, MAX_HYDRATED_BYTES, Pointer, Policy,
    References, hydrate_with, plan_create, plan_update, pointers, saved_pointers_needed, scrub,
};
use secret_persistence_core::{Actor, Memory, Scope, SecretValue, Stores};
use serde_json::{Map, Value, json};
use uuid::Uuid;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// No call takes more than this often the memory of its input,
const TIMES: usize = 12;
/// and this much beside it, for what is limited by number: secrets, problems, merged nodes.
const BESIDE: usize = 24 << 20;

/// What a call takes at most beside what is there already.
fn peak<T>(call: impl FnOnce() -> T) -> (usize, T) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = call();
    (MEMORY.peak_usage().saturating_sub(before), result)
}

struct Hostile {
    name: &'static str,
    specification: Value,
    saved: Value,
    config: Value,
}

fn secret() -> Value {
    json!({"airbyte_secret": true})
}

/// Every way to much memory from little input that is known, of about `size` bytes each.
fn hostile(size: usize) -> Vec<Hostile> {
    let any = json!({
        "properties": {"s": secret(), "whole": secret(), "c": {"type": "object", "properties": {"s": secret()}}},
        "additionalProperties": {"$ref": "#"},
        "items": {"$ref": "#"},
    });
    let long = "x".repeat(size / 2);
    let many = |value: Value, each: usize| Value::Array(vec![value; size / 2 / each]);
    let case = |name, saved: Value, config: Value| Hostile {
        name,
        specification: any.clone(),
        saved,
        config,
    };
    let managed = |uuid: usize| format!("airbyte_workspace_1_secret_{uuid}_v1");
    let pointer = |uuid: usize| json!({"_secret": managed(uuid)});
    let mut nested = json!({"s": "v"});
    for level in 0..200 {
        let name = format!("{level}{}", "x".repeat(size / 200));
        nested = json!({name: nested, "s": "v"});
    }
    let mut masked = json!({"y": MASK});
    for level in 0..200 {
        let name = format!("{level}{}", "x".repeat(size / 200));
        masked = json!({name: masked, "y": MASK});
    }
    let names: Map<String, Value> = (0..size / 12)
        .map(|index| (format!("{index:b}"), json!({})))
        .collect();
    vec![
        case(
            "a long name above many secrets",
            json!({}),
            json!({&long: many(json!({"s": "v"}), 10)}),
        ),
        case(
            "a long name above many masks",
            json!({}),
            json!({&long: many(json!(MASK), 13)}),
        ),
        case(
            "a long name above many values of wrong types",
            json!({}),
            json!({&long: many(json!({"c": 1}), 8)}),
        ),
        case(
            "a long name above many pointers",
            json!({}),
            json!({&long: many(json!({"y": pointer(1)}), 60)}),
        ),
        case(
            "a long name above many secrets that are nothing",
            json!({}),
            json!({&long: many(json!({"s": ""}), 9)}),
        ),
        case("long names on the way down", json!({}), nested),
        case("long names on the way down to masks", json!({}), masked),
        case(
            "one kept pointer again and again",
            json!({&long: many(json!({"s": pointer(1)}), 60)}),
            json!({&long: many(json!({"s": pointer(1)}), 60)}),
        ),
        case(
            "one kept pointer again and again in a secret",
            json!({"whole": pointer(1)}),
            json!({"whole": many(pointer(1), 60)}),
        ),
        case(
            "one saved pointer masked again and again",
            many(json!({"s": pointer(1)}), 60),
            many(json!({"s": MASK}), 60),
        ),
        case(
            "many numbers",
            json!({}),
            json!({"whole": many(json!(1), 2)}),
        ),
        Hostile {
            name: "many names that many patterns may match",
            specification: json!({"patternProperties": (0..size / 60).map(|index| {
                (format!("^(0|1)*{index:b}(0|1)*$"), json!({"properties": {format!("p{index}"): secret()}}))
            }).collect::<Map<String, Value>>()}),
            saved: json!({}),
            config: Value::Object(names),
        },
        Hostile {
            name: "large patterns",
            specification: json!({"patternProperties": (0..size / 40).map(|index| {
                (format!("(a|b)*a(a|b){{1000}}c{index}"), secret())
            }).collect::<Map<String, Value>>()}),
            saved: json!({}),
            config: json!({"ab".repeat(size / 4): 1, "c": "v"}),
        },
        Hostile {
            name: "long names in many merged nodes",
            specification: json!({
                "properties": (0..50).map(|index| {
                    (format!("{index}{}", "x".repeat(size / 100)), json!({"$ref": "#"}))
                }).collect::<Map<String, Value>>(),
                "allOf": (0..size / 200).map(|index| json!({
                    "properties": {format!("p{index}"): {"allOf": [{"$ref": "#"}, {"items": secret(), "title": index}]}},
                })).collect::<Vec<Value>>(),
            }),
            saved: json!({}),
            config: json!({}),
        },
        Hostile {
            name: "many complaints below a long name",
            specification: json!({"x": {&long: (0..size / 60).map(|_| secret()).collect::<Vec<Value>>()}}),
            saved: json!({}),
            config: json!({}),
        },
        Hostile {
            name: "many small schemas",
            specification: json!({"properties": (0..size / 10).map(|index| (index.to_string(), json!({}))).collect::<Map<String, Value>>(), "anyOf": [secret()]}),
            saved: json!({}),
            config: json!({}),
        },
        Hostile {
            name: "long lists in many merged nodes",
            specification: json!({
                "prefixItems": vec![json!({"$ref": "#"}); size / 40],
                "properties": (0..size / 60).map(|index| (index.to_string(), json!({"$ref": "#", "items": {"title": index}, "properties": {"s": secret()}}))).collect::<Map<String, Value>>(),
            }),
            saved: json!({}),
            config: json!([]),
        },
    ]
}

/// What every call took, by its name, with the memory of its input.
fn measure(case: &Hostile) -> Vec<(&'static str, usize, usize)> {
    let scope = Scope::workspace(Uuid::from_u128(0xA));
    let policy = Policy::default();
    let size = |value: &Value| peak(|| value.clone()).0;
    let large = SecretValue::new("v".repeat(500_000));
    let mut taken = Vec::new();
    let (bytes, spec) = peak(|| ConnectorSpec::compile(&case.specification));
    taken.push(("compile", bytes, size(&case.specification)));
    let Ok(spec) = spec else {
        return taken;
    };
    let (config, saved) = (&case.config, &case.saved);
    let input = size(config) + size(saved);
    let mut note = |call, bytes: usize| taken.push((call, bytes, input));

    let copy = config.clone();
    let (bytes, plan) = peak(|| plan_create(&spec, &scope, &policy, copy));
    note("plan_create", bytes);
    let (bytes, needed) = peak(|| saved_pointers_needed(&spec, &policy, saved, config));
    note("saved_pointers_needed", bytes);
    let values: HashMap<Pointer, SecretValue> = needed
        .into_iter()
        .flatten()
        .map(|(_, pointer)| (pointer, large.clone()))
        .collect();
    let copy = config.clone();
    let none = References::default();
    let (bytes, _) = peak(|| plan_update(&spec, &scope, &policy, saved, &values, &none, copy));
    note("plan_update", bytes);
    let copy = config.clone();
    note("mask", peak(|| spec.mask(copy)).0);
    let copy = config.clone();
    note("mask_hydrated", peak(|| spec.mask_hydrated(copy, saved)).0);
    let copy = config.clone();
    note("scrub with a specification", peak(|| spec.scrub(copy)).0);
    let copy = config.clone();
    note("scrub", peak(|| scrub(copy)).0);
    note("secret_places", peak(|| spec.secret_places(config)).0);
    note("pointers", peak(|| pointers(config)).0);
    if let Ok(plan) = &plan {
        let copy = plan.config.clone();
        note("pointers of the split one", peak(|| pointers(&copy)).0);
    }
    let copy = config.clone();
    note(
        "hydrate_with",
        peak(|| hydrate_with(copy, |_| Some(&large))).0,
    );

    // The same over a store, which is memory itself.
    let store = Memory::new();
    store.insert("airbyte_workspace_1_secret_1_v1", large.clone());
    let secrets = ConnectorSecrets::new(Stores::new(Arc::new(store)), ConnectorOptions::default())
        .acting_as(&Actor::new("test"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let copy = config.clone();
    note(
        "stage_create",
        peak(|| {
            runtime
                .block_on(secrets.stage_create(&spec, &scope, copy))
                .map(drop)
        })
        .0,
    );
    let (copy, old) = (config.clone(), saved.clone());
    note(
        "stage_update",
        peak(|| {
            runtime
                .block_on(secrets.stage_update(&spec, &scope, old, copy))
                .map(drop)
        })
        .0,
    );
    let copy = config.clone();
    note(
        "hydrate",
        peak(|| runtime.block_on(secrets.hydrate(copy)).map(drop)).0,
    );
    taken
}

#[test]
fn every_call_takes_a_multiple_of_its_input_at_most() {
    let (small, large) = (hostile(20_000), hostile(240_000));
    let mut failed = Vec::new();
    for (small, large) in small.iter().zip(&large) {
        for ((call, few, less), (_, bytes, input)) in measure(small).into_iter().zip(measure(large))
        {
            let (times, growth) = (bytes as f64 / input as f64, bytes as f64 / few as f64);
            println!(
                "{:<48} {call:<28} {input:>9} input {bytes:>9} taken, {times:>6.1} times; {growth:>5.1} for {:>4.1}",
                large.name,
                input as f64 / less as f64,
            );
            let hydrated = if call.contains("hydrate") || call.contains("update") {
                MAX_HYDRATED_BYTES
            } else {
                0
            };
            if bytes > TIMES * input + BESIDE + hydrated {
                failed.push(format!("{}: {call} takes {bytes} for {input}", large.name));
            }
            // Twelve times the text, and some for how collections grow; what grows faster is bounded by nothing but luck.
            if few > 50_000 && growth > 24.0_f64.max(2.0 * input as f64 / less as f64) {
                failed.push(format!(
                    "{}: {call} grows from {few} to {bytes}",
                    large.name
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
