//! The OpenAPI document, tested by a program that nobody here wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use e2e::Client;
use secret_gateway::{Grant, Role, TokenFile};
use serde_json::Value;

use crate::program::{Program, log_of};
use crate::world::configurations;

fn token(folder: &Path, name: &str, roles: &[Role]) -> String {
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let tokens = TokenFile::new(folder.join("data").join("tokens.json"));
    let token = tokens
        .create(&Grant::new(name, roles.iter().copied()))
        .unwrap();
    token.expose().to_owned()
}

/// Every answer is one of the document, with tokens of every role.
#[test]
fn the_document_is_true() {
    let folder = tempfile::tempdir().unwrap();
    let all = token(folder.path(), "all", &Role::ALL);
    let roles: Vec<String> = Role::ALL
        .iter()
        .map(|role| token(folder.path(), role.as_str(), &[*role]))
        .collect();
    // A collector needs configurations, and an owner of the store.
    let file = configurations(folder.path(), &[("1", serde_json::json!({}))]);
    let flags = ["--configurations-file", &file];
    let owner = [("SECRETS_OWNER", "prod".to_owned())];
    let gateway = Program::start_with(folder.path(), &flags, &owner);
    let document = format!("{}/api/v1/openapi.json", gateway.base);
    let runs = std::iter::once((all.as_str(), "6", "examples,coverage,fuzzing,stateful")).chain(
        roles
            .iter()
            .map(|token| (token.as_str(), "1", "examples,fuzzing")),
    );
    for (token, examples, phases) in runs {
        let Some(mut tester) = Client::Schemathesis.command() else {
            return;
        };
        let output = tester
            .current_dir(folder.path())
            .args(["run", &document, "--no-color", "--generation-deterministic"])
            .args(["--header", &format!("Authorization: Bearer {token}")])
            // What a specification or a configuration may be no schema says: those are 422 with every problem.
            .args(["--exclude-checks", "positive_data_acceptance"])
            .args(["--max-examples", examples, "--phases", phases])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    // Every operation was answered with success, and none with a failure of ours.
    let mut answered: BTreeMap<(String, String), BTreeSet<u64>> = BTreeMap::new();
    for line in log_of(folder.path()).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let (Some(method), Some(route), Some(status)) = (
            line["method"].as_str(),
            line["route"].as_str(),
            line["status"].as_u64(),
        ) {
            assert!(status < 500, "{line}");
            let seen = answered
                .entry((method.to_owned(), route.to_owned()))
                .or_default();
            seen.insert(status);
        }
    }
    let document: Value =
        serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            if !["GET", "POST", "PUT", "DELETE"].contains(&method.as_str()) {
                continue;
            }
            let seen = answered.get(&(method.clone(), path.clone()));
            let succeeded = seen.is_some_and(|seen| seen.iter().any(|status| *status < 300));
            assert!(succeeded, "{method} {path} never succeeded: {seen:?}");
        }
    }
}
