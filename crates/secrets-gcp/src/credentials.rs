//! Credentials: created once, cached, and created again when their file changes or Google refuses
//! them.
//!
//! The SDK's credentials fetch and renew tokens themselves. They cache the contents of a file, and
//! a refusal, forever, so this module replaces them.

use std::env;
use std::error::Error as StdError;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use google_cloud_auth::credentials::{
    CacheableResource, Credentials as SdkCredentials, CredentialsProvider, anonymous,
    external_account, impersonated, mds, service_account, user_account,
};
use google_cloud_auth::errors::CredentialsError;
use google_cloud_gax::error::Error as SdkError;
use http::{Extensions, HeaderMap};
use secret_persistence_core::{Error, ErrorKind, SecretValue};
use secret_persistence_remote::{Connect, FileStamp, Shared, quiet};
use tokio::time::{Instant, timeout};

use crate::config::{Config, Credentials};
use crate::key::{Key, Kind};

/// The maximum time to get a token. If the metadata server does not respond, the SDK has no limit.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(20);

/// A refused token is only renewed if it is older. A new token is refused because of its contents,
/// and another one would have the same contents.
const MIN_AGE: Duration = Duration::from_secs(60);

/// Our credentials, shared by all clients. Clones share the state.
#[derive(Clone)]
pub(crate) struct CredentialCache(Arc<Inner>);

struct Inner {
    source: Source,
    shared: Shared<Held, Error>,
}

/// Creates credentials from scratch each time.
struct Source {
    credentials: Credentials,
    impersonate: Option<String>,
}

/// The contents from which credentials are created.
#[derive(Default)]
struct Contents {
    key: Option<Key>,
    file: Option<FileStamp>,
}

/// Credentials of the SDK, and the contents they were created from.
pub(crate) struct Held {
    credentials: SdkCredentials,
    /// The contents of the file or the setting; `None` for the metadata server.
    contents: Option<SecretValue>,
    /// The state of the file when it was read.
    file: Option<FileStamp>,
    /// Whether the same contents can produce a different token.
    renewable: bool,
    made_at: Instant,
}

impl CredentialCache {
    /// Reads nothing yet.
    pub(crate) fn new(config: &Config) -> Self {
        Self::of(Source {
            credentials: config.credentials.clone(),
            impersonate: config.impersonate.clone(),
        })
    }

    fn of(source: Source) -> Self {
        Self(Arc::new(Inner {
            source,
            shared: Shared::default(),
        }))
    }

    /// Credentials with a valid token, as far as we know.
    pub(crate) async fn current(&self) -> Result<Arc<Held>, Error> {
        let Inner { source, shared } = &*self.0;
        // Includes the first token, so that all waiting callers share its failure too.
        let make = |_| async {
            let held = source.load()?;
            source.check_token(&held).await.map(|()| held)
        };
        let held = shared.get(Held::is_current, make).await?;
        match source.check_token(&held).await {
            Ok(()) => Ok(held),
            Err(error) => {
                // The SDK would return the same error forever.
                shared.forget(&held);
                Err(error)
            }
        }
    }

    /// Looks for other credentials after Google refused these. Returns whether there are other
    /// ones.
    pub(crate) async fn refused(&self, refused: &Arc<Held>) -> bool {
        let source = &self.0.source;
        let make = || async {
            let contents = source.read()?;
            let is_other = contents.key.as_ref().map(|key| &key.json) != refused.contents.as_ref();
            let is_old = refused.renewable && refused.made_at.elapsed() >= MIN_AGE;
            if is_other || is_old {
                source.make(contents).map(Some)
            } else {
                Ok(None)
            }
        };
        let shared = &self.0.shared;
        let found = shared.replace(refused, make).await;
        matches!(found.inspect_err(|_| shared.forget(refused)), Ok(Some(_)))
    }

    /// Our identity, as far as the credentials contain it.
    pub(crate) fn principal(&self) -> String {
        let of_material = self
            .0
            .shared
            .held()
            .and_then(|held| held.contents.clone())
            .and_then(|json| Key { json }.value().ok())
            .and_then(|content| content.principal());
        let source = &self.0.source;
        match (&source.impersonate, &source.credentials) {
            (Some(account), _) => account.clone(),
            (None, Credentials::Anonymous) => "nobody (anonymous)".to_owned(),
            (None, _) => of_material
                .unwrap_or_else(|| "the service account of the metadata server".to_owned()),
        }
    }

    async fn held_or_made(&self) -> Result<Arc<Held>, Error> {
        let make = |_| async { self.0.source.load() };
        self.0.shared.get(Held::is_current, make).await
    }
}

impl fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialCache")
            .field("source", &self.0.source.credentials)
            .field("impersonate", &self.0.source.impersonate)
            .finish_non_exhaustive()
    }
}

