//! The filters: one line of output for each line of input, and nothing that nobody gets.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use secret_persistence::database::Database;
use secret_persistence_core::{ListOptions, SecretPersistence};
use serde_json::{Value, json};

use crate::lab::{Lab, Ran};

const STORE: &str = "sqlite:source.db?mode=plain";
const SPLIT: [&str; 4] = ["split", "-", "--store", STORE];
const BASE_ID: &str = "00000000-0000-0000-0000-000000000007";

fn specification() -> Value {
    json!({ "type": "object", "properties": {
        "host": { "type": "string" },
        "password": { "type": "string", "airbyte_secret": true },
    }})
}

fn line(id: &str, password: &str) -> Value {
    json!({
        "id": id,
        "baseId": BASE_ID,
        "connectionSpecification": specification(),
        "configuration": { "host": "h", "password": password },
    })
}

/// Runs a filter over these lines.
fn filter(lab: &Lab, arguments: &[&str], lines: &[Value]) -> Ran {
    run(lab.command(arguments), lines)
}

fn run(mut command: Command, lines: &[Value]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let writer = std::thread::spawn(move || {
        // A filter that refuses its arguments does not read.
        let _ = input.write_all(text.as_bytes());
    });
    let ran = Ran::from(child.wait_with_output().unwrap());
    writer.join().unwrap();
    ran
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn stored(store: Database) -> usize {
    let page = store.list_page(&ListOptions::default(), None).await;
    let count = page.unwrap().entries.len();
    store.close().await;
    count
}

#[tokio::test]
async fn a_change_goes_through_every_filter() {
    let lab = Lab::empty();
    let split = filter(
        &lab,
        &SPLIT,
        &[line("a", "canary-one"), line("b", "canary-two")],
    )
    .expect(0)
    .never_says("canary");
    let rows = lines(&split);
    assert_eq!([&rows[0]["id"], &rows[1]["id"]], ["a", "b"]);
    assert_eq!(stored(lab.source().await).await, 2);

    // What split printed can be piped into hydrate.
    let hydrate = ["hydrate", "-", "--store", STORE];
    let full = lines(&filter(&lab, &hydrate, &rows).expect(0));
    assert_eq!(
        full[0],
        json!({ "id": "a", "configuration": { "host": "h", "password": "canary-one" } })
    );

    let mut shown = rows[0].clone();
    shown["connectionSpecification"] = specification();
    let mask = filter(&lab, &["mask", "-"], std::slice::from_ref(&shown)).expect(0);
    let masked = lines(&mask).remove(0)["configuration"].take();
    assert_eq!(masked, json!({ "host": "h", "password": "**********" }));

    // An edited form: nothing is deleted before the caller has saved.
    let update = |edited: Value| {
        let line = json!({
            "id": "a",
            "baseId": BASE_ID,
            "connectionSpecification": specification(),
            "configuration": rows[0]["configuration"],
            "edited": edited,
        });
        let ran = filter(&lab, &["update", "-", "--store", STORE], &[line]).expect(0);
        lines(&ran.never_says("canary")).remove(0)
    };
    let kept = update(masked);
    assert_eq!(kept["configuration"], rows[0]["configuration"]);
    let changed = update(json!({ "host": "h", "password": "canary-three" }));
    assert_ne!(changed["configuration"], rows[0]["configuration"]);
    assert_eq!(stored(lab.source().await).await, 3);

    let settle = ["settle", "-", "--store", STORE];
    let saved = json!({ "id": "a", "record": changed["record"], "saved": true });
    let settled = lines(&filter(&lab, &settle, &[saved]).expect(0)).remove(0);
    assert_eq!(
        settled["deleted"],
        json!([{ "coordinate": rows[0]["configuration"]["password"]["_secret"] }])
    );
    let full = lines(&filter(&lab, &hydrate, &[changed]).expect(0));
    assert_eq!(full[0]["configuration"]["password"], "canary-three");

    // A change that was not saved.
    let abandoned = json!({ "record": rows[1]["record"], "saved": false });
    let settled = lines(&filter(&lab, &settle, &[abandoned]).expect(0)).remove(0);
    assert_eq!(
        settled["deleted"],
        json!([{ "coordinate": rows[1]["configuration"]["password"]["_secret"] }])
    );
    assert!(settled["again"].is_string(), "{settled}");
    assert_eq!(stored(lab.source().await).await, 1);
}

/// Otherwise who reads a store with the tool leaves no trace, whatever the settings say.
#[tokio::test]
async fn a_filter_hands_out_nothing_without_its_audit() {
    let lab = Lab::empty();
    let split = filter(&lab, &SPLIT, &[line("a", "canary")]);
    let rows = lines(&split.expect(0));
    let hydrate = |name: &str, value: &str| {
        let mut command = lab.command(&["hydrate", "-", "--store", STORE]);
        command.env(name, value);
        run(command, &rows)
    };
    let full = lines(&hydrate("SECRETS_AUDIT_FILE", "audit.jsonl").expect(0));
    assert_eq!(full[0]["configuration"]["password"], "canary");
    let text = std::fs::read_to_string(lab.file("audit.jsonl")).unwrap();
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        event["coordinate"],
        rows[0]["configuration"]["password"]["_secret"]
    );
    assert_eq!(event["actor"], "secret-migrate");
    assert_eq!(event["places"], json!(["/password"]));
    assert!(!text.contains("canary"));

    std::fs::create_dir(lab.file("folder")).unwrap();
    hydrate("SECRETS_AUDIT_FILE", "folder")
        .never_says("canary")
        .says("audit");
    // A ledger without a key, and an audit without a place: it does not start.
    hydrate("SECRETS_LEDGER", "sqlite:ledger.db")
        .expect(2)
        .never_says("canary")
        .says("KEYRING");
    hydrate("SECRETS_AUDIT", "required")
        .expect(2)
        .never_says("canary")
        .says("SECRETS_LEDGER");

    let home = crate::ledger::Home::new(&lab);
    let with_ledger = |arguments: &[&str], rows: &[Value]| {
        let mut command = lab.command(arguments);
        command
            .env("SECRETS_LEDGER", "sqlite:ledger.db")
            .env("LEDGER_SECRETS_KEYRING_FILE", "ledger-ring");
        run(command, rows)
    };
    let full = lines(&with_ledger(&["hydrate", "-", "--store", STORE], &rows).expect(0));
    assert_eq!(full[0]["configuration"]["password"], "canary");
    with_ledger(&SPLIT, &[line("b", "canary")]).expect(0);
    home.run("verify", &[]).expect(0).says("2 lines");
    home.run("query", &["--operation", "read"])
        .expect(0)
        .says("secret-migrate read");
    home.run("query", &["--operation", "write"])
        .expect(0)
        .says("secret-migrate write");
}

