//! Settings from the JSON for external secret management.

use secret_persistence_core::settings::{Setting, SettingMap, Trust, unknown};
use secret_persistence_core::{Error, Result};
use serde_json::{Map, Value};

use super::{COMMON, Environment, Settings, Tenant, invalid, tree};
use crate::backend::{self, Backend, JsonForm};

const AUTH_TYPE: &str = "auth_type";

/// The variables of the access key that assumes a role, and the settings they fill.
const BASE_KEY: &[(&str, &str)] = &[
    ("AWS_ASSUME_ROLE_ACCESS_KEY_ID", "assume-role-access-key-id"),
    (
        "AWS_ASSUME_ROLE_SECRET_ACCESS_KEY",
        "assume-role-secret-access-key",
    ),
];

impl Settings {
    /// Reads the JSON for external secret management. Its keys determine the kind of store:
    ///
    /// | store | JSON |
    /// |---|---|
    /// | AWS, a role | `{"auth_type": "IAM_ROLE", "roleArn", "awsRegion", "tagKey", externalId?, kmsKeyArn?}` |
    /// | AWS, an access key | `{"auth_type": "ACCESS_KEY", "awsAccessKey", "awsSecretAccessKey", "awsRegion", "tagKey", kmsKeyArn?}`; the default without `auth_type` |
    /// | Azure | `{"vaultUrl", "tenantId", "clientId", "clientSecret", tags?}` |
    /// | Google | `{"gcpProjectId", "gcpCredentialsJson", region?}` |
    /// | Vault | `{"address", "token", "prefix"}` |
    ///
    /// Only `SECRETS_…` variables (the owner, the layers) are read from the environment and, for a
    /// role, the access key that assumes it: `AWS_ASSUME_ROLE_ACCESS_KEY_ID` and
    /// `AWS_ASSUME_ROLE_SECRET_ACCESS_KEY`.
    ///
    /// # Errors
    /// `InvalidConfig` for invalid JSON, JSON that matches no form or several forms, and keys that
    /// are not in its form.
    pub fn from_json(text: &str, environment: &Environment) -> Result<Self> {
        let tree = tree::json("the settings", text)?;
        Self::from_value(&tree, environment)
    }

    /// Like [`from_json`](Self::from_json), for parsed JSON.
    pub(crate) fn from_value(value: &Value, environment: &Environment) -> Result<Self> {
        let (backend, form, object) = recognise(value)?;
        let mut store = SettingMap::new(backend.settings.rows());
        if form.required.contains(&"roleArn") {
            for (variable, name) in BASE_KEY {
                if let Some(value) = environment.secret(variable) {
                    store.set_by_operator(name, value)?;
                }
            }
        }
        fill(&mut store, &backend, form, object)?;
        store.set_env(|name| {
            environment
                .get(name)
                .filter(|_| name.starts_with("SECRETS_"))
        });
        Self::new(backend.kind, store, SettingMap::new(COMMON))
            .of_json()
            .with_environment(environment)
    }

    /// Reads the same JSON from a tenant, who is less trusted than the operator: see [`Tenant`].
    /// Nothing is read from the environment.
    ///
    /// Refused are default credential chains and ambient identity, files, endpoint and authority
    /// overrides, plain HTTP, hosts other than the provider's and those that the operator allows,
    /// and, for hosts that the tenant chooses, every address outside the public internet.
    ///
    /// # Errors
    /// `InvalidConfig` as for [`from_json`](Self::from_json), and for settings that a tenant must
    /// not set.
    pub fn from_tenant_json(text: &str, tenant: &Tenant) -> Result<Self> {
        let tree = tree::json("the settings", text)?;
        Self::from_tenant_value(&tree, tenant)
    }

    /// Like [`from_tenant_json`](Self::from_tenant_json), for parsed JSON.
    pub(crate) fn from_tenant_value(value: &Value, tenant: &Tenant) -> Result<Self> {
        let (backend, form, object) = recognise(value)?;
        let mut store = SettingMap::with_trust(backend.settings.rows(), tenant.trust());
        if form.required.contains(&"roleArn") {
            if let Some(id) = &tenant.external_id {
                store.set_by_operator("external-id", id.clone())?;
            }
            if let Some((id, secret)) = &tenant.base_key {
                for ((_, name), value) in BASE_KEY.iter().zip([id, secret]) {
                    store.set_by_operator(name, value.clone())?;
                }
            }
        }
        fill(&mut store, &backend, form, object)?;
        let common = SettingMap::with_trust(COMMON, Trust::tenant());
        let settings = Self::new(backend.kind, store, common)
            .of_json()
            .inspected(&Environment::empty())?;
        // Refuse settings when they are saved, not when they are used.
        (backend.check)(&settings.store).map_err(|error| settings.name_as_written(error))?;
        Ok(settings)
    }
}

