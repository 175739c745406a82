//! Settings from a Helm `values.yaml`.

mod block;
mod database;

use secret_persistence_core::settings::{SettingMap, unknown};
use secret_persistence_core::{Error, Result};
use serde_json::{Map, Value};

use self::block::Block;
use super::{COMMON, Environment, KubernetesSecrets, Settings, Warning, invalid, tree};
use crate::backend;
use crate::kind::Kind;

/// The Kubernetes Secret that is meant where the file names none.
pub(crate) const DEFAULT_SECRET: &str = "airbyte-config-secrets";

/// Keys of `global.secretsManager` beside the stores' blocks. `enabled` stands in the chart's own
/// values, and `type` alone decides.
const KEYS: &[&str] = &["enabled", "secretName", "secretsManagerSecretName", "type"];

/// The place of the store.
const MANAGER_PLACE: &str = "global.secretsManager";

/// The place of what stands around the store, which is ours and not the chart's.
const COMMON_PLACE: &str = "global.secretPersistence";

impl Settings {
    /// Reads a Helm `values.yaml` as Airbyte documents it: `global.secretsManager` names the kind of
    /// store and holds its block; without it the database of `global.database` or `externalDatabase`
    /// is meant. What stands around the store is in `global.secretPersistence`, by the names of
    /// [`COMMON`] in camel case.
    ///
    /// `null` and `""` are unset. Credentials stand in the file, or in a Kubernetes Secret under the
    /// key that the file names, or under the documented key. From the environment come only
    /// `SECRETS_…`: the owner, the layers, a database's key ring.
    ///
    /// # Errors
    /// `InvalidConfig` for what is no YAML; for unknown keys in `global.secretsManager` and in the
    /// block of the chosen store, with the nearest known one; for a credential in the file together
    /// with the key of one; and for a Secret or key that is referred to and not there.
    pub fn from_helm(
        values: &str,
        secrets: &KubernetesSecrets,
        environment: &Environment,
    ) -> Result<Self> {
        let documents = tree::yaml("the values file", values)?;
        let empty = Value::Null;
        let root = match &documents[..] {
            [] => &empty,
            [document] => document,
            _ => return Err(invalid("the values file holds several documents")),
        };
        let global = tree::entries("global", root.get("global"))?;
        refuse_misplaced(root, global)?;
        let manager = global.and_then(|global| global.get("secretsManager"));
        let manager = tree::entries(MANAGER_PLACE, manager)?;
        let mut settings = match manager.map(|manager| chosen(manager).map(|kind| (manager, kind)))
        {
            Some(Ok((manager, Some(kind)))) if kind != Kind::Database => {
                of_manager(kind, manager, global, secrets)?
            }
            Some(Err(error)) => return Err(error),
            Some(Ok(_)) | None => database::settings(root, global, secrets)?,
        };
        if let Some(global) = global {
            common(&mut settings.common, global)?;
        }
        settings.store.set_env(|name| {
            environment
                .get(name)
                .filter(|_| name.starts_with("SECRETS_"))
        });
        settings.with_environment(environment)
    }
}

/// Refuses what is nearly one of our two places. The rest of the file is the chart's and passed over, but
/// passing over these would take the database, in plain text, for a store that somebody set up, or drop
/// an audit that somebody wants.
fn refuse_misplaced(root: &Value, global: Option<&Map<String, Value>>) -> Result<()> {
    for place in [MANAGER_PLACE, COMMON_PLACE] {
        let name = place.trim_start_matches("global.");
        let meant = |key: &str| {
            strsim::damerau_levenshtein(&key.to_ascii_lowercase(), &name.to_ascii_lowercase()) <= 2
        };
        let set = |(key, value): (&'_ String, &'_ Value)| {
            (meant(key) && !tree::is_unset(value)).then(|| key.clone())
        };
        let beside = global.into_iter().flatten();
        let beside = beside.filter(|(key, _)| *key != name).find_map(set);
        let above = root.as_object().into_iter().flatten().find_map(set);
        let found = beside.map(|key| format!("global.{key}")).or(above);
        if let Some(found) = found {
            return Err(invalid(format!("`{found}` is not read"))
                .with_hint(format!("did you mean `{place}`?")));
        }
    }
    Ok(())
}

/// The kind of store that `type` names; `None` where it is unset, which means the database.
fn chosen(manager: &Map<String, Value>) -> Result<Option<Kind>> {
    let blocks = || Kind::ALL.into_iter().filter_map(Kind::helm_block);
    let known = KEYS.iter().copied().chain(blocks());
    if let Some(key) = manager
        .keys()
        .find(|key| !known.clone().any(|known| known == *key))
    {
        return Err(unknown(key, known.collect::<Vec<_>>().into_iter()).with_store(MANAGER_PLACE));
    }
    let place = "global.secretsManager.type";
    let kind = match manager.get("type") {
        Some(value) => tree::scalar(place, value)?,
        None => None,
    };
    if let Some(text) = kind {
        return Kind::of_helm(text.expose()).map(Some);
    }
    let filled = |block: &&str| {
        manager
            .get(*block)
            .is_some_and(|value| !tree::is_unset(value))
    };
    match blocks().find(filled) {
        // The database would be taken, in plain text, by somebody who set up another store.
        Some(block) => Err(invalid(format!("`{place}` is missing beside `{block}`"))
            .with_hint(format!("set it to {block}"))),
        None => Ok(None),
    }
}

