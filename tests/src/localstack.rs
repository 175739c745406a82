//! LocalStack, which serves AWS Secrets Manager, KMS, STS and IAM.

use std::{env, io, path::Path, time::Duration};

use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::{
    Absent, available, cache, container,
    process::{Folder, ServerProcess, Stop, free_port, watched},
};

const NAME: &str = "LocalStack";

/// What Python runs. It says which fault it mends, and why.
const START: &str = include_str!("../servers/localstack/start.py");

/// The maximum time until it responds. Four seconds are usual.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A LocalStack of the pinned version.
///
/// It accepts any credentials and regions, enforces no policy, and checks fewer limits than AWS:
/// what it accepts proves nothing. All its data is in memory.
#[derive(Debug)]
pub struct LocalStack {
    url: String,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    port: u16,
    // Declared before the folder, so that the server has ended when its files are removed.
    server: Option<ServerProcess>,
    folder: Folder,
}

impl LocalStack {
    /// The variable with the address of a running LocalStack.
    pub const URL_VARIABLE: &'static str = "TEST_LOCALSTACK_URL";

    /// The LocalStack that all tests of this process share. The crate's documentation explains
    /// where it comes from.
    ///
    /// # Panics
    ///
    /// If it cannot be started; if `CI` is `true`, also if it is missing.
    pub async fn start_or_env() -> Option<&'static Self> {
        static SHARED: OnceCell<Result<LocalStack, Absent>> = OnceCell::const_new();
        let shared = SHARED.get_or_init(Self::from_env_or_start).await;
        available(shared.as_ref().map_err(Absent::clone))
    }

    async fn from_env_or_start() -> Result<Self, Absent> {
        if let Ok(url) = env::var(Self::URL_VARIABLE) {
            return Ok(Self {
                url: url.trim_end_matches('/').to_owned(),
                process: None,
            });
        }
        match Self::start().await {
            Err(absent @ Absent::Missing { .. }) => {
                match container::start(NAME, "localstack", 4566)? {
                    Some(address) => Ok(Self {
                        url: format!("http://{address}"),
                        process: None,
                    }),
                    None => Err(absent),
                }
            }
            started => started,
        }
    }

    /// Starts a LocalStack only for the caller, on a free port.
    ///
    /// # Errors
    ///
    /// If it is not installed, or does not respond within two minutes.
    pub async fn start() -> Result<Self, Absent> {
        Self::start_at(None).await
    }

    /// Like [`start`](Self::start), on the given port.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start), and if the port is taken.
    pub async fn start_at(port: impl Into<Option<u16>>) -> Result<Self, Absent> {
        let port = match port.into() {
            Some(port) => port,
            None => free_port().map_err(|error| Absent::failed(NAME, error))?,
        };
        let folder = Folder::new().map_err(|error| Absent::failed(NAME, error))?;
        let mut started = Self {
            url: format!("http://127.0.0.1:{port}"),
            process: Some(Process {
                port,
                server: None,
                folder,
            }),
        };
        started.restart().await?;
        Ok(started)
    }

    /// The address, such as `http://127.0.0.1:4566`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kills the server. It loses all data.
    ///
    /// # Panics
    ///
    /// If the server does not belong to the caller, because others use it.
    pub fn kill(&mut self) {
        self.own().server = None;
    }

    /// Kills the server if it runs, and starts an empty one at the same address.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    ///
    /// # Panics
    ///
    /// If the server does not belong to the caller, because others use it.
    pub async fn restart(&mut self) -> Result<(), Absent> {
        let url = self.url.clone();
        let process = self.own();
        process.server = None;
        process.server = Some(launch(process.port, process.folder.path())?);
        wait(&url, process).await
    }

    /// The variables that describe this server to another process.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![(Self::URL_VARIABLE, self.url.clone())]
    }

    fn own(&mut self) -> &mut Process {
        self.process
            .as_mut()
            .expect("a LocalStack that others use is neither killed nor restarted")
    }
}

fn launch(port: u16, folder: &Path) -> Result<ServerProcess, Absent> {
    let failed = |error: io::Error| Absent::failed(NAME, error);
    let python = cache::find("localstack", cache::LOCALSTACK_PINS, "venv/bin/python")
        .map_err(failed)?
        .ok_or_else(|| Absent::Missing {
            server: NAME,
            remedy: format!(
                "run `tests/servers/build localstack`, or set {}",
                LocalStack::URL_VARIABLE
            ),
        })?;
    let mut command = watched(&python, Stop::Kill);
    command
        .args(["-c", START])
        .env("DISABLE_EVENTS", "1")
        .env("DNS_ADDRESS", "0")
        .env("EAGER_SERVICE_LOADING", "1")
        .env("GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
        .env("GATEWAY_SERVER", "hypercorn")
        .env("SERVICES", "secretsmanager,kms,sts,iam")
        .env("SKIP_SSL_CERT_DOWNLOAD", "1")
        // Otherwise it may treat the machine as its container, and write to /var/lib and /etc.
        .env("FILESYSTEM_ROOT", folder)
        .env("OVERRIDE_IN_DOCKER", "0")
        .env("TMPDIR", folder);
    ServerProcess::spawn(&mut command, &folder.join("log")).map_err(failed)
}

async fn wait(url: &str, process: &mut Process) -> Result<(), Absent> {
    let health = format!("{url}/_localstack/health");
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .map_err(|error| Absent::failed(NAME, error))?;
    let server = process.server.as_mut().expect("launched by the caller");
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Ok(answer) = client.get(&health).send().await
            && let Ok(health) = answer.json::<serde_json::Value>().await
            && matches!(
                health["services"]["secretsmanager"].as_str(),
                Some("running" | "available")
            )
        {
            return Ok(());
        }
        let ended = server
            .has_ended()
            .map_err(|error| Absent::failed(NAME, error))?;
        if ended || Instant::now() > deadline {
            let why = if ended { "it ended" } else { "no response" };
            return Err(Absent::failed(
                NAME,
                format!("{why}; its log ends:\n{}", server.log_tail()),
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
}
