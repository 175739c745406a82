//! Sends the requests: one connection pool for all of them, without retries and logs of the SDK,
//! and with deadlines.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use azure_core::http::pager::{PagerContinuation, PagerOptions};
use azure_core::http::{ClientOptions, RequestContent, RetryOptions, Transport};
use azure_core::time::OffsetDateTime;
use azure_security_keyvault_secrets::models::{
    DeletionRecoveryLevel, SecretAttributes, SecretClientListDeletedSecretPropertiesOptions,
    SecretClientListSecretPropertiesOptions, SecretClientListSecretPropertiesVersionsOptions,
    SetSecretParameters,
};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use futures::StreamExt;
use secret_persistence_core::settings::invalid;
use secret_persistence_core::{Error, Result, SecretValue, Timestamp};
use secret_persistence_remote::{Nature, quiet};
use tokio::time::Instant;
use tracing::debug;
use url::Url;

use crate::config::Config;
use crate::credentials::Login;
use crate::error::Fault;
use crate::naming::{SecretName, name_of_id};
use crate::policy::Action;
use crate::transport::{self, Bounded};

/// The maximum number of entries per page.
/// <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secrets/get-secrets>
pub(crate) const MAX_PAGE: usize = 25;

/// The client of one vault. Cloning shares connections and login.
#[derive(Clone)]
pub(crate) struct Client {
    secrets: Arc<SecretClient>,
    login: Login,
    vault: Url,
}

/// A secret that was read.
pub(crate) struct Stored {
    pub(crate) value: SecretValue,
    pub(crate) facts: Facts,
}

/// The attributes of a secret besides its value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) created: Option<Timestamp>,
    pub(crate) expires: Option<Timestamp>,
    /// Whether the secret can be purged, according to the vault.
    pub(crate) purgeable: Option<bool>,
    /// Whether the vault deleted the secret without a recovery period.
    pub(crate) is_final: bool,
}

/// One page of a listing: names, attributes, and the cursor of the next page.
pub(crate) struct Listed {
    pub(crate) secrets: Vec<(Option<String>, Facts)>,
    pub(crate) next: Option<String>,
}

impl Client {
    /// Creates the client and reads the certificate file. Sends no request.
    pub(crate) async fn new(config: &Config) -> Result<Self> {
        let tls = transport::trust(config).await?;
        let http = |proxied| transport::client(config, tls.as_ref(), proxied);
        let vault = http(true)?;
        let login = Login::new(config, vault.clone(), http(false)?);
        let options = SecretClientOptions {
            api_version: config.api_version.clone(),
            client_options: ClientOptions {
                retry: RetryOptions::none(),
                transport: Some(Transport::new(Arc::new(Bounded(vault)))),
                ..ClientOptions::default()
            },
            verify_challenge_resource: Some(config.verify_challenge),
        };
        let secrets = SecretClient::new(
            config.vault.as_str(),
            Arc::new(login.clone()),
            Some(options),
        )
        .map_err(|_| invalid("this is not the URL of a vault"))?;
        Ok(Self {
            secrets: Arc::new(secrets),
            login,
            vault: config.vault.clone(),
        })
    }

    /// The identity in the token.
    pub(crate) fn principal(&self) -> Option<String> {
        self.login.principal()
    }

    pub(crate) async fn get(&self, name: &SecretName) -> Result<Stored, Fault> {
        let request = async {
            self.secrets
                .get_secret(name.as_str(), None)
                .await?
                .into_model()
        };
        let mut secret = self.send(Action::Get, request).await?;
        let value = secret.value.take().map(SecretValue::new);
        Ok(Stored {
            value: value.ok_or_else(|| Fault::new(Action::Get, Nature::Garbled))?,
            facts: facts(secret.attributes, secret.tags),
        })
    }

    pub(crate) async fn get_deleted(&self, name: &SecretName) -> Result<Facts, Fault> {
        let request = async {
            self.secrets
                .get_deleted_secret(name.as_str(), None)
                .await?
                .into_model()
        };
        let secret = self.send(Action::GetDeleted, request).await?;
        Ok(facts(secret.attributes, secret.tags))
    }

    /// The attributes of the newest version, which are all that a disabled secret reveals. `None`
    /// if there is no version.
    pub(crate) async fn newest(&self, name: &SecretName) -> Result<Option<Facts>, Fault> {
        let request = async {
            let options = SecretClientListSecretPropertiesVersionsOptions {
                maxresults: i32::try_from(MAX_PAGE).ok(),
                ..SecretClientListSecretPropertiesVersionsOptions::default()
            };
            let mut pages = self
                .secrets
                .list_secret_properties_versions(name.as_str(), Some(options))?
                .into_pages();
            match pages.next().await {
                Some(page) => page?.into_model().map(|page| page.value),
                None => Ok(Vec::new()),
            }
        };
        let versions = self.send(Action::ListVersions, request).await?;
        Ok(versions
            .into_iter()
            .map(|version| facts(version.attributes, version.tags))
            .max_by_key(|facts| facts.created))
    }

