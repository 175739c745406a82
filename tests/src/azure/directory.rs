//! Tenants, the application, managed identities, and the keys that sign their tokens.

use std::{fs, io, path::PathBuf};

use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::{clock::unix_now, jwt::Signer};

/// The audience that a federated token must have.
///
/// See <https://learn.microsoft.com/entra/workload-id/workload-identity-federation>.
pub(super) const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// The directory behind the vault.
pub(super) struct Directory {
    pub(super) application: Principal,
    pub(super) client_secret: String,
    pub(super) entra_key: Signer,
    pub(super) federation: Federation,
    pub(super) identity_header: String,
    /// A tenant that also knows the application, but does not own the vault.
    pub(super) other_tenant: String,
    /// The application ID URI of the vault service in this cloud.
    pub(super) resource: String,
    pub(super) system_identity: Principal,
    pub(super) tenant: String,
    pub(super) user_identity: Principal,
    pub(super) user_identity_resource: String,
}

/// An identity that can get a token.
#[derive(Clone)]
pub(super) struct Principal {
    pub(super) client_id: String,
    pub(super) object_id: String,
}

/// The cluster whose tokens the application trusts.
pub(super) struct Federation {
    pub(super) expected: FederatedToken,
    pub(super) key: Signer,
    pub(super) token_file: PathBuf,
    // Removed with the value.
    _folder: TempDir,
}

/// The claims of a federated token. By default, the application trusts them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FederatedToken {
    /// The audience.
    pub audience: String,
    /// The issuer: a cluster.
    pub issuer: String,
    /// The seconds until it expires; negative for an expired token.
    pub lifetime: i64,
    /// The subject: a service account.
    pub subject: String,
}

impl Default for FederatedToken {
    fn default() -> Self {
        Self {
            audience: EXCHANGE_AUDIENCE.into(),
            issuer: "https://cluster.localhost/".into(),
            lifetime: 3600,
            subject: "system:serviceaccount:platform:secrets".into(),
        }
    }
}

impl Directory {
    pub(super) fn new(resource: String) -> io::Result<Self> {
        let user_identity_resource = format!(
            "/subscriptions/{}/resourcegroups/tests/providers/Microsoft.ManagedIdentity/userAssignedIdentities/secrets",
            Uuid::new_v4()
        );
        let directory = Self {
            application: Principal::new(),
            client_secret: format!("{}~{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
            entra_key: Signer::new(),
            federation: Federation::new()?,
            identity_header: Uuid::new_v4().to_string(),
            other_tenant: Uuid::new_v4().to_string(),
            resource,
            system_identity: Principal::new(),
            tenant: Uuid::new_v4().to_string(),
            user_identity: Principal::new(),
            user_identity_resource,
        };
        directory.federation.write(&FederatedToken::default())?;
        Ok(directory)
    }

    /// An access token in version 1.0, which the vault service requires.
    ///
    /// See <https://learn.microsoft.com/azure/key-vault/general/rest-error-codes#the-token-is-expired>.
    pub(super) fn access_token(
        &self,
        tenant: &str,
        principal: &Principal,
        audience: &str,
        lifetime: i64,
    ) -> String {
        let now = unix_now();
        let issuer = issuer(tenant);
        self.entra_key.sign(&json!({
            "aud": audience,
            "iss": issuer,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "appid": principal.client_id,
            "appidacr": "1",
            "idp": issuer,
            "oid": principal.object_id,
            "sub": principal.object_id,
            "tid": tenant,
            "uti": Uuid::new_v4().simple().to_string(),
            "ver": "1.0",
        }))
    }

    /// Whether tokens are issued for this resource: the vault service and two others of every
    /// cloud. Some clients append a slash, and get a token with the same audience.
    pub(super) fn has_resource(&self, resource: &str) -> bool {
        const OTHERS: [&str; 2] = [
            "https://graph.microsoft.com",
            "https://management.azure.com",
        ];
        let resource = resource.strip_suffix('/').unwrap_or(resource);
        resource == self.resource || OTHERS.contains(&resource)
    }

    pub(super) fn has_tenant(&self, tenant: &str) -> bool {
        tenant == self.tenant || tenant == self.other_tenant
    }
}

impl Principal {
    fn new() -> Self {
        Self {
            client_id: Uuid::new_v4().to_string(),
            object_id: Uuid::new_v4().to_string(),
        }
    }
}

impl Federation {
    fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self {
            expected: FederatedToken::default(),
            key: Signer::new(),
            token_file: folder.path().join("azure-identity-token"),
            _folder: folder,
        })
    }

    pub(super) fn write(&self, token: &FederatedToken) -> io::Result<()> {
        let now = unix_now();
        let expires = now + token.lifetime;
        let token = self.key.sign(&json!({
            "aud": [token.audience],
            "iss": token.issuer,
            "iat": now.min(expires) - 1,
            "nbf": now.min(expires) - 1,
            "exp": expires,
            "sub": token.subject,
        }));
        // Renamed into place, like a projected volume: readers see the old or the new token.
        let new = self.token_file.with_extension("new");
        fs::write(&new, token)?;
        fs::rename(new, &self.token_file)
    }
}

/// The issuer of version 1.0 tokens for a tenant.
pub(super) fn issuer(tenant: &str) -> String {
    format!("https://sts.windows.net/{tenant}/")
}
