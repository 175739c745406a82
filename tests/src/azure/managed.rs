//! The token endpoints of managed identities: of the instance metadata service of a virtual machine, and of App Service.
//!
//! The machine has a system-assigned and a user-assigned identity.

use hyper::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::{
    clock::unix_now,
    directory::{Directory, Principal},
    entra::{seconds, unavailable, unknown_resource},
    reply::Reply,
    route::Query,
    switches::Switches,
};

/// The address of the metadata service on a virtual machine.
pub(super) const METADATA_PATH: &str = "/metadata/identity/oauth2/token";

/// The target of the variable `IDENTITY_ENDPOINT` in App Service.
pub(super) const APP_SERVICE_PATH: &str = "/msi/token";

/// The body of a grant, or the status and the body of a refusal.
type Answer = Result<Value, (StatusCode, Value)>;

/// Serves one request to the metadata port.
pub(super) fn token(
    directory: &Directory,
    switches: &Switches,
    method: &Method,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Reply {
    if let Some(status) = switches.entra_failure {
        return unavailable(status);
    }
    let granted = match (method, path) {
        (&Method::GET, METADATA_PATH) => metadata(directory, switches, query, headers),
        (&Method::GET, APP_SERVICE_PATH) => app_service(directory, switches, query, headers),
        _ => Err((StatusCode::NOT_FOUND, json!({"error": "Not found"}))),
    };
    match granted {
        Ok(body) => Reply::json(StatusCode::OK, &body),
        Err((status, body)) => Reply::json(status, &body),
    }
}

/// See <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>.
fn metadata(
    directory: &Directory,
    switches: &Switches,
    query: &Query,
    headers: &HeaderMap,
) -> Answer {
    let refused = |description: &str| {
        (
            StatusCode::BAD_REQUEST,
            json!({"error": "invalid_request", "error_description": description}),
        )
    };
    // Both headers exclude forged requests:
    // https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#security-and-authentication
    if headers.get("metadata").is_none_or(|value| value != "true") {
        return Err(refused("Required metadata header not specified"));
    }
    if headers.contains_key("x-forwarded-for") {
        return Err(refused(
            "Requests with the header X-Forwarded-For are not answered",
        ));
    }
    if !matches!(
        query.get("api-version"),
        Some("2018-02-01" | "2019-08-01" | "2021-02-01")
    ) {
        return Err(refused(
            "Required query variable 'api-version' is missing or not supported",
        ));
    }
    let resource = query
        .get("resource")
        .ok_or_else(|| refused("Required query variable 'resource' is missing"))?;
    let identity = identity(directory, query).ok_or_else(|| refused("Identity not found"))?;
    if !directory.has_resource(resource) {
        let unknown = unknown_resource(&directory.tenant, resource);
        return Err((
            StatusCode::BAD_REQUEST,
            json!({"error": "invalid_resource", "error_description": format!("AADSTS500011: {unknown}")}),
        ));
    }

    let lifetime = seconds(switches);
    let mut body = granted(directory, switches, identity, resource);
    // Numbers are strings here.
    body["expires_in"] = json!(lifetime.to_string());
    body["ext_expires_in"] = json!(lifetime.to_string());
    body["not_before"] = json!(unix_now().to_string());
    Ok(body)
}

/// See <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>.
fn app_service(
    directory: &Directory,
    switches: &Switches,
    query: &Query,
    headers: &HeaderMap,
) -> Answer {
    let refused = |status: StatusCode, message: &str| {
        (
            status,
            json!({"statusCode": status.as_u16(), "message": message}),
        )
    };
    if headers
        .get("x-identity-header")
        .is_none_or(|value| value != directory.identity_header.as_str())
    {
        return Err(refused(
            StatusCode::UNAUTHORIZED,
            "The header X-IDENTITY-HEADER is missing or wrong.",
        ));
    }
    if query.get("api-version") != Some("2019-08-01") {
        return Err(refused(
            StatusCode::BAD_REQUEST,
            "The api-version is missing or not supported.",
        ));
    }
    let resource = query
        .get("resource")
        .ok_or_else(|| refused(StatusCode::BAD_REQUEST, "The resource is missing."))?;
    let identity = identity(directory, query).ok_or_else(|| {
        let message = "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.";
        refused(StatusCode::BAD_REQUEST, message)
    })?;
    if !directory.has_resource(resource) {
        let unknown = unknown_resource(&directory.tenant, resource);
        return Err(refused(
            StatusCode::BAD_REQUEST,
            &format!("AADSTS500011: {unknown}"),
        ));
    }
    Ok(granted(directory, switches, identity, resource))
}

/// The requested identity, if the machine has it. The names of the parameters differ between the
/// two services and their versions; all of them are accepted.
fn identity<'a>(directory: &'a Directory, query: &Query) -> Option<&'a Principal> {
    let assigned = &directory.user_identity;
    let first = |names: &[&str]| names.iter().find_map(|name| query.get(name));
    let asked = [
        (first(&["client_id"]), assigned.client_id.as_str()),
        (
            first(&["object_id", "principal_id"]),
            assigned.object_id.as_str(),
        ),
        (
            first(&["msi_res_id", "mi_res_id"]),
            directory.user_identity_resource.as_str(),
        ),
    ];
    let mut asked = asked
        .iter()
        .filter_map(|(asked, has)| Some((asked.as_ref()?, has)));
    match asked.next() {
        None => Some(&directory.system_identity),
        Some((asked, has)) => asked.eq_ignore_ascii_case(has).then_some(assigned),
    }
}

fn granted(
    directory: &Directory,
    switches: &Switches,
    identity: &Principal,
    resource: &str,
) -> Value {
    let lifetime = seconds(switches);
    json!({
        "access_token": directory.access_token(&directory.tenant, identity, resource, lifetime),
        "client_id": identity.client_id,
        "expires_on": (unix_now() + lifetime).to_string(),
        "resource": resource,
        "token_type": "Bearer",
    })
}