    pub(crate) async fn set(
        &self,
        name: &SecretName,
        value: &SecretValue,
        tags: &BTreeMap<String, String>,
        expires: Option<Timestamp>,
    ) -> Result<(), Fault> {
        let request = async {
            let expires = expires
                .and_then(|time| OffsetDateTime::from_unix_timestamp(time.unix_seconds()).ok());
            let parameters = SetSecretParameters {
                secret_attributes: expires.map(|expires| SecretAttributes {
                    expires: Some(expires),
                    ..SecretAttributes::default()
                }),
                tags: Some(tags.clone().into_iter().collect()),
                value: Some(value.expose().to_owned()),
                ..SetSecretParameters::default()
            };
            let body: RequestContent<SetSecretParameters> = parameters.try_into()?;
            self.secrets.set_secret(name.as_str(), body, None).await
        };
        self.send(Action::Set, request).await.map(drop)
    }

    /// Deletes a secret, and returns its attributes.
    pub(crate) async fn delete(&self, name: &SecretName) -> Result<Facts, Fault> {
        let request = async {
            self.secrets
                .delete_secret(name.as_str(), None)
                .await?
                .into_model()
        };
        let secret = self.send(Action::Delete, request).await?;
        let is_recoverable = secret.recovery_id.is_some()
            || secret.deleted_date.is_some()
            || secret.scheduled_purge_date.is_some();
        let level = secret.attributes.as_ref().map(|of| &of.recovery_level);
        let is_final = match level {
            // <https://learn.microsoft.com/rest/api/keyvault/secrets/delete-secret/delete-secret#deletionrecoverylevel>
            Some(Some(DeletionRecoveryLevel::Purgeable)) => true,
            Some(Some(_)) => false,
            _ => !is_recoverable,
        };
        Ok(Facts {
            is_final,
            ..facts(secret.attributes, secret.tags)
        })
    }

    pub(crate) async fn purge(&self, name: &SecretName) -> Result<(), Fault> {
        let request = self.secrets.purge_deleted_secret(name.as_str(), None);
        self.send(Action::Purge, request).await.map(drop)
    }

    pub(crate) async fn recover(&self, name: &SecretName) -> Result<(), Fault> {
        let request = self.secrets.recover_deleted_secret(name.as_str(), None);
        self.send(Action::Recover, request).await.map(drop)
    }

    /// One page of the existing secrets; `after` is from the previous page.
    pub(crate) async fn list(
        &self,
        page_size: usize,
        after: Option<&str>,
    ) -> Result<Listed, Fault> {
        let request = async {
            let options = SecretClientListSecretPropertiesOptions {
                maxresults: i32::try_from(page_size).ok(),
                method_options: self.from("secrets", after),
            };
            let pager = self.secrets.list_secret_properties(Some(options))?;
            match pager.into_pages().next().await {
                Some(page) => page?.into_model().map(Some),
                None => Ok(None),
            }
        };
        let page = self.send(Action::List, request).await?.unwrap_or_default();
        let secrets = page.value.into_iter();
        let secrets = secrets.map(|secret| (secret.id, facts(secret.attributes, secret.tags)));
        listed(secrets, page.next_link).map_err(|nature| Fault::new(Action::List, nature))
    }

    /// One page of the soft-deleted secrets.
    pub(crate) async fn list_deleted(
        &self,
        page_size: usize,
        after: Option<&str>,
    ) -> Result<Listed, Fault> {
        let request = async {
            let options = SecretClientListDeletedSecretPropertiesOptions {
                maxresults: i32::try_from(page_size).ok(),
                method_options: self.from("deletedsecrets", after),
            };
            let pager = self.secrets.list_deleted_secret_properties(Some(options))?;
            match pager.into_pages().next().await {
                Some(page) => page?.into_model().map(Some),
                None => Ok(None),
            }
        };
        let page = self
            .send(Action::ListDeleted, request)
            .await?
            .unwrap_or_default();
        let secrets = page.value.into_iter();
        let secrets = secrets.map(|secret| (secret.id, facts(secret.attributes, secret.tags)));
        listed(secrets, page.next_link).map_err(|nature| Fault::new(Action::ListDeleted, nature))
    }

