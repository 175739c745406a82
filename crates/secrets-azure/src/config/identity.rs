//! Who we log in as.

use std::fmt;
use std::path::PathBuf;

use secret_persistence_core::{Result, SecretValue};

use super::invalid;

/// Where credentials come from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Credentials {
    /// The secret of an app registration.
    ClientSecret(ClientSecret),
    /// Whoever is logged in with the Azure CLI, or the Azure Developer CLI: for work on a laptop.
    DeveloperTools,
    /// The identity that Azure gives this machine, container or function.
    ManagedIdentity {
        /// The client id of a user-assigned identity; the system-assigned one where there is none.
        client_id: Option<String>,
    },
    /// The identity of a Kubernetes service account, federated with Entra ID.
    WorkloadIdentity(WorkloadIdentity),
}

impl Default for Credentials {
    fn default() -> Self {
        Self::ManagedIdentity { client_id: None }
    }
}

impl Credentials {
    /// What it is, as the setting `credentials` spells it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::ClientSecret(_) => "client-secret",
            Self::DeveloperTools => "developer-tools",
            Self::ManagedIdentity { .. } => "managed-identity",
            Self::WorkloadIdentity(_) => "workload-identity",
        }
    }

    /// The tenant that a login goes to, where we choose it.
    pub(crate) fn tenant(&self) -> Option<&str> {
        match self {
            Self::ClientSecret(secret) => Some(&secret.tenant_id),
            Self::WorkloadIdentity(identity) => Some(&identity.tenant_id),
            Self::DeveloperTools | Self::ManagedIdentity { .. } => None,
        }
    }

    /// The client id, where we choose it.
    pub(crate) fn client_id(&self) -> Option<&str> {
        match self {
            Self::ClientSecret(secret) => Some(&secret.client_id),
            Self::WorkloadIdentity(identity) => Some(&identity.client_id),
            Self::ManagedIdentity { client_id } => client_id.as_deref(),
            Self::DeveloperTools => None,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if let Some(tenant) = self.tenant() {
            check_tenant(tenant)?;
        }
        if let Some(id) = self.client_id() {
            check_client_id(id)?;
        }
        if matches!(self, Self::ClientSecret(secret) if secret.secret.is_empty()) {
            return Err(invalid("the client secret is empty")
                .with_hint("set AB_AZURE_KEY_VAULT_CLIENT_SECRET to the secret's value"));
        }
        Ok(())
    }
}

/// The secret of an app registration. `Debug` does not show it.
#[derive(Clone)]
pub struct ClientSecret {
    pub(crate) tenant_id: String,
    pub(crate) client_id: String,
    pub(crate) secret: SecretValue,
}

impl ClientSecret {
    /// The secret of an application in a tenant.
    pub fn new(
        tenant_id: impl Into<String>,
        client_id: impl Into<String>,
        secret: SecretValue,
    ) -> Self {
        Self {
            tenant_id: tenant_id.into(),
            client_id: client_id.into(),
            secret,
        }
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSecret")
            .field("tenant_id", &self.tenant_id)
            .field("client_id", &self.client_id)
            .field("secret", &"redacted")
            .finish()
    }
}

/// A Kubernetes service account that Entra ID trusts.
/// <https://learn.microsoft.com/azure/aks/workload-identity-overview>
#[derive(Clone, Debug)]
pub struct WorkloadIdentity {
    pub(crate) tenant_id: String,
    pub(crate) client_id: String,
    pub(crate) token_file: PathBuf,
}

impl WorkloadIdentity {
    /// The identity of a client in a tenant, with the file that holds the service account's token.
    pub fn new(
        tenant_id: impl Into<String>,
        client_id: impl Into<String>,
        token_file: impl Into<PathBuf>,
    ) -> Self {
        Self {
            tenant_id: tenant_id.into(),
            client_id: client_id.into(),
            token_file: token_file.into(),
        }
    }
}

/// A directory's id or domain. It stands in the path of the token endpoint.
fn check_tenant(tenant: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if (1..=253).contains(&tenant.len())
        && tenant.bytes().all(allowed)
        && !tenant.starts_with('.')
        && !tenant.contains("..")
    {
        return Ok(());
    }
    Err(
        invalid("the tenant id is neither the id nor the domain of a directory")
            .with_hint("set AB_AZURE_KEY_VAULT_TENANT_ID; `az account show` says it"),
    )
}

fn check_client_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (1..=128).contains(&id.len()) && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(
        invalid("the client id is not the id of an application").with_hint(
            "set AB_AZURE_KEY_VAULT_CLIENT_ID to the application (client) id, not to the name",
        ),
    )
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::ErrorKind;

    use super::*;
    use crate::config::Config;

    #[test]
    fn identities_follow_their_grammar() {
        let secret = |tenant: &str, client: &str, secret: &str| {
            let secret = SecretValue::new(secret.to_owned());
            Config::builder("my-vault")
                .with_credentials(Credentials::ClientSecret(ClientSecret::new(
                    tenant, client, secret,
                )))
                .build()
        };
        assert!(secret("contoso.onmicrosoft.com", "client", "x").is_ok());
        for (tenant, client, value) in [
            ("", "client", "x"),
            ("../common", "client", "x"),
            ("a/b", "client", "x"),
            ("a?b", "client", "x"),
            ("tenant", "", "x"),
            ("tenant", "a b", "x"),
            ("tenant", "client", ""),
        ] {
            let error = secret(tenant, client, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        }
        let shown = format!("{:?}", secret("tenant", "client", "canary").unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
