//! Settings from a Helm `values.yaml`, as Airbyte's charts compute them.
//!
//! The charts, by their templates in github.com/airbytehq/airbyte-platform:
//!
//! | chart | templates | database | credentials by default |
//! |---|---|---|---|
//! | 0.4x to 0.6x | `charts/airbyte/templates/_helpers.tpl` | `postgresql.enabled` decides, then `externalDatabase` | `<release>-airbyte-secrets` |
//! | 1.x | `charts/airbyte/templates/_database.tpl` | `postgresql.enabled` decides, then `global.database` | `<release>-airbyte-secrets` |
//! | 2.x | `charts/v2/airbyte/templates/config/_database.tpl`, `_secretsManager.tpl` | `global.database` | `global.secretName`, then `<release>-airbyte-secrets` |
//! | data plane | `charts/v2/airbyte-data-plane/templates/config/_secretsManager.tpl` | none | `secretName` at the root |
//!
//! The charts' documentation uses `airbyte-config-secrets` throughout, which has precedence over
//! the release's Secret.

mod block;
mod database;
mod document;
mod misplaced;

use secret_persistence_core::settings::{SettingMap, unknown};
use secret_persistence_core::{Error, Result};
use serde_json::{Map, Value};

use self::block::Block;
use super::{COMMON, Environment, KubernetesSecrets, Settings, identity, invalid, tree};
use crate::backend;
use crate::kind::Kind;

pub(super) use document::{is_of_values, is_sealed, refuse_text};

/// Keys of `global.secretsManager` beside the stores' blocks. The chart's own values contain
/// `enabled`, but only `type` decides.
const KEYS: &[&str] = &[
    "enabled",
    "secretName",
    "secretsManagerSecretName",
    "storageSecretName",
    "type",
];

/// The place of the store, and its place in the chart of a data plane.
const MANAGER_PLACE: &str = "global.secretsManager";
const DATA_PLANE_PLACE: &str = "secretsManager";

/// The path of the common settings, which the chart does not define.
pub(super) const COMMON_PLACE: &str = "global.secretPersistence";

/// The key with which AWS, and Google in documented files, selects credentials in a Secret.
const AUTHENTICATION_TYPE: &str = "authenticationType";

/// The Secret of Vault's token, by its name in version 2 of the chart.
const TOKEN_SECRET: &str = "authTokenRefName";

impl Settings {
    /// Reads a Helm `values.yaml` as Airbyte documents it: `global.secretsManager` contains the
    /// kind of store and its block; without it, the store is the database in `global.database` or
    /// `externalDatabase`. The common settings are in `global.secretPersistence`, with the names of
    /// [`COMMON`] in camel case. Values within a HelmRelease of Flux or an Application of Argo CD
    /// are read too.
    ///
    /// `null` and `""` count as unset. Credentials are in the file, or in a Kubernetes Secret under
    /// the key that the file names or under the documented key. Only `SECRETS_…` variables are read
    /// from the environment: the owner, the layers, a database's key ring.
    ///
    /// # Errors
    /// `InvalidConfig` for invalid YAML; for other files that people keep beside the values, with
    /// what to pass instead; for unknown keys in `global.secretsManager` and in the block of the
    /// chosen store, with the nearest known one; if another store than the database seems to be
    /// meant, but is set where the chart does not look; for a credential in the file together with
    /// the key of one in a Secret; and for a missing Secret or key.
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
            _ => {
                return Err(invalid("the values file contains several documents")
                    .with_hint("pass only the one with the values"));
            }
        };
        Self::from_values(root, secrets, environment)
    }

    /// As [`from_helm`](Self::from_helm), for parsed values.
    pub(super) fn from_values(
        document: &Value,
        secrets: &KubernetesSecrets,
        environment: &Environment,
    ) -> Result<Self> {
        let found = document::values(document)?;
        let root: &Value = &found;
        misplaced::refuse_wrapped(root)?;
        let global = tree::entries("global", root.get("global"))?;
        let manager = Manager::find(root, global)?;
        misplaced::refuse(root, global, manager.as_ref().map(|manager| manager.place))?;
        let kind = match &manager {
            Some(manager) => manager.kind()?,
            None => None,
        };
        let variables = misplaced::variables(root);
        let warnings = misplaced::refuse_variables(&variables, kind)?;
        let mut settings = match (&manager, kind) {
            (Some(manager), Some(kind)) if kind != Kind::Database => {
                manager.settings(kind, secrets)?
            }
            _ => database::settings(root, global, secrets)?,
        };
        settings = settings.with_warnings(warnings);
        let named = variables
            .iter()
            .map(|variable| (variable.place.as_str(), variable.name));
        identity::refuse_of_sdks(settings.kind, &settings.store, named, |setting| {
            let row = settings
                .store
                .table()
                .iter()
                .find(|row| row.name == setting)?;
            settings.called(row)
        })?;
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

/// `global.secretsManager`, or `secretsManager` of a data plane.
struct Manager<'a> {
    place: &'static str,
    entries: &'a Map<String, Value>,
    /// The Secret for all credentials, if this one names none.
    secret: Option<&'a Value>,
}

