//! A place in a JSON value.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A place in a JSON value: an RFC 6901 JSON Pointer, empty for the root.
///
/// A dot, a bracket or a space in a key has no special meaning. Places below the same object or
/// array share the path to it, so that a list of many takes no more memory than the value itself.
/// The text is created on demand.
///
/// ```
/// use secret_persistence_core::connector::Place;
///
/// let place = Place::root().child("a.b").child("c/d").index(0);
/// assert_eq!(place.as_str(), "/a.b/c~1d/0");
/// assert_eq!("/a.b/c~1d/0".parse(), Ok(place));
/// assert!("a.b".parse::<Place>().is_err());
/// ```
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place(Option<Arc<Step>>);

struct Step {
    parent: Place,
    /// What it adds to the text, beginning with the slash.
    tail: Box<str>,
    /// The length of the text in bytes.
    length: usize,
    /// The number of steps to this place.
    steps: usize,
    text: OnceLock<Box<str>>,
}

/// A longer place starts again with its text, because dropping a chain of places recurses.
const MAX_STEPS: usize = 600;

impl Place {
    /// The whole value.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The JSON Pointer as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            None => "",
            Some(step) if step.parent.0.is_none() => &step.tail,
            Some(step) => step.text.get_or_init(|| self.text().into()),
        }
    }

    /// The place of a member, if this place is an object.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let mut tail = String::with_capacity(name.len() + 1);
        tail.push('/');
        if name.bytes().any(|byte| byte == b'~' || byte == b'/') {
            tail.push_str(&name.replace('~', "~0").replace('/', "~1"));
        } else {
            tail.push_str(name);
        }
        self.step(tail)
    }

    /// The place of an element, if this place is an array.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(format!("/{index}"))
    }

    /// The unescaped names on the path to the place.
    pub(super) fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.as_str().split('/').skip(1).map(|name| {
            if name.contains('~') {
                Cow::Owned(name.replace("~1", "/").replace("~0", "~"))
            } else {
                Cow::Borrowed(name)
            }
        })
    }

    /// Whether this place is the other one or below it.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let mut ours = self.bytes();
        other.bytes().all(|byte| ours.next() == Some(byte))
            && matches!(ours.next(), None | Some(b'/'))
    }

    /// The value at this place.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        value.pointer(self.as_str())
    }

    /// The length of its text in bytes.
    pub(crate) fn length(&self) -> usize {
        self.0.as_ref().map_or(0, |step| step.length)
    }

    fn step(&self, tail: String) -> Self {
        let steps = self.0.as_ref().map_or(0, |step| step.steps);
        let (parent, tail, steps) = if steps < MAX_STEPS {
            (self.clone(), tail, steps)
        } else {
            (Self::root(), self.text() + &tail, 0)
        };
        Self(Some(Arc::new(Step {
            length: parent.length() + tail.len(),
            parent,
            tail: tail.into(),
            steps: steps + 1,
            text: OnceLock::new(),
        })))
    }

    /// The steps from the root.
    fn steps(&self) -> Vec<&Arc<Step>> {
        let mut steps = Vec::with_capacity(self.0.as_ref().map_or(0, |step| step.steps));
        let mut place = self;
        while let Some(step) = &place.0 {
            steps.push(step);
            place = &step.parent;
        }
        steps.reverse();
        steps
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.steps().into_iter().flat_map(|step| step.tail.bytes())
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(self.length());
        for step in self.steps() {
            text.push_str(&step.tail);
        }
        text
    }
}

/// Compares like the texts, without creating them.
impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        let (ours, theirs) = (self.steps(), other.steps());
        let shared = ours
            .iter()
            .zip(&theirs)
            .take_while(|(ours, theirs)| Arc::ptr_eq(ours, theirs))
            .count();
        let bytes = |steps: &[&Arc<Step>]| -> Vec<u8> {
            steps.iter().flat_map(|step| step.tail.bytes()).collect()
        };
        match (&ours[shared..], &theirs[shared..]) {
            ([ours], [theirs]) => ours.tail.cmp(&theirs.tail),
            (ours, theirs) => bytes(ours).cmp(&bytes(theirs)),
        }
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.length() == other.length() && self.cmp(other).is_eq()
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
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
        if text.is_empty() {
            Ok(Self::root())
        } else if text.starts_with('/') && escapes_are_valid {
            Ok(Self::root().step(text))
        } else {
            Err(InvalidPlace)
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.text()
    }
}

