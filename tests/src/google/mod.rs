//! A stand-in for Google Secret Manager and its credential services.
//!
//! There is no emulator of this service. This one serves its REST API, version 1, over plain HTTP
//! on a loopback port, and refuses what the service refuses. It is written from the provider's
//! public documentation and from error messages in users' reports; each refusal in `refusal.rs`
//! links to its page. Clients use it exactly like the service, with another endpoint.
//!
//! # What it serves
//!
//! - `secretmanager.googleapis.com`: `projects.secrets` and `projects.secrets.versions`, global and regional names.
//! - `oauth2.googleapis.com/token`: assertions signed by a service account, and a user's refresh
//!   token.
//! - `sts.googleapis.com/v1/token`: exchanges tokens of a workload's identity provider.
//! - `iamcredentials.googleapis.com`: `generateAccessToken`, for impersonation.
//! - `metadata.google.internal`: the metadata server of a machine with a service account.
//!
//! Every token and every signature is verified. Tokens expire; keys can be replaced and revoked.
//!
//! # Where it is simpler than the service
//!
//! - One port serves all those hosts, because their paths do not overlap and tests have no names
//!   for them. The service serves regional names only on its regional endpoints, and global ones
//!   only on the global one. With [`Switches::strict_endpoints`], so does this one, with a second
//!   port for [`Google::regional_endpoint`].
//! - Pub/Sub topics, rotation, tags, secret types and delayed destruction are `UNIMPLEMENTED`.
//! - A switch sets the age of metadata, which is the same for all of it; the service documents no
//!   limit.
//! - An expired secret is deleted immediately; the service takes some time.
//! - The quota counts per second instead of per minute, so that tests end.
//! - Permissions apply to every caller, not to single principals. Policies of a secret are stored
//!   and have no effect.
//! - Parameters for the form of the response (`fields`, `callback`, other formats than JSON) are
//!   accepted and have no effect.
//! - Cloud KMS is a switch. The names and locations of keys are checked.
//! - Filters support the comparisons in the documentation, but not functions or words without a
//!   field.
//! - If no page documents the message of a refusal, its code and status are documented and the
//!   message is ours.
//!
//! # Example
//!
//! ```no_run
//! use e2e::google::{Google, Options};
//!
//! # async fn example() -> std::io::Result<()> {
//! let google = Google::start(Options::default()).await?;
//! // … a client with google.endpoint() and google.service_account_json() …
//! google.switches(|switches| switches.throttle_every = Some(3));
//! assert_eq!(google.count("AccessSecretVersion"), 0);
//! # Ok(())
//! # }
//! ```

mod accounts;
mod bearer;
mod body;
mod crc32c;
mod filter;
mod impersonation;
mod metadata;
mod oauth;
mod operations;
mod record;
mod refusal;
mod resource;
mod route;
mod schema;
mod serve;
mod store;
mod sts;
mod switches;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::{
    accounts::{Accounts, write_private},
    serve::{Role, Shared},
    store::Store,
};
pub use self::{
    record::Request,
    switches::{Cut, Grant, Kms, Quota, Switches, When},
};

/// A running stand-in. It stops immediately when dropped.
pub struct Google {
    address: SocketAddr,
    regional: SocketAddr,
    shared: Arc<Shared>,
    folder: TempDir,
    // `None` only while dropping.
    runtime: Option<Runtime>,
}

/// Options for starting a [`Google`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The port to listen on, by default 0 for a free one.
    pub port: u16,
    /// The id of the only project.
    pub project: String,
    /// Its number, which the service uses in the names that it returns.
    pub project_number: u64,
    /// The initial behaviour of the server.
    pub switches: Switches,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            project: "stand-in-project".to_owned(),
            project_number: 410_528_736_193,
            switches: Switches::default(),
        }
    }
}

impl Options {
    /// Listens on this port of `127.0.0.1`.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Serves a project with this id and number.
    #[must_use]
    pub fn with_project(mut self, project: impl Into<String>, number: u64) -> Self {
        self.project = project.into();
        self.project_number = number;
        self
    }

    /// Sets the initial switches.
    #[must_use]
    pub fn with_switches(mut self, switches: Switches) -> Self {
        self.switches = switches;
        self
    }
}

