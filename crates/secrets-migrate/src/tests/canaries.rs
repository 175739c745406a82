//! Nothing that a run leaves behind is derived from a value.
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use secret_persistence_core::{Capabilities, Error, ErrorKind, Memory, SecretPersistence};
use serde_json::json;
use sha2::Digest;

use super::tap::{Done, Process, Tap};
use super::world::{World, contents, name, pointer, put};
use crate::{AllReferences, Decisions, Event, Journal, Observer, Orphaned, Shared, Unfit};

#[derive(Debug, Default)]
struct Listener(Mutex<String>);

impl Observer for Listener {
    fn event(&self, event: &Event<'_>) {
        writeln!(self.0.lock().unwrap(), "{event:?}").unwrap();
    }
}

/// Everything that is commonly made of a value, in the spellings in which it would be printed.
fn derived(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (0u32.wrapping_sub(crc & 1)))
        })
    }) ^ u32::MAX;
    let digests: Vec<Vec<u8>> = vec![
        bytes.to_vec(),
        sha1::Sha1::digest(bytes).to_vec(),
        sha2::Sha256::digest(bytes).to_vec(),
        sha2::Sha512::digest(bytes).to_vec(),
        md5::Md5::digest(bytes).to_vec(),
        crc.to_be_bytes().to_vec(),
    ];
    let mut forms: Vec<String> = value.lines().map(str::to_owned).collect();
    forms.push(crc.to_string());
    for digest in digests {
        let hex: String = digest.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        forms.push(hex.to_uppercase());
        forms.push(hex);
        // The first characters are enough to know one by, and padding differs from form to form.
        let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD_NO_PAD, &digest);
        forms.push(base64::Engine::encode(
            &base64::prelude::BASE64_URL_SAFE_NO_PAD,
            &digest,
        ));
        forms.push(base64.chars().take(16).collect());
        forms.push(format!("{digest:?}"));
    }
    forms
}

#[tokio::test]
async fn nothing_is_derived_from_a_value() {
    let mut world = World::with(40, 7).await;
    let capabilities = Capabilities {
        max_value_bytes: 500,
        ..world.target.capabilities()
    };
    world.target = Arc::new(Memory::new().with_capabilities(capabilities));
    // Too large by a telling number of bytes, two kinds of conflict, one to be unshared, and rows
    // that were never split.
    let large = "large-canary\n".repeat(1003);
    put(&world.source, 101, &large).await;
    world.row(101, json!({"a": pointer(101)}));
    put(&world.target, 2, "other-canary-in-the-target").await;
    world.row(
        103,
        json!({"a": pointer(1), "password": "raw-canary-of-a-row\nline two"}),
    );
    world.row(
        105,
        json!({"a": {"_secret": "canary-in-a-pointer\u{1}"}, "_secret": "x"}),
    );
    put(&world.source, 107, "orphan-canary").await;
    world.options.decisions = Decisions::default()
        .with_unfit(Unfit::Skip)
        .with_orphaned(Orphaned::Copy)
        .with_shared(Shared::Unshare);
    let mut canaries: Vec<String> = contents(&world.source).await.into_values().collect();
    canaries.push("other-canary-in-the-target".to_owned());
    canaries.push("raw-canary-of-a-row\nline two".to_owned());
    canaries.push("canary-in-a-pointer".to_owned());

    let listener = Arc::new(Listener::default());
    let mut seen = String::new();
    let process = Process::endless();
    let fails = |done: &Done<'_>| match done {
        Done::Write(writes) if writes[0].coordinate == name(7) => Some(
            // Backends refuse with the size, and even that is not passed on.
            Error::new(ErrorKind::PayloadTooLarge, "the value has 13039 bytes")
                .with_coordinate(name(7).shared()),
        ),
        _ => None,
    };
    for round in 0..2 {
        let migration = world
            .migration_between(
                Tap::new(world.source.clone(), &process),
                Tap::new(world.target.clone(), &process).failing(fails),
                &process,
            )
            .with_observer(listener.clone());
        writeln!(seen, "{migration:?}").unwrap();
        for report in [
            migration.plan().await,
            migration.copy().await,
            migration.verify().await,
            migration.rollback().await,
            migration.retire(AllReferences::confirmed()).await,
        ] {
            let report = report.unwrap();
            assert!(!report.is_complete(), "every one has something to tell");
            let json = serde_json::to_string_pretty(&report).unwrap();
            writeln!(seen, "{report:?}\n{json}").unwrap();
        }
        if round == 0 {
            world.configs.remove("105");
            super::world::remove(&world.target, 2).await;
            super::world::remove(&world.source, 33).await;
        }
    }
    let notes = world.journal.notes(None, 100).await.unwrap();
    writeln!(
        seen,
        "{:?} {:?} {notes:?}",
        world.journal,
        world.entries().await
    )
    .unwrap();
    seen.push_str(&listener.0.lock().unwrap());
    assert!(seen.len() > 10_000 && seen.contains(name(7).as_str()));
    assert!(!seen.contains("13039"), "not even a length");
    for canary in &canaries {
        for form in derived(canary) {
            assert!(!seen.contains(&form), "{form:?} of {canary:?}");
        }
    }
    // The search finds what is there.
    let leak = derived("x").swap_remove(3);
    assert!(format!("a{leak}b").contains(&leak));
}
