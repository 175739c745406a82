//! HashiCorp Vault itself, with in-memory storage.

use std::{
    env, fmt,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::{
    Absent, available, cache, container,
    process::{Folder, ServerProcess, Stop, watched},
};

const NAME: &str = "Vault";

/// The token of the development server in the container, from `compose.yaml`.
const CONTAINER_TOKEN: &str = "root";

/// A Vault of the pinned version, unsealed, with a root token.
///
/// Policies, token lifetimes, logins, sealing and step-down are real. Namespaces are not, because
/// they need a licence.
///
/// A feature that another server does not offer (an unseal key, TLS) is missing, and requesting it
/// panics with the name of the variable.
pub struct VaultServer {
    state: State,
    client: reqwest::Client,
    process: Option<(ServerProcess, Folder)>,
}

/// The line that the program prints when it is ready.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    address: String,
    root_token: String,
    ca_file: Option<PathBuf>,
    client_cert_file: Option<PathBuf>,
    client_key_file: Option<PathBuf>,
    mtls_address: Option<String>,
    standby_address: Option<String>,
    standby_tls_address: Option<String>,
    tls_address: Option<String>,
    unseal_key: Option<String>,
}

/// Options for starting a separate Vault.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VaultOptions {
    redirect_to_tls: bool,
    standby: bool,
}

impl VaultOptions {
    /// Makes the standby redirect to the TLS listener of the active node instead of the plain one.
    #[must_use]
    pub fn with_redirect_to_tls(mut self) -> Self {
        self.redirect_to_tls = true;
        self
    }

    /// Runs a second node with the same storage. It redirects (307) to the first one, and takes
    /// over when that one is sealed or steps down.
    #[must_use]
    pub fn with_standby(mut self) -> Self {
        self.standby = true;
        self
    }
}

/// A response from Vault.
#[derive(Clone, Debug)]
pub struct VaultAnswer {
    /// The status of the response.
    pub status: StatusCode,
    /// The body, `null` if there is none or it is not JSON.
    pub body: Value,
}

impl VaultAnswer {
    /// Returns the body of a successful response.
    ///
    /// # Panics
    ///
    /// If the request was refused.
    #[track_caller]
    pub fn expect(self, request: &str) -> Value {
        assert!(
            self.status.is_success(),
            "{request}: {} {}",
            self.status,
            self.body
        );
        self.body
    }
}

impl VaultServer {
    /// The variable with the address of a running Vault. [`TOKEN_VARIABLE`](Self::TOKEN_VARIABLE)
    /// is also required; the others are optional.
    pub const ADDRESS_VARIABLE: &'static str = "TEST_VAULT_ADDR";
    /// The PEM file of the authority that signed the certificate of the TLS listeners.
    pub const CA_FILE_VARIABLE: &'static str = "TEST_VAULT_CA_FILE";
    /// The PEM file of a client certificate that the mutual TLS listener accepts.
    pub const CLIENT_CERT_FILE_VARIABLE: &'static str = "TEST_VAULT_CLIENT_CERT_FILE";
    /// The PEM file of the key of that certificate.
    pub const CLIENT_KEY_FILE_VARIABLE: &'static str = "TEST_VAULT_CLIENT_KEY_FILE";
    /// The address of the listener that requires a client certificate.
    pub const MTLS_ADDRESS_VARIABLE: &'static str = "TEST_VAULT_MTLS_ADDR";
    /// The address of the TLS listener.
    pub const TLS_ADDRESS_VARIABLE: &'static str = "TEST_VAULT_TLS_ADDR";
    /// A root token.
    pub const TOKEN_VARIABLE: &'static str = "TEST_VAULT_TOKEN";
    /// The unseal key, in hexadecimal digits.
    pub const UNSEAL_KEY_VARIABLE: &'static str = "TEST_VAULT_UNSEAL_KEY";

