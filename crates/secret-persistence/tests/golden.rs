//! Documented files: each file in `settings` is compared with the text in `settings/expected`.
//! `UPDATE_EXPECTED=1` updates the texts; read the diff before committing.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use secret_persistence::{Environment, KubernetesSecrets, Result, SettingMap, Settings};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settings")
}

/// The files of a form, by the prefix of their names.
fn files(form: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.starts_with(form))
        .map(|name| {
            let text = fs::read_to_string(folder().join(&name)).unwrap();
            (name, text)
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no file begins with {form}");
    files
}

fn assert_expected(name: &str, settings: Result<Settings>) {
    let shown = match settings {
        Ok(settings) => render(&settings),
        Err(error) => format!("error: {error}\n"),
    };
    let path = folder().join("expected").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &shown).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, expected, "{name}: see {}", path.display());
}

fn render(settings: &Settings) -> String {
    let mut text = format!("store: {}\n", settings.kind());
    values(&mut text, settings.store());
    writeln!(text, "around it:").unwrap();
    values(&mut text, settings.common());
    if let Some(mirror) = settings.mirror() {
        writeln!(
            text,
            "mirrored to {}",
            render(mirror).replace('\n', "\n  ").trim_end()
        )
        .unwrap();
    }
    for warning in settings.warnings() {
        writeln!(text, "warning: {warning}").unwrap();
    }
    match settings.check() {
        Ok(()) => writeln!(text, "check: fine").unwrap(),
        Err(error) => writeln!(text, "check: {error}").unwrap(),
    }
    text
}

/// With secrets: all of them are documented placeholders, and the test is about them.
fn values(text: &mut String, values: &SettingMap) {
    for name in values.names() {
        let value = values.secret(name).unwrap();
        let secret = if values.text(name).is_none() {
            " (secret)"
        } else {
            ""
        };
        writeln!(text, "  {name} = {:?}{secret}", value.expose()).unwrap();
    }
}

#[test]
fn helm_values() {
    let manifest = fs::read_to_string(folder().join("secret-airbyte-config.yaml")).unwrap();
    let secrets = KubernetesSecrets::none().with_manifests(&manifest).unwrap();
    for (name, text) in files("values-") {
        assert_expected(
            &name,
            Settings::from_helm(&text, &secrets, &Environment::empty()),
        );
    }
}

#[test]
fn helm_values_with_a_mounted_secret_mean_the_same() {
    let manifest = fs::read_to_string(folder().join("secret-airbyte-config.yaml")).unwrap();
    let manifests = KubernetesSecrets::none().with_manifests(&manifest).unwrap();
    let mounted = tempfile::tempdir().unwrap();
    for (key, value) in [
        ("aws-secret-manager-access-key-id", "AKIAIOSFODNN7EXAMPLE"),
        (
            "aws-secret-manager-secret-access-key",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        ),
        (
            "azure-key-vault-client-id",
            "3fc863e9-4740-4871-bdd4-456903a04d4e",
        ),
        (
            "azure-key-vault-client-secret",
            "KWP6egqixiQeQoKqFZuZq2weRbYoVxMH",
        ),
        ("vault-token", "hvs.example\n"),
        ("database-password", "example-password"),
    ] {
        fs::write(mounted.path().join(key), value).unwrap();
    }
    let mounted = KubernetesSecrets::none().with_folder("airbyte-config-secrets", mounted.path());
    for (name, text) in files("values-") {
        if name.contains("google") {
            continue;
        }
        let read = |secrets| Settings::from_helm(&text, secrets, &Environment::empty()).unwrap();
        assert_eq!(render(&read(&mounted)), render(&read(&manifests)), "{name}");
    }
}

#[test]
fn json_for_external_secret_management() {
    for (name, text) in files("external-") {
        assert_expected(&name, Settings::from_json(&text, &Environment::empty()));
    }
}

#[test]
fn environments() {
    for (name, text) in files("env-") {
        let variables = text
            .lines()
            .map(|line| line.split_once('=').unwrap())
            .collect();
        assert_expected(&name, Settings::from_env(&variables));
    }
}

#[test]
fn every_expected_text_has_its_file() {
    for entry in fs::read_dir(folder().join("expected")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let file = name.strip_suffix(".txt").unwrap();
        assert!(folder().join(file).is_file(), "{name}");
    }
}
