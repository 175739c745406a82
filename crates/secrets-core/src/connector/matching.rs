//! Matches elements of a saved array to elements of the edited one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ptr;
use std::rc::Rc;

use serde_json::{Number, Value};

use super::mask::{MASK, is_nothing};
use super::place::Place;
use super::pointer::is_pointer;
use super::spec::{ConnectorSpec, Cursor, Position};

/// For every edited array with a saved counterpart, the corresponding elements.
///
/// The mapping is one to one. First, elements match whose content without secrets is equal and
/// unique on both sides. The rest match by position only if the length is unchanged and every match
/// by content is at its own index. Elements with their own schemas (`prefixItems`) match by
/// position only.
#[derive(Debug, Default)]
pub(super) struct Matches(HashMap<usize, Rc<[Option<usize>]>>);

/// The elements that the elements of one array correspond to.
#[derive(Debug, Default)]
pub(super) enum Elements {
    /// The saved elements of the same index: the array is the saved one itself.
    ByIndex,
    /// These elements.
    Matched(Rc<[Option<usize>]>),
    /// No elements: there is no saved array.
    #[default]
    New,
}

impl Elements {
    pub(super) fn old<'v>(&self, saved: &'v [Value], index: usize) -> Option<&'v Value> {
        match self {
            Self::ByIndex => saved.get(index),
            Self::Matched(matched) => saved.get((*matched.get(index)?)?),
            Self::New => None,
        }
    }
}

impl Matches {
    /// Matches all arrays, and tells whether one of the guarded places has changed apart from
    /// secrets.
    ///
    /// Both values must have been checked for depth. The edited value must not move.
    pub(super) fn find(
        spec: &ConnectorSpec,
        saved: &Value,
        edited: &Value,
        guarded: &[Place],
    ) -> (Self, bool) {
        // Include lists without secrets below: the row may have been saved when there were some.
        let mut cursor = spec.cursor(true);
        let mut finder = Finder {
            contents: None,
            roots: (saved, edited),
            matches: HashMap::new(),
        };
        let root = cursor.root();
        let changed = guarded
            .iter()
            .any(|place| has_changed(&mut cursor, Some(saved), Some(edited), root, place.names()));
        finder.pair(&mut cursor, saved, edited, root);
        (Self(finder.matches), changed)
    }

    /// The elements that an edited array with a saved counterpart corresponds to.
    pub(super) fn of(&self, edited: &Value) -> Elements {
        match self.0.get(&address(edited)) {
            Some(matched) => Elements::Matched(Rc::clone(matched)),
            None => Elements::ByIndex,
        }
    }
}

struct Finder<'v> {
    /// Created on demand: most configurations have no such array.
    contents: Option<HashMap<usize, ContentId>>,
    roots: (&'v Value, &'v Value),
    matches: HashMap<usize, Rc<[Option<usize>]>>,
}

impl<'v> Finder<'v> {
    fn pair(&mut self, cursor: &mut Cursor<'_>, saved: &'v Value, edited: &'v Value, at: Position) {
        match (saved, edited) {
            (Value::Array(old), Value::Array(new)) => {
                let matched = self.elements(cursor, old, new, at);
                for (index, (item, matched)) in new.iter().zip(&*matched).enumerate() {
                    if let Some(old) = matched.and_then(|matched| old.get(matched)) {
                        let element = cursor.element(at, index);
                        self.pair(cursor, old, item, element);
                    }
                }
                self.matches.insert(address(edited), matched);
            }
            (Value::Object(old), Value::Object(new)) => {
                for (name, member) in new {
                    if let Some(old) = old.get(name) {
                        let position = cursor.member(at, name);
                        self.pair(cursor, old, member, position);
                    }
                }
            }
            _ => {}
        }
    }

    fn elements(
        &mut self,
        cursor: &mut Cursor<'_>,
        saved: &'v [Value],
        edited: &'v [Value],
        at: Position,
    ) -> Rc<[Option<usize>]> {
        let listed = cursor.listed(at).min(edited.len());
        let by_position = (0..listed).map(|index| (index < saved.len()).then_some(index));
        let (old, new) = (saved.get(listed..).unwrap_or_default(), &edited[listed..]);
        // Without a choice, the content does not matter: the elements match by content or by
        // position.
        if old.len() == 1 && new.len() == 1 {
            return by_position.chain([Some(listed)]).collect();
        }
        if old.is_empty() || new.is_empty() {
            return by_position.chain(new.iter().map(|_| None)).collect();
        }
        let contents = self.contents(cursor);
        let ids = |items: &[Value]| -> Vec<ContentId> {
            items
                .iter()
                .map(|item| contents.get(&address(item)).copied().unwrap_or(SECRET))
                .collect()
        };
        let matched = match_by_content(&ids(old), &ids(new));
        by_position
            .chain(
                matched
                    .into_iter()
                    .map(|index| index.map(|index| index + listed)),
            )
            .collect()
    }

    fn contents(&mut self, cursor: &mut Cursor<'_>) -> &HashMap<usize, ContentId> {
        let (saved, edited) = self.roots;
        self.contents.get_or_insert_with(|| {
            let mut contents = Contents {
                ids: HashMap::new(),
                interned: HashMap::new(),
            };
            let root = cursor.root();
            for value in [saved, edited] {
                contents.id(cursor, value, root, false);
            }
            contents.ids
        })
    }
}

