//! A platform with a prefix of its own: `SECRETS_MANAGED_PREFIX`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lab::{Lab, Ran};

const BASE_ID: &str = "00000000-0000-0000-0000-000000000007";

/// Runs the tool with the prefix `acme_`.
fn acme<A: AsRef<OsStr>>(lab: &Lab, arguments: &[A]) -> Ran {
    let mut command = lab.command(arguments);
    command.env("SECRETS_MANAGED_PREFIX", "acme_");
    command.output().unwrap().into()
}

fn acme_moves(lab: &Lab, command: &str, more: &[&str]) -> Ran {
    acme(lab, &lab.between(command, more))
}

/// Runs a filter over these lines with the prefix `acme_`.
fn acme_filter(lab: &Lab, filter: &str, store: &str, lines: &[Value]) -> Ran {
    let mut command = lab.command(&[filter, "-", "--store", store]);
    let mut child = command
        .env("SECRETS_MANAGED_PREFIX", "acme_")
        .env("STORE_SECRETS_KEYRING_FILE", "ring")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for line in lines {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    child.wait_with_output().unwrap().into()
}

fn rows(ran: &Ran) -> Vec<Value> {
    let rows = ran.stdout.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn secrets_move_under_the_names_that_they_have() {
    let lab = Lab::empty();
    let line = |(id, password)| {
        json!({
            "id": id,
            "baseId": BASE_ID,
            "connectionSpecification": {"properties": {"password": {"airbyte_secret": true}}},
            "configuration": {"password": password},
        })
    };
    let lines = [("a", "one"), ("b", "two")].map(line);
    let split = acme_filter(&lab, "split", "sqlite:source.db?mode=plain", &lines).expect(0);
    let saved = rows(&split);
    lab.configurations().await.close().await;
    for row in &saved {
        let (id, configuration) = (row["id"].as_str().unwrap(), &row["configuration"]);
        let name = configuration["password"]["_secret"].as_str().unwrap();
        assert!(
            name.starts_with(&format!("acme_workspace_{BASE_ID}_secret_")),
            "{name}"
        );
        lab.sql(&format!(
            "INSERT INTO actor (id, workspace_id, configuration) VALUES ('{id}', '{BASE_ID}', '{configuration}')"
        ))
        .await;
    }

    // A process that does not follow the prefix sees no secret of its own here, so it moves and
    // deletes none. It asks what to do about external ones.
    lab.moves("copy", &[]).expect(3);
    let leave = ["--external", "leave"];
    lab.moves("copy", &leave).expect(0);
    lab.moves("verify", &leave).expect(0);
    let retire = ["--external", "leave", "--all-references"];
    lab.moves("retire", &retire).expect(0).never_says("deleted");

    let passwords = |store: &str| {
        let full = rows(&acme_filter(&lab, "hydrate", store, &saved).expect(0));
        [0, 1].map(|row| full[row]["configuration"]["password"].clone())
    };
    assert_eq!(passwords("sqlite:source.db?mode=plain"), ["one", "two"]);
    acme_moves(&lab, "copy", &[]).expect(0);
    acme_moves(&lab, "verify", &[]).expect(0);
    acme_moves(&lab, "retire", &["--all-references"]).expect(0);
    assert_eq!(passwords("sqlite:target.db?mode=encrypted"), ["one", "two"]);
    let emptied = acme_filter(&lab, "hydrate", "sqlite:source.db?mode=plain", &saved);
    assert_ne!(emptied.status, 0, "{}", emptied.stdout);
}

#[test]
fn every_policy_names_the_prefix() {
    let lab = Lab::empty();
    for (arguments, own) in [
        (
            &[
                "policy",
                "aws",
                "--region",
                "eu-west-1",
                "--account",
                "123456789012",
            ][..],
            "secret:acme_*",
        ),
        (
            &["policy", "gcp", "--project-number", "123456789012"],
            "projects/123456789012/secrets/acme_",
        ),
        (
            &["policy", "vault", "--prefix", "secret/acme/"],
            "secret/data/acme/acme_*",
        ),
    ] {
        acme(&lab, arguments)
            .expect(0)
            .says(own)
            .never_says("airbyte_");
    }
}

#[test]
fn a_prefix_for_one_store_or_of_another_shape_is_refused() {
    let lab = Lab::empty();
    for (variable, prefix) in [
        ("SECRETS_MANAGED_PREFIX", "Acme"),
        ("STORE_SECRETS_MANAGED_PREFIX", "acme_"),
    ] {
        let mut check = lab.command(&["check", "--store", "sqlite:new.db?mode=plain"]);
        let ran = Ran::from(check.env(variable, prefix).output().unwrap());
        ran.expect(2).says("SECRETS_MANAGED_PREFIX");
    }
    let mut help = lab.command(&["--help"]);
    help.env("SECRETS_MANAGED_PREFIX", "Acme");
    Ran::from(help.output().unwrap()).expect(0);
}
