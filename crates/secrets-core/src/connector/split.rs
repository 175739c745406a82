//! From values to pointers: the walk that create and update share.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::{ConnectorError, Problem, ProblemKind, Problems};
use super::hydrate::{decode, undecodable};
use super::limits::{Budget, is_too_deep, too_deep};
use super::mask::{MASK, mismatch};
use super::matching::{Elements, Matches};
use super::place::{Path, Place};
use super::plan::SplitPlan;
use super::pointer::{
    ENCODING, Encoding, Pointer, SECRET, STORAGE_ID, is_pointer, is_pointer_key, is_text_pointer,
};
use super::policy::Policy;
use super::secret_json::{SecretJson, is_reserved, json_text, parse_json, wipe};
use super::spec::{ConnectorSpec, Cursor, Position, Types};
use crate::{Coordinate, ManagedCoordinate, Scope, SecretValue, Write};

/// Splits a new configuration: every secret becomes a write, and a pointer replaces it.
///
/// In a secret place, a missing value, `null` and `""` stay unchanged. A string is stored byte for
/// byte, any other value as its JSON text. An external pointer stays if the policy allows it. A
/// pointer to a managed secret, a reference or a mask is an error.
///
/// ```
/// use secret_persistence_core::Scope;
/// use secret_persistence_core::connector::{ConnectorSpec, Policy, plan_create};
/// use serde_json::json;
/// use uuid::Uuid;
///
/// let spec = ConnectorSpec::compile(&json!({
///     "properties": {"host": {}, "password": {"type": "string", "airbyte_secret": true}},
/// }))?;
/// let scope = Scope::workspace(Uuid::from_u128(1));
/// let config = json!({"host": "db", "password": "hunter2"});
/// let plan = plan_create(&spec, &scope, &Policy::default(), config)?;
/// assert_eq!(plan.writes.len(), 1);
/// assert_eq!(plan.config["password"]["_secret"], plan.writes[0].coordinate.as_str());
/// # Ok::<(), secret_persistence_core::connector::ConnectorError>(())
/// ```
///
/// # Errors
/// Every problem of the configuration, by place; the configuration is then wiped.
pub fn plan_create(
    spec: &ConnectorSpec,
    scope: &Scope,
    policy: &Policy,
    config: Value,
) -> Result<SplitPlan, ConnectorError> {
    let mut config = SecretJson::new(config);
    let mut splitter = Splitter::new(spec, scope, policy, None);
    splitter.split(&mut config, None);
    splitter.problems.into_result()?;
    Ok(SplitPlan {
        config: config.into_inner(),
        writes: splitter.writes,
        superseded: Vec::new(),
        released_references: Vec::new(),
    })
}

/// What an update knows about the saved configuration.
pub(super) struct Saved<'a> {
    /// Its valid pointers.
    pub(super) pointers: HashSet<Pointer>,
    /// What was read of them.
    pub(super) values: SavedValues<'a>,
    /// Which saved element an edited one corresponds to.
    pub(super) matches: Matches,
    /// Whether a guarded place has changed.
    pub(super) guarded_place_changed: bool,
}

/// The saved values, or the question which are needed.
pub(super) enum SavedValues<'a> {
    Needed(BTreeSet<(Place, Pointer)>),
    Read(&'a HashMap<Pointer, SecretValue>),
}

/// The walk.
pub(super) struct Splitter<'a> {
    cursor: Cursor<'a>,
    policy: &'a Policy,
    scope: &'a Scope,
    saved: Option<Saved<'a>>,
    budget: Budget,
    /// Whether a limit is exceeded, so that the walk stops.
    over: bool,
    pub(super) problems: Problems,
    pub(super) writes: Vec<Write>,
    /// Where saved secrets were kept, and whether a secret of a guarded place has changed: then
    /// keeping them is not allowed.
    kept: Vec<Place>,
    guarded_secret_changed: bool,
}

/// The saved configuration's content at the place of an edited value.
enum Old<'a> {
    /// An invalid pointer, so that its secret is unknown.
    Malformed,
    Nothing,
    Pointer(Pointer),
    /// A value that was never split.
    Raw(&'a Value),
}

impl<'a> Splitter<'a> {
    pub(super) fn new(
        spec: &'a ConnectorSpec,
        scope: &'a Scope,
        policy: &'a Policy,
        saved: Option<Saved<'a>>,
    ) -> Self {
        Self {
            cursor: spec.cursor(policy.refuse_unknown_properties),
            policy,
            scope,
            saved,
            budget: Budget::new(),
            over: false,
            problems: Problems::default(),
            writes: Vec::new(),
            kept: Vec::new(),
            guarded_secret_changed: false,
        }
    }