impl<'a> Manager<'a> {
    fn find(root: &'a Value, global: Option<&'a Map<String, Value>>) -> Result<Option<Self>> {
        let of_global = global.and_then(|global| global.get("secretsManager"));
        if let Some(entries) = tree::entries(MANAGER_PLACE, of_global)? {
            return Ok(Some(Self {
                place: MANAGER_PLACE,
                entries,
                secret: global.and_then(|global| global.get("secretName")),
            }));
        }
        // Without `global`, this is the chart of a data plane, or a file as version 1 documents it
        // for Google. In the other chart, this place is wrong.
        let at_root = root.get("secretsManager").filter(|_| global.is_none());
        let is_documented = ["airbyteUrl", "dataPlane"]
            .iter()
            .any(|key| root.get(*key).is_some())
            || root.pointer("/secretsManager/storageSecretName").is_some();
        match tree::entries(DATA_PLANE_PLACE, at_root)? {
            Some(entries) if is_documented => Ok(Some(Self {
                place: DATA_PLANE_PLACE,
                entries,
                secret: root.get("secretName"),
            })),
            _ => Ok(None),
        }
    }

    /// The kind of store in `type`; `None` if it is unset, which means the database.
    fn kind(&self) -> Result<Option<Kind>> {
        let blocks = || Kind::ALL.into_iter().filter_map(Kind::helm_block);
        let known = KEYS.iter().copied().chain(blocks());
        if let Some(key) = self
            .entries
            .keys()
            .find(|key| !known.clone().any(|known| known == *key))
        {
            return Err(unknown(key, known.collect::<Vec<_>>().into_iter()).with_store(self.place));
        }
        let place = format!("{}.type", self.place);
        let kind = match self.entries.get("type") {
            Some(value) => tree::scalar(&place, value)?,
            None => None,
        };
        if let Some(text) = kind {
            return Kind::of_helm(&place, text.expose()).map(Some);
        }
        match blocks().find(|block| self.entries.get(*block).is_some_and(is_filled)) {
            // Without this error, someone who configured another store would get the database, in
            // plain text.
            Some(block) => Err(invalid(format!("`{place}` is missing beside `{block}`"))
                .with_hint(format!("set it to {block}"))),
            None => Ok(None),
        }
    }

