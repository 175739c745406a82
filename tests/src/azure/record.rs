//! What the stand-in was asked.

use hyper::StatusCode;

/// One request that was served, or refused.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// What was asked for: `GetSecret`, `SetSecret`, `UpdateSecret`, `DeleteSecret`, `ListSecrets`, `ListSecretVersions`,
    /// `GetDeletedSecret`, `ListDeletedSecrets`, `RecoverDeletedSecret`, `PurgeDeletedSecret`, `Token`,
    /// `ManagedIdentityToken` or `Unknown`.
    pub operation: &'static str,
    /// The name of the secret as it was sent, where there was one.
    pub name: Option<String>,
    /// Whether the request carried a token.
    pub authorized: bool,
    /// The status of the answer, which a dropped connection did not get.
    pub status: StatusCode,
}
