//! Stores by files of settings, in the forms that operators have.

use crate::lab::{Lab, Ran, names};

fn moves(lab: &Lab, command: &str, more: &[&str]) -> Ran {
    let table = lab.table();
    let arguments = [
        &[command, "--configs", &table, "--journal", "journal.db"],
        more,
    ]
    .concat();
    lab.run(&arguments)
}

#[tokio::test]
async fn a_migration_runs_between_files_of_settings() {
    let lab = Lab::with(3, 2).await;
    let path = |name: &str| lab.file(name).display().to_string();
    lab.write(
        "source.env",
        &format!(
            "# ours\nSECRET_PERSISTENCE=testing_config_db_table\nDATABASE_URL=sqlite://{}\n",
            path("source.db")
        ),
    );
    // Its key ring is in the environment, under the name for the target.
    lab.write(
        "values.yaml",
        &format!(
            "externalDatabase:\n  jdbcUrl: 'jdbc:sqlite:{}'\n",
            path("target.db")
        ),
    );
    let route = [
        "--from-settings",
        "source.env",
        "--to-settings",
        "values.yaml",
    ];
    moves(&lab, "copy", &route).expect(0);
    lab.expect_moved().await;
    moves(&lab, "verify", &route).expect(0);
    // A URL for one side and a file for the other are the same two stores.
    moves(
        &lab,
        "verify",
        &["--from", "sqlite:source.db", "--to-settings", "values.yaml"],
    )
    .expect(0);
}

/// The services' settings have a mirror while secrets move. Were it opened too, `retire` would delete
/// what it has just compared from both stores, and nothing would be left.
#[tokio::test]
async fn a_mirror_in_the_settings_is_the_services_and_not_the_tools() {
    let lab = Lab::with(2, 2).await;
    let path = |name: &str| lab.file(name).display().to_string();
    lab.write(
        "source.env",
        &format!(
            "SECRET_PERSISTENCE=TESTING_CONFIG_DB_TABLE\nDATABASE_URL=sqlite://{}\n\
             SECRETS_MIRROR=sqlite://{}?mode=encrypted\n",
            path("source.db"),
            path("target.db")
        ),
    );
    let route = [
        "--from-settings",
        "source.env",
        "--to",
        "sqlite:target.db?mode=encrypted",
    ];
    moves(&lab, "copy", &route).expect(0);
    moves(&lab, "verify", &route).expect(0);
    moves(
        &lab,
        "retire",
        &[&route[..], &["--all-references"]].concat(),
    )
    .expect(0);
    lab.expect_moved().await;
    assert_eq!(names(&lab.source().await).await.len(), 0);
}

#[tokio::test]
async fn plain_text_is_told() {
    let lab = Lab::with(1, 1).await;
    for (file, owner) in [("source", ""), ("target", "SECRETS_OWNER=prod_eu\n")] {
        let path = lab.file(&format!("{file}.db"));
        lab.write(
            &format!("{file}.env"),
            &format!(
                "export DATABASE_URL = \"sqlite://{}\" # ours\n{owner}",
                path.display()
            ),
        );
    }
    let route = [
        "--from-settings",
        "source.env",
        "--to-settings",
        "target.env",
    ];
    let ran = moves(&lab, "copy", &route).expect(0);
    ran.says("source.db table secrets is plain text")
        // The file comes before the environment, which says another one.
        .says("owner prod_eu");
}