/// Finds the kind of store and the form.
fn recognise(value: &Value) -> Result<(Backend, JsonForm, &Map<String, Value>)> {
    let object = match value {
        Value::Object(object) => object,
        Value::Array(_) => {
            return Err(invalid("the settings are a list, not a JSON object")
                .with_hint("pass one of its objects"));
        }
        _ => return Err(invalid("the settings are not a JSON object")),
    };
    tree::refuse_encrypted("the file", value)?;
    let has = |key: &&str| object.get(*key).is_some_and(|value| !value.is_null());
    let mut backends = backend::built_in();
    let auth_type = match object.get(AUTH_TYPE).filter(|value| !tree::is_unset(value)) {
        Some(Value::String(text)) => Some(text.as_str()),
        Some(_) => return Err(wrong_auth_type()),
        None => None,
    };
    let mut fitting = Vec::new();
    for (at, backend) in backends.iter().enumerate() {
        let typed = backend.json.iter().any(|form| form.auth_type.is_some());
        let form = match (typed, auth_type) {
            (true, Some(text)) => backend
                .json
                .iter()
                .find(|form| form.auth_type == Some(text)),
            // The first form is the default.
            (true, None) => backend.json.first(),
            (false, Some(_)) => None,
            (false, None) => backend.json.first(),
        };
        if let Some(form) = form
            && form.required.iter().all(has)
        {
            fitting.push((at, *form));
        }
    }
    match fitting[..] {
        [(at, form)] => Ok((backends.swap_remove(at), form, object)),
        [] => Err(match wrapped(&backends, object, 3) {
            Some(key) => invalid(format!("the settings are under `{key}`"))
                .with_hint(format!("pass only the value of `{key}`")),
            None => no_form(&backends, object, auth_type),
        }),
        _ => {
            let kinds: Vec<_> = fitting
                .iter()
                .map(|(at, _)| backends[*at].kind.title())
                .collect();
            Err(invalid(format!(
                "the settings match several forms: {}",
                kinds.join(" or of ")
            ))
            .with_hint("remove the keys of the other form"))
        }
    }
}

/// The key of an object that matches a form, of a text that contains one, or of a list of them.
fn wrapped(backends: &[Backend], object: &Map<String, Value>, depth: usize) -> Option<String> {
    let forms = || backends.iter().flat_map(|backend| backend.json);
    let fits = |inner: &Value| {
        forms().any(|form| form.required.iter().all(|key| inner.get(*key).is_some()))
    };
    let holds = |inner: &Value| match inner {
        Value::Array(items) => items.iter().any(fits),
        // JSON within a string, as consoles and exports contain it.
        Value::String(text) if text.trim_start().starts_with('{') => {
            tree::json("the text", text).is_ok_and(|inner| fits(&inner))
        }
        inner => fits(inner),
    };
    for (key, inner) in object
        .iter()
        .filter(|(key, _)| tree::looks_like_a_name(key))
    {
        if holds(inner) {
            return Some(key.clone());
        }
        let below = inner.as_object().filter(|_| depth > 1);
        if let Some(below) = below.and_then(|below| wrapped(backends, below, depth - 1)) {
            return Some(format!("{key}.{below}"));
        }
    }
    None
}