/// The SDK calls this for each request.
impl CredentialsProvider for CredentialCache {
    async fn headers(
        &self,
        extensions: Extensions,
    ) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        match self.held_or_made().await {
            Ok(held) => held.credentials.headers(extensions).await,
            Err(error) => Err(CredentialsError::from_source(false, error)),
        }
    }

    /// Credentials of another universe have been refused. Asking the metadata server would cost a
    /// request.
    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

impl Held {
    /// Whether the contents of the file or setting are a configuration for impersonation.
    fn acts_as_another(&self) -> bool {
        let key = self.contents.clone().map(|json| Key { json });
        key.and_then(|key| key.value().ok())
            .is_some_and(|content| content.text("service_account_impersonation_url").is_some())
    }

    /// Whether the file is unchanged.
    fn is_current(&self) -> bool {
        !self.file.as_ref().is_some_and(FileStamp::has_changed)
    }
}

impl Source {
    /// Reads the contents.
    fn read(&self) -> Result<Contents, Error> {
        let of_file = |path: &Path| {
            // Record the state of the file before reading it: a file that changes meanwhile is read
            // again.
            let file = FileStamp::of(path);
            read_key(path).map(|key| Contents {
                key: Some(key),
                file: Some(file),
            })
        };
        match &self.credentials {
            Credentials::Anonymous | Credentials::Metadata => Ok(Contents::default()),
            Credentials::Key(key) => Ok(Contents {
                key: Some(key.clone()),
                file: None,
            }),
            Credentials::KeyFile(path) => of_file(path),
            Credentials::ApplicationDefault => match default_file() {
                // As in the SDK, the file that the variable names must exist.
                Some(DefaultFile::Named(path)) => of_file(&path).map_err(|error| {
                    error.with_hint("GOOGLE_APPLICATION_CREDENTIALS names this file")
                }),
                Some(DefaultFile::Usual(path)) if path.exists() => of_file(&path),
                Some(DefaultFile::Usual(path)) => Ok(Contents {
                    key: None,
                    file: Some(FileStamp::of(path)),
                }),
                None => Ok(Contents::default()),
            },
        }
    }

    fn load(&self) -> Result<Held, Error> {
        self.make(self.read()?)
    }