/// For people and logs: control characters are escaped, and very long places are truncated.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 300;
        if self.0.is_none() {
            return f.write_str("(root)");
        }
        let steps = self.steps();
        let mut chars = steps.iter().flat_map(|step| step.tail.chars());
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

/// A text that is not a JSON Pointer: it must be empty or begin with `/`, and contain `~` only in
/// `~0` and `~1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPlace;

impl fmt::Display for InvalidPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a JSON Pointer: it must be empty or begin with `/`, and contain `~` only in `~0` and `~1`",
        )
    }
}

impl std::error::Error for InvalidPlace {}

/// The path from the root to the current position of a walk, on the stack. A [`Place`] is created
/// only when needed, which on the happy path is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a>(Option<(&'a Level<'a>, Name<'a>)>);

/// An object or array on the path. Its [`Place`] is created once, for everything below.
#[derive(Debug)]
pub(crate) struct Level<'a> {
    path: Path<'a>,
    place: OnceCell<Place>,
}

#[derive(Clone, Copy, Debug)]
enum Name<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    pub(crate) const fn root() -> Self {
        Self(None)
    }

    /// The value at this path as an object or array.
    pub(crate) const fn level(self) -> Level<'a> {
        Level {
            path: self,
            place: OnceCell::new(),
        }
    }

    pub(crate) fn place(&self) -> Place {
        match self.0 {
            None => Place::root(),
            Some((level, Name::Key(name))) => level.place().child(name),
            Some((level, Name::Index(index))) => level.place().index(index),
        }
    }
}

impl Level<'_> {
    pub(crate) const fn key<'a>(&'a self, name: &'a str) -> Path<'a> {
        Path(Some((self, Name::Key(name))))
    }

    pub(crate) const fn index(&self, index: usize) -> Path<'_> {
        Path(Some((self, Name::Index(index))))
    }

    fn place(&self) -> &Place {
        self.place.get_or_init(|| self.path.place())
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
            let root = Path::root().level();
            let x = root.key("x").level();
            let named = x.key(name).level();
            assert_eq!(named.index(1).place(), place);
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

    #[test]
    fn places_below_one_another_share_the_way_and_compare_as_their_texts() {
        let long = "x".repeat(1000);
        let root = Path::root().level();
        let (above, other) = (root.key(&long), root.key("w"));
        let level = above.level();
        let (one, two) = (level.key("a"), level.key("b/"));
        let mut places = [
            two.place(),
            one.level().index(3).place(),
            one.place(),
            above.place(),
            other.place(),
            Place::root(),
        ];
        let parents: Vec<_> = [one.place(), two.place()]
            .iter()
            .map(|place| Arc::as_ptr(place.0.as_ref().unwrap().parent.0.as_ref().unwrap()))
            .collect();
        assert_eq!(parents[0], parents[1]);
        places.sort();
        let ours: Vec<String> = places.iter().cloned().map(String::from).collect();
        let mut texts = ours.clone();
        texts.sort();
        assert_eq!(ours, texts);
        for (place, text) in places.iter().zip(&texts) {
            assert_eq!(text.parse::<Place>().as_ref(), Ok(place));
            assert_eq!(
                (place.as_str(), place.length()),
                (text.as_str(), text.len())
            );
        }
    }

    #[test]
    fn a_place_of_any_number_of_steps_drops() {
        let mut place = Place::root();
        for _ in 0..20_000 {
            place = place.child("a");
        }
        assert_eq!(place.as_str(), "/a".repeat(20_000));
    }
}
