//! The package `fips` is a workspace of its own, which the gate does not compile: that takes long. This
//! compares its lock file with ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

/// What differs because of the module: it needs older versions of the first four, and generating its
/// bindings other ones of the rest.
const DIFFERENT: [&str; 8] = [
    "aws-lc-rs",
    "aws-lc-sys",
    "rustls",
    "rustls-webpki",
    "itertools",
    "regex-automata",
    "regex-syntax",
    "shlex",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the workspace")
}

/// The packages of a lock file: versions by name, and the names that each of ours depends on.
struct Lock {
    versions: BTreeMap<String, BTreeSet<String>>,
    ours: BTreeMap<String, BTreeSet<String>>,
}

impl Lock {
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let mut lock = Self {
            versions: BTreeMap::new(),
            ours: BTreeMap::new(),
        };
        for package in text.split("[[package]]\n").skip(1) {
            let value = |key: &str| {
                package
                    .lines()
                    .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
                    .map(|value| value.trim_matches('"').to_owned())
            };
            let name = value("name").unwrap();
            if value("source").is_none() {
                // `"name",`, or with a version where there are several.
                let dependencies = package
                    .lines()
                    .filter_map(|line| line.strip_prefix(" \""))
                    .filter_map(|rest| rest.split([' ', '"']).next())
                    .map(str::to_owned);
                lock.ours.insert(name, dependencies.collect());
            } else {
                let version = value("version").unwrap();
                lock.versions.entry(name).or_default().insert(version);
            }
        }
        assert!(lock.versions.len() > 200 && lock.ours.len() > 8, "{path}");
        lock
    }

    fn has(&self, name: &str, version: &str) -> bool {
        let versions = &self.versions[name];
        versions.len() == 1 && versions.iter().all(|found| found.starts_with(version))
    }
}

/// Otherwise the programs with the module would be other programs.
#[test]
fn the_fips_build_has_our_dependencies_in_our_versions() {
    let (fips, ours) = (Lock::read("fips/Cargo.lock"), Lock::read("Cargo.lock"));
    let others: Vec<_> = fips
        .versions
        .iter()
        .filter(|(name, _)| !DIFFERENT.contains(&name.as_str()))
        // What only the build of the module needs is not in ours.
        .filter_map(|(name, versions)| Some((name, versions, ours.versions.get(name)?)))
        .filter(|(_, versions, ours)| !versions.is_subset(ours))
        .collect();
    assert!(others.is_empty(), "scripts/fips --lock: {others:?}");

    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    for package in metadata["packages"].as_array().unwrap() {
        let Some(locked) = fips.ours.get(package["name"].as_str().unwrap()) else {
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let needed = dependency["kind"].is_null() && dependency["optional"] == false;
            let name = dependency["name"].as_str().unwrap();
            assert!(
                !needed || locked.contains(name),
                "scripts/fips --lock: {} depends on {name}",
                package["name"]
            );
        }
    }
}

/// The crate's versions from 1.18.0 on have the module 4, whose validation was in process.
#[test]
fn the_fips_build_has_the_validated_module() {
    let fips = Lock::read("fips/Cargo.lock");
    assert!(
        fips.has("aws-lc-rs", "1.17."),
        "{:?}",
        fips.versions["aws-lc-rs"]
    );
    assert!(
        fips.has("aws-lc-fips-sys", "0.13."),
        "{:?}",
        fips.versions["aws-lc-fips-sys"]
    );
    let ours = Lock::read("Cargo.lock");
    assert!(
        !ours.versions.contains_key("aws-lc-fips-sys"),
        "the gate would compile it"
    );
}
