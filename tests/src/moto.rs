//! moto's server, a second implementation of AWS Secrets Manager.

use std::{env, io, time::Duration};

use tokio::{
    net::TcpStream,
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::{
    Absent, available, cache, container,
    process::{Folder, ServerProcess, Stop, free_port, watched},
};

const NAME: &str = "moto";

/// How long it may take to listen. Three seconds are usual.
const PATIENCE: Duration = Duration::from_secs(120);

/// A moto of the pinned version.
///
/// It takes any credentials and enforces no policy. All its data is in memory.
#[derive(Debug)]
pub struct Moto {
    url: String,
    _process: Option<(ServerProcess, Folder)>,
}

impl Moto {
    /// The variable with the address of a moto that runs already.
    pub const URL_VARIABLE: &'static str = "TEST_MOTO_URL";

    /// The moto that all tests of this process share; see the crate's documentation for where it comes from.
    ///
    /// # Panics
    ///
    /// If it cannot be started, and, where the variable `CI` is `true`, if there is none.
    pub async fn start_or_env() -> Option<&'static Self> {
        static SHARED: OnceCell<Result<Moto, Absent>> = OnceCell::const_new();
        let shared = SHARED.get_or_init(Self::from_env_or_start).await;
        available(shared.as_ref().map_err(Absent::clone))
    }

    async fn from_env_or_start() -> Result<Self, Absent> {
        if let Ok(url) = env::var(Self::URL_VARIABLE) {
            return Ok(Self {
                url: url.trim_end_matches('/').to_owned(),
                _process: None,
            });
        }
        match Self::start().await {
            Err(absent @ Absent::Missing { .. }) => match container::start(NAME, "moto", 5000)? {
                Some(address) => Ok(Self {
                    url: format!("http://{address}"),
                    _process: None,
                }),
                None => Err(absent),
            },
            started => started,
        }
    }

    /// Starts a moto for the caller alone, on a free port.
    ///
    /// # Errors
    ///
    /// If it is not installed, or does not listen within two minutes.
    pub async fn start() -> Result<Self, Absent> {
        let failed = |error: io::Error| Absent::failed(NAME, error);
        let python = cache::find("moto", cache::MOTO_PINS, "venv/bin/python")
            .map_err(failed)?
            .ok_or_else(|| Absent::Missing {
                server: NAME,
                remedy: format!(
                    "run `tests/servers/build moto`, or set {}",
                    Self::URL_VARIABLE
                ),
            })?;
        let folder = Folder::new().map_err(failed)?;
        let port = free_port().map_err(failed)?;
        let mut command = watched(&python, Stop::Kill);
        command
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p"])
            .arg(port.to_string())
            .current_dir(folder.path());
        let mut server =
            ServerProcess::spawn(&mut command, &folder.path().join("log")).map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if server.has_ended().map_err(failed)? || Instant::now() > deadline {
                return Err(Absent::failed(NAME, server.log_tail()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(Self {
            url: format!("http://127.0.0.1:{port}"),
            _process: Some((server, folder)),
        })
    }

    /// The address, such as `http://127.0.0.1:5000`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The variables that tell another process of this server.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![(Self::URL_VARIABLE, self.url.clone())]
    }
}
