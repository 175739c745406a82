//! Kubernetes Secrets that a Helm `values.yaml` refers to: as manifests or as mounted folders.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secret_persistence_core::{Error, Result, SecretValue};
use serde_json::Value;

use super::{helm, invalid, text, tree};

/// The Secret that Airbyte's documentation names.
const DEFAULT: &str = "airbyte-config-secrets";

/// The Kubernetes Secrets that settings may refer to. `Debug` shows only their names and locations.
///
/// ```
/// use secret_persistence::KubernetesSecrets;
///
/// let secrets = KubernetesSecrets::none()
///     .with_manifests("kind: Secret\nmetadata: {name: vault}\nstringData: {vault-token: hvs.example}")?
///     .with_folder("airbyte-config-secrets", "/etc/airbyte/secrets");
/// # let _ = secrets;
/// # Ok::<(), secret_persistence::Error>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct KubernetesSecrets {
    /// By name and key. `None` for values that are not text, such as a key store.
    manifests: BTreeMap<String, BTreeMap<String, Option<SecretValue>>>,
    /// Resources from which a controller creates Secrets: the kind, by the Secret's name.
    sealed: BTreeMap<String, String>,
    /// Folders of one Secret each; a folder without a name is for any Secret.
    folders: Vec<(Option<String>, PathBuf)>,
}

impl KubernetesSecrets {
    /// No Secrets: settings that refer to one are an error.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds the Secrets in a YAML text with any number of documents; other kinds are ignored.
    /// Within a Secret, `stringData` takes precedence over the base64 in `data`, as in the API
    /// server.
    ///
    /// # Errors
    /// `InvalidConfig` for invalid YAML, a Secret without a name, two Secrets with the same name,
    /// and values of `stringData` that are not text. A value of `data` that is not base64 of text
    /// is an error only if it is used: the Secret may also contain a key store.
    pub fn with_manifests(mut self, text: &str) -> Result<Self> {
        for document in tree::yaml("the manifest", text)? {
            tree::refuse_encrypted("the manifest", &document)?;
            let items = match document.get("items") {
                Some(Value::Array(items))
                    if document.get("kind") != Some(&Value::from("Secret")) =>
                {
                    items.iter().collect()
                }
                _ => vec![&*document],
            };
            for item in items {
                match item.get("kind").and_then(Value::as_str) {
                    Some("Secret") => self.add(item)?,
                    Some(kind) if helm::is_sealed(kind) => self.add_sealed(kind, item),
                    _ => {}
                }
            }
        }
        Ok(self)
    }

    /// Adds the Secrets of a file of manifests, in UTF-8 or UTF-16.
    ///
    /// # Errors
    /// `InvalidConfig` if the file cannot be read; otherwise as
    /// [`with_manifests`](Self::with_manifests).
    pub fn with_file(self, path: &Path) -> Result<Self> {
        self.with_manifests(&text::read(path)?)
    }

    /// Adds a Secret that is mounted as a volume: a folder with one file per key.
    pub fn with_folder(mut self, name: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        self.folders.push((Some(name.into()), folder.into()));
        self
    }

