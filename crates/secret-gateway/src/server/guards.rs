//! Checks before a request is handled: host, origin, concurrency, timeout.

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secret_persistence::AllowedHosts;

use super::caller::is_kv;
use super::kind::ProblemKind;
use super::problem::Problem;
use crate::gateway::Gateway;
use crate::kv::KvError;
use crate::settings::Settings;

/// Forbids caching and embedding of every response.
pub(super) async fn headers(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Response {
    let kv = is_kv(request.uri().path());
    let response = next.run(request).await;
    let mut response = documented(kv, response);
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    set(CACHE_CONTROL, "no-store");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(X_FRAME_OPTIONS, "DENY");
    set(REFERRER_POLICY, "no-referrer");
    set(
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    );
    if gateway.settings().tls.is_some() {
        set(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

/// Adds a document to errors of the framework: an unknown route, a wrong method.
fn documented(kv: bool, response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error())
        || response.headers().contains_key(CONTENT_TYPE) && !is_plain(&response)
    {
        return response;
    }
    let (kind, detail) = match status {
        StatusCode::NOT_FOUND => (ProblemKind::NotFound, "the route does not exist"),
        StatusCode::METHOD_NOT_ALLOWED => (
            ProblemKind::MethodNotAllowed,
            "this route does not support the method",
        ),
        StatusCode::INTERNAL_SERVER_ERROR => (
            ProblemKind::Internal,
            "the gateway failed; its log says more",
        ),
        _ => (ProblemKind::BadRequest, "the request is invalid"),
    };
    let allow = response.headers().get(axum::http::header::ALLOW).cloned();
    let mut documented = if kv {
        let detail = match status {
            StatusCode::METHOD_NOT_ALLOWED => "unsupported operation",
            StatusCode::NOT_FOUND => "no handler for route. route entry not found.",
            _ => detail,
        };
        KvError::new(kind, detail).into_response()
    } else {
        Problem::new(kind, detail).into_response()
    };
    if let Some(allow) = allow {
        documented
            .headers_mut()
            .insert(axum::http::header::ALLOW, allow);
    }
    documented
}

fn is_plain(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"))
        && response.extensions().get::<OwnText>().is_none()
}

/// Marks a response that is intentionally plain text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnText;

/// Refuses requests for other hosts (a page that rebinds its name to us) and from pages of other
/// origins.
pub(super) async fn hosts(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Response {
    let kv = is_kv(request.uri().path());
    // A probe addresses a pod by its IP address, and reveals nothing.
    if is_health(request.uri().path()) {
        return next.run(request).await;
    }
    match refusal(gateway.settings(), request.uri(), request.headers()) {
        None => next.run(request).await,
        Some(problem) if kv => {
            KvError::new(problem.kind(), problem.kind().as_str()).into_response()
        }
        Some(problem) => problem.into_response(),
    }
}

fn is_health(path: &str) -> bool {
    path == "/health/live" || path == "/health/ready"
}

fn refusal(settings: &Settings, uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), None, _) => authority.as_str().to_owned(),
        (None, Some(host), None) => host.to_str().unwrap_or_default().to_owned(),
        (Some(authority), Some(host), None) if host.as_bytes() == authority.as_str().as_bytes() => {
            authority.as_str().to_owned()
        }
        _ => String::new(),
    };
    if !settings.allowed_hosts.allows(&host) {
        return Some(Problem::new(
            ProblemKind::HostNotAllowed,
            "the request is for a host that is not in `allowed-hosts`",
        ));
    }
    let same_origin = |origin: &HeaderValue| {
        origin
            .to_str()
            .is_ok_and(|origin| AllowedHosts::same_origin(&host, origin))
    };
    if !headers.get_all(ORIGIN).iter().all(same_origin) {
        return Some(Problem::new(
            ProblemKind::OriginNotAllowed,
            "the request comes from a page of another origin",
        ));
    }
    None
}

/// Limits concurrent requests and their duration as configured.
pub(super) async fn limits(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Response {
    // A liveness probe must not fail because the process is busy.
    if is_health(request.uri().path()) {
        return next.run(request).await;
    }
    let kv = is_kv(request.uri().path());
    let limits = gateway.settings().limits;
    let refuse = |kind: ProblemKind, detail: String, limit: u64| {
        metrics::counter!("secret_gateway_shed_requests_total", "reason" => kind.as_str())
            .increment(1);
        if kv {
            KvError::new(kind, detail)
                .with_retry_after(1)
                .into_response()
        } else {
            Problem::new(kind, detail)
                .with_limit(limit)
                .with_retry_after(1)
                .into_response()
        }
    };
    let Some(turn) = gateway.turns().take() else {
        let most = limits.concurrency;
        return refuse(
            ProblemKind::Busy,
            format!("the gateway is at its limit of {most} concurrent requests; try again"),
            most as u64,
        );
    };
    // For whoever reads the body. A handler drops its extensions before it ends, so the turn is
    // kept here too.
    request.extensions_mut().insert(turn.clone());
    let response = match tokio::time::timeout(limits.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let most = limits.timeout.as_secs();
            refuse(
                ProblemKind::Timeout,
                format!("the request took longer than {most} seconds; try again"),
                most,
            )
        }
    };
    drop(turn);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Texts;

    fn refused(settings: &[(&str, &str)], headers: &[(&str, &str)]) -> Option<&'static str> {
        let mut texts = Texts::new();
        for (name, value) in settings {
            texts.set(name, *value).unwrap();
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        refusal(&texts.parse().unwrap(), &Uri::from_static("/"), &map)
            .map(|problem| problem.kind().as_str())
    }

    #[test]
    fn only_hosts_that_are_named_are_served() {
        let proxied = [
            ("listen", "0.0.0.0:1"),
            ("behind-proxy", "true"),
            ("allowed-hosts", "Gateway.example, g:8220"),
        ];
        for host in ["gateway.example", "GATEWAY.example", "g:8220"] {
            assert_eq!(refused(&proxied, &[("host", host)]), None, "{host}");
        }
        for host in [
            "localhost",
            "g",
            "g:1",
            "evil.example",
            "gateway.example:8220",
            "",
        ] {
            assert_eq!(
                refused(&proxied, &[("host", host)]),
                Some("host_not_allowed"),
                "{host}"
            );
        }
        assert_eq!(refused(&proxied, &[]), Some("host_not_allowed"));
        assert_eq!(
            refused(&proxied, &[("host", "g:8220"), ("host", "g:8220")]),
            Some("host_not_allowed")
        );
        for host in [
            "localhost",
            "localhost:8220",
            "127.0.0.1:1",
            "[::1]:8220",
            "[::1]",
        ] {
            assert_eq!(refused(&[], &[("host", host)]), None, "{host}");
        }
        for host in [
            "rebound.example:8220",
            "localhost.evil.example",
            "localhost:x",
            "127.0.0.1.evil",
        ] {
            assert_eq!(
                refused(&[], &[("host", host)]),
                Some("host_not_allowed"),
                "{host}"
            );
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let sent = |origin: &str| refused(&[], &[("host", "localhost:8220"), ("origin", origin)]);
        assert_eq!(sent("http://localhost:8220"), None);
        for origin in [
            "null",
            "http://evil.example",
            "http://localhost:8221",
            "file://localhost:8220",
            "http://localhost:8220.evil",
        ] {
            assert_eq!(sent(origin), Some("origin_not_allowed"), "{origin}");
        }
    }
}
