//! The specification's schemas as nodes, keyword by keyword, references resolved.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::document::{Complaints, Document, REFERENCES, Stray, address};
use super::markers::Markers;
use super::pattern::Pattern;
use super::types::Types;
use crate::connector::error::ConnectorError;
use crate::connector::limits::MAX_PATTERN_ROOM;

pub(super) type NodeId = usize;

/// One schema.
pub(super) struct Node<'s> {
    /// Whether it marks its place as secret.
    pub(super) secret: bool,
    /// The types it admits by its own words.
    pub(super) own: Types,
    /// Schemas of the same place of the instance.
    pub(super) same: Vec<NodeId>,
    /// Groups of schemas of the same place, of which one at least has to admit the value.
    pub(super) choices: Vec<Vec<NodeId>>,
    /// What `properties` lists.
    pub(super) properties: Option<&'s Map<String, Value>>,
    /// The schemas of `properties`, in its order.
    pub(super) members: Vec<(&'s str, NodeId)>,
    /// `patternProperties`.
    pub(super) patterns: Vec<(Pattern, NodeId)>,
    /// What covers the names that neither `properties` nor `patternProperties` of this schema do.
    pub(super) others: Vec<NodeId>,
    /// Lists of schemas, by index.
    pub(super) lists: Vec<Vec<NodeId>>,
    /// Schemas of all elements from an index on.
    pub(super) tails: Vec<(usize, NodeId)>,
    /// The schema of the string's content.
    content: Option<NodeId>,
}

/// All schemas that can say something about a configuration.
pub(super) struct Nodes<'s> {
    pub(super) nodes: Vec<Node<'s>>,
    pub(super) root: NodeId,
}

impl<'s> Nodes<'s> {
    /// Reads a specification from its root, following references.
    ///
    /// # Errors
    /// `UnsupportedSchema` for every place in which secrets could be missed; `LimitExceeded`.
    pub(super) fn read(
        specification: &'s Value,
        markers: &'s Markers,
    ) -> Result<Self, ConnectorError> {
        let document = Document::scan(specification)?;
        let mut reader = Reader {
            nodes: vec![Node::boolean(Types::ALL), Node::boolean(Types::NONE)],
            reached: HashMap::new(),
            pending: Vec::new(),
            patterns: HashMap::new(),
            pattern_room: MAX_PATTERN_ROOM,
            name_schemas: Vec::new(),
            complaints: Complaints::default(),
            // From draft 2020-12 on, `items` beside `prefixItems` is about the rest. Older drafts do
            // not know `prefixItems`, and there `items` is about every element.
            items_cover_prefix: specification
                .get("$schema")
                .and_then(Value::as_str)
                .is_some_and(|schema| schema.contains("draft-0") || schema.contains("2019-09")),
            document,
            markers,
        };
        if !specification.is_object() && !specification.is_boolean() {
            reader
                .complaints
                .add(specification, "a specification must be an object");
        }
        let root = reader.node(specification);
        reader.read_pending();
        let unreached = reader.unreached();
        let reaching = reaching_secrets(&reader.nodes);
        for (value, node) in unreached {
            if reaching[node] {
                reader.complaints.add(value, UNREACHED);
            }
        }
        for (value, names) in &reader.name_schemas {
            if reaching[*names] {
                reader
                    .complaints
                    .add(value, "a mark in `propertyNames` would make a name secret");
            }
        }
        for node in &mut reader.nodes {
            node.secret |= node.content.is_some_and(|content| reaching[content]);
        }
        reader.complaints.into_result(specification)?;
        Ok(Self {
            nodes: reader.nodes,
            root,
        })
    }

    /// For every node the types that it admits, combinators included.
    ///
    /// The largest solution of the equations, so that a cycle of references restricts nothing by
    /// itself; found by taking types away until nothing changes.
    pub(super) fn admitted(&self) -> Vec<Types> {
        let mut admitted: Vec<Types> = self.nodes.iter().map(|node| node.own).collect();
        let mut depending = vec![Vec::new(); self.nodes.len()];
        for (id, node) in self.nodes.iter().enumerate() {
            for &other in node.choices.iter().flatten() {
                depending[other].push(id);
            }
        }
        let mut pending: Vec<NodeId> = (0..self.nodes.len()).collect();
        while let Some(id) = pending.pop() {
            let narrowed =
                self.nodes[id]
                    .choices
                    .iter()
                    .fold(admitted[id], |admitted_here, choice| {
                        let any = choice
                            .iter()
                            .fold(Types::NONE, |any, &other| any | admitted[other]);
                        admitted_here & any
                    });
            if narrowed != admitted[id] {
                admitted[id] = narrowed;
                pending.extend(&depending[id]);
            }
        }
        admitted
    }
}

