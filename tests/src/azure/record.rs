//! The requests that the stand-in received.

use hyper::StatusCode;

/// One request that was served or refused.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The operation: `GetSecret`, `SetSecret`, `UpdateSecret`, `DeleteSecret`, `ListSecrets`,
    /// `ListSecretVersions`, `GetDeletedSecret`, `ListDeletedSecrets`, `RecoverDeletedSecret`,
    /// `PurgeDeletedSecret`, `Token`, `ManagedIdentityToken` or `Unknown`.
    pub operation: &'static str,
    /// The name of the secret in the request, if there was one.
    pub name: Option<String>,
    /// Whether the request contained a token.
    pub authorized: bool,
    /// The status of the response; `None` for a dropped connection.
    pub status: StatusCode,
}