fn of_manager(
    kind: Kind,
    manager: &Map<String, Value>,
    global: Option<&Map<String, Value>>,
    secrets: &KubernetesSecrets,
) -> Result<Settings> {
    let name = kind.helm_block().unwrap_or_default();
    let backend = backend::of(kind)?;
    let place = format!("global.secretsManager.{name}");
    let entries = tree::entries(&place, manager.get(name))?.ok_or_else(|| {
        invalid(format!("`{place}` is missing"))
            .with_hint("it holds the settings of the chosen store")
    })?;
    let mut block = Block::new(place, entries, secret_name(manager, global)?, secrets);
    let mut store = SettingMap::new(backend.settings.rows());
    let mut extra: &[&str] = &[];
    let mut looks_up = true;
    if kind == Kind::Aws {
        extra = &[AUTHENTICATION_TYPE];
        looks_up = aws_credentials(&block)?;
    }
    block.refuse_unknown(backend.settings.rows(), extra)?;
    block.fill(&mut store, looks_up)?;
    if kind == Kind::Aws && looks_up {
        for name in ["access-key-id", "secret-access-key"] {
            if store.secret(name).is_none() {
                return Err(block.no_credential(
                    backend.settings.rows(),
                    name,
                    "name another key, or use authenticationType: instanceProfile",
                ));
            }
        }
    }
    let warnings = block.into_warnings();
    Ok(Settings::new(kind, store, SettingMap::new(COMMON)).with_warnings(warnings))
}

const AUTHENTICATION_TYPE: &str = "authenticationType";

/// Whether AWS is reached with an access key; otherwise with what the machine or pod already has,
/// which is the SDK's default chain.
fn aws_credentials(block: &Block<'_>) -> Result<bool> {
    let kind = block.text(AUTHENTICATION_TYPE)?;
    match kind.as_deref() {
        None | Some("credentials") => Ok(true),
        Some("instanceProfile") => {
            let keys = [
                "accessKeyId",
                "accessKeyIdSecretKey",
                "secretAccessKey",
                "secretAccessKeySecretKey",
            ];
            match keys.into_iter().find(|key| block.has(key)) {
                Some(key) => Err(invalid(format!(
                    "`{key}` contradicts `{AUTHENTICATION_TYPE}: instanceProfile`"
                ))
                .with_hint("leave one of them out")),
                None => Ok(false),
            }
        }
        Some(_) => Err(invalid(format!(
            "`{AUTHENTICATION_TYPE}` is credentials or instanceProfile"
        ))),
    }
}

/// The Kubernetes Secret of the store's credentials.
fn secret_name(
    manager: &Map<String, Value>,
    global: Option<&Map<String, Value>>,
) -> Result<String> {
    let text = |key: &str| match manager.get(key) {
        Some(value) => tree::scalar(key, value),
        None => Ok(None),
    };
    let name = match (text("secretName")?, text("secretsManagerSecretName")?) {
        (Some(one), Some(other)) if one != other => {
            return Err(
                invalid("`secretName` and `secretsManagerSecretName` name two Secrets")
                    .with_hint("they mean the same: leave one out"),
            );
        }
        (Some(name), _) | (None, Some(name)) => Some(name),
        (None, None) => match global.and_then(|global| global.get("secretName")) {
            Some(value) => tree::scalar("global.secretName", value)?,
            None => None,
        },
    };
    Ok(name.map_or_else(
        || DEFAULT_SECRET.to_owned(),
        |name| name.expose().to_owned(),
    ))
}

/// What stands around the store.
fn common(values: &mut SettingMap, global: &Map<String, Value>) -> Result<()> {
    let place = COMMON_PLACE.trim_start_matches("global.");
    let Some(entries) = tree::entries(COMMON_PLACE, global.get(place))? else {
        return Ok(());
    };
    for (key, value) in entries {
        let row = COMMON.iter().find(|row| row.helm.contains(&key.as_str()));
        let row = row.ok_or_else(|| {
            let known = COMMON
                .iter()
                .flat_map(|row| row.helm)
                .copied()
                .collect::<Vec<_>>();
            unknown(key, known.into_iter()).with_store(COMMON_PLACE)
        })?;
        if let Some(value) = tree::scalar(&format!("{COMMON_PLACE}.{key}"), value)? {
            values.set(row.name, value.expose())?;
        }
    }
    Ok(())
}

fn no_secret(name: &str, place: &str) -> Error {
    invalid(format!(
        "`{place}` refers to the Kubernetes Secret {name}, which is not at hand"
    ))
    .with_hint("give its manifest, or the folder that it is mounted in")
}

#[cfg(all(test, feature = "aws", feature = "vault"))]
mod tests;
