//! The tool that operators run, as it is built, in a folder of its own.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use e2e::{Absent, available};
use serde_json::Value;
use tokio::task::spawn_blocking;

/// The fewest bytes of a line that must not show.
const SHORTEST: usize = 8;

/// The tool with its folder and its environment. It has nothing of this process's environment.
pub(crate) struct Program {
    file: PathBuf,
    folder: tempfile::TempDir,
    variables: BTreeMap<&'static str, String>,
    /// What it must never show.
    canaries: Vec<String>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    /// What was printed, both ways.
    pub(crate) text: String,
}

impl Program {
    /// The program beside the one that runs: a test of the whole workspace with all features builds both.
    pub(crate) fn found() -> Option<Self> {
        let own = env::current_exe().unwrap();
        let built = own.ancestors().nth(2).unwrap().join("migrate");
        let file = available(if built.is_file() {
            Ok(built)
        } else {
            Err(Absent::Missing {
                server: "migrate",
                remedy: "run `cargo build -p migrate --all-features`".into(),
            })
        })?;
        Some(Self {
            file,
            folder: tempfile::tempdir().unwrap(),
            variables: BTreeMap::from([("SECRETS_OWNER", "stories".to_owned())]),
            canaries: Vec::new(),
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sets a variable of its environment.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.variables.insert(name, value.to_owned());
    }

    /// Sets a variable that holds a credential: no run may show it.
    pub(crate) fn set_credential(&mut self, name: &'static str, value: &str) {
        self.set(name, value);
        self.never_show(value);
    }

    /// No run may show a line of this.
    pub(crate) fn never_show(&mut self, secret: &str) {
        // Shorter ones stand in any text by chance.
        let lines = secret.lines().filter(|line| line.trim().len() >= SHORTEST);
        self.canaries.extend(lines.map(str::to_owned));
    }

    /// Starts it; what it prints is an object.
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

    /// Runs it to its n-th operation of a store or its journal, before or after it, and kills it there with SIGKILL.
    /// False if it was over before.
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

    /// Waits for its end, and looks at what it printed and at every file that it left, but the stores.
    pub(crate) async fn ended(&self, child: Child) -> Ended {
        let output = spawn_blocking(|| child.wait_with_output().unwrap())
            .await
            .unwrap();
        let ended = Ended::from(output);
        self.expect_secrecy(ended.text.as_bytes(), &ended.text);
        for entry in fs::read_dir(self.folder()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("journal") {
                self.expect_secrecy(&fs::read(&path).unwrap(), &name);
            }
        }
        ended
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        self.ended(self.start(arguments)).await
    }

    fn expect_secrecy(&self, bytes: &[u8], place: &str) {
        // By their beginnings, since there are thousands of them to look for in megabytes.
        let mut canaries: HashMap<&[u8], Vec<&str>> = HashMap::new();
        let mut first = [false; 256];
        for canary in &self.canaries {
            let beginning = &canary.as_bytes()[..SHORTEST];
            canaries.entry(beginning).or_default().push(canary);
            first[usize::from(beginning[0])] = true;
        }
        for (start, beginning) in bytes.windows(SHORTEST).enumerate() {
            if !first[usize::from(beginning[0])] {
                continue;
            }
            for canary in canaries.get(beginning).into_iter().flatten() {
                let shows = bytes[start..].starts_with(canary.as_bytes());
                assert!(!shows, "`{canary}` shows in {place}");
            }
        }
    }
}

impl Ended {
    /// Ends the test unless it ended with this status. The object that it printed.
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
