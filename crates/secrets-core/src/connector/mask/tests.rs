//! What is shown, and what is not.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{MASK, scrub};
use crate::Scope;
use crate::connector::{ConnectorSpec, Place, Policy, ProblemKind, References, plan_update};

const MANAGED: &str = "airbyte_workspace_1_secret_2_v1";

fn spec() -> ConnectorSpec {
    let secret = json!({"airbyte_secret": true});
    ConnectorSpec::compile(&json!({"properties": {
        "host": {}, "s": secret, "list": {"type": "array", "items": {"properties": {"s": secret}}},
    }}))
    .unwrap()
}

#[test]
fn every_secret_and_every_pointer_is_masked_and_nothing_else() {
    let pointer = json!({"_secret": MANAGED});
    for (config, shown) in [
        (
            json!({"host": "db", "s": "v", "list": [{"s": "v", "x": 1}]}),
            json!({"host": "db", "s": MASK, "list": [{"s": MASK, "x": 1}]}),
        ),
        (
            json!({"s": null, "list": [{"s": ""}]}),
            json!({"s": null, "list": [{"s": ""}]}),
        ),
        (json!({"s": 0}), json!({"s": MASK})),
        (json!({"s": false}), json!({"s": MASK})),
        (json!({"s": {}}), json!({"s": MASK})),
        (json!({"s": {"k": "v"}}), json!({"s": MASK})),
        (
            json!({"s": pointer, "lost": [pointer]}),
            json!({"s": MASK, "lost": [MASK]}),
        ),
        (
            json!({"s": {"_secret": 5}, "lost": {"_secret_reference_id": 5}}),
            json!({"s": MASK, "lost": MASK}),
        ),
        (json!({"list": pointer}), json!({"list": MASK})),
        (pointer.clone(), json!(MASK)),
        (json!({"s": MASK}), json!({"s": MASK})),
    ] {
        assert_eq!(spec().mask(config.clone()).unwrap(), shown, "{config}");
        assert_eq!(spec().mask(shown.clone()).unwrap(), shown);
    }
}

#[test]
fn places_of_saved_pointers_are_masked_in_the_full_configuration() {
    let saved = json!({"lost": {"a": [{"_secret": MANAGED}]}, "host": "db"});
    let full = json!({"lost": {"a": ["hunter2"]}, "host": "db"});
    let shown = json!({"lost": {"a": [MASK]}, "host": "db"});
    assert_eq!(spec().mask_hydrated(full.clone(), &saved).unwrap(), shown);
    assert_eq!(
        spec().mask(full.clone()).unwrap(),
        full,
        "the specification alone does not know"
    );
}

#[test]
fn what_may_carry_a_secret_is_masked_as_a_whole() {
    for value in [
        json!("user:password"),
        json!(5),
        json!({"s": "user:password", "x": {"_secret": MANAGED}}),
    ] {
        let config = json!({"host": "db", "list": value});
        let shown = json!({"host": "db", "list": MASK});
        assert_eq!(spec().mask(config.clone()).unwrap(), shown);
        let scrubbed = spec().scrub(config.clone()).unwrap();
        assert_eq!((&scrubbed.value, scrubbed.raw.len()), (&shown, 1));
        // Where secrets stand nobody can tell; and an update asks for the value.
        let error = spec().secret_places(&config).unwrap_err();
        assert_eq!(error.problems()[0].kind(), ProblemKind::TypeMismatch);
        let (values, references) = (HashMap::new(), References::default());
        let scope = Scope::ephemeral();
        let error = plan_update(
            &spec(),
            &scope,
            &Policy::default(),
            &config,
            &values,
            &references,
            shown,
        )
        .unwrap_err();
        assert_eq!(error.problems().len(), 1);
        assert_eq!(error.problems()[0].kind(), ProblemKind::TypeMismatch);
        assert_eq!(error.problems()[0].place().as_str(), "/list");
    }
}

#[test]
fn scrubbing_needs_no_specification() {
    let rows = json!([{"_secret": MANAGED}, [{"x": {"_secret": 5, "y": 1}}], "secret_coordinate::a", {"v": "stays"}]);
    let scrubbed = scrub(rows).unwrap();
    assert_eq!(
        scrubbed.value,
        json!([MASK, [{"x": MASK}], MASK, {"v": "stays"}])
    );
    assert_eq!(scrubbed.masked, 3);
    assert!(scrubbed.raw.is_empty());
}

#[test]
fn an_export_counts_pointers_and_names_raw_secrets() {
    let config = json!({"s": "raw", "list": [{"s": {"_secret": MANAGED}}, {"s": 5}, {"s": null}], "lost": {"_secret": "x"}});
    let scrubbed = spec().scrub(config).unwrap();
    assert_eq!(scrubbed.masked, 2);
    let mut raw: Vec<&str> = scrubbed.raw.iter().map(Place::as_str).collect();
    raw.sort_unstable();
    assert_eq!(raw, ["/list/1/s", "/s"]);
    let text = scrubbed.value.to_string();
    assert!(!text.contains("raw") && !text.contains(MANAGED));
}

#[test]
fn nesting_is_bounded_and_taken_apart_without_recursion() {
    let mut deep = json!("v");
    for _ in 0..200_000 {
        deep = Value::Array(vec![deep]);
    }
    let error = scrub(deep).unwrap_err();
    assert_eq!(error.problems()[0].kind(), ProblemKind::LimitExceeded);
}
