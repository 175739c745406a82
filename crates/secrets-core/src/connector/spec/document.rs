//! The specification as a document: its anchors, its nested ids, and where its references lead.

use std::collections::{HashMap, HashSet};
use std::ptr;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::connector::error::{ConnectorError, Problem, ProblemKind, Problems};
use crate::connector::limits::check_depth;
use crate::connector::place::Place;

/// A specification, scanned once.
pub(super) struct Document<'s> {
    root: &'s Value,
    root_id: Option<&'s str>,
    /// By the name of `$anchor`, `$dynamicAnchor` or an `$id` that is a mere fragment.
    anchors: HashMap<&'s str, Vec<&'s Value>>,
    /// Schemas that `$recursiveRef` can mean besides the root.
    recursive: Vec<&'s Value>,
    /// The schemas under an `$id` of their own, against which their references would count.
    nested: HashSet<usize>,
}

/// Why a reference leads nowhere that we may go.
pub(super) type Stray = &'static str;

const LEAVES: Stray =
    "the reference leaves the document; copy its target into the specification itself";
const NOWHERE: Stray = "the reference has no target";
const AMBIGUOUS: Stray = "the reference is ambiguous under a nested `$id`; remove that `$id`";

/// The kind of an object in a specification, determined by its position.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Context {
    /// Data: no keyword in it means anything.
    Data,
    /// Its keys are names, its values schemas.
    Names,
    /// A schema.
    Schema,
    /// Something that nobody defines: a schema, or names with schemas.
    Unknown,
}

impl Context {
    /// What an object's member is.
    fn below(self, key: &str, member: &Value) -> Self {
        match self {
            Self::Data => Self::Data,
            Self::Names => Self::Schema,
            Self::Schema => match key {
                "airbyte_secret" | "const" | "default" | "enum" | "examples" => Self::Data,
                "$defs" | "definitions" | "dependencies" | "dependentSchemas"
                | "patternProperties" | "properties" => Self::Names,
                "additionalItems"
                | "additionalProperties"
                | "allOf"
                | "anyOf"
                | "contains"
                | "contentSchema"
                | "else"
                | "if"
                | "items"
                | "not"
                | "oneOf"
                | "prefixItems"
                | "propertyNames"
                | "then"
                | "unevaluatedItems"
                | "unevaluatedProperties" => Self::Schema,
                _ => Self::Unknown,
            },
            // In the position of a keyword, a name may be meant, and then a schema follows.
            Self::Unknown => match Self::Schema.below(key, member) {
                Self::Data => Self::Schema,
                Self::Names => Self::Unknown,
                known => known,
            },
        }
        .of(member)
    }

    /// What a value is that should be this.
    fn of(self, value: &Value) -> Self {
        match self {
            // Names are members of objects; a list in their place has no meaning.
            Self::Names if value.is_array() => Self::Unknown,
            _ => self,
        }
    }

    fn may_be_schema(self) -> bool {
        matches!(self, Self::Schema | Self::Unknown)
    }
}

impl<'s> Document<'s> {
    /// Looks the whole document through.
    ///
    /// # Errors
    /// `LimitExceeded` for one that is nested too deeply.
    pub(super) fn scan(root: &'s Value) -> Result<Self, ConnectorError> {
        check_depth(root)?;
        // Before draft 6 the keyword was `id`, a name that much else has too.
        let id_keyword = match root.get("$schema").and_then(Value::as_str) {
            Some(draft) if draft.contains("draft-03") || draft.contains("draft-04") => "id",
            _ => "$id",
        };
        let mut document = Self {
            root,
            root_id: root
                .get(id_keyword)
                .and_then(Value::as_str)
                .map(|id| id.trim_end_matches('#')),
            anchors: HashMap::new(),
            recursive: Vec::new(),
            nested: HashSet::new(),
        };
        let mut open = vec![(root, Context::Schema, false)];
        while let Some((value, context, mut nested)) = open.pop() {
            match value {
                Value::Array(items) => {
                    open.extend(items.iter().map(|item| (item, context, nested)));
                }
                Value::Object(members) => {
                    if context.may_be_schema() {
                        nested |= document.note(value, members, id_keyword);
                        if nested {
                            document.nested.insert(address(value));
                        }
                    }
                    open.extend(
                        members
                            .iter()
                            .map(|(key, member)| (member, context.below(key, member), nested))
                            .filter(|(_, context, _)| *context != Context::Data),
                    );
                }
                _ => {}
            }
        }
        Ok(document)
    }

