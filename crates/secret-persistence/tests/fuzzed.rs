//! The targets of `fuzz/` for a bounded number of cases: inputs from which they begin, and random
//! mutations of them. `FUZZ_CASES` sets how many mutations each target gets.

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

use std::panic::{AssertUnwindSafe, catch_unwind};

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

fn mutated(random: &mut Random, seeds: &[&str]) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].as_bytes().to_vec();
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
                let other = seeds[random.below(seeds.len())].as_bytes();
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
    for (name, target, seeds) in targets::TARGETS {
        let run = |data: &[u8]| {
            let outcome = catch_unwind(AssertUnwindSafe(|| target(data)));
            assert!(
                outcome.is_ok(),
                "{name} fails on {:?}",
                String::from_utf8_lossy(data)
            );
        };
        for seed in seeds {
            run(seed.as_bytes());
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..cases {
            run(&mutated(&mut random, seeds));
        }
    }
}

/// A target without a file for cargo-fuzz would only ever run here.
#[test]
fn every_target_has_a_program() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (name, _, _) in targets::TARGETS {
        let program = std::fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs")));
        assert!(
            program.unwrap().contains(&format!("targets::{name}(data)")),
            "{name}"
        );
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
