//! docs/dependencies.md lists every dependency: the direct ones with a reason by hand, all of them
//! from Cargo.lock. `UPDATE_EXPECTED=1` writes the second table.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const BEGIN: &str = "<!-- every dependency -->\n";
const END: &str = "<!-- end -->";

/// Evens out features of indirect dependencies for the gate; its dependencies are others' already.
const SHARED: &str = "shared-features";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/dependencies.md")
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--all-features",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Our packages by id, and the packages of others.
fn packages(metadata: &Value) -> (BTreeSet<&str>, Vec<&Value>) {
    let ours: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let others = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| !ours.contains(text(package, "id")))
        .collect();
    (ours, others)
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let metadata = metadata();
    let (ours, _) = packages(&metadata);
    let mut direct = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        if !ours.contains(text(package, "id")) || text(package, "name") == SHARED {
            continue;
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["path"].is_null() {
                direct.insert(text(dependency, "name"));
            }
        }
    }
    let page = fs::read_to_string(page()).unwrap();
    let (by_hand, _) = page.split_once(BEGIN).unwrap();
    let listed: BTreeSet<&str> = by_hand
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, rest)| {
            let reason = rest.trim_matches([' ', '|']);
            assert!(reason.split(' ').count() >= 3, "{name} has no reason");
            name
        })
        .collect();
    let missing: Vec<_> = direct.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&direct).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "without a reason: {missing:?}; no longer used: {gone:?}"
    );
}

#[test]
fn every_dependency_is_listed() {
    let metadata = metadata();
    let expected = table(&metadata);
    let page_path = page();
    let text = fs::read_to_string(&page_path).unwrap();
    let start = text.find(BEGIN).unwrap() + BEGIN.len();
    let end = start + text[start..].find(END).unwrap();
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        let new = text[..start].to_owned() + &expected + &text[end..];
        fs::write(&page_path, new).unwrap();
        return;
    }
    assert!(
        text[start..end] == expected,
        "Cargo.lock has changed: UPDATE_EXPECTED=1 cargo test -p e2e --test e2e dependencies"
    );
}

/// One row for each crate and version: licence, what runs while compiling, and who depends on it.
fn table(metadata: &Value) -> String {
    let (_, others) = packages(metadata);
    let names: HashMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (text(package, "id"), text(package, "name")))
        .collect();
    let mut users: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let user = names[text(node, "id")];
        for dependency in node["deps"].as_array().unwrap() {
            users
                .entry(text(dependency, "pkg"))
                .or_default()
                .insert(user);
        }
    }
    let mut rows = BTreeMap::new();
    for package in others {
        let kinds: BTreeSet<&str> = package["targets"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|target| target["kind"].as_array().unwrap())
            .filter_map(Value::as_str)
            .collect();
        let runs = match (kinds.contains("custom-build"), kinds.contains("proc-macro")) {
            (false, false) => "",
            (true, false) => "build script",
            (false, true) => "macro",
            (true, true) => "build script, macro",
        };
        let used_by = users
            .get(text(package, "id"))
            .map(|users| users.iter().copied().collect::<Vec<_>>().join(", "))
            .unwrap_or_default();
        let (name, version) = (text(package, "name"), text(package, "version"));
        let row = format!(
            "| {name} {version} | {} | {runs} | {used_by} |\n",
            text(package, "license"),
        );
        rows.insert((name, version), row);
    }
    let mut table =
        String::from("| crate | licence | runs while compiling | used by |\n|---|---|---|---|\n");
    table.extend(rows.into_values());
    table
}
