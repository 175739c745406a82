//! `--config`, `init`, the help, completions and manual pages.

use std::process::Stdio;

use crate::lab::Lab;

/// The options of the lab's migration, as an operator writes them once.
fn options(lab: &Lab) -> String {
    format!(
        "from = 'sqlite:source.db'\nto = 'sqlite:target.db?mode=encrypted'\n\
         store = 'sqlite:target.db?mode=encrypted'\nconfigs = ['{}']\njournal = 'journal.db'\nlag = '1s'\n",
        lab.table()
    )
}

#[tokio::test]
async fn every_command_of_a_migration_reads_its_options_from_one_file() {
    let lab = Lab::with(2, 2).await;
    lab.write("move.toml", &options(&lab));
    let run = |arguments: &[&str], status: i32| {
        let mut all = vec!["--config", "move.toml"];
        all.extend(arguments);
        lab.run(&all).expect(status)
    };
    run(&["plan"], 0);
    run(&["copy"], 0);
    run(&["verify"], 0);
    lab.expect_moved().await;
    // The option may be anywhere, and the command line takes precedence.
    lab.run(&["check", "--config", "move.toml"])
        .expect(2)
        .says("KEYRING");
    lab.run(&[
        "check",
        "--config",
        "move.toml",
        "--store",
        "sqlite:source.db?mode=plain",
    ])
    .expect(0);
    // A file cannot confirm.
    run(&["retire"], 3).says("--all-references");
    lab.write("retire.toml", &(options(&lab) + "all-references = true\n"));
    lab.run(&["retire", "--config", "retire.toml"])
        .expect(2)
        .says("`all-references` is not an option of this file");
    lab.expect_source_whole().await;
    run(&["rollback"], 0);
}

#[tokio::test]
async fn init_writes_a_file_from_the_environment_that_plan_understands() {
    let lab = Lab::with(1, 1).await;
    lab.run(&["init"]).expect(2).says("SECRET_MIGRATE_FROM");
    assert!(!lab.file("secret-migrate.toml").exists());
    let init = |from: &str| -> crate::lab::Ran {
        lab.command(&["init"])
            .env("SECRET_MIGRATE_FROM", from)
            .env("SECRET_MIGRATE_TO", "sqlite:target.db?mode=encrypted")
            .env("SECRET_MIGRATE_CONFIGS", lab.table())
            .output()
            .unwrap()
            .into()
    };
    for url in [
        "postgres://user:hunter2@db/airbyte",
        "postgres:user:12/hunter2@db/airbyte",
        "hunter2@db",
    ] {
        init(url).expect(2).never_says("hunter2");
        assert!(!lab.file("secret-migrate.toml").exists(), "{url}");
    }
    init("sqlite:source.db").expect(0);
    lab.run(&["plan", "--config", "secret-migrate.toml"])
        .expect(0);
    init("sqlite:other.db").expect(2).says("already exists");
}

#[test]
fn init_asks_on_a_terminal() {
    let lab = Lab::empty();
    let tool = env!("CARGO_BIN_EXE_secret-migrate");
    let mut child = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command"])
        .arg(format!("'{tool}' init --file new.toml"))
        .arg("/dev/null")
        .current_dir(lab.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let answers = "sqlite:a.db\nsqlite:b.db\nrows.jsonl\nmore.jsonl\n\n\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), answers.as_bytes()).unwrap();
    crate::lab::Ran::from(child.wait_with_output().unwrap())
        .expect(0)
        .says("The store to copy from");
    let text = std::fs::read_to_string(lab.file("new.toml")).unwrap();
    for line in [
        "from = \"sqlite:a.db\"",
        "to = \"sqlite:b.db\"",
        "store = \"sqlite:b.db\"",
        "configs = [\"rows.jsonl\", \"more.jsonl\"]",
    ] {
        assert!(
            text.lines().any(|written| written == line),
            "{line}\n{text}"
        );
    }
    assert!(!text.contains("references"), "{text}");
}

#[test]
fn help_is_grouped_and_explains_every_figure() {
    let lab = Lab::empty();
    lab.run(&["--help"])
        .expect(0)
        .says("Move between stores:")
        .says("Look after a store:")
        .says("Exit status:");
    lab.run(&["copy", "--help"])
        .expect(0)
        .says("Stores:")
        .says("Configurations:")
        .says("Decisions:")
        .says("Every command:")
        .says("Figures of the report:")
        .says("changed_since");
    // The short help is short.
    lab.run(&["copy", "-h"])
        .expect(0)
        .never_says("Figures of the report:");
}

#[test]
fn completions_and_manual_pages_are_those_of_the_tool() {
    let lab = Lab::empty();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        lab.run(&["completions", shell])
            .expect(0)
            .says("secret-migrate")
            .says("rollback");
    }
    // The shell itself reads them.
    let script = lab.run(&["completions", "bash"]).stdout;
    lab.write("completions.bash", &script);
    let asked = std::process::Command::new("bash")
        .args(["--norc", "-c"])
        .arg(
            "source completions.bash; COMP_WORDS=(secret-migrate roll); COMP_CWORD=1; \
             function=$(complete -p secret-migrate | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             $function secret-migrate roll secret-migrate; echo \"${COMPREPLY[@]}\"",
        )
        .current_dir(lab.folder())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&asked.stdout), "rollback\n");

    lab.run(&["man", "--folder", "pages"]).expect(0);
    let page = |name: &str| std::fs::read_to_string(lab.file("pages").join(name)).unwrap();
    assert!(page("secret-migrate.1").contains("Exit status"));
    assert!(page("secret-migrate-copy.1").contains("Figures of the report"));
}
