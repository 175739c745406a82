//! How long compiling, splitting, hydrating and masking take: `cargo bench -p secret-persistence-core`.
//!
//! Every figure is that of a call as a user makes it: its input is copied before the clock starts, and what it returns
//! is dropped within the time. All calls of one configuration alternate with `serde_json::Value::clone` of the same
//! full configuration, which is dropped too. Values are looked up by name. With `CONNECTOR_SPECS` set, on the public
//! specifications it names; then the growth from 10 to 10,000 secrets: the least of several times, because memory that
//! is touched for the first time slows large ones down whatever is done with it. With `MALLOC_TRIM_THRESHOLD_` and
//! `MALLOC_MMAP_THRESHOLD_` at 4000000000 glibc keeps what it has. With the feature `layers` also through the layers
//! that the façade puts around a remote store.

// A benchmark is a program of its own: it reports to its output and ends where it cannot go on.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod figures;
#[path = "../tests/connector/generator.rs"]
mod generator;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use secret_persistence_core::connector::{
    ActingSecrets, ConnectorOptions, ConnectorSecrets, ConnectorSpec, Policy, References,
    hydrate_with, plan_create, plan_update, pointers,
};
use secret_persistence_core::{
    Actor, Coordinate, Memory, Scope, SecretPersistence, SecretValue, Stores,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// Repetitions of one operation within one time measurement, so that the clock does not count.
const BATCH: usize = 64;
const ROUNDS: usize = 15;

/// Configurations of each specification.
const SEEDS: u64 = 4;

/// Bytes around the median of the configurations on which Airbyte's own code was measured, 164.
const OF_AIRBYTES_SIZE: std::ops::RangeInclusive<usize> = 132..=196;

/// What is measured, in the order of the rows.
const CALLS: [&str; if cfg!(feature = "layers") { 8 } else { 6 }] = [
    "clone",
    "split, the walk alone",
    STAGE,
    #[cfg(feature = "layers")]
    "`stage_create` through metrics, retry and limit",
    "hydrate, the walk alone",
    HYDRATE,
    #[cfg(feature = "layers")]
    "`hydrate` through metrics, retry and limit",
    MASK,
];

const STAGE: &str = "`stage_create` over memory";
const HYDRATE: &str = "`hydrate` over memory";
const MASK: &str = "mask";

fn main() {
    // The layers set timers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    match env::var_os("CONNECTOR_SPECS") {
        Some(file) => corpus(&fs::read_to_string(file).unwrap()),
        None => println!("CONNECTOR_SPECS is not set: no public specification is measured"),
    }
    growth();
}

/// One configuration and what each call took.
struct Measured {
    bytes: usize,
    secrets: usize,
    ratios: [f64; CALLS.len()],
    micros: [f64; CALLS.len()],
}

