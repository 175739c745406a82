//! Every rule of updating.

use std::collections::HashMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{plan_update, saved_pointers_needed};
use crate::connector::{
    ConnectorError, ConnectorSpec, MASK, Pointer, Policy, ProblemKind, References, SplitPlan,
};
use crate::{Coordinate, Location, Scope, SecretValue, StorageId};

const SCOPE: &str = "airbyte_workspace_00000000-0000-0000-0000-00000000000a_secret_";
const REFERENCE: &str = "00000000-0000-0000-0000-00000000000b";

/// A pointer of the scope.
fn own(number: usize) -> Value {
    json!({"_secret": own_name(number)})
}

fn own_name(number: usize) -> String {
    format!("{SCOPE}00000000-0000-0000-0000-{number:012}_v3")
}

fn scope() -> Scope {
    Scope::workspace(Uuid::from_u128(0xA))
}

fn spec() -> ConnectorSpec {
    let secret = json!({"airbyte_secret": true});
    ConnectorSpec::compile(&json!({
        "type": "object",
        "properties": {
            "host": {"type": "string"},
            "s": secret,
            "t": secret,
            "list": {"type": "array", "items": {"type": "object", "properties": {"s": secret}}},
            "tuple": {"prefixItems": [{"properties": {"s": secret}}, {"properties": {"s": secret}}], "items": {"properties": {"s": secret}}},
            "bare": {"type": "array", "items": secret},
            "nested": {"type": "array", "items": {"type": "array", "items": {"type": "object", "properties": {"s": secret}}}},
        },
    }))
    .unwrap()
}

/// One update, with stored values given as `(pointer, text)`.
struct Update {
    spec: ConnectorSpec,
    policy: Policy,
    saved: Value,
    stored: Vec<(Value, &'static str)>,
    references: HashMap<Uuid, Location>,
}

impl Update {
    fn of(saved: Value) -> Self {
        Self {
            spec: spec(),
            policy: Policy::default(),
            saved,
            stored: Vec::new(),
            references: HashMap::new(),
        }
    }

    fn stored(mut self, pointer: Value, text: &'static str) -> Self {
        self.stored.push((pointer, text));
        self
    }

    fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Reads only what is asked for, as a caller would.
    fn to(&self, edited: Value) -> Result<SplitPlan, ConnectorError> {
        let values = self
            .needed(&edited)?
            .into_iter()
            .filter_map(|(_, pointer)| {
                let value = self
                    .stored
                    .iter()
                    .find(|(stored, _)| *stored == pointer.to_value())?;
                Some((pointer, SecretValue::new(value.1.to_owned())))
            })
            .collect();
        plan_update(
            &self.spec,
            &scope(),
            &self.policy,
            &self.saved,
            &values,
            &References::from_iter(self.references.clone()),
            edited,
        )
    }

    fn needed(&self, edited: &Value) -> Result<Vec<(String, Pointer)>, ConnectorError> {
        let needed = saved_pointers_needed(&self.spec, &self.policy, &self.saved, edited)?;
        Ok(needed
            .into_iter()
            .map(|(place, pointer)| (place.as_str().to_owned(), pointer))
            .collect())
    }

    /// The update is accepted and changes nothing.
    fn keeps(&self, edited: Value) {
        let plan = self
            .to(edited.clone())
            .unwrap_or_else(|error| panic!("{edited}: {error}"));
        assert_eq!(plan.config, self.saved, "{edited}");
        assert!(
            plan.writes.is_empty()
                && plan.superseded.is_empty()
                && plan.released_references.is_empty()
        );
    }

