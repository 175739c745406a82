//! Finds the programs that `tests/servers/build` has built.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// The folder of the programs; `target/servers` if it is not set.
const FOLDER_VARIABLE: &str = "TEST_SERVERS_DIR";

/// The pins of LocalStack, relative to `tests/servers/localstack`.
pub(crate) const LOCALSTACK_PINS: &[&str] = &["requirements.txt"];

/// The pins of moto, relative to `tests/servers/moto`.
pub(crate) const MOTO_PINS: &[&str] = &["requirements.txt"];

/// The pins of the npm packages, relative to `tests/servers/node`.
pub(crate) const NODE_PINS: &[&str] = &["package.json", "package-lock.json"];

/// The versions of the programs that pack, relative to `tests/servers/packaging`.
pub(crate) const PACKAGING_PINS: &[&str] = &["versions"];

/// The pins of the PyPI packages, relative to `tests/servers/python`.
pub(crate) const PYTHON_PINS: &[&str] = &["requirements.txt"];

/// The sources of the story with Vault's Go client, relative to `tests/servers/vault-api`.
pub(crate) const VAULT_API_PINS: &[&str] = &["go.mod", "go.sum", "main.go"];

/// The pins of Airbyte's Vault client, relative to `tests/servers/vault-java-driver`.
pub(crate) const VAULT_JAVA_DRIVER_PINS: &[&str] = &["pom.xml"];

/// The sources of the Vault program, relative to `tests/servers/vault`.
pub(crate) const VAULT_PINS: &[&str] = &[
    "backends.go",
    "certificates.go",
    "go.mod",
    "go.sum",
    "main.go",
];

/// The folder with the descriptions of the servers: the Go module, the pins, the compose file.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("servers")
}

/// The file in the built server, if it was built from exactly the pins of this checkout.
pub(crate) fn find(server: &str, pins: &[&str], file: &str) -> io::Result<Option<PathBuf>> {
    let key = key(&sources().join(server), pins)?;
    let path = folder().join(format!("{server}-{key}")).join(file);
    Ok(path.try_exists()?.then_some(path))
}

/// The first 16 hexadecimal digits of the SHA-256 of all pins, concatenated, as
/// `tests/servers/build` computes it.
fn key(folder: &Path, pins: &[&str]) -> io::Result<String> {
    let mut hash = Sha256::new();
    for pin in pins {
        hash.update(fs::read(folder.join(pin))?);
    }
    Ok(hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if let Some(folder) = env::var_os(FOLDER_VARIABLE) {
        return workspace.join(folder);
    }
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(target).join("servers")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// If both differed, tests would start no server, or one with other pins.
    #[test]
    fn the_build_script_has_the_same_keys() {
        for (server, pins) in [
            ("localstack", LOCALSTACK_PINS),
            ("moto", MOTO_PINS),
            ("node", NODE_PINS),
            ("packaging", PACKAGING_PINS),
            ("python", PYTHON_PINS),
            ("vault", VAULT_PINS),
            ("vault-api", VAULT_API_PINS),
            ("vault-java-driver", VAULT_JAVA_DRIVER_PINS),
        ] {
            let told = Command::new(sources().join("build"))
                .args(["--key", server])
                .output()
                .expect("tests/servers/build runs");
            assert!(told.status.success(), "{told:?}");
            let told = String::from_utf8(told.stdout).unwrap();
            assert_eq!(
                told.trim(),
                key(&sources().join(server), pins).unwrap(),
                "{server}"
            );
        }
    }

    #[test]
    fn the_pins_are_all_that_vault_is_built_from() {
        let mut files: Vec<_> = fs::read_dir(sources().join("vault"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, VAULT_PINS);
    }
}
