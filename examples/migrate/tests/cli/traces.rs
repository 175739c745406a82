//! What a command that was mistyped, or only looked, must not leave behind.

use std::collections::BTreeSet;

use crate::lab::{Lab, Ran};

/// The files of the lab, and the tables of its source.
async fn everything(lab: &Lab) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = std::fs::read_dir(lab.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(lab.file("source.db"));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master")
        .fetch_all(&pool)
        .await
        .unwrap();
    pool.close().await;
    all.extend(tables.into_iter().map(|table| format!("table {table}")));
    all
}

#[tokio::test]
async fn a_misspelt_store_is_refused_by_every_command_and_nothing_is_made() {
    let lab = Lab::with(2, 1).await;
    let before = everything(&lab).await;
    let table = lab.table();
    for wrong in ["sqlite:nosuch.db", "sqlite:source.db?table=secretz"] {
        let route = [
            "--to",
            "sqlite:target.db?mode=encrypted",
            "--configs",
            &table,
            "--journal",
            "journal.db",
        ];
        for command in ["plan", "copy", "verify", "rollback", "retire"] {
            for more in [&[][..], &["--dry-run"]] {
                let mut arguments = vec![command, "--from", wrong];
                arguments.extend(route);
                arguments.extend(more);
                if command == "retire" {
                    arguments.push("--all-references");
                }
                lab.run(&arguments).expect(2).says("--from sqlite:");
            }
        }
        for command in ["check", "conformance", "rotate", "sweep", "encrypt"] {
            let mut arguments = vec![command, "--store", wrong];
            if command == "encrypt" {
                arguments.push("--nothing-else-reads-it");
            }
            let mut run = lab.command(&arguments);
            let ran: Ran = run
                .env("STORE_SECRETS_KEYRING_FILE", "ring")
                .output()
                .unwrap()
                .into();
            ran.expect(2).says("--store sqlite:");
        }
        lab.run(&["sweep", "--dry-run", "--store", wrong]).expect(2);
        // The shown SQL makes it; showing it does not.
        lab.run(&["prepare", "--store", wrong]).expect(0);
        lab.run(&[
            "keygen", "--file", "ring", "--remove", "k1", "--store", wrong,
        ])
        .expect(2);
    }
    assert_eq!(everything(&lab).await, before);
}

#[tokio::test]
async fn the_target_is_made_by_the_command_that_fills_it() {
    let lab = Lab::with(2, 1).await;
    let before = everything(&lab).await;
    let split = [
        "split",
        "--dry-run",
        "--store",
        "sqlite:target.db?mode=plain",
        "--configs",
        &lab.table(),
    ];
    lab.run(&split).says("target.db does not exist");
    for (command, more) in [("plan", &[][..]), ("copy", &["--dry-run"])] {
        let ran = lab.moves(command, more).expect(0);
        ran.says("target.db does not exist").says("2 to be written");
    }
    for command in ["verify", "rollback"] {
        lab.moves(command, &[]).expect(2).says("--to sqlite:");
    }
    assert_eq!(everything(&lab).await, before);
    lab.moves("copy", &[]).expect(0);
    lab.expect_moved().await;
}

/// The tool itself advises to set the owner, or another table: the same journal has to do then.
#[tokio::test]
async fn a_journal_is_bound_by_what_was_done_and_not_by_a_look() {
    let lab = Lab::with(2, 1).await;
    let mut without_owner = lab.command(&lab.between("plan", &[]));
    let planned = without_owner.env_remove("SECRETS_OWNER").output().unwrap();
    assert!(planned.status.success(), "{planned:?}");
    assert!(!lab.file("journal.db").exists());
    // Another store that exists: a typo that nothing can tell from what was meant.
    let source = lab.source().await;
    source.close().await;
    std::fs::copy(lab.file("source.db"), lab.file("other.db")).unwrap();
    let mut typo = lab.between("plan", &[]);
    typo[2] = "sqlite:other.db".into();
    lab.run(&typo).expect(0);
    lab.moves("copy", &["--dry-run"]).expect(0);
    assert!(!lab.file("journal.db").exists());
    lab.moves("copy", &[]).expect(0);
    // From here on it belongs to the run, whatever only looks.
    typo[0] = "copy".into();
    lab.run(&typo).expect(2).says("belongs to another run");
    lab.moves("plan", &[]).expect(0);
    lab.moves("verify", &[]).expect(0);
    lab.moves("rollback", &[]).expect(0);
}
