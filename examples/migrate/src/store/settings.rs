//! Stores that a file of settings describes, in one of the forms that operators have.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secret_persistence::{COMMON, Kind, KubernetesSecrets, SettingMap, Settings};
use secret_persistence_core::{Owner, SecretPersistence};
use secret_persistence_db::DbConfig;

use super::database;
use crate::console::remark;
use crate::environment::{Environment, Role};
use crate::status::{Failure, Result};

/// Reads the file, and whatever it refers to. Of a mirror only the first store is meant: while secrets
/// move, the services keep both alike, and what is deleted on one side would be gone from the other.
///
/// # Errors
/// For a file that is of no form, and for what its form refuses.
pub(super) fn read(
    file: &Path,
    secrets: &[PathBuf],
    role: Role,
    environment: &Environment,
) -> Result<Settings> {
    let mut at_hand = KubernetesSecrets::none();
    for path in secrets {
        if path.is_dir() {
            at_hand = at_hand.with_any_folder(path);
            continue;
        }
        let place =
            |failure: Failure| failure.at(format!("--kubernetes-secret {}", path.display()));
        let text = std::fs::read_to_string(path)
            .map_err(|cause| place(Failure::input("cannot be read").with_source(cause)))?;
        at_hand = at_hand
            .with_manifests(&text)
            .map_err(|error| place(error.into()))?;
    }
    let settings = Settings::from_file(file, &at_hand, &environment.of_store(role))?;
    Ok(settings.without_mirror())
}

/// Opens the store. What the settings say about layers is for services: a migration reads what the
/// store has, so nothing is cached, and how fast it goes is said by `--rate`.
///
/// # Errors
/// Whatever keeps the store from opening.
pub(super) async fn open(
    settings: Settings,
    owner: Option<&Owner>,
    rate: Option<NonZeroU32>,
) -> Result<Arc<dyn SecretPersistence>> {
    for warning in settings.warnings() {
        remark(format!("warning: {warning}"));
    }
    let mut around = SettingMap::new(COMMON);
    around.set("metrics", "false")?;
    if settings.kind() == Kind::Database {
        database::note(&DbConfig::from_settings(settings.store())?);
        around.set("retry", "false")?;
    }
    match rate {
        Some(_) => around.set("limit", "false")?,
        None => around.set("limit-share", "1")?,
    }
    if let Some(owner) = owner {
        around.set("owner", owner.as_str())?;
    }
    Ok(secret_persistence::connect(settings.with_common(around)).await?)
}
