//! Where something stands in a JSON value.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A place in a JSON value: an RFC 6901 JSON Pointer, empty for the root.
///
/// Names are names: a dot, a bracket or a space in a key means nothing here.
///
/// ```
/// use secret_persistence_core::connector::Place;
///
/// let place = Place::root().child("a.b").child("c/d").index(0);
/// assert_eq!(place.as_str(), "/a.b/c~1d/0");
/// assert_eq!("/a.b/c~1d/0".parse(), Ok(place));
/// assert!("a.b".parse::<Place>().is_err());
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place(String);

impl Place {
    /// The whole value.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The JSON Pointer as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The place of a member of the object that stands here.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let mut text = self.0.clone();
        push_name(&mut text, name);
        Self(text)
    }

    /// The place of an element of the array that stands here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }

    /// The names on the way to the place, as they stand in values.
    pub(super) fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.0.split('/').skip(1).map(|name| {
            if name.contains('~') {
                Cow::Owned(name.replace("~1", "/").replace("~0", "~"))
            } else {
                Cow::Borrowed(name)
            }
        })
    }

    /// Whether this place is the other one or lies below it.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0
            .strip_prefix(&other.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What stands at this place of a value.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        value.pointer(&self.0)
    }
}

impl FromStr for Place {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Place {
    type Error = InvalidPlace;

    fn try_from(text: String) -> Result<Self, InvalidPlace> {
        let escapes_are_valid = text
            .split('~')
            .skip(1)
            .all(|rest| rest.starts_with(['0', '1']));
        if (text.is_empty() || text.starts_with('/')) && escapes_are_valid {
            Ok(Self(text))
        } else {
            Err(InvalidPlace)
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.0
    }
}

/// For people and logs: control characters are escaped, and what is very long is cut.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 300;
        if self.0.is_empty() {
            return f.write_str("(root)");
        }
        let mut chars = self.0.chars();
        for char in chars.by_ref().take(SHOWN) {
            if char.is_control() {
                write!(f, "{}", char.escape_default())?;
            } else {
                write!(f, "{char}")?;
            }
        }
        if chars.next().is_some() {
            f.write_str("…")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

/// A text that is no JSON Pointer: it must be empty or begin with `/`, and have `~` only in `~0` and `~1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPlace;

impl fmt::Display for InvalidPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a JSON Pointer: it is empty or begins with `/`, and `~` stands only in `~0` and `~1`",
        )
    }
}

impl std::error::Error for InvalidPlace {}

/// The way from the root to where a walk is, kept on the stack: a [`Place`] is made only when it is
/// needed, which on the happy path is never.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    pub(crate) fn place(&self) -> Place {
        let mut text = String::with_capacity(self.length());
        self.write(&mut text);
        Place(text)
    }

    /// Its length as text, escapes left out. The way is at most as long as a walk is deep.
    fn length(&self) -> usize {
        match self {
            Path::Root => 0,
            Path::Key(parent, name) => parent.length() + 1 + name.len(),
            Path::Index(parent, _) => parent.length() + 4,
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Path::Root => {}
            Path::Key(parent, name) => {
                parent.write(text);
                push_name(text, name);
            }
            Path::Index(parent, index) => {
                parent.write(text);
                text.push('/');
                text.push_str(&index.to_string());
            }
        }
    }
}

fn push_name(text: &mut String, name: &str) {
    text.reserve(name.len() + 1);
    text.push('/');
    if name.bytes().any(|byte| byte == b'~' || byte == b'/') {
        text.push_str(&name.replace('~', "~0").replace('/', "~1"));
    } else {
        text.push_str(name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_name_is_one_step_and_is_found_again() {
        for name in [
            "a.b", "a[0]", "a/b", "a~b", "~1", "", " ", "*", "\"", "ключ", "0",
        ] {
            let value = json!({"x": {name: [1, 2]}});
            let place = Place::root().child("x").child(name).index(1);
            assert_eq!(place.find(&value), Some(&json!(2)), "{name:?}");
            assert_eq!(place.as_str().parse(), Ok(place.clone()));
            let x = Path::Key(&Path::Root, "x");
            let named = Path::Key(&x, name);
            assert_eq!(Path::Index(&named, 1).place(), place);
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["a", "a/b", "/a~", "/~2", "#/a"] {
            assert_eq!(text.parse::<Place>(), Err(InvalidPlace), "{text}");
        }
    }

    #[test]
    fn printing_forges_no_line_and_stays_short() {
        let place = Place::root().child("a\nb").child(&"x".repeat(5000));
        let shown = place.to_string();
        assert!(
            !shown.contains('\n') && shown.chars().count() < 400,
            "{shown}"
        );
    }
}
