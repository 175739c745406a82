//! Every keyword and draft, on schemas of our own: the public specifications use few of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::ConnectorSpec;
use crate::connector::{ConnectorError, ProblemKind};

/// Sorted, because the order of a map's keys depends on a feature that any user of the tree switches on.
fn places(schema: &Value, config: &Value) -> Vec<String> {
    let mut places: Vec<String> = ConnectorSpec::compile(schema)
        .unwrap_or_else(|error| panic!("{schema} does not compile: {error}"))
        .secret_places(config)
        .unwrap_or_else(|error| panic!("{config} is refused: {error}"))
        .into_iter()
        .map(|place| place.as_str().to_owned())
        .collect();
    places.sort();
    places
}

fn refused(schema: &Value) -> ConnectorError {
    ConnectorSpec::compile(schema).expect_err("it compiles")
}

/// A schema that marks its place.
fn secret() -> Value {
    json!({"type": "string", "airbyte_secret": true})
}

/// Every keyword that leads to schemas; each has a case below that fails without it.
const KEYWORDS: [&str; 28] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveAnchor",
    "$recursiveRef",
    "$ref",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "contentSchema",
    "dependencies",
    "dependentSchemas",
    "else",
    "if",
    "items (list)",
    "items (schema)",
    "not",
    "oneOf",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

const DRAFTS: [&str; 6] = [
    "http://json-schema.org/draft-03/schema#",
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
];

struct Case {
    keyword: &'static str,
    draft: &'static str,
    schema: Value,
    config: Value,
    secret: &'static [&'static str],
}

/// A case for a keyword, of the draft that brought it or is known for it.
fn case(
    keyword: &'static str,
    draft: usize,
    mut schema: Value,
    config: Value,
    secret: &'static [&'static str],
) -> Case {
    schema["$schema"] = json!(DRAFTS[draft]);
    Case {
        keyword,
        draft: DRAFTS[draft],
        schema,
        config,
        secret,
    }
}

