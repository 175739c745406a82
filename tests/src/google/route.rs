//! Paths, and their methods.

use std::collections::BTreeMap;

use hyper::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::refusal::{Refusal, Violation, bad_request, unknown_path};

/// The classes of requests that the service
/// [counts](https://cloud.google.com/secret-manager/quotas).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    Access,
    Read,
    Write,
}

/// The resource in a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Target {
    pub(super) project: String,
    pub(super) location: Option<String>,
    pub(super) secret: Option<String>,
    pub(super) version: Option<String>,
}

impl Target {
    /// The name of the secret's project or location.
    pub(super) fn parent(&self, project: &str) -> String {
        match &self.location {
            None => format!("projects/{project}"),
            Some(location) => format!("projects/{project}/locations/{location}"),
        }
    }

    /// The full name, with this id or number of the project.
    pub(super) fn name(&self, project: &str) -> String {
        let mut name = self.parent(project);
        if let Some(secret) = &self.secret {
            name = format!("{name}/secrets/{secret}");
        }
        if let Some(version) = &self.version {
            name = format!("{name}/versions/{version}");
        }
        name
    }
}

/// A call of one of the service's methods.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: &'static MethodInfo,
    pub(super) target: Target,
    pub(super) query: Query,
}

/// The properties of a method.
#[derive(Debug)]
pub(super) struct MethodInfo {
    pub(super) name: &'static str,
    /// The permission that it requires:
    /// <https://cloud.google.com/secret-manager/docs/access-control#permissions>.
    pub(super) permission: &'static str,
    pub(super) class: Class,
    verb: &'static str,
    target: TargetKind,
    suffix: &'static str,
    /// Query parameters besides those of every method.
    parameters: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum TargetKind {
    Secret,
    Secrets,
    Version,
    Versions,
}

const LISTING: &[&str] = &["pageSize", "pageToken", "filter"];

/// All methods, from <https://cloud.google.com/secret-manager/docs/reference/rest>.
static METHODS: [MethodInfo; 15] = {
    use Class::{Access, Read, Write};
    use TargetKind::{Secret, Secrets, Version, Versions};
    const fn method(
        name: &'static str,
        permission: &'static str,
        class: Class,
        verb: &'static str,
        target: TargetKind,
        suffix: &'static str,
        parameters: &'static [&'static str],
    ) -> MethodInfo {
        MethodInfo {
            name,
            permission,
            class,
            verb,
            target,
            suffix,
            parameters,
        }
    }
    [
        method(
            "AccessSecretVersion",
            "secretmanager.versions.access",
            Access,
            "GET",
            Version,
            "access",
            &[],
        ),
        method(
            "AddSecretVersion",
            "secretmanager.versions.add",
            Write,
            "POST",
            Secret,
            "addVersion",
            &[],
        ),
        method(
            "CreateSecret",
            "secretmanager.secrets.create",
            Write,
            "POST",
            Secrets,
            "",
            &["secretId"],
        ),
        method(
            "DeleteSecret",
            "secretmanager.secrets.delete",
            Write,
            "DELETE",
            Secret,
            "",
            &["etag"],
        ),
        method(
            "DestroySecretVersion",
            "secretmanager.versions.destroy",
            Write,
            "POST",
            Version,
            "destroy",
            &[],
        ),
        method(
            "DisableSecretVersion",
            "secretmanager.versions.disable",
            Write,
            "POST",
            Version,
            "disable",
            &[],
        ),
        method(
            "EnableSecretVersion",
            "secretmanager.versions.enable",
            Write,
            "POST",
            Version,
            "enable",
            &[],
        ),
        method(
            "GetIamPolicy",
            "secretmanager.secrets.getIamPolicy",
            Read,
            "GET",
            Secret,
            "getIamPolicy",
            &["options.requestedPolicyVersion"],
        ),
        method(
            "GetSecret",
            "secretmanager.secrets.get",
            Read,
            "GET",
            Secret,
            "",
            &[],
        ),
        method(
            "GetSecretVersion",
            "secretmanager.versions.get",
            Read,
            "GET",
            Version,
            "",
            &[],
        ),
        method(
            "ListSecretVersions",
            "secretmanager.versions.list",
            Read,
            "GET",
            Versions,
            "",
            LISTING,
        ),
        method(
            "ListSecrets",
            "secretmanager.secrets.list",
            Read,
            "GET",
            Secrets,
            "",
            LISTING,
        ),
        method(
            "SetIamPolicy",
            "secretmanager.secrets.setIamPolicy",
            Write,
            "POST",
            Secret,
            "setIamPolicy",
            &[],
        ),
        // It requires none, because it returns the caller's permissions.
        method(
            "TestIamPermissions",
            "",
            Read,
            "POST",
            Secret,
            "testIamPermissions",
            &[],
        ),
        method(
            "UpdateSecret",
            "secretmanager.secrets.update",
            Write,
            "PATCH",
            Secret,
            "",
            &["updateMask"],
        ),
    ]
};

pub(super) fn methods() -> impl Iterator<Item = &'static MethodInfo> {
    METHODS.iter()
}

/// Parameters of every method: <https://cloud.google.com/apis/docs/system-parameters>.
const SYSTEM_PARAMETERS: [&str; 12] = [
    "$.xgafv",
    "$alt",
    "$callback",
    "$fields",
    "$prettyPrint",
    "alt",
    "callback",
    "fields",
    "key",
    "prettyPrint",
    "quotaUser",
    "uploadType",
];

