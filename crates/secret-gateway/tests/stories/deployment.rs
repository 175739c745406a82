//! The manifests are what Kubernetes takes, the unit is what systemd takes, and their settings are the gateway's.

use std::path::{Path, PathBuf};

use e2e::{Absent, Client, available};
use secret_gateway::{TABLE, Texts, variable};
use secret_persistence::{Environment, KubernetesSecrets, Settings};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/secret-gateway")
}

#[test]
fn kubernetes_takes_the_manifests() {
    let Some(mut python) = Client::Python.command() else {
        return;
    };
    let output = python
        .args(["-m", "kubernetes_validate", "--strict"])
        .arg(folder().join("kubernetes/gateway.yaml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Every variable of the manifests and the image is one that the gateway or its store knows, and the
/// gateway takes all of them together.
#[test]
fn the_settings_of_the_manifests_are_the_gateways() {
    let manifest = std::fs::read_to_string(folder().join("kubernetes/gateway.yaml")).unwrap();
    let image = std::fs::read_to_string(folder().join("Containerfile")).unwrap();
    let mut texts = Texts::new();
    let mut found = 0;
    let of_manifest = manifest
        .lines()
        .filter_map(|line| line.trim().split_once(": "));
    let of_image = image
        .lines()
        .map(|line| {
            line.trim()
                .trim_start_matches("ENV ")
                .trim_end_matches(" \\")
        })
        .filter_map(|line| line.split_once('='));
    for (name, value) in of_manifest.chain(of_image) {
        if !name.starts_with("SECRET_GATEWAY_") {
            continue;
        }
        let setting = TABLE.iter().find(|setting| variable(setting.name) == name);
        let setting = setting.unwrap_or_else(|| panic!("{name} is no setting"));
        texts.set(setting.name, value.trim_matches('"')).unwrap();
        found += 1;
    }
    assert!(found > 8, "{found}");
    let settings = texts.parse().unwrap();
    assert!(settings.tls.is_some() && !settings.listens_on_loopback());
    let grace = manifest
        .lines()
        .find_map(|line| line.trim().strip_prefix("terminationGracePeriodSeconds: "))
        .unwrap();
    assert!(grace.parse::<u64>().unwrap() > settings.shutdown.as_secs());
}

/// The values for Airbyte are those of a Vault, at an address that the gateway answers for.
#[test]
fn airbyte_takes_the_gateway_for_a_vault() {
    let path = folder().join("kubernetes/airbyte-values.yaml");
    let secret = tempfile::tempdir().unwrap();
    std::fs::write(secret.path().join("token"), "canary").unwrap();
    let secrets = KubernetesSecrets::none().with_any_folder(secret.path());
    let settings = Settings::from_file(&path, &secrets, &Environment::empty()).unwrap();
    let address = "https://secret-gateway.airbyte:8220";
    assert_eq!(settings.store().text("address"), Some(address));
    assert_eq!(settings.store().text("prefix"), Some("secret/"));
    let manifest = std::fs::read_to_string(folder().join("kubernetes/gateway.yaml")).unwrap();
    assert!(manifest.contains(",secret-gateway.airbyte:8220,"));
}

/// The unit of the Debian package: its folder is the gateway's, and systemd waits longer than the gateway.
#[test]
fn systemd_takes_the_unit() {
    let unit = std::fs::read_to_string(folder().join("systemd/secret-gateway.service")).unwrap();
    let values = |name: &str| -> Vec<&str> {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(name));
        lines.filter_map(|rest| rest.strip_prefix('=')).collect()
    };
    let mut texts = Texts::new();
    for variable_and_value in values("Environment") {
        let (name, value) = variable_and_value.split_once('=').unwrap();
        let setting = TABLE.iter().find(|setting| variable(setting.name) == name);
        let setting = setting.unwrap_or_else(|| panic!("{name} is no setting"));
        texts.set(setting.name, value).unwrap();
    }
    let settings = texts.parse().unwrap();
    let [state] = values("StateDirectory")[..] else {
        panic!("{unit}")
    };
    assert_eq!(settings.data_folder, Path::new("/var/lib").join(state));
    let [grace] = values("TimeoutStopSec")[..] else {
        panic!("{unit}")
    };
    assert!(grace.parse::<u64>().unwrap() > settings.shutdown.as_secs());

    // It is not installed here: systemd wants a program that is.
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("secret-gateway.service");
    let installed = "ExecStart=/usr/bin/secret-gateway\n";
    assert!(unit.contains(installed));
    std::fs::write(&path, unit.replace(installed, "ExecStart=/bin/true\n")).unwrap();
    let verified = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path)
        .output();
    let verified = available(verified.map_err(|_| Absent::Missing {
        server: "systemd-analyze",
        remedy: "run tests/servers/build debian".into(),
    }));
    let Some(verified) = verified else { return };
    assert!(
        verified.status.success() && verified.stderr.is_empty(),
        "{verified:?}"
    );
}