fn cases() -> Vec<Case> {
    let marked = || json!({"properties": {"p": secret()}});
    let value = || json!({"p": "v", "q": "v"});
    vec![
        case("properties", 0, marked(), value(), &["/p"]),
        case(
            "allOf",
            1,
            json!({"allOf": [{}, marked()]}),
            value(),
            &["/p"],
        ),
        case(
            "anyOf",
            1,
            json!({"anyOf": [{}, marked()]}),
            value(),
            &["/p"],
        ),
        case(
            "oneOf",
            1,
            json!({"oneOf": [{}, marked()]}),
            value(),
            &["/p"],
        ),
        case("not", 1, json!({"not": marked()}), value(), &["/p"]),
        case("if", 3, json!({"if": marked()}), value(), &["/p"]),
        case(
            "then",
            3,
            json!({"if": {}, "then": marked()}),
            value(),
            &["/p"],
        ),
        case(
            "else",
            3,
            json!({"if": {}, "else": marked()}),
            value(),
            &["/p"],
        ),
        // Whatever stands beside them: properties do not hide combinators, nor one the other.
        case(
            "oneOf",
            3,
            json!({"properties": {"q": {}}, "anyOf": [{}], "oneOf": [{"allOf": [marked()]}]}),
            value(),
            &["/p"],
        ),
        case(
            "dependentSchemas",
            4,
            json!({"dependentSchemas": {"q": marked()}}),
            value(),
            &["/p"],
        ),
        case(
            "dependencies",
            3,
            json!({"dependencies": {"q": marked(), "r": ["p"]}}),
            value(),
            &["/p"],
        ),
        case(
            "$ref",
            3,
            json!({"$ref": "#/definitions/a", "definitions": {"a": marked()}}),
            value(),
            &["/p"],
        ),
        // With its siblings, which drafts before 2019-09 ignore.
        case(
            "$ref",
            3,
            json!({"$ref": "#/definitions/a", "properties": {"q": secret()}, "definitions": {"a": marked()}}),
            value(),
            &["/p", "/q"],
        ),
        case(
            "$ref",
            5,
            json!({"properties": {"p": {"$ref": "#/$defs/a%20b~1c~0d%25"}}, "$defs": {"a b/c~d%": secret()}}),
            value(),
            &["/p"],
        ),
        case(
            "$ref",
            5,
            json!({"$ref": "#/x-own/0", "x-own": [marked()]}),
            value(),
            &["/p"],
        ),
        case(
            "$anchor",
            4,
            json!({"$ref": "#a", "$defs": {"x": {"$anchor": "a", "allOf": [marked()]}}}),
            value(),
            &["/p"],
        ),
        case(
            "$anchor",
            2,
            json!({"$ref": "#a", "definitions": {"x": {"$id": "#a", "allOf": [marked()]}}}),
            value(),
            &["/p"],
        ),
        case(
            "$anchor",
            1,
            json!({"$ref": "#a", "definitions": {"x": {"id": "#a", "allOf": [marked()]}}}),
            value(),
            &["/p"],
        ),
        case(
            "$id",
            3,
            json!({
                "$id": "https://example.com/spec.json#",
                "allOf": [{"$ref": "https://example.com/spec.json#/definitions/a"}],
                "definitions": {"a": marked()},
            }),
            value(),
            &["/p"],
        ),
        case(
            "$id",
            5,
            json!({
                "$id": "https://example.com/spec.json",
                "properties": {"c": {"$ref": "https://example.com/spec.json"}, "p": secret()},
            }),
            json!({"c": {"c": {"p": "v"}}}),
            &["/c/c/p"],
        ),
        case(
            "$dynamicRef",
            5,
            json!({
                "properties": {"c": {"$dynamicRef": "#node"}},
                "$defs": {
                    "a": {"$dynamicAnchor": "node", "properties": {"p": secret()}},
                    "b": {"$dynamicAnchor": "node", "properties": {"q": secret()}},
                },
            }),
            json!({"c": {"p": "v", "q": "v", "r": "v"}}),
            &["/c/p", "/c/q"],
        ),
        case(
            "$dynamicAnchor",
            5,
            json!({"$ref": "#node", "$defs": {"a": {"$dynamicAnchor": "node", "allOf": [marked()]}}}),
            value(),
            &["/p"],
        ),
        case(
            "$recursiveRef",
            4,
            json!({"properties": {"p": secret(), "c": {"$recursiveRef": "#"}}}),
            json!({"c": {"c": {"p": "v"}}}),
            &["/c/c/p"],
        ),
        case(
            "$recursiveAnchor",
            4,
            json!({
                "properties": {"c": {"$recursiveRef": "#"}},
                "$defs": {"a": {"$recursiveAnchor": true, "properties": {"p": secret()}}},
            }),
            json!({"c": {"p": "v", "q": "v"}}),
            &["/c/p"],
        ),
        case(
            "patternProperties",
            3,
            json!({"patternProperties": {"^p": secret(), "_key$": secret()}}),
            json!({"p": "v", "pq": "v", "q_key": "v", "q": "v"}),
            &["/p", "/pq", "/q_key"],
        ),
        // A pattern says something of listed names too.
        case(
            "patternProperties",
            3,
            json!({"properties": {"p": {}}, "patternProperties": {"^p": secret()}}),
            value(),
            &["/p"],
        ),
        case(
            "additionalProperties",
            3,
            json!({
                "properties": {"q": {}},
                "patternProperties": {"^x-": {}},
                "additionalProperties": secret(),
            }),
            json!({"p": "v", "q": "v", "x-a": "v", "a.b": "v", "": "v"}),
            &["/", "/a.b", "/p"],
        ),
        // What another branch lists is not covered by this one's properties.
        case(
            "additionalProperties",
            3,
            json!({"allOf": [{"properties": {"q": {}}}, {"additionalProperties": secret()}]}),
            value(),
            &["/p", "/q"],
        ),
        case(
            "unevaluatedProperties",
            4,
            json!({"properties": {"q": {}}, "unevaluatedProperties": secret()}),
            value(),
            &["/p"],
        ),
        case(
            "items (schema)",
            3,
            json!({"items": secret()}),
            json!(["v", "v"]),
            &["/0", "/1"],
        ),
        case(
            "items (schema)",
            3,
            json!({"items": {"items": {"properties": {"p": secret()}}}}),
            json!([[{"p": "v"}, {"p": "v", "q": "v"}], []]),
            &["/0/0/p", "/0/1/p"],
        ),
        case(
            "items (list)",
            3,
            json!({"items": [{}, secret()]}),
            json!(["v", "v", "v"]),
            &["/1"],
        ),
        case(
            "additionalItems",
            3,
            json!({"items": [{}], "additionalItems": secret()}),
            json!(["v", "v", "v"]),
            &["/1", "/2"],
        ),
        case(
            "prefixItems",
            5,
            json!({"prefixItems": [{}, secret()]}),
            json!(["v", "v", "v"]),
            &["/1"],
        ),
        // Beside `prefixItems`, `items` is about the rest where that keyword is known,
        case(
            "prefixItems",
            5,
            json!({"prefixItems": [{}], "items": secret()}),
            json!(["v", "v"]),
            &["/1"],
        ),
        // and about every element where it is not.
        case(
            "prefixItems",
            3,
            json!({"prefixItems": [{}], "items": secret()}),
            json!(["v", "v"]),
            &["/0", "/1"],
        ),
        case(
            "contains",
            2,
            json!({"contains": secret()}),
            json!(["v", "v"]),
            &["/0", "/1"],
        ),
        case(
            "unevaluatedItems",
            4,
            json!({"items": [{}], "unevaluatedItems": secret()}),
            json!(["v", "v"]),
            &["/1"],
        ),
        case(
            "contentSchema",
            4,
            json!({"properties": {"p": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"properties": {"k": {"$ref": "#/$defs/s"}}},
            }, "q": {"type": "string", "contentSchema": {"type": "object"}}}, "$defs": {"s": secret()}}),
            value(),
            &["/p"],
        ),
        case(
            "propertyNames",
            2,
            json!({"propertyNames": {"pattern": "^[a-z]"}, "properties": {"p": secret()}}),
            value(),
            &["/p"],
        ),
    ]
}

