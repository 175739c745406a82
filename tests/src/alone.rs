//! Tests that need a separate process and environment.

use std::path::Path;
use std::process::Command;

/// Runs one ignored test of this binary in a separate process. Its environment contains only the
/// given variables.
pub fn in_a_process_of_its_own(test: &str, home: &Path, environment: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().expect("a test runs from a file"))
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env_clear()
        .env("HOME", home)
        .envs(environment.iter().copied())
        .output()
        .expect("a file that runs can be run again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
