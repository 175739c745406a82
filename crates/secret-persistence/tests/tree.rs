//! A build with one store does not contain another store's SDK.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// Features, and the packages that identify each store's backend and SDK.
const STORES: &[(&str, &[&str])] = &[
    (
        "aws",
        &[
            "secret-persistence-aws",
            "aws-config",
            "aws-sdk-secretsmanager",
            "aws-smithy-runtime",
        ],
    ),
    (
        "azure",
        &[
            "secret-persistence-azure",
            "azure_core",
            "azure_identity",
            "azure_security_keyvault_secrets",
        ],
    ),
    (
        "gcp",
        &[
            "secret-persistence-gcp",
            "google-cloud-auth",
            "google-cloud-gax",
            "google-cloud-secretmanager-v1",
        ],
    ),
    ("postgres", &["sqlx-postgres"]),
    ("sqlite", &["sqlx-sqlite", "libsqlite3-sys"]),
    ("vault", &["secret-persistence-vault"]),
];

/// The packages of a build with these features.
fn packages(features: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args([
            "--package",
            "secret-persistence",
            "--no-default-features",
            "--features",
            features,
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn one_store_pulls_in_no_other_sdk() {
    for (feature, own) in STORES {
        let found = packages(feature);
        for package in *own {
            assert!(
                found.iter().any(|name| name == package),
                "{feature} has no {package}"
            );
        }
        for (other, theirs) in STORES.iter().filter(|(other, _)| other != feature) {
            for package in *theirs {
                assert!(
                    !found.iter().any(|name| name == package),
                    "{feature} has {other}'s {package}"
                );
            }
        }
    }
}

#[test]
fn all_stores_are_on_by_default() {
    let manifest = include_str!("../Cargo.toml");
    let default = manifest
        .lines()
        .find(|line| line.starts_with("default ="))
        .unwrap();
    for (feature, _) in STORES {
        assert!(default.contains(&format!("\"{feature}\"")), "{feature}");
    }
}
