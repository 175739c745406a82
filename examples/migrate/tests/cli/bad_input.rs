//! What operators get wrong: an error that names the place and the remedy, and nothing lost.

use std::process::Command;

use secret_persistence_core::{SecretPersistenceExt, SecretValue, Write};

use crate::lab::{Lab, names};

const HEALTHY: &str =
    r#"{"id":"a","baseId":"00000000-0000-0000-0000-000000000007","configuration":{}}"#;

#[tokio::test]
async fn urls() {
    let lab = Lab::with(1, 1).await;
    let check = |url: &str| lab.run(&["check", "--store", url]);
    check("foo://host")
        .expect(2)
        .says("scheme `foo`")
        .says("sqlite");
    if cfg!(not(feature = "aws")) {
        check("aws://us-east-1").expect(2).says("--features aws");
    }
    if cfg!(not(feature = "azure")) {
        check("azure://my-vault").expect(2).says("--features azure");
    } else {
        check("azure://my-vault?client-secret=hunter2")
            .expect(2)
            .says("must not be in a URL")
            .never_says("hunter2");
        check("azure://my-vault?purgee=always")
            .expect(2)
            .says("did you mean `purge`");
        check("azure://my-vault/secrets")
            .expect(2)
            .says("not the URL");
    }
    if cfg!(not(feature = "gcp")) {
        check("gcp://my-project").expect(2).says("--features gcp");
    } else {
        check("gcp://my-project?credentials=hunter2")
            .expect(2)
            .says("must not be in a URL")
            .never_says("hunter2");
        check("gcp://my-project?replicaton=regional")
            .expect(2)
            .says("did you mean `replication`");
        check("gcp://my_project").expect(2).says("project");
        check("gcp://my-project/europe/west3")
            .expect(2)
            .says("not the URL");
    }
    check("secrets.db")
        .expect(2)
        .says("write it like sqlite:///");
    check("sqlite:x.db?tabel=y")
        .expect(2)
        .says("did you mean `table`");
    check("sqlite:x.db?mode=secret").expect(2).says("mode");
    for url in [
        "postgres://user:hunter2@host/db",
        "postgres://hunter2@host/db",
        "postgres://user:12/hunter2@host/db",
        "postgres://user:12?hunter2@host/db",
        "postgres:user:12/hunter2@host/db",
        "postgres:/\n/user:12/hunter2@host/db",
        "sqlite:///x.db?keyring=hunter2",
        "foo://user:hunter2@host",
    ] {
        check(url).expect(2).never_says("hunter2");
    }
    for url in [
        "sqlite://user:hunter2@host/x",
        "postgres:user:12/hunter2@host/db",
        "postgres:/\n/user:12/hunter2@host/db",
        "sqlite:x.db?keyring=hunter2",
    ] {
        lab.run(&["copy", url]).expect(2).never_says("hunter2");
    }
    for option in ["--configs", "--references", "--journal"] {
        lab.moves("plan", &[option, "postgres://user:hunter2@host/db?table=t"])
            .expect(2)
            .says(option)
            .never_says("hunter2");
    }
    assert!(!lab.file("x.db").exists());
}

/// Otherwise a row's name could erase what the tool reports about it.
#[tokio::test]
async fn nothing_that_a_terminal_obeys_is_printed() {
    let lab = Lab::with(1, 1).await;
    lab.sql("INSERT INTO actor (id, configuration) SELECT char(27) || '[2K' || char(13) || 'row' || char(8238), replace(configuration, 'secret_', 'secret_0') FROM actor")
        .await;
    for more in [&[][..], &["--json"]] {
        let ran = lab.moves("plan", more).expect(3);
        let shown = format!("{}{}", ran.stdout, ran.stderr);
        assert!(shown.contains(r"\u001b[2K\rrow\u202e"), "{shown}");
        for char in ['\u{1b}', '\r', '\u{202e}'] {
            assert!(!shown.contains(char), "{}", shown.escape_debug());
        }
    }
}

/// A list of hundreds would push everything else off the screen.
#[tokio::test]
async fn long_lists_go_to_a_file_and_ten_of_them_to_the_screen() {
    let lab = Lab::with(25, 1).await;
    std::fs::remove_file(lab.file("source.db")).unwrap();
    let _ = lab.source().await;
    let ran = lab.moves("plan", &["--list", "names.txt"]).expect(3);
    let shown = |name: &str| ran.stdout.contains(name);
    let names = lab.secrets.keys().filter(|name| shown(name.as_str()));
    assert_eq!(names.count(), 10, "{}", ran.stdout);
    let ran = ran.says("… and 15 more");
    let written = std::fs::read_to_string(lab.file("names.txt")).unwrap();
    for name in lab.secrets.keys() {
        assert!(written.contains(name.as_str()), "{name}: {ran:?}");
    }
    // Nobody's file is overwritten.
    lab.moves("plan", &["--list", "names.txt"])
        .expect(2)
        .says("--list names.txt");
}

