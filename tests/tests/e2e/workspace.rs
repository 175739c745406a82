//! The rules of the whole workspace.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use e2e::{Absent, available};
use serde_json::Value;

/// Dependencies that secret-persistence-core must not have, even indirectly: networks and SDKs.
const NETWORK: [&str; 20] = [
    "aws-config",
    "aws-sdk-secretsmanager",
    "azure_core",
    "google-cloud-gax",
    "h2",
    "hyper",
    "hyper-util",
    "mio",
    "native-tls",
    "openssl",
    "quinn",
    "reqwest",
    "rustls",
    "socket2",
    "sqlx",
    "sqlx-core",
    "tokio-rustls",
    "tonic",
    "ureq",
    "vaultrs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the workspace")
        .to_owned()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The layer of a package. Dependencies point only to lower layers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Layer {
    Core,
    /// Shared by the stores behind a network.
    Remote,
    Backend,
    /// The migration engine, which connects to Postgres like the database store.
    Engine,
    Facade,
    /// Examples and tests: nothing depends on them.
    Top,
}

struct Package {
    name: String,
    folder: PathBuf,
    layer: Layer,
    /// Dependencies within the workspace, and whether they are only for tests.
    dependencies: Vec<(String, bool)>,
}

fn packages() -> Vec<Package> {
    let metadata = cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().unwrap().to_owned();
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            let folder = manifest.parent().unwrap().to_owned();
            let dependencies = package["dependencies"].as_array().unwrap();
            let dependencies = dependencies
                .iter()
                .filter(|dependency| dependency["path"].is_string())
                .map(|dependency| {
                    (
                        dependency["name"].as_str().unwrap().to_owned(),
                        dependency["kind"] == "dev",
                    )
                })
                .collect();
            let layer = layer(&name, &folder);
            Package {
                name,
                folder,
                layer,
                dependencies,
            }
        })
        .collect()
}

fn layer(name: &str, folder: &Path) -> Layer {
    let place = folder.strip_prefix(root()).unwrap();
    if !place.starts_with("crates") {
        return Layer::Top;
    }
    match name {
        "secret-persistence-core" => Layer::Core,
        "secret-persistence-remote" => Layer::Remote,
        "secret-persistence-migrate" => Layer::Engine,
        "secret-persistence" => Layer::Facade,
        "secret-gateway" => Layer::Top,
        _ => Layer::Backend,
    }
}

