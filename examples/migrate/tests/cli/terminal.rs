//! What an operator sees on a terminal of 80 columns.

use std::process::{Command, Stdio};

use crate::lab::{Lab, Ran};

const COLUMNS: usize = 80;

/// Runs the binary on a terminal, which `script` of util-linux makes. None where there is none,
/// which fails where that matters.
fn on_a_terminal(lab: &Lab, arguments: &[String]) -> Option<Ran> {
    let quoted = |argument: &String| format!("'{argument}'");
    let arguments: Vec<String> = arguments.iter().map(quoted).collect();
    let program = lab.command::<&str>(&[]).get_program().to_owned();
    let line = format!(
        "stty cols {COLUMNS} rows 24 && exec {} {}",
        program.to_str().unwrap(),
        arguments.join(" ")
    );
    let ran = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .current_dir(lab.folder())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TERM", "xterm")
        .env("SECRETS_OWNER", "lab")
        .env("TO_SECRETS_KEYRING_FILE", "ring")
        .stdin(Stdio::null())
        .output();
    match ran {
        Ok(output) => Some(output.into()),
        Err(error) => {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "script: {error}"
            );
            eprintln!("SKIPPED: script: {error}");
            None
        }
    }
}

/// The text without the sequences that move the cursor, erase or colour.
fn plain(shown: &str) -> String {
    let mut parts = shown.split('\u{1b}');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|char: char| char.is_ascii_alphabetic());
        text += end.map_or("", |end| &part[end + 1..]);
    }
    text
}

/// The lines that stay on the screen.
fn lines(shown: &str) -> Vec<String> {
    plain(shown)
        .split('\n')
        .map(|line| line.trim_end_matches('\r'))
        // What a carriage return goes back over is drawn over.
        .map(|line| line.rsplit('\r').next().unwrap_or(line).to_owned())
        .collect()
}

/// Ends the test if a line of several words is wider than the terminal, which would break one.
#[track_caller]
fn expect_whole_words(shown: &str) {
    for line in lines(shown) {
        let fits = console::measure_text_width(&line) <= COLUMNS;
        let words = line.split_whitespace().count();
        assert!(fits || words == 1, "{line}\nin\n{shown}");
    }
}

#[tokio::test]
async fn lists_of_names_break_between_words_and_long_ones_end_with_a_number() {
    let lab = Lab::with(200, 1).await;
    std::fs::remove_file(lab.file("source.db")).unwrap();
    let _ = lab.source().await;
    let Some(ran) = on_a_terminal(&lab, &lab.between("plan", &[])) else {
        return;
    };
    let ran = ran.expect(3).says("… and 190 more (--list FILE writes all");
    expect_whole_words(&ran.stdout);
    let names = lab.secrets.keys().filter(|name| {
        let is_it = |line: &String| line.trim() == name.as_str();
        lines(&ran.stdout).iter().any(is_it)
    });
    assert_eq!(names.count(), 10, "{}", ran.stdout);
    assert!(lines(&ran.stdout).len() < 60, "{}", ran.stdout);
}

/// Before its first secret, which a slow store may take a while for.
#[tokio::test]
async fn each_bar_is_drawn_at_once_and_fits() {
    let lab = Lab::with(25, 1).await;
    for (command, bars) in [
        ("copy", &["copy"][..]),
        ("verify", &["compare", "hydrate"]),
        ("rollback", &["hydrate", "delete"]),
    ] {
        let Some(ran) = on_a_terminal(&lab, &lab.between(command, &[])) else {
            return;
        };
        let ran = ran.expect(0);
        expect_whole_words(&ran.stdout);
        for bar in bars {
            let drawn = plain(&ran.stdout);
            let drawn: Vec<&str> = drawn.split(['\r', '\n']).collect();
            let first = drawn.iter().find(|line| line.starts_with(bar)).unwrap();
            let at_zero = first.contains(" 0/25 ") || first.contains(" 0  ");
            assert!(at_zero, "{bar}: {first}\n{drawn:#?}");
            let too_wide = |line: &&&str| console::measure_text_width(line) > COLUMNS;
            let wide = drawn
                .iter()
                .filter(|line| line.starts_with(bar))
                .find(too_wide);
            assert_eq!(wide, None);
        }
    }
}

#[test]
fn the_demo_fits() {
    let lab = Lab::empty();
    if let Some(ran) = on_a_terminal(&lab, &["demo".to_owned()]) {
        let ran = ran.expect(0);
        for line in lines(&ran.stdout) {
            assert!(console::measure_text_width(&line) <= COLUMNS, "{line}");
        }
    }
}
