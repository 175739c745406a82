//! The targets of `fuzz/` for a bounded number of cases: their seeds, among them every input that once
//! broke a promise, and random mutations of them. `FUZZ_CASES` sets how many mutations each target
//! gets.

// The helpers are tests too, which clippy only sees in functions that are marked.
#![allow(clippy::expect_used, clippy::unwrap_used, unreachable_pub)]
#![cfg(all(
    feature = "aws",
    feature = "azure",
    feature = "gcp",
    feature = "postgres",
    feature = "sqlite",
    feature = "vault"
))]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

#[path = "../../../fuzz/src/targets.rs"]
mod targets;

/// The same in every run, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or_default() % limit.max(1)
    }
}

/// Words that parsers treat specially.
const WORDS: [&str; 14] = [
    "\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "%",
    "/",
    "\n",
    "\u{0}",
    "null",
    "airbyte_secret",
    "é",
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The files of a folder, in the order of their names.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = self::folder().join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = files(&format!("seeds/{target}"));
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn mutated(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len());
        match random.below(6) {
            0 => data.truncate(at),
            1 if !data.is_empty() => data[at] = u8::try_from(random.below(128)).unwrap(),
            2 if !data.is_empty() => {
                data.remove(at);
            }
            3 => {
                let word = WORDS[random.below(WORDS.len())];
                data.splice(at..at, word.bytes());
            }
            4 => {
                // A piece of another place, or of another seed.
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let length = random.below(other.len() - from);
                data.splice(at..at, other[from..from + length].iter().copied());
            }
            _ => {
                let end = (at + random.below(16)).min(data.len());
                data.drain(at..end);
            }
        }
    }
    data
}

#[test]
fn every_target_keeps_its_promise() {
    let cases = std::env::var("FUZZ_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(2_000);
    for (name, target) in targets::TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let run = |data: &[u8]| {
            let outcome = catch_unwind(AssertUnwindSafe(|| target(data)));
            assert!(
                outcome.is_ok(),
                "{name} fails on {:?}",
                String::from_utf8_lossy(data)
            );
        };
        for seed in &seeds {
            run(seed);
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..cases {
            run(&mutated(&mut random, &seeds));
        }
    }
}

/// A target without a file for cargo-fuzz would only ever run here, and seeds without a target never.
#[test]
fn every_target_has_a_program_and_a_row_in_the_readme() {
    let read = |file: &str| fs::read_to_string(folder().join(file)).unwrap();
    let (manifest, readme) = (read("Cargo.toml"), read("README.md"));
    for (name, _) in targets::TARGETS {
        let program = read(&format!("fuzz_targets/{name}.rs"));
        assert!(
            program.contains(&format!("targets::{name}(data)")),
            "{name}"
        );
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    let rows: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(rows, names, "the table of fuzz/README.md");
    for kind in ["seeds", "fuzz_targets"] {
        let stems: Vec<String> = files(kind)
            .iter()
            .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(stems, names, "{kind}");
    }
}
