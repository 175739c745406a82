//! The names of operations.

use hyper::http::request;

/// The operation of a request to one of AWS's JSON services, such as `GetSecretValue`; otherwise
/// the method and the path.
pub fn aws_operation(request: &request::Parts) -> String {
    let target = request
        .headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    match target.and_then(|target| target.rsplit('.').next()) {
        Some(operation) => operation.to_owned(),
        None => method_and_path(request),
    }
}

/// The method and the path, such as `GET /v1/secret/data/a`, without the query.
pub fn method_and_path(request: &request::Parts) -> String {
    format!("{} {}", request.method, request.uri.path())
}

/// Whether the operation equals the pattern, or begins with it if the pattern ends with `*`.
pub(super) fn matches(operation: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => operation.starts_with(beginning),
        None => operation == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("GET /v1/secret/data/a", "GET /v1/secret/data/*"));
        assert!(matches("GetSecretValue", "GetSecretValue"));
        assert!(!matches("BatchGetSecretValue", "GetSecretValue"));
        assert!(!matches("GetSecretValues", "GetSecretValue"));
        assert!(matches("anything", "*"));
    }

    #[test]
    fn operations() {
        let request = |target: Option<&str>| {
            let mut request = hyper::Request::put("http://host/a/b?c=d");
            if let Some(target) = target {
                request = request.header("x-amz-target", target);
            }
            request.body(()).unwrap().into_parts().0
        };
        assert_eq!(
            aws_operation(&request(Some("secretsmanager.ListSecrets"))),
            "ListSecrets"
        );
        assert_eq!(aws_operation(&request(None)), "PUT /a/b");
    }
}