    /// Gets a token, or checks that there is one.
    async fn check_token(&self, held: &Held) -> Result<(), Error> {
        let token = quiet(held.credentials.headers(Extensions::new()));
        match timeout(TOKEN_TIMEOUT, token).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.explain(&error, held.acts_as_another())),
            Err(_) => Err(
                Error::new(ErrorKind::Unavailable, "getting an access token timed out")
                    .with_hint(self.sources_tried()),
            ),
        }
    }

    /// Creates the SDK's credentials. Sends no request itself, but the SDK begins to fetch a token.
    fn make(&self, contents: Contents) -> Result<Held, Error> {
        let Contents {
            key: contents,
            file,
        } = contents;
        let (credentials, kind) = match &contents {
            Some(key) => build(key)?,
            None if matches!(self.credentials, Credentials::Anonymous) => {
                (anonymous::Builder::new().build(), None)
            }
            None => (
                mds::Builder::default()
                    .build()
                    .map_err(invalid_credentials)?,
                None,
            ),
        };
        let credentials = match &self.impersonate {
            Some(account) => impersonated::Builder::from_source_credentials(credentials)
                .with_target_principal(account)
                .build()
                .map_err(invalid_credentials)?,
            None => credentials,
        };
        // A key signs the same contents again. The other types request a new token.
        let renewable = self.impersonate.is_some()
            || !matches!(kind, Some(Kind::ServiceAccount))
                && !matches!(self.credentials, Credentials::Anonymous);
        Ok(Held {
            credentials,
            contents: contents.map(|key| key.json),
            file,
            renewable,
            made_at: Instant::now(),
        })
    }

    /// Why there is no token, derived only from types and numbers: the SDK's messages quote
    /// responses.
    fn explain(&self, error: &CredentialsError, acts_as_another: bool) -> Error {
        let cause = cause(error);
        let acts_as_another = acts_as_another || self.impersonate.is_some();
        let unreachable = |connect: Connect| {
            Error::new(
                ErrorKind::Unavailable,
                format!("no connection to the token server: {connect}"),
            )
        };
        let (error, hint) = match cause {
            Cause::Refused(status @ 403) if acts_as_another => (
                Error::new(
                    ErrorKind::PermissionDenied,
                    format!(
                        "the principal may not impersonate the service account (HTTP {status})"
                    ),
                ),
                "grant roles/iam.serviceAccountTokenCreator on it, and enable \
                 iamcredentials.googleapis.com",
            ),
            Cause::Refused(404) if self.is_metadata() => (
                Error::new(
                    ErrorKind::Unauthenticated,
                    "the metadata server has no service account",
                ),
                "attach a service account to the machine, or bind one to the workload",
            ),
            Cause::Refused(status @ (400..=499)) if status != 429 => (
                Error::new(
                    ErrorKind::Unauthenticated,
                    format!("the token server refuses the credentials (HTTP {status})"),
                ),
                "they were revoked, have expired, or belong to a deleted account: log in again \
                 (`gcloud auth application-default login`), create a new key, or compare the workload \
                 identity pool's issuer, audience and conditions with the token",
            ),
            Cause::Refused(status) => (
                Error::new(
                    ErrorKind::Unavailable,
                    format!("the token server cannot issue tokens at present (HTTP {status})"),
                ),
                "try again; see https://status.cloud.google.com",
            ),
            Cause::Connect(Connect::NoSuchHost) if self.is_metadata() => (
                Error::new(
                    ErrorKind::Unauthenticated,
                    "no Google credentials were found",
                ),
                "set SECRET_STORE_GCP_CREDENTIALS or GOOGLE_APPLICATION_CREDENTIALS, run `gcloud auth \
                 application-default login`, or run on Google Cloud; an emulator on loopback takes \
                 `credentials-source=anonymous`",
            ),
            Cause::Connect(connect) => (
                unreachable(connect),
                "check the network, proxies and firewalls",
            ),
            Cause::TimedOut => (
                unreachable(Connect::TimedOut),
                "check the network, proxies and firewalls",
            ),
            Cause::Other if error.is_transient() => (
                Error::new(ErrorKind::Unavailable, "could not get an access token"),
                "try again",
            ),
            Cause::Other => (
                Error::new(
                    ErrorKind::Unauthenticated,
                    "the credentials cannot produce an access token",
                ),
                "check that the private key is complete, with its newlines, or create a new key; a \
                 file or program in a federation configuration must exist",
            ),
        };
        error.with_hint(format!("{hint}; {}", self.sources_tried()))
    }

    fn is_metadata(&self) -> bool {
        match &self.credentials {
            Credentials::Metadata => true,
            Credentials::ApplicationDefault => match default_file() {
                Some(DefaultFile::Named(_)) => false,
                Some(DefaultFile::Usual(path)) => !path.exists(),
                None => true,
            },
            _ => false,
        }
    }

    /// The sources that were tried, for the error: the names of variables and files, and whether
    /// they exist, never their contents.
    fn sources_tried(&self) -> String {
        let tried = match &self.credentials {
            Credentials::Anonymous => "no credentials, as configured".to_owned(),
            Credentials::Key(_) => "the credentials of the settings".to_owned(),
            Credentials::KeyFile(path) => format!("the file {}", path.display()),
            Credentials::Metadata => "only the metadata server".to_owned(),
            Credentials::ApplicationDefault => match default_file() {
                Some(DefaultFile::Named(path)) => format!(
                    "the file {}, which GOOGLE_APPLICATION_CREDENTIALS names",
                    path.display()
                ),
                Some(DefaultFile::Usual(path)) if path.exists() => format!(
                    "GOOGLE_APPLICATION_CREDENTIALS (not set), then the file {}",
                    path.display()
                ),
                Some(DefaultFile::Usual(path)) => format!(
                    "GOOGLE_APPLICATION_CREDENTIALS (not set), the file {} (does not exist), then the \
                     metadata server",
                    path.display()
                ),
                None => {
                    "GOOGLE_APPLICATION_CREDENTIALS (not set), no home directory, then the metadata \
                         server"
                        .to_owned()
                }
            },
        };
        match &self.impersonate {
            Some(account) => format!("tried: {tried}, to act as {account}"),
            None => format!("tried: {tried}"),
        }
    }
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Connect(Connect),
    Other,
    Refused(u16),
    TimedOut,
}

/// The first cause in the chain that is a number or a type. Messages are ignored, because they
/// quote response bodies.
fn cause(error: &(dyn StdError + 'static)) -> Cause {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<reqwest::Error>() {
            return if let Some(status) = error.status() {
                Cause::Refused(status.as_u16())
            } else if error.is_timeout() {
                Cause::TimedOut
            } else if error.is_connect() {
                Cause::Connect(Connect::of(error).unwrap_or(Connect::Other))
            } else {
                Cause::Other
            };
        }
        if let Some(error) = error.downcast_ref::<SdkError>() {
            if let Some(status) = error.http_status_code() {
                return Cause::Refused(status);
            }
            if error.is_timeout() {
                return Cause::TimedOut;
            }
        }
        next = error.source();
    }
    Cause::Other
}