/// The error if no form matches: the nearest form, and what is missing.
fn no_form(backends: &[Backend], object: &Map<String, Value>, auth_type: Option<&str>) -> Error {
    let known = |text| {
        let forms = backends.iter().flat_map(|backend| backend.json);
        forms
            .filter_map(|form| form.auth_type)
            .any(|known| known == text)
    };
    if auth_type.is_some_and(|text| !known(text)) {
        return wrong_auth_type();
    }
    let forms = backends
        .iter()
        .flat_map(|backend| backend.json.iter().map(move |form| (backend, form)));
    let nearest = forms
        .filter(|(_, form)| auth_type.is_none() || form.auth_type == auth_type)
        .map(|(backend, form)| {
            let given = form
                .required
                .iter()
                .filter(|key| object.contains_key(**key))
                .count();
            (given, form.required.len(), backend, form)
        })
        .filter(|(given, ..)| *given > 0)
        .max_by_key(|(given, required, ..)| (*given * 100) / required);
    match nearest {
        Some((_, _, backend, form)) => {
            let missing: Vec<&str> = form
                .required
                .iter()
                .filter(|key| object.get(**key).is_none_or(Value::is_null))
                .copied()
                .collect();
            let error = invalid(format!(
                "the settings look like {}, but `{}` is missing",
                backend.kind,
                missing.join("`, `")
            ));
            let is_near = |name: &&&str| {
                let known = |key: &str| form.required.contains(&key) || form.optional.contains(&key);
                object.keys().filter(|key| !known(key)).any(|key| {
                    strsim::damerau_levenshtein(
                        &key.to_ascii_lowercase(),
                        &name.to_ascii_lowercase(),
                    ) <= 2
                })
            };
            match missing.iter().find(is_near) {
                Some(name) => error.with_hint(format!(
                    "did you mean `{name}`? Keys are case-sensitive"
                )),
                None => error,
            }
        }
        None => invalid("the settings match no known form").with_hint(
            "the documentation of Settings::from_json lists the forms, and a backend may not be built in",
        ),
    }
}

fn wrong_auth_type() -> Error {
    invalid("`auth_type` must be IAM_ROLE or ACCESS_KEY, and is for AWS only")
}

/// Sets every value of the object.
fn fill(
    values: &mut SettingMap,
    backend: &Backend,
    form: JsonForm,
    object: &Map<String, Value>,
) -> Result<()> {
    let known = || {
        let typed = form.auth_type.map(|_| AUTH_TYPE);
        form.required
            .iter()
            .chain(form.optional)
            .copied()
            .chain(typed)
    };
    for (key, value) in object {
        if key == AUTH_TYPE && form.auth_type.is_some() {
            continue;
        }
        let setting = known()
            .find(|name| name == key)
            .and_then(|name| row(backend.settings.rows(), name));
        let Some(setting) = setting else {
            return Err(unknown(key, known().collect::<Vec<_>>().into_iter()));
        };
        let value = match (setting.name, value) {
            ("tags", value) => tree::tags(key, value)?,
            // A key file pasted as an object.
            (_, Value::Object(_)) if setting.secret => Some(value.to_string().into()),
            (_, value) => tree::scalar(key, value)?,
        };
        match value {
            Some(value) => values.set(setting.name, value.expose())?,
            // An empty prefix is valid; other required values must not be empty.
            None if form.required.contains(&key.as_str()) && setting.name != "prefix" => {
                return Err(invalid(format!("`{key}` is empty")));
            }
            None => {}
        }
    }
    Ok(())
}

