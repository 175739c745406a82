//! The token endpoint of Entra ID, `/{tenant}/oauth2/v2.0/token`, for applications (client credentials).
//!
//! See <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>.

use std::{borrow::Cow, collections::BTreeMap};

use hyper::StatusCode;
use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use super::{
    clock::{timestamp, unix_now},
    directory::Directory,
    jwt::Invalid,
    reply::Reply,
    switches::Switches,
};

/// The only type of assertion, <https://datatracker.ietf.org/doc/html/rfc7523#section-2.2>.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The tolerated difference between two clocks.
const SKEW: i64 = 300;

/// Why no token is issued.
struct Refusal {
    status: StatusCode,
    error: &'static str,
    code: u32,
    description: String,
}

impl Refusal {
    /// The credential is refused, <https://datatracker.ietf.org/doc/html/rfc6749#section-5.2>.
    fn client(code: u32, description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            error: "invalid_client",
            code,
            description: description.into(),
        }
    }

    fn request(error: &'static str, code: u32, description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            code,
            description: description.into(),
        }
    }

    /// The required parameter is missing, AADSTS900144 of
    /// <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
    fn missing(parameter: &str) -> Self {
        Self::request(
            "invalid_request",
            900_144,
            format!("The request body must contain the following parameter: '{parameter}'."),
        )
    }

    /// The error form of <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
    fn reply(self) -> Reply {
        let Self {
            status,
            error,
            code,
            description,
        } = self;
        let (trace, correlation, timestamp) = (Uuid::new_v4(), Uuid::new_v4(), timestamp());
        let description = format!(
            "AADSTS{code}: {description} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}"
        );
        Reply::json(
            status,
            &json!({
                "error": error,
                "error_description": description,
                "error_codes": [code],
                "timestamp": timestamp,
                "trace_id": trace.to_string(),
                "correlation_id": correlation.to_string(),
                "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
            }),
        )
    }
}

pub(super) fn token(
    directory: &Directory,
    switches: &Switches,
    tenant: &str,
    body: &[u8],
) -> Reply {
    if let Some(status) = switches.entra_failure {
        return unavailable(status);
    }
    let form = form_urlencoded::parse(body).collect();
    grant(directory, switches, tenant, &form).unwrap_or_else(Refusal::reply)
}

/// A response without the usual body, as from a gateway in front of the service.
pub(super) fn unavailable(status: u16) -> Reply {
    let status = StatusCode::from_u16(status).expect("the switch is a status");
    Reply::json(
        status,
        &json!({"error": "temporarily_unavailable", "error_description": "The service is temporarily unavailable."}),
    )
}

fn grant(
    directory: &Directory,
    switches: &Switches,
    tenant: &str,
    form: &BTreeMap<Cow<'_, str>, Cow<'_, str>>,
) -> Result<Reply, Refusal> {
    let parameter = |name: &str| form.get(name).filter(|value| !value.is_empty());
    let required = |name: &str| parameter(name).ok_or_else(|| Refusal::missing(name));

    // https://learn.microsoft.com/entra/identity-platform/reference-error-codes (AADSTS90002)
    if !directory.has_tenant(tenant) {
        return Err(Refusal::request(
            "invalid_request",
            90_002,
            format!(
                "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the \
                 correct cloud. Check with your subscription administrator, this may happen if there are no active \
                 subscriptions for the tenant."
            ),
        ));
    }
    let grant_type = required("grant_type")?;
    // https://learn.microsoft.com/entra/identity-platform/reference-error-codes (AADSTS70003)
    if grant_type != "client_credentials" {
        return Err(Refusal::request(
            "unsupported_grant_type",
            70_003,
            format!("The app requested an unsupported grant type '{grant_type}'."),
        ));
    }
    let client_id = required("client_id")?;
    let scope = required("scope")?;
    // https://learn.microsoft.com/entra/identity-platform/reference-error-codes (AADSTS700016)
    if *client_id != directory.application.client_id {
        return Err(Refusal::request(
            "unauthorized_client",
            700_016,
            format!(
                "Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen if \
                 the application has not been installed by the administrator of the tenant or consented to by any user in \
                 the tenant. You may have sent your authentication request to the wrong tenant."
            ),
        ));
    }
    match (parameter("client_secret"), parameter("client_assertion")) {
        (Some(secret), None) => check_secret(directory, switches, secret)?,
        (None, Some(assertion)) => {
            let kind = required("client_assertion_type")?;
            check_assertion(directory, kind, assertion)?;
        }
        // https://learn.microsoft.com/entra/identity-platform/reference-error-codes (AADSTS7000216)
        _ => {
            return Err(Refusal::client(
                7_000_216,
                "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
            ));
        }
    }
    let audience = audience(directory, tenant, scope)?;

    let lifetime = seconds(switches);
    let token = directory.access_token(tenant, &directory.application, audience, lifetime);
    Ok(Reply::json(
        StatusCode::OK,
        &json!({
            "token_type": "Bearer",
            "expires_in": lifetime,
            "ext_expires_in": lifetime,
            "access_token": token,
        }),
    ))
}

