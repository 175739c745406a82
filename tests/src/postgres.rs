//! Postgres, from the installed packages.

use std::{
    env, fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

use crate::{
    Absent, Authority, available, container,
    process::{Folder, ServerProcess, Stop, free_port, watched},
};

const NAME: &str = "Postgres";

/// The maximum time until it responds. One second is usual.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The folder in which Debian's packages install each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Only members of `password_users` need a password; all others are trusted.
const CLIENTS: &str = "\
host all +password_users 127.0.0.1/32 scram-sha-256
host all +password_users ::1/128      scram-sha-256
host all all             127.0.0.1/32 trust
host all all             ::1/128      trust
";

/// The same port serves plain connections and TLS. No data needs a flush to disk.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
wal_level = logical
fsync = off
full_page_writes = off
synchronous_commit = off
ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server-key.pem'
";

/// A Postgres with a separate data folder and the superuser `postgres`.
///
/// Create a role that needs a password `IN ROLE password_users`; all others need none.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    ca_file: Option<PathBuf>,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    port: u16,
    installation: Installation,
    // Declared before the folder, so that the server has ended when its files are removed.
    server: Option<ServerProcess>,
    folder: Folder,
}

impl Postgres {
    /// The PEM file of the authority that signed the server's certificate. Optional.
    pub const CA_FILE_VARIABLE: &'static str = "TEST_POSTGRES_CA_FILE";
    /// The variable with the URL of a running Postgres: a superuser in any database.
    pub const URL_VARIABLE: &'static str = "TEST_POSTGRES_URL";

    /// The Postgres that all tests of this process share. The crate's documentation explains where
    /// it comes from.
    ///
    /// # Panics
    ///
    /// If it cannot be started; if `CI` is `true`, also if it is missing.
    pub async fn start_or_env() -> Option<&'static Self> {
        static SHARED: OnceCell<Result<Postgres, Absent>> = OnceCell::const_new();
        let shared = SHARED.get_or_init(Self::from_env_or_start).await;
        available(shared.as_ref().map_err(Absent::clone))
    }

    async fn from_env_or_start() -> Result<Self, Absent> {
        if let Ok(url) = env::var(Self::URL_VARIABLE) {
            let ca_file = env::var_os(Self::CA_FILE_VARIABLE).map(PathBuf::from);
            return Ok(Self {
                url,
                ca_file,
                process: None,
            });
        }
        match Self::start().await {
            Err(absent @ Absent::Missing { .. }) => match container::start(NAME, "postgres", 5432)?
            {
                Some(address) => {
                    let url = format!("postgres://postgres@{address}/postgres");
                    Ok(Self {
                        url,
                        ca_file: None,
                        process: None,
                    })
                }
                None => Err(absent),
            },
            started => started,
        }
    }

    /// Starts a Postgres only for the caller, on a free port.
    ///
    /// # Errors
    ///
    /// If it is not installed, or does not respond within a minute.
    pub async fn start() -> Result<Self, Absent> {
        Self::start_at(None).await
    }

    /// Like [`start`](Self::start), on the given port.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start), and if the port is taken.
    pub async fn start_at(port: impl Into<Option<u16>>) -> Result<Self, Absent> {
        let port = port.into();
        let started = tokio::task::spawn_blocking(move || Self::start_blocking(port)).await;
        started.map_err(|error| Absent::failed(NAME, error))?
    }

    fn start_blocking(port: Option<u16>) -> Result<Self, Absent> {
        let failed = |error: io::Error| Absent::failed(NAME, error);
        let installation =
            Installation::find()
                .map_err(failed)?
                .ok_or_else(|| Absent::Missing {
                    server: NAME,
                    remedy: format!(
                        "install the package `postgresql`, or set {}",
                        Postgres::URL_VARIABLE
                    ),
                })?;
        let port = port.map_or_else(free_port, Ok).map_err(failed)?;
        let folder = Folder::new().map_err(failed)?;
        let authority = Authority::in_folder(folder.path()).map_err(failed)?;
        installation.give(folder.path()).map_err(failed)?;
        installation
            .initialise(&folder.path().join("data"), &authority)
            .map_err(failed)?;

        let ca_file = Some(authority.ca_file().to_owned());
        let mut process = Process {
            port,
            installation,
            server: None,
            folder,
        };
        process.launch()?;
        process.sql("CREATE ROLE password_users").map_err(failed)?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        Ok(Self {
            url,
            ca_file,
            process: Some(process),
        })
    }

    /// The URL for the superuser, such as `postgres://postgres@127.0.0.1:5432/postgres`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The PEM file of the authority that signed the server's certificate for `127.0.0.1` and
    /// `localhost`.
    ///
    /// # Panics
    ///
    /// If the server comes from the environment, without such a file.
    pub fn ca_file(&self) -> &Path {
        self.ca_file
            .as_deref()
            .unwrap_or_else(|| panic!("this Postgres has no TLS: set {}", Self::CA_FILE_VARIABLE))
    }

    /// Stops the server immediately, like a crash. Its data remains.
    ///
    /// # Panics
    ///
    /// If the server does not belong to the caller, because others use it.
    pub fn kill(&mut self) {
        self.own().server = None;
    }

    /// Stops the server if it is running, and starts it with the same data at the same address.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    ///
    /// # Panics
    ///
    /// If the server does not belong to the caller, because others use it.
    pub fn restart(&mut self) -> Result<(), Absent> {
        self.own().launch()
    }

    /// The variables that describe this server to another process.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![(Self::URL_VARIABLE, self.url.clone())];
        if let Some(file) = &self.ca_file {
            variables.push((Self::CA_FILE_VARIABLE, file.display().to_string()));
        }
        variables
    }

    fn own(&mut self) -> &mut Process {
        self.process
            .as_mut()
            .expect("a Postgres that others use is neither killed nor restarted")
    }
}