fn row(table: &'static [Setting], key: &str) -> Option<&'static Setting> {
    table.iter().find(|setting| setting.json.contains(&key))
}

#[cfg(all(test, feature = "aws", feature = "vault"))]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::Kind;

    fn read(value: &Value) -> Result<Settings> {
        Settings::from_json(&value.to_string(), &Environment::empty())
    }

    #[test]
    fn the_kind_is_recognised_by_the_keys_it_requires() {
        let role = json!({"auth_type": "IAM_ROLE", "roleArn": "arn:aws:iam::123456789012:role/x", "awsRegion": "us-east-1", "tagKey": "T"});
        assert_eq!(read(&role).unwrap().kind(), Kind::Aws);
        let key = json!({"awsAccessKey": "a", "awsSecretAccessKey": "s", "awsRegion": "us-east-1", "tagKey": "T"});
        assert_eq!(
            read(&key)
                .unwrap()
                .store()
                .secret("access-key-id")
                .unwrap()
                .expose(),
            "a"
        );
        let vault = json!({"address": "https://v", "token": "t", "prefix": ""});
        assert_eq!(read(&vault).unwrap().store().text("prefix"), None);
    }

    #[test]
    fn what_fits_no_form_or_several_is_refused() {
        for (value, expected) in [
            (json!([]), "not a JSON object"),
            (json!({}), "no known form"),
            (json!({"auth_type": "SSO"}), "IAM_ROLE or ACCESS_KEY"),
            (json!({"auth_type": 1}), "IAM_ROLE or ACCESS_KEY"),
            (
                json!({"address": "https://v", "token": "canary"}),
                "`prefix` is missing",
            ),
            (
                json!({"Address": "https://v", "token": "canary", "prefix": "x"}),
                "did you mean `address`?",
            ),
            (
                json!({"address": "https://v", "token": "", "prefix": "x"}),
                "`token` is empty",
            ),
            (
                json!({"address": "https://v", "token": "canary", "prefix": "x", "namespace": "n"}),
                "unknown setting",
            ),
            // Without auth_type, an access key is assumed, and a role is not allowed beside it.
            (
                json!({"awsAccessKey": "a", "awsSecretAccessKey": "canary", "awsRegion": "us-east-1", "tagKey": "T", "roleArn": "r"}),
                "unknown setting",
            ),
            (
                json!({"roleArn": "r", "awsRegion": "us-east-1", "tagKey": "T"}),
                "missing",
            ),
            (
                json!({"auth_type": "IAM_ROLE", "roleArn": "r", "awsRegion": "us-east-1", "tagKey": "T", "awsAccessKey": "canary"}),
                "unknown setting",
            ),
            (
                json!({"awsAccessKey": "a", "awsSecretAccessKey": "canary", "awsRegion": "us-east-1", "tagKey": "T", "address": "https://v", "token": "canary", "prefix": "p"}),
                "or of",
            ),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.to_string().contains(expected), "{value}: {error}");
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }

    #[test]
    fn a_role_is_assumed_with_the_access_key_of_the_environment() {
        let environment = Environment::from_iter([
            ("AWS_ASSUME_ROLE_ACCESS_KEY_ID", "base"),
            ("AWS_ASSUME_ROLE_SECRET_ACCESS_KEY", "canary"),
            ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", "another"),
            ("AWS_SECRET_MANAGER_REGION", "eu-west-1"),
            ("SECRETS_OWNER", "here"),
        ]);
        let role = json!({"auth_type": "IAM_ROLE", "roleArn": "arn:aws:iam::123456789012:role/x", "awsRegion": "us-east-1", "tagKey": "T"});
        let settings = Settings::from_json(&role.to_string(), &environment).unwrap();
        let names: Vec<_> = settings.store().names().collect();
        assert_eq!(
            names,
            [
                "assume-role-access-key-id",
                "assume-role-secret-access-key",
                "region",
                "role-arn",
                "tag-key"
            ]
        );
        assert_eq!(settings.store().text("region"), Some("us-east-1"));
        assert_eq!(settings.owner().unwrap().unwrap().as_str(), "here");
        // An access key needs no assumed role.
        let key = json!({"awsAccessKey": "a", "awsSecretAccessKey": "s", "awsRegion": "us-east-1", "tagKey": "T"});
        let settings = Settings::from_json(&key.to_string(), &environment).unwrap();
        assert!(
            settings
                .store()
                .secret("assume-role-access-key-id")
                .is_none()
        );
    }

    #[test]
    fn a_tenants_role_takes_the_platforms_external_id_and_no_other() {
        let role = |id: Option<&str>| {
            let mut role = json!({"auth_type": "IAM_ROLE", "roleArn": "arn:aws:iam::123456789012:role/x", "awsRegion": "us-east-1", "tagKey": "T"});
            if let Some(id) = id {
                role["externalId"] = json!(id);
            }
            role.to_string()
        };
        let environment = Environment::from_iter([
            ("AWS_ASSUME_ROLE_ACCESS_KEY_ID", "base"),
            ("AWS_ASSUME_ROLE_SECRET_ACCESS_KEY", "canary"),
        ]);
        let tenant = Tenant::new().with_environment(&environment);
        let error = Settings::from_tenant_json(&role(None), &tenant).unwrap_err();
        assert!(error.message().contains("external id"), "{error}");
        let tenant = tenant.with_external_id("org-7");
        let settings = Settings::from_tenant_json(&role(None), &tenant).unwrap();
        assert_eq!(settings.store().text("external-id"), Some("org-7"));
        Settings::from_tenant_json(&role(Some("org-7")), &tenant).unwrap();
        let error = Settings::from_tenant_json(&role(Some("org-8")), &tenant).unwrap_err();
        assert!(error.message().contains("operator"), "{error}");
        // Without the operator's access key, the identity of the process would be used.
        let bare = Tenant::new().with_external_id("org-7");
        let error = Settings::from_tenant_json(&role(None), &bare).unwrap_err();
        assert!(error.message().contains("access key"), "{error}");
    }
}
