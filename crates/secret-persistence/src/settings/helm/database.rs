//! The database of a `values.yaml`: `global.database` of the present chart, `externalDatabase` of the
//! one before.

use secret_persistence_core::Result;
use secret_persistence_core::settings::SettingMap;
use serde_json::{Map, Value};

use super::block::Block;
use super::{COMMON, DEFAULT_SECRET, KubernetesSecrets, Settings, invalid, tree};
use crate::backend;
use crate::kind::Kind;

const PRESENT: &str = "global.database";
const FORMER: &str = "externalDatabase";

/// Keys beside those of the key table. `type` says who runs the server, and the replica is not ours.
const KEYS: &[&str] = &[
    "existingSecret",
    "existingSecretPasswordKey",
    "replica",
    "secretName",
    "type",
];

/// What names a database; a block without any of it is as good as none.
const PLACES: &[&str] = &["host", "jdbcUrl"];

pub(super) fn settings(
    root: &Value,
    global: Option<&Map<String, Value>>,
    secrets: &KubernetesSecrets,
) -> Result<Settings> {
    let present = tree::entries(PRESENT, global.and_then(|global| global.get("database")))?;
    let former = tree::entries(FORMER, root.get(FORMER))?;
    let names_one = |entries: &&Map<String, Value>| {
        PLACES.iter().any(|key| {
            entries
                .get(*key)
                .is_some_and(|value| !tree::is_unset(value))
        })
    };
    let (place, entries) = match (present.filter(names_one), former.filter(names_one)) {
        (Some(_), Some(_)) => {
            return Err(
                invalid(format!("`{PRESENT}` and `{FORMER}` name two databases"))
                    .with_hint("leave one of them out"),
            );
        }
        (Some(entries), None) => (PRESENT, entries),
        (None, Some(entries)) => (FORMER, entries),
        (None, None) => {
            return Err(invalid("the values file names no store").with_hint(format!(
                "set global.secretsManager.type, or the host of `{PRESENT}`: the database that the chart \
                 brings along has no address outside the cluster"
            )));
        }
    };
    let text = |key: &str| match entries.get(key) {
        Some(value) => tree::scalar(&format!("{place}.{key}"), value),
        None => Ok(None),
    };
    let given: Vec<&str> = ["password", "existingSecret", "jdbcUrl"]
        .into_iter()
        .filter(|key| {
            entries
                .get(*key)
                .is_some_and(|value| !tree::is_unset(value))
        })
        .collect();
    if given.len() > 1 {
        return Err(
            invalid(format!("`{}` exclude each other", given.join("` and `")))
                .with_store(place)
                .with_hint("a password comes from one place"),
        );
    }
    let secret = match (text("existingSecret")?, text("secretName")?) {
        (Some(one), Some(other)) if one != other => {
            return Err(
                invalid("`existingSecret` and `secretName` name two Secrets")
                    .with_store(place)
                    .with_hint("they mean the same: leave one out"),
            );
        }
        (Some(name), _) | (None, Some(name)) => Some(name.expose().to_owned()),
        (None, None) => None,
    };
    let backend = backend::of(Kind::Database)?;
    // A URL is complete in itself: nothing is looked up beside it.
    let looks_up = secret.is_some() && !given.contains(&"jdbcUrl");
    let name = secret.unwrap_or_else(|| DEFAULT_SECRET.to_owned());
    let mut block = Block::new(place.to_owned(), entries, name, secrets)
        .with_alias("passwordSecretKey", "existingSecretPasswordKey");
    block.refuse_unknown(backend.settings.rows(), KEYS)?;
    let mut values = SettingMap::new(backend.settings.rows());
    block.fill(&mut values, looks_up)?;
    if given == ["existingSecret"] && values.secret("password").is_none() {
        return Err(block.no_credential(
            backend.settings.rows(),
            "password",
            "name its key with `existingSecretPasswordKey` or `passwordSecretKey`",
        ));
    }
    let warnings = block.into_warnings();
    Ok(Settings::new(Kind::Database, values, SettingMap::new(COMMON)).with_warnings(warnings))
}
