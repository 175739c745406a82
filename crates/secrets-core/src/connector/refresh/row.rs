//! A row as the database has it: its text, and what the text means.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::RefreshError;
use super::edit;
use super::record::RefreshTarget;
use super::replace::replace;
use super::request::{pointer_at, unfit};
use super::rows::RefreshRows;
use crate::connector::error::{ConnectorError, Problem, ProblemKind};
use crate::connector::limits::{MAX_DEPTH, check_depth, too_deep};
use crate::connector::place::Place;
use crate::connector::pointer::{Pointer, visit_pointers};
use crate::connector::secret_json::{json_depth, parse_json_to};

/// Without `Debug`, because rows of old versions contain raw secrets.
pub(super) struct Row {
    pub(super) revision: i64,
    /// What is saved: a change replaces a place of it, so that everything else stays as it is.
    text: String,
    pub(super) config: Value,
}

impl Row {
    pub(super) async fn read<E>(
        rows: &dyn RefreshRows,
        id: &str,
    ) -> Result<Option<Self>, RefreshError<E>> {
        let Some((revision, text)) = rows.read(id).await? else {
            return Ok(None);
        };
        Ok(Some(Self::parse(revision, text)?))
    }

    fn parse(revision: i64, text: String) -> Result<Self, ConnectorError> {
        #[cfg(test)]
        PARSES.set(PARSES.get() + 1);
        // A pointer may be at the deepest level.
        let deepest = MAX_DEPTH + 1;
        if json_depth(&text) > deepest {
            return Err(too_deep(Place::root()).into());
        }
        let Some(config) = parse_json_to(&text, deepest) else {
            // The parser's message could quote it.
            let message = "the row's configuration is not JSON, or has a number that no parser of this \
                           library can hold; correct the row";
            return Err(Problem::new(Place::root(), ProblemKind::DecodingFailed, message).into());
        };
        check_depth(&config)?;
        // What cannot be hydrated is refused before the exchange, not after it.
        visit_pointers(&config, &mut |_, _| {})?;
        Ok(Self {
            revision,
            text,
            config,
        })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the configuration has one of these pointers anywhere.
    pub(super) fn has_any(&self, wanted: &HashSet<Pointer>) -> bool {
        let mut open = vec![&self.config];
        while let Some(value) = open.pop() {
            if parsed(value).is_some_and(|pointer| wanted.contains(&pointer)) {
                return true;
            }
            match value {
                Value::Array(items) => open.extend(items),
                Value::Object(members) => open.extend(members.values()),
                _ => {}
            }
        }
        false
    }

    /// Puts the new pointers of targets in place of the old ones, wherever an edit has moved those.
    /// Returns the targets whose old pointer was there, and the others.
    ///
    /// The row is parsed once: it may have a pointer in thousands of places, and the time of a lease
    /// is limited.
    pub(super) fn adopt<'t>(
        &mut self,
        targets: &[&'t RefreshTarget],
    ) -> Result<(Vec<&'t RefreshTarget>, Vec<&'t RefreshTarget>), ConnectorError> {
        let Some(first) = targets.first() else {
            return Ok((Vec::new(), Vec::new()));
        };
        let mut new = HashMap::new();
        for target in targets {
            if let Some(from) = parsed(&target.from) {
                new.entry(from)
                    .or_insert_with(|| target.pointer().to_value());
            }
        }
        let mut config = self.config.clone();
        let mut replaced = swap(&mut config, &new);
        let mut text = replace(&self.text, &new).ok_or_else(|| unchangeable(first))?;
        let (mut adopted, mut left) = (Vec::new(), Vec::new());
        let mut added = None;
        for &target in targets {
            let is_there = if target.from.is_null() {
                matches!(pointer_at(&config, &target.place), Ok(None))
            } else {
                // Of two targets that had the same pointer, the first gets its places.
                parsed(&target.from).is_some_and(|from| replaced.remove(&from))
            };
            if !is_there {
                left.push(target);
                continue;
            }
            if target.from.is_null() {
                let pointer = target.pointer().to_value();
                text = edit::put(&text, &target.place, &pointer)
                    .filter(|_| set(&mut config, &target.place, pointer).is_some())
                    .ok_or_else(|| unchangeable(target))?;
                added = Some(target);
            }
            adopted.push(target);
        }
        if adopted.is_empty() {
            return Ok((adopted, left));
        }
        match Self::parse(self.revision, text) {
            Ok(changed) if changed.config == config => *self = changed,
            Err(error) if error.problems()[0].kind() == ProblemKind::LimitExceeded => {
                return Err(error);
            }
            // Such as the name of a new member that the parser reserves.
            _ => return Err(unchangeable(added.unwrap_or(first)).into()),
        }
        Ok((adopted, left))
    }
}

fn parsed(value: &Value) -> Option<Pointer> {
    Pointer::parse(value)?.ok()
}

/// Replaces pointers in a value. Returns which of them it had.
fn swap(config: &mut Value, new: &HashMap<Pointer, Value>) -> HashSet<Pointer> {
    let mut replaced = HashSet::new();
    let mut open = vec![config];
    while let Some(value) = open.pop() {
        if let Some(old) = parsed(value)
            && let Some(pointer) = new.get(&old)
        {
            *value = pointer.clone();
            replaced.insert(old);
            continue;
        }
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => open.extend(members.values_mut()),
            _ => {}
        }
    }
    replaced
}