#[test]
fn dependencies_point_downwards() {
    let packages = packages();
    let layers: BTreeMap<_, _> = packages
        .iter()
        .map(|package| (package.name.as_str(), package.layer))
        .collect();
    assert!(
        layers.contains_key("secret-persistence-core") && layers.contains_key("e2e"),
        "{layers:?}"
    );
    let mut wrong = Vec::new();
    for package in &packages {
        for (dependency, tests_only) in &package.dependencies {
            // The servers and the fault proxy are separate: they depend on no other crate of the
            // workspace.
            let kit = *tests_only && dependency == "e2e";
            // A crate may enable its own features for its tests.
            let itself = *tests_only && *dependency == package.name;
            // The stories run the programs of the examples.
            let story = *tests_only && package.name == "e2e";
            if layers[dependency.as_str()] >= package.layer && !kit && !itself && !story {
                wrong.push(format!("{} -> {dependency}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "against the arrows: {}", wrong.join(", "));
}

#[test]
fn the_servers_depend_on_no_other_crate() {
    let packages = packages();
    let kit = packages
        .iter()
        .find(|package| package.name == "e2e")
        .unwrap();
    let needed: Vec<_> = kit
        .dependencies
        .iter()
        .filter(|(_, tests_only)| !tests_only)
        .collect();
    assert!(
        needed.is_empty(),
        "then these could not use it in their tests: {needed:?}"
    );
}

#[test]
fn core_has_no_network() {
    let reached = reached_by("secret-persistence-core");
    let wrong: Vec<_> = NETWORK
        .iter()
        .filter(|name| reached.iter().any(|reached| reached == *name))
        .collect();
    assert!(
        wrong.is_empty(),
        "secret-persistence-core reaches {wrong:?}"
    );
}

/// Two providers would be two implementations of one cryptography to compile and to trust, and rustls
/// could not choose between them. Without a store behind a network there is none: nothing in C but
/// SQLite.
#[test]
fn every_build_has_one_provider_of_tls_and_the_demo_none() {
    let features = |features| ["--no-default-features", "--features", features];
    let facade = "secret-persistence";
    let remote = ["aws", "azure", "gcp", "postgres", "vault"];
    let with_tls = remote.map(|store| (facade, features(store).to_vec()));
    let all = [facade, "migrate", "secret-gateway"].map(|name| (name, vec!["--all-features"]));
    for (package, selection) in with_tls.into_iter().chain(all) {
        let tree = package_tree(package, &selection);
        assert_eq!(providers(&tree), ["aws-lc-sys"], "{package} {selection:?}");
    }
    for (package, selection) in [("migrate", vec![]), (facade, features("sqlite").to_vec())] {
        let tree = package_tree(package, &selection);
        assert_eq!(providers(&tree), [""; 0], "{package} {selection:?}");
        for name in ["cmake", "rustls"] {
            assert!(
                !tree.iter().any(|reached| reached == name),
                "{package}: {name}"
            );
        }
    }
}

fn providers(tree: &[String]) -> Vec<&str> {
    [
        "aws-lc-fips-sys",
        "aws-lc-sys",
        "native-tls",
        "openssl-sys",
        "ring",
    ]
    .into_iter()
    .filter(|name| tree.iter().any(|reached| reached == name))
    .collect()
}

/// The dependencies of a package with all its features.
fn reached_by(package: &str) -> Vec<String> {
    package_tree(package, &["--all-features"])
}

/// The dependencies of a package. Features of other packages must not count, so this prints the
/// tree of one package.
fn package_tree(package: &str, features: &[&str]) -> Vec<String> {
    let mut arguments = vec![
        "tree",
        "--package",
        package,
        "--edges=normal,build",
        "--prefix=none",
        "--format={p}",
        "--locked",
    ];
    arguments.extend(features);
    let tree = cargo(&arguments);
    let reached: Vec<String> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    assert!(
        reached.iter().any(|name| name == "tokio"),
        "not a tree: {tree}"
    );
    reached
}

/// The same for the shared crate: only rustls, for its errors.
#[test]
fn the_shared_room_has_no_sdk_and_no_network() {
    let reached = reached_by("secret-persistence-remote");
    let wrong: Vec<_> = NETWORK
        .iter()
        .filter(|name| **name != "rustls" && reached.iter().any(|reached| reached == *name))
        .collect();
    assert!(
        wrong.is_empty(),
        "secret-persistence-remote reaches {wrong:?}"
    );
}

#[test]
fn every_package_inherits_what_the_workspace_decides() {
    for package in packages() {
        let manifest = package.folder.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        for line in [
            "edition",
            "license",
            "repository",
            "rust-version",
            "version",
        ] {
            let line = format!("\n{line}.workspace = true\n");
            assert!(text.contains(&line), "{}: no{line}", manifest.display());
        }
        assert!(
            text.contains("\n[lints]\nworkspace = true\n"),
            "{}: no lints",
            manifest.display()
        );
    }
}

/// The metadata of each crate that the crate registry requires: `cargo publish` would find out too
/// late.
#[test]
fn the_crates_can_be_published_and_nothing_else() {
    let metadata = cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let mut published = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let folder = manifest.parent().unwrap();
        if !folder.starts_with(root().join("crates")) {
            assert_eq!(package["publish"], Value::Array(Vec::new()), "{name}");
            continue;
        }
        published += 1;
        assert_eq!(
            package["publish"],
            Value::Null,
            "{name} cannot be published"
        );
        assert_eq!(package["readme"], "README.md", "{name}");
        let longest = package["description"].as_str().map_or(0, str::len);
        assert!((20..200).contains(&longest), "{name}: description");
        // The registry accepts at most five.
        for list in ["keywords", "categories"] {
            let length = package[list].as_array().unwrap().len();
            assert!((1..=5).contains(&length), "{name}: {length} {list}");
        }
        let docs = &package["metadata"]["docs"]["rs"];
        assert_eq!(docs["all-features"], true, "{name}: docs.rs");
        assert_eq!(docs["rustdoc-args"][1], "docsrs", "{name}: docs.rs");

        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        let library = read("src/lib.rs");
        assert!(
            library.starts_with(
                "#![doc = include_str!(\"../README.md\")]\n#![cfg_attr(docsrs, feature(doc_cfg))]\n"
            ),
            "{name}: the first page of the documentation is the README"
        );
        assert_eq!(
            read("LICENSE"),
            fs::read_to_string(root().join("LICENSE")).unwrap()
        );
        let readme = read("README.md");
        let promised = format!(
            "minimum supported Rust version is {}",
            package["rust_version"].as_str().unwrap()
        );
        for part in [
            "```rust",
            "| symptom | cause | remedy |",
            "# Versions",
            &promised,
        ] {
            assert!(readme.contains(part), "{name}: README.md lacks {part}");
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let tests_only = dependency["kind"] == "dev";
            let in_workspace = dependency["path"].is_string();
            // Packaging strips dependencies with a path and no version.
            let kit = dependency["name"] == "e2e";
            if in_workspace && kit {
                assert!(tests_only && dependency["req"] == "*", "{name}: e2e");
            } else {
                assert_ne!(dependency["req"], "*", "{name}: {}", dependency["name"]);
            }
        }
    }
    assert!(published >= 8, "{published} crates");
}

/// `shared-features` must not enable a feature that another package could rely on unnoticed.
#[test]
fn no_package_names_what_shared_features_switches_on() {
    let metadata = cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let named = |wanted: &dyn Fn(&str) -> bool| -> BTreeMap<String, String> {
        let packages = metadata["packages"].as_array().unwrap().iter();
        let packages = packages.filter(|package| wanted(package["name"].as_str().unwrap()));
        let named = packages.flat_map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let needed = dependencies.filter(|dependency| dependency["kind"] != "dev");
            needed.map(|dependency| {
                (
                    dependency["name"].as_str().unwrap().to_owned(),
                    package["name"].as_str().unwrap().to_owned(),
                )
            })
        });
        named.collect()
    };
    let shared = named(&|name| name == "shared-features");
    assert!(shared.len() > 5, "{shared:?}");
    // Its `alloc` is part of `std`, which all of them enable.
    let harmless = "serde";
    let ours = named(&|name| name != "shared-features");
    let wrong: Vec<_> = ours
        .iter()
        .filter(|(name, _)| shared.contains_key(*name) && *name != harmless)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The files in git.
fn committed() -> Option<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output();
    let listed = output.ok().filter(|output| output.status.success());
    let listed = available(listed.ok_or_else(|| Absent::Missing {
        server: "git's list of files",
        remedy: "run this test in a checkout".into(),
    }))?;
    let names = String::from_utf8(listed.stdout).unwrap();
    let files = names.split_terminator('\0').map(PathBuf::from);
    // Includes files that are deleted but not committed.
    Some(files.filter(|file| root().join(file).is_file()).collect())
}

/// Text that works on one machine only: local folders and package mirrors.
#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let Some(files) = committed() else { return };
    assert!(files.contains(&PathBuf::from("Cargo.toml")));
    let here = root();
    let home = std::env::var("HOME").unwrap_or_default();
    let mut traces = vec![
        // Written so that this file does not contain them.
        ["/ho", "me/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/Us", "ers/"].concat(),
        ["/wo", "rk/"].concat(),
        ["index", "-url"].concat(),
        ["GO", "PROXY="].concat(),
        ["[sou", "rce."].concat(),
    ];
    // A short path such as `/w` may occur anywhere.
    traces.extend(
        [here.display().to_string(), home]
            .into_iter()
            .filter(|path| path.len() > 4),
    );

    let mut wrong = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(here.join(&file)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if traces.iter().any(|trace| line.contains(trace)) {
                wrong.push(format!("{}:{}: {line}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A lock file created with a mirror would send everyone there.
#[test]
fn packages_come_from_the_public_registry() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let sources: Vec<_> = lock
        .lines()
        .filter(|line| line.starts_with("source = "))
        .collect();
    assert!(sources.len() > 50);
    for source in sources {
        assert_eq!(
            source,
            r#"source = "registry+https://github.com/rust-lang/crates.io-index""#
        );
    }
}

/// Documents must not name a missing command, package, script or page.
#[test]
fn documents_name_what_exists() {
    let Some(files) = committed() else { return };
    let packages: Vec<_> = packages().into_iter().map(|package| package.name).collect();
    let documents = files
        .iter()
        .filter(|file| file.extension().is_some_and(|kind| kind == "md"));
    let mut wrong = Vec::new();
    for document in documents {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let folder = root().join(document.parent().unwrap());
        for name in after(&text, "cargo run -p ").chain(after(&text, "cargo test -p ")) {
            if !packages.iter().any(|package| package == name) {
                wrong.push(format!("{}: package {name}", document.display()));
            }
        }
        for target in after(&text, "](") {
            let path = target.split(['#', ')']).next().unwrap_or_default();
            let is_link = path.contains("://")
                || path.starts_with("mailto:")
                || path.is_empty()
                || path.contains("::");
            if !is_link && !folder.join(path).exists() {
                wrong.push(format!("{}: link to {path}", document.display()));
            }
        }
        for script in ["scripts/", ".ci/"] {
            for name in after(&text, &format!("`{script}")) {
                let name = name.trim_end_matches(|c: char| !c.is_alphanumeric());
                let name = name.split('`').next().unwrap_or_default();
                if !root().join(script).join(name).exists() {
                    wrong.push(format!("{}: {script}{name}", document.display()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "named but not there:\n{}",
        wrong.join("\n")
    );
}

/// The first two commands that a reader tries.
#[test]
fn the_readme_begins_with_two_commands() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let first = readme.find("cargo run -p migrate -- demo");
    let second = readme.find("scripts/test");
    assert!(first.is_some() && second.is_some(), "{first:?} {second:?}");
    for script in [
        "scripts/bench",
        "scripts/instructions",
        "scripts/lines",
        "scripts/picture",
        "scripts/release",
        "scripts/rustc-and-clippy",
        "scripts/test",
        ".ci/run",
        "tests/servers/build",
    ] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(root().join(script))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o111, 0o111, "{script} cannot be run");
    }
}

/// The word after each occurrence of the text.
fn after<'a>(text: &'a str, what: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(what).filter_map(move |(place, _)| {
        let rest = &text[place + what.len()..];
        rest.split(|c: char| c.is_whitespace())
            .next()
            .map(|word| word.trim_end_matches(['`', '.', ',']))
    })
}
