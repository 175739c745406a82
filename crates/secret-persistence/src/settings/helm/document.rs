//! Identifies a file: values, a resource that contains them, or another file that people keep
//! beside them.

use std::ops::Deref;

use secret_persistence_core::connector::SecretJson;
use secret_persistence_core::{Error, Result};
use serde_json::{Map, Value};

use super::super::environment::SECRET_PERSISTENCE;
use super::super::{invalid, tree};

/// The values of a chart, in the document or parsed from it.
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

/// Whether a JSON document is of a kind that is read here, as opposed to the JSON for external
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

/// Refuses texts that are recognisably not YAML.
///
/// # Errors
/// `InvalidConfig`, with what to pass instead.
pub(in super::super) fn refuse_text(text: &str) -> Result<()> {
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    match line {
        None => Err(invalid("the file is empty")
            .with_hint("pass a values.yaml, a file of NAME=value lines, or JSON")),
        Some("[Unit]" | "[Service]" | "[Install]") => Err(is_no_settings(
            "a unit of systemd",
            "pass the file that its EnvironmentFile= names, or its Environment= as NAME=value lines",
        )),
        Some(_) => Ok(()),
    }
}

/// Finds the values in a document.
///
/// # Errors
/// `InvalidConfig` if it contains none, with what it is and what to pass instead.
pub(super) fn values(document: &Value) -> Result<Values<'_>> {
    let object = match document {
        Value::Null => return Ok(Values::Here(document)),
        Value::Object(object) => object,
        Value::Array(_) => {
            return Err(is_no_settings(
                "a list",
                "pass one of its items in a separate file",
            ));
        }
        _ => {
            return Err(is_no_settings(
                "a single value",
                "pass a values.yaml, a file of NAME=value lines, or JSON",
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
                &format!("pass the contents of {place} in a separate file"),
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
            "pass the values that `spec.valuesFrom` refers to",
        )),
    }
}

/// <https://argo-cd.readthedocs.io/en/stable/user-guide/helm/>: `valuesObject` has precedence over
/// `values`.
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
                "pass the file that `valueFiles` names",
            ),
            _ => is_no_settings(
                "an Application of Argo CD with several sources that have values",
                "pass the values of Airbyte's chart in a separate file",
            ),
        });
    };
    if has(&helm, "parameters") {
        return Err(is_no_settings(
            "an Application of Argo CD with `helm.parameters`, which change its values",
            "pass the combined values in a separate file",
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
        _ => return Err(invalid(format!("`{place}` is not a string"))),
    };
    let mut documents = tree::yaml(&format!("`{place}`"), text)?;
    match documents.len() {
        1 => {
            let parsed = documents.swap_remove(0);
            // Values do not contain other values.
            values(&parsed).map(drop)?;
            Ok(Values::Parsed(parsed))
        }
        _ => Err(invalid(format!("`{place}` contains several documents"))),
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
            "pass the values.yaml, or the contents of `data` as NAME=value lines, with the credentials of the \
             Secret beside them",
        ),
        "Secret" => is_no_settings(
            "a Kubernetes Secret",
            "pass the values.yaml as settings, and this file as its Secret (--kubernetes-secret)",
        ),
        _ if is_sealed(kind) => is_no_settings(
            &format!("of kind {kind}, from which only the cluster can create a Secret"),
            &format!(
                "the plain Secret is required: pass the values.yaml as settings, and the output of `kubectl get secret \
                 {name} -o yaml` as its Secret (--kubernetes-secret)"
            ),
        ),
        "List" => is_no_settings("a list of manifests", "pass the values.yaml"),
        "ApplicationSet" => is_no_settings(
            "an ApplicationSet of Argo CD",
            "pass the values of one Application in a separate file",
        ),
        _ => is_no_settings(
            "a manifest of Kubernetes",
            "pass the values.yaml of the chart, not the rendered manifest",
        ),
    }
}

/// Kinds from which a controller creates a Secret.
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

/// Tools that render charts: their key at the root, a description, and the place of the values.
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

/// A service of a compose file. Any service identifies the file; one with variables is the one to
/// pass.
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
            "pass the contents of `services.{service}.environment` as NAME=value lines, with every ${{…}} \
             filled in, or the file that `env_file` names"
        ),
    )
}

fn is_no_settings(what: &str, remedy: &str) -> Error {
    invalid(format!("the file is {what}, not settings of a store")).with_hint(remedy.to_owned())
}
