//! How many instructions the connector calls take, and which part takes how many:
//! `cargo bench -p secret-persistence-core --bench instructions`.
//!
//! Every case runs in a process of its own under callgrind (the program `valgrind` must be installed), which counts only
//! what the case calls. Each figure is the mean of several calls that are equal, after some that are not counted.
//! The input of a call is copied before; what it returns is dropped within, with its wipe. So the counts are those of
//! a call as a user makes it, and neither other work on the machine nor its clock changes them. A small difference
//! between two runs is the random seed of the hash maps.

// A benchmark is a program of its own: it reports to its output and ends where it cannot go on.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod figures;

use std::collections::HashMap;
use std::env;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use secret_persistence_core::connector::{
    ActingSecrets, ConnectorOptions, ConnectorSecrets, ConnectorSpec, Policy, SecretJson,
    hydrate_with, plan_create, pointers,
};
use secret_persistence_core::{
    Actor, Coordinate, ManagedCoordinate, Memory, Scope, SecretPersistence, SecretValue, Stores,
    Write,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// What is counted. The first is the baseline of the ratios.
const CALLS: [&str; 6] = [
    "clone",
    "split, the walk alone",
    "`stage_create` over memory",
    "hydrate, the walk alone",
    "`hydrate` over memory",
    "mask",
];

/// Parts of the calls that no call can do without, counted alone.
const PARTS: [&str; 7] = [
    "one boxed future",
    "the store's read, with its boxed future",
    "the store's write, with its boxed future",
    "the names, parsed",
    "names for new secrets",
    "dropping a hydrated configuration with its wipe",
    "dropping it without",
];

const CONFIGURATIONS: [&str; 4] = ["1 secret", "2 secrets", "1,000 secrets", "10,000 secrets"];

/// Secrets of others in the store.
const OTHERS: u128 = 1_000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [configuration, case] if !configuration.starts_with('-') => {
            run(configuration, case);
        }
        _ => {
            table(&CALLS, true);
            table(&PARTS, false);
        }
    }
}

fn table(cases: &[&str], with_ratio: bool) {
    println!(
        "| | {} |\n|---{}|",
        CONFIGURATIONS.join(" | "),
        "|---".repeat(CONFIGURATIONS.len())
    );
    let mut clones = HashMap::new();
    for case in cases {
        let cells: Vec<String> = CONFIGURATIONS
            .iter()
            .map(|configuration| {
                let count = count(configuration, case) / calls(configuration);
                let clone = *clones.entry(*configuration).or_insert(count);
                match with_ratio {
                    #[allow(clippy::cast_precision_loss)]
                    true => format!(
                        "{} ({:.2})",
                        figures::grouped(count),
                        count as f64 / clone as f64
                    ),
                    false => figures::grouped(count),
                }
            })
            .collect();
        println!("| {case} | {} |", cells.join(" | "));
    }
    println!();
}

/// Counts one case in a process of its own.
fn count(configuration: &str, case: &str) -> u64 {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
            "--toggle-collect=*counted*",
        ])
        .arg(env::current_exe().unwrap())
        .args([configuration, case])
        .output()
        .expect("valgrind is installed");
    let report = String::from_utf8(output.stderr).unwrap();
    let count = report
        .lines()
        .find_map(|line| line.split("Collected :").nth(1));
    match count.map(|count| count.trim().parse()) {
        Some(Ok(count)) if output.status.success() => count,
        _ => panic!("callgrind counted nothing:\n{report}"),
    }
}

/// The calls of one count.
fn calls(configuration: &str) -> u64 {
    match configuration {
        "1 secret" | "2 secrets" => 64,
        _ => 2,
    }
}

fn specification() -> Value {
    let secret = json!({"type": "string", "airbyte_secret": true});
    let text = json!({"type": "string"});
    json!({"type": "object", "properties": {
        "host": text, "port": {"type": "integer"}, "database": text, "username": text,
        "password": secret,
        "ssl_mode": {"type": "object", "properties": {"mode": text, "client_key": secret}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"name": text, "s": secret}}},
    }})
}

/// The first two have the size of most configurations: 135 and 164 bytes.
fn configuration(name: &str) -> Value {
    let list = |count: usize| -> Value {
        let item = |index| json!({"name": format!("name {index}"), "s": format!("secret {index}")});
        json!({"list": (0..count).map(item).collect::<Vec<Value>>()})
    };
    match name {
        "1 secret" => json!({
            "host": "db.example.com", "port": 5432, "database": "warehouse", "username": "reader",
            "password": "correct horse battery", "ssl_mode": {"mode": "require"},
        }),
        "2 secrets" => json!({
            "host": "db.example.com", "port": 5432, "database": "warehouse", "username": "reader",
            "password": "correct horse battery",
            "ssl_mode": {"mode": "require", "client_key": "-----BEGIN"},
        }),
        "1,000 secrets" => list(1_000),
        "10,000 secrets" => list(10_000),
        _ => panic!("no configuration has this name"),
    }
}

