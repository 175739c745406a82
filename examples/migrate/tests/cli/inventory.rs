//! `ages` and `affected`: which secret is how old, in every form, and never a value.

use secret_persistence_core::{
    DeleteOptions, ManagedCoordinate, SecretPersistenceExt, SecretValue, Timestamp, Write,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::lab::{Lab, Ran};

/// Two connectors of one workspace with two secrets each, in an encrypted store that knows times. The
/// first secret is old, the second one expires soon, and the third one is missing.
async fn lab() -> Lab {
    let lab = Lab::with_values(2, 2, |index| format!("canary-{index}-value")).await;
    let target = lab.target().await;
    let soon = Timestamp::now().saturating_add(std::time::Duration::from_secs(3600));
    for (index, (name, value)) in lab.secrets.iter().enumerate() {
        let write = Write::new(name.clone(), SecretValue::new(value.clone()));
        let write = write.with_expires((index == 1).then_some(soon));
        target.write(write).await.unwrap();
    }
    let missing = names(&lab)[2].clone();
    target
        .delete(&missing, &DeleteOptions::default())
        .await
        .unwrap();
    target.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(lab.file("target.db"));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("UPDATE secrets SET created = 1577934245 WHERE coordinate = $1")
        .bind(names(&lab)[0].as_str())
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    lab
}

fn names(lab: &Lab) -> Vec<ManagedCoordinate> {
    lab.secrets.keys().cloned().collect()
}

fn run(lab: &Lab, command: &str, more: &[&str]) -> Ran {
    let table = lab.table();
    let fixed = [
        command,
        "--store",
        "sqlite:target.db?mode=encrypted",
        "--configs",
        &table,
    ];
    let mut command = lab.command(&[&fixed[..], more].concat());
    command.env("SECRETS_KEYRING_FILE", "ring");
    Ran::from(command.output().unwrap()).never_says("canary-")
}

/// The coordinates that are listed.
fn listed(ran: &Ran) -> Vec<String> {
    let object = ran.json();
    let secrets = object["secrets"].as_array().unwrap();
    assert_eq!(object["listed"], secrets.len());
    secrets
        .iter()
        .map(|secret| secret["coordinate"].as_str().unwrap().to_owned())
        .collect()
}

fn texts(names: &[ManagedCoordinate], which: &[usize]) -> Vec<String> {
    which
        .iter()
        .map(|index| names[*index].to_string())
        .collect()
}

#[tokio::test]
async fn ages_tell_what_the_store_knows_of_each_place() {
    let lab = lab().await;
    let names = names(&lab);
    let ran = run(&lab, "ages", &["--json"]).expect(0);
    assert_eq!(listed(&ran), texts(&names, &[0, 1, 2, 3]));
    let object = ran.json();
    assert_eq!(object["exit_status"], 0);
    assert_eq!(object["missing"], 1);
    let secrets = object["secrets"].as_array().unwrap();
    let first = &secrets[0];
    assert!(
        first["configuration"]
            .as_str()
            .unwrap()
            .ends_with("#connector-000000")
    );
    assert_eq!(first["place"], "/secret0");
    assert_eq!(first["base_id"], Uuid::from_u128(7).to_string());
    assert_eq!(first["created"], "2020-01-02T03:04:05Z");
    assert!(first["age_seconds"].as_u64().unwrap() > 150_000_000);
    assert_eq!(first["owner"], Value::Null);
    assert_eq!(secrets[1]["standing"], "present");
    assert!(secrets[1]["expires"].is_string());
    assert_eq!(secrets[2]["standing"], "missing");
    assert_eq!(secrets[2]["created"], Value::Null);

    // A missing one has no known age, and therefore stays in every list.
    let old = run(&lab, "ages", &["--json", "--older-than", "90d"]).expect(0);
    assert_eq!(listed(&old), texts(&names, &[0, 2]));
    let soon = run(&lab, "ages", &["--json", "--expiring-within", "2h"]).expect(0);
    assert_eq!(listed(&soon), texts(&names, &[1, 2]));
    let now = run(&lab, "ages", &["--json", "--expiring-within", "1s"]).expect(0);
    assert_eq!(listed(&now), texts(&names, &[2]));
    run(&lab, "ages", &["--older-than", "3 months"]).expect(2);
    run(&lab, "ages", &["--json", "--format", "csv"]).expect(2);
}

#[tokio::test]
async fn every_form_has_every_secret() {
    let lab = lab().await;
    let names = names(&lab);
    let table = run(&lab, "ages", &[]).expect(0);
    assert_eq!(table.stdout.lines().count(), 5, "{}", table.stdout);
    assert!(table.stdout.contains("2020-01-02T03:04:05Z"));
    table.says("ages: 4 of 4 places in 2 configurations, 1 of unknown age, 1 missing");
    let lines = run(&lab, "ages", &["--format", "json-lines"]).expect(0);
    let lines: Vec<Value> = lines
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["coordinate"], names[0].as_str());
    let csv = run(&lab, "ages", &["--format", "csv"]).expect(0).stdout;
    assert!(csv.starts_with("configuration,place,base_id,coordinate,storage,standing,created,"));
    assert_eq!(csv.lines().count(), 5);
    let columns = csv.lines().next().unwrap().split(',').count();
    for line in csv.lines().skip(1) {
        assert_eq!(line.split("\",\"").count(), columns, "{line}");
    }

    let text = run(&lab, "ages", &["--format", "prometheus"])
        .expect(0)
        .stdout;
    let samples = |name: &str| -> Vec<&str> {
        let of = format!("{name}{{");
        text.lines().filter(|line| line.starts_with(&of)).collect()
    };
    let created = samples("secret_migrate_created_timestamp_seconds");
    assert_eq!(created.len(), 3, "{text}");
    assert!(created[0].contains("place=\"/secret0\"") && created[0].ends_with(" 1577934245"));
    assert_eq!(samples("secret_migrate_expires_timestamp_seconds").len(), 1);
    assert!(text.contains("secret_migrate_places{standing=\"missing\"} 1\n"));
    assert!(text.contains("secret_migrate_places{standing=\"present\"} 3\n"));
    // Every sample follows the type of its metric.
    let mut current = "";
    for line in text.lines().filter(|line| !line.starts_with("# HELP")) {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => current = rest.split(' ').next().unwrap(),
            None => assert!(line.starts_with(&format!("{current}{{")), "{line}"),
        }
    }

    // None listed is a list too.
    let other = ["--workspace", "00000000-0000-0000-0000-000000000009"];
    let none = run(&lab, "ages", &[&other[..], &["--json"]].concat()).expect(0);
    assert!(listed(&none).is_empty());
    let none = run(&lab, "ages", &[&other[..], &["--format", "csv"]].concat()).expect(0);
    assert_eq!(none.stdout.lines().count(), 1);
    run(&lab, "ages", &["--list", "names"]).expect(0);
    let listed = std::fs::read_to_string(lab.file("names")).unwrap();
    assert_eq!(listed.lines().count(), 4);
}

