//! The programs with which `scripts/release` packs.

use std::path::PathBuf;

use crate::{Absent, available, cache};

/// The folder with `cargo-cyclonedx` and `cargo-deb`; `None` if they are not installed and the test
/// may be skipped.
///
/// # Panics
///
/// If the variable `CI` is `true` and they are missing.
pub fn packaging() -> Option<PathBuf> {
    let name = "what scripts/release packs with";
    let found = cache::find("packaging", cache::PACKAGING_PINS, "bin")
        .map_err(|error| Absent::failed(name, error))
        .and_then(|found| {
            found.ok_or_else(|| Absent::Missing {
                server: name,
                remedy: "run tests/servers/build packaging".into(),
            })
        });
    available(found)
}