/// Who misspells the variable that names the store, or names it in another way, would otherwise move from
/// the database, or to it in plain text.
#[tokio::test]
async fn a_file_that_means_another_store_is_not_taken_for_the_database() {
    let lab = Lab::with(1, 1).await;
    let database = lab.file("source.db").display().to_string();
    for (line, expected) in [
        ("SECRET_PERSISTANCE=hunter2", "SECRET_PERSISTANCE is set"),
        (
            "SECRET_PERSISTENCE_TYPE=VAULT",
            "SECRET_PERSISTENCE_TYPE is set",
        ),
        (
            "SECRET_PERSISTENCE=\nVAULT_AUTH_TOKEN=hunter2",
            "set SECRET_PERSISTENCE=VAULT",
        ),
        (
            "SECRET_PERSISTENCE=TESTING_CONFIG_DB_TABLE\nSECRETS_OWNER='hunter2",
            "line 3",
        ),
    ] {
        lab.write(
            "source.env",
            &format!("DATABASE_URL=sqlite://{database}\n{line}\n"),
        );
        moves(
            &lab,
            "copy",
            &[
                "--from-settings",
                "source.env",
                "--to",
                "sqlite:target.db?mode=encrypted",
            ],
        )
        .expect(2)
        .says(expected)
        .never_says("hunter2");
    }
}

#[tokio::test]
async fn a_store_is_checked_and_swept_by_its_file_of_settings() {
    let lab = Lab::with(1, 1).await;
    lab.write(
        "pod.env",
        &format!(
            "DATABASE_URL=sqlite://{}\n",
            lab.file("source.db").display()
        ),
    );
    let of = |command: &str, more: &[&str]| {
        lab.run(&[&[command, "--store-settings", "pod.env"], more].concat())
    };
    let report = of("check", &["--json"]).expect(0).json();
    assert_eq!(report["works"], true, "{report}");
    let ran = of("check", &[]).expect(0);
    let last = ran.stdout.lines().last().unwrap();
    assert!(last.ends_with(": works") && !last.contains('('), "{last}");
    let shown = of("prepare", &[]).expect(0);
    assert!(shown.stdout.contains("prepare:"), "{shown:?}");
    let report = of("sweep", &["--dry-run", "--json"]).expect(0).json();
    assert_eq!(report["command"], "sweep", "{report}");
    lab.run(&["check", "--store-settings", "missing.env"])
        .expect(2)
        .says("--store-settings missing.env");
    lab.run(&["check"]).expect(2).says("--store");
    of("check", &["--store", "sqlite:source.db"]).expect(2);
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said_before_anything_is_opened() {
    let lab = Lab::with(1, 1).await;
    lab.write(
        "no.yaml",
        "global: {secretsManager: {type: VAULTS, vault: {token: hunter2}}}",
    );
    lab.write("both.yaml", "externalDatabase: {host: h, password: hunter2, jdbcUrl: 'jdbc:postgresql://u:hunter2@h/d'}");
    lab.write(
        "secret.yaml",
        "externalDatabase: {host: h, user: u, database: d, existingSecret: s, existingSecretPasswordKey: p}",
    );
    lab.write(
        "manifest.yaml",
        "kind: Secret\nmetadata: {name: s}\nstringData: {other: hunter2}",
    );
    let plan = |more: &[&str]| {
        moves(
            &lab,
            "plan",
            &[&["--to", "sqlite:target.db?mode=encrypted"], more].concat(),
        )
        .expect(2)
        .never_says("hunter2")
    };
    plan(&["--from-settings", "no.yaml"])
        .says("--from-settings no.yaml")
        .says("did you mean VAULT?");
    plan(&["--from-settings", "both.yaml"]).says("exclude each other");
    plan(&["--from-settings", "missing.yaml"]).says("cannot be read");
    plan(&["--from-settings", "secret.yaml"]).says("Secret s, which was not passed");
    plan(&[
        "--from-settings",
        "secret.yaml",
        "--kubernetes-secret",
        "manifest.yaml",
    ])
    .says("names a key that is missing or empty in the Kubernetes Secret s");
    plan(&[
        "--from-settings",
        "secret.yaml",
        "--kubernetes-secret",
        "nothing",
    ])
    .says("--kubernetes-secret nothing");
    if cfg!(not(feature = "vault")) {
        lab.write(
            "vault.json",
            r#"{"address": "https://v", "token": "hunter2", "prefix": "secret/"}"#,
        );
        plan(&["--from-settings", "vault.json"]).says("built in");
    }
}
