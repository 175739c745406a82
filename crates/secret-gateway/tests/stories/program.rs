//! A process of the program.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use secret_gateway::{Grant, Role, TokenFile};

/// A process of the program, killed at the latest when it drops.
pub(crate) struct Program {
    child: Child,
    pub(crate) base: String,
}

impl Program {
    pub(crate) fn start(folder: &Path, flags: &[&str]) -> Self {
        Self::start_with(folder, flags, &[])
    }

    /// With nothing but these variables in its environment.
    pub(crate) fn start_with(folder: &Path, flags: &[&str], variables: &[(&str, String)]) -> Self {
        Self::try_start(folder, flags, variables)
            .unwrap_or_else(|| panic!("it does not listen: {}", log_of(folder)))
    }

    /// No file of it may have more than so many KiB.
    #[cfg(unix)]
    pub(crate) fn start_with_quota(folder: &Path, kib: u32) -> Self {
        // Past the limit a write fails, as it does on a full disk, instead of ending the process.
        let limited = "trap '' XFSZ; ulimit -f $0; exec \"$@\"";
        let blocks = (kib * 2).to_string();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", limited, &blocks, env!("CARGO_BIN_EXE_secret-gateway")]);
        Self::spawn(shell, folder, &[], &[])
            .unwrap_or_else(|| panic!("it does not listen: {}", log_of(folder)))
    }

    /// `None` where it ends at once, as where its store does not answer.
    pub(crate) fn try_start(
        folder: &Path,
        flags: &[&str],
        variables: &[(&str, String)],
    ) -> Option<Self> {
        let program = Command::new(env!("CARGO_BIN_EXE_secret-gateway"));
        Self::spawn(program, folder, flags, variables)
    }

    fn spawn(
        mut program: Command,
        folder: &Path,
        flags: &[&str],
        variables: &[(&str, String)],
    ) -> Option<Self> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .unwrap();
        let listen = if flags.contains(&"--listen") {
            &[][..]
        } else {
            &["--listen", "127.0.0.1:0"]
        };
        let mut child = program
            .args(listen)
            .arg("--data-folder")
            .arg(folder.join("data"))
            .args(flags)
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(line) = lines.next() else {
            child.wait().unwrap();
            return None;
        };
        let base = line.unwrap().split_whitespace().last().unwrap().to_owned();
        // The rest is read so that the program never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, base })
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What it logged.
pub(crate) fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// A token that the first start made.
pub(crate) fn token(folder: &Path, role: &str) -> String {
    std::fs::read_to_string(folder.join("data").join(format!("token-{role}"))).unwrap()
}

/// A token for everything, in place of those of a first start.
pub(crate) fn everything(folder: &Path) -> String {
    std::fs::create_dir_all(folder.join("data")).unwrap();
    TokenFile::new(folder.join("data").join("tokens.json"))
        .create(&Grant::new("everything", Role::ALL))
        .unwrap()
        .expose()
        .to_owned()
}