    pub(super) fn split(&mut self, config: &mut Value, saved: Option<&Value>) {
        let root = self.cursor.root();
        self.walk(config, saved, root, &Path::root(), 0);
        if self.guarded_secret_changed {
            for place in mem::take(&mut self.kept) {
                self.problems.push_once(|| guarded_place_changed(place));
            }
        }
    }

    /// The needed saved values, if they were requested.
    pub(super) fn into_needed(self) -> Result<Vec<(Place, Pointer)>, ConnectorError> {
        self.problems.into_result()?;
        Ok(match self.saved.map(|saved| saved.values) {
            Some(SavedValues::Needed(needed)) => needed.into_iter().collect(),
            _ => Vec::new(),
        })
    }

    fn walk(
        &mut self,
        value: &mut Value,
        saved: Option<&Value>,
        at: Position,
        path: &Path<'_>,
        depth: usize,
    ) {
        if self.over {
            return;
        }
        if self.cursor.is_secret(at) || saved.is_some_and(is_pointer) {
            return self.secret(value, saved, path, depth);
        }
        match value {
            Value::Null => return,
            Value::String(text) if text.is_empty() => return,
            // Mask hides it entirely, see `ConnectorSpec::mask`, so it must not stay.
            Value::String(text)
                if text == MASK
                    && saved.is_some_and(|saved| !self.cursor.admits(at, Types::of(saved))) =>
            {
                return self.problems.push(|| mismatch(path.place()));
            }
            Value::String(text) if text == MASK => {
                return self.problems.push(|| {
                    Problem::new(
                        path.place(),
                        ProblemKind::MaskOutsideSecret,
                        "the place of this mask is not secret; enter the value",
                    )
                });
            }
            _ if is_too_deep(value, depth) => {
                return self.problems.push(|| too_deep(path.place()));
            }
            _ => {}
        }
        if !self.cursor.admits(at, Types::of(value)) {
            return self.problems.push(|| mismatch(path.place()));
        }
        match value {
            Value::Array(_) => {
                let old = saved.and_then(Value::as_array);
                let matches = self.matches(old.is_some(), value);
                let level = path.level();
                for (index, item) in value.as_array_mut().into_iter().flatten().enumerate() {
                    let old = old.and_then(|old| matches.old(old, index));
                    let element = self.cursor.element(at, index);
                    self.walk(item, old, element, &level.index(index), depth + 1);
                }
            }
            Value::Object(members) => {
                let old = saved.and_then(Value::as_object);
                let level = path.level();
                for (name, member) in members {
                    if is_pointer_key(name) {
                        self.problems.push(|| outside(path.place()));
                        continue;
                    }
                    if is_reserved(name) {
                        self.problems.push(|| reserved(path.place()));
                        continue;
                    }
                    let position = self.cursor.member(at, name);
                    let path = level.key(name);
                    if self.policy.refuse_unknown_properties
                        && position == Position::UNKNOWN
                        && at != Position::UNKNOWN
                    {
                        self.problems.push(|| unknown(path.place()));
                    }
                    let old = old.and_then(|old| old.get(name));
                    self.walk(member, old, position, &path, depth + 1);
                }
            }
            _ => {}
        }
    }

    /// The counterparts of an edited array's elements, if there is a saved array.
    fn matches(&self, has_old: bool, array: &Value) -> Elements {
        match &self.saved {
            Some(saved) if has_old => saved.matches.of(array),
            _ => Elements::default(),
        }
    }

