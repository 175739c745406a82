//! Credentials: made once, kept, created again when their file changes or Google refuses them.
//!
//! The SDK's credentials fetch and renew tokens by themselves, and keep forever what they have read
//! from a file, and a refusal too: so it is we who throw them away.

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

/// How long getting a token may take in all. Where nothing answers at the address of the metadata
/// server, the SDK has no limit of its own.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(20);

/// How old a token must be for its refusal to be answered with a new one: one that was just made is
/// refused for what it says, and another would say the same.
const YOUNG: Duration = Duration::from_secs(60);

/// Our credentials, shared by all clients. Cloning shares the state.
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

/// What credentials are made of.
#[derive(Default)]
struct Material {
    key: Option<Key>,
    file: Option<FileStamp>,
}

/// Credentials of the SDK, and what they were made of.
pub(crate) struct Held {
    credentials: SdkCredentials,
    /// The content of the file or the setting; none for the metadata server.
    material: Option<SecretValue>,
    /// What the file looked like when it was read.
    file: Option<FileStamp>,
    /// Whether the same material can give another token than before.
    renewable: bool,
    made_at: Instant,
}

impl CredentialCache {
    /// Nothing is read yet.
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

    /// Credentials whose token is good now, as far as we can tell.
    pub(crate) async fn current(&self) -> Result<Arc<Held>, Error> {
        let Inner { source, shared } = &*self.0;
        // With their first token, so that all who wait share its failure too.
        let make = |_| async {
            let held = source.load()?;
            source.see_token(&held).await.map(|()| held)
        };
        let held = shared.get(Held::is_current, make).await?;
        match source.see_token(&held).await {
            Ok(()) => Ok(held),
            Err(error) => {
                // The SDK would answer with the same error forever.
                shared.forget(&held);
                Err(error)
            }
        }
    }

    /// Google has refused these credentials: looks for others. Whether there are.
    pub(crate) async fn refused(&self, refused: &Arc<Held>) -> bool {
        let source = &self.0.source;
        let make = || async {
            let material = source.read()?;
            let is_other = material.key.as_ref().map(|key| &key.json) != refused.material.as_ref();
            let is_old = refused.renewable && refused.made_at.elapsed() >= YOUNG;
            if is_other || is_old {
                source.make(material).map(Some)
            } else {
                Ok(None)
            }
        };
        let shared = &self.0.shared;
        let found = shared.replace(refused, make).await;
        matches!(found.inspect_err(|_| shared.forget(refused)), Ok(Some(_)))
    }

    /// Who we are, as far as the credentials say.
    pub(crate) fn principal(&self) -> String {
        let of_material = self
            .0
            .shared
            .held()
            .and_then(|held| held.material.clone())
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

/// What the SDK asks for each request.
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

    /// What is of another universe was refused; asking the metadata server costs a request.
    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

impl Held {
    /// Whether the content of the file or setting is a configuration for impersonating somebody.
    fn acts_as_another(&self) -> bool {
        let key = self.material.clone().map(|json| Key { json });
        key.and_then(|key| key.value().ok())
            .is_some_and(|content| content.text("service_account_impersonation_url").is_some())
    }

    /// Whether the file is still what it was when it was read.
    fn is_current(&self) -> bool {
        !self.file.as_ref().is_some_and(FileStamp::has_changed)
    }
}

impl Source {
    /// Reads what there is to be read.
    fn read(&self) -> Result<Material, Error> {
        let of_file = |path: &Path| {
            // Stamped before reading: a file that changes meanwhile is read once more, not missed.
            let file = FileStamp::of(path);
            read_key(path).map(|key| Material {
                key: Some(key),
                file: Some(file),
            })
        };
        match &self.credentials {
            Credentials::Anonymous | Credentials::Metadata => Ok(Material::default()),
            Credentials::Key(key) => Ok(Material {
                key: Some(key.clone()),
                file: None,
            }),
            Credentials::KeyFile(path) => of_file(path),
            Credentials::ApplicationDefault => match default_file() {
                // As the SDK has it: what the variable names must be there.
                Some(DefaultFile::Named(path)) => of_file(&path).map_err(|error| {
                    error.with_hint("GOOGLE_APPLICATION_CREDENTIALS names this file")
                }),
                Some(DefaultFile::Usual(path)) if path.exists() => of_file(&path),
                Some(DefaultFile::Usual(path)) => Ok(Material {
                    key: None,
                    file: Some(FileStamp::of(path)),
                }),
                None => Ok(Material::default()),
            },
        }
    }

    fn load(&self) -> Result<Held, Error> {
        self.make(self.read()?)
    }

    /// Gets a token, or sees that there is one.
    async fn see_token(&self, held: &Held) -> Result<(), Error> {
        let token = quiet(held.credentials.headers(Extensions::new()));
        match timeout(TOKEN_TIMEOUT, token).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.explain(&error, held.acts_as_another())),
            Err(_) => Err(
                Error::new(ErrorKind::Unavailable, "getting an access token timed out")
                    .with_hint(self.tried()),
            ),
        }
    }