    /// Adds a folder for the Secret that is referred to, whatever its name.
    pub fn with_any_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folders.push((None, folder.into()));
        self
    }

    /// Whether there is a Secret of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.manifests.contains_key(name) || self.folder(name).is_some()
    }

    /// The Secrets of a file that names none: `airbyte-config-secrets` of the documentation, then
    /// `<release>-airbyte-secrets`, which the charts create and use.
    pub(super) fn defaults(&self) -> Vec<String> {
        let of_chart = |name: &&String| {
            name.ends_with("-airbyte-secrets") || name.ends_with("-airbyte-data-plane-secrets")
        };
        let of_release: Vec<&String> = self.manifests.keys().filter(of_chart).collect();
        let mut names = vec![DEFAULT.to_owned()];
        // With several releases, the name is ambiguous.
        if let [name] = of_release[..] {
            names.push(name.clone());
        }
        names
    }

    /// The kind of the resource that was passed instead of a Secret.
    pub(super) fn sealed(&self, name: &str) -> Option<&str> {
        self.sealed.get(name).map(String::as_str)
    }

    /// The value of a key without its trailing newline; `None` if it is missing.
    ///
    /// # Errors
    /// `InvalidConfig` for an invalid key, and for a file that cannot be read or is not text.
    pub(super) fn get(&self, name: &str, key: &str) -> Result<Option<SecretValue>> {
        // <https://kubernetes.io/docs/concepts/configuration/secret/#restriction-names-data>
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if key.is_empty() || key.len() > 253 || !key.bytes().all(allowed) || key.starts_with("..") {
            return Err(invalid("this is not a valid key of a Kubernetes Secret")
                .with_hint("a key consists of letters, digits, `-`, `_` and `.`"));
        }
        let value = match self.manifests.get(name).and_then(|keys| keys.get(key)) {
            Some(Some(value)) => Some(value.clone()),
            Some(None) => {
                return Err(wrong(
                    name,
                    key,
                    "`data` of a Secret must be base64 of text",
                ));
            }
            None => match self.folder(name) {
                Some(folder) => read(&folder.join(key))?,
                None => None,
            },
        };
        Ok(value.map(without_line_end))
    }

    fn folder(&self, name: &str) -> Option<&Path> {
        let named = self
            .folders
            .iter()
            .find(|(of, _)| of.as_deref() == Some(name));
        let (_, folder) = named.or_else(|| self.folders.iter().find(|(of, _)| of.is_none()))?;
        Some(folder)
    }

    /// Records the resource that a Secret is created from. The Secret has the resource's name,
    /// unless the resource contains another one.
    fn add_sealed(&mut self, kind: &str, resource: &Value) {
        let places = [
            "/spec/target/name",
            "/spec/destination/name",
            "/spec/template/metadata/name",
            "/metadata/name",
        ];
        let name = places
            .iter()
            .find_map(|place| resource.pointer(place).and_then(Value::as_str));
        if let Some(name) = name {
            self.sealed.insert(name.to_owned(), kind.to_owned());
        }
    }

    fn add(&mut self, secret: &Value) -> Result<()> {
        let name = secret
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .ok_or_else(|| invalid("a Secret in the manifest has no name"))?;
        let mut keys = BTreeMap::new();
        for (key, value) in tree::entries("data", secret.get("data"))?
            .into_iter()
            .flatten()
        {
            let text = value.as_str().and_then(decoded);
            keys.insert(key.clone(), text.map(SecretValue::new));
        }
        for (key, value) in tree::entries("stringData", secret.get("stringData"))?
            .into_iter()
            .flatten()
        {
            let value = match value {
                Value::String(text) => SecretValue::new(text.clone()),
                other => tree::scalar("stringData", other)
                    .map_err(|_| {
                        wrong(
                            name,
                            key,
                            "`stringData` of a Secret must contain strings: put it in quotes",
                        )
                    })?
                    .unwrap_or_else(|| SecretValue::new(String::new())),
            };
            keys.insert(key.clone(), Some(value));
        }
        if self.manifests.insert(name.to_owned(), keys).is_some() {
            return Err(invalid(format!(
                "there are two manifests of the Secret {name}"
            )));
        }
        Ok(())
    }
}

impl fmt::Debug for KubernetesSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesSecrets")
            .field("manifests", &self.manifests.keys())
            .field("folders", &self.folders)
            .finish()
    }
}

fn decoded(text: &str) -> Option<String> {
    let compact: String = text.split_ascii_whitespace().collect();
    String::from_utf8(STANDARD.decode(compact).ok()?).ok()
}

