//! Credentials: loaded once, cached until they expire, and reloaded when their files change or AWS
//! refuses them.

use std::env;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_sts::config::Region as SdkRegion;
use aws_sdk_sts::error::ProvideErrorMetadata;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use secret_persistence_core::{Error, ErrorKind};
use secret_persistence_remote::{FileStamp, Nature, Shared, quiet};
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::config::{AssumeRole, Config, Credentials};
use crate::error::Fault;
use crate::policy::{Action, Denial};

/// How long before their expiry credentials are renewed: enough for several attempts, and short
/// enough for the shortest sessions of fifteen minutes.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// The pause after a failed renewal, while the old credentials are valid.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// The maximum time to load credentials. If the metadata service does not respond, the SDK gives up
/// after a few seconds.
const LOAD_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest session we accept, because a server may return any expiry.
const LONGEST_SESSION: Duration = Duration::from_secs(366 * 86_400);

/// Our credentials, shared by all clients. Clones share the state.
#[derive(Clone)]
pub(crate) struct CredentialCache(Arc<Inner>);

struct Inner {
    source: Source,
    shared: Shared<Held, Error>,
}

/// Loads credentials from scratch each time, because the SDK's providers cache the files they read.
struct Source {
    credentials: Credentials,
    role: Option<(AssumeRole, aws_sdk_sts::config::Builder)>,
    region: crate::naming::Region,
}

pub(crate) struct Held {
    keys: Keys,
    /// The state of the files when the credentials were loaded.
    files: Vec<FileStamp>,
    /// When to renew the credentials, if they expire.
    renew_at: Option<Instant>,
}

impl CredentialCache {
    /// Loads nothing yet. `sts` configures the client that assumes the role.
    pub(crate) fn new(config: &Config, sts: aws_sdk_sts::config::Builder) -> Self {
        Self(Arc::new(Inner {
            source: Source {
                credentials: config.credentials.clone(),
                role: config.role.clone().map(|role| (role, sts)),
                region: config.region.clone(),
            },
            shared: Shared::default(),
        }))
    }

    /// Valid credentials, as far as we know. Loads them if necessary.
    pub(crate) async fn current(&self) -> Result<Arc<Held>, Error> {
        let load = |old: Option<Arc<Held>>| async move {
            match (self.0.source.load().await, old) {
                // Credentials that have not expired are used until they do.
                (Err(error), Some(old)) if old.is_valid() && !old.is_stale() => {
                    warn!(%error, "AWS credentials could not be renewed; the old ones are still valid");
                    Ok(Held {
                        keys: old.keys.clone(),
                        files: old.files.clone(),
                        renew_at: Some(Instant::now() + RENEW_AGAIN),
                    })
                }
                (loaded, _) => loaded,
            }
        };
        self.0.shared.get(Held::is_fresh, load).await
    }

    /// Reloads credentials that AWS refused. Returns whether there are other ones.
    pub(crate) async fn refused(&self, refused: &Arc<Held>) -> bool {
        let load = || async { self.0.source.load().await.map(Some) };
        let shared = &self.0.shared;
        let found = shared.replace(refused, load).await;
        match found.inspect_err(|_| shared.forget(refused)) {
            Ok(Some(held)) => !same(&held.keys, &refused.keys),
            _ => false,
        }
    }
}

impl fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialCache")
            .field("source", &self.0.source.credentials)
            .field("role", &self.0.source.role.as_ref().map(|(role, _)| role))
            .finish_non_exhaustive()
    }
}

impl ProvideCredentials for CredentialCache {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let loaded: provider::Result = match self.current().await {
                Ok(held) => Ok(held.keys.clone()),
                Err(error) => Err(CredentialsError::provider_error(error)),
            };
            loaded
        })
    }
}

impl Held {
    fn new(keys: Keys, files: Vec<FileStamp>) -> Self {
        let renew_at = keys.expiry().map(|end| {
            let left = end.duration_since(SystemTime::now()).unwrap_or_default();
            let left = left.min(LONGEST_SESSION);
            // A session shorter than the margin is renewed after half its time.
            Instant::now() + left.saturating_sub(RENEW_BEFORE).max(left / 2)
        });
        Self {
            keys,
            files,
            renew_at,
        }
    }