#[tokio::test]
async fn a_line_that_fails_is_told_in_its_place_and_never_quoted() {
    let lab = Lab::empty();
    let mut unknown = line("u", "canary");
    unknown["password"] = json!("canary");
    let mut unmarked = line("s", "canary");
    unmarked["connectionSpecification"] = json!({ "$ref": "https://example.com/other.json" });
    let mut scopeless = line("w", "canary");
    scopeless["baseId"] = json!("canary");
    let lines_in = [
        line("a", "one"),
        json!("canary"),
        unknown,
        unmarked,
        scopeless,
        line("b", "two"),
    ];
    let ran = filter(&lab, &SPLIT, &lines_in)
        .expect(1)
        .says("4 of 6 lines failed")
        .never_says("canary");
    let out = lines(&ran);
    assert_eq!(out.len(), lines_in.len());
    for (index, says) in [
        (1, "not a JSON object"),
        (2, "`password` is unknown"),
        (3, "the reference leaves the document"),
        (4, "`baseId` is a UUID"),
    ] {
        assert_eq!(out[index]["line"], index + 1);
        let error = out[index]["error"].as_str().unwrap();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!([&out[0]["id"], &out[5]["id"]], ["a", "b"]);
    assert_eq!(stored(lab.source().await).await, 2);
}

/// A terminal keeps what it shows. The command `script` gives the tool one.
#[tokio::test]
async fn a_terminal_gets_no_secret_unless_told() {
    let lab = Lab::empty();
    let split = filter(&lab, &SPLIT, &[line("a", "canary")]);
    lab.write("pointers.jsonl", &split.expect(0).stdout);
    let on_a_terminal = |more: &str| -> Ran {
        let tool = env!("CARGO_BIN_EXE_secret-migrate");
        let command = format!("'{tool}' hydrate - --store '{STORE}' {more} < pointers.jsonl");
        Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .current_dir(lab.folder())
            .env("SECRETS_OWNER", "lab")
            .stdin(Stdio::null())
            .output()
            .unwrap()
            .into()
    };
    on_a_terminal("")
        .expect(3)
        .says("--to-terminal")
        .never_says("canary");
    on_a_terminal("--to-terminal").expect(0).says("canary");
}

/// The secrets of a line that nobody read would be in no configuration.
#[tokio::test]
async fn what_nobody_reads_is_undone() {
    let lab = Lab::empty();
    let mut child = lab
        .command(&["split", "-", "--store", STORE, "--concurrency", "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{}", line("a", "one")).unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert!(first.contains("\"id\":\"a\""), "{first}");
    // Standard output is closed now; the lines that follow have no reader.
    for id in ["b", "c", "d", "e", "f"] {
        let _ = writeln!(input, "{}", line(id, "two"));
    }
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.expect(4).says("is undone");
    drop(input);
    assert_eq!(stored(lab.source().await).await, 1);
}

#[test]
fn a_filter_says_what_it_needs() {
    let lab = Lab::empty();
    lab.run(&["hydrate", "--store", STORE]).expect(2);
    lab.run(&["split", "file.jsonl", "--store", STORE])
        .expect(2);
    lab.run(&["split", "-", "--store", STORE, "--configs", "c"])
        .expect(2)
        .says("cannot be used with");
    lab.run(&["split", "-", "--store", STORE, "--dry-run"])
        .expect(2)
        .says("mask -");
    // Nothing is made for a store that is misspelt.
    lab.run(&["hydrate", "-", "--store", "sqlite:misspelt.db?mode=plain"])
        .expect(2);
    assert!(!lab.file("misspelt.db").exists());
}
