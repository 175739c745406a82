//! Compares tables of ARCHITECTURE.md with the tree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const BACKENDS: [&str; 5] = ["aws", "azure", "db", "gcp", "vault"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the workspace")
}

/// The rows of the table under a heading: the first cell without its backticks, and the others.
fn table(heading: &str) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text
        .split_once(&format!("\n### {heading}\n"))
        .unwrap_or_else(|| panic!("ARCHITECTURE.md has no heading {heading}"))
        .1;
    let rows: Vec<_> = section
        .lines()
        .skip_while(|line| !line.starts_with("| `"))
        .take_while(|line| line.starts_with("| `"))
        .map(|line| {
            let mut cells = line
                .trim_matches('|')
                .split(" | ")
                .map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.collect())
        })
        .collect();
    assert!(!rows.is_empty(), "no table under {heading}");
    rows
}

#[test]
fn the_rooms_of_the_backends_are_those_of_the_tree() {
    let mut tree: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for backend in BACKENDS {
        let source = root().join(format!("crates/secrets-{backend}/src"));
        for entry in fs::read_dir(&source).unwrap() {
            let path = entry.unwrap().path();
            let room = path.file_stem().unwrap().to_str().unwrap().to_owned();
            tree.entry(room).or_default().insert(backend);
        }
    }
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (room, cells) in table("The rooms of the backends") {
        let [backends, what] = cells.as_slice() else {
            panic!("{room}: {cells:?}");
        };
        assert!(what.len() > 10, "{room}: what is it for?");
        let backends = backends.split_whitespace().map(str::to_owned).collect();
        assert!(
            told.insert(room.clone(), backends).is_none(),
            "{room} twice"
        );
    }
    let line = |(room, backends): (&String, String)| format!("| `{room}` | {backends} |");
    let tree: BTreeSet<String> = tree
        .iter()
        .map(|(room, backends)| line((room, Vec::from_iter(backends.iter().copied()).join(" "))))
        .collect();
    let told: BTreeSet<String> = told
        .iter()
        .map(|(room, backends)| line((room, Vec::from_iter(backends.iter().cloned()).join(" "))))
        .collect();
    assert_eq!(
        told.difference(&tree).collect::<Vec<_>>(),
        tree.difference(&told).collect::<Vec<_>>(),
        "ARCHITECTURE.md, \"The rooms of the backends\": left is written there, right is true"
    );
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// Whether the code outside of tests and comments exposes a secret.
fn exposes(text: &str) -> bool {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .any(|line| line.contains(".expose()") && !line.trim_start().starts_with("//"))
}

#[test]
fn a_secret_is_exposed_where_architecture_says() {
    let crates = root().join("crates");
    let mut files = Vec::new();
    for package in fs::read_dir(&crates).unwrap() {
        sources(&package.unwrap().path().join("src"), &mut files);
    }
    let rows = table("Where a secret is exposed");
    let mut used = BTreeSet::new();
    let mut untold = Vec::new();
    for file in files {
        let name = file.strip_prefix(&crates).unwrap().to_str().unwrap();
        let only_for_tests = name.ends_with("tests.rs")
            || name.contains("/tests/")
            || name.contains("/interleavings")
            || name.ends_with("layer/probe.rs");
        if only_for_tests || !exposes(&fs::read_to_string(&file).unwrap()) {
            continue;
        }
        // A row is a file, or a folder with a slash at its end.
        match rows
            .iter()
            .find(|(row, _)| name == row || row.ends_with('/') && name.starts_with(row.as_str()))
        {
            Some((row, _)) => _ = used.insert(row.clone()),
            None => untold.push(name.to_owned()),
        }
    }
    let unused: Vec<_> = rows
        .iter()
        .filter(|(row, _)| !used.contains(row))
        .map(|(row, _)| row)
        .collect();
    assert!(
        untold.is_empty() && unused.is_empty(),
        "ARCHITECTURE.md, \"Where a secret is exposed\" lacks {untold:?} and has {unused:?} for nothing"
    );
}
