//! Responses of a server, without calling one.

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode, header::HeaderName};
use serde_json::json;

/// A response that the proxy sends itself.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// A response with an empty body.
    ///
    /// # Panics
    ///
    /// If the status is invalid.
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// A response with a JSON body.
    ///
    /// # Panics
    ///
    /// If the status is invalid.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        let mut answer = Self::status(status).with_header("content-type", "application/json");
        answer.body = body.to_string().into();
        answer
    }

    /// Adds a header.
    ///
    /// # Panics
    ///
    /// If the name or the value is invalid.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("the name of a header");
        self.headers
            .append(name, value.parse().expect("the value of a header"));
        self
    }

    /// Replaces the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// An error of AWS's JSON services: the code is in `__type`.
    ///
    /// See <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html#operation-error-serialization>.
    pub fn aws_error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({"__type": code, "message": message}))
            .with_header("x-amzn-requestid", "00000000-0000-0000-0000-000000000000")
            .with_content_type("application/x-amz-json-1.1")
    }

    /// The denial of one action, such as `secretsmanager:DeleteSecret`, by a policy that does not
    /// grant it.
    pub fn aws_access_denied(action: &str) -> Self {
        let message = format!(
            "User: arn:aws:iam::000000000000:user/tester is not authorized to perform: {action} because no \
             identity-based policy allows the {action} action"
        );
        Self::aws_error(400, "AccessDeniedException", &message)
    }

    /// An error of STS, which speaks XML.
    ///
    /// See <https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html>.
    pub fn sts_error(code: &str) -> Self {
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>\
             <Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error>\
             <RequestId>00000000-0000-0000-0000-000000000000</RequestId></ErrorResponse>"
        );
        Self::status(403)
            .with_body(body)
            .with_content_type("text/xml")
    }

    /// The response to too many requests.
    pub fn aws_throttling() -> Self {
        Self::aws_error(400, "ThrottlingException", "Rate exceeded")
    }

    /// An error of Vault.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs#error-response>.
    pub fn vault_error(status: u16, errors: &[&str]) -> Self {
        Self::json(status, &json!({"errors": errors}))
    }

    /// Vault's response to too many requests, from a rate limit quota.
    pub fn vault_throttling(retry_after_seconds: u32) -> Self {
        Self::vault_error(429, &["rate limit quota exceeded"])
            .with_header("retry-after", &retry_after_seconds.to_string())
    }

    fn with_content_type(mut self, value: &'static str) -> Self {
        self.headers.insert(
            "content-type",
            hyper::header::HeaderValue::from_static(value),
        );
        self
    }
}