    fn refuses(&self, edited: Value, place: &str, kind: ProblemKind) {
        let error = self.to(edited.clone()).expect_err("it is permitted");
        let found: Vec<(&str, ProblemKind)> = error
            .problems()
            .iter()
            .map(|problem| (problem.place().as_str(), problem.kind()))
            .collect();
        assert_eq!(found, [(place, kind)], "{edited}: {error}");
    }
}

/// Sorted, because the order of a map's keys depends on a feature that any user of the tree switches on.
fn superseded(plan: &SplitPlan) -> Vec<Value> {
    let mut superseded: Vec<Value> = plan
        .superseded
        .iter()
        .map(|location| {
            Pointer::new(location.coordinate.clone().into())
                .with_storage_id(location.storage_id.clone())
                .to_value()
        })
        .collect();
    superseded.sort_by_key(Value::to_string);
    superseded
}

#[test]
fn masks_pointers_and_equal_values_keep_the_pointer() {
    let update = Update::of(json!({"host": "db", "s": own(1)})).stored(own(1), "hunter2");
    let text = json!(format!("secret_coordinate::{}", own_name(1)));
    for value in [json!(MASK), own(1), text, json!("hunter2")] {
        update.keeps(json!({"host": "db", "s": value}));
    }
    // Only a value that was entered needs to be compared.
    assert!(update.needed(&json!({"s": MASK})).unwrap().is_empty());
    assert!(update.needed(&json!({"s": own(1)})).unwrap().is_empty());
    assert_eq!(update.needed(&json!({"s": "x"})).unwrap()[0].0, "/s");
}

/// An adopted installation: the default storage has an id, and what was saved since names none.
#[test]
fn what_the_new_configuration_names_by_another_id_is_not_superseded() {
    let mut by_id = own(1);
    by_id["_secret_storage_id"] = json!("00000000-0000-0000-0000-0000000000aa");
    for (left, kept) in [(own(1), by_id.clone()), (by_id.clone(), own(1))] {
        let update = Update::of(json!({"s": left, "t": kept}));
        let plan = update.to(json!({"t": MASK})).unwrap();
        assert_eq!(plan.config, json!({"t": kept}));
        assert_eq!(superseded(&plan), [] as [Value; 0]);
    }
}

#[test]
fn a_json_secret_is_compared_as_a_value() {
    let mut pointer = own(1);
    pointer["_secret_encoding"] = json!("json");
    let update =
        Update::of(json!({"s": pointer})).stored(pointer.clone(), " {\"b\": 1, \"a\": [1.0]}");
    update.keeps(json!({"s": {"a": [1.0], "b": 1}}));
    assert_eq!(
        update.to(json!({"s": {"a": [1.0]}})).unwrap().writes.len(),
        1
    );
    assert_eq!(
        update
            .to(json!({"s": "{\"b\": 1, \"a\": [1.0]}"}))
            .unwrap()
            .writes
            .len(),
        1
    );
    // A text that looks like the number is not the number.
    let update = Update::of(json!({"s": own(1)})).stored(own(1), "5");
    assert_eq!(update.to(json!({"s": 5})).unwrap().writes.len(), 1);
    update.keeps(json!({"s": "5"}));
}

#[test]
fn a_changed_value_gets_a_new_name_of_the_next_version() {
    let update = Update::of(json!({"s": own(1), "t": own(2)})).stored(own(1), "old");
    let plan = update.to(json!({"s": "new", "t": MASK})).unwrap();
    let [write] = &plan.writes[..] else { panic!() };
    assert_eq!(write.value.expose(), "new");
    assert_eq!(write.coordinate.version(), 4);
    assert!(
        !write.coordinate.as_str().contains("000000000001_v"),
        "the UUID is fresh"
    );
    assert!(scope().contains(&write.coordinate));
    assert_eq!(plan.config["s"]["_secret"], write.coordinate.as_str());
    assert_eq!(superseded(&plan), [own(1)]);
}

#[test]
fn versions_never_overflow() {
    for version in [i64::MAX, 99_999_999_999_999_999] {
        let name = format!("{SCOPE}1_v{version}");
        let update = Update::of(json!({"s": {"_secret": name}}));
        let plan = update.to(json!({"s": "new"})).unwrap();
        assert!(plan.writes[0].coordinate.version() >= 1);
    }
}

#[test]
fn a_secret_that_is_gone_from_the_store_can_be_entered_again() {
    let update = Update::of(json!({"s": own(1)}));
    let plan = update.to(json!({"s": "entered again"})).unwrap();
    assert_eq!(plan.writes.len(), 1);
}

#[test]
fn removed_secrets_are_superseded_wherever_they_stood() {
    let saved = json!({"s": own(1), "list": [{"s": own(2)}], "lost_mark": {"deep": [own(3)]}});
    let update = Update::of(saved);
    for removed in [
        json!({}),
        json!({"s": null, "list": []}),
        json!({"s": "", "list": [{}]}),
    ] {
        let plan = update.to(removed).unwrap();
        assert_eq!(plan.superseded.len(), 3);
        assert!(plan.writes.is_empty());
    }
    let plan = update
        .to(json!({"s": MASK, "list": [], "lost_mark": {"deep": [MASK]}}))
        .unwrap();
    assert_eq!(superseded(&plan), [own(2)]);
}

#[test]
fn a_switched_branch_leaves_its_secret_behind() {
    let spec = ConnectorSpec::compile(&json!({"properties": {"auth": {"oneOf": [
        {"type": "object", "properties": {"kind": {"const": "key"}, "key": {"airbyte_secret": true}}},
        {"type": "object", "properties": {"kind": {"const": "token"}, "token": {"airbyte_secret": true}}},
    ]}}}))
    .unwrap();
    let mut update = Update::of(json!({"auth": {"kind": "key", "key": own(1)}}));
    update.spec = spec;
    let plan = update
        .to(json!({"auth": {"kind": "token", "token": "t"}}))
        .unwrap();
    assert_eq!(superseded(&plan), [own(1)]);
    assert_eq!(plan.writes.len(), 1);
    assert_eq!(plan.writes[0].coordinate.version(), 1);
}

#[test]
fn only_managed_secrets_of_the_scope_are_superseded_and_each_once() {
    let foreign = [
        json!({"_secret": "airbyte_workspace_00000000-0000-0000-0000-00000000000c_secret_00000000-0000-0000-0000-000000000001_v1"}),
        json!({"_secret": "airbyte_workspace_00000000-0000-0000-0000-000000000000_secret_00000000-0000-0000-0000-000000000001_v1"}),
        json!({"_secret": "airbyte_organization_00000000-0000-0000-0000-00000000000a_secret_00000000-0000-0000-0000-000000000001_v1"}),
        json!({"_secret": "airbyte_workspace_00000000-0000-0000-0000-00000000000a_other_v1"}),
        json!({"_secret": "team/x"}),
    ];
    let mut bare = foreign.to_vec();
    bare.extend([own(1), own(1)]);
    let plan = Update::of(json!({"bare": bare})).to(json!({})).unwrap();
    assert_eq!(superseded(&plan), [own(1)]);
}

#[test]
fn identity_is_storage_and_coordinate() {
    let mut elsewhere = own(1);
    elsewhere["_secret_storage_id"] = json!("other");
    let update = Update::of(json!({"s": own(1), "t": elsewhere.clone()}));
    let plan = update.to(json!({})).unwrap();
    assert_eq!(superseded(&plan), [elsewhere, own(1)]);
}

#[test]
fn a_pointer_has_to_be_a_saved_one_in_every_field() {
    let mut storage = own(1);
    storage["_secret_storage_id"] = json!("other");
    let mut encoding = own(1);
    encoding["_secret_encoding"] = json!("json");
    let mut unknown = own(1);
    unknown["x"] = json!("y");
    let update =
        Update::of(json!({"s": own(1)})).policy(Policy::default().with_external_prefix(None, ""));
    for pointer in [
        own(2),
        storage,
        encoding,
        json!({"_secret_reference_id": REFERENCE}),
    ] {
        update.refuses(json!({"s": pointer}), "/s", ProblemKind::ForeignPointer);
    }
    let text = json!(format!("secret_coordinate::{}", own_name(2)));
    update.refuses(json!({"s": text}), "/s", ProblemKind::ForeignPointer);
    update.refuses(json!({"s": unknown}), "/s", ProblemKind::MalformedPointer);
    // It may move within its configuration.
    let plan = update.to(json!({"t": own(1)})).unwrap();
    assert_eq!(plan.config, json!({"t": own(1)}));
    assert!(plan.superseded.is_empty());
}

#[test]
fn an_external_pointer_stays_at_its_place_and_else_asks_the_list() {
    let external = json!({"_secret": "team/x"});
    let update = Update::of(json!({"s": external}));
    update.keeps(json!({"s": external}));
    update.keeps(json!({"s": MASK}));
    update.keeps(json!({"s": "secret_coordinate::team/x"}));
    update.refuses(
        json!({"t": external}),
        "/t",
        ProblemKind::ExternalNotAllowed,
    );
    update.refuses(
        json!({"s": {"_secret": "team/y"}}),
        "/s",
        ProblemKind::ExternalNotAllowed,
    );
    let encoded = json!({"_secret": "team/x", "_secret_encoding": "json"});
    update.refuses(json!({"s": encoded}), "/s", ProblemKind::ExternalNotAllowed);
    let allowing = Update::of(json!({"s": external}))
        .policy(Policy::default().with_external_prefix(None, "team/"));
    let plan = allowing.to(json!({"t": external})).unwrap();
    assert!(plan.superseded.is_empty() && plan.writes.is_empty());
    // A value instead of it is new: version 1, and the external one is left alone.
    let plan = update.to(json!({"s": "own value"})).unwrap();
    assert_eq!(plan.writes[0].coordinate.version(), 1);
    assert!(plan.superseded.is_empty());
}

#[test]
fn places_of_saved_pointers_are_secret_too() {
    let update = Update::of(json!({"lost": own(1), "host": own(2)})).stored(own(1), "v");
    update.keeps(json!({"lost": MASK, "host": MASK}));
    update.keeps(json!({"lost": "v", "host": own(2)}));
    let plan = update.to(json!({"lost": "new", "host": MASK})).unwrap();
    let name = plan.writes[0].coordinate.as_str();
    assert_eq!(plan.config["lost"]["_secret"], name);
    assert_eq!(plan.writes[0].coordinate.version(), 4);
}

#[test]
fn a_saved_raw_value_is_the_old_one_and_is_split_now() {
    let update = Update::of(json!({"s": "raw", "t": {"k": 1}}));
    for edited in [
        json!({"s": MASK, "t": MASK}),
        json!({"s": "raw", "t": {"k": 1}}),
    ] {
        let plan = update.to(edited).unwrap();
        let values: Vec<&str> = plan
            .writes
            .iter()
            .map(|write| write.value.expose())
            .collect();
        assert_eq!(values, ["raw", "{\"k\":1}"]);
        assert!(
            plan.writes
                .iter()
                .all(|write| write.coordinate.version() == 1)
        );
        assert!(plan.superseded.is_empty());
    }
    // Airbyte has stored masks as secrets; ours never does.
    Update::of(json!({"s": MASK})).refuses(json!({"s": MASK}), "/s", ProblemKind::MaskWithoutValue);
    Update::of(json!({"s": {"k": MASK}})).refuses(
        json!({"s": MASK}),
        "/s",
        ProblemKind::MaskWithoutValue,
    );
    // A row with the input form of a pointer, which asks the list as any input does.
    let update = Update::of(json!({"s": "secret_coordinate::team/x"}));
    update.refuses(json!({"s": MASK}), "/s", ProblemKind::ExternalNotAllowed);
    let update = update.policy(Policy::default().with_external_prefix(None, "team/"));
    assert_eq!(
        update.to(json!({"s": MASK})).unwrap().config,
        json!({"s": {"_secret": "team/x"}})
    );
}

#[test]
fn masks_without_a_saved_secret_are_errors() {
    let update = Update::of(json!({"host": "db", "s": null, "t": ""}));
    update.refuses(json!({"s": MASK}), "/s", ProblemKind::MaskWithoutValue);
    update.refuses(json!({"t": MASK}), "/t", ProblemKind::MaskWithoutValue);
    update.refuses(
        json!({"list": [{"s": MASK}]}),
        "/list/0/s",
        ProblemKind::MaskWithoutValue,
    );
    update.refuses(
        json!({"host": MASK}),
        "/host",
        ProblemKind::MaskOutsideSecret,
    );
}

#[test]
fn a_malformed_saved_pointer_is_healed_by_a_value_and_by_nothing_else() {
    let update = Update::of(json!({"s": {"_secret": 5}, "lost": {"_secret": 5}}));
    assert_eq!(update.to(json!({"s": "new"})).unwrap().writes.len(), 1);
    update.refuses(json!({"s": MASK}), "/s", ProblemKind::MalformedPointer);
    update.refuses(
        json!({"lost": {"_secret": 5}}),
        "/lost",
        ProblemKind::MalformedPointer,
    );
}

#[test]
fn objects_with_a_pointers_key_outside_secrets_have_to_be_saved_ones_at_their_place() {
    let update = Update::of(json!({"lost": own(1), "list": []}));
    update.keeps(json!({"lost": own(1), "list": []}));
    update.refuses(
        json!({"x": own(1)}),
        "/x",
        ProblemKind::PointerOutsideSecret,
    );
    update.refuses(
        json!({"host": {"_secret": 5}}),
        "/host",
        ProblemKind::PointerOutsideSecret,
    );
}

#[test]
fn references_are_kept_whole_or_replaced_whole() {
    let reference = json!({"_secret": own_name(1), "_secret_reference_id": REFERENCE});
    let mut update = Update::of(json!({"s": reference})).stored(reference.clone(), "v");
    update.references.insert(
        REFERENCE.parse().unwrap(),
        Location::new(Coordinate::parse(&own_name(1)).unwrap()),
    );
    update.keeps(json!({"s": MASK}));
    update.keeps(json!({"s": "v"}));
    update.keeps(json!({"s": reference}));
    update.refuses(json!({"s": own(1)}), "/s", ProblemKind::ForeignPointer);
    let plan = update.to(json!({"s": "new"})).unwrap();
    assert_eq!(plan.writes[0].coordinate.version(), 1);
    assert!(plan.config["s"].get("_secret_reference_id").is_none());
    assert!(plan.superseded.is_empty());
    let [(place, released)] = &plan.released_references[..] else {
        panic!()
    };
    assert_eq!(
        (place.as_str(), released.to_value()),
        ("/s", reference.clone())
    );

    // A reference row that names another coordinate than stands beside it.
    update.references.insert(
        REFERENCE.parse().unwrap(),
        Location::new(Coordinate::parse(&own_name(9)).unwrap()),
    );
    update.refuses(json!({"s": MASK}), "/s", ProblemKind::ReferenceMismatch);
}

#[test]
fn what_a_kept_reference_names_is_not_superseded() {
    let reference = json!({"_secret_reference_id": REFERENCE});
    let mut update = Update::of(json!({"s": own(1), "t": reference}));
    update.references.insert(
        REFERENCE.parse().unwrap(),
        Location::new(Coordinate::parse(&own_name(1)).unwrap()),
    );
    let plan = update.to(json!({"t": MASK})).unwrap();
    assert!(plan.superseded.is_empty());
}

#[test]
fn a_mark_that_moved_outward_stores_the_whole_with_its_old_values() {
    let external = json!({"_secret": "team/x"});
    let saved = json!({"s": {"user": "u", "password": own(1), "keys": [external, own(2)]}});
    let update = Update::of(saved.clone())
        .stored(own(1), "hunter2")
        .stored(own(2), "key2")
        .stored(external.clone(), "key1");
    let whole = json!({"user": "u", "password": "hunter2", "keys": ["key1", "key2"]});
    let masked = json!({"user": "u", "password": MASK, "keys": [MASK, MASK]});
    for edited in [json!(MASK), saved["s"].clone(), masked] {
        assert_eq!(
            update.needed(&json!({"s": edited})).unwrap().len(),
            3,
            "{edited}"
        );
        let plan = update.to(json!({"s": edited})).unwrap();
        let [write] = &plan.writes[..] else {
            panic!("{edited}")
        };
        assert_eq!(
            serde_json::from_str::<Value>(write.value.expose()).unwrap(),
            whole
        );
        assert_eq!(write.coordinate.version(), 1);
        assert_eq!(superseded(&plan), [own(1), own(2)]);
    }
    let with_other = |pointer: Value| json!({"s": {"user": "u", "password": pointer}});
    update.refuses(with_other(own(3)), "/s", ProblemKind::ForeignPointer);
    update.refuses(
        with_other(external),
        "/s",
        ProblemKind::PointerOutsideSecret,
    );
    update.refuses(
        json!({"s": {"user": MASK}}),
        "/s",
        ProblemKind::MaskWithoutValue,
    );
    // A secret that the store no longer has cannot be part of the whole.
    let gone = Update::of(saved);
    let error = gone.to(json!({"s": MASK})).unwrap_err();
    assert_eq!(error.problems().len(), 3);
    assert!(
        error
            .problems()
            .iter()
            .all(|problem| problem.kind() == ProblemKind::Store)
    );
}

#[test]
fn guarded_places_make_secrets_be_entered_again() {
    let policy = Policy::default()
        .with_guarded_place("/host".parse().unwrap())
        .with_guarded_place("/list".parse().unwrap());
    let saved = json!({"host": "db", "port": 1, "s": own(1), "list": [{"h": "a", "s": own(2)}]});
    let update = Update::of(saved).stored(own(1), "v").policy(policy);
    let list = json!([{"h": "a", "s": MASK}]);
    // Nothing guarded has changed: a mask instead of a pointer is no change.
    let plan = update
        .to(json!({"host": "db", "port": 2, "s": MASK, "list": list}))
        .unwrap();
    assert!(plan.writes.is_empty());
    for value in [json!(MASK), own(1)] {
        let edited = json!({"host": "evil", "s": value});
        update.refuses(edited, "/s", ProblemKind::GuardedPlaceChanged);
        let edited = json!({"host": "db", "s": value, "list": [{"h": "evil"}]});
        update.refuses(edited, "/s", ProblemKind::GuardedPlaceChanged);
        update.refuses(
            json!({"s": value, "list": [{"h": "a"}]}),
            "/s",
            ProblemKind::GuardedPlaceChanged,
        );
    }
    // Who enters the secret knows it.
    let plan = update.to(json!({"host": "other", "s": "v"})).unwrap();
    assert!(plan.writes.is_empty());
    // A restored whole is a kept secret too.
    let moved = Update::of(json!({"host": "db", "s": {"k": own(1)}}))
        .policy(Policy::default().with_guarded_place("/host".parse().unwrap()))
        .stored(own(1), "v");
    moved.refuses(
        json!({"host": "evil", "s": MASK}),
        "/s",
        ProblemKind::GuardedPlaceChanged,
    );
    moved.refuses(
        json!({"host": "evil", "s": {"k": MASK}}),
        "/s",
        ProblemKind::GuardedPlaceChanged,
    );
}

/// Otherwise a host that is secret itself is changed, and the password goes there.
#[test]
fn a_guarded_place_may_be_a_secret_itself() {
    let guarded = |place: &str| Policy::default().with_guarded_place(place.parse().unwrap());
    let update = Update::of(json!({"s": own(1), "t": own(2), "u": "clear"}))
        .stored(own(1), "password")
        .stored(own(2), "https://db")
        .policy(guarded("/t"));
    for same in [json!(MASK), own(2), json!("https://db")] {
        update.keeps(json!({"t": same, "s": MASK, "u": "clear"}));
    }
    for value in [json!(MASK), own(1)] {
        let edited = json!({"t": "https://evil", "s": value});
        update.refuses(edited, "/s", ProblemKind::GuardedPlaceChanged);
        let external = json!({"t": null, "s": value});
        update.refuses(external, "/s", ProblemKind::GuardedPlaceChanged);
        update.refuses(
            json!({ "s": value }),
            "/s",
            ProblemKind::GuardedPlaceChanged,
        );
    }
    // Another saved secret is not this place's own.
    let swapped = update.to(json!({"t": own(1), "s": own(2)})).unwrap_err();
    assert_eq!(swapped.problems().len(), 2, "{swapped}");
    let entered = update.to(json!({"t": "https://other", "s": "password"}));
    assert_eq!(entered.unwrap().writes.len(), 1);

    // The first time that it is split, too.
    let raw = Update::of(json!({"s": own(1), "t": "https://db"})).policy(guarded("/t"));
    assert_eq!(
        raw.to(json!({"t": MASK, "s": MASK})).unwrap().writes.len(),
        1
    );
    let edited = json!({"t": "https://evil", "s": MASK});
    raw.refuses(edited, "/s", ProblemKind::GuardedPlaceChanged);
}

#[test]
fn secrets_inside_of_a_guarded_place_and_around_it_are_guarded_too() {
    let guarded = |place: &str| Policy::default().with_guarded_place(place.parse().unwrap());
    let list = |secret: Value| json!({"list": [{"name": "a", "s": secret}], "s": MASK});
    let update = Update::of(json!({"list": [{"name": "a", "s": own(1)}], "s": own(2)}))
        .stored(own(1), "old")
        .policy(guarded("/list"));
    update.keeps(list(json!(MASK)));
    update.keeps(list(json!("old")));
    update.refuses(list(json!("new")), "/s", ProblemKind::GuardedPlaceChanged);
    update.refuses(list(json!(null)), "/s", ProblemKind::GuardedPlaceChanged);
    let removed = json!({"list": [{"name": "a"}], "s": MASK});
    update.refuses(removed, "/s", ProblemKind::GuardedPlaceChanged);

    // A host inside of an object that is one secret.
    let whole = json!({"_secret": own_name(1), "_secret_encoding": "json"});
    let update = Update::of(json!({"s": whole, "t": own(2)}))
        .stored(whole.clone(), r#"{"host":"db"}"#)
        .policy(guarded("/s/host"));
    update.keeps(json!({"s": MASK, "t": MASK}));
    update.keeps(json!({"s": {"host": "db"}, "t": MASK}));
    let edited = json!({"s": {"host": "evil"}, "t": MASK});
    update.refuses(edited, "/t", ProblemKind::GuardedPlaceChanged);
}

/// Otherwise each secret lands in the other element.
#[test]
fn lists_of_schemas_correspond_by_position_though_their_marks_are_gone() {
    let element = |mark: bool| {
        let k = if mark {
            json!({"airbyte_secret": true})
        } else {
            json!({})
        };
        json!({"properties": {"n": {}, "k": k}})
    };
    for keyword in ["prefixItems", "items"] {
        for others in [false, true] {
            let list = json!({keyword: [element(false), element(false)]});
            let mut update =
                Update::of(json!({"l": [{"n": 1, "k": own(1)}, {"n": 2, "k": own(2)}]}));
            update.spec = ConnectorSpec::compile(
                &json!({"properties": {"l": list, "other": element(others)}}),
            )
            .unwrap();
            let edited = json!({"l": [{"n": 2, "k": MASK}, {"n": 1, "k": MASK}]});
            let plan = update.to(edited).unwrap();
            let expected = json!({"l": [{"n": 2, "k": own(1)}, {"n": 1, "k": own(2)}]});
            assert_eq!(plan.config, expected, "{keyword}");
        }
    }
}

/// An element of `list` with its secret.
fn item(name: &str, secret: Value) -> Value {
    json!({"name": name, "s": secret})
}

#[test]
fn array_elements_correspond_by_content_and_else_by_position() {
    let [a, b, c] = [1, 2, 3].map(own);
    let saved = json!({"list": [item("a", a.clone()), item("b", b.clone()), item("c", c.clone())]});
    let update = Update::of(saved);
    let mask = || json!(MASK);
    let list = |items: Vec<Value>| json!({"list": items});
    for (edited, expected) in [
        // Reordered.
        (
            vec![item("c", mask()), item("a", mask()), item("b", mask())],
            vec![&c, &a, &b],
        ),
        // One removed: its secret goes, the others keep theirs.
        (vec![item("a", mask()), item("c", mask())], vec![&a, &c]),
        // One renamed, nothing moved.
        (
            vec![item("a", mask()), item("x", mask()), item("c", mask())],
            vec![&a, &b, &c],
        ),
    ] {
        let plan = update.to(list(edited.clone())).unwrap();
        let secrets: Vec<&Value> = plan.config["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| &item["s"])
            .collect();
        assert_eq!(secrets, expected, "{edited:?}");
        assert_eq!(plan.superseded.len(), 3 - expected.len());
    }
    for (edited, place) in [
        // Renamed while another moved: nobody knows whose secret the mask is.
        (
            vec![item("b", mask()), item("a", mask()), item("x", mask())],
            "/list/2/s",
        ),
        // Renamed while the length changed.
        (vec![item("a", mask()), item("x", mask())], "/list/1/s"),
        (
            vec![
                item("a", mask()),
                item("b", mask()),
                item("c", mask()),
                item("d", mask()),
            ],
            "/list/3/s",
        ),
        // Not unique.
        (vec![item("a", a.clone()), item("a", mask())], "/list/1/s"),
    ] {
        update.refuses(list(edited), place, ProblemKind::MaskWithoutValue);
    }
    // A new element with its secret, at the front.
    let plan = update
        .to(list(vec![
            item("n", json!("new")),
            item("a", mask()),
            item("b", mask()),
            item("c", mask()),
        ]))
        .unwrap();
    assert_eq!(plan.writes.len(), 1);
    assert_eq!(plan.writes[0].coordinate.version(), 1);
    assert!(plan.superseded.is_empty());
}

#[test]
fn equal_elements_correspond_by_position_only_where_nothing_moved() {
    let saved = json!({"list": [item("a", own(1)), item("a", own(2)), item("b", own(3))]});
    let update = Update::of(saved);
    update.keeps(
        json!({"list": [item("a", json!(MASK)), item("a", json!(MASK)), item("b", json!(MASK))]}),
    );
    let edited =
        json!({"list": [item("b", json!(MASK)), item("a", json!(MASK)), item("a", json!(MASK))]});
    let error = update.to(edited).unwrap_err();
    assert_eq!(error.problems().len(), 2);
}

#[test]
fn bare_secrets_correspond_by_position_or_are_sent_as_pointers() {
    let update = Update::of(json!({"bare": [own(1), own(2)]}))
        .stored(own(1), "one")
        .stored(own(2), "two");
    update.keeps(json!({"bare": [MASK, MASK]}));
    update.keeps(json!({"bare": ["one", MASK]}));
    let plan = update.to(json!({"bare": [own(2), own(1)]})).unwrap();
    assert_eq!(plan.config, json!({"bare": [own(2), own(1)]}));
    let plan = update.to(json!({"bare": [own(2)]})).unwrap();
    assert_eq!(superseded(&plan), [own(1)]);
    update.refuses(
        json!({"bare": [own(1), own(2), MASK]}),
        "/bare/2",
        ProblemKind::MaskWithoutValue,
    );
}

#[test]
fn lists_of_schemas_correspond_by_position_only() {
    let saved = json!({"tuple": [item("a", own(1)), item("b", own(2)), item("c", own(3)), item("d", own(4))]});
    let update = Update::of(saved);
    let mask = || json!(MASK);
    // The first two have schemas of their own: their secrets stay, whatever moves.
    let plan = update
        .to(json!({"tuple": [item("b", mask()), item("a", mask()), item("d", mask())]}))
        .unwrap();
    let secrets: Vec<&Value> = plan.config["tuple"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["s"])
        .collect();
    assert_eq!(secrets, [&own(1), &own(2), &own(4)]);
}

#[test]
fn nested_arrays_correspond_inside_of_matched_parents() {
    let saved = json!({"nested": [
        [item("a", own(1)), item("b", own(2))],
        [item("c", own(3)), item("d", own(4))],
    ]});
    let update = Update::of(saved);
    let mask = || json!(MASK);
    let plan = update
        .to(json!({"nested": [[item("c", mask()), item("d", mask())], [item("a", mask()), item("b", mask())]]}))
        .unwrap();
    assert_eq!(plan.config["nested"][0][1]["s"], own(4));
    assert!(plan.superseded.is_empty());
    // Inside of an element that nothing moved.
    let plan = update
        .to(json!({"nested": [[item("b", mask())], [item("c", mask()), item("d", mask())]]}))
        .unwrap();
    assert_eq!(plan.config["nested"][0][0]["s"], own(2));
    assert_eq!(superseded(&plan), [own(1)]);
}

#[test]
fn a_removed_or_added_secret_does_not_hide_which_element_it_is() {
    let update = Update::of(json!({"list": [item("a", own(1)), {"name": "b"}, item("c", own(3))]}));
    let plan = update
        .to(json!({"list": [item("c", json!(MASK)), {"name": "a"}, item("b", json!("new"))]}))
        .unwrap();
    assert_eq!(plan.config["list"][0]["s"], own(3));
    assert_eq!(superseded(&plan), [own(1)]);
    assert_eq!(plan.writes.len(), 1);
}

#[test]
fn new_pointers_of_an_update_name_the_storage_that_is_written() {
    let policy = Policy::default().with_write_storage(Some(StorageId::parse("other").unwrap()));
    let update = Update::of(json!({"s": own(1), "t": own(2)})).policy(policy);
    let plan = update.to(json!({"s": "new", "t": MASK})).unwrap();
    assert_eq!(plan.config["s"]["_secret_storage_id"], "other");
    assert_eq!(plan.config["t"], own(2));
}

#[test]
fn problems_are_found_before_anything_is_read() {
    let update = Update::of(json!({"s": own(1)}));
    let edited = json!({"s": "value", "t": MASK});
    let error = update.needed(&edited).unwrap_err();
    assert_eq!(error.problems()[0].kind(), ProblemKind::MaskWithoutValue);
}