    /// Continues in our vault, whatever host the link contains: our token is sent nowhere else.
    fn from(&self, collection: &str, after: Option<&str>) -> PagerOptions<'static> {
        let mut options = PagerOptions::default();
        if let Some(query) = after {
            let mut url = self.vault.clone();
            url.set_path(collection);
            url.set_query(Some(query));
            options.continuation = Some(PagerContinuation::Link(url));
        }
        options
    }

    async fn send<T>(
        &self,
        action: Action,
        request: impl Future<Output = azure_core::Result<T>>,
    ) -> Result<T, Fault> {
        let started = Instant::now();
        let result = quiet(request).await;
        let elapsed = started.elapsed();
        let error = match result {
            Ok(answer) => {
                debug!(action = action.as_str(), ?elapsed, "answered");
                return Ok(answer);
            }
            Err(error) => error,
        };
        let fault = Fault::from_sdk(action, &error);
        debug!(action = action.as_str(), ?elapsed, %fault, "failed");
        Err(fault)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("vault", &self.vault.as_str())
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

fn facts(attributes: Option<SecretAttributes>, tags: Option<HashMap<String, String>>) -> Facts {
    let attributes = attributes.unwrap_or_default();
    let time = |time: Option<OffsetDateTime>| {
        time.and_then(|time| Timestamp::from_unix_seconds(time.unix_timestamp()).ok())
    };
    Facts {
        tags: tags.unwrap_or_default().into_iter().collect(),
        created: time(attributes.created),
        expires: time(attributes.expires),
        purgeable: attributes.recovery_level.and_then(|level| match level {
            DeletionRecoveryLevel::CustomizedRecoverablePurgeable
            | DeletionRecoveryLevel::Purgeable
            | DeletionRecoveryLevel::RecoverablePurgeable => Some(true),
            DeletionRecoveryLevel::CustomizedRecoverable
            | DeletionRecoveryLevel::CustomizedRecoverableProtectedSubscription
            | DeletionRecoveryLevel::Recoverable
            | DeletionRecoveryLevel::RecoverableProtectedSubscription => Some(false),
            _ => None,
        }),
        is_final: false,
    }
}

/// A page: the ids of its secrets, and the link to the next one.
fn listed(
    secrets: impl Iterator<Item = (Option<String>, Facts)>,
    link: Option<String>,
) -> Result<Listed, Nature> {
    let name = |id: Option<String>| id.as_deref().and_then(name_of_id).map(str::to_owned);
    Ok(Listed {
        secrets: secrets.map(|(id, facts)| (name(id), facts)).collect(),
        next: next(link.as_deref())?,
    })
}

/// The query of the link to the next page. The rest of the link is known. A link without a query is
/// an error, because ignoring it would omit secrets.
fn next(link: Option<&str>) -> Result<Option<String>, Nature> {
    let Some(link) = link.filter(|link| !link.is_empty()) else {
        return Ok(None);
    };
    let link = link.split_once('#').map_or(link, |(link, _)| link);
    match link.split_once('?') {
        Some((_, query)) if !query.is_empty() => Ok(Some(query.to_owned())),
        _ => Err(Nature::Garbled),
    }
}

/// The error for a failed request, with operation and store.
pub(crate) fn explain(
    fault: &Fault,
    config: &Config,
    operation: secret_persistence_core::Operation,
    store: &impl fmt::Display,
) -> Error {
    fault
        .explain(config)
        .with_operation(operation)
        .with_store(store.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_nowhere_but_to_our_vault_and_is_never_passed_over() {
        let query = |link| next(link).map_err(|_| ());
        for (link, expected) in [
            (
                "https://my-vault.vault.azure.net/secrets?api-version=7.4&$skiptoken=x",
                "api-version=7.4&$skiptoken=x",
            ),
            (
                "https://evil.example/secrets?$skiptoken=x#y",
                "$skiptoken=x",
            ),
            ("/secrets?$skiptoken=x", "$skiptoken=x"),
            ("secrets?$skiptoken=x?", "$skiptoken=x?"),
            ("?$skiptoken=x", "$skiptoken=x"),
        ] {
            assert_eq!(query(Some(link)), Ok(Some(expected.to_owned())), "{link}");
        }
        for none in [None, Some("")] {
            assert_eq!(query(none), Ok(None));
        }
        for link in [
            "https://my-vault.vault.azure.net/secrets",
            "https://my-vault.vault.azure.net/secrets/page/2",
            "secrets?#x",
        ] {
            assert_eq!(query(Some(link)), Err(()), "{link}");
        }
    }
}
