//! Values and credentials show nowhere: not in output, report, journal, files or arguments; nor does
//! anything that is computed from them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secret_persistence::database::KeyRingFile;
use sha2::Digest;

use crate::lab::{Lab, Ran};

/// A value of several lines, each of which is searched for.
fn value(index: usize) -> String {
    format!("canary-first-{index}-Zq7\ncanary-second-{index}-Xw9\n\"canary-third-{index}\"")
}

/// What must not show: the value, its lines, and what programs commonly make of a value.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let bytes = value.as_bytes();
    let mut forms: Vec<Vec<u8>> = vec![bytes.to_vec()];
    forms.extend(value.lines().map(|line| line.as_bytes().to_vec()));
    let mut derived: Vec<Vec<u8>> = vec![
        sha2::Sha256::digest(bytes).to_vec(),
        sha2::Sha512::digest(bytes).to_vec(),
        sha1::Sha1::digest(bytes).to_vec(),
        md5::Md5::digest(bytes).to_vec(),
        crc32fast::hash(bytes).to_be_bytes().to_vec(),
        bytes.to_vec(),
    ];
    for raw in derived.drain(..) {
        let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
        forms.push(hex.to_uppercase().into_bytes());
        forms.push(hex.into_bytes());
        forms.push(STANDARD.encode(&raw).into_bytes());
        forms.push(URL_SAFE_NO_PAD.encode(&raw).into_bytes());
        if raw.len() > 8 {
            forms.push(raw);
        }
    }
    forms
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[tokio::test]
async fn nothing_shows_anywhere() {
    let lab = Lab::with_values(6, 2, value).await;
    let ring = KeyRingFile::open(lab.file("ring")).unwrap();
    let ring = ring.ring().to_text();
    let mut outputs: Vec<(String, Ran)> = Vec::new();
    let mut arguments = Vec::new();
    let mut run = |lab: &Lab, command: &str, more: &[&str]| {
        for json in [false, true] {
            let mut all = lab.between(command, more);
            if json {
                all.push("--json".into());
            }
            let output = lab
                .command(&all)
                .env("RUST_LOG", "trace")
                .env("DATABASE_PASSWORD", "canary-password-1")
                .env("CONFIG_DATABASE_PASSWORD", "canary-password-2")
                .env("VAULT_AUTH_TOKEN", "canary-token")
                .output()
                .unwrap();
            outputs.push((format!("{command} {more:?}"), output.into()));
            arguments.extend(all);
        }
    };
    run(&lab, "plan", &[]);
    run(&lab, "copy", &["--dry-run"]);
    run(&lab, "copy", &[]);
    run(&lab, "verify", &[]);
    // Failures are where values slip out: a damaged row, a lost one, another value, raw secrets.
    let pool = sqlx::SqlitePool::connect_with(
        sqlx::sqlite::SqliteConnectOptions::new().filename(lab.file("target.db")),
    )
    .await
    .unwrap();
    let names: Vec<_> = lab.secrets.keys().collect();
    for (sql, name) in [
        ("DELETE FROM secrets WHERE coordinate = $1", names[0]),
        (
            "UPDATE secrets SET ciphertext = zeroblob(40) WHERE coordinate = $1",
            names[1],
        ),
        (
            "UPDATE secrets SET payload = 'canary-first-2-Zq7' WHERE coordinate = $1",
            names[2],
        ),
    ] {
        sqlx::query(sql)
            .bind(name.as_str())
            .execute(&pool)
            .await
            .unwrap();
    }
    pool.close().await;
    run(&lab, "verify", &[]);
    run(&lab, "copy", &[]);
    run(&lab, "retire", &["--all-references"]);
    run(&lab, "rollback", &[]);
    lab.sql("INSERT INTO actor (id, workspace_id, specification, configuration) VALUES \
             ('raw', '00000000-0000-0000-0000-000000000007', \
              '{\"properties\":{\"p\":{\"type\":\"object\",\"properties\":{\"q\":{\"type\":\"string\",\"airbyte_secret\":true}}}}}', \
              '{\"p\": \"canary-first-0-Zq7\"}'), \
             ('torn', NULL, NULL, '{\"p\": \"canary-first-0-Zq7\", ')").await;
    run(&lab, "plan", &[]);
    run(&lab, "copy", &[]);
    lab.write(
        "c.jsonl",
        "{\"id\":\"x\",\"configuration\":{\"p\":\"canary-first-0-Zq7\"",
    );
    run(&lab, "plan", &["--configs", "c.jsonl"]);
    let table = lab.table();
    for command in [
        vec![
            "split",
            "--store",
            "sqlite:source.db?mode=plain",
            "--configs",
            &table,
        ],
        vec!["check", "--store", "sqlite:target.db"],
        vec!["conformance", "--store", "sqlite:target.db?mode=plain"],
        vec!["keygen", "--file", "ring"],
        vec!["keygen", "--file", "ring", "--add", "k2"],
        vec!["rotate", "--store", "sqlite:target.db"],
        vec![
            "ages",
            "--store",
            "sqlite:source.db?mode=plain",
            "--configs",
            &table,
        ],
        vec![
            "affected",
            "--json",
            "--store",
            "sqlite:source.db?mode=plain",
            "--configs",
            &table,
        ],
        vec!["sweep", "--store", "sqlite:target.db", "--dry-run"],
    ] {
        let mut process = lab.command(&command);
        process.env("SECRETS_KEYRING_FILE", "ring");
        outputs.push((format!("{command:?}"), process.output().unwrap().into()));
    }

    let mut needles: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, value) in &lab.secrets {
        needles.extend(
            forms(value)
                .into_iter()
                .map(|form| (name.to_string(), form)),
        );
    }
    for key in ring
        .expose()
        .lines()
        .filter_map(|line| line.split_once('='))
    {
        if key.0.trim() != "active" {
            needles.push(("the key ring".into(), key.1.trim().as_bytes().to_vec()));
        }
    }
    for credential in ["canary-password-1", "canary-password-2", "canary-token"] {
        needles.push((credential.into(), credential.as_bytes().to_vec()));
    }
    let mut places: Vec<(String, Vec<u8>)> =
        vec![("argv".into(), arguments.join("\0").into_bytes())];
    for (command, ran) in outputs {
        places.push((format!("stdout of {command}"), ran.stdout.into_bytes()));
        places.push((format!("stderr of {command}"), ran.stderr.into_bytes()));
    }
    let ours = ["journal", "migrate-split-journal", "target.db"];
    for entry in std::fs::read_dir(lab.folder()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if ours.iter().any(|prefix| name.starts_with(prefix)) {
            places.push((name, std::fs::read(entry.path()).unwrap()));
        }
    }
    assert!(places.iter().any(|(place, _)| place.starts_with("journal")));
    for (place, bytes) in &places {
        for (whose, needle) in &needles {
            // What the test itself has put into the encrypted store is not the tool's doing.
            if place.starts_with("target.db") && contains(needle, b"canary-first-2-Zq7") {
                continue;
            }
            assert!(
                !contains(bytes, needle),
                "{whose} shows in {place}: {}",
                String::from_utf8_lossy(needle)
            );
        }
    }
}