    fn is_fresh(&self) -> bool {
        self.is_valid() && self.renew_at.is_none_or(|at| Instant::now() < at) && !self.is_stale()
    }

    fn is_valid(&self) -> bool {
        self.keys.expiry().is_none_or(|end| SystemTime::now() < end)
    }

    /// Whether the files have changed since then.
    fn is_stale(&self) -> bool {
        self.files.iter().any(FileStamp::has_changed)
    }
}

impl Source {
    async fn load(&self) -> Result<Held, Error> {
        // Record the state of the files before reading them: a file that changes meanwhile is read
        // again.
        let files: Vec<FileStamp> = self.files().into_iter().map(FileStamp::of).collect();
        let loading = async {
            let base = self.load_base().await?;
            match &self.role {
                Some((role, sts)) => self.assume(role, sts.clone(), base).await,
                None => Ok(base),
            }
        };
        let keys = timeout(LOAD_TIMEOUT, quiet(loading)).await.map_err(|_| {
            Error::new(ErrorKind::Unavailable, "loading credentials timed out")
                .with_hint(self.sources_tried())
        })??;
        Ok(Held::new(keys, files))
    }

    async fn load_base(&self) -> Result<Keys, Error> {
        let region = SdkRegion::new(self.region.as_str().to_owned());
        let setup = ProviderConfig::default().with_region(Some(region.clone()));
        match &self.credentials {
            Credentials::AccessKey(key) => Ok(Keys::new(
                key.id.expose(),
                key.secret.expose(),
                key.session_token
                    .as_ref()
                    .map(|token| token.expose().to_owned()),
                None,
                "settings",
            )),
            Credentials::DefaultChain { profile } => {
                let mut chain = DefaultCredentialsChain::builder()
                    .region(region)
                    .configure(setup);
                if let Some(profile) = profile {
                    chain = chain.profile_name(profile);
                }
                let chain = chain.build().await;
                self.provided(chain.provide_credentials()).await
            }
            Credentials::InstanceMetadata => {
                let service = ImdsCredentialsProvider::builder().configure(&setup).build();
                self.provided(service.provide_credentials()).await
            }
        }
    }

    async fn provided(
        &self,
        provider: impl Future<Output = Result<Keys, CredentialsError>>,
    ) -> Result<Keys, Error> {
        // The SDK's error may contain the response of a metadata service or the output of a
        // process. Keep only its kind, and the code if STS refused.
        provider.await.map_err(|error| {
            if let Some(fault) = sts_fault(&error) {
                let denial = Denial {
                    action: fault.action,
                    region: &self.region,
                    resource: None,
                    tag_key: None,
                    kms_key: None,
                };
                return fault.explain("STS", || denial.advice());
            }
            let (kind, message) = match error {
                CredentialsError::CredentialsNotLoaded(_) => {
                    (ErrorKind::Unauthenticated, "no AWS credentials were found")
                }
                CredentialsError::InvalidConfiguration(_) => (
                    ErrorKind::InvalidConfig,
                    "the AWS configuration files or variables are contradictory",
                ),
                CredentialsError::ProviderTimedOut(_) => (
                    ErrorKind::Unavailable,
                    "the source of AWS credentials did not respond in time",
                ),
                // The source exists, and failed: an expired SSO login, a refused web identity.
                _ => (
                    ErrorKind::Unauthenticated,
                    "a configured source of AWS credentials failed",
                ),
            };
            Error::new(kind, message).with_hint(self.sources_tried())
        })
    }