/// Configurations with at least one secret: those without one would flatter every figure.
fn corpus(lines: &str) {
    let mut compile = Vec::new();
    let mut measured = Vec::new();
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let specification = &row["connectionSpecification"];
        let spec = ConnectorSpec::compile(specification).unwrap();
        compile.push(median((0..ROUNDS).map(|_| {
            timed(|| drop(black_box(ConnectorSpec::compile(specification)))).as_secs_f64() * 1e6
        })));
        for seed in 0..SEEDS {
            let generated = generator::generate(specification, seed, false);
            if generated.canaries.is_empty() {
                continue;
            }
            let figures = measure(&spec, &generated.config, ROUNDS, BATCH);
            let of_clone = |figure: &Vec<f64>| {
                let of_clone = figure.iter().zip(&figures[0]);
                median(of_clone.map(|(ours, clone)| ours / clone))
            };
            measured.push(Measured {
                bytes: generated.config.to_string().len(),
                secrets: generated.canaries.len(),
                ratios: figures.each_ref().map(of_clone),
                micros: figures
                    .each_ref()
                    .map(|figure| median(figure.iter().copied())),
            });
        }
    }
    println!(
        "{} specifications, {} configurations (median {} bytes, {} secrets)\n",
        compile.len(),
        measured.len(),
        median(measured.iter().map(|measured| measured.bytes as f64)),
        median(measured.iter().map(|measured| measured.secrets as f64)),
    );
    println!("| | ratio to clone | median µs | mean µs |\n|---|---|---|---|");
    for (at, name) in CALLS.iter().enumerate() {
        let micros = micros(&measured, at);
        println!(
            "| {name} | {:.2} | {:.3} | {:.3} |",
            median(measured.iter().map(|measured| measured.ratios[at])),
            median(micros.iter().copied()),
            mean(&micros)
        );
    }
    println!(
        "| compile, per specification | | {:.1} | {:.1} |\n",
        median(compile.iter().copied()),
        mean(&compile)
    );
    measured.retain(|measured| OF_AIRBYTES_SIZE.contains(&measured.bytes));
    let of = |name: &str| {
        let at = CALLS.iter().position(|call| *call == name).unwrap();
        format!(
            "{:.2} µs for {name}",
            median(micros(&measured, at).into_iter())
        )
    };
    println!(
        "{} configurations of {} to {} bytes (median {}): {}\n",
        measured.len(),
        OF_AIRBYTES_SIZE.start(),
        OF_AIRBYTES_SIZE.end(),
        median(measured.iter().map(|measured| measured.bytes as f64)),
        [STAGE, HYDRATE, MASK].map(of).join(", "),
    );
}

/// The times of one call.
fn micros(measured: &[Measured], call: usize) -> Vec<f64> {
    let times = measured.iter().map(|measured| measured.micros[call]);
    times.collect()
}

fn growth() {
    let spec = ConnectorSpec::compile(&json!({"properties": {"list": {"type": "array", "items": {
        "type": "object", "properties": {"name": {"type": "string"}, "s": {"airbyte_secret": true}},
    }}}}))
    .unwrap();
    // What layers add does not grow.
    let shown = (0..CALLS.len()).filter(|&call| !CALLS[call].contains("through"));
    let shown: Vec<usize> = shown.collect();
    let names: Vec<&str> = shown
        .iter()
        .map(|&call| CALLS[call].trim_end_matches(", the walk alone"))
        .collect();
    println!(
        "| secrets | {} | update, masked and reversed |",
        names.join(" | ")
    );
    println!("|---{}|---|", "|---".repeat(names.len()));
    for count in [10, 100, 1_000, 10_000] {
        let list: Vec<Value> = (0..count)
            .map(|index| json!({"name": format!("name {index}"), "s": format!("secret {index}")}))
            .collect();
        let config = json!({"list": list});
        let figures = measure(&spec, &config, ROUNDS, (2_000 / count).max(1)).map(least);
        let update = least((0..15).map(|_| update(&spec, &config)).collect());
        let of_clone = |figure: f64| format!("{} ({:.1})", short(figure), figure / figures[0]);
        let mut cells = vec![figures::grouped(count as u64), short(figures[0])];
        cells.extend(shown[1..].iter().map(|&call| of_clone(figures[call])));
        cells.push(of_clone(update));
        println!("| {} |", cells.join(" | "));
    }
}

/// A time as it stands in the table.
fn short(micros: f64) -> String {
    if micros < 100.0 {
        return format!("{micros:.1}");
    }
    #[allow(clippy::cast_sign_loss)]
    figures::grouped(micros.round() as u64)
}

fn scope() -> Scope {
    Scope::workspace(Uuid::from_u128(0xA))
}

fn acting(store: Arc<dyn SecretPersistence>) -> ActingSecrets {
    ConnectorSecrets::new(Stores::new(store), ConnectorOptions::default())
        .acting_as(&Actor::new("bench"))
}

/// The layers of a remote store by default, with a quota that is never reached.
#[cfg(feature = "layers")]
fn layered(store: Arc<dyn SecretPersistence>) -> Arc<dyn SecretPersistence> {
    use secret_persistence_core::layer::{Layers, LimitOptions, RetryOptions, Stack};
    let mut limit = LimitOptions::default();
    limit.read.per_second = 1e9;
    limit.write.per_second = 1e9;
    let stack = Stack::over(store)
        .with_retry(RetryOptions::default())
        .with_limit(limit);
    Layers::over(stack).with_metrics(true).build()
}

