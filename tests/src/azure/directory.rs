//! Who exists: tenants, the application, managed identities, and the keys behind their tokens.

use std::{fs, io, path::PathBuf};

use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::{clock::unix_now, jwt::Signer};

/// The audience that a federated token has to name.
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
    /// A tenant that knows the application too, but is not the vault's.
    pub(super) other_tenant: String,
    /// The application ID URI of the vault service in this cloud.
    pub(super) resource: String,
    pub(super) system_identity: Principal,
    pub(super) tenant: String,
    pub(super) user_identity: Principal,
    pub(super) user_identity_resource: String,
}

/// Somebody who can hold a token.
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

/// What a federated token says. The default is what the application trusts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FederatedToken {
    /// The audience.
    pub audience: String,
    /// The issuer: a cluster.
    pub issuer: String,
    /// The seconds until it expires; negative for one that has expired.
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

    /// An access token in the form of version 1.0, which the vault service asks for.
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

    /// Whether tokens are given out for this resource: the vault service and two others of every cloud. Some clients
    /// write a slash at the end, and get a token whose audience has it too.
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
        // Renamed into place, as a projected volume does it: readers see the old one or the new one.
        let new = self.token_file.with_extension("new");
        fs::write(&new, token)?;
        fs::rename(new, &self.token_file)
    }
}

/// Who signs tokens of version 1.0 for a tenant.
pub(super) fn issuer(tenant: &str) -> String {
    format!("https://sts.windows.net/{tenant}/")
}
