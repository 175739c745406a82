//! Shared by the tests of this crate: a gate in front of AWS, and small helpers.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod evaluator;
pub(crate) mod gate;

use std::collections::BTreeMap;

use secret_persistence_aws::{AwsSecretsManager, Config, SETTINGS};
use secret_persistence_core::{ManagedCoordinate, Owner, Result, Scope};
use uuid::Uuid;

/// The credentials of the tests, all three of them canaries.
pub(crate) const KEY_ID: &str = "AKIACANARYACCESSKEY1";
pub(crate) const SECRET_KEY: &str = "canarySecretAccessKey/0123456789abcdefghij";
pub(crate) const SESSION_TOKEN: &str = "canarySessionToken==";

/// Settings for a test.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    settings: BTreeMap<&'static str, String>,
    owner: Option<Owner>,
}

impl Setup {
    /// For a server on loopback, without credentials.
    pub(crate) fn new(endpoint: &str) -> Self {
        Self::default()
            .set("region", "us-east-1")
            .set("endpoint-url", endpoint)
    }

    pub(crate) fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.insert(name, value.to_string());
        self
    }

    pub(crate) fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    pub(crate) fn build(self) -> Result<Config> {
        let config = Config::from_settings(&SETTINGS.from_pairs(self.settings)?)?;
        Ok(match self.owner {
            Some(owner) => config.with_owner(owner),
            None => config,
        })
    }

    pub(crate) async fn connect(self) -> AwsSecretsManager {
        AwsSecretsManager::connect(self.build().unwrap())
            .await
            .unwrap()
    }
}

/// For a server on loopback, with static keys.
pub(crate) fn config(endpoint: &str) -> Setup {
    Setup::new(endpoint)
        .set("access-key-id", KEY_ID)
        .set("secret-access-key", SECRET_KEY)
        .set("session-token", SESSION_TOKEN)
}

/// A unique name.
pub(crate) fn coordinate() -> ManagedCoordinate {
    ManagedCoordinate::new(&Scope::workspace(Uuid::new_v4()), Uuid::new_v4(), 1).unwrap()
}

/// The address of LocalStack. If it is missing, the test is skipped visibly, and fails in CI.
#[allow(clippy::print_stdout, reason = "a skip must be visible")]
pub(crate) fn localstack(test: &str) -> Option<String> {
    if let Ok(url) = std::env::var("TEST_LOCALSTACK_URL") {
        return Some(url);
    }
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(
        !is_ci,
        "{test}: TEST_LOCALSTACK_URL is not set, and CI allows no skipped test"
    );
    println!("SKIPPED {test}: TEST_LOCALSTACK_URL is not set");
    None
}