/// Whether a guarded place or anything below has changed, except for the values of secrets, which
/// only the splitter can compare. `names` is the rest of the path to the place.
fn has_changed<'p>(
    cursor: &mut Cursor<'_>,
    saved: Option<&Value>,
    edited: Option<&Value>,
    at: Position,
    mut names: impl Iterator<Item = Cow<'p, str>>,
) -> bool {
    if cursor.is_secret(at) || saved.is_some_and(is_pointer) {
        return saved.is_none_or(is_nothing) != edited.is_none_or(is_nothing);
    }
    let Some(name) = names.next() else {
        return differ(cursor, saved, edited, at);
    };
    let at = match saved.or(edited) {
        Some(Value::Array(_)) => match name.parse() {
            Ok(index) => cursor.element(at, index),
            Err(_) => Position::UNKNOWN,
        },
        _ => cursor.member(at, &name),
    };
    let saved = saved.and_then(|value| member(value, &name));
    let edited = edited.and_then(|value| member(value, &name));
    has_changed(cursor, saved, edited, at, names)
}

fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        Value::Object(members) => members.get(name),
        _ => None,
    }
}

/// Whether two values differ in anything except the values of secrets.
fn differ(
    cursor: &mut Cursor<'_>,
    saved: Option<&Value>,
    edited: Option<&Value>,
    at: Position,
) -> bool {
    if cursor.is_secret(at) || saved.is_some_and(is_pointer) {
        return saved.is_none_or(is_nothing) != edited.is_none_or(is_nothing);
    }
    match (saved, edited) {
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            old.len() != new.len()
                || (old.iter().zip(new).enumerate()).any(|(index, (old, new))| {
                    let element = cursor.element(at, index);
                    differ(cursor, Some(old), Some(new), element)
                })
        }
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names = old
                .keys()
                .chain(new.keys().filter(|name| !old.contains_key(*name)));
            names.into_iter().any(|name| {
                let position = cursor.member(at, name);
                differ(cursor, old.get(name), new.get(name), position)
            })
        }
        (old, new) => old != new,
    }
}

fn match_by_content(saved: &[ContentId], edited: &[ContentId]) -> Vec<Option<usize>> {
    #[derive(Default)]
    struct Seen {
        saved: usize,
        edited: usize,
        saved_index: usize,
    }
    let mut seen: HashMap<ContentId, Seen> = HashMap::new();
    for (index, &id) in saved.iter().enumerate() {
        let seen = seen.entry(id).or_default();
        seen.saved += 1;
        seen.saved_index = index;
    }
    for &id in edited {
        seen.entry(id).or_default().edited += 1;
    }
    let by_content = |id: &ContentId| {
        let seen = &seen[id];
        (*id != SECRET && seen.saved == 1 && seen.edited == 1).then_some(seen.saved_index)
    };
    let mut matched: Vec<Option<usize>> = edited.iter().map(by_content).collect();
    let nothing_moved = matched
        .iter()
        .enumerate()
        .all(|(index, matched)| matched.is_none_or(|matched| matched == index));
    if saved.len() == edited.len() && nothing_moved {
        for (index, matched) in matched.iter_mut().enumerate() {
            *matched = Some(index);
        }
    }
    matched
}

/// A number for a content: the same for equal contents, ignoring secrets. Exact, because someone
/// who wants another's secret could construct a collision of a digest.
type ContentId = u32;

/// The content of a value that is only a secret.
const SECRET: ContentId = 0;

/// Numbers contents from the leaves up, so that nested arrays are visited once and not once per
/// level.
struct Contents<'v> {
    ids: HashMap<usize, ContentId>,
    interned: HashMap<Content<'v>, ContentId>,
}

#[derive(PartialEq, Eq, Hash)]
enum Content<'v> {
    Array(Vec<ContentId>),
    Bool(bool),
    Null,
    Number(&'v Number),
    Object(Vec<(&'v str, ContentId)>),
    String(&'v str),
}

impl<'v> Contents<'v> {
    fn id(
        &mut self,
        cursor: &mut Cursor<'_>,
        value: &'v Value,
        at: Position,
        remember: bool,
    ) -> ContentId {
        let id = if cursor.is_secret(at) || is_pointer(value) || value == MASK {
            SECRET
        } else {
            let content = match value {
                Value::Array(items) => Content::Array(
                    items
                        .iter()
                        .enumerate()
                        .map(|(index, item)| {
                            let element = cursor.element(at, index);
                            self.id(cursor, item, element, true)
                        })
                        .collect(),
                ),
                Value::Bool(value) => Content::Bool(*value),
                Value::Null => Content::Null,
                Value::Number(number) => Content::Number(number),
                Value::Object(members) => {
                    let mut content = Vec::with_capacity(members.len());
                    for (name, member) in members {
                        let position = cursor.member(at, name);
                        let id = self.id(cursor, member, position, false);
                        if id != SECRET {
                            content.push((name.as_str(), id));
                        }
                    }
                    content.sort_unstable();
                    Content::Object(content)
                }
                Value::String(text) => Content::String(text),
            };
            // There are fewer contents than values, and these fit into memory.
            let next = ContentId::try_from(self.interned.len() + 1).unwrap_or(SECRET);
            *self.interned.entry(content).or_insert(next)
        };
        if remember {
            self.ids.insert(address(value), id);
        }
        id
    }
}

fn address(value: &Value) -> usize {
    ptr::from_ref(value).addr()
}