    /// A secret place, of the specification or of the saved configuration.
    fn secret(&mut self, value: &mut Value, saved: Option<&Value>, path: &Path<'_>, depth: usize) {
        match value {
            Value::Null => return,
            Value::String(text) if text.is_empty() => return,
            _ => {}
        }
        let taken = self.budget.secret();
        if !self.within(taken) {
            return;
        }
        let old = match saved {
            None | Some(Value::Null) => Old::Nothing,
            Some(Value::String(text)) if text.is_empty() => Old::Nothing,
            Some(saved) => match Pointer::parse(saved) {
                None => Old::Raw(saved),
                Some(Ok(pointer)) => Old::Pointer(pointer),
                Some(Err(_)) => Old::Malformed,
            },
        };
        match value {
            Value::String(text) if text == MASK => return self.masked(value, saved, &old, path),
            Value::String(text) if is_text_pointer(text) => {
                return match Pointer::of_text(text) {
                    Some(Ok(pointer)) => self.pointer(value, pointer, &old, path),
                    Some(Err(malformed)) => self.problems.push(|| malformed.at(path.place())),
                    None => {}
                };
            }
            Value::Array(_) | Value::Object(_) => {
                match Pointer::parse(value) {
                    Some(Ok(pointer)) => return self.pointer(value, pointer, &old, path),
                    Some(Err(malformed)) => {
                        return self.problems.push(|| malformed.at(path.place()));
                    }
                    None => {}
                }
                if !self.restore(value, saved, path, depth) {
                    return;
                }
            }
            _ => {}
        }
        if !value.is_string() && self.policy.strings_only {
            return self.problems.push(|| not_a_string(path.place()));
        }
        if let (Old::Pointer(pointer), Some(saved)) = (&old, saved)
            && self.is_unchanged(value, pointer, path)
        {
            wipe(value);
            *value = saved.clone();
            return;
        }
        if !matches!(old, Old::Raw(old) if *old == *value) {
            self.changes(path);
        }
        self.store(value, &old, path);
    }

    /// A mask: keep the saved secret.
    fn masked(&mut self, value: &mut Value, saved: Option<&Value>, old: &Old<'_>, path: &Path<'_>) {
        match (old, saved) {
            (Old::Pointer(_), Some(saved)) => {
                if self.may_keep(path) {
                    *value = saved.clone();
                }
            }
            (Old::Raw(Value::String(text)), _) if is_text_pointer(text) => {
                // The saved value was never split: split it now, as if it had been entered.
                if let Some(Ok(pointer)) = Pointer::of_text(text) {
                    *value = pointer.to_value();
                    self.pointer(value, pointer, &Old::Nothing, path);
                } else {
                    self.problems.push(|| mask_without_value(path.place()));
                }
            }
            (Old::Raw(raw), _) if **raw != MASK => {
                if !self.may_keep(path) {
                    return;
                }
                let mut restored = SecretJson::new((*raw).clone());
                // The value is its own counterpart, so all its pointers are saved ones.
                if self.restore(&mut restored, Some(raw), path, 0) {
                    *value = restored.into_inner();
                    if !value.is_string() && self.policy.strings_only {
                        wipe(value);
                        return self.problems.push(|| not_a_string(path.place()));
                    }
                    self.store(value, old, path);
                }
            }
            (Old::Malformed, _) => self.problems.push(|| {
                Problem::new(
                    path.place(),
                    ProblemKind::MalformedPointer,
                    "the saved pointer is invalid, so there is no secret behind this mask; \
                    enter the value again",
                )
            }),
            _ => self.problems.push(|| mask_without_value(path.place())),
        }
    }

    /// A pointer as the value: it must be a saved one or an allowed external one.
    fn pointer(&mut self, value: &mut Value, pointer: Pointer, old: &Old<'_>, path: &Path<'_>) {
        let own = match &pointer.coordinate {
            _ if pointer.reference_id.is_some() => true,
            Some(coordinate) => coordinate.managed().is_some(),
            None => true,
        };
        let stands = if own {
            self.is_saved(&pointer)
        } else {
            matches!(old, Old::Pointer(old) if *old == pointer)
        };
        match old {
            // It is already known whether there was any.
            Old::Nothing => {}
            Old::Pointer(old) if *old == pointer => {}
            _ => self.changes(path),
        }
        if stands {
            if self.may_keep(path) && value.is_string() {
                *value = pointer.to_value();
            }
        } else if own {
            self.problems.push(|| foreign(path.place(), &pointer));
        } else if !self.policy.allows_external(&pointer) {
            self.problems.push(|| not_allowed(path.place()));
        } else if value.is_string() {
            *value = pointer.to_value();
        }
    }

    /// Checks a limit; the walk ends if it is exceeded.
    fn within(&mut self, taken: Result<(), Problem>) -> bool {
        if let Err(problem) = taken {
            self.over = true;
            self.problems.push(|| problem);
        }
        !self.over
    }

