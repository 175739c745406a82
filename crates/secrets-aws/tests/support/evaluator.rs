//! A small evaluator of IAM policies: Allow statements, `*` in resources, `StringEquals`.
//!
//! Simpler than IAM: no Deny, no `NotAction`, no other operator. It panics for anything unknown, so
//! that no policy passes because it was misunderstood.

use std::collections::BTreeMap;

use serde_json::Value;

/// A request: an action on a resource, with its condition keys.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) action: String,
    pub(crate) resource: String,
    pub(crate) context: BTreeMap<String, String>,
}

impl Ask {
    pub(crate) fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            resource: resource.into(),
            context: BTreeMap::new(),
        }
    }

    pub(crate) fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.insert(key.into(), value.into());
        self
    }
}

/// Whether the policy allows it.
pub(crate) fn allows(policy: &Value, ask: &Ask) -> bool {
    assert_eq!(policy["Version"], "2012-10-17");
    strings_or_objects(&policy["Statement"])
        .into_iter()
        .any(|statement| statement_allows(statement, ask))
}

fn statement_allows(statement: &Value, ask: &Ask) -> bool {
    for key in statement.as_object().unwrap().keys() {
        let known = ["Action", "Condition", "Effect", "Resource", "Sid"];
        assert!(known.contains(&key.as_str()), "unknown element {key}");
    }
    assert_eq!(statement["Effect"], "Allow");
    let actions = strings(&statement["Action"]);
    assert!(actions.iter().all(|action| !action.contains('*')));
    actions.contains(&ask.action.as_str())
        && strings(&statement["Resource"])
            .iter()
            .any(|pattern| matches(pattern, &ask.resource))
        && statement
            .get("Condition")
            .is_none_or(|condition| holds(condition, ask))
}

fn holds(condition: &Value, ask: &Ask) -> bool {
    condition
        .as_object()
        .unwrap()
        .iter()
        .all(|(operator, pairs)| {
            assert_eq!(operator, "StringEquals");
            pairs.as_object().unwrap().iter().all(|(key, values)| {
                // A missing key is not equal to anything.
                ask.context
                    .get(key)
                    .is_some_and(|value| strings(values).contains(&value.as_str()))
            })
        })
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
        }),
    }
}

fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().map(|item| item.as_str().unwrap()).collect(),
        other => panic!("neither a string nor a list: {other}"),
    }
}

fn strings_or_objects(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        other => vec![other],
    }
}
