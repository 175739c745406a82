//! What only databases have: prepare, encrypt, rotate, keygen; and check, sweep, conformance.

use secret_persistence_core::{
    Coordinate, ManagedCoordinate, Scope, SecretPersistenceExt, SecretValue, Timestamp, Write,
};
use uuid::Uuid;

use crate::lab::{Lab, Ran, expect_exactly, names};

/// Runs a command on a store that the ring opens.
fn with_ring(lab: &Lab, arguments: &[&str]) -> Ran {
    let mut command = lab.command(arguments);
    command.env("SECRETS_KEYRING_FILE", "ring");
    command.output().unwrap().into()
}

/// The table of an installation that has never heard of us, with its secrets.
async fn foreign(lab: &Lab) {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(lab.file("target.db"))
        .create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT)")
        .execute(&pool)
        .await
        .unwrap();
    for (name, value) in &lab.secrets {
        sqlx::query("INSERT INTO secrets VALUES ($1, $2)")
            .bind(name.as_str())
            .bind(value)
            .execute(&pool)
            .await
            .unwrap();
    }
    pool.close().await;
}

#[tokio::test]
async fn a_plain_table_is_prepared_encrypted_and_rotated() {
    let lab = Lab::with_values(20, 1, |index| format!("canary-{index}-value")).await;
    foreign(&lab).await;
    let store = ["--store", "sqlite:target.db"];
    let plain = ["--store", "sqlite:target.db?mode=plain"];
    lab.run(&[&["prepare"], &plain[..]].concat())
        .expect(0)
        .says("ALTER TABLE")
        .says("--run");
    lab.run(&[&["prepare", "--run"], &plain[..]].concat())
        .expect(0);
    lab.run(&[&["prepare"], &plain[..]].concat())
        .expect(0)
        .says("already has every column");
    with_ring(&lab, &[&["encrypt"], &store[..]].concat())
        .expect(3)
        .says("--nothing-else-reads-it");
    with_ring(
        &lab,
        &[&["encrypt", "--nothing-else-reads-it"], &plain[..]].concat(),
    )
    .expect(2)
    .says("SECRETS_KEYRING_FILE");
    let encrypted = with_ring(
        &lab,
        &[
            &["encrypt", "--nothing-else-reads-it", "--json"],
            &store[..],
        ]
        .concat(),
    );
    assert_eq!(encrypted.expect(0).json()["converted"], 20);
    let bytes = std::fs::read(lab.file("target.db")).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"canary-"));
    expect_exactly(&lab.target().await, &lab.secrets).await;

    // Another key: handed out, made active, rotated to; then the old one can go.
    let keygen =
        |arguments: &[&str]| with_ring(&lab, &[&["keygen", "--file", "ring"], arguments].concat());
    keygen(&["--add", "k2"]).expect(0).says("--activate k2");
    keygen(&["--activate", "k2"]).expect(0);
    keygen(&["--remove", "k1", "--store", "sqlite:target.db"])
        .expect(2)
        .says("rotate first");
    let rotated = with_ring(&lab, &[&["rotate", "--json"], &store[..]].concat())
        .expect(0)
        .json();
    assert_eq!(rotated["rotated"], 20);
    keygen(&["--remove", "k1", "--store", "sqlite:target.db"])
        .expect(0)
        .says("keys: k2");
    keygen(&["--remove", "k2", "--store", "sqlite:target.db"]).expect(2);
    let again = with_ring(
        &lab,
        &[&["rotate", "--reencrypt", "--json"], &store[..]].concat(),
    );
    assert_eq!(again.expect(0).json()["rotated"], 20);
    expect_exactly(&lab.target().await, &lab.secrets).await;
    for command in ["prepare", "encrypt", "rotate"] {
        let ran = lab.run(&[command, "--store", "vault://localhost/secret"]);
        assert!([2, 3].contains(&ran.status), "{ran:?}");
    }
}

#[tokio::test]
async fn a_store_is_checked_and_swept() {
    let lab = Lab::empty();
    let target = lab.target().await;
    let name = |id| ManagedCoordinate::new(&Scope::ephemeral(), Uuid::from_u128(id), 1).unwrap();
    let past = Timestamp::from_unix_seconds(1_000_000_000).unwrap();
    let value = || SecretValue::new("x".into());
    target
        .write(Write::new(name(1), value()).with_expires(Some(past)))
        .await
        .unwrap();
    target.write(Write::new(name(2), value())).await.unwrap();
    target.close().await;
    let store = ["--store", "sqlite:target.db"];
    with_ring(&lab, &[&["sweep", "--dry-run"], &store[..]].concat())
        .expect(0)
        .says(name(1).as_str());
    assert_eq!(names(&lab.target().await).await.len(), 2);
    let swept = with_ring(&lab, &[&["sweep", "--json"], &store[..]].concat())
        .expect(0)
        .json();
    assert_eq!(swept["deleted"][0], name(1).as_str());
    let target = lab.target().await;
    assert!(target.read(&Coordinate::from(name(1))).await.is_err());
    assert!(target.read(&Coordinate::from(name(2))).await.is_ok());
    target.close().await;

    let check = with_ring(&lab, &[&["check", "--json"], &store[..]].concat())
        .expect(0)
        .json();
    assert_eq!(check["summary"], "works");
    assert_eq!(names(&lab.target().await).await.len(), 1);
    with_ring(&lab, &[&["check", "--keep"], &store[..]].concat())
        .expect(0)
        .says("left behind");
    assert_eq!(names(&lab.target().await).await.len(), 2);
}

#[test]
fn the_suite_runs_against_a_store() {
    let lab = Lab::empty();
    with_ring(&lab, &["prepare", "--run", "--store", "sqlite:target.db"]).expect(0);
    let ran = with_ring(
        &lab,
        &[
            "conformance",
            "--json",
            "--store",
            "sqlite:target.db",
            "--list-lag",
            "5s",
        ],
    )
    .expect(0);
    let result = ran.json();
    assert_eq!(result["passed"], true);
    assert!(result["cases"].as_array().unwrap().len() > 20);
}
