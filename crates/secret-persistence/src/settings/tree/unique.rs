//! Refuses JSON with duplicate names: parsers differ in which one they use.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Walks a text and remembers only names.
#[derive(Clone, Copy)]
struct Unique<'a> {
    /// The duplicate name.
    twice: &'a RefCell<Option<String>>,
}

/// Refuses a text in which an object has a duplicate name.
///
/// # Errors
/// For a duplicate name, with the name and its position; and for invalid JSON.
pub(super) fn check(text: &str) -> Result<(), (Option<String>, serde_json::Error)> {
    let twice = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_str(text);
    let checked = Unique { twice: &twice }
        .deserialize(&mut json)
        .and_then(|()| json.end());
    checked.map_err(|error| (twice.take(), error))
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            entries.next_value_seed(self)?;
            if names.contains(&name) {
                self.twice.replace(Some(name));
                return Err(A::Error::custom("a name occurs twice"));
            }
            names.insert(name);
        }
        Ok(())
    }
}
