//! docs/operations.md: every command in it runs, in its order; every metric in it exists.

use std::path::{Path, PathBuf};
use std::process::Command;

use secret_persistence::{Environment, Kind, KubernetesSecrets, Settings};

use crate::lab::{Lab, Ran};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/operations.md")).unwrap()
}

/// The blocks of a language, without the indentation of the list that they are in.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for line in page.lines() {
        let text = line.trim_start();
        match &mut open {
            None if text == format!("```{language}") => {
                open = Some((line.len() - text.len(), String::new()));
            }
            Some((_, block)) if text == "```" => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            Some((indent, block)) => {
                *block += line.get(*indent..).unwrap_or_default();
                block.push('\n');
            }
            None => {}
        }
    }
    blocks
}

#[cfg(all(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
#[tokio::test]
async fn every_command_runs() {
    let lab = Lab::with(3, 2).await;
    // The page makes it.
    std::fs::remove_file(lab.file("ring")).unwrap();
    let target = "sqlite:target.db?mode=encrypted";
    lab.write(
        "move.toml",
        &format!(
            "from = 'sqlite:source.db?mode=plain'\nto = '{target}'\nstore = '{target}'\n\
             configs = ['{}']\njournal = 'journal.db'\nlag = '1s'\n",
            lab.table()
        ),
    );
    // A service has written it.
    let ledger = crate::ledger::Home::new(&lab);
    ledger.record(3).await;
    let tool = Path::new(env!("CARGO_BIN_EXE_secret-migrate"));
    let scripts = blocks(&page(), "sh");
    assert!(scripts.len() >= 8, "{}", scripts.len());
    for script in scripts {
        let mut path = std::ffi::OsString::from(tool.parent().unwrap());
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(lab.folder())
            .env_clear()
            .env("PATH", path)
            .env("SECRETS_OWNER", "lab")
            .env("TO_SECRETS_KEYRING_FILE", "ring")
            .env("STORE_SECRETS_KEYRING_FILE", "ring")
            .env("LEDGER_SECRETS_KEYRING_FILE", "ledger-ring")
            .env("LEDGER", "sqlite:ledger.db")
            .env("STORE", target)
            .env("OLD", "sqlite:source.db?mode=plain")
            .env("NEW", target)
            .env("CONFIGS", lab.table())
            .env("PLAIN", "sqlite:source.db?mode=encrypted")
            .output()
            .unwrap();
        let ran = Ran::from(output);
        assert_eq!(ran.status, 0, "{script}\n{}\n{}", ran.stdout, ran.stderr);
    }
    lab.expect_moved().await;
}

/// A command that the text names, with its options, is in a block, and so runs.
#[test]
fn every_named_command_is_in_a_block() {
    let page = page();
    let help = Lab::empty().run(&["--help"]).stdout;
    let commands: Vec<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|word| word.chars().all(|char| char.is_ascii_lowercase()))
        .collect();
    assert!(commands.len() > 15, "{commands:?}");
    let scripts = blocks(&page, "sh").concat();
    let run: Vec<&str> = scripts.lines().collect();
    let mut named = 0;
    for span in page.split('`').skip(1).step_by(2) {
        let mut words = span.trim_start_matches("secret-migrate ").split(' ');
        let command = words.next().unwrap_or_default();
        if !commands.contains(&command) {
            continue;
        }
        let options: Vec<&str> = words.filter(|word| word.starts_with("--")).collect();
        let runs = |line: &&&str| {
            line.contains(&format!("secret-migrate {command}"))
                && options.iter().all(|option| line.contains(option))
        };
        assert!(run.iter().find(runs).is_some(), "`{span}` is in no block");
        named += 1;
    }
    assert!(named > 20, "{named}");
}

#[test]
fn the_values_of_before_and_after_are_understood() {
    let lab = Lab::empty();
    let secret = lab.write(
        "secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: airbyte-config-secrets}\nstringData: {database-password: x}\n",
    );
    let values = blocks(&page(), "yaml");
    let kinds: Vec<Kind> = values
        .iter()
        .map(|text| {
            let secrets = KubernetesSecrets::none().with_file(&secret).unwrap();
            let settings = Settings::from_helm(text, &secrets, &Environment::empty());
            settings.unwrap().kind()
        })
        .collect();
    assert_eq!(kinds, [Kind::Database, Kind::Aws]);
}

/// A metric that nothing counts would be an alert that never comes.
#[test]
fn every_metric_of_the_pages_is_counted() {
    let mut sources = String::new();
    let mut open = vec![root().join("crates")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                sources += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let mut metrics = 0;
    for name in ["operations.md", "linking.md"] {
        let text = std::fs::read_to_string(root().join("docs").join(name)).unwrap();
        for word in text.split(|char: char| !(char.is_ascii_lowercase() || char == '_')) {
            let is_metric = word.starts_with("secrets_") || word.starts_with("secret_gateway_");
            if !is_metric {
                continue;
            }
            assert!(
                sources.contains(&format!("\"{word}\"")),
                "{name}: nothing counts {word}"
            );
            metrics += 1;
        }
    }
    assert!(metrics > 10, "{metrics}");
}

/// A claim about others names the page that it comes from, a claim about ours the test.
#[test]
fn every_claim_of_the_comparison_has_its_source() {
    let page = std::fs::read_to_string(root().join("docs/compare.md")).unwrap();
    let (_, ours) = page.split_once("## What this project claims").unwrap();
    let (ours, others) = ours.split_once("\n## ").unwrap();
    let claims: Vec<&str> = ours
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| claim"))
        .collect();
    assert!(claims.len() >= 8, "{}", claims.len());
    for claim in claims {
        assert!(claim.contains("](../"), "{claim}");
    }
    for section in others.split("\n## ") {
        let name = section.lines().next().unwrap();
        assert!(section.contains("](https://"), "{name} has no source");
        assert!(section.contains("**Better there:**"), "{name}");
        assert!(section.contains("**Better here:**"), "{name}");
    }
}
