//! The data of the measurements: names, values, configurations.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use secret_persistence_core::{
    Actor, ManagedCoordinate, SecretPersistence, Stores,
    connector::{ActingSecrets, ConnectorOptions, ConnectorSecrets},
};
use serde_json::{Map, Value, json};

const WRITERS: usize = 16;

pub(crate) fn names(count: usize) -> Vec<ManagedCoordinate> {
    let run = uuid::Uuid::new_v4();
    let name = |at| format!("airbyte_workspace_{run}_secret_{at}_v1");
    (0..count)
        .map(|at| ManagedCoordinate::parse(&name(at)).unwrap())
        .collect()
}

pub(crate) fn value(name: &ManagedCoordinate) -> String {
    format!("the value of {name}")
}

/// A configuration that points to each name this many times.
pub(crate) fn configuration(names: &[ManagedCoordinate], times: usize) -> Value {
    let pointers = names
        .iter()
        .flat_map(|name| std::iter::repeat_n(name, times));
    let fields = pointers.enumerate();
    let fields: Map<String, Value> = fields
        .map(|(at, name)| (format!("field{at}"), json!({"_secret": name.as_str()})))
        .collect();
    fields.into()
}

pub(crate) fn acting(store: Arc<dyn SecretPersistence>) -> ActingSecrets {
    let secrets = ConnectorSecrets::new(Stores::new(store), ConnectorOptions::default());
    secrets.acting_as(&Actor::new("bench"))
}

pub(crate) async fn write<'a, F: Future<Output = ()>>(
    names: &'a [ManagedCoordinate],
    write_one: impl Fn(&'a ManagedCoordinate) -> F,
) {
    stream::iter(names)
        .for_each_concurrent(WRITERS, write_one)
        .await;
}
