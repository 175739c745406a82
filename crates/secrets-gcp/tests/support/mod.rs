//! Shared by the tests of this crate: the stand-in, a scripted server, and small helpers.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod gate;
pub(crate) mod outsider;

use std::collections::BTreeMap;

use e2e::google::{Google, Options, Switches};
use secret_persistence_core::{ManagedCoordinate, Owner, Result, Scope, SecretValue, Write};
use secret_persistence_gcp::{Config, GoogleSecretManager, SETTINGS};
use uuid::Uuid;

/// A stand-in without faults.
pub(crate) async fn google() -> Google {
    Google::start(Options::default()).await.unwrap()
}

/// A stand-in with these initial switches.
pub(crate) async fn google_with(change: impl FnOnce(&mut Switches)) -> Google {
    let google = google().await;
    google.switches(change);
    google
}

/// Settings for a test.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    settings: BTreeMap<&'static str, String>,
    owner: Option<Owner>,
}

impl Setup {
    pub(crate) fn new(project: &str, endpoint: &str) -> Self {
        Self::default()
            .set("project-id", project)
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

    pub(crate) async fn connect(self) -> GoogleSecretManager {
        GoogleSecretManager::connect(self.build().unwrap())
            .await
            .unwrap()
    }
}

/// For the stand-in, with its service account's key.
pub(crate) fn config(google: &Google) -> Setup {
    Setup::new(google.project(), &google.endpoint())
        .set("credentials", google.service_account_json())
}

pub(crate) async fn store(google: &Google) -> GoogleSecretManager {
    config(google).connect().await
}

/// A unique name.
pub(crate) fn coordinate() -> ManagedCoordinate {
    ManagedCoordinate::new(&Scope::workspace(Uuid::new_v4()), Uuid::new_v4(), 1).unwrap()
}

pub(crate) fn write(value: &str) -> Write {
    Write::new(coordinate(), SecretValue::new(value.to_owned()))
}
