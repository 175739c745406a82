//! What the tests of this crate share: the stand-in, a server that answers as it is told, and small
//! helpers.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod gate;
pub(crate) mod outsider;

use std::path::Path;
use std::process::Command;

use e2e::google::{Google, Options, Switches};
use secret_persistence_core::{ManagedCoordinate, Scope, SecretValue, Write};
use secret_persistence_gcp::{Config, ConfigBuilder, Credentials, GoogleSecretManager, Key};
use uuid::Uuid;

/// A stand-in on a good day.
pub(crate) async fn google() -> Google {
    Google::start(Options::default()).await.unwrap()
}

/// A stand-in that behaves like this from the start.
pub(crate) async fn google_with(change: impl FnOnce(&mut Switches)) -> Google {
    let google = google().await;
    google.switches(change);
    google
}

/// A configuration for the stand-in, with its service account's key.
pub(crate) fn config(google: &Google) -> ConfigBuilder {
    Config::builder(google.project())
        .with_endpoint(google.endpoint())
        .with_credentials(Credentials::Key(key(&google.service_account_json())))
}

pub(crate) fn key(json: &str) -> Key {
    Key::parse(&SecretValue::new(json.to_owned())).unwrap()
}

pub(crate) fn store(google: &Google) -> GoogleSecretManager {
    GoogleSecretManager::new(config(google).build().unwrap())
}

/// A name that nobody else has.
pub(crate) fn coordinate() -> ManagedCoordinate {
    ManagedCoordinate::new(&Scope::workspace(Uuid::new_v4()), Uuid::new_v4(), 1).unwrap()
}

pub(crate) fn write(value: &str) -> Write {
    Write::new(coordinate(), SecretValue::new(value.to_owned()))
}

/// Runs one ignored test of this binary in a process of its own, with nothing in its environment but
/// what is given.
pub(crate) fn in_a_process_of_its_own(test: &str, home: &Path, environment: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env_clear()
        .env("HOME", home)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