impl Google {
    /// Starts the server on separate threads: a test may block while a child process uses it.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", options.port))?;
        let regional = TcpListener::bind(("127.0.0.1", 0))?;
        for listener in [&listener, &regional] {
            listener.set_nonblocking(true)?;
        }
        let address = listener.local_addr()?;
        let regional_address = regional.local_addr()?;
        let folder = tempfile::tempdir()?;
        // Creating keys takes long enough to block a thread that others need.
        let (project, origin) = (options.project.clone(), format!("http://{address}"));
        let number = options.project_number;
        let accounts =
            tokio::task::spawn_blocking(move || Accounts::generate(&project, number, origin))
                .await
                .map_err(io::Error::other)?;
        let store = Store::new(options.project, options.project_number);
        let shared = Arc::new(Shared::new(accounts, store, options.switches));

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("google")
            .enable_all()
            .build()?;
        let guard = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let regional = tokio::net::TcpListener::from_std(regional)?;
        drop(guard);
        runtime.spawn(serve::accept(listener, Role::Main, Arc::clone(&shared)));
        runtime.spawn(serve::accept(regional, Role::Regional, Arc::clone(&shared)));
        Ok(Self {
            address,
            regional: regional_address,
            shared,
            folder,
            runtime: Some(runtime),
        })
    }

    /// The address of all services, such as `http://127.0.0.1:41234`. It also serves regional
    /// names, except with [`Switches::strict_endpoints`].
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of a regional endpoint, which serves only regional names, of every region.
    pub fn regional_endpoint(&self) -> String {
        format!("http://{}", self.regional)
    }

    /// The project's id.
    pub fn project(&self) -> &str {
        self.shared.accounts.project()
    }

    /// The project's number.
    pub fn project_number(&self) -> u64 {
        self.shared.accounts.project_number()
    }

    /// The e-mail address of the service account.
    pub fn service_account(&self) -> &str {
        self.shared.accounts.email()
    }

    /// The e-mail address of the service account that may be impersonated.
    pub fn impersonated_account(&self) -> &str {
        self.shared.accounts.impersonated_email()
    }

    /// The key file of the service account, in the form of the console. Its token address is this
    /// server's.
    pub fn service_account_json(&self) -> String {
        self.shared.accounts.key_file()
    }

    /// The file that `gcloud auth application-default login` creates for a user.
    pub fn user_credentials_json(&self) -> String {
        self.shared.accounts.user_file()
    }

    /// The configuration of a workload that reads its token,
    /// [`subject_token`](Self::subject_token), from this file.
    pub fn external_account_json(&self, token_file: &Path) -> String {
        self.shared.accounts.external_account_file(token_file)
    }

    /// The configuration of a service account that impersonates [`impersonated_account`](Self::impersonated_account).
    pub fn impersonated_json(&self) -> String {
        self.shared.accounts.impersonated_file()
    }

    /// A token of the workload's identity provider, valid for an hour of the server's time.
    pub fn subject_token(&self) -> String {
        let lifetime = Duration::from_secs(3600);
        self.shared
            .accounts
            .subject_token(self.shared.now(), lifetime)
    }

    /// The address that exchanges assertions for tokens.
    pub fn token_url(&self) -> String {
        self.shared.accounts.token_url()
    }

    /// Host and port of the metadata server, for the variable `GCE_METADATA_HOST`.
    pub fn metadata_host(&self) -> String {
        self.address.to_string()
    }

    /// Writes the current key of the service account to a file that only its owner can read. The
    /// file is removed with the server.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn service_account_file(&self) -> io::Result<std::path::PathBuf> {
        let path = self.folder.path().join("key.json");
        write_private(&path, &self.service_account_json())?;
        Ok(path)
    }

    /// Replaces the key of the service account, and returns the new key file. The old key is
    /// refused from now on.
    ///
    /// # Errors
    ///
    /// If no key can be created.
    pub fn rotate_key(&self) -> io::Result<String> {
        self.shared.accounts.rotate()?;
        Ok(self.service_account_json())
    }

    /// Changes the behaviour of the server, from the next request on.
    pub fn switches<T>(&self, change: impl FnOnce(&mut Switches) -> T) -> T {
        change(&mut self.shared.switches.write().expect("no holder panics"))
    }

    /// The answered requests, in the order in which they arrived.
    pub fn requests(&self) -> Vec<Request> {
        self.shared
            .record(|record| record.requests.iter().flatten().cloned().collect())
    }

    /// The number of requests of this method, such as `AddSecretVersion`, answered or not.
    pub fn count(&self, method: &str) -> usize {
        self.shared
            .record(|record| record.counts.get(method).copied().unwrap_or(0))
    }

    /// The maximum number of concurrent requests.
    pub fn in_flight_maximum(&self) -> usize {
        self.shared.record(|record| record.in_flight_maximum)
    }

    /// Forgets all requests so far.
    pub fn reset(&self) {
        self.shared.record(record::Record::reset);
    }

    /// The names of all existing secrets, sorted, whether listings show them yet or not.
    pub fn secrets(&self) -> Vec<String> {
        self.shared.store(Store::names)
    }

    /// The versions of a secret in [`secrets`](Self::secrets): number and state, newest last.
    pub fn versions(&self, name: &str) -> Vec<(u64, String)> {
        self.shared.store(|store, now| store.versions(name, now))
    }

    /// Ages everything that is stored by this time: expiries come nearer, and lagging names appear.
    /// Does not affect tokens.
    pub fn age(&self, by: Duration) {
        self.shared.store(|store, _| store.age(by));
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting would panic in a test's runtime.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Google {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Google")
            .field("endpoint", &self.endpoint())
            .field("project", &self.project())
            .finish_non_exhaustive()
    }
}

/// A JSON object as text with line breaks, like the service prints it.
fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| json!({}).to_string())
}

#[cfg(test)]
mod tests;
