//! What a file is: values, something that holds them, or something that people have beside them.

use std::ops::Deref;

use secret_persistence_core::connector::SecretJson;
use secret_persistence_core::{Error, Result};
use serde_json::{Map, Value};

use super::super::environment::SECRET_PERSISTENCE;
use super::super::{invalid, tree};

/// The values of a chart, within the document or parsed out of it.
pub(super) enum Values<'a> {
    Here(&'a Value),
    Parsed(SecretJson),
}

impl Deref for Values<'_> {
    type Target = Value;

    fn deref(&self) -> &Value {
        match self {
            Self::Here(value) => value,
            Self::Parsed(value) => value,
        }
    }
}

/// Whether a document that is JSON is of the kinds that are read here, and not the JSON for external
/// secret management.
pub(in super::super) fn is_of_values(document: &Value) -> bool {
    let has = |key: &str| document.get(key).is_some_and(|value| !value.is_string());
    [
        "global",
        "externalDatabase",
        "secretsManager",
        "postgresql",
        "services",
        "sops",
    ]
    .iter()
    .any(|key| has(key))
        || document.get(SECRET_PERSISTENCE).is_some()
        || (document.get("apiVersion").is_some() && document.get("kind").is_some())
}

/// Refuses texts that are no YAML at all, as far as they say what they are.
///
/// # Errors
/// `InvalidConfig`, with what to give in their place.
pub(in super::super) fn refuse_text(text: &str) -> Result<()> {
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    match line {
        None => Err(invalid("the file is empty")
            .with_hint("give a values.yaml, a file of NAME=value lines, or JSON")),
        Some("[Unit]" | "[Service]" | "[Install]") => Err(is_no_settings(
            "a unit of systemd",
            "give the file that its EnvironmentFile= names, or its Environment= as NAME=value lines",
        )),
        Some(_) => Ok(()),
    }
}

/// Finds the values of a document.
///
/// # Errors
/// `InvalidConfig` for what has no values, with what it is and what to give in its place.
pub(super) fn values(document: &Value) -> Result<Values<'_>> {
    let object = match document {
        Value::Null => return Ok(Values::Here(document)),
        Value::Object(object) => object,
        Value::Array(_) => {
            return Err(is_no_settings(
                "a list",
                "give one of its items in a file of its own",
            ));
        }
        _ => {
            return Err(is_no_settings(
                "a single value",
                "give a values.yaml, a file of NAME=value lines, or JSON",
            ));
        }
    };
    tree::refuse_encrypted("the file", document)?;
    let kind = object.get("kind").and_then(Value::as_str);
    match kind.filter(|_| object.contains_key("apiVersion")) {
        Some("HelmRelease") => of_release(document),
        Some("Application") => of_application(document),
        Some(kind) => Err(of_another_kind(kind, document)),
        None => match (compose_service(object), tool(object)) {
            (Some(service), _) => Err(of_compose(service)),
            (None, Some((_, what, place))) => Err(is_no_settings(
                what,
                &format!("give what is in {place}, in a file of its own"),
            )),
            (None, None) => Ok(Values::Here(document)),
        },
    }
}

/// <https://fluxcd.io/flux/components/helm/helmreleases/#values>
fn of_release(document: &Value) -> Result<Values<'_>> {
    match document.pointer("/spec/values") {
        Some(found) if !tree::is_unset(found) => values(found),
        _ => Err(is_no_settings(
            "a HelmRelease without `spec.values`",
            "give the values that `spec.valuesFrom` refers to",
        )),
    }
}

