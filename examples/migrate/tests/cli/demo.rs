//! Command 1 of the README.

use crate::lab::Lab;

#[test]
fn one_screen_and_the_last_line() {
    let lab = Lab::empty();
    let before = std::fs::read_dir(lab.folder()).unwrap().count();
    let ran = lab.run(&["demo"]).expect(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines.len() <= 45, "{} lines:\n{}", lines.len(), ran.stdout);
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{}",
        ran.stdout
    );
    let last = lines.last().unwrap();
    let numbers: Vec<u32> = last
        .split(|char: char| !char.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect();
    assert_eq!(
        **last,
        format!(
            "demo: {} connectors, {} secrets moved, verified and rolled back; 0 failed",
            numbers[0], numbers[1]
        )
    );
    assert!(numbers[0] >= 12 && numbers[1] >= 25, "{last}");
    // Nothing outside its temporary folder.
    assert_eq!(std::fs::read_dir(lab.folder()).unwrap().count(), before);
}

#[test]
fn a_folder_of_ones_own_keeps_the_databases_and_is_never_overwritten() {
    let lab = Lab::empty();
    lab.run(&["demo", "--folder", "kept"]).expect(0);
    for name in [
        "secrets.db",
        "encrypted.db",
        "configurations.db",
        "journal.db",
        "keyring",
    ] {
        assert!(lab.file("kept").join(name).is_file(), "{name}");
    }
    lab.run(&["demo", "--folder", "kept"])
        .expect(2)
        .says("is not empty");
}

#[test]
fn programs_get_one_object() {
    let result = Lab::empty().run(&["demo", "--json"]).expect(0).json();
    assert_eq!(result["failed"], 0);
    assert_eq!(result["exit_status"], 0);
    assert!(result["secrets"].as_u64() >= Some(25));
}