#[test]
fn every_keyword_and_draft_is_followed() {
    let cases = cases();
    for case in &cases {
        assert_eq!(
            places(&case.schema, &case.config),
            case.secret,
            "{} in {}",
            case.keyword,
            case.schema
        );
    }
    let keywords: BTreeSet<&str> = cases.iter().map(|case| case.keyword).collect();
    assert_eq!(keywords, BTreeSet::from(KEYWORDS));
    let drafts: BTreeSet<&str> = cases.iter().map(|case| case.draft).collect();
    assert_eq!(drafts, BTreeSet::from(DRAFTS));
    println!(
        "{} schemas, {} keywords, {} drafts",
        cases.len(),
        keywords.len(),
        drafts.len()
    );
}

#[test]
fn a_mark_is_anything_but_false() {
    for (mark, is_secret) in [
        (json!(true), true),
        (json!("true"), true),
        (json!("no"), true),
        (json!(1), true),
        (json!({}), true),
        (json!(null), true),
        (json!(false), false),
        (json!("false"), false),
    ] {
        let schema = json!({"properties": {"p": {"airbyte_secret": mark}}});
        assert_eq!(
            places(&schema, &json!({"p": "v"})).len(),
            usize::from(is_secret),
            "{schema}"
        );
    }
}

#[test]
fn keywords_are_names_where_names_stand() {
    let schema = json!({"properties": {
        "airbyte_secret": {"type": "string"},
        "$ref": {"type": "string"},
        "$id": {"type": "string"},
        "$anchor": secret(),
        "default": secret(),
        "properties": {"type": "object", "properties": {"const": secret(), "enum": {}}},
        "definitions": {"$ref": "#/properties/default"},
    }});
    let config = json!({
        "airbyte_secret": "v", "$ref": "v", "$id": "v", "$anchor": "v", "default": "v",
        "properties": {"const": "v", "enum": "v"}, "definitions": "v",
    });
    let mut found = places(&schema, &config);
    found.sort();
    assert_eq!(
        found,
        ["/$anchor", "/default", "/definitions", "/properties/const"]
    );
}

