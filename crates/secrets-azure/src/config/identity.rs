//! The identity that we log in with.

use std::fmt;
use std::path::PathBuf;

use secret_persistence_core::settings::{SettingMap, invalid};
use secret_persistence_core::{Error, Result, SecretValue};

use crate::settings::SETTINGS;

/// The source of the credentials.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    /// The secret of an app registration.
    ClientSecret(ClientSecret),
    /// The login of the Azure CLI or the Azure Developer CLI, for development.
    DeveloperTools,
    /// The identity of this Azure machine, container or function.
    ManagedIdentity {
        /// The client id of a user-assigned identity; by default the system-assigned one.
        client_id: Option<String>,
    },
    /// The identity of a Kubernetes service account, federated with Entra ID.
    WorkloadIdentity(WorkloadIdentity),
}

impl Credentials {
    /// The credentials that the settings select.
    pub(super) fn of(settings: &SettingMap) -> Result<Self> {
        let text = |name| settings.text(name).filter(|text| !text.is_empty());
        let secret = settings
            .secret("client-secret")
            .filter(|secret| !secret.is_empty());
        if settings.trust().is_tenant() && secret.is_none() {
            return Err(
                invalid("a tenant's store needs the tenant's own client secret").with_hint(
                    "set tenantId, clientId and clientSecret; the platform's identity is not used for tenants",
                ),
            );
        }
        let chosen = match text("credentials").unwrap_or("auto") {
            "auto" if secret.is_some() => "client-secret",
            "auto" if text("federated-token-file").is_some() => "workload-identity",
            "auto" => "managed-identity",
            other => other,
        };
        let tenant = || required(text("tenant-id"), "tenant-id", chosen).map(str::to_owned);
        let client = || required(text("client-id"), "client-id", chosen).map(str::to_owned);
        let credentials = match chosen {
            "client-secret" => {
                let secret: SecretValue = secret.ok_or_else(|| missing("client-secret", chosen))?;
                Self::ClientSecret(ClientSecret {
                    tenant_id: tenant()?,
                    client_id: client()?,
                    secret,
                })
            }
            "workload-identity" => {
                let file = required(text("federated-token-file"), "federated-token-file", chosen)?;
                Self::WorkloadIdentity(WorkloadIdentity {
                    tenant_id: tenant()?,
                    client_id: client()?,
                    token_file: file.into(),
                })
            }
            "managed-identity" => Self::ManagedIdentity {
                client_id: text("client-id").map(str::to_owned),
            },
            "developer-tools" => Self::DeveloperTools,
            _ => {
                return Err(invalid(
                    "`credentials` must be `auto`, `client-secret`, `workload-identity`, `managed-identity` \
                     or `developer-tools`",
                ));
            }
        };
        credentials.check()?;
        Ok(credentials)
    }

    /// The name in the setting `credentials`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::ClientSecret(_) => "client-secret",
            Self::DeveloperTools => "developer-tools",
            Self::ManagedIdentity { .. } => "managed-identity",
            Self::WorkloadIdentity(_) => "workload-identity",
        }
    }

    /// The tenant of the login, if the settings name it.
    pub(crate) fn tenant(&self) -> Option<&str> {
        match self {
            Self::ClientSecret(secret) => Some(&secret.tenant_id),
            Self::WorkloadIdentity(identity) => Some(&identity.tenant_id),
            Self::DeveloperTools | Self::ManagedIdentity { .. } => None,
        }
    }

    /// The client id, if the settings name it.
    pub(crate) fn client_id(&self) -> Option<&str> {
        match self {
            Self::ClientSecret(secret) => Some(&secret.client_id),
            Self::WorkloadIdentity(identity) => Some(&identity.client_id),
            Self::ManagedIdentity { client_id } => client_id.as_deref(),
            Self::DeveloperTools => None,
        }
    }

    fn check(&self) -> Result<()> {
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

/// The secret of an app registration. `Debug` hides it.
#[derive(Clone)]
pub(crate) struct ClientSecret {
    pub(crate) tenant_id: String,
    pub(crate) client_id: String,
    pub(crate) secret: SecretValue,
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
pub(crate) struct WorkloadIdentity {
    pub(crate) tenant_id: String,
    pub(crate) client_id: String,
    pub(crate) token_file: PathBuf,
}

fn required<'a>(value: Option<&'a str>, name: &'static str, chosen: &str) -> Result<&'a str> {
    value.ok_or_else(|| missing(name, chosen))
}

fn missing(name: &'static str, chosen: &str) -> Error {
    let variables = SETTINGS
        .rows()
        .iter()
        .find(|setting| setting.name == name)
        .map_or(&[][..], |setting| setting.env);
    invalid(format!("{chosen} credentials need `{name}`"))
        .with_hint(format!("set {}", variables.join(" or ")))
}

/// Checks the id or domain of a directory, which becomes a part of the token endpoint's path.
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
            .with_hint("set AB_AZURE_KEY_VAULT_TENANT_ID; `az account show` prints it"),
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
            Config::from_settings(&SETTINGS.from_pairs([
                ("vault-url", "my-vault"),
                ("credentials", "client-secret"),
                ("tenant-id", tenant),
                ("client-id", client),
                ("client-secret", secret),
            ])?)
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