    async fn assume(
        &self,
        role: &AssumeRole,
        sts: aws_sdk_sts::config::Builder,
        base: Keys,
    ) -> Result<Keys, Error> {
        let client = aws_sdk_sts::Client::from_conf(sts.credentials_provider(base).build());
        let answer = client
            .assume_role()
            .role_arn(&role.arn)
            .role_session_name(&role.session_name)
            .set_external_id(role.external_id.clone())
            .send()
            .await
            .map_err(|error| {
                let denial = Denial {
                    action: Action::AssumeRole,
                    region: &self.region,
                    resource: Some(&role.arn),
                    tag_key: None,
                    kms_key: None,
                };
                Fault::from_sdk(Action::AssumeRole, &error).explain("STS", || denial.advice())
            })?;
        let session = answer.credentials.ok_or_else(|| {
            Fault::new(Action::AssumeRole, Nature::Garbled).explain("STS", Default::default)
        })?;
        Ok(Keys::new(
            session.access_key_id,
            session.secret_access_key,
            Some(session.session_token),
            SystemTime::try_from(session.expiration).ok(),
            "assumed role",
        ))
    }

    /// The files that the credentials come from, existing or not. The tokens of a container and of
    /// a web identity are files too, but their sessions have an expiry.
    fn files(&self) -> Vec<PathBuf> {
        match self.credentials {
            Credentials::DefaultChain { .. } => [credentials_file(), config_file()]
                .into_iter()
                .flatten()
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The sources that were tried, for the error: the names of variables and files, and whether
    /// they exist, never their contents.
    fn sources_tried(&self) -> String {
        let named = |name: &str| {
            let state = if is_set(name) { "set" } else { "not set" };
            format!("{name} ({state})")
        };
        let existing = |path: Option<PathBuf>| match path {
            Some(path) => {
                let state = if path.exists() {
                    "exists"
                } else {
                    "does not exist"
                };
                format!("{} ({state})", path.display())
            }
            None => "no home directory".to_owned(),
        };
        let metadata = if env::var("AWS_EC2_METADATA_DISABLED")
            .is_ok_and(|value| value.eq_ignore_ascii_case("true"))
        {
            "the instance metadata service (disabled by AWS_EC2_METADATA_DISABLED)"
        } else {
            "the instance metadata service"
        };
        match &self.credentials {
            Credentials::AccessKey(_) => "tried: the access key of the settings".to_owned(),
            Credentials::InstanceMetadata => format!("tried: only {metadata}"),
            Credentials::DefaultChain { profile } => {
                let profile = profile
                    .clone()
                    .or_else(|| env::var("AWS_PROFILE").ok())
                    .unwrap_or_else(|| "default".to_owned());
                format!(
                    "tried, in this order: {}, {}; profile `{profile}` in {} and {} (`aws sso login` \
                     renews SSO); {}; {}, {}; {metadata}",
                    named("AWS_ACCESS_KEY_ID"),
                    named("AWS_SECRET_ACCESS_KEY"),
                    existing(credentials_file()),
                    existing(config_file()),
                    named("AWS_WEB_IDENTITY_TOKEN_FILE"),
                    named("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
                    named("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
                )
            }
        }
    }
}

/// The code of STS for a role of the profile or for a web identity.
fn sts_fault(error: &CredentialsError) -> Option<Fault> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        let answered = |action, code: Option<&str>| Some(Fault::answered(action, code));
        if let Some(error) = error.downcast_ref::<AssumeRoleError>() {
            return answered(Action::AssumeRole, error.code());
        }
        if let Some(error) = error.downcast_ref::<AssumeRoleWithWebIdentityError>() {
            return answered(Action::AssumeRoleWithWebIdentity, error.code());
        }
        cause = error.source();
    }
    None
}

fn same(ours: &Keys, theirs: &Keys) -> bool {
    ours.access_key_id() == theirs.access_key_id()
        && ours.secret_access_key() == theirs.secret_access_key()
        && ours.session_token() == theirs.session_token()
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// <https://docs.aws.amazon.com/sdkref/latest/guide/file-location.html>
fn credentials_file() -> Option<PathBuf> {
    aws_file("AWS_SHARED_CREDENTIALS_FILE", "credentials")
}

fn config_file() -> Option<PathBuf> {
    aws_file("AWS_CONFIG_FILE", "config")
}

fn aws_file(variable: &str, name: &str) -> Option<PathBuf> {
    if is_set(variable) {
        return env::var_os(variable).map(PathBuf::from);
    }
    env::home_dir().map(|home| home.join(".aws").join(name))
}
