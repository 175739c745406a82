//! `deploy/secret-migrate`: Kubernetes takes the manifests, the tool takes their options, and the Jobs move an
//! installation. No image is built.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use e2e::Client;
use serde_json::Value;

use crate::{
    installation::{FIRST, Installation, LAST},
    program::Program,
};

const MANIFESTS: [&str; 3] = ["migration.yaml", "plan.yaml", "copy.yaml"];

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(file)
}

fn manifest(name: &str) -> String {
    fs::read_to_string(deploy("secret-migrate/kubernetes").join(name)).unwrap()
}

/// The values of a key in the manifests, which have one line each.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text
        .lines()
        .map(|line| line.trim_start().trim_start_matches("- "));
    lines
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        .collect()
}

/// The file in the ConfigMap.
fn options() -> String {
    let text = manifest("migration.yaml");
    let start = text.find("  move.toml: |\n").unwrap();
    let lines = text[start..].lines().skip(1);
    let lines = lines.take_while(|line| line.starts_with("    "));
    lines.map(|line| format!("{}\n", &line[4..])).collect()
}

/// The arguments of each container, with another path of the file.
fn commands(text: &str) -> Vec<Vec<String>> {
    let lists = values(text, "args").into_iter();
    lists
        .map(|list| {
            let list = list.trim_matches(['[', ']']).split(", ");
            list.map(|word| match word.strip_prefix("/config/") {
                Some(file) => {
                    assert!(
                        text.contains(&format!("path: {file}\n")),
                        "{file} is not mounted"
                    );
                    file.to_owned()
                }
                None => word.to_owned(),
            })
            .collect()
        })
        .collect()
}

#[test]
fn kubernetes_takes_the_manifests_of_the_tool() {
    for name in MANIFESTS {
        let Some(mut python) = Client::Python.command() else {
            return;
        };
        let output = python
            .args(["-m", "kubernetes_validate", "--strict"])
            .arg(deploy("secret-migrate/kubernetes").join(name))
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

/// The Jobs run with the file of the ConfigMap, in which only the places of the stores are others, and with no variable
/// but theirs.
#[tokio::test]
async fn the_jobs_move_an_installation() {
    let Some(installation) = Installation::new(3).await else {
        return;
    };
    let program = &installation.program;
    let mut file = String::from("configs = ['configs.jsonl']\njournal = 'journal.db'\n");
    file += &format!("from = '{FIRST}'\nto = '{LAST}'\nlag = '1s'\n");
    fs::write(program.folder().join("move.toml"), file).unwrap();
    let jobs = manifest("plan.yaml") + &manifest("copy.yaml");
    let commands = commands(&jobs);
    let names: Vec<_> = commands.iter().map(|command| command[0].as_str()).collect();
    assert_eq!(names, ["plan", "copy", "verify"]);
    for command in &commands {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        program.run(&words).await.expect(0);
    }
    installation.expect_in(&installation.last).await;
}

/// The file of the ConfigMap with the variables of the Jobs has no mistake: the first that fails is the connection, which
/// is what the Jobs try again; a mistake is what they do not.
#[tokio::test]
async fn the_tool_takes_the_options_of_the_manifests() {
    let Some(mut program) = Program::found() else {
        return;
    };
    let jobs = manifest("plan.yaml") + &manifest("copy.yaml");
    let variables: BTreeSet<_> = values(&jobs, "name")
        .into_iter()
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    assert_eq!(
        variables.iter().copied().collect::<Vec<_>>(),
        ["DATABASE_PASSWORD", "DATABASE_USER", "SECRETS_OWNER"]
    );
    program.set("DATABASE_USER", "airbyte");
    program.set(
        "SECRETS_OWNER",
        values(&manifest("migration.yaml"), "SECRETS_OWNER")[0],
    );
    // Nothing listens there.
    let file = options().replace("db.example.com:5432", "127.0.0.1:1");
    assert_eq!(file.matches("127.0.0.1:1").count(), 5, "{file}");
    fs::write(program.folder().join("move.toml"), &file).unwrap();
    let plan = ["plan", "--config", "move.toml"];
    program.set_credential("DATABASE_PASSWORD", "canary-of-the-manifests");
    program.run(&plan).await.expect(4);
    fs::write(
        program.folder().join("move.toml"),
        file + "orphan = 'leave'\n",
    )
    .unwrap();
    // Found before the output is JSON.
    let mistaken = program.run(&plan).await;
    assert_eq!(mistaken.status, 2, "{}", mistaken.text);

    for name in ["plan.yaml", "copy.yaml"] {
        let text = manifest(name);
        assert_eq!(values(&text, "restartPolicy"), ["Never"], "{name}");
        assert_eq!(values(&text, "values"), ["[1, 2, 3]"], "{name}");
        let readonly = values(&text, "readOnlyRootFilesystem");
        assert_eq!(readonly.len(), commands(&text).len(), "{name}");
        assert!(readonly.iter().all(|value| *value == "true"), "{name}");
    }
}

/// The packages, features and programs that an image is made of exist, and it starts what it copies.
#[test]
fn the_images_are_made_of_what_exists() {
    let metadata = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let toolchain = metadata["packages"][0]["rust_version"].as_str().unwrap();
    let (toolchain, _) = toolchain.rsplit_once('.').unwrap();
    for program in ["secret-migrate", "secret-gateway"] {
        let text = fs::read_to_string(deploy(program).join("Containerfile")).unwrap();
        let words: Vec<_> = text.split_whitespace().collect();
        let after = |option: &str| {
            let place = words.iter().position(|word| *word == option);
            words[place.unwrap_or_else(|| panic!("{program}: {option}")) + 1]
        };
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages
            .iter()
            .find(|package| package["name"] == after("--package"))
            .unwrap();
        assert!(
            !package["features"][after("--features")].is_null(),
            "{program}"
        );
        let targets = package["targets"].as_array().unwrap();
        assert!(
            targets.iter().any(|target| target["name"] == program),
            "{program}"
        );
        assert!(
            text.contains(&format!("FROM docker.io/library/rust:{toolchain}-")),
            "{program}"
        );
        assert!(text.contains(&format!(
            "/source/target/release/{program} /usr/local/bin/{program}\n"
        )));
        assert!(text.contains(&format!("ENTRYPOINT [\"/usr/local/bin/{program}\"]\n")));
        assert!(text.contains(&format!("--file deploy/{program}/Containerfile ")));
    }
}