/// <https://argo-cd.readthedocs.io/en/stable/user-guide/helm/>: `valuesObject` comes before `values`.
fn of_application(document: &Value) -> Result<Values<'_>> {
    let sources = match document.pointer("/spec/sources").and_then(Value::as_array) {
        Some(sources) => sources.iter().collect(),
        None => document
            .pointer("/spec/source")
            .into_iter()
            .collect::<Vec<_>>(),
    };
    let has = |helm: &&Value, key: &str| helm.get(key).is_some_and(|value| !tree::is_unset(value));
    let helms = sources.iter().filter_map(|source| source.get("helm"));
    let found: Vec<&Value> = helms
        .filter(|helm| has(helm, "values") || has(helm, "valuesObject"))
        .collect();
    let [helm] = found[..] else {
        return Err(match found.len() {
            0 => is_no_settings(
                "an Application of Argo CD without `spec.source.helm.values`",
                "give the file that `valueFiles` names",
            ),
            _ => is_no_settings(
                "an Application of Argo CD with several sources that have values",
                "give the values of Airbyte's chart in a file of their own",
            ),
        });
    };
    if has(&helm, "parameters") {
        return Err(is_no_settings(
            "an Application of Argo CD with `helm.parameters`, which change its values",
            "give the values that come of both in a file of their own",
        ));
    }
    if let Some(object) = helm
        .get("valuesObject")
        .filter(|value| !tree::is_unset(value))
    {
        return values(object);
    }
    let place = "spec.source.helm.values";
    let text = match helm.get("values") {
        Some(Value::String(text)) => text,
        _ => return Err(invalid(format!("`{place}` is not text"))),
    };
    let mut documents = tree::yaml(&format!("`{place}`"), text)?;
    match documents.len() {
        1 => {
            let parsed = documents.swap_remove(0);
            // What stands within values has no other values within it.
            values(&parsed).map(drop)?;
            Ok(Values::Parsed(parsed))
        }
        _ => Err(invalid(format!("`{place}` holds several documents"))),
    }
}

fn of_another_kind(kind: &str, document: &Value) -> Error {
    let name = document
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .filter(|name| tree::looks_like_a_name(name))
        .unwrap_or("NAME");
    match kind {
        "ConfigMap" => is_no_settings(
            "a ConfigMap",
            "give the values.yaml, or what is under `data` as NAME=value lines, with the credentials of the \
             Secret beside them",
        ),
        "Secret" => is_no_settings(
            "a Kubernetes Secret",
            "give the values.yaml as settings, and this file as its Secret (--kubernetes-secret)",
        ),
        _ if is_sealed(kind) => is_no_settings(
            &format!("of kind {kind}, of which only the cluster can make a Secret"),
            &format!(
                "the plain Secret is needed: give the values.yaml as settings, and what `kubectl get secret \
                 {name} -o yaml` prints as its Secret (--kubernetes-secret)"
            ),
        ),
        "List" => is_no_settings("a list of manifests", "give the values.yaml"),
        "ApplicationSet" => is_no_settings(
            "an ApplicationSet of Argo CD",
            "give the values of one Application in a file of their own",
        ),
        _ => is_no_settings(
            "a manifest of Kubernetes",
            "give the values.yaml of the chart, not what is made of it",
        ),
    }
}

/// Kinds of which a controller makes a Secret.
pub(in super::super) fn is_sealed(kind: &str) -> bool {
    [
        "SealedSecret",
        "ExternalSecret",
        "ClusterExternalSecret",
        "VaultStaticSecret",
        "VaultDynamicSecret",
        "OnePasswordItem",
        "BitwardenSecret",
        "SopsSecret",
    ]
    .contains(&kind)
}

/// Where tools that render charts have values: the key at the root, and what to say.
const TOOLS: &[(&str, &str, &str)] = &[
    (
        "helmCharts",
        "a kustomization",
        "`helmCharts[].valuesInline`, or the file that `valuesFile` names",
    ),
    (
        "releases",
        "a helmfile",
        "`releases[].values`, or the files that it names",
    ),
    ("dependencies", "a Chart.yaml", "the values.yaml beside it"),
];

fn tool(
    object: &Map<String, Value>,
) -> Option<&'static (&'static str, &'static str, &'static str)> {
    TOOLS
        .iter()
        .find(|(key, ..)| object.get(*key).is_some_and(Value::is_array))
}

/// A service of a compose file; any says what the file is, one with variables what to give.
fn compose_service(object: &Map<String, Value>) -> Option<&str> {
    let services = object.get("services")?.as_object()?;
    let has = |service: &Value, keys: &[&str]| keys.iter().any(|key| service.get(key).is_some());
    let with = |keys: &[&str]| {
        let mut found = services.iter().filter(|(_, service)| has(service, keys));
        found.next().map(|(name, _)| name.as_str())
    };
    with(&["environment"]).or_else(|| with(&["env_file", "image", "build"]))
}

fn of_compose(service: &str) -> Error {
    let service = match tree::looks_like_a_name(service) {
        true => service,
        false => "<service>",
    };
    is_no_settings(
        "a compose file",
        &format!(
            "give what is under `services.{service}.environment` as NAME=value lines, with every ${{…}} \
             filled in, or the file that `env_file` names"
        ),
    )
}

fn is_no_settings(what: &str, remedy: &str) -> Error {
    invalid(format!("the file is {what}, not settings of a store")).with_hint(remedy.to_owned())
}
