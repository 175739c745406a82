//! The block of one store: keys, their aliases, and credentials in a Kubernetes Secret.

use secret_persistence_core::settings::{Setting, SettingMap, unknown};
use secret_persistence_core::{Error, Result, SecretValue};
use serde_json::{Map, Value};

use super::super::Warning;
use super::{KubernetesSecrets, invalid, no_secret, tree};

/// The suffix of keys that name a credential's key.
const SECRET_KEY: &str = "SecretKey";

pub(super) struct Block<'a> {
    place: String,
    entries: &'a Map<String, Value>,
    /// The Secrets that may contain a credential. The first one that was passed and has the key is
    /// used.
    names: Vec<String>,
    secrets: &'a KubernetesSecrets,
    /// A key, and other names for it.
    aliases: Option<(&'static str, &'static [&'static str])>,
    /// Settings that come from elsewhere.
    without: Vec<&'static str>,
    warnings: Vec<Warning>,
}

impl<'a> Block<'a> {
    pub(super) fn new(
        place: String,
        entries: &'a Map<String, Value>,
        names: Vec<String>,
        secrets: &'a KubernetesSecrets,
    ) -> Self {
        Self {
            place,
            entries,
            names,
            secrets,
            aliases: None,
            without: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Also reads a key under other names.
    pub(super) fn with_aliases(
        mut self,
        key: &'static str,
        aliases: &'static [&'static str],
    ) -> Self {
        self.aliases = Some((key, aliases));
        self
    }

    /// Excludes settings.
    pub(super) fn without(mut self, settings: &[&'static str]) -> Self {
        self.without.extend(settings);
        self
    }

    /// Whether a key is set.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries
            .get(key)
            .is_some_and(|value| !tree::is_unset(value))
    }

    /// A key's text.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>> {
        let Some(value) = self.entries.get(key) else {
            return Ok(None);
        };
        let value = tree::scalar(&self.at(key), value)?;
        Ok(value.map(|value| value.expose().to_owned()))
    }

    /// Refuses keys that are neither in the table nor in `extra`, set or not.
    pub(super) fn refuse_unknown(
        &self,
        table: &'static [Setting],
        extra: &[&'static str],
    ) -> Result<()> {
        for key in self.entries.keys() {
            let is_of = |row: &Setting| {
                row.helm.contains(&key.as_str()) || secret_key(row).is_some_and(|name| name == *key)
            };
            if extra.contains(&key.as_str()) || table.iter().any(is_of) {
                continue;
            }
            if let Some(row) = nearest_secret_key(table, key) {
                let meant = secret_key(row).unwrap_or_default();
                return Err(invalid(format!("unknown setting `{key}`"))
                    .with_store(self.place.clone())
                    .with_hint(format!("did you mean `{meant}`?")));
            }
            let known = table.iter().flat_map(|row| row.helm).chain(extra).copied();
            return Err(
                unknown(key, known.collect::<Vec<_>>().into_iter()).with_store(self.place.clone())
            );
        }
        Ok(())
    }

    /// Sets the values of the block and, with `looks_up`, of the Kubernetes Secret.
    pub(super) fn fill(&mut self, values: &mut SettingMap, looks_up: bool) -> Result<()> {
        for row in values.table() {
            if self.without.contains(&row.name) {
                continue;
            }
            let inline = self.inline(row)?;
            let named = self.named(row)?;
            match (inline, named) {
                (Some(_), Some(_)) => return Err(self.both(row)),
                (Some(value), None) => values.set(row.name, value.expose())?,
                (None, named) if looks_up || named.is_some() => {
                    if let Some(value) = self.look_up(row, named)? {
                        values.set(row.name, value.expose())?;
                    }
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// The value in the file, under any of its keys.
    fn inline(&self, row: &Setting) -> Result<Option<SecretValue>> {
        let mut found: Option<SecretValue> = None;
        for key in row.helm {
            let Some(value) = self.entries.get(*key) else {
                continue;
            };
            let value = match row.name {
                "tags" => tree::tags(&self.at(key), value)?,
                // A key file that was pasted as a block.
                "credentials" if value.is_object() => tree::pasted(&self.at(key), value)?,
                _ => tree::scalar(&self.at(key), value)?,
            };
            match (&found, value) {
                (Some(one), Some(other)) if *one != other => {
                    return Err(
                        invalid(format!("`{}` have two values", row.helm.join("` and `")))
                            .with_store(self.place.clone())
                            .with_hint("they have the same meaning: remove one"),
                    );
                }
                (_, Some(value)) => found = Some(value),
                (_, None) => {}
            }
        }
        Ok(found)
    }

    /// The Secret's key for a credential, if the file names it.
    fn named(&self, row: &Setting) -> Result<Option<String>> {
        let Some(key) = secret_key(row) else {
            return Ok(None);
        };
        let aliases = self.aliases.filter(|(of, _)| *of == key);
        let aliases = aliases.map_or(&[][..], |(_, aliases)| aliases);
        let mut found: Option<String> = None;
        for name in [key.as_str()].iter().chain(aliases) {
            match (&found, self.text(name)?) {
                (Some(one), Some(other)) if *one != other => {
                    return Err(
                        invalid(format!("`{key}` has two values, one under another name"))
                            .with_store(self.place.clone()),
                    );
                }
                (_, Some(name)) => found = Some(name),
                (_, None) => {}
            }
        }
        Ok(found)
    }

    /// The value in a Secret under the key that `at` names.
    pub(super) fn of_secret(&self, at: &str, key: &str) -> Result<SecretValue> {
        let place = self.at(at);
        let Some(first) = self.names.iter().find(|name| self.secrets.has(name)) else {
            let name = self.names.first().map_or("", String::as_str);
            return Err(no_secret(name, &place, self.secrets));
        };
        match self.find(key)? {
            Some(value) => Ok(value),
            None => Err(invalid(format!(
                "`{place}` names a key that is missing or empty in the Kubernetes Secret {first}"
            ))),
        }
    }

    /// A key in the first Secret that contains it.
    fn find(&self, key: &str) -> Result<Option<SecretValue>> {
        for name in &self.names {
            if let Some(value) = self.secrets.get(name, key)?
                && !value.is_empty()
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The value in the Secret, under the key that the file names or under a documented key.
    fn look_up(&mut self, row: &Setting, named: Option<String>) -> Result<Option<SecretValue>> {
        if row.helm_secret.is_empty() {
            return Ok(None);
        }
        if let Some(key) = named {
            return self
                .of_secret(&secret_key(row).unwrap_or_default(), &key)
                .map(Some);
        }
        for key in row.helm_secret {
            if let Some(value) = self.find(key)? {
                return Ok(Some(value));
            }
        }
        if row.secret {
            self.warnings.push(Warning::new(format!(
                "{}: the Kubernetes Secret {} has no {}, so `{}` is unset",
                self.place,
                self.names.join(" or "),
                row.helm_secret.first().copied().unwrap_or_default(),
                row.name
            )));
        }
        Ok(None)
    }

    /// The error for a required credential that is missing.
    pub(super) fn no_credential(&self, table: &[Setting], name: &str, hint: &'static str) -> Error {
        let row = table.iter().find(|row| row.name == name);
        let key = row
            .and_then(|row| row.helm_secret.first())
            .copied()
            .unwrap_or_default();
        if !self.names.iter().any(|name| self.secrets.has(name)) {
            let name = self.names.first().map_or("", String::as_str);
            return no_secret(name, &self.place, self.secrets);
        }
        invalid(format!(
            "`{}` requires a credential: the Kubernetes Secret {} has no {key}",
            self.place,
            self.names.join(" or ")
        ))
        .with_hint(hint)
    }

    pub(super) fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }

    fn both(&self, row: &Setting) -> Error {
        let inline = row
            .helm
            .iter()
            .find(|key| self.has(key))
            .copied()
            .unwrap_or_default();
        let named = secret_key(row).unwrap_or_default();
        invalid(format!("`{inline}` and `{named}` exclude each other"))
            .with_store(self.place.clone())
            .with_hint("put the credential in the file or in the Kubernetes Secret, not in both")
    }

    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.place)
    }
}

/// The key that names a credential's key in the Kubernetes Secret.
fn secret_key(row: &Setting) -> Option<String> {
    let first = row.helm.first().filter(|_| !row.helm_secret.is_empty())?;
    Some(format!("{first}{SECRET_KEY}"))
}

fn nearest_secret_key<'t>(table: &'t [Setting], key: &str) -> Option<&'t Setting> {
    let looks_like_a_name = key.len() <= 40 && key.bytes().all(|byte| byte.is_ascii_alphabetic());
    let folded = key.to_ascii_lowercase();
    // A key with the whole suffix means one of these, even if its beginning is misspelt.
    let most = match folded.ends_with("secretkey") {
        true => key.len() / 2,
        false => 3,
    };
    let distance = |row: &'t Setting| {
        let name = secret_key(row)?.to_ascii_lowercase();
        Some((strsim::damerau_levenshtein(&name, &folded), row))
    };
    table
        .iter()
        .filter(|_| looks_like_a_name && folded.ends_with("key"))
        .filter_map(distance)
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, row)| row)
}
