//! What the tests of this crate share: a gate in front of AWS, and small helpers.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod evaluator;
pub(crate) mod gate;
pub(crate) mod logs;

use secrets_aws::{AccessKey, Config, ConfigBuilder, Credentials};
use secrets_core::{ManagedCoordinate, Scope, SecretValue};
use uuid::Uuid;

/// The credentials of the tests: canaries, all three.
pub(crate) const KEY_ID: &str = "AKIACANARYACCESSKEY1";
pub(crate) const SECRET_KEY: &str = "canarySecretAccessKey/0123456789abcdefghij";
pub(crate) const SESSION_TOKEN: &str = "canarySessionToken==";

/// A configuration for a server on loopback, with static keys.
pub(crate) fn config(endpoint: &str) -> ConfigBuilder {
    let value = |text: &str| SecretValue::new(text.to_owned());
    Config::builder("us-east-1")
        .with_endpoint(endpoint)
        .with_credentials(Credentials::AccessKey(
            AccessKey::new(value(KEY_ID), value(SECRET_KEY))
                .with_session_token(value(SESSION_TOKEN)),
        ))
}

/// A name that nobody else has.
pub(crate) fn coordinate() -> ManagedCoordinate {
    ManagedCoordinate::new(&Scope::workspace(Uuid::new_v4()), Uuid::new_v4(), 1).unwrap()
}

/// The address of LocalStack; without one the test is skipped visibly, and in CI it fails.
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