#[test]
fn names_are_names() {
    let names = [
        "a.b", "a[0]", "a\"b", "a'b", " ", "*", "", "ключ", "a/b", "a~b", "0", "$",
    ];
    let properties: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), secret()))
        .collect();
    let config: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!("v")))
        .collect();
    let config = Value::Object(config);
    let spec = ConnectorSpec::compile(&json!({"properties": properties})).unwrap();
    let found = spec.secret_places(&config).unwrap();
    assert_eq!(found.len(), names.len());
    for place in found {
        assert_eq!(place.find(&config), Some(&json!("v")));
    }
}

#[test]
fn the_union_over_all_branches_and_the_outermost_secret() {
    let schema = json!({"oneOf": [
        {"properties": {"a": {"type": "string"}, "b": secret()}},
        {"properties": {"a": secret(), "b": {"properties": {"c": secret()}}}},
    ]});
    let config = json!({"a": "v", "b": {"c": "v"}});
    assert_eq!(places(&schema, &config), ["/a", "/b"]);
    for whole in [json!({"k": 1}), json!([1]), json!(5), json!(true)] {
        let schema = json!({"properties": {"p": {"airbyte_secret": true}}});
        assert_eq!(places(&schema, &json!({"p": whole})), ["/p"]);
    }
}

#[test]
fn a_pattern_that_no_engine_of_ours_knows_matches_every_name() {
    let schema = json!({"patternProperties": {"^(?!public)": secret()}});
    assert_eq!(
        places(&schema, &json!({"public": "v", "x": "v"})),
        ["/public", "/x"]
    );
    // It keeps no name from what covers the rest either.
    let schema = json!({"patternProperties": {"^(?!x)": {}}, "additionalProperties": secret()});
    assert_eq!(places(&schema, &json!({"x": "v", "y": "v"})), ["/x", "/y"]);
}

#[test]
fn patterns_together_lead_to_the_union_of_what_they_say() {
    let schema = json!({"patternProperties": {
        "^a": {"properties": {"p": secret()}},
        "z$": {"properties": {"q": secret(), "p": {}}},
        "^ab.*z$": {"items": secret()},
    }});
    let inner = json!({"p": "v", "q": "v"});
    let config = json!({"a": inner, "z": inner, "abz": inner, "n": inner});
    assert_eq!(
        places(&schema, &config),
        ["/a/p", "/abz/p", "/abz/q", "/z/q"]
    );
    assert_eq!(places(&schema, &json!({"abcz": ["v"]})), ["/abcz/0"]);
}

#[test]
fn references_that_lead_nowhere_we_may_go_are_named() {
    let in_a = |schema: Value| json!({"properties": {"a": schema}});
    let cases = [
        (
            in_a(json!({"$ref": "https://example.com/x.json"})),
            "/properties/a",
        ),
        (in_a(json!({"$ref": "other.json#/a"})), "/properties/a"),
        (
            in_a(json!({"$ref": "#/definitions/missing"})),
            "/properties/a",
        ),
        (in_a(json!({"$ref": "#missing"})), "/properties/a"),
        (in_a(json!({"$ref": "#/%ff"})), "/properties/a"),
        (
            in_a(json!({"$ref": "#/properties/a/$ref"})),
            "/properties/a",
        ),
        (in_a(json!({"$ref": 5})), "/properties/a"),
        (in_a(json!({"$dynamicRef": "#missing"})), "/properties/a"),
        (in_a(json!({"$recursiveRef": "#x"})), "/properties/a"),
        (
            in_a(json!({"$id": "nested", "$ref": "#/properties/a"})),
            "/properties/a",
        ),
        (
            in_a(
                json!({"$id": "nested", "properties": {"b": {"$ref": "#/definitions/c"}}, "definitions": {"c": {}}}),
            ),
            "/properties/a/properties/b",
        ),
        (
            json!({"properties": {"a": {"$ref": "#x"}}, "$defs": {"n": {"$id": "n", "$anchor": "x"}}}),
            "/properties/a",
        ),
        (
            json!({"properties": {"a": {"$ref": "#x"}}, "$defs": {"m": {"$anchor": "x"}, "n": {"$anchor": "x"}}}),
            "/properties/a",
        ),
        (
            json!({"$schema": DRAFTS[1], "properties": {"a": {"id": "n", "$ref": "#/properties"}}}),
            "/properties/a",
        ),
    ];
    for (schema, place) in cases {
        let error = refused(&schema);
        assert_eq!(error.problems().len(), 1, "{schema}: {error}");
        assert_eq!(error.problems()[0].kind(), ProblemKind::UnsupportedSchema);
        assert_eq!(error.problems()[0].place().as_str(), place, "{schema}");
    }
}

