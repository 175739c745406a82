//! What commands say about what they found: numbers, reasons and the next step, and nothing that did
//! not happen.

use secret_persistence_core::{DeleteOptions, SecretPersistence, SecretPersistenceExt};

use crate::lab::Lab;

/// Deletes the secrets of these connectors, immediately and from one side.
async fn lose(lab: &Lab, store: &dyn SecretPersistence, numbers: &[usize]) {
    let names: Vec<_> = lab.secrets.keys().collect();
    for number in numbers {
        store
            .delete(names[*number], &DeleteOptions::default())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn retire_says_what_is_left_and_how_to_end_it() {
    let lab = Lab::with(3, 1).await;
    lab.sql("DELETE FROM actor WHERE id = 'connector-000001'")
        .await;
    let orphan = lab.secrets.keys().nth(1).unwrap().to_string();
    let leave = ["--orphaned", "leave"];
    lab.moves("copy", &leave).expect(0);
    let retire = [&leave[..], &["--all-references"]].concat();
    let ran = lab.moves("retire", &retire).expect(1);
    ran.says("retire: finished; 1 secrets of this installation remain in the source")
        .says(&orphan)
        .says("copy --orphaned copy")
        .never_says("retire: done");
    let report = lab
        .moves("retire", &[&retire[..], &["--json"]].concat())
        .expect(1)
        .json();
    assert_eq!(report["tally"]["remaining"], 1, "{report}");
    assert_eq!(
        report["findings"]["kept"]["listed"][0]["coordinate"],
        *orphan
    );
    // As it says: copied, and retired.
    lab.moves("copy", &["--orphaned", "copy"]).expect(0);
    lab.moves("retire", &["--all-references"])
        .expect(0)
        .says("retire: done");
}

#[tokio::test]
async fn verify_names_what_it_skipped_and_why() {
    let lab = Lab::with(3, 1).await;
    let source = lab.source().await;
    lose(&lab, &source, &[1]).await;
    source.close().await;
    let skip = ["--missing", "skip"];
    lab.moves("copy", &skip).expect(0);
    lab.moves("verify", &skip)
        .expect(0)
        .says("secrets of configurations that were not verified")
        .says("connector-000001")
        .says("neither store has this secret");
    let report = lab.moves("verify", &[&skip[..], &["--json"]].concat());
    let report = report.expect(0).json();
    let skipped = &report["findings"]["skipped"]["listed"][0];
    let configuration = skipped["configuration"].as_str().unwrap();
    assert!(configuration.ends_with("connector-000001"), "{report}");
    assert!(skipped["detail"].as_str().unwrap().contains("neither"));
}

/// Three places of one configuration are three places, not three configurations; and what only
/// `--references` is missing for is correct as it is.
#[tokio::test]
async fn places_are_counted_as_places_and_references_are_not_mistakes() {
    let lab = Lab::with(1, 1).await;
    lab.sql(
        "INSERT INTO actor (id, configuration) VALUES ('torn', \
         '{\"a\": {\"_secret\": 1}, \"b\": {\"_secret\": 2}, \"c\": {\"_secret\": 3}}')",
    )
    .await;
    lab.moves("plan", &[])
        .expect(3)
        .says("         3  places in configurations that cannot be understood  → correct them")
        .never_says("3  configurations")
        .never_says("--references");
    lab.sql(
        "UPDATE actor SET configuration = \
         '{\"a\": {\"_secret_reference_id\": \"0b5e0000-0000-0000-0000-00000000000a\"}}' \
         WHERE id = 'torn'",
    )
    .await;
    lab.moves("plan", &[])
        .expect(3)
        .says("1  places in configurations that name a secret by a reference  → --references")
        .never_says("correct them");
}

/// Only what deletes says that it deleted nothing.
#[tokio::test]
async fn verify_does_not_say_that_it_refused_to_delete() {
    let lab = Lab::with(3, 1).await;
    lab.moves("copy", &[]).expect(0);
    for store in [lab.source().await, lab.target().await] {
        lose(&lab, &store, &[1]).await;
        store.close().await;
    }
    lab.moves("verify", &[])
        .expect(1)
        .says("connector-000001")
        .says("verify: finished; the configurations above do not hydrate from the target")
        .never_says("refused")
        .never_says("deleted");
    for command in ["rollback", "retire"] {
        let more: &[&str] = match command {
            "retire" => &["--all-references"],
            _ => &[],
        };
        lab.moves(command, more)
            .expect(3)
            .says("refused")
            .says("nothing was deleted");
    }
}

/// A service has rotated two secrets since the copy: new versions, the rows, then the old ones went.
#[tokio::test]
async fn what_changed_since_the_copy_is_counted_and_copied_by_the_next() {
    let mut lab = Lab::with(3, 1).await;
    lab.moves("copy", &[]).expect(0);
    let source = lab.source().await;
    let old: Vec<_> = lab.secrets.keys().take(2).cloned().collect();
    for name in &old {
        let text = name.as_str().replace("_v1", "_v2");
        let next = secret_persistence_core::ManagedCoordinate::parse(&text).unwrap();
        let value = secret_persistence_core::SecretValue::new("rotated".into());
        let write = secret_persistence_core::Write::new(next.clone(), value);
        assert!(source.write_batch(&[write]).await[0].is_ok());
        lab.sql(&format!(
            "UPDATE actor SET configuration = replace(configuration, '{name}', '{next}')"
        ))
        .await;
        lab.secrets.insert(next, "rotated".into());
    }
    lose(&lab, &source, &[0, 2]).await;
    source.close().await;
    lab.moves("verify", &[])
        .expect(0)
        .says("verify: finished; 2 changed in the meantime; run copy again")
        .says("         2  changed since they were copied; the next copy updates them");
    lab.moves("copy", &[]).expect(0).says("copy: done");
    lab.moves("verify", &[]).expect(0).says("verify: done");
}

/// What could not be written is not told as if it had been.
#[tokio::test]
async fn what_failed_is_told_beside_what_is_done() {
    let lab = Lab::with(25, 1).await;
    lab.target().await.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(lab.file("target.db"));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(
        "CREATE TRIGGER refuse BEFORE INSERT ON secrets BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    let ran = lab.moves("copy", &[]);
    assert_ne!(ran.status, 0, "{ran:?}");
    ran.says("copy: 25 of 25, 25 failed")
        .says("        25  failed")
        .never_says("25 written");
}

/// The reason is what differs, not a guess about which side has changed.
#[tokio::test]
async fn rollback_says_what_differs_without_guessing_who_changed() {
    let lab = Lab::with(3, 1).await;
    lab.moves("copy", &[]).expect(0);
    let name = lab.secrets.keys().nth(1).unwrap();
    let target = lab.target().await;
    target
        .delete(name, &DeleteOptions::default())
        .await
        .unwrap();
    let other = secret_persistence_core::SecretValue::new("other".into());
    let write = secret_persistence_core::Write::new(name.clone(), other);
    let written = target.write_batch(&[write]).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    target.close().await;
    lab.moves("rollback", &[])
        .expect(0)
        .says(name.as_str())
        .says("source and target have different values")
        .never_says("the source has not");
}

#[tokio::test]
async fn an_option_is_named_once() {
    let lab = Lab::with(1, 1).await;
    for (option, value) in [
        ("--configs", "nowhere.jsonl"),
        (
            "--configs",
            "sqlite:nowhere.db?table=t&id=i&configuration=c",
        ),
        (
            "--configs",
            "sqlite:configurations.db?table=nowhere&id=i&configuration=c",
        ),
        ("--references", "sqlite:configurations.db?table=nowhere"),
        ("--journal", "no-folder/journal.db"),
        ("--journal", "postgres://127.0.0.1:1/x"),
        ("--list", "no-folder/names.txt"),
    ] {
        let ran = lab.moves("plan", &[option, value]);
        assert_ne!(ran.status, 0, "{ran:?}");
        ran.says(option).never_says(&format!("{option}: {option}"));
    }
    let misspelt = [
        "plan",
        "--from",
        "sqlite:nosuch.db",
        "--to",
        "sqlite:target.db",
    ];
    let table = lab.table();
    lab.run(&[&misspelt[..], &["--configs", &table]].concat())
        .says("--from sqlite:nosuch.db")
        .never_says("--from: --from")
        .never_says("sqlite sqlite");
}

/// What differs, one line each, for other tools.
#[tokio::test]
async fn differences_go_to_a_file_of_json_lines() {
    let lab = Lab::with(4, 1).await;
    lab.moves("copy", &[]).expect(0);
    let names: Vec<String> = lab.secrets.keys().map(ToString::to_string).collect();
    let name = |text: &str| secret_persistence_core::ManagedCoordinate::parse(text).unwrap();
    let extra = names[0].replace("_v1", "_v9");
    let target = lab.target().await;
    lose(&lab, &target, &[1, 2]).await;
    for name in [name(&names[2]), name(&extra)] {
        let other = secret_persistence_core::SecretValue::new("other".into());
        let write = secret_persistence_core::Write::new(name, other);
        let written = target.write_batch(&[write]).await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
    }
    target.close().await;
    let differences = |command: &str, more: &[&str], status: i32| {
        let file = format!("{command}-{}.jsonl", more.len());
        lab.moves(command, &[&["--differences", &file][..], more].concat())
            .expect(status);
        let text = std::fs::read_to_string(lab.file(&file)).unwrap();
        let lines = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let key = field("configuration");
            let row = key.rsplit('#').next().unwrap_or_default().to_owned();
            (field("coordinate"), (field("difference"), row))
        });
        lines.collect::<std::collections::BTreeMap<_, _>>()
    };
    let said = |difference: &str, row: &str| (difference.to_owned(), row.to_owned());
    let mut expected = std::collections::BTreeMap::from([
        (names[1].clone(), said("missing", "connector-000001")),
        (names[2].clone(), said("different", "connector-000002")),
        (extra.clone(), said("unexpected", "")),
    ]);
    assert_eq!(differences("plan", &[], 3), expected);
    assert_eq!(differences("verify", &[], 1), expected);
    for number in [0, 3] {
        let row = format!("connector-00000{number}");
        expected.insert(names[number].clone(), said("equal", &row));
    }
    assert_eq!(differences("plan", &["--equal"], 3), expected);
    lab.moves("plan", &["--equal"])
        .expect(2)
        .says("--differences");
    lab.moves("plan", &["--differences", "plan-0.jsonl"])
        .expect(2)
        .says("--differences plan-0.jsonl: cannot be created");
}