    /// Restores the values of saved pointers inside a secret object or array, which is stored as a
    /// whole. Returns false if it contains anything else that is not a value. Problems name the
    /// secret's place, because the names below are part of the secret.
    fn restore(
        &mut self,
        value: &mut Value,
        saved: Option<&Value>,
        path: &Path<'_>,
        depth: usize,
    ) -> bool {
        match value {
            _ if is_too_deep(value, depth) => {
                self.problems.push_once(|| too_deep(path.place()));
                return false;
            }
            Value::String(text) if text == MASK => {
                return match saved.and_then(Pointer::parse) {
                    Some(Ok(pointer)) => self.put_back(value, &pointer, path),
                    Some(Err(malformed)) => {
                        self.problems.push_once(|| malformed.at(path.place()));
                        false
                    }
                    None => {
                        self.problems.push_once(|| mask_without_value(path.place()));
                        false
                    }
                };
            }
            Value::String(text) if is_text_pointer(text) => {
                self.problems.push_once(|| inside(path.place()));
                return false;
            }
            _ => {}
        }
        match Pointer::parse(value) {
            Some(Ok(pointer)) => {
                let own = pointer.reference_id.is_some()
                    || matches!(pointer.coordinate, Some(Coordinate::Managed(_)));
                let corresponds =
                    || matches!(saved.and_then(Pointer::parse), Some(Ok(old)) if old == pointer);
                return if self.is_saved(&pointer) && (own || corresponds()) {
                    self.put_back(value, &pointer, path)
                } else {
                    if own {
                        self.problems.push_once(|| foreign(path.place(), &pointer));
                    } else {
                        self.problems.push_once(|| inside(path.place()));
                    }
                    false
                };
            }
            Some(Err(malformed)) => {
                self.problems.push_once(|| malformed.at(path.place()));
                return false;
            }
            None => {}
        }
        let mut whole = true;
        match value {
            Value::Array(_) => {
                let old = saved.and_then(Value::as_array);
                let matches = self.matches(old.is_some(), value);
                for (index, item) in value.as_array_mut().into_iter().flatten().enumerate() {
                    let old = old.and_then(|old| matches.old(old, index));
                    whole &= self.restore(item, old, path, depth + 1);
                }
            }
            Value::Object(members) => {
                let old = saved.and_then(Value::as_object);
                for (name, member) in members {
                    if is_reserved(name) {
                        self.problems.push_once(|| reserved(path.place()));
                        return false;
                    }
                    let old = old.and_then(|old| old.get(name));
                    whole &= self.restore(member, old, path, depth + 1);
                }
            }
            _ => {}
        }
        whole
    }

