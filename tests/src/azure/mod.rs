//! A stand-in for Azure Key Vault and Entra ID, as strict as the services.
//!
//! It is written from the public documentation of the services. The comment at each refusal links
//! to the page that documents it, or to a report of the response. Clients use it exactly like the
//! cloud. They only need the vault's address, the authority host and the file of a certificate
//! authority, which are also settings for other clouds and for intercepting proxies.
//!
//! # What it serves
//!
//! - The vault over https: set, get, update, list, list of versions, delete; for deleted secrets:
//!   get, list, recover, purge. Deleting, recovering and purging take time. Tokens are verified:
//!   signature, time, tenant, audience.
//! - Entra ID on the same port: tokens for an application with a client secret or a federated token
//!   (client assertion), for this vault's tenant and another one.
//! - Managed identities over plain http on a second port: of a virtual machine and of App Service.
//!
//! The certificate is for `localhost`, `127.0.0.1` and `*.vault.localhost`. Challenges contain the
//! resource `https://vault.localhost` by default ([`Options::with_resource`] sets another one). A
//! client that verifies that the resource is a parent of the vault's host accepts it for
//! `https://standin.vault.localhost:PORT` ([`Azure::named_vault_url`], a name that the client must
//! resolve to `127.0.0.1`), and refuses it for `https://localhost:PORT` ([`Azure::vault_url`]).
//!
//! # Where it is simpler than the services
//!
//! - There is one vault, with any name, in one region, with 90 days of retention, in memory.
//! - There are no keys, certificates, storage accounts, backups and restores. No secret belongs to
//!   a certificate, so `managed` and `kid` never appear, and `outContentType` is ignored.
//! - `POST` with `X-HTTP-METHOD` instead of other methods is not supported.
//! - Reads see each write immediately; only listings can lag.
//! - Limits are those of the switches: per vault, not per kind of request or subscription.
//! - Entra ID issues tokens only to applications. It does not serve metadata documents and key
//!   sets, does not accept certificates as credentials, and puts no roles into tokens.
//! - The order in which several faults of one request are detected is not documented. Here it is
//!   the token, the network rules, the limits, the version of the protocol, the name, the
//!   permission, the rest.
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

/// The names of the service: a different resource in every cloud.
const RESOURCE: &str = "https://vault.localhost";

/// A running stand-in. It stops immediately when dropped.
pub struct Azure {
    address: SocketAddr,
    metadata_address: SocketAddr,
    authority: Authority,
    shared: Arc<Shared>,
    // `None` only while dropping.
    runtime: Option<Runtime>,
}

/// Options for starting an [`Azure`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    metadata_port: u16,
    port: u16,
    resource: Option<String>,
    switches: Switches,
}

impl Options {
    /// Serves managed identities on this port of `127.0.0.1`, by default on a free one.
    #[must_use]
    pub fn with_metadata_port(mut self, port: u16) -> Self {
        self.metadata_port = port;
        self
    }

    /// Listens on this port of `127.0.0.1`, by default on a free one.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the resource in challenges, which tokens must be for. By default
    /// `https://vault.localhost`.
    #[must_use]
    pub fn with_resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Sets the initial switches.
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
        // Creating keys takes a while.
        tokio::task::spawn_blocking(move || Self::launch(options))
            .await
            .map_err(io::Error::other)?
    }

    fn launch(options: Options) -> io::Result<Self> {
        let authority = Authority::new()?;
        let names = ["localhost", "127.0.0.1", "*.vault.localhost"];
        let acceptor = authority.issue(&names)?.acceptor()?;
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
        // Separate threads: a test may block while a child process uses the stand-in.
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

    /// The address of the vault with a name below the resource of its challenges, such as
    /// `https://standin.vault.localhost:41234`. The client must resolve this name to `127.0.0.1`.
    pub fn named_vault_url(&self) -> String {
        format!("https://standin.vault.localhost:{}", self.address.port())
    }

    /// The address of the port of the vault and of Entra ID: `127.0.0.1` and the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of Entra ID, such as `https://localhost:41234`.
    pub fn authority_host(&self) -> &str {
        &self.shared.authority_host
    }

    /// The PEM file of the authority that clients must trust.
    pub fn ca_file(&self) -> &Path {
        self.authority.ca_file()
    }

    /// The resource for which tokens are requested: the name of the service.
    pub fn resource(&self) -> &str {
        &self.directory().resource
    }

    /// The vault's tenant.
    pub fn tenant_id(&self) -> &str {
        &self.directory().tenant
    }

    /// Another tenant that issues tokens to the application. The vault accepts none of them.
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

    /// Replaces the token in that file.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write_federated_token(&self, token: &FederatedToken) -> io::Result<()> {
        self.directory().federation.write(token)
    }

    /// The value of `IDENTITY_ENDPOINT` in App Service, such as `http://127.0.0.1:41235/msi/token`.
    pub fn managed_identity_endpoint(&self) -> String {
        format!(
            "http://{}{}",
            self.metadata_address,
            managed::APP_SERVICE_PATH
        )
    }

    /// The value of `IDENTITY_HEADER` in App Service.
    pub fn managed_identity_header(&self) -> &str {
        &self.directory().identity_header
    }

    /// The address of a virtual machine's tokens, such as
    /// `http://127.0.0.1:41235/metadata/identity/oauth2/token`.
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

    /// Changes the behaviour of the services, from the next request on.
    pub fn switches<T>(&self, change: impl FnOnce(&mut Switches) -> T) -> T {
        change(&mut self.shared.switches.write().expect("no holder panics"))
    }

    /// All requests that were answered or dropped, in that order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.record.lock().expect("no holder panics").clone()
    }

    /// The number of requests for this operation, whatever their outcome; see
    /// [`Request::operation`].
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
            // Waiting would panic in a test's runtime.
            runtime.shutdown_background();
        }
    }
}

/// Hides credentials.
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