    fn settings(&self, kind: Kind, secrets: &KubernetesSecrets) -> Result<Settings> {
        let name = kind.helm_block().unwrap_or_default();
        let backend = backend::of(kind)?;
        let place = format!("{}.{name}", self.place);
        let entries = tree::entries(&place, self.entries.get(name))?.ok_or_else(|| {
            invalid(format!("`{place}` is missing"))
                .with_hint("it contains the settings of the chosen store")
        })?;
        let names = self.secret_names(entries, secrets)?;
        let mut block = Block::new(place.clone(), entries, names, secrets);
        let mut store = SettingMap::new(backend.settings.rows());
        let extra: &[&str] = match kind {
            Kind::Aws | Kind::Google => &[AUTHENTICATION_TYPE],
            Kind::Vault => &[TOKEN_SECRET],
            Kind::Azure | Kind::Custom(_) | Kind::Database => &[],
        };
        let looks_up = kind != Kind::Aws || aws_credentials(&block)?;
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
        let settings = Settings::new(kind, store, SettingMap::new(COMMON)).with_warnings(warnings);
        Ok(settings.of_helm(place))
    }

    /// The Kubernetes Secrets that the store's credentials may be in.
    fn secret_names(
        &self,
        block: &Map<String, Value>,
        secrets: &KubernetesSecrets,
    ) -> Result<Vec<String>> {
        let mut named: Option<(&str, String)> = None;
        for key in [
            "secretName",
            "secretsManagerSecretName",
            "storageSecretName",
        ] {
            let place = format!("{}.{key}", self.place);
            let Some(name) = text(&place, self.entries.get(key))? else {
                continue;
            };
            match &named {
                Some((first, other)) if *other != name => {
                    return Err(
                        invalid(format!("`{first}` and `{key}` name different Secrets"))
                            .with_store(self.place)
                            .with_hint("they have the same meaning: remove one"),
                    );
                }
                _ => named = Some((key, name)),
            }
        }
        if let Some((_, name)) = named {
            return Ok(vec![name]);
        }
        let place = format!("{}.vault.{TOKEN_SECRET}", self.place);
        if let Some(name) = text(&place, block.get(TOKEN_SECRET))? {
            return Ok(vec![name]);
        }
        secret_names(text("secretName", self.secret)?, secrets)
    }
}

/// Whether a block configures a store. The charts' own values contain some keys with common words,
/// names of keys and placeholders.
fn is_filled(block: &Value) -> bool {
    let entries = block.as_object().into_iter().flatten();
    let mut set = entries.filter(|(key, value)| {
        let is_default =
            *key == AUTHENTICATION_TYPE || *key == "tags" || key.ends_with("SecretKey");
        let is_example = value.as_str().is_some_and(|text| text.starts_with('<'));
        !is_default && !is_example && !tree::is_unset(value)
    });
    set.next().is_some()
}

/// The Secrets of a file that names none: the one for all credentials, otherwise those of the
/// documentation and of the chart.
fn secret_names(for_all: Option<String>, secrets: &KubernetesSecrets) -> Result<Vec<String>> {
    Ok(match for_all {
        Some(name) => vec![name],
        None => secrets.defaults(),
    })
}

fn text(place: &str, value: Option<&Value>) -> Result<Option<String>> {
    let value = match value {
        Some(value) => tree::scalar(place, value)?,
        None => None,
    };
    Ok(value.map(|value| value.expose().to_owned()))
}

/// Whether AWS uses an access key. Otherwise it uses the SDK's default chain, with the credentials
/// of the machine or pod.
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
                .with_hint("remove one of them")),
                None => Ok(false),
            }
        }
        Some(_) => Err(invalid(format!(
            "`{AUTHENTICATION_TYPE}` must be credentials or instanceProfile"
        ))),
    }
}

/// The common settings.
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

fn no_secret(name: &str, place: &str, secrets: &KubernetesSecrets) -> Error {
    match secrets.sealed(name) {
        Some(kind) => invalid(format!(
            "`{place}` refers to the Kubernetes Secret {name}, but only its {kind} was passed"
        ))
        .with_hint(format!(
            "only the cluster can create the Secret from it: pass the output of `kubectl get secret {name} -o yaml`"
        )),
        None => invalid(format!(
            "`{place}` refers to the Kubernetes Secret {name}, which was not passed"
        ))
        .with_hint("pass its manifest, or the folder where it is mounted"),
    }
}

#[cfg(all(test, feature = "aws", feature = "vault"))]
mod tests;