/// Puts a value into the object that a place is in.
fn set(config: &mut Value, place: &Place, value: Value) -> Option<()> {
    let (parent, _) = place.as_str().rsplit_once('/')?;
    let name = place.names().last()?.into_owned();
    let members = config.pointer_mut(parent)?.as_object_mut()?;
    members.insert(name, value);
    Some(())
}

fn unchangeable(target: &RefreshTarget) -> Problem {
    unfit(
        target.place.clone(),
        "the place cannot be changed in the row's text",
    )
}

#[cfg(test)]
thread_local! {
    /// How many rows this thread has parsed.
    static PARSES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connector::MAX_SECRETS;

    fn old(number: usize) -> Value {
        json!({"_secret": format!("airbyte_w_secret_{number}_v1")})
    }

    fn target(place: &str, from: Value, to: &str) -> RefreshTarget {
        let target = json!({
            "place": place, "from": from, "to": {"coordinate": to}, "supersedes": null,
        });
        serde_json::from_value(target).unwrap()
    }

    /// A row of 1.2 MB with so many pointers, in objects and arrays, between what a parser would lose.
    fn text(pointers: usize, pointer: &str) -> String {
        let filler = "x".repeat(20);
        let places: Vec<String> = (0..pointers)
            .map(|at| format!(r#"{{"at" : {at}.00, "t":[{pointer}],"filler":"{filler}\u0041"}}"#))
            .collect();
        format!(
            "{{\"none\":null ,\"places\": [{}] }}\n",
            places.join(" ,\t")
        )
    }

    #[test]
    fn ten_thousand_places_cost_one_parse() {
        let pointers = MAX_SECRETS - 1;
        let mut row = Row::parse(1, text(pointers, &old(1).to_string())).unwrap();
        let first = target("/places/0/t/0", old(1), "airbyte_w_secret_3_v2");
        let none = target("/none", Value::Null, "airbyte_w_secret_4_v1");
        let same = target("/places/1/t/0", old(1), "airbyte_w_secret_5_v1");
        let other = target("/other", old(2), "airbyte_w_secret_6_v1");
        PARSES.set(0);
        let (adopted, left) = row.adopt(&[&first, &none, &same, &other]).unwrap();
        assert_eq!(PARSES.get(), 1);
        assert_eq!(adopted, [&first, &none]);
        assert_eq!(left, [&same, &other]);
        let expected = text(pointers, &first.pointer().to_value().to_string())
            .replace("null", &none.pointer().to_value().to_string());
        assert!(row.text() == expected, "byte for byte");
        assert!(row.has_any(&HashSet::from([first.pointer()])));
        assert!(!row.has_any(&HashSet::from([parsed(&old(1)).unwrap()])));
    }

    #[test]
    fn a_row_has_no_more_pointers_than_a_configuration() {
        let kind = |error: ConnectorError| error.problems()[0].kind();
        let pointer = old(1).to_string();
        let refused = Row::parse(1, text(MAX_SECRETS + 1, &pointer))
            .err()
            .unwrap();
        assert_eq!(kind(refused), ProblemKind::LimitExceeded);
        // Nor does it get them.
        let mut row = Row::parse(1, text(MAX_SECRETS, &pointer)).unwrap();
        let one_more = target("/none", Value::Null, "airbyte_w_secret_4_v1");
        let refused = row.adopt(&[&one_more]).unwrap_err();
        assert_eq!(kind(refused), ProblemKind::LimitExceeded);
    }
}
