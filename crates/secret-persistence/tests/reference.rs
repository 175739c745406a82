//! The tables of `docs/settings.md` match the code. `UPDATE_EXPECTED=1` updates them.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use secret_persistence::{COMMON, Kind, Setting, key_table};

const BEGIN: &str = "<!-- table: ";
const END: &str = "<!-- end -->";

/// The document with its tables generated from the code.
fn rendered(document: &str) -> String {
    let mut text = String::new();
    let mut rest = document;
    while let Some(at) = rest.find(BEGIN) {
        let (before, after) = rest.split_at(at);
        let line = after.find('\n').unwrap() + 1;
        let name = after[BEGIN.len()..line].trim_end_matches(" -->\n");
        let end = after.find(END).unwrap();
        text += before;
        text += &after[..line];
        text += &table(name);
        rest = &after[end..];
    }
    text + rest
}

fn table(name: &str) -> String {
    if name == "common" {
        return rows(COMMON, false);
    }
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == name)
        .unwrap();
    rows(key_table(kind).unwrap(), kind != Kind::Database)
}

fn rows(table: &[Setting], json: bool) -> String {
    let mut text = match json {
        true => String::from(
            "| setting | environment | Helm | JSON | URL | default | what it is |\n|---|---|---|---|---|---|---|\n",
        ),
        false => String::from(
            "| setting | environment | Helm | URL | default | what it is |\n|---|---|---|---|---|---|\n",
        ),
    };
    for row in table {
        let mut helm: Vec<String> = row.helm.iter().map(|key| format!("`{key}`")).collect();
        if let (Some(first), Some(default)) = (row.helm.first(), row.helm_secret.first()) {
            helm.push(format!(
                "`{first}SecretKey` (else `{default}` of the Secret)"
            ));
        }
        let url = match row.secret {
            true => String::from("never"),
            false => format!("`{}=`", row.name),
        };
        let mut cells = vec![
            format!("`{}`", row.name),
            list(row.env),
            or_dash(helm.join(", ")),
        ];
        if json {
            cells.push(list(row.json));
        }
        cells.extend([
            url,
            or_dash(
                row.default
                    .map_or_else(String::new, |text| format!("`{text}`")),
            ),
            about(row),
        ]);
        text += &format!(
            "| {} |\n",
            cells
                .iter()
                .map(|cell| cell.replace('|', "\\|"))
                .collect::<Vec<_>>()
                .join(" | ")
        );
    }
    text
}

fn about(row: &Setting) -> String {
    let marks = match (row.secret, row.operator_only) {
        (true, true) => "*secret, operator*: ",
        (true, false) => "*secret*: ",
        (false, true) => "*operator*: ",
        (false, false) => "",
    };
    format!("{marks}{}", row.doc)
}

fn list(names: &[&str]) -> String {
    or_dash(
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", "),
    )
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        String::from("–")
    } else {
        text
    }
}

#[test]
fn the_document_has_the_tables_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let document = fs::read_to_string(&path).unwrap();
    let rendered = rendered(&document);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &rendered).unwrap();
        return;
    }
    assert!(
        document == rendered,
        "docs/settings.md is out of date: run this test with UPDATE_EXPECTED=1"
    );
    for kind in Kind::ALL {
        assert!(
            document.contains(&format!("{BEGIN}{} -->", kind.as_str())),
            "{kind} is missing"
        );
    }
}

/// The names that Airbyte operators use, each in its table.
#[test]
fn every_documented_name_is_there() {
    for (kind, variables) in [
        (
            Kind::Aws,
            &[
                "AWS_SECRET_MANAGER_ACCESS_KEY_ID",
                "AWS_SECRET_MANAGER_SECRET_ACCESS_KEY",
                "AWS_SECRET_MANAGER_REGION",
                "AWS_SECRET_MANAGER_SECRET_TAGS",
                "AWS_KMS_KEY_ARN",
                "AWS_ASSUME_ROLE_ACCESS_KEY_ID",
                "AWS_ASSUME_ROLE_SECRET_ACCESS_KEY",
                "AWS_ACCESS_KEY",
                "AWS_SECRET_ACCESS_KEY",
            ][..],
        ),
        (
            Kind::Google,
            &[
                "SECRET_STORE_GCP_PROJECT_ID",
                "SECRET_STORE_GCP_CREDENTIALS",
                "SECRET_STORE_GCP_REGION",
            ],
        ),
        (
            Kind::Azure,
            &[
                "AB_AZURE_KEY_VAULT_VAULT_URL",
                "AB_AZURE_KEY_VAULT_TENANT_ID",
                "AB_AZURE_KEY_VAULT_CLIENT_ID",
                "AB_AZURE_KEY_VAULT_CLIENT_SECRET",
                "AB_AZURE_KEY_VAULT_TAGS",
            ],
        ),
        (
            Kind::Vault,
            &[
                "VAULT_ADDRESS",
                "VAULT_PREFIX",
                "VAULT_AUTH_TOKEN",
                "VAULT_AUTH_METHOD",
            ],
        ),
        (
            Kind::Database,
            &[
                "DATABASE_URL",
                "DATABASE_HOST",
                "DATABASE_PORT",
                "DATABASE_DB",
                "DATABASE_USER",
                "DATABASE_PASSWORD",
            ],
        ),
    ] {
        let table = key_table(kind).unwrap();
        for variable in variables {
            let rows = table
                .iter()
                .filter(|row| row.env.contains(variable))
                .count();
            assert_eq!(rows, 1, "{kind}: {variable}");
        }
    }
}

/// Common settings and settings of a store share one namespace in URLs.
#[test]
fn no_name_means_two_things() {
    for kind in Kind::ALL {
        for row in key_table(kind).unwrap() {
            let common = COMMON.iter().any(|common| common.name == row.name);
            assert!(!common, "{kind}: {}", row.name);
        }
    }
}