fn read(path: &Path) -> Result<Option<SecretValue>> {
    match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(|text| Some(SecretValue::new(text)))
            .map_err(|_| invalid(format!("{} is not text", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(invalid(format!("{} cannot be read", path.display())).with_source(error)),
    }
}

/// Removes the newline that editors and `echo` add, and that is not part of the credential.
fn without_line_end(value: SecretValue) -> SecretValue {
    let text = value.expose();
    let trimmed = text
        .strip_suffix('\n')
        .map(|text| text.strip_suffix('\r').unwrap_or(text));
    match trimmed {
        Some(trimmed) => SecretValue::new(trimmed.to_owned()),
        None => value,
    }
}

fn wrong(name: &str, key: &str, hint: &'static str) -> Error {
    invalid(format!(
        "the key `{key}` of the Secret {name} cannot be read"
    ))
    .with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFESTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: airbyte-config-secrets}
data: {token: not-a-secret}
---
apiVersion: v1
kind: Secret
metadata: {name: airbyte-config-secrets}
stringData:
  both: plain
  number: 1234
data:
  both: ZW5jb2RlZA==
  only: ZW5jb2RlZAo=
---
kind: List
items:
  - kind: Secret
    metadata: {name: listed}
    stringData: {a: b}
";

    fn text(secrets: &KubernetesSecrets, name: &str, key: &str) -> Option<String> {
        secrets
            .get(name, key)
            .unwrap()
            .map(|value| value.expose().to_owned())
    }

    #[test]
    fn string_data_comes_before_base64() {
        let secrets = KubernetesSecrets::none().with_manifests(MANIFESTS).unwrap();
        let of = |key| text(&secrets, "airbyte-config-secrets", key);
        assert_eq!(of("both").as_deref(), Some("plain"));
        assert_eq!(of("only").as_deref(), Some("encoded"));
        assert_eq!(of("number").as_deref(), Some("1234"));
        assert_eq!(of("token"), None);
        assert_eq!(text(&secrets, "listed", "a").as_deref(), Some("b"));
        assert!(!secrets.has("other") && secrets.has("listed"));
        assert!(!format!("{secrets:?}").contains("encoded"));
    }

    #[test]
    fn a_mounted_folder_has_one_file_for_each_key() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vault-token"), "hvs.example\r\n").unwrap();
        std::fs::write(folder.path().join("binary"), [0xff]).unwrap();
        for secrets in [
            KubernetesSecrets::none().with_folder("s", folder.path()),
            KubernetesSecrets::none().with_any_folder(folder.path()),
        ] {
            assert_eq!(
                text(&secrets, "s", "vault-token").as_deref(),
                Some("hvs.example")
            );
            assert_eq!(text(&secrets, "s", "missing"), None);
            assert!(secrets.get("s", "binary").is_err());
            for key in ["../etc/passwd", "a/b", "", "..", "..data"] {
                assert!(secrets.get("s", key).is_err(), "{key}");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_an_error_only_where_it_is_asked_for() {
        let manifest =
            "kind: Secret\nmetadata: {name: s}\ndata: {store: /w==, wrong: 'canary!', token: dA==}";
        let secrets = KubernetesSecrets::none().with_manifests(manifest).unwrap();
        assert_eq!(text(&secrets, "s", "token").as_deref(), Some("t"));
        for key in ["store", "wrong"] {
            let error = secrets.get("s", key).unwrap_err();
            assert!(error.message().contains(key), "{error}");
            assert!(!format!("{error:?}").contains("canary"));
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_not_shown() {
        for manifest in [
            "kind: Secret\nstringData: {a: canary}",
            "kind: Secret\nmetadata: {name: s}\nstringData: {a: [canary]}",
            "kind: Secret\nmetadata: {name: s}\n---\nkind: Secret\nmetadata: {name: s}\nstringData: {a: canary}",
            "kind: [canary",
        ] {
            let error = KubernetesSecrets::none()
                .with_manifests(manifest)
                .unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("canary"),
                "{error:?}"
            );
        }
    }
}
