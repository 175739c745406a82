//! The refusals: one function for each reason, with the page that documents it.
//!
//! The form is that of [AIP-193](https://google.aip.dev/193): a code, a status, a message and typed
//! details. The names of reasons are from
//! [`google.api.ErrorReason`](https://cloud.google.com/apis/design/errors#error_info).

use hyper::{
    StatusCode,
    header::{self, HeaderName},
};
use serde_json::{Value, json};

use super::{pretty, switches::Kms};

/// The service's name in its own responses.
pub(super) const SERVICE: &str = "secretmanager.googleapis.com";

const CONSOLE: &str = "https://console.developers.google.com";

/// The response to any request.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        Self {
            status,
            headers: vec![(
                header::CONTENT_TYPE,
                "application/json; charset=UTF-8".into(),
            )],
            body: pretty(body),
        }
    }

    pub(super) fn html(status: StatusCode, title: &str, text: &str) -> Self {
        Self {
            status,
            headers: vec![(header::CONTENT_TYPE, "text/html; charset=UTF-8".into())],
            body: format!(
                "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  <title>Error {} ({title})!!1</title>\n  \
                 <p><b>{}.</b> <ins>That’s an error.</ins>\n  <p>{text}  <ins>That’s all we know.</ins>\n",
                status.as_u16(),
                status.as_u16(),
            ),
        }
    }

    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: vec![(header::CONTENT_TYPE, "application/text".into())],
            body: body.into(),
        }
    }

    #[must_use]
    pub(super) fn with_header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Why a request is refused.
pub(super) type Refusal = Box<Answer>;

/// An invalid part of a body.
pub(super) struct Violation {
    pub(super) field: String,
    pub(super) description: String,
}

fn refuse(code: u16, status: &str, message: &str, details: Vec<Value>) -> Refusal {
    let mut error = json!({"code": code, "message": message, "status": status});
    if !details.is_empty() {
        error["details"] = Value::Array(details);
    }
    let code = StatusCode::from_u16(code).expect("a code of three digits");
    Box::new(Answer::json(code, &json!({ "error": error })))
}

fn info(reason: &str, domain: &str, metadata: Value) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": domain,
        "metadata": metadata,
    })
}

fn help(description: &str, url: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.Help",
        "links": [{"description": description, "url": url}],
    })
}

fn localized(message: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.LocalizedMessage",
        "locale": "en-US",
        "message": message,
    })
}

/// The path does not exist, or not for this method: a page, not JSON, because no service was found
/// ([seen here](https://github.com/hashicorp/terraform-provider-google/issues/24627)).
pub(super) fn unknown_path(path: &str) -> Refusal {
    let path = path.replace('&', "&amp;").replace('<', "&lt;");
    let text = format!("The requested URL <code>{path}</code> was not found on this server.");
    Box::new(Answer::html(StatusCode::NOT_FOUND, "Not Found", &text))
}

/// The credential is missing: <https://cloud.google.com/docs/authentication/troubleshoot-adc>, and
/// the message in
/// [a report](https://github.com/reactmore/morelab/issues/17).
pub(super) fn credentials_missing(service: &str, method: &str) -> Refusal {
    let mut refusal = refuse(
        401,
        "UNAUTHENTICATED",
        "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other \
         valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
        vec![info(
            "CREDENTIALS_MISSING",
            "googleapis.com",
            json!({"method": method, "service": service}),
        )],
    );
    let challenge = r#"Bearer realm="https://accounts.google.com/""#;
    refusal
        .headers
        .push((header::WWW_AUTHENTICATE, challenge.into()));
    refusal
}

/// The credential is invalid or has expired. The reason is `ACCESS_TOKEN_EXPIRED` or
/// `ACCESS_TOKEN_TYPE_UNSUPPORTED`: <https://cloud.google.com/apis/design/errors#error_info>.
pub(super) fn credentials_invalid(reason: &str, service: &str, method: &str) -> Refusal {
    let mut refusal = refuse(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid \
         authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
        vec![info(
            reason,
            "googleapis.com",
            json!({"method": method, "service": service}),
        )],
    );
    let challenge = r#"Bearer realm="https://accounts.google.com/", error="invalid_token""#;
    refusal
        .headers
        .push((header::WWW_AUTHENTICATE, challenge.into()));
    refusal
}

/// The token lacks the scope:
/// <https://cloud.google.com/secret-manager/docs/accessing-the-api#oauth-scopes>.
pub(super) fn scope_insufficient(service: &str, method: &str) -> Refusal {
    refuse(
        403,
        "PERMISSION_DENIED",
        "Request had insufficient authentication scopes.",
        vec![info(
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
            "googleapis.com",
            json!({"method": method, "service": service}),
        )],
    )
}

