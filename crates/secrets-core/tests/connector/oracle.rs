//! Where the secrets are, found the slow way: schema by schema, place by place, nothing merged.
//!
//! Shares no code with the library. Knows the keywords that [`arbitrary`](crate::arbitrary) makes.

use serde_json::{Map, Value};

/// The secret places of a configuration that hold something, as JSON Pointers, sorted.
pub(crate) fn secret_places(specification: &Value, config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    descend(
        specification,
        &[specification],
        config,
        String::new(),
        &mut found,
    );
    found.sort();
    found
}

fn descend(root: &Value, given: &[&Value], config: &Value, place: String, found: &mut Vec<String>) {
    if config.is_null() || config == "" {
        return;
    }
    let mut schemas = Vec::new();
    for schema in given {
        gather(root, schema, &mut schemas);
    }
    if schemas
        .iter()
        .any(|schema| schema.get("airbyte_secret") == Some(&Value::Bool(true)))
    {
        found.push(place);
        return;
    }
    match config {
        Value::Object(members) => {
            for (name, member) in members {
                let below: Vec<&Value> = schemas
                    .iter()
                    .flat_map(|schema| of_name(schema, name))
                    .collect();
                let escaped = name.replace('~', "~0").replace('/', "~1");
                descend(root, &below, member, format!("{place}/{escaped}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let below: Vec<&Value> = schemas
                    .iter()
                    .flat_map(|schema| of_index(schema, index))
                    .collect();
                descend(root, &below, item, format!("{place}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// All schemas of the same place.
fn gather<'s>(root: &'s Value, schema: &'s Value, into: &mut Vec<&'s Map<String, Value>>) {
    let Some(keywords) = schema.as_object() else {
        return;
    };
    if into.iter().any(|seen| std::ptr::eq(*seen, keywords)) {
        return;
    }
    into.push(keywords);
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for branch in keywords
            .get(keyword)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            gather(root, branch, into);
        }
    }
    for keyword in ["if", "then", "else", "not"] {
        if let Some(branch) = keywords.get(keyword) {
            gather(root, branch, into);
        }
    }
    for keyword in ["dependentSchemas", "dependencies"] {
        for branch in keywords
            .get(keyword)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            gather(root, branch.1, into);
        }
    }
    if let Some(Value::String(reference)) = keywords.get("$ref") {
        let name = reference.trim_start_matches("#/$defs/");
        let target = if reference == "#" {
            root
        } else {
            &root["$defs"][name]
        };
        gather(root, target, into);
    }
}

fn of_name<'s>(schema: &'s Map<String, Value>, name: &str) -> Vec<&'s Value> {
    let mut below = Vec::new();
    let mut covered = false;
    if let Some(property) = schema
        .get("properties")
        .and_then(|properties| properties.get(name))
    {
        below.push(property);
        covered = true;
    }
    for (pattern, property) in schema
        .get("patternProperties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let (applies, covers) = match pattern.as_str() {
            "^a" => (name.starts_with('a'), name.starts_with('a')),
            "b$" => (name.ends_with('b'), name.ends_with('b')),
            // Not one that can be decided: it may apply and may not cover.
            "^(?!a)" => (true, false),
            other => panic!("the oracle does not know {other}"),
        };
        if applies {
            below.push(property);
        }
        covered |= covers;
    }
    if !covered {
        below.extend(schema.get("additionalProperties"));
        below.extend(schema.get("unevaluatedProperties"));
    }
    below
}

fn of_index(schema: &Map<String, Value>, index: usize) -> Vec<&Value> {
    let mut below = Vec::new();
    let prefix = schema.get("prefixItems").and_then(Value::as_array);
    let listed = schema.get("items").and_then(Value::as_array);
    below.extend(prefix.and_then(|list| list.get(index)));
    below.extend(listed.and_then(|list| list.get(index)));
    if let Some(items @ Value::Object(_)) = schema.get("items")
        && index >= prefix.map_or(0, Vec::len)
    {
        below.push(items);
    }
    if index >= listed.map_or(0, Vec::len) {
        below.extend(schema.get("additionalItems"));
    }
    if index
        >= listed
            .into_iter()
            .chain(prefix)
            .map(Vec::len)
            .min()
            .unwrap_or(0)
    {
        below.extend(schema.get("unevaluatedItems"));
    }
    below.extend(schema.get("contains"));
    below
}
