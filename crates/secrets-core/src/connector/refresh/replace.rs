//! Replaces pointers of a JSON text wherever they are, and leaves every other byte as it is.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Value;

use super::edit::Scan;
use crate::connector::pointer::{Pointer, is_pointer_key};

/// The text with new pointers in place of old ones, in one scan however many there are. Of several
/// members with one name the last counts, as in every parser of this library.
///
/// `None` if the text is not JSON. Recurses, so the caller limits the depth.
pub(super) fn replace(text: &str, new: &HashMap<Pointer, Value>) -> Option<String> {
    let mut walk = Walk {
        scan: Scan { text, at: 0 },
        new,
        found: Vec::new(),
    };
    walk.value()?;
    let mut changed = String::with_capacity(text.len());
    let mut at = 0;
    for (range, pointer) in walk.found.into_iter().flatten() {
        changed.push_str(&text[at..range.start]);
        changed.push_str(&pointer.to_string());
        at = range.end;
    }
    changed.push_str(&text[at..]);
    Some(changed)
}

struct Walk<'t, 'n> {
    scan: Scan<'t>,
    new: &'n HashMap<Pointer, Value>,
    /// In the order of the text; `None` for what is in a member that does not count.
    found: Vec<Option<(Range<usize>, &'n Value)>>,
}

impl Walk<'_, '_> {
    /// Passes a value. Returns whether it is an object or array.
    fn value(&mut self) -> Option<bool> {
        match self.scan.next_byte()? {
            b'{' => self.object()?,
            b'[' => self.array()?,
            _ => {
                self.scan.value()?;
                return Some(false);
            }
        }
        Some(true)
    }

    fn array(&mut self) -> Option<()> {
        self.scan.skip(b'[')?;
        while self.scan.next_byte()? != b']' {
            self.value()?;
            self.scan.separator(b']')?;
        }
        self.scan.skip(b']')
    }

    fn object(&mut self) -> Option<()> {
        let start = self.scan.at;
        self.scan.skip(b'{')?;
        let (mut flat, mut has_key) = (true, false);
        let mut below: HashMap<String, Range<usize>> = HashMap::new();
        while self.scan.next_byte()? != b'}' {
            let key: String = self.scan.parse()?;
            self.scan.skip(b':')?;
            has_key |= is_pointer_key(&key);
            let before = self.found.len();
            flat &= !self.value()?;
            if let Some(earlier) = below.remove(&key) {
                self.found[earlier].fill(None);
            }
            if self.found.len() > before {
                below.insert(key, before..self.found.len());
            }
            self.scan.separator(b'}')?;
        }
        self.scan.skip(b'}')?;
        // What has other values below it is no pointer, so that every byte is parsed once at most.
        if flat && has_key {
            let range = start..self.scan.at;
            let object: Value = serde_json::from_str(&self.scan.text[range.clone()]).ok()?;
            if let Some(Ok(pointer)) = Pointer::parse(&object)
                && let Some(new) = self.new.get(&pointer)
            {
                self.found.push(Some((range, new)));
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replaced(text: &str) -> Option<String> {
        let old = |name: &str| Pointer::parse(&json!({"_secret": name})).unwrap().unwrap();
        let new = HashMap::from([(old("a"), json!("new a")), (old("b"), json!("new b"))]);
        replace(text, &new)
    }

    #[test]
    fn only_the_pointers_change_wherever_they_are() {
        for (text, expected) in [
            (r#"{"_secret":"a"}"#, r#""new a""#),
            (
                " [ {\"_secret\" : \"a\"} ,1.00,\t{\"x\":{\"_secret\":\"b\"}, \"_\" : \"}\" } ]\n",
                " [ \"new a\" ,1.00,\t{\"x\":\"new b\", \"_\" : \"}\" } ]\n",
            ),
            // However it is written.
            (r#"[{"\u005fsecret":"\u0061"}]"#, r#"["new a"]"#),
            (r#"[{"_secret":"b","_secret":"a"}]"#, r#"["new a"]"#),
            // Another pointer, and what only looks like one.
            (
                r#"[{"_secret":"c"},{"_secret":"a","x":1},{"_secret":["a"]},"{\"_secret\":\"a\"}"]"#,
                r#"[{"_secret":"c"},{"_secret":"a","x":1},{"_secret":["a"]},"{\"_secret\":\"a\"}"]"#,
            ),
            // The last member of a name counts.
            (
                r#"{"x":[{"_secret":"a"}],"y":{"_secret":"a"},"x":{"_secret":"b"}}"#,
                r#"{"x":[{"_secret":"a"}],"y":"new a","x":"new b"}"#,
            ),
            (
                r#"{"x":{"_secret":"a"},"x":1}"#,
                r#"{"x":{"_secret":"a"},"x":1}"#,
            ),
        ] {
            assert_eq!(replaced(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_json_is_none() {
        for text in ["", "{", "[1", r#"{"a" 1}"#, r#"{"a":}"#, "[1 2]"] {
            assert_eq!(replaced(text), None, "{text}");
        }
    }
}
