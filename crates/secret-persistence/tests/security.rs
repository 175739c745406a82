//! `SECURITY.md` and the claims of `docs/compare.md`: every row names what proves it, and that exists.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// The links of a text whose label is code: label and file.
fn links(text: &str) -> Vec<(&str, &str)> {
    text.split("[`")
        .skip(1)
        .filter_map(|rest| {
            let (label, rest) = rest.split_once("`](")?;
            Some((label, rest.split_once(')')?.0))
        })
        .collect()
}

/// Whether a file has a test of this name, or, if it is a script, runs what is named.
fn proves(root: &Path, label: &str, file: &str) -> bool {
    let Ok(text) = fs::read_to_string(root.join(file)) else {
        return false;
    };
    if !file.ends_with(".rs") {
        return text.contains(label);
    }
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let is_it = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(label))
            .is_some_and(|rest| rest.starts_with('('))
    };
    // Attributes and comments may stand between `#[test]` and the function.
    lines.iter().enumerate().any(|(at, line)| {
        is_it(line)
            && lines[..at]
                .iter()
                .rev()
                .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
                .any(|line| line.starts_with("#[test") || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn every_row_names_a_test_of_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .filter(|line| {
            !["| from whom", "| guarantee", "| covered"]
                .iter()
                .any(|head| line.starts_with(head))
        })
        .collect();
    assert!(rows.len() >= 18, "{} rows", rows.len());
    for row in rows {
        assert!(!links(row).is_empty(), "no test proves: {row}");
    }
    for (label, file) in links(&page) {
        assert!(proves(&root, label, file), "{file} has no test {label}");
    }
}

#[test]
fn every_claim_of_the_comparison_names_a_test_of_the_tree() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let page = fs::read_to_string(docs.join("compare.md")).unwrap();
    let (_, claims) = page
        .split_once("| claim | the test |\n|---|---|\n")
        .unwrap();
    let rows: Vec<&str> = claims.lines().take_while(|line| !line.is_empty()).collect();
    assert!(rows.len() >= 9, "{} rows", rows.len());
    for row in rows {
        let links = links(row);
        assert!(!links.is_empty(), "no test proves: {row}");
        for (label, file) in links {
            assert!(proves(&docs, label, file), "{file} has no test {label}");
        }
    }
}

/// The comparison finds what it is for.
#[test]
fn a_helper_and_a_missing_function_prove_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = "tests/security.rs";
    assert!(proves(root, "every_row_names_a_test_of_the_tree", here));
    for label in ["proves", "every_row", "no_such_test"] {
        assert!(!proves(root, label, here), "{label}");
    }
    assert!(!proves(root, "proves", "tests/no_such_file.rs"));
    assert_eq!(
        links("x [`a`](b.rs), [c](d) [`e`](f)"),
        [("a", "b.rs"), ("e", "f")]
    );
}
