//! Sends the requests: one client for all of them, without retries and logs of the SDK, and with
//! deadlines.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::config::{IdentityCache, Region as SdkRegion};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::batch_get_secret_value::BatchGetSecretValueOutput;
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use aws_sdk_secretsmanager::operation::list_secrets::ListSecretsOutput;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, Tag};
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;
use secret_persistence_core::{Error, ErrorKind, Operation, SecretValue};
use secret_persistence_remote::{Nature, quiet};
use tokio::time::Instant;
use tracing::debug;
use uuid::Uuid;

use crate::config::{Config, Deletion};
use crate::credentials::CredentialCache;
use crate::error::Fault;
use crate::policy::{Action, Denial};
use crate::transport::Bounded;

/// The SDK's default, stated here beside the other limits.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// The maximum time until the first byte of a response. Secrets Manager responds in tens of
/// milliseconds.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum duration of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The clients of Secrets Manager and STS. Cloning shares connections and credentials.
#[derive(Clone)]
pub(crate) struct Client {
    secrets: aws_sdk_secretsmanager::Client,
    sts: aws_sdk_sts::Client,
    credentials: CredentialCache,
    secrets_host: String,
    sts_host: String,
}

impl Client {
    /// Creates the clients, without sending a request.
    pub(crate) fn new(config: &Config) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .operation_timeout(REQUEST_TIMEOUT)
            .build();
        let region = SdkRegion::new(config.region.as_str().to_owned());
        // `Some(false)` would override the SDK's own resolver; `None` is the default.
        let flag = |set: bool| set.then_some(true);
        let endpoint = |url: &Option<url::Url>| {
            url.as_ref()
                .map(|url| url.as_str().trim_end_matches('/').to_owned())
        };
        let mut sts = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(region.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.clone())
            .interceptor(Bounded)
            .identity_cache(IdentityCache::no_cache());
        sts.set_use_fips(flag(config.use_fips));
        sts.set_use_dual_stack(flag(config.use_dualstack));
        sts.set_endpoint_url(endpoint(&config.sts_endpoint));
        let credentials = CredentialCache::new(config, sts.clone());
        let mut secrets = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(region)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .interceptor(Bounded)
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(credentials.clone());
        secrets.set_use_fips(flag(config.use_fips));
        secrets.set_use_dual_stack(flag(config.use_dualstack));
        secrets.set_endpoint_url(endpoint(&config.endpoint));
        let suffix = match config.region.partition() {
            "aws-cn" => "amazonaws.com.cn",
            _ => "amazonaws.com",
        };
        let host = |url: &Option<url::Url>, service: &str| match url {
            Some(url) => format!(
                "{}:{}",
                url.host_str().unwrap_or_default(),
                url.port_or_known_default().unwrap_or_default()
            ),
            None => format!("{service}.{}.{suffix}:443", config.region),
        };
        Self {
            secrets: aws_sdk_secretsmanager::Client::from_conf(secrets.build()),
            sts: aws_sdk_sts::Client::from_conf(
                sts.credentials_provider(credentials.clone()).build(),
            ),
            credentials,
            secrets_host: host(&config.endpoint, "secretsmanager"),
            sts_host: host(&config.sts_endpoint, "sts"),
        }
    }

    pub(crate) async fn get(&self, id: &str) -> Result<GetSecretValueOutput, Fault> {
        let request = self.secrets.get_secret_value().secret_id(id);
        self.send(Action::GetSecretValue, request.send()).await
    }

    pub(crate) async fn get_batch(
        &self,
        ids: Vec<String>,
    ) -> Result<BatchGetSecretValueOutput, Fault> {
        let request = self
            .secrets
            .batch_get_secret_value()
            .set_secret_id_list(Some(ids));
        self.send(Action::BatchGetSecretValue, request.send()).await
    }

    /// Creates a secret with all its attributes in one request, so that policies that are scoped by
    /// tag can allow it.
    pub(crate) async fn create(
        &self,
        name: &str,
        value: &SecretValue,
        description: &str,
        kms_key: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Fault> {
        let tags: Vec<Tag> = tags
            .iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect();
        let request = self
            .secrets
            .create_secret()
            .name(name)
            .description(description)
            .set_kms_key_id(kms_key.map(str::to_owned))
            .set_tags((!tags.is_empty()).then_some(tags))
            // Each attempt has a random token. With a token derived from the name, AWS would answer
            // a second create of the same value like the first one, and `Created` and `AlreadySame`
            // could not be distinguished. A repeated attempt compares the values instead.
            .client_request_token(Uuid::new_v4().to_string())
            .secret_string(value.expose());
        self.send(Action::CreateSecret, request.send())
            .await
            .map(drop)
    }

    pub(crate) async fn delete(&self, name: &str, deletion: Deletion) -> Result<(), Fault> {
        let request = self.secrets.delete_secret().secret_id(name);
        let request = match deletion {
            Deletion::Default => request,
            Deletion::Immediate => request.force_delete_without_recovery(true),
            Deletion::Window(days) => request.recovery_window_in_days(days.into()),
        };
        self.send(Action::DeleteSecret, request.send())
            .await
            .map(drop)
    }

    pub(crate) async fn describe(&self, id: &str) -> Result<DescribeSecretOutput, Fault> {
        let request = self.secrets.describe_secret().secret_id(id);
        self.send(Action::DescribeSecret, request.send()).await
    }

    pub(crate) async fn restore(&self, name: &str) -> Result<(), Fault> {
        let request = self.secrets.restore_secret().secret_id(name);
        self.send(Action::RestoreSecret, request.send())
            .await
            .map(drop)
    }

    pub(crate) async fn list(
        &self,
        prefix: &str,
        tag_key: Option<&str>,
        deleted: bool,
        page_size: i32,
        after: Option<&str>,
    ) -> Result<ListSecretsOutput, Fault> {
        let filter = |key, value: &str| Filter::builder().key(key).values(value).build();
        let prefix = (!prefix.is_empty()).then(|| filter(FilterNameStringType::Name, prefix));
        let tag = tag_key.map(|key| filter(FilterNameStringType::TagKey, key));
        let filters: Vec<Filter> = prefix.into_iter().chain(tag).collect();
        let request = self
            .secrets
            .list_secrets()
            .max_results(page_size)
            .include_planned_deletion(deleted)
            .set_filters((!filters.is_empty()).then_some(filters))
            .set_next_token(after.map(str::to_owned));
        self.send(Action::ListSecrets, request.send()).await
    }

    pub(crate) async fn caller(&self) -> Result<GetCallerIdentityOutput, Fault> {
        self.send(
            Action::GetCallerIdentity,
            self.sts.get_caller_identity().send(),
        )
        .await
    }

    /// The error for a failed request, with the advice of the policy table if a permission is
    /// missing.
    pub(crate) fn explain(
        &self,
        fault: &Fault,
        config: &Config,
        operation: Operation,
        name: Option<&str>,
    ) -> Error {
        let host = match fault.action {
            Action::GetCallerIdentity => &self.sts_host,
            _ => &self.secrets_host,
        };
        let denial = Denial {
            action: fault.action,
            region: &config.region,
            resource: name,
            tag_key: config.tag_key.as_deref(),
            kms_key: config.kms_key.as_deref(),
        };
        fault
            .explain(host, || denial.advice())
            .with_operation(operation)
    }

    async fn send<O, E>(
        &self,
        action: Action,
        request: impl Future<Output = Result<O, SdkError<E>>>,
    ) -> Result<O, Fault>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let started = Instant::now();
        // Loads credentials before the SDK does, because the SDK would wrap the error that lists
        // the sources.
        let keys = self
            .credentials
            .current()
            .await
            .map_err(|error| Fault::new(action, Nature::Credentials(Box::new(error))))?;
        let result = quiet(request).await;
        let elapsed = started.elapsed();
        let error = match result {
            Ok(answer) => {
                debug!(action = action.as_str(), ?elapsed, "answered");
                return Ok(answer);
            }
            Err(error) => error,
        };
        let mut fault = Fault::from_sdk(action, &error);
        drop(error);
        if fault.is(ErrorKind::Unauthenticated) {
            fault.failure.new_credentials = self.credentials.refused(&keys).await;
        }
        debug!(action = action.as_str(), ?elapsed, %fault, "failed");
        Err(fault)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("host", &self.secrets_host)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}