#[test]
fn a_mark_that_says_nothing_of_a_value_is_named() {
    for (schema, place) in [
        (json!({"x-extra": {"airbyte_secret": true}}), "/x-extra"),
        (
            json!({"extends": [{"properties": {"p": secret()}}]}),
            "/extends/0/properties/p",
        ),
        (
            json!({"type": [{"properties": {"p": secret()}}]}),
            "/type/0/properties/p",
        ),
        (json!({"properties": {"p": [secret()]}}), "/properties/p/0"),
        (json!({"propertyNames": secret()}), "/propertyNames"),
        (
            json!({"propertyNames": {"$ref": "#/$defs/s"}, "$defs": {"s": secret()}}),
            "/propertyNames",
        ),
        // Part of a definition that is referred to.
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"x-extra": {"airbyte_secret": true}}}}),
            "/$defs/a/x-extra",
        ),
    ] {
        let error = refused(&schema);
        assert_eq!(error.problems()[0].place().as_str(), place, "{error}");
        assert_eq!(error.problems()[0].kind(), ProblemKind::UnsupportedSchema);
    }
}

#[test]
fn what_a_reference_under_an_unknown_keyword_leads_to_is_reached_or_named() {
    let spec = |keyword: &str, value: Value| {
        json!({
            "properties": {"known": {"$ref": "#/$defs/s"}},
            keyword: value,
            "$defs": {
                "s": secret(),
                "deep": {"properties": {"p": {"$ref": "#/$defs/other"}}},
                "other": {"anyOf": [secret()]},
                "named": {"$anchor": "named", "items": secret()},
                "plain": {"properties": {"p": {"type": "string"}}},
                "hidden": {"x-more": {"$ref": "#/$defs/s"}},
                "round": {"properties": {"r": {"$ref": "#/$defs/round"}, "p": secret()}},
            },
        })
    };
    for (keyword, value, place) in [
        ("extends", json!({"$ref": "#/$defs/s"}), "/extends"),
        ("extends", json!([{"$ref": "#/$defs/deep"}]), "/extends/0"),
        (
            "type",
            json!([{"$ref": "#/$defs/deep"}, "string"]),
            "/type/0",
        ),
        (
            "selectCases",
            json!({"a": {"$ref": "#/$defs/deep"}}),
            "/selectCases/a",
        ),
        (
            "$merge",
            json!({"source": {"$ref": "#named"}, "with": {}}),
            "/$merge/source",
        ),
        (
            "x",
            json!({"y": {"z": [[{"$ref": "#/$defs/other"}]]}}),
            "/x/y/z/0/0",
        ),
        ("x", json!({"$dynamicRef": "#named"}), "/x"),
        ("x", json!({"$recursiveRef": "#"}), "/x"),
        ("x", json!({"$ref": "#/$defs/round"}), "/x"),
        // Through a keyword nobody knows in what is referred to.
        (
            "allOf",
            json!([{"$ref": "#/$defs/hidden"}]),
            "/$defs/hidden/x-more",
        ),
        (
            "x",
            json!({"$ref": "#/$defs/hidden"}),
            "/$defs/hidden/x-more",
        ),
        // Where a keyword stands, a name may be meant.
        (
            "selectCases",
            json!({"default": {"$ref": "#/$defs/s"}}),
            "/selectCases/default",
        ),
        (
            "selectCases",
            json!({"default": secret()}),
            "/selectCases/default",
        ),
        (
            "selectCases",
            json!({"properties": secret()}),
            "/selectCases/properties",
        ),
        // Nobody knows what is there.
        ("x", json!({"$ref": "https://example.com/x.json"}), "/x"),
        ("x", json!({"$ref": "#/$defs/missing"}), "/x"),
    ] {
        let schema = spec(keyword, value);
        let error = refused(&schema);
        let places: Vec<&str> = error
            .problems()
            .iter()
            .map(|problem| problem.place().as_str())
            .collect();
        assert_eq!(places, [place], "{schema}");
        assert_eq!(error.problems()[0].kind(), ProblemKind::UnsupportedSchema);
    }
    for value in [
        json!({"$ref": "#/$defs/plain"}),
        json!([{"$ref": "#/$defs/plain"}]),
        json!({"$ref": {"type": "string"}}),
        json!("#/$defs/s"),
    ] {
        assert_eq!(
            places(&spec("x", value), &json!({"known": "v"})),
            ["/known"]
        );
    }
    let data =
        json!({"properties": {"p": {"default": {"$ref": "#/$defs/s"}}}, "$defs": {"s": secret()}});
    assert!(places(&data, &json!({"p": "v"})).is_empty());
}

