//! `split`: raw secrets leave the configurations, and rows that somebody changed meanwhile are kept.

use serde_json::{Value, json};
use sqlx::Row;

use crate::lab::{Lab, names};

const BASE_ID: &str = "00000000-0000-0000-0000-000000000007";

fn specification() -> Value {
    json!({ "type": "object", "properties": {
        "host": { "type": "string" },
        "password": { "type": "string", "airbyte_secret": true },
        "pin": { "type": "integer", "airbyte_secret": true },
    }})
}

async fn raw_rows(lab: &Lab, rows: usize) {
    let table = lab.configurations().await;
    for row in 0..rows {
        sqlx::query("INSERT INTO actor VALUES ($1, $2, $3, $4)")
            .bind(format!("c{row}"))
            .bind(BASE_ID)
            .bind(specification().to_string())
            .bind(format!(
                "{{\"z\": 1, \"host\": \"h\", \"password\": \"raw-{row}\", \"pin\": 12}}"
            ))
            .execute(&table)
            .await
            .unwrap();
    }
    table.close().await;
}

async fn texts(lab: &Lab) -> Vec<String> {
    let table = lab.configurations().await;
    sqlx::query("SELECT configuration FROM actor ORDER BY id")
        .fetch_all(&table)
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

fn split(lab: &Lab, more: &[&str]) -> crate::lab::Ran {
    let table = lab.table();
    let mut arguments = vec!["split", "--store", "sqlite:source.db?mode=plain"];
    if !more.contains(&"--configs") {
        arguments.extend(["--configs", table.as_str()]);
    }
    arguments.extend(more);
    lab.run(&arguments)
}

#[tokio::test]
async fn a_table_is_split_in_place_and_hydrates_exactly() {
    let lab = Lab::empty();
    raw_rows(&lab, 7).await;
    let before = texts(&lab).await;
    split(&lab, &["--dry-run"]).expect(0);
    assert_eq!(texts(&lab).await, before);
    let report = split(&lab, &["--json"]).expect(0).json();
    assert_eq!(report["tally"]["split"], 7, "{report}");
    let after = texts(&lab).await;
    for text in &after {
        assert!(!text.contains("raw-"), "{text}");
        let keys: Vec<String> = match serde_json::from_str::<Value>(text).unwrap() {
            Value::Object(members) => members.keys().cloned().collect(),
            other => panic!("{other}"),
        };
        assert_eq!(keys, ["z", "host", "password", "pin"]);
    }
    assert_eq!(names(&lab.source().await).await.len(), 14);
    // A second time there is nothing to do.
    let again = split(&lab, &["--json"]).expect(0).json();
    assert_eq!(again["tally"]["split"], 0);
    assert_eq!(texts(&lab).await, after);
    // And what was split can be moved.
    lab.moves("copy", &[]).expect(0);
    lab.moves("verify", &[]).expect(0);
}

#[tokio::test]
async fn json_lines_get_a_new_file() {
    let lab = Lab::empty();
    let row = |id: &str| {
        json!({ "id": id, "baseId": BASE_ID, "connectionSpecification": specification(),
            "configuration": { "host": "h", "password": format!("raw-{id}") } })
        .to_string()
    };
    let text = format!("{}\n{}\n", row("a"), row("b"));
    let original = lab.write("c.jsonl", &text);
    split(&lab, &["--configs", "c.jsonl"]).expect(0);
    assert_eq!(std::fs::read_to_string(original).unwrap(), text);
    let output = std::fs::read_to_string(lab.file("c.split.jsonl")).unwrap();
    assert_eq!(output.lines().count(), 2);
    assert!(
        !output.contains("raw-") && output.contains("_secret"),
        "{output}"
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(lab.file("c.split.jsonl"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    split(&lab, &["--configs", "c.jsonl"])
        .expect(3)
        .says("already exists");
    assert_eq!(names(&lab.source().await).await.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_split_is_named_and_left() {
    let lab = Lab::empty();
    raw_rows(&lab, 2).await;
    lab.sql("UPDATE actor SET specification = NULL WHERE id = 'c1'")
        .await;
    let before = texts(&lab).await;
    let ran = split(&lab, &[]).says("c1").never_says("raw-");
    assert_ne!(ran.status, 0, "{ran:?}");
    assert_eq!(texts(&lab).await[1], before[1]);
    lab.write("q.sql", "SELECT id, configuration FROM actor");
    let query = "sqlite:configurations.db?query-file=q.sql";
    let ran = split(&lab, &["--configs", query, "--journal", "other.db"]).says("read-only");
    assert_eq!(ran.status, 2, "{ran:?}");
}

#[tokio::test]
async fn numbers_can_be_refused() {
    let lab = Lab::empty();
    raw_rows(&lab, 1).await;
    let ran = split(&lab, &["--strings-only"])
        .says("/pin")
        .never_says("raw-");
    assert_ne!(ran.status, 0, "{ran:?}");
    assert_eq!(names(&lab.source().await).await.len(), 0);
}

/// Killed while rows are being split: what was half done is finished or undone, no secret is left
/// that no row knows.
#[tokio::test]
async fn a_killed_split_is_finished_by_the_next() {
    use std::io::{BufRead, BufReader};

    for at in [3, 9, 14, 22, 31, 40] {
        let lab = Lab::empty();
        raw_rows(&lab, 6).await;
        let table = lab.table();
        let mut child = lab
            .command(&[
                "split",
                "--store",
                "sqlite:source.db?mode=plain",
                "--configs",
                &table,
            ])
            .env("MIGRATE_TEST_STOP_AT", at.to_string())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let stopped = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .any(|line| line.unwrap().starts_with("stopped at point"));
        child.kill().unwrap();
        child.wait().unwrap();
        split(&lab, &[]).expect(0);
        let texts = texts(&lab).await.concat();
        assert!(
            !texts.contains("raw-"),
            "killed at {at} ({stopped}): {texts}"
        );
        let stored = names(&lab.source().await).await;
        assert_eq!(stored.len(), 12, "killed at {at} ({stopped})");
        for name in stored {
            assert!(
                texts.contains(name.as_str()),
                "killed at {at}: nobody knows {name}"
            );
        }
    }
}

/// A property that an upgrade has removed may contain a password that stays in clear: its number is
/// told, its name where somebody asks, and it is refused where somebody wants that.
#[tokio::test]
async fn properties_that_the_specification_does_not_know_are_counted_and_named_on_request() {
    let lab = Lab::empty();
    raw_rows(&lab, 3).await;
    let told = split(&lab, &["--dry-run"]).expect(0);
    told.says("3 unknown properties")
        .says("         3  properties that are not in the specification")
        .never_says("c0  /z");
    split(&lab, &["--dry-run", "--list", "names.txt"]).expect(0);
    let names = std::fs::read_to_string(lab.file("names.txt")).unwrap();
    assert_eq!(names.lines().count(), 3, "{names}");
    assert!(names.contains("c0  /z"), "{names}");
    let json = split(&lab, &["--dry-run", "--json"]).expect(0).json();
    assert_eq!(json["findings"]["unknown"]["count"], 3, "{json}");
    split(&lab, &["--dry-run", "--refuse-unknown-properties"])
        .expect(1)
        .says("the specification does not define this property");
}