/// Runs each call twice as often as it is counted.
#[allow(clippy::too_many_lines)]
fn run(name: &str, case: &str) {
    let calls = usize::try_from(calls(name)).unwrap();
    let spec = ConnectorSpec::compile(&specification()).unwrap();
    let (scope, policy) = (Scope::workspace(Uuid::from_u128(0xA)), Policy::default());
    let store = Arc::new(Memory::new());
    for other in 0..OTHERS {
        let name = format!("airbyte_workspace_{}_secret_1_v1", Uuid::from_u128(other));
        store.insert(&name, SecretValue::new("value".to_owned()));
    }
    let secrets = acting(store.clone());
    let config = configuration(name);
    let stage = |config| {
        let staged = secrets.stage_create(&spec, &scope, config);
        staged.now_or_never().unwrap().unwrap()
    };
    let hydrate = |saved| {
        let full = secrets.hydrate(saved);
        full.now_or_never().unwrap().unwrap()
    };
    let saved = stage(config.clone()).config().clone();
    let full = hydrate(saved.clone()).into_inner();
    assert!(full == config, "hydrate returns what was split");
    let names: Vec<Coordinate> = pointers(&saved)
        .unwrap()
        .into_iter()
        .map(|(_, pointer)| pointer.coordinate.unwrap())
        .collect();
    let values: HashMap<Coordinate, SecretValue> = names
        .iter()
        .zip(store.read_batch(&names).now_or_never().unwrap())
        .map(|(name, read)| (name.clone(), read.unwrap().value))
        .collect();
    let new_names = || -> Vec<ManagedCoordinate> {
        let name = |_: &Coordinate| ManagedCoordinate::new(&scope, Uuid::new_v4(), 1).unwrap();
        names.iter().map(name).collect()
    };
    let writes = || -> Vec<Write> {
        let value = SecretValue::new("correct horse battery".to_owned());
        let write = |name| Write::new(name, value.clone());
        new_names().into_iter().map(write).collect()
    };
    let nothing: Arc<dyn Nothing> = Arc::new(());
    match case {
        "clone" => each(calls, || (), |()| config.clone()),
        "split, the walk alone" => each(
            calls,
            || config.clone(),
            |config| plan_create(&spec, &scope, &policy, config).unwrap(),
        ),
        "`stage_create` over memory" => each(calls, || config.clone(), stage),
        "hydrate, the walk alone" => each(
            calls,
            || saved.clone(),
            |saved| {
                hydrate_with(saved, |pointer| values.get(pointer.coordinate.as_ref()?)).unwrap()
            },
        ),
        "`hydrate` over memory" => each(calls, || saved.clone(), hydrate),
        "mask" => each(
            calls,
            || config.clone(),
            |config| spec.mask(config).unwrap(),
        ),
        "one boxed future" => each(
            calls,
            || (),
            |()| black_box(&nothing).nothing(7).now_or_never(),
        ),
        "the store's read, with its boxed future" => {
            let store: Arc<dyn SecretPersistence> = store;
            // As many as a batch has at most.
            each(
                calls,
                || (),
                |()| -> Vec<_> {
                    let read = |names| store.read_batch(names).now_or_never();
                    names
                        .chunks(store.capabilities().read_batch)
                        .map(read)
                        .collect()
                },
            );
        }
        "the store's write, with its boxed future" => {
            let store: Arc<dyn SecretPersistence> = store;
            each(calls, writes, |writes| {
                let write = |writes| store.write_batch(writes).now_or_never();
                let written: Vec<_> = writes
                    .chunks(store.capabilities().write_batch)
                    .map(write)
                    .collect();
                // The writes themselves are not the store's.
                (written, std::mem::ManuallyDrop::new(writes))
            });
        }
        "the names, parsed" => each(
            calls,
            || (),
            |()| -> Vec<Coordinate> {
                names
                    .iter()
                    .map(|name| Coordinate::parse(name.as_str()).unwrap())
                    .collect()
            },
        ),
        "names for new secrets" => each(calls, || (), |()| new_names()),
        "dropping a hydrated configuration with its wipe" => {
            each(calls, || config.clone(), SecretJson::new);
        }
        "dropping it without" => each(calls, || config.clone(), |config| config),
        _ => panic!("no case has this name"),
    }
}

fn acting(store: Arc<dyn SecretPersistence>) -> ActingSecrets {
    ConnectorSecrets::new(Stores::new(store), ConnectorOptions::default())
        .acting_as(&Actor::new("bench"))
}

/// A call that does nothing through a dyn-safe trait.
#[async_trait]
trait Nothing: Send + Sync {
    async fn nothing(&self, value: usize) -> usize;
}

#[async_trait]
impl Nothing for () {
    async fn nothing(&self, value: usize) -> usize {
        value
    }
}

/// Calls something twice as often as it is counted, so that what only a first call does is not.
fn each<I, O>(calls: usize, input: impl Fn() -> I, mut call: impl FnMut(I) -> O) {
    let inputs = || -> Vec<I> { (0..calls).map(|_| input()).collect() };
    for input in inputs() {
        drop(black_box(call(black_box(input))));
    }
    counted(inputs(), &mut |input| {
        drop(black_box(call(black_box(input))));
    });
}

/// What callgrind counts, by its name.
#[inline(never)]
fn counted<I>(inputs: Vec<I>, call: &mut dyn FnMut(I)) {
    for input in inputs {
        call(input);
    }
}