    /// Replaces a saved pointer, or the mask of one, by its value.
    fn put_back(&mut self, value: &mut Value, pointer: &Pointer, path: &Path<'_>) -> bool {
        if self.over || !self.may_keep(path) {
            return false;
        }
        let Some(saved) = &mut self.saved else {
            return false;
        };
        let secret = match &mut saved.values {
            SavedValues::Needed(needed) => {
                needed.insert((path.place(), pointer.clone()));
                // The value does not affect what else is needed.
                return true;
            }
            SavedValues::Read(values) => values.get(pointer),
        };
        let Some(secret) = secret else {
            self.problems.push_once(|| {
                with_coordinate(
                    Problem::new(
                        path.place(),
                        ProblemKind::Store,
                        "the store no longer has the saved secret; enter the value again",
                    ),
                    pointer,
                )
            });
            return false;
        };
        // A pointer may occur here many times, and its value may have any length.
        let taken = self.budget.hydrate(secret.len());
        let decoded = taken.map(|()| decode(secret, pointer.encoding));
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(problem) => return self.within(Err(problem)),
        };
        match decoded {
            Some(decoded) => {
                *value = decoded.into_inner();
                true
            }
            None => {
                self.problems
                    .push_once(|| with_coordinate(undecodable(path.place()), pointer));
                false
            }
        }
    }

    /// Whether a value equals the secret of a saved pointer: by bytes, or by value if it is JSON.
    fn is_unchanged(&mut self, value: &Value, pointer: &Pointer, path: &Path<'_>) -> bool {
        // A text secret is a string, and nothing else equals it.
        if pointer.encoding == Encoding::Text && !value.is_string() {
            return false;
        }
        let secret = match self.saved.as_mut().map(|saved| &mut saved.values) {
            Some(SavedValues::Needed(needed)) => {
                needed.insert((path.place(), pointer.clone()));
                None
            }
            Some(SavedValues::Read(values)) => values.get(pointer),
            None => None,
        };
        match (secret, pointer.encoding, value) {
            (Some(secret), Encoding::Text, Value::String(text)) => secret.is(text),
            (Some(secret), Encoding::Json, _) => parse_json(secret.expose())
                .map(SecretJson::new)
                .is_some_and(|saved| *saved == *value),
            _ => false,
        }
    }

    /// Moves a value to a write under a new name.
    fn store(&mut self, value: &mut Value, old: &Old<'_>, path: &Path<'_>) {
        let version = match old {
            Old::Pointer(Pointer {
                coordinate: Some(Coordinate::Managed(coordinate)),
                reference_id: None,
                ..
            }) => coordinate.version().saturating_add(1),
            _ => 1,
        };
        // A version that would make the name too long restarts at 1: the UUID makes the name
        // unique.
        let id = Uuid::new_v4();
        let fresh = ManagedCoordinate::with_text(self.scope, id, version)
            .or_else(|_| ManagedCoordinate::with_text(self.scope, id, 1));
        let (coordinate, name) = match fresh {
            Ok(fresh) => fresh,
            Err(error) => {
                return self
                    .problems
                    .push(|| Problem::of_store(path.place(), error));
            }
        };
        let (secret, encoding) = match value {
            Value::String(text) => (mem::take(text), Encoding::Text),
            _ => {
                let text = json_text(value);
                wipe(value);
                (text, Encoding::Json)
            }
        };
        *value = self.new_pointer(name, encoding);
        self.writes
            .push(Write::new(coordinate, SecretValue::new(secret)));
    }

    fn new_pointer(&self, name: String, encoding: Encoding) -> Value {
        let mut members = Map::new();
        let mut put = |key: &str, text: String| {
            members.insert(key.to_owned(), Value::String(text));
        };
        put(SECRET, name);
        if let Some(storage_id) = &self.policy.write_storage {
            put(STORAGE_ID, storage_id.as_str().to_owned());
        }
        if encoding == Encoding::Json {
            put(ENCODING, "json".to_owned());
        }
        Value::Object(members)
    }

    /// Whether saved secrets may be kept without being entered; a problem if not.
    fn may_keep(&mut self, path: &Path<'_>) -> bool {
        let changed = self
            .saved
            .as_ref()
            .is_some_and(|saved| saved.guarded_place_changed);
        if changed {
            self.problems
                .push_once(|| guarded_place_changed(path.place()));
        } else if !self.policy.guarded_places.is_empty() {
            self.kept.push(path.place());
        }
        !changed
    }

    /// Records that the secret of a place differs from the saved one.
    fn changes(&mut self, path: &Path<'_>) {
        let guarded = &self.policy.guarded_places;
        // The needed values are requested before it is known what has changed.
        let is_known = matches!(
            self.saved,
            Some(Saved {
                values: SavedValues::Read(_),
                ..
            })
        );
        if is_known && !guarded.is_empty() && !self.guarded_secret_changed {
            let place = path.place();
            self.guarded_secret_changed = guarded
                .iter()
                .any(|guarded| place.is_within(guarded) || guarded.is_within(&place));
        }
    }

    fn is_saved(&self, pointer: &Pointer) -> bool {
        self.saved
            .as_ref()
            .is_some_and(|saved| saved.pointers.contains(pointer))
    }
}

fn guarded_place_changed(place: Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::GuardedPlaceChanged,
        "a guarded place has changed, so the secret must be entered again",
    )
}

fn outside(place: Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::PointerOutsideSecret,
        "an object with a pointer's keys is in a place that is not secret; hydrate would resolve it",
    )
}

fn inside(place: Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::PointerOutsideSecret,
        "a pointer is inside a secret object or array, which is stored as a whole; enter \
        the value",
    )
}

fn reserved(place: Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::ReservedName,
        "an object has a key that begins with `$serde_json::private::`, which the JSON library \
        reserves; it could not be read again",
    )
}

fn unknown(place: Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::UnknownProperty,
        "the specification does not define this property; remove it",
    )
}

fn not_a_string(place: Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::NotAString,
        "only strings can be stored as secrets here; enter it as a string",
    )
}

fn mask_without_value(place: Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::MaskWithoutValue,
        "no saved secret corresponds to this mask; enter the value again",
    )
}

fn foreign(place: Place, pointer: &Pointer) -> Problem {
    let problem = Problem::new(
        place,
        ProblemKind::ForeignPointer,
        "permission denied: the saved configuration does not contain this pointer; enter the value",
    );
    match &pointer.coordinate {
        Some(Coordinate::Managed(coordinate)) => problem.with_coordinate(coordinate.shared()),
        // The text may have been meant as the value.
        _ => problem,
    }
}

/// Without the name, which may have been meant as the value.
fn not_allowed(place: Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::ExternalNotAllowed,
        "this external secret is not allowed; add a prefix of its name to the allow list of the \
        storage, or enter the value",
    )
}

fn with_coordinate(problem: Problem, pointer: &Pointer) -> Problem {
    match &pointer.coordinate {
        Some(coordinate) => problem.with_coordinate(coordinate.shared()),
        None => problem,
    }
}

#[cfg(test)]
mod tests;
