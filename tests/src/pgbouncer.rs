//! PgBouncer, from the installed package, in front of a Postgres.

use std::{
    fs, io,
    net::TcpStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use url::Url;

use crate::{
    Absent, Postgres,
    postgres::User,
    process::{Folder, ServerProcess, Stop, free_port, watched},
};

const NAME: &str = "PgBouncer";

/// How long it may take to listen. It does at once, as a rule.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a client's connection of the server goes to the next client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client disconnects.
    Session,
    /// When its transaction ends.
    Transaction,
}

/// A PgBouncer with its defaults, for the databases of one Postgres. Its clients all become the superuser.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    // Before the folder, so that the server has ended when its files are removed.
    _server: ServerProcess,
    _folder: Folder,
}

impl PgBouncer {
    /// Starts one for the caller alone, on a free port.
    ///
    /// # Errors
    ///
    /// If it is not installed, or does not listen within half a minute.
    pub fn start(postgres: &Postgres, mode: PoolMode) -> Result<Self, Absent> {
        let failed = |error: io::Error| Absent::failed(NAME, error);
        let program = program().ok_or_else(|| Absent::Missing {
            server: NAME,
            remedy: "install the package `pgbouncer`, or run `tests/servers/build postgres`".into(),
        })?;
        // It refuses to run as root, as Postgres does.
        let user = User::unprivileged().map_err(failed)?;
        let folder = Folder::new().map_err(failed)?;
        let port = free_port().map_err(failed)?;
        let settings = folder.path().join("pgbouncer.ini");
        fs::write(&settings, ini(postgres, mode, port)?).map_err(failed)?;
        let mut command = watched(&program, Stop::Kill);
        command.arg(&settings).current_dir(folder.path());
        if let Some(user) = user {
            user.give(folder.path()).map_err(failed)?;
            user.step_down(&mut command);
        }
        let mut server =
            ServerProcess::spawn(&mut command, &folder.path().join("log")).map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if server.has_ended().map_err(failed)? || Instant::now() > deadline {
                return Err(Absent::failed(NAME, server.log_tail()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            port,
            _server: server,
            _folder: folder,
        })
    }

    /// The URL of a database through it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://127.0.0.1:{}/{database}", self.port)
    }
}

fn ini(postgres: &Postgres, mode: PoolMode, port: u16) -> Result<String, Absent> {
    let failed = |error| Absent::failed(NAME, error);
    let server = Url::parse(postgres.url()).map_err(|error| failed(error.to_string()))?;
    let host = server.host_str().unwrap_or("127.0.0.1");
    let server_port = server.port().unwrap_or(5432);
    let user = match (server.username(), server.password()) {
        (user, Some(password)) => format!("user={user} password={password}"),
        (user, None) => format!("user={user}"),
    };
    let mode = match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
    };
    Ok(format!(
        "[databases]\n\
         * = host={host} port={server_port} {user}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = any\n\
         pool_mode = {mode}\n"
    ))
}

/// Where Debian's package puts it, or where all programs are.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([Path::new("/usr/sbin").to_owned()])
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.exists())
}
