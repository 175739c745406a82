//! Child processes that end with the test process.

use std::{
    fmt, fs,
    io::{self, Read as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The maximum time until a server ends after a signal.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The signal that stops a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// Kills it: for servers that ignore other signals, or have nothing to clean up.
    Kill,
    /// Postgres' immediate shutdown: a crash like a kill, but it releases its shared memory.
    Quit,
}

/// A running server, stopped when dropped.
///
/// A watcher process has the other end of the pipe `lifeline`. The pipe ends when this value is
/// dropped, and also when the test process dies in any way. The watcher then stops the server. (The
/// kernel's parent-death signal is not suitable: it is sent when the *thread* that started the
/// child ends, and tests are threads.)
pub(crate) struct ServerProcess {
    child: Child,
    lifeline: Option<ChildStdin>,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts a program that [`watched`] created, with its output in a log file.
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> io::Result<Self> {
        let file = fs::File::create(log)?;
        Self::start(command.stdout(file.try_clone()?).stderr(file), log)
    }

    /// Starts a program that [`watched`] created, with its log in a file and its standard output in
    /// a pipe.
    pub(crate) fn spawn_talking(
        command: &mut Command,
        log: &Path,
    ) -> io::Result<(Self, ChildStdout)> {
        let file = fs::File::create(log)?;
        let mut started = Self::start(command.stdout(Stdio::piped()).stderr(file), log)?;
        let stdout = started
            .child
            .stdout
            .take()
            .ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((started, stdout))
    }

    fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            // Ctrl-C in the terminal is for the test process. The pipe then stops the server.
            .process_group(0)
            .spawn()?;
        let lifeline = child.stdin.take();
        Ok(Self {
            child,
            lifeline,
            log: log.to_owned(),
        })
    }

    /// Whether the server has ended.
    pub(crate) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// The last lines of the server's log.
    pub(crate) fn log_tail(&self) -> String {
        const LINES: usize = 15;
        let mut text = Vec::new();
        if let Err(error) = fs::File::open(&self.log).and_then(|mut log| log.read_to_end(&mut text))
        {
            return format!("(no log: {error})");
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Whether its watcher stopped it; otherwise it was killed.
    fn stop(&mut self) -> io::Result<bool> {
        drop(self.lifeline.take());
        let deadline = Instant::now() + TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(true)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // A server that cannot be stopped cannot be reported from here either. Its watcher keeps
        // trying.
        let _ = self.stop();
    }
}

impl fmt::Debug for ServerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerProcess")
            .field("pid", &self.child.id())
            .finish_non_exhaustive()
    }
}

/// A temporary folder. It is removed when dropped, and also if the test process dies before that,
/// because shared servers are never dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: TempDir,
    janitor: Child,
}

impl Folder {
    pub(crate) fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        // The server dies at the same time, and may write until then.
        let janitor = Command::new("sh")
            .args(["-c", r#"cat >/dev/null; sleep 1; rm -rf "$1""#, "janitor"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { folder, janitor })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The folder itself is removed next. If the janitor cannot be stopped, it removes the
        // folder again.
        let _ = self.janitor.kill();
        let _ = self.janitor.wait();
    }
}

/// A command that runs the program with a watcher. Add arguments and environment as usual.
///
/// The shell becomes the program, so the child's process id is the program's.
pub(crate) fn watched(program: &Path, stop: Stop) -> Command {
    let signal = match stop {
        Stop::Kill => "KILL",
        Stop::Quit => "QUIT",
    };
    let script = format!(
        r#"exec 3<&0; (cat <&3; kill -{signal} $$) >/dev/null 2>&1 & exec "$@" 3<&- </dev/null"#
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "watched"]).arg(program);
    command
}

/// A port that is currently free. Another process may take it first, so callers retry with another
/// one if the server ends immediately.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(stop: Stop) -> (ServerProcess, Folder) {
        let folder = Folder::new().unwrap();
        // If the tests run in the background of a shell, they ignore SIGQUIT, and programs inherit
        // that. Servers install their own handlers.
        let mut command = watched(Path::new("env"), stop);
        command.args(["--default-signal=QUIT", "sleep", "600"]);
        let process = ServerProcess::spawn(&mut command, &folder.path().join("log")).unwrap();
        (process, folder)
    }

    fn runs(pid: u32) -> bool {
        Command::new("kill")
            .args(["-0", &pid.to_string()])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    #[test]
    fn a_stopped_server_has_ended() {
        for stop in [Stop::Kill, Stop::Quit] {
            let (mut process, _folder) = sleeper(stop);
            let pid = process.child.id();
            assert!(runs(pid));
            assert!(process.stop().unwrap(), "the watcher did not stop it");
            assert!(!runs(pid));
        }
    }

    /// The kernel does this to the pipe when the test process is killed.
    #[test]
    fn the_end_of_the_pipe_alone_ends_the_server() {
        let (mut process, _folder) = sleeper(Stop::Kill);
        drop(process.lifeline.take());
        let deadline = Instant::now() + TIMEOUT;
        while !process.has_ended().unwrap() {
            assert!(Instant::now() < deadline, "still running");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_folder_does_not_outlive_the_process() {
        let dropped = Folder::new().unwrap();
        let path = dropped.path().to_owned();
        drop(dropped);
        assert!(!path.exists());

        let mut orphaned = Folder::new().unwrap();
        drop(orphaned.janitor.stdin.take());
        assert!(orphaned.janitor.wait().unwrap().success());
        assert!(!orphaned.path().exists());
    }

    #[test]
    fn the_log_tail_is_what_the_server_said_last() {
        let folder = Folder::new().unwrap();
        let mut command = watched(Path::new("sh"), Stop::Kill);
        let mut process = ServerProcess::spawn(
            command.args(["-c", "seq 100 >&2"]),
            &folder.path().join("log"),
        )
        .unwrap();
        while !process.has_ended().unwrap() {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(process.log_tail().ends_with("99\n100"));
        assert!(!process.log_tail().contains("84"));
    }
}