    /// The Vault that all tests of this process share. The crate's documentation explains where it
    /// comes from.
    ///
    /// # Panics
    ///
    /// If it cannot be started; if `CI` is `true`, also if it is missing.
    pub async fn start_or_env() -> Option<&'static Self> {
        static SHARED: OnceCell<Result<VaultServer, Absent>> = OnceCell::const_new();
        let shared = SHARED.get_or_init(Self::from_env_or_start).await;
        available(shared.as_ref().map_err(Absent::clone))
    }

    async fn from_env_or_start() -> Result<Self, Absent> {
        if let Ok(address) = env::var(Self::ADDRESS_VARIABLE) {
            let root_token = env::var(Self::TOKEN_VARIABLE).map_err(|_| {
                let variables = (Self::ADDRESS_VARIABLE, Self::TOKEN_VARIABLE);
                Absent::failed(
                    NAME,
                    format!("{} is set, {} is not", variables.0, variables.1),
                )
            })?;
            return Ok(Self::at(State {
                address: address.trim_end_matches('/').to_owned(),
                root_token,
                ca_file: env::var_os(Self::CA_FILE_VARIABLE).map(PathBuf::from),
                client_cert_file: env::var_os(Self::CLIENT_CERT_FILE_VARIABLE).map(PathBuf::from),
                client_key_file: env::var_os(Self::CLIENT_KEY_FILE_VARIABLE).map(PathBuf::from),
                mtls_address: env::var(Self::MTLS_ADDRESS_VARIABLE).ok(),
                tls_address: env::var(Self::TLS_ADDRESS_VARIABLE).ok(),
                unseal_key: env::var(Self::UNSEAL_KEY_VARIABLE).ok(),
                ..State::default()
            }));
        }
        match Self::start().await {
            Err(absent @ Absent::Missing { .. }) => match container::start(NAME, "vault", 8200)? {
                Some(address) => Ok(Self::at(State {
                    address: format!("http://{address}"),
                    root_token: CONTAINER_TOKEN.into(),
                    ..State::default()
                })),
                None => Err(absent),
            },
            started => started,
        }
    }

    /// Starts a Vault only for the caller.
    ///
    /// # Errors
    ///
    /// If it is not built, or ends before it is ready.
    pub async fn start() -> Result<Self, Absent> {
        Self::start_with(&VaultOptions::default()).await
    }

    /// Starts a Vault only for the caller, with options.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub async fn start_with(options: &VaultOptions) -> Result<Self, Absent> {
        let options = options.clone();
        // This takes less than a second but blocks: the line that says it is ready comes from a
        // pipe.
        let started = tokio::task::spawn_blocking(move || launch(&options)).await;
        let (state, server, folder) = started.map_err(|error| Absent::failed(NAME, error))??;
        Ok(Self {
            process: Some((server, folder)),
            ..Self::at(state)
        })
    }

    fn at(state: State) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            // Each test has a runtime, and a connection does not outlive the runtime that opened
            // it.
            .pool_max_idle_per_host(0)
            .build()
            .expect("the options are valid");
        Self {
            state,
            client,
            process: None,
        }
    }

    /// The address of the plain listener, such as `http://127.0.0.1:8200`.
    pub fn address(&self) -> &str {
        &self.state.address
    }

    /// The address of the TLS listener; its certificate is for `127.0.0.1`, `localhost` and `vault.test`.
    pub fn tls_address(&self) -> &str {
        offered(
            self.state.tls_address.as_deref(),
            Self::TLS_ADDRESS_VARIABLE,
        )
    }

    /// The address of the TLS listener that requires a client certificate.
    pub fn mtls_address(&self) -> &str {
        offered(
            self.state.mtls_address.as_deref(),
            Self::MTLS_ADDRESS_VARIABLE,
        )
    }

    /// The PEM file of the authority that signed the certificates.
    pub fn ca_file(&self) -> &Path {
        offered(self.state.ca_file.as_deref(), Self::CA_FILE_VARIABLE)
    }

    /// The PEM files of a client certificate and of its key.
    pub fn client_certificate(&self) -> (&Path, &Path) {
        let certificate = self.state.client_cert_file.as_deref();
        let key = self.state.client_key_file.as_deref();
        (
            offered(certificate, Self::CLIENT_CERT_FILE_VARIABLE),
            offered(key, Self::CLIENT_KEY_FILE_VARIABLE),
        )
    }

    /// The plain address of the second node.
    ///
    /// # Panics
    ///
    /// If the server was not started [with one](VaultOptions::with_standby).
    pub fn standby_address(&self) -> &str {
        self.state
            .standby_address
            .as_deref()
            .expect("started with a standby")
    }

    /// The TLS address of the second node.
    ///
    /// # Panics
    ///
    /// If the server was not started [with one](VaultOptions::with_standby).
    pub fn standby_tls_address(&self) -> &str {
        self.state
            .standby_tls_address
            .as_deref()
            .expect("started with a standby")
    }

    /// A root token.
    pub fn root_token(&self) -> &str {
        &self.state.root_token
    }

    /// Sends a request with the root token. `path` begins after `/v1/`; the method may be `LIST`.
    ///
    /// # Panics
    ///
    /// If there is no response.
    pub async fn request(&self, method: &str, path: &str, body: Option<&Value>) -> VaultAnswer {
        self.request_as(self.root_token(), method, path, body).await
    }

    /// Sends a request with any token. An empty one means none.
    ///
    /// # Panics
    ///
    /// If there is no response.
    pub async fn request_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> VaultAnswer {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self
            .client
            .request(method, format!("{}/v1/{path}", self.address()));
        if !token.is_empty() {
            request = request.header("x-vault-token", token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("Vault responds");
        let status = answer.status();
        let body = answer.bytes().await.expect("Vault responds completely");
        VaultAnswer {
            status,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        }
    }

    /// Mounts a new key/value store of version 1 or 2, and returns its path without slashes.
    ///
    /// # Panics
    ///
    /// If Vault refuses.
    pub async fn mount_kv(&self, version: u8) -> String {
        let path = random_name("kv");
        let mount = json!({"type": "kv", "options": {"version": version.to_string()}});
        self.request("POST", &format!("sys/mounts/{path}"), Some(&mount))
            .await
            .expect("mount");
        // A mount of version 2 answers 400 to everything until it has prepared its storage in the
        // background.
        let probe = if version == 2 {
            format!("{path}/config")
        } else {
            format!("{path}/none")
        };
        self.until(
            |answer| answer.status != StatusCode::BAD_REQUEST,
            "GET",
            &probe,
        )
        .await;
        path
    }

    /// Writes a policy and returns its random name.
    ///
    /// # Panics
    ///
    /// If Vault refuses.
    pub async fn write_policy(&self, hcl: &str) -> String {
        let name = random_name("policy");
        let policy = json!({"policy": hcl});
        self.request("PUT", &format!("sys/policies/acl/{name}"), Some(&policy))
            .await
            .expect("policy");
        name
    }

    /// Creates a token with exactly these policies (without `default`, unless it is listed) and a
    /// lifetime such as `2s`. It can be renewed for the same time.
    ///
    /// # Panics
    ///
    /// If Vault refuses.
    pub async fn create_token(&self, policies: &[&str], time_to_live: &str) -> String {
        let token = json!({"policies": policies, "ttl": time_to_live, "no_default_policy": true});
        let answer = self
            .request("POST", "auth/token/create", Some(&token))
            .await
            .expect("token");
        answer["auth"]["client_token"]
            .as_str()
            .expect("a token")
            .to_owned()
    }

    /// Seals the server and waits until it is sealed.
    ///
    /// # Panics
    ///
    /// If the server does not belong to the caller, because others use it, or if Vault refuses.
    pub async fn seal(&self) {
        self.own();
        self.request("PUT", "sys/seal", None).await.expect("seal");
        self.until(
            |answer| answer.body["sealed"] == true,
            "GET",
            "sys/seal-status",
        )
        .await;
    }

    /// Unseals the server and waits until it is active or a standby again.
    ///
    /// # Panics
    ///
    /// If the server has no known unseal key, or if Vault refuses.
    pub async fn unseal(&self) {
        let key = offered(self.state.unseal_key.as_deref(), Self::UNSEAL_KEY_VARIABLE);
        self.request("PUT", "sys/unseal", Some(&json!({"key": key})))
            .await
            .expect("unseal");
        // 200: active; 429: standby. In between, a standby without an active node also answers 429.
        let health = "sys/health?standbycode=473";
        let alone = self.state.standby_address.is_none();
        let serves = |answer: &VaultAnswer| {
            answer.status == StatusCode::OK || (!alone && answer.status.as_u16() == 473)
        };
        self.until(serves, "GET", health).await;
    }

    /// Makes the active node step down for about ten seconds. A standby takes over, if there is
    /// one.
    ///
    /// # Panics
    ///
    /// If the server does not belong to the caller, because others use it, or if Vault refuses.
    pub async fn step_down(&self) {
        self.own();
        self.request("PUT", "sys/step-down", None)
            .await
            .expect("step-down");
        let is_standby = |answer: &VaultAnswer| answer.status == StatusCode::TOO_MANY_REQUESTS;
        self.until(is_standby, "GET", "sys/health").await;
    }

    /// The variables that describe this server to another process.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let state = &self.state;
        let offered = [
            (Self::ADDRESS_VARIABLE, Some(state.address.clone())),
            (Self::TOKEN_VARIABLE, Some(state.root_token.clone())),
            (Self::CA_FILE_VARIABLE, path(&state.ca_file)),
            (
                Self::CLIENT_CERT_FILE_VARIABLE,
                path(&state.client_cert_file),
            ),
            (Self::CLIENT_KEY_FILE_VARIABLE, path(&state.client_key_file)),
            (Self::MTLS_ADDRESS_VARIABLE, state.mtls_address.clone()),
            (Self::TLS_ADDRESS_VARIABLE, state.tls_address.clone()),
            (Self::UNSEAL_KEY_VARIABLE, state.unseal_key.clone()),
        ];
        offered
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    fn own(&self) {
        assert!(
            self.process.is_some(),
            "a Vault that others use is neither sealed nor stepped down"
        );
    }

    async fn until(&self, reached: impl Fn(&VaultAnswer) -> bool, method: &str, path: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.request(method, path, None).await;
            if reached(&answer) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{method} {path} stays at {answer:?}"
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl fmt::Debug for VaultServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultServer")
            .field("address", &self.state.address)
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

fn launch(options: &VaultOptions) -> Result<(State, ServerProcess, Folder), Absent> {
    let failed = |error: std::io::Error| Absent::failed(NAME, error);
    let program = cache::find("vault", cache::VAULT_PINS, "vaultserver")
        .map_err(failed)?
        .ok_or_else(|| Absent::Missing {
            server: NAME,
            remedy: format!(
                "run `tests/servers/build vault`, or set {}",
                VaultServer::ADDRESS_VARIABLE
            ),
        })?;
    let folder = Folder::new().map_err(failed)?;
    let mut command = watched(&program, Stop::Kill);
    command.arg("-dir").arg(folder.path().join("certificates"));
    if options.standby {
        command.arg("-standby");
    }
    if options.redirect_to_tls {
        command.arg("-redirect-to-tls");
    }
    let log = folder.path().join("log");
    let (server, stdout) = ServerProcess::spawn_talking(&mut command, &log).map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .map_err(failed)?;
    // A program that ends closes the pipe, and the line is empty.
    let state = serde_json::from_str(&line).map_err(|error| {
        Absent::failed(
            NAME,
            format!(
                "{error} in its output; its log ends:\n{}",
                server.log_tail()
            ),
        )
    })?;
    Ok((state, server, folder))
}

#[track_caller]
fn offered<'a, T: ?Sized>(value: Option<&'a T>, variable: &str) -> &'a T {
    value.unwrap_or_else(|| panic!("this Vault does not offer it: set {variable}"))
}

/// A unique name.
fn random_name(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}