/// The project does not exist, or the caller may not see it; the response does not tell which
/// ([AIP-211](https://google.aip.dev/211), and the details in
/// [a report](https://github.com/google-gemini/gemini-cli/issues/1808)).
pub(super) fn consumer_invalid(project: &str) -> Refusal {
    let message = format!("Permission denied on resource project {project}.");
    let metadata = json!({
        "service": SERVICE,
        "consumer": format!("projects/{project}"),
        "containerInfo": project,
    });
    refuse(
        403,
        "PERMISSION_DENIED",
        &message,
        vec![
            info("CONSUMER_INVALID", "googleapis.com", metadata),
            localized(&message),
            help("Google developers console", CONSOLE),
        ],
    )
}

/// The caller may not use the quota project in the header:
/// <https://cloud.google.com/docs/quotas/set-quota-project>.
pub(super) fn user_project_denied(project: &str) -> Refusal {
    let message = format!(
        "Caller does not have required permission to use project {project}. Grant the caller the \
         roles/serviceusage.serviceUsageConsumer role, or a custom role with the serviceusage.services.use \
         permission, by visiting {CONSOLE}/iam-admin/iam/project?project={project} and then retry."
    );
    let metadata = json!({"service": SERVICE, "consumer": format!("projects/{project}")});
    refuse(
        403,
        "PERMISSION_DENIED",
        &message,
        vec![info("USER_PROJECT_DENIED", "googleapis.com", metadata)],
    )
}

/// The API is not enabled: <https://cloud.google.com/secret-manager/docs/configuring-secret-manager>, and the details in
/// [a report](https://github.com/GoogleCloudPlatform/core-solution-services/issues/7).
pub(super) fn service_disabled(number: u64) -> Refusal {
    let url = format!("{CONSOLE}/apis/api/{SERVICE}/overview?project={number}");
    let message = format!(
        "Secret Manager API has not been used in project {number} before or it is disabled. Enable it by visiting \
         {url} then retry. If you enabled this API recently, wait a few minutes for the action to propagate to our \
         systems and retry."
    );
    let metadata = json!({
        "service": SERVICE,
        "serviceTitle": "Secret Manager API",
        "consumer": format!("projects/{number}"),
        "containerInfo": number.to_string(),
        "activationUrl": url,
    });
    refuse(
        403,
        "PERMISSION_DENIED",
        &message,
        vec![
            info("SERVICE_DISABLED", "googleapis.com", metadata),
            localized(&message),
            help("Google developers console API activation", &url),
        ],
    )
}

/// The project has no billing account:
/// <https://cloud.google.com/billing/docs/how-to/modify-project#confirm_billing_is_enabled_on_a_project>.
pub(super) fn billing_disabled(number: u64) -> Refusal {
    let url = format!("{CONSOLE}/billing/enable?project={number}");
    let message = format!(
        "This API method requires billing to be enabled. Please enable billing on project #{number} by visiting {url} \
         then retry. If you enabled billing for this project recently, wait a few minutes for the action to propagate \
         to our systems and retry."
    );
    let metadata = json!({"service": SERVICE, "consumer": format!("projects/{number}")});
    refuse(
        403,
        "PERMISSION_DENIED",
        &message,
        vec![
            help("Google developers console billing", &url),
            info("BILLING_DISABLED", "googleapis.com", metadata),
        ],
    )
}

/// Too many requests of the class `Access`, `Read` or `Write`:
/// <https://cloud.google.com/secret-manager/quotas>.
///
/// [`google.rpc.RetryInfo`](https://google.aip.dev/194) documents how a server may say how long to
/// wait.
pub(super) fn rate_limit(class: &str, number: u64, wait: Option<std::time::Duration>) -> Refusal {
    let message = format!(
        "Quota exceeded for quota metric '{class} requests' and limit '{class} requests per minute' of service \
         '{SERVICE}' for consumer 'project_number:{number}'."
    );
    let metadata = json!({
        "service": SERVICE,
        "consumer": format!("projects/{number}"),
        "quota_metric": format!("{SERVICE}/{}_requests", class.to_lowercase()),
        "quota_limit": format!("{class}RequestsPerMinutePerProject"),
        "quota_location": "global",
    });
    let mut details = vec![
        info("RATE_LIMIT_EXCEEDED", "googleapis.com", metadata),
        help(
            "Request a higher quota limit.",
            "https://cloud.google.com/docs/quotas/help/request_increase",
        ),
    ];
    if let Some(wait) = wait {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{}s", wait.as_secs_f64()),
        }));
    }
    let mut refusal = refuse(429, "RESOURCE_EXHAUSTED", &message, details);
    if let Some(wait) = wait {
        // In whole seconds, rounded up.
        let seconds = wait.as_secs_f64().ceil().to_string();
        refusal.headers.push((header::RETRY_AFTER, seconds));
    }
    refusal
}

