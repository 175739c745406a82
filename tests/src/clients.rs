//! Third-party programs that call our servers.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Absent, available, cache};

/// A third-party client. `tests/servers/build` downloads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The command line of OpenBao, `bao`.
    Bao,
    /// Debian's browser, headless.
    Chromium,
    /// Vault's official client in Go, with the story in `tests/servers/vault-api`.
    Go,
    /// The client that Airbyte uses, as the class path of `java`.
    Java,
    /// Node with `node-vault`.
    Node,
    /// Python with `hvac`.
    Python,
    /// A tester of OpenAPI documents.
    Schemathesis,
}

impl Client {
    /// A command that runs it, without arguments; `None` if it is not installed and the test may be
    /// skipped.
    ///
    /// # Panics
    ///
    /// If the variable `CI` is `true` and it is missing.
    pub fn command(self) -> Option<Command> {
        available(self.find())
    }

    /// The file of a story, next to the pins.
    pub fn story(self, file: &str) -> PathBuf {
        cache::sources().join(self.pins().0).join(file)
    }

    fn find(self) -> Result<Command, Absent> {
        let missing = || Absent::Missing {
            server: self.name(),
            remedy: format!("run tests/servers/build {}", self.pins().0),
        };
        if self == Self::Chromium {
            let found = in_path("chromium").ok_or_else(missing)?;
            return Ok(Command::new(found));
        }
        let (folder, pins, file) = self.pins();
        let found = cache::find(folder, pins, file)
            .map_err(|error| Absent::failed(self.name(), error))?
            .ok_or_else(missing)?;
        let program = match self {
            Self::Java => "java",
            Self::Node => "node",
            _ => return Ok(self.of(&found)),
        };
        let program = in_path(program).ok_or_else(missing)?;
        let mut command = Command::new(program);
        if self == Self::Java {
            command.arg("-cp").arg(found);
        } else {
            command.env("NODE_PATH", found);
        }
        Ok(command)
    }

    fn of(self, found: &Path) -> Command {
        let mut command = Command::new(found);
        if self == Self::Schemathesis {
            command.args(["-m", "schemathesis.cli"]);
        }
        command
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bao => "OpenBao's command line",
            Self::Chromium => "Chromium",
            Self::Go => "Vault's Go client",
            Self::Java => "the Java client",
            Self::Node => "node-vault",
            Self::Python => "hvac",
            Self::Schemathesis => "schemathesis",
        }
    }

    /// The folder of its pins, the pins, and the file in the result.
    fn pins(self) -> (&'static str, &'static [&'static str], &'static str) {
        const PYTHON: &str = "venv/bin/python";
        match self {
            Self::Bao => ("python", cache::PYTHON_PINS, "bao"),
            Self::Chromium => ("chromium", &[], ""),
            Self::Go => ("vault-api", cache::VAULT_API_PINS, "story"),
            Self::Java => (
                "vault-java-driver",
                cache::VAULT_JAVA_DRIVER_PINS,
                "vault-java-driver-5.1.0.jar",
            ),
            Self::Node => ("node", cache::NODE_PINS, "node_modules"),
            Self::Python | Self::Schemathesis => ("python", cache::PYTHON_PINS, PYTHON),
        }
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .find(|path| path.try_exists().is_ok_and(|exists| exists))
}