#[test]
fn marks_where_no_schema_can_stand_are_named() {
    for keyword in [
        "properties",
        "patternProperties",
        "dependencies",
        "dependentSchemas",
        "$defs",
        "definitions",
    ] {
        for (value, below) in [
            (json!([secret()]), "0"),
            (json!([{"p": secret()}]), "0/p"),
            (json!([[secret()]]), "0/0"),
        ] {
            let error = refused(&json!({keyword: value}));
            assert_eq!(error.problems().len(), 1, "{error}");
            assert_eq!(
                error.problems()[0].place().as_str(),
                format!("/{keyword}/{below}")
            );
        }
    }
    for keyword in ["allOf", "anyOf", "oneOf", "prefixItems"] {
        let error = refused(&json!({keyword: {"p": secret()}}));
        assert_eq!(
            error.problems()[0].place().as_str(),
            format!("/{keyword}/p")
        );
    }
    for keyword in [
        "if",
        "not",
        "additionalProperties",
        "contains",
        "unevaluatedItems",
    ] {
        let error = refused(&json!({keyword: [secret()]}));
        assert_eq!(
            error.problems()[0].place().as_str(),
            format!("/{keyword}/0")
        );
    }
}

#[test]
fn marks_in_data_and_in_unused_definitions_say_nothing() {
    let marked = json!({"airbyte_secret": true});
    let schema = json!({
        "properties": {"p": {"default": marked, "examples": [marked], "enum": [marked, "v"]}, "q": {"const": marked}},
        "definitions": {"unused": {"properties": {"s": secret()}}},
        "$defs": {"unused": {"x-extra": marked}},
    });
    assert!(places(&schema, &json!({"p": "v"})).is_empty());
}

#[test]
fn all_problems_of_a_specification_are_reported_together() {
    let schema = json!({"properties": {
        "a": {"$ref": "#/missing"}, "b": {"$ref": "x.json"}, "c": {"x": {"airbyte_secret": 1}},
    }});
    let places: Vec<String> = refused(&schema)
        .problems()
        .iter()
        .map(|problem| problem.place().to_string())
        .collect();
    assert_eq!(
        places,
        ["/properties/a", "/properties/b", "/properties/c/x"]
    );
}

#[test]
fn what_is_no_schema_is_refused_as_a_specification() {
    for specification in [json!(null), json!("x"), json!([]), json!(5)] {
        assert_eq!(
            refused(&specification).problems()[0].kind(),
            ProblemKind::UnsupportedSchema
        );
    }
    for specification in [json!({}), json!(true), json!(false)] {
        assert!(places(&specification, &json!({"a": "v"})).is_empty());
    }
}

