//! A stand-in for Azure Key Vault and Entra ID, as strict as the services.
//!
//! It is written from the public documentation of the services: the comment at each refusal links to the page that
//! documents it, or to a report in which the service was seen to give it. Clients use it exactly as the cloud; they need
//! to be told the vault's address, the authority host and the file of a certificate authority, which users of other
//! clouds and of intercepting proxies have to be able to say anyway.
//!
//! # What it serves
//!
//! - The vault over https: set, get, update, list, list of versions, delete; deleted secrets: get, list, recover, purge.
//!   Deleting, recovering and purging take time. Tokens are checked: signature, time, tenant, audience.
//! - Entra ID on the same port: tokens for an application with a client secret or a federated token (client
//!   assertion), for this vault's tenant and another one.
//! - Managed identities over plain http on a second port: of a virtual machine and of App Service.
//!
//! The certificate is for `localhost`, `127.0.0.1` and `*.vault.localhost`. Challenges name the resource
//! `https://vault.localhost` unless [`Options::with_resource`] says otherwise: a client that verifies that the resource is
//! a parent of the vault's host finds it right for `https://standin.vault.localhost:PORT`
//! ([`Azure::named_vault_url`], whose name a client has to be told to resolve to `127.0.0.1`), and wrong for
//! `https://localhost:PORT` ([`Azure::vault_url`]).
//!
//! # Where it is simpler than the services
//!
//! - One vault, whatever name it is called by, in one region, with 90 days of retention, all in memory.
//! - No keys, certificates, storage accounts, backup and restore; none of its secrets belongs to a certificate, so that
//!   `managed` and `kid` never appear, and `outContentType` is ignored.
//! - `POST` with `X-HTTP-METHOD` instead of other methods is not understood.
//! - Reads see each write at once; only listings can lag.
//! - Limits on traffic are those that the switches set: per vault, not per kind of request, and without subscription.
//! - Entra ID gives tokens to applications only. Its metadata documents and key sets are not served, a certificate is no
//!   credential of the application, and roles do not appear in tokens.
//! - In what order several things wrong with one request are noticed is not documented; here it is the token, the network
//!   rules, the traffic, the version of the protocol, the name, the permission, the rest.
//!
//! # Example
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use e2e::azure::{Azure, Options};
//!
//! let azure = Azure::start(Options::default()).await?;
//! azure.switches(|switches| switches.deny("Microsoft.KeyVault/vaults/secrets/delete"));
//! // … the client is pointed at `azure.vault_url()` and `azure.authority_host()` …
//! assert_eq!(azure.count("DeleteSecret"), 1);
//! # Ok(())
//! # }
//! ```

mod clock;
mod directory;
mod entra;
mod jwt;
mod managed;
mod record;
mod reply;
mod route;
mod serve;
mod switches;
mod vault;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex, RwLock},
};

use tokio::runtime::Runtime;

use self::{
    directory::Directory,
    serve::{Port, Shared},
    vault::Vault,
};
pub use self::{
    directory::FederatedToken,
    record::Request,
    switches::{DATA_ACTIONS, Firewall, PermissionModel, Switches},
};
use crate::Authority;

/// The names of the service, a resource in every cloud of its own.
const RESOURCE: &str = "https://vault.localhost";

/// A running stand-in. It stops when dropped, in the middle of whatever it does.
pub struct Azure {
    address: SocketAddr,
    metadata_address: SocketAddr,
    authority: Authority,
    shared: Arc<Shared>,
    // Taken when dropped only.
    runtime: Option<Runtime>,
}

/// How an [`Azure`] is started.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    metadata_port: u16,
    port: u16,
    resource: Option<String>,
    switches: Switches,
}

impl Options {
    /// Offers managed identities on this port of `127.0.0.1`. On a free one by default.
    #[must_use]
    pub fn with_metadata_port(mut self, port: u16) -> Self {
        self.metadata_port = port;
        self
    }

    /// Listens on this port of `127.0.0.1`. On a free one by default.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Names this resource in challenges, and takes only tokens for it. `https://vault.localhost` by default.
    #[must_use]
    pub fn with_resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Behaves like this from the beginning.
    #[must_use]
    pub fn with_switches(mut self, switches: Switches) -> Self {
        self.switches = switches;
        self
    }
}

impl Azure {
    /// Starts a vault without secrets and a directory with new ids, keys and credentials.
    ///
    /// # Errors
    ///
    /// If a port is taken, or the temporary folder cannot be written.
    pub async fn start(options: Options) -> io::Result<Self> {
        // Making keys takes a while.
        tokio::task::spawn_blocking(move || Self::launch(options))
            .await
            .map_err(io::Error::other)?
    }

