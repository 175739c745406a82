//! Nodes of a YAML text, each with its original text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A node as the parser interprets it.
pub(super) enum Node {
    Bool(bool),
    Float(f64),
    Int(i128),
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
    Null,
    Text(String),
}

impl Node {
    /// The node as JSON. A scalar that is not a string, and whose original text differs from its
    /// interpretation (`0x10`, `1_000`, `+42`, `-0`, `yes`), becomes [`respelt`].
    pub(super) fn into_value(self, written: &str, document: &str) -> Value {
        let same = |text: &str| written == text;
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) if same(&flag.to_string()) => Value::Bool(flag),
            Self::Int(number) if same(&number.to_string()) => match i64::try_from(number) {
                Ok(number) => Value::from(number),
                Err(_) => Value::from(written),
            },
            Self::Float(number) if same(&number.to_string()) => Value::from(written),
            Self::Bool(_) | Self::Int(_) | Self::Float(_) => respelt(),
            // The only values that the parser writes differently.
            Self::Text(text)
                if [".inf", "-.inf", ".nan"].contains(&text.as_str())
                    && !written.starts_with(['"', '\'']) =>
            {
                if same(&text) {
                    Value::String(text)
                } else {
                    respelt()
                }
            }
            Self::Text(text) => Value::String(text),
            Self::List(items) => items
                .into_iter()
                .map(|item| spanned(item, document))
                .collect(),
            Self::Map(entries) => Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, spanned(value, document)))
                    .collect::<Map<_, _>>(),
            ),
        }
    }
}

/// A node with its text. For an alias, this is the text of the anchor.
fn spanned(node: Spanned<Node>, document: &str) -> Value {
    let span = node.defined.span();
    let written = span.byte_offset().zip(span.byte_len());
    let written = written.and_then(|(at, length)| {
        let at = usize::try_from(at).ok()?;
        document.get(at..at.checked_add(usize::try_from(length).ok()?)?)
    });
    node.value
        .into_value(written.unwrap_or_default().trim(), document)
}

/// Represents a scalar whose spelling is lost. No other value read from YAML is a number with a
/// fraction.
fn respelt() -> Value {
    Number::from_f64(0.5).map_or(Value::Null, Value::Number)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(yaml: D) -> Result<Self, D::Error> {
        yaml.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Bool(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Int(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Int(number.into()))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Node, E> {
        Ok(Node::Int(number))
    }

    /// A number that is too large is respelt too, because its text is never that of a float.
    fn visit_u128<E: Error>(self, number: u128) -> Result<Node, E> {
        Ok(i128::try_from(number).map_or(Node::Float(f64::INFINITY), Node::Int))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(text))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}
