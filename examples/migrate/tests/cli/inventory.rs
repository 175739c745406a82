//! `ages` and `affected`: which secret is how old, in every form, and never a value.

use secret_persistence_core::{
    Actor, AuditEvent, AuditSink, DeleteOptions, ErrorKind, ManagedCoordinate, Operation,
    SecretPersistenceExt, SecretValue, Timestamp, Write,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::lab::{Lab, Ran};
use crate::ledger::Home;

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
    command.env("LEDGER_SECRETS_KEYRING_FILE", "ledger-ring");
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

/// Who read what: the second secret by `maria`, in a service with a ledger; of the first one a read failed.
async fn ledger(lab: &Lab) -> Vec<AuditEvent> {
    let names = names(lab);
    let event = |index: usize, operation, at| {
        let name = names[index].clone().into();
        let mut event = AuditEvent::new(Actor::new("maria"), operation, name);
        event.at = Timestamp::from_unix_seconds(at).unwrap();
        event
    };
    let events = vec![
        event(1, Operation::Read, 1_700_000_000),
        event(1, Operation::Read, 1_750_000_000),
        event(1, Operation::Delete, 1_760_000_000),
        event(0, Operation::Read, 1_770_000_000).with_failure(Some(ErrorKind::NotFound)),
    ];
    for url in ["sqlite:ledger.db", "file:ledger"] {
        let home = Home::at(lab, url);
        home.ledger().record(&events).await.unwrap();
    }
    events
}

#[tokio::test]
async fn with_a_ledger_every_form_says_who_read_a_secret_last() {
    const MEMBERS: [&str; 4] = [
        "last_read",
        "last_reader",
        "last_read_genuine",
        "reads_since",
    ];
    let lab = lab().await;
    let events = ledger(&lab).await;
    let (first, last) = (events[0].at.to_string(), events[1].at.to_string());
    let folder = format!("file://{}", lab.file("ledger").display());
    for url in ["sqlite:ledger.db", &folder] {
        let run = |command: &str, more: &[&str]| {
            let fixed = ["--ledger", url];
            run(&lab, command, &[&fixed[..], more].concat()).expect(0)
        };
        for command in ["ages", "affected"] {
            let object = run(command, &["--json"]).json();
            let reads = |index: usize| MEMBERS.map(|member| &object["secrets"][index][member]);
            let (read, maria, yes, since) =
                (json!(last), json!("maria"), json!(true), json!(first));
            assert_eq!(reads(1), [&read, &maria, &yes, &since]);
            for unread in [0, 2, 3] {
                let none = &Value::Null;
                assert_eq!(reads(unread), [none, none, none, &since]);
            }
            assert_eq!(
                (&object["never_read"], &object["reads_since"]),
                (&json!(3), &since)
            );
        }
        let unread = run("ages", &["--json", "--never-read"]);
        assert_eq!(listed(&unread), texts(&names(&lab), &[0, 2, 3]));

        // The last one was written after the ledger began, maybe by a copy: before, it may have been read.
        let table = run("ages", &[]);
        let rows: Vec<&str> = table.stdout.lines().skip(1).collect();
        assert!(rows[0].contains(&format!("not since {first}")), "{rows:?}");
        assert!(rows[1].contains(&format!("{last}, maria")), "{rows:?}");
        assert!(rows[2].contains(&format!("not since {first}")), "{rows:?}");
        assert!(rows[3].contains(&format!("not since {first}")), "{rows:?}");
        table.says(&format!("3 not read since {first}"));

        let csv = run("ages", &["--format", "csv"]).stdout;
        let (head, rows) = csv.split_once('\n').unwrap();
        let columns: Vec<&str> = head.split(',').collect();
        let row = rows.lines().nth(1).unwrap();
        let fields: Vec<&str> = row[1..row.len() - 1].split("\",\"").collect();
        assert_eq!(columns.len(), fields.len());
        for (column, field) in [
            ("last_read", &*last),
            ("last_reader", "maria"),
            ("last_read_genuine", "true"),
            ("reads_since", &*first),
            ("detail", ""),
        ] {
            let at = columns.iter().position(|name| *name == column).unwrap();
            assert_eq!(fields[at], field, "{column}");
        }

        let metrics = run("ages", &["--format", "prometheus"]).stdout;
        let read = "secret_migrate_last_read_timestamp_seconds{";
        let samples = metrics.lines().filter(|line| line.starts_with(read));
        let samples: Vec<&str> = samples.collect();
        assert_eq!(samples.len(), 1, "{metrics}");
        assert!(samples[0].ends_with(" 1750000000"), "{metrics}");
        assert!(metrics.contains("\nsecret_migrate_never_read_places 3\n"));
        assert!(metrics.contains("\nsecret_migrate_reads_since_timestamp_seconds 1700000000\n"));
    }
}

#[tokio::test]
async fn a_ledger_that_cannot_be_trusted_or_read_says_so() {
    let lab = lab().await;
    ledger(&lab).await;
    let with = ["--ledger", "sqlite:ledger.db", "--json"];
    let home = Home::at(&lab, "sqlite:ledger.db");
    home.sql("UPDATE secret_ledger SET line = replace(line, 'maria', 'otto') WHERE sequence = 2")
        .await;
    let forged = run(&lab, "ages", &with).expect(1).json();
    assert_eq!(forged["not_genuine"], 1);
    assert_eq!(forged["secrets"][1]["last_read_genuine"], false);
    // A forged read takes no secret off the list of those that nobody reads.
    let unread = run(&lab, "ages", &[&with[..], &["--never-read"]].concat()).expect(1);
    assert_eq!(listed(&unread), texts(&names(&lab), &[0, 1, 2, 3]));
    let table = run(&lab, "ages", &["--ledger", "sqlite:ledger.db"]).expect(1);
    assert!(
        table.stdout.contains("otto (NOT GENUINE)"),
        "{}",
        table.stdout
    );
    table.says("ledger verify");

    home.sql("DROP TABLE secret_ledger").await;
    let failed = run(&lab, "ages", &with);
    assert_ne!(failed.status, 0);
    let error = failed.json()["error"].to_string();
    assert!(
        error.contains("who read") && error.contains("ledger.db"),
        "{error}"
    );
    run(&lab, "ages", &["--ledger", "sqlite:nowhere.db"])
        .expect(2)
        .says("nowhere.db");
    // Without a ledger, nobody knows what was never read.
    run(&lab, "ages", &["--never-read"])
        .expect(2)
        .says("--ledger");
    for form in ["table", "json-lines", "csv", "prometheus"] {
        let silent = run(&lab, "ages", &["--format", form]).expect(0);
        let shown = silent.stdout.to_lowercase() + &silent.stderr;
        for word in [
            "last_read",
            "last read",
            "never_read",
            "reads_since",
            "not read",
        ] {
            assert!(!shown.contains(word), "{word} in {shown}");
        }
    }
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