impl Node<'_> {
    fn boolean(own: Types) -> Self {
        Self {
            secret: false,
            own,
            same: Vec::new(),
            choices: Vec::new(),
            properties: None,
            members: Vec::new(),
            patterns: Vec::new(),
            others: Vec::new(),
            lists: Vec::new(),
            tails: Vec::new(),
            content: None,
        }
    }

    /// Everything it leads to.
    fn edges(&self) -> impl Iterator<Item = NodeId> {
        let members = self.members.iter().map(|(_, id)| *id);
        let patterns = self.patterns.iter().map(|(_, id)| *id);
        let tails = self.tails.iter().map(|(_, id)| *id);
        members
            .chain(patterns)
            .chain(tails)
            .chain(self.same.iter().copied())
            .chain(self.others.iter().copied())
            .chain(self.lists.iter().flatten().copied())
            .chain(self.content)
    }
}

struct Reader<'s> {
    document: Document<'s>,
    nodes: Vec<Node<'s>>,
    reached: HashMap<usize, NodeId>,
    pending: Vec<(NodeId, &'s Value, &'s Map<String, Value>)>,
    patterns: HashMap<&'s str, Pattern>,
    pattern_room: usize,
    /// Each `propertyNames` with the schema that has it.
    name_schemas: Vec<(&'s Value, NodeId)>,
    complaints: Complaints,
    items_cover_prefix: bool,
    markers: &'s Markers,
}

const UNREACHED: &str = "a secret is marked, or a mark is referred to, in a part of the \
specification whose meaning is undefined; move it to a schema of a property or an element";

const TRUE: NodeId = 0;
const FALSE: NodeId = 1;

impl<'s> Reader<'s> {
    /// The node of a schema, to be read if it is new. What is no schema says nothing; a mark in it
    /// will not have been reached.
    fn node(&mut self, value: &'s Value) -> NodeId {
        match value {
            Value::Bool(false) => FALSE,
            Value::Object(schema) => {
                let (nodes, pending) = (&mut self.nodes, &mut self.pending);
                let markers = self.markers;
                *self.reached.entry(address(value)).or_insert_with(|| {
                    let id = nodes.len();
                    let mut node = Node::boolean(Types::admitted_by(schema));
                    node.secret = markers.mark(schema);
                    nodes.push(node);
                    pending.push((id, value, schema));
                    id
                })
            }
            _ => TRUE,
        }
    }

    fn read_pending(&mut self) {
        while let Some((id, value, schema)) = self.pending.pop() {
            self.read(id, value, schema);
        }
    }

    /// Everything that counts, has not been reached, and is marked or refers to something, as a node:
    /// nobody knows which values it is about.
    fn unreached(&mut self) -> Vec<(&'s Value, NodeId)> {
        let (mut referring, mut marked) = (Vec::new(), Vec::new());
        let (reached, markers) = (&self.reached, self.markers);
        self.document.used(&mut |value, schema| {
            if reached.contains_key(&address(value)) {
                return;
            }
            let is_reference = |keyword: &&str| schema.get(*keyword).is_some_and(Value::is_string);
            if REFERENCES.iter().any(is_reference) {
                referring.push(value);
            } else if markers.mark(schema) {
                marked.push(value);
            }
        });
        // What one of them leads to needs no complaint of its own.
        let mut unreached = Vec::new();
        for value in referring.into_iter().chain(marked) {
            if !self.reached.contains_key(&address(value)) {
                unreached.push((value, self.node(value)));
                self.read_pending();
            }
        }
        unreached
    }

