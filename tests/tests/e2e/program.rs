//! The built tool in a separate folder, as operators run it.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use e2e::{Absent, Canaries, available};
use serde_json::Value;
use tokio::task::spawn_blocking;

/// The tool with its folder and its environment, which is separate from this process's.
pub(crate) struct Program {
    file: PathBuf,
    folder: tempfile::TempDir,
    variables: BTreeMap<&'static str, String>,
    /// Values that it must never show.
    canaries: Canaries,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    /// The output on both streams.
    pub(crate) text: String,
}

impl Program {
    /// The program next to the running one: a test of the whole workspace with all features builds
    /// both.
    pub(crate) fn found() -> Option<Self> {
        let own = env::current_exe().unwrap();
        let built = own.ancestors().nth(2).unwrap().join("secret-migrate");
        let file = available(if built.is_file() {
            Ok(built)
        } else {
            Err(Absent::Missing {
                server: "secret-migrate",
                remedy: "run `cargo build -p migrate --all-features`".into(),
            })
        })?;
        Some(Self {
            file,
            folder: tempfile::tempdir().unwrap(),
            variables: BTreeMap::from([("SECRETS_OWNER", "stories".to_owned())]),
            canaries: Canaries::default(),
        })
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sets a variable of its environment.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.variables.insert(name, value.to_owned());
    }

    /// Sets a variable with a credential, which no run may show.
    pub(crate) fn set_credential(&mut self, name: &'static str, value: &str) {
        self.set(name, value);
        self.never_show(value);
    }

    /// Adds a value that no run may show, as a whole or by line.
    pub(crate) fn never_show(&mut self, secret: &str) {
        self.canaries.add(secret);
    }

    /// Starts it. Its output is a JSON object.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.file);
        command
            .args(arguments)
            .arg("--json")
            .current_dir(self.folder())
            .env_clear()
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it until its n-th operation of a store or its journal, and kills it before or after
    /// that with SIGKILL. Returns false if it had ended.
    pub(crate) async fn killed_at(&self, arguments: &[&str], point: u64) -> bool {
        let mut child = self
            .command(arguments)
            .env("MIGRATE_TEST_STOP_AT", point.to_string())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let stopped = spawn_blocking(|| {
            let mut lines = said.lines().map(Result::unwrap);
            lines.any(|line| line.starts_with("stopped at point"))
        });
        let stopped = stopped.await.unwrap();
        if stopped {
            child.kill().unwrap();
        }
        self.ended(child).await;
        stopped
    }

    /// Waits until it ends, and checks its output and every file that it left except the stores.
    pub(crate) async fn ended(&self, child: Child) -> Ended {
        let output = spawn_blocking(|| child.wait_with_output().unwrap())
            .await
            .unwrap();
        let ended = Ended::from(output);
        let text = ended.text.as_bytes();
        self.canaries.expect_none_in(text, "what was printed");
        for entry in fs::read_dir(self.folder()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("journal") {
                let bytes = fs::read(&path).unwrap();
                self.canaries.expect_none_in(&bytes, &name);
            }
        }
        ended
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        self.ended(self.start(arguments)).await
    }

    /// Fails the test if other users of the machine can see a secret of the running process: in its
    /// arguments, or in the arguments and environments of its children.
    pub(crate) fn expect_secrecy_of(&self, child: &Child) {
        let of = |process: u32, what: &str| fs::read(format!("/proc/{process}/{what}"));
        let Ok(arguments) = of(child.id(), "cmdline") else {
            return;
        };
        assert!(!arguments.is_empty(), "it is over");
        self.canaries.expect_none_in(&arguments, "its arguments");
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // After the name, which may contain anything: the state, then the parent.
            let stat = of(process, "stat").unwrap_or_default();
            let stat = String::from_utf8_lossy(&stat).into_owned();
            let parent = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split(' ')
                .nth(2);
            if parent == Some(&*child.id().to_string()) {
                for what in ["cmdline", "environ"] {
                    let bytes = of(process, what).unwrap_or_default();
                    self.canaries.expect_none_in(&bytes, "a child of it");
                }
            }
        }
    }
}

impl Ended {
    /// Fails the test unless it ended with this status. Returns its JSON output.
    #[track_caller]
    pub(crate) fn expect(&self, status: i32) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        let start = self.text.find('{').expect("an object");
        let mut objects = serde_json::Deserializer::from_str(&self.text[start..]).into_iter();
        objects.next().expect("an object").unwrap()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            status: output.status.code().unwrap_or(-1),
            text: text(&output.stdout) + &text(&output.stderr),
        }
    }
}
