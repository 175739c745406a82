//! The kinds of problems: one table for the responses, the OpenAPI document and the docs.

use axum::http::StatusCode;

use super::fields::inline_schema;

macro_rules! kinds {
    ($($variant:ident $name:literal $status:ident $meaning:literal,)*) => {
        /// What is wrong with a request, or why it failed. Callers match its name, so it never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ProblemKind {
            $(
                #[doc = $meaning]
                $variant,
            )*
        }

        impl ProblemKind {
            /// Every kind, in the order of their names.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in responses.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The status of the response of the connector API.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// What it means, in a sentence for the docs.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

kinds! {
    AuditFailed "audit_failed" SERVICE_UNAVAILABLE "the audit is required, and its sink failed",
    BadRequest "bad_request" BAD_REQUEST "the URL cannot be decoded",
    BodyAborted "body_aborted" BAD_REQUEST "the body ended early",
    BodyNotJson "body_not_json" BAD_REQUEST "the body is not JSON",
    BodyTooDeep "body_too_deep" BAD_REQUEST "the body has more levels than `limit`",
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE "the body has more bytes than `limit`",
    BodyTooSlow "body_too_slow" REQUEST_TIMEOUT "the body took longer than `limit` seconds to arrive",
    Busy "busy" SERVICE_UNAVAILABLE "the gateway has as many requests as `limit` allows, or as many bodies that are arriving",
    ChangeAbandoned "change_abandoned" CONFLICT "the change took too long to stage; repeat it",
    ChangeEndedOtherwise "change_ended_otherwise" CONFLICT "the change is already in the other end `state`",
    ChangeInProgress "change_in_progress" CONFLICT "the first request with this `Idempotency-Key` is still running",
    CollectNotPreviewed "collect_not_previewed" CONFLICT "the run is not a dry run of the collector that has read everything",
    CollectRunning "collect_running" CONFLICT "a run of the collector is under way",
    ConfigurationRefused "configuration_refused" UNPROCESSABLE_ENTITY "`problems` names the places of a configuration or specification that are invalid",
    ConfigurationsUnavailable "configurations_unavailable" SERVICE_UNAVAILABLE "a source of `configurations-file` cannot be read",
    HostNotAllowed "host_not_allowed" MISDIRECTED_REQUEST "the host is not in `allowed-hosts`",
    IdempotencyKeyReused "idempotency_key_reused" UNPROCESSABLE_ENTITY "the `Idempotency-Key` belongs to another request",
    Internal "internal" INTERNAL_SERVER_ERROR "the gateway failed; its log says more",
    InvalidField "invalid_field" BAD_REQUEST "`field` has a value that is not allowed, or more entries than `limit`",
    LedgerUnavailable "ledger_unavailable" SERVICE_UNAVAILABLE "the read ledger cannot be read; its role in Postgres may lack SELECT, and `reads` false asks without it",
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "the route does not support the method",
    MissingField "missing_field" BAD_REQUEST "`field` is required",
    MissingRole "missing_role" FORBIDDEN "the token does not have `role`",
    NameNotManaged "name_not_managed" BAD_REQUEST "the path is not a coordinate that can be written or deleted",
    NotFound "not_found" NOT_FOUND "it does not exist, or the token may not see it",
    OriginNotAllowed "origin_not_allowed" FORBIDDEN "the request comes from a page of another origin",
    OutboxUnavailable "outbox_unavailable" SERVICE_UNAVAILABLE "the outbox is unavailable; nothing unrecorded was begun",
    SecretMissing "secret_missing" UNPROCESSABLE_ENTITY "a secret that the configuration points to does not exist",
    StoreFailed "store_failed" BAD_GATEWAY "`store` refused, and a retry does not help",
    StoreThrottled "store_throttled" TOO_MANY_REQUESTS "`store` is over its quota; retry after `Retry-After`",
    StoreUnavailable "store_unavailable" SERVICE_UNAVAILABLE "`store` is down; retry after `Retry-After`",
    Timeout "timeout" SERVICE_UNAVAILABLE "the request took longer than `request-timeout-seconds`",
    TokenAmbiguous "token_ambiguous" BAD_REQUEST "there is more than one token: a header is repeated, or two differ",
    TokenExpired "token_expired" UNAUTHORIZED "the token has expired",
    TokenMissing "token_missing" UNAUTHORIZED "there is no token",
    TokenUnknown "token_unknown" UNAUTHORIZED "the token is unknown",
    TokenWithoutGrant "token_without_grant" FORBIDDEN "the JWT has no role or no workspace of this gateway",
    TokensUnavailable "tokens_unavailable" SERVICE_UNAVAILABLE "the gateway cannot read its tokens",
    UnknownField "unknown_field" BAD_REQUEST "`fields` are unknown",
    Unsupported "unsupported" BAD_REQUEST "the KV API does not support this option",
    ValueExists "value_exists" BAD_REQUEST "the name has another value, which it keeps forever",
    ValueRefused "value_refused" UNPROCESSABLE_ENTITY "the store does not accept the value",
    VersionMismatch "version_mismatch" BAD_REQUEST "`cas` is 0, and the name exists",
    WrongContentType "wrong_content_type" UNSUPPORTED_MEDIA_TYPE "the content type is not `application/json`",
}

impl ProblemKind {
    /// The type of RFC 9457.
    #[must_use]
    pub fn urn(self) -> String {
        format!("urn:secret-gateway:problem:{}", self.as_str())
    }

    /// Whether the connector API answers it: the others are about Vault's protocol.
    pub(crate) fn is_of_connector(self) -> bool {
        !matches!(
            self,
            Self::NameNotManaged | Self::Unsupported | Self::ValueExists | Self::VersionMismatch
        )
    }

    /// The title of RFC 9457: the name in words.
    pub(super) fn title(self) -> String {
        let mut text = self.as_str().replace('_', " ");
        if let Some(first) = text.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        text
    }
}

inline_schema!(ProblemKind, {
    "type": "string",
    "enum": ProblemKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(),
});
