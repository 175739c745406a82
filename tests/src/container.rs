//! Servers in containers, for machines with a container runtime.

use std::{
    ffi::OsStr,
    io,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::{Absent, cache};

/// Starts the service of `tests/servers/compose.yaml` unless it is running, and returns its address
/// on the loopback interface; `None` if no container runtime responds.
///
/// The container keeps running for the next test process. `docker compose --file … down` stops it.
pub(crate) fn start(
    server: &'static str,
    service: &str,
    port: u16,
) -> Result<Option<String>, Absent> {
    start_by(OsStr::new("docker"), server, service, port)
}

fn start_by(
    docker: &OsStr,
    server: &'static str,
    service: &str,
    port: u16,
) -> Result<Option<String>, Absent> {
    let answers = Command::new(docker)
        .arg("info")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !answers.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let failed = |error: io::Error| Absent::failed(server, error);
    compose(docker, &["up", "--detach", "--wait", service]).map_err(failed)?;
    let told = compose(docker, &["port", service, &port.to_string()]).map_err(failed)?;
    Ok(Some(
        String::from_utf8_lossy(&told.stdout).trim().to_owned(),
    ))
}

fn compose(docker: &OsStr, arguments: &[&str]) -> io::Result<Output> {
    let file = cache::sources().join("compose.yaml");
    let output = Command::new(docker)
        .args([
            OsStr::new("compose"),
            OsStr::new("--file"),
            Path::as_os_str(&file),
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(output);
    }
    Err(io::Error::other(format!(
        "docker compose {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// A runtime that records its arguments.
    fn runtime(script: &str) -> (tempfile::TempDir, std::ffi::OsString) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker");
        let said = folder.path().join("said");
        let script = format!("#!/bin/sh\necho \"$@\" >> '{}'\n{script}\n", said.display());
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        (folder, path.into_os_string())
    }

    #[test]
    fn no_runtime_is_no_error() {
        let nowhere = OsStr::new("no-such-program");
        assert_eq!(start_by(nowhere, "Vault", "vault", 8200).unwrap(), None);
        let (_folder, refuses) = runtime("exit 1");
        assert_eq!(start_by(&refuses, "Vault", "vault", 8200).unwrap(), None);
    }

    #[test]
    fn a_service_is_started_and_its_port_asked_for() {
        let (folder, docker) = runtime(r#"case "$*" in *" port "*) echo 127.0.0.1:32768;; esac"#);
        let address = start_by(&docker, "Vault", "vault", 8200).unwrap();
        assert_eq!(address.as_deref(), Some("127.0.0.1:32768"));
        let said = fs::read_to_string(folder.path().join("said")).unwrap();
        let said: Vec<_> = said.lines().collect();
        assert_eq!(said.len(), 3);
        assert!(
            said[1].ends_with("compose.yaml up --detach --wait vault"),
            "{said:?}"
        );
        assert!(
            said[2].ends_with("compose.yaml port vault 8200"),
            "{said:?}"
        );
    }

    #[test]
    fn a_service_that_does_not_come_up_is_a_failure() {
        let (_folder, docker) =
            runtime(r#"case "$*" in *" up "*) echo no such image >&2; exit 1;; esac"#);
        let error = start_by(&docker, "Vault", "vault", 8200)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("Vault did not start") && error.contains("no such image"),
            "{error}"
        );
    }
}