/// Creates the SDK's credentials for the type in the contents.
fn build(key: &Key) -> Result<(SdkCredentials, Option<Kind>), Error> {
    let content = key.value()?;
    content.check()?;
    let kind = content.kind();
    let value = content.0;
    // The SDK fetches the token in a separate task without our subscriber. It only logs addresses
    // there.
    let built = match kind {
        Some(Kind::AuthorizedUser) => user_account::Builder::new(value).build(),
        Some(Kind::ExternalAccount) => external_account::Builder::new(value).build(),
        Some(Kind::Impersonated) => impersonated::Builder::new(value).build(),
        _ => service_account::Builder::new(value).build(),
    };
    Ok((built.map_err(invalid_credentials)?, kind))
}

/// The error if the SDK cannot build credentials. Drops the reason, which may quote the contents.
fn invalid_credentials<E>(_reason: E) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        "the credentials are invalid for their type",
    )
    .with_hint("create a new key, or a new workload identity federation configuration")
}

fn read_key(path: &Path) -> Result<Key, Error> {
    let text = fs::read_to_string(path).map_err(|error| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "the credentials file {} cannot be read: {}",
                path.display(),
                error.kind()
            ),
        )
    })?;
    Key::parse(&SecretValue::new(text)).map_err(|error| {
        let message = format!("{}: {}", path.display(), error.message());
        Error::new(error.kind(), message).with_hint(error.hint().unwrap_or_default().to_owned())
    })
}

/// The file of the application default credentials.
/// <https://cloud.google.com/docs/authentication/application-default-credentials>
enum DefaultFile {
    /// From the variable.
    Named(PathBuf),
    /// gcloud's own file.
    Usual(PathBuf),
}

fn default_file() -> Option<DefaultFile> {
    if let Some(path) = env::var_os("GOOGLE_APPLICATION_CREDENTIALS") {
        return Some(DefaultFile::Named(path.into()));
    }
    let folder = if cfg!(windows) {
        env::var_os("APPDATA").map(PathBuf::from)
    } else {
        env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"))
    };
    folder.map(|folder| {
        DefaultFile::Usual(folder.join("gcloud/application_default_credentials.json"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_found_by_type_and_never_by_text() {
        let http = SdkError::http(403, HeaderMap::new(), b"HTTP 500 canary".to_vec().into());
        let error = CredentialsError::new(true, "body=<canary, status 404>", http);
        assert_eq!(cause(&error), Cause::Refused(403));
        let error = CredentialsError::from_msg(false, "HTTP 401");
        assert_eq!(cause(&error), Cause::Other);
        let timeout = SdkError::timeout("time is up");
        let error = CredentialsError::from_source(true, timeout);
        assert_eq!(cause(&error), Cause::TimedOut);
    }

    #[test]
    fn what_the_sdk_says_of_a_token_is_not_repeated() {
        let source = Source {
            credentials: Credentials::KeyFile("/etc/key.json".into()),
            impersonate: None,
        };
        let http = SdkError::http(400, HeaderMap::new(), b"canary".to_vec().into());
        let error = CredentialsError::new(false, "body=<canary>", http);
        let error = source.explain(&error, false);
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("/etc/key.json") && !shown.contains("canary"),
            "{shown}"
        );
        assert!(error.source().is_none());
    }

    #[tokio::test]
    async fn a_file_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let source = || Source {
            credentials: Credentials::KeyFile(path.clone()),
            impersonate: None,
        };
        let error = source().read().err().unwrap();
        assert!(error.message().contains("cannot be read"), "{error}");
        fs::write(&path, "canary").unwrap();
        let error = source().read().err().unwrap();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        let key = |email: &str| {
            format!(
                r#"{{"type": "service_account", "project_id": "p", "private_key_id": "i",
                    "private_key": "k", "client_email": "{email}"}}"#
            )
        };
        fs::write(&path, key("a@p.iam.gserviceaccount.com")).unwrap();
        let cache = CredentialCache::of(source());
        let first = cache.held_or_made().await.unwrap();
        assert_eq!(cache.principal(), "a@p.iam.gserviceaccount.com");
        assert!(Arc::ptr_eq(&first, &cache.held_or_made().await.unwrap()));
        fs::write(&path, key("longer@p.iam.gserviceaccount.com")).unwrap();
        let second = cache.held_or_made().await.unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(cache.principal(), "longer@p.iam.gserviceaccount.com");
        // A refusal of replaced credentials reads nothing. A refusal of the current ones finds the
        // same, for any number of concurrent refusals.
        assert!(cache.refused(&first).await);
        assert!(!cache.refused(&second).await);
        assert!(!cache.refused(&second).await);
        fs::write(&path, key("another@p.iam.gserviceaccount.com")).unwrap();
        assert!(cache.refused(&cache.0.shared.held().unwrap()).await);
    }
}
