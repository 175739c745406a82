//! Every row of the table of splitting, on create.

use serde_json::{Value, json};
use uuid::Uuid;

use super::plan_create;
use crate::connector::{
    ConnectorError, ConnectorSpec, Encoding, MASK, MAX_SECRETS, Pointer, Policy, Problem,
    ProblemKind, SplitPlan, pointers,
};
use crate::{Coordinate, Scope, StorageId};

const MANAGED: &str = "airbyte_workspace_00000000-0000-0000-0000-00000000000a_secret_1_v1";

fn scope() -> Scope {
    Scope::workspace(Uuid::from_u128(0xA))
}

fn spec() -> ConnectorSpec {
    ConnectorSpec::compile(&json!({
        "type": "object",
        "properties": {
            "host": {"type": "string"},
            "s": {"airbyte_secret": true},
            "t": {"airbyte_secret": true},
            "deep": {"type": "object", "properties": {"s": {"airbyte_secret": true}}},
            "list": {"type": "array", "items": {"properties": {"s": {"airbyte_secret": true}}}},
        },
    }))
    .unwrap()
}

fn create(policy: &Policy, config: Value) -> Result<SplitPlan, ConnectorError> {
    plan_create(&spec(), &scope(), policy, config)
}

fn kinds(result: Result<SplitPlan, ConnectorError>) -> Vec<(String, ProblemKind)> {
    result
        .expect_err("it is permitted")
        .problems()
        .iter()
        .map(|problem| (problem.place().as_str().to_owned(), problem.kind()))
        .collect()
}

fn one(place: &str, kind: ProblemKind) -> Vec<(String, ProblemKind)> {
    vec![(place.to_owned(), kind)]
}

#[test]
fn nothing_stays_nothing() {
    for config in [json!({}), json!({"s": null}), json!({"s": ""}), json!(null)] {
        let plan = create(&Policy::default(), config.clone()).unwrap();
        assert_eq!(plan.config, config);
        assert!(plan.writes.is_empty());
    }
}

#[test]
fn a_string_is_stored_byte_for_byte() {
    for text in [
        "hunter2",
        " ",
        " \t\n",
        "ü\u{0}",
        "{\"a\": 1}",
        "123",
        "null",
        "*********",
    ] {
        let plan = create(&Policy::default(), json!({"host": "db", "s": text})).unwrap();
        let [write] = &plan.writes[..] else {
            panic!("{} writes", plan.writes.len())
        };
        assert_eq!(write.value.expose(), text);
        assert_eq!(pointers(&plan.config).unwrap()[0].0.as_str(), "/s");
        assert_eq!(
            plan.config,
            json!({"host": "db", "s": {"_secret": write.coordinate.as_str()}})
        );
        assert!(scope().contains(&write.coordinate));
        assert_eq!(write.coordinate.version(), 1);
    }
}

#[test]
fn anything_else_is_stored_as_json_and_says_so() {
    for value in [
        json!(5),
        json!(1.5e300),
        json!(-0.0),
        json!(true),
        json!(false),
        json!({"k": [1, null]}),
        json!([]),
        json!({}),
    ] {
        let plan = create(&Policy::default(), json!({"s": value})).unwrap();
        assert_eq!(plan.writes[0].value.expose(), value.to_string());
        let pointer = Pointer::parse(&plan.config["s"]).unwrap().unwrap();
        assert_eq!(pointer.encoding, Encoding::Json);
        let strings_only = Policy::default().with_strings_only(true);
        assert_eq!(
            kinds(create(&strings_only, json!({"s": value}))),
            one("/s", ProblemKind::NotAString)
        );
    }
}