impl Process {
    fn launch(&mut self) -> Result<(), Absent> {
        self.server = None;
        let failed = |error: io::Error| Absent::failed(NAME, error);
        let program = self.installation.programs.join("postgres");
        let mut command = watched(&program, Stop::Quit);
        self.installation.step_down(&mut command);
        command.arg("-D").arg(self.folder.path().join("data"));
        command
            .args(["-p", &self.port.to_string()])
            .current_dir(self.folder.path());
        let mut server =
            ServerProcess::spawn(&mut command, &self.folder.path().join("log")).map_err(failed)?;

        let deadline = Instant::now() + TIMEOUT;
        while !self.answers().map_err(failed)? {
            let ended = server.has_ended().map_err(failed)?;
            if ended || Instant::now() > deadline {
                let log = server.log_tail();
                let why = if ended { "it ended" } else { "no response" };
                return Err(Absent::failed(NAME, format!("{why}; its log ends:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.server = Some(server);
        Ok(())
    }

    fn answers(&self) -> io::Result<bool> {
        let status = self.client("pg_isready").stdout(Stdio::null()).status()?;
        Ok(status.success())
    }

    fn sql(&self, statement: &str) -> io::Result<()> {
        run(self
            .client("psql")
            .args(["--no-psqlrc", "-U", "postgres", "-c", statement]))
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.installation.programs.join(program));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command
    }
}

/// The folder of the programs, and the user that runs them: they refuse to run as root.
#[derive(Debug)]
struct Installation {
    programs: PathBuf,
    user: Option<User>,
}

/// Who servers run as that refuse to run as root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The user `postgres`, where the tests run as root.
    pub(crate) fn unprivileged() -> io::Result<Option<Self>> {
        Ok(match id(&["-u"])? {
            0 => Some(Self {
                uid: id(&["-u", "postgres"])?,
                gid: id(&["-g", "postgres"])?,
            }),
            _ => None,
        })
    }

    /// Gives it a file or folder.
    pub(crate) fn give(self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }

    /// Lets the command run as this user.
    pub(crate) fn step_down(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

impl Installation {
    fn find() -> io::Result<Option<Self>> {
        let Some(programs) = debian_programs()?.or_else(programs_on_path) else {
            return Ok(None);
        };
        let user = User::unprivileged()?;
        Ok(Some(Self { programs, user }))
    }

    /// Gives a file or folder to the user that runs the server.
    fn give(&self, path: &Path) -> io::Result<()> {
        match self.user {
            Some(user) => user.give(path),
            None => Ok(()),
        }
    }

    /// Runs the command as that user.
    fn step_down(&self, command: &mut Command) {
        if let Some(user) = self.user {
            user.step_down(command);
        }
    }

    fn initialise(&self, data: &Path, authority: &Authority) -> io::Result<()> {
        let mut command = Command::new(self.programs.join("initdb"));
        self.step_down(&mut command);
        command
            .arg("-D")
            .arg(data)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
        // The user may not be able to enter the current folder.
        command.args(["--locale=C", "--no-sync"]).current_dir("/");
        run(&mut command)?;

        let certificate = authority.issue(&["127.0.0.1", "localhost"])?;
        let settings = fs::read_to_string(data.join("postgresql.conf"))? + SETTINGS;
        for (name, text) in [
            ("pg_hba.conf", CLIENTS),
            ("postgresql.conf", &settings),
            ("server-key.pem", &certificate.key),
            ("server.pem", &certificate.chain),
        ] {
            let path = data.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            self.give(&path)?;
        }
        Ok(())
    }
}

/// The newest version among Debian's packages.
fn debian_programs() -> io::Result<Option<PathBuf>> {
    let versions = match fs::read_dir(VERSIONS) {
        Ok(versions) => versions,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for version in versions {
        let version = version?;
        let number = version
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        let programs = version.path().join("bin");
        if let Some(number) = number
            && programs.join("initdb").exists()
        {
            found.push((number, programs));
        }
    }
    Ok(found.into_iter().max().map(|(_, programs)| programs))
}

/// Other systems install the programs in the usual place.
fn programs_on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).find(|folder| folder.join("initdb").exists())
}

fn id(arguments: &[&str]) -> io::Result<u32> {
    let output = Command::new("id").args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .map_err(|_| io::Error::other("the user `postgres`, which runs it, does not exist"))
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = command.get_program().display();
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program} failed: {}",
        said.trim()
    )))
}
