//! Prints a configuration before and after its split.

use serde_json::Value;

/// The maximum width of the text next to a place, so that a line fits 80 columns.
const WIDTH: usize = 44;

/// Prints one line per leaf with its place and the entered value, and below it the saved pointer.
pub(super) fn table(before: &Value, after: &Value) -> Vec<String> {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    leaves(before, String::new(), &mut old);
    leaves(after, String::new(), &mut new);
    let place = old.iter().map(|(place, _)| place.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for ((at, old), (_, new)) in old.iter().zip(&new) {
        lines.push(format!("{at:place$}  {}", cut(old)));
        if old != new {
            lines.push(format!("    → {}", shortened(new)));
        }
    }
    lines
}

/// Shortens the UUIDs in a coordinate.
pub(super) fn shortened(text: &str) -> String {
    let mut short = String::new();
    let mut hex = 0;
    for char in text.chars() {
        let in_uuid = char.is_ascii_hexdigit() || char == '-';
        hex = if in_uuid { hex + 1 } else { 0 };
        match hex {
            0..=6 => short.push(char),
            7 => short.push('…'),
            _ => {}
        }
    }
    short
}

fn leaves(value: &Value, place: String, all: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.contains_key("_secret") => {
            for (name, member) in members {
                leaves(member, format!("{place}/{name}"), all);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, format!("{place}/{index}"), all);
            }
        }
        leaf => all.push((place, leaf.to_string())),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH - 1).chain(['…']).collect()
}