/// An operator who writes `read-only=true` relies on it, and this tool opens the store itself.
#[tokio::test]
async fn what_stands_around_the_stores_of_a_service_is_refused_in_a_url() {
    let lab = Lab::with(1, 1).await;
    for name in ["read-only", "cache", "mirror", "limit-share"] {
        lab.run(&["sweep", "--store", &format!("sqlite:source.db?{name}=true")])
            .expect(2)
            .says(&format!("`{name}` is for services"));
    }
}

#[tokio::test]
async fn no_owner() {
    let lab = Lab::with(1, 1).await;
    let output = lab
        .command(&lab.between("copy", &[]))
        .env_remove("SECRETS_OWNER")
        .output()
        .unwrap();
    crate::lab::Ran::from(output)
        .expect(2)
        .says("set SECRETS_OWNER")
        .says("TO_SECRETS_OWNER");
    assert_eq!(names(&lab.target().await).await.len(), 0);
}

#[tokio::test]
async fn sources_of_configurations() {
    let lab = Lab::with(2, 1).await;
    let plan = |source: &str| lab.moves("plan", &["--configs", source]);
    let database = "sqlite:configurations.db";
    plan("nowhere.jsonl")
        .expect(2)
        .says("nowhere.jsonl")
        .says("no such file");
    plan("sqlite:nowhere.db?table=t&id=i&configuration=c")
        .expect(2)
        .says("no such file");
    plan(&format!("{database}?table=actor&id=id"))
        .expect(2)
        .says("configuration=");
    plan(&format!(
        "{database}?table=actor&configuration=configuration"
    ))
    .expect(2)
    .says("id=");
    plan(&format!("{database}?table=a;b&id=id&configuration=c"))
        .expect(2)
        .says("not the name of a table");
    plan(&format!(
        "{database}?table=actor&id=id&configuration=configuration&wehre=x"
    ))
    .expect(2)
    .says("did you mean `where`");
    for (columns, name) in [
        ("table=nothing&id=id&configuration=configuration", "nothing"),
        ("table=actor&id=nope&configuration=configuration", "nope"),
        ("table=actor&id=id&configuration=nope", "nope"),
    ] {
        plan(&format!("{database}?{columns}"))
            .expect(2)
            .says(name)
            .never_says("--configs: --configs");
    }
    lab.moves(
        "plan",
        &["--configs", &lab.table(), "--configs", &lab.table()],
    )
    .expect(2)
    .says("listed twice");
    lab.sql("UPDATE actor SET configuration = '{\"canary\": ' WHERE id = 'connector-000001'")
        .await;
    plan(&lab.table())
        .expect(2)
        .says("connector-000001")
        .says("truncated")
        .never_says("canary");
}

#[tokio::test]
async fn a_where_or_a_query_cannot_change_anything() {
    let lab = Lab::with(2, 1).await;
    for source in [
        "sqlite:configurations.db?table=actor&id=id&configuration=configuration&where=1=1);DELETE FROM actor;--",
        "sqlite:configurations.db?query-file=q.sql",
    ] {
        lab.write(
            "q.sql",
            "SELECT id, configuration FROM actor); DELETE FROM actor; --",
        );
        let ran = lab.moves("plan", &["--configs", source]);
        assert_ne!(ran.status, 0, "{ran:?}");
    }
    let plan = lab.moves("plan", &["--json"]).expect(0).json();
    assert_eq!(plan["tally"]["configurations"], 2);
}

#[tokio::test]
async fn json_lines() {
    let lab = Lab::with(1, 1).await;
    let plan = |text: &str| {
        lab.write("c.jsonl", text);
        lab.moves("plan", &["--configs", "c.jsonl"])
    };
    plan(&format!(
        "{HEALTHY}\n{}",
        r#"{"id":"b","configuration":{"password":"canary"#
    ))
    .expect(2)
    .says("c.jsonl")
    .says("line 2")
    .says("truncated")
    .never_says("canary");
    let twice = plan(&format!("{HEALTHY}\n{HEALTHY}\n"));
    assert_ne!(twice.status, 0, "{twice:?}");
    twice.says("c.jsonl#a").says("same id");
}

#[tokio::test]
async fn two_rows_with_one_id() {
    let lab = Lab::with(1, 1).await;
    lab.sql("CREATE TABLE twice (id TEXT, configuration TEXT)")
        .await;
    lab.sql("INSERT INTO twice VALUES ('same', '{}'), ('other', '{}'), ('same', '{}')")
        .await;
    let source = "sqlite:configurations.db?table=twice&id=id&configuration=configuration";
    let ran = lab.moves("copy", &["--configs", source]).says("same");
    assert!([1, 2, 3].contains(&ran.status), "{ran:?}");
    assert_eq!(names(&lab.target().await).await.len(), 0);
}