    /// Notes the anchors of a schema; whether it has an id of its own.
    fn note(&mut self, schema: &'s Value, members: &'s Map<String, Value>, id: &str) -> bool {
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(name)) = members.get(keyword) {
                self.anchors.entry(name).or_default().push(schema);
            }
        }
        if members.get("$recursiveAnchor") == Some(&Value::Bool(true)) {
            self.recursive.push(schema);
        }
        match members.get(id).and_then(Value::as_str) {
            Some(id) => match id.strip_prefix('#') {
                Some("") => false,
                Some(name) => {
                    self.anchors.entry(name).or_default().push(schema);
                    false
                }
                None => !ptr::eq(schema, self.root),
            },
            None => false,
        }
    }

    /// What a `$ref` means.
    fn resolve(&self, reference: &str, from: &'s Value) -> Result<&'s Value, Stray> {
        let (base, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let own = base.is_empty();
        if !own && self.root_id != Some(base) {
            return Err(LEAVES);
        }
        // The full id of the root means the root from everywhere.
        if own && self.nested.contains(&address(from)) {
            return Err(AMBIGUOUS);
        }
        let fragment = percent_decode_str(fragment)
            .decode_utf8()
            .map_err(|_| NOWHERE)?;
        let target = if fragment.is_empty() || fragment.starts_with('/') {
            self.root.pointer(&fragment).ok_or(NOWHERE)?
        } else {
            match self.anchors.get(&*fragment).map_or(&[][..], Vec::as_slice) {
                [] => return Err(NOWHERE),
                [target] if self.nested.contains(&address(target)) => return Err(AMBIGUOUS),
                // One schema may carry the name twice, as `$anchor` and as `$dynamicAnchor`.
                [target, others @ ..] if others.iter().all(|other| ptr::eq(*other, *target)) => {
                    target
                }
                _ => return Err("several schemas have the reference's anchor"),
            }
        };
        if target.is_object() || target.is_boolean() {
            Ok(target)
        } else {
            Err("the reference points to something that is not a schema")
        }
    }

    /// Everything that a `$dynamicRef` can mean: all anchors of the name.
    fn resolve_dynamic(&self, reference: &str, from: &'s Value) -> Result<Vec<&'s Value>, Stray> {
        let name = reference.strip_prefix('#').unwrap_or_default();
        match self.anchors.get(name) {
            Some(targets) => Ok(targets.clone()),
            None => self.resolve(reference, from).map(|target| vec![target]),
        }
    }

    /// Everything that a `$recursiveRef` can mean.
    fn resolve_recursive(&self, reference: &str) -> Result<Vec<&'s Value>, Stray> {
        if reference != "#" {
            return Err("`$recursiveRef` must be `#`");
        }
        Ok([&[self.root][..], &self.recursive].concat())
    }

    /// Calls `visit` with every object of the document that may be a schema and counts: definitions
    /// only if something refers to them, directly or through others.
    pub(super) fn used(&self, visit: &mut dyn FnMut(&'s Value, &'s Map<String, Value>)) {
        let mut seen = HashSet::new();
        let mut open = vec![(self.root, Context::Schema)];
        while let Some((value, context)) = open.pop() {
            match value {
                Value::Array(items) => open.extend(items.iter().map(|item| (item, context))),
                Value::Object(members) => {
                    if !seen.insert((address(value), context)) {
                        continue;
                    }
                    if context.may_be_schema() {
                        visit(value, members);
                        let targets = REFERENCES.iter().filter_map(|keyword| {
                            self.targets(keyword, members.get(*keyword)?, value).ok()
                        });
                        open.extend(targets.flatten().map(|target| (target, Context::Schema)));
                    }
                    for (key, member) in members {
                        let defines = context == Context::Schema
                            && member.is_object()
                            && matches!(key.as_str(), "$defs" | "definitions");
                        let below = context.below(key, member);
                        if !defines && below != Context::Data {
                            open.push((member, below));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Everything that a keyword which refers to schemas can mean.
    pub(super) fn targets(
        &self,
        keyword: &str,
        reference: &Value,
        from: &'s Value,
    ) -> Result<Vec<&'s Value>, Stray> {
        let reference = reference.as_str().ok_or("a reference must be a string")?;
        match keyword {
            "$dynamicRef" => self.resolve_dynamic(reference, from),
            "$recursiveRef" => self.resolve_recursive(reference),
            _ => self.resolve(reference, from).map(|target| vec![target]),
        }
    }
}

/// The keywords that refer to other schemas.
pub(super) const REFERENCES: [&str; 3] = ["$dynamicRef", "$recursiveRef", "$ref"];

/// Which value of the document it is.
pub(super) fn address(value: &Value) -> usize {
    ptr::from_ref(value).addr()
}

/// What is wrong with values of the document, whose places are looked up together at the end.
#[derive(Default)]
pub(super) struct Complaints(HashMap<usize, Vec<&'static str>>);

impl Complaints {
    pub(super) fn add(&mut self, value: &Value, message: &'static str) {
        self.0.entry(address(value)).or_default().push(message);
    }

    pub(super) fn into_result(self, root: &Value) -> Result<(), ConnectorError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut problems = Problems::default();
        let mut open = vec![(root, Place::root())];
        while let Some((value, place)) = open.pop() {
            for message in self.0.get(&address(value)).into_iter().flatten() {
                problems
                    .push(|| Problem::new(place.clone(), ProblemKind::UnsupportedSchema, *message));
            }
            match value {
                Value::Array(items) => open.extend(
                    items
                        .iter()
                        .enumerate()
                        .map(|(index, item)| (item, place.index(index))),
                ),
                Value::Object(members) => open.extend(
                    members
                        .iter()
                        .map(|(name, member)| (member, place.child(name))),
                ),
                _ => {}
            }
        }
        problems.into_result()
    }
}
