//! What the connector calls promise over stores that fail.

mod auditing;
mod faulty;
mod healing;
mod hydrating;
mod refreshing;
mod staging;

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{ActingSecrets, ConnectorOptions, ConnectorSecrets, ConnectorSpec};
use crate::{
    Actor, Coordinate, ManagedCoordinate, Scope, SecretPersistence, SecretValue, StorageId, Stores,
};

use faulty::Faulty;

/// `host`, and secrets `a`, `b` and `c`.
fn spec() -> ConnectorSpec {
    let secret = json!({"type": "string", "airbyte_secret": true});
    let specification = json!({
        "type": "object",
        "properties": {"host": {"type": "string"}, "a": secret, "b": secret, "c": secret},
    });
    ConnectorSpec::compile(&specification).unwrap()
}

fn scope() -> Scope {
    Scope::workspace(Uuid::from_u128(1))
}

/// A coordinate of the scope.
fn coordinate(id: u128) -> ManagedCoordinate {
    ManagedCoordinate::new(&scope(), Uuid::from_u128(id), 1).unwrap()
}

fn pointer(id: u128) -> Value {
    json!({"_secret": coordinate(id).as_str()})
}

fn storage(id: &str) -> StorageId {
    StorageId::parse(id).unwrap()
}

fn insert(store: &Faulty, id: u128, value: &str) {
    store
        .memory
        .insert(coordinate(id).as_str(), SecretValue::new(value.to_owned()));
}

fn acting(stores: Stores, options: ConnectorOptions) -> ActingSecrets {
    ConnectorSecrets::new(stores, options).acting_as(&Actor::new("alice"))
}

fn over(store: &Arc<Faulty>) -> ActingSecrets {
    acting(Stores::new(store.clone()), ConnectorOptions::default())
}

/// What a store has under a name, asked directly.
async fn stored(store: &Faulty, name: &str) -> Option<String> {
    let coordinate = Coordinate::parse(name).unwrap();
    let mut reads = store.memory.read_batch(&[coordinate]).await;
    let read = reads.remove(0).ok()?;
    Some(read.value.expose().to_owned())
}

/// The coordinate that a configuration points at in one of its places.
fn target<'a>(config: &'a Value, name: &str) -> &'a str {
    config[name]["_secret"].as_str().unwrap()
}
