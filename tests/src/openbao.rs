//! OpenBao, a second implementation of Vault's API.

use std::{env, io, time::Duration};

use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::{
    Absent, available, cache, container,
    process::{Folder, ServerProcess, Stop, free_port, watched},
};

const NAME: &str = "OpenBao";

/// How long it may take to answer. One second is usual.
const PATIENCE: Duration = Duration::from_secs(60);

/// The token of a development server, here and in `compose.yaml`.
const ROOT_TOKEN: &str = "root";

/// An OpenBao of the pinned version, unsealed, with a root token. All its data is in memory.
#[derive(Debug)]
pub struct OpenBao {
    address: String,
    root_token: String,
    _process: Option<(ServerProcess, Folder)>,
}

impl OpenBao {
    /// The variable with the address of an OpenBao that runs already.
    pub const ADDRESS_VARIABLE: &'static str = "TEST_OPENBAO_ADDR";
    /// The variable with its root token.
    pub const TOKEN_VARIABLE: &'static str = "TEST_OPENBAO_TOKEN";

    /// The OpenBao that all tests of this process share; see the crate's documentation for where it comes from.
    ///
    /// # Panics
    ///
    /// If it cannot be started, and, where the variable `CI` is `true`, if there is none.
    pub async fn start_or_env() -> Option<&'static Self> {
        static SHARED: OnceCell<Result<OpenBao, Absent>> = OnceCell::const_new();
        let shared = SHARED.get_or_init(Self::from_env_or_start).await;
        available(shared.as_ref().map_err(Absent::clone))
    }

    async fn from_env_or_start() -> Result<Self, Absent> {
        if let Ok(address) = env::var(Self::ADDRESS_VARIABLE) {
            return Ok(Self {
                address: address.trim_end_matches('/').to_owned(),
                root_token: env::var(Self::TOKEN_VARIABLE)
                    .unwrap_or_else(|_| ROOT_TOKEN.to_owned()),
                _process: None,
            });
        }
        match Self::start().await {
            Err(absent @ Absent::Missing { .. }) => {
                match container::start(NAME, "openbao", 8200)? {
                    Some(address) => Ok(Self {
                        address: format!("http://{address}"),
                        root_token: ROOT_TOKEN.to_owned(),
                        _process: None,
                    }),
                    None => Err(absent),
                }
            }
            started => started,
        }
    }

    /// Starts an OpenBao for the caller alone, on a free port.
    ///
    /// # Errors
    ///
    /// If it is not installed, or does not answer within a minute.
    pub async fn start() -> Result<Self, Absent> {
        let failed = |error: io::Error| Absent::failed(NAME, error);
        let program = cache::find("python", cache::PYTHON_PINS, "bao")
            .map_err(failed)?
            .ok_or_else(|| Absent::Missing {
                server: NAME,
                remedy: format!(
                    "run `tests/servers/build python`, or set {}",
                    Self::ADDRESS_VARIABLE
                ),
            })?;
        let folder = Folder::new().map_err(failed)?;
        let port = free_port().map_err(failed)?;
        let mut command = watched(&program, Stop::Kill);
        command
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={ROOT_TOKEN}"))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .env("HOME", folder.path())
            .current_dir(folder.path());
        let mut server =
            ServerProcess::spawn(&mut command, &folder.path().join("log")).map_err(failed)?;
        let address = format!("http://127.0.0.1:{port}");
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| Absent::failed(NAME, error))?;
        // The root token comes last: with it everything is there.
        let itself = format!("{address}/v1/auth/token/lookup-self");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = client.get(&itself).header("X-Vault-Token", ROOT_TOKEN);
            if let Ok(answer) = request.send().await
                && answer.status().is_success()
            {
                break;
            }
            if server.has_ended().map_err(failed)? || Instant::now() > deadline {
                return Err(Absent::failed(NAME, server.log_tail()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(Self {
            address,
            root_token: ROOT_TOKEN.to_owned(),
            _process: Some((server, folder)),
        })
    }

    /// The address, such as `http://127.0.0.1:8200`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A token that may do everything.
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// The variables that tell another process of this server.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            (Self::ADDRESS_VARIABLE, self.address.clone()),
            (Self::TOKEN_VARIABLE, self.root_token.clone()),
        ]
    }
}