/// See <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>, AADSTS7000215 and AADSTS7000222.
fn check_secret(directory: &Directory, switches: &Switches, secret: &str) -> Result<(), Refusal> {
    let client_id = &directory.application.client_id;
    if secret != directory.client_secret {
        return Err(Refusal::client(
            7_000_215,
            format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, \
                 not the client secret ID, for a secret added to app '{client_id}'."
            ),
        ));
    }
    if switches.client_secret_expired {
        return Err(Refusal::client(
            7_000_222,
            format!("The provided client secret keys for app '{client_id}' are expired."),
        ));
    }
    Ok(())
}

/// See <https://learn.microsoft.com/entra/workload-id/workload-identity-federation>; the codes are in
/// <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
fn check_assertion(directory: &Directory, kind: &str, assertion: &str) -> Result<(), Refusal> {
    if kind != ASSERTION_TYPE {
        return Err(Refusal::client(
            50_027,
            "JWT token is invalid or malformed: the type of the assertion is not supported.",
        ));
    }
    let federation = &directory.federation;
    let claims = federation.key.verify(assertion).map_err(|invalid| match invalid {
        Invalid::Malformed => Refusal::client(50_027, "JWT token is invalid or malformed."),
        Invalid::Signature => Refusal::client(50_013, "Assertion failed signature validation."),
        Invalid::UnknownKey => Refusal::client(
            700_211,
            "No matching federated identity record found for presented assertion issuer: its key is not known.",
        ),
    })?;

    let expected = &federation.expected;
    let text = |claim: &str| claims[claim].as_str().unwrap_or_default().to_owned();
    let presented = |code, what: &str, value: String| {
        Refusal::client(
            code,
            format!(
                "No matching federated identity record found for presented assertion {what} '{value}'. Check your \
                 federated identity credential Subject, Audience and Issuer against the presented assertion. \
                 https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
            ),
        )
    };
    let now = unix_now();
    let at = |claim: &str| claims[claim].as_i64();
    if at("exp").is_none_or(|exp| exp <= now - SKEW)
        || at("nbf").is_some_and(|nbf| nbf > now + SKEW)
    {
        return Err(Refusal::client(
            700_024,
            format!(
                "Client assertion is not within its valid time range. Current time: {}, assertion valid from {:?}, expiry \
                 time of assertion {:?}.",
                timestamp(),
                at("nbf"),
                at("exp")
            ),
        ));
    }
    if text("iss") != expected.issuer {
        return Err(presented(700_211, "issuer", text("iss")));
    }
    let audiences = match &claims["aud"] {
        Value::Array(audiences) => audiences.clone(),
        audience => vec![audience.clone()],
    };
    if !audiences.contains(&json!(expected.audience)) {
        return Err(presented(700_212, "audience", claims["aud"].to_string()));
    }
    // The comparison is case-sensitive:
    // https://learn.microsoft.com/entra/identity-platform/reference-breaking-changes#federated-identity-credentials-now-use-case-sensitive-matching
    if text("sub") != expected.subject {
        return Err(presented(700_213, "subject", text("sub")));
    }
    Ok(())
}

/// The resource of a scope.
///
/// See <https://learn.microsoft.com/entra/identity-platform/scopes-oidc#the-default-scope> and AADSTS1002012 and
/// AADSTS500011 of <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
fn audience<'a>(directory: &Directory, tenant: &str, scope: &'a str) -> Result<&'a str, Refusal> {
    let Some(resource) = scope
        .strip_suffix("/.default")
        .filter(|resource| !resource.contains(' '))
    else {
        return Err(Refusal::request(
            "invalid_scope",
            1_002_012,
            format!(
                "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with \
                 /.default suffixed to the resource identifier (application ID URI)."
            ),
        ));
    };
    if directory.has_resource(resource) {
        Ok(resource)
    } else {
        let description = unknown_resource(tenant, resource);
        Err(Refusal::request("invalid_resource", 500_011, description))
    }
}

pub(super) fn unknown_resource(tenant: &str, resource: &str) -> String {
    format!(
        "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the \
         application has not been installed by the administrator of the tenant or consented to by any user in the tenant. \
         You might have sent your authentication request to the wrong tenant."
    )
}

/// How long a new token is valid.
pub(super) fn seconds(switches: &Switches) -> i64 {
    i64::try_from(switches.token_lifetime.as_secs()).unwrap_or(i64::MAX / 2)
}