    /// Makes credentials of it. No request is made, but the SDK begins to fetch a token.
    fn make(&self, material: Material) -> Result<Held, Error> {
        let Material {
            key: material,
            file,
        } = material;
        let (credentials, kind) = match &material {
            Some(key) => build(key)?,
            None if matches!(self.credentials, Credentials::Anonymous) => {
                (anonymous::Builder::new().build(), None)
            }
            None => (mds::Builder::default().build().map_err(unbuildable)?, None),
        };
        let credentials = match &self.impersonate {
            Some(account) => impersonated::Builder::from_source_credentials(credentials)
                .with_target_principal(account)
                .build()
                .map_err(unbuildable)?,
            None => credentials,
        };
        // A key signs what it signed before; the others ask somebody for a new token.
        let renewable = self.impersonate.is_some()
            || !matches!(kind, Some(Kind::ServiceAccount))
                && !matches!(self.credentials, Credentials::Anonymous);
        Ok(Held {
            credentials,
            material: material.map(|key| key.json),
            file,
            renewable,
            made_at: Instant::now(),
        })
    }

    /// Why there is no token, from types and numbers alone: the SDK's messages quote answers.
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
                    format!("the service account may not be impersonated (HTTP {status})"),
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
                 (`gcloud auth application-default login`), make a new key, or compare the workload \
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
        error.with_hint(format!("{hint}; {}", self.tried()))
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

    /// What was tried, for people: which variables are set and which files exist, not what is in
    /// them.
    fn tried(&self) -> String {
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
                    "GOOGLE_APPLICATION_CREDENTIALS (not set), no home folder, then the metadata \
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

/// Why a token could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Connect(Connect),
    Other,
    Refused(u16),
    TimedOut,
}

/// The first cause in the chain that is a number or a type. Messages are not looked at: they quote
/// the bodies of answers.
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

/// Credentials of the SDK, by the type that the content says.
fn build(key: &Key) -> Result<(SdkCredentials, Option<Kind>), Error> {
    let content = key.value()?;
    content.check()?;
    let kind = content.kind();
    let value = content.0;
    // Fetching starts as a task of its own, which sees no subscriber of ours: what the SDK logs
    // there is addresses.
    let built = match kind {
        Some(Kind::AuthorizedUser) => user_account::Builder::new(value).build(),
        Some(Kind::ExternalAccount) => external_account::Builder::new(value).build(),
        Some(Kind::Impersonated) => impersonated::Builder::new(value).build(),
        _ => service_account::Builder::new(value).build(),
    };
    Ok((built.map_err(unbuildable)?, kind))
}

/// The SDK could not build credentials. Its reason is dropped: it may quote the content.
fn unbuildable<E>(_reason: E) -> Error {
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
    /// By the variable.
    Named(PathBuf),
    /// Where gcloud puts it.
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
        // A refusal of what is no longer held needs no reading; one of what is held finds the same,
        // however many are refused at once.
        assert!(cache.refused(&first).await);
        assert!(!cache.refused(&second).await);
        assert!(!cache.refused(&second).await);
        fs::write(&path, key("another@p.iam.gserviceaccount.com")).unwrap();
        assert!(cache.refused(&cache.0.shared.held().unwrap()).await);
    }
}