#[tokio::test]
async fn the_journal_of_another_run() {
    let lab = Lab::with(1, 1).await;
    lab.moves("copy", &[]).expect(0);
    let table = lab.table();
    lab.run(&[
        "copy",
        "--from",
        "sqlite:source.db",
        "--to",
        "sqlite:elsewhere.db",
        "--configs",
        &table,
        "--journal",
        "journal.db",
    ])
    .expect(2)
    .says("another run")
    .says("target.db")
    .says("elsewhere.db");
    let elsewhere = names(&lab.source().await).await.len();
    assert_eq!(elsewhere, 1);
    lab.write(
        "no-journal.db",
        "this is no database, but somebody's diary of more than a few bytes",
    );
    let ran = lab.moves("copy", &["--journal", "no-journal.db"]);
    assert_ne!(ran.status, 0);
}

#[tokio::test]
async fn a_key_ring_without_the_key_of_a_row() {
    let lab = Lab::with(1, 1).await;
    lab.moves("copy", &[]).expect(0);
    std::fs::remove_file(lab.file("ring")).unwrap();
    lab.run(&["keygen", "--file", "ring", "--id", "k2"])
        .expect(0);
    lab.moves("verify", &[])
        .expect(2)
        .says("target.db")
        .says("k1");
    lab.run(&[
        "keygen",
        "--file",
        "ring",
        "--remove",
        "k1",
        "--store",
        "sqlite:target.db",
    ])
    .expect(2);
    lab.run(&["keygen", "--file", "ring"])
        .expect(2)
        .says("already exists");
}

#[tokio::test]
async fn missing_coordinates_are_all_listed() {
    let lab = Lab::with(6, 1).await;
    let source = lab.source().await;
    let gone: Vec<_> = lab.secrets.keys().step_by(2).cloned().collect();
    for name in &gone {
        source.delete(name, &Default::default()).await.unwrap();
    }
    source.close().await;
    lab.moves("plan", &[]).expect(3);
    let mut ran = lab.moves("copy", &[]).expect(3).says("--missing skip");
    for name in &gone {
        ran = ran.says(name.as_str());
    }
    lab.moves("copy", &["--missing", "skip"]).expect(0);
    assert_eq!(names(&lab.target().await).await.len(), 3);
}

#[tokio::test]
async fn a_value_too_large_for_the_target_shows_in_the_plan() {
    let lab = Lab::with(1, 1).await;
    let name = lab.secrets.keys().next().unwrap();
    let text = name.as_str().replace("_v1", "_v2");
    let large = secret_persistence_core::ManagedCoordinate::parse(&text).unwrap();
    // As somebody else would have stored it: our own store refuses it.
    let pool = sqlx::SqlitePool::connect_with(
        sqlx::sqlite::SqliteConnectOptions::new().filename(lab.file("source.db")),
    )
    .await
    .unwrap();
    let limit = secret_persistence_core::SecretPersistence::capabilities(&lab.target().await)
        .max_value_bytes;
    sqlx::query("INSERT INTO secrets (coordinate, payload) VALUES ($1, $2)")
        .bind(large.as_str())
        .bind("x".repeat(limit + 1))
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    lab.sql(&format!("INSERT INTO actor (id, configuration) VALUES ('large', '{{\"p\":{{\"_secret\":\"{large}\"}}}}')"))
        .await;
    lab.moves("plan", &[])
        .expect(3)
        .says(large.as_str())
        .says("--unfit skip");
}

#[tokio::test]
async fn a_disk_that_fills_up_loses_nothing() {
    let lab = Lab::with_values(200, 1, |index| format!("{index}{}", "x".repeat(4096))).await;
    let arguments = lab.between("copy", &["--concurrency", "4"]);
    // No file may grow beyond 300 KiB (ulimit counts in 512 or 1024 bytes); the signal is ignored, so
    // that the write fails as it does on a full disk.
    let script = "trap '' XFSZ; ulimit -f 300; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_secret-migrate"))
        .args(&arguments)
        .current_dir(lab.folder())
        .env_clear()
        .env("SECRETS_OWNER", "lab")
        .env("TO_SECRETS_KEYRING_FILE", "ring")
        .output()
        .unwrap();
    let ran = crate::lab::Ran::from(output);
    assert_eq!(ran.status, 4, "{ran:?}");
    lab.expect_source_whole().await;
    lab.moves("copy", &[]).expect(0);
    lab.moves("verify", &[]).expect(0);
    lab.expect_moved().await;
}

#[tokio::test]
async fn somebody_elses_value_is_no_reason_to_change_the_source() {
    let lab = Lab::with(1, 1).await;
    let name = lab.secrets.keys().next().unwrap();
    let target = lab.target().await;
    target
        .write(Write::new(name.clone(), SecretValue::new("other".into())))
        .await
        .unwrap();
    target.close().await;
    lab.moves("copy", &[]).expect(1).says(name.as_str());
    lab.moves("retire", &["--all-references"]);
    lab.expect_source_whole().await;
}