/// The parameters of a query.
#[derive(Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// By its name in camel case; empty if it is missing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Whether enumerations are returned as numbers, which the provider's own clients request.
    pub(super) fn numeric_enums(&self) -> bool {
        [self.get("$alt"), self.get("alt")]
            .iter()
            .any(|alt| alt.contains("enum-encoding=int"))
    }
}

/// The method of a path and an HTTP method, and the parts of the path; `None` if there is none.
pub(super) fn resolve(verb: &Method, uri: &Uri) -> Option<(&'static MethodInfo, Target)> {
    let path = uri.path().strip_prefix("/v1/")?;
    let (path, suffix) = match path.rsplit_once(':') {
        Some((path, suffix)) if !suffix.contains('/') => (path, suffix),
        _ => (path, ""),
    };
    let parts: Option<Vec<String>> = path.split('/').map(part).collect();
    let parts = parts?;
    let mut parts = parts.iter().map(String::as_str);

    let project = (parts.next()? == "projects").then(|| parts.next())??;
    let mut collection = parts.next()?;
    let mut location = None;
    if collection == "locations" {
        location = Some(parts.next()?.to_owned());
        collection = parts.next()?;
    }
    if collection != "secrets" {
        return None;
    }
    let mut target = Target {
        project: project.to_owned(),
        location,
        secret: parts.next().map(str::to_owned),
        version: None,
    };
    let mut kind = match target.secret {
        None => TargetKind::Secrets,
        Some(_) => TargetKind::Secret,
    };
    if let Some(collection) = parts.next() {
        if collection != "versions" {
            return None;
        }
        target.version = parts.next().map(str::to_owned);
        kind = match target.version {
            None => TargetKind::Versions,
            Some(_) => TargetKind::Version,
        };
    }
    if parts.next().is_some() {
        return None;
    }
    let method = METHODS.iter().find(|method| {
        method.verb == verb.as_str() && method.target == kind && method.suffix == suffix
    })?;
    Some((method, target))
}

/// A call, if the query parameters are those of the method.
pub(super) fn call(
    method: &'static MethodInfo,
    target: Target,
    uri: &Uri,
) -> Result<Call, Refusal> {
    let mut query = Query::default();
    let mut violations = Vec::new();
    for (key, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let known = method
            .parameters
            .iter()
            .find(|name| **name == key || super::schema::snake(name) == key)
            .or_else(|| SYSTEM_PARAMETERS.iter().find(|name| **name == key));
        match known {
            Some(name) => {
                query.0.insert((*name).to_owned(), value.into_owned());
            }
            None => violations.push(Violation {
                field: String::new(),
                description: format!(
                    "Invalid JSON payload received. Unknown name \"{key}\": Cannot bind query parameter. Field '{key}' \
                     could not be found in request message."
                ),
            }),
        }
    }
    if violations.is_empty() {
        Ok(Call {
            method,
            target,
            query,
        })
    } else {
        Err(bad_request(&violations))
    }
}

/// The account whose token is requested, if this is such a path.
pub(super) fn impersonated(verb: &Method, uri: &Uri) -> Option<String> {
    let rest = uri.path().strip_prefix("/v1/projects/-/serviceAccounts/")?;
    let email = rest.strip_suffix(":generateAccessToken")?;
    let email = part(email)?;
    (*verb == Method::POST && !email.contains('/')).then_some(email)
}

/// Refuses an unknown path.
pub(super) fn unknown(uri: &Uri) -> Refusal {
    unknown_path(uri.path_and_query().map_or("/", |path| path.as_str()))
}

/// A decoded part of a path; `None` if it would change the path.
fn part(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    let wrong = text.is_empty() || text == "." || text == ".." || text.contains('/');
    (!wrong).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use hyper::{Method, Uri};

    use super::resolve;

    fn name(verb: &Method, path: &str) -> Option<(&'static str, String)> {
        let (method, target) = resolve(verb, &Uri::try_from(path).unwrap())?;
        Some((method.name, target.name(&target.project)))
    }

    #[test]
    fn paths() {
        for (verb, path, expected) in [
            (
                Method::GET,
                "/v1/projects/p/secrets",
                Some(("ListSecrets", "projects/p")),
            ),
            (
                Method::POST,
                "/v1/projects/p/secrets?secretId=s",
                Some(("CreateSecret", "projects/p")),
            ),
            (
                Method::GET,
                "/v1/projects/p/locations/r/secrets/s/versions/latest:access",
                Some((
                    "AccessSecretVersion",
                    "projects/p/locations/r/secrets/s/versions/latest",
                )),
            ),
            (
                Method::GET,
                "/v1/projects/p/secrets/s/versions",
                Some(("ListSecretVersions", "projects/p/secrets/s")),
            ),
            (
                Method::POST,
                "/v1/projects/p/secrets/s:addVersion",
                Some(("AddSecretVersion", "projects/p/secrets/s")),
            ),
            (Method::PUT, "/v1/projects/p/secrets/s", None),
            (Method::GET, "/v1/projects/p/secrets/s:access", None),
            (
                Method::GET,
                "/v1/projects/p/secrets/s/versions/1/more",
                None,
            ),
            (Method::GET, "/v1/projects/p/secrets//versions/1", None),
            (Method::GET, "/v1/projects/p/secrets/%2e%2e", None),
            (Method::GET, "/v1/projects/p/secrets/a%2Fb", None),
            (Method::GET, "/v2/projects/p/secrets/s", None),
        ] {
            let found = name(&verb, path);
            let found = found
                .as_ref()
                .map(|(method, name)| (*method, name.as_str()));
            assert_eq!(found, expected, "{verb} {path}");
        }
    }
}
