//! The caller of a request, known before its body is read.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use secret_persistence::connector::{ActingSecrets, ConnectorSecrets};

use super::access::{CallerName, RequestId};
use super::problem::Problem;
use crate::gateway::Gateway;
use crate::kv::KvError;
use crate::tokens::{PeerCertificate, Principal, Refusal, Role};

/// The caller, and the id of the request.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Principal, pub(crate) Option<Arc<str>>);

impl Caller {
    pub(crate) fn require(&self, role: Role) -> Result<(), Problem> {
        if self.0.may(role) {
            Ok(())
        } else {
            Err(Problem::missing_role(role))
        }
    }

    /// The connector calls of the gateway for this request.
    pub(crate) fn secrets(&self, gateway: &Gateway) -> ActingSecrets {
        self.acting_on(gateway.secrets())
    }

    pub(crate) fn acting_on(&self, secrets: &ConnectorSecrets) -> ActingSecrets {
        let acting = secrets.acting_as(&self.0.actor());
        match &self.1 {
            Some(id) => acting.for_request(Arc::clone(id)),
            None => acting,
        }
    }
}

impl FromRequestParts<Gateway> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Response> {
        let certificate = parts.extensions.get::<PeerCertificate>().cloned();
        let found = gateway
            .authenticator()
            .principal(&parts.headers, certificate.as_ref())
            .await;
        match found {
            Ok(principal) => {
                if let Some(name) = parts.extensions.get::<CallerName>() {
                    name.set(&principal.name);
                }
                let id = parts.extensions.get::<RequestId>();
                Ok(Self(principal, id.map(|id| Arc::clone(&id.0))))
            }
            Err(refusal) => {
                metrics::counter!("secret_gateway_refused_callers_total", "reason" => reason(refusal)).increment(1);
                Err(if is_kv(parts.uri.path()) {
                    KvError::from(refusal).into_response()
                } else {
                    Problem::from(refusal).into_response()
                })
            }
        }
    }
}

pub(super) fn is_kv(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/")
}

fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Ambiguous => "ambiguous",
        Refusal::Expired => "expired",
        Refusal::Missing => "missing",
        Refusal::NoGrant => "without_grant",
        Refusal::Unavailable => "unavailable",
        Refusal::Unknown => "unknown",
    }
}