/// Microseconds of each call, per repetition.
fn measure(
    spec: &ConnectorSpec,
    config: &Value,
    rounds: usize,
    batch: usize,
) -> [Vec<f64>; CALLS.len()] {
    let (scope, policy) = (scope(), Policy::default());
    let store = Arc::new(Memory::new());
    let secrets = acting(store.clone());
    // The store in memory never waits.
    let stage = |secrets: &ActingSecrets, config| {
        let staged = secrets.stage_create(spec, &scope, config);
        staged.now_or_never().unwrap().unwrap()
    };
    let hydrate = |secrets: &ActingSecrets, saved| {
        let full = secrets.hydrate(saved);
        full.now_or_never().unwrap().unwrap()
    };
    let saved = stage(&secrets, config.clone()).config().clone();
    let full = hydrate(&secrets, saved.clone());
    let by_name: HashMap<Coordinate, SecretValue> = pointers(&saved)
        .unwrap()
        .into_iter()
        .map(|(place, pointer)| {
            let text = match place.find(&full).unwrap() {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (pointer.coordinate.unwrap(), SecretValue::new(text))
        })
        .collect();
    #[cfg(feature = "layers")]
    let layered = acting(layered(store));
    let mut figures = CALLS.map(|_| Vec::new());
    let (configs, saveds) = (vec![config; batch], vec![&saved; batch]);
    for _ in 0..rounds {
        let round = [
            per_item(&vec![(); batch], |()| config.clone()),
            per_item(&configs, |config| {
                plan_create(spec, &scope, &policy, config).unwrap()
            }),
            per_item(&configs, |config| stage(&secrets, config)),
            #[cfg(feature = "layers")]
            per_item(&configs, |config| stage(&layered, config)),
            per_item(&saveds, |saved| {
                hydrate_with(saved, |pointer| by_name.get(pointer.coordinate.as_ref()?)).unwrap()
            }),
            per_item(&saveds, |saved| hydrate(&secrets, saved)),
            #[cfg(feature = "layers")]
            per_item(&saveds, |saved| hydrate(&layered, saved)),
            per_item(&configs, |config| spec.mask(config).unwrap()),
        ];
        for (figures, micros) in figures.iter_mut().zip(round) {
            figures.push(micros);
        }
    }
    figures
}

fn update(spec: &ConnectorSpec, config: &Value) -> f64 {
    let (scope, policy) = (scope(), Policy::default());
    let saved = plan_create(spec, &scope, &policy, config.clone())
        .unwrap()
        .config;
    let mut edited = spec.mask(saved.clone()).unwrap();
    let Value::Array(list) = edited["list"].take() else {
        unreachable!("the configuration has a list");
    };
    edited["list"] = list.into_iter().rev().collect();
    let (values, references) = (HashMap::new(), References::default());
    timed(|| {
        let plan = plan_update(spec, &scope, &policy, &saved, &values, &references, edited);
        assert!(plan.unwrap().writes.is_empty());
    })
    .as_secs_f64()
        * 1e6
}

/// Microseconds for one of several items. Inputs are copied before, and outputs dropped within the time.
fn per_item<I: ToInput, O>(items: &[I], mut run: impl FnMut(I::Input) -> O) -> f64 {
    let inputs: Vec<I::Input> = items.iter().map(ToInput::to_input).collect();
    let time = timed(|| {
        for input in inputs {
            drop(black_box(run(black_box(input))));
        }
    });
    time.as_secs_f64() * 1e6 / items.len() as f64
}

trait ToInput {
    type Input;
    fn to_input(&self) -> Self::Input;
}

impl ToInput for () {
    type Input = ();
    fn to_input(&self) {}
}

impl ToInput for &Value {
    type Input = Value;
    fn to_input(&self) -> Value {
        (*self).clone()
    }
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn least(figures: Vec<f64>) -> f64 {
    figures.into_iter().fold(f64::INFINITY, f64::min)
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figures.len() as f64
}