    fn launch(options: Options) -> io::Result<Self> {
        let authority = Authority::new()?;
        let names = ["localhost", "127.0.0.1", "*.vault.localhost"];
        let acceptor = serve::acceptor(&authority, &names)?;
        let service = listen(options.port)?;
        let metadata = listen(options.metadata_port)?;
        let (address, metadata_address) = (service.local_addr()?, metadata.local_addr()?);

        let resource = options.resource.unwrap_or_else(|| RESOURCE.into());
        let shared = Arc::new(Shared {
            authority_host: format!("https://localhost:{}", address.port()),
            directory: Directory::new(resource)?,
            record: Mutex::default(),
            switches: RwLock::new(options.switches),
            vault: Vault::default(),
        });
        // Threads of its own: a test may block while a child process talks to the stand-in.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("azure")
            .enable_all()
            .build()?;
        let guard = runtime.enter();
        let service = tokio::net::TcpListener::from_std(service)?;
        let metadata = tokio::net::TcpListener::from_std(metadata)?;
        drop(guard);
        let (one, other) = (Arc::clone(&shared), Arc::clone(&shared));
        runtime.spawn(serve::accept(service, Port::Service, Some(acceptor), one));
        runtime.spawn(serve::accept(metadata, Port::Metadata, None, other));
        Ok(Self {
            address,
            metadata_address,
            authority,
            shared,
            runtime: Some(runtime),
        })
    }

    /// The address of the vault, such as `https://localhost:41234`.
    pub fn vault_url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The address of the vault under a name below the resource of its challenges, such as
    /// `https://standin.vault.localhost:41234`. The client has to be told that this name is `127.0.0.1`.
    pub fn named_vault_url(&self) -> String {
        format!("https://standin.vault.localhost:{}", self.address.port())
    }

    /// Where both ports of the vault and of Entra ID are: `127.0.0.1` and the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of Entra ID, such as `https://localhost:41234`.
    pub fn authority_host(&self) -> &str {
        &self.shared.authority_host
    }

    /// The PEM file of the authority that clients have to trust.
    pub fn ca_file(&self) -> &Path {
        self.authority.ca_file()
    }

    /// What tokens for the vault are asked for: the name of the service.
    pub fn resource(&self) -> &str {
        &self.directory().resource
    }

    /// The vault's tenant.
    pub fn tenant_id(&self) -> &str {
        &self.directory().tenant
    }

    /// Another tenant that gives tokens to the application. The vault takes none of them.
    pub fn other_tenant_id(&self) -> &str {
        &self.directory().other_tenant
    }

    /// The application.
    pub fn client_id(&self) -> &str {
        &self.directory().application.client_id
    }

    /// The secret of the application.
    pub fn client_secret(&self) -> &str {
        &self.directory().client_secret
    }

    /// The file with a token of a cluster that the application trusts, for workload identity.
    pub fn federated_token_file(&self) -> &Path {
        &self.directory().federation.token_file
    }

    /// Puts another token into that file.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write_federated_token(&self, token: &FederatedToken) -> io::Result<()> {
        self.directory().federation.write(token)
    }

    /// What App Service puts into `IDENTITY_ENDPOINT`, such as `http://127.0.0.1:41235/msi/token`.
    pub fn managed_identity_endpoint(&self) -> String {
        format!(
            "http://{}{}",
            self.metadata_address,
            managed::APP_SERVICE_PATH
        )
    }

    /// What App Service puts into `IDENTITY_HEADER`.
    pub fn managed_identity_header(&self) -> &str {
        &self.directory().identity_header
    }

    /// Where a virtual machine gets tokens, such as `http://127.0.0.1:41235/metadata/identity/oauth2/token`.
    pub fn metadata_endpoint(&self) -> String {
        format!("http://{}{}", self.metadata_address, managed::METADATA_PATH)
    }

    /// The client id of the user-assigned identity. The system-assigned one needs no id.
    pub fn managed_identity_client_id(&self) -> &str {
        &self.directory().user_identity.client_id
    }

    /// The object id of the user-assigned identity.
    pub fn managed_identity_object_id(&self) -> &str {
        &self.directory().user_identity.object_id
    }

    /// The resource id of the user-assigned identity.
    pub fn managed_identity_resource_id(&self) -> &str {
        &self.directory().user_identity_resource
    }

    /// Changes how the services behave, from the next request on.
    pub fn switches<T>(&self, change: impl FnOnce(&mut Switches) -> T) -> T {
        change(&mut self.shared.switches.write().expect("no holder panics"))
    }

    /// All requests that were answered or dropped, in the order in which that happened.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.record.lock().expect("no holder panics").clone()
    }

    /// The number of requests for this operation, whatever became of them; see [`Request::operation`].
    pub fn count(&self, operation: &str) -> usize {
        let record = self.shared.record.lock().expect("no holder panics");
        record
            .iter()
            .filter(|request| request.operation == operation)
            .count()
    }

    /// Forgets all requests so far.
    pub fn reset(&self) {
        self.shared.record.lock().expect("no holder panics").clear();
    }

    fn directory(&self) -> &Directory {
        &self.shared.directory
    }
}

impl Drop for Azure {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting would panic inside a test's own runtime.
            runtime.shutdown_background();
        }
    }
}

/// Shows no credential.
impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Azure")
            .field("address", &self.address)
            .field("metadata_address", &self.metadata_address)
            .finish_non_exhaustive()
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