#[test]
fn what_may_have_been_meant_as_the_value_is_not_named() {
    let id = "00000000-0000-0000-0000-00000000000a";
    for value in [
        json!({"_secret": "hunter2"}),
        json!({"_secret": "hunter2", "_secret_storage_id": "hunter2"}),
        json!({"_secret": "hunter2", "_secret_reference_id": id}),
        json!({"_secret": "hunter2", "_secret_reference_id": "hunter2"}),
        json!({"_secret": "hunter2", "_secret_encoding": "hunter2"}),
        json!({"_secret": "hunter2/../x"}),
        json!({"_secret": MANAGED, "hunter2": 1}),
        json!("secret_coordinate::hunter2"),
        json!("secret_coordinate::hunter2/../x"),
        json!({"k": {"_secret": "hunter2"}}),
        json!({"hunter2": {"_secret": "hunter2", "_secret_reference_id": id}}),
    ] {
        for place in ["s", "host"] {
            if place == "host" && value.is_string() {
                continue;
            }
            let error = create(&Policy::default(), json!({place: value})).unwrap_err();
            let coordinates: Vec<_> = error.problems().iter().map(Problem::coordinate).collect();
            let shown = format!("{error} {error:?} {coordinates:?}");
            // Where no secret is, the way to the pointer is named.
            let shown = shown.replace("/host/hunter2", "");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}

#[test]
fn below_a_secret_place_only_the_place_is_named() {
    let mut deep = json!("v");
    for _ in 0..600 {
        deep = json!([deep]);
    }
    for (below, kind) in [
        (json!(MASK), ProblemKind::MaskWithoutValue),
        (
            json!("secret_coordinate::x"),
            ProblemKind::PointerOutsideSecret,
        ),
        (json!({"_secret": MANAGED}), ProblemKind::ForeignPointer),
        (json!({"_secret": "x"}), ProblemKind::PointerOutsideSecret),
        (json!({"_secret": 5}), ProblemKind::MalformedPointer),
        (
            json!({"$serde_json::private::Number": "1"}),
            ProblemKind::ReservedName,
        ),
        (deep, ProblemKind::LimitExceeded),
    ] {
        for secret in [
            json!({"canary-key": below, "canary-other": [below]}),
            json!([[{"canary-key": {"canary-inner": below}}, below]]),
        ] {
            let error = create(&Policy::default(), json!({"s": secret})).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
            assert_eq!(kinds(Err(error)), one("/s", kind));
        }
    }
}

#[test]
fn names_that_the_json_library_keeps_to_itself_are_refused() {
    for name in [
        "$serde_json::private::Number",
        "$serde_json::private::RawValue",
    ] {
        for (config, place) in [
            (json!({"s": {name: "x"}}), "/s"),
            (json!({"s": {name: "1"}}), "/s"),
            (json!({"s": [{"a": {"b": 1, name: "1"}}]}), "/s"),
            (json!({"host": {name: "1"}}), "/host"),
            (json!({name: "1"}), ""),
        ] {
            assert_eq!(
                kinds(create(&Policy::default(), config)),
                one(place, ProblemKind::ReservedName)
            );
        }
    }
}

#[test]
fn more_secrets_than_may_be_are_refused_and_nothing_is_kept_of_them() {
    let list: Vec<Value> = (0..=MAX_SECRETS).map(|_| json!({"s": "v"})).collect();
    let config = json!({"list": list});
    assert_eq!(
        kinds(create(&Policy::default(), config)),
        one("", ProblemKind::LimitExceeded)
    );
}

#[test]
fn every_secret_gets_a_name_of_its_own() {
    let config = json!({"s": "same", "t": "same", "deep": {"s": "same"}, "list": [{"s": "same"}, {"s": "same"}]});
    let plan = create(&Policy::default(), config).unwrap();
    let names: std::collections::HashSet<&str> = plan
        .writes
        .iter()
        .map(|write| write.coordinate.as_str())
        .collect();
    assert_eq!(names.len(), 5);
}

#[test]
fn new_pointers_name_their_storage_unless_it_is_the_default_one() {
    let policy = Policy::default().with_write_storage(Some(StorageId::parse("other").unwrap()));
    let plan = create(&policy, json!({"s": "v"})).unwrap();
    assert_eq!(plan.config["s"]["_secret_storage_id"], "other");
}

#[test]
fn managed_pointers_references_and_masks_are_refused() {
    let reference = "00000000-0000-0000-0000-00000000000b";
    let cases = [
        (json!({"_secret": MANAGED}), ProblemKind::ForeignPointer),
        (
            json!(format!("secret_coordinate::{MANAGED}")),
            ProblemKind::ForeignPointer,
        ),
        (
            json!({"_secret_reference_id": reference}),
            ProblemKind::ForeignPointer,
        ),
        (
            json!({"_secret": "team/x", "_secret_reference_id": reference}),
            ProblemKind::ForeignPointer,
        ),
        (json!(MASK), ProblemKind::MaskWithoutValue),
        (
            json!({"_secret": MANAGED, "x": 1}),
            ProblemKind::MalformedPointer,
        ),
        (json!({"_secret": 5}), ProblemKind::MalformedPointer),
        (
            json!({"_secret": MANAGED, "_secret_encoding": "xml"}),
            ProblemKind::MalformedPointer,
        ),
        (json!("secret_coordinate::"), ProblemKind::MalformedPointer),
        (
            json!("secret_coordinate::AIRBYTE_x"),
            ProblemKind::MalformedPointer,
        ),
        (
            json!({"_secret": "folder/airbyte_x_v1#field"}),
            ProblemKind::MalformedPointer,
        ),
    ];
    // Whatever the list says.
    let policy = Policy::default().with_external_prefix(None, "");
    for (value, kind) in cases {
        assert_eq!(
            kinds(create(&policy, json!({"s": value}))),
            one("/s", kind),
            "{value}"
        );
    }
}

#[test]
fn external_pointers_need_a_prefix_of_their_storage() {
    let storage = StorageId::parse("vault").unwrap();
    let policy = Policy::default()
        .with_external_prefix(None, "team/")
        .with_external_prefix(Some(storage), "ops/");
    for (value, pointer) in [
        (json!({"_secret": "team/x"}), json!({"_secret": "team/x"})),
        (
            json!("secret_coordinate::team/x"),
            json!({"_secret": "team/x"}),
        ),
        (
            json!({"_secret": "ops/x", "_secret_storage_id": "vault"}),
            json!({"_secret": "ops/x", "_secret_storage_id": "vault"}),
        ),
    ] {
        let plan = create(&policy, json!({"s": value})).unwrap();
        assert_eq!(plan.config["s"], pointer);
        assert!(plan.writes.is_empty());
        assert_eq!(
            kinds(create(&Policy::default(), json!({"s": value}))),
            one("/s", ProblemKind::ExternalNotAllowed)
        );
    }
    for value in [
        json!({"_secret": "other/x"}),
        json!({"_secret": "ops/x"}),
        json!({"_secret": "team/x", "_secret_storage_id": "vault"}),
        json!({"_secret": "ops/x", "_secret_storage_id": "elsewhere"}),
    ] {
        assert_eq!(
            kinds(create(&policy, json!({"s": value}))),
            one("/s", ProblemKind::ExternalNotAllowed)
        );
    }
}

#[test]
fn pointers_and_masks_where_no_secret_is_are_refused() {
    let policy = Policy::default().with_external_prefix(None, "");
    for (config, place, kind) in [
        (
            json!({"host": MASK}),
            "/host",
            ProblemKind::MaskOutsideSecret,
        ),
        (
            json!({"x": [{"y": MASK}]}),
            "/x/0/y",
            ProblemKind::MaskOutsideSecret,
        ),
        (
            json!({"x": {"_secret": "team/x"}}),
            "/x",
            ProblemKind::PointerOutsideSecret,
        ),
        (
            json!({"x": {"_secret": 5}}),
            "/x",
            ProblemKind::PointerOutsideSecret,
        ),
        (
            json!({"x": [{"_secret_reference_id": null}]}),
            "/x/0",
            ProblemKind::PointerOutsideSecret,
        ),
        (
            json!({"_secret": "team/x"}),
            "",
            ProblemKind::PointerOutsideSecret,
        ),
        (
            json!({"deep": {"_secret": "team/x"}}),
            "/deep",
            ProblemKind::PointerOutsideSecret,
        ),
    ] {
        assert_eq!(
            kinds(create(&policy, config.clone())),
            one(place, kind),
            "{config}"
        );
    }
    // The text form is text there.
    let config = json!({"host": "secret_coordinate::team/x"});
    assert_eq!(create(&policy, config.clone()).unwrap().config, config);
}

#[test]
fn a_secret_object_holds_no_pointer_and_no_mask() {
    let policy = Policy::default().with_external_prefix(None, "");
    for (value, place, kind) in [
        (
            json!({"a": {"_secret": MANAGED}}),
            "/s",
            ProblemKind::ForeignPointer,
        ),
        (
            json!({"a": [{"_secret": "team/x"}]}),
            "/s",
            ProblemKind::PointerOutsideSecret,
        ),
        (
            json!({"a": {"_secret": 5}}),
            "/s",
            ProblemKind::MalformedPointer,
        ),
        (
            json!({"a": "secret_coordinate::team/x"}),
            "/s",
            ProblemKind::PointerOutsideSecret,
        ),
        (json!([MASK]), "/s", ProblemKind::MaskWithoutValue),
    ] {
        assert_eq!(
            kinds(create(&policy, json!({"s": value}))),
            one(place, kind),
            "{value}"
        );
    }
}

#[test]
fn a_value_that_may_carry_a_secret_is_refused() {
    assert_eq!(
        kinds(create(&Policy::default(), json!({"deep": "user:password"}))),
        one("/deep", ProblemKind::TypeMismatch)
    );
    assert_eq!(
        kinds(create(&Policy::default(), json!("user:password"))),
        one("", ProblemKind::TypeMismatch)
    );
}

#[test]
fn unknown_properties_stay_or_are_refused() {
    let config = json!({"x": {"y": "v"}, "deep": {"z": 1}, "list": [{"w": 1}]});
    let plan = create(&Policy::default(), config.clone()).unwrap();
    assert_eq!(plan.config, config);
    let strict = Policy::default().with_refuse_unknown_properties(true);
    let unknown = |place: &str| (place.to_owned(), ProblemKind::UnknownProperty);
    assert_eq!(
        kinds(create(&strict, config)),
        [unknown("/deep/z"), unknown("/list/0/w"), unknown("/x")]
    );
    assert!(
        create(
            &strict,
            json!({"host": "h", "s": "v", "deep": {"s": {"any": 1}}})
        )
        .is_ok()
    );
}

#[test]
fn all_problems_are_reported_together_and_show_no_value() {
    let config = json!({
        "host": MASK,
        "s": {"_secret": MANAGED},
        "t": "hunter2",
        "deep": "hunter2",
        "list": [{"s": MASK}, {"s": {"a": {"_secret": "hunter2/.."}}}],
    });
    let error = create(&Policy::default(), config).unwrap_err();
    let places: Vec<&str> = error
        .problems()
        .iter()
        .map(|problem| problem.place().as_str())
        .collect();
    assert_eq!(places, ["/deep", "/host", "/list/0/s", "/list/1/s", "/s"]);
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert!(!error.is_retryable());
}

#[test]
fn key_order_is_kept() {
    // Whatever the order of this build's maps is, splitting does not change it.
    let config: Value =
        serde_json::from_str(r#"{"z": 1, "s": "v", "host": "h", "t": "v", "a": 2}"#).unwrap();
    let before: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
    let plan = create(&Policy::default(), config).unwrap();
    let after: Vec<String> = plan.config.as_object().unwrap().keys().cloned().collect();
    assert_eq!(before, after);
}

#[test]
fn a_plan_shows_no_value() {
    let plan = create(&Policy::default(), json!({"s": "hunter2", "x": "hunter3"})).unwrap();
    let shown = format!("{plan:?}");
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(shown.contains(plan.writes[0].coordinate.as_str()));
}

#[test]
fn prefixes_of_scopes_are_taken_over() {
    let scope = Scope::new("storage_organization_", Uuid::from_u128(7)).unwrap();
    let plan = plan_create(&spec(), &scope, &Policy::default(), json!({"s": "v"})).unwrap();
    let name = plan.writes[0].coordinate.as_str();
    assert!(
        name.starts_with(
            "airbyte_storage_organization_00000000-0000-0000-0000-000000000007_secret_"
        )
    );
    assert_eq!(Coordinate::parse(name).unwrap().as_str(), name);
    let plan = plan_create(
        &spec(),
        &Scope::ephemeral(),
        &Policy::default(),
        json!({"s": "v"}),
    )
    .unwrap();
    assert!(
        plan.writes[0]
            .coordinate
            .as_str()
            .contains("_00000000-0000-0000-0000-000000000000_secret_")
    );
}