/// A permission is missing: <https://cloud.google.com/secret-manager/docs/access-control>, and the
/// message in
/// [a report](https://github.com/googleapis/python-secret-manager/issues/389). The resource is
/// named as in the request.
pub(super) fn permission_denied(permission: &str, resource: &str) -> Refusal {
    let message = format!(
        "Permission '{permission}' denied for resource '{resource}' (or it may not exist)."
    );
    let metadata = json!({"permission": permission, "resource": resource});
    refuse(
        403,
        "PERMISSION_DENIED",
        &message,
        vec![info(
            "IAM_PERMISSION_DENIED",
            "iam.googleapis.com",
            metadata,
        )],
    )
}

/// The caller may not impersonate this account:
/// <https://cloud.google.com/iam/docs/troubleshoot-workload-identity-federation>, and the message
/// in
/// [a report](https://github.com/google-github-actions/auth/issues/340).
pub(super) fn impersonation_denied() -> Refusal {
    let permission = "iam.serviceAccounts.getAccessToken";
    refuse(
        403,
        "PERMISSION_DENIED",
        &format!("Permission '{permission}' denied on resource (or it may not exist)."),
        vec![info(
            "IAM_PERMISSION_DENIED",
            "iam.googleapis.com",
            json!({"permission": permission}),
        )],
    )
}

/// The resource does not exist: <https://cloud.google.com/apis/design/errors#handling_errors>, code
/// 5.
pub(super) fn not_found(message: &str) -> Refusal {
    refuse(404, "NOT_FOUND", message, Vec::new())
}

/// The name exists: the same page, code 6. The service
/// [documents](https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets/create)
/// no more.
pub(super) fn already_exists(name: &str) -> Refusal {
    let message = format!("Secret [{name}] already exists.");
    refuse(409, "ALREADY_EXISTS", &message, Vec::new())
}

/// The request is invalid in any state: the same page, code 3.
pub(super) fn invalid_argument(message: &str) -> Refusal {
    refuse(400, "INVALID_ARGUMENT", message, Vec::new())
}

/// The request is invalid in the current state: the same page, code 9.
pub(super) fn failed_precondition(message: &str) -> Refusal {
    refuse(400, "FAILED_PRECONDITION", message, Vec::new())
}

/// The stand-in does not implement it. The service does.
pub(super) fn unimplemented(what: &str) -> Refusal {
    let message = format!("This stand-in for Secret Manager has no {what}.");
    refuse(501, "UNIMPLEMENTED", &message, Vec::new())
}

/// The body or a parameter has an invalid form: <https://protobuf.dev/programming-guides/json/>,
/// and
/// the message in [a report](https://github.com/decolua/9router/issues/1876).
pub(super) fn bad_request(violations: &[Violation]) -> Refusal {
    let messages: Vec<_> = violations
        .iter()
        .map(|violation| violation.description.as_str())
        .collect();
    let violations: Vec<_> = violations
        .iter()
        .map(|violation| {
            if violation.field.is_empty() {
                json!({"description": violation.description})
            } else {
                json!({"field": violation.field, "description": violation.description})
            }
        })
        .collect();
    refuse(
        400,
        "INVALID_ARGUMENT",
        &messages.join("\n"),
        vec![json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": violations,
        })],
    )
}

/// The customer's key is not usable: <https://cloud.google.com/secret-manager/docs/cmek>. `None` if
/// it is.
pub(super) fn kms(state: Kms, key: &str) -> Option<Refusal> {
    let agent = "the Secret Manager service agent";
    match state {
        Kms::Denied => Some(failed_precondition(&format!(
            "Permission 'cloudkms.cryptoKeyVersions.useToEncrypt' denied for {agent} on resource '{key}' (or it may \
             not exist)."
        ))),
        Kms::Disabled => Some(failed_precondition(&format!(
            "{key} is not enabled, current state is: DISABLED."
        ))),
        // The message is from
        // https://github.com/GoogleCloudPlatform/terraform-google-secret-manager/pull/74.
        Kms::NoServiceAgent => Some(invalid_argument(
            "Secret Manager service identity for project not found. A service identity must be created to use \
             customer-managed encryption keys.",
        )),
        Kms::Usable => None,
    }
}
