//! Changes one value of a JSON text, and leaves every other byte as it is: a parsed and printed row
//! would lose digits of long numbers, its spaces and the order of its members.

use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::connector::place::Place;

/// The text with this value at a place. A missing member is added after the others of its object.
/// Of several members with one name the last counts, as in every parser of this library.
///
/// `None` if the text is not JSON, or nothing can be at the place.
pub(super) fn put(text: &str, place: &Place, value: &Value) -> Option<String> {
    let mut found = 0..text.len();
    let mut names = place.names().peekable();
    while let Some(name) = names.next() {
        match within(text, found, &name)? {
            Found::At(member) => found = member,
            Found::Missing(_) if names.peek().is_some() => return None,
            Found::Missing(Gap { at, comma }) => {
                let comma = if comma { "," } else { "" };
                let member = format!("{comma}{}:{value}", Value::from(name.as_ref()));
                return Some(splice(text, at..at, &member));
            }
        }
    }
    Some(splice(text, found, &value.to_string()))
}

fn splice(text: &str, range: Range<usize>, new: &str) -> String {
    let (before, after) = (&text[..range.start], &text[range.end..]);
    [before, new, after].concat()
}

enum Found {
    At(Range<usize>),
    Missing(Gap),
}

/// Where an object has room for another member.
struct Gap {
    at: usize,
    comma: bool,
}

/// The member or element of this name in the object or array at this range.
fn within(text: &str, range: Range<usize>, name: &str) -> Option<Found> {
    let mut scan = Scan {
        text: &text[..range.end],
        at: range.start,
    };
    match scan.next_byte()? {
        b'{' => {
            scan.at += 1;
            scan.member(name)
        }
        b'[' => {
            scan.at += 1;
            scan.element(name).map(Found::At)
        }
        _ => None,
    }
}

/// A position in a JSON text.
pub(super) struct Scan<'t> {
    pub(super) text: &'t str,
    pub(super) at: usize,
}

impl Scan<'_> {
    fn member(&mut self, name: &str) -> Option<Found> {
        let mut found = None;
        let mut gap = Gap {
            at: self.at,
            comma: false,
        };
        while self.next_byte()? != b'}' {
            let key: String = self.parse()?;
            self.skip(b':')?;
            let value = self.value()?;
            gap = Gap {
                at: value.end,
                comma: true,
            };
            if key == name {
                found = Some(value);
            }
            self.separator(b'}')?;
        }
        Some(found.map_or(Found::Missing(gap), Found::At))
    }

    fn element(&mut self, name: &str) -> Option<Range<usize>> {
        let mut left: usize = name.parse().ok()?;
        // An index has one spelling.
        if left.to_string() != name {
            return None;
        }
        while self.next_byte()? != b']' {
            let value = self.value()?;
            if left == 0 {
                return Some(value);
            }
            left -= 1;
            self.separator(b']')?;
        }
        None
    }

    /// The next byte that is no white space; it is not consumed.
    pub(super) fn next_byte(&mut self) -> Option<u8> {
        let rest = self.text.get(self.at..)?;
        let rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.at = self.text.len() - rest.len();
        rest.bytes().next()
    }

    pub(super) fn skip(&mut self, byte: u8) -> Option<()> {
        (self.next_byte()? == byte).then(|| self.at += 1)
    }

    /// A comma, or the end, which is not consumed.
    pub(super) fn separator(&mut self, end: u8) -> Option<()> {
        match self.next_byte()? {
            b',' => self.skip(b','),
            other => (other == end).then_some(()),
        }
    }

    pub(super) fn value(&mut self) -> Option<Range<usize>> {
        self.next_byte()?;
        let start = self.at;
        // Does not recurse, whatever the depth.
        self.parse::<IgnoredAny>()?;
        Some(start..self.at)
    }

    pub(super) fn parse<T: for<'de> Deserialize<'de>>(&mut self) -> Option<T> {
        let rest = self.text.get(self.at..)?;
        let mut values = serde_json::Deserializer::from_str(rest).into_iter();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_place_changes() {
        for (text, place, expected) in [
            (r#"{"a":1}"#, "/a", r#"{"a":0}"#),
            ("1", "", "0"),
            (
                " { \"a\" :\t[ 1 ,2 ] }\n",
                "/a/1",
                " { \"a\" :\t[ 1 ,0 ] }\n",
            ),
            (
                r#"{"n":1.00,"a":{"b":"x"}}"#,
                "/a/b",
                r#"{"n":1.00,"a":{"b":0}}"#,
            ),
            (
                r#"{"n":123456789012345678901234567890.10,"a":"}\"]"}"#,
                "/a",
                r#"{"n":123456789012345678901234567890.10,"a":0}"#,
            ),
            // The last one counts.
            (r#"{"a":1,"a":2}"#, "/a", r#"{"a":1,"a":0}"#),
            // However it is written.
            (r#"{"\u0061~/":1}"#, "/a~0~1", r#"{"\u0061~/":0}"#),
            // New members.
            ("{}", "/a", r#"{"a":0}"#),
            ("{ }", "/a", r#"{"a":0 }"#),
            (r#"{"b":{"c":1 } }"#, "/b/\"", r#"{"b":{"c":1,"\"":0 } }"#),
        ] {
            let place: Place = place.parse().unwrap();
            let changed = put(text, &place, &json!(0));
            assert_eq!(changed.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_is_none() {
        for (text, place) in [
            (r#"{"a":1}"#, "/a/b"),
            (r#"{"a":1}"#, "/b/c"),
            (r#"[1]"#, "/1"),
            (r#"[1,2]"#, "/01"),
            (r#"[1,2]"#, "/-"),
            (r#"{"a":1"#, "/a"),
            (r#"{"a" 1}"#, "/a"),
            ("", "/a"),
        ] {
            let place: Place = place.parse().unwrap();
            assert_eq!(put(text, &place, &json!(0)), None, "{text}");
        }
    }

    #[test]
    fn depth_is_no_limit() {
        let text = format!("{}\"x\"{}", "[".repeat(100_000), "]".repeat(100_000));
        let around = format!("{{\"deep\":{text},\"a\":1}}");
        let place = Place::root().child("a");
        let expected = format!("{{\"deep\":{text},\"a\":0}}");
        assert_eq!(put(&around, &place, &json!(0)), Some(expected));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[ -~é]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-c/~\"]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Every value of a document can be replaced, and what is then parsed differs only there.
        #[test]
        fn a_parser_sees_the_change_and_no_other(document in any_json(), pretty: bool) {
            let text = if pretty {
                serde_json::to_string_pretty(&document).unwrap()
            } else {
                document.to_string()
            };
            let mut open = vec![Place::root()];
            while let Some(place) = open.pop() {
                match place.find(&document).unwrap() {
                    Value::Array(items) => open.extend((0..items.len()).map(|at| place.index(at))),
                    Value::Object(members) => open.extend(members.keys().map(|key| place.child(key))),
                    _ => {}
                }
                let new = json!({"new": "value"});
                let mut expected = document.clone();
                *expected.pointer_mut(place.as_str()).unwrap() = new.clone();
                let changed = put(&text, &place, &new).unwrap();
                let parsed: Value = serde_json::from_str(&changed).unwrap();
                prop_assert_eq!(&parsed, &expected);
                // It can be put back, and then nothing has changed.
                let old = place.find(&document).unwrap();
                let restored = put(&changed, &place, old).unwrap();
                if !pretty {
                    prop_assert_eq!(&restored, &text);
                }
            }
        }
    }
}