#[tokio::test]
async fn affected_lists_what_to_issue_again() {
    let lab = lab().await;
    let names = names(&lab);
    let ours = Uuid::from_u128(7).to_string();
    lab.write(
        "more.jsonl",
        &format!(
            "{{\"id\":\"elsewhere\",\"configuration\":{{\"key\":{}}}}}\n",
            json!({ "_secret": names[3].as_str(), "_secret_storage_id": "other" })
        ),
    );
    let affected = |more: &[&str]| {
        let fixed = ["--configs", "more.jsonl", "--json"];
        listed(&run(&lab, "affected", &[&fixed[..], more].concat()).expect(0))
    };
    assert_eq!(affected(&[]), texts(&names, &[0, 1, 2, 3, 3]));
    assert_eq!(affected(&["--in-store"]), texts(&names, &[0, 1, 2, 3]));
    assert_eq!(
        affected(&["--in-store", "--since", "2024-01-01"]),
        texts(&names, &[1, 2, 3])
    );
    assert_eq!(
        affected(&["--in-store", "--until", "2024-01-01"]),
        texts(&names, &[0, 2])
    );
    assert_eq!(
        affected(&["--workspace", &ours]),
        texts(&names, &[0, 1, 2, 3, 3])
    );
    assert_eq!(
        affected(&["--in-store", "--storage-id", "other"]),
        texts(&names, &[0, 1, 2, 3, 3])
    );
    let backwards = ["--since", "2024-01-02", "--until", "2024-01-01"];
    run(&lab, "affected", &backwards).expect(2).says("--since");
}

/// A list that lacks something says so, with its exit status and within the object.
#[tokio::test]
async fn an_incomplete_list_says_so() {
    let lab = lab().await;
    lab.sql("INSERT INTO actor (id, configuration) VALUES ('torn', '{\"key\": {\"_secret\": 1}}')")
        .await;
    let ran = run(&lab, "ages", &["--json"]).expect(1);
    assert_eq!(ran.json()["unreadable"], 1);
    assert_eq!(ran.json()["exit_status"], 1);
    lab.sql("UPDATE actor SET configuration = '{\"key\": ' WHERE id = 'torn'")
        .await;
    let ran = run(&lab, "ages", &["--json"]).expect(2);
    let object = ran.json();
    assert!(
        object["error"].as_str().unwrap().contains("torn"),
        "{object}"
    );
    assert_eq!(object["exit_status"], 2);
}

#[tokio::test]
async fn restore_says_what_to_enter_again_and_where() {
    let lab = lab().await;
    let names = names(&lab);
    // The database has no recovery window: what is gone is gone.
    for more in [&["--json"][..], &["--json", "--dry-run"]] {
        let ran = run(&lab, "restore", more).expect(1);
        assert_eq!(listed(&ran), texts(&names, &[2]));
        let object = ran.json();
        assert_eq!(
            (&object["missing"], &object["restored"]),
            (&json!(1), &json!(0))
        );
        let lost = &object["secrets"][0];
        assert_eq!(
            (&lost["standing"], &lost["place"]),
            (&json!("missing"), &json!("/secret0"))
        );
        assert!(
            lost["configuration"]
                .as_str()
                .unwrap()
                .ends_with("#connector-000001")
        );
    }
    run(&lab, "restore", &[]).expect(1).says("enter it again");
    let target = lab.target().await;
    let again = Write::new(
        names[2].clone(),
        SecretValue::new("canary-again".to_owned()),
    );
    target.write(again).await.unwrap();
    target.close().await;
    let ran = run(&lab, "restore", &["--json"]).expect(0);
    assert_eq!(listed(&ran), texts(&names, &[]));
}
