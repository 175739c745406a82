//! The demo's connectors.

use secret_persistence_core::{Scope, connector::ConnectorSpec};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    fleet::WORKSPACE,
    stores::{Store, calls},
};

/// A connector of the demo.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connector {
    name: String,
    connection_specification: Value,
    configuration: Value,
}

/// A connector whose configuration is saved.
pub(crate) struct Saved {
    pub(crate) name: String,
    pub(crate) configuration: Value,
    /// The configuration as it was entered.
    pub(crate) full: Value,
}

/// Splits the demo's connectors into a store.
pub(crate) async fn save_in(store: &Store) -> Vec<Saved> {
    let text = include_str!("../../../examples/migrate/src/commands/demo/connectors.json");
    let connectors: Vec<Connector> = serde_json::from_str(text).unwrap();
    assert!(connectors.len() >= 10, "{}", connectors.len());
    let scope = Scope::workspace(WORKSPACE);
    let mut saved = Vec::new();
    for connector in connectors {
        let spec = ConnectorSpec::compile(&connector.connection_specification).unwrap();
        let full = connector.configuration;
        let staged = calls(store)
            .stage_create(&spec, &scope, full.clone())
            .await
            .unwrap();
        let configuration = staged.config().clone();
        assert_ne!(configuration, full, "{} has no secret", connector.name);
        assert!(staged.commit().await.unwrap().is_finished());
        saved.push(Saved {
            name: connector.name,
            configuration,
            full,
        });
    }
    saved
}