    fn read(&mut self, id: NodeId, value: &'s Value, schema: &'s Map<String, Value>) {
        let mut node = Node::boolean(self.nodes[id].own);
        node.secret = self.nodes[id].secret;
        // The length of the list in `items`, or of the list beside it.
        let listed = |keyword: &str| schema.get(keyword).and_then(Value::as_array).map(Vec::len);
        let (items_list, prefix) = (listed("items"), listed("prefixItems"));
        for (keyword, member) in schema {
            match keyword.as_str() {
                "$dynamicRef" | "$recursiveRef" | "$ref" => {
                    let targets = self.document.targets(keyword, member, value);
                    self.follow(&mut node, value, targets);
                }
                "allOf" => {
                    for branch in self.list(member) {
                        node.same.push(branch);
                        node.choices.push(vec![branch]);
                    }
                }
                "anyOf" | "oneOf" => {
                    let branches = self.list(member);
                    node.same.extend(&branches);
                    if !branches.is_empty() {
                        node.choices.push(branches);
                    }
                }
                "if" | "then" | "else" | "not" => node.same.push(self.node(member)),
                "dependentSchemas" | "dependencies" => {
                    for dependent in member.as_object().into_iter().flat_map(Map::values) {
                        // A list of names is the other form of `dependencies`.
                        if !dependent.is_array() {
                            node.same.push(self.node(dependent));
                        }
                    }
                }
                "properties" => {
                    if let Some(properties) = member.as_object() {
                        node.properties = Some(properties);
                        node.members = properties
                            .iter()
                            .map(|(name, property)| (name.as_str(), self.node(property)))
                            .collect();
                    }
                }
                "patternProperties" => {
                    for (pattern, property) in member.as_object().into_iter().flatten() {
                        let pattern = self.pattern(pattern);
                        node.patterns.push((pattern, self.node(property)));
                    }
                }
                "additionalProperties" | "unevaluatedProperties" if member.is_object() => {
                    node.others.push(self.node(member));
                }
                "items" if member.is_object() => {
                    let from = match prefix {
                        Some(length) if !self.items_cover_prefix => length,
                        _ => 0,
                    };
                    node.tails.push((from, self.node(member)));
                }
                "items" | "prefixItems" if member.is_array() => {
                    let list = self.list(member);
                    node.lists.push(list);
                }
                "additionalItems" if member.is_object() => {
                    node.tails
                        .push((items_list.unwrap_or(0), self.node(member)));
                }
                "unevaluatedItems" if member.is_object() => {
                    let from = items_list.into_iter().chain(prefix).min().unwrap_or(0);
                    node.tails.push((from, self.node(member)));
                }
                "contains" if member.is_object() => node.tails.push((0, self.node(member))),
                "contentSchema" => node.content = Some(self.node(member)),
                "propertyNames" => {
                    let names = self.node(member);
                    self.name_schemas.push((member, names));
                }
                _ => {}
            }
        }
        self.nodes[id] = node;
    }

    fn list(&mut self, value: &'s Value) -> Vec<NodeId> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| self.node(item))
            .collect()
    }

    fn follow(
        &mut self,
        node: &mut Node<'s>,
        value: &Value,
        targets: Result<Vec<&'s Value>, Stray>,
    ) {
        match targets {
            Ok(targets) => {
                let targets: Vec<NodeId> = targets
                    .into_iter()
                    .map(|target| self.node(target))
                    .collect();
                node.same.extend(&targets);
                node.choices.push(targets);
            }
            Err(stray) => self.complaints.add(value, stray),
        }
    }

    fn pattern(&mut self, text: &'s str) -> Pattern {
        let room = &mut self.pattern_room;
        self.patterns
            .entry(text)
            .or_insert_with(|| Pattern::new(text, room))
            .clone()
    }
}

/// For every node whether a mark can be reached from it.
fn reaching_secrets(nodes: &[Node<'_>]) -> Vec<bool> {
    let mut leading = vec![Vec::new(); nodes.len()];
    for (id, node) in nodes.iter().enumerate() {
        for other in node.edges() {
            leading[other].push(id);
        }
    }
    let mut reaching: Vec<bool> = nodes.iter().map(|node| node.secret).collect();
    let mut pending: Vec<NodeId> = (0..nodes.len()).filter(|&id| reaching[id]).collect();
    while let Some(id) = pending.pop() {
        for &other in &leading[id] {
            if !reaching[other] {
                reaching[other] = true;
                pending.push(other);
            }
        }
    }
    reaching
}
