//! Refuses settings where the chart does not look. Ignoring them would use the database, in plain
//! text, instead of a store that someone configured, or drop a required audit.

use secret_persistence_core::Result;
use serde_json::{Map, Value};

use super::super::unnamed::{self, About};
use super::super::{Warning, invalid, tree};
use super::{COMMON_PLACE, MANAGER_PLACE};
use crate::kind::Kind;

/// Keys at the root of a chart's values, but never of a chart within it.
const OF_THE_CHART: &[&str] = &["externalDatabase", "global", "postgresql", "secretsManager"];

/// Refuses a key that resembles one of our two places, beside it or outside of `global`.
pub(super) fn refuse(
    root: &Value,
    global: Option<&Map<String, Value>>,
    manager: Option<&'static str>,
) -> Result<()> {
    for place in [MANAGER_PLACE, COMMON_PLACE] {
        let name = place.trim_start_matches("global.");
        let meant = |key: &str| {
            strsim::damerau_levenshtein(&key.to_ascii_lowercase(), &name.to_ascii_lowercase()) <= 2
        };
        // Another error reports variables.
        let is_variable =
            |key: &str, value: &Value| !value.is_object() && unnamed::about(key).is_some();
        let set = |(key, value): (&'_ String, &'_ Value)| {
            let is_it = meant(key) && !tree::is_unset(value) && !is_variable(key, value);
            is_it.then(|| key.clone())
        };
        let beside = global.into_iter().flatten();
        let beside = beside.filter(|(key, _)| *key != name).find_map(set);
        let above = root.as_object().into_iter().flatten();
        let above = above
            .filter(|(key, _)| Some(key.as_str()) != manager)
            .find_map(set);
        let found = beside.map(|key| format!("global.{key}")).or(above);
        if let Some(found) = found {
            return Err(invalid(format!("`{found}` is not read"))
                .with_hint(format!("did you mean `{place}`?")));
        }
    }
    Ok(())
}

/// Refuses the values of a chart that contains Airbyte's as a dependency, and so has them below a
/// name.
pub(super) fn refuse_wrapped(root: &Value) -> Result<()> {
    let set = |place: &str| is_set(root, place);
    let plain =
        set("/global/secretsManager") || set("/global/database") || set("/externalDatabase");
    match wrapper(root, plain, 4) {
        Some(place) => Err(invalid(format!(
            "the values are under `{place}`, as in a chart that contains Airbyte's"
        ))
        .with_hint(format!("pass the contents of `{place}` in a separate file"))),
        None => Ok(()),
    }
}

fn is_set(value: &Value, place: &str) -> bool {
    value
        .pointer(place)
        .is_some_and(|value| !tree::is_unset(value))
}

/// The block that contains our values. If the root has a database, a block may belong to another
/// chart: then only a store counts, or a name that identifies Airbyte.
fn wrapper(value: &Value, plain: bool, depth: usize) -> Option<String> {
    let blocks = value.as_object()?.iter();
    let blocks = blocks.filter(|(key, value)| {
        value.is_object() && !OF_THE_CHART.contains(&key.as_str()) && tree::looks_like_a_name(key)
    });
    for (key, block) in blocks {
        let store =
            is_set(block, "/global/secretsManager") || is_set(block, "/secretsManager/type");
        let database = is_set(block, "/externalDatabase") || is_set(block, "/global/database");
        let ours = !plain || key.to_ascii_lowercase().contains("airbyte");
        if store || (database && ours) {
            return Some(key.clone());
        }
        let below = (depth > 1)
            .then(|| wrapper(block, plain, depth - 1))
            .flatten();
        if let Some(below) = below {
            return Some(format!("{key}.{below}"));
        }
    }
    None
}

/// A variable that the values pass to a component.
pub(super) struct Variable<'a> {
    pub(super) place: String,
    pub(super) name: &'a str,
    value: Option<&'a Value>,
}

/// The variables of all components: `env_vars` and `secrets` are blocks, `extraEnv` is a list.
pub(super) fn variables(root: &Value) -> Vec<Variable<'_>> {
    let mut found = Vec::new();
    for (component, values) in root.as_object().into_iter().flatten() {
        // The contents of a ConfigMap or a compose file, written as values.
        if !values.is_object() && unnamed::about(component).is_some() {
            found.push(Variable {
                place: component.clone(),
                name: component,
                value: Some(values),
            });
        }
        for key in ["env_vars", "extraEnv", "extraEnvs", "env", "secrets"] {
            let Some(given) = values.get(key) else {
                continue;
            };
            let place = format!("{component}.{key}");
            let entries = given.as_object().into_iter().flatten();
            found.extend(entries.map(|(name, value)| Variable {
                place: format!("{place}.{name}"),
                name,
                value: Some(value),
            }));
            for item in given.as_array().into_iter().flatten() {
                if let Some(name) = item.get("name").and_then(Value::as_str) {
                    found.push(Variable {
                        place: format!("{place}.{name}"),
                        name,
                        value: item.get("value"),
                    });
                }
            }
        }
    }
    found
}

/// Refuses variables that name a store if the values name none, because the database would be used.
/// If the values name another store, that one is used, with a warning.
pub(super) fn refuse_variables(
    variables: &[Variable<'_>],
    chosen: Option<Kind>,
) -> Result<Vec<Warning>> {
    let about = |variable: &&Variable<'_>| unnamed::about(variable.name);
    let is_set = |variable: &&Variable<'_>| !variable.value.is_some_and(tree::is_unset);
    let set = || variables.iter().filter(is_set);
    let named = |variable: &Variable<'_>| {
        let text = variable.value.and_then(Value::as_str)?;
        Kind::of_variable(text).ok()
    };
    if let Some(chosen) = chosen.filter(|kind| *kind != Kind::Database) {
        let another = set()
            .filter(|variable| about(variable) == Some(About::Kind))
            .filter(|variable| named(variable).is_some_and(|kind| kind != chosen));
        let warning = |variable: &Variable<'_>| {
            Warning::new(format!(
                "`{}` names another store than `{MANAGER_PLACE}.type`, and is not read",
                variable.place
            ))
        };
        return Ok(another.map(warning).collect());
    }
    // A variable with the kind is more specific than a setting of one kind.
    let of_kind = set().find(|variable| {
        about(variable) == Some(About::Kind) && named(variable) != Some(Kind::Database)
    });
    let of_store = || set().find(|variable| matches!(about(variable), Some(About::Store(_))));
    let Some(variable) = of_kind.or_else(of_store) else {
        return Ok(Vec::new());
    };
    let kind = match unnamed::about(variable.name) {
        Some(About::Store(kind)) => Some(kind),
        _ => named(variable),
    };
    Err(invalid(format!(
        "`{}` is not read, so the database would be used instead of the store that it names",
        variable.place
    ))
    .with_hint(format!(
        "set `{MANAGER_PLACE}.type` to {}, with its settings in the block beside it",
        kind.map_or("the kind of store", Kind::as_str)
    )))
}