#[test]
fn a_type_that_no_schema_admits_is_refused_where_secrets_lie_below() {
    let object = json!({"type": "object", "properties": {"p": secret()}});
    let refused_and_admitted = [
        (
            object.clone(),
            vec![json!("u:p"), json!(5), json!(true), json!(["x"])],
            vec![json!({}), json!(null), json!("")],
        ),
        (
            json!({"properties": {"p": secret()}}),
            vec![json!("u:p")],
            vec![json!({})],
        ),
        (
            json!({"type": "array", "items": secret()}),
            vec![json!("u:p"), json!({"0": "p"})],
            vec![json!([])],
        ),
        (
            json!({"oneOf": [object, {"type": "string"}]}),
            vec![json!(5)],
            vec![json!("x"), json!({})],
        ),
        (
            json!({"oneOf": [object, {"const": "none"}]}),
            vec![json!(5)],
            vec![json!("none"), json!({})],
        ),
        (
            json!({"oneOf": [object, {}]}),
            vec![],
            vec![json!("x"), json!(5)],
        ),
        (
            json!({"allOf": [object, {"description": "says nothing"}]}),
            vec![json!("x")],
            vec![json!({})],
        ),
        (
            json!({"title": "no type", "oneOf": [object]}),
            vec![json!("x")],
            vec![json!({})],
        ),
        (
            json!({"type": ["object", "string"], "properties": {"p": secret()}}),
            vec![json!(5)],
            vec![json!("x")],
        ),
        (
            json!({"$ref": "#/$defs/a"}),
            vec![json!("x")],
            vec![json!({})],
        ),
        (
            json!({"type": "string"}),
            vec![],
            vec![json!(5), json!({}), json!(["x"])],
        ),
    ];
    for (schema, wrong, right) in refused_and_admitted {
        let document = json!({
            "properties": {"c": schema},
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}, object]}},
        });
        let spec = ConnectorSpec::compile(&document).unwrap();
        for value in wrong {
            let error = spec
                .secret_places(&json!({"c": value}))
                .expect_err("it is admitted");
            assert_eq!(
                error.problems()[0].kind(),
                ProblemKind::TypeMismatch,
                "{schema} {value}"
            );
            assert_eq!(error.problems()[0].place().as_str(), "/c");
        }
        for value in right {
            let found = spec.secret_places(&json!({"c": value}));
            assert!(found.is_ok(), "{schema} {value}: {found:?}");
        }
    }
}

#[test]
fn exponential_and_cyclic_references_merge_or_are_refused() {
    // Two references a level, sixty levels: 2^60 ways, 60 merged nodes.
    let mut definitions = serde_json::Map::new();
    for level in 0..60 {
        let next = json!({"$ref": format!("#/$defs/l{}", level + 1)});
        definitions.insert(
            format!("l{level}"),
            json!({"allOf": [next, next], "anyOf": [next, next], "properties": {"a": next, "b": next}}),
        );
    }
    definitions.insert("l60".to_owned(), json!({"properties": {"p": secret()}}));
    let schema = json!({"$ref": "#/$defs/l0", "$defs": definitions});
    assert_eq!(
        places(&schema, &json!({"a": {"b": {"p": "v"}}})),
        ["/a/b/p"]
    );

    // References that go round, at one place and through the configuration.
    let schema = json!({
        "$ref": "#/$defs/a",
        "$defs": {
            "a": {"$ref": "#/$defs/b"},
            "b": {"allOf": [{"$ref": "#/$defs/a"}], "properties": {"p": secret(), "c": {"$ref": "#"}}},
        },
    });
    let mut config = json!({"p": "v"});
    for _ in 0..400 {
        config = json!({"c": config});
    }
    assert_eq!(places(&schema, &config).len(), 1);

    // An automaton that needs 2^20 states: "the twentieth place from the end".
    let mut definitions = serde_json::Map::new();
    for level in 0..20 {
        let next = json!({"$ref": format!("#/$defs/l{}", level + 1)});
        definitions.insert(
            format!("l{level}"),
            json!({"properties": {"a": next, "b": next}}),
        );
    }
    definitions.insert("l20".to_owned(), json!({"properties": {"p": secret()}}));
    let schema = json!({
        "properties": {
            "a": {"$ref": "#"},
            "b": {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/l0"}]},
        },
        "$defs": definitions,
    });
    let error = refused(&schema);
    assert_eq!(error.problems()[0].kind(), ProblemKind::LimitExceeded);
}
