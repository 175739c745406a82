//! A stand-in for Google Secret Manager and for what its clients ask for credentials.
//!
//! There is no emulator of this service to be had, so this one speaks its REST interface, version 1, over plain HTTP on
//! a loopback port, and refuses what the service refuses. It was written from the provider's public documentation and
//! from error messages that users of the service have reported; each refusal in `refusal.rs` names its page. Clients use
//! it exactly as they use the service: the only thing they are told is another endpoint.
//!
//! # What it serves
//!
//! - `secretmanager.googleapis.com`: `projects.secrets` and `projects.secrets.versions`, global and regional names.
//! - `oauth2.googleapis.com/token`: assertions that a service account signed, and a user's refresh token.
//! - `sts.googleapis.com/v1/token`: tokens of a workload's own identity provider, exchanged.
//! - `iamcredentials.googleapis.com`: `generateAccessToken`, for impersonation.
//! - `metadata.google.internal`: the metadata server of a machine with a service account.
//!
//! Every token and every signature is verified. Tokens expire; keys can be replaced and revoked.
//!
//! # Where it is simpler than the service
//!
//! - One port stands for all those hosts, because their paths do not overlap and tests have no names to give. The
//!   service answers regional names only on its regional endpoints, and global ones only on the global one; so does
//!   this one where [`Switches::strict_endpoints`] is on, with a second port for [`Google::regional_endpoint`].
//! - Neither Pub/Sub topics, rotation, tags, secret types nor delayed destruction: `UNIMPLEMENTED`.
//! - Metadata is as old as a switch says, but all of one age; the service gives no bound.
//! - An expired secret is gone at once; the service takes its time.
//! - The quota counts per second instead of per minute, so that tests end.
//! - Permissions are those of whoever calls, not of single principals, and policies that are set on a secret are kept
//!   but have no effect.
//! - Parameters that shape the answer (`fields`, `callback`, other formats than JSON) are taken and have no effect.
//! - Cloud KMS is a switch; that keys are named properly, and lie where the data does, is checked.
//! - Filters know the comparisons of the documentation, not functions or words without a field.
//! - Where no page gives the wording of a refusal, the code and status are those of the documentation and the words are
//!   ours.
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

/// A running stand-in. It stops when dropped, in the middle of whatever it does.
pub struct Google {
    address: SocketAddr,
    regional: SocketAddr,
    shared: Arc<Shared>,
    folder: TempDir,
    // Taken when dropped only.
    runtime: Option<Runtime>,
}

/// How a [`Google`] is started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The port to listen on; 0, the default, takes a free one.
    pub port: u16,
    /// The id of the one project that exists.
    pub project: String,
    /// Its number, which the service puts into the names that it answers.
    pub project_number: u64,
    /// How the server behaves to begin with.
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

    /// Begins with these switches.
    #[must_use]
    pub fn with_switches(mut self, switches: Switches) -> Self {
        self.switches = switches;
        self
    }
}

impl Google {
    /// Starts the server, on threads of its own: a test may block while a child process talks to it.
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
        // Making keys takes long enough to hold up a thread that others need.
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

    /// The address of everything, such as `http://127.0.0.1:41234`. Regional names are served here as well, except
    /// where [`Switches::strict_endpoints`] is on.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of a regional endpoint, which serves names of every region and no others.
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

    /// The key file of the service account, as the console gives it out; its token address is that of this server.
    pub fn service_account_json(&self) -> String {
        self.shared.accounts.key_file()
    }

    /// What `gcloud auth application-default login` leaves behind for a user.
    pub fn user_credentials_json(&self) -> String {
        self.shared.accounts.user_file()
    }

    /// The configuration of a workload that takes its own token, [`subject_token`](Self::subject_token), from this file.
    pub fn external_account_json(&self, token_file: &Path) -> String {
        self.shared.accounts.external_account_file(token_file)
    }

    /// The configuration of a service account that impersonates [`impersonated_account`](Self::impersonated_account).
    pub fn impersonated_json(&self) -> String {
        self.shared.accounts.impersonated_file()
    }

    /// A token of the workload's own identity provider, good for an hour of the server's time.
    pub fn subject_token(&self) -> String {
        let lifetime = Duration::from_secs(3600);
        self.shared
            .accounts
            .subject_token(self.shared.now(), lifetime)
    }

    /// Where assertions are exchanged for tokens.
    pub fn token_url(&self) -> String {
        self.shared.accounts.token_url()
    }

    /// Host and port of the metadata server, for the variable `GCE_METADATA_HOST`.
    pub fn metadata_host(&self) -> String {
        self.address.to_string()
    }

    /// Writes the present key of the service account to a file that only its owner may read, which goes with the server.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn service_account_file(&self) -> io::Result<std::path::PathBuf> {
        let path = self.folder.path().join("key.json");
        write_private(&path, &self.service_account_json())?;
        Ok(path)
    }

    /// Replaces the key of the service account: the old one is refused from now on. The new key file.
    ///
    /// # Errors
    ///
    /// If no key can be made.
    pub fn rotate_key(&self) -> io::Result<String> {
        self.shared.accounts.rotate()?;
        Ok(self.service_account_json())
    }

    /// Changes how the server behaves, from the next request on.
    pub fn switches<T>(&self, change: impl FnOnce(&mut Switches) -> T) -> T {
        change(&mut self.shared.switches.write().expect("no holder panics"))
    }

    /// The requests answered so far, in the order in which they arrived.
    pub fn requests(&self) -> Vec<Request> {
        self.shared
            .record(|record| record.requests.iter().flatten().cloned().collect())
    }

    /// The number of requests of this method, such as `AddSecretVersion`, answered or not.
    pub fn count(&self, method: &str) -> usize {
        self.shared
            .record(|record| record.counts.get(method).copied().unwrap_or(0))
    }

    /// The most requests that were under way at one moment.
    pub fn in_flight_maximum(&self) -> usize {
        self.shared.record(|record| record.in_flight_maximum)
    }

    /// Forgets the requests so far.
    pub fn reset(&self) {
        self.shared.record(record::Record::reset);
    }

    /// The names of all secrets that exist, whatever a listing shows by now, in alphabetical order.
    pub fn secrets(&self) -> Vec<String> {
        self.shared.store(Store::names)
    }

    /// The versions of a secret that [`secrets`](Self::secrets) names: number and state, newest last.
    pub fn versions(&self, name: &str) -> Vec<(u64, String)> {
        self.shared.store(|store, now| store.versions(name, now))
    }

    /// Makes everything that is stored older, as if this time had passed since: expiries come nearer, lagging names
    /// appear. Tokens are not concerned.
    pub fn age(&self, by: Duration) {
        self.shared.store(|store, _| store.age(by));
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting would panic inside a test's own runtime.
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

/// A JSON object as text with line breaks, as the service prints it.
fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| json!({}).to_string())
}

#[cfg(test)]
mod tests;
